//! One suite of link behaviour for every driver. A driver that passes it may serve drills.
//!
//! Each case opens its own connections over the link of a [`Bench`], changes the link through its driver and returns one
//! line with what it measured, or one line with what is wrong. The near end dials, the far end listens.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use longhaul_core::link::{LinkPatch, LinkState};
use longhaul_http::clock::SharedClock;
use longhaul_http::net::{BoxIo, Listener, SharedNet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::probe::lower_quartile_ms;

/// A direction of the link under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the dialer to the listener.
    There,
    /// From the listener to the dialer.
    Back,
}

/// What the suite needs from a driver.
pub trait LinkDriver: Send + Sync {
    /// Changes one direction; in force when it completes.
    fn change(&self, direction: Direction, patch: LinkPatch) -> BoxFuture<'_, Result<(), String>>;
    /// Puts both directions back to what is declared.
    fn heal(&self) -> BoxFuture<'_, Result<(), String>>;
    /// Whether it acts on packets, below TCP. TCP then repairs what is lost, so that a connection outlives losses and
    /// cuts; above TCP bytes that are lost are gone, and their connection with them.
    fn acts_on_packets(&self) -> bool {
        false
    }
    /// What the machine alone adds to a round trip with these delays, in milliseconds, one figure for each of some trials: on
    /// a slow or busy machine timers and processes wake up late, whoever delays what. None: nothing is allowed for.
    fn beside(&self, _there_ms: f64, _back_ms: f64) -> BoxFuture<'_, Vec<f64>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// A link under test and both of its ends.
pub struct Bench {
    /// Sockets.
    pub net: SharedNet,
    /// Time.
    pub clock: SharedClock,
    /// Who changes the link.
    pub driver: Arc<dyn LinkDriver>,
    /// What the near end dials.
    pub dial: String,
    /// Where the far end listens.
    pub listener: Listener,
    /// Declared one-way delay there, milliseconds.
    pub there_ms: f64,
    /// Declared one-way delay back, milliseconds.
    pub back_ms: f64,
}

/// One line with what was measured, or with what is wrong.
pub type Finding = Result<String, String>;

/// Nothing in the suite takes longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// The other end of what a case waits for did not come.
fn late(what: &str) -> String {
    format!("{what} did not happen within {} s", PATIENCE.as_secs())
}

fn text(error: &std::io::Error) -> String {
    error.to_string()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The fastest one: none is faster than the link lets it, and a busy machine makes the others slower.
fn fastest(figures: Vec<f64>) -> f64 {
    figures.into_iter().fold(f64::INFINITY, f64::min)
}

fn judge(holds: bool, finding: String) -> Finding {
    if holds { Ok(finding) } else { Err(finding) }
}

impl Bench {
    fn round_trip_ms(&self) -> f64 {
        self.there_ms + self.back_ms
    }

    async fn beside(&self) -> Vec<f64> {
        self.driver.beside(self.there_ms, self.back_ms).await
    }

    fn milliseconds_since(&self, start_ns: u64) -> f64 {
        (self.clock.boot_ns() - start_ns) as f64 / 1e6
    }

    /// Opens a connection, both ends of it known to be open.
    async fn open(&mut self) -> Result<(BoxIo, BoxIo), String> {
        let opening = async {
            let mut near = self.net.connect(&self.dial).await.map_err(|error| text(&error))?;
            near.write_all(&[0]).await.map_err(|error| text(&error))?;
            let (mut far, _) = self.listener.accept_io().await.map_err(|error| text(&error))?;
            far.read_u8().await.map_err(|error| text(&error))?;
            Ok((near, far))
        };
        timeout(PATIENCE, opening).await.map_err(|_| late("the opening of a connection"))?
    }

    /// One round trip of one byte over an open connection, milliseconds.
    async fn ping(&self, near: &mut BoxIo, far: &mut BoxIo) -> Result<f64, String> {
        let start_ns = self.clock.boot_ns();
        let there_and_back = async {
            tokio::try_join!(
                async {
                    near.write_all(&[1]).await?;
                    near.read_u8().await
                },
                async {
                    let byte = far.read_u8().await?;
                    far.write_all(&[byte]).await
                },
            )
            .map_err(|error| text(&error))
        };
        timeout(PATIENCE, there_and_back).await.map_err(|_| late("a round trip"))??;
        Ok(self.milliseconds_since(start_ns))
    }

    async fn pings(&self, near: &mut BoxIo, far: &mut BoxIo, count: usize) -> Result<Vec<f64>, String> {
        let mut figures = Vec::with_capacity(count);
        for _ in 0..count {
            figures.push(self.ping(near, far).await?);
        }
        Ok(figures)
    }

    async fn change(&self, direction: Direction, change: impl FnOnce(&mut LinkPatch)) -> Result<(), String> {
        let mut patch = LinkPatch::default();
        change(&mut patch);
        self.driver.change(direction, patch).await
    }

    async fn heal(&self) -> Result<(), String> {
        self.driver.heal().await
    }
}

/// Whether anything (bytes, an end, a reset) comes within `wait`.
async fn hears(io: &mut BoxIo, wait: Duration) -> bool {
    timeout(wait, io.read_u8()).await.is_ok()
}

/// The round trip is as declared, within the certificate's tolerance and measured as for the certificate: the lower quartile,
/// in the best of eight series, because a busy machine can delay a whole one. What the machine alone adds is no link's fault.
pub async fn round_trip(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    let declared = bench.round_trip_ms();
    let tolerance = crate::certificate::tolerance_ms(declared);
    let mut finding = String::new();
    for _ in 0..8 {
        let series = bench.pings(&mut near, &mut far, 12).await?;
        let measured = lower_quartile_ms(series).unwrap_or(f64::INFINITY);
        let holds = |beside: f64| (-tolerance..=tolerance + beside).contains(&(measured - declared));
        finding = format!("round trip {measured:.3} ms, declared {declared:.3} ms (tolerance {tolerance:.2} ms)");
        if holds(0.0) {
            return Ok(finding);
        }
        let beside = lower_quartile_ms(bench.beside().await).unwrap_or(0.0);
        finding.push_str(&format!(", {beside:.3} ms of it the machine's"));
        if holds(beside) {
            return Ok(finding);
        }
    }
    Err(finding)
}

/// The first answer on a new connection takes a second round trip: the handshake. The fastest of several connections, because a
/// busy machine can delay each.
pub async fn handshake(bench: &mut Bench) -> Finding {
    let expected = 2.0 * bench.round_trip_ms();
    let holds = |measured: f64| (-0.5..=5.0).contains(&(measured - expected));
    let mut measured = f64::INFINITY;
    for attempt in 0..20 {
        if attempt >= 5 && holds(measured) {
            break;
        }
        let start_ns = bench.clock.boot_ns();
        let (mut near, mut far) = bench.open().await?;
        far.write_all(&[2]).await.map_err(|error| text(&error))?;
        timeout(PATIENCE, near.read_u8()).await.map_err(|_| late("the answer"))?.map_err(|error| text(&error))?;
        measured = measured.min(bench.milliseconds_since(start_ns));
    }
    judge(holds(measured), format!("first answer after {measured:.3} ms, two round trips are {expected:.3} ms"))
}

/// Delay does not cost throughput: `bytes` get across at `bytes_per_s_min` or more, the delay included.
pub async fn throughput(bench: &mut Bench, bytes: usize, bytes_per_s_min: f64) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    let start_ns = bench.clock.boot_ns();
    let chunk = vec![7; 256 * 1024];
    let transfer = async {
        tokio::try_join!(
            async {
                let mut left = bytes;
                while left > 0 {
                    let count = left.min(chunk.len());
                    near.write_all(&chunk[..count]).await?;
                    left -= count;
                }
                Ok::<_, std::io::Error>(())
            },
            async {
                let mut buffer = vec![0; 256 * 1024];
                let mut left = bytes;
                while left > 0 {
                    match far.read(&mut buffer).await? {
                        0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        count => left -= count,
                    }
                }
                Ok(())
            },
        )
        .map_err(|error| text(&error))
    };
    timeout(PATIENCE, transfer).await.map_err(|_| late("the transfer"))??;
    let seconds = bench.milliseconds_since(start_ns) / 1000.0;
    let rate = bytes as f64 / seconds;
    judge(
        rate >= bytes_per_s_min,
        format!(
            "{:.1} MB/s over a round trip of {:.0} ms (at least {:.1} MB/s)",
            rate / 1e6,
            bench.round_trip_ms(),
            bytes_per_s_min / 1e6
        ),
    )
}

/// A cut loses what is in flight. Once the link is up again the connection is reset, or, where the driver acts on
/// packets, TCP sends again what was lost.
pub async fn cut_in_flight(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    near.write_all(b"lost").await.map_err(|error| text(&error))?;
    tokio::time::sleep(Duration::from_secs_f64(bench.there_ms / 2000.0)).await;
    bench.change(Direction::There, |patch| patch.state = Some(LinkState::Cut)).await?;
    let wait = Duration::from_secs_f64(bench.there_ms / 1000.0) + Duration::from_millis(150);
    let arrived = hears(&mut far, wait).await;
    let noticed = hears(&mut near, Duration::from_millis(50)).await;
    bench.heal().await?;
    let ended = if bench.driver.acts_on_packets() {
        let mut again = [0; 4];
        let sent_again = timeout(PATIENCE, far.read_exact(&mut again)).await;
        sent_again.map_err(|_| late("the retransmission after the cut"))?.is_ok() && again == *b"lost"
    } else {
        timeout(PATIENCE, near.read_u8()).await.map_err(|_| late("the reset after the cut"))?.is_err()
    };
    judge(
        !arrived && !noticed && ended,
        format!("in flight arrived: {arrived}; dialer noticed the cut: {noticed}; as it should be afterwards: {ended}"),
    )
}

/// A cut in one direction leaves the other one alone.
pub async fn one_way_cut(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    bench.change(Direction::Back, |patch| patch.state = Some(LinkState::Cut)).await?;
    near.write_all(&[3]).await.map_err(|error| text(&error))?;
    let there = hears(&mut far, PATIENCE).await;
    far.write_all(&[4]).await.map_err(|error| text(&error))?;
    let wait = Duration::from_secs_f64(bench.back_ms / 1000.0) + Duration::from_millis(150);
    let back = hears(&mut near, wait).await;
    bench.heal().await?;
    judge(there && !back, format!("request arrived: {there}; answer arrived: {back}"))
}

/// A connection that had nothing to say during a cut outlives it; one that was opened in it gets no answer.
pub async fn idle_and_new_connections_in_a_cut(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    for direction in [Direction::There, Direction::Back] {
        bench.change(direction, |patch| patch.state = Some(LinkState::Cut)).await?;
    }
    let opened = timeout(Duration::from_millis(400), async {
        let mut new = bench.net.connect(&bench.dial).await.map_err(|error| text(&error))?;
        new.write_all(&[5]).await.map_err(|error| text(&error))?;
        new.read_u8().await.map_err(|error| text(&error))
    })
    .await;
    bench.heal().await?;
    let outlived = bench.ping(&mut near, &mut far).await.is_ok();
    let hung = opened.is_err();
    judge(hung && outlived, format!("new connection hung: {hung}; idle connection outlived the cut: {outlived}"))
}

/// A new delay acts on connections that are open.
pub async fn live_change(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    let before = fastest(bench.pings(&mut near, &mut far, 15).await?);
    let slower = bench.back_ms + 30.0;
    bench.change(Direction::Back, |patch| patch.delay_ms = Some(slower)).await?;
    let during = fastest(bench.pings(&mut near, &mut far, 15).await?);
    bench.heal().await?;
    let after = fastest(bench.pings(&mut near, &mut far, 15).await?);
    judge(
        (during - before - 30.0).abs() < 2.0 && (after - before).abs() < 2.0,
        format!("round trip {before:.2} ms, {during:.2} ms with 30 ms more, {after:.2} ms after healing"),
    )
}

/// A reset ends open connections at both ends, once.
pub async fn reset(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    bench.change(Direction::There, |patch| patch.reset = true).await?;
    let ended = async { (near.read_u8().await.is_err(), far.read_u8().await.is_err()) };
    let (near_ended, far_ended) = timeout(PATIENCE, ended).await.map_err(|_| late("the reset"))?;
    let (mut near, mut far) = bench.open().await?;
    let again = bench.ping(&mut near, &mut far).await.is_ok();
    judge(
        near_ended && far_ended && again,
        format!("dialer reset: {near_ended}; listener reset: {far_ended}; a new connection works: {again}"),
    )
}

/// The middle of some figures and their standard deviation, both by quartiles, which a busy machine's outliers do not move.
/// The quartiles of a normal distribution are 1.349 standard deviations apart. Both are 0 of no figures.
pub fn middle_and_deviation(mut figures: Vec<f64>) -> (f64, f64) {
    figures.sort_by(f64::total_cmp);
    let quartile = |quarters: usize| figures.get(figures.len() * quarters / 4).copied().unwrap_or(0.0);
    (quartile(2), (quartile(3) - quartile(1)) / 1.349)
}

/// Jitter moves round trips by about what is declared and leaves their middle where it was, in the best of three series. What
/// the machine alone adds and how much that varies is no link's fault; variances of what is independent add up.
pub async fn jitter(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    let (declared, deviation_ms) = (bench.round_trip_ms(), bench.there_ms / 5.0);
    bench.change(Direction::There, |patch| patch.jitter_ms = Some(deviation_ms)).await?;
    let mut finding = Err(String::new());
    for _ in 0..3 {
        let figures = bench.pings(&mut near, &mut far, 160).await?;
        // The standard error of a median is 1.253 standard deviations over the root of the number; four of them, and what
        // a machine adds.
        let tolerance_ms = 4.0 * 1.253 * deviation_ms / (figures.len() as f64).sqrt() + 1.5;
        let (middle, deviation) = middle_and_deviation(figures);
        let holds = |beside: f64, varying: f64| {
            (-tolerance_ms..=tolerance_ms + beside).contains(&(middle - declared))
                && (0.5..1.5).contains(&(deviation / deviation_ms.hypot(varying)))
        };
        let line = format!("median {middle:.2} of {declared:.2} ms, deviation {deviation:.2} of {deviation_ms:.2} ms");
        if holds(0.0, 0.0) {
            finding = Ok(line);
            break;
        }
        let (beside, varying) = middle_and_deviation(bench.beside().await);
        let line = format!("{line}; the machine's: {beside:.2} ms, deviation {varying:.2} ms");
        finding = judge(holds(beside, varying), line);
        if finding.is_ok() {
            break;
        }
    }
    bench.heal().await?;
    finding
}

/// A rate bounds what gets through.
pub async fn rate(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    bench.change(Direction::There, |patch| patch.rate_kbit = Some(4000)).await?;
    let bytes = vec![8; 250_000];
    let start_ns = bench.clock.boot_ns();
    let mut received = vec![0; bytes.len()];
    let transfer = async { tokio::try_join!(near.write_all(&bytes), far.read_exact(&mut received)) };
    timeout(PATIENCE, transfer).await.map_err(|_| late("the transfer"))?.map_err(|error| text(&error))?;
    let milliseconds = bench.milliseconds_since(start_ns) - bench.there_ms;
    bench.heal().await?;
    // On packets the rate holds for their headers, too, and TCP has to find it.
    let tolerance = if bench.driver.acts_on_packets() { 0.25 } else { 0.1 };
    judge(
        (milliseconds / 500.0 - 1.0).abs() < tolerance && received == bytes,
        format!("250 kB at 4 Mbit/s took {milliseconds:.0} ms (500 ms)"),
    )
}

/// A loss stalls the connection, about as often as declared, and loses nothing. The stall is a retransmission timeout;
/// TCP itself is faster where a probe of the tail finds the loss (RFC 8985, section 7).
pub async fn loss(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    bench.change(Direction::There, |patch| patch.loss = Some(0.2)).await?;
    let figures = bench.pings(&mut near, &mut far, 40).await?;
    bench.heal().await?;
    let limit = bench.round_trip_ms() * 1.6 + if bench.driver.acts_on_packets() { 0.0 } else { 147.0 };
    let stalled = figures.iter().filter(|figure| **figure > limit).count();
    judge((1..=20).contains(&stalled), format!("{stalled} of 40 round trips stalled at a loss of 20 %"))
}

/// The end of a direction travels with the delay and leaves the other direction open.
pub async fn half_close(bench: &mut Bench) -> Finding {
    let (mut near, mut far) = bench.open().await?;
    let start_ns = bench.clock.boot_ns();
    near.write_all(b"all").await.map_err(|error| text(&error))?;
    near.shutdown().await.map_err(|error| text(&error))?;
    let mut received = Vec::new();
    timeout(PATIENCE, far.read_to_end(&mut received))
        .await
        .map_err(|_| late("the end of the direction"))?
        .map_err(|error| text(&error))?;
    let milliseconds = bench.milliseconds_since(start_ns);
    far.write_all(b"answer").await.map_err(|error| text(&error))?;
    drop(far);
    let mut answer = Vec::new();
    timeout(PATIENCE, near.read_to_end(&mut answer))
        .await
        .map_err(|_| late("the answer"))?
        .map_err(|error| text(&error))?;
    judge(
        received == b"all" && answer == b"answer" && milliseconds >= bench.there_ms - 0.5,
        format!("the end arrived after {milliseconds:.2} ms (delay {:.2} ms), then the answer", bench.there_ms),
    )
}

/// A flapping link loses what is sent while it is down, and carries new connections while it is up. A connection that
/// loses bytes dies, unless the driver acts on packets.
pub async fn flap(bench: &mut Bench) -> Finding {
    let (mut near, far) = bench.open().await?;
    bench.change(Direction::There, |patch| patch.flap_ms = Some(150)).await?;
    if bench.driver.acts_on_packets() {
        return flap_of_packets(bench, near, far).await;
    }
    // Something is sent in every phase, so the connection dies in the first cut and is reset at the end of it.
    let died = timeout(PATIENCE, async {
        while near.write_all(&[6]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    died.map_err(|_| late("the reset by the flap"))?;
    let mut opened = 0;
    for _ in 0..20 {
        let attempt = timeout(Duration::from_millis(100), async {
            let mut new = bench.net.connect(&bench.dial).await?;
            new.write_all(&[7]).await?;
            let (mut far, _) = bench.listener.accept_io().await?;
            far.read_u8().await
        });
        opened += usize::from(matches!(attempt.await, Ok(Ok(_))));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    bench.change(Direction::There, |patch| patch.flap_ms = Some(0)).await?;
    let (mut near, mut far) = bench.open().await?;
    let calm = bench.ping(&mut near, &mut far).await.is_ok();
    judge((1..20).contains(&opened) && calm, format!("{opened} of 20 attempts opened; calm afterwards: {calm}"))
}

/// Under a flapping link of packets: some round trips wait for the link to be up, none is lost, and a calm link is calm.
async fn flap_of_packets(bench: &mut Bench, mut near: BoxIo, mut far: BoxIo) -> Finding {
    let limit = bench.round_trip_ms() * 1.6;
    let mut waited = 0;
    let mut figures = Vec::new();
    for _ in 0..60 {
        let figure = bench.ping(&mut near, &mut far).await?;
        waited += usize::from(figure > limit);
        figures.push(figure);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    bench.change(Direction::There, |patch| patch.flap_ms = Some(0)).await?;
    let calm = median(bench.pings(&mut near, &mut far, 10).await?);
    judge(
        (1..60).contains(&waited) && fastest(figures) < limit && calm < limit,
        format!("{waited} of 60 round trips waited for the link; {calm:.1} ms afterwards"),
    )
}

/// A dialer whose target refuses sees a reset, one round trip later.
pub async fn refused_target(bench: Bench) -> Finding {
    let Bench { net, clock, dial, listener, there_ms, back_ms, .. } = bench;
    drop(listener);
    let start_ns = clock.boot_ns();
    let refusal = async {
        match net.connect(&dial).await {
            Ok(mut near) => near.read_u8().await.is_err(),
            Err(_) => true,
        }
    };
    let refused = timeout(PATIENCE, refusal).await.map_err(|_| late("the refusal"))?;
    let milliseconds = (clock.boot_ns() - start_ns) as f64 / 1e6;
    judge(
        refused && milliseconds >= there_ms + back_ms - 0.5,
        format!("reset: {refused}, after {milliseconds:.2} ms (round trip {:.2} ms)", there_ms + back_ms),
    )
}
