//! `forward` and `tail`, against a gateway and an orchestrator that are children.

use super::*;

#[tokio::test]
async fn forward_creates_one_run_per_key_and_says_how_to_go_on() {
    let site = Site::start("100ms").await;
    let run = site.forward(&["--key", "order 4711"]).await;
    assert_eq!(site.forward(&["--key", "order 4711"]).await, run);
    assert_ne!(site.forward(&[]).await, run);
    let again =
        ["forward", "--region", "", "--require", "runs.forward", "--agent", "agt_demo", "--input", "7"];
    let (code, out, err) = site.ask(&again).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("events   causeway tail run_"), "{out}");
    assert!(out.contains(&format!("--url {}", site.gateway.url)), "{out}");
    let other = ["forward", "--to", "orc", "--agent", "agt_demo", "--text", "other", "--key", "order 4711"];
    let (code, _, err) = site.ask(&other).await;
    assert_eq!(code, 1);
    assert!(err.contains("idempotency_key_reused"), "{err}");
    let (code, _, err) = site.ask(&["forward", "--to", "stk_x", "--agent", "a", "--text", "x"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("peer_not_found"), "{err}");
    let unreachable = ["forward", "--url", "http://127.0.0.1:1", "--to", "o", "--agent", "a", "--text", "x"];
    assert_eq!(causeway_says(&unreachable).await.0, 69);
}

#[tokio::test]
async fn forward_async_and_follow_wait_for_the_run_and_show_it() {
    let site = Site::start("300ms").await;
    let arguments =
        ["forward", "--to", "orc", "--agent", "agt_demo", "--text", "hello", "--async", "--follow", "--json"];
    let (code, out, err) = site.ask(&arguments).await;
    assert_eq!(code, 0, "{err}");
    let (answer, events) = out.split_once('\n').expect("lines");
    let answer: Value = serde_json::from_str(answer).expect("JSON");
    assert!(answer["forward"]["forward_id"].is_string(), "{answer}");
    assert_eq!(sequences(events), (1..=EVENTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn tail_shows_a_run_from_anywhere_in_both_forms() {
    let site = Site::start("200ms").await;
    let run = site.forward(&[]).await;
    let (code, out, err) = site.ask(&["tail", &run]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(out.lines().count() as u64, EVENTS + 1, "{out}");
    assert!(out.contains("run.step.started") && out.ends_with("end: completed at 14\n"), "{out}");
    let (code, out, _) = site.ask(&["tail", &run, "--from", "12", "--json"]).await;
    assert_eq!((code, sequences(&out)), (0, vec![13, 14]));
    assert!(out.ends_with("{\"end\":{\"sequence\":14,\"status\":\"completed\"}}\n"), "{out}");
    let (code, out, _) = site.ask(&["tail", &run, "--from", "14"]).await;
    assert_eq!((code, out.as_str()), (0, "nothing after 14: the run is completed\n"));
    let (code, _, err) = site.ask(&["tail", &run, "--from", "15"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("cursor_ahead"), "{err}");
    let (code, _, err) = site.ask(&["tail", "run_nobody_knows"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("not_found"), "{err}");
    assert_eq!(causeway_says(&["tail", &run, "--url", "http://127.0.0.1:1"]).await.0, 69);
}

#[tokio::test]
async fn tail_goes_on_over_a_gateway_that_is_killed_and_comes_back() {
    let mut site = Site::start("4s").await;
    let run = site.forward(&[]).await;
    let notes = std::fs::File::create(site.path("tail.err")).expect("a file");
    let mut tail = causeway(&["tail", &run, "--json", "--url", &site.gateway.url])
        .stdout(Stdio::piped())
        .stderr(notes)
        .spawn()
        .expect("it starts");
    let watch = Watch::over(Vec::new());
    let mut lines = HeardLines::of(&mut tail);
    let mut seen = lines.next().await.expect("an event") + "\n";
    site.gateway.child.kill().await.expect("killed");
    let listen = site.gateway.url.strip_prefix("http://").expect("http").to_owned();
    site.gateway = Site::serve(site.directory.path(), "data", &listen).await;
    let rest = async {
        while let Some(line) = lines.next().await {
            seen.push_str(&line);
            seen.push('\n');
        }
    };
    tokio::time::timeout(PATIENCE, rest).await.expect("the run ends in time");
    assert_eq!(exit_code(tail).await, 0);
    assert_eq!(sequences(&seen), (1..=EVENTS).collect::<Vec<_>>());
    let notes = std::fs::read_to_string(site.path("tail.err")).expect("the notes");
    secrets::read(&notes);
    drop(lines);
    assert!(!watch.findings_of("agentos.run.completed").is_empty(), "what a child says is searched");
    assert!(notes.contains("going on after"), "{notes}");
}

#[tokio::test]
async fn tail_is_a_failure_when_the_run_is() {
    let site = Site::start("1h").await;
    let run = site.forward(&[]).await;
    let (code, out, _) = site.ask(&["tail", &run, "--no-follow"]).await;
    assert_eq!(code, 0, "a run that goes on is no failure: {out}");
    let canceled = site.post(&format!("/v1/federation/runs/{run}:cancel"), &json!({})).await;
    assert!(canceled["run"].is_object(), "{canceled}");
    let (code, out, _) = site.ask(&["tail", &run]).await;
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("end: canceled at"), "{out}");
}

#[tokio::test]
async fn no_event_reaches_the_terminal_raw() {
    let site = Site::start("100ms").await;
    let hostile = "\u{1b}]0;title\u{7}\u{1b}[2J\r\nforged   99  run.completed \u{9b}31m\u{202e}";
    let events = json!({"events": [
        {"event_id": "e1", "type": "note", "tenant_id": "tnt_demo", "run_id": "run_hostile", "time": hostile, "payload": {hostile: hostile}},
        {"event_id": "e2", "type": "agentos.run.completed", "tenant_id": "tnt_demo", "run_id": "run_hostile", "payload": [hostile]},
    ]});
    let answer = site.post("/v1/federation/events:ingest", &events).await;
    assert_eq!(answer["accepted"], 2, "{answer}");
    for form in [&[][..], &["--json"]] {
        let (code, out, _) = site.ask(&[&["tail", "run_hostile"], form].concat()).await;
        assert_eq!(code, 0, "{out}");
        assert!(!out.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{out:?}");
        assert_eq!(out.lines().count(), if form.is_empty() { 3 } else { 4 }, "{out}");
    }
}
