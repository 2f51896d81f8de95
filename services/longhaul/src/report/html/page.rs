//! The frame of a page: style, escaping, tables.

use std::fmt::Write;

/// Series of a plot take these in turn; each is readable on both backgrounds.
const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#59636e;--line:#d1d9e0;--card:#f6f8fa;--ok:#1a7f37;--bad:#cf222e;--odd:#9a6700;
--s0:#0969da;--s1:#bc4c00;--s2:#1a7f37;--s3:#8250df;--s4:#bf3989;--s5:#4d6b00;--s6:#0a7a83;--s7:#7a4b1f}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9198a1;--line:#3d444d;--card:#151b23;--ok:#3fb950;--bad:#f85149;--odd:#d29922;
--s0:#4493f8;--s1:#f0883e;--s2:#3fb950;--s3:#ab7df8;--s4:#f778ba;--s5:#a5c261;--s6:#39c5cf;--s7:#d4a373}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1100px;padding:24px 20px 60px;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.6em;margin:.2em 0}h2{font-size:1.2em;margin:1.8em 0 .5em}p{margin:.4em 0}.dim{color:var(--dim)}
table{border-collapse:collapse;margin:.6em 0;font-size:.9em}th,td{padding:4px 10px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--dim);font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.wide{overflow-x:auto}
.verdict{display:inline-block;padding:1px 10px;border-radius:12px;border:1px solid;font-weight:600}.passed{color:var(--ok)}.failed{color:var(--bad)}.invalid{color:var(--odd)}
.cards{display:flex;flex-wrap:wrap;gap:10px;margin:1em 0}.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:8px 14px;min-width:130px}
.card b{display:block;font-size:1.35em;font-variant-numeric:tabular-nums}.card span{color:var(--dim);font-size:.85em}
svg{width:100%;height:auto;display:block;margin:.3em 0;font:12px system-ui,sans-serif}svg text{fill:var(--fg)}svg .dim{fill:var(--dim)}
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--dim);stroke-width:1}.curve{fill:none;stroke-width:1.8;stroke-linejoin:round}
.mark{stroke-width:1.2;stroke-dasharray:4 3}.fault{stroke:var(--bad);fill:var(--bad)}.heal{stroke:var(--ok);fill:var(--ok)}.phase{stroke:var(--odd);fill:var(--odd)}.regime{stroke:var(--s3);fill:var(--s3)}
svg text.fault,svg text.heal,svg text.phase,svg text.regime{stroke:none}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:.85em}.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
details{margin:1em 0}summary{cursor:pointer;font-weight:600}.run{border:1px solid var(--line);border-radius:8px;padding:8px 14px}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px;overflow-x:auto;font-size:.85em}ul{padding-left:1.3em}
";

/// A whole document.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>longhaul: {}</title><style>{STYLE}</style></head><body>{body}</body></html>\n",
        escape(title)
    )
}

/// Text that HTML takes as text.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A table of escaped cells; columns from `left` on are figures.
pub(super) fn html_table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, left: usize) -> String {
    let class = |column: usize| if column < left { "" } else { " class=\"n\"" };
    let mut html = String::from("<div class=\"wide\"><table><thead><tr>");
    for (column, name) in header.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(html, "<th{}>{}</th>", class(column), escape(name));
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(html, "<td{}>{cell}</td>", class(column));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}
