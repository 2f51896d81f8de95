//! Figures, as a table for people and JSON for machines.

use comfy_table::{Table, presets};
use serde::Serialize;

/// Which side of its target a figure has to be on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// A reference or a by-product: no target.
    None,
}

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// The part that measured it.
    pub part: &'static str,
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it should reach.
    pub target: Target,
    /// Whether it does; none without a target.
    pub met: Option<bool>,
}

impl Figure {
    /// A figure, judged against its target.
    pub(crate) fn new(
        part: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Target,
    ) -> Self {
        let met = match target {
            Target::AtLeast(bound) => Some(value >= bound),
            Target::AtMost(bound) => Some(value <= bound),
            Target::None => None,
        };
        Self { part, name: name.into(), value, unit, target, met }
    }
}

/// The table.
pub(crate) fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["part", "figure", "value", "unit", "target", ""]);
    for figure in figures {
        let target = match figure.target {
            Target::AtLeast(bound) => format!("≥ {bound}"),
            Target::AtMost(bound) => format!("≤ {bound}"),
            Target::None => "reference".to_owned(),
        };
        let met = match figure.met {
            Some(true) => "met",
            Some(false) => "SHORT",
            None => "",
        };
        let digits = if figure.value.abs() >= 1000.0 { 0 } else { 2 };
        let value = format!("{:.digits$}", figure.value);
        table.add_row([figure.part, &figure.name, &value, figure.unit, &target, met]);
    }
    table
}
