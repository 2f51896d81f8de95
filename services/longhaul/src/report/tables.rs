//! A run as tables for people.

use std::fmt::Write;
use std::path::Path;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use longhaul_core::regime::Mode;
use longhaul_core::report::RunReport;

use crate::commands::trace::SPANS_FOLDER;

use super::figures::{bytes, bytes_by_cause, ms, ms_or_dash, percent, recovery, usd, verdict};

/// Most lost writes that are listed; JSON has all.
const LOST_SHOWN: usize = 10;

/// The regime of a run, for people.
pub(crate) fn regime(report: &RunReport) -> String {
    match report.mode {
        Mode::ActivePassive => format!("active-passive {}", report.durability),
        mode => mode.to_string(),
    }
}

/// A table whose columns after the first `left` ones are figures.
pub(crate) fn table<const N: usize>(header: [&str; N], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for column in left..N {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The whole report. `folder` is where its files lie.
pub(crate) fn run_text(report: &RunReport, folder: Option<&Path>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "drill {} on {}, {}, seed {}, {} world, longhaul {}\n",
        report.plan.name,
        report.topology,
        regime(report),
        report.seed,
        report.world,
        report.version
    );
    let sections = [certificate(report), outage(report), phases(report), latency(report), lag(report), lost(report)];
    for section in sections.into_iter().flatten() {
        let _ = writeln!(text, "{section}");
    }
    let _ = writeln!(text, "{}", facts(report));
    let _ = writeln!(text, "verdict: {}", verdict(report.verdict));
    for reason in &report.reasons {
        let _ = writeln!(text, "  - {reason}");
    }
    if let Some(folder) = folder {
        let _ = writeln!(text, "report:  {}", folder.join("report.html").display());
        if folder.join(SPANS_FOLDER).is_dir() {
            let what = if report.traces.failover.is_some() { "last-failover" } else { "last-drill" };
            let _ = writeln!(text, "trace:   longhaul trace {what} --from {}", folder.display());
        }
    }
    text
}

fn certificate(report: &RunReport) -> Option<String> {
    if report.links.is_empty() {
        return None;
    }
    let mut table = table(["link", "declared ms", "before ms", "after ms", "tolerance ms", "as declared"], 1);
    for link in &report.links {
        // Each pair once: a round trip has no direction.
        let reverse =
            report.links.iter().any(|other| other.from == link.to && other.to == link.from && other.ok == link.ok);
        if reverse && link.from > link.to {
            continue;
        }
        table.add_row([
            format!("{} {} {}", link.from, if reverse { "↔" } else { "→" }, link.to),
            ms(link.declared_rtt_ms),
            ms_or_dash(link.measured_rtt_ms),
            ms_or_dash(link.measured_after_rtt_ms),
            ms(link.tolerance_ms),
            if link.ok { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    Some(format!("certificate: round trips, measured over HTTP before and after\n{table}\n"))
}

fn outage(report: &RunReport) -> Option<String> {
    if report.availability.is_empty() {
        return None;
    }
    let mut table = table(["edge", "availability %", "RTO write ms", "RTO read ms"], 1);
    for (edge, share) in &report.availability {
        let rto = report.rto_ms.get(edge);
        let text = |value: Option<Option<f64>>| value.map_or_else(|| "–".to_owned(), recovery);
        table.add_row([edge.clone(), percent(*share), text(rto.map(|rto| rto.write)), text(rto.map(|rto| rto.read))]);
    }
    Some(format!("what users saw\n{table}\n"))
}

fn phases(report: &RunReport) -> Option<String> {
    if report.rto_phases_ms.is_empty() {
        return None;
    }
    let header = ["edge", "detect", "decide", "fence", "promote", "publish", "first success", "total ms"];
    let mut table = table(header, 1);
    for (edge, p) in &report.rto_phases_ms {
        let figures = [p.detect, p.decide, p.fence, p.promote, p.publish, p.first_success, p.total];
        table.add_row(std::iter::once(edge.clone()).chain(figures.map(|value| format!("{value:.0}"))));
    }
    Some(format!("recovery of writes by phase, ms\n{table}\n"))
}

fn latency(report: &RunReport) -> Option<String> {
    if report.latency_ms.is_empty() {
        return None;
    }
    let header = ["edge", "read p50", "read p99", "write p50", "write p99", "all p99", "max ms"];
    let mut table = table(header, 1);
    for (edge, all) in &report.latency_ms {
        let (read, write) = (report.read_latency_ms.get(edge), report.write_latency_ms.get(edge));
        table.add_row([
            edge.clone(),
            ms_or_dash(read.map(|p| p.p50)),
            ms_or_dash(read.map(|p| p.p99)),
            ms_or_dash(write.map(|p| p.p50)),
            ms_or_dash(write.map(|p| p.p99)),
            ms(all.p99),
            ms(all.max),
        ]);
    }
    Some(format!("latency from the intended start, ms\n{table}\n"))
}

fn lag(report: &RunReport) -> Option<String> {
    if report.lag_ms.is_empty() {
        return None;
    }
    let mut table = table(["replication", "p50", "p99", "max ms"], 1);
    for (pair, p) in &report.lag_ms {
        table.add_row([pair.clone(), ms(p.p50), ms(p.p99), ms(p.max)]);
    }
    Some(format!("lag: commit at the origin to visible at the peer, ms\n{table}\n"))
}

fn lost(report: &RunReport) -> Option<String> {
    let lost = &report.rpo.lost;
    if lost.is_empty() {
        return None;
    }
    let mut table = table(["operation", "record", "edge", "acknowledged s", "in quarantine"], 3);
    for write in lost.iter().take(LOST_SHOWN) {
        table.add_row([
            write.op_id.clone(),
            write.key.clone(),
            write.edge.clone(),
            format!("{:.3}", write.acknowledged_s),
            if write.quarantined { "yes" } else { "no" }.to_owned(),
        ]);
    }
    let more = lost.len().saturating_sub(LOST_SHOWN);
    let more = if more > 0 { format!("and {more} more (report.json has all)\n") } else { String::new() };
    Some(format!("acknowledged writes that are lost\n{table}\n{more}"))
}

/// The single figures, one line each.
fn facts(report: &RunReport) -> String {
    let mut table = table(["measure", "value"], 2);
    for (name, value) in fact_rows(report) {
        table.add_row([name, value]);
    }
    format!("{table}\n")
}

/// The single figures with their names.
pub(crate) fn fact_rows(report: &RunReport) -> Vec<(String, String)> {
    let rpo = &report.rpo;
    let predicted =
        rpo.predicted_writes.map_or_else(String::new, |predicted| format!(", servers predicted {predicted}"));
    let quarantine = &report.quarantined;
    let places: Vec<_> = quarantine.by_region.iter().map(|(region, count)| format!("{region} {count}")).collect();
    let places = if places.is_empty() { String::new() } else { format!(" ({})", places.join(", ")) };
    let causes: Vec<_> = bytes_by_cause(report).into_iter().map(|(cause, n)| format!("{cause} {}", bytes(n))).collect();
    let staleness = &report.staleness_ms;
    let mut rows = vec![
        ("operations".to_owned(), format!("{} ({} forbidden by design)", report.operations, report.policy_denials)),
        ("RPO, writes".to_owned(), format!("{}{predicted}", rpo.writes)),
        ("RPO, seconds".to_owned(), format!("{:.2}", rpo.seconds)),
        (
            "unknown outcomes".to_owned(),
            format!("{} took effect, {} did not", rpo.unknown_survived, rpo.unknown_absent),
        ),
        (
            "stale reads".to_owned(),
            format!(
                "{} %, p50 {} ms, p99 {} ms",
                percent(report.stale_read_share),
                ms(staleness.p50),
                ms(staleness.p99)
            ),
        ),
        (
            "session violations".to_owned(),
            format!(
                "{} read-your-writes, {} monotonic reads",
                report.sessions.read_your_writes, report.sessions.monotonic_reads
            ),
        ),
        (
            "concurrent overwrites".to_owned(),
            format!("{} ({} kept the older one)", report.conflicts.concurrent, report.conflicts.inverted),
        ),
        (
            "lost updates".to_owned(),
            format!(
                "{} of {} appends, {} unexplained",
                report.lost_updates, report.appends, report.conflicts.unexplained
            ),
        ),
        ("quarantine".to_owned(), format!("{}{places}", quarantine.operations)),
        ("residency violations".to_owned(), report.residency_violations.to_string()),
        ("anomalies".to_owned(), report.anomalies.total().to_string()),
        (
            "converged".to_owned(),
            if report.converged { format!("yes, after {:.1} s", report.convergence_s) } else { "no".to_owned() },
        ),
    ];
    for example in report.anomalies.examples.iter().chain(&report.residency_examples).take(5) {
        rows.push((String::new(), example.clone()));
    }
    if !causes.is_empty() {
        rows.push(("bytes over links".to_owned(), format!("{}; {:.4} USD", causes.join(", "), usd(report))));
    }
    let traces = &report.traces;
    for (name, link) in [("trace of the drill", &traces.drill), ("trace of the failover", &traces.failover)] {
        if let Some(link) = link {
            rows.push((name.to_owned(), link.url.clone().unwrap_or_else(|| link.trace_id.clone())));
        }
    }
    rows
}
