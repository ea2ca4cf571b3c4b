//! What must hold of a configuration beyond the form of each value: bounds, order, and what fits together.

use std::time::Duration;

use url::Url;

use super::draft::Draft;
use super::sections::Config;
use crate::domain::id::MAX_ID_BYTES;
use crate::domain::units::{TextForm, quoted, write_size};

/// Longer durations are mistakes, and arithmetic with them might overflow.
const LONGEST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);
/// Larger sizes are mistakes: a body is held in memory.
const LARGEST: usize = 1 << 30;
/// More bytes than this no log holds.
const MOST_STORED: usize = 1 << 50;
/// Words that say how much is logged.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Keeps every mistake of a configuration whose values could all be read.
pub(super) fn check(config: &Config, draft: &mut Draft) {
    check_durations(config, draft);
    check_counts(config, draft);
    check_sizes(config, draft);
    check_order(config, draft);
    check_addresses(config, draft);
    check_words(config, draft);
}

fn check_durations(config: &Config, draft: &mut Draft) {
    let Config {
        server, events, forward, outbound, reader, retention, peering, limits, audit, alerts, ..
    } = config;
    for (key, duration) in [
        ("server.handshake_timeout", server.handshake_timeout),
        ("server.header_timeout", server.header_timeout),
        ("server.body_timeout", server.body_timeout),
        ("server.write_stall", server.write_stall),
        ("events.heartbeat", events.heartbeat),
        ("events.retry", events.retry),
        ("forward.base_backoff", forward.base_backoff),
        ("forward.max_backoff", forward.max_backoff),
        ("forward.deadline", forward.deadline),
        ("forward.background_deadline", forward.background_deadline),
        ("forward.reconcile_backoff", forward.reconcile_backoff),
        ("forward.idempotency_retention", forward.idempotency_retention),
        ("forward.kept", forward.kept),
        ("outbound.connect_timeout", outbound.connect_timeout),
        ("outbound.answer_timeout", outbound.answer_timeout),
        ("outbound.body_timeout", outbound.body_timeout),
        ("outbound.health_interval", outbound.health_interval),
        ("reader.backoff", reader.backoff),
        ("reader.max_backoff", reader.max_backoff),
        ("reader.idle_timeout", reader.idle_timeout),
        ("reader.status_interval", reader.status_interval),
        ("reader.max_status_interval", reader.max_status_interval),
        ("retention.events", retention.events),
        ("retention.sweep_interval", retention.sweep_interval),
        ("peering.rotation_overlap", peering.rotation_overlap),
        ("limits.ticket_lifetime", limits.ticket_lifetime),
        ("audit.checkpoint_interval", audit.checkpoint_interval),
        ("alerts.interval", alerts.interval),
        ("alerts.forward_patience", alerts.forward_patience),
        ("alerts.certificate_notice", alerts.certificate_notice),
        ("alerts.webhook_backoff", alerts.webhook_backoff),
    ] {
        if let Some(message) = outside(duration, Duration::from_nanos(1)) {
            draft.refuse_checked(key, &message);
        }
    }
    for (key, duration) in [
        ("server.shutdown_timeout", server.shutdown_timeout),
        ("events.gap_hold", events.gap_hold),
        ("events.gap_hold_pushed", events.gap_hold_pushed),
        ("reader.heal_after", reader.heal_after),
        ("alerts.patience", alerts.patience),
    ] {
        if let Some(message) = outside(duration, Duration::ZERO) {
            draft.refuse_checked(key, &message);
        }
    }
}

/// What to say of a duration that is out of bounds.
pub(super) fn outside(duration: Duration, least: Duration) -> Option<String> {
    let bound = if least.is_zero() { "" } else { "must be longer than zero and " };
    let message =
        format!("{} is not allowed: it {bound}must be at most {}", duration.write(), LONGEST.write());
    (duration < least || duration > LONGEST).then_some(message)
}

fn check_counts(config: &Config, draft: &mut Draft) {
    let Config { server, forward, reader, introductions, audit, alerts, .. } = config;
    for (key, count, least, most) in [
        ("server.max_connections", server.max_connections as u64, 1, 1_000_000),
        ("server.max_connections_per_network", server.max_connections_per_network as u64, 1, 1_000_000),
        ("server.max_streams", server.max_streams as u64, 1, 1_000_000),
        ("server.max_streams_per_principal", server.max_streams_per_principal as u64, 1, 1_000_000),
        ("forward.max_attempts", forward.max_attempts.into(), 1, 20),
        ("forward.in_flight_per_peer", forward.in_flight_per_peer as u64, 1, 100_000),
        ("forward.waiting_per_peer", forward.waiting_per_peer as u64, 0, 100_000),
        ("reader.streams_per_peer", reader.streams_per_peer as u64, 1, 100_000),
        ("reader.connect_attempts", reader.connect_attempts.into(), 1, 20),
        ("reader.heal_span", reader.heal_span, 1, 1_000_000),
        ("introductions.max_pending", introductions.max_pending as u64, 1, 1000),
        ("audit.checkpoint_records", audit.checkpoint_records, 1, 1_000_000),
        ("alerts.webhook_attempts", alerts.webhook_attempts.into(), 1, 20),
    ] {
        if !(least..=most).contains(&count) {
            draft.refuse_checked(key, &format!("{count} is not allowed: it must be from {least} to {most}"));
        }
    }
}

fn check_sizes(config: &Config, draft: &mut Draft) {
    for (key, size) in [
        ("server.max_body", config.server.max_body),
        ("server.max_ingest_body", config.server.max_ingest_body),
        ("reader.max_event", config.reader.max_event),
    ] {
        if !(1..=LARGEST).contains(&size) {
            let (size, largest) = (write_size(size), write_size(LARGEST));
            draft.refuse_checked(key, &format!("{size} is not allowed: it must be from 1B to {largest}"));
        }
    }
    let stored = config.limits.stored_bytes;
    if stored > MOST_STORED {
        let (stored, most) = (write_size(stored), write_size(MOST_STORED));
        let message = format!("{stored} is not allowed: it must be at most {most}, or 0 for no limit");
        draft.refuse_checked("limits.stored_bytes", &message);
    }
}

/// Pairs where one must not be longer than the other.
fn check_order(config: &Config, draft: &mut Draft) {
    let Config { forward, reader, .. } = config;
    for ((lesser, less), (greater, more)) in [
        (("forward.base_backoff", forward.base_backoff), ("forward.max_backoff", forward.max_backoff)),
        (
            ("forward.base_backoff", forward.base_backoff),
            ("forward.reconcile_backoff", forward.reconcile_backoff),
        ),
        (
            ("forward.deadline", forward.deadline),
            ("forward.background_deadline", forward.background_deadline),
        ),
        (("forward.idempotency_retention", forward.idempotency_retention), ("forward.kept", forward.kept)),
        (("reader.backoff", reader.backoff), ("reader.max_backoff", reader.max_backoff)),
        (
            ("reader.status_interval", reader.status_interval),
            ("reader.max_status_interval", reader.max_status_interval),
        ),
    ] {
        if less > more && !draft.is_refused(lesser) && !draft.is_refused(greater) {
            // The one that somebody gave is the one to look at.
            let (key, other) = if draft.is_given(lesser) { (lesser, greater) } else { (greater, lesser) };
            let relation = if key == lesser { "longer" } else { "shorter" };
            let (own, its) = if key == lesser { (less, more) } else { (more, less) };
            let message =
                format!("{} is not allowed: it is {relation} than {other} ({})", own.write(), its.write());
            draft.refuse_checked(key, &message);
        }
    }
}

fn check_addresses(config: &Config, draft: &mut Draft) {
    let server = &config.server;
    let doors = [
        ("server.listen", Some(server.listen)),
        ("server.admin_listen", server.admin_listen),
        ("peering.listen", config.peering.listen),
    ];
    for (index, (key, address)) in doors.iter().enumerate() {
        let Some(address) = address.filter(|address| address.port() != 0) else { continue };
        if let Some((first, _)) = doors[..index].iter().find(|(_, other)| *other == Some(address)) {
            draft.refuse_checked(key, &format!("{address} is {first}: give another port, or leave it out"));
        }
    }
    for origin in &server.cors_origins {
        if !is_origin(origin) {
            let message = format!(
                "{} is not an origin: write scheme, host and port only, such as \"https://app.example.com\"",
                quoted(origin)
            );
            draft.refuse_checked("server.cors_origins", &message);
        }
    }
}

fn check_words(config: &Config, draft: &mut Draft) {
    for (key, label) in
        [("gateway.environment", &config.gateway.environment), ("gateway.region", &config.gateway.region)]
    {
        if !is_label(label) {
            draft.refuse_checked(key, &not_a_label(label));
        }
    }
    let level = &config.log.level;
    if !level.split(',').all(is_log_directive) {
        let message = format!(
            "{} is not a log level: write {}, alone or per module as in \"info,causeway=debug\"",
            quoted(level),
            LEVELS.join(", ")
        );
        draft.refuse_checked("log.level", &message);
    }
}

fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
    })
}

/// True for a text that may stand as a label.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= MAX_ID_BYTES && !text.chars().any(char::is_control)
}

/// What to say of one that may not.
pub(super) fn not_a_label(text: &str) -> String {
    format!("{} is not a label: at most {MAX_ID_BYTES} bytes, no control characters", quoted(text))
}

/// A level, or `module=level`. A lone word that is no level would silently be taken for a module.
fn is_log_directive(text: &str) -> bool {
    let level =
        text.split_once('=').map_or(text, |(module, level)| if module.is_empty() { "" } else { level });
    LEVELS.contains(&level.trim().to_ascii_lowercase().as_str())
}
