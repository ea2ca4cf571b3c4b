//! The policy by cases: every mode, path and domain; every grant; every scope.

use super::*;

fn grants(operations: &[Operation]) -> Grants {
    Grants {
        operations: operations.to_vec(),
        tenants: vec!["acme".to_owned()],
        agents: vec!["mail*".to_owned()],
        regions: vec!["eu-*".to_owned()],
        ..Grants::default()
    }
}

fn policy(mode: FederationMode) -> Policy {
    let bridge = Bridge {
        allowed_peers: vec![PeerId::parse("stk_b").expect("an id")],
        operations: vec![Operation::ForwardIn, Operation::ForwardOut],
    };
    Policy {
        domain: "home".to_owned(),
        mode,
        allowed_foreign_domains: vec!["friends".to_owned()],
        bridges: BTreeMap::from([("bridged".to_owned(), bridge)]),
    }
}

fn id(text: &str) -> PeerId {
    PeerId::parse(text).expect("an id")
}

fn facts<'a>(id: &'a PeerId, grants: &'a Grants) -> PeerFacts<'a> {
    PeerFacts { id, domain: "home", region: "eu-west", standing: Standing::Active, grants }
}

/// The four ways a peer meets the policy: let in at start or by an operator, coming in, being sent to.
fn on_every_path(policy: &Policy, facts: PeerFacts<'_>) -> [Result<(), Rule>; 4] {
    let object = |peer| Object { tenant: Some("acme"), agent: Some("mail-1"), region: None, peer };
    [
        decide(policy, Subject::Operator, Action::EnrolPeer, object(Some(facts))),
        decide(policy, Subject::Peer(facts), Action::CreateRun, object(None)),
        decide(policy, Subject::Own, Action::CreateRun, object(Some(facts))),
        decide(policy, Subject::Own, Action::ReadEvents, object(Some(facts))),
    ]
    .map(|decided| decided.map_err(|denial| denial.rule))
}

#[test]
fn every_mode_and_path_answers_alike_for_one_domain() {
    // M-02 M-14 M-15 M-17 M-19 M-22 M-23 M-24 M-25
    use FederationMode::{Bridging, Open, Strict};
    let peer = id("stk_b");
    let all = grants(&Operation::ALL);
    for (mode, domain, allowed) in [
        (Strict, "home", true),
        (Strict, "friends", false),
        (Strict, "bridged", false),
        (Strict, "strangers", false),
        (Bridging, "home", true),
        (Bridging, "friends", true),
        (Bridging, "bridged", true),
        (Bridging, "strangers", false),
        (Open, "home", true),
        (Open, "friends", true),
        (Open, "bridged", true),
        (Open, "strangers", true),
    ] {
        let facts = PeerFacts { domain, ..facts(&peer, &all) };
        let expected = if allowed { Ok(()) } else { Err(Rule::FederationBoundary) };
        assert_eq!(on_every_path(&policy(mode), facts), [expected; 4], "{mode:?} {domain}");
    }
}

#[test]
fn a_boundary_names_both_domains_and_the_setting() {
    let (peer, all) = (id("stk_b"), grants(&Operation::ALL));
    let facts = PeerFacts { domain: "friends", ..facts(&peer, &all) };
    let denial =
        decide(&policy(FederationMode::Strict), Subject::Peer(facts), Action::CreateRun, Object::default());
    let reason = denial.expect_err("a foreign domain").reason;
    for part in
        ["stk_b", "friends", "home", "federation_mode", "cross-federation connections are not supported"]
    {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn a_bridge_is_for_its_peers_and_operations() {
    let all = grants(&Operation::ALL);
    let bridging = policy(FederationMode::Bridging);
    let other = id("stk_c");
    let facts = PeerFacts { domain: "bridged", ..facts(&other, &all) };
    assert_eq!(on_every_path(&bridging, facts), [Err(Rule::FederationBoundary); 4]);
    let peer = id("stk_b");
    let facts = PeerFacts { id: &peer, ..facts };
    let ingest = decide(&bridging, Subject::Peer(facts), Action::IngestEvents, Object::default());
    assert_eq!(ingest.map_err(|denial| denial.rule), Err(Rule::FederationBoundary));
}

#[test]
fn nothing_is_granted_that_was_not() {
    // A-27 Z-39
    let home = policy(FederationMode::Strict);
    let peer = id("stk_b");
    let rule = |granted: &[Operation], action, tenant, agent| {
        let grants = grants(granted);
        let object = Object { tenant: Some(tenant), agent: Some(agent), ..Object::default() };
        decide(&home, Subject::Peer(facts(&peer, &grants)), action, object).map_err(|denial| denial.rule)
    };
    use Operation::{ForwardIn, ForwardOut, Ingest, Subscribe};
    for action in [Action::CreateRun, Action::ReadRuns, Action::CancelRun, Action::ReadEvents] {
        assert_eq!(rule(&[ForwardIn], action, "acme", "mail"), Ok(()), "{action:?}");
        assert_eq!(rule(&[ForwardOut, Ingest], action, "acme", "mail"), Err(Rule::OperationNotGranted));
    }
    assert_eq!(rule(&[Subscribe], Action::ReadEvents, "acme", "mail"), Ok(()));
    assert_eq!(rule(&[Subscribe], Action::CreateRun, "acme", "mail"), Err(Rule::OperationNotGranted));
    assert_eq!(rule(&[Ingest], Action::IngestEvents, "acme", "mail"), Ok(()));
    assert_eq!(rule(&[], Action::IngestEvents, "acme", "mail"), Err(Rule::OperationNotGranted));
    assert_eq!(rule(&[ForwardIn], Action::CreateRun, "other", "mail"), Err(Rule::TenantNotGranted));
    assert_eq!(rule(&[ForwardIn], Action::CreateRun, "acme", "shell"), Err(Rule::AgentNotGranted));
    assert_eq!(rule(&Operation::ALL, Action::Administer, "acme", "mail"), Err(Rule::OperatorsOnly));
    assert_eq!(rule(&Operation::ALL, Action::EnrolPeer, "acme", "mail"), Err(Rule::OperatorsOnly));
}

#[test]
fn standing_comes_first() {
    let (home, peer, all) = (policy(FederationMode::Strict), id("stk_b"), grants(&Operation::ALL));
    for (standing, action, expected) in [
        (Standing::Revoked, Action::ReadEvents, Err(Rule::PeerRevoked)),
        (Standing::Revoked, Action::CreateRun, Err(Rule::PeerRevoked)),
        (Standing::Introduced, Action::ReadEvents, Err(Rule::PeerIntroduced)),
        (Standing::Introduced, Action::CreateRun, Err(Rule::PeerIntroduced)),
        (Standing::Draining, Action::CreateRun, Err(Rule::PeerDraining)),
        (Standing::Draining, Action::ReadEvents, Ok(())),
        (Standing::Draining, Action::CancelRun, Ok(())),
    ] {
        let facts = PeerFacts { standing, ..facts(&peer, &all) };
        let object = Object { tenant: Some("acme"), agent: Some("mail"), ..Object::default() };
        let inbound = decide(&home, Subject::Peer(facts), action, object);
        assert_eq!(inbound.map_err(|denial| denial.rule), expected, "in {standing:?} {action:?}");
        let outbound = decide(&home, Subject::Own, action, Object { peer: Some(facts), ..object });
        assert_eq!(outbound.map_err(|denial| denial.rule), expected, "out {standing:?} {action:?}");
    }
}

#[test]
fn runs_cross_only_where_they_run_in_a_granted_region() {
    let (home, peer, all) = (policy(FederationMode::Strict), id("stk_b"), grants(&Operation::ALL));
    let everywhere = Grants { regions: vec!["*".to_owned()], ..all.clone() };
    let other = id("orc_b");
    use Action::{CancelRun, CreateRun, IngestEvents, ReadEvents};
    // Where the peer is placed, which region is asked for, and what that makes of each act with it.
    for (placed, asked, sent, read, pushed) in [
        ("eu-west", None, true, true, true),
        ("eu-west", Some("us-1"), true, true, true), // it does not run elsewhere than where it is
        ("us-1", None, false, false, false),
        ("us-1", Some("eu-west"), false, false, false),
        ("", Some("eu-west"), true, true, true),
        ("", Some("us-1"), false, false, false),
        ("", None, false, true, false), // unknown: nothing begins, what was begun is read to its end
    ] {
        let facts = PeerFacts { region: placed, ..facts(&peer, &all) };
        let object = Object { region: asked, ..Object::default() };
        let rule = |subject, action, object| match decide(&home, subject, action, object) {
            Ok(()) => true,
            Err(denial) => {
                assert_eq!(denial.rule, Rule::RegionNotGranted, "{denial}");
                assert!(denial.reason.contains("stk_b") && denial.reason.contains("eu-*"), "{denial}");
                false
            }
        };
        let there = Object { peer: Some(facts), ..object };
        assert_eq!(rule(Subject::Own, CreateRun, there), sent, "sent: {placed} {asked:?}");
        assert_eq!(rule(Subject::Own, ReadEvents, there), read, "read: {placed} {asked:?}");
        assert_eq!(rule(Subject::Own, CancelRun, there), read, "canceled: {placed} {asked:?}");
        assert_eq!(rule(Subject::Peer(facts), IngestEvents, object), pushed, "pushed: {placed} {asked:?}");
        // What it asks for runs at another peer, wherever it is itself placed; before one is chosen, only what
        // is asked for counts.
        let runner = PeerFacts { id: &other, grants: &everywhere, ..facts };
        let onward = Object { peer: Some(runner), ..object };
        assert_eq!(rule(Subject::Peer(facts), CreateRun, onward), sent, "onward: {placed} {asked:?}");
        let early = rule(Subject::Peer(facts), CreateRun, object);
        assert_eq!(early, asked != Some("us-1"), "asked for: {asked:?}");
    }
    let anywhere = PeerFacts { region: "", ..facts(&peer, &everywhere) };
    let there = Object { peer: Some(anywhere), ..Object::default() };
    assert_eq!(decide(&home, Subject::Own, CreateRun, there), Ok(()));
}

#[test]
fn a_peers_word_for_a_tenant_is_understood_or_refused() {
    let mut all = grants(&Operation::ALL);
    all.tenant_names = serde_json::from_str(r#"{"acme":"acme-eu"}"#).expect("names");
    let peer = id("stk_b");
    let meant = |said: &str| {
        let said = TenantId::parse(said).expect("an id");
        tenant_meant(facts(&peer, &all), &said).map(|tenant| tenant.to_string()).map_err(|denial| denial.rule)
    };
    assert_eq!(meant("acme-eu"), Ok("acme".to_owned()));
    assert_eq!(meant("beta"), Ok("beta".to_owned()));
    assert_eq!(meant("acme"), Err(Rule::TenantNotGranted), "our word is not theirs");
    let home = policy(FederationMode::Strict);
    let object = Object { tenant: Some("acme-eu"), peer: Some(facts(&peer, &all)), ..Object::default() };
    let denial = decide(&home, Subject::Own, Action::CreateRun, object).expect_err("no name there");
    assert_eq!(denial.rule, Rule::TenantNotGranted);
}

#[test]
fn each_action_needs_its_own_scope() {
    let home = policy(FederationMode::Strict);
    for action in Action::ALL {
        for scope in Scope::ALL {
            let scopes: Scopes = [scope].into_iter().collect();
            let decided = decide(&home, Subject::Client(scopes), action, Object::default());
            assert_eq!(decided.is_ok(), scope == action.scope(), "{action:?} {scope}");
        }
        let operator = decide(&home, Subject::Operator, action, Object::default());
        let theirs = matches!(action, Action::EnrolPeer | Action::Administer | Action::ReadPeers);
        assert_eq!(operator.is_ok(), theirs, "operator {action:?}");
    }
}
