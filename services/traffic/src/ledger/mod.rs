//! The ledger: what the clients saw. Every figure of a report comes from it, and from what was found afterwards.

mod pages;
mod record;

use std::collections::BTreeMap;

use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::Dot;
use longhaul_core::operation::TraceContext;
use longhaul_core::version::Version;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use pages::Pages;
pub(crate) use pages::fetch;
pub use record::{LedgerFile, OpenLedgerError};

use crate::value::Observed;
use crate::workload::{Key, Kind};

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Some attempt was answered with a success. (A read of an absent record, a delete of one, and an append whose
    /// `If-Match` did not hold are answers too: the service did what it was asked to.)
    Ok,
    /// Every attempt failed definitely: it never took effect.
    Failed,
    /// Some attempt may have taken effect, and none succeeded.
    Unknown,
}

/// What reads ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Whatever the nearest region has.
    Eventual,
    /// At least what the session has seen.
    Session,
    /// The newest.
    Primary,
}

impl Consistency {
    /// Reads the workload's word; anything unknown is `eventual`.
    pub fn parse(text: &str) -> Self {
        match text {
            "session" => Self::Session,
            "primary" => Self::Primary,
            _ => Self::Eventual,
        }
    }

    /// The word in the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Session => "session",
            Self::Primary => "primary",
        }
    }
}

/// One finished operation. All times are nanoseconds since boot, of one clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number in the run.
    pub n: u32,
    /// Its id: the idempotency key of all its attempts.
    pub op_id: Uuid,
    /// The edge, an index into [`Ledger::edges`].
    pub edge: u16,
    /// The session at that edge.
    pub session: u16,
    /// The operation of the same session whose answer gave the session token that this one carried.
    pub parent: Option<u32>,
    /// The record, an index into [`Ledger::keys`].
    pub key: u32,
    /// What it did.
    pub kind: Kind,
    /// What its read asked for.
    pub consistency: Consistency,
    /// When it was meant to start.
    pub intended_ns: u64,
    /// When its first attempt was sent; 0 if it never was.
    pub sent_ns: u64,
    /// When the first attempt of the write itself was sent (an append reads first); 0 if it never was.
    pub write_ns: u64,
    /// When the answer was there, or its user gave up.
    pub ended_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The code of the last problem document, if the last attempt had one.
    pub code: Option<ErrorCode>,
    /// Attempts made.
    pub attempts: u8,
    /// The region that served it, by name (an index into [`Ledger::regions`]).
    pub region: Option<u16>,
    /// The epoch that the answer named.
    pub epoch: u64,
    /// Of a write: its place in a log.
    pub dot: Option<Dot>,
    /// The version that it wrote or read.
    pub version: Option<Version>,
    /// Of an append: the version of the list that it was built on, if there was a list.
    pub base: Option<Version>,
    /// Of a read: what it showed.
    pub observed: Observed,
    /// The root of its trace.
    pub trace: Option<TraceContext>,
}

impl Entry {
    /// Whether it succeeded in its user's eyes.
    pub fn succeeded(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// Whether it is a write that was acknowledged as accepted.
    pub fn acknowledged(&self) -> bool {
        self.kind.writes() && self.outcome == Outcome::Ok && self.version.is_some()
    }

    /// Whether it is a write that may have taken effect.
    pub fn may_have_effect(&self) -> bool {
        self.kind.writes() && self.write_ns > 0 && (self.acknowledged() || self.outcome == Outcome::Unknown)
    }

    /// Whether it was never sent because too many were in flight.
    pub fn not_sent(&self) -> bool {
        self.attempts == 0
    }
}

/// An edge of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Its name.
    pub name: String,
    /// Its users' home, an index into [`Ledger::homes`].
    pub home: u16,
}

/// Everything that the users of a run saw.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The edges.
    pub edges: Vec<Edge>,
    /// The homes of records, by name.
    pub homes: Vec<String>,
    /// The regions, by name; region number n of dots and versions is the n-th, from 1.
    pub regions: Vec<String>,
    /// Distinguishes this run's record ids.
    pub tag: String,
    /// Start of the measured run, nanoseconds since boot.
    pub start_ns: u64,
    /// End of the measured run, nanoseconds since boot.
    pub end_ns: u64,
    /// The deadline of an operation from its intended start, nanoseconds.
    pub deadline_ns: u64,
    /// Every record that was touched.
    pub keys: Vec<Key>,
    /// Every operation, in the order in which they ended.
    pub entries: Vec<Entry>,
    pub(crate) index: BTreeMap<Key, u32>,
}

impl Ledger {
    /// The index of a record, added if it is new.
    pub fn intern(&mut self, key: Key) -> u32 {
        *self.index.entry(key).or_insert_with(|| {
            self.keys.push(key);
            (self.keys.len() - 1) as u32
        })
    }

    /// Whether an operation counts as measured: meant to start after the warm-up and before the end.
    pub fn is_measured(&self, entry: &Entry) -> bool {
        entry.intended_ns >= self.start_ns && entry.intended_ns < self.end_ns
    }

    /// Operations of the measured run.
    pub fn measured(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| self.is_measured(entry))
    }

    /// Seconds from the start of the measured run.
    pub fn seconds(&self, boot_ns: u64) -> f64 {
        (boot_ns as f64 - self.start_ns as f64) / 1e9
    }

    /// The name of a record's home.
    pub fn home_name(&self, key: u32) -> &str {
        &self.homes[usize::from(self.keys[key as usize].home)]
    }

    /// A record as `home/id`.
    pub fn key_text(&self, key: u32) -> String {
        format!("{}/{}", self.home_name(key), self.keys[key as usize].record_id(&self.tag))
    }

    /// Whether the record belongs to another home than the edge's users.
    pub fn is_foreign(&self, entry: &Entry) -> bool {
        self.keys[entry.key as usize].home != self.edges[usize::from(entry.edge)].home
    }

    /// Whether the regime forbade the operation by design: a foreign record where only its home may touch it.
    pub fn is_policy_denial(&self, entry: &Entry) -> bool {
        entry.outcome == Outcome::Failed && entry.code == Some(ErrorCode::WrongHome) && self.is_foreign(entry)
    }
}
