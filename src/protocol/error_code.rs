//! Every error code on the wire, and what each one means to a client.

/// What went wrong, in one word that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the wire names say it; `title` has the sentence")]
pub enum ErrorCode {
    InvalidJson,
    InvalidRequest,
    InvalidCursor,
    TenantMismatch,
    Unauthorized,
    Forbidden,
    NotFound,
    PeerNotFound,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    Conflict,
    RequestInProgress,
    CursorAhead,
    CursorIncarnation,
    InvalidStateTransition,
    RunLost,
    CursorExpired,
    PayloadTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    CapabilityUnsupported,
    IdempotencyKeyReused,
    UnprocessableRequest,
    HeadersTooLarge,
    RateLimited,
    TooManyStreams,
    InternalError,
    ForwardFailed,
    EventsProxyFailed,
    UpstreamInvalidResponse,
    Unavailable,
    Busy,
    CircuitOpen,
    Draining,
    Timeout,
    ForwardOutcomeUnknown,
    InsufficientStorage,
    LoopDetected,
}

impl ErrorCode {
    /// Every code, for the contract test.
    pub const ALL: [ErrorCode; 39] = {
        use ErrorCode::*;
        [
            InvalidJson,
            InvalidRequest,
            InvalidCursor,
            TenantMismatch,
            Unauthorized,
            Forbidden,
            NotFound,
            PeerNotFound,
            MethodNotAllowed,
            NotAcceptable,
            RequestTimeout,
            Conflict,
            RequestInProgress,
            CursorAhead,
            CursorIncarnation,
            InvalidStateTransition,
            RunLost,
            CursorExpired,
            PayloadTooLarge,
            UriTooLong,
            UnsupportedMediaType,
            CapabilityUnsupported,
            IdempotencyKeyReused,
            UnprocessableRequest,
            HeadersTooLarge,
            RateLimited,
            TooManyStreams,
            InternalError,
            ForwardFailed,
            EventsProxyFailed,
            UpstreamInvalidResponse,
            Unavailable,
            Busy,
            CircuitOpen,
            Draining,
            Timeout,
            ForwardOutcomeUnknown,
            InsufficientStorage,
            LoopDetected,
        ]
    };

    /// The wire name.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// A few words for people; the detail is with each error.
    pub fn title(self) -> &'static str {
        self.row().2
    }

    /// True when the same request may succeed later, unchanged.
    pub fn is_retryable(self) -> bool {
        match self {
            ErrorCode::RequestInProgress
            | ErrorCode::RequestTimeout
            | ErrorCode::RateLimited
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
            | ErrorCode::Unauthorized
            | ErrorCode::Forbidden
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

    fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            ErrorCode::InvalidJson => ("invalid_json", 400, "Body is not JSON"),
            ErrorCode::InvalidRequest => ("invalid_request", 400, "Request is not valid"),
            ErrorCode::InvalidCursor => ("invalid_cursor", 400, "Cursor is not valid"),
            ErrorCode::TenantMismatch => ("tenant_mismatch", 400, "Tenant does not match"),
            ErrorCode::Unauthorized => ("unauthorized", 401, "Caller is not known"),
            ErrorCode::Forbidden => ("forbidden", 403, "Not allowed"),
            ErrorCode::NotFound => ("not_found", 404, "Not found"),
            ErrorCode::PeerNotFound => ("peer_not_found", 404, "Peer not found"),
            ErrorCode::MethodNotAllowed => ("method_not_allowed", 405, "Method not allowed"),
            ErrorCode::NotAcceptable => ("not_acceptable", 406, "No such representation"),
            ErrorCode::RequestTimeout => ("request_timeout", 408, "Body took too long"),
            ErrorCode::Conflict => ("conflict", 409, "Conflict"),
            ErrorCode::RequestInProgress => ("request_in_progress", 409, "Request still in progress"),
            ErrorCode::CursorAhead => ("cursor_ahead", 409, "Cursor lies beyond the end"),
            ErrorCode::CursorIncarnation => ("cursor_incarnation", 409, "Cursor of another log"),
            ErrorCode::InvalidStateTransition => ("invalid_state_transition", 409, "Not in this state"),
            ErrorCode::RunLost => ("run_lost", 410, "Run is lost"),
            ErrorCode::CursorExpired => ("cursor_expired", 410, "Cursor lies before what is kept"),
            ErrorCode::PayloadTooLarge => ("payload_too_large", 413, "Body is too large"),
            ErrorCode::UriTooLong => ("uri_too_long", 414, "URI is too long"),
            ErrorCode::UnsupportedMediaType => ("unsupported_media_type", 415, "Media type not supported"),
            ErrorCode::CapabilityUnsupported => ("capability_unsupported", 422, "Peer lacks a capability"),
            ErrorCode::IdempotencyKeyReused => {
                ("idempotency_key_reused", 422, "Idempotency key was used for another request")
            }
            ErrorCode::UnprocessableRequest => ("unprocessable_request", 422, "Request was not accepted"),
            ErrorCode::HeadersTooLarge => ("headers_too_large", 431, "Headers are too large"),
            ErrorCode::RateLimited => ("rate_limited", 429, "Too many requests"),
            ErrorCode::TooManyStreams => ("too_many_streams", 429, "Too many open streams"),
            ErrorCode::InternalError => ("internal_error", 500, "Internal error"),
            ErrorCode::ForwardFailed => ("forward_failed", 502, "Forward failed"),
            ErrorCode::EventsProxyFailed => ("events_proxy_failed", 502, "Peer could not be reached"),
            ErrorCode::UpstreamInvalidResponse => {
                ("upstream_invalid_response", 502, "Peer gave an unreadable answer")
            }
            ErrorCode::Unavailable => ("unavailable", 503, "Not available"),
            ErrorCode::Busy => ("busy", 503, "Too much work waits"),
            ErrorCode::CircuitOpen => ("circuit_open", 503, "Peer is resting after failures"),
            ErrorCode::Draining => ("draining", 503, "Gateway is shutting down"),
            ErrorCode::Timeout => ("timeout", 504, "Timed out"),
            ErrorCode::ForwardOutcomeUnknown => {
                ("forward_outcome_unknown", 504, "Outcome of the forward is not known")
            }
            ErrorCode::InsufficientStorage => ("insufficient_storage", 507, "Disk is full"),
            ErrorCode::LoopDetected => ("loop_detected", 508, "Gateways forward to each other in a circle"),
        }
    }
}
