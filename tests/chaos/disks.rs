//! Disks that are full, lost, or older than they should be.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::cluster::until;
use crate::testbed::{REGIONS, Run, Testbed};

/// The files of a region's store.
fn store_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("store."))).collect()
}

fn incarnation(testbed: &Testbed, region: &str) -> u32 {
    testbed.status(region).map_or(0, |status| status.incarnation)
}

fn copy_files(from: &Path, to: &Path) {
    for file in store_files(from) {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

fn remove_files(folder: &Path) {
    for file in store_files(folder) {
        std::fs::remove_file(file).unwrap();
    }
}

/// A region whose disk was lost or set back joins again in a new life, before which it takes no write.
fn joins_in_a_new_life(testbed: &Testbed, region: &str, before: u32) {
    until(&format!("{region} has a new incarnation"), || incarnation(testbed, region) > before);
    testbed.settles();
}

#[test]
fn a_region_with_an_old_or_an_empty_disk_joins_in_a_new_life() {
    let testbed = Testbed::start(tempfile::tempdir().unwrap(), "active-active", "local");
    let run = testbed.traffic();
    let region = REGIONS[2];
    let folder = testbed.cluster.data().join(region);
    let copy = tempfile::tempdir().unwrap();

    println!("{region} is restored from an old copy of its folder");
    testbed.kill(region);
    copy_files(&folder, copy.path());
    testbed.restart(region);
    testbed.settles();
    testbed.flows(&run, 90);
    let before = incarnation(&testbed, region);
    testbed.kill(region);
    remove_files(&folder);
    copy_files(copy.path(), &folder);
    testbed.restart(region);
    joins_in_a_new_life(&testbed, region, before);
    testbed.flows(&run, 60);

    println!("{region} loses its disk");
    let before = incarnation(&testbed, region);
    // What it has acknowledged is elsewhere before its only copy goes.
    testbed.fault(&json!({"do": "pause", "target": "singapore"}));
    testbed.settles();
    until("the others have all of its log", || {
        let own = |status: &longhaul_http::wire::status::RegionStatus, timeline: &str| {
            status.positions.get(timeline).map_or(0, |at| at.seq)
        };
        let timeline = format!("3.{before}");
        let head = testbed.status(region).map_or(u64::MAX, |status| own(&status, &timeline));
        REGIONS[..2].iter().all(|peer| testbed.status(peer).is_some_and(|status| own(&status, &timeline) + 2 >= head))
    });
    testbed.kill(region);
    remove_files(&folder);
    testbed.restart(region);
    testbed.fault(&json!({"do": "resume", "target": "singapore"}));
    joins_in_a_new_life(&testbed, region, before);
    testbed.flows(&run, 60);
    let found = testbed.judge(&run);
    testbed.nothing_wrong(&found);
}

/// A testbed whose first primary's disk was copied a while ago, without anybody having missed that region.
fn with_an_old_copy() -> (Testbed, Run, tempfile::TempDir) {
    for _ in 0..3 {
        let testbed = Testbed::with("semi(1)");
        let run = testbed.traffic();
        let copy = tempfile::tempdir().unwrap();
        // A process that stands still leaves files that fit together.
        testbed.fault(&json!({"do": "pause", "target": REGIONS[0]}));
        copy_files(&testbed.cluster.data().join(REGIONS[0]), copy.path());
        testbed.fault(&json!({"do": "resume", "target": REGIONS[0]}));
        testbed.settles();
        if testbed.failovers() == 0 {
            testbed.flows(&run, 90);
            return (testbed, run, copy);
        }
        println!("again: copying took so long that somebody failed over, which nobody does again for a minute");
    }
    panic!("this machine is too slow to copy a small file within a second");
}

#[test]
fn a_primary_on_an_old_copy_of_its_disk_is_replaced_and_nothing_is_lost() {
    let (testbed, run, copy) = with_an_old_copy();
    let primary = testbed.has_a_writer();
    assert_eq!(primary, REGIONS[0]);
    let folder = testbed.cluster.data().join(primary);
    let before = incarnation(&testbed, primary);
    testbed.kill(primary);
    remove_files(&folder);
    copy_files(copy.path(), &folder);
    testbed.restart(primary);
    until("a region whose disk is whole leads", || testbed.writer().is_some_and(|writer| writer != primary));
    joins_in_a_new_life(&testbed, primary, before);
    testbed.flows(&run, 60);
    testbed.nothing_was_lost(&run);
}

/// The small disk, as `mount` takes it.
const SIZE: &str = "size=24m";

/// A small file system over a folder, gone when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Puts the files of a folder on a small file system in its place; `None` where this process may not mount.
    fn over(folder: &Path) -> Option<Self> {
        let aside = tempfile::tempdir().unwrap();
        copy_files(folder, aside.path());
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "longhaul-test"]).arg(folder).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            return None;
        }
        copy_files(aside.path(), folder);
        Some(Self(folder.to_owned()))
    }

    /// Takes what is left of it but a little.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.0.join("filler")).unwrap();
        let piece = vec![0; 64 * 1024];
        while filler.write_all(&piece).is_ok() {}
        let full = filler.metadata().unwrap().len();
        filler.set_len(full.saturating_sub(128 * 1024)).unwrap();
    }

    fn relieve(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_region_whose_disk_is_full_ends_and_acknowledges_nothing_that_it_did_not_store() {
    let testbed = Testbed::with("semi(1)");
    let region = REGIONS[0];
    let run = testbed.traffic();
    testbed.kill(region);
    let Some(disk) = SmallDisk::over(&testbed.cluster.data().join(region)) else {
        println!("skipped: this process may not mount a small file system");
        return;
    };
    testbed.restart(region);
    testbed.settles();
    disk.fill();
    testbed.dies(region);
    until("a survivor leads", || testbed.writer().is_some_and(|writer| writer != region));
    testbed.flows(&run, 60);
    disk.relieve();
    testbed.restart(region);
    testbed.settles();
    testbed.nothing_was_lost(&run);
}
