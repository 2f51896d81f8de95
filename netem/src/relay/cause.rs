//! What a connection's bytes are for, as far as their first line tells.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why bytes cross a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Requests of users, and whatever is not recognised.
    Users,
    /// Shipping of operations between regions.
    Replication,
    /// Votes, leases, transitions and other internal talk.
    Regime,
    /// Round-trip probes.
    Probe,
}

const METHODS: [&[u8]; 5] = [b"GET ", b"POST ", b"PUT ", b"DELETE ", b"PATCH "];

impl Cause {
    const ALL: [Self; 4] = [Self::Users, Self::Replication, Self::Regime, Self::Probe];

    pub(crate) fn from_index(index: u8) -> Self {
        Self::ALL.get(usize::from(index)).copied().unwrap_or(Self::Users)
    }

    /// The name in figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Replication => "replication",
            Self::Regime => "regime",
            Self::Probe => "probe",
        }
    }

    /// The cause that a chunk from the dialer declares, if it begins with the line of an HTTP request. A pooled connection
    /// carries requests of several kinds one after the other.
    pub fn of_request(chunk: &[u8]) -> Option<Self> {
        let path = METHODS.iter().find_map(|method| chunk.strip_prefix(*method))?;
        Some(if path.starts_with(b"/internal/v1/replicat") {
            Self::Replication
        } else if path.starts_with(b"/internal/v1/probe") {
            Self::Probe
        } else if path.starts_with(b"/internal/") || path.starts_with(b"/v1/regime") {
            Self::Regime
        } else {
            Self::Users
        })
    }
}

/// Bytes delivered, by cause.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; 4]);

impl Counters {
    pub(crate) fn add(&self, cause: Cause, bytes: usize) {
        self.0[cause as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn by_cause(&self) -> BTreeMap<String, u64> {
        Cause::ALL
            .into_iter()
            .map(|cause| (cause.as_str().to_owned(), self.0[cause as usize].load(Ordering::Relaxed)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_request_tells_the_cause() {
        let of = |text: &str| Cause::of_request(text.as_bytes());
        assert_eq!(of("GET /internal/v1/replicate HTTP/1.1\r\n"), Some(Cause::Replication));
        assert_eq!(of("GET /internal/v1/probe HTTP/1.1\r\n"), Some(Cause::Probe));
        assert_eq!(of("POST /internal/v1/votes HTTP/1.1\r\n"), Some(Cause::Regime));
        assert_eq!(of("GET /v1/regime HTTP/1.1\r\n"), Some(Cause::Regime));
        assert_eq!(of("PUT /v1/records/2/a HTTP/1.1\r\n"), Some(Cause::Users));
        assert_eq!(of("{\"value\": 1}"), None);
        assert_eq!(of(""), None);
    }
}
