//! Durations of the requests that this process served, by the conventions: `http.server.request.duration`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};

use super::{Histogram, Page, Source};

/// Most combinations of route, method and status; further ones are counted as one.
const COMBINATIONS_MAX: usize = 256;
/// The route of what is beyond them.
const OTHER: &str = "other";

type Key = (u16, u8);

/// Durations by route, method and status.
#[derive(Debug, Default)]
pub struct Requests(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    routes: BTreeMap<Box<str>, BTreeMap<Key, Arc<Histogram>>>,
    combinations: usize,
}

static REQUESTS: OnceLock<Arc<Requests>> = OnceLock::new();

/// The requests of this process.
pub fn requests() -> &'static Arc<Requests> {
    REQUESTS.get_or_init(|| {
        let requests = Arc::new(Requests::default());
        super::publish(&requests);
        requests
    })
}

/// Methods by number; anything else is the last.
const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "HEAD", "_OTHER"];

fn method_number(method: &Method) -> u8 {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1) as u8
}

impl Requests {
    /// Counts a request. `route` is the pattern, never the path.
    pub fn record(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let key = (status.as_u16(), method_number(method));
        self.histogram(route, key).record(took);
    }

    fn histogram(&self, route: &str, key: Key) -> Arc<Histogram> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.routes.get(route).and_then(|route| route.get(&key)) {
            return known.clone();
        }
        let (route, key) = if inner.combinations < COMBINATIONS_MAX { (route, key) } else { (OTHER, (0, 0)) };
        inner.combinations += 1;
        inner.routes.entry(route.into()).or_default().entry(key).or_default().clone()
    }
}

impl Source for Requests {
    fn collect(&self, page: &mut Page) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (route, by_key) in &inner.routes {
            for ((status, method), histogram) in by_key {
                let labels = [
                    ("http_route", route.as_ref()),
                    ("http_request_method", METHODS[usize::from(*method)]),
                    ("http_response_status_code", &status.to_string()),
                ];
                page.histogram(
                    "http.server.request.duration",
                    "Duration of requests served.",
                    "s",
                    &labels,
                    histogram.counts(),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_bounded() {
        let requests = Requests::default();
        for n in 0..2 * COMBINATIONS_MAX {
            requests.record(&format!("/{n}"), &Method::GET, StatusCode::OK, Duration::from_millis(1));
        }
        let mut page = Page::default();
        requests.collect(&mut page);
        assert_eq!(page.families()[0].points.len(), COMBINATIONS_MAX + 1);
    }
}
