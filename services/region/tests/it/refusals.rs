//! What stands in the way of a transition is named, and `force` says what it costs.

use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::{Durability, MemberState, Mode, Target};
use longhaul_http::wire::regime::ChangeState;

use crate::steering::{id, mode, primary};
use crate::world::{NAMES, World};

const AA: Mode = Mode::ActiveActive;
const AP: Mode = Mode::ActivePassive;
const ISOLATION: Mode = Mode::RegionalIsolation;

/// Refused, with one line per region that is missing.
async fn refused(world: &World, at: usize, target: Target, force: bool) -> Vec<String> {
    let problem = world.ask_transition(at, target, force).await.problem();
    assert_eq!(problem.code, ErrorCode::TransitionRefused, "{problem:?}");
    assert!(!problem.missing.is_empty());
    problem.missing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mode_switch_names_the_region_that_cannot_be_reached() {
    for (before, target) in [
        (AA, mode(ISOLATION)),
        (AA, primary(0, Durability::Local)),
        (AP, mode(AA)),
        (AP, mode(ISOLATION)),
        (ISOLATION, mode(AA)),
        (ISOLATION, primary(0, Durability::Local)),
    ] {
        let world = World::start(before, Durability::Local, |_| {}).await;
        world.isolate(2);
        let missing = refused(&world, 0, target, false).await;
        assert!(
            missing.iter().any(|line| line.starts_with(NAMES[2]) && line.contains("cannot be reached")),
            "{missing:?}"
        );
        assert!(missing.iter().all(|line| !line.starts_with(NAMES[1])), "{missing:?}");
        assert_eq!(world.regime(0).await.epoch.0, 1, "nothing has changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_broke_is_not_a_region_that_cannot_be_reached() {
    let world = World::start(ISOLATION, Durability::Local, |_| {}).await;
    for next in [AA, ISOLATION] {
        world.isolate(0);
        world.heal_all();
        world.switch(0, mode(next)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_even_if_forced() {
    let world = World::start(AP, Durability::Local, |_| {}).await;
    world
        .until(|w| async move { w.put(0, "/v1/records/eu-west/a", &[], "1").await.status.is_success() }, "lease")
        .await;
    for (target, says) in [
        (primary(0, Durability::Local), "already as wanted"),
        (Target { primary: None, ..primary(0, Durability::Local) }, "needs a primary"),
        (Target { primary: Some(id(1)), ..mode(AA) }, "has no primary"),
        (Target { durability: Durability::Sync, ..mode(AA) }, "durability must be local"),
        (primary(0, Durability::Semi(3)), "semi(3) needs 3 followers"),
        (primary(4, Durability::Local), "is no region of this topology"),
    ] {
        let missing = refused(&world, 0, target, true).await;
        assert!(missing.iter().any(|line| line.contains(says)), "{missing:?} instead of {says}");
    }
    world.isolate(2);
    let missing = refused(&world, 0, primary(0, Durability::Semi(2)), true).await;
    assert!(missing.iter().any(|line| line.contains("1 can be reached")), "{missing:?}");
    let missing = refused(&world, 0, primary(2, Durability::Local), true).await;
    assert!(missing.iter().any(|line| line.starts_with(NAMES[2]) && line.contains("cannot be reached")), "{missing:?}");
    world.isolate(1);
    let missing = refused(&world, 0, mode(AA), true).await;
    assert!(missing.iter().any(|line| line.contains("majority")), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_lags_is_refused_with_its_lag() {
    let world = World::start(AP, Durability::Local, |_| {}).await;
    world.starve(1);
    world
        .until(
            |w| async move {
                w.put(0, "/v1/records/eu-west/a", &[], "1").await;
                w.status(1).await.unwrap().lag[NAMES[0]].ms > 1100.0
            },
            "the target lags",
        )
        .await;
    let missing = refused(&world, 0, primary(1, Durability::Local), false).await;
    assert!(
        missing[0].starts_with(NAMES[1]) && missing[0].contains("lags by") && missing[0].contains("force"),
        "{missing:?}"
    );
    world.feed(1);
    world.until(|w| async move { w.status(1).await.unwrap().lag[NAMES[0]].ms < 100.0 }, "it has caught up").await;
    let change = world.switch(0, primary(1, Durability::Local)).await;
    assert_eq!(change.state, ChangeState::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transition_at_a_time() {
    let world = World::start(AA, Durability::Local, |config| config.timings.transition_deadline_ms = 1500).await;
    world.starve(1);
    world.put(0, "/v1/records/us-east/a", &[], "1").await.ok();
    let (at, first) = world.begin_transition(0, mode(ISOLATION), false).await;
    let busy = world.ask_transition(at, primary(0, Durability::Local), false).await.problem();
    assert!(matches!(busy.code, ErrorCode::Conflict | ErrorCode::TransitionRefused), "{busy:?}");
    world.regime_becomes(2, |r| r.transition.is_some(), "the others hear of it").await;
    let elsewhere = refused(&world, 2, primary(2, Durability::Local), true).await;
    assert!(elsewhere.iter().any(|line| line.contains("under way")), "{elsewhere:?}");
    world.feed(1);
    world.end_of(at, &first).await;
}

/// Forces a transition without a region, says what it costs, and the region comes back as a full member.
async fn forced(before: Mode, target: Target, at: usize, cost: &str) -> World {
    let world = World::start(before, Durability::Local, |_| {}).await;
    let path = "/v1/records/us-east/before";
    world
        .until(|w| async move { w.put(0, path, &[], "1").await.status.is_success() || before == ISOLATION }, "wrote")
        .await;
    if before != ISOLATION {
        world.shows(2, path, "1").await;
    }
    world.isolate(2);
    let (at, change) = world.begin_transition(at, target, true).await;
    let change = world.end_of(at, &change).await;
    assert_eq!(change.state, ChangeState::Done, "{change:?}");
    assert!(change.missing.iter().any(|line| line.contains("cost") && line.contains(cost)), "{change:?}");
    let regime = world.regime(0).await;
    assert_eq!((regime.mode, regime.members[&id(2)].state), (target.mode, MemberState::Joining), "{regime:?}");
    world
}

/// Heals the links and waits until the region that was left behind is a full member.
async fn returns(world: &World) {
    world.heal_all();
    for n in 0..3 {
        world.regime_becomes(n, |r| r.is_active(id(2)), "the region is a full member again").await;
    }
    world
        .until(|w| async move { w.status(2).await.is_some_and(|s| s.ready && s.trouble.is_none()) }, "it serves")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_to_one_primary_the_absent_regions_tail_is_quarantined() {
    let world = World::start(AA, Durability::Local, |_| {}).await;
    let path = "/v1/records/us-east/tail";
    world.put(2, path, &[], "\"old\"").await.ok();
    world.shows(0, path, "\"old\"").await;
    world.isolate(2);
    // It goes on writing; nobody else has this when its timeline is cut.
    let tail = world.put(2, path, &[], "\"tail\"").await.ok().json()["op_id"].as_str().unwrap().to_owned();
    let (at, change) = world.begin_transition(0, primary(0, Durability::Local), true).await;
    let change = world.end_of(at, &change).await;
    assert_eq!(change.state, ChangeState::Done, "{change:?}");
    assert!(change.missing.iter().any(|line| line.contains("quarantined when it returns")), "{change:?}");
    returns(&world).await;
    world.shows(2, path, "\"old\"").await;
    let rows = world.get(2, "/internal/v1/quarantine", &[]).await.ok().json();
    assert!(rows.as_array().unwrap().iter().any(|row| row["op_id"] == tail), "{rows}");
    world.put(0, path, &[], "\"new\"").await.ok();
    world.shows(2, path, "\"new\"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_to_active_active_the_absent_region_joins_later() {
    let world = forced(AP, mode(AA), 0, "takes no writes until it has caught up").await;
    world.put(1, "/v1/records/us-east/meanwhile", &[], "1").await.ok();
    returns(&world).await;
    world.shows(2, "/v1/records/us-east/meanwhile", "1").await;
    world.put(2, "/v1/records/us-east/after", &[], "1").await.ok();
    world.shows(0, "/v1/records/us-east/after", "1").await;
}

async fn forced_into_isolation(before: Mode) {
    let world = forced(before, mode(ISOLATION), 0, "its home is frozen").await;
    let frozen = world.put(0, "/v1/records/ap-south/x", &[], "1").await.problem();
    assert_eq!((frozen.code, frozen.home.as_deref()), (ErrorCode::WrongHome, Some(NAMES[2])));
    world.put(0, "/v1/records/eu-west/x", &[], "1").await.ok();
    returns(&world).await;
    world
        .until(|w| async move { w.put(2, "/v1/records/ap-south/x", &[], "2").await.status.is_success() }, "writes")
        .await;
    // Now everything foreign goes, everywhere.
    for n in 0..3 {
        world
            .until(
                |w| async move {
                    let view = crate::traffic::digest(w, n).await;
                    view.is_some_and(|view| view.rows.keys().all(|home| home == NAMES[n]))
                },
                "only the home's records are left",
            )
            .await;
    }
    world.shows(1, "/v1/records/us-east/before", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_into_isolation_the_absent_home_is_frozen_until_it_returns() {
    forced_into_isolation(AA).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_from_one_primary_into_isolation_the_absent_home_is_frozen_until_it_returns() {
    forced_into_isolation(AP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_home_gets_back_what_the_others_kept_of_it() {
    let world = World::start(AA, Durability::Local, |_| {}).await;
    let path = |id: &str| format!("/v1/records/ap-south/{id}");
    for id in ["deleted", "overwritten", "same"] {
        world.put(0, &path(id), &[], "\"old\"").await.ok();
        world.shows(2, &path(id), "\"old\"").await;
    }
    world.isolate(2);
    // What the others write of its records meanwhile is with them only ...
    world.put(0, &path("kept"), &[], "\"kept\"").await.ok();
    world.delete(0, &path("deleted"), &[]).await.ok();
    world.shows(1, &path("kept"), "\"kept\"").await;
    // ... and what it writes is with itself only, and beyond its cut.
    for id in ["overwritten", "alone"] {
        world.put(2, &path(id), &[], "\"tail\"").await.ok();
    }
    let (at, change) = world.begin_transition(0, mode(ISOLATION), true).await;
    assert_eq!(world.end_of(at, &change).await.state, ChangeState::Done);
    world.until(|w| async move { w.regime(1).await.mode == ISOLATION }, "isolated").await;
    returns(&world).await;
    for (id, value) in [("kept", "\"kept\""), ("overwritten", "\"old\""), ("same", "\"old\"")] {
        world.shows(2, &path(id), value).await;
    }
    for id in ["deleted", "alone"] {
        assert_eq!(world.get(2, &path(id), &[]).await.status, 404, "{id}");
    }
    let canary = ["kept".to_owned()];
    for n in [0, 1] {
        world.until(|w| async move { w.sweep(n, &["\"kept\"".to_owned()]).await.is_empty() }, "purged").await;
    }
    assert!(!world.sweep(2, &canary).await.is_empty());
}

async fn forced_out_of_isolation(target: Target) {
    let world = World::start(ISOLATION, Durability::Local, |_| {}).await;
    for n in 0..3 {
        world.put(n, &format!("/v1/records/{}/own", NAMES[n]), &[], &n.to_string()).await.ok();
    }
    world.isolate(2);
    let (at, change) = world.begin_transition(0, target, true).await;
    let change = world.end_of(at, &change).await;
    assert_eq!(change.state, ChangeState::Done, "{change:?}");
    assert!(change.missing.iter().any(|line| line.contains("its home is frozen")), "{change:?}");
    assert!(change.missing.iter().any(|line| line.contains("residency ends")), "{change:?}");
    world.shows(0, "/v1/records/us-east/own", "1").await;
    let frozen = world.get(0, "/v1/records/ap-south/own", &[]).await.problem();
    assert_eq!((frozen.code, frozen.home.as_deref()), (ErrorCode::WrongHome, Some(NAMES[2])));
    // It does not know yet, and its home is its own.
    world.put(2, "/v1/records/ap-south/late", &[], "3").await.ok();
    returns(&world).await;
    for n in 0..3 {
        world.shows(n, "/v1/records/ap-south/own", "2").await;
        world.shows(n, "/v1/records/ap-south/late", "3").await;
        world.shows(n, "/v1/records/eu-west/own", "0").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_out_of_isolation_the_absent_home_stays_frozen_until_it_returns() {
    forced_out_of_isolation(mode(AA)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_out_of_isolation_to_one_primary_the_absent_home_stays_frozen_until_it_returns() {
    forced_out_of_isolation(primary(0, Durability::Local)).await;
}
