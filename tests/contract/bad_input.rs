//! Bad input ends with status 2 and one line that names the thing, the reason and the remedy. Nothing is started.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::LONGHAUL;

fn longhaul(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(LONGHAUL)
        .args(arguments)
        .current_dir(folder)
        .env_remove("LONGHAUL_DATA")
        .env_remove("LONGHAUL_SEED")
        .output()
        .unwrap()
}

/// Checks one case; `parts` must be in the line.
fn refused(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let output = longhaul(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?} wrote to standard output");
    assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?} said more than one line:\n{said}");
    for part in parts {
        assert!(said.contains(part), "{arguments:?} does not say {part:?}: {said}");
    }
}

/// A plan that is correct, to be made wrong.
const PLAN: &str = r#"
name = "mine"
description = "Mine."
topology = "two-regions"
duration_s = 5
[regime]
mode = "active-passive"
[[steps]]
at_s = 1
do = "region-loss"
region = "eu-west-1"
"#;

const TOPOLOGY: &str = r#"
name = "mine"
[[region]]
name = "a"
[[region]]
name = "b"
[[edge]]
name = "c"
home = "a"
[[link]]
from = "a"
to = "b"
rtt_ms = 10
source = "stated"
"#;

#[test]
fn unknown_words_are_refused_with_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["dril"], &["'dril'", "drill"]),
        (&["drill"], &["<PLAN>", "--help"]),
        (&["drill", "region-lost"], &["\"region-lost\"", "region-loss"]),
        (&["drill", "region-loss", "--topology", "atlantis"], &["\"atlantis\"", "three-continents"]),
        (&["drill", "region-loss", "--mode", "both"], &["both", "active-active"]),
        (&["drill", "region-loss", "--durability", "semi(0)"], &["semi(0)", "K >= 1"]),
        (&["drill", "region-loss", "--seed", "soon"], &["soon", "--seed"]),
        (&["drill", "region-loss", "--mode", "active-active", "--durability", "sync"], &["durability", "leave it out"]),
        (&["drill", "partial-partition", "--topology", "two-regions"], &["two-regions", "ap-southeast-1", "eu-west-1"]),
        (&["drill", "region-loss", "--target", "localhost"], &["--target", "http://HOST:PORT"]),
        (&["drill", "region-loss", "--target", "http://127.0.0.1:9"], &["127.0.0.1:9", "longhaul up"]),
        (&["compare", "nothing"], &["\"nothing\"", "region-loss"]),
        (&["compare", "region-loss", "--mode", "active-active", "--durability", "sync"], &["nothing is left"]),
        (&["up", "--port", "70000"], &["70000", "--port"]),
        (&["topology", "check", "atlantis"], &["\"atlantis\"", "two-regions"]),
        (&["region", "--config", "none.json"], &["none.json", "--config"]),
    ];
    for (arguments, parts) in cases {
        refused(folder.path(), arguments, parts);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a refused command left something behind");
}

#[test]
fn a_wrong_plan_is_refused_with_file_key_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("duration_s = 5", "duration_s = 5\nlength = 3", "line 6", "length"),
        ("duration_s = 5", "duration_s = -5", "duration_s", "out of bounds"),
        ("duration_s = 5", "", "duration_s", "add it"),
        ("region = \"eu-west-1\"", "region = \"mars\"", "steps[0].region", "eu-central-1"),
        ("do = \"region-loss\"", "do = \"region-los\"", "steps[0]", "region-loss"),
        ("at_s = 1", "at_s = 9", "steps[0].at_s", "0 to 5"),
        ("mode = \"active-passive\"", "mode = \"passive\"", "line 7", "active-passive"),
        ("topology = \"two-regions\"", "topology = \"atlantis\"", "topology", "three-continents"),
        ("name = \"mine\"", "name = mine", "line 2", ""),
    ];
    for (from, to, key, hint) in cases {
        assert!(PLAN.contains(from), "{from}");
        std::fs::write(folder.path().join("plan.toml"), PLAN.replacen(from, to, 1)).unwrap();
        refused(folder.path(), &["drill", "plan.toml"], &["plan.toml", key, hint]);
    }
    refused(folder.path(), &["drill", "./absent.toml"], &["absent.toml", "check the path"]);
}

#[test]
fn a_wrong_topology_is_refused_with_file_key_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("home = \"a\"", "home = \"z\"", "edge[0].home", "use one of a, b"),
        ("rtt_ms = 10", "rtt_ms = -10", "link[0]", ""),
        ("name = \"b\"", "name = \"a\"", "region[1].name", "two locations"),
        ("source = \"stated\"", "", "line", "source"),
        ("from = \"a\"", "frm = \"a\"", "line", "frm"),
    ];
    for (from, to, key, hint) in cases {
        std::fs::write(folder.path().join("t.toml"), TOPOLOGY.replacen(from, to, 1)).unwrap();
        refused(folder.path(), &["topology", "check", "t.toml"], &["t.toml", key, hint]);
    }
}

#[test]
fn a_port_or_folder_that_is_taken_is_named_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(
        folder.path(),
        &["up", "--topology", "two-regions", "--port", &port],
        &[&port, "--port", "another program"],
    );

    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("letter.txt"), "dear").unwrap();
    refused(folder.path(), &["up", "--port", "0", "--data", "data"], &["data", "something else", "--data"]);

    let owner = r#"{"topology":"mine","fingerprint":"0","session_secret":"s"}"#;
    std::fs::remove_file(data.join("letter.txt")).unwrap();
    std::fs::write(data.join("testbed.json"), owner).unwrap();
    refused(folder.path(), &["up", "--port", "0", "--data", "data"], &["belongs to topology mine", "--data"]);

    std::fs::write(folder.path().join("file"), "").unwrap();
    refused(folder.path(), &["drill", "region-loss", "--report", "file/x"], &["file/x", "--report"]);
}

#[test]
fn help_and_version_are_no_errors() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["--help"][..], &["drill", "--help"], &["--version"], &["topology", "check", "five-azure"]] {
        let output = longhaul(folder.path(), arguments);
        assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty(), "{arguments:?}");
    }
    let help = String::from_utf8(longhaul(folder.path(), &["--help"]).stdout).unwrap();
    assert!(help.contains("Examples:") && help.contains("Exit status"));
}
