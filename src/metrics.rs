//! What is counted, in Prometheus text. Names are those the seeds ask for where they ask for one.
//!
//! Labels come from configured names and fixed words only: nobody outside can make a new time series.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// One request kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// HTTP method, or `other`.
    pub method: &'static str,
    /// The route's pattern, never the path.
    pub route: String,
    /// HTTP status.
    pub code: u16,
}

/// A fixed word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The word.
    pub reason: &'static str,
}

/// An outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// The word.
    pub outcome: &'static str,
}

/// A configured peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabel {
    /// Its configured id.
    pub peer: String,
}

/// A configured peer and a fixed word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerOutcome {
    /// Its configured id.
    pub peer: String,
    /// The word.
    pub outcome: &'static str,
}

/// Alerts of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AlertLabels {
    /// What is the matter, a fixed word.
    pub code: &'static str,
    /// How urgent it is, a fixed word.
    pub severity: &'static str,
}

type Seconds = Family<RouteLabel, Histogram, fn() -> Histogram>;

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// The route's pattern.
    pub route: String,
}

macro_rules! metrics {
    ($($field:ident: $kind:ty = $make:expr, $name:literal, $help:literal;)*) => {
        /// Every metric of one gateway.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::default();
                $(let $field: $kind = $make; registry.register($name, $help, $field.clone());)*
                Metrics { registry, $($field,)* }
            }
        }
    };
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

metrics! {
    http_requests: Family<RequestLabels, Counter> = Family::default(),
        "http_requests", "Requests answered";
    http_request_duration: Seconds = Family::new_with_constructor(latency),
        "http_request_duration_seconds", "Time to the head of the answer";
    connections_open: Gauge = Gauge::default(), "http_connections_open", "Open client connections";
    connections_refused: Counter = Counter::default(),
        "http_connections_refused", "Connections closed at once because the cap was reached";
    forwards: Family<Outcome, Counter> = Family::default(),
        "federation_forwards", "Forwards that came to rest, by outcome";
    forward_failures: Family<Reason, Counter> = Family::default(),
        "federation_forward_failures", "Forwards whose caller heard an error, by error code";
    forward_attempts: Family<PeerOutcome, Counter> = Family::default(),
        "federation_forward_attempts", "Attempts to create a run at a peer, by what they proved";
    forward_duration: Histogram = latency(),
        "federation_forward_duration_seconds", "Time from a forward's intent to its settlement";
    forwards_unsettled: Gauge = Gauge::default(),
        "federation_forwards_unsettled", "Forwards at work in this process";
    events_stored: Counter = Counter::default(), "events_stored", "Events appended to the log";
    events_duplicate: Counter = Counter::default(),
        "events_duplicate", "Events that were in the log already";
    events_conflict: Counter = Counter::default(),
        "events_conflict", "Events that contradict the log and were set aside";
    events_late: Counter = Counter::default(),
        "events_late", "Events stored under a gap that followers had been told of";
    events_rejected: Family<Reason, Counter> = Family::default(),
        "events_rejected", "Events not taken, by reason";
    upstream_invalid: Family<PeerLabel, Counter> = Family::default(),
        "upstream_invalid", "Frames of a peer that are no events of the run";
    upstream_connects: Family<PeerOutcome, Counter> = Family::default(),
        "upstream_connects", "Event streams opened at a peer, by outcome";
    readers: Gauge = Gauge::default(), "upstream_readers", "Runs being read from their homes";
    readers_waiting: Gauge = Gauge::default(),
        "upstream_readers_waiting", "Runs waiting for a place among a peer's streams";
    streams_open: Gauge = Gauge::default(), "sse_streams_open", "Open event streams of subscribers";
    gaps_announced: Family<Reason, Counter> = Family::default(),
        "gaps_announced", "Gap frames sent to subscribers, by reason";
    backpressure: Family<Reason, Counter> = Family::default(),
        "backpressure_events", "Times a bound was reached, by bound";
    refusals: Family<Reason, Counter> = Family::default(),
        "requests_refused", "Callers and requests refused by the trust boundary, by reason";
    tls_failures: Family<Reason, Counter> = Family::default(),
        "tls_handshakes_failed", "TLS handshakes that failed, by reason";
    certificate_expires: Gauge = Gauge::default(),
        "certificate_expires_seconds", "When the certificate shown to clients ends, Unix time; 0 for none";
    circuit_state: Family<PeerLabel, Gauge> = Family::default(),
        "circuit_state", "A peer's breaker: 0 closed, 1 half open, 2 open";
    peer_state: Family<PeerLabel, Gauge> = Family::default(),
        "peer_connection_state", "A peer's health: 0 unknown, 1 healthy, 2 degraded, 3 failing, 4 open";
    peer_latency: Family<PeerLabel, Gauge<f64, AtomicU64>> = Family::default(),
        "peer_latency_seconds", "How long a peer's last answered health call took";
    events_given_up: Family<PeerLabel, Counter> = Family::default(),
        "events_given_up", "Sequences that a peer passed over for good";
    config_drift: Family<PeerLabel, Gauge> = Family::default(),
        "config_drift", "1 while a peer of this domain has another policy";
    alerts: Family<AlertLabels, Gauge> = Family::default(),
        "alerts", "Alerts that held at the last look, by code and severity";
    alert_webhooks: Family<Outcome, Counter> = Family::default(),
        "alert_webhooks", "Attempts to tell a webhook of an alert, by outcome; dropped: its queue was full";
    retained_removed: Counter = Counter::default(),
        "retention_streams_removed", "Streams whose events retention removed";
    log_commits: Counter = Counter::default(),
        "log_commits", "Commits of the event log, each one fsync for all that waited";
    database_bytes: Gauge = Gauge::default(), "db_file_bytes", "Size of the database file";
    log_bytes: Gauge = Gauge::default(), "log_bytes", "Size of the write-ahead log";
    draining: Gauge = Gauge::default(), "draining", "1 while the gateway drains";
}

impl Metrics {
    /// The whole page, in the OpenMetrics text format.
    pub fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail; an encoder that fails has written what it could.
        let _ = prometheus_client::encoding::text::encode(&mut page, &self.registry);
        page
    }
}
