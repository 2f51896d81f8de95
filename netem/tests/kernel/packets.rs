//! What only a driver that acts on packets can do, or does in another way: overtaking, and other jitters.

use std::io;
use std::time::Duration;

use longhaul_core::link::{JitterDistribution, LinkPatch};
use longhaul_netem::conformance::{Bench, Direction, Finding, middle_and_deviation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bench::run;

/// Round trips of single bytes, milliseconds, with a pause between them so that each is one packet.
async fn round_trips(bench: &mut Bench, count: usize) -> Result<Vec<f64>, String> {
    let text = |error: io::Error| error.to_string();
    let mut near = bench.net.connect(&bench.dial).await.map_err(text)?;
    let (mut far, _) = bench.listener.accept_io().await.map_err(text)?;
    let mut figures = Vec::with_capacity(count);
    for _ in 0..count {
        let start_ns = bench.clock.boot_ns();
        let exchange = async {
            near.write_all(&[1]).await?;
            let byte = far.read_u8().await?;
            far.write_all(&[byte]).await?;
            near.read_u8().await
        };
        let exchanged = tokio::time::timeout(Duration::from_secs(10), exchange).await;
        exchanged.map_err(|_| "a round trip took more than 10 s".to_owned())?.map_err(text)?;
        figures.push((bench.clock.boot_ns() - start_ns) as f64 / 1e6);
    }
    Ok(figures)
}

/// About the stated share of packets is sent without the delay.
async fn overtaking(bench: &mut Bench) -> Finding {
    let patch = LinkPatch { reorder: Some(0.4), ..LinkPatch::default() };
    bench.driver.change(Direction::There, patch).await?;
    let figures = round_trips(bench, 60).await?;
    bench.driver.heal().await?;
    let calm = round_trips(bench, 10).await?;
    let early = |figures: &[f64]| figures.iter().filter(|figure| **figure < bench.there_ms).count();
    let line = format!("{} of 60 round trips overtook the delay of {} ms", early(&figures), bench.there_ms);
    // Six standard deviations of the binomial distribution on both sides.
    let share_holds = (2..=46).contains(&early(&figures));
    if share_holds && early(&calm) == 0 { Ok(line) } else { Err(line) }
}

/// A correlation is taken and leaves the spread as declared. Whether neighbours are alike is printed and not judged: the kernel
/// looks the deviation up by the low bits of its correlated draw, where little of the correlation is left.
async fn correlation(bench: &mut Bench) -> Finding {
    let deviation_ms = bench.there_ms / 4.0;
    let patch = LinkPatch { jitter_ms: Some(deviation_ms), jitter_correlation: Some(0.9), ..LinkPatch::default() };
    bench.driver.change(Direction::There, patch).await?;
    let figures = round_trips(bench, 120).await?;
    bench.driver.heal().await?;
    let alike = likeness(&figures);
    let (_, measured_ms) = middle_and_deviation(figures);
    let line = format!("deviation {measured_ms:.1} of {deviation_ms:.1} ms; neighbours alike by {alike:.2} of 0.90");
    if (measured_ms / deviation_ms - 1.0).abs() < 0.5 { Ok(line) } else { Err(line) }
}

/// The correlation of each figure with the next one, -1 to 1.
fn likeness(figures: &[f64]) -> f64 {
    let mean = figures.iter().sum::<f64>() / figures.len() as f64;
    let spread: f64 = figures.iter().map(|figure| (figure - mean).powi(2)).sum();
    let together: f64 = figures.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    together / spread
}

/// Pareto's delays lean to the late side: the mean is above the median.
async fn leaning(bench: &mut Bench) -> Finding {
    let patch = LinkPatch {
        jitter_ms: Some(bench.there_ms / 4.0),
        jitter_distribution: Some(JitterDistribution::Pareto),
        ..LinkPatch::default()
    };
    bench.driver.change(Direction::There, patch).await?;
    let mut figures = round_trips(bench, 120).await?;
    bench.driver.heal().await?;
    figures.sort_by(f64::total_cmp);
    let (early, middle, late) = (figures[12], figures[60], figures[108]);
    let line = format!("a tenth below {early:.1} ms, half below {middle:.1} ms, nine tenths below {late:.1} ms");
    if late - middle > 1.5 * (middle - early) { Ok(line) } else { Err(line) }
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn the_stated_share_of_packets_overtakes() {
    run(40.0, 5.0, overtaking).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn a_correlation_leaves_the_jitter_as_wide_as_declared() {
    run(40.0, 2.0, correlation).await;
}

#[tokio::test]
#[ignore = "needs root and a kernel with netem: ./tests/run kernel"]
async fn pareto_jitter_leans_to_the_late_side() {
    run(40.0, 2.0, leaning).await;
}
