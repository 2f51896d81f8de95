//! Another primary, by plan.

use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::{ChangeKind, Durability, Mode};
use longhaul_http::wire::regime::ChangeState;

use crate::steering::{id, milestone, primary};
use crate::traffic::Traffic;
use crate::world::{NAMES, World};

/// What a gateway is told in a planned switchover: nothing that is not cured by asking again at once. (The new primary
/// has no lease in the moment before its first voters have answered.)
const SWITCHING: [ErrorCode; 3] = [ErrorCode::NotPrimary, ErrorCode::Switching, ErrorCode::NoLease];

async fn there_and_back(durability: Durability) {
    let world = World::start(Mode::ActivePassive, durability, |_| {}).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 60).await;
    for (from, to) in [(0, 1), (1, 0), (0, 2)] {
        let change = world.switch(from, primary(to, durability)).await;
        assert_eq!(change.kind, "switchover");
        assert_eq!((change.from.as_deref(), change.to.as_deref()), (Some(NAMES[from]), Some(NAMES[to])));
        let moments = ["announced", "drained", "caught_up", "flipped"].map(|name| milestone(&change, name));
        assert!(moments.iter().all(Option::is_some) && moments.is_sorted(), "{change:?}");
        let by_new =
            |entry: &crate::traffic::Entry| entry.by().is_some_and(|(by, epoch)| by == to && epoch >= change.epoch_to);
        traffic.flows_where(&world, 40, by_new).await;
    }
    let ledger = traffic.end().await;
    ledger.only_refused_with(&SWITCHING);
    ledger.reads_were_right();
    ledger.resumed_in_time(|_| true);
    ledger.holds_everywhere(&world).await;
    for n in 0..3 {
        assert_eq!(world.status(n).await.unwrap().quarantined, 0, "nothing was cut off");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_moves_and_returns_and_no_local_write_is_lost() {
    there_and_back(Durability::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_moves_and_returns_and_no_semi_write_is_lost() {
    there_and_back(Durability::Semi(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_moves_and_returns_and_no_sync_write_is_lost() {
    there_and_back(Durability::Sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_to_a_region_that_cannot_catch_up_ends_at_its_deadline_and_the_primary_goes_on() {
    let world = World::start(Mode::ActivePassive, Durability::Local, |config| {
        config.timings.transition_deadline_ms = 1200;
    })
    .await;
    let traffic = Traffic::at(&world, [0, 2]);
    traffic.flows(&world, 20).await;
    world.starve(1);
    world.until(|w| async move { w.status(1).await.unwrap().lag[NAMES[0]].operations > 5 }, "the target lags").await;
    let (at, change) = world.begin_transition(0, primary(1, Durability::Local), true).await;
    assert_eq!(at, 0, "the primary drives what leads away from it");
    let change = world.end_of(at, &change).await;
    assert_eq!(change.state, ChangeState::Aborted, "{change:?}");
    assert!(change.reason.contains("not done within 1200 ms"), "{change:?}");
    let regime = world.regime(0).await;
    assert_eq!((regime.primary, regime.change.kind), (Some(id(0)), ChangeKind::TransitionAborted));
    assert!(regime.transition.is_none());
    traffic
        .flows_where(&world, 20, |entry| entry.by().is_some_and(|(by, epoch)| by == 0 && epoch >= regime.epoch.0))
        .await;
    world.feed(1);
    let ledger = traffic.end().await;
    ledger.only_refused_with(&SWITCHING);
    ledger.holds_everywhere(&world).await;
}
