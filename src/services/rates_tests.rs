//! Rates over time that a test moves.

use std::sync::atomic::AtomicU64;

use super::*;

/// Time that moves only when told.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).expect("short"), Ordering::SeqCst);
    }
}

/// Limits written as they are configured, one to a line.
fn limits(text: &str) -> RateLimits {
    let table: toml::Table = text.parse().expect("limits");
    let text = |name: &str| table.get(name).and_then(toml::Value::as_str).filter(|text| !text.is_empty());
    let rate = |name: &str| text(name).map(|text| Rate::parse(text).expect("a rate"));
    let keys =
        table.get("keys").and_then(toml::Value::as_integer).and_then(|keys| usize::try_from(keys).ok());
    RateLimits {
        peer: rate("peer"),
        tenant: rate("tenant"),
        principal: rate("principal"),
        preauth: rate("preauth"),
        keys: keys.and_then(NonZeroUsize::new).unwrap_or(RateLimits::default().keys),
    }
}

fn rates(text: &str) -> (Rates, Time) {
    let time = Time::default();
    let told = time.clone();
    let rates = Rates::new(&limits(text), move || Duration::from_nanos(told.0.load(Ordering::SeqCst)));
    (rates, time)
}

fn tenant(name: &str) -> RateKey {
    RateKey::Tenant(TenantId::parse(name).expect("an id"))
}

fn principal(tenant: &str, name: &str) -> RateKey {
    RateKey::Principal(TenantId::parse(tenant).expect("an id"), PrincipalId::parse(name).expect("an id"))
}

fn peer(name: &str) -> RateKey {
    RateKey::Peer(PeerId::parse(name).expect("an id"))
}

fn address(text: &str) -> RateKey {
    RateKey::address(text.parse().expect("an address"))
}

/// How many of `n` requests may come now.
fn passed(rates: &Rates, key: &RateKey, n: u32) -> u32 {
    (0..n).map(|_| u32::from(rates.check(key).is_ok())).sum()
}

#[test]
fn exactly_the_burst_passes_and_then_exactly_the_rate() {
    // Z-42
    let (rates, time) = rates("tenant = '10/s burst 25'");
    let key = tenant("t");
    assert_eq!(passed(&rates, &key, 200), 25);
    time.advance(Duration::from_millis(99));
    assert_eq!(passed(&rates, &key, 5), 0);
    time.advance(Duration::from_millis(1));
    assert_eq!(passed(&rates, &key, 5), 1);
    for _ in 0..50 {
        time.advance(Duration::from_millis(300));
        assert_eq!(passed(&rates, &key, 7), 3);
    }
    time.advance(Duration::from_secs(3600));
    assert_eq!(passed(&rates, &key, 200), 25, "a rest fills the bucket once, not more");
}

#[test]
fn keys_and_kinds_are_independent() {
    // a flood by one peer, tenant or principal leaves the others alone
    let (rates, _) = rates("peer = '2/s'\ntenant = '3/s'\nprincipal = '4/s'\npreauth = '5/s'");
    for (key, burst) in [
        (peer("a"), 2),
        (peer("b"), 2),
        (tenant("a"), 3),
        (tenant("b"), 3),
        (principal("a", "alice"), 4),
        (principal("b", "alice"), 4),
        (address("192.0.2.1"), 5),
        (address("2001:db8::1"), 5),
    ] {
        assert_eq!(passed(&rates, &key, 50), burst, "{key:?}");
    }
}

#[test]
fn addresses_are_counted_by_prefix() {
    assert_eq!(address("192.0.2.1"), address("192.0.2.254"));
    assert_eq!(address("192.0.2.1"), address("::ffff:192.0.2.9"), "a mapped address is the IPv4 address");
    assert_ne!(address("192.0.2.1"), address("192.0.3.1"));
    assert_eq!(address("2001:db8:0:ff::1"), address("2001:db8:0:1::2"));
    assert_ne!(address("2001:db8:0:1ff::1"), address("2001:db8:0:ff::1"));
}

#[test]
fn a_peek_counts_nothing_and_agrees_with_the_check() {
    let (rates, time) = rates("preauth = '1/s burst 3'\ntenant = ''\nkeys = 2");
    time.advance(Duration::from_secs(5));
    let key = address("192.0.2.1");
    for step in 0..60 {
        let peeked = [rates.peek(&key), rates.peek(&key)];
        let checked = rates.check(&key).map(|_| ());
        assert_eq!(peeked, [checked.clone(), checked], "{step}");
        time.advance(Duration::from_millis(130));
    }
    assert_eq!(rates.keys(RateKind::Preauth), 1);
    assert_eq!(rates.peek(&tenant("t")), Ok(()));
    for newcomer in ["10.0.1.1", "10.0.2.1", "10.0.3.1", "10.0.4.1"] {
        assert!(rates.peek(&address(newcomer)).is_ok() && rates.check(&address(newcomer)).is_ok());
    }
    assert!(rates.peek(&address("10.0.5.1")).is_err(), "newcomers share what is left");
}

#[test]
fn a_kind_without_a_limit_is_not_counted() {
    let (rates, _) = rates("tenant = ''");
    for _ in 0..10_000 {
        assert_eq!(rates.check(&tenant("t")), Ok(None));
    }
    assert_eq!(rates.keys(RateKind::Tenant), 0);
}

#[test]
fn keys_are_bounded_and_newcomers_share_what_is_left() {
    let (rates, _) = rates("preauth = '10/s'");
    let passed = (0..100_000_u32)
        .filter(|n| rates.check(&RateKey::address(IpAddr::from((n << 8).to_be_bytes()))).is_ok())
        .count();
    assert_eq!(rates.keys(RateKind::Preauth), 10_000);
    assert_eq!(passed, 10_000 + 10, "90 000 newcomers share one bucket");
    assert_eq!(rates.overflowed(RateKind::Preauth), 90_000);
    let known = RateKey::address(IpAddr::from([0, 0, 1, 7]));
    assert!(rates.check(&known).is_ok(), "a caller that was there first is not pushed out");
}

#[test]
fn a_full_table_makes_room_when_its_keys_have_rested() {
    let (rates, time) = rates("tenant = '1/s'\nkeys = 3");
    for name in ["a", "b", "c", "d"] {
        assert!(rates.check(&tenant(name)).is_ok());
    }
    assert!(rates.check(&tenant("e")).is_err(), "d took the shared bucket");
    time.advance(Duration::from_secs(2));
    assert!(rates.check(&tenant("e")).is_ok() && rates.check(&tenant("f")).is_ok());
    assert_eq!((rates.keys(RateKind::Tenant), rates.overflowed(RateKind::Tenant)), (2, 2));
}

#[test]
fn making_room_never_forgives_what_was_spent() {
    let (rates, time) = rates("tenant = '1/m burst 5'\nkeys = 2");
    assert_eq!(passed(&rates, &tenant("a"), 9), 5);
    assert_eq!(passed(&rates, &tenant("b"), 1), 1);
    for _ in 0..120 {
        time.advance(Duration::from_millis(400));
        let _ = rates.check(&tenant("c"));
    }
    assert_eq!(passed(&rates, &tenant("a"), 9), 0, "48 s are not yet a minute");
}

#[test]
fn a_sweep_forgets_rested_keys_only() {
    let (rates, time) = rates("tenant = '1/s burst 100'");
    assert_eq!(passed(&rates, &tenant("busy"), 200), 100);
    for n in 0..1000 {
        assert!(rates.check(&tenant(&format!("t{n}"))).is_ok());
    }
    rates.sweep();
    assert_eq!(rates.keys(RateKind::Tenant), 1001);
    time.advance(Duration::from_secs(60));
    rates.sweep();
    assert_eq!(rates.keys(RateKind::Tenant), 1);
    assert_eq!(passed(&rates, &tenant("busy"), 200), 60, "a sweep forgives nothing");
}

#[test]
fn headers_tell_the_policy_and_what_is_left() {
    let (rates, time) = rates("tenant = '100/s'\nprincipal = '1/m burst 2'");
    for _ in 0..57 {
        assert!(rates.check(&tenant("t")).is_ok());
    }
    let wide = rates.check(&tenant("t")).expect("allowed").expect("limited");
    let [policy, limit] = headers([&wide]).expect("headers");
    assert_eq!(policy, ("ratelimit-policy", "\"tenant\";q=100;w=1".to_owned()));
    assert_eq!(limit, ("ratelimit", "\"tenant\";r=42;t=1".to_owned()));

    let narrow = rates.check(&principal("t", "p")).expect("allowed").expect("limited");
    let [policy, limit] = headers([&narrow, &wide]).expect("headers");
    assert_eq!(policy.1, "\"principal\";q=2;w=120, \"tenant\";q=100;w=1");
    assert_eq!(limit.1, "\"principal\";r=1;t=60, \"tenant\";r=42;t=1");

    assert!(rates.check(&principal("t", "p")).is_ok());
    time.advance(Duration::from_millis(500));
    let exceeded = rates.check(&principal("t", "p")).expect_err("too many");
    assert_eq!(exceeded.retry_after, Duration::from_millis(59_500));
    assert_eq!(exceeded.retry_after_seconds(), 60);
    let [_, limit] = headers([&exceeded.allowance]).expect("headers");
    assert_eq!(limit.1, "\"principal\";r=0;t=60", "Retry-After is not before the end of the window");
    assert_eq!(exceeded.to_string(), "more than 2 requests in 120 s for this principal: wait 60 s");
    time.advance(exceeded.retry_after);
    assert!(rates.check(&principal("t", "p")).is_ok(), "who waits as told is let in");
    assert_eq!(headers([]), None);
}

#[test]
fn threads_together_pass_no_more_than_the_burst() {
    let (rates, _) = rates("tenant = '1/h burst 100'");
    let key = tenant("t");
    let total: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| passed(&rates, &key, 100))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a count")).sum()
    });
    assert_eq!(total, 100);
}
