//! The demo's stage: two gateways and an orchestrator in one process, talking over loopback, leaving nothing behind.
//!
//! `left` knows `right` as the peer `stk_right`; `right` has the orchestrator, marked local. What happens on the
//! stage is told by `causeway demo`.

pub mod orchestrator;
mod runs;
mod script;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

pub use self::orchestrator::DEMO_TENANT;
use self::orchestrator::{Orchestrator, RUN_TIME};
use crate::app::{Gateway, StartError};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::id::{PeerId, TenantId};
use crate::domain::peer::PeerKind;
use crate::entropy::Entropy;
use crate::services::options::PeerOptions;

/// The gateway a user talks to.
pub const LEFT: &str = "stk_left";
/// The gateway with the orchestrator.
pub const RIGHT: &str = "stk_right";

/// How long the gateways may take to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// A free port of this machine's own.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Everything that runs during a demo.
pub struct Stage {
    left: Gateway,
    right: Gateway,
    orchestrator: Orchestrator,
    /// Removed when the stage is.
    _directory: TemporaryDirectory,
}

/// Why the stage cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// No temporary directory, or no port.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A gateway does not start.
    #[error("the gateway {name} does not start: {source}")]
    Gateway {
        /// Its stack id.
        name: &'static str,
        /// Why.
        source: Box<StartError>,
    },
}

/// A directory of our own that goes with its owner.
struct TemporaryDirectory {
    path: PathBuf,
}

impl Stage {
    /// Starts everything: the orchestrator, the gateway before it, the gateway before that.
    ///
    /// # Errors
    ///
    /// There is no temporary directory or no port, or a gateway does not start.
    pub async fn set() -> Result<Self, StageError> {
        let directory = TemporaryDirectory::new()
            .map_err(|source| StageError::Io { what: "no temporary directory can be made", source })?;
        let orchestrator = Orchestrator::start(ANY_PORT, RUN_TIME).await.map_err(|source| {
            StageError::Io { what: "the orchestrator cannot listen on 127.0.0.1", source }
        })?;
        let local =
            PeerOptions { local: true, ..peer("orc_right", PeerKind::Orchestrator, orchestrator.address()) };
        let right = start(RIGHT, "right", local, &directory.path).await?;
        let beyond = peer(RIGHT, PeerKind::Gateway, right.address());
        let left = start(LEFT, "left", beyond, &directory.path).await?;
        Ok(Stage { left, right, orchestrator, _directory: directory })
    }

    /// Where the user's gateway is.
    pub fn left(&self) -> Url {
        url_of(self.left.address())
    }

    /// Where the other gateway is.
    pub fn right(&self) -> Url {
        url_of(self.right.address())
    }

    /// Where runs are executed.
    pub fn orchestrator(&self) -> Url {
        url_of(self.orchestrator.address())
    }

    /// Stops everything, the callers before those they call.
    pub async fn strike(self) {
        self.left.shutdown().await;
        self.right.shutdown().await;
        self.orchestrator.shutdown().await;
    }
}

impl TemporaryDirectory {
    fn new() -> io::Result<Self> {
        let name = Entropy::from_os().id("causeway-demo", Clock::system().now_ms());
        let path = std::env::temp_dir().join(name);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(TemporaryDirectory { path })
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left to the system, which empties its temporary directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}

async fn start(
    name: &'static str,
    region: &str,
    peer: PeerOptions,
    directory: &Path,
) -> Result<Gateway, StageError> {
    let mut config = Config::default();
    config.gateway.stack_id = PeerId::parse(name).expect("a valid id");
    config.gateway.region = region.to_owned();
    config.gateway.environment = "demo".to_owned();
    config.gateway.default_tenant = Some(TenantId::parse(DEMO_TENANT).expect("a valid id"));
    config.gateway.data_dir = directory.join(region);
    // Named, so that no index of the working directory is taken up.
    config.gateway.forward_index_file = Some(directory.join(format!("{region}-forward-index.json")));
    config.server.listen = ANY_PORT;
    config.server.shutdown_timeout = SHUTDOWN_TIMEOUT;
    config.peers = vec![peer];
    Gateway::start(config).await.map_err(|source| StageError::Gateway { name, source: Box::new(source) })
}

/// A peer of the stage; all of them are on the right.
fn peer(name: &str, kind: PeerKind, address: SocketAddr) -> PeerOptions {
    let peer = PeerOptions::new(PeerId::parse(name).expect("a valid id"), url_of(address));
    PeerOptions { kind, region: "right".to_owned(), ..peer }
}

fn url_of(address: SocketAddr) -> Url {
    Url::parse(&format!("http://{address}")).expect("an address makes a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_behind() {
        let directory = TemporaryDirectory::new().expect("a directory");
        let path = directory.path.clone();
        fs::write(path.join("file"), "x").expect("a file");
        drop(directory);
        assert!(!path.exists());
    }
}
