//! Rules broken on purpose. The harness bypasses one rule; the shipped code knows nothing of it. A check that lets a
//! broken rule pass proves nothing about the whole one.

/// Which rule the harness bypasses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// None: the rules as shipped.
    None,
    /// Tombstones go by age.
    CollectByAge,
    /// A tombstone goes once every member has it.
    CollectWhenAllHaveIt,
    /// The frontier looks at the newest version of each region, not of each timeline.
    FrontierPerRegion,
    /// An evicted region comes back with its old log and ships it.
    EvictedMerges,
    /// A snapshot replaces what the receiver has.
    SnapshotReplaces,
    /// A row that came late with a snapshot is taken although it was deleted and collected here.
    SnapshotRevives,
    /// A restarted region starts its clock from the wall clock alone.
    ClockForgets,
    /// A region in a new life starts its clock without the regime's floor.
    JoinWithoutFloor,
    /// Operations are applied although some before them are missing.
    ApplyWithGaps,
    /// Equal clock values of different regions: the one that comes last wins.
    NoTieBreak,
}

impl Mutant {
    /// Every rule that can be broken.
    pub(crate) const ALL: [Self; 10] = [
        Self::CollectByAge,
        Self::CollectWhenAllHaveIt,
        Self::FrontierPerRegion,
        Self::EvictedMerges,
        Self::SnapshotReplaces,
        Self::SnapshotRevives,
        Self::ClockForgets,
        Self::JoinWithoutFloor,
        Self::ApplyWithGaps,
        Self::NoTieBreak,
    ];
}
