use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::{Durability, Mode};

use crate::world::World;

const CONSISTENCY: &str = "longhaul-consistency";

async fn primary_takes_writes(world: &World, path: &str) {
    world
        .until(|w| async move { w.put(0, path, &[], "0").await.status.is_success() }, "the primary has its lease")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_primary_takes_writes_and_followers_name_it() {
    let world = World::start(Mode::ActivePassive, Durability::Local, |_| {}).await;
    let path = "/v1/records/us-east/x";
    primary_takes_writes(&world, path).await;
    for n in 1..3 {
        let refused = world.put(n, path, &[], "1").await.problem();
        assert_eq!(refused.code, ErrorCode::NotPrimary);
        assert_eq!(refused.primary.as_deref(), Some("eu-west"));
        world.shows(n, path, "0").await;
        let read = world.get(n, path, &[(CONSISTENCY, "primary")]).await.problem();
        assert_eq!((read.code, read.primary.as_deref()), (ErrorCode::NotPrimary, Some("eu-west")));
    }
    assert_eq!(world.get(0, path, &[(CONSISTENCY, "primary")]).await.ok().body, "0");
    let conditional = world.put(0, path, &[("if-match", "*")], "2").await.ok();
    assert_eq!(conditional.header("longhaul-guarantee"), "primary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_semi_synchronous_write_is_seen_by_nobody_before_a_follower_has_it() {
    let world =
        World::start(Mode::ActivePassive, Durability::Semi(1), |config| config.timings.ack_deadline_ms = 400).await;
    let path = "/v1/records/us-east/semi";
    primary_takes_writes(&world, path).await;
    let answer = world.put(0, path, &[], "\"safe\"").await.ok();
    assert_eq!(answer.header("longhaul-durability-promised"), "semi(1)");
    assert_eq!(answer.header("longhaul-durability-achieved"), "semi(1)");
    for n in 1..3 {
        world.shows(n, path, "\"safe\"").await;
    }
    world.isolate(0);
    let refused = world.put(0, path, &[], "\"alone\"").await;
    let problem = refused.problem();
    assert!(
        matches!(problem.code, ErrorCode::AckTimeout | ErrorCode::FencedAfterAccept),
        "the outcome is unknown, not {:?}",
        problem.code
    );
    assert!(problem.outcome_unknown);
    // Whoever reads the primary meanwhile sees what is safe, or nothing of it any more.
    let read = world.get(0, path, &[]).await;
    assert_eq!(read.ok().body, "\"safe\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_gives_up_makes_nothing_visible_and_cancels_nothing() {
    let world = World::start(Mode::ActivePassive, Durability::Semi(1), |_| {}).await;
    let path = "/v1/records/us-east/given-up";
    primary_takes_writes(&world, path).await;
    for n in 1..3 {
        world.shows(n, path, "0").await;
        world.starve(n);
    }
    let value = "\"given up\"";
    let stored = [value.to_owned()];
    tokio::select! {
        biased;
        answer = world.put(0, path, &[], value) => panic!("no follower has it: {}", answer.status),
        () = world.until(|w| { let stored = &stored; async move { !w.sweep(0, stored).await.is_empty() } }, "stored") => {}
    }
    for _ in 0..20 {
        assert_eq!(world.get(0, path, &[]).await.ok().body, "0");
    }
    world.feed(1);
    for n in 0..2 {
        world.shows(n, path, value).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_primary_alone_had_is_quarantined_and_can_be_merged() {
    let world = World::start(Mode::ActivePassive, Durability::Local, |_| {}).await;
    let (kept, lost, fresh) = ("/v1/records/us-east/kept", "/v1/records/us-east/lost", "/v1/records/us-east/fresh");
    primary_takes_writes(&world, lost).await;
    world.put(0, kept, &[], "\"old\"").await.ok();
    for n in 1..3 {
        world.shows(n, kept, "\"old\"").await;
        world.shows(n, lost, "0").await;
    }
    world.isolate(0);
    // The lease still holds: these are acknowledged, and then lost.
    world.put(0, kept, &[], "\"tail\"").await.ok();
    let first = world.put(0, lost, &[], "\"tail 1\"").await.ok().json();
    let second = world.put(0, lost, &[], "\"tail 2\"").await.ok().json();
    world.put(0, fresh, &[], "\"tail\"").await.ok();
    let survivors = &world;
    world
        .until(
            |_| async move {
                let (a, b) =
                    (survivors.put(1, kept, &[], "\"new\"").await, survivors.put(2, kept, &[], "\"new\"").await);
                a.status.is_success() || b.status.is_success()
            },
            "a survivor takes over",
        )
        .await;
    let refused = world.put(0, kept, &[], "\"split\"").await;
    assert!(!refused.status.is_success(), "the old primary acknowledges nothing any more");
    world.heal_all();
    world
        .until(
            |w| async move { w.status(0).await.is_some_and(|s| s.ready && s.quarantined == 4 && s.role == "follower") },
            "the old primary has returned",
        )
        .await;
    // Its tail is out of sight.
    world.shows(0, kept, "\"new\"").await;
    world.shows(0, lost, "0").await;
    assert_eq!(world.get(0, fresh, &[]).await.status, 404);
    let rows = world.get(0, "/internal/v1/quarantine", &[]).await.ok().json();
    let now = |op: &serde_json::Value| {
        let row = rows.as_array().unwrap().iter().find(|row| row["op_id"] == op["op_id"]).unwrap();
        (row["state"].as_str().unwrap().to_owned(), row["record_now"].as_str().unwrap().to_owned())
    };
    assert_eq!(now(&first), ("open".to_owned(), "untouched".to_owned()));
    let json = [("content-type", "application/json")];
    let decided = world
        .send(0, http::Method::POST, "/internal/v1/quarantine/decide", &json, "{\"decision\":\"merge\"}")
        .await
        .ok()
        .json();
    assert_eq!((&decided["merged"], &decided["skipped"]), (&3.into(), &1.into()), "{decided}");
    for n in 0..3 {
        world.shows(n, lost, "\"tail 2\"").await;
        world.shows(n, fresh, "\"tail\"").await;
        world.shows(n, kept, "\"new\"").await;
        let operations = world.get(n, "/internal/v1/operations?limit=10000", &[]).await.ok().json();
        let has = |op: &serde_json::Value| operations.as_array().unwrap().iter().any(|row| row["op_id"] == op["op_id"]);
        assert!(has(&first) && has(&second), "both are part of history again");
        assert_eq!(world.metric(n, "divergence_alarms_total").await, 0);
    }
}
