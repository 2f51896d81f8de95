//! A whole testbed over PostgreSQL: `longhaul --database-url`.

use std::process::Command;

use crate::drill::drill_of;
use crate::fixture::PostgresServer;

/// A short loss of the primary.
const REGION_LOSS: &str = r#"
name = "short-loss"
description = "The primary dies early and returns."
topology = "three-continents"
duration_s = 22
warm_up_s = 2
settle_s = 20
[regime]
mode = "active-passive"
primary = "us-east-1"
durability = "semi(1)"
[traffic]
rate_per_s = 60
[[steps]]
at_s = 3
do = "region-loss"
region = "us-east-1"
[[steps]]
at_s = 14
do = "region-return"
region = "us-east-1"
[expect]
rpo_writes_max = 0
converged = true
"#;

#[test]
fn a_drill_over_postgres_loses_a_region_and_nothing_that_it_promised() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    let (status, report, _folder) = drill_of(REGION_LOSS, &["--database-url", &server.url()]);
    assert_eq!((status, report["verdict"].as_str()), (Some(0), Some("passed")), "{}", report["reasons"]);
    assert_eq!(report["rpo"]["writes"], 0, "semi(1) loses nothing");
    let left = server.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'longhaul%'").unwrap();
    assert_eq!(left, "0", "the testbed removes what it created");
}

#[test]
fn a_database_that_cannot_be_reached_is_one_line_with_the_remedy() {
    let output = Command::new(env!("CARGO_BIN_EXE_longhaul"))
        .args(["up", "--port", "0", "--database-url", "postgres://me:secret@127.0.0.1:9/nowhere"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(said.contains("127.0.0.1:9") && said.contains("start the database") && !said.contains("secret"), "{said}");
}
