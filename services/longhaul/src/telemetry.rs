//! Telemetry of a process: logs on standard error, traces and metrics to where the standard `OTEL_*` variables say, and
//! spans to a file in a testbed's data folder.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use longhaul_http::clock::{Clock, SystemClock};
use longhaul_http::trace::policy::{self, Policy};
use longhaul_telemetry::{FILTER_DEFAULT, Flusher, LogFormat, Otlp, SpanFile, TelemetryConfig, init};

/// What is logged by a command for people, whose standard error is for progress and for the one line at the end.
pub(crate) const QUIET: &str = "error";
/// What is logged by a role.
pub(crate) const ROLE: &str = FILTER_DEFAULT;
/// Requests that took this long are kept, however few are chosen, unless `LONGHAUL_TRACE_SLOW_MS` says otherwise.
const SLOW: Duration = Duration::from_secs(1);

/// Whose telemetry it is, and where it goes.
pub(crate) struct Telemetry<'a> {
    /// The role of the process.
    pub(crate) role: &'a str,
    /// The location that it stands for.
    pub(crate) location: &'a str,
    /// The base address of an OTLP endpoint, if one was given on the command line or in the role's file.
    pub(crate) otlp: Option<&'a str>,
    /// The file that spans are written to.
    pub(crate) spans: Option<&'a Path>,
    /// Spans will be written to a testbed's folder that is not there yet.
    pub(crate) spans_later: bool,
    /// Which logs.
    pub(crate) filter: &'a str,
}

impl<'a> Telemetry<'a> {
    /// Of a command for people, in whose process control runs.
    pub(crate) const fn command(otlp: Option<&'a str>) -> Self {
        Self { role: "control", location: "control", otlp, spans: None, spans_later: true, filter: QUIET }
    }
}

/// The process's own, once it is set up.
struct Process {
    file: SpanFile,
    flusher: Mutex<Option<Flusher>>,
}

static PROCESS: OnceLock<Process> = OnceLock::new();

/// Where the spans of this process go from now on, besides an OTLP endpoint.
pub(crate) fn write_spans_to(path: Option<PathBuf>) {
    if let Some(process) = PROCESS.get() {
        process.file.point(path);
    }
}

/// Writes and sends what has ended so far.
pub(crate) async fn flush() {
    let flusher =
        PROCESS.get().and_then(|process| process.flusher.lock().unwrap_or_else(PoisonError::into_inner).clone());
    if let Some(flusher) = flusher {
        flusher.flush().await;
    }
}

/// Runs `work` with telemetry around it; what was recorded is sent before it returns. `LONGHAUL_LOG` (directives of
/// `tracing`) and `LONGHAUL_LOG_FORMAT` (`human`, `json`) override what is logged.
pub(crate) async fn with<T>(
    telemetry: Telemetry<'_>,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let (config, file) = config(&telemetry, |name| std::env::var(name).ok())?;
    policy::set(recorded(&config, |name| std::env::var(name).ok())?);
    // The exporter's client must not be built on a thread of the runtime.
    let started = tokio::task::spawn_blocking(move || init(&config)).await;
    let guard =
        started.map_err(|error| format!("telemetry cannot be set up: {error}"))?.map_err(|error| error.to_string())?;
    // Set once: a process has one telemetry.
    let _ = PROCESS.set(Process { file, flusher: Mutex::new(guard.flusher()) });
    let result = work.await;
    guard.shutdown().await;
    result
}

fn config(
    telemetry: &Telemetry<'_>,
    get: impl Fn(&str) -> Option<String>,
) -> Result<(TelemetryConfig, SpanFile), String> {
    let format = match get("LONGHAUL_LOG_FORMAT") {
        Some(text) => text.parse().map_err(|error| format!("LONGHAUL_LOG_FORMAT: {error}"))?,
        None => LogFormat::Human,
    };
    let clock = SystemClock::default();
    let boot = UNIX_EPOCH + Duration::from_nanos(clock.wall_ns().saturating_sub(clock.boot_ns()));
    let file = SpanFile::default();
    file.point(telemetry.spans.map(Path::to_owned));
    let config = TelemetryConfig {
        service_name: format!("longhaul-{}", telemetry.role),
        role: telemetry.role.to_owned(),
        location: Some(telemetry.location.to_owned()),
        format,
        filter: Some(get("LONGHAUL_LOG").unwrap_or_else(|| telemetry.filter.to_owned())),
        otlp: Otlp::read(telemetry.otlp, &get)?,
        span_file: Some(file.clone()).filter(|_| {
            let wanted = telemetry.spans.is_some() || telemetry.spans_later;
            wanted && get("LONGHAUL_SPANS").as_deref() != Some("off")
        }),
        boot,
    };
    Ok((config, file))
}

/// What is recorded: `OTEL_TRACES_SAMPLER` and its argument, by the standard's names; everything without them, and
/// nothing where spans go nowhere.
fn recorded(config: &TelemetryConfig, get: impl Fn(&str) -> Option<String>) -> Result<Policy, String> {
    if config.otlp.traces.is_none() && config.span_file.is_none() {
        return Ok(Policy::OFF);
    }
    let sampler = get("OTEL_TRACES_SAMPLER").filter(|name| !name.is_empty());
    let sampler = sampler.as_deref().unwrap_or("parentbased_always_on");
    let ratio = match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => {
            let text = get("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
            let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG: {text:?} is no share from 0 to 1"))?
        }
        _ => {
            return Err(format!(
                "OTEL_TRACES_SAMPLER: {sampler:?} is not one of always_on, always_off, traceidratio, with or without \
                 parentbased_ before it"
            ));
        }
    };
    let slow = match get("LONGHAUL_TRACE_SLOW_MS") {
        None => SLOW,
        Some(text) => Duration::from_millis(
            text.parse().map_err(|_| format!("LONGHAUL_TRACE_SLOW_MS: {text:?} is no number of milliseconds"))?,
        ),
    };
    Ok(Policy { recording: true, ratio, slow })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Telemetry<'_> =
        Telemetry { role: "region", location: "eu-west", otlp: None, spans: None, spans_later: true, filter: ROLE };

    fn policy_of(variables: &[(&str, &str)]) -> Result<Policy, String> {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let (config, _) = config(&PLACE, get)?;
        recorded(&config, get)
    }

    #[test]
    fn everything_is_kept_unless_the_standard_variables_say_otherwise() {
        assert!((policy_of(&[]).unwrap().ratio - 1.0).abs() < 1e-9);
        let tenth = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.1")];
        assert!((policy_of(&tenth).unwrap().ratio - 0.1).abs() < 1e-9);
        assert!(policy_of(&[("OTEL_TRACES_SAMPLER", "always_off")]).unwrap().ratio.abs() < 1e-9);
        let slow = policy_of(&[("LONGHAUL_TRACE_SLOW_MS", "250")]).unwrap().slow;
        assert_eq!(slow, Duration::from_millis(250));
    }

    #[test]
    fn nothing_is_recorded_where_it_would_go_nowhere() {
        assert_eq!(policy_of(&[("LONGHAUL_SPANS", "off")]).unwrap(), Policy::OFF);
        let nowhere = Telemetry { spans_later: false, ..PLACE };
        let (config, _) = config(&nowhere, |_| None).unwrap();
        assert_eq!(recorded(&config, |_| None).unwrap(), Policy::OFF);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, value) in
            [("OTEL_TRACES_SAMPLER", "sometimes"), ("LONGHAUL_TRACE_SLOW_MS", "slow"), ("LONGHAUL_LOG_FORMAT", "xml")]
        {
            let error = policy_of(&[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        let sampler = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        assert!(policy_of(&sampler).unwrap_err().contains("OTEL_TRACES_SAMPLER_ARG"));
    }
}
