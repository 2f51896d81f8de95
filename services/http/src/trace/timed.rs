//! Spans of what has happened already.
//!
//! Much of a write's way is known only afterwards, and in batches: who was in a commit, when a peer had it. Such spans
//! are made in one statement, with their beginning and end as the fields `longhaul.from_ns` and `longhaul.to_ns`
//! (nanoseconds since boot), their own ids as `longhaul.context`, and dropped at once:
//!
//! ```
//! # use longhaul_http::trace::{Text, TraceIds};
//! # let ids = TraceIds::new(1);
//! # let (parent, began, ended) = (ids.root(), 1_u64, 2_u64);
//! tracing::debug_span!(
//!     "region.commit",
//!     longhaul.context = %Text(ids.child(parent)),
//!     longhaul.parent = %Text(parent),
//!     longhaul.from_ns = began,
//!     longhaul.to_ns = ended,
//! );
//! ```

use longhaul_core::operation::TraceContext;

use super::Text;

/// Most links of one span. The SDK keeps as many (`opentelemetry_sdk::trace::SpanLimits`), and drops the rest.
pub const LINKS_MAX: usize = 128;

/// Spans that another one has to do with, for its field `longhaul.links`.
#[derive(Debug, Default)]
pub struct Links {
    contexts: Vec<TraceContext>,
    left_out: u64,
}

impl Links {
    /// Adds one; beyond [`LINKS_MAX`] it is counted only.
    pub fn add(&mut self, context: TraceContext) {
        if self.contexts.len() < LINKS_MAX {
            self.contexts.push(context);
        } else {
            self.left_out += 1;
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.contexts.is_empty()
    }

    /// How many were left out.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl Extend<TraceContext> for Links {
    fn extend<T: IntoIterator<Item = TraceContext>>(&mut self, contexts: T) {
        contexts.into_iter().for_each(|context| self.add(context));
    }
}

impl std::fmt::Display for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, context) in self.contexts.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", Text(*context))?;
        }
        Ok(())
    }
}

/// The field's text for these contexts.
pub fn links_text(contexts: impl IntoIterator<Item = TraceContext>) -> String {
    let mut links = Links::default();
    links.extend(contexts);
    links.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::TraceIds;
    use super::*;

    #[test]
    fn links_are_bounded_and_say_how_many_are_left_out() {
        let ids = TraceIds::new(1);
        let mut links = Links::default();
        links.extend((0..LINKS_MAX + 3).map(|_| ids.root()));
        assert_eq!(links.left_out(), 3);
        assert_eq!(links.to_string().split(',').count(), LINKS_MAX);
    }
}
