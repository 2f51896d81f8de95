//! Links that fail in part, in one direction, or again and again, and clocks that are wrong.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::until;
use crate::testbed::{REGIONS, Testbed};

/// How long links flap: a flap goes on for longer than suspicion takes, and twice the dwell between two failovers.
const FLAPPING: Duration = Duration::from_secs(120);

const HOUR_MS: i64 = 3_600_000;

fn knowledge_age_ms(testbed: &Testbed, region: &str, of: &str) -> f64 {
    testbed.status(region).and_then(|status| Some(status.lag.get(of)?.knowledge_age_ms)).unwrap_or(0.0)
}

#[test]
fn links_that_fail_in_part_or_flap_cost_at_most_one_failover_and_no_write() {
    let testbed = Testbed::with("semi(1)");
    let run = testbed.traffic();
    let primary = REGIONS[0];

    println!("only the link between the primary and one follower is cut: operations take the detour");
    testbed.link(primary, REGIONS[1], true, &json!({"state": "cut"}));
    until("the follower has long not heard the primary", || knowledge_age_ms(&testbed, REGIONS[1], primary) > 3500.0);
    testbed.flows(&run, 60);
    assert_eq!((testbed.has_a_writer(), testbed.failovers()), (primary, 0));
    testbed.heal_links();
    testbed.settles();

    println!("a follower does not hear the primary, and is heard");
    testbed.link(primary, REGIONS[2], false, &json!({"state": "cut"}));
    until("the follower has long not heard the primary", || knowledge_age_ms(&testbed, REGIONS[2], primary) > 3500.0);
    testbed.flows(&run, 60);
    assert_eq!((testbed.has_a_writer(), testbed.failovers()), (primary, 0));
    testbed.heal_links();
    testbed.settles();

    println!("the primary's links flap, two seconds each way: for longer than it takes to suspect it");
    for peer in &REGIONS[1..] {
        testbed.link(primary, peer, true, &json!({"flap_ms": 2000}));
    }
    flap();
    testbed.heal_links();
    testbed.settles();
    assert_eq!(testbed.failovers(), 1, "the links of the new primary do not flap");
    testbed.flows(&run, 60);
    testbed.nothing_was_lost(&run);
}

#[expect(clippy::disallowed_methods, reason = "the links flap for this long in real time")]
fn flap() {
    let start = Instant::now();
    while start.elapsed() < FLAPPING {
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_primary_that_hears_nobody_is_replaced_although_it_is_heard() {
    let testbed = Testbed::with("semi(1)");
    let run = testbed.traffic();
    let primary = REGIONS[0];
    for peer in &REGIONS[1..] {
        testbed.link(peer, primary, false, &json!({"state": "cut"}));
    }
    until("a survivor leads", || testbed.writer().is_some_and(|writer| writer != primary));
    let writer = testbed.has_a_writer();
    testbed.flows(&run, 30);
    testbed.heal_links();
    testbed.settles();
    assert_eq!((testbed.has_a_writer(), testbed.failovers()), (writer, 1));
    testbed.nothing_was_lost(&run);
}

#[test]
fn links_that_are_slow_lossy_and_narrow_at_once_and_a_second_fault_meanwhile_cost_no_write() {
    let testbed = Testbed::with("semi(1)");
    let run = testbed.traffic();
    let (primary, follower) = (REGIONS[0], REGIONS[2]);

    println!("200 ms, jitter, loss and 10 Mbit/s between all regions: nobody takes that for an outage");
    let bad = json!({"delay_ms": 100.0, "jitter_ms": 20.0, "loss": 0.03, "rate_kbit": 10_000});
    for (from, to) in [(0, 1), (0, 2), (1, 2)] {
        testbed.link(REGIONS[from], REGIONS[to], true, &bad);
    }
    testbed.flows(&run, 300);
    assert_eq!((testbed.has_a_writer(), testbed.failovers()), (primary, 0));

    println!("the primary is cut off both ways while a follower is down: no majority, until that is back");
    testbed.kill(follower);
    for peer in &REGIONS[1..] {
        testbed.link(primary, peer, true, &json!({"state": "cut"}));
    }
    until("the primary has lost its lease", || {
        testbed.status(primary).is_some_and(|status| status.lease_remaining_ms <= 0)
    });
    assert_eq!(testbed.writer(), None, "one of three is no majority");
    testbed.restart(follower);
    until("a survivor leads", || testbed.writer().is_some_and(|writer| writer != primary));
    let writer = testbed.has_a_writer();
    testbed.flows(&run, 60);
    testbed.heal_links();
    testbed.settles();
    assert_eq!((testbed.has_a_writer(), testbed.failovers()), (writer, 1));
    testbed.flows(&run, 30);
    testbed.nothing_was_lost(&run);
}

#[test]
fn a_region_whose_clock_is_wrong_loses_nothing_and_blocks_nobody() {
    let testbed = Testbed::start(tempfile::tempdir().unwrap(), "active-active", "local");
    let run = testbed.traffic();
    for offset_ms in [300, -300, 5000, -5000, HOUR_MS, -HOUR_MS] {
        println!("the clock of {} is off by {offset_ms} ms", REGIONS[1]);
        testbed.fault(&json!({"do": "clock-skew", "region": REGIONS[1], "offset_ms": offset_ms}));
        testbed.flows(&run, 90);
        // Those that are right go on among themselves, whatever the third one does.
        for region in [REGIONS[0], REGIONS[2]] {
            let answer = testbed.write(region, "right").expect("it answers");
            assert_eq!(answer.status(), 200, "{region}: {:?}", answer.body());
        }
        testbed.fault(&json!({"do": "clock-skew", "region": REGIONS[1], "offset_ms": 0}));
        testbed.settles();
        until("it takes writes again", || {
            testbed.write(REGIONS[1], "right").is_some_and(|answer| answer.status() == 200)
        });
    }
    let found = testbed.judge(&run);
    testbed.nothing_wrong(&found);
    assert_eq!(found.rpo.writes, 0, "acknowledged and lost: {:#?}", found.rpo.lost);
}
