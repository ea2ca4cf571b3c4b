//! The wish to stop, from a terminal (Ctrl-C) or from whoever runs the process (SIGTERM).

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Failure;

/// Both ways to ask for the end.
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on; until then a signal ends the process at once.
    pub(super) fn listen() -> Result<Self, Failure> {
        let open = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("signals cannot be received: {error}")))
        };
        Ok(Signals { interrupt: open(SignalKind::interrupt())?, terminate: open(SignalKind::terminate())? })
    }

    /// Waits for the next one and says which it was.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Listens from now on; until then Ctrl-C ends the process at once.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Signals {})
    }

    /// Waits for the next one and says which it was.
    pub(super) async fn next(&mut self) -> &'static str {
        let _ = tokio::signal::ctrl_c().await;
        "Ctrl-C"
    }
}
