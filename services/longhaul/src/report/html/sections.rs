//! The parts of a run's page.

use std::fmt::Write;

use longhaul_core::report::{Comparison, RunReport, SecondPoint};

use super::page::{escape, html_table};
use super::plot::{Bar, Scale, Series, TimePlot, stacked_bars};
use crate::report::figures::{
    bytes, ms, ms_or_dash, percent, recovery as recovery_text, verdict, worst, worst_recovery, worst_share,
};
use crate::report::tables::{fact_rows, regime};
use crate::waterfall::{Waterfall, svg};

/// Most lost writes on the page; JSON has all.
const LOST_SHOWN: usize = 200;

pub(super) fn heading(report: &RunReport, level: u8) -> String {
    let word = verdict(report.verdict);
    let mut html = format!(
        "<header><h{level}>{} <span class=\"verdict {word}\">{word}</span></h{level}>\
         <p>{}</p><p class=\"dim\">{} on {}, seed {}, {} world, longhaul {}</p>",
        escape(&report.plan.name),
        escape(&report.plan.description),
        escape(&regime(report)),
        escape(&report.topology),
        report.seed,
        escape(&report.world),
        escape(&report.version)
    );
    if !report.reasons.is_empty() {
        html.push_str("<ul>");
        for reason in &report.reasons {
            // Writing to a String cannot fail.
            let _ = write!(html, "<li>{}</li>", escape(reason));
        }
        html.push_str("</ul>");
    }
    html.push_str("</header>");
    html
}

pub(super) fn key_figures(report: &RunReport) -> String {
    let rto = |kind: fn(&longhaul_core::report::ReadWrite) -> Option<f64>| {
        worst_recovery(&report.rto_ms, kind).map_or_else(
            || "–".to_owned(),
            |value| match value {
                Some(ms) => format!("{ms:.0} ms"),
                None => "not recovered".to_owned(),
            },
        )
    };
    let cards = [
        ("RTO, writes, worst edge", rto(|edge| edge.write)),
        ("RTO, reads, worst edge", rto(|edge| edge.read)),
        ("RPO", format!("{} writes, {:.2} s", report.rpo.writes, report.rpo.seconds)),
        (
            "availability, worst edge",
            worst_share(&report.availability).map_or_else(|| "–".to_owned(), |share| format!("{} %", percent(share))),
        ),
        ("latency p99, worst edge", format!("{} ms", ms_or_dash(worst(&report.latency_ms, |p| p.p99)))),
        ("staleness p99", format!("{} ms", ms(report.staleness_ms.p99))),
        ("links", if report.links_ok { "as declared".to_owned() } else { "NOT as declared".to_owned() }),
    ];
    let mut html = String::from("<div class=\"cards\">");
    for (name, value) in cards {
        let _ = write!(html, "<div class=\"card\"><b>{}</b><span>{name}</span></div>", escape(&value));
    }
    html.push_str("</div>");
    html
}

fn series(report: &RunReport, value: impl Fn(&SecondPoint) -> Option<f64>) -> Vec<Series> {
    let edges = report.timeline.iter();
    edges
        .map(|(edge, seconds)| Series {
            name: edge.clone(),
            points: seconds.iter().filter_map(|point| Some((f64::from(point.second) + 0.5, value(point)?))).collect(),
        })
        .collect()
}

pub(super) fn timelines(report: &RunReport) -> String {
    if report.timeline.is_empty() {
        return String::new();
    }
    let share = |ok: u32, all: u32| (all > 0).then(|| 100.0 * f64::from(ok) / f64::from(all));
    let plot = |title: &str, scale: Scale, unit: &str, series: Vec<Series>| {
        let seconds = report.plan.duration_s;
        TimePlot { title, seconds, scale, unit, series, marks: &report.marks, height: 220.0 }.render()
    };
    let latencies = || report.timeline.values().flatten().map(|point| point.p99_ms);
    let mut html = String::from("<h2>Over time</h2>");
    html.push_str(
        "<p class=\"dim\">Seconds of the measured run, by intended start. Lines: <span class=\"failed\">fault</span>, \
         <span class=\"passed\">heal</span>, <span class=\"invalid\">phase</span>, regime; point at one to read it.</p>",
    );
    html.push_str(&plot(
        "Writes that succeeded in time, %",
        Scale::Linear(100.0),
        " %",
        series(report, |point| share(point.writes_ok, point.writes)),
    ));
    html.push_str(&plot(
        "Reads that succeeded in time, %",
        Scale::Linear(100.0),
        " %",
        series(report, |point| share(point.reads_ok, point.reads)),
    ));
    let answered = |point: &SecondPoint| point.reads_ok + point.writes_ok > 0;
    html.push_str(&plot(
        "Latency p99 of what succeeded, ms (logarithmic)",
        Scale::decades(latencies()),
        " ms",
        series(report, |point| answered(point).then_some(point.p99_ms)),
    ));
    html.push_str(&plot(
        "Latency p50 of what succeeded, ms (logarithmic)",
        Scale::decades(latencies()),
        " ms",
        series(report, |point| answered(point).then_some(point.p50_ms)),
    ));
    if !report.marks.is_empty() {
        let rows =
            report.marks.iter().map(|mark| vec![format!("{:.2}", mark.at_s), escape(&mark.kind), escape(&mark.text)]);
        let _ = write!(
            html,
            "<details><summary>What happened when</summary>{}</details>",
            html_table(&["second", "kind", "what"], rows, 3)
        );
    }
    html
}

pub(super) fn recovery(report: &RunReport) -> String {
    if report.rto_ms.is_empty() {
        return String::new();
    }
    let mut html = String::from("<h2>Recovery</h2>");
    let rows = report.rto_ms.iter().map(|(edge, rto)| {
        let share = report.availability.get(edge).map_or_else(|| "–".to_owned(), |share| percent(*share));
        vec![escape(edge), recovery_text(rto.write), recovery_text(rto.read), share]
    });
    html.push_str(&html_table(&["edge", "RTO write ms", "RTO read ms", "availability %"], rows, 1));
    if !report.rto_phases_ms.is_empty() {
        let bars: Vec<Bar> = report
            .rto_phases_ms
            .iter()
            .map(|(edge, p)| Bar {
                name: edge.clone(),
                parts: vec![p.detect, p.decide, p.fence, p.promote, p.publish, p.first_success],
                text: format!("{:.0} ms", p.total),
            })
            .collect();
        let parts = ["detect", "decide", "fence", "promote", "publish", "first success"];
        html.push_str(&stacked_bars("From the fault to writes that stay up, by phase", &parts, &bars, "ms"));
    }
    html
}

pub(super) fn latency(report: &RunReport) -> String {
    if report.latency_ms.is_empty() {
        return String::new();
    }
    let rows = report.latency_ms.iter().map(|(edge, all)| {
        let (read, write) = (report.read_latency_ms.get(edge), report.write_latency_ms.get(edge));
        vec![
            escape(edge),
            ms_or_dash(read.map(|p| p.p50)),
            ms_or_dash(read.map(|p| p.p99)),
            ms_or_dash(write.map(|p| p.p50)),
            ms_or_dash(write.map(|p| p.p99)),
            ms(all.p99),
            ms(all.max),
            all.count.to_string(),
        ]
    });
    let header = ["edge", "read p50", "read p99", "write p50", "write p99", "all p99", "max", "operations"];
    format!("<h2>Latency from the intended start, ms</h2>{}", html_table(&header, rows, 1))
}

pub(super) fn lag(report: &RunReport) -> String {
    if report.lag_ms.is_empty() {
        return String::new();
    }
    let bars: Vec<Bar> = report
        .lag_ms
        .iter()
        .map(|(pair, p)| Bar {
            name: pair.clone(),
            parts: vec![p.p50, (p.p99 - p.p50).max(0.0)],
            text: format!("{} / {} ms", ms(p.p50), ms(p.p99)),
        })
        .collect();
    let plot = stacked_bars("Commit at the origin to visible at the peer", &["p50", "up to p99"], &bars, "ms");
    format!("<h2>Replication lag</h2>{plot}")
}

pub(super) fn lost(report: &RunReport) -> String {
    let lost = &report.rpo.lost;
    if lost.is_empty() {
        return String::new();
    }
    let rows = lost.iter().take(LOST_SHOWN).map(|write| {
        vec![
            escape(&write.op_id),
            escape(&write.key),
            escape(&write.edge),
            format!("{:.3}", write.acknowledged_s),
            if write.quarantined { "yes" } else { "no" }.to_owned(),
        ]
    });
    let header = ["operation", "record", "edge", "acknowledged s", "in quarantine"];
    let more = lost.len().saturating_sub(LOST_SHOWN);
    let more = if more > 0 { format!("<p>and {more} more; report.json has all</p>") } else { String::new() };
    format!(
        "<h2>Acknowledged writes that are lost: {}</h2><details{}><summary>Each of them</summary>{}{more}</details>",
        lost.len(),
        if lost.len() <= 20 { " open" } else { "" },
        html_table(&header, rows, 3)
    )
}

pub(super) fn facts(report: &RunReport) -> String {
    let rows = fact_rows(report).into_iter().map(|(name, value)| vec![escape(&name), escape(&value)]);
    format!("<h2>All figures</h2>{}", html_table(&["measure", "value"], rows, 2))
}

pub(super) fn certificate(report: &RunReport) -> String {
    let rows = report.links.iter().map(|link| {
        vec![
            escape(&link.from),
            escape(&link.to),
            ms(link.declared_rtt_ms),
            ms_or_dash(link.measured_rtt_ms),
            ms_or_dash(link.measured_after_rtt_ms),
            ms(link.tolerance_ms),
            if link.ok { "yes".to_owned() } else { "<b class=\"failed\">NO</b>".to_owned() },
            escape(&link.source),
        ]
    });
    let header = ["from", "to", "declared ms", "before ms", "after ms", "tolerance ms", "as declared", "source"];
    let word = if report.links_ok { "every link is as declared" } else { "not every link is as declared" };
    format!(
        "<h2>Certificate: {word}</h2><details{}><summary>Round trips of {} directed pairs</summary>{}</details>",
        if report.links_ok { "" } else { " open" },
        report.links.len(),
        html_table(&header, rows, 2)
    )
}

pub(super) fn cost(report: &RunReport) -> String {
    let crossed: Vec<_> = report.cost.iter().filter(|link| link.bytes.values().sum::<u64>() > 0).collect();
    if crossed.is_empty() {
        return String::new();
    }
    let causes = ["users", "replication", "regime", "probe"];
    let rows = crossed.iter().map(|link| {
        let mut row = vec![escape(&link.from), escape(&link.to)];
        row.extend(causes.map(|cause| bytes(link.bytes.get(cause).copied().unwrap_or(0))));
        row.push(format!("{:.6}", link.usd));
        row
    });
    let header = ["from", "to", "users", "replication", "regime", "probe", "USD"];
    format!(
        "<h2>Bytes over links</h2><details><summary>{} directed pairs</summary>{}</details>",
        crossed.len(),
        html_table(&header, rows, 2)
    )
}

pub(super) fn plan(report: &RunReport) -> String {
    let text = serde_json::to_string_pretty(&report.plan).unwrap_or_default();
    format!("<h2>Plan</h2><details><summary>As it ran</summary><pre>{}</pre></details>", escape(&text))
}

/// Recovery, loss and latency of every regime side by side.
pub(super) fn comparison_bars(comparison: &Comparison) -> String {
    let bars = |value: &dyn Fn(&RunReport) -> (f64, String)| -> Vec<Bar> {
        let bar = |run: &RunReport| {
            let (part, text) = value(run);
            Bar { name: regime(run), parts: vec![part], text }
        };
        comparison.runs.iter().map(bar).collect()
    };
    let length = |run: &RunReport| run.plan.duration_s * 1000.0;
    let rto = bars(&|run| match worst_recovery(&run.rto_ms, |edge| edge.write) {
        None => (0.0, "–".to_owned()),
        Some(None) => (length(run), "not recovered".to_owned()),
        Some(Some(ms)) => (ms, format!("{ms:.0} ms")),
    });
    let lost = bars(&|run| (run.rpo.writes as f64, run.rpo.writes.to_string()));
    let writes = bars(&|run| {
        let p50 = worst(&run.write_latency_ms, |p| p.p50).unwrap_or(0.0);
        (p50, format!("{} ms", ms(p50)))
    });
    let stale = bars(&|run| (run.staleness_ms.p99, format!("{} ms", ms(run.staleness_ms.p99))));
    [
        stacked_bars("Recovery of writes, worst edge", &["RTO"], &rto, "ms"),
        stacked_bars("Acknowledged writes lost", &["writes"], &lost, ""),
        stacked_bars("Median latency of writes, worst edge", &["p50"], &writes, "ms"),
        stacked_bars("Staleness of reads, p99", &["p99"], &stale, "ms"),
    ]
    .concat()
}

/// Where the traces are, and the waterfall of the failover.
pub(super) fn traces(report: &RunReport, waterfall: Option<&Waterfall>) -> String {
    let links = &report.traces;
    let named = [
        ("drill", &links.drill),
        ("failover", &links.failover),
        ("first failed request", &links.first_failed),
        ("first successful request", &links.first_success),
    ];
    let mut items = String::new();
    for (name, link) in named {
        let Some(link) = link else { continue };
        let id = escape(&link.trace_id);
        let id = match &link.url {
            Some(url) => format!("<a href=\"{}\">{id}</a>", escape(url)),
            None => format!("<code>{id}</code>"),
        };
        items.push_str(&format!("<li>{name}: {id}</li>"));
    }
    for (name, url) in &links.searches {
        items.push_str(&format!("<li><a href=\"{}\">{}</a></li>", escape(url), escape(name)));
    }
    if items.is_empty() && waterfall.is_none() {
        return String::new();
    }
    let picture = waterfall.map(|waterfall| svg(waterfall, escape)).unwrap_or_default();
    format!("<h2>Where the time went</h2>{picture}<ul>{items}</ul>")
}
