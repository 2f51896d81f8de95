use super::*;
use crate::regime::Durability;

const MS: u64 = 1_000_000;

fn genesis() -> Regime {
    Regime::genesis([1, 2, 3].map(RegionId), Mode::ActivePassive, Some(RegionId(1)), Durability::Local)
}

fn ballot(round: u64, region: u16) -> Ballot {
    Ballot { round, region: RegionId(region) }
}

fn lease(epoch: u64, holder: u16) -> VoterRequest {
    VoterRequest::Lease(LeaseRequest { epoch: Epoch(epoch), holder: RegionId(holder), sent_boot_ns: 7 })
}

fn prepare(round: u64, region: u16, fence: Option<u64>) -> VoterRequest {
    VoterRequest::Prepare(Prepare { ballot: ballot(round, region), fence: fence.map(Epoch) })
}

fn accept(round: u64, region: u16, primary: u16, release: Option<Release>) -> VoterRequest {
    let mut value = genesis();
    value.epoch = Epoch(2);
    value.primary = Some(RegionId(primary));
    VoterRequest::Accept(Box::new(Accept { ballot: ballot(round, region), value, release }))
}

fn is_granted(effect: &Effect) -> bool {
    matches!(effect.reply, VoterReply::Granted { .. })
}

#[test]
fn only_the_first_grant_of_a_lease_needs_storage() {
    let mut voter = Voter::new(&genesis());
    assert!(voter.handle(&lease(1, 1), 0).persist);
    let renewed = voter.handle(&lease(1, 1), 500 * MS);
    assert!(is_granted(&renewed) && !renewed.persist);
}

#[test]
fn a_fence_waits_for_the_lease_and_nobody_prolongs_it() {
    let mut voter = Voter::new(&genesis());
    voter.handle(&lease(1, 1), 0);
    let effect = voter.handle(&prepare(1, 2, Some(2)), 500 * MS);
    assert_eq!(effect.reply, VoterReply::Wait { ballot: ballot(1, 2), after_ms: 1500 });
    assert!(effect.persist && voter.promised_epoch() == Epoch(2));
    let refused = VoterReply::LeaseRefused(LeaseRefusal::Fenced { promised: Epoch(2) });
    assert_eq!(voter.handle(&lease(1, 1), 600 * MS).reply, refused);
    let again = voter.handle(&prepare(1, 2, Some(2)), 2000 * MS);
    assert!(matches!(again.reply, VoterReply::Promise(_)));
}

#[test]
fn a_primary_that_fences_itself_off_waits_for_its_own_lease_unless_it_gave_it_back() {
    let mut voter = Voter::new(&genesis());
    voter.handle(&lease(1, 1), 0);
    assert!(matches!(voter.handle(&prepare(1, 1, Some(2)), MS).reply, VoterReply::Wait { .. }));
    voter.handle(&VoterRequest::Release(Release { epoch: Epoch(1), holder: RegionId(1) }), 2 * MS);
    assert!(matches!(voter.handle(&prepare(1, 1, Some(2)), 3 * MS).reply, VoterReply::Promise(_)));
}

#[test]
fn a_fence_is_remembered_across_a_restart_and_so_is_that_a_lease_was_granted() {
    let mut voter = Voter::new(&genesis());
    voter.handle(&lease(1, 1), 0);
    let state = voter.state().clone();
    let mut restarted = Voter::restore(state, 1900 * MS);
    let effect = restarted.handle(&prepare(1, 2, Some(2)), 2100 * MS);
    assert_eq!(effect.reply, VoterReply::Wait { ballot: ballot(1, 2), after_ms: 1800 });
    let again = Voter::restore(restarted.state().clone(), 2200 * MS);
    assert_eq!(again.promised_epoch(), Epoch(2));
}

#[test]
fn another_primary_is_accepted_only_after_the_lease_or_its_release() {
    let mut voter = Voter::new(&genesis());
    voter.handle(&lease(1, 1), 0);
    assert!(matches!(voter.handle(&accept(1, 2, 2, None), MS).reply, VoterReply::Wait { after_ms: 1999, .. }));
    assert!(voter.state().acceptor.accepted.is_none());
    // Only the holder can give its lease back.
    let forged = Release { epoch: Epoch(1), holder: RegionId(1) };
    assert!(matches!(voter.handle(&accept(1, 2, 2, Some(forged)), MS).reply, VoterReply::Wait { .. }));
    let effect = voter.handle(&accept(2, 1, 2, Some(forged)), 2 * MS);
    assert_eq!(effect.reply, VoterReply::Accepted { ballot: ballot(2, 1) });
    assert!(effect.persist);
}

#[test]
fn leaving_active_passive_waits_as_well_and_the_same_primary_never_waits() {
    let mut voter = Voter::new(&genesis());
    voter.handle(&lease(1, 1), 0);
    assert!(matches!(voter.handle(&accept(1, 3, 1, None), MS).reply, VoterReply::Accepted { .. }));
    let mut value = genesis();
    (value.epoch, value.mode, value.primary) = (Epoch(3), Mode::ActiveActive, None);
    let request = VoterRequest::Accept(Box::new(Accept { ballot: ballot(2, 3), value, release: None }));
    assert!(matches!(voter.handle(&request, 2 * MS).reply, VoterReply::Wait { .. }));
}

#[test]
fn a_lease_that_was_given_back_is_not_granted_again_in_its_epoch() {
    let mut voter = Voter::new(&genesis());
    // The release overtakes the request.
    voter.handle(&VoterRequest::Release(Release { epoch: Epoch(1), holder: RegionId(1) }), 0);
    let refused = VoterReply::LeaseRefused(LeaseRefusal::GivenBack { epoch: Epoch(1) });
    assert_eq!(voter.handle(&lease(1, 1), MS).reply, refused);
    assert!(is_granted(&voter.handle(&lease(2, 1), MS)));
}

#[test]
fn two_holders_never_have_a_grant_at_once() {
    let mut voter = Voter::new(&genesis());
    voter.handle(&lease(1, 1), 0);
    let refusal = LeaseRefusal::HeldByAnother { holder: RegionId(1), after_ms: 1000 };
    assert_eq!(voter.handle(&lease(2, 2), 1000 * MS).reply, VoterReply::LeaseRefused(refusal));
    assert!(is_granted(&voter.handle(&lease(2, 2), 2000 * MS)));
    let fenced = VoterReply::LeaseRefused(LeaseRefusal::Fenced { promised: Epoch(2) });
    assert_eq!(voter.handle(&lease(1, 1), 9000 * MS).reply, fenced);
}

#[test]
fn lower_ballots_are_refused_and_equal_ones_answered_again() {
    let mut voter = Voter::new(&genesis());
    let first = voter.handle(&prepare(5, 2, None), 0);
    assert!(first.persist);
    let again = voter.handle(&prepare(5, 2, None), 0);
    assert!(!again.persist && again.reply == first.reply);
    let nack = VoterReply::Nack { ballot: ballot(5, 1), promised: ballot(5, 2) };
    assert_eq!(voter.handle(&prepare(5, 1, None), 0).reply, nack);
    assert_eq!(voter.next_ballot(RegionId(1), Ballot::GENESIS), ballot(6, 1));
}

#[test]
fn a_voter_that_lost_its_disk_needs_enough_others_and_grants_nothing_for_a_lease() {
    let mut other = Voter::new(&genesis());
    other.handle(&prepare(4, 2, Some(3)), 0);
    other.handle(&accept(4, 2, 2, None), 0);
    let states = [(RegionId(2), other.state().clone()), (RegionId(3), VoterState::default())];
    assert!(Voter::rejoin(RegionId(1), &genesis(), &states[..1], 0).is_none());
    let mut voter = Voter::rejoin(RegionId(1), &genesis(), &states, 0).expect("two others are enough");
    assert_eq!(voter.promised_epoch(), Epoch(3));
    assert_eq!(voter.state().acceptor.accepted, other.state().acceptor.accepted);
    assert!(!is_granted(&voter.handle(&lease(3, 2), 1999 * MS)));
    assert!(is_granted(&voter.handle(&lease(3, 2), 2000 * MS)));
}
