//! Telemetry of a process: logs on standard error, traces to a collector if there is one.

use longhaul_telemetry::{FILTER_DEFAULT, Guard, LogFormat, TelemetryConfig, init};

/// What is logged by a command for people, whose standard error is for progress and for the one line at the end.
pub(crate) const QUIET: &str = "error";
/// What is logged by a role.
pub(crate) const ROLE: &str = FILTER_DEFAULT;

/// Runs `work` with telemetry around it; what was recorded is sent before it returns. `LONGHAUL_LOG` (directives of
/// `tracing`) and `LONGHAUL_LOG_FORMAT` (`human`, `json`) override what is logged.
pub(crate) async fn with<T>(
    role: &str,
    location: &str,
    otlp: Option<&str>,
    filter: &str,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let guard = start(role, location, otlp, filter).await?;
    let result = work.await;
    guard.shutdown().await;
    result
}

async fn start(role: &str, location: &str, otlp: Option<&str>, filter: &str) -> Result<Guard, String> {
    let format = match std::env::var("LONGHAUL_LOG_FORMAT") {
        Ok(text) => text.parse().map_err(|error| format!("LONGHAUL_LOG_FORMAT: {error}"))?,
        Err(_) => LogFormat::Human,
    };
    let config = TelemetryConfig {
        service_name: format!("longhaul-{role}"),
        role: role.to_owned(),
        location: Some(location.to_owned()),
        format,
        filter: Some(std::env::var("LONGHAUL_LOG").unwrap_or_else(|_| filter.to_owned())),
        otlp_endpoint: otlp.map(str::to_owned),
    };
    // The exporter's client must not be built on a thread of the runtime.
    let started = tokio::task::spawn_blocking(move || init(&config)).await;
    started.map_err(|error| format!("telemetry cannot be set up: {error}"))?.map_err(|error| error.to_string())
}
