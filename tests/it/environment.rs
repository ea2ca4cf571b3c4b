//! The environment from outside: which variable sets which key, what overrides what, what stops the start.

use std::fs;
use std::path::Path;

use causeway::config::Config;
use tempfile::TempDir;
use toml::Table;

use crate::config::{Material, keys_of, load, mistakes, variable_of};

#[test]
fn every_key_has_a_variable() {
    let defaults: Table = Config::default().to_toml().parse().expect("TOML");
    for key in keys_of(&Config::default().to_toml()) {
        let (section, name) = key.split_once('.').expect("a section");
        let default = &defaults[section][name];
        let text = default.as_str().map_or(default.to_string(), str::to_owned).replace("[]", "");
        assert_eq!(load("", &[(&variable_of(&key), &text)]), Ok(Config::default()), "{key}");
    }
    for (variable, value) in [
        ("CAUSEWAY_LISTEN", "127.0.0.1:9999"),
        ("CAUSEWAY_SERVER_LISTEN", "127.0.0.1:9999"),
        ("CAUSEWAY_DATA_DIR", "elsewhere"),
        ("CAUSEWAY_LOG", "warn,causeway::store=trace"),
        ("CAUSEWAY_SERVER_MAX_BODY", "2097152"),
        ("CAUSEWAY_SERVER_CORS_ORIGINS", "https://a.example, http://localhost:3000"),
        ("CAUSEWAY_FORWARD_MAX_ATTEMPTS", "7"),
    ] {
        assert_ne!(load("", &[(variable, value)]).expect(variable), Config::default(), "{variable}");
    }
}

#[test]
fn a_native_variable_overrides_the_file() {
    let file = "[forward]\nmax_attempts = 5\n[server]\nlisten = '127.0.0.1:1'";
    let variables = [("CAUSEWAY_FORWARD_MAX_ATTEMPTS", "7"), ("CAUSEWAY_LISTEN", "127.0.0.1:2")];
    let config = load(file, &variables).expect("a good file");
    assert_eq!((config.forward.max_attempts, config.server.listen.port()), (7, 2));
}

#[test]
fn an_empty_variable_or_key_is_an_unset_one() {
    let file = "[gateway]\nstack_id = 'stk_file'";
    let empty = ["AGENTOS_STACK_ID", "CAUSEWAY_GATEWAY_STACK_ID", "AGENTOS_FED_CA_CERT", "CAUSEWAY_NONSENSE"];
    for value in ["", "  "] {
        let config = load(file, &empty.map(|name| (name, value))).expect("nothing is set");
        assert_eq!(config.gateway.stack_id.as_str(), "stk_file");
    }
    let empty = "[gateway]\ndefault_tenant = ''";
    let config = load(empty, &[("AGENTOS_DEFAULT_TENANT", "tnt_demo")]).expect("no contradiction");
    assert!(config.gateway.default_tenant.is_some());
}

#[test]
fn each_agentos_variable_lands_on_its_key() {
    let directory = TempDir::new().expect("a directory");
    let peers = directory.path().join("peers.json");
    fs::write(&peers, "[]").expect("a file");
    let peers = peers.to_string_lossy().into_owned();
    for (variable, value, native, written) in [
        ("AGENTOS_STACK_ID", "stk_a", "gateway.stack_id", "stk_a"),
        ("AGENTOS_ENVIRONMENT", "staging", "gateway.environment", "staging"),
        ("AGENTOS_REGION", "us-west-2", "gateway.region", "us-west-2"),
        ("AGENTOS_PROFILE", "demo", "gateway.profile", "dev"),
        ("AGENTOS_DEFAULT_TENANT", "tnt_demo", "gateway.default_tenant", "tnt_demo"),
        ("AGENTOS_PEERS_FILE", &peers, "gateway.peers_file", &peers),
        ("AGENTOS_FED_FORWARD_INDEX_FILE", "var/i.json", "gateway.forward_index_file", "var/i.json"),
        ("AGENTOS_MAX_BODY_SIZE", "2097152", "server.max_body", "2MiB"),
        ("AGENTOS_MAX_BODY_SIZE", "2MiB", "server.max_body", "2MiB"),
        ("AGENTOS_SHUTDOWN_TIMEOUT", "1m30s", "server.shutdown_timeout", "90s"),
        ("AGENTOS_FED_FORWARD_MAX_ATTEMPTS", "5", "forward.max_attempts", "5"),
        ("AGENTOS_FED_FORWARD_BASE_BACKOFF_MS", "400", "forward.base_backoff", "400ms"),
        ("AGENTOS_IDEMPOTENCY_TTL_HOURS", "36", "forward.idempotency_retention", "36h"),
        ("AGENTOS_RETENTION_EVENTS_DAYS", "7", "retention.events", "7d"),
        ("AGENTOS_QUOTA_CONCURRENT_RUNS", "25", "limits.concurrent_runs", "25"),
        ("AGENTOS_AUDIT_SINK", "file:/var/audit.jsonl", "audit.sink", "file:/var/audit.jsonl"),
    ] {
        let config = load("", &[(variable, value)]).unwrap_or_else(|errors| panic!("{errors}"));
        let document: Table = config.to_toml().parse().expect("TOML");
        let (section, key) = native.split_once('.').expect("a section");
        let found = &document[section][key];
        assert_eq!(found.as_str().map_or(found.to_string(), str::to_owned), written, "{variable}");
        assert_eq!(load("", &[(&variable_of(native), written)]), Ok(config), "{variable}");
    }
    let defaults = Config::default();
    assert_eq!(defaults.forward.max_attempts, 3);
    assert_eq!(defaults.forward.base_backoff.as_millis(), 250);
    // without the variable, the file AgentOS would use is still imported.
    let usual = Path::new("data/federation/forward-index.json");
    assert_eq!(defaults.gateway.forward_index_to_import(), usual);
}

#[test]
fn an_agentos_name_must_agree_with_what_is_set_natively() {
    let file = "[forward]\nmax_attempts = 5\nbase_backoff = '1s'";
    for agreeing in
        [("AGENTOS_FED_FORWARD_MAX_ATTEMPTS", "5"), ("AGENTOS_FED_FORWARD_BASE_BACKOFF_MS", "1000")]
    {
        assert!(load(file, &[agreeing]).is_ok(), "{agreeing:?}");
    }
    let overridden = [("CAUSEWAY_FORWARD_MAX_ATTEMPTS", "7"), ("AGENTOS_FED_FORWARD_MAX_ATTEMPTS", "7")];
    assert!(load(file, &overridden).is_ok(), "the native variable counts, not the file below it");

    let told = mistakes(load(file, &[("AGENTOS_FED_FORWARD_MAX_ATTEMPTS", "4")]));
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("AGENTOS_FED_FORWARD_MAX_ATTEMPTS: forward.max_attempts: 4 contradicts 5 from ")
    );
    assert!(told[0].contains("causeway.toml:2:1"), "{told:?}");
    for variables in [
        [("CAUSEWAY_FORWARD_MAX_ATTEMPTS", "7"), ("AGENTOS_FED_FORWARD_MAX_ATTEMPTS", "5")],
        [("CAUSEWAY_LISTEN", "127.0.0.1:1"), ("CAUSEWAY_SERVER_LISTEN", "127.0.0.1:2")],
    ] {
        let told = mistakes(load(file, &variables)).concat();
        let names = variables.map(|(name, _)| name);
        assert!(names.iter().all(|name| told.contains(name)) && told.contains("contradicts"), "{told}");
    }
}

#[test]
fn a_variable_that_asks_for_protection_gets_it() {
    // A-26, with the names AgentOS has for it.
    let material = Material::new();
    let [certificate, key, issuer] = ["@cert.pem", "@key.pem", "@issuer.pem"].map(|name| material.fill(name));
    for ending in ["", "_FILE"] {
        let names = ["SERVER_CERT", "SERVER_KEY", "CLIENT_CERT", "CLIENT_KEY", "CA_CERT"]
            .map(|name| format!("AGENTOS_FED_{name}{ending}"));
        let files = [&certificate, &key, &certificate, &key, &certificate];
        let mut variables: Vec<(&str, &str)> =
            names.iter().map(String::as_str).zip(files.map(String::as_str)).collect();
        variables.push(("AGENTOS_FED_REQUIRE_MTLS", "1"));
        variables.push(("CAUSEWAY_PEERING_LISTEN", "0.0.0.0:8443"));
        let peering = load("", &variables).unwrap_or_else(|errors| panic!("{errors}")).peering;
        assert!(peering.require_mtls);
        assert_eq!(peering.cert_file.as_deref(), Some(Path::new(&certificate)));
        assert_eq!(peering.cert_key_file.as_deref(), Some(Path::new(&key)));
        assert_eq!(peering.ca_file.as_deref(), Some(Path::new(&certificate)));

        let name = format!("AGENTOS_FED_JWT_PUBLIC_KEY{ending}");
        let claims = "[jwt]\nissuer = 'https://issuer.example'\naudience = 'causeway'";
        let jwt = load(claims, &[(&name, &issuer)]).unwrap_or_else(|errors| panic!("{errors}")).jwt;
        assert_eq!(jwt.public_key_file.as_deref(), Some(Path::new(&issuer)));
    }
    let for_clients = [("AGENTOS_FED_CLIENT_CERT", &*certificate), ("AGENTOS_FED_CLIENT_KEY", &*key)];
    let peering = load("", &for_clients).expect("shown in both directions").peering;
    assert_eq!(peering.cert_file.as_deref(), Some(Path::new(&certificate)));
}

#[test]
fn a_variable_that_asks_for_protection_which_cannot_be_had_stops_the_start() {
    // defect 13: the origin went on over plain HTTP when it could not set up mTLS.
    for (variables, told) in [
        (&[("AGENTOS_FED_REQUIRE_MTLS", "1")][..], "true is not allowed without peering.listen"),
        (&[("AGENTOS_FED_REQUIRE_MTLS", "true")], "true is not allowed without peering.listen"),
        (&[("AGENTOS_FED_REQUIRE_MTLS", "maybe")], "\"maybe\" is neither true nor false"),
        (&[("AGENTOS_FED_SERVER_CERT", "/none/a.crt")], "peering.cert_file: needs peering.cert_key_file"),
        (&[("AGENTOS_FED_SERVER_KEY", "/none/a.key")], "peering.cert_key_file: needs peering.cert_file"),
        (&[("AGENTOS_FED_CLIENT_CERT", "/none/a.crt")], "peering.cert_file: needs peering.cert_key_file"),
        (&[("AGENTOS_FED_CLIENT_KEY", "/none/a.key")], "peering.cert_key_file: needs peering.cert_file"),
        (
            &[("AGENTOS_FED_SERVER_CERT", "/none/a.crt"), ("AGENTOS_FED_SERVER_KEY", "/none/a.key")],
            "peering.cert_file: /none/a.crt: ",
        ),
        (
            &[("AGENTOS_FED_CLIENT_CERT", "/none/b.crt"), ("AGENTOS_FED_SERVER_CERT", "/none/a.crt")],
            "\"/none/b.crt\" is not \"/none/a.crt\" from AGENTOS_FED_SERVER_CERT: the gateway shows one \
             certificate in both directions",
        ),
        (&[("AGENTOS_FED_CA_CERT", "/none/ca.crt")], "peering.ca_file: /none/ca.crt: "),
        (
            &[("AGENTOS_FED_JWT_PUBLIC_KEY", "/none/jwt.pem")],
            "needs jwt.issuer and jwt.audience: a token is believed only when it agrees with them; /none/jwt.pem \
             cannot be read",
        ),
        (&[("AGENTOS_FED_JWT_PUBLIC_KEY", "-----BEGIN hunter2")], "holds a key or a certificate itself"),
        (&[("AGENTOS_FED_SERVER_KEY", "-----BEGIN hunter2")], "holds a key or a certificate itself"),
        (&[("AGENTOS_FED_CLIENT_KEY_FILE", "-----BEGIN hunter2")], "holds a key or a certificate itself"),
        (&[("AGENTOS_FED_SHARED_SECRET", "hunter2")], "give each peer the public_key"),
        (&[("AGENTOS_FED_SHARED_SECRET_FILE", "/run/secrets/hunter2")], "give each peer the public_key"),
        (&[("AGENTOS_METRICS_REQUIRE_AUTH", "1")], "set gateway.profile to \"prod\""),
        (&[("AGENTOS_METRICS_REQUIRE_AUTH", "2")], "\"2\" is neither on nor off"),
        (&[("AGENTOS_AUDIT_SINK", "syslog")], "audit.sink: \"syslog\" is no sink"),
    ] {
        let found = mistakes(load("", variables));
        let (name, _) = variables[0];
        let is_told = found.iter().any(|line| line.starts_with(name) && line.contains(told));
        assert!(is_told, "{variables:?}: {found:?} lacks {told:?}");
        assert!(found.len() <= variables.len() && !found.concat().contains("hunter2"), "{found:?}");
    }
    for (variable, value) in [
        ("AGENTOS_FED_REQUIRE_MTLS", "0"),
        ("AGENTOS_FED_REQUIRE_MTLS", "false"),
        ("AGENTOS_METRICS_REQUIRE_AUTH", "0"),
        ("AGENTOS_FED_AUTH_DISABLED", "1"),
        ("AGENTOS_ALLOW_DEV_HEADERS", "1"),
        ("AGENTOS_SOMETHING_ELSE", "1"),
    ] {
        assert_eq!(load("", &[(variable, value)]), Ok(Config::default()), "{variable}");
    }
    let admin = [("AGENTOS_METRICS_REQUIRE_AUTH", "1"), ("CAUSEWAY_SERVER_ADMIN_LISTEN", "127.0.0.1:9100")];
    assert!(load("", &admin).is_ok(), "metrics have an address of their own");
}

#[test]
fn an_unknown_native_variable_is_a_mistake_unless_the_platform_made_it() {
    let told = mistakes(load("", &[("CAUSEWAY_FORWARD_MAX_ATEMPTS", "3")]));
    assert_eq!(
        told,
        ["CAUSEWAY_FORWARD_MAX_ATEMPTS: unknown variable; did you mean CAUSEWAY_FORWARD_MAX_ATTEMPTS?"]
    );
    let told = mistakes(load("", &[("CAUSEWAY_X", "3")]));
    assert!(told[0].contains("CAUSEWAY_<SECTION>_<NAME>"), "{told:?}");
    let made = [
        ("CAUSEWAY_CONFIG", "/etc/causeway.toml"),
        ("CAUSEWAY_SERVICE_HOST", "10.0.0.1"),
        ("CAUSEWAY_SERVICE_PORT_HTTP", "8080"),
        ("CAUSEWAY_PORT", "tcp://10.0.0.1:8080"),
        ("CAUSEWAY_LEFT_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(load("", &made), Ok(Config::default()));
}
