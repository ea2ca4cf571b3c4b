//! The configuration file from outside: what the shipped files say, and how every kind of mistake is told.

use std::fs;
use std::path::{Path, PathBuf};

use causeway::config::{Config, ConfigErrors, LogFormat, Origin};
use causeway::domain::grants::Operation;
use causeway::domain::key::PublicKey;
use causeway::domain::peer::PeerKind;
use causeway::domain::policy::FederationMode;
use causeway::domain::run::RunStatus;
use causeway::tls::SpkiPin;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use toml::Table;

/// A certificate with its private key, another key, and an issuer's public key, as PEM files.
pub(crate) struct Material {
    directory: TempDir,
}

impl Material {
    /// Fresh ones.
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let [key, other] = [(); 2].map(|()| KeyPair::generate().expect("a key"));
        let params = CertificateParams::new(vec!["gateway.example".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        for (name, text) in [
            ("cert.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
            ("other-key.pem", other.serialize_pem()),
            ("issuer.pem", other.public_key_pem()),
            ("empty.pem", String::new()),
        ] {
            fs::write(directory.path().join(name), text).expect("a file");
        }
        Material { directory }
    }

    /// A text in which each `@name` is the path of that file.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace('@', &format!("{}/", self.directory.path().display()))
    }
}

/// Loads a configuration file with this text, under these variables.
pub(crate) fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("causeway.toml");
    fs::write(&path, file).expect("a file");
    Config::load(Some(&path), variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// The mistakes as text, one line each, without the directory the file lay in.
pub(crate) fn mistakes(loaded: Result<Config, ConfigErrors>) -> Vec<String> {
    let errors = loaded.expect_err("there are mistakes");
    let lines = errors.to_string();
    assert_eq!(lines.lines().count(), errors.as_slice().len(), "one line per mistake: {lines}");
    let bare = |line: &str| match line.split_once("/causeway.toml") {
        Some((directory, rest)) if !directory.contains(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    lines.lines().map(bare).collect()
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn load_shipped(name: &str) -> Config {
    Config::load(Some(&shipped(name)), []).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Sections with their keys, peers aside.
pub(crate) fn keys_of(text: &str) -> Vec<String> {
    let document: Table = text.parse().expect("TOML");
    let sections = document.into_iter().filter_map(|(section, value)| match value {
        toml::Value::Table(keys) => Some((section, keys)),
        _ => None,
    });
    sections
        .flat_map(|(section, keys)| keys.into_iter().map(move |(key, _)| format!("{section}.{key}")))
        .collect()
}

/// The native variable of a key.
pub(crate) fn variable_of(key: &str) -> String {
    format!("CAUSEWAY_{}", key.replace('.', "_").to_uppercase())
}

#[test]
fn the_shipped_file_is_the_default_configuration() {
    assert_eq!(load_shipped("causeway.toml"), Config::default());
    assert_eq!(Config::load(None, []), Ok(Config::default()));
    let text = fs::read_to_string(shipped("causeway.toml")).expect("the shipped file");
    assert_eq!(keys_of(&text), keys_of(&Config::default().to_toml()));
}

#[test]
fn the_shipped_file_shows_every_key_of_a_peer() {
    let directory = TempDir::new().expect("a directory");
    let token = directory.path().join("token");
    fs::write(&token, "tok_abc\n").expect("a file");
    let text = fs::read_to_string(shipped("causeway.toml")).expect("the shipped file");
    let example = text.split_once("# [[peers]]").expect("an example").1;
    let example = example
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let example = example.replace("secrets/stk_example.token", &token.to_string_lossy());
    let config = load(&format!("[[peers]]{example}"), &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let keys = |text: &str| -> Vec<String> {
        let document: Table = text.parse().expect("TOML");
        document["peers"][0].as_table().expect("a peer").keys().cloned().collect()
    };
    assert_eq!(keys(&format!("[[peers]]{example}")), keys(&config.to_toml()));

    let bare =
        load("[[peers]]\npeer_id = \"a\"\nbase_url = \"http://h\"", &[]).expect("the required keys").peers;
    let [shown, bare] = [&config.peers[0], &bare[0]];
    assert_eq!((shown.kind, &shown.region, &shown.environment), (bare.kind, &bare.region, &bare.environment));
    assert_eq!(shown.capabilities, bare.capabilities);
    assert_eq!(shown.idempotent_create, bare.idempotent_create);
    assert_eq!(shown.idempotency_retention, bare.idempotency_retention);
    assert_eq!((&shown.name, &shown.domain, &shown.tls_name), (&bare.name, &bare.domain, &bare.tls_name));
    assert_eq!((shown.public_key, shown.certificate, shown.rate), (None, None, None));
    assert_eq!((&shown.operations, &shown.tenants), (&bare.operations, &bare.tenants));
    assert_eq!((&shown.agents, &shown.allowed_addresses), (&bare.agents, &bare.allowed_addresses));
}

#[test]
fn the_shipped_file_shows_every_key_of_a_bridge() {
    let text = fs::read_to_string(shipped("causeway.toml")).expect("the shipped file");
    let at = text.find("# [bridges.").expect("an example");
    let example = text[at..].split("\n\n").next().expect("its end");
    let example = example
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let config = load(&example, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let keys = |text: &str| -> Vec<String> {
        let document: Table = text.parse().expect("TOML");
        document["bridges"]["example"].as_table().expect("a bridge").keys().cloned().collect()
    };
    assert_eq!(keys(&example), keys(&config.to_toml()));
    assert_eq!(load("[bridges.example]", &[]), Ok(config), "shown as they are when left out");
}

#[test]
fn the_shipped_pair_knows_each_other() {
    let [left, right] = ["pair/left.toml", "pair/right.toml"].map(load_shipped);
    for (one, other) in [(&left, &right), (&right, &left)] {
        let peer =
            one.peers.iter().find(|peer| peer.peer_id == other.gateway.stack_id).expect("the other one");
        assert_eq!(peer.kind, PeerKind::Gateway);
        assert_eq!(peer.base_url.as_str(), format!("http://{}/", other.server.listen));
        assert_eq!(peer.region, other.gateway.region);
        assert_ne!(one.gateway.data_dir, other.gateway.data_dir);
    }
    let local: Vec<_> =
        right.peers.iter().filter(|peer| peer.local).map(|peer| peer.base_url.as_str()).collect();
    assert_eq!(local, ["http://127.0.0.1:9090/"]);
}

#[test]
fn what_is_shown_loads_to_the_same() {
    let file = "[server]\nlisten = '[::1]:0'\ncors_origins = ['https://a.example']\n[events]\n\
                retry = '1500ms'\n[[peers]]\nstack_id = 'a'\nbase_url = 'https://h:8443/fed/'\n\
                kind = 'gateway'\nterminal_events = ['acme.done', 'acme.died=failed']\n\
                capabilities = ['gpu']\ndomain = 'acme.example'\noperations = ['forward_in', 'ingest']\n\
                public_key = 'ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'\n\
                allowed_addresses = ['10.1.0.0/16']\nrate = '200/s burst 400'\n[policy]\n\
                federation_mode = 'bridging'\n[bridges.'acme.example']\nallowed_peers = ['a']\n\
                operations = ['forward_in', 'ingest']\n[bridges.'odd\"domain']";
    let config = load(file, &[("CAUSEWAY_LOG_FORMAT", "json")]).expect("a good file");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.peers[0].base_url.as_str(), "https://h:8443/fed");
    assert_eq!(config.bridges.len(), 2);
    let ends: Vec<_> =
        config.peers[0].terminal_events.iter().map(|end| (end.event_type.as_str(), end.status)).collect();
    assert_eq!(ends, [("acme.done", RunStatus::Completed), ("acme.died", RunStatus::Failed)]);
    assert_eq!(load(&config.to_toml(), &[]), Ok(config));
}

#[test]
fn every_mistake_names_its_key_and_what_is_allowed() {
    for (file, told) in [
        (
            "[forward]\nmax_attempts = 0",
            ":2:1: forward.max_attempts: 0 is not allowed: it must be from 1 to 20",
        ),
        ("[forward]\nmax_attempts = 21", "21 is not allowed"),
        ("[forward]\nmax_attempts = -1", "-1 is not a whole number"),
        ("[forward]\nmax_attempts = 3.0", "3.0 is not a whole number"),
        ("[forward]\nmax_attempts = '3'", "\"3\" is not a whole number"),
        (
            "[forward]\nmax_atempts = 3",
            ":2:1: forward.max_atempts: unknown key; did you mean `forward.max_attempts`?",
        ),
        ("[forward]\nlisten = '127.0.0.1:1'", "did you mean `peering.listen` or `server.listen`?"),
        ("[outbound]\nproxy = 'http://p'", "unknown key; [outbound] has answer_timeout"),
        ("[forwards]\nmax_attempts = 3", ":1:2: forwards: unknown section; did you mean `forward`?"),
        ("listen = '127.0.0.1:1'", "did you mean `peering.listen` or `server.listen`?"),
        ("[kubernetes]\na = 1", "unknown section; there are alerts, audit, events, forward, gateway"),
        ("[bridge]", "unknown section; did you mean `bridges`?"),
        ("server = 1", "1 is not a section: write [server]"),
        (
            "[forward]\nbase_backoff = 250",
            "forward.base_backoff: invalid type: integer `250`, expected a string",
        ),
        ("[forward]\nbase_backoff = '250'", "\"250\" is not a duration: write a number and a unit"),
        (
            "[forward]\nbase_backoff = '11s'",
            "11s is not allowed: it is longer than forward.max_backoff (10s)",
        ),
        (
            "[forward]\nmax_backoff = '200ms'",
            "200ms is not allowed: it is shorter than forward.base_backoff (250ms)",
        ),
        ("[forward]\nidempotency_retention = '8d'", "longer than forward.kept (7d)"),
        ("[forward]\ndeadline = '25h'", "longer than forward.background_deadline (1d)"),
        ("[reader]\nbackoff = '31s'", "longer than reader.max_backoff (30s)"),
        ("[reader]\nstatus_interval = '16s'", "longer than reader.max_status_interval (15s)"),
        (
            "[retention]\nevents = '40000d'",
            "40000d is not allowed: it must be longer than zero and must be at most",
        ),
        ("[server]\nmax_body = '1 parsec'", "\"1 parsec\" is not a size"),
        ("[server]\nmax_body = 0", "0B is not allowed: it must be from 1B to 1GiB"),
        ("[server]\nmax_ingest_body = '2GiB'", "2GiB is not allowed"),
        ("[server]\nlisten = 'localhost:8080'", "\"localhost:8080\" is not a socket address"),
        ("[server]\nlisten = '0.0.0.0:8080'", "must be a loopback address such as 127.0.0.1:8080"),
        ("[server]\nadmin_listen = '192.0.2.1:9'", "server.admin_listen: 192.0.2.1:9 is not allowed"),
        ("[server]\nadmin_listen = '127.0.0.1:8080'", "127.0.0.1:8080 is server.listen"),
        ("[server]\ncors_origins = ['https://a.example/app']", "\"https://a.example/app\" is not an origin"),
        ("[server]\ncors_origins = ['*']", "\"*\" is not an origin"),
        ("[gateway]\nstack_id = 'a b'", "\"a b\" is not an id: must be 1 to 128 visible ASCII characters"),
        ("[gateway]\nprofile = 'test'", "\"test\" is not a profile: write dev or prod"),
        ("[gateway]\ndata_dir = ''", "\"\" is not a path"),
        ("[gateway]\nregion = \"a\\nb\"", "\"a b\" is not a label"),
        ("[log]\nformat = 'xml'", "unknown variant `xml`, expected one of `auto`, `text`, `json`"),
        ("[log]\nlevel = 'inof'", "\"inof\" is not a log level"),
        ("[log]\nlevel = 'info,causeway=loud'", "\"info,causeway=loud\" is not a log level"),
        ("peers = 1", "1 is not a list of peers: write [[peers]] before each"),
        ("peers = [1]", "1 is not a peer"),
        ("[gateway\nx = 1", ":1:9: "),
    ] {
        let found = mistakes(load(file, &[]));
        assert!(found.len() == 1 && found[0].contains(told), "{file:?}: {found:?} lacks {told:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let file = "[forward]\nmax_attempts = 0\nbase_backoff = 'soon'\n[server]\nlisten = '0.0.0.0:80'\n\
                lsten = ''\n[[peers]]\npeer_id = 'a'\nbase_url = 'ftp://h'\nkind = 'friend'\n\
                [[peers]]\nregion = 'x'";
    let variables = [
        ("CAUSEWAY_FORWARD_KEPT", "never"),
        ("CAUSEWAY_SERVER_LISTN", "x"),
        ("AGENTOS_RETENTION_EVENTS_DAYS", "6"),
        ("AGENTOS_FED_SHARED_SECRET", "hunter2"),
        ("AGENTOS_PEERS_FILE", "/nowhere/peers.json"),
    ];
    let errors = load(file, &variables).expect_err("mistakes");
    let found: Vec<_> = errors.as_slice().iter().map(|error| (error.key.as_str(), &error.origin)).collect();
    let keys: Vec<_> =
        found.iter().filter(|(_, at)| matches!(at, Origin::File { .. })).map(|(key, _)| *key).collect();
    assert_eq!(
        keys,
        [
            "forward.max_attempts",
            "forward.base_backoff",
            "server.listen",
            "server.lsten",
            "peers.a.base_url",
            "peers.a.kind",
            "peers[1].base_url",
            "peers[1].peer_id",
        ]
    );
    let variables: Vec<_> = found
        .iter()
        .filter_map(|(_, at)| if let Origin::Variable(name) = at { Some(name) } else { None })
        .collect();
    assert_eq!(
        variables,
        [
            "AGENTOS_FED_SHARED_SECRET",
            "AGENTOS_PEERS_FILE",
            "AGENTOS_RETENTION_EVENTS_DAYS",
            "CAUSEWAY_FORWARD_KEPT",
            "CAUSEWAY_SERVER_LISTN",
        ]
    );
    assert!(!errors.to_string().contains("hunter2"));
}

#[test]
fn no_value_of_any_kind_is_more_than_one_mistake() {
    for key in keys_of(&Config::default().to_toml()) {
        let (section, name) = key.split_once('.').expect("a section");
        for value in [
            "-1",
            "1",
            "1.5",
            "true",
            "'x y'",
            "''",
            "[[]]",
            "{ a = 1 }",
            "1979-05-27",
            "9223372036854775807",
        ] {
            if let Err(errors) = load(&format!("[{section}]\n{name} = {value}"), &[]) {
                let keys: Vec<_> = errors.as_slice().iter().map(|error| error.key.as_str()).collect();
                assert_eq!(keys, [key.as_str()], "{value}");
            }
        }
    }
    let told = mistakes(load("[forward]\n\"a\\nb\" = 1", &[]));
    assert_eq!(told.len(), 1, "one line, whatever the key");
}

#[test]
fn every_syntax_error_names_its_line_and_column() {
    let told = mistakes(load("[forward]\nmax_attempts = \n[server]\nlisten = 'x\n", &[]));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with(":2:16: ") && told[1].starts_with(":4:"), "{told:?}");
    assert!(
        mistakes(Config::load(Some(Path::new("/nowhere/causeway.toml")), []))[0].contains("cannot be read")
    );
}

#[test]
fn only_these_durations_may_be_zero() {
    let may_be_zero = [
        "alerts.patience",
        "events.gap_hold",
        "events.gap_hold_pushed",
        "jwt.leeway",
        "reader.heal_after",
        "server.shutdown_timeout",
    ];
    let defaults: Table = Config::default().to_toml().parse().expect("TOML");
    let durations = keys_of(&Config::default().to_toml()).into_iter().filter(|key| {
        let (section, name) = key.split_once('.').expect("a section");
        let text = defaults[section][name].as_str().unwrap_or_default();
        text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(['s', 'm', 'h', 'd'])
    });
    let durations: Vec<_> = durations.collect();
    assert_eq!(durations.len(), 37);
    for key in durations {
        let loaded = load("", &[(&variable_of(&key), "0s")]);
        assert_eq!(loaded.is_ok(), may_be_zero.contains(&key.as_str()), "{key}");
        assert!(load("", &[(&variable_of(&key), "36501d")]).is_err(), "{key}");
    }
}

#[test]
fn every_mistake_of_a_peer_is_told() {
    for (peer, told) in [
        ("base_url = 'http://h'", "peers[0].peer_id: is required"),
        ("peer_id = 'a'", "peers.a.base_url: is required"),
        ("peer_id = 'a'\nstack_id = 'a'\nbase_url = 'http://h'", "peer_id and stack_id are one key"),
        ("peer_id = 'a b'\nbase_url = 'http://h'", "peers[0].peer_id: \"a b\" is not an id"),
        ("peer_id = 'a'\nbase_url = 'h'", "peers.a.base_url: \"h\" is not a URL"),
        ("peer_id = 'a'\nbase_url = 'ftp://h'", "the scheme \"ftp\" is not allowed"),
        ("peer_id = 'a'\nbase_url = 'http://u:hunter2@h'", "a URL with credentials is not allowed"),
        ("peer_id = 'a'\nbase_url = 'http://h/?key=hunter2'", "a URL with a query or a fragment"),
        ("peer_id = 'a'\nbase_url = 'http://127.0.0.1:8080'", "is this gateway itself"),
        ("peer_id = 'a'\nbase_url = 'http://localhost:8080'", "is this gateway itself"),
        ("peer_id = 'a'\nbase_url = 'http://h'\nkind = 'friend'", "expected `gateway` or `orchestrator`"),
        ("peer_id = 'a'\nbase_url = 'http://h'\nlocal = 'yes'", "expected a boolean"),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\nlokal = true",
            "peers.a.lokal: unknown key; did you mean `local`?",
        ),
        ("peer_id = 'a'\nbase_url = 'http://h'\ntoken = 'hunter2'", "unknown key; "),
        ("peer_id = 'a'\nbase_url = 'http://h'\ncapabilities = ['']", "\"\" is not a capability's name"),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\nterminal_events = ['a=running']",
            "completed, failed or canceled",
        ),
        ("peer_id = 'a'\nbase_url = 'http://h'\nidempotency_retention = '0s'", "must be longer than zero"),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\ntoken_file = '/nowhere'",
            "token_file: /nowhere cannot be read",
        ),
        ("peer_id = 'stk_local'\nbase_url = 'http://h'", "is this gateway's own id"),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\n[[peers]]\npeer_id = 'a'\nbase_url = 'http://h'",
            "is given twice",
        ),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\nlocal = true\n[[peers]]\npeer_id = 'b'\n\
             base_url = 'http://i'\nlocal = true",
            ":8:1: peers.b.local: a is local already: at most one peer is",
        ),
        ("peer_id = 'a'\nbase_url = 'http://h'\ndomain = 'a b'", "domain: \"a b\" is not a domain"),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\ndomain = 'acme'",
            ":4:1: peers.a.domain: peer `a` is in domain `acme`, this gateway in `default`: cross-federation \
             connections are not supported in policy.federation_mode = \"strict\"",
        ),
        ("peer_id = 'a'\nbase_url = 'http://h'\ntenants = ['']", "tenants: \"\" is not a tenant"),
        ("peer_id = 'a'\nbase_url = 'http://h'\nagents = ['a b']", "agents: \"a b\" is not an agent"),
        ("peer_id = 'a'\nbase_url = 'http://h'\nregions = ['']", "peers.a.regions: \"\" is not a region"),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\ntenant_names = { x = 'z', y = 'z' }",
            "peers.a.tenant_names: the tenants x and y would both be z there",
        ),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\ntenants = ['x', 'z']\ntenant_names = { x = 'z' }",
            "peers.a.tenant_names: z is granted under its own name, which is another tenant's there",
        ),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\ntenants = ['x']\ntenant_names = { y = 'z' }",
            "peers.a.tenant_names: y is not granted",
        ),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\nname = \"a\\nb\"",
            "peers.a.name: a name has at most 128 characters",
        ),
        ("peer_id = 'a'\nbase_url = 'http://h'\noperations = ['all']", "expected one of `forward_in`"),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\noperations = ['ingest']",
            "peers.a.operations: a peer that comes in needs an identity",
        ),
        ("peer_id = 'a'\nbase_url = 'http://h'\ntls_name = 'h'", "tls_name: needs peering.ca_file"),
        ("peer_id = 'a'\nbase_url = 'http://h'\npublic_key = 'x'", "\"x\" is not a public key"),
        ("peer_id = 'a'\nbase_url = 'http://h'\ncertificate = 'x'", "\"x\" is not a certificate's pin"),
        ("peer_id = 'a'\nbase_url = 'http://h'\nallowed_addresses = ['h']", "is not a range of IP addresses"),
        ("peer_id = 'a'\nbase_url = 'http://h'\nrate = 'fast'", "peers.a.rate: "),
        (
            "peer_id = 'a'\nbase_url = 'http://h'\npublic_key = '-----BEGIN PRIVATE KEY-----hunter2'",
            "holds a key or a certificate itself",
        ),
    ] {
        let found = mistakes(load(&format!("[[peers]]\n{peer}"), &[]));
        assert!(found.len() == 1 && found[0].contains(told), "{peer:?}: {found:?} lacks {told:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
    let own = "[[peers]]\npeer_id = 'stk_local'\nbase_url = 'http://h'\nlocal = true";
    assert!(load(own, &[]).is_ok(), "the local orchestrator may bear the gateway's id");
}

#[test]
fn a_credential_comes_from_its_file_and_is_never_shown() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("token");
    let file = format!(
        "[[peers]]\npeer_id = 'a'\nbase_url = 'http://peer.example'\ntoken_file = '{}'",
        path.display()
    );
    fs::write(&path, " tok_hunter2\r\n").expect("a file");
    let config = load(&file, &[]).expect("a credential");
    assert_eq!(config.peers[0].token.as_ref().map(|token| token.expose()), Some("tok_hunter2"));
    assert!(config.warnings().iter().any(|warning| warning.contains("plain http")));
    let shown = format!("{config:?}{}{:?}", config.to_toml(), config.warnings());
    assert!(shown.contains("[redacted]") && !shown.contains("hunter2"), "{shown}");
    for (bad, told) in [
        ("\n", "is empty"),
        ("hunter2 hunter2", "one credential"),
        (&"x".repeat(9000), "more than 8192 bytes"),
    ] {
        fs::write(&path, bad).expect("a file");
        let found = mistakes(load(&file, &[])).concat();
        assert!(found.contains(told) && !found.contains("hunter2"), "{found}");
    }
}

#[test]
fn warnings_say_what_the_profile_and_the_peers_mean() {
    let alone = Config::default().warnings().join("\n");
    assert!(alone.contains("profile dev: identity headers are believed"), "{alone}");
    assert!(alone.contains("no peer is marked local"), "{alone}");
    let file = "[gateway]\ndefault_tenant = 'tnt_demo'\n[events]\nheartbeat = '50s'\n[[peers]]\n\
                peer_id = 'a'\nbase_url = 'http://127.0.0.1:9090'\nlocal = true\nidempotent_create = false";
    let warnings = load(file, &[]).expect("a good file").warnings().join("\n");
    for said in
        ["act as tnt_demo", "reconnect after 45s", "peers on loopback: 1", "peer a: idempotent_create"]
    {
        assert!(warnings.contains(said), "{said}: {warnings}");
    }
    assert!(!warnings.contains("marked local"), "{warnings}");
}

/// What is told of two peers that prove themselves by these.
fn two_peers(first: &str, second: &str) -> Vec<String> {
    let file = format!(
        "[[peers]]\npeer_id = 'a'\nbase_url = 'https://h'\n{first}\n\
         [[peers]]\npeer_id = 'b'\nbase_url = 'https://i'\n{second}"
    );
    load(&file, &[]).err().map_or(Vec::new(), |errors| mistakes(Err(errors)))
}

#[test]
fn no_two_peers_prove_themselves_by_the_same() {
    let key = "public_key = 'ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'";
    let other = "public_key = 'ed25519:PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw'";
    let pin = format!("certificate = 'sha256:{}'", "0a".repeat(32));
    assert_eq!(two_peers(key, other), Vec::<String>::new());
    assert_eq!(two_peers(&pin, other), Vec::<String>::new());
    for (shared, name) in [(key, "public_key"), (&pin, "certificate")] {
        let told = two_peers(shared, shared);
        let expected = format!(":8:1: peers.b.{name}: is that of peer a already: each peer has its own");
        assert_eq!(told, [expected]);
    }
    let text = key.split('\'').nth(1).expect("a key");
    let same_key = SpkiPin::of_ed25519(PublicKey::parse(text).expect("a key").as_bytes());
    let told = two_peers(key, &format!("certificate = '{same_key}'"));
    assert!(
        told.len() == 1 && told[0].contains("peers.b.certificate: is that of peer a already"),
        "{told:?}"
    );
    let names = "tls_name = 'h.example'\n[[peers]]\npeer_id = 'c'\nbase_url = 'https://j'";
    let told = two_peers(names, "tls_name = 'H.example'");
    assert_eq!(told.iter().filter(|line| line.contains("is that of peer")).count(), 1, "{told:?}");
}

#[test]
fn bridges_are_read_and_their_mistakes_told() {
    // M-20: a bridge is typed, by foreign domain.
    let file = "[policy]\nfederation_mode = 'bridging'\nallowed_foreign_domains = ['acme']\n\
                [bridges.'globex.example']\nallowed_peers = ['b']\noperations = ['forward_out', 'ingest']\n\
                [[peers]]\npeer_id = 'a'\nbase_url = 'https://h'\ndomain = 'acme'\n\
                [[peers]]\npeer_id = 'b'\nbase_url = 'https://i'\ndomain = 'globex.example'";
    let config = load(file, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.bridges["globex.example"].operations, [Operation::ForwardOut, Operation::Ingest]);
    let policy = config.to_policy();
    assert_eq!(policy.mode, FederationMode::Bridging);
    assert_eq!(policy.bridges["globex.example"].allowed_peers[0].as_str(), "b");
    assert!(!config.warnings().join("\n").contains("bridge"), "a bridge that works is no warning"); // M-20
    let idle = "[bridges.acme]\noperations = ['ingest']";
    let warnings = load(idle, &[]).expect("a good file").warnings().join("\n");
    assert!(warnings.contains("bridges do nothing before it is \"bridging\""), "{warnings}");

    let not_named = file.replace("['b']", "['c']");
    let told = mistakes(load(&not_named, &[]));
    assert!(told.len() == 1 && told[0].contains("the bridge's allowed_peers do not name it"), "{told:?}");
    for (file, told) in [
        ("[bridges]\noperations = ['ingest']", ":2:1: bridges.operations: a list is not a bridge"),
        ("bridges = 1", ":1:1: bridges: 1 is not a table of bridges: write [bridges.\"<domain>\"]"),
        ("[[bridges]]", "bridges: a list is not a table of bridges"),
        ("[bridges.'a b']", ":1:10: bridges: \"a b\" is not a domain"),
        (
            "[bridges.acme]\npeers = ['b']",
            ":2:1: bridges.acme.peers: unknown key; a bridge has allowed_peers",
        ),
        (
            "[bridges.acme]\noperation = ['b']",
            "bridges.acme.operation: unknown key; did you mean `operations`?",
        ),
        ("[bridges.acme]\noperations = ['send']", ":2:1: bridges.acme.operations: unknown variant `send`"),
        ("[bridges.acme]\nallowed_peers = 'b'", "expected a sequence"),
        ("[bridges.acme]\nallowed_peers = ['']", "bridges.acme.allowed_peers: \"\" is not an id"),
        ("[bridges.default]", ":1:10: bridges: \"default\" is this gateway's own domain"),
        ("[bridges.acme]\n[policy.federation_bridge_config.acme]", "bridges.acme: is given twice, first at "),
    ] {
        let found = mistakes(load(file, &[]));
        assert!(found.len() == 1 && found[0].contains(told), "{file:?}: {found:?} lacks {told:?}");
    }
    let by_variable = mistakes(load("", &[("CAUSEWAY_BRIDGES_ACME", "x")]));
    assert!(by_variable[0].contains("unknown variable"), "{by_variable:?}");
}

#[test]
fn the_names_of_mpreg_say_the_same_as_the_native_ones() {
    for (ours, theirs) in [
        ("federation_mode = 'strict'", "allow_cross_federation_connections = false"), // M-21
        ("federation_mode = 'bridging'", "allow_cross_federation_connections = true"), // M-21
        ("allowed_foreign_domains = ['a', 'b']", "allowed_foreign_cluster_ids = ['a', 'b']"), // M-24
        ("domain = 'acme'", "cluster_id = 'acme'"),                                   // M-01
    ] {
        let native = load(&format!("[policy]\n{ours}"), &[]).expect("native");
        assert_eq!(load(&format!("[policy]\n{theirs}"), &[]), Ok(native.clone()), "{theirs}");
        let both = load(&format!("[policy]\n{theirs}\n{ours}"), &[]);
        assert_eq!(both, Ok(native), "{theirs} beside {ours}");
    }
    // M-25
    let ours = "[bridges.acme]\nallowed_peers = ['a']\noperations = ['ingest']\n[bridges.'b.example']";
    let theirs = ours.replace("[bridges", "[policy.federation_bridge_config");
    assert_eq!(load(&theirs, &[]), Ok(load(ours, &[]).expect("native")));
    assert_eq!(load(&theirs, &[]).expect("MPREG").bridges.len(), 2);

    for (keys, told) in [
        (
            "federation_mode = 'open'\nallow_cross_federation_connections = true",
            ":3:1: policy.allow_cross_federation_connections: true means policy.federation_mode = \"bridging\" \
             and contradicts \"open\" from ",
        ),
        (
            "federation_mode = 'bridging'\nallow_cross_federation_connections = false",
            "contradicts \"bridging\"",
        ),
        ("allow_cross_federation_connections = 'yes'", "\"yes\" is neither true nor false"),
        ("domain = 'a'\ncluster_id = 'b'", ":3:1: policy.domain: \"b\" contradicts \"a\" from "),
        (
            "allowed_foreign_domains = ['a']\nallowed_foreign_cluster_ids = ['b']",
            "policy.allowed_foreign_domains: a list contradicts a list from ",
        ),
        ("federation_bridge_config = []", "a list is not a table of bridges, by foreign domain"),
        (
            "federation_bridge_config.acme.roles = ['hub']",
            ":2:31: bridges.acme.roles: unknown key; a bridge has allowed_peers, operations",
        ),
        ("cluster_id = 'a b'", ":2:1: policy.domain: \"a b\" is not a domain"),
        ("allowed_foreign_cluster_ids = ['']", "policy.allowed_foreign_domains: \"\" is not a domain"),
    ] {
        let found = mistakes(load(&format!("[policy]\n{keys}"), &[]));
        assert!(found.len() == 1 && found[0].contains(told), "{keys:?}: {found:?} lacks {told:?}");
    }
    let file = "[policy]\nallow_cross_federation_connections = true";
    let config = load(file, &[("CAUSEWAY_POLICY_FEDERATION_MODE", "strict")]).expect("a variable wins");
    assert_eq!(config.policy.federation_mode, FederationMode::Strict);
}

#[test]
fn keys_certificates_and_issuers_fit_together_or_are_told() {
    let material = Material::new();
    for good in [
        "[server]\ntls = 'own'\ntls_cert_file = '@cert.pem'\ntls_key_file = '@key.pem'",
        "[server]\ntls = 'terminated-upstream'\ntrusted_proxies = ['10.0.0.5', '10.0.1.0/24']",
        "[peering]\nlisten = '0.0.0.0:8443'\ncert_file = '@cert.pem'\ncert_key_file = '@key.pem'\n\
         ca_file = '@cert.pem'\nrequire_mtls = true\n[[peers]]\npeer_id = 'a'\nbase_url = 'https://h'\n\
         kind = 'gateway'\ntls_name = 'h.example'\noperations = ['ingest']",
        "[jwt]\npublic_key_file = '@issuer.pem'\nissuer = 'https://issuer.example'\naudience = 'causeway'",
        "[audit]\nsink = 'file:@audit.jsonl'",
    ] {
        let config = load(&material.fill(good), &[]).unwrap_or_else(|errors| panic!("{good}: {errors}"));
        assert_ne!(config, Config::default(), "{good}");
        assert_eq!(load(&config.to_toml(), &[]), Ok(config), "{good}");
    }
    for (file, told) in [
        (
            "[server]\ntls = 'own'",
            ":2:1: server.tls: \"own\" needs server.tls_cert_file and server.tls_key_file",
        ),
        (
            "[server]\ntls = 'own'\ntls_cert_file = '@cert.pem'",
            "server.tls_cert_file: needs server.tls_key_file",
        ),
        (
            "[server]\ntls = 'own'\ntls_key_file = '@key.pem'",
            "server.tls_key_file: needs server.tls_cert_file",
        ),
        (
            "[server]\ntls = 'own'\ntls_cert_file = '@cert.pem'\ntls_key_file = '@other-key.pem'",
            "other-key.pem: does not belong to the certificate in ",
        ),
        (
            "[server]\ntls = 'own'\ntls_cert_file = '@none.pem'\ntls_key_file = '@key.pem'",
            ":3:1: server.tls_cert_file: ",
        ),
        ("[server]\ntls_cert_file = '@cert.pem'", "is not used while server.tls is \"none\""),
        (
            "[server]\ntls = 'terminated-upstream'",
            "server.tls: \"terminated-upstream\" needs server.trusted_proxies",
        ),
        ("[server]\ntls = 'upstream'", "server.tls: unknown variant `upstream`"),
        ("[peering]\ncert_file = '@cert.pem'", "peering.cert_file: needs peering.cert_key_file"),
        ("[peering]\ncert_key_file = '@key.pem'", "peering.cert_key_file: needs peering.cert_file"),
        ("[peering]\ncert_file = '@cert.pem'\ncert_key_file = '@empty.pem'", ":3:1: peering.cert_key_file: "),
        ("[peering]\nca_file = '@empty.pem'", "empty.pem: holds no certificate in PEM"),
        ("[peering]\nrequire_mtls = true", "true is not allowed without peering.listen"),
        ("[peering]\nrequire_mtls = 'yes'", "\"yes\" is neither true nor false"),
        ("[peering]\nlisten = '127.0.0.1:8080'", "peering.listen: 127.0.0.1:8080 is server.listen"),
        (
            "[peering]\nlisten = '0.0.0.0:8443'\nrequire_mtls = true\n[[peers]]\npeer_id = 'a'\n\
             base_url = 'http://h'\nkind = 'gateway'",
            "peers.a.base_url: plain http is not allowed: peering.require_mtls asks for mutual TLS",
        ),
        (
            "[peering]\nlisten = '127.0.0.1:8443'\n[[peers]]\npeer_id = 'a'\n\
             base_url = 'https://127.0.0.1:8443'",
            "is this gateway itself (peering.listen)",
        ),
        (
            "[peering]\ncert_key_file = \"-----BEGIN PRIVATE KEY-----\\nhunter2\"",
            "peering.cert_key_file: holds a key or a certificate itself: write it to a file",
        ),
        (
            "[jwt]\npublic_key_file = '@issuer.pem'",
            ":2:1: jwt.public_key_file: needs jwt.issuer and jwt.audience",
        ),
        ("[jwt]\npublic_key_file = '@issuer.pem'\naudience = 'a'", "needs jwt.issuer: a token"),
        ("[jwt]\npublic_key_file = '@none.pem'", "none.pem cannot be read: "),
        ("[jwt]\nissuer = 'a'", "jwt.issuer: does nothing without keys: set jwt.public_key_file"),
        (
            "[jwt]\npublic_key_file = '@key.pem'\nissuer = 'a'\naudience = 'b'",
            "key.pem: holds a block \"PRIVATE KEY\"",
        ),
        ("[jwt]\njwks_file = '@issuer.pem'\nissuer = 'a'\naudience = 'b'", "is not a JWK set at line 1"),
        (
            "[jwt]\npublic_key_file = '@issuer.pem'\njwks_file = '@issuer.pem'\nissuer = 'a'\naudience = 'b'",
            ":3:1: jwt.jwks_file: jwt.public_key_file is given too",
        ),
        ("[jwt]\nleeway = '6m'", "jwt.leeway: 6m is not allowed: it must be at most 5m"),
        ("[jwt]\ntenant_claim = ''", "jwt.tenant_claim: \"\" is not a claim"),
        //
        ("[introductions]\nmax_pending = 0", "introductions.max_pending: 0 is not allowed"),
        ("[introductions]\nhubs = ['hub']", ":2:1: introductions.hubs: "),
        (
            "[introductions]\nhubs = [{ name = 'hub', public_key = 'ed25519:x', domains = ['a'] }]",
            "introductions.hubs: \"ed25519:x\" is not a public key",
        ),
        (
            "[introductions]\nhubs = [{ name = 'a b', public_key = 'ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo', domains = ['a'] }]",
            "is not a hub's name",
        ),
        (
            "[introductions]\nhubs = [{ name = 'hub', public_key = 'ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo', domains = [] }]",
            "needs domains",
        ),
        (
            "[[introductions.hubs]]\nname = 'a'\npublic_key = 'ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'\ndomains = ['a']\n\
             [[introductions.hubs]]\nname = 'b'\npublic_key = 'ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'\ndomains = ['a']",
            "the hub \"b\" has the name or the public_key of another",
        ),
        ("[audit]\nsink = 'syslog'", "audit.sink: \"syslog\" is no sink: write stdout, stderr or file:PATH"),
        ("[audit]\ncheckpoint_records = 0", "0 is not allowed: it must be from 1 to 1000000"),
        ("[server]\nmax_connections_per_network = 0", "0 is not allowed: it must be from 1 to 1000000"),
        ("[limits]\nstored_bytes = '2000000GiB'", "must be at most 1048576GiB, or 0 for no limit"),
        ("[limits]\nfailed_logins = '5'", "limits.failed_logins: "),
        (
            "[policy]\ndomain = ''",
            "policy.domain: \"\" is not a domain: write 1 to 128 visible ASCII characters",
        ),
        ("[policy]\nallowed_foreign_domains = ['a', 'b c']", "\"b c\" is not a domain"),
    ] {
        let found = mistakes(load(&material.fill(file), &[]));
        assert!(found.len() == 1 && found[0].contains(told), "{file:?}: {found:?} lacks {told:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }
}
