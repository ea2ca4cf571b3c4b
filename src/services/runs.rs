//! Runs as this gateway knows them: find, list, ask the home, cancel.

use std::sync::Arc;

use super::admission::{Action, Admission, Direction, Object};
use super::identity::Caller;
use super::list_cursor;
use super::peer::Peer;
use super::peers::Peers;
use super::pull::Pull;
use super::read::call_context;
use crate::domain::event::RunKey;
use crate::domain::id::{PeerId, RunId};
use crate::domain::limits;
use crate::domain::policy::{Denial, Rule};
use crate::domain::run::{FollowState, RunStatus};
use crate::domain::stream::StreamState;
use crate::outbound::{Answer, CallContext, CallFailure};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::problem::{PeerError, Problem};
use crate::protocol::run::{self, HomeRun};
use crate::store::Store;

pub use crate::store::RunRecord;

/// A run, its stream, and how its events come here.
#[derive(Debug, Clone)]
pub struct RunView {
    /// The run.
    pub record: RunRecord,
    /// Its stream.
    pub state: StreamState,
    /// How its events come here.
    pub follow: FollowState,
}

/// A page of runs.
#[derive(Debug)]
pub struct RunPage {
    /// Newest first.
    pub runs: Vec<RunView>,
    /// Where the next page starts, if there may be one.
    pub next_cursor: Option<String>,
}

/// Looks runs up.
#[derive(Clone)]
pub struct Runs {
    store: Store,
    admission: Admission,
    peers: Peers,
    pull: Pull,
}

impl Runs {
    /// Over the runs of `store`.
    pub fn new(store: Store, admission: Admission, peers: Peers, pull: Pull) -> Self {
        Runs { store, admission, peers, pull }
    }

    /// The run, if the caller may see it; anything else is not there.
    pub async fn find(&self, caller: &Caller, run_id: &str) -> Result<RunRecord, Problem> {
        let not_found = || Problem::new(ErrorCode::NotFound, "there is no such run").with("field", "run_id");
        let run = RunId::parse(run_id).map_err(|_| not_found())?;
        let key = RunKey { tenant: caller.tenant.clone(), run };
        let found = self.store.find_run(&key).await?;
        found.filter(|run| self.may_see(caller, run)).ok_or_else(not_found)
    }

    /// True when the run is the caller's to see; a peer sees none that runs where it is not granted.
    fn may_see(&self, caller: &Caller, run: &RunRecord) -> bool {
        let Some(peer) = caller.peer.as_ref().filter(|_| caller.may_see(run.principal.as_ref())) else {
            return caller.may_see(run.principal.as_ref());
        };
        let region = match &run.home {
            Some(home) => self.peers.find(home).map_or(String::new(), |home| home.enrolment.region.clone()),
            None => self.peers.maker().region.clone(),
        };
        // What the peer made itself was judged by the region it asked for.
        let is_judged = !region.is_empty() || !caller.is_peer_that_made(run.principal.as_ref());
        let object = Object { region: is_judged.then_some(&*region), ..Object::default() };
        self.admission.judge(Direction::In, Action::ReadRuns, peer, object).is_ok()
    }

    /// The run with its stream.
    pub async fn view(&self, record: RunRecord) -> Result<RunView, Problem> {
        let state = self.store.stream_state(record.stream_no).await?;
        let follow = self.pull.follow_state(&record);
        Ok(RunView { record, state, follow })
    }

    /// A page of a tenant's runs. A peer lists them only where it may see them all.
    pub async fn list(
        &self,
        caller: &Caller,
        status: Option<RunStatus>,
        (cursor, limit): (Option<&str>, u32),
        correlation_id: &str,
    ) -> Result<RunPage, Problem> {
        if !caller.may_see(None) {
            let reason = "a peer without the grant `subscribe` looks at its own runs, one by one".to_owned();
            let denial = Denial { rule: Rule::OperationNotGranted, reason };
            let audited = (caller.subject(), caller.tenant.as_str());
            return Err(self.admission.refuse(denial, audited, Action::ReadRuns, correlation_id));
        }
        let after = cursor.map(|cursor| list_cursor::open(&self.store, cursor, read_place)).transpose()?;
        let mut records = self.store.list_runs(&caller.tenant, status, after, limit + 1).await?;
        let more = records.len() > limit as usize;
        records.truncate(limit as usize);
        let place = |last: &RunRecord| format!("{} {}", last.created_at_ms, last.key.run);
        let next_cursor =
            records.last().filter(|_| more).map(|last| list_cursor::make(&self.store, &place(last)));
        let mut runs = Vec::with_capacity(records.len());
        for record in records.into_iter().filter(|run| self.may_see(caller, run)) {
            runs.push(self.view(record).await?);
        }
        Ok(RunPage { runs, next_cursor })
    }

    /// How many event streams are open at a peer.
    pub fn streams_of(&self, peer: &PeerId) -> usize {
        self.pull.streams_of(peer)
    }

    /// What the home says of the run now; `None` when it cannot be asked.
    pub async fn ask_home(&self, record: &RunRecord) -> Option<HomeRun> {
        let peer = self.peers.find(record.home.as_ref()?).filter(|peer| peer.takes_part())?;
        let context = call_context(record);
        let answer = peer.client.get_run(context, record.remote_run_id.as_str()).await.ok()?;
        run::parse_answer(&answer.body).filter(|_| answer.is_success())
    }

    /// Asks the home to cancel the run, and answers with what the home made of it.
    pub async fn cancel(
        &self,
        caller: &Caller,
        record: &RunRecord,
        correlation_id: &str,
    ) -> Result<HomeRun, Problem> {
        if record.status.is_finished() {
            let message = format!("the run is {} already", record.status.as_str());
            return Err(Problem::new(ErrorCode::InvalidStateTransition, message)
                .with("status", record.status.as_str()));
        }
        if record.status == RunStatus::Lost {
            let reason = record.lost_reason.clone().unwrap_or_else(|| "the run is lost".to_owned());
            return Err(Problem::new(ErrorCode::RunLost, reason));
        }
        let peer = self.home(record)?;
        let agent = record.agent.as_ref().map(|agent| agent.as_str());
        self.admission.may_send(Some(caller.tenant.as_str()), Action::CancelRun, &peer, agent).map_err(
            |denial| {
                let audited = (caller.subject(), caller.tenant.as_str());
                self.admission.refuse(denial, audited, Action::CancelRun, correlation_id)
            },
        )?;
        let context = CallContext {
            principal: Some(&caller.principal),
            correlation_id: Some(correlation_id),
            ..call_context(record)
        };
        let called = peer.client.cancel_run(context, record.remote_run_id.as_str()).await;
        cancel_answer(&peer, called)
    }

    fn home(&self, record: &RunRecord) -> Result<Arc<Peer>, Problem> {
        let Some(home) = &record.home else {
            return Err(Problem::new(
                ErrorCode::CapabilityUnsupported,
                "the events of this run are pushed here: there is no orchestrator to ask",
            ));
        };
        self.peers.find(home).ok_or_else(|| {
            Problem::new(
                ErrorCode::Unavailable,
                format!("the home of the run, peer `{home}`, is not configured"),
            )
        })
    }
}

/// When a run was made, and its id.
fn read_place(place: &str) -> Option<(i64, String)> {
    let (created_at, run) = place.split_once(' ')?;
    Some((created_at.parse().ok()?, run.to_owned()))
}

fn cancel_answer(peer: &Peer, called: Result<Answer, CallFailure>) -> Result<HomeRun, Problem> {
    let answer = called.map_err(|failure| match failure {
        CallFailure::Denied(reason) => Problem::new(ErrorCode::PeerAddressDenied, reason)
            .with("outcome", "not_started")
            .with("peer", peer.id().as_str()),
        CallFailure::NeverLeft(reason) => Problem::new(ErrorCode::EventsProxyFailed, reason)
            .with("outcome", "not_started")
            .with("peer", peer.id().as_str()),
        CallFailure::Interrupted(reason) => Problem::new(ErrorCode::Timeout, reason)
            .with("outcome", "unknown")
            .with("peer", peer.id().as_str()),
    })?;
    if answer.is_success() {
        return run::parse_answer(&answer.body).ok_or_else(|| {
            Problem::new(ErrorCode::UpstreamInvalidResponse, "the peer's answer to the cancel is no run")
                .with("peer", peer.id().as_str())
        });
    }
    let error = PeerError::parse(&answer.body);
    let said = error.message.unwrap_or_else(|| format!("the peer answered {}", answer.status));
    let code = match answer.status {
        403 => ErrorCode::Forbidden,
        404 | 410 => ErrorCode::NotFound,
        405 | 501 => ErrorCode::CapabilityUnsupported,
        409 => ErrorCode::InvalidStateTransition,
        429 => ErrorCode::RateLimited,
        503 => ErrorCode::Unavailable,
        _ => ErrorCode::UpstreamInvalidResponse,
    };
    let problem = Problem::new(code, limits::clean_reason(&said))
        .with("upstream_status", answer.status)
        .with("peer", peer.id().as_str());
    Err(match answer.retry_after {
        Some(wait) => problem.retry_after(wait),
        None => problem,
    })
}
