//! Linearizability of one register whose writes carry unique values, by zones: exact, in O(n log n).
//!
//! Source: Gibbons and Korach, "Testing Shared Memories", 1997; as in Golab, Li and Shah, "Analyzing Consistency
//! Properties for Fun and Profit", 2011. A value's zone spans from the earliest end to the latest start of its write
//! and reads. If the end comes first the value must have been in place all that time (a forward zone): two of those
//! may not overlap, and no other value's whole life (a backward zone) may lie inside one.

use std::collections::BTreeMap;

/// One operation on the register. `value` 0 is the initial one, which nobody writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterOperation {
    /// Whether it writes.
    pub write: bool,
    /// The value written or read.
    pub value: u64,
    /// When it began.
    pub start: u64,
    /// When it ended; `u64::MAX` for a write of which that is unknown.
    pub end: u64,
}

/// Why a history is not linearizable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLinearizable {
    /// Two writes of one value.
    #[error("value {0} was written twice")]
    WrittenTwice(u64),
    /// A read of a value that nobody wrote.
    #[error("value {0} was read and never written")]
    NeverWritten(u64),
    /// A read that ended before the write of its value began.
    #[error("value {0} was read before it was written")]
    ReadBeforeWritten(u64),
    /// Two values that both must have been in place.
    #[error("values {0} and {1} must both have been in place at one time")]
    Overlap(u64, u64),
    /// A value whose life lies inside that of another.
    #[error("value {0} was written and read while {1} must have been in place")]
    Inside(u64, u64),
}

struct Zone {
    earliest_end: u64,
    latest_start: u64,
    write_start: u64,
}

/// Whether the register could have executed the operations one at a time, each between its start and its end.
pub fn linearizable(operations: &[RegisterOperation]) -> Result<(), NotLinearizable> {
    let mut reads: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for read in operations.iter().filter(|operation| !operation.write) {
        let (end, start) = reads.entry(read.value).or_insert((u64::MAX, 0));
        *end = (*end).min(read.end);
        *start = (*start).max(read.start);
    }
    let mut zones = BTreeMap::from([(0, Zone { earliest_end: 0, latest_start: 0, write_start: 0 })]);
    for write in operations.iter().filter(|operation| operation.write) {
        // A write that may never have happened and that nobody read constrains nothing.
        if write.end == u64::MAX && !reads.contains_key(&write.value) {
            continue;
        }
        let zone = Zone { earliest_end: write.end, latest_start: write.start, write_start: write.start };
        if zones.insert(write.value, zone).is_some() {
            return Err(NotLinearizable::WrittenTwice(write.value));
        }
    }
    for (value, (end, start)) in reads {
        let zone = zones.get_mut(&value).ok_or(NotLinearizable::NeverWritten(value))?;
        if end < zone.write_start {
            return Err(NotLinearizable::ReadBeforeWritten(value));
        }
        zone.earliest_end = zone.earliest_end.min(end);
        zone.latest_start = zone.latest_start.max(start);
    }
    let (forward, backward): (Vec<_>, Vec<_>) =
        zones.into_iter().partition(|(_, zone)| zone.earliest_end < zone.latest_start);
    let mut forward: Vec<(u64, u64, u64)> =
        forward.into_iter().map(|(value, zone)| (zone.earliest_end, zone.latest_start, value)).collect();
    forward.sort_unstable();
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        return Err(NotLinearizable::Overlap(pair[0].2, pair[1].2));
    }
    for (value, zone) in backward {
        // Forward zones are disjoint, so only the last one that begins before can contain it.
        let before = forward.partition_point(|(begin, _, _)| *begin < zone.latest_start);
        if let Some((begin, end, around)) = before.checked_sub(1).map(|last| forward[last])
            && begin < zone.latest_start
            && zone.earliest_end < end
        {
            return Err(NotLinearizable::Inside(value, around));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(value: u64, start: u64, end: u64) -> RegisterOperation {
        RegisterOperation { write: true, value, start, end }
    }

    fn read(value: u64, start: u64, end: u64) -> RegisterOperation {
        RegisterOperation { write: false, value, start, end }
    }

    #[test]
    fn a_read_of_an_older_value_after_a_newer_write_ended_is_refused() {
        let history = [write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)];
        assert_eq!(linearizable(&history), Err(NotLinearizable::Inside(2, 1)));
        assert_eq!(linearizable(&[write(1, 1, 2), write(2, 3, 8), read(1, 5, 6)]), Ok(()));
    }

    #[test]
    fn a_new_value_seen_and_then_the_old_one_is_refused() {
        let history = [write(1, 1, 2), write(2, 3, 20), read(2, 5, 6), read(1, 7, 8)];
        assert!(linearizable(&history).is_err());
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_or_never() {
        assert_eq!(linearizable(&[write(1, 1, u64::MAX), read(0, 5, 6)]), Ok(()));
        assert_eq!(linearizable(&[write(1, 1, u64::MAX), read(0, 5, 6), read(1, 7, 8)]), Ok(()));
        assert!(linearizable(&[write(1, 1, u64::MAX), read(1, 5, 6), read(0, 7, 8)]).is_err());
    }

    #[test]
    fn impossible_values_are_named() {
        assert_eq!(linearizable(&[read(7, 1, 2)]), Err(NotLinearizable::NeverWritten(7)));
        assert_eq!(linearizable(&[write(7, 3, 4), read(7, 1, 2)]), Err(NotLinearizable::ReadBeforeWritten(7)));
    }

    /// The definition itself: some order of the operations that respects real time explains every read.
    fn exhaustive(left: &mut Vec<RegisterOperation>, value: u64) -> bool {
        if left.iter().all(|operation| operation.write && operation.end == u64::MAX) {
            return true;
        }
        let first_end = left.iter().map(|operation| operation.end).min().unwrap_or(u64::MAX);
        for index in 0..left.len() {
            let operation = left[index];
            if operation.start > first_end || (!operation.write && operation.value != value) {
                continue;
            }
            left.remove(index);
            let next = if operation.write { operation.value } else { value };
            let found = exhaustive(left, next);
            left.insert(index, operation);
            if found {
                return true;
            }
        }
        false
    }

    proptest! {
        #[test]
        fn zones_agree_with_the_definition(
            shapes in prop::collection::vec((any::<bool>(), 0_u64..6, 0_usize..4), 1..7),
            order in Just((1_u64..=14).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut values = 0;
            let mut history = Vec::new();
            for (index, (is_write, pick, unknown)) in shapes.into_iter().enumerate() {
                let (a, b) = (order[2 * index], order[2 * index + 1]);
                let (start, end) = (a.min(b), a.max(b));
                if is_write {
                    values += 1;
                    history.push(write(values, start, if unknown == 0 { u64::MAX } else { end }));
                } else {
                    history.push(read(pick, start, end));
                }
            }
            for operation in &mut history {
                if !operation.write {
                    operation.value %= values + 1;
                }
            }
            prop_assert_eq!(linearizable(&history).is_ok(), exhaustive(&mut history.clone(), 0));
        }
    }
}
