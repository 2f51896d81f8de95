//! Metrics: what each service can tell about itself in figures, read when somebody asks.
//!
//! A service implements [`Source`] and publishes itself; `/metrics` writes its page as text, and telemetry pushes the
//! pages of all sources of the process. Nothing is registered per event, so that reading costs where it is asked for
//! and counting costs an atomic addition.
//!
//! **Cardinality is bounded by construction**: labels are names of places, codes and routes, never ids of records,
//! operations or users; a page keeps at most [`SERIES_MAX`] series.

mod histogram;
mod requests;
mod text;

use std::sync::{Arc, Mutex, PoisonError, Weak};

pub use histogram::{Counts, Histogram, SECONDS};
pub use requests::{Requests, requests};
pub use text::{CONTENT_TYPE, prometheus_name, text};

/// Most series of one page; what comes later is left out, and counted.
pub const SERIES_MAX: usize = 5000;

/// What kind of figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Counts(Counts),
}

/// One series: labels and the figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Labels, in the order in which they are written.
    pub labels: Vec<(&'static str, String)>,
    /// The figure.
    pub value: Value,
}

/// A metric with its series.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// OpenTelemetry's name, with dots: `longhaul.replication.lag`.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub help: &'static str,
    /// The unit in UCUM: `s`, `By`, `1`, or a thing in braces.
    pub unit: &'static str,
    /// What kind of figure it is.
    pub kind: Kind,
    /// Its series.
    pub points: Vec<Point>,
}

/// Everything that a source tells.
#[derive(Debug, Default)]
pub struct Page {
    labels: Vec<(&'static str, String)>,
    families: Vec<Family>,
    series: usize,
    left_out: u64,
}

impl Page {
    /// An empty page whose series all carry these labels.
    pub fn new(labels: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self { labels: labels.into_iter().collect(), ..Self::default() }
    }

    /// The labels of what follows.
    pub fn label(&mut self, labels: impl IntoIterator<Item = (&'static str, String)>) {
        self.labels = labels.into_iter().collect();
    }

    /// Adds a counter's series.
    pub fn counter(&mut self, name: &'static str, help: &'static str, unit: &'static str, labels: &Labels<'_>, n: u64) {
        self.add((name, help, unit, Kind::Counter), labels, Value::Number(n as f64));
    }

    /// Adds a gauge's series.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, unit: &'static str, labels: &Labels<'_>, now: f64) {
        self.add((name, help, unit, Kind::Gauge), labels, Value::Number(now));
    }

    /// Adds a histogram's series.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: &'static str,
        labels: &Labels<'_>,
        counts: Counts,
    ) {
        self.add((name, help, unit, Kind::Histogram), labels, Value::Counts(counts));
    }

    fn add(
        &mut self,
        (name, help, unit, kind): (&'static str, &'static str, &'static str, Kind),
        labels: &Labels<'_>,
        value: Value,
    ) {
        if self.series == SERIES_MAX {
            self.left_out += 1;
            return;
        }
        self.series += 1;
        let own = labels.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let point = Point { labels: self.labels.iter().cloned().chain(own).collect(), value };
        match self.families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.points.push(point),
            None => self.families.push(Family { name, help, unit, kind, points: vec![point] }),
        }
    }

    /// The metrics in the order in which they were first told.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// Series that were left out because the page was full.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// Labels of one series.
pub type Labels<'a> = [(&'static str, &'a str)];

/// Something that has figures to tell.
pub trait Source: Send + Sync {
    /// Writes them down.
    fn collect(&self, page: &mut Page);
}

/// The sources of this process: one role has one, a test with several regions has several.
static SOURCES: Mutex<Vec<Weak<dyn Source>>> = Mutex::new(Vec::new());

/// Makes a source known for as long as it lives.
pub fn publish(source: &Arc<impl Source + 'static>) {
    let source: Arc<dyn Source> = source.clone();
    let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    sources.retain(|source| source.strong_count() > 0);
    sources.push(Arc::downgrade(&source));
}

/// What all sources of the process tell now.
pub fn collect() -> Page {
    let sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut page = Page::default();
    for source in sources.iter().filter_map(Weak::upgrade) {
        page.label([]);
        source.collect(&mut page);
    }
    page
}

/// What one source tells, and how long the process's requests took, as the text of `/metrics`.
pub fn text_with(source: &impl Source) -> String {
    let mut page = Page::default();
    source.collect(&mut page);
    page.label([]);
    requests().collect(&mut page);
    text(&page)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Many;

    impl Source for Many {
        fn collect(&self, page: &mut Page) {
            page.label([("region", "eu".to_owned())]);
            for n in 0..SERIES_MAX + 2 {
                page.gauge("longhaul.many", "Many.", "1", &[("n", &n.to_string())], 1.0);
            }
        }
    }

    #[test]
    fn a_page_is_bounded_and_says_what_it_left_out() {
        let mut page = Page::default();
        Many.collect(&mut page);
        assert_eq!(page.families()[0].points.len(), SERIES_MAX);
        assert_eq!(page.left_out(), 2);
        assert_eq!(page.families()[0].points[0].labels, [("region", "eu".to_owned()), ("n", "0".to_owned())]);
    }

    #[test]
    fn a_source_is_told_for_as_long_as_it_lives() {
        struct One;
        impl Source for One {
            fn collect(&self, page: &mut Page) {
                page.counter("longhaul.one", "One.", "{thing}", &[], 7);
            }
        }
        let told = || collect().families().iter().any(|family| family.name == "longhaul.one");
        let one = Arc::new(One);
        publish(&one);
        assert!(told());
        drop(one);
        assert!(!told());
    }
}
