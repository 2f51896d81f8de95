//! The suite that every store passes, and random histories against the store in memory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::{PostgresServer, open, server};
use crate::store::conformance::{self, Testbed};
use crate::store::{Store, equivalence, throughput};

#[tokio::test]
async fn the_store_in_postgres_conforms() {
    let Some(cluster) = PostgresServer::or_skip(&[]) else { return };
    let cluster = Rc::new(cluster);
    let next = Cell::new(0);
    conformance::run_all(|| {
        next.set(next.get() + 1);
        testbed(Rc::clone(&cluster), format!("suite_{}", next.get()))
    })
    .await;
}

#[test]
fn the_store_in_postgres_answers_like_the_model_after_any_history() {
    let Some(cluster) = PostgresServer::or_skip(&[]) else { return };
    let cluster = Rc::new(cluster);
    equivalence::agree(6, 1_000, |number| testbed(Rc::clone(&cluster), format!("history_{number}")));
}

async fn testbed(cluster: Rc<PostgresServer>, schema: String) -> Testbed {
    let server = server(&cluster, &schema, "suite");
    let (store, hold) = open(&server, &schema).await.unwrap();
    let held = Rc::new(RefCell::new(Some(hold)));
    let reopen = Box::new(move |last: Arc<dyn Store>| {
        let (server, schema, held, cluster) = (server.clone(), schema.clone(), Rc::clone(&held), Rc::clone(&cluster));
        Box::pin(async move {
            last.close().await.unwrap();
            drop(held.take());
            let (store, hold) = open(&server, &schema).await.unwrap();
            held.replace(Some(hold));
            drop(cluster);
            let store: Arc<dyn Store> = store;
            store
        }) as std::pin::Pin<Box<dyn Future<Output = Arc<dyn Store>>>>
    });
    Testbed { store, reopen }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of the disk, for people"]
async fn commits_per_second() {
    let Some(cluster) = PostgresServer::or_skip(&[]) else { return };
    let holds = std::sync::Mutex::new(Vec::new());
    throughput::measure(async |n| {
        let schema = format!("measured_{n}");
        let (store, hold) = open(&server(&cluster, &schema, "measured"), &schema).await.unwrap();
        holds.lock().unwrap().push(hold);
        store as Arc<dyn Store>
    })
    .await;
}
