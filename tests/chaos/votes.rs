//! A region dies between deciding, promising, fencing, cutting and leading.

use crate::cluster::until;
use crate::testbed::{REGIONS, Testbed};

#[test]
fn whoever_dies_in_a_failover_there_is_one_writer_afterwards_and_nothing_is_lost() {
    let testbed = Testbed::with("semi(1)");
    let run = testbed.traffic();
    // The voter that dies is neither the old primary nor the new one.
    for point in ["before_promise", "before_promise_answer"] {
        let primary = testbed.has_a_writer();
        let others: Vec<&str> = REGIONS.into_iter().filter(|region| *region != primary).collect();
        println!("{} dies at {point} while {} replaces {primary}", others[1], others[0]);
        testbed.arm(others[1], point, 0);
        testbed.begin_failover(others[0], Some(others[0]));
        testbed.dies(others[1]);
        testbed.has_a_writer();
        testbed.restart(others[1]);
        testbed.settles();
        testbed.flows(&run, 30);
    }
    // The region that drives the failover, and would lead.
    for point in ["fenced", "chosen", "flipped", "adopted"] {
        let primary = testbed.has_a_writer();
        let driver = REGIONS.into_iter().find(|region| *region != primary).unwrap();
        let epoch = testbed.epoch();
        println!("{driver} dies at {point} while it replaces {primary}");
        testbed.arm(driver, point, 0);
        testbed.dies_failing_over(driver);
        testbed.restart(driver);
        testbed.has_a_writer();
        testbed.settles();
        if point == "flipped" {
            assert_eq!(testbed.has_a_writer(), driver, "what was chosen is in force, whoever heard of it");
        }
        until("the attempt is over under another epoch", || testbed.epoch() > epoch);
        testbed.flows(&run, 30);
    }
    testbed.nothing_was_lost(&run);
}
