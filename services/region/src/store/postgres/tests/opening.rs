//! What is refused when the store is opened, and what is said about it.

use longhaul_core::ids::RegionId;

use super::{Candidate, PostgresServer, Server, identity, open, server};
use crate::store::{Identity, StoreError};

async fn refused(server: &Server, schema: &str, identity: &Identity) -> StoreError {
    match Candidate::connect(server, schema, identity).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

/// One line with every part, and nothing of the password.
fn says(error: &StoreError, parts: &[&str]) {
    let said = error.to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in parts {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn a_store_of_somebody_else_is_not_opened() {
    let Some(cluster) = PostgresServer::or_skip(&[]) else { return };
    let mine = server(&cluster, "mine", "a");
    drop(open(&mine, "mine").await.unwrap());
    let other_region = Identity { region: RegionId(2), ..identity() };
    let error = refused(&mine, "mine", &other_region).await;
    assert!(matches!(error, StoreError::Unusable { .. }));
    says(&error, &["schema mine", "belongs to region 1, not to 2", "a schema or a database of its own"]);
    let other_topology = Identity { topology_fingerprint: "moved".to_owned(), ..identity() };
    says(&refused(&mine, "mine", &other_topology).await, &["belongs to topology tests, not to moved"]);
    cluster.sql("UPDATE mine._sqlx_migrations SET version = 99").unwrap();
    says(&refused(&mine, "mine", &identity()).await, &["schema 99", "newer than this program"]);
}

#[tokio::test]
async fn a_server_that_may_lose_what_it_committed_is_refused() {
    let Some(cluster) = PostgresServer::or_skip(&["fsync=off"]) else { return };
    let error = refused(&server(&cluster, "unsafe", "a"), "unsafe", &identity()).await;
    assert!(matches!(error, StoreError::Unusable { .. }));
    says(&error, &["fsync = off", "start the server with fsync = on"]);
}

#[tokio::test]
async fn a_role_that_commits_asynchronously_is_overruled() {
    let Some(cluster) = PostgresServer::or_skip(&[]) else { return };
    cluster.sql("ALTER ROLE longhaul SET synchronous_commit = off").unwrap();
    let mut connection = server(&cluster, "durable", "a").connect().await.unwrap();
    let set: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&mut connection).await.unwrap();
    assert_eq!(set, "on");
}

#[tokio::test]
async fn trouble_with_the_server_is_one_line_with_the_remedy() {
    let Some(cluster) = PostgresServer::or_skip(&["max_connections=10", "superuser_reserved_connections=0"]) else {
        return;
    };
    let at = |url: &str| Server::new(url, "trouble", "a").unwrap();
    let nowhere = at("postgres://longhaul:secret@127.0.0.1:9/nowhere");
    let error = refused(&nowhere, "trouble", &identity()).await;
    assert!(matches!(error, StoreError::Unavailable { .. }));
    says(&error, &["127.0.0.1:9/nowhere", "refused", "start the database"]);
    let absent = at(&cluster.url().replace("/postgres", "/absent").replace("//longhaul", "//longhaul:secret"));
    says(&refused(&absent, "trouble", &identity()).await, &["3D000", "create the database"]);

    let mine = server(&cluster, "trouble", "a");
    let mut all = Vec::new();
    let full = loop {
        match mine.connect().await {
            Ok(connection) => all.push(connection),
            Err(error) => break error,
        }
    };
    assert!(all.len() <= 10);
    says(&full, &["too many clients", "max_connections", "needs 6"]);
    let wrong = Server::new("postgres://us er:secret@db:notaport/x", "trouble", "a").err().unwrap();
    says(&wrong, &["cannot be read", "postgres://USER"]);
}
