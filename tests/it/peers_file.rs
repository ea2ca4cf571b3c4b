//! The AgentOS peers file from outside: every form it has had, what `local` means, and what is wrong with it.

use std::fs;

use causeway::config::{Config, ConfigErrors};
use tempfile::TempDir;

use crate::config::{load, mistakes};

/// The form AgentOS publishes: `local`, `peers`, dashed endpoint names, fields that mean nothing here.
const PUBLISHED: &str = r#"{
  "local": {
    "stack_id": "stk_a", "environment": "lab", "region": "north", "api_versions": ["v1"],
    "endpoints": {
      "agent-orchestrator_base_url": "http://a-orchestrator:8081",
      "model-policy_base_url": "http://a-policy:8082"
    },
    "build": {"version": "0.0.1-dev", "git_sha": "LOCAL", "timestamp": "2025-12-20T00:00:00Z"}
  },
  "peers": [
    {
      "stack_id": "stk_b", "environment": "lab", "region": "south", "api_versions": ["v1"],
      "endpoints": {
        "agent-orchestrator_base_url": "http://b-orchestrator:8084",
        "model-policy_base_url": "http://b-policy:8085"
      },
      "build": {"version": "0.0.1-dev", "git_sha": "LOCAL", "timestamp": "2025-12-20T00:00:00Z"}
    }
  ]
}"#;

/// Loads with a peers file of this text, beside a configuration file and variables.
fn load_peers(json: &str, file: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("peers.json");
    fs::write(&path, json).expect("a file");
    let path = path.to_string_lossy();
    let variables: Vec<_> =
        [("AGENTOS_PEERS_FILE", &*path)].into_iter().chain(variables.iter().copied()).collect();
    load(file, &variables)
}

/// Who the gateway is and which peers it has: `id kind url`, with a star at the local one.
fn outcome(config: &Config) -> (&str, Vec<String>) {
    let peers = config.peers.iter().map(|peer| {
        let star = if peer.local { "*" } else { "" };
        format!("{star}{} {} {}", peer.peer_id, peer.kind.as_str(), peer.base_url)
    });
    (config.gateway.stack_id.as_str(), peers.collect())
}

#[test]
fn the_published_form_says_who_we_are_and_who_the_peers_are() {
    let config = load_peers(PUBLISHED, "", &[]).expect("the published form");
    let (own_id, peers) = outcome(&config);
    assert_eq!(own_id, "stk_a");
    assert_eq!((config.gateway.environment.as_str(), config.gateway.region.as_str()), ("lab", "north"));
    let listed = "stk_b orchestrator http://b-orchestrator:8084/";
    assert_eq!(peers, [listed, "*stk_a orchestrator http://a-orchestrator:8081/"]);
    assert_eq!((config.peers[0].environment.as_str(), config.peers[0].region.as_str()), ("lab", "south"));
}

#[test]
fn every_form_of_the_file_is_understood() {
    for (form, json, own_id, peers) in [
        (
            "the names before the orchestrator was called so",
            r#"{"peers":[{"stack_id":"stk_b",
                 "endpoints":{"stack_a_base_url":"https://b","stack_b_base_url":"https://b/x"}}]}"#,
            "stk_local",
            vec!["stk_b orchestrator https://b/"],
        ),
        (
            "a bare list with underscores, in which we stand too",
            r#"[{"stack_id":"stk_local","region":"r","endpoints":{"agent_orchestrator_base_url":"https://a:1",
                 "federation_base_url":"https://a:3"}},
                {"stack_id":"stk_b","endpoints":{"agent_orchestrator_base_url":"https://b:1",
                 "federation_base_url":"https://b:3"}}]"#,
            "stk_local",
            vec!["*stk_local orchestrator https://a:1/", "stk_b orchestrator https://b:1/"],
        ),
        (
            "a peer with a federation URL alone is a gateway, and ours is ourselves",
            r#"[{"stack_id":"stk_b","endpoints":{"federation_base_url":"https://b:3"}},
                {"stack_id":"stk_local","endpoints":{"federation_base_url":"https://a:3"}}]"#,
            "stk_local",
            vec!["stk_b gateway https://b:3/"],
        ),
        (
            "URLs beside the other fields",
            r#"[{"stack_id":"stk_b","stack_a_base_url":"https://b","environment":null,"region":""}]"#,
            "stk_local",
            vec!["stk_b orchestrator https://b/"],
        ),
        (
            "an empty URL is none",
            r#"[{"stack_id":"stk_b",
                 "endpoints":{"agent-orchestrator_base_url":"","federation_base_url":"https://b:3"}}]"#,
            "stk_local",
            vec!["stk_b gateway https://b:3/"],
        ),
        ("local without an orchestrator", r#"{"local":{"stack_id":"stk_a"},"peers":[]}"#, "stk_a", vec![]),
        ("nothing", "{}", "stk_local", vec![]),
        ("null", r#"{"local":null,"peers":null}"#, "stk_local", vec![]),
        (
            "an entry twice",
            r#"[{"stack_id":"b","stack_a_base_url":"http://b"},
                {"stack_id":"b","stack_a_base_url":"http://b/"}]"#,
            "stk_local",
            vec!["b orchestrator http://b/"],
        ),
    ] {
        let config = load_peers(json, "", &[]).unwrap_or_else(|errors| panic!("{form}: {errors}"));
        assert_eq!(outcome(&config), (own_id, peers.into_iter().map(str::to_owned).collect()), "{form}");
    }
}

#[test]
fn local_describes_whoever_wrote_the_file() {
    // The same file on the other node: its own entry is its orchestrator, and `local` is nobody's.
    let config = load_peers(PUBLISHED, "", &[("AGENTOS_STACK_ID", "stk_b")]).expect("no complaint");
    assert_eq!(
        outcome(&config),
        ("stk_b", vec!["*stk_b orchestrator http://b-orchestrator:8084/".to_owned()])
    );

    // A node under another name: `local` is still its orchestrator, since no entry bears the name.
    let file = "[gateway]\nstack_id = 'stk_c'\nregion = 'east'";
    let config =
        load_peers(PUBLISHED, file, &[("CAUSEWAY_GATEWAY_ENVIRONMENT", "prod")]).expect("no complaint");
    let (own_id, peers) = outcome(&config);
    assert_eq!((own_id, peers[1].as_str()), ("stk_c", "*stk_c orchestrator http://a-orchestrator:8081/"));
    assert_eq!((config.gateway.environment.as_str(), config.gateway.region.as_str()), ("prod", "east"));
}

#[test]
fn a_native_peer_stands_beside_the_file_and_wins_where_they_agree() {
    let same = "[[peers]]\npeer_id = 'stk_b'\nbase_url = 'http://b-orchestrator:8084/'\nregion = 'west'";
    let config = load_peers(PUBLISHED, same, &[]).expect("the same base URL");
    assert_eq!((config.peers.len(), config.peers[0].region.as_str()), (2, "west"));

    let other = "[[peers]]\npeer_id = 'stk_b'\nbase_url = 'http://elsewhere:8084'";
    let told = mistakes(load_peers(PUBLISHED, other, &[]));
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("contradicts http://elsewhere:8084/"), "{told:?}");

    let local = "[[peers]]\npeer_id = 'mine'\nbase_url = 'http://mine:1'\nlocal = true";
    let config = load_peers(PUBLISHED, local, &[]).expect("a local peer of our own");
    assert_eq!(outcome(&config).1.iter().filter(|peer| peer.starts_with('*')).count(), 1);
}

#[test]
fn what_is_shown_of_a_peers_file_loads_to_the_same() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("peers.json");
    fs::write(&path, PUBLISHED).expect("a file");
    let config = load(&format!("[gateway]\npeers_file = '{}'", path.display()), &[]).expect("a good file");
    assert_eq!(load(&config.to_toml(), &[]), Ok(config));
}

#[test]
fn a_mistake_names_file_line_and_column() {
    for (json, told) in [
        ("{\n  \"peers\": [,]\n}", "peers.json:2:13: gateway.peers_file: expected value"),
        (
            "{\"peers\": [\n {\"stack_id\": 7}]}",
            "peers.json:2:15: gateway.peers_file: invalid type: integer `7`",
        ),
        ("{\"peers\":\n  7}", "peers.json:2:3: gateway.peers_file: invalid type: integer `7`"),
        ("[\n  {\"region\": \"r\"}]", "peers.json:2:3: gateway.peers_file: a peer without stack_id"),
        (
            "[\n  {\"stack_id\": \"b\"}]",
            "peers.json:2:3: gateway.peers_file: \"b\" has no agent-orchestrator_base_url",
        ),
        (
            "[{\"stack_id\":\n\"a b\", \"stack_a_base_url\": \"http://h\"}]",
            "peers.json:2:1: gateway.peers_file: \"a b\" is not an id",
        ),
        (
            "[{\"stack_id\":\"b\", \"endpoints\": {\n\"stack_a_base_url\": \"ftp://h\"}}]",
            "peers.json:2:21: peers.b.base_url: the scheme \"ftp\" is not allowed",
        ),
        (
            "[{\"stack_id\":\"b\",\"stack_a_base_url\":\"http://b\"},\n \
              {\"stack_id\":\"b\",\"stack_a_base_url\":\"http://c\"}]",
            "peers.json:2:2: peers.b.base_url: http://c/ contradicts http://b/ from ",
        ),
        ("{\"local\":{\n\"stack_id\":\"a b\"}}", "peers.json:2:12: gateway.stack_id: \"a b\" is not an id"),
        ("7", "peers.json:1:1: gateway.peers_file: invalid type: integer `7`"),
        ("", "peers.json:1:1: gateway.peers_file: EOF while parsing a value"),
    ] {
        let found = mistakes(load_peers(json, "", &[]));
        assert!(found.len() == 1 && found[0].contains(told), "{json}: {found:?} lacks {told:?}");
    }
    let both =
        "[{\"stack_id\":7},{\"region\":\"r\"},{\"stack_id\": \"ok\", \"stack_a_base_url\": \"http://h\"}]";
    assert_eq!(mistakes(load_peers(both, "", &[])).len(), 2, "all at once");
    let missing = mistakes(load("", &[("AGENTOS_PEERS_FILE", "/nowhere/peers.json")])).concat();
    assert!(missing.contains("gateway.peers_file: /nowhere/peers.json cannot be read"), "{missing}");
}

#[test]
fn a_file_cut_anywhere_is_a_mistake_and_never_a_panic() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("peers.json");
    let variable = ("AGENTOS_PEERS_FILE".to_owned(), path.to_string_lossy().into_owned());
    for end in 0..PUBLISHED.len() {
        fs::write(&path, &PUBLISHED[..end]).expect("a file");
        assert!(Config::load(None, [variable.clone()]).is_err(), "cut at {end}");
    }
}
