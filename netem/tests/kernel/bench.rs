//! A cable between two network namespaces, shaped at both ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use longhaul_core::ids::LocationName;
use longhaul_core::link::{LinkPatch, LinkProfile};
use longhaul_http::clock::{Clock, SystemClock};
use longhaul_http::net::{BoxIo, Listener, Net, NetFuture};
use longhaul_netem::conformance::{Bench, Direction, Finding, LinkDriver};
use longhaul_netem::plan::Destination;
use longhaul_netem::tc::{SystemShell, Tc, TcConfig};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

/// The ends: addresses of the near one and of the far one.
pub(crate) const V4: [&str; 2] = ["10.99.0.1", "10.99.0.2"];
pub(crate) const V6: [&str; 2] = ["fd99::1", "fd99::2"];
/// Where the far end listens.
pub(crate) const PORT: u16 = 7000;

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
pub(crate) struct Inside(pub(crate) String);

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
            Ok(Listener::from(socket.listen(64)?))
        })
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
pub(crate) struct Cable {
    pub(crate) near: String,
    pub(crate) far: String,
}

impl Cable {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn config(&self, here: &str, delays: [f64; 2]) -> TcConfig {
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
pub(crate) struct KernelDriver {
    pub(crate) near: Tc,
    pub(crate) far: Tc,
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

    fn beside(&self, there_ms: f64, back_ms: f64) -> BoxFuture<'_, Vec<f64>> {
        let delays = [there_ms, back_ms].map(|ms| Duration::from_secs_f64(ms / 1000.0));
        Box::pin(async move {
            let trials = tokio::task::spawn_blocking(move || without_a_link(delays)).await;
            trials.expect("it does not panic").expect("loopback is there")
        })
    }
}

/// What an exchange over loopback takes beyond two sleeps, one at each end, milliseconds.
#[expect(clippy::disallowed_methods, reason = "how late the machine wakes a sleeper is what is measured")]
fn without_a_link(delays: [Duration; 2]) -> io::Result<Vec<f64>> {
    const TRIALS: usize = 24;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut near = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    let echo = std::thread::spawn(move || -> io::Result<()> {
        let mut byte = [0];
        for _ in 0..TRIALS {
            far.read_exact(&mut byte)?;
            std::thread::sleep(delays[0]);
            far.write_all(&byte)?;
        }
        Ok(())
    });
    let clock = SystemClock::default();
    let declared = delays.iter().sum::<Duration>();
    let mut trials = Vec::with_capacity(TRIALS);
    for _ in 0..TRIALS {
        let start_ns = clock.boot_ns();
        near.write_all(&[1])?;
        near.read_exact(&mut [0])?;
        std::thread::sleep(delays[1]);
        let took = Duration::from_nanos(clock.boot_ns() - start_ns);
        trials.push(took.saturating_sub(declared).as_secs_f64() * 1e3);
    }
    echo.join().expect("it does not panic")?;
    Ok(trials)
}

pub(crate) async fn run(there_ms: f64, back_ms: f64, case: impl AsyncFnOnce(&mut Bench) -> Finding) {
    run_owned(&V4, there_ms, back_ms, async |mut bench: Bench| case(&mut bench).await).await;
}

/// Runs one case over a cable with these one-way delays, and takes everything away.
pub(crate) async fn run_owned(
    addresses: &[&str; 2],
    there_ms: f64,
    back_ms: f64,
    case: impl AsyncFnOnce(Bench) -> Finding,
) {
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
