//! `serve`, `config`, `healthcheck`, `openapi`, `backup` and `restore`.

use super::*;

#[tokio::test]
async fn config_check_names_every_mistake_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("causeway.toml");
    std::fs::write(&file, "[server]\nlisten = \"0.0.0.0:1\"\nlisenn = 1\n\n[forward]\ndeadline = \"soon\"\n")
        .expect("a file");
    let check = |more: &[&str]| {
        let mut command = causeway(&[&["config", "check", "--config", text(&file)], more].concat());
        command.env("CAUSEWAY_FORWARD_MAX_ATTEMPTS", "99").env("AGENTOS_FED_REQUIRE_MTLS", "true");
        command
    };
    let (code, out, err) = told(&run(&mut check(&[])).await);
    assert_eq!((code, out.as_str()), (64, ""));
    for mistake in
        ["server.listen: 0.0.0.0:1", "server.lisenn", "forward.deadline", "MAX_ATTEMPTS: ", "REQUIRE_MTLS"]
    {
        assert!(err.contains(mistake), "{mistake}: {err}");
    }
    let (code, out, _) = told(&run(&mut check(&["--json"])).await);
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &said["ok"]), (64, &json!(false)));
    assert_eq!(said["errors"].as_array().map(Vec::len), Some(err.lines().count() - 1), "{out}");
}

#[tokio::test]
async fn config_show_prints_a_configuration_that_loads_to_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("causeway.toml");
    let (code, shown, _) = told(&run(causeway(&["config", "show"]).env("AGENTOS_REGION", "west")).await);
    assert_eq!(code, 0);
    assert!(shown.contains("region = \"west\""), "{shown}");
    std::fs::write(&file, &shown).expect("a file");
    let (code, again, _) = causeway_says(&["config", "show", "--config", text(&file)]).await;
    assert_eq!((code, again), (0, shown));
    let (code, json, _) = causeway_says(&["config", "show", "--json", "--config", text(&file)]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["gateway"]["region"]), (0, &json!("west")));
}

#[tokio::test]
async fn serve_refuses_an_address_that_is_not_loopback_and_has_done_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let (code, out, err) =
        causeway_says(&["serve", "--listen", "0.0.0.0:0", "--data-dir", text(&data)]).await;
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(err.contains("--listen: server.listen: 0.0.0.0:0 is not allowed"), "{err}");
    assert!(!data.exists());
}

#[tokio::test]
async fn serve_drains_on_sigterm_and_keeps_others_off_its_data() {
    let site = Site::start("100ms").await;
    let data = site.path("data");
    let (code, _, err) =
        causeway_says(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&data)]).await;
    assert_eq!(code, 1);
    assert!(err.contains("in use by another gateway"), "{err}");
    signal(&site.gateway.child, "-TERM").await;
    assert_eq!(exit_code(site.gateway.child).await, 0);
    let log = std::fs::read_to_string(site.directory.path().join("gateway.log")).expect("the log");
    assert!(
        log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "JSON off a terminal: {log}"
    );
    assert!(log.contains("draining"), "{log}");
    signal(&site.orchestrator.child, "-INT").await;
    assert_eq!(exit_code(site.orchestrator.child).await, 0);
}

#[tokio::test]
async fn healthcheck_is_zero_for_a_ready_gateway_and_one_for_none() {
    let site = Site::start("100ms").await;
    assert_eq!(site.ask(&["healthcheck"]).await, (0, "ready\n".to_owned(), String::new()));
    let listen = site.gateway.url.strip_prefix("http://").expect("http");
    let (code, ..) = told(&run(causeway(&["healthcheck"]).env("CAUSEWAY_LISTEN", listen)).await);
    assert_eq!(code, 0, "asks where the configuration listens");
    // What answers, but is no gateway, is not ready either.
    let (code, ..) = causeway_says(&["healthcheck", "--url", &site.orchestrator.url]).await;
    assert_eq!(code, 1);
    let (code, _, err) = causeway_says(&["healthcheck", "--url", "http://127.0.0.1:1"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("cannot connect"), "{err}");
}

// what children say is searched for secrets as what gateways say is.
#[tokio::test]
async fn what_a_command_prints_is_searched() {
    let watch = Watch::over(Vec::new());
    let (code, out, err) = causeway_says(&["tail", "--help"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    causeway_says(&["no-such-command"]).await;
    for said in [out.lines().next().expect("help"), "no-such-command"] {
        assert!(!watch.findings_of(said).is_empty(), "{said}");
    }
}

#[tokio::test]
async fn openapi_prints_one_document_in_two_forms() {
    let (code, yaml, _) = causeway_says(&["openapi"]).await;
    assert_eq!(code, 0);
    let (code, json, _) = causeway_says(&["openapi", "--format", "json"]).await;
    assert_eq!(code, 0);
    let yaml: Value = serde_saphyr::from_str(&yaml).expect("YAML");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(yaml["openapi"], "3.1.0");
    assert_eq!(yaml, json);
}

#[tokio::test]
async fn a_reader_that_goes_away_is_a_quiet_end() {
    let mut child =
        causeway(&["openapi"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let (code, _, err) = told(&child.wait_with_output().await.expect("it ends"));
    assert_eq!((code, err.as_str()), (0, ""));
}

#[tokio::test]
async fn what_was_backed_up_from_a_running_gateway_is_there_after_a_restore() {
    let site = Site::start("100ms").await;
    let run = site.forward(&[]).await;
    assert_eq!(site.ask(&["tail", &run]).await.0, 0);
    let (copy, config) = (site.path("copy.db"), site.path("causeway.toml"));
    let data = site.path("data");
    let (code, out, err) = causeway_says(&["backup", text(&copy), "--data-dir", text(&data), "--json"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(serde_json::from_str::<Value>(&out).expect("JSON")["bytes"].as_u64() > Some(0), "{out}");
    let (code, _, err) = causeway_says(&["backup", text(&copy), "--data-dir", text(&data)]).await;
    assert_eq!(code, 1, "nothing is overwritten");
    assert!(err.contains("exists"), "{err}");
    let (code, _, err) = causeway_says(&["restore", text(&copy), "--data-dir", text(&data)]).await;
    assert_eq!(code, 1, "not under a running gateway");
    assert!(err.contains("in use by another gateway"), "{err}");
    let restored = site.path("restored");
    let (code, out, err) = causeway_says(&["restore", text(&copy), "--data-dir", text(&restored)]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("restored"), "{out}");
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--config", text(&config), "--data-dir", text(&restored)];
    let second = Served::start(&arguments, &site.path("second.log"), "ready on ").await;
    let (code, out, err) = causeway_says(&["tail", &run, "--json", "--url", &second.url]).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(sequences(&out), (1..=EVENTS).collect::<Vec<_>>());
}
