//! Records written lately: saves the store a read for each write of a hot record, and for each read of one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use longhaul_core::ids::RecordKey;
use longhaul_core::record::Record;

/// Records in one generation.
const GENERATION_RECORDS_MAX: usize = 16_384;
/// Approximate bytes in one generation.
const GENERATION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A cache of two generations: a full young one becomes the old one, and the old one goes. **Only the writer fills
/// it**, after the commit and before anybody is told, so that it never holds anything older than the store does. (A
/// reader that filled it could put back what it read before a commit.)
#[derive(Debug, Default)]
pub struct RecordCache(Mutex<Generations>);

/// Looked up by key only; nothing ever walks through the maps, so their order does not matter.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<RecordKey, Record>,
    old: HashMap<RecordKey, Record>,
    young_bytes: usize,
}

impl Generations {
    fn insert(&mut self, record: Record) {
        if self.young.len() >= GENERATION_RECORDS_MAX || self.young_bytes >= GENERATION_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += 256 + record.value.as_ref().map_or(0, bytes::Bytes::len);
        self.young.insert(record.key.clone(), record);
    }
}

impl RecordCache {
    /// The record, if it was written lately.
    pub fn get(&self, key: &RecordKey) -> Option<Record> {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.get(key).or_else(|| generations.old.get(key)).cloned()
    }

    /// Takes what a commit wrote and removed.
    pub(crate) fn update(&self, written: impl Iterator<Item = Record>, removed: &[RecordKey]) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in removed {
            generations.young.remove(key);
            generations.old.remove(key);
        }
        for record in written {
            generations.insert(record);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Generations::default();
    }
}
