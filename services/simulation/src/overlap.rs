//! Faults that hit the same thing at the same time: the end of one does not end the other.

use crate::schedule::Fault;

/// What a fault changes, where two of a kind may overlap.
#[derive(Debug, PartialEq, Eq)]
enum Subject<'a> {
    Clock(&'a str),
    Disk(&'a str),
    /// What passes between hosts is held back.
    Held,
    /// How good a link is, whichever way.
    Quality(&'a str, &'a str),
}

fn subject(fault: &Fault) -> Option<Subject<'_>> {
    match fault {
        Fault::ClockStep { region, .. } | Fault::ClockDrift { region, .. } => Some(Subject::Clock(region)),
        Fault::SlowDisk { region, .. } => Some(Subject::Disk(region)),
        Fault::Hold { .. } | Fault::Freeze { .. } => Some(Subject::Held),
        Fault::Bad { a, b, .. } | Fault::Flap { a, b, .. } => {
            let (a, b) = if a < b { (a, b) } else { (b, a) };
            Some(Subject::Quality(a, b))
        }
        _ => None,
    }
}

/// Whether the end of one fault takes the other one back as well, so that it has to be done again.
pub(crate) fn undoes(ended: &Fault, other: &Fault) -> bool {
    subject(ended).is_some_and(|ended| subject(other) == Some(ended))
}

/// Whether a fault keeps a host's process from running.
pub(crate) fn holds_down(fault: &Fault, host: &str) -> bool {
    match fault {
        Fault::Crash { host: down } | Fault::CrashInCommit { region: down, .. } | Fault::DiskLoss { region: down } => {
            down == host
        }
        _ => false,
    }
}

/// Whether a fault cuts a directed link. `between_regions` says that both of its ends are regions.
pub(crate) fn cuts(fault: &Fault, (from, to): (&str, &str), between_regions: bool) -> bool {
    match fault {
        Fault::Cut { a, b } => (a == from && b == to) || (a == to && b == from),
        Fault::CutOneWay { from: a, to: b } => a == from && b == to,
        Fault::Partition { region } => between_regions && (region == from || region == to),
        Fault::Isolate { region } => region == from || region == to,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> String {
        name.to_owned()
    }

    #[test]
    fn a_link_stays_cut_until_the_last_of_its_faults_has_ended() {
        let isolated = Fault::Isolate { region: name("a") };
        assert!(cuts(&isolated, ("edge", "a"), false) && cuts(&isolated, ("a", "b"), true));
        let partitioned = Fault::Partition { region: name("a") };
        assert!(cuts(&partitioned, ("b", "a"), true) && !cuts(&partitioned, ("edge", "a"), false));
        let one_way = Fault::CutOneWay { from: name("a"), to: name("b") };
        assert!(cuts(&one_way, ("a", "b"), true) && !cuts(&one_way, ("b", "a"), true));
        assert!(cuts(&Fault::Cut { a: name("a"), b: name("b") }, ("b", "a"), true));
    }

    #[test]
    fn what_is_taken_back_with_another_fault_is_of_its_kind() {
        let step = Fault::ClockStep { region: name("a"), by_ms: 1 };
        let drift = |region: &str| Fault::ClockDrift { region: name(region), ppm: 1 };
        assert!(undoes(&step, &drift("a")) && !undoes(&step, &drift("b")));
        let hold = Fault::Hold { from: name("a"), to: name("b") };
        assert!(undoes(&Fault::Freeze { host: name("c") }, &hold) && !undoes(&hold, &step));
        let crash = Fault::Crash { host: name("a") };
        assert!(holds_down(&crash, "a") && !holds_down(&crash, "b") && !undoes(&crash, &crash));
    }
}
