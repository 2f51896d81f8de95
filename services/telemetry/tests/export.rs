//! One process, one subscriber: spans reach an OTLP endpoint with the ids that they say they have.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use longhaul_telemetry::{InitError, TelemetryConfig, init};

const TRACE: [u8; 16] =
    [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];

/// Takes one HTTP request, answers 200 and tells head and body.
fn take_one(listener: &TcpListener) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut chunk).unwrap();
        bytes.extend_from_slice(&chunk[..read]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |text| text.parse().unwrap());
        if bytes.len() >= end + 4 + length {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            return (head, bytes.split_off(end + 4));
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn the_last_spans_are_exported_before_the_process_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(take_one(&listener)));
    let config = TelemetryConfig {
        service_name: "longhaul-gateway".to_owned(),
        role: "gateway".to_owned(),
        otlp_endpoint: Some(endpoint),
        ..TelemetryConfig::default()
    };
    let guard = init(&config).unwrap();
    assert!(matches!(init(&TelemetryConfig::default()), Err(InitError::Twice)));

    let context = "00-0af7651916cd43dd8448eb211c80319c-00000000000000a1-01";
    tracing::debug_span!(target: "longhaul_gateway", "gateway.attempt", longhaul.context = context).in_scope(|| ());
    tracing::debug_span!(target: "hyper_util", "foreign.span").in_scope(|| ());
    guard.shutdown().await;

    let (head, body) = told.recv().unwrap();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(contains(&body, b"gateway.attempt") && contains(&body, b"longhaul-gateway"));
    assert!(contains(&body, &TRACE), "the ids are those of the context");
    assert!(!contains(&body, b"foreign.span"), "spans of libraries are not exported");
}
