//! Being told to stop: by a signal, or by the end of the parent.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A token that is cancelled by SIGINT or SIGTERM. A second signal ends the program at once.
pub(crate) fn stop_on_signal(tasks: &TaskTracker) -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = stop.clone();
    tasks.spawn(async move {
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if told {
                // Children end by themselves when their standard input does.
                std::process::exit(130);
            }
            told = true;
            token.cancel();
        }
    });
    Ok(stop)
}

/// Cancels `stop` when standard input ends: the parent holds its other end, and the kernel closes it however the parent
/// dies.
pub(crate) fn stop_with_parent(stop: CancellationToken) -> std::io::Result<()> {
    // A stopped (SIGSTOP) process reads nothing: for it there is the death signal, where the system has one.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
        let mut sink = std::io::sink();
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut sink);
        stop.cancel();
    })?;
    Ok(())
}
