//! The suite of link behaviour against the kernel driver, between two network namespaces.
//!
//! Needs root and a kernel with netem, so every test is ignored unless asked for: `./tests/run kernel` does, under a
//! kernel that has it.

#![expect(clippy::disallowed_types, reason = "sockets of another network namespace are made here")]

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use longhaul_core::ids::LocationName;
use longhaul_core::link::{LinkPatch, LinkProfile, LinkState};
use longhaul_http::clock::SystemClock;
use longhaul_http::net::{Accept, BoxIo, Listener, Net, NetFuture};
use longhaul_netem::conformance::{self, Bench, Direction, Finding, LinkDriver};
use longhaul_netem::plan::Destination;
use longhaul_netem::tc::{SystemShell, Tc, TcConfig};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// The ends: addresses of the near one and of the far one.
const V4: [&str; 2] = ["10.99.0.1", "10.99.0.2"];
const V6: [&str; 2] = ["fd99::1", "fd99::2"];
/// Where the far end listens.
const PORT: u16 = 7000;

/// Makes something in a network namespace: a socket belongs to the namespace of the thread that made it.
fn inside<T: Send + 'static>(namespace: &str, make: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let file = File::open(format!("/run/netns/{namespace}"))?;
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        make()
    });
    thread.join().expect("the thread only makes system calls")
}

/// The network of a namespace.
struct Inside(String);

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    Ok(socket)
}

impl Net for Inside {
    fn connect<'a>(&'a self, address: &'a str) -> NetFuture<'a, BoxIo> {
        Box::pin(async move {
            let address: SocketAddr = address.parse().map_err(io::Error::other)?;
            let socket = inside(&self.0, move || socket_for(address))?;
            Ok(Box::new(socket.connect(address).await?) as BoxIo)
        })
    }

    fn bind<'a>(&'a self, address: &'a str) -> NetFuture<'a, Listener> {
        Box::pin(async move {
            let address: SocketAddr = address.parse().map_err(io::Error::other)?;
            let socket = inside(&self.0, move || {
                let socket = socket_for(address)?;
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                Ok(socket)
            })?;
            Ok(Listener::new(Accepting(socket.listen(64)?)))
        })
    }
}

struct Accepting(TcpListener);

impl Accept for Accepting {
    fn accept(&mut self) -> NetFuture<'_, (BoxIo, SocketAddr)> {
        Box::pin(async {
            let (stream, peer) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxIo, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Runs a tool that must succeed; answers what it printed.
fn tool(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?} failed");
    String::from_utf8(output.stdout).unwrap()
}

/// Two namespaces joined by a cable.
struct Cable {
    near: String,
    far: String,
}

impl Cable {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cable = Self { near: format!("lh-near-{number}"), far: format!("lh-far-{number}") };
        let Self { near, far } = &cable;
        let join = format!(
            "netns add {near}\nnetns add {far}\nlink add name lhc0 netns {near} type veth peer name lhc0 netns {far}\n"
        );
        tool("ip", &["-batch", "-"], &join);
        for (namespace, place) in [(near, 0), (far, 1)] {
            let up = format!(
                "link set lo up\naddress add {}/24 dev lhc0\naddress add {}/64 dev lhc0 nodad\nlink set lhc0 up\n",
                V4[place], V6[place]
            );
            tool("ip", &["-n", namespace, "-batch", "-"], &up);
        }
        cable
    }

    fn config(&self, here: &str, delays: [f64; 2]) -> TcConfig {
        let near = here == "near";
        let (there, place) = if near { ("far", 1) } else { ("near", 0) };
        let name = |text: &str| LocationName::new(text).unwrap();
        let (out_ms, in_ms) = if near { (delays[0], delays[1]) } else { (delays[1], delays[0]) };
        let another = Destination {
            name: name("another"),
            subnets: vec!["10.99.0.77".parse().unwrap()],
            profile: LinkProfile::delay(500.0),
        };
        let destination = Destination {
            name: name(there),
            subnets: vec![V4[place].parse().unwrap(), V6[place].parse().unwrap()],
            profile: LinkProfile::delay(out_ms),
        };
        TcConfig {
            location: name(here),
            device: "lhc0".to_owned(),
            namespace: Some(if near { self.near.clone() } else { self.far.clone() }),
            destinations: vec![another, destination],
            inbound: [(name(there), LinkProfile::delay(in_ms))].into(),
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            let deleted = Command::new("ip").args(["netns", "del", namespace]).status();
            if !deleted.is_ok_and(|status| status.success()) {
                eprintln!("the namespace {namespace} is left");
            }
        }
    }
}

/// Both ends' drivers, as control drives them: every change goes to both.
struct KernelDriver {
    near: Tc,
    far: Tc,
}

impl LinkDriver for KernelDriver {
    fn change(&self, direction: Direction, patch: LinkPatch) -> BoxFuture<'_, Result<(), String>> {
        let (from, to) = match direction {
            Direction::There => ("near", "far"),
            Direction::Back => ("far", "near"),
        };
        Box::pin(async move {
            for tc in [&self.near, &self.far] {
                tc.patch(from, to, &patch).await.map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }

    fn heal(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            for tc in [&self.near, &self.far] {
                tc.reset_to_declared().await.map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }

    fn acts_on_packets(&self) -> bool {
        true
    }
}

async fn run(there_ms: f64, back_ms: f64, case: impl AsyncFnOnce(&mut Bench) -> Finding) {
    run_owned(&V4, there_ms, back_ms, async |mut bench: Bench| case(&mut bench).await).await;
}

/// Runs one case over a cable with these one-way delays, and takes everything away.
async fn run_owned(addresses: &[&str; 2], there_ms: f64, back_ms: f64, case: impl AsyncFnOnce(Bench) -> Finding) {
    let cable = Cable::new();
    let stop = CancellationToken::new();
    let start = async |here: &str| {
        Tc::start(Arc::new(SystemShell), cable.config(here, [there_ms, back_ms]), stop.clone()).await.unwrap()
    };
    let (near, far) = (start("near").await, start("far").await);
    let host = if addresses[1].contains(':') { format!("[{}]", addresses[1]) } else { addresses[1].to_owned() };
    let dial = format!("{host}:{PORT}");
    let listener = Inside(cable.far.clone()).bind(&dial).await.unwrap();
    let bench = Bench {
        net: Arc::new(Inside(cable.near.clone())),
        clock: Arc::new(SystemClock::default()),
        driver: Arc::new(KernelDriver { near: near.clone(), far: far.clone() }),
        dial,
        listener,
        there_ms,
        back_ms,
    };
    let finding = case(bench).await;
    stop.cancel();
    near.join().await;
    far.join().await;
    for namespace in [&cable.near, &cable.far] {
        let left = tool("tc", &["-netns", namespace, "qdisc", "show", "dev", "lhc0"], "");
        assert!(!left.contains("netem") && !left.contains("htb") && !left.contains("clsact"), "left behind: {left}");
    }
    match finding {
        Ok(line) => println!("{line}"),
        Err(line) => panic!("{line}"),
    }
}

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
    run(200.0, 20.0, conformance::cut_in_flight).await;
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
