//! The waterfall on a page: a picture without a script.

use std::fmt::Write;

use super::Waterfall;

/// Width of the picture, and of the names on its left.
const WIDTH: f64 = 1040.0;
const NAMES: f64 = 380.0;
/// Height of one bar.
const ROW: f64 = 18.0;
/// Most bars on the page; the file beside it has all.
const ROWS_MAX: usize = 80;

/// The waterfall as a picture; `escape` turns text into what HTML takes as text.
pub(crate) fn svg(waterfall: &Waterfall, escape: impl Fn(&str) -> String) -> String {
    let rows = &waterfall.rows[..waterfall.rows.len().min(ROWS_MAX)];
    let height = ROW * (rows.len() as f64 + 1.5);
    let scale = (WIDTH - NAMES) / waterfall.took_ms.max(1e-6);
    let mut text = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"waterfall of trace {}\">",
        escape(&waterfall.trace_id)
    );
    // Writing to a String cannot fail.
    for tick in 0..=4 {
        let x = NAMES + (WIDTH - NAMES) * f64::from(tick) / 4.0;
        let ms = waterfall.took_ms * f64::from(tick) / 4.0;
        let anchor = if tick == 4 { "end" } else { "start" };
        let _ = write!(
            text,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{ROW}\" y2=\"{height}\"/>\
             <text class=\"dim\" x=\"{x:.1}\" y=\"12\" text-anchor=\"{anchor}\">{ms:.0} ms</text>"
        );
    }
    for (index, row) in rows.iter().enumerate() {
        let y = ROW * (index as f64 + 1.2);
        let indent = 10.0 * row.depth.min(12) as f64;
        let (x, width) = (NAMES + row.start_ms * scale, (row.took_ms * scale).max(1.5));
        let fill = if row.failed { "var(--bad)".to_owned() } else { format!("var(--s{})", row.depth % 8) };
        let title = format!(
            "{}, {}: {:.2} ms after {:.2} ms. {}",
            row.name,
            row.place(),
            row.took_ms,
            row.start_ms,
            row.remarks()
        );
        let _ = write!(
            text,
            "<g><title>{}</title><text x=\"{indent:.0}\" y=\"{:.1}\">{} <tspan class=\"dim\">{}</tspan></text>\
             <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\" fill=\"{fill}\"/>\
             <text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{:.0}</text></g>",
            escape(&title),
            y + 12.0,
            escape(&row.name),
            escape(&row.place()),
            ROW - 4.0,
            if x + width > WIDTH - 60.0 { x - 4.0 } else { x + width + 4.0 },
            y + 12.0,
            if x + width > WIDTH - 60.0 { "end" } else { "start" },
            row.took_ms,
        );
    }
    text.push_str("</svg>");
    text
}
