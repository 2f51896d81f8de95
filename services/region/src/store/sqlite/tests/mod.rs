//! Tests of the SQLite store.

mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use longhaul_core::ids::RegionId;

use super::SqliteStore;
use crate::store::conformance::{self, Testbed};
use crate::store::{Identity, Store};

/// Whose stores the tests open.
fn identity() -> Identity {
    Identity { topology_fingerprint: "three-regions-1".to_owned(), region: RegionId(1) }
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, identity()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_a_file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let next = std::cell::Cell::new(0);
    conformance::run_all(|| async {
        next.set(next.get() + 1);
        let path: PathBuf = folder.path().join(format!("{}.db", next.get()));
        Testbed {
            store: Arc::new(open(&path).await),
            reopen: Box::new(move |store| {
                let path = path.clone();
                Box::pin(async move {
                    store.close().await.unwrap();
                    Arc::new(open(&path).await) as Arc<dyn Store>
                })
            }),
        }
    })
    .await;
}
