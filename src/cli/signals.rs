//! The wish to stop, from a terminal (Ctrl-C, or its end) or from whoever runs the process (SIGTERM).

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Failure;

/// The ways to ask for the end.
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    hangup: Option<Signal>,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on; until then a signal ends the process at once.
    pub(super) fn listen() -> Result<Self, Failure> {
        let (interrupt, terminate) = (open(SignalKind::interrupt())?, open(SignalKind::terminate())?);
        Ok(Signals { interrupt, terminate, hangup: None })
    }

    /// As [`Signals::listen`], for what belongs to its terminal and must tidy up when that closes. What runs
    /// on without one (`nohup`) must not listen to this.
    pub(super) fn listen_in_terminal() -> Result<Self, Failure> {
        Ok(Signals { hangup: Some(open(SignalKind::hangup())?), ..Self::listen()? })
    }

    /// Waits for the next one and says which it was.
    pub(super) async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = hangup => "SIGHUP",
        }
    }
}

#[cfg(unix)]
fn open(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("signals cannot be received: {error}")))
}

#[cfg(not(unix))]
impl Signals {
    /// Listens from now on; until then Ctrl-C ends the process at once.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Signals {})
    }

    /// As [`Signals::listen`].
    pub(super) fn listen_in_terminal() -> Result<Self, Failure> {
        Self::listen()
    }

    /// Waits for the next one and says which it was.
    pub(super) async fn next(&mut self) -> &'static str {
        let _ = tokio::signal::ctrl_c().await;
        "Ctrl-C"
    }
}
