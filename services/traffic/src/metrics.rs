//! What users see, in figures: one set for the process, whatever run or continuous traffic plays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use longhaul_http::metrics::{Histogram, Page, Source, publish};

use crate::ledger::{Entry, Outcome};

/// Figures of the users of one edge.
#[derive(Debug, Default)]
pub(crate) struct EdgeFigures {
    ok: Histogram,
    failed: Histogram,
    unknown: Histogram,
    ok_writes: Histogram,
    failed_writes: Histogram,
    unknown_writes: Histogram,
}

impl EdgeFigures {
    fn of(&self, writes: bool, outcome: Outcome) -> &Histogram {
        match (writes, outcome) {
            (false, Outcome::Ok) => &self.ok,
            (false, Outcome::Failed) => &self.failed,
            (false, Outcome::Unknown) => &self.unknown,
            (true, Outcome::Ok) => &self.ok_writes,
            (true, Outcome::Failed) => &self.failed_writes,
            (true, Outcome::Unknown) => &self.unknown_writes,
        }
    }

    /// An operation ended: its latency counts from its intended start.
    pub(crate) fn ended(&self, entry: &Entry) {
        let took_ns = entry.ended_ns.saturating_sub(entry.intended_ns);
        self.of(entry.kind.writes(), entry.outcome).record_ns(took_ns);
    }
}

/// Figures of all edges. An edge that was played once stays: counters never go back.
#[derive(Debug, Default)]
pub(crate) struct Users(Mutex<BTreeMap<String, Arc<EdgeFigures>>>);

static USERS: OnceLock<Arc<Users>> = OnceLock::new();

/// The users of this process.
pub(crate) fn users() -> &'static Arc<Users> {
    USERS.get_or_init(|| {
        let users = Arc::<Users>::default();
        publish(&users);
        users
    })
}

impl Users {
    /// The figures of an edge.
    pub(crate) fn edge(&self, name: &str) -> Arc<EdgeFigures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone()
    }
}

impl Source for Users {
    fn collect(&self, page: &mut Page) {
        let help = "Duration of users' operations from their intended start.";
        for (edge, figures) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (kind, writes) in [("read", false), ("write", true)] {
                for (word, outcome) in [("ok", Outcome::Ok), ("failed", Outcome::Failed), ("unknown", Outcome::Unknown)]
                {
                    let labels = [("edge", edge.as_str()), ("kind", kind), ("outcome", word)];
                    let counts = figures.of(writes, outcome).counts();
                    page.histogram("longhaul.users.duration", help, "s", &labels, counts);
                }
            }
        }
    }
}
