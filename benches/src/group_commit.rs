//! The references for writes: group commit of the same payload by a bare store, without HTTP, replication or regime.
//! Writers put rows into a queue; one connection commits whatever is there, at most 256 rows at once.

use std::time::Duration;

use longhaul_http::clock::{Clock, SystemClock};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

type Row = (String, oneshot::Sender<()>);

/// Rows a second. `commit` makes rows of these ids, all with this value, durable in one transaction.
pub(crate) async fn rows_per_second(
    writers: u32,
    seconds: u64,
    mut commit: impl AsyncFnMut(&[&str], &str) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let (queue, mut rows) = mpsc::channel::<Row>(4096);
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let queue = queue.clone();
        tasks.spawn(async move {
            for n in 0_u64.. {
                let (done, committed) = oneshot::channel();
                if queue.send((format!("w{writer}-{n}"), done)).await.is_err() || committed.await.is_err() {
                    return;
                }
            }
        });
    }
    drop(queue);
    let clock = SystemClock::default();
    let end_ns = clock.boot_ns() + Duration::from_secs(seconds).as_nanos() as u64;
    let pad = "x".repeat(246);
    let mut count = 0_u64;
    let mut batch: Vec<Row> = Vec::with_capacity(256);
    while clock.boot_ns() < end_ns && rows.recv_many(&mut batch, 256).await > 0 {
        let ids: Vec<&str> = batch.iter().map(|(id, _)| id.as_str()).collect();
        commit(&ids, &pad).await?;
        count += batch.len() as u64;
        for (_, done) in batch.drain(..) {
            // A writer that is gone does not want to know.
            let _ = done.send(());
        }
    }
    tasks.abort_all();
    Ok(count as f64 / seconds as f64)
}
