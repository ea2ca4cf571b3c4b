//! Every error code on the wire, and what each one means to a client.

macro_rules! codes {
    ($($code:ident = $name:literal, $status:literal, $title:literal;)*) => {
        /// What went wrong, in one word that never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $title] $code,)*
        }

        impl ErrorCode {
            /// Every code, for whoever must know them all.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$code,)*];

            /// The wire name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$code => $name,)*
                }
            }

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self {
                    $(ErrorCode::$code => $status,)*
                }
            }

            /// A few words for people; the detail is with each error.
            pub fn title(self) -> &'static str {
                match self {
                    $(ErrorCode::$code => $title,)*
                }
            }
        }
    };
}

codes! {
    InvalidJson = "invalid_json", 400, "Body is not JSON";
    InvalidRequest = "invalid_request", 400, "Request is not valid";
    InvalidCursor = "invalid_cursor", 400, "Cursor is not valid";
    TenantMismatch = "tenant_mismatch", 400, "Tenant does not match";
    DigestMismatch = "digest_mismatch", 400, "Body does not have its digest";
    Unauthorized = "unauthorized", 401, "Caller is not known";
    TicketInvalid = "ticket_invalid", 401, "Stream ticket is not valid";
    UnknownKey = "unknown_key", 401, "Key of no enrolled peer";
    SignatureMissing = "signature_missing", 401, "Request is not signed";
    SignatureMalformed = "signature_malformed", 401, "Signature cannot be read";
    SignatureCoverage = "signature_coverage", 401, "Signature does not cover enough";
    SignatureAlgorithm = "signature_algorithm", 401, "Signature algorithm is not accepted";
    SignatureExpired = "signature_expired", 401, "Signature is not of now";
    SignatureInvalid = "signature_invalid", 401, "Signature is wrong";
    SignatureReplayed = "signature_replayed", 401, "Signature was used before";
    WrongDestination = "wrong_destination", 401, "Request is meant for another gateway";
    Forbidden = "forbidden", 403, "Not allowed";
    InsufficientScope = "insufficient_scope", 403, "Credential lacks a scope";
    PolicyDenied = "policy_denied", 403, "Policy does not grant this";
    FederationBoundary = "federation_boundary", 403, "Domains are not connected";
    PeerNotAllowed = "peer_not_allowed", 403, "Peer may not take part";
    PeerIdentityMismatch = "peer_identity_mismatch", 403, "Peer is another than it says";
    NotFound = "not_found", 404, "Not found";
    PeerNotFound = "peer_not_found", 404, "Peer not found";
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed";
    NotAcceptable = "not_acceptable", 406, "No such representation";
    RequestTimeout = "request_timeout", 408, "Body took too long";
    Conflict = "conflict", 409, "Conflict";
    PeerIdConflict = "peer_id_conflict", 409, "Peer id belongs to another key or process";
    RequestInProgress = "request_in_progress", 409, "Request still in progress";
    CursorAhead = "cursor_ahead", 409, "Cursor lies beyond the end";
    CursorIncarnation = "cursor_incarnation", 409, "Cursor of another log";
    InvalidStateTransition = "invalid_state_transition", 409, "Not in this state";
    RunLost = "run_lost", 410, "Run is lost";
    CursorExpired = "cursor_expired", 410, "Cursor lies before what is kept";
    PayloadTooLarge = "payload_too_large", 413, "Body is too large";
    UriTooLong = "uri_too_long", 414, "URI is too long";
    UnsupportedMediaType = "unsupported_media_type", 415, "Media type not supported";
    CapabilityUnsupported = "capability_unsupported", 422, "Peer lacks a capability";
    IdempotencyKeyReused = "idempotency_key_reused", 422, "Idempotency key was used for another request";
    UnprocessableRequest = "unprocessable_request", 422, "Request was not accepted";
    HeadersTooLarge = "headers_too_large", 431, "Headers are too large";
    RateLimited = "rate_limited", 429, "Too many requests";
    QuotaExceeded = "quota_exceeded", 429, "Quota is used up";
    TooManyStreams = "too_many_streams", 429, "Too many open streams";
    InternalError = "internal_error", 500, "Internal error";
    PeerAddressDenied = "peer_address_denied", 502, "Peer's address is not allowed";
    ForwardFailed = "forward_failed", 502, "Forward failed";
    EventsProxyFailed = "events_proxy_failed", 502, "Peer could not be reached";
    UpstreamInvalidResponse = "upstream_invalid_response", 502, "Peer gave an unreadable answer";
    Unavailable = "unavailable", 503, "Not available";
    Busy = "busy", 503, "Too much work waits";
    CircuitOpen = "circuit_open", 503, "Peer is resting after failures";
    Draining = "draining", 503, "Gateway is shutting down";
    Timeout = "timeout", 504, "Timed out";
    ForwardOutcomeUnknown = "forward_outcome_unknown", 504, "Outcome of the forward is not known";
    InsufficientStorage = "insufficient_storage", 507, "Disk is full";
    LoopDetected = "loop_detected", 508, "Gateways forward to each other in a circle";
}

impl ErrorCode {
    /// True when the same request may succeed later, unchanged.
    pub fn is_retryable(self) -> bool {
        match self {
            ErrorCode::RequestInProgress
            | ErrorCode::RequestTimeout
            | ErrorCode::RateLimited
            | ErrorCode::QuotaExceeded
            | ErrorCode::TooManyStreams
            | ErrorCode::InternalError
            | ErrorCode::EventsProxyFailed
            | ErrorCode::Unavailable
            | ErrorCode::Busy
            | ErrorCode::CircuitOpen
            | ErrorCode::Draining
            | ErrorCode::Timeout
            | ErrorCode::ForwardOutcomeUnknown
            | ErrorCode::InsufficientStorage => true,
            ErrorCode::InvalidJson
            | ErrorCode::InvalidRequest
            | ErrorCode::InvalidCursor
            | ErrorCode::TenantMismatch
            | ErrorCode::DigestMismatch
            | ErrorCode::Unauthorized
            | ErrorCode::TicketInvalid
            | ErrorCode::UnknownKey
            | ErrorCode::SignatureMissing
            | ErrorCode::SignatureMalformed
            | ErrorCode::SignatureCoverage
            | ErrorCode::SignatureAlgorithm
            | ErrorCode::SignatureExpired
            | ErrorCode::SignatureInvalid
            | ErrorCode::SignatureReplayed
            | ErrorCode::WrongDestination
            | ErrorCode::Forbidden
            | ErrorCode::InsufficientScope
            | ErrorCode::PolicyDenied
            | ErrorCode::FederationBoundary
            | ErrorCode::PeerNotAllowed
            | ErrorCode::PeerIdentityMismatch
            | ErrorCode::PeerIdConflict
            | ErrorCode::PeerAddressDenied
            | ErrorCode::NotFound
            | ErrorCode::PeerNotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::NotAcceptable
            | ErrorCode::Conflict
            | ErrorCode::CursorAhead
            | ErrorCode::CursorIncarnation
            | ErrorCode::InvalidStateTransition
            | ErrorCode::RunLost
            | ErrorCode::CursorExpired
            | ErrorCode::PayloadTooLarge
            | ErrorCode::UriTooLong
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::CapabilityUnsupported
            | ErrorCode::IdempotencyKeyReused
            | ErrorCode::UnprocessableRequest
            | ErrorCode::HeadersTooLarge
            | ErrorCode::ForwardFailed
            | ErrorCode::UpstreamInvalidResponse
            | ErrorCode::LoopDetected => false,
        }
    }

    /// True when the request may have changed something all the same.
    pub fn may_have_had_effects(self) -> bool {
        matches!(
            self,
            ErrorCode::ForwardOutcomeUnknown
                | ErrorCode::RequestInProgress
                | ErrorCode::InternalError
                | ErrorCode::Timeout
        )
    }
}
