//! What an alert may be about, and how urgent it is: fixed words, for labels, filters and rules.

use serde::Serialize;

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Work is delayed, or will be.
    Warning,
    /// Work is lost or refused, or trust is broken.
    Critical,
}

impl Severity {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// What is the matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertCode {
    /// A peer does not answer.
    PeerUnreachable,
    /// A peer answers and does not let this gateway in, or does not prove who it is.
    PeerRefused,
    /// A peer answers, but not as it should.
    PeerDegraded,
    /// A peer's breaker is open.
    CircuitOpen,
    /// Two processes speak as one peer.
    PeerIdentityConflict,
    /// A peer of this domain has another policy.
    ConfigDrift,
    /// A certificate ends soon, or has ended.
    CertificateExpires,
    /// An announced key did not take over in its time.
    RotationOverdue,
    /// The disk is full.
    DiskFull,
    /// The log cannot be written.
    LogNotWritable,
    /// Rows of the log contradict each other.
    LogDamaged,
    /// The write-ahead log grows beyond its bound.
    WriteAheadLogLarge,
    /// Forwards wait for too long.
    ForwardsStuck,
    /// Forwards were given up.
    ForwardsGivenUp,
    /// The events of runs cannot be read at their home.
    ReadersFailing,
    /// A peer passed over events for good.
    EventsGivenUp,
    /// The audit's copy cannot be written.
    AuditSinkFailing,
    /// A tenant's quota is used up.
    QuotaExhausted,
    /// An operator holds new work off.
    IntakeHeld,
}

impl AlertCode {
    /// Every code, for whoever must know them all.
    pub const ALL: [AlertCode; 19] = [
        AlertCode::PeerUnreachable,
        AlertCode::PeerRefused,
        AlertCode::PeerDegraded,
        AlertCode::CircuitOpen,
        AlertCode::PeerIdentityConflict,
        AlertCode::ConfigDrift,
        AlertCode::CertificateExpires,
        AlertCode::RotationOverdue,
        AlertCode::DiskFull,
        AlertCode::LogNotWritable,
        AlertCode::LogDamaged,
        AlertCode::WriteAheadLogLarge,
        AlertCode::ForwardsStuck,
        AlertCode::ForwardsGivenUp,
        AlertCode::ReadersFailing,
        AlertCode::EventsGivenUp,
        AlertCode::AuditSinkFailing,
        AlertCode::QuotaExhausted,
        AlertCode::IntakeHeld,
    ];

    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertCode::PeerUnreachable => "peer_unreachable",
            AlertCode::PeerRefused => "peer_refused",
            AlertCode::PeerDegraded => "peer_degraded",
            AlertCode::CircuitOpen => "circuit_open",
            AlertCode::PeerIdentityConflict => "peer_identity_conflict",
            AlertCode::ConfigDrift => "config_drift",
            AlertCode::CertificateExpires => "certificate_expires",
            AlertCode::RotationOverdue => "rotation_overdue",
            AlertCode::DiskFull => "disk_full",
            AlertCode::LogNotWritable => "log_not_writable",
            AlertCode::LogDamaged => "log_damaged",
            AlertCode::WriteAheadLogLarge => "write_ahead_log_large",
            AlertCode::ForwardsStuck => "forwards_stuck",
            AlertCode::ForwardsGivenUp => "forwards_given_up",
            AlertCode::ReadersFailing => "readers_failing",
            AlertCode::EventsGivenUp => "events_given_up",
            AlertCode::AuditSinkFailing => "audit_sink_failing",
            AlertCode::QuotaExhausted => "quota_exhausted",
            AlertCode::IntakeHeld => "intake_held",
        }
    }
}
