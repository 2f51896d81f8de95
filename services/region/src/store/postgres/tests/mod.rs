//! The store against a server of the tests' own.

mod fencing;
mod opening;
mod suite;

use std::sync::Arc;

use longhaul_core::ids::RegionId;

use super::fixture::PostgresServer;
use super::{Attempt, Candidate, Hold, PostgresStore, Server};
use crate::store::{Identity, StoreError};

fn identity() -> Identity {
    Identity { topology_fingerprint: "tests".to_owned(), region: RegionId(1) }
}

fn server(cluster: &PostgresServer, schema: &str, instance: &str) -> Server {
    Server::new(&cluster.url(), schema, instance).unwrap()
}

/// Becomes the holder; the last one must have gone, or go now.
async fn hold(server: &Server, schema: &str) -> Hold {
    let mut candidate = Candidate::connect(server, schema, &identity()).await.unwrap();
    loop {
        match candidate.attempt("127.0.0.1:1").await.unwrap() {
            Attempt::Won(hold) => return hold,
            Attempt::Lost(again, _) => candidate = again,
        }
        tokio::task::yield_now().await;
    }
}

async fn open(server: &Server, schema: &str) -> Result<(Arc<PostgresStore>, Hold), StoreError> {
    let hold = hold(server, schema).await;
    Ok((Arc::new(PostgresStore::open(server, hold.term()).await?), hold))
}
