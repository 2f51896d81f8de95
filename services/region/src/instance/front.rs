//! What the instance's listener answers now. Connections stay while the instance changes what it is.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use tower::ServiceExt as _;

/// The router of the moment.
#[derive(Clone)]
pub(super) struct Front {
    current: Arc<Mutex<Router>>,
}

impl Front {
    pub(super) fn new(router: Router) -> Self {
        Self { current: Arc::new(Mutex::new(router)) }
    }

    /// Answers with `router` from now on; requests that are open stay with the one that they came to.
    pub(super) fn show(&self, router: Router) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// A router for the listener that passes every request to the one of the moment.
    pub(super) fn router(&self) -> Router {
        let front = self.clone();
        Router::new().fallback(move |request: Request| {
            let front = front.clone();
            async move { front.answer(request).await }
        })
    }

    async fn answer(&self, request: Request) -> Response {
        let router = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
