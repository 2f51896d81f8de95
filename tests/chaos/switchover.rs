//! The region that drives a switchover dies in the middle of it. (That control is gone then is a drill, among the
//! end-to-end tests: it only asks for the switchover.)

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::cluster::until;
use crate::testbed::{REGIONS, Testbed};

fn target(testbed: &Testbed) -> (&'static str, usize) {
    let primary = testbed.has_a_writer();
    let next = REGIONS.iter().position(|region| *region != primary).unwrap();
    (primary, next)
}

fn begin(testbed: &Testbed, primary: &str, next: usize) {
    testbed.discard_quarantine();
    let body = json!({
        "target": {"mode": "active-passive", "primary": next + 1, "durability": "semi(1)"}, "force": false,
    });
    until("the switchover is accepted", || {
        let answer = testbed.cluster.try_send(
            Method::POST,
            primary,
            "/internal/v1/transitions",
            Some(&body),
            Duration::from_secs(5),
        );
        // It may refuse for a moment: a target that has just returned lags.
        answer.is_ok_and(|answer| answer.status() == 202) || !testbed.lives(primary)
    });
}

#[test]
fn a_writer_exists_after_the_deadline_wherever_the_coordinator_of_a_switchover_dies() {
    let testbed = Testbed::with("semi(1)");
    let run = testbed.traffic();
    for point in ["switch_announced", "switch_drained", "switch_caught_up", "switch_flipped"] {
        let (primary, next) = target(&testbed);
        println!("{primary} dies at {point} of its switchover to {}", REGIONS[next]);
        testbed.arm(primary, point, 0);
        begin(&testbed, primary, next);
        testbed.dies(primary);
        testbed.restart(primary);
        testbed.has_a_writer();
        until("the switchover has ended", || {
            let regime = testbed.cluster.json(Method::GET, primary, "/v1/regime", None);
            regime["transition"].is_null()
        });
        testbed.settles();
        testbed.flows(&run, 30);
    }
    testbed.nothing_was_lost(&run);
}
