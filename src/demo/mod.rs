//! The demo's stage: two gateways and an orchestrator in one process, talking over loopback, leaving nothing behind.
//!
//! `left` and `right` are enrolled with each other by public key: between them there is nothing but mutual TLS and
//! signed requests. `right` has the orchestrator, marked local. What happens on the stage is told by `causeway
//! demo`.

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
use crate::domain::grants::Operation;
use crate::domain::id::{PeerId, TenantId};
use crate::domain::key::PublicKey;
use crate::domain::peer::{HealthState, PeerKind};
use crate::entropy::Entropy;
use crate::keyring::{Keyring, KeyringError};
use crate::protocol::problem::Problem;
use crate::services::peer_options::PeerOptions;
use crate::services::roster::Actor;

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
    /// A gateway's key cannot be made.
    #[error("the gateway {name} has no key: {source}")]
    Key {
        /// Its stack id.
        name: &'static str,
        /// Why.
        source: KeyringError,
    },
    /// The gateways do not take each other for who they are.
    #[error("{at} and {peer} do not know each other: {reason}")]
    Strangers {
        /// The gateway that asked.
        at: &'static str,
        /// The one it asked.
        peer: &'static str,
        /// What came of it.
        reason: String,
    },
}

/// A gateway and the key its peers know it by.
struct Member {
    name: &'static str,
    gateway: Gateway,
    key: PublicKey,
}

/// A directory of our own that goes with its owner.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory {
    path: PathBuf,
}

impl Stage {
    /// Starts everything: the orchestrator, the gateway before it, the gateway before that.
    ///
    /// # Errors
    ///
    /// There is no temporary directory or no port, or a gateway does not start.
    pub async fn set() -> Result<Self, StageError> {
        let directory = TemporaryDirectory::new(&std::env::temp_dir(), "causeway-demo")
            .map_err(|source| StageError::Io { what: "no temporary directory can be made", source })?;
        let orchestrator = Orchestrator::start(ANY_PORT, RUN_TIME).await.map_err(|source| {
            StageError::Io { what: "the orchestrator cannot listen on 127.0.0.1", source }
        })?;
        let local = PeerOptions {
            local: true,
            region: "right".to_owned(),
            ..PeerOptions::new(id("orc_right"), url_of("http", orchestrator.address()))
        };
        let right = Member::start(RIGHT, "right", vec![local], &directory.path).await?;
        let left = Member::start(LEFT, "left", Vec::new(), &directory.path).await?;
        right.enrol(&left, "left", Operation::ForwardIn).await?;
        left.enrol(&right, "right", Operation::ForwardOut).await?;
        // Each has asked the other before the user does.
        left.ask(&right).await?;
        right.ask(&left).await?;
        Ok(Stage { left: left.gateway, right: right.gateway, orchestrator, _directory: directory })
    }

    /// Where the user's gateway is.
    pub fn left(&self) -> Url {
        url_of("http", self.left.address())
    }

    /// Where the other gateway is.
    pub fn right(&self) -> Url {
        url_of("http", self.right.address())
    }

    /// Where runs are executed.
    pub fn orchestrator(&self) -> Url {
        url_of("http", self.orchestrator.address())
    }

    /// Stops everything, the callers before those they call.
    pub async fn strike(self) {
        self.left.shutdown().await;
        self.right.shutdown().await;
        self.orchestrator.shutdown().await;
    }
}

impl TemporaryDirectory {
    /// Makes one inside `parent`. Its path is absolute: processes that are given it work elsewhere.
    pub(crate) fn new(parent: &Path, prefix: &str) -> io::Result<Self> {
        let name = Entropy::from_os().id(prefix, Clock::system().now_ms());
        let path = std::path::absolute(parent)?.join(name);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(TemporaryDirectory { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left to the system, which empties its temporary directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Member {
    /// Makes the gateway's key, and starts it with a door for clients and one for peers.
    async fn start(
        name: &'static str,
        region: &str,
        peers: Vec<PeerOptions>,
        directory: &Path,
    ) -> Result<Self, StageError> {
        let data_dir = directory.join(region);
        let mut seed = [0; 32];
        Entropy::from_os().fill(&mut seed);
        let keyring =
            Keyring::open(&data_dir, None, &seed).map_err(|source| StageError::Key { name, source })?;
        let mut config = Config::default();
        config.gateway.stack_id = id(name);
        config.gateway.region = region.to_owned();
        config.gateway.environment = "demo".to_owned();
        config.gateway.default_tenant = Some(TenantId::parse(DEMO_TENANT).expect("a valid id"));
        config.gateway.data_dir = data_dir;
        // Named, so that no index of the working directory is taken up.
        config.gateway.forward_index_file = Some(directory.join(format!("{region}-forward-index.json")));
        config.server.listen = ANY_PORT;
        config.server.shutdown_timeout = SHUTDOWN_TIMEOUT;
        config.peering.listen = Some(ANY_PORT);
        config.peering.require_mtls = true;
        config.peers = peers;
        let gateway = Gateway::start(config)
            .await
            .map_err(|source| StageError::Gateway { name, source: Box::new(source) })?;
        Ok(Member { name, gateway, key: *keyring.keys().present.public() })
    }

    /// Enrols another gateway here by its key, for one thing.
    async fn enrol(&self, other: &Member, region: &str, operation: Operation) -> Result<(), StageError> {
        let address = other.gateway.peer_address().expect("every member has a door for peers");
        let peer = PeerOptions {
            kind: PeerKind::Gateway,
            region: region.to_owned(),
            public_key: Some(other.key),
            operations: vec![operation],
            ..PeerOptions::new(id(other.name), url_of("https", address))
        };
        let by = Actor {
            tenant: String::new(),
            subject: "operator:demo".to_owned(),
            correlation_id: String::new(),
        };
        let enrolled = self.gateway.roster().enrol(peer, &by).await;
        enrolled.map(drop).map_err(|problem| self.strange(other, problem))
    }

    /// Asks another gateway how it is: each must prove to the other who it is.
    async fn ask(&self, other: &Member) -> Result<(), StageError> {
        let asked = self.gateway.roster().verify(&id(other.name)).await;
        let health = asked.map_err(|problem| self.strange(other, problem))?.health();
        match health.state {
            HealthState::Healthy => Ok(()),
            state => {
                let reason = health.reason.unwrap_or_else(|| state.as_str().to_owned());
                Err(StageError::Strangers { at: self.name, peer: other.name, reason })
            }
        }
    }

    fn strange(&self, other: &Member, problem: Problem) -> StageError {
        StageError::Strangers { at: self.name, peer: other.name, reason: problem.message }
    }
}

fn id(name: &str) -> PeerId {
    PeerId::parse(name).expect("a valid id")
}

fn url_of(scheme: &str, address: SocketAddr) -> Url {
    Url::parse(&format!("{scheme}://{address}")).expect("an address makes a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_behind() {
        let parent = std::env::temp_dir();
        let directory = TemporaryDirectory::new(&parent, "causeway-demo-test").expect("a directory");
        let path = directory.path.clone();
        fs::write(path.join("file"), "x").expect("a file");
        drop(directory);
        assert!(!path.exists());
    }
}
