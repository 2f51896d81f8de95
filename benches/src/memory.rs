//! Memory of a whole embedded testbed: resident by role, proportional in all, idle and under the load of the
//! region-loss drill's users.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use longhaul_http::client::HttpClient;
use longhaul_http::net::TokioNet;
use tokio::process::{Child, Command};

use crate::figures::{Figure, Target};
use crate::process::{Memory, free_address, memory};

const LOAD_SECONDS: u64 = 15;

pub(crate) async fn measure(binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let address = free_address().await?;
    let port = address.rsplit(':').next().context("a port")?;
    let mut testbed = Command::new(binary)
        .args(["up", "--port", port, "--data"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let client = HttpClient::new(Arc::new(TokioNet));
    ready(&client, &address).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = by_role(&testbed)?;
    let body = serde_json::json!({ "workload": { "rate_per_s": 600.0 }, "seconds": LOAD_SECONDS + 5 });
    let started: serde_json::Value = client.post(&address, "/v1/traffic", &body, Duration::from_secs(10)).await?;
    anyhow::ensure!(!started.is_null(), "no traffic");
    tokio::time::sleep(Duration::from_secs(LOAD_SECONDS)).await;
    let loaded = by_role(&testbed)?;
    testbed.kill().await?;

    let mut figures = Vec::new();
    for (what, roles) in [("idle", &idle), ("at 600 operations/s", &loaded)] {
        for (role, memories) in roles {
            let target = match role.as_str() {
                "region" => Target::AtMost(60.0),
                "gateway" => Target::AtMost(30.0),
                _ => Target::None,
            };
            let largest = memories.iter().map(|memory| memory.resident).max().unwrap_or(0) as f64 / 1e6;
            let name = format!("{role}, {what} (largest of {})", memories.len());
            figures.push(Figure::new("memory", name, largest, "MB", target));
        }
        let sum = |of: fn(&Memory) -> u64| roles.values().flatten().map(of).sum::<u64>() as f64 / 1e6;
        let target = if what == "idle" { Target::AtMost(250.0) } else { Target::None };
        let whole = sum(|memory| memory.proportional);
        figures.push(Figure::new("memory", format!("whole testbed, {what}: shared pages once"), whole, "MB", target));
        let resident = sum(|memory| memory.resident);
        let name = format!("whole testbed, {what}: sum of resident sets");
        figures.push(Figure::new("memory", name, resident, "MB", Target::None));
    }
    Ok(figures)
}

async fn ready(client: &HttpClient, address: &str) -> anyhow::Result<()> {
    for _ in 0..300 {
        let request = http::Request::get("/readyz").body(bytes::Bytes::new())?;
        let answer = client.send(address, request, Duration::from_secs(1)).await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the testbed is not ready after 30 s")
}

/// Memory of the testbed's processes, by role (the parent is control).
fn by_role(testbed: &Child) -> anyhow::Result<BTreeMap<String, Vec<Memory>>> {
    let parent = testbed.id().context("the testbed has ended")?;
    let mut roles = BTreeMap::from([("control".to_owned(), vec![memory(parent)?])]);
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Processes come and go while the folder is read.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        if after_name.split_whitespace().nth(1) != Some(parent.to_string().as_str()) {
            continue;
        }
        let Ok(command) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let role = command.split(|byte| *byte == 0).nth(1).map(String::from_utf8_lossy).unwrap_or_default();
        roles.entry(role.into_owned()).or_default().push(memory(pid)?);
    }
    Ok(roles)
}
