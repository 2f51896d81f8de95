//! Ports of a testbed: outside the ephemeral range, and locked, so that testbeds side by side do not clash and a
//! restarted process finds its port free.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use longhaul_http::net::{Net, TokioNet};

/// Where testbeds take ports. Linux hands out 32768 and above for outgoing connections.
const RANGE: Range<u16> = 18_000..32_000;
/// Ports under one lock.
const BLOCK: u16 = 50;

/// Ports of one testbed. They are its own as long as this lives.
#[derive(Debug)]
pub(crate) struct Ports {
    free: Vec<u16>,
    // Held, never read: the lock goes with the file.
    _locks: Vec<File>,
}

impl Ports {
    /// Takes at least `count` free ports. `first_block` spreads testbeds over the range.
    pub(crate) async fn take(count: usize, first_block: u64) -> Result<Self, String> {
        Self::take_in(&folder(), count, first_block).await
    }

    async fn take_in(folder: &Path, count: usize, first_block: u64) -> Result<Self, String> {
        let cannot = |error: io::Error| {
            format!("{} cannot be used for port locks: {error}; set TMPDIR to a folder of your own", folder.display())
        };
        std::fs::create_dir_all(folder).map_err(cannot)?;
        let blocks = (RANGE.end - RANGE.start) / BLOCK;
        let (mut free, mut locks) = (Vec::new(), Vec::new());
        for step in 0..blocks {
            let block = ((first_block + u64::from(step)) % u64::from(blocks)) as u16;
            let path = folder.join(format!("block-{block}"));
            let lock = File::create(&path).map_err(cannot)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
            }
            let first = RANGE.start + block * BLOCK;
            for port in first..first + BLOCK {
                if TokioNet.bind(&format!("127.0.0.1:{port}")).await.is_ok() {
                    free.push(port);
                }
            }
            locks.push(lock);
            if free.len() >= count {
                free.reverse();
                return Ok(Self { free, _locks: locks });
            }
        }
        Err(format!(
            "{count} free ports are needed between {} and {}, and there are {}; stop other testbeds",
            RANGE.start,
            RANGE.end - 1,
            free.len()
        ))
    }

    /// The next free port. `take` has made sure that there are as many as were asked for.
    pub(crate) fn next(&mut self) -> Result<u16, String> {
        self.free.pop().ok_or_else(|| "a defect: more ports are used than were counted".to_owned())
    }
}

fn folder() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("longhaul-ports-{user}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn two_testbeds_never_share_a_port() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = Ports::take_in(folder.path(), 60, 7).await.unwrap();
        let mut two = Ports::take_in(folder.path(), 60, 7).await.unwrap();
        let mut taken = BTreeSet::new();
        for _ in 0..60 {
            assert!(taken.insert(one.next().unwrap()) && taken.insert(two.next().unwrap()));
        }
        assert!(taken.iter().all(|port| RANGE.contains(port)));
    }

    #[tokio::test]
    async fn ports_can_be_taken_again_once_they_are_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let first = Ports::take_in(folder.path(), 10, 3).await.unwrap().free;
        assert_eq!(Ports::take_in(folder.path(), 10, 3).await.unwrap().free, first);
    }
}
