//! The profiles: what `prod` refuses, one setting at a time and all of them at once, and what `dev` allows.

use std::collections::BTreeSet;

use causeway::config::{Config, ConfigErrors, Origin};
use toml::{Table, Value};

use crate::config::{Material, load, mistakes};

/// A gateway between organisations: TLS toward everybody, peers of two domains, an orchestrator of its own.
const SAFE: &str = "
[gateway]
profile = 'prod'
stack_id = 'acme-eu-1'
[server]
listen = '0.0.0.0:443'
admin_listen = '127.0.0.1:9100'
tls = 'own'
tls_cert_file = '@cert.pem'
tls_key_file = '@key.pem'
[policy]
domain = 'acme'
federation_mode = 'bridging'
allowed_foreign_domains = ['globex']
[peering]
listen = '0.0.0.0:8443'
require_mtls = true
[[peers]]
peer_id = 'orchestrator'
base_url = 'http://10.1.2.3:9090'
local = true
tenants = ['*']
allowed_addresses = ['10.1.2.3']
[[peers]]
peer_id = 'globex'
base_url = 'https://causeway.globex.example'
kind = 'gateway'
domain = 'globex'
public_key = 'ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'
operations = ['forward_in', 'forward_out', 'ingest']
tenants = ['tnt_shared']
[[peers]]
peer_id = 'branch'
base_url = 'https://branch.acme.example'
kind = 'gateway'
public_key = 'ed25519:PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw'
tenants = ['tnt_a', 'tnt_b']
[[peers]]
peer_id = 'remote'
base_url = 'https://runs.example'
tenants = ['tnt_a']
";

/// Keys with the values that make the safe configuration unsafe; the key that is named; what is said of it.
type Unsafe = (&'static [(&'static str, &'static str)], &'static str, &'static str);

// Z-39, Z-41
const UNSAFE: [Unsafe; 11] = [
    (&[("gateway.stack_id", "'stk_local'")], "gateway.stack_id", "give this one a name of its own"), // R-41
    (&[("gateway.default_tenant", "'tnt_demo'")], "gateway.default_tenant", "its credential says"),
    (
        &[("server.tls", "'none'"), ("server.tls_cert_file", "''"), ("server.tls_key_file", "''")],
        "server.listen",
        "0.0.0.0:443 is not allowed without TLS",
    ),
    (&[("server.admin_listen", "'0.0.0.0:9100'")], "server.admin_listen", "must be a loopback address"),
    (&[("server.trusted_proxies", "['::/0']")], "server.trusted_proxies", "makes everybody a proxy"),
    (&[("policy.federation_mode", "'open'")], "policy.federation_mode", "write \"bridging\""),
    (
        &[("peers.orchestrator.allowed_addresses", "[]")],
        "peers.orchestrator.base_url",
        "plain http is for a network that is trusted",
    ),
    (&[("peers.globex.public_key", "''")], "peers.globex.operations", "needs an identity"),
    (&[("peers.branch.public_key", "''")], "peers.branch.public_key", "a gateway needs an identity"),
    (&[("peers.branch.tenants", "[]")], "peers.branch.tenants", "grants no tenant by itself"),
    (
        &[("peers.remote.base_url", "'https://169.254.169.254'")],
        "peers.remote.allowed_addresses",
        "the address 169.254.169.254 is not public (metadata)",
    ),
];

/// Gives keys of a configuration other values.
fn change(document: &mut Table, changes: &[(&str, &str)]) {
    for (key, value) in changes {
        let parsed: Table = format!("value = {value}").parse().expect("a value");
        let (section, name) = key.rsplit_once('.').expect("a section");
        let table = match section.strip_prefix("peers.") {
            None => document[section].as_table_mut(),
            Some(id) => document["peers"]
                .as_array_mut()
                .and_then(|peers| peers.iter_mut().find(|peer| peer["peer_id"].as_str() == Some(id)))
                .and_then(Value::as_table_mut),
        };
        table.expect("a table").insert(name.to_owned(), parsed["value"].clone());
    }
}

fn safe(material: &Material) -> Table {
    material.fill(SAFE).parse().expect("TOML")
}

/// The keys that are told, and the variables.
fn told(loaded: Result<Config, ConfigErrors>) -> BTreeSet<String> {
    let errors = loaded.expect_err("unsafe");
    let name = |error: &causeway::config::ConfigError| match &error.origin {
        Origin::Variable(name) => name.clone(),
        _ => error.key.clone(),
    };
    errors.as_slice().iter().map(name).collect()
}

#[test]
fn a_safe_configuration_starts_as_prod() {
    let material = Material::new();
    let text = safe(&material).to_string();
    let config = load(&text, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(load(&config.to_toml(), &[]), Ok(config));
    // The smallest one, with a proxy in front of it, or for this machine alone.
    let small = "[gateway]\nprofile = 'prod'\nstack_id = 'acme-eu-1'";
    assert!(load(small, &[]).is_ok());
    let behind = format!(
        "{small}\n[server]\nlisten = '0.0.0.0:80'\ntls = 'terminated-upstream'\n\
                          trusted_proxies = ['10.0.0.5']"
    );
    assert!(load(&behind, &[]).is_ok());
    let metrics = [("AGENTOS_METRICS_REQUIRE_AUTH", "1"), ("AGENTOS_PROFILE", "prod")];
    assert!(load(small, &metrics).is_ok(), "under prod metrics are for operators");
}

#[test]
fn prod_names_each_unsafe_setting_alone() {
    let material = Material::new();
    for (changes, key, said) in UNSAFE {
        let mut document = safe(&material);
        change(&mut document, changes);
        let loaded = load(&document.to_string(), &[]);
        let lines = mistakes(loaded.clone());
        assert!(lines.len() == 1 && lines[0].contains(said), "{key}: {lines:?} lacks {said:?}");
        assert_eq!(told(loaded), BTreeSet::from([key.to_owned()]));
    }
    let unnamed = load("[gateway]\nprofile = 'prod'", &[]);
    assert_eq!(told(unnamed), BTreeSet::from(["gateway.stack_id".to_owned()])); // R-41
    for variable in ["AGENTOS_FED_AUTH_DISABLED", "AGENTOS_ALLOW_DEV_HEADERS"] {
        let text = safe(&material).to_string();
        let lines = mistakes(load(&text, &[(variable, "1")]));
        assert!(lines.len() == 1 && lines[0].starts_with(variable), "{lines:?}");
        assert!(load(&text, &[(variable, "0")]).is_ok(), "{variable}");
    }
}

#[test]
fn prod_names_all_unsafe_settings_at_once() {
    let material = Material::new();
    let mut document = safe(&material);
    for (changes, _, _) in UNSAFE {
        change(&mut document, changes);
    }
    let variables = ["AGENTOS_FED_AUTH_DISABLED", "AGENTOS_ALLOW_DEV_HEADERS"];
    let keys = UNSAFE.iter().map(|(_, key, _)| *key);
    let expected: BTreeSet<String> = keys.chain(variables).map(str::to_owned).collect();
    assert_eq!(told(load(&document.to_string(), &variables.map(|name| (name, "1")))), expected);
}

#[test]
fn dev_takes_the_unsafe_settings_but_stays_on_loopback() {
    let material = Material::new();
    let mut document = safe(&material);
    for (changes, _, _) in UNSAFE.iter().filter(|(_, key, _)| !key.starts_with("peers.globex")) {
        change(&mut document, changes);
    }
    change(&mut document, &[("gateway.profile", "'dev'")]);
    // A peer that comes in proves who it is under every profile, and peers come in at any address.
    let expected = BTreeSet::from(["server.listen".to_owned(), "server.admin_listen".to_owned()]);
    assert_eq!(told(load(&document.to_string(), &[])), expected);
    let loopback = [("server.listen", "'127.0.0.1:443'"), ("server.admin_listen", "'[::1]:9100'")];
    change(&mut document, &loopback);
    assert!(load(&document.to_string(), &[]).is_ok());
    change(&mut document, &[("peers.globex.public_key", "''")]);
    let lines = mistakes(load(&document.to_string(), &[]));
    assert!(lines.len() == 1 && lines[0].contains("peers.globex.operations"), "{lines:?}");
}

#[test]
fn a_peers_file_alone_is_not_enough_for_prod() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = directory.path().join("peers.json");
    let json =
        r#"[{"stack_id": "stk_b", "endpoints": {"agent-orchestrator_base_url": "https://b.example"}}]"#;
    std::fs::write(&path, json).expect("a file");
    let file =
        format!("[gateway]\nprofile = 'prod'\nstack_id = 'acme-eu-1'\npeers_file = '{}'", path.display());
    let lines = mistakes(load(&file, &[]));
    assert!(lines.len() == 1 && lines[0].contains("peers.json:1:2: peers.stk_b.tenants: "), "{lines:?}");
    assert!(lines[0].contains("write the peer as [[peers]]"), "{lines:?}");
    let beside = "\n[[peers]]\npeer_id = 'stk_b'\nbase_url = 'https://b.example'\ntenants = ['*']";
    assert!(load(&format!("{file}{beside}"), &[]).is_ok());
}

#[test]
fn warnings_say_what_prod_leaves_open() {
    let material = Material::new();
    let small = "[gateway]\nprofile = 'prod'\nstack_id = 'acme-eu-1'";
    let warnings = load(small, &[]).expect("safe").warnings().join("\n");
    for said in [
        "server.tls is \"none\"",
        "no limit is set by limits.peer, limits.tenant, limits.principal",
        "no limit is set by limits.runs_per_day, limits.concurrent_runs, limits.stored_bytes",
        "no peer is marked local",
    ] {
        assert!(warnings.contains(said), "{said}: {warnings}");
    }
    assert!(!warnings.contains("profile dev") && !warnings.contains("failed_logins"), "{warnings}");
    let bounded = format!(
        "{}[limits]\npeer = '100/s'\ntenant = '100/s'\nprincipal = '50/s'\nruns_per_day = 1000\n\
         concurrent_runs = 25\nstored_bytes = '10GiB'",
        material.fill(SAFE)
    );
    assert_eq!(load(&bounded, &[]).expect("safe").warnings(), Vec::<String>::new());
}
