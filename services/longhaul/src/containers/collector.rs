//! Whether a collector of traces that may be there is there.

use std::time::Duration;

use longhaul_http::net::Net;

/// How long it has to answer. It is asked once, before a process begins.
const ANSWER: Duration = Duration::from_secs(1);

/// The `HOST:PORT` of `http://HOST:PORT`.
pub(crate) fn address(url: &str) -> Option<&str> {
    let address = url.strip_prefix("http://")?.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then_some(address)
}

/// Whether something listens at `http://HOST:PORT`.
pub(crate) async fn answers(net: &dyn Net, url: &str) -> bool {
    let Some(address) = address(url) else { return false };
    matches!(tokio::time::timeout(ANSWER, net.connect(address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use longhaul_http::net::TokioNet;

    use super::*;

    #[tokio::test]
    async fn a_collector_is_there_when_it_listens() {
        let listener = TokioNet.bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.address().unwrap());
        assert!(answers(&TokioNet, &url).await);
        drop(listener);
        assert!(!answers(&TokioNet, &url).await);
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        assert_eq!(address("http://jaeger:4318/"), Some("jaeger:4318"));
        for url in ["jaeger:4318", "http://jaeger", "http://:4318", "http://jaeger:http"] {
            assert_eq!(address(url), None, "{url}");
        }
    }
}
