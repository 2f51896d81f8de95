//! Spans as a file: one OTLP JSON document a line (the OpenTelemetry protocol file exporter's format), so that a testbed
//! without a collector has traces, too.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// Most bytes of one file. A full file is kept as `NAME.jsonl.old` (in the place of the one before), and a new one begun.
pub const SPAN_FILE_BYTES_MAX: u64 = 64 << 20;

/// The file that spans of this process are written to. It may be pointed elsewhere while the process runs: a command
/// that starts several testbeds, one after the other, writes each one's spans to that one's folder.
#[derive(Debug, Clone, Default)]
pub struct SpanFile(Arc<Mutex<Place>>);

#[derive(Debug, Default)]
struct Place {
    path: Option<PathBuf>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl SpanFile {
    /// A file at a path; its folder must exist when the first span is written.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let file = Self::default();
        file.point(Some(path.into()));
        file
    }

    /// From now on, spans go there; nowhere if there is no path.
    pub fn point(&self, path: Option<PathBuf>) {
        *self.lock() = Place { path, open: None };
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8], bytes_max: u64) -> io::Result<()> {
        let mut place = self.lock();
        let Some(path) = place.path.clone() else { return Ok(()) };
        let mut open = match place.open.take() {
            Some(open) => open,
            None => begin(&path)?,
        };
        if open.bytes > 0 && open.bytes + line.len() as u64 > bytes_max {
            std::fs::rename(&path, path.with_extension("jsonl.old"))?;
            open = begin(&path)?;
        }
        // One write for one line: a reader never sees half of one, unless the process is killed within it.
        open.file.write_all(line)?;
        open.bytes += line.len() as u64;
        place.open = Some(open);
        Ok(())
    }
}

fn begin(path: &Path) -> io::Result<Open> {
    let file = File::options().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

/// The exporter.
#[derive(Debug)]
pub(crate) struct FileExporter {
    file: SpanFile,
    resource: ResourceAttributesWithSchema,
    bytes_max: u64,
}

impl FileExporter {
    pub(crate) fn new(file: SpanFile, bytes_max: u64) -> Self {
        Self { file, resource: ResourceAttributesWithSchema::default(), bytes_max }
    }
}

impl SpanExporter for FileExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let request =
            ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(batch, &self.resource) };
        let written = serde_json::to_vec(&request).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.file.append(&line, self.bytes_max)
        });
        written.map_err(|error| OTelSdkError::InternalFailure(format!("the file of spans cannot be written: {error}")))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_one_that_is_pointed_nowhere_is_none() {
        let folder = std::env::temp_dir().join(format!("longhaul-span-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("region.jsonl");
        let file = SpanFile::at(&path);
        for line in ["first\n", "second\n", "third\n"] {
            file.append(line.as_bytes(), 14).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path.with_extension("jsonl.old")).unwrap(), "first\nsecond\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\n");
        file.point(None);
        file.append(b"nowhere\n", 14).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\n");
        file.point(Some(folder.join("missing").join("region.jsonl")));
        assert!(file.append(b"lost\n", 14).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
