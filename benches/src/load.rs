//! Load over HTTP: one connection per client, little work per request.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use longhaul_http::clock::{Clock, SystemClock};
use longhaul_http::net::{Net, TokioNet};
use tokio::task::JoinSet;
use uuid::Uuid;

/// A connection that sends one request after the other.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::AbortHandle,
}

impl Connection {
    /// Dials; the connection's task runs on `tasks`.
    pub(crate) async fn open(address: &str, tasks: &mut JoinSet<()>) -> anyhow::Result<Self> {
        let io = TokioNet.connect(address).await?;
        let (sender, connection) = handshake(TokioIo::new(io)).await?;
        let driver = tasks.spawn(async move {
            // The sender learns of an error with its next request.
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Sends and reads the whole answer; its status.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<u16> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        Ok(status)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A write of a fresh record.
pub(crate) fn put(home: &str, id: &str, op_id: Uuid, value: &Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
    Request::put(format!("/v1/records/{home}/{id}"))
        .header("host", "bench")
        .header("content-type", "application/json")
        .header("idempotency-key", op_id.to_string())
        .body(Full::new(value.clone()))
        .context("a request")
}

/// An operation id as clients are advised to make them: a UUID version 7, which rises with time.
fn op_id(now_ns: u64, client: u32, n: u64) -> Uuid {
    let mut rest = [0; 10];
    rest[..4].copy_from_slice(&client.to_be_bytes());
    rest[4..].copy_from_slice(&n.to_be_bytes()[2..]);
    uuid::Builder::from_unix_timestamp_millis(now_ns / 1_000_000, &rest).into_uuid()
}

/// JSON text of about this many bytes.
pub(crate) fn value(bytes: usize) -> Bytes {
    Bytes::from(format!("{{\"pad\":\"{}\"}}", "x".repeat(bytes.saturating_sub(10))))
}

/// What a run of closed-loop clients came to.
pub(crate) struct ClosedLoop {
    /// Acknowledged writes a second.
    pub(crate) per_second: f64,
    /// Latency, microseconds.
    pub(crate) latency_us: Histogram<u64>,
    /// Requests that were not acknowledged.
    pub(crate) refused: u64,
}

/// `clients` connections, each writing one fresh record after the other.
pub(crate) async fn write_closed_loop(
    address: &str,
    home: &'static str,
    clients: u32,
    seconds: u64,
    value_bytes: usize,
) -> anyhow::Result<ClosedLoop> {
    let clock = Arc::new(SystemClock::default());
    let value = value(value_bytes);
    let mut drivers = JoinSet::new();
    let mut loops: JoinSet<anyhow::Result<(Histogram<u64>, u64)>> = JoinSet::new();
    let warm_up = clock.boot_ns() + 1_000_000_000;
    let end = warm_up + seconds * 1_000_000_000;
    for client in 0..clients {
        let mut connection = Connection::open(address, &mut drivers).await?;
        let (clock, value) = (Arc::clone(&clock), value.clone());
        loops.spawn(async move {
            let mut latency = Histogram::new(3)?;
            let mut refused = 0;
            for n in 0_u64.. {
                let op_id = op_id(clock.boot_ns(), client, n);
                let request = put(home, &format!("c{client}-{n}"), op_id, &value)?;
                let start = clock.boot_ns();
                let status = connection.send(request).await?;
                let now = clock.boot_ns();
                if now > end {
                    break;
                }
                if start < warm_up {
                    continue;
                }
                if (200..300).contains(&status) {
                    latency.record((now - start) / 1000)?;
                } else {
                    refused += 1;
                }
            }
            Ok((latency, refused))
        });
    }
    let mut latency_us = Histogram::new(3)?;
    let mut refused = 0;
    while let Some(result) = loops.join_next().await {
        let (latency, not) = result??;
        latency_us.add(latency)?;
        refused += not;
    }
    Ok(ClosedLoop { per_second: latency_us.len() as f64 / seconds as f64, latency_us, refused })
}

/// Writes at a fixed rate, whatever the answers do, over `clients` connections; returns how many were acknowledged.
pub(crate) async fn write_open_loop(
    address: &str,
    home: &'static str,
    clients: u32,
    per_second: f64,
    seconds: u64,
) -> anyhow::Result<u64> {
    let value = value(256);
    let mut drivers = JoinSet::new();
    let mut loops: JoinSet<anyhow::Result<u64>> = JoinSet::new();
    let begin = tokio::time::Instant::now();
    let each = f64::from(clients) / per_second;
    let count = (per_second * seconds as f64 / f64::from(clients)) as u64;
    for client in 0..clients {
        let mut connection = Connection::open(address, &mut drivers).await?;
        let value = value.clone();
        loops.spawn(async move {
            let mut acknowledged = 0;
            for n in 0..count {
                let offset = each * (n as f64 + f64::from(client) / f64::from(clients));
                tokio::time::sleep_until(begin + Duration::from_secs_f64(offset)).await;
                let op_id = op_id((offset * 1e9) as u64, client, n);
                let status = connection.send(put(home, &format!("o{client}-{n}"), op_id, &value)?).await?;
                acknowledged += u64::from((200..300).contains(&status));
            }
            Ok(acknowledged)
        });
    }
    let mut acknowledged = 0;
    while let Some(result) = loops.join_next().await {
        acknowledged += result??;
    }
    Ok(acknowledged)
}
