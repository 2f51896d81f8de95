//! The drills that ship with the program.

use super::{DrillPlan, PlanError};

macro_rules! drills {
    ($($name:literal),* $(,)?) => {
        /// Name and text of every shipped drill, the one for beginners first.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../../drills/", $name, ".toml")))),*];
    };
}

drills![
    "region-loss",
    "switchover",
    "failback",
    "link-cut",
    "partial-partition",
    "flapping-link",
    "slow-link",
    "mode-tour",
    "clock-skew",
    "gateway-loss",
    "control-loss",
];

/// The text of a shipped drill.
pub fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}

impl DrillPlan {
    /// A shipped drill, parsed; `None` if there is no such name.
    pub fn shipped(name: &str) -> Option<Result<Self, PlanError>> {
        shipped(name).map(|text| Self::parse(&format!("drills/{name}.toml"), text))
    }
}
