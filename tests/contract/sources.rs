//! What the linter cannot see: seams by folder, and the size of files.

use std::path::{Path, PathBuf};

use crate::root;

/// Longest file, in lines.
const LINES_MAX: usize = 600;

/// Every file under a folder with one of these endings, without build output.
fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | "reports" | "openapi" | "longhaul-data") && !name.starts_with(".git")
            {
                files(&path, endings, found);
            }
        } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
            found.push(path);
        }
    }
}

/// Rust sources of the product, without comments.
fn sources() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    files(&root().join("services"), &["rs"], &mut paths);
    files(&root().join("netem"), &["rs"], &mut paths);
    let code = |text: &str| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    };
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            (name, code(&std::fs::read_to_string(&path).unwrap()))
        })
        // A fixture is part of the tests: it starts servers that the program would only be given.
        .filter(|(name, _)| name.contains("/src/") && !name.ends_with("/fixture.rs"))
        .collect()
}

/// Everything that mentions `text` lies in one of `folders`.
fn only_in(text: &str, folders: &[&str]) {
    for (name, code) in sources() {
        let here = folders.iter().any(|folder| name.starts_with(folder));
        assert!(here || !code.contains(text), "{name} uses {text}, which belongs to {folders:?}");
    }
}

#[test]
fn only_http_touches_sockets_and_clocks() {
    only_in("tokio::net", &["services/http/"]);
    // Exported spans carry wall time that no skew may touch.
    only_in("SystemTime::now", &["services/http/", "services/telemetry/"]);
    // `tokio::time::Instant` is the runtime's own time, which tests and simulations turn by hand.
    only_in("std::time::Instant", &["services/http/"]);
}

#[test]
fn only_region_knows_the_database_and_only_telemetry_the_exporters() {
    only_in("sqlx::", &["services/region/"]);
    only_in("opentelemetry", &["services/telemetry/"]);
}

#[test]
fn only_the_binary_reads_the_environment() {
    only_in("env::var", &["services/longhaul/"]);
}

#[test]
fn nothing_draws_at_random_but_from_a_seed() {
    // Seeds come with the configuration; ids are drawn from generators that were made of them.
    for source in ["rand::rng(", "rand::random", "thread_rng", "from_os_rng", "OsRng", "now_v7", "new_v4"] {
        only_in(source, &[]);
    }
}

#[test]
fn only_the_program_and_the_links_start_threads_and_processes() {
    only_in("Command::new", &["services/longhaul/", "netem/"]);
    for thread in ["thread::spawn", "thread::scope", "thread::Builder"] {
        only_in(thread, &["services/longhaul/", "netem/", "services/core/src/mutants.rs"]);
    }
    // What blocks is awaited where it was begun, and answers the same however long it took.
    only_in(
        "spawn_blocking",
        &[
            "services/telemetry/",
            "services/region/src/store/sqlite/",
            "services/traffic/src/run.rs",
            "services/longhaul/",
        ],
    );
}

/// `select!` looks at its branches in an order drawn at random, unless told to look at them in the order written.
#[test]
fn every_select_is_biased() {
    for (name, code) in sources() {
        for (number, branches) in code.split("select!").skip(1).enumerate() {
            let begins =
                branches.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with("biased;"));
            assert!(begins, "{name}: select! number {} does not begin with `biased;`", number + 1);
        }
    }
}

#[test]
fn no_file_is_longer_than_can_be_read_at_once() {
    let mut paths = Vec::new();
    files(&root(), &["rs", "toml", "md", "yaml", "sh", "sql"], &mut paths);
    for path in paths {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines, more than {LINES_MAX}: split it", path.display());
    }
}
