//! Live progress on standard error: the phase, each edge, and events as they happen.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use longhaul_http::wire::control::Event;
use longhaul_http::wire::drills::{DrillPhase, DrillStatus};

use super::figures::ms;

/// Progress of one run. On a terminal a line moves; elsewhere only events are printed.
pub(crate) struct Progress {
    bar: ProgressBar,
    title: String,
    last_event: u64,
    first_boot_ns: Option<u64>,
}

impl Progress {
    /// Progress under a title.
    pub(crate) fn new(title: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        let style =
            ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(120));
        let progress = Self { bar, title: title.to_owned(), last_event: 0, first_boot_ns: None };
        progress.line(&format!("drill {title}"));
        progress
    }

    fn line(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// Something that is being done.
    pub(crate) fn note(&self, text: &str) {
        self.bar.set_message(format!("{}: {text}", self.title));
    }

    /// Shows how far a drill is.
    pub(crate) fn show(&mut self, status: &DrillStatus) {
        for event in status.events.iter().filter(|event| event.seq > self.last_event) {
            let first = *self.first_boot_ns.get_or_insert(event.boot_ns);
            self.line(&event_line(event, first));
        }
        self.last_event = status.events.last().map_or(self.last_event, |event| event.seq);
        let phase = status.summary.phase;
        let mut text = format!("{}: {}", self.title, phase.as_str());
        if matches!(phase, DrillPhase::WarmUp | DrillPhase::Run) {
            text.push_str(&format!(" {:.0}/{:.0} s  {}", status.elapsed_s.max(0.0), status.duration_s, edges(status)));
        }
        self.bar.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn event_line(event: &Event, first_boot_ns: u64) -> String {
    let at = event.boot_ns.saturating_sub(first_boot_ns) as f64 / 1e9;
    format!("{at:7.2} s  {:<7} {}", event.kind.as_str(), event.text)
}

fn edges(status: &DrillStatus) -> String {
    let parts: BTreeMap<_, _> = status
        .edges
        .iter()
        .map(|(edge, progress)| (edge, format!("{edge} {:.0} % {} ms", progress.ok_share * 100.0, ms(progress.p50_ms))))
        .collect();
    parts.into_values().collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_http::wire::control::EventKind;

    #[test]
    fn an_event_is_one_line_with_its_moment() {
        let event = Event {
            seq: 1,
            boot_ns: 3_500_000_000,
            kind: EventKind::Fault,
            location: None,
            text: "eu is lost".to_owned(),
        };
        assert_eq!(event_line(&event, 1_000_000_000), "   2.50 s  fault   eu is lost");
    }
}
