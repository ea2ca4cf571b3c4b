//! `causeway demo`: what it shows, what it takes, what it leaves.

use super::*;

#[tokio::test]
async fn the_demo_shows_a_run_checks_it_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a directory");
    let (code, out, err) = told(
        &run(causeway(&["demo", "--once"]).env("TMPDIR", temporary.path()).current_dir(temporary.path()))
            .await,
    );
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for promised in [
        "know each other by key: mutual TLS",
        "run.created",
        "run.step.started",
        "tool.call.requested",
        "tool.call.completed",
        "model.requested",
        "model.completed",
        "run.step.completed",
        "run.completed",
        "from_sequence=7",
        "end: completed at 14",
        "✓ 14 events, strictly in sequence, no gap",
        "✓ both streams ended by themselves",
        "✓ both readings agree, word for word, on the 7 after 7",
    ] {
        assert!(out.contains(promised), "{promised}: {out}");
    }
    assert!(!out.contains('\u{1b}'), "no colours where there is no terminal");
    assert_eq!(std::fs::read_dir(temporary.path()).expect("readable").count(), 0);
}

#[tokio::test]
async fn the_demo_takes_a_forward_of_the_users_own_and_their_tenant() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("run.json");
    let body = json!({"forward": {
        "target_selector": {"region": "right"},
        "auth": {"tenant_id": "tnt_mine"},
        "run_request": {"agent_id": "agt_mine", "input": "counting three words", "idempotency_key": "mine"},
    }});
    std::fs::write(&file, body.to_string()).expect("a file");
    let (code, out, err) = causeway_says(&["demo", "--once", "--input", text(&file)]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("3 words, the longest is 'counting': counting three words"), "{out}");
}

#[tokio::test]
async fn the_demo_names_what_is_wrong_with_a_request_before_it_starts_anything() {
    for (input, said) in [
        ("{", "standard input: this is not JSON"),
        (r#"{"agent_id":"a"}"#, "standard input: `input` is required"),
        (r#"{"forward":{"run_request":{}}}"#, "`forward.target_selector`"),
    ] {
        let mut child = causeway(&["demo", "--once", "--input", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).await.expect("written");
        drop(stdin);
        let (code, out, err) = told(&child.wait_with_output().await.expect("it ends"));
        assert_eq!((code, out.as_str()), (2, ""), "{input}");
        assert!(err.contains(said), "{input}: {err}");
    }
    let (code, _, err) = causeway_says(&["demo", "--input", "/nonexistent/run.json"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("/nonexistent/run.json cannot be read"), "{err}");
}

#[tokio::test]
async fn the_demo_stays_up_with_lines_that_work_until_it_is_interrupted() {
    let piped = Stdio::piped;
    let mut child = causeway(&["demo"]).stdout(piped()).stderr(piped()).spawn().expect("it starts");
    let mut lines = HeardLines::of(&mut child);
    let mut create = None;
    let mut right = None;
    let shown = async {
        while let Some(line) = lines.next().await {
            // Under the names of the gateways: where each is.
            if right.is_none() && line.trim_start().starts_with("127.0.0.1:") {
                right = line.split_whitespace().nth(1).map(str::to_owned);
            }
            if line.contains("runs:forward \\") {
                let body = lines.next().await.expect("the body");
                let url =
                    line.split_whitespace().find(|word| word.starts_with("http")).expect("a URL").to_owned();
                let body = body.trim().strip_prefix("-d ").expect("a body").trim_matches('\'').to_owned();
                create = Some((url, body));
            }
            if line.contains("openapi.yaml") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("the lines come");
    let (url, body) = create.expect("a line that creates a run");
    let answer = post(&url, body).await;
    assert_eq!(answer["forwarded"]["remote_stack_id"], "stk_right", "{answer}");
    let right = right.expect("where the other gateway is");
    let look = async |path: &str| {
        let url = format!("http://{right}/v1/federation/{path}");
        read(plain_client().get(url).send().await.expect("an answer")).await.json
    };
    // A-26: what came over was proven, not believed.
    let trail = look("audit?action=federation.runs.forward").await;
    let subject = trail["items"][0]["subject"].as_str().expect("a record");
    assert!(subject.starts_with("peer:stk_left/"), "{trail}");
    let peer = look("peers/stk_left").await["peer"].clone();
    assert_eq!((&peer["health"]["state"], &peer["kind"]), (&json!("healthy"), &json!("gateway")), "{peer}");
    assert!(peer["base_url"].as_str().is_some_and(|url| url.starts_with("https://")), "{peer}");
    signal(&child, "-INT").await;
    drop(lines);
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends in time");
    let (code, _, err) = told(&ended.expect("it ran"));
    assert_eq!((code, err.trim()), (0, ""));
}
