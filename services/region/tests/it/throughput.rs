//! Measurements, not tests: run them in release with `--ignored --nocapture`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use longhaul_http::clock::{Clock, SystemClock};

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn acknowledged_writes_per_second() {
    let world = Arc::new(World::active_active().await);
    let clock = SystemClock::default();
    for clients in [64, 256] {
        let done = AtomicU64::new(0);
        let begin = clock.boot_ns();
        let end = begin + Duration::from_secs(4).as_nanos() as u64;
        let tasks = (0..clients).map(|client| {
            let (world, clock, done) = (&world, &clock, &done);
            async move {
                let mut i = 0;
                while clock.boot_ns() < end {
                    let path = format!("/v1/records/us-east/c{client}-{}", i % 50);
                    world.put(0, &path, &[], "{\"name\":\"a value of some length\",\"n\":123456}").await.ok();
                    done.fetch_add(1, Ordering::Relaxed);
                    i += 1;
                }
            }
        });
        futures::future::join_all(tasks).await;
        let seconds = (clock.boot_ns() - begin) as f64 / 1e9;
        let writes = done.load(Ordering::Relaxed);
        println!("{clients} clients: {:.0} writes/s", writes as f64 / seconds);
        let begin = clock.boot_ns();
        let head = world.status(0).await.unwrap().positions["1.1"].seq;
        for n in 1..3 {
            world.until(|w| async move { w.status(n).await.unwrap().positions["1.1"].seq >= head }, "caught up").await;
        }
        println!(
            "caught up after {:.3} s; commits {}",
            (clock.boot_ns() - begin) as f64 / 1e9,
            world.metric(0, "commits_total").await
        );
    }
}
