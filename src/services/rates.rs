//! How often peers, tenants, principals and unknown addresses may ask: one bucket (GCRA) per key.
//!
//! Keys are bounded per kind: when a table is full and nothing in it has rested, newcomers share one bucket.
//! Check the narrow key before the wide one (principal, then tenant), so that one caller's excess is not
//! counted against its neighbours.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::{Quota, RateLimiter};

use super::rate_cells::Cells;
use crate::domain::id::{PeerId, PrincipalId, TenantId};
use crate::domain::rate::Rate;

/// The shortest time between two searches of a full table for rested keys.
const SEARCH_GAP: Duration = Duration::from_secs(1);

/// The limits, by kind of key. Left out: none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimits {
    /// Per enrolled peer.
    pub peer: Option<Rate>,
    /// Per tenant.
    pub tenant: Option<Rate>,
    /// Per principal of a tenant.
    pub principal: Option<Rate>,
    /// Failed logins per address prefix (IPv4 /24, IPv6 /56).
    pub preauth: Option<Rate>,
    /// Keys kept of each kind; more share one bucket.
    pub keys: NonZeroUsize,
}

impl Default for RateLimits {
    fn default() -> Self {
        let keys = NonZeroUsize::MIN.saturating_add(9_999);
        Self { peer: None, tenant: None, principal: None, preauth: None, keys }
    }
}

/// Whose requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateKind {
    /// A peer.
    Peer,
    /// A tenant.
    Tenant,
    /// A principal of a tenant.
    Principal,
    /// An address prefix whose callers are not known yet.
    Preauth,
}

impl RateKind {
    /// Every kind.
    pub const ALL: [RateKind; 4] = [RateKind::Peer, RateKind::Tenant, RateKind::Principal, RateKind::Preauth];

    /// The kind's name, in headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RateKind::Peer => "peer",
            RateKind::Tenant => "tenant",
            RateKind::Principal => "principal",
            RateKind::Preauth => "preauth",
        }
    }
}

/// One counted caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// An enrolled peer.
    Peer(PeerId),
    /// A tenant.
    Tenant(TenantId),
    /// A principal; principals of two tenants are two, whatever they are called.
    Principal(TenantId, PrincipalId),
    /// The first 24 bits of an IPv4 address.
    V4([u8; 3]),
    /// The first 56 bits of an IPv6 address.
    V6([u8; 7]),
}

impl RateKey {
    /// The prefix that is counted for an address before its caller is known.
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                RateKey::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, ..] = address.octets();
                RateKey::V6([a, b, c, d, e, f, g])
            }
        }
    }

    /// Which limit counts this caller.
    pub fn kind(&self) -> RateKind {
        match self {
            RateKey::Peer(_) => RateKind::Peer,
            RateKey::Tenant(_) => RateKind::Tenant,
            RateKey::Principal(..) => RateKind::Principal,
            RateKey::V4(_) | RateKey::V6(_) => RateKind::Preauth,
        }
    }
}

/// Where a caller stands under one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Which limit.
    pub kind: RateKind,
    /// Requests that may come at once, after a rest.
    pub quota: u32,
    /// The time after which a spent quota is free again.
    pub window: Duration,
    /// Requests that may still come now.
    pub remaining: u32,
    /// Until the whole quota is free again or, when nothing remains after a refusal, one request.
    pub resets_in: Duration,
}

/// A request too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {} requests in {} s for this {}: wait {} s",
    .allowance.quota,
    seconds(.allowance.window),
    .allowance.kind.as_str(),
    seconds(*.retry_after)
)]
pub struct Exceeded {
    /// The limit that was reached; nothing remains.
    pub allowance: Allowance,
    /// When the next request may come.
    pub retry_after: Duration,
}

impl Exceeded {
    /// `Retry-After` in whole seconds, never earlier than [`Exceeded::retry_after`].
    pub fn retry_after_seconds(&self) -> u64 {
        seconds(self.retry_after)
    }
}

/// Header fields `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11) for the limits a
/// request was counted under; none when there were none.
pub fn headers<'a>(
    allowances: impl IntoIterator<Item = &'a Allowance>,
) -> Option<[(&'static str, String); 2]> {
    let (mut policies, mut limits) = (Vec::new(), Vec::new());
    for Allowance { kind, quota, window, remaining, resets_in } in allowances {
        let name = kind.as_str();
        policies.push(format!("\"{name}\";q={quota};w={}", seconds(*window).max(1)));
        limits.push(format!("\"{name}\";r={remaining};t={}", seconds(*resets_in)));
    }
    let some = !policies.is_empty();
    some.then(|| [("ratelimit-policy", policies.join(", ")), ("ratelimit", limits.join(", "))])
}

/// A duration in whole seconds, rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The time since some start, from whoever keeps it.
#[derive(Clone)]
struct Monotonic(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Monotonic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Monotonic({:?})", self.now())
    }
}

/// The limiters, one for each kind that has a limit.
#[derive(Debug)]
pub struct Rates {
    tables: Vec<Table>,
}

impl Rates {
    /// Starts counting; `monotonic` tells the time since some start and never goes back.
    pub fn new(limits: &RateLimits, monotonic: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let clock = Monotonic(Arc::new(monotonic));
        let by_kind = [
            (RateKind::Peer, limits.peer),
            (RateKind::Tenant, limits.tenant),
            (RateKind::Principal, limits.principal),
            (RateKind::Preauth, limits.preauth),
        ];
        let table = |(kind, rate): (RateKind, Option<Rate>)| {
            rate.map(|rate| Table::new(kind, rate, limits.keys.get(), clock.clone()))
        };
        Rates { tables: by_kind.into_iter().filter_map(table).collect() }
    }

    /// Starts counting peers that share one rate, and nobody else.
    pub fn of_peers(rate: Rate, monotonic: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let options = RateLimits {
            peer: Some(rate),
            tenant: None,
            principal: None,
            preauth: None,
            ..RateLimits::default()
        };
        Self::new(&options, monotonic)
    }

    /// Counts one request of `key`, if it may come. None when its kind has no limit.
    pub fn check(&self, key: &RateKey) -> Result<Option<Allowance>, Exceeded> {
        self.table(key.kind()).map(|table| table.check(key)).transpose()
    }

    /// Whether one request of `key` may come, without counting it. With [`Rates::check`] on failures only, this
    /// refuses who has failed too often and costs nobody else anything.
    pub fn peek(&self, key: &RateKey) -> Result<(), Exceeded> {
        self.table(key.kind()).map_or(Ok(()), |table| table.peek(key))
    }

    /// Forgets the keys whose buckets are full again; call it once a minute.
    pub fn sweep(&self) {
        for table in &self.tables {
            table.limiter.retain_recent();
            table.limiter.shrink_to_fit();
        }
    }

    /// Keys kept of one kind.
    pub fn keys(&self, kind: RateKind) -> usize {
        self.table(kind).map_or(0, |table| table.limiter.len())
    }

    /// Requests of one kind that were counted in the shared bucket because the table was full.
    pub fn overflowed(&self, kind: RateKind) -> u64 {
        self.table(kind).map_or(0, |table| table.overflowed.load(Ordering::Relaxed))
    }

    fn table(&self, kind: RateKind) -> Option<&Table> {
        self.tables.iter().find(|table| table.kind == kind)
    }
}

type Limiter = RateLimiter<RateKey, Cells<RateKey>, Monotonic, StateInformationMiddleware>;

/// The limiter of one kind.
#[derive(Debug)]
struct Table {
    kind: RateKind,
    rate: Rate,
    keys: usize,
    start: Duration,
    cells: Cells<RateKey>,
    limiter: Limiter,
    overflowed: Arc<AtomicU64>,
    next_search_ms: AtomicU64,
}

impl Table {
    fn new(kind: RateKind, rate: Rate, keys: usize, clock: Monotonic) -> Self {
        let overflowed = Arc::new(AtomicU64::new(0));
        let quota = Quota::with_period(rate.interval())
            .map_or_else(|| Quota::per_second(rate.burst()), |quota| quota.allow_burst(rate.burst()));
        let cells = Cells::new(keys, Arc::clone(&overflowed));
        let start = clock.now();
        let limiter = Limiter::new(quota, cells.clone(), clock);
        Table { kind, rate, keys, start, cells, limiter, overflowed, next_search_ms: AtomicU64::new(0) }
    }

    fn check(&self, key: &RateKey) -> Result<Allowance, Exceeded> {
        self.make_room();
        match self.limiter.check_key(key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let spent = self.rate.burst().get().saturating_sub(remaining);
                Ok(self.allowance(remaining, self.rate.interval() * spent))
            }
            Err(until) => Err(self.exceeded(until.wait_time_from(self.limiter.clock().now()))),
        }
    }

    fn peek(&self, key: &RateKey) -> Result<(), Exceeded> {
        self.make_room();
        let Some(full_at) = self.cells.peek(key) else { return Ok(()) };
        let tolerance = self.rate.interval() * (self.rate.burst().get() - 1);
        let free_at = self.start + Duration::from(full_at).saturating_sub(tolerance);
        match free_at.saturating_sub(self.limiter.clock().now()) {
            Duration::ZERO => Ok(()),
            wait => Err(self.exceeded(wait)),
        }
    }

    fn exceeded(&self, retry_after: Duration) -> Exceeded {
        Exceeded { allowance: self.allowance(0, retry_after), retry_after }
    }

    fn allowance(&self, remaining: u32, resets_in: Duration) -> Allowance {
        Allowance {
            kind: self.kind,
            quota: self.rate.burst().get(),
            window: self.rate.window(),
            remaining,
            resets_in,
        }
    }

    /// Forgets rested keys when the table is full, at most once in [`SEARCH_GAP`].
    fn make_room(&self) {
        if self.limiter.len() < self.keys {
            return;
        }
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = self.limiter.clock().now();
        let due = self.next_search_ms.load(Ordering::Relaxed);
        let next = millis(now + SEARCH_GAP);
        let mine = millis(now) >= due
            && self.next_search_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            self.limiter.retain_recent();
        }
    }
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
