//! What a read showed, in the order of versions: the one place that knows what "older" means.
//!
//! A read of an absent record shows no version. It is taken for the newest delete that may have been what it saw: one
//! that began before the read ended. If a delete of unknown version may have, nothing can be held against the read.

use longhaul_core::version::Version;

use super::history::Case;
use crate::ledger::Entry;
use crate::value::Observed;

/// How new a read's answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As new as this version (`Version::ZERO`: as before the first write).
    AtLeast(Version),
    /// It cannot be told.
    Anything,
}

impl Shown {
    /// Whether it was older than `version`.
    pub fn is_older_than(self, version: Version) -> bool {
        matches!(self, Self::AtLeast(shown) if shown < version)
    }
}

/// How new the answer of a read was.
pub fn shown(case: &Case<'_>, read: &Entry) -> Shown {
    match (read.observed, read.version) {
        (Observed::Absent, _) => {
            let (ledger, history) = (case.ledger, &case.history);
            let mut newest = Version::ZERO;
            for index in &history.deletes[read.key as usize] {
                if ledger.entries[*index].write_ns < read.ended_ns {
                    match history.version[*index] {
                        Some(version) => newest = newest.max(version),
                        None => return Shown::Anything,
                    }
                }
            }
            Shown::AtLeast(newest)
        }
        (Observed::Value(_), Some(version)) => Shown::AtLeast(version),
        _ => Shown::Anything,
    }
}

/// What a read proves that its session has seen, for later reads to be held against; `None` if that is nothing. Of a
/// read of an absent record that is the **oldest** delete that it may have been, given what was seen `before`.
pub fn proves(case: &Case<'_>, read: &Entry, before: Option<Version>) -> Option<Version> {
    match (read.observed, read.version) {
        (Observed::Value(_), version) => version,
        (Observed::Absent, _) => {
            let before = before?;
            let mut oldest: Option<Version> = None;
            for index in &case.history.deletes[read.key as usize] {
                if case.ledger.entries[*index].write_ns < read.ended_ns {
                    let version = case.history.version[*index]?;
                    if version >= before {
                        oldest = Some(oldest.map_or(version, |known| known.min(version)));
                    }
                }
            }
            oldest
        }
        _ => None,
    }
}

/// Whether the read showed a write that was lost later: what follows from that is part of the recovery point. That is
/// also a write that was put aside and happened once more, by a retry of its user, under another version; and one of
/// which its user does not know. An absent record may have shown any delete that began before the read ended.
pub fn showed_a_lost_write(case: &Case<'_>, read: &Entry) -> bool {
    let history = &case.history;
    match read.observed {
        Observed::Value(op_id) => {
            let Some(index) = history.entry_of.get(&op_id) else { return false };
            let shown_still = |version| history.surviving_versions.contains(&(op_id, version));
            history.lost[*index] || history.quarantined.contains(&op_id) && !read.version.is_some_and(shown_still)
        }
        Observed::Absent => history.deletes[read.key as usize].iter().any(|index| {
            let delete = &case.ledger.entries[*index];
            let lost = history.lost[*index] || history.quarantined.contains(&delete.op_id);
            lost && delete.write_ns < read.ended_ns
        }),
        Observed::Nothing | Observed::Foreign => false,
    }
}
