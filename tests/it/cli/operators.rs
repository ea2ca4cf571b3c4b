//! `token`, `key`, `peer`, `audit`, `gateway` and `config check --live`: offline, beside a running gateway, and
//! against one elsewhere.

use std::path::Path;

use super::*;
use crate::support::address::steady_address;

/// A gateway of profile prod with a data directory of its own.
struct Guarded {
    directory: TempDir,
    gateway: Served,
}

impl Guarded {
    async fn start() -> Self {
        Self::start_with("stk_site", "").await
    }

    async fn start_with(stack_id: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = format!(
            "[gateway]\nprofile = \"prod\"\nstack_id = \"{stack_id}\"\ndata_dir = \"{}\"\n\n\
             [server]\nlisten = \"127.0.0.1:0\"\n{more}",
            directory.path().join("data").display()
        );
        std::fs::write(directory.path().join("causeway.toml"), config).expect("a configuration");
        let gateway = serve(directory.path()).await;
        Guarded { directory, gateway }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An operator's command on this machine.
    async fn ask(&self, arguments: &[&str]) -> (i32, String, String) {
        let config = self.path("causeway.toml");
        causeway_says(&[arguments, &["--config", text(&config)]].concat()).await
    }

    /// The same, when it must succeed; what it says as JSON.
    async fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.ask(&[arguments, &["--json"]].concat()).await;
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// The status of a call with a token.
    async fn status(&self, path: &str, token: &str) -> u16 {
        let request = plain_client().get(format!("{}{path}", self.gateway.url)).bearer_auth(token);
        read(request.send().await.expect("an answer")).await.status
    }

    async fn stop(&mut self) {
        signal(&self.gateway.child, "-TERM").await;
        let status = tokio::time::timeout(PATIENCE, self.gateway.child.wait()).await.expect("in time");
        assert!(status.expect("a status").success());
    }
}

async fn serve(directory: &Path) -> Served {
    let config = directory.join("causeway.toml");
    Served::start(&["serve", "--config", text(&config)], &directory.join("gateway.log"), "ready on ").await
}

/// A command on a data directory without a configuration.
async fn offline(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    causeway_says(&[arguments, &["--data-dir", text(data)]].concat()).await
}

async fn offline_key(data: &Path) -> String {
    let (code, key, err) = offline(data, &["key", "show", "--bare"]).await;
    assert_eq!(code, 0, "{err}");
    key.trim().to_owned()
}

#[tokio::test]
async fn a_token_is_printed_alone_works_and_is_refused_once_revoked() {
    // R-11, Z-47
    let site = Guarded::start().await;
    let make = ["token", "create", "--tenant", "acme", "--principal", "bob", "--scopes", "runs:read"];
    let (code, out, err) = site.ask(&make).await;
    assert_eq!(code, 0, "{err}");
    let token = out.strip_suffix('\n').expect("a line");
    assert!(token.starts_with("cw_") && !token.contains(char::is_whitespace), "the token alone: {out}");
    assert!(err.contains("bob of acme"), "{err}");
    let (_, secret) = token.split_once('_').expect("a token");
    assert!(!err.contains(secret), "the secret is on standard output only: {err}");
    assert_eq!(site.status("/v1/federation/runs", token).await, 200);
    assert_eq!(site.status("/v1/federation/tokens", token).await, 403);
    let listed = site.json(&["token", "list"]).await;
    let id = listed["items"][0]["token_id"].as_str().expect("an id").to_owned();
    assert!(!listed.to_string().contains(token), "{listed}");
    let (code, out, err) = site.ask(&["token", "revoke", &id]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(site.status("/v1/federation/runs", token).await, 401);
    let (code, _, err) = site.ask(&["token", "revoke", "nobodyknows"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("no such token"), "{err}");
    let (code, out, _) = site.ask(&["token", "list"]).await;
    assert_eq!(code, 0);
    assert!(out.contains("revoked 20") && out.contains("acme") && out.contains("runs:read"), "{out}");
}

#[tokio::test]
async fn an_operators_token_opens_the_same_commands_from_elsewhere() {
    let site = Guarded::start().await;
    let file = site.path("alice.token");
    let (code, token, err) = site.ask(&["token", "create", "--admin", "--principal", "alice"]).await;
    assert_eq!(code, 0, "{err}");
    std::fs::write(&file, &token).expect("written");
    let url = site.gateway.url.as_str();
    let (code, out, err) =
        causeway_says(&["token", "list", "--url", url, "--token-file", text(&file), "--json"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("\"principal_id\":\"alice\""), "{out}");
    let by_variable =
        told(&run(causeway(&["key", "list", "--gateway", url]).env("CAUSEWAY_TOKEN", token.trim())).await);
    assert_eq!(by_variable.0, 0, "{}", by_variable.2);
    let (code, _, err) = causeway_says(&["token", "list", "--url", url]).await;
    assert_eq!(code, 1);
    assert!(err.contains("--token-file"), "{err}");
    // What alice did is in the trail under her name; nobody else's is.
    let add = ["peer", "add", "orc_b", "--url", "https://orc.example", "--tenants", "*", "--gateway", url];
    let (code, _, err) = causeway_says(&[&add[..], &["--token-file", text(&file)]].concat()).await;
    assert_eq!(code, 0, "{err}");
    let trail = site.json(&["audit", "list", "--subject", "operator:alice"]).await;
    assert_eq!(trail["items"].as_array().map(Vec::len), Some(1), "{trail}");
    assert_eq!(trail["items"][0]["action"], "peer.enrol");
    let (code, _, err) = causeway_says(&["key", "show", "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(code, 69, "{err}");
    let (code, _, err) =
        causeway_says(&["key", "show", "--url", "http://192.0.2.1", "--token-file", text(&file)]).await;
    assert_eq!(code, 2, "a token never leaves in the clear");
    assert!(err.contains("plain http"), "{err}");
}

#[tokio::test]
async fn clients_show_their_token_and_name_it_in_the_lines_they_print() {
    let directory = tempfile::tempdir().expect("a directory");
    let orchestrator = Served::start(
        &["orchestrator", "--listen", "127.0.0.1:0", "--run-time", "100ms"],
        &directory.path().join("orchestrator.log"),
        "orchestrator: ",
    )
    .await;
    let peer = format!(
        "\n[[peers]]\npeer_id = \"orc\"\nbase_url = \"{}\"\nlocal = true\ntenants = [\"*\"]\n\
         allowed_addresses = [\"127.0.0.0/8\"]\n",
        orchestrator.url
    );
    let site = Guarded::start_with("stk_site", &peer).await;
    let scopes = "runs:forward,events:read";
    let make = ["token", "create", "--tenant", "acme", "--principal", "bob", "--scopes", scopes];
    let (code, token, err) = site.ask(&make).await;
    assert_eq!(code, 0, "{err}");
    let file = site.path("bob.token");
    std::fs::write(&file, &token).expect("written");
    let forward =
        ["forward", "--to", "orc", "--agent", "agt_demo", "--text", "hello", "--url", &site.gateway.url];
    let (code, _, err) = causeway_says(&forward).await;
    assert_eq!(code, 1, "without a token");
    assert!(err.contains("unauthorized"), "{err}");
    let (code, out, err) = causeway_says(&[&forward[..], &["--token-file", text(&file)]].concat()).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("--token-file {}", text(&file))), "{out}");
    let run_id = out.lines().find_map(|line| line.strip_prefix("run")).expect("a run").trim();
    let mut tail = causeway(&["tail", run_id, "--url", &site.gateway.url]);
    let (code, out, err) = told(&run(tail.env("CAUSEWAY_TOKEN", token.trim())).await);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("end: completed"), "{out}");
}

#[tokio::test]
async fn the_key_is_there_before_the_first_start_and_is_the_gateways_then() {
    //
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let (code, out, err) = offline(&data, &["key", "show"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("its key are new"), "{err}");
    let key = offline_key(&data).await;
    assert!(out.contains(&key) && key.starts_with("ed25519:"), "{out}");
    let (code, json, _) = offline(&data, &["key", "show", "--json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["keys"][0]["state"]), (0, &json!("present")));
    assert!(out.contains(json["certificate"].as_str().expect("a pin")), "{out}");
    let log = directory.path().join("gateway.log");
    let _gateway =
        Served::start(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&data)], &log, "ready on ")
            .await;
    assert_eq!(offline_key(&data).await, key);
}

#[tokio::test]
async fn a_rotation_is_announced_listed_and_taken_back_with_or_without_a_gateway() {
    //
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let (code, out, err) = offline(&data, &["key", "rotate", "--overlap", "1h"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("next"), "{out}");
    let (code, _, err) = offline(&data, &["key", "rotate"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("causeway key rotate --cancel"), "{err}");
    let log = directory.path().join("gateway.log");
    let _gateway =
        Served::start(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&data)], &log, "ready on ")
            .await;
    let (code, out, err) = offline(&data, &["key", "show"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("takes over at"), "{out}");
    assert_eq!(offline(&data, &["key", "rotate", "--cancel"]).await.0, 0);
    let (code, out, _) = offline(&data, &["key", "list"]).await;
    assert_eq!(code, 0);
    assert!(out.contains("present") && !out.contains("next"), "{out}");
    assert_eq!(offline(&data, &["key", "rotate", "--cancel"]).await.0, 1, "there is nothing to take back");
}

#[tokio::test]
async fn a_peer_is_enrolled_changed_and_cut_off_over_restarts_and_offline() {
    // F-26
    let mut site = Guarded::start().await;
    let key = offline_key(&site.path("other")).await;
    let add =
        ["peer", "add", "stk_b", "--url", "https://127.0.0.1:1", "--kind", "gateway", "--public-key", &key];
    let (code, _, err) = site.ask(&add).await;
    assert_eq!(code, 1, "profile prod grants no tenant by itself");
    assert!(err.contains("tenants"), "{err}");
    let more = [
        "--operations",
        "forward_in,forward_out",
        "--tenants",
        "acme",
        "--name",
        "B",
        "--agents",
        "a*",
        "--allowed-addresses",
        "127.0.0.0/8",
    ];
    let (code, out, err) = site.ask(&[&add[..], &more].concat()).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("peer stk_b is enrolled") && out.contains("acme"), "{out}");
    let (code, _, err) =
        site.ask(&["peer", "update", "stk_b", "--tenants", "acme,beta", "--region", "west"]).await;
    assert_eq!(code, 0, "{err}");
    site.stop().await;
    // Nobody runs: the same commands work on the same directory.
    let peer = site.json(&["peer", "show", "stk_b"]).await["peer"].clone();
    assert_eq!(peer["grants"]["tenants"], json!(["acme", "beta"]));
    assert_eq!(
        peer["grants"]["operations"],
        json!(["forward_in", "forward_out"]),
        "what was not given stays"
    );
    assert_eq!((&peer["name"], &peer["region"]), (&json!("B"), &json!("west")));
    assert_eq!(peer["identity"]["public_keys"], json!([key]));
    let (code, out, err) = site.ask(&["peer", "revoke", "stk_b", "--reason", "laptop lost"]).await;
    assert_eq!((code, out.as_str()), (0, "peer stk_b is revoked\n"), "{err}");
    site.gateway = serve(site.directory.path()).await;
    let (code, out, _) = site.ask(&["peer", "list"]).await;
    assert_eq!(code, 0);
    assert!(out.contains("revoked"), "a restart changes nothing: {out}");
    let (_, out, _) = site.ask(&["peer", "show", "stk_b"]).await;
    assert!(out.contains("laptop lost"), "{out}");
    for (verb, standing) in [("reinstate", "active"), ("drain", "draining")] {
        let (code, out, err) = site.ask(&["peer", verb, "stk_b"]).await;
        assert_eq!((code, out), (0, format!("peer stk_b is {standing}\n")), "{err}");
    }
    assert_eq!(site.ask(&["peer", "remove", "stk_b"]).await.0, 0);
    for verb in ["show", "remove", "verify", "revoke", "update"] {
        let (code, _, err) = site.ask(&["peer", verb, "stk_b"]).await;
        assert_eq!(code, 1, "{verb}");
        assert!(err.contains("no such peer"), "{verb}: {err}");
    }
}

impl Guarded {
    /// With a door for peers, and health checks only when asked for.
    async fn with_peering(stack_id: &str) -> Self {
        let more = "[peering]\nlisten = \"127.0.0.1:0\"\nrequire_mtls = true\n\n\
                    [outbound]\nhealth_interval = \"1h\"\n";
        Self::start_with(stack_id, more).await
    }

    /// Where its peers come in, as its log says.
    fn peering(&self) -> String {
        let log = std::fs::read_to_string(self.path("gateway.log")).expect("the log");
        let line = log.lines().find(|line| line.contains("peers come in")).expect("a door for peers");
        let line: Value = serde_json::from_str(line).expect("JSON");
        format!("https://{}", line["fields"]["address"].as_str().expect("an address"))
    }

    async fn enrol(&self, id: &str, other: &Guarded, key: &str) {
        let (code, _, err) = self
            .ask(&[
                "peer",
                "add",
                id,
                "--kind",
                "gateway",
                "--tenants",
                "*",
                "--allowed-addresses",
                "127.0.0.0/8",
                "--operations",
                "forward_in,forward_out",
                "--url",
                &other.peering(),
                "--public-key",
                key,
            ])
            .await;
        assert_eq!(code, 0, "{err}");
    }

    async fn key(&self) -> String {
        let (code, key, err) = self.ask(&["key", "show", "--bare"]).await;
        assert_eq!(code, 0, "{err}");
        key.trim().to_owned()
    }
}

#[tokio::test]
async fn verify_is_zero_only_when_each_side_proved_itself_to_the_other() {
    //
    let mut left = Guarded::with_peering("stk_left").await;
    let right = Guarded::with_peering("stk_right").await;
    let (left_key, right_key) = (left.key().await, right.key().await);
    left.enrol("stk_right", &right, &right_key).await;
    let (code, out, err) = left.ask(&["peer", "verify", "stk_right"]).await;
    assert_eq!((code, out.as_str()), (1, ""), "the other side does not know this one");
    assert!(err.contains("peer stk_right: failing"), "{err}");
    let (code, out, err) = left.ask(&["config", "check", "--live"]).await;
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("stk_right: failing"), "{out}");
    right.enrol("stk_left", &left, &left_key).await;
    for (at, peer) in [(&left, "stk_right"), (&right, "stk_left")] {
        let (code, out, err) = at.ask(&["peer", "verify", peer]).await;
        assert_eq!((code, out), (0, format!("peer {peer}: healthy\n")), "{err}");
    }
    let (code, out, err) = left.ask(&["config", "check", "--live"]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("stk_right: healthy"), "{out}");
    // Without a gateway, the command asks as the gateway would.
    left.stop().await;
    let (code, out, err) = left.ask(&["config", "check", "--live", "--json"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        said["peers"],
        json!([{"peer_id": "stk_right", "ok": true, "state": "healthy", "reason": ""}])
    );
    // Revoked over there: asked at once, it is not let in.
    assert_eq!(right.ask(&["peer", "revoke", "stk_left"]).await.0, 0);
    let (code, out, _) = left.ask(&["config", "check", "--live", "--json"]).await;
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, &said["ok"], &said["peers"][0]["state"]),
        (1, &json!(false), &json!("failing")),
        "{said}"
    );
}

#[tokio::test]
async fn the_audit_is_whole_until_a_byte_of_it_is_flipped() {
    //
    let mut site = Guarded::start().await;
    let make = ["token", "create", "--tenant", "acme", "--principal", "bob", "--scopes", "runs:read"];
    for _ in 0..3 {
        assert_eq!(site.ask(&make).await.0, 0);
    }
    let (code, out, err) = site.ask(&["audit", "verify"]).await;
    assert_eq!(code, 0, "beside a running gateway: {err}");
    assert!(out.starts_with("ok: "), "{out}");
    site.stop().await;
    let (code, out, err) = site.ask(&["audit", "verify", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(said["ok"], true);
    assert_eq!(said["signed_through"], said["records"], "signed as it stopped: {said}");
    let database = site.path("data").join("causeway.db");
    // Everything into the one file, so that bytes can be flipped there.
    let connection = rusqlite::Connection::open(&database).expect("the database");
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
    drop(connection);
    let mut bytes = std::fs::read(&database).expect("the database");
    let places: Vec<usize> = find_all(&bytes, b"token.create");
    assert!(places.len() >= 3, "the records are in the file: {places:?}");
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(&database, &bytes).expect("written");
    let (code, out, err) = site.ask(&["audit", "verify"]).await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("does not match its hash"), "{err}");
    let (code, out, _) = site.ask(&["audit", "verify", "--json"]).await;
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &said["ok"]), (1, &json!(false)));
    let nowhere = site.path("nowhere");
    let (code, _, err) = offline(&nowhere, &["audit", "verify"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("does not exist") && !nowhere.exists(), "{err}");
}

fn find_all(bytes: &[u8], word: &[u8]) -> Vec<usize> {
    bytes.windows(word.len()).enumerate().filter(|(_, found)| *found == word).map(|(at, _)| at).collect()
}

#[tokio::test]
async fn a_copy_of_the_audit_tells_what_was_cut_off_or_changed() {
    //
    let directory = tempfile::tempdir().expect("a directory");
    let (data, copy) = (directory.path().join("data"), directory.path().join("audit.jsonl"));
    let sink = format!("file:{}", copy.display());
    let make = async |principal: &str| {
        let arguments = ["token", "create", "--admin", "--principal", principal, "--data-dir", text(&data)];
        let mut command = causeway(&arguments);
        let (code, _, err) = told(&run(command.env("CAUSEWAY_AUDIT_SINK", &sink)).await);
        assert_eq!(code, 0, "{err}");
    };
    let verify = async || offline(&data, &["audit", "verify", "--sink", text(&copy)]).await;
    make("alice").await;
    let backup = directory.path().join("before.db");
    assert_eq!(offline(&data, &["backup", text(&backup)]).await.0, 0);
    make("bob").await;
    make("carol").await;
    let (code, out, err) = verify().await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("the same 3 records"), "{out}");
    let whole = std::fs::read_to_string(&copy).expect("the copy");
    for (changed, said) in [
        (whole.replacen("\"bob", "\"eve", 1).replacen("token.create", "token.revoke", 1), "is another one"),
        (
            whole
                .lines()
                .filter(|line| !line.contains("\"audit_id\":2"))
                .map(|line| format!("{line}\n"))
                .collect(),
            "comes after",
        ),
        (format!("{whole}not a record\n"), "this is no record"),
    ] {
        std::fs::write(&copy, &changed).expect("written");
        let (code, _, err) = verify().await;
        assert_eq!(code, 1, "{said}");
        assert!(err.contains(said), "{said}: {err}");
    }
    // A line that is being written is none yet.
    std::fs::write(&copy, format!("{whole}{{\"audit_id\":4")).expect("written");
    assert_eq!(verify().await.0, 0);
    // The database as it was before: its own chain is whole, and the copy knows better.
    std::fs::write(&copy, &whole).expect("written");
    let keys = directory.path().join("keys");
    std::fs::rename(data.join("keys"), &keys).expect("moved");
    std::fs::remove_dir_all(&data).expect("removed");
    assert_eq!(offline(&data, &["restore", text(&backup)]).await.0, 0);
    std::fs::rename(&keys, data.join("keys")).expect("moved back");
    assert_eq!(offline(&data, &["audit", "verify"]).await.0, 0, "nothing is wrong with what is left");
    let (code, _, err) = verify().await;
    assert_eq!(code, 1);
    assert!(err.contains("record 2 is in the copy and not in the database"), "{err}");
    let (code, _, err) = offline(&data, &["audit", "verify", "--sink", "/nonexistent"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("/nonexistent cannot be read"), "{err}");
}

#[tokio::test]
async fn intake_is_held_and_taken_again_while_a_gateway_runs() {
    //
    let mut site = Guarded::start().await;
    assert_eq!(site.status("/readyz", "").await, 200);
    let (code, out, err) = site.ask(&["gateway", "drain"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("draining"), "{out}");
    assert_eq!(site.status("/readyz", "").await, 503);
    let (code, out, _) = site.ask(&["gateway", "resume"]).await;
    assert_eq!(code, 0);
    assert!(out.starts_with("takes new work"), "{out}");
    assert_eq!(site.status("/readyz", "").await, 200);
    site.stop().await;
    let (code, _, err) = site.ask(&["gateway", "drain"]).await;
    assert_eq!(code, 69, "there is none to drain");
    assert!(err.contains("no gateway runs on"), "{err}");
}

#[tokio::test]
async fn a_gateway_whose_socket_is_gone_is_said_to_be_there() {
    let site = Guarded::start().await;
    std::fs::remove_file(site.path("data").join("control.sock")).expect("removed");
    let (code, _, err) = site.ask(&["key", "show"]).await;
    assert_eq!(code, 69);
    assert!(err.contains("a gateway is at work on") && err.contains("--token-file"), "{err}");
}

#[tokio::test]
async fn commands_at_the_same_time_take_turns_on_a_directory_without_a_gateway() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    offline_key(&data).await;
    let make = |principal: &'static str| {
        let data = data.clone();
        async move { offline(&data, &["token", "create", "--admin", "--principal", principal]).await }
    };
    let (a, b, c) = tokio::join!(make("a"), make("b"), make("c"));
    for (code, token, err) in [a, b, c] {
        assert_eq!(code, 0, "{err}");
        assert!(token.starts_with("cw_"));
    }
    let (_, out, _) = offline(&data, &["token", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(3), "{listed}");
}

#[tokio::test]
async fn a_long_path_is_no_reason_to_refuse_and_nothing_is_left_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, temporary) = (directory.path().join("d".repeat(120)), directory.path().join("tmp"));
    std::fs::create_dir(&temporary).expect("a directory");
    let mut command = causeway(&["key", "show", "--bare", "--data-dir", text(&data)]);
    let (code, out, err) = told(&run(command.env("TMPDIR", &temporary)).await);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("ed25519:"), "{out}");
    assert_eq!(std::fs::read_dir(&temporary).expect("readable").count(), 0);
    assert!(!data.join("command.sock").exists());
}

#[tokio::test]
async fn another_users_directory_is_left_to_that_user() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    // Only the superuser can give a directory away.
    if std::os::unix::fs::chown(&data, Some(4711), None).is_err() {
        return;
    }
    let (code, _, err) = offline(&data, &["token", "create", "--admin", "--principal", "alice"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("belongs to the user 4711"), "{err}");
    assert_eq!(std::fs::read_dir(&data).expect("readable").count(), 0, "nothing was made in it");
}

#[tokio::test]
async fn a_gateway_with_tls_is_found_ready_and_trusted_by_its_authority() {
    // Z-48
    let directory = tempfile::tempdir().expect("a directory");
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate =
        rcgen::CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate");
    let (chain, private) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    std::fs::write(&chain, certificate.pem()).expect("written");
    std::fs::write(&private, key.serialize_pem()).expect("written");
    let tls = format!(
        "tls = \"own\"\ntls_cert_file = \"{}\"\ntls_key_file = \"{}\"\n",
        chain.display(),
        private.display()
    );
    let site = Guarded::start_with("stk_site", &tls).await;
    let url = site.gateway.url.clone();
    let listen = url.strip_prefix("https://").expect("it says how it is spoken to").to_owned();
    let config = site.path("causeway.toml");
    let mut check = causeway(&["healthcheck", "--config", text(&config)]);
    let (code, out, err) = told(&run(check.env("CAUSEWAY_LISTEN", &listen)).await);
    assert_eq!((code, out.as_str()), (0, "ready\n"), "{err}");
    let token = site.path("alice.token");
    let (code, made, err) = site.ask(&["token", "create", "--admin", "--principal", "alice"]).await;
    assert_eq!(code, 0, "{err}");
    std::fs::write(&token, made).expect("written");
    let list = ["token", "list", "--url", &url, "--token-file", text(&token)];
    let (code, _, err) = causeway_says(&list).await;
    assert_eq!(code, 69, "nobody vouches for it: {err}");
    let (code, out, err) = causeway_says(&[&list[..], &["--ca-file", text(&chain)]].concat()).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("alice"), "{out}");
}

// M-03
#[tokio::test]
async fn what_a_gateway_is_joined_to_and_what_wants_attention_is_a_table() {
    let closed = steady_address();
    let more = format!(
        "\n[alerts]\ninterval = \"100ms\"\npatience = \"100ms\"\n\n[outbound]\nhealth_interval = \"100ms\"\n\n\
         [[peers]]\npeer_id = \"stk_far\"\nbase_url = \"http://{closed}\"\ntenants = [\"acme\"]\n\
         allowed_addresses = [\"127.0.0.0/8\"]\n"
    );
    let mut site = Guarded::start_with("stk_site", &more).await;
    let mut answer = (0, String::new(), String::new());
    for _ in 0..250 {
        answer = site.ask(&["alerts"]).await;
        if answer.1.contains("peer_unreachable") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party through its CLI
    }
    let (code, out, err) = answer;
    assert!(code == 0 && out.contains("warning") && out.contains("peer:stk_far"), "{code} {out}{err}");
    let (code, out, err) = site.ask(&["links"]).await;
    assert!(code == 0 && out.contains("unreachable") && out.contains("cannot connect"), "{code} {out}{err}");
    let (code, out, err) = site.ask(&["topology"]).await;
    assert!(code == 0 && out.contains("stk_site") && out.contains("forward_out"), "{code} {out}{err}");
    let (code, out, err) = site.ask(&["deliveries", "--peer", "stk_far", "--state", "expired"]).await;
    assert!(code == 0 && out.is_empty() && err.contains("no such forward"), "{code} {out}{err}");
    assert_eq!(site.json(&["topology"]).await["topology"]["nodes"][1]["node_id"], "stk_far");
    assert_eq!(site.json(&["links"]).await["items"][0]["state"], "unreachable");
    assert_eq!(site.json(&["deliveries"]).await["items"], serde_json::json!([]));
    site.stop().await;
    let (code, _, err) = site.ask(&["alerts"]).await;
    assert!(code == 69 && err.contains("no gateway runs"), "{code} {err}");
}

// M-04: over TLS a webhook must show a certificate that the machine trusts.
#[tokio::test]
async fn a_webhook_over_tls_is_told_only_when_its_certificate_is_trusted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    crate::client_tls::write_certificate(directory.path());
    let config = crate::client_tls::tls_config(directory.path());
    // Another gateway stands in for the webhook: it answers 404, which only who trusts it hears.
    let receiver = crate::support::gateway::TestGateway::start_with(config, Vec::new()).await;
    std::fs::write(path("webhook.secret"), "whsec_Y2FuYXJ5LW9mLXRoZS13ZWJob29rLXNlY3JldC05MDAx")
        .expect("written");
    let config = format!(
        "[gateway]\nprofile = \"prod\"\nstack_id = \"stk_site\"\ndata_dir = \"{}\"\n\n[server]\n\
         listen = \"127.0.0.1:0\"\n\n[alerts]\ninterval = \"50ms\"\nwebhook_attempts = 1\n\
         webhook_urls = [\"https://localhost:{}/hook\"]\nwebhook_secret_file = \"{}\"\n\
         webhook_allowed_addresses = [\"127.0.0.0/8\", \"::1/128\"]\n",
        path("data").display(),
        receiver.address().port(),
        path("webhook.secret").display(),
    );
    std::fs::write(path("causeway.toml"), config).expect("a configuration");
    let (config, log, trusted) = (path("causeway.toml"), path("gateway.log"), path("tls.crt"));
    for (variables, reason) in
        [(vec![("SSL_CERT_FILE", text(&trusted))], "answered 404"), (Vec::new(), "TLS: foreign certificate")]
    {
        let arguments = ["serve", "--config", text(&config)];
        let mut gateway = Served::start_under(&variables, &arguments, &log, "ready on ").await;
        let (code, _, err) = causeway_says(&["gateway", "drain", "--config", text(&config)]).await;
        assert_eq!(code, 0, "{err}");
        let told = async {
            while !std::fs::read_to_string(&log).expect("the log").contains("a webhook was not told") {
                tokio::time::sleep(Duration::from_millis(20)).await; // why: polling another party's log
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("it tried");
        let heard = std::fs::read_to_string(&log).expect("the log");
        let line = heard.lines().find(|line| line.contains("a webhook was not told")).expect("a line");
        assert!(line.contains(reason) && line.contains("localhost"), "{line}");
        assert!(!heard.contains("Y2FuYXJ5"), "{heard}");
        signal(&gateway.child, "-TERM").await;
        let status = tokio::time::timeout(PATIENCE, gateway.child.wait()).await.expect("in time");
        assert!(status.expect("a status").success());
    }
}
