//! The lock elects, the term fences.

use bytes::Bytes;

use super::{Attempt, Candidate, PostgresServer, identity, open, server};
use crate::store::{Commit, Store, StoreError};

fn meta(name: &str) -> Commit {
    Commit { meta: vec![(name.to_owned(), Bytes::from_static(b"1"))], ..Commit::default() }
}

#[tokio::test]
async fn a_deposed_writer_changes_nothing_however_late_it_commits() {
    let Some(cluster) = PostgresServer::or_skip(&[]) else { return };
    let (first, second) = (server(&cluster, "fence", "first"), server(&cluster, "fence", "second"));
    let (old, old_hold) = open(&first, "fence").await.unwrap();
    old.commit(meta("before")).await.unwrap();
    // The lock's session ends, the process goes on: it does not know.
    drop(old_hold);
    let (new, mut new_hold) = open(&second, "fence").await.unwrap();
    assert!(matches!(old.commit(meta("late")).await, Err(StoreError::Deposed { term: 1, .. })));
    assert!(
        matches!(old.commit(meta("later")).await, Err(StoreError::Unavailable { .. })),
        "the first failure is the last"
    );
    new.commit(meta("after")).await.unwrap();
    new_hold.renew().await.unwrap();
    let names: Vec<String> = new.load().await.unwrap().meta.into_keys().collect();
    assert_eq!(names, ["after", "before"]);
    assert_eq!(new_hold.term(), 2);
}

#[tokio::test]
async fn only_one_instance_holds_the_store_and_the_others_learn_who() {
    let Some(cluster) = PostgresServer::or_skip(&[]) else { return };
    let (first, second) = (server(&cluster, "elect", "first"), server(&cluster, "elect", "second"));
    let (_store, hold) = open(&first, "elect").await.unwrap();
    let candidate = Candidate::connect(&second, "elect", &identity()).await.unwrap();
    let Attempt::Lost(candidate, holder) = candidate.attempt("b:1").await.unwrap() else { panic!("two holders") };
    assert_eq!((holder.term, holder.instance.as_str(), holder.address.as_str()), (1, "first", "127.0.0.1:1"));
    // One that gives the store up need not be waited for.
    hold.release().await;
    let Attempt::Won(next) = candidate.attempt("b:1").await.unwrap() else { panic!("nobody holds the store") };
    assert_eq!((next.term(), next.wait()), (2, std::time::Duration::ZERO));
}

#[tokio::test]
async fn a_holder_that_vanished_is_waited_for_and_its_open_transaction_is_ended() {
    let Some(cluster) = PostgresServer::or_skip(&[]) else { return };
    let (first, second) = (server(&cluster, "paused", "first"), server(&cluster, "paused", "second"));
    let (store, hold) = open(&first, "paused").await.unwrap();
    store.commit(meta("kept")).await.unwrap();
    // A paused process: its session lives, and a transaction of its own is open under its term.
    let mut paused = first.connect().await.unwrap();
    sqlx::query("BEGIN").execute(&mut paused).await.unwrap();
    super::super::hold::fence(&mut paused, hold.term()).await.unwrap();
    sqlx::query("INSERT INTO meta VALUES ('torn', '')").execute(&mut paused).await.unwrap();

    let mut candidate = Candidate::connect(&second, "paused", &identity()).await.unwrap();
    let holder = candidate.holder().await.unwrap();
    candidate.evict(&holder).await.unwrap();
    let next = loop {
        match candidate.attempt("b:1").await.unwrap() {
            Attempt::Won(next) => break next,
            Attempt::Lost(again, _) => candidate = again,
        }
    };
    assert!(next.wait() > std::time::Duration::ZERO, "the last holder may still answer");
    assert!(sqlx::query("COMMIT").execute(&mut paused).await.is_err());
    let store = super::PostgresStore::open(&second, next.term()).await.unwrap();
    assert_eq!(store.load().await.unwrap().meta.into_keys().collect::<Vec<_>>(), ["kept"]);
}
