use longhaul_core::error_code::ErrorCode;
use longhaul_core::regime::{Durability, Mode};

use crate::world::World;

const CONSISTENCY: &str = "longhaul-consistency";

async fn primary_takes_writes(world: &World, path: &str) {
    world.until(|w| async move { w.put(0, path, &[], "0").await.status.is_success() }, "the primary has its lease").await;
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
