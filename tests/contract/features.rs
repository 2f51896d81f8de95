//! What tests may switch on never reaches the program: places to die, rules broken on purpose, suites.

use std::process::Command;

use crate::root;

/// Features for tests only.
const FOR_TESTS: [&str; 3] = ["failpoints", "mutants", "conformance"];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).arg("--offline").current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn no_crate_switches_a_feature_for_tests_on() {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let mut known = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let asks = |value: &serde_json::Value| {
            let names = value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
            names.filter_map(|name| name.rsplit('/').next()).any(|name| FOR_TESTS.contains(&name))
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let normal = dependency["kind"].is_null();
            assert!(
                !normal || !asks(&dependency["features"]),
                "{name} always has {} of {dependency}",
                FOR_TESTS.join("/")
            );
        }
        for (feature, implies) in package["features"].as_object().unwrap() {
            let for_tests = FOR_TESTS.contains(&feature.as_str());
            assert!(for_tests || !asks(implies), "{name}: feature {feature} switches on {implies}");
            known += usize::from(for_tests);
        }
    }
    assert!(known >= 4, "the features of this list are gone; correct it");
}

#[test]
fn the_program_is_built_without_any_of_them() {
    let tree = cargo(&["tree", "--package", "longhaul", "--edges", "normal,features", "--prefix", "none"]);
    assert!(tree.contains("longhaul-region feature \"default\""), "the tree shows no features:\n{tree}");
    for feature in FOR_TESTS {
        assert!(!tree.contains(&format!("feature \"{feature}\"")), "the program has {feature}");
    }
}
