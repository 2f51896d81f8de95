//! Link profiles: one type for the kernel driver, the userspace relay and the simulator.

use serde::{Deserialize, Serialize};

/// Whether a directed link carries anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// It carries.
    #[default]
    Up,
    /// A black hole: nothing passes, nothing is answered, connections hang; what is in flight is lost.
    Cut,
}

/// How the delays of packets are spread around the declared one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JitterDistribution {
    /// The normal distribution.
    #[default]
    Normal,
    /// A Pareto distribution with exponent 3: most packets somewhat early, a few very late.
    Pareto,
}

/// Largest draw of a jitter, standard deviations.
const DEVIATIONS_MAX: f64 = 4.0;

impl JitterDistribution {
    /// A draw with mean 0 and standard deviation 1, cut off at four, made from uniform draws from 0 to below 1.
    pub fn draw(self, mut uniform: impl FnMut() -> f64) -> f64 {
        let draw = match self {
            // Box and Muller 1958.
            Self::Normal => {
                let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
                radius * (std::f64::consts::TAU * uniform()).cos()
            }
            // With exponent 3 the mean is 3/2 and the variance 3/4.
            Self::Pareto => ((1.0 - uniform()).powf(-1.0 / 3.0) - 1.5) / 0.75_f64.sqrt(),
        };
        draw.clamp(-DEVIATIONS_MAX, DEVIATIONS_MAX)
    }
}

/// A directed path from one location to another. All delays are **one-way**.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkProfile {
    /// One-way delay, milliseconds, 0 to 60 000.
    pub delay_ms: f64,
    /// Standard deviation of the one-way delay, milliseconds; order is kept.
    #[serde(default)]
    pub jitter_ms: f64,
    /// How the jitter is spread.
    #[serde(default)]
    pub jitter_distribution: JitterDistribution,
    /// How much a packet's deviation resembles the one before, 0 (not at all) to 1.
    #[serde(default)]
    pub jitter_correlation: f64,
    /// Share of packets lost, 0 to 1. The relay shows a loss as the stall that a retransmission costs.
    #[serde(default)]
    pub loss: f64,
    /// Share of packets that overtake all others, 0 to 1: they are sent without the delay. Kernel links only: userspace ones
    /// carry streams, whose order nothing can change.
    #[serde(default)]
    pub reorder: f64,
    /// Rate, kilobits a second; `None` is unlimited.
    #[serde(default)]
    pub rate_kbit: Option<u64>,
    /// Whether it carries anything.
    #[serde(default)]
    pub state: LinkState,
}

impl LinkProfile {
    /// A clean link with a delay.
    pub const fn delay(delay_ms: f64) -> Self {
        Self {
            delay_ms,
            jitter_ms: 0.0,
            jitter_distribution: JitterDistribution::Normal,
            jitter_correlation: 0.0,
            loss: 0.0,
            reorder: 0.0,
            rate_kbit: None,
            state: LinkState::Up,
        }
    }
}

/// A live change of a link: absent fields stay as they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkPatch {
    /// New one-way delay, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// New standard deviation of the delay, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// New spread of the jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_distribution: Option<JitterDistribution>,
    /// New resemblance of a packet's deviation to the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_correlation: Option<f64>,
    /// New share of packets lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// New share of packets that overtake all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<f64>,
    /// New rate, kilobits a second; 0 is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_kbit: Option<u64>,
    /// New state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LinkState>,
    /// Reset every open connection over this link (once).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// Flap: this many milliseconds up, then as many cut, until changed; 0 ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flap_ms: Option<u64>,
}

/// Largest one-way delay and largest standard deviation of it, milliseconds.
pub const DELAY_MS_MAX: f64 = 60_000.0;
/// Largest rate, kilobits a second (100 Gbit/s).
pub const RATE_KBIT_MAX: u64 = 100_000_000;
/// Bounds of a flap's half period, milliseconds.
pub const FLAP_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;

/// A figure of a profile or patch that is out of bounds.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field} = {value} is out of bounds: {bounds}")]
pub struct LinkError {
    /// Which figure.
    pub field: &'static str,
    /// Its value.
    pub value: f64,
    /// What is allowed.
    pub bounds: &'static str,
}

fn check_milliseconds(field: &'static str, value: f64) -> Result<(), LinkError> {
    if value.is_finite() && (0.0..=DELAY_MS_MAX).contains(&value) {
        Ok(())
    } else {
        Err(LinkError { field, value, bounds: "it must be 0 to 60000 milliseconds" })
    }
}

fn check_share(field: &'static str, value: f64) -> Result<(), LinkError> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(LinkError { field, value, bounds: "it must be a share from 0 to 1" })
    }
}

fn check_in_order(reorder: f64) -> Result<(), LinkError> {
    if reorder == 0.0 {
        return Ok(());
    }
    let bounds = "userspace links carry streams, which have an order; use the kernel's links (LONGHAUL_LINKS=kernel)";
    Err(LinkError { field: "reorder", value: reorder, bounds })
}

fn check_rate(value: u64) -> Result<(), LinkError> {
    if (1..=RATE_KBIT_MAX).contains(&value) {
        Ok(())
    } else {
        Err(LinkError {
            field: "rate_kbit",
            value: value as f64,
            bounds: "it must be 1 to 100000000 kilobits a second",
        })
    }
}

impl LinkProfile {
    /// Whether every figure is within its bounds.
    pub fn validate(&self) -> Result<(), LinkError> {
        check_milliseconds("delay_ms", self.delay_ms)?;
        check_milliseconds("jitter_ms", self.jitter_ms)?;
        check_share("jitter_correlation", self.jitter_correlation)?;
        check_share("loss", self.loss)?;
        check_share("reorder", self.reorder)?;
        self.rate_kbit.map_or(Ok(()), check_rate)
    }

    /// Whether a driver that carries streams can make it.
    pub fn validate_for_streams(&self) -> Result<(), LinkError> {
        self.validate()?;
        check_in_order(self.reorder)
    }

    /// The change that makes a link like this, whatever it was; a flap ends.
    pub fn as_patch(&self) -> LinkPatch {
        LinkPatch {
            delay_ms: Some(self.delay_ms),
            jitter_ms: Some(self.jitter_ms),
            jitter_distribution: Some(self.jitter_distribution),
            jitter_correlation: Some(self.jitter_correlation),
            loss: Some(self.loss),
            reorder: Some(self.reorder),
            rate_kbit: Some(self.rate_kbit.unwrap_or(0)),
            state: Some(self.state),
            reset: false,
            flap_ms: Some(0),
        }
    }

    /// The profile after a live change. What a patch does once (`reset`) or over time (`flap_ms`) is the driver's.
    #[must_use]
    pub fn patched(&self, patch: &LinkPatch) -> Self {
        Self {
            delay_ms: patch.delay_ms.unwrap_or(self.delay_ms),
            jitter_ms: patch.jitter_ms.unwrap_or(self.jitter_ms),
            jitter_distribution: patch.jitter_distribution.unwrap_or(self.jitter_distribution),
            jitter_correlation: patch.jitter_correlation.unwrap_or(self.jitter_correlation),
            loss: patch.loss.unwrap_or(self.loss),
            reorder: patch.reorder.unwrap_or(self.reorder),
            rate_kbit: match patch.rate_kbit {
                None => self.rate_kbit,
                Some(0) => None,
                Some(rate) => Some(rate),
            },
            state: patch.state.unwrap_or(self.state),
        }
    }
}

impl LinkPatch {
    /// Whether every figure is within its bounds.
    pub fn validate(&self) -> Result<(), LinkError> {
        self.delay_ms.map_or(Ok(()), |value| check_milliseconds("delay_ms", value))?;
        self.jitter_ms.map_or(Ok(()), |value| check_milliseconds("jitter_ms", value))?;
        self.jitter_correlation.map_or(Ok(()), |value| check_share("jitter_correlation", value))?;
        self.loss.map_or(Ok(()), |value| check_share("loss", value))?;
        self.reorder.map_or(Ok(()), |value| check_share("reorder", value))?;
        self.rate_kbit.filter(|rate| *rate != 0).map_or(Ok(()), check_rate)?;
        match self.flap_ms {
            None | Some(0) => Ok(()),
            Some(flap) if FLAP_MS.contains(&flap) => Ok(()),
            Some(flap) => Err(LinkError {
                field: "flap_ms",
                value: flap as f64,
                bounds: "it must be 0 (end it) or 10 to 3600000 milliseconds",
            }),
        }
    }

    /// Whether a driver that carries streams can make it.
    pub fn validate_for_streams(&self) -> Result<(), LinkError> {
        self.validate()?;
        self.reorder.map_or(Ok(()), check_in_order)
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_only_what_it_names() {
        let before = LinkProfile { rate_kbit: Some(500), loss: 0.1, ..LinkProfile::delay(20.0) };
        let slow = LinkPatch { delay_ms: Some(90.0), ..LinkPatch::default() };
        assert_eq!(before.patched(&slow), LinkProfile { delay_ms: 90.0, ..before.clone() });
        assert_eq!(LinkProfile::delay(1.0).patched(&before.as_patch()), before);
        let unlimited = LinkPatch { rate_kbit: Some(0), ..LinkPatch::default() };
        assert_eq!(before.patched(&unlimited).rate_kbit, None);
        assert_eq!(before.patched(&LinkPatch::default()), before);
    }

    #[test]
    fn what_streams_cannot_do_is_refused_for_them_alone() {
        let profile = LinkProfile { reorder: 0.1, ..LinkProfile::delay(20.0) };
        assert_eq!(profile.validate(), Ok(()));
        assert!(profile.validate_for_streams().unwrap_err().to_string().contains("LONGHAUL_LINKS=kernel"));
        let patch = LinkPatch { reorder: Some(0.1), ..LinkPatch::default() };
        assert!(patch.validate().is_ok() && patch.validate_for_streams().is_err());
        assert!(LinkPatch { reorder: Some(0.0), ..LinkPatch::default() }.validate_for_streams().is_ok());
    }

    #[test]
    fn every_distribution_has_mean_0_and_deviation_1() {
        // Evenly spread instead of random, so that the figures are what they are.
        let evenly = |step: u32, number: u32| f64::from(number.wrapping_mul(step) % 100_003) / 100_003.0;
        for distribution in [JitterDistribution::Normal, JitterDistribution::Pareto] {
            let draws: Vec<f64> = (0..100_003)
                .map(|number| {
                    let mut steps = [1, 30_011].into_iter();
                    distribution.draw(|| evenly(steps.next().unwrap_or(1), number))
                })
                .collect();
            let count = draws.len() as f64;
            let mean = draws.iter().sum::<f64>() / count;
            let deviation = (draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / count).sqrt();
            // The tail beyond four deviations is cut off, and most of Pareto's variance is out there.
            let least = if distribution == JitterDistribution::Pareto { 0.65 } else { 0.98 };
            assert!(mean.abs() < 0.07 && (least..1.02).contains(&deviation), "{distribution:?}: {mean} {deviation}");
        }
    }

    #[test]
    fn figures_out_of_bounds_are_refused_by_name() {
        for delay in [-0.1, f64::NAN, f64::INFINITY, 60_000.1] {
            assert_eq!(LinkProfile::delay(delay).validate().unwrap_err().field, "delay_ms");
            let patch = LinkPatch { jitter_ms: Some(delay), ..LinkPatch::default() };
            assert_eq!(patch.validate().unwrap_err().field, "jitter_ms");
        }
        assert_eq!(LinkPatch { loss: Some(1.1), ..LinkPatch::default() }.validate().unwrap_err().field, "loss");
        for (profile, field) in [
            (LinkProfile { jitter_correlation: 1.1, ..LinkProfile::delay(1.0) }, "jitter_correlation"),
            (LinkProfile { reorder: -0.1, ..LinkProfile::delay(1.0) }, "reorder"),
        ] {
            assert_eq!(profile.validate().unwrap_err().field, field);
        }
        assert_eq!(LinkPatch { flap_ms: Some(9), ..LinkPatch::default() }.validate().unwrap_err().field, "flap_ms");
        let stopped = LinkProfile { rate_kbit: Some(0), ..LinkProfile::delay(1.0) };
        assert_eq!(stopped.validate().unwrap_err().field, "rate_kbit");
        assert!(LinkPatch { rate_kbit: Some(0), flap_ms: Some(0), ..LinkPatch::default() }.validate().is_ok());
    }
}
