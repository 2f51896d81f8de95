//! The README's `curl` lines, as written, in their order, against a testbed as `up` starts it.

use std::process::Command;

use serde_json::Value;

use crate::cluster::{Cluster, until, until_answered};

/// The `curl` lines of the README's shell blocks, continuation lines joined.
fn lines() -> Vec<String> {
    let readme = include_str!("../../README.md").replace("\\\n", " ");
    readme
        .lines()
        .filter(|line| line.starts_with("curl ") && line.contains("localhost:8080"))
        .map(str::to_owned)
        .collect()
}

/// Runs a line in a shell, for so many seconds at most; the status and the body of the answer.
fn run(line: &str, control: &str, seconds: u32) -> (u16, String) {
    let line = line.replace("localhost:8080", control);
    let output =
        Command::new("sh").arg("-c").arg(format!("{line} -m {seconds} -w '\\n%{{http_code}}'")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
    (status.parse().unwrap_or(0), body.to_owned())
}

#[test]
fn every_curl_line_of_the_readme_works_as_written() {
    let lines = lines();
    assert!(lines.len() > 12, "the README has lost its examples: {lines:?}");
    let cluster = Cluster::up(&[]);
    let control = cluster.address("control").to_owned();
    for line in lines {
        let before = cluster_regime(&cluster);
        if line.contains("/v1/events") {
            let (_, body) = run(&line, &control, 2);
            assert!(body.contains("data:"), "{line}: {body}");
            continue;
        }
        // A person types the next line a moment later: what is still on its way answers with a problem until then.
        until_answered(|| {
            let (status, body) = run(&line, &control, 15);
            println!("{line}\n  {status} {body}");
            let known = status == 409 || status == 503 || status == 425;
            assert!((200..300).contains(&status) || known, "{line}: {status} {body}");
            if (200..300).contains(&status) { Ok(()) } else { Err(format!("{line}: {status} {body}")) }
        });
        let awaited: Option<(&str, Holds<'_>)> = match () {
            () if line.contains("region-loss") => {
                Some(("the others fail over", &|now| now["primary"] != before["primary"]))
            }
            () if line.contains(r#""mode": "active-active""#) => {
                Some(("the mode is switched", &|now| now["mode"] == "active-active"))
            }
            () if line.contains(r#""mode": "active-passive""#) || line.contains(r#""planned": true"#) => {
                Some(("the region is primary", &|now| now["primary"] == "us-east-1"))
            }
            () => None,
        };
        if let Some((what, holds)) = awaited {
            until(what, || holds(&cluster_regime(&cluster)));
        }
    }
    assert!(cluster.stop().success());
}

/// What a regime must be like.
type Holds<'a> = &'a dyn Fn(&Value) -> bool;

fn cluster_regime(cluster: &Cluster) -> Value {
    cluster.control("/v1/regime")
}
