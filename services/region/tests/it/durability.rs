//! Raising and lowering durability under one primary.

use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::{Durability, Mode};

use crate::steering::{id, primary};
use crate::traffic::{Outcome, Traffic};
use crate::world::World;

/// Changes the durability under traffic: nobody may notice but by the guarantee.
async fn change(from: Durability, to: Durability) {
    let world = World::start(Mode::ActivePassive, from, |_| {}).await;
    let traffic = Traffic::start(&world);
    traffic.flows(&world, 60).await;
    let change = world.switch(0, primary(0, to)).await;
    assert_eq!(change.kind, "durability");
    traffic.flows(&world, 60).await;
    let ledger = traffic.end().await;
    let (mut before, mut after) = (0, 0);
    for entry in ledger.acknowledged() {
        let Outcome::Acknowledged { epoch, achieved, .. } = &entry.outcome else { unreachable!() };
        if *epoch >= change.epoch_to {
            assert_eq!(*achieved, to.to_string(), "{entry:?}");
            after += 1;
        } else {
            assert_eq!(*achieved, from.to_string(), "{entry:?}");
            before += 1;
        }
    }
    assert!(before > 0 && after > 0, "{before} before and {after} after");
    ledger.only_refused_with(&[ErrorCode::NotPrimary]);
    ledger.reads_were_right();
    ledger.resumed_in_time(|_| true);
    ledger.holds_everywhere(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_becomes_semi_and_every_later_write_is_protected() {
    change(Durability::Local, Durability::Semi(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_becomes_sync_and_every_later_write_is_protected() {
    change(Durability::Local, Durability::Sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn semi_becomes_sync_and_every_later_write_is_protected() {
    change(Durability::Semi(1), Durability::Sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_becomes_semi_without_a_pause() {
    change(Durability::Sync, Durability::Semi(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_becomes_local_without_a_pause() {
    change(Durability::Sync, Durability::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn semi_becomes_local_without_a_pause() {
    change(Durability::Semi(1), Durability::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_follower_leaves_the_in_sync_set_and_comes_back() {
    let world =
        World::start(Mode::ActivePassive, Durability::Sync, |config| config.timings.in_sync_timeout_ms = 500).await;
    let traffic = Traffic::at(&world, [0]);
    traffic.flows(&world, 30).await;
    world.isolate(2);
    let shrunk = world.regime_becomes(0, |r| r.in_sync == [id(1)].into(), "the silent one is left out").await;
    // Whatever waited for the silent one goes on, and is still safe with the other.
    traffic.flows_where(&world, 30, |entry| entry.by().is_some_and(|(_, epoch)| epoch >= shrunk.epoch.0)).await;
    world.heal_all();
    let grown = world.regime_becomes(0, |r| r.in_sync == [id(1), id(2)].into(), "it is let in again").await;
    traffic.flows_where(&world, 30, |entry| entry.by().is_some_and(|(_, epoch)| epoch >= grown.epoch.0)).await;
    let ledger = traffic.end().await;
    // Writes are held for a moment while a member is let in.
    ledger.only_refused_with(&[ErrorCode::Switching]);
    for entry in ledger.acknowledged() {
        let Outcome::Acknowledged { achieved, .. } = &entry.outcome else { unreachable!() };
        assert_eq!(achieved, "sync");
    }
    ledger.reads_were_right();
    ledger.holds_everywhere(&world).await;
}
