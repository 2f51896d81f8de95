//! Regions over a PostgreSQL server of the test's own: real processes, a real server that is killed, stopped and filled.
//!
//! Where there is no server to start, each test says so in one line that begins with `skipped:`.

#[allow(dead_code, unreachable_pub, reason = "other crates' tests use the rest")]
#[path = "../../services/region/src/store/postgres/fixture.rs"]
mod fixture;

#[path = "../e2e/drill.rs"]
mod drill;

mod instance;
mod instances;
mod ledger;
mod testbed;
mod trouble;
