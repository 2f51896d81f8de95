//! What became of spans: how many ended, how many were exported. Their difference is the loss.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// Counts of one way out.
#[derive(Debug, Default)]
pub struct Tally {
    ended: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    pub(crate) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Spans that ended and were to be exported.
    pub fn spans(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Spans that were exported.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans whose export failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Spans that ended and neither were exported nor are known to have failed: they wait, or were dropped because
    /// too many waited.
    pub fn outstanding(&self) -> u64 {
        self.spans().saturating_sub(self.exported() + self.failed())
    }
}

static WAYS: Mutex<Vec<(&'static str, Arc<Tally>)>> = Mutex::new(Vec::new());

/// The ways out of this process, by name (`otlp`, `file`), with their counts.
pub fn tallies() -> Vec<(&'static str, Arc<Tally>)> {
    WAYS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// An exporter whose results are counted. A failure is told once; what was lost in all is told at the end.
#[derive(Debug)]
pub(crate) struct Counted<E> {
    exporter: E,
    tally: Arc<Tally>,
    told: AtomicBool,
    /// Where it exports to, for people.
    to: String,
}

impl<E> Counted<E> {
    pub(crate) fn new(exporter: E, way: &'static str, to: impl Into<String>) -> (Self, Arc<Tally>) {
        let tally = Arc::<Tally>::default();
        WAYS.lock().unwrap_or_else(PoisonError::into_inner).push((way, tally.clone()));
        (Self { exporter, tally: tally.clone(), told: AtomicBool::new(false), to: to.into() }, tally)
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => {
                self.tally.exported.fetch_add(spans, Ordering::Relaxed);
                self.told.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                self.tally.failed.fetch_add(spans, Ordering::Relaxed);
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, to = self.to, "spans cannot be exported; they are lost until this heals");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
