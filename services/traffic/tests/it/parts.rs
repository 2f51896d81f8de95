//! One run played by several roles, one at each edge.

use longhaul_core::error_code::ErrorCode;
use longhaul_http::clock::{Clock, SystemClock};
use longhaul_http::wire::traffic::{RunPart, RunRequest};

use crate::runs::{Play, circumstances, code};
use crate::testbed::Script;

const RUN: &str = "00000000-0000-4000-8000-000000000001";
/// Enough for two requests on a busy machine.
const LEAD_NS: u64 = 2_000_000_000;

fn part(request: &RunRequest, edge: &str, start_boot_ns: u64) -> RunRequest {
    let part = RunPart { id: RUN.to_owned(), start_boot_ns, edges: vec![edge.to_owned()], judges: edge == "london" };
    RunRequest { part: Some(part), ..request.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_roles_find_what_one_role_would_have_found() {
    let play = Play::new(Script::Honest).await;
    let other = play.another_role().await;
    play.answers(&play.traffic).await;
    play.answers(&other).await;
    let request = play.request(1.5);
    let start_ns = SystemClock::default().boot_ns() + LEAD_NS;
    let london = play.start(&part(&request, "london", start_ns)).await;
    let new_york = play.start_at(&other, &part(&request, "new-york", start_ns)).await.unwrap();
    assert_eq!((london.id.as_str(), london.start_boot_ns), (RUN, new_york.start_boot_ns));
    let here = play.finish(RUN).await;
    let there = play.finish_at(&other, RUN).await;
    assert_eq!(here.edges.keys().collect::<Vec<_>>(), ["london"]);
    assert_eq!(there.edges.keys().collect::<Vec<_>>(), ["new-york"]);

    let mut judgement = circumstances();
    judgement.others = vec![other.clone()];
    let findings = play.judge(RUN, &judgement).await.unwrap();
    assert_eq!(findings.invalid, Vec::<String>::new());
    assert_eq!(findings.availability.keys().collect::<Vec<_>>(), ["london", "new-york"]);
    assert_eq!(findings.rpo.writes, 0);

    // The same run by one role alone: the operations are those of the seed, whoever plays them.
    let alone = play.findings(&RunRequest { run_key: "another key".to_owned(), ..request }).await;
    assert_eq!(findings.operations, alone.operations);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_one_of_its_ledgers_proves_nothing() {
    let play = Play::new(Script::Honest).await;
    play.answers(&play.traffic).await;
    let request = play.request(0.3);
    let start_ns = SystemClock::default().boot_ns() + LEAD_NS;
    play.start(&part(&request, "london", start_ns)).await;
    play.finish(RUN).await;
    let mut judgement = circumstances();
    judgement.others = vec!["127.0.0.1:9".to_owned()];
    let findings = play.judge(RUN, &judgement).await.unwrap();
    assert!(findings.invalid[0].contains("127.0.0.1:9"), "{:?}", findings.invalid);
    play.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_cannot_be_played_is_refused() {
    let play = Play::new(Script::Honest).await;
    let request = play.request(0.3);
    let now_ns = SystemClock::default().boot_ns();
    for wrong in [part(&request, "paris", now_ns + LEAD_NS), part(&request, "london", 1)] {
        assert_eq!(code(play.start_at(&play.traffic, &wrong).await), ErrorCode::BadRequest);
    }
    play.end().await;
}
