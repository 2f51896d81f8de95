//! The folder of a testbed: stores, configurations, logs. It belongs to one topology, and to one testbed at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use longhaul_core::topology::Topology;
use serde::{Deserialize, Serialize};

use crate::commands::trace::SPANS_FOLDER;

/// What lies in `testbed.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    topology: String,
    fingerprint: String,
    /// The secret that signs session tokens: tokens outlive a restart.
    session_secret: String,
}

/// An opened folder.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    temporary: bool,
    session_secret: String,
    _lock: File,
}

impl DataDir {
    /// Opens the user's folder, or a temporary one. Refused if it belongs to another topology or is in use.
    pub(crate) fn open(path: Option<&Path>, topology: &Topology, unique: u64) -> Result<Self, String> {
        let temporary = path.is_none();
        let path = path.map_or_else(
            || std::env::temp_dir().join(format!("longhaul-{}-{unique:x}", std::process::id())),
            Path::to_owned,
        );
        let cannot = |error: io::Error| {
            format!("data folder {} cannot be used: {error}; choose another with --data", path.display())
        };
        if !temporary && path.is_dir() && !path.join("testbed.json").exists() {
            let mut entries = std::fs::read_dir(&path).map_err(cannot)?;
            if entries.next().is_some() {
                let path = path.display();
                return Err(format!(
                    "data folder {path} holds something else; choose an empty or a new one with --data"
                ));
            }
        }
        std::fs::create_dir_all(path.join("logs")).map_err(cannot)?;
        std::fs::create_dir_all(path.join(SPANS_FOLDER)).map_err(cannot)?;
        let lock = File::create(path.join("lock")).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                return Err(format!(
                    "data folder {path} is in use by another testbed; stop that one or choose another with --data"
                ));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let file = path.join("testbed.json");
        let owner = match std::fs::read_to_string(&file) {
            Ok(text) => read_owner(&text, topology, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let owner = Owner {
                    topology: topology.name.clone(),
                    fingerprint: topology.fingerprint.clone(),
                    session_secret: format!(
                        "{:016x}{:016x}",
                        unique,
                        unique.rotate_left(29) ^ u64::from(std::process::id())
                    ),
                };
                let text = serde_json::to_string_pretty(&owner).map_err(|error| error.to_string())?;
                std::fs::write(&file, text).map_err(cannot)?;
                owner
            }
            Err(error) => return Err(cannot(error)),
        };
        Ok(Self { path, temporary, session_secret: owner.session_secret, _lock: lock })
    }

    /// A path inside.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The secret of this testbed's session tokens.
    pub(crate) fn session_secret(&self) -> &str {
        &self.session_secret
    }

    /// Whether it goes with the testbed.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Removes a temporary folder; one that the user named stays.
    pub(crate) fn discard(self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the temporary folder");
        }
    }
}

fn read_owner(text: &str, topology: &Topology, path: &Path) -> Result<Owner, String> {
    let path = path.display();
    let owner: Owner = serde_json::from_str(text).map_err(|error| {
        format!("data folder {path}: testbed.json cannot be read: {error}; choose another with --data")
    })?;
    if owner.fingerprint != topology.fingerprint {
        return Err(format!(
            "data folder {path} belongs to topology {}, which has other regions than {}; choose another with --data",
            owner.topology, topology.name
        ));
    }
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(name: &str) -> Topology {
        Topology::shipped(name).unwrap().unwrap()
    }

    #[test]
    fn a_folder_belongs_to_one_topology_and_one_testbed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::open(Some(&path), &topology("two-regions"), 1).unwrap();
        let secret = first.session_secret().to_owned();
        let error = DataDir::open(Some(&path), &topology("two-regions"), 2).unwrap_err();
        assert!(error.contains("in use"), "{error}");
        first.discard();
        let error = DataDir::open(Some(&path), &topology("five-azure"), 3).unwrap_err();
        assert!(error.contains("belongs to topology two-regions"), "{error}");
        let again = DataDir::open(Some(&path), &topology("two-regions"), 4).unwrap();
        assert_eq!(again.session_secret(), secret, "tokens outlive a restart");
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("letter.txt"), "dear").unwrap();
        let error = DataDir::open(Some(folder.path()), &topology("two-regions"), 1).unwrap_err();
        assert!(error.contains("holds something else"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_temporary_folder_goes_with_its_testbed() {
        let data = DataDir::open(None, &topology("two-regions"), 0xfeed).unwrap();
        let path = data.path().to_owned();
        assert!(path.join("logs").is_dir());
        data.discard();
        assert!(!path.exists());
    }
}
