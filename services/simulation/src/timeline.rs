//! What happened, in order of virtual time: the faults that were injected, and what the services logged. The same seed
//! gives the same text, byte for byte.

use std::fmt::Write;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

use longhaul_core::ids::{Dot, Epoch, Incarnation, RegionId, Timeline as LogTimeline};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::clock::SimTime;

/// Most lines kept; a run that logs more is cut there, and says so.
const LINES_MAX: usize = 100_000;

/// Most alarms kept.
const ALARMS_MAX: usize = 5;
/// Who says, rightly, that its disk was set back.
const SET_BACK: &str = "longhaul_region::replicator::own_log";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    at_ns: u64,
    host: String,
    text: String,
}

/// The log of one simulation.
#[derive(Debug, Clone)]
pub struct Timeline {
    time: SimTime,
    lines: Arc<Mutex<Vec<Line>>>,
    alarms: Arc<Mutex<Vec<String>>>,
}

impl Timeline {
    pub(crate) fn new(time: SimTime) -> Self {
        Self { time, lines: Arc::default(), alarms: Arc::default() }
    }

    /// Adds a line now. `host` is who it is about: a location, or the simulation itself.
    pub(crate) fn add(&self, host: &str, text: impl Into<String>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < LINES_MAX {
            lines.push(Line { at_ns: self.time.now_ns(), host: host.to_owned(), text: text.into() });
        } else if lines.len() == LINES_MAX {
            let text = format!("more than {LINES_MAX} lines: the rest is left out");
            lines.push(Line { at_ns: self.time.now_ns(), host: "simulation".to_owned(), text });
        }
    }

    /// Notes something that must never be.
    pub(crate) fn alarm(&self, text: String) {
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        if alarms.len() < ALARMS_MAX {
            alarms.push(text);
        }
    }

    /// What must never be: errors that services found in themselves, processes that ended for no reason from outside.
    pub(crate) fn alarms(&self) -> Vec<String> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The whole log as text: seconds, host, what happened.
    pub fn text(&self) -> String {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Hosts take turns within a tick, so that lines are only nearly in order.
        lines.sort_by_key(|line| line.at_ns);
        let mut text = String::new();
        for line in lines {
            let _ = writeln!(text, "{:>9.3} {:<16} {}", line.at_ns as f64 / 1e9, line.host, line.text);
        }
        text
    }

    /// A collector of what the services log from INFO up, for the thread that runs the simulation. `on_acknowledgement`
    /// learns of each write that a region acknowledges, and of the host's place.
    pub(crate) fn collector(&self, hosts: &[String], on_acknowledgement: OnAcknowledgement) -> Collector {
        Collector { timeline: self.clone(), hosts: hosts.to_vec(), current: Mutex::new(None), on_acknowledgement }
    }
}

/// Who is told of acknowledgements.
pub(crate) type OnAcknowledgement = Box<dyn Fn(usize, Acknowledgement) + Send + Sync>;

/// Turns events of the services into lines. turmoil enters a span for each host's turn, which tells who speaks.
pub(crate) struct Collector {
    timeline: Timeline,
    hosts: Vec<String>,
    current: Mutex<Option<usize>>,
    on_acknowledgement: OnAcknowledgement,
}

impl Collector {
    fn set(&self, host: Option<usize>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = host;
    }
}

fn is_turn(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.name() == "node" && metadata.target().starts_with("turmoil")
}

fn is_told(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("longhaul")
}

fn is_acknowledgement(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.target() == "longhaul_region::acknowledged"
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    is_turn(metadata) || is_told(metadata) || is_acknowledgement(metadata)
}

impl Subscriber for Collector {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::TRACE)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut name = Name(String::new());
        attributes.record(&mut name);
        let host = self.hosts.iter().position(|host| *host == name.0);
        // The id is the host, so that nothing need be looked up when its turn comes.
        let id = host.map_or(u64::MAX, |host| host as u64 + 1);
        Id::from_non_zero_u64(NonZeroU64::new(id).unwrap_or(NonZeroU64::MAX))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if is_acknowledgement(event.metadata()) {
            let mut told = Acknowledgement::NOTHING;
            event.record(&mut told);
            if let Some(host) = *self.current.lock().unwrap_or_else(PoisonError::into_inner) {
                (self.on_acknowledgement)(host, told);
            }
            return;
        }
        if !is_told(event.metadata()) {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let host = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let host = host.and_then(|host| self.hosts.get(host)).map_or("simulation", String::as_str);
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        };
        let line = format!("{level}{}{}", text.message, text.fields);
        if *event.metadata().level() == Level::ERROR && event.metadata().target() != SET_BACK {
            self.timeline.alarm(format!("{host}: {line}"));
        }
        self.timeline.add(host, line);
    }

    fn enter(&self, span: &Id) {
        self.set(usize::try_from(span.into_u64()).ok().and_then(|id| id.checked_sub(1)));
    }

    fn exit(&self, _: &Id) {
        self.set(None);
    }
}

struct Name(String);

impl Visit for Name {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// A write that a region acknowledges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledgement {
    /// The epoch under which it was accepted.
    pub(crate) epoch: Epoch,
    /// Its place in a log.
    pub(crate) dot: Dot,
}

impl Acknowledgement {
    const NOTHING: Self = Self { epoch: Epoch(0), dot: Dot { timeline: LogTimeline::new(0, 0), seq: 0 } };
}

impl Visit for Acknowledgement {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "epoch" => self.epoch = Epoch(value),
            "region" => self.dot.timeline.region = RegionId(value as u16),
            "incarnation" => self.dot.timeline.incarnation = Incarnation(value as u32),
            "seq" => self.dot.seq = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            let _ = write!(self.fields, ", {} {value}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            let _ = write!(self.fields, ", {} {value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_in_order_of_time_and_say_who_spoke() {
        let time = SimTime::default();
        let timeline = Timeline::new(time.clone());
        time.advance_to(2_000_000_000);
        timeline.add("b", "second");
        time.advance_to(1_500_000_000);
        timeline.add("a", "first");
        let collector = timeline.collector(&["a".to_owned(), "b".to_owned()], Box::new(|_, _| {}));
        tracing::subscriber::with_default(collector, || {
            let _turn = tracing::span!(target: "turmoil", Level::INFO, "node", name = "b").entered();
            tracing::info!(target: "longhaul_region", epoch = 3, "adopted");
            tracing::info!(target: "hyper", "not ours");
        });
        let text = timeline.text();
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines, ["1.500 a first", "1.500 b adopted, epoch 3", "2.000 b second"]);
    }
}
