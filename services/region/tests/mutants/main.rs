//! Rules broken on purpose in whole regions: for each there is a course of events that goes well as the rule stands and
//! badly once it is broken. (The rules of the pure heart are broken under its random histories.)
//!
//! A rule is broken for one thread, so everything runs on one.

#![allow(clippy::needless_range_loop, reason = "regions are numbers here")]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../it/world.rs"]
mod world;

use std::time::Duration;

use http::Method;
use longhaul_core::mutants::{Rule, break_rule};
use longhaul_core::regime::{Durability, Mode};
use longhaul_region::store::{Commit, Store, StoreError};
use serde_json::{Value, json};
use world::World;

const AP: Mode = Mode::ActivePassive;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

type Verdict = Result<(), String>;

/// The course of events must end well, and badly with the rule broken.
async fn caught(rule: Rule, course: impl AsyncFn() -> Verdict) {
    assert_eq!(course().await, Ok(()), "as the rule stands");
    let broken = break_rule(rule);
    let verdict = course().await;
    drop(broken);
    println!("{rule:?}: {verdict:?}");
    assert!(verdict.is_err(), "{rule:?} went unnoticed");
}

fn judge(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Whether something comes to hold within a time.
async fn within(time: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(time, wait).await.is_ok()
}

async fn body(world: &World, n: usize, path: &str) -> String {
    String::from_utf8_lossy(&world.get(n, path, &[]).await.body).into_owned()
}

/// What the old primary alone had is out of sight when it has returned.
async fn an_old_primary_returns() -> Verdict {
    let world = World::start(AP, Durability::Local, |_| {}).await;
    let path = "/v1/records/us-east/x";
    world.until(|w| async move { w.put(0, path, &[], "0").await.status.is_success() }, "a lease").await;
    for n in 1..3 {
        world.shows(n, path, "0").await;
    }
    world.isolate(0);
    world.put(0, path, &[], "\"tail\"").await.ok();
    let other = "/v1/records/us-east/y";
    let survivors = &world;
    world
        .until(
            |_| async move {
                let (a, b) = (survivors.put(1, other, &[], "1").await, survivors.put(2, other, &[], "1").await);
                a.status.is_success() || b.status.is_success()
            },
            "a survivor takes over",
        )
        .await;
    world.heal_all();
    world.shows(0, other, "1").await;
    let shown = (body(&world, 0, path).await, body(&world, 1, path).await);
    judge(shown.0 == shown.1, || format!("I6: the old primary shows {}, the others {}", shown.0, shown.1))
}

#[tokio::test]
async fn keeping_what_lies_beyond_a_cut_is_noticed() {
    caught(Rule::Cut, an_old_primary_returns).await;
}

/// A voter promises a fence and is started again.
async fn a_voter_restarts() -> Verdict {
    let mut world = World::start(AP, Durability::Local, |_| {}).await;
    let fence = json!({"Prepare": {"ballot": {"round": 50, "region": 3}, "fence": 9}});
    world.send(1, Method::POST, "/internal/v1/vote", &JSON, fence.to_string()).await.ok();
    world.isolate(1);
    world.stop(1).await.map_err(|error| error.to_string())?;
    world.restart(1).await;
    world.until(|w| async move { w.status(1).await.is_some() }, "it answers").await;
    let state = world.get(1, "/internal/v1/voter", &[]).await.ok().json();
    let promised = state["state"]["promised_epoch"].as_u64().unwrap_or(0);
    judge(promised >= 9, || format!("I9: it promised epoch 9 and remembers {promised}"))
}

#[tokio::test]
async fn promises_that_are_not_durable_are_noticed() {
    caught(Rule::DurablePromise, a_voter_restarts).await;
}

/// A region whose clock was ahead is started again with its clock right, and hears from nobody how late it had been.
async fn a_clock_goes_back() -> Verdict {
    let mut world = World::start(Mode::ActiveActive, Durability::Local, |config| config.unsafe_boot = true).await;
    world.isolate(0);
    // Step by step: the clock does not follow a jump.
    for offset_ms in (150..=1800).step_by(150) {
        let skew = json!({"offset_ms": offset_ms}).to_string();
        world.send(0, Method::POST, "/internal/v1/clock", &JSON, skew).await.ok();
        world.put(0, "/v1/records/eu-west/steps", &[], "1").await.ok();
    }
    let before = world.put(0, "/v1/records/eu-west/before", &[], "1").await.ok().header("etag");
    world.stop(0).await.map_err(|error| error.to_string())?;
    world.restart(0).await;
    let mut after = String::new();
    let path = "/v1/records/eu-west/after";
    let written = within(Duration::from_secs(8), async || {
        let answer = world.put(0, path, &[], "1").await;
        after = answer.header("etag");
        answer.status.is_success()
    });
    let written = written.await;
    judge(written && after > before, || format!("I3: version {before} and then {after}"))
}

#[tokio::test]
async fn a_clock_that_forgets_is_noticed() {
    caught(Rule::RestoredClock, a_clock_goes_back).await;
}

/// More is written than the credit of a stream.
async fn much_is_written() -> Verdict {
    let world = World::active_active().await;
    let value = format!("\"{}\"", "x".repeat(60_000));
    for n in 0..90 {
        world.put(0, &format!("/v1/records/eu-west/large{n}"), &[], &value).await.ok();
    }
    let arrives = within(Duration::from_secs(8), async || {
        world.get(1, "/v1/records/eu-west/large89", &[]).await.status.is_success()
    });
    judge(arrives.await, || "the lag never ends".to_owned())
}

#[tokio::test]
async fn credit_that_is_never_given_back_is_noticed() {
    caught(Rule::Credit, much_is_written).await;
}

/// A session goes to a region that lacks its write and has later ones of others.
async fn a_session_moves() -> Verdict {
    let world = World::active_active().await;
    world.cut(0, 2);
    world.cut(1, 2);
    let written = world.put(0, "/v1/records/eu-west/mine", &[], "1").await.ok();
    let token = written.header("longhaul-session");
    world.put(2, "/v1/records/ap-south/later", &[], "1").await.ok();
    let headers = [("longhaul-session", token.as_str()), ("longhaul-consistency", "session")];
    let read = world.get(2, "/v1/records/eu-west/mine", &headers).await;
    // It may say that it has not caught up, or have caught up; it must not say that there is no such record.
    judge(read.status != 404, || "the session does not read its own write".to_owned())
}

#[tokio::test]
async fn a_token_of_one_number_is_noticed() {
    caught(Rule::VectorToken, a_session_moves).await;
}

/// A region dies right after a write was durable, and the client asks again.
async fn a_write_is_repeated_after_a_crash() -> Verdict {
    let mut world = World::active_active().await;
    world.stop(0).await.map_err(|error| error.to_string())?;
    world.stores[0] = world.stores[0].clone().with_flush_delay(Duration::from_millis(150));
    world.restart(0).await;
    let path = "/v1/records/eu-west/twice";
    world
        .until(|w| async move { w.put(0, "/v1/records/eu-west/warm", &[], "1").await.status.is_success() }, "writable")
        .await;
    let id = [("idempotency-key", "0198f0a8-7c3e-7d4b-8a6f-0123456789ab")];
    let store = world.stores[0].clone();
    let key = longhaul_core::ids::RecordKey {
        home: longhaul_core::ids::RegionId(1),
        id: longhaul_core::ids::RecordId::new("twice").map_err(|error| error.to_string())?,
    };
    let dies = async {
        while store.records(std::slice::from_ref(&key)).await.is_ok_and(|rows| rows[0].is_none()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Power goes: what is being flushed at this moment is lost, and so is the region, at its next commit at the latest.
        store.crash();
        let reason = "the disk is gone".to_owned();
        store.fail_next_commit(StoreError::Failed { path: "disk".to_owned(), reason });
    };
    // Whether the client hears of its success does not matter.
    let _ = tokio::join!(world.try_send(0, Method::PUT, path, &id, "1"), dies);
    let _ = world.ended(0).await;
    let _ = store.commit(Commit::default()).await;
    world.restart(0).await;
    let mut again = Value::Null;
    world.until(|w| async move { w.status(0).await.is_some_and(|status| status.ready) }, "it serves again").await;
    let answered = within(Duration::from_secs(5), async || {
        let answer = world.put(0, path, &id, "1").await;
        again = answer.json();
        answer.status.is_success()
    });
    judge(answered.await && again["repeated"] == true, || format!("I11: one operation, two places: {again}"))
}

#[tokio::test]
async fn operation_ids_in_a_transaction_of_their_own_are_noticed() {
    caught(Rule::IdempotencyWithWrite, a_write_is_repeated_after_a_crash).await;
}
