//! What really happened: every accepted operation, and what follows from it. The oracle knows no rule of replication;
//! it only remembers and takes maxima.

use std::collections::{BTreeMap, BTreeSet};

use longhaul_core::ids::{Dot, RecordKey, Timeline};
use longhaul_core::operation::{Chain, Operation, OperationKind};
use longhaul_core::record::Record;
use longhaul_core::vector::VersionVector;
use longhaul_core::version::Version;

/// The last write of a key, and whether it was a delete.
pub(crate) type Last = (Version, bool);
/// The last write of every key that a replica has ever applied, collected or not.
pub(crate) type Shadow = BTreeMap<RecordKey, Last>;

struct Fact {
    key: Option<RecordKey>,
    version: Version,
    delete: bool,
    chain: Chain,
}

/// Every operation that any region accepted.
#[derive(Default)]
pub(crate) struct Oracle {
    facts: BTreeMap<Dot, Fact>,
    heads: BTreeMap<Timeline, Version>,
}

impl Oracle {
    /// A region accepted an operation: versions rise along the timeline (I3), sequence numbers are dense.
    pub(crate) fn accepted(&mut self, operation: &Operation) -> Result<(), String> {
        let dot = operation.dot;
        let before = self.heads.insert(dot.timeline, operation.version);
        if before.is_some_and(|before| before >= operation.version) {
            return Err(format!("I3: {dot} got {:?} after {before:?}", operation.version));
        }
        if dot.seq > 1 && !self.facts.contains_key(&Dot { seq: dot.seq - 1, ..dot }) {
            return Err(format!("I2: {dot} was accepted after a gap"));
        }
        let fact = Fact {
            key: operation.key(),
            version: operation.version,
            delete: operation.kind == OperationKind::Delete,
            chain: operation.chain,
        };
        match self.facts.insert(dot, fact) {
            Some(_) => Err(format!("I2: {dot} was accepted twice")),
            None => Ok(()),
        }
    }

    /// A replica stored an operation right after position `held`: no gap, and one history under one number (I2).
    pub(crate) fn stored(&self, operation: &Operation, held: u64) -> Result<(), String> {
        let dot = operation.dot;
        if dot.seq != held + 1 {
            return Err(format!("I2: {dot} was applied after {held}"));
        }
        match self.facts.get(&dot) {
            Some(fact) if fact.chain == operation.chain => Ok(()),
            _ => Err(format!("I2: {dot} was applied with another history")),
        }
    }

    /// A member that holds `vector` has everything of history at or below `frontier` (I10).
    pub(crate) fn covered(
        &self,
        frontier: Version,
        cuts: &VersionVector,
        vector: &VersionVector,
    ) -> Result<(), String> {
        let open = |dot: &Dot, fact: &Fact| fact.version <= frontier && in_history(cuts, *dot) && !vector.covers(*dot);
        match self.facts.iter().find(|(dot, fact)| open(dot, fact)) {
            Some((dot, fact)) => Err(format!("I10: frontier {frontier:?} passes {dot} {:?}", fact.version)),
            None => Ok(()),
        }
    }

    /// Everything that belongs to history, as a vector.
    pub(crate) fn history(&self, cuts: &VersionVector) -> VersionVector {
        let mut vector = VersionVector::default();
        for dot in self.facts.keys().filter(|dot| in_history(cuts, **dot)) {
            vector.advance(dot.timeline, dot.seq);
        }
        vector
    }

    /// No two operations of history have one version (I3). A lost tail is no history: nobody is left who knows its
    /// versions.
    pub(crate) fn versions_are_unique(&self, cuts: &VersionVector) -> Result<(), String> {
        let mut versions = BTreeSet::new();
        match self.facts.iter().find(|(dot, fact)| in_history(cuts, **dot) && !versions.insert(fact.version)) {
            Some((dot, fact)) => Err(format!("I3: {dot} reuses {:?}", fact.version)),
            None => Ok(()),
        }
    }

    /// The last write of every key in history.
    pub(crate) fn last(&self, cuts: &VersionVector) -> Shadow {
        let mut shadow = Shadow::new();
        for (_, fact) in self.facts.iter().filter(|(dot, _)| in_history(cuts, **dot)) {
            if let Some(key) = &fact.key {
                raise(&mut shadow, key, (fact.version, fact.delete));
            }
        }
        shadow
    }
}

fn in_history(cuts: &VersionVector, dot: Dot) -> bool {
    cuts.0.get(&dot.timeline).is_none_or(|cut| dot.seq <= *cut)
}

/// Takes a write into a shadow.
pub(crate) fn raise(shadow: &mut Shadow, key: &RecordKey, last: Last) {
    match shadow.get_mut(key) {
        Some(mine) => *mine = (*mine).max(last),
        None => {
            shadow.insert(key.clone(), last);
        }
    }
}

/// Live records are exactly the last writes that are not deletes (I5).
pub(crate) fn agree(records: &BTreeMap<RecordKey, Record>, shadow: &Shadow) -> Result<(), String> {
    for key in records.keys().chain(shadow.keys()) {
        let have = records.get(key).filter(|record| !record.is_tombstone()).map(|record| record.version);
        let want = shadow.get(key).filter(|last| !last.1).map(|last| last.0);
        let what = match (have, want) {
            (have, want) if have == want => continue,
            (Some(_), None) => "came back",
            (None, _) => "is lost",
            _ => "diverged",
        };
        return Err(format!("I5: {key} {what}: have {have:?}, want {want:?}"));
    }
    Ok(())
}
