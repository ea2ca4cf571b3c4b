//! Alerts: the conditions that hold now and want somebody's attention, judged from what was observed.
//!
//! Pure: observations in, alerts out. A condition that is not observed is not reported, and each says what to do.

use std::fmt::Write as _;
use std::time::Duration;

use super::link::LinkState;

pub use super::alert_code::{AlertCode, Severity};

/// A certificate that ends within this share of the time before which it is told of is critical.
const LAST_PART: i64 = 7;
/// How long after the last refusal, conflict or loss a condition made of single events counts as holding.
pub const MEMORY: Duration = Duration::from_secs(600);

/// A condition that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What is the matter.
    pub code: AlertCode,
    /// How urgent it is.
    pub severity: Severity,
    /// With what: `peer:<id>`, `certificate:<name>`, `tenant:<id>` or `gateway`.
    pub subject: String,
    /// Since when, in milliseconds since the Unix epoch, where that was observed.
    pub since_ms: Option<i64>,
    /// What it means and what to do, in a sentence or two.
    pub message: String,
}

impl Alert {
    /// The same for as long as the condition holds, and whenever it comes back.
    pub fn id(&self) -> String {
        format!("{}/{}", self.code.as_str(), self.subject)
    }
}

/// When a condition is worth an alert.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long a peer must be in trouble first.
    pub patience: Duration,
    /// How long a forward may wait.
    pub forward_patience: Duration,
    /// How long before its end a certificate is told of.
    pub certificate_notice: Duration,
    /// Bytes of the write-ahead log.
    pub write_ahead_log: u64,
}

/// What was observed, all at one time.
#[derive(Debug, Clone, Default)]
pub struct Observations {
    /// When, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// The peers that take part.
    pub peers: Vec<PeerSeen>,
    /// The gateway's certificates: who sees them, and when they end.
    pub certificates: Vec<(&'static str, i64)>,
    /// When the announced key was to take over.
    pub next_key_due_ms: Option<i64>,
    /// Why the log cannot be written.
    pub log: Option<LogTrouble>,
    /// When a row of the log was last met that contradicts another or its checksum, and which.
    pub damage: Option<(i64, String)>,
    /// Bytes of the write-ahead log.
    pub write_ahead_log: u64,
    /// Why the audit's copy cannot be written, and since when.
    pub audit_sink: Option<(i64, String)>,
    /// Tenants that were refused by a quota: tenant, quota, and when last.
    pub quotas: Vec<(String, &'static str, i64)>,
    /// An operator holds new work off.
    pub intake_held: bool,
}

/// Why the log cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTrouble {
    /// The disk is full.
    Full,
    /// Something else.
    Failed(String),
}

/// One peer.
#[derive(Debug, Clone)]
pub struct PeerSeen {
    /// Its id.
    pub id: String,
    /// It executes the runs of this place.
    pub is_local: bool,
    /// How the way to it stands.
    pub link: LinkState,
    /// Since when.
    pub link_since_ms: i64,
    /// Why its health is not good.
    pub reason: Option<String>,
    /// When two processes last spoke as it.
    pub conflict_at_ms: Option<i64>,
    /// It is of this domain and has another policy.
    pub drifts: bool,
    /// The end of the certificate it showed.
    pub certificate_ends_ms: Option<i64>,
    /// Runs whose events cannot be read there: how many, since when, and why.
    pub readers_failing: Option<(usize, i64, String)>,
    /// When it last passed over events for good.
    pub given_up_at_ms: Option<i64>,
    /// Unfinished forwards to it that are older than they should be: how many, and since when the oldest.
    pub stuck: Option<(u64, i64)>,
    /// Forwards to it that were given up of late: how many, and when the first of them.
    pub expired: Option<(u64, i64)>,
}

/// Every alert that these observations amount to, ordered by its id.
pub fn judge(seen: &Observations, bounds: &Bounds) -> Vec<Alert> {
    let mut found = Found { seen, bounds, alerts: Vec::new() };
    for peer in &seen.peers {
        found.link(peer);
        found.peer(peer);
    }
    for (name, ends_ms) in &seen.certificates {
        found.certificate(
            format!("certificate:{name}"),
            *ends_ms,
            &format!("the certificate shown to {name}"),
        );
    }
    found.gateway();
    for (tenant, quota, at_ms) in &seen.quotas {
        if found.is_recent(*at_ms) {
            let message = format!(
                "requests of tenant {tenant} are refused: its quota {quota} is used up. Raise limits.{quota}, or \
                 let what is stored or running go"
            );
            found.add(
                AlertCode::QuotaExhausted,
                Severity::Warning,
                format!("tenant:{tenant}"),
                Some(*at_ms),
                message,
            );
        }
    }
    let mut alerts = found.alerts;
    alerts.sort_by_cached_key(Alert::id);
    alerts
}

struct Found<'a> {
    seen: &'a Observations,
    bounds: &'a Bounds,
    alerts: Vec<Alert>,
}

impl Found<'_> {
    fn add(
        &mut self,
        code: AlertCode,
        severity: Severity,
        subject: String,
        since_ms: Option<i64>,
        message: String,
    ) {
        self.alerts.push(Alert { code, severity, subject, since_ms, message });
    }

    fn age_ms(&self, since_ms: i64) -> i64 {
        self.seen.now_ms.saturating_sub(since_ms)
    }

    fn has_lasted(&self, since_ms: i64) -> bool {
        self.age_ms(since_ms) >= ms(self.bounds.patience)
    }

    fn is_recent(&self, at_ms: i64) -> bool {
        self.age_ms(at_ms) < ms(MEMORY)
    }

    /// The one word for the way to a peer, once it has held for long enough.
    fn link(&mut self, peer: &PeerSeen) {
        if !self.has_lasted(peer.link_since_ms) {
            return;
        }
        let id = &peer.id;
        let (code, what) = match peer.link {
            LinkState::Unreachable => (
                AlertCode::PeerUnreachable,
                format!("peer {id} does not answer. See that it runs and that its base_url leads there"),
            ),
            LinkState::Refused => (
                AlertCode::PeerRefused,
                format!(
                    "peer {id} answers, but the two do not know each other. Compare keys with `causeway key show`"
                ),
            ),
            LinkState::Degraded => (
                AlertCode::PeerDegraded,
                format!("peer {id} answers, but not as it should. `causeway peer verify {id}` asks it now"),
            ),
            LinkState::CircuitOpen => (
                AlertCode::CircuitOpen,
                format!(
                    "calls to peer {id} failed, so that it rests between probes. See its own log for why"
                ),
            ),
            LinkState::Unknown
            | LinkState::Connected
            | LinkState::Draining
            | LinkState::Revoked
            | LinkState::Introduced => return,
        };
        let is_cut = matches!(peer.link, LinkState::Unreachable | LinkState::CircuitOpen);
        let severity = if peer.is_local && is_cut { Severity::Critical } else { Severity::Warning };
        let mut message = what;
        if let Some(reason) = &peer.reason {
            let _ = write!(message, ": {reason}");
        }
        self.add(code, severity, subject_of(id), Some(peer.link_since_ms), message);
    }

    fn peer(&mut self, peer: &PeerSeen) {
        let (id, subject) = (&peer.id, subject_of(&peer.id));
        if peer.conflict_at_ms.is_some_and(|at_ms| self.is_recent(at_ms)) {
            let message = format!(
                "two processes speak as peer {id}: its directory was copied, or its key stolen. Stop the copy, or \
                 `causeway peer revoke {id}`"
            );
            self.add(
                AlertCode::PeerIdentityConflict,
                Severity::Critical,
                subject.clone(),
                peer.conflict_at_ms,
                message,
            );
        }
        if peer.drifts {
            let message = format!(
                "peer {id} is of this gateway's domain and has another policy. Make [policy] and [bridges] the same \
                 on both sides; `policy_digest` at /v1/federation/peer tells them apart"
            );
            self.add(AlertCode::ConfigDrift, Severity::Warning, subject.clone(), None, message);
        }
        if let Some(ends_ms) = peer.certificate_ends_ms {
            self.certificate(subject.clone(), ends_ms, &format!("the certificate of peer {id}"));
        }
        if let Some((count, since_ms, reason)) =
            peer.readers_failing.as_ref().filter(|failing| self.has_lasted(failing.1))
        {
            let message = format!(
                "runs whose events cannot be read at peer {id}: {count}. They are tried again until they can: {reason}"
            );
            self.add(AlertCode::ReadersFailing, Severity::Warning, subject.clone(), Some(*since_ms), message);
        }
        if peer.given_up_at_ms.is_some_and(|at_ms| self.is_recent(at_ms)) {
            let message = format!(
                "peer {id} passed over events for good: its runs have gaps. See `gaps` of its runs, and its retention"
            );
            self.add(
                AlertCode::EventsGivenUp,
                Severity::Warning,
                subject.clone(),
                peer.given_up_at_ms,
                message,
            );
        }
        if let Some((count, since_ms)) = peer.stuck {
            let message = format!(
                "forwards to peer {id} that wait for longer than alerts.forward_patience: {count}. `causeway \
                 deliveries --peer {id}` has their last errors"
            );
            self.add(AlertCode::ForwardsStuck, Severity::Warning, subject.clone(), Some(since_ms), message);
        }
        if let Some((count, since_ms)) = peer.expired {
            let message = format!(
                "forwards to peer {id} that were given up in the last hour with an unknown outcome: {count}. Each may \
                 have a run there that nobody follows; `causeway deliveries --peer {id} --state expired` lists them"
            );
            self.add(AlertCode::ForwardsGivenUp, Severity::Critical, subject, Some(since_ms), message);
        }
    }

    fn certificate(&mut self, subject: String, ends_ms: i64, what: &str) {
        let (left_ms, notice_ms) = (-self.age_ms(ends_ms), ms(self.bounds.certificate_notice));
        if left_ms > notice_ms {
            return;
        }
        let is_late = left_ms <= notice_ms / LAST_PART;
        let severity = if is_late { Severity::Critical } else { Severity::Warning };
        let when = match left_ms {
            ..=0 => "has ended: handshakes fail".to_owned(),
            _ => format!("ends in {}", humantime::format_duration(whole_hours(left_ms))),
        };
        let message = format!("{what} {when}. Renew its file; it is read again without a restart");
        self.add(AlertCode::CertificateExpires, severity, subject, ends_ms.checked_sub(notice_ms), message);
    }

    /// What concerns no one peer or tenant.
    fn gateway(&mut self) {
        let seen = self.seen;
        let damage = seen.damage.as_ref().filter(|(at_ms, _)| self.is_recent(*at_ms));
        let mut add = |code, severity, since_ms, message: String| {
            self.alerts.push(Alert { code, severity, subject: "gateway".to_owned(), since_ms, message });
        };
        if let Some(due_ms) = seen.next_key_due_ms.filter(|due_ms| seen.now_ms - due_ms >= 60_000) {
            let message = "the announced key did not take over in its time; peers will soon refuse the present one. \
                           The log says why: see that the keys directory can be written";
            add(AlertCode::RotationOverdue, Severity::Critical, Some(due_ms), message.to_owned());
        }
        match &seen.log {
            Some(LogTrouble::Full) => {
                let message = "the disk is full: writes are answered 507, reads go on. Make room; writing resumes by \
                               itself";
                add(AlertCode::DiskFull, Severity::Critical, None, message.to_owned());
            }
            Some(LogTrouble::Failed(reason)) => {
                let message = format!("the log cannot be written. See the disk: {reason}");
                add(AlertCode::LogNotWritable, Severity::Critical, None, message);
            }
            None => {}
        }
        if let Some((at_ms, what)) = damage {
            let message = format!(
                "the log contradicts itself: {what}. What belongs to that row is answered 500, all else goes on. Keep \
                 a copy of the data directory, and restore a backup"
            );
            add(AlertCode::LogDamaged, Severity::Critical, Some(*at_ms), message);
        }
        if seen.write_ahead_log > self.bounds.write_ahead_log {
            let message = format!(
                "the write-ahead log has {} bytes, more than alerts.max_write_ahead_log: a reader of the database \
                 file holds it up, a backup or a query from outside",
                seen.write_ahead_log
            );
            add(AlertCode::WriteAheadLogLarge, Severity::Warning, None, message);
        }
        if let Some((since_ms, reason)) = &seen.audit_sink {
            let message = format!(
                "the copy of the audit cannot be written; the database goes on and the copy catches up: {reason}"
            );
            add(AlertCode::AuditSinkFailing, Severity::Critical, Some(*since_ms), message);
        }
        if seen.intake_held {
            let message = "new work is held off by an operator: `causeway gateway resume` lets it in";
            add(AlertCode::IntakeHeld, Severity::Info, None, message.to_owned());
        }
    }
}

fn subject_of(peer: &str) -> String {
    format!("peer:{peer}")
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn whole_hours(ms: i64) -> Duration {
    const HOUR: u64 = 60 * 60;
    let seconds = u64::try_from(ms / 1000).unwrap_or(0);
    if seconds < HOUR { Duration::from_secs(seconds) } else { Duration::from_secs(seconds / HOUR * HOUR) }
}

#[cfg(test)]
#[path = "alert_tests.rs"]
mod tests;
