//! The suite of link behaviour against the kernel driver, between two network namespaces.
//!
//! Needs root and a kernel with netem, so every test is ignored unless asked for: `./tests/run kernel` does, under a
//! kernel that has it.

#![expect(clippy::disallowed_types, reason = "sockets of another network namespace are made here")]

mod bench;
mod packets;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bench::{Cable, Inside, KernelDriver, PORT, V4, V6, run, run_owned};
use longhaul_core::link::{LinkPatch, LinkState};
use longhaul_http::clock::SystemClock;
use longhaul_http::net::Net;
use longhaul_netem::conformance::{self, Bench, Direction, Finding};
use longhaul_netem::tc::{SystemShell, Tc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_round_trip_is_as_declared() {
    run(3.7, 1.2, conformance::round_trip).await;
    run(20.0, 15.25, conformance::round_trip).await;
    run(100.0, 120.0, conformance::round_trip).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_round_trip_is_as_declared_over_ipv6() {
    run_owned(&V6, 20.0, 15.25, async |mut bench: Bench| conformance::round_trip(&mut bench).await).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_cut_holds_over_ipv6() {
    run_owned(&V6, 10.0, 10.0, async |mut bench: Bench| conformance::one_way_cut(&mut bench).await).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_new_connection_costs_one_more_round_trip() {
    run(20.0, 10.0, conformance::handshake).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_long_link_is_not_a_slow_one() {
    // What TCP's windows let through over 100 ms; a queue of 1000 packets would let through a fifth of it.
    run(50.0, 50.0, async |bench: &mut Bench| conformance::throughput(bench, 20_000_000, 4e6).await).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_cut_loses_what_is_in_flight() {
    // Long enough for `tc` to run on a slow machine before half of it is over.
    run(800.0, 20.0, conformance::cut_in_flight).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_cut_in_one_direction_leaves_the_other_one_alone() {
    run(10.0, 10.0, conformance::one_way_cut).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn idle_connections_outlive_a_cut_and_new_ones_hang() {
    run(5.0, 5.0, conformance::idle_and_new_connections_in_a_cut).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_live_change_acts_on_open_connections() {
    run(8.0, 8.0, conformance::live_change).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_reset_ends_open_connections_or_the_kernel_is_named_that_cannot() {
    run(5.0, 5.0, async |bench: &mut Bench| match conformance::reset(bench).await {
        Err(line) if line.contains("CONFIG_INET_DIAG_DESTROY") => Ok(line),
        finding => finding,
    })
    .await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn jitter_keeps_the_mean() {
    run(20.0, 5.0, conformance::jitter).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_rate_bounds_what_gets_through() {
    run(10.0, 10.0, conformance::rate).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_loss_stalls_and_loses_nothing() {
    run(15.0, 15.0, conformance::loss).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn half_closed_connections_stay_half_open() {
    run(25.0, 5.0, conformance::half_close).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_flapping_link_goes_down_and_up() {
    run(10.0, 10.0, conformance::flap).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_target_that_refuses_is_a_reset_after_a_round_trip() {
    run_owned(&V4, 15.0, 10.0, conformance::refused_target).await;
}

/// What is on its way when the delay changes still arrives, and no earlier than it would have.
async fn in_flight_during_a_change(bench: &mut Bench) -> Finding {
    let text = |error: io::Error| error.to_string();
    let mut near = bench.net.connect(&bench.dial).await.map_err(text)?;
    let (mut far, _) = bench.listener.accept_io().await.map_err(text)?;
    let start_ns = bench.clock.boot_ns();
    near.write_all(b"on its way").await.map_err(text)?;
    let faster = LinkPatch { delay_ms: Some(1.0), ..LinkPatch::default() };
    let mut received = [0; 10];
    let arrival = async {
        let arrival = tokio::time::timeout(Duration::from_secs(10), far.read_exact(&mut received)).await;
        arrival.map_err(|_| "what was in flight was dropped".to_owned())?.map_err(text)?;
        Ok((bench.clock.boot_ns() - start_ns) as f64 / 1e6)
    };
    let (milliseconds, ()) = tokio::try_join!(arrival, bench.driver.change(Direction::There, faster))?;
    let line = format!("sent at a delay of {} ms, arrived after {milliseconds:.1} ms", bench.there_ms);
    if milliseconds < bench.there_ms + 150.0 { Ok(line) } else { Err(line) }
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_live_change_does_not_drop_what_is_in_flight() {
    run(300.0, 10.0, in_flight_during_a_change).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn each_destination_has_a_class_of_its_own() {
    let cable = Cable::new();
    let stop = CancellationToken::new();
    let tc = Tc::start(Arc::new(SystemShell), cable.config("near", [10.0, 10.0]), stop.clone()).await.unwrap();
    let cut = LinkPatch { state: Some(LinkState::Cut), delay_ms: Some(900.0), ..LinkPatch::default() };
    tc.patch("near", "another", &cut).await.unwrap();
    // The namespaces are already joined and shaped at one end: starting again replaces what is there.
    let again = Tc::start(Arc::new(SystemShell), cable.config("near", [10.0, 10.0]), stop.clone()).await.unwrap();
    again.patch("near", "another", &cut).await.unwrap();
    let far = Tc::start(Arc::new(SystemShell), cable.config("far", [10.0, 10.0]), stop.clone()).await.unwrap();
    let dial = format!("{}:{PORT}", V4[1]);
    let listener = Inside(cable.far.clone()).bind(&dial).await.unwrap();
    let mut bench = Bench {
        net: Arc::new(Inside(cable.near.clone())),
        clock: Arc::new(SystemClock::default()),
        driver: Arc::new(KernelDriver { near: again.clone(), far: far.clone() }),
        dial,
        listener,
        there_ms: 10.0,
        back_ms: 10.0,
    };
    let finding = conformance::round_trip(&mut bench).await;
    let bytes = again.bytes().await.unwrap();
    let of = |to: &str| bytes.iter().find(|view| view.to == to).unwrap().bytes["all"];
    assert!(of("far") > 1000 && of("another") == 0, "{bytes:?}");
    stop.cancel();
    finding.unwrap();
}
