//! Control's API, which drills may take away and bring back while control itself lives on.

use std::sync::Arc;
use std::time::Duration;

use longhaul_control::Control;
use longhaul_http::net::{Listener, Net, TokioNet};
use longhaul_http::watch;
use tokio_util::sync::CancellationToken;

/// How long to wait before listening is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// Serves control's API as long as it is meant to be up; `kill control` takes it down, `restart control` brings it back.
pub(crate) async fn serve(
    control: Arc<Control>,
    listener: Listener,
    address: String,
    mut up: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut next = Some(listener);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = up.wait_for(|up| *up) => if changed.is_err() { return },
        }
        let listener = match next.take() {
            Some(listener) => listener,
            None => match TokioNet.bind(&address).await {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::warn!(%error, "control cannot listen again yet");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            },
        };
        let down = stop.child_token();
        let serving = control.serve(listener, down.clone());
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = up.wait_for(|up| !*up) => {}
            served = &mut serving => {
                if let Err(error) = served {
                    tracing::warn!(%error, "control's API ended");
                }
                continue;
            }
        }
        down.cancel();
        if let Err(error) = serving.await {
            tracing::warn!(%error, "control's API ended");
        }
    }
}
