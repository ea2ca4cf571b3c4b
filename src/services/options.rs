//! What an operator may turn in the services: identity, forwarding, reading, keeping, and the peers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::id::{PeerId, TenantId};
use crate::domain::units::{self, quoted};

/// The forward index that is imported when no other file is named.
pub const DEFAULT_FORWARD_INDEX: &str = "data/federation/forward-index.json";

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `[gateway]`: who this gateway is and where its files lie. Relative paths start at the working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayOptions {
    /// This gateway's own peer id. Left out: what the peers file says of `local`, else `stk_local`, which profile
    /// prod refuses.
    #[serde(with = "units::text")]
    pub stack_id: PeerId,
    /// Label shown to peers. Left out: what the peers file says of `local`, else `dev`.
    pub environment: String,
    /// Region shown to peers. Left out: what the peers file says of `local`, else `local`.
    pub region: String,
    /// How strict the gateway is. Left out: `dev`.
    pub profile: Profile,
    /// Tenant of requests that name none, under profile dev only. Left out or empty: such requests are refused
    /// (401).
    #[serde(with = "units::optional_text")]
    pub default_tenant: Option<TenantId>,
    /// Directory of the log. Left out: `data`. Created if missing; one gateway at a time.
    #[serde(with = "units::text")]
    pub data_dir: PathBuf,
    /// AgentOS peers file (JSON). Left out or empty: none, peers are those of `[[peers]]`.
    #[serde(with = "units::optional_text")]
    pub peers_file: Option<PathBuf>,
    /// AgentOS forward index file, imported at start and kept up to date. Left out or empty:
    /// [`DEFAULT_FORWARD_INDEX`] is imported if it exists, and no snapshot is kept.
    #[serde(with = "units::optional_text")]
    pub forward_index_file: Option<PathBuf>,
}

/// How strict the gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Identity headers are believed, so only loopback may connect. `demo` means the same.
    Dev,
    /// Every caller proves who it is, and what is unsafe stops the start.
    Prod,
}

/// `[events]`: how event streams are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsOptions {
    /// Silence after which a stream sends a comment. Left out: 15 s.
    #[serde(with = "units::text")]
    pub heartbeat: Duration,
    /// Reconnect delay told to clients, ±50 % per connection. Left out: 2 s.
    #[serde(with = "units::text")]
    pub retry: Duration,
    /// How long a hole in a followed run is held when its home cannot be reached. Left out: 30 s.
    #[serde(with = "units::text")]
    pub gap_hold: Duration,
    /// How long a hole in a pushed run is held. Left out: 5 s.
    #[serde(with = "units::text")]
    pub gap_hold_pushed: Duration,
}

/// `[forward]`: how a run-create is sent to its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardOptions {
    /// Attempts for a waiting caller, the first included; 1 to 20. Left out: 3.
    pub max_attempts: u32,
    /// Ceiling of the first wait between attempts; it doubles, with full jitter. Left out: 250 ms.
    #[serde(with = "units::text")]
    pub base_backoff: Duration,
    /// Largest ceiling of a wait between a caller's attempts. Left out: 10 s.
    #[serde(with = "units::text")]
    pub max_backoff: Duration,
    /// How long a waiting caller waits in all. Left out: 15 s.
    #[serde(with = "units::text")]
    pub deadline: Duration,
    /// How long `respond-async` forwards are tried. Left out: 24 h.
    #[serde(with = "units::text")]
    pub background_deadline: Duration,
    /// Largest ceiling of a wait between attempts nobody waits for. Left out: 5 min.
    #[serde(with = "units::text")]
    pub reconcile_backoff: Duration,
    /// How long a caller's idempotency key is remembered. Left out: 24 h.
    #[serde(with = "units::text")]
    pub idempotency_retention: Duration,
    /// Creates in flight at one peer. Left out: 64.
    pub in_flight_per_peer: usize,
    /// Creates waiting for one peer; more is 503 at once. Zero: none waits. Left out: 64.
    pub waiting_per_peer: usize,
    /// How long a settled forward is kept; at least `idempotency_retention`. Left out: 7 days.
    #[serde(with = "units::text")]
    pub kept: Duration,
}

/// `[reader]`: how the events of a forwarded run are read from its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReaderOptions {
    /// Runs read at once from one peer; more wait in line, watched ones first. Left out: 256.
    pub streams_per_peer: usize,
    /// Quick tries of the first connection, before `backoff` begins; 1 to 20. Left out: 3.
    pub connect_attempts: u32,
    /// Ceiling of the first wait between connections; it doubles, with full jitter. Left out: 1 s.
    #[serde(with = "units::text")]
    pub backoff: Duration,
    /// Largest ceiling of a wait between connections. Left out: 30 s.
    #[serde(with = "units::text")]
    pub max_backoff: Duration,
    /// Silence after which a connection counts as dead; three heartbeats. Left out: 45 s.
    #[serde(with = "units::text")]
    pub idle_timeout: Duration,
    /// Age of a hole at which the run is read again from below it. Left out: 1 s.
    #[serde(with = "units::text")]
    pub heal_after: Duration,
    /// Events past a hole after which re-reading proves it cannot be filled. Left out: 256.
    pub heal_span: u64,
    /// First wait between questions for a run's status when its stream brings nothing. Left out: 1 s.
    #[serde(with = "units::text")]
    pub status_interval: Duration,
    /// Largest wait between such questions. Left out: 15 s.
    #[serde(with = "units::text")]
    pub max_status_interval: Duration,
    /// Largest event a peer may send, in bytes; a larger one is set aside. Left out: 1 MiB.
    #[serde(with = "units::size")]
    pub max_event: usize,
}

/// `[retention]`: how long events are kept. Whole finished runs go first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionOptions {
    /// Age at which events go. Left out: 30 days.
    #[serde(with = "units::text")]
    pub events: Duration,
    /// Events kept of one tenant; the oldest beyond go. Zero or left out: no limit.
    pub max_events_per_tenant: u64,
    /// Time between sweeps. Left out: 60 s.
    #[serde(with = "units::text")]
    pub sweep_interval: Duration,
}

impl GatewayOptions {
    /// The forward index to import at start, if it exists.
    pub fn forward_index_to_import(&self) -> &Path {
        self.forward_index_file.as_deref().unwrap_or(Path::new(DEFAULT_FORWARD_INDEX))
    }
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            stack_id: PeerId::parse("stk_local").expect("a valid id"),
            environment: "dev".to_owned(),
            region: "local".to_owned(),
            profile: Profile::Dev,
            default_tenant: None,
            data_dir: PathBuf::from("data"),
            peers_file: None,
            forward_index_file: None,
        }
    }
}

impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Profile::Dev => serializer.serialize_str("dev"),
            Profile::Prod => serializer.serialize_str("prod"),
        }
    }
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            "dev" | "demo" => Ok(Profile::Dev),
            "prod" => Ok(Profile::Prod),
            _ => Err(D::Error::custom(format!("{} is not a profile: write dev or prod", quoted(&name)))),
        }
    }
}

impl Default for EventsOptions {
    fn default() -> Self {
        Self { heartbeat: 15 * SECOND, retry: 2 * SECOND, gap_hold: 30 * SECOND, gap_hold_pushed: 5 * SECOND }
    }
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            base_backoff: Duration::from_millis(250),
            max_backoff: 10 * SECOND,
            deadline: 15 * SECOND,
            background_deadline: DAY,
            reconcile_backoff: 300 * SECOND,
            idempotency_retention: DAY,
            in_flight_per_peer: 64,
            waiting_per_peer: 64,
            kept: 7 * DAY,
        }
    }
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            streams_per_peer: 256,
            connect_attempts: 3,
            backoff: SECOND,
            max_backoff: 30 * SECOND,
            idle_timeout: 45 * SECOND,
            heal_after: SECOND,
            heal_span: 256,
            status_interval: SECOND,
            max_status_interval: 15 * SECOND,
            max_event: 1024 * 1024,
        }
    }
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self { events: 30 * DAY, max_events_per_tenant: 0, sweep_interval: 60 * SECOND }
    }
}
