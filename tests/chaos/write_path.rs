//! A region dies at every point of the way of a write.

use crate::testbed::{REGIONS, Testbed};

/// Where a primary dies, and whether what its users were told may then be missing anywhere.
const AT_THE_PRIMARY: [&str; 4] = ["before_commit", "inside_commit", "before_answer", "after_answer"];

#[test]
fn a_primary_that_dies_anywhere_between_a_write_and_its_answer_loses_nothing_acknowledged() {
    let testbed = Testbed::with("semi(1)");
    let run = testbed.traffic();
    let mut primary = REGIONS[0];
    for (number, point) in AT_THE_PRIMARY.into_iter().enumerate() {
        let next = REGIONS[(number + 1) % REGIONS.len()];
        println!("{primary} dies at {point}; {next} takes over");
        testbed.arm(primary, point, 3);
        testbed.dies(primary);
        testbed.fail_over(next);
        testbed.flows(&run, 30);
        testbed.restart(primary);
        testbed.settles();
        primary = next;
    }
    testbed.nothing_was_lost(&run);
}

#[test]
fn a_primary_that_dies_and_comes_back_at_once_keeps_what_it_acknowledged_alone() {
    let testbed = Testbed::with("local");
    let run = testbed.traffic();
    for point in AT_THE_PRIMARY {
        println!("{} dies at {point} and comes back", REGIONS[0]);
        testbed.arm(REGIONS[0], point, 3);
        testbed.dies(REGIONS[0]);
        // Before anybody suspects it: nobody takes over.
        testbed.restart(REGIONS[0]);
        testbed.settles();
        assert_eq!(testbed.has_a_writer(), REGIONS[0]);
        testbed.flows(&run, 30);
    }
    for (follower, point) in [(REGIONS[1], "inside_commit"), (REGIONS[2], "before_batch_answer")] {
        println!("{follower} dies at {point} while it applies a batch");
        testbed.arm(follower, point, 3);
        testbed.dies(follower);
        testbed.flows(&run, 30);
        testbed.restart(follower);
        testbed.settles();
    }
    assert_eq!(testbed.failovers(), 0);
    testbed.nothing_was_lost(&run);
}
