//! `docs/reliability.md` names tests: they exist, and no pitfall is left out.

use std::collections::BTreeSet;
use std::path::Path;

use crate::root;

/// How many pitfalls there are.
const PITFALLS: usize = 54;

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, text);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// Every function of the tree, by name. (A macro gives some tests their names: `name: What;`.)
fn functions() -> BTreeSet<String> {
    let mut text = String::new();
    for folder in ["services", "tests", "netem", "benches"] {
        sources(&root().join(folder), &mut text);
    }
    let name = |rest: &str| {
        rest.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect::<String>()
    };
    let named = text.split("fn ").skip(1).map(name);
    let listed = text.lines().filter_map(|line| line.trim().split_once(": ")).map(|(before, _)| name(before));
    named.chain(listed).filter(|name| !name.is_empty()).collect()
}

/// Names in backquotes that read like tests: several words.
fn tests_in(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let like_a_test = |name: &&str| {
        name.matches('_').count() >= 3 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    quoted.filter(like_a_test).collect()
}

#[test]
fn every_test_that_the_reliability_document_names_exists() {
    let document = std::fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let (functions, named) = (functions(), tests_in(&document));
    assert!(named.len() > PITFALLS, "only {} tests are named", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !functions.contains(*name)).collect();
    assert!(missing.is_empty(), "there is no such test: {missing:#?}");
}

#[test]
fn every_pitfall_has_a_test_or_a_reason() {
    let document = std::fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let rows: Vec<(usize, &str)> = document
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
            Some((number.parse().ok()?, rest))
        })
        .collect();
    assert_eq!(rows.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (1..=PITFALLS).collect::<Vec<_>>());
    for (number, row) in rows {
        assert!(
            !tests_in(row).is_empty() || row.contains("Cannot happen:") || row.contains("Not tested:"),
            "{number}: {row}"
        );
    }
}
