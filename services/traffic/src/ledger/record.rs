//! The ledger as a file: one JSON line per finished operation, appended and flushed.

use std::path::{Path, PathBuf};

use longhaul_http::trace::trace_id_text;
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::{Consistency, Entry, Ledger, Outcome};
use crate::value::Observed;
use crate::workload::Kind;

/// The ledger's file could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the ledger {}: {source}; give a directory that exists and may be written", .path.display())]
pub struct OpenLedgerError {
    path: PathBuf,
    source: std::io::Error,
}

/// An append-only file.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    file: tokio::fs::File,
    buffer: Vec<u8>,
}

#[derive(Serialize)]
struct Line<'a> {
    n: u32,
    op_id: uuid::Uuid,
    edge: &'a str,
    session: u16,
    key: String,
    kind: Kind,
    consistency: Consistency,
    intended_ns: u64,
    sent_ns: u64,
    write_ns: u64,
    ended_ns: u64,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    attempts: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
    epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<longhaul_core::version::Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<longhaul_core::version::Version>,
    observed: Observed,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl LedgerFile {
    /// Opens `directory/ledger-ID.jsonl` for appending.
    pub async fn open(directory: &Path, id: &str) -> Result<Self, OpenLedgerError> {
        let path = directory.join(format!("ledger-{id}.jsonl"));
        match tokio::fs::OpenOptions::new().create(true).append(true).open(&path).await {
            Ok(file) => Ok(Self { path, file, buffer: Vec::new() }),
            Err(source) => Err(OpenLedgerError { path, source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends entries and flushes them to the operating system.
    pub async fn append(&mut self, ledger: &Ledger, entries: &[Entry]) -> std::io::Result<()> {
        self.buffer.clear();
        for entry in entries {
            let line = Line {
                n: entry.n,
                op_id: entry.op_id,
                edge: &ledger.edges[usize::from(entry.edge)].name,
                session: entry.session,
                key: ledger.key_text(entry.key),
                kind: entry.kind,
                consistency: entry.consistency,
                intended_ns: entry.intended_ns,
                sent_ns: entry.sent_ns,
                write_ns: entry.write_ns,
                ended_ns: entry.ended_ns,
                outcome: entry.outcome,
                code: entry.code.map(longhaul_core::error_code::ErrorCode::as_str),
                attempts: entry.attempts,
                region: entry.region.and_then(|region| ledger.regions.get(usize::from(region))).map(String::as_str),
                epoch: entry.epoch,
                dot: entry.dot.map(|dot| dot.to_string()),
                version: entry.version,
                base: entry.base,
                observed: entry.observed,
                trace_id: entry.trace.map(trace_id_text),
            };
            serde_json::to_writer(&mut self.buffer, &line)?;
            self.buffer.push(b'\n');
        }
        self.file.write_all(&self.buffer).await?;
        self.file.flush().await
    }
}
