//! Changes of members and of the in-sync set, as successors of the present regime.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::ids::{Epoch, RegionId};
use crate::operation::TraceContext;
use crate::regime::{Change, ChangeKind, Durability, MemberState, Mode, Regime};
use crate::vector::VersionVector;

/// Who makes a change, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The identity of the change.
    pub id: Uuid,
    /// Who proposes it.
    pub by: RegionId,
    /// One line for people.
    pub reason: String,
    /// Its trace.
    pub trace: Option<TraceContext>,
}

impl Author {
    pub(super) fn change(&self, kind: ChangeKind) -> Change {
        Change { kind, id: self.id, by: self.by, reason: self.reason.clone(), trace: self.trace }
    }
}

fn successor(current: &Regime, kind: ChangeKind, author: &Author) -> Regime {
    let mut next = current.clone();
    next.epoch = current.epoch.next();
    next.change = author.change(kind);
    next
}

/// The primary again, under a higher epoch: after voters have promised `promised` to a failover that came to nothing,
/// or when the primary restarted after it gave back its lease.
pub fn reassert(current: &Regime, promised: Epoch, author: &Author) -> Regime {
    let mut next = successor(current, ChangeKind::Membership, author);
    next.epoch = next.epoch.max(promised);
    next
}

/// A region that lost its disk or was restored from a backup: it joins under a new incarnation, and its old timeline is
/// sealed at what the others have of it. If that is anything in isolation (a switch out of it has just been given up),
/// its home is frozen, so that they keep it until it is back where it belongs. It is no candidate, and its
/// acknowledgements do not count, until [`activate_member`]. `None` for a primary (fail over first) and for strangers. If
/// the region is in the in-sync set, only the primary may propose this ([`crate::register::check_successor`]).
pub fn rejoin_member(current: &Regime, region: RegionId, known: &VersionVector, author: &Author) -> Option<Regime> {
    let timeline = current.timeline_of(region).filter(|_| !current.is_primary(region))?;
    let mut next = successor(current, ChangeKind::Membership, author);
    if known.get(timeline) > 0 || current.cuts.get(timeline) > 0 {
        next.cuts.advance(timeline, known.get(timeline));
    }
    let member = next.members.get_mut(&region)?;
    member.incarnation = member.incarnation.next();
    member.state = MemberState::Joining;
    next.in_sync.remove(&region);
    if current.mode == Mode::RegionalIsolation && known.get(timeline) > 0 {
        next.frozen_homes.insert(region);
    }
    Some(next)
}

/// A joining region has caught up and is a full member; its home, if it was frozen, is served again. Only once it has
/// applied what every active member had when it asked.
pub fn activate_member(current: &Regime, region: RegionId, author: &Author) -> Option<Regime> {
    let mut next = successor(current, ChangeKind::Membership, author);
    let member = next.members.get_mut(&region).filter(|member| member.state == MemberState::Joining)?;
    member.state = MemberState::Active;
    next.frozen_homes.remove(&region);
    Some(next)
}

/// A joining region whose home was frozen brings the home's records back, once every active member has applied the
/// region's timeline up to `head`. Under one primary the timeline ends there: whatever the region writes later, it writes
/// as primary, in another life.
pub fn bring_home(current: &Regime, region: RegionId, head: u64, author: &Author) -> Option<Regime> {
    let timeline = current.timeline_of(region)?;
    let mut next = activate_member(current, region, author)?;
    if current.mode == Mode::ActivePassive && head > 0 {
        next.cuts.advance(timeline, head);
        let member = next.members.get_mut(&region)?;
        member.incarnation = member.incarnation.next();
    }
    Some(next)
}

/// Leaves a region out: it must wipe and join again. `None` for the primary. Under `semi` the primary must not propose
/// this before every remaining follower has its whole timeline, since fewer followers are asked in a failover then.
pub fn leave_out(current: &Regime, region: RegionId, author: &Author) -> Option<Regime> {
    let mut next = successor(current, ChangeKind::Membership, author);
    let member = next.members.get_mut(&region).filter(|_| !current.is_primary(region))?;
    member.state = MemberState::Evicted;
    next.in_sync.remove(&region);
    Some(next)
}

/// Another in-sync set, proposed by the primary. A region enters only once it has applied the primary's head; it leaves
/// **before** any write is acknowledged without it, which is after this regime is chosen. `None` outside `sync`, if
/// nothing changes, and for regions that are no active followers.
pub fn set_in_sync(current: &Regime, in_sync: BTreeSet<RegionId>, author: &Author) -> Option<Regime> {
    let eligible = |region: &RegionId| current.is_active(*region) && current.primary != Some(*region);
    let fits = current.durability == Durability::Sync && in_sync != current.in_sync && in_sync.iter().all(eligible);
    fits.then(|| {
        let mut next = successor(current, ChangeKind::InSync, author);
        next.in_sync = in_sync;
        next
    })
}
