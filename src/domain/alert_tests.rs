//! What observations amount to, and where each bound lies.

use super::*;

const NOW: i64 = 1_800_000_000_000;
const DAY: i64 = 24 * 60 * 60 * 1000;

fn bounds() -> Bounds {
    Bounds {
        patience: Duration::from_secs(60),
        forward_patience: Duration::from_secs(900),
        certificate_notice: Duration::from_secs(14 * 24 * 60 * 60),
        write_ahead_log: 1000,
    }
}

fn peer(link: LinkState, for_ms: i64) -> PeerSeen {
    PeerSeen {
        id: "stk_b".to_owned(),
        is_local: false,
        link,
        link_since_ms: NOW - for_ms,
        reason: None,
        conflict_at_ms: None,
        drifts: false,
        certificate_ends_ms: None,
        readers_failing: None,
        given_up_at_ms: None,
        stuck: None,
        expired: None,
    }
}

fn observed(peers: Vec<PeerSeen>) -> Observations {
    Observations { now_ms: NOW, peers, ..Observations::default() }
}

fn told(seen: &Observations) -> Vec<(String, Severity)> {
    judge(seen, &bounds()).iter().map(|alert| (alert.id(), alert.severity)).collect()
}

fn one(id: &str, severity: Severity) -> Vec<(String, Severity)> {
    vec![(id.to_owned(), severity)]
}

// M-03, M-16
#[test]
fn a_peer_in_trouble_is_told_of_once_it_has_lasted() {
    for (link, code) in [
        (LinkState::Unreachable, "peer_unreachable/peer:stk_b"),
        (LinkState::Refused, "peer_refused/peer:stk_b"),
        (LinkState::Degraded, "peer_degraded/peer:stk_b"),
        (LinkState::CircuitOpen, "circuit_open/peer:stk_b"),
    ] {
        assert_eq!(told(&observed(vec![peer(link, 59_999)])), []);
        assert_eq!(told(&observed(vec![peer(link, 60_000)])), one(code, Severity::Warning));
    }
    for link in [
        LinkState::Unknown,
        LinkState::Connected,
        LinkState::Draining,
        LinkState::Revoked,
        LinkState::Introduced,
    ] {
        assert_eq!(told(&observed(vec![peer(link, DAY)])), [], "{link:?} is no trouble");
    }
    let mut local = peer(LinkState::Unreachable, DAY);
    local.is_local = true;
    local.reason = Some("connection refused".to_owned());
    let alerts = judge(&observed(vec![local]), &bounds());
    assert_eq!((alerts[0].severity, alerts[0].since_ms), (Severity::Critical, Some(NOW - DAY)));
    assert!(alerts[0].message.ends_with(": connection refused"), "{}", alerts[0].message);
}

// M-03, R-30
#[test]
fn what_a_peer_did_is_told_for_as_long_as_it_holds() {
    let mut odd = peer(LinkState::Connected, DAY);
    odd.conflict_at_ms = Some(NOW - ms(MEMORY) + 1);
    odd.drifts = true;
    odd.given_up_at_ms = Some(NOW - 1);
    odd.readers_failing = Some((3, NOW - 60_000, "cut".to_owned()));
    odd.stuck = Some((2, NOW - DAY));
    odd.expired = Some((1, NOW - 5));
    let ids: Vec<String> = told(&observed(vec![odd.clone()])).into_iter().map(|(id, _)| id).collect();
    assert_eq!(
        ids,
        [
            "config_drift/peer:stk_b",
            "events_given_up/peer:stk_b",
            "forwards_given_up/peer:stk_b",
            "forwards_stuck/peer:stk_b",
            "peer_identity_conflict/peer:stk_b",
            "readers_failing/peer:stk_b",
        ]
    );
    odd.conflict_at_ms = Some(NOW - ms(MEMORY));
    odd.given_up_at_ms = odd.conflict_at_ms;
    odd.readers_failing = Some((3, NOW - 59_999, "cut".to_owned()));
    (odd.stuck, odd.expired, odd.drifts) = (None, None, false);
    assert_eq!(told(&observed(vec![odd])), []);
}

// M-03, R-25
#[test]
fn a_certificate_is_told_of_before_it_ends_and_louder_near_the_end() {
    let told_of = |ends_ms| {
        let mut seen = observed(Vec::new());
        seen.certificates = vec![("clients", ends_ms)];
        told(&seen)
    };
    let id = "certificate_expires/certificate:clients";
    assert_eq!(told_of(NOW + 14 * DAY + 1), []);
    assert_eq!(told_of(NOW + 14 * DAY), one(id, Severity::Warning));
    assert_eq!(told_of(NOW + 2 * DAY + 1), one(id, Severity::Warning));
    assert_eq!(told_of(NOW + 2 * DAY), one(id, Severity::Critical));
    assert_eq!(told_of(NOW - DAY), one(id, Severity::Critical));
    assert_eq!(told_of(i64::MAX), []);
    let mut far = peer(LinkState::Connected, DAY);
    far.certificate_ends_ms = Some(NOW);
    let alerts = judge(&observed(vec![far]), &bounds());
    assert!(alerts[0].message.contains("has ended"), "{}", alerts[0].message);
    assert_eq!(alerts[0].id(), "certificate_expires/peer:stk_b");
}

// M-03
#[test]
fn the_gateways_own_troubles_are_told() {
    let mut seen = observed(Vec::new());
    assert_eq!(told(&seen), [], "nothing observed, nothing told");
    seen.write_ahead_log = 1000;
    seen.next_key_due_ms = Some(NOW - 59_999);
    assert_eq!(told(&seen), []);
    seen.write_ahead_log = 1001;
    seen.next_key_due_ms = Some(NOW - 60_000);
    seen.log = Some(LogTrouble::Full);
    seen.audit_sink = Some((NOW - 7, "no such directory".to_owned()));
    seen.intake_held = true;
    seen.damage = Some((NOW - 1, "inconsistent row in streams.status at 2".to_owned()));
    seen.quotas = vec![
        ("tnt_a".to_owned(), "runs_per_day", NOW - 1),
        ("tnt_b".to_owned(), "runs_per_day", NOW - ms(MEMORY)),
    ];
    let alerts = told(&seen);
    assert_eq!(
        alerts.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
        [
            "audit_sink_failing/gateway",
            "disk_full/gateway",
            "intake_held/gateway",
            "log_damaged/gateway",
            "quota_exhausted/tenant:tnt_a",
            "rotation_overdue/gateway",
            "write_ahead_log_large/gateway",
        ]
    );
    seen.damage = Some((NOW - ms(MEMORY), String::new()));
    assert!(told(&seen).iter().all(|(id, _)| id != "log_damaged/gateway"));
    seen.log = Some(LogTrouble::Failed("I/O error".to_owned()));
    assert!(told(&seen).contains(&("log_not_writable/gateway".to_owned(), Severity::Critical)));
}

#[test]
fn codes_have_names_of_their_own() {
    let names: std::collections::BTreeSet<&str> = AlertCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(names.len(), AlertCode::ALL.len());
    for code in AlertCode::ALL {
        assert_eq!(serde_json::to_value(code).expect("a name"), code.as_str());
    }
}
