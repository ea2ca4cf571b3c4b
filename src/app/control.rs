//! The operators' API for a moment: where no gateway runs on a data directory, a command brings it up there,
//! asks, and takes it down again.
//!
//! Invariant: it holds the data directory's lock, listens on a socket of its own, and does no gateway's work:
//! nobody else comes in, no run is taken up, nothing is read at peers.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::doors;
use super::{Ground, Parts, StartError};
use crate::clock::Clock;
use crate::config::Config;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::services::audit_log::Sink;
use crate::services::hub::Hub;
use crate::store::Store;
use crate::tasks::Tasks;

/// Beside [`super::CONTROL_SOCKET`], so that another command does not take this one for a gateway.
const SOCKET: &str = "command.sock";

/// The operators' API and nothing else.
pub struct Control {
    socket: PathBuf,
    /// Made for the socket alone, where the data directory's path is too long for one.
    beside: Option<PathBuf>,
    store: Store,
    tasks: Tasks,
}

impl Control {
    /// Opens the log and serves the operators' API to this user.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let ground = Ground::system(Clock::system(), Entropy::from_os());
        let Ground { clock, entropy, tasks, .. } = ground.clone();
        let (hub, metrics) = (Arc::new(Hub::default()), Arc::new(Metrics::default()));
        let data_dir = &config.gateway.data_dir;
        let heard = (Arc::clone(&hub) as Arc<_>, Arc::clone(&metrics));
        let store = Store::open(data_dir, clock.clone(), &entropy, tasks.clone(), heard).await?;
        let served = async {
            // Whoever would read at peers is told to stop before it begins.
            let readers = Tasks::default();
            readers.stop().await;
            let parts = Parts::assemble(config, &ground, &store, (hub, metrics), &readers).await?;
            parts.trust.start(&quiet(config), &tasks)?;
            let socket = data_dir.join(SOCKET);
            let listening = match doors::control(&socket, &parts.services, &parts.house) {
                // The system's bound on a socket's path is some hundred bytes.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    let name = entropy.id("causeway", clock.now_ms());
                    private_directory(&name).and_then(|beside| {
                        let socket = beside.join(SOCKET);
                        doors::control(&socket, &parts.services, &parts.house)
                            .map(|()| (socket, Some(beside)))
                    })
                }
                made => made.map(|()| (socket.clone(), None)),
            };
            listening.map_err(|source| StartError::Control { path: socket, source })
        };
        match served.await {
            Ok((socket, beside)) => Ok(Control { socket, beside, store, tasks }),
            Err(error) => {
                tasks.stop().await;
                store.close().await;
                Err(error)
            }
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Signs and copies the audit as far as it came, and closes the log.
    pub async fn close(self) {
        self.tasks.stop().await;
        // Whoever comes next makes it anew anyway.
        let _ = fs::remove_file(&self.socket);
        let _ = self.beside.map(fs::remove_dir);
        self.store.close().await;
    }
}

/// A directory for this user only, where paths are short.
fn private_directory(name: &str) -> io::Result<PathBuf> {
    let path = std::env::temp_dir().join(name);
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// Standard output and standard error are the command's own: only a file gets the audit's lines.
fn quiet(config: &Config) -> Config {
    let mut config = config.clone();
    if !matches!(Sink::parse(&config.audit.sink), Ok(Some(Sink::File(_)))) {
        config.audit.sink.clear();
    }
    config
}
