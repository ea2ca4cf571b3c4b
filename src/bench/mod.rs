//! `causeway bench`: what a gateway costs, measured from outside, over its public API.
//!
//! Nothing is measured that is not verified: every event that a gateway acknowledged must come out once, in order,
//! with the bytes that were sent, and every forward must have made one run; else there is no result. The
//! generator's own cost stands beside the server's on the same machine, so it is kept low: requests written by
//! hand, answers read for what counts (`wire`, `frames`).
//!
//! Latency under a rate counts from the moment a request was due, not from when it could be sent: a server that
//! stalls delays the requests that wait behind it, and they say so.

mod audience;
mod course;
mod events;
mod fanout;
mod forward;
mod frames;
mod idle;
mod ingest;
mod origin;
mod pace;
mod process;
mod proxy;
mod replay;
mod report;
mod server;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::course::Progress;
pub use self::events::Ids;
pub use self::fanout::FanoutPlan;
pub use self::forward::ForwardPlan;
pub use self::idle::IdlePlan;
pub use self::ingest::IngestPlan;
pub use self::proxy::ProxyPlan;
pub use self::replay::ReplayPlan;
pub use self::report::{Better, Metric, Report};
pub use self::server::Target;

use self::course::Course;
use self::origin::{Origin, Script};
use self::server::{Bounds, Server};

/// Tries of one request.
const TRIES: u32 = 100;
/// Wait before a request is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// What is to be measured is not there, or cannot be set up.
    #[error("{0}")]
    Setup(String),
    /// The gateway cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The gateway did not do what it promises.
    #[error("{0}")]
    Broken(String),
}

/// What is asked of every workload.
#[derive(Debug, Clone)]
pub struct Common {
    /// The tenant of everything that is sent.
    pub tenant: String,
    /// Operations to measure; none: as many as fit into `duration`.
    pub count: Option<u64>,
    /// Longest time to measure.
    pub duration: Duration,
    /// Time before measuring begins, when no count is given.
    pub warmup: Duration,
    /// Requests per second, whatever becomes of them; none: as fast as answers come.
    pub rate: Option<f64>,
    /// How event ids lie.
    pub ids: Ids,
    /// Bytes of filling in each event.
    pub payload: usize,
}

/// One workload, with what it takes.
#[derive(Debug, Clone)]
pub enum Workload {
    /// Writers push events.
    Ingest(IngestPlan),
    /// Subscribers follow a run live.
    Fanout(FanoutPlan),
    /// Readers read a run from its beginning.
    Replay(ReplayPlan),
    /// Events go from an origin through the gateway to subscribers.
    Proxy(ProxyPlan),
    /// Runs are created at a peer.
    Forward(ForwardPlan),
    /// Subscribers wait.
    Idle(IdlePlan),
}

/// Runs a workload against what is to be measured.
///
/// # Errors
///
/// The gateway cannot be started or reached, or does not keep what it promises.
pub async fn run(
    workload: &Workload,
    common: &Common,
    target: &Target,
    progress: Progress,
) -> Result<Report, BenchError> {
    let course = Course::new(common);
    let origin = match (workload.script(common, &course), target) {
        (None, _) => None,
        (Some(script), Target::Spawn { .. }) => Some(origin(None, script, common, &course).await?),
        (Some(script), Target::Running { origin: Some(at), .. }) => {
            Some(origin(Some(*at), script, common, &course).await?)
        }
        // Runs are executed wherever that peer does.
        (Some(_), Target::Running { .. }) => None,
    };
    let at = origin.as_ref().map(|origin| origin.address);
    let server = Server::open(target, common, at, workload.bounds()).await?;
    match workload {
        Workload::Ingest(plan) => ingest::run(plan, common, &server, progress).await,
        Workload::Fanout(plan) => fanout::run(plan, common, &server, progress).await,
        Workload::Replay(plan) => replay::run(plan, common, &server, progress).await,
        Workload::Idle(plan) => idle::run(plan, common, &server, progress).await,
        Workload::Forward(plan) => {
            forward::run(plan, common, (&server, origin.as_ref()), &course, progress).await
        }
        Workload::Proxy(plan) => match &origin {
            Some(origin) => proxy::run(plan, common, (&server, origin), &course, progress).await,
            None => {
                let told = "the events must come from here: name the address of --to with --origin";
                Err(BenchError::Setup(told.to_owned()))
            }
        },
    }
}

async fn origin(
    listen: Option<SocketAddr>,
    script: Script,
    common: &Common,
    course: &Course,
) -> Result<Arc<Origin>, BenchError> {
    Ok(Arc::new(Origin::start(listen, ingest::mould(common), script, &course.tasks).await?))
}

impl From<String> for BenchError {
    fn from(reason: String) -> Self {
        BenchError::Broken(reason)
    }
}

impl Workload {
    /// How its runs go, when it needs some.
    fn script(&self, common: &Common, course: &Course) -> Option<Script> {
        let over = course.over.clone();
        match self {
            // They end by themselves, and when the time is over.
            Workload::Proxy(_) => {
                Some(Script { events: common.count.unwrap_or(u64::MAX), rate: common.rate, over })
            }
            Workload::Forward(plan) => {
                Some(Script { events: plan.events, rate: None, over: Default::default() })
            }
            _ => None,
        }
    }

    /// What it needs of a gateway.
    fn bounds(&self) -> Bounds {
        let connections = match self {
            Workload::Ingest(plan) => plan.writers,
            Workload::Fanout(plan) => plan.subscribers,
            Workload::Replay(plan) => plan.readers,
            Workload::Proxy(plan) => plan.streams,
            Workload::Forward(plan) => plan.in_flight,
            Workload::Idle(plan) => plan.subscribers,
        };
        let forwards = if let Workload::Forward(plan) = self { plan.in_flight } else { 0 };
        Bounds { connections, forwards }
    }

    /// Its name on the command line and in results.
    pub fn name(&self) -> &'static str {
        match self {
            Workload::Ingest(_) => "ingest",
            Workload::Fanout(_) => "fanout",
            Workload::Replay(_) => "replay",
            Workload::Proxy(_) => "proxy",
            Workload::Forward(_) => "forward",
            Workload::Idle(_) => "idle",
        }
    }
}
