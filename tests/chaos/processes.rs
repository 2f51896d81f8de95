//! Processes that are stopped, and majorities that are gone.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::until;
use crate::testbed::{REGIONS, Testbed};

fn code(answer: &http::Response<bytes::Bytes>) -> String {
    let problem: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_primary_that_slept_through_its_lease_acknowledges_nothing_when_it_wakes() {
    let testbed = Testbed::with("semi(1)");
    let run = testbed.traffic();
    let primary = REGIONS[0];
    let epoch = testbed.epoch();
    testbed.fault(&json!({"do": "pause", "target": primary}));
    until("a survivor leads", || testbed.writer().is_some_and(|writer| writer != primary));
    let writer = testbed.has_a_writer();
    testbed.flows(&run, 60);
    testbed.fault(&json!({"do": "resume", "target": primary}));
    // Its users reach it before it has heard of anything.
    let answer = testbed.write(primary, "awake").expect("it answers");
    assert!(
        matches!(code(&answer).as_str(), "no_lease" | "not_primary" | "fenced_after_accept" | "not_ready"),
        "{:?}",
        answer.body()
    );
    testbed.settles();
    assert_eq!((testbed.has_a_writer(), testbed.failovers()), (writer, 1));
    assert!(testbed.epoch() > epoch);

    println!("a follower is stopped: nobody minds, and it catches up");
    let follower = REGIONS.into_iter().find(|region| *region != writer).unwrap();
    testbed.fault(&json!({"do": "pause", "target": follower}));
    testbed.flows(&run, 120);
    testbed.fault(&json!({"do": "resume", "target": follower}));
    testbed.settles();
    assert_eq!(testbed.has_a_writer(), writer);

    println!("without a majority the primary stops, and goes on when there is one again");
    let others: Vec<&str> = REGIONS.into_iter().filter(|region| *region != writer).collect();
    for region in &others {
        testbed.kill(region);
    }
    until("the primary refuses writes", || {
        testbed.write(writer, "alone").is_some_and(|answer| code(&answer) == "no_lease")
    });
    let read = testbed.cluster.send(Method::GET, writer, &format!("/v1/records/{writer}/probe"), None);
    assert_eq!(read.status(), 200, "reads go on: {:?}", read.body());
    testbed.restart(others[0]);
    assert_eq!(testbed.has_a_writer(), writer, "two of three are a majority");
    testbed.restart(others[1]);
    testbed.settles();
    testbed.flows(&run, 30);
    testbed.nothing_was_lost(&run);
}
