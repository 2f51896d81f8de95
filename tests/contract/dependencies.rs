//! Dependencies point one way: core, http, services, binary. Service crates never depend on each other.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::root;

/// What each crate may use of this workspace.
const ALLOWED: &[(&str, &[&str])] = &[
    ("longhaul-core", &[]),
    ("longhaul-telemetry", &["longhaul-core", "longhaul-http"]),
    ("longhaul-http", &["longhaul-core"]),
    ("longhaul-region", &["longhaul-core", "longhaul-http"]),
    ("longhaul-gateway", &["longhaul-core", "longhaul-http"]),
    ("longhaul-control", &["longhaul-core", "longhaul-http"]),
    ("longhaul-traffic", &["longhaul-core", "longhaul-http"]),
    ("longhaul-netem", &["longhaul-core", "longhaul-http"]),
    (
        "longhaul-simulation",
        &[
            "longhaul-core",
            "longhaul-http",
            "longhaul-region",
            "longhaul-gateway",
            "longhaul-control",
            "longhaul-traffic",
            "longhaul-netem",
        ],
    ),
    (
        "longhaul",
        &[
            "longhaul-core",
            "longhaul-http",
            "longhaul-region",
            "longhaul-gateway",
            "longhaul-control",
            "longhaul-traffic",
            "longhaul-netem",
            "longhaul-telemetry",
            "longhaul-simulation",
        ],
    ),
    ("longhaul-bench", &["longhaul-core", "longhaul-http", "longhaul-region", "longhaul-netem", "longhaul-simulation"]),
];

/// Who alone may use what (the name of a crate, or its beginning).
const RESERVED: &[(&str, &[&str])] = &[
    // The benches measure raw SQLite beside a region.
    ("sqlx", &["longhaul-region", "longhaul-bench"]),
    ("opentelemetry", &["longhaul-telemetry"]),
    ("tracing-opentelemetry", &["longhaul-telemetry"]),
    ("tracing-subscriber", &["longhaul-telemetry"]),
    ("tonic", &["longhaul-telemetry"]),
    ("clap", &["longhaul", "longhaul-bench"]),
    ("turmoil", &["longhaul-simulation"]),
];

/// What the pure heart may not use: runtimes, the network, clocks.
const NOT_IN_CORE: &[&str] = &["tokio", "hyper", "axum", "reqwest", "rustix", "futures", "tracing"];

/// Normal dependencies of each crate of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        normal.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect()
    };
    packages.iter().map(|package| (package["name"].as_str().unwrap().to_owned(), names(package))).collect()
}

#[test]
fn crates_of_the_workspace_depend_in_one_direction() {
    let dependencies = dependencies();
    let allowed: BTreeMap<_, BTreeSet<_>> =
        ALLOWED.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    for (name, uses) in &dependencies {
        let Some(allowed) = allowed.get(name.as_str()) else {
            // A crate that only tests may use anything.
            assert!(!dependencies.values().any(|uses| uses.contains(name)), "{name} has no place in the layering");
            continue;
        };
        for used in uses.iter().filter(|used| dependencies.contains_key(*used)) {
            assert!(allowed.contains(used.as_str()), "{name} must not depend on {used}");
        }
    }
    for name in allowed.keys() {
        assert!(dependencies.contains_key(*name), "{name} is gone; correct this test");
    }
}

#[test]
fn what_one_crate_hides_no_other_uses() {
    // A crate that only measures or tests may use anything.
    for (name, uses) in dependencies().into_iter().filter(|(name, _)| ALLOWED.iter().any(|(known, _)| known == name)) {
        for (reserved, owners) in RESERVED {
            let used = uses.iter().find(|used| {
                *used == reserved
                    || used.starts_with(&format!("{reserved}_"))
                    || used.starts_with(&format!("{reserved}-"))
            });
            assert!(
                used.is_none() || owners.contains(&name.as_str()),
                "{name} uses {used:?}, which belongs to {owners:?}"
            );
        }
    }
}

#[test]
fn the_heart_is_pure() {
    let dependencies = dependencies();
    let core = &dependencies["longhaul-core"];
    for forbidden in NOT_IN_CORE {
        assert!(!core.contains(*forbidden), "longhaul-core must not depend on {forbidden}");
    }
}
