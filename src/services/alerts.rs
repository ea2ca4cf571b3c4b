//! Alerts at work: what the gateway keeps anyway is observed, judged by `domain::alert`, and what begins or ends
//! is logged, counted and posted.
//!
//! Invariant: whoever asks hears what holds at that moment; only the look made on time says that something began
//! or ended, once each. Nothing waits for a webhook.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::alert_options::AlertsOptions;
use super::audit_log::AuditLog;
use super::links::{Link, Links};
use super::own_keys::OwnKeys;
use super::quota_gate::QuotaGate;
use super::sweep::Sweep;
use super::webhook::{Message, Queues, Webhooks};
use crate::clock::{millis, rfc3339};
use crate::domain::alert::{Alert, AlertCode, LogTrouble, Observations, PeerSeen, Severity, judge};
use crate::entropy::Entropy;
use crate::metrics::AlertLabels;
use crate::store::{ForwardTrouble, StoreError};
use crate::tasks::Tasks;

pub use super::webhook::{WebhookError, WebhookGround};

/// How long a forward that was given up is told of.
const GIVEN_UP_MS: i64 = 60 * 60 * 1000;

/// Where conditions are observed.
pub struct Watched {
    /// The log, its sizes, and the metrics.
    pub sweep: Sweep,
    /// The peers.
    pub links: Links,
    /// Keys and certificates.
    pub own_keys: OwnKeys,
    /// The audit and its copy.
    pub audit: AuditLog,
    /// Whom a quota refused.
    pub quotas: QuotaGate,
    /// Whether new work is held off.
    pub tasks: Tasks,
}

/// The alerts, cheap to clone.
#[derive(Clone)]
pub struct Alerts {
    shared: Arc<Shared>,
}

struct Shared {
    watched: Watched,
    options: AlertsOptions,
    webhooks: Webhooks,
    entropy: Entropy,
    /// This gateway, and this process of it, as messages name them.
    origin: (String, String),
    /// What held at the last look that was on time.
    book: Mutex<BTreeMap<String, Held>>,
}

/// An alert, and since when it holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The alert as it was judged last.
    pub alert: Alert,
    /// Milliseconds since the Unix epoch.
    pub since_ms: i64,
}

/// What happened to an alert.
#[derive(Clone, Copy)]
enum Turn {
    Begin,
    Change,
    End,
}

impl Alerts {
    /// Over what is watched; no look is made yet.
    pub fn new(
        watched: Watched,
        options: AlertsOptions,
        ground: &WebhookGround,
        (gateway, instance): (&str, &str),
    ) -> Result<Self, WebhookError> {
        let webhooks = Webhooks::new(&options, ground)?;
        let (entropy, book) = (ground.entropy.clone(), Mutex::default());
        let origin = (gateway.to_owned(), instance.to_owned());
        Ok(Alerts { shared: Arc::new(Shared { watched, options, webhooks, entropy, origin, book }) })
    }

    /// Looks now and then until the gateway stops, and tells of what begins and ends.
    pub fn start(&self, tasks: &Tasks) {
        let (this, stopping) = (self.clone(), tasks.stopping().clone());
        let queues = self.shared.webhooks.start(tasks);
        tasks.spawn(async move {
            let looking = async {
                loop {
                    match this.shared.observe().await {
                        Ok(seen) => this.shared.turn(&seen, &queues),
                        Err(error) => tracing::warn!(error = %error, "alerts were not judged; they are soon"),
                    }
                    tokio::time::sleep(this.shared.options.interval).await;
                }
            };
            tokio::select! {
                biased;
                () = looking => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    /// What holds now, ordered by id, and when that was, in milliseconds since the Unix epoch.
    pub async fn now(&self) -> Result<(Vec<Held>, i64), StoreError> {
        let seen = self.shared.observe().await?;
        let judged = judge(&seen, &self.shared.options.bounds());
        let book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        let held = judged.into_iter().map(|alert| hold(alert, &book, seen.now_ms));
        Ok((held.collect(), seen.now_ms))
    }
}

/// An alert that is known keeps its beginning.
fn hold(alert: Alert, book: &BTreeMap<String, Held>, now_ms: i64) -> Held {
    let known = book.get(&alert.id()).map(|held| held.since_ms);
    let since_ms = known.or(alert.since_ms).unwrap_or(now_ms);
    Held { alert, since_ms }
}

impl Shared {
    async fn observe(&self) -> Result<Observations, StoreError> {
        let Watched { sweep, links, own_keys, audit, quotas, tasks } = &self.watched;
        let now_ms = sweep.clock.now_ms();
        let stuck_before_ms = now_ms - millis(self.options.forward_patience);
        let troubles = sweep.store.forward_troubles(stuck_before_ms, now_ms - GIVEN_UP_MS).await?;
        let mut stuck = by_peer(troubles.0);
        let mut expired = by_peer(troubles.1);
        let log = match sweep.store.check_writable().await {
            Ok(()) => None,
            Err(StoreError::Full) => Some(LogTrouble::Full),
            Err(error) => Some(LogTrouble::Failed(error.to_string())),
        };
        sweep.measure();
        let certificates = own_keys.certificates();
        let shown_to_clients = certificates.iter().find(|(name, _)| *name == "clients");
        sweep.metrics.certificate_expires.set(shown_to_clients.map_or(0, |(_, ends_ms)| ends_ms / 1000));
        let links = links.all();
        let taking_part = links.iter().filter(|link| link.peer.takes_part());
        let peers = taking_part.map(|link| {
            let id = link.peer.id().as_str();
            seen(link, stuck.remove(id), expired.remove(id))
        });
        Ok(Observations {
            now_ms,
            peers: peers.collect(),
            certificates,
            next_key_due_ms: own_keys.keys().next.as_ref().map(|(_, due_ms)| *due_ms),
            log,
            damage: sweep.store.damage(),
            write_ahead_log: u64::try_from(sweep.metrics.log_bytes.get()).unwrap_or(0),
            audit_sink: audit.sink_failing(),
            quotas: quotas
                .refused()
                .into_iter()
                .map(|(tenant, quota, at_ms)| (tenant.to_string(), quota, at_ms))
                .collect(),
            intake_held: tasks.is_held(),
        })
    }

    /// Takes the place of what held before, and tells what is different.
    fn turn(&self, seen: &Observations, queues: &Queues) {
        let judged = judge(seen, &self.options.bounds());
        let mut turns = Vec::new();
        {
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            let mut before = std::mem::take(&mut *book);
            for alert in judged {
                let id = alert.id();
                let held = hold(alert, &before, seen.now_ms);
                match before.remove(&id) {
                    None => turns.push((Turn::Begin, held.clone())),
                    Some(known) if known.alert.severity != held.alert.severity => {
                        turns.push((Turn::Change, held.clone()));
                    }
                    Some(_) => {}
                }
                book.insert(id, held);
            }
            turns.extend(before.into_values().map(|held| (Turn::End, held)));
            self.show(&book);
        }
        for (turn, held) in turns {
            log(turn, &held);
            if !queues.is_empty() {
                queues.post(self.message(turn, &held, seen.now_ms));
            }
        }
    }

    /// Every series is there from the first look on: what is 0 can be told from what is not measured.
    fn show(&self, book: &BTreeMap<String, Held>) {
        let mut counts: HashMap<(AlertCode, Severity), i64> = HashMap::new();
        for held in book.values() {
            *counts.entry((held.alert.code, held.alert.severity)).or_default() += 1;
        }
        for code in AlertCode::ALL {
            for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
                let labels = AlertLabels { code: code.as_str(), severity: severity.as_str() };
                let count = counts.get(&(code, severity)).copied().unwrap_or(0);
                self.watched.sweep.metrics.alerts.get_or_create(&labels).set(count);
            }
        }
    }

    fn message(&self, turn: Turn, held: &Held, now_ms: i64) -> Message {
        let (gateway, instance) = &self.origin;
        let kind = match turn {
            Turn::Begin => "alert.begin",
            Turn::Change => "alert.change",
            Turn::End => "alert.end",
        };
        let mut data = shown(held);
        data["ended_at"] = if let Turn::End = turn { Value::from(rfc3339(now_ms)) } else { Value::Null };
        data["gateway"] = Value::from(gateway.as_str());
        data["instance_id"] = Value::from(instance.as_str());
        let body = json!({ "type": kind, "timestamp": rfc3339(now_ms), "data": data });
        Message { id: self.entropy.id("msg", now_ms), body: body.to_string().into_bytes() }
    }
}

/// An alert, as the API and messages show it.
pub fn shown(held: &Held) -> Value {
    let Held { alert, since_ms } = held;
    json!({
        "alert_id": alert.id(),
        "code": alert.code,
        "severity": alert.severity,
        "subject": alert.subject,
        "since": rfc3339(*since_ms),
        "message": alert.message,
    })
}

fn log(turn: Turn, held: &Held) {
    let Alert { code, severity, subject, message, .. } = &held.alert;
    let (code, severity) = (code.as_str(), severity.as_str());
    match turn {
        Turn::End => tracing::info!(alert.code = code, subject, severity, "an alert ended"),
        Turn::Begin | Turn::Change if severity == "critical" => {
            tracing::error!(alert.code = code, subject, severity, "an alert: {message}");
        }
        Turn::Begin | Turn::Change if severity == "info" => {
            tracing::info!(alert.code = code, subject, severity, "an alert: {message}");
        }
        Turn::Begin | Turn::Change => {
            tracing::warn!(alert.code = code, subject, severity, "an alert: {message}");
        }
    }
}

fn by_peer(troubles: Vec<ForwardTrouble>) -> HashMap<String, (u64, i64)> {
    troubles.into_iter().map(|trouble| (trouble.peer, (trouble.count, trouble.since_ms))).collect()
}

fn seen(link: &Link, stuck: Option<(u64, i64)>, expired: Option<(u64, i64)>) -> PeerSeen {
    let (peer, doing, readers) = (&link.peer, &link.doing, &link.readers);
    PeerSeen {
        id: peer.id().to_string(),
        is_local: peer.options.local,
        link: doing.link,
        link_since_ms: doing.since_ms,
        reason: doing.health.reason.clone(),
        conflict_at_ms: doing.conflict_at_ms,
        drifts: doing.drifts,
        certificate_ends_ms: doing.certificate_ends_ms,
        readers_failing: readers
            .failing_since_ms
            .map(|since_ms| (readers.failing, since_ms, readers.last_error.clone().unwrap_or_default())),
        given_up_at_ms: doing.given_up.at_ms,
        stuck,
        expired,
    }
}
