//! A database that is down, killed, stopped or full: nothing acknowledged is lost, the region says what is wrong, and
//! goes on by itself when the database does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use longhaul_core::error_code::ErrorCode;
use serde_json::json;

use crate::fixture::PostgresServer;
use crate::instance::{Answer, Api, Instance, free_address, lone_region, signal};
use crate::ledger::{Entry, Users, judge, uuid};

/// One region over a server, ready.
async fn region(server: &PostgresServer, api: &Api) -> Instance {
    let region = Instance::region(&lone_region(&server.url(), &free_address()));
    api.ready(&region.address).await;
    region
}

/// The refusal that an unready region gives.
async fn trouble(api: &Api, address: &str) -> (ErrorCode, String) {
    let said = api.until(
        address,
        "/readyz",
        |answer| matches!(answer, Answer::Refused(code, _) if *code == ErrorCode::StoreUnavailable),
    );
    let Answer::Refused(code, detail) = said.await else { unreachable!("that is what was waited for") };
    assert_eq!(detail.lines().count(), 1, "{detail}");
    (code, detail)
}

fn acknowledged(entries: &[Entry], from: Instant) -> usize {
    entries.iter().filter(|entry| entry.is_ok() && entry.at > from).count()
}

#[tokio::test]
async fn a_database_that_is_down_at_the_start_is_named_and_waited_for() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    server.crash().unwrap();
    let api = Api::new();
    let region = Instance::region(&lone_region(&server.url(), &free_address()));
    api.until(&region.address, "/healthz", |answer| matches!(answer, Answer::Ok(_))).await;
    let (_, detail) = trouble(&api, &region.address).await;
    assert!(detail.contains("start the database") && detail.contains("schema longhaul"), "{detail}");
    let refused = api.put(&region.address, "early", &uuid(1), &json!(1)).await;
    assert!(matches!(refused, Answer::Refused(ErrorCode::StoreUnavailable, _)), "{refused:?}");
    server.up().unwrap();
    api.ready(&region.address).await;
    assert!(matches!(api.put(&region.address, "early", &uuid(1), &json!(1)).await, Answer::Ok(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[expect(clippy::disallowed_methods, reason = "a test outside of the program looks at a real clock")]
async fn a_database_that_crashes_under_load_loses_no_acknowledged_write() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    let api = Api::new();
    let region = region(&server, &api).await;
    let users = Users::start(&api, &[&region.address], 16);
    let mut restarted = Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(800)).await;
        server.crash().unwrap();
        trouble(&api, &region.address).await;
        server.up().unwrap();
        restarted = Instant::now();
        api.ready(&region.address).await;
    }
    let recovered = restarted.elapsed();
    tokio::time::sleep(Duration::from_millis(800)).await;
    let entries = users.stop().await;
    assert!(acknowledged(&entries, restarted) > 20, "the region went on by itself");
    let counts = judge(&api, &region.address, &entries).await;
    println!("three crashes: {counts:?}, ready {} ms after the last restart", recovered.as_millis());
    assert!(counts.acknowledged > 100, "{counts:?}");
    assert!(recovered < Duration::from_secs(5), "ready only {recovered:?} after the database");
}

/// Every process of the server.
fn processes(server: &PostgresServer) -> Vec<u32> {
    let postmaster = server.pid().expect("the server runs");
    let parent = |id: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| *id == postmaster || parent(*id) == Some(postmaster)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[expect(clippy::disallowed_methods, reason = "a test outside of the program looks at a real clock")]
async fn a_database_that_stalls_makes_writes_wait_and_loses_none() {
    let Some(server) = PostgresServer::or_skip(&[]) else { return };
    let api = Api::new();
    let region = region(&server, &api).await;
    let users = Users::start(&api, &[&region.address], 8);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stopped = processes(&server);
    for id in &stopped {
        signal(*id, "STOP");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for id in &stopped {
        signal(*id, "CONT");
    }
    let resumed = Instant::now();
    api.ready(&region.address).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let entries = users.stop().await;
    let counts = judge(&api, &region.address, &entries).await;
    println!("a stall of 3 s: {counts:?}");
    assert!(acknowledged(&entries, resumed) > 20, "{counts:?}");
}

/// A small file system of its own, or why there is none.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Result<Self, String> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=160m,mode=1777", "tmpfs"]).arg(folder).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(folder.to_owned())),
            Ok(output) => Err(format!("no tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("no tmpfs: {error}")),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_database_whose_disk_is_full_says_so_and_loses_no_acknowledged_write() {
    let folder = tempfile::tempdir().unwrap();
    let disk = match SmallDisk::mount(folder.path()) {
        Ok(disk) => disk,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let settings = ["max_wal_size=64MB", "min_wal_size=32MB", "wal_recycle=off"];
    let server = match PostgresServer::start_in(&disk.0, &settings) {
        Ok(server) => server,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let api = Api::new();
    let region = region(&server, &api).await;
    // What a person will remove.
    let ballast = disk.0.join("ballast");
    let users = Users::start(&api, &[&region.address], 4);
    tokio::time::sleep(Duration::from_millis(500)).await;
    fill(&ballast);
    let (_, detail) = trouble(&api, &region.address).await;
    assert!(detail.contains("free space") || detail.contains("start"), "{detail}");
    std::fs::remove_file(&ballast).unwrap();
    if server.sql("SELECT 1").is_err() {
        // A server that could not write its log is down, and stays so until somebody starts it.
        let _ = server.crash();
        server.up().unwrap();
    }
    api.ready(&region.address).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let entries = users.stop().await;
    let counts = judge(&api, &region.address, &entries).await;
    println!("a full disk ({detail}): {counts:?}");
    assert!(counts.acknowledged > 20, "{counts:?}");
    drop(server);
    drop(disk);
}

/// Writes until there is no more room.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).expect("there is room for a name");
    let block = [0_u8; 4096];
    while file.write_all(&block).is_ok() {}
}
