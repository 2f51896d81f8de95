//! Figures as texts, and the worst of several: the same in tables and on the page.

use std::collections::BTreeMap;

use longhaul_core::report::{Percentiles, ReadWrite, RunReport, Verdict};

/// Milliseconds, as precise as they are worth reading.
pub(crate) fn ms(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Milliseconds, or a dash for what was not measured.
pub(crate) fn ms_or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), ms)
}

/// A recovery time: milliseconds, or that there was none.
pub(crate) fn recovery(value: Option<f64>) -> String {
    value.map_or_else(|| "not recovered".to_owned(), |value| format!("{value:.0}"))
}

/// A share as percent. Rounded down, so that 100.00 % means all.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2}", (share * 10_000.0).floor() / 100.0)
}

/// Bytes, for people.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// The verdict in one word.
pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Invalid => "invalid",
    }
}

/// The worst recovery over edges: `Some(None)` if one did not recover, `None` if there was nothing to recover from.
#[expect(clippy::option_option, reason = "both are what the report's own types say: no fault, and no recovery")]
pub(crate) fn worst_recovery(
    rto: &BTreeMap<String, ReadWrite>,
    kind: impl Fn(&ReadWrite) -> Option<f64>,
) -> Option<Option<f64>> {
    rto.values().map(kind).reduce(|worst, next| Some(worst?.max(next?)))
}

/// The smallest share over edges.
pub(crate) fn worst_share(shares: &BTreeMap<String, f64>) -> Option<f64> {
    shares.values().copied().reduce(f64::min)
}

/// The largest of one percentile over several.
pub(crate) fn worst(percentiles: &BTreeMap<String, Percentiles>, which: impl Fn(&Percentiles) -> f64) -> Option<f64> {
    percentiles.values().filter(|value| value.count > 0).map(which).reduce(f64::max)
}

/// Cost of a run, US dollars.
pub(crate) fn usd(report: &RunReport) -> f64 {
    report.cost.iter().map(|link| link.usd).sum()
}

/// Bytes of a run by cause.
pub(crate) fn bytes_by_cause(report: &RunReport) -> BTreeMap<&str, u64> {
    let mut causes = BTreeMap::new();
    for (cause, count) in report.cost.iter().flat_map(|link| &link.bytes) {
        *causes.entry(cause.as_str()).or_default() += count;
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        assert_eq!(percent(0.999_99), "99.99");
        assert_eq!(percent(1.0), "100.00");
    }

    #[test]
    fn one_edge_that_did_not_recover_is_the_worst() {
        let edge = |write| ReadWrite { read: Some(1.0), write };
        let rto = BTreeMap::from([("a".to_owned(), edge(Some(10.0))), ("b".to_owned(), edge(None))]);
        assert_eq!(worst_recovery(&rto, |edge| edge.write), Some(None));
        assert_eq!(worst_recovery(&rto, |edge| edge.read), Some(Some(1.0)));
        assert_eq!(worst_recovery(&BTreeMap::new(), |edge| edge.read), None);
    }

    #[test]
    fn bytes_are_decimal() {
        assert_eq!((bytes(999).as_str(), bytes(1_500_000).as_str()), ("999 B", "1.5 MB"));
    }
}
