//! The waterfall in a terminal.

use std::fmt::Write;

use super::Waterfall;

/// Width of the bars, columns.
const BAR: usize = 44;
/// Width of names, columns; longer ones are cut.
const NAME: usize = 44;
/// Width of places.
const PLACE: usize = 22;

/// The waterfall as lines.
pub(crate) fn text(waterfall: &Waterfall) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "trace {}, {} ms\n", waterfall.trace_id, number(waterfall.took_ms));
    let _ = writeln!(text, "{:<NAME$} {:<PLACE$} {:>10} {:>10}", "span", "where", "start ms", "took ms");
    for row in &waterfall.rows {
        let name = cut(&format!("{}{}{}", "  ".repeat(row.depth), if row.failed { "! " } else { "" }, row.name), NAME);
        let _ = writeln!(
            text,
            "{name:<NAME$} {:<PLACE$} {:>10} {:>10} {}  {}",
            cut(&row.place(), PLACE),
            number(row.start_ms),
            number(row.took_ms),
            bar(row.start_ms, row.took_ms, waterfall.took_ms),
            row.remarks()
        );
    }
    if waterfall.left_out > 0 {
        let _ = writeln!(text, "and {} spans more", waterfall.left_out);
    }
    let mut linked: Vec<&str> = waterfall.rows.iter().flat_map(|row| &row.links).map(String::as_str).collect();
    linked.retain(|trace| *trace != waterfall.trace_id);
    linked.sort_unstable();
    linked.dedup();
    if !linked.is_empty() {
        let _ = writeln!(text, "\nlinked traces: {}", linked.iter().take(8).copied().collect::<Vec<_>>().join(" "));
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}

fn number(ms: f64) -> String {
    if ms >= 100.0 { format!("{ms:.0}") } else { format!("{ms:.2}") }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(std::iter::once('…')).collect()
}

/// A bar within the whole; what is too short for a column is still a tick.
fn bar(start_ms: f64, took_ms: f64, whole_ms: f64) -> String {
    let column = |ms: f64| if whole_ms > 0.0 { (ms / whole_ms * BAR as f64).round() as usize } else { 0 };
    let from = column(start_ms).min(BAR - 1);
    let to = column(start_ms + took_ms).clamp(from, BAR);
    let body = if column(start_ms + took_ms) == column(start_ms) { "▏".to_owned() } else { "█".repeat(to - from) };
    format!("{}{body}{}", " ".repeat(from), " ".repeat(BAR - to.max(from + 1)))
}

#[cfg(test)]
mod tests {
    use super::super::Waterfall;
    use super::super::tests::span;
    use super::*;

    #[test]
    fn bars_lie_where_their_times_say() {
        assert_eq!(bar(0.0, 10.0, 10.0), "█".repeat(BAR));
        assert_eq!(bar(5.0, 5.0, 10.0), format!("{}{}", " ".repeat(BAR / 2), "█".repeat(BAR / 2)));
        assert_eq!(bar(10.0, 0.0, 10.0).trim(), "▏");
        assert_eq!(bar(0.0, 0.0, 0.0).trim(), "▏");
        for (start, took) in [(0.0, 3.0), (9.99, 0.01), (3.0, 0.0)] {
            assert_eq!(bar(start, took, 10.0).chars().count(), BAR, "{start} {took}");
        }
    }

    #[test]
    fn a_line_tells_span_place_times_and_what_matters() {
        let mut root = span("1", None, "failover", 0, 5320);
        root.attributes.insert("longhaul.rto_ms".to_owned(), "5320".to_owned());
        root.links.push(("cd".to_owned(), "1".to_owned()));
        let text = text(&Waterfall::of("ab", &[root]).unwrap());
        assert!(text.contains("failover") && text.contains("region eu-west"), "{text}");
        assert!(text.contains("RTO ms 5320") && text.contains("linked traces: cd"), "{text}");
    }
}
