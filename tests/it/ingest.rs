//! Events pushed to a gateway: what is taken, what is refused, and what each entry is told.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::gateway::{TENANT, TestGateway};
use crate::support::log::{
    INGEST, beside, counts, event_text, last_step, number, outcomes, page, push, rows_of, sequences, step,
    typed_event,
};
use crate::support::orchestrator::ScriptedOrchestrator;

async fn gateway() -> TestGateway {
    TestGateway::start(Vec::new()).await
}

// A-31, seeds §1.3
#[tokio::test]
async fn the_three_agentos_shapes_and_lines_are_taken_nested_and_flat() {
    let gateway = gateway().await;
    let (one, two) = (|run: &str| step(run, 1), |run: &str| format!("{{\"event\":{}}}", step(run, 2)));
    let shapes = [
        (
            "code",
            "{\"peer_id\":\"stk_x\",\"auth\":{\"tenant_id\":\"tnt_demo\",\"principal_id\":\"p\"},\"events\":[",
        ),
        ("spec", "{\"peer\":{\"stack_id\":\"stk_x\"},\"traceparent\":\"00-x\",\"events\":["),
        ("flat", "{\"ingest\":{\"source_stack_id\":\"s\",\"dedupe\":{\"mode\":\"event_id\"}},\"events\":["),
    ];
    for (run, head) in shapes {
        let body = format!("{head}{},{}]}}", one(run), two(run));
        let answer = gateway.post_raw(INGEST, "application/json", body.into_bytes()).await.expect(200);
        assert_eq!(counts(&answer), (2, 0, 0, 0), "{}", answer.text);
        assert!(answer.json["correlation_id"].is_string());
        assert_eq!(sequences(&page(&gateway, run, 0).await), [1, 2], "{run}");
    }
    let lines = format!("{}\r\n\n{}\n", one("lines"), two("lines"));
    for kind in ["application/x-ndjson", "application/jsonl; charset=utf-8"] {
        let answer = gateway.post_raw(INGEST, kind, lines.clone().into_bytes()).await.expect(200);
        assert_eq!(counts(&answer).0, 2, "{}", answer.text);
    }
    assert_eq!(sequences(&page(&gateway, "lines", 0).await), [1, 2]);
}

// L12
#[tokio::test]
async fn one_bad_entry_never_spoils_its_neighbours_and_results_keep_the_order() {
    let gateway = gateway().await;
    let deep = "[".repeat(70) + &"]".repeat(70);
    let entries = [
        step("r", 1),
        "7".to_owned(),
        step("r", 2),
        event_text("r", "evt_surrogate", "8", "{\"half\":\"\\ud800\"}"),
        event_text("r", "evt_deep", "9", &deep),
        "{}".to_owned(),
        step("r", 3),
    ];
    let wanted = [
        "stored",
        "rejected invalid_event",
        "stored",
        "rejected invalid_event",
        "rejected invalid_event",
        "rejected invalid_event",
        "stored",
    ];
    let answer = push(&gateway, &entries).await.expect(200);
    assert_eq!(outcomes(&answer), wanted, "{}", answer.text);
    assert_eq!(counts(&answer), (3, 4, 0, 0));
    let mut lines = entries.map(|entry| entry.replace("\"r\"", "\"lines\"")).join("\n").into_bytes();
    lines.extend_from_slice(b"\n{\"event_id\":NaN}\n{\"bytes\":\"\xff\"}\n{\"event\":");
    let answer = gateway.post_raw(INGEST, "application/x-ndjson", lines).await.expect(200);
    let bad = ["rejected invalid_event"; 3];
    assert_eq!(outcomes(&answer), [&wanted[..], &bad[..]].concat(), "{}", answer.text);
    assert_eq!(sequences(&page(&gateway, "r", 0).await), [1, 2, 3]);
}

// defect 3
#[tokio::test]
async fn an_entry_that_is_no_event_says_which_field_and_is_stored_nowhere() {
    let gateway = gateway().await;
    let good = step("r", 3);
    let bad = [
        ("event_id", "\"event_id\":\"evt_r_3\",", ""),
        ("event_id", "\"evt_r_3\"", "7"),
        ("event_id", "\"evt_r_3\"", "\"\""),
        ("event_id", "\"evt_r_3\"", "\"a b\""),
        ("event_id", "\"evt_r_3\"", "\"a\\u0000\""),
        ("event_id", "\"evt_r_3\"", "\"a\\r\\ndata: x\""),
        ("type", "\"type\":\"agentos.run.step.started\",", ""),
        ("type", "\"agentos.run.step.started\"", "null"),
        ("run_id", "\"run_id\":\"r\",", ""),
        ("run_id", "\"run_id\":\"r\"", "\"run_id\":{}"),
        ("run_id", "\"run_id\":\"r\"", "\"run_id\":\"a/\\n\""),
        ("tenant_id", "\"tenant_id\":\"tnt_demo\",", ""),
        ("tenant_id", "\"tnt_demo\"", "[\"tnt_demo\"]"),
        ("sequence", "\"sequence\":3", "\"sequence\":0"),
        ("sequence", "\"sequence\":3", "\"sequence\":-1"),
        ("sequence", "\"sequence\":3", "\"sequence\":\"3\""),
        ("sequence", "\"sequence\":3", "\"sequence\":3.0"),
        ("sequence", "\"sequence\":3", "\"sequence\":3e0"),
        ("sequence", "\"sequence\":3", "\"sequence\":4294967296"),
        ("sequence", "\"sequence\":3", "\"sequence\":null"),
        ("run_id", "\"step_id\":null", "\"run_id\":\"r\""),
    ];
    let entries: Vec<String> = bad.iter().map(|(_, from, to)| good.replace(from, to)).collect();
    let answer = push(&gateway, &entries).await.expect(200);
    assert_eq!(counts(&answer), (0, bad.len() as u64, 0, 0), "{}", answer.text);
    for (result, (field, _, to)) in answer.json["results"].as_array().expect("results").iter().zip(bad) {
        assert_eq!(result["code"], "invalid_event", "{to}: {result}");
        assert!(result["reason"].as_str().is_some_and(|reason| reason.contains(field)), "{to}: {result}");
    }
    let database = beside(&gateway.data_dir());
    assert_eq!(number(&database, "SELECT count(*) FROM events"), 0);
    assert_eq!(number(&database, "SELECT count(*) FROM streams"), 0);
    page(&gateway, "r", 0).await.expect(404);
}

// A-17, A-31
#[tokio::test]
async fn a_repeat_is_a_duplicate_inside_a_request_and_a_success_across_requests() {
    let gateway = gateway().await;
    let answer = push(&gateway, &[step("r", 1), step("r", 1)]).await;
    assert_eq!(counts(&answer), (1, 1, 1, 0), "{}", answer.text);
    assert_eq!(outcomes(&answer), ["stored", "duplicate duplicate_in_request"]);
    let answer = push(&gateway, &[step("r", 1), step("r", 1)]).await;
    assert_eq!(counts(&answer), (1, 1, 2, 0), "{}", answer.text);
    assert_eq!(answer.json["results"][0]["sequence"], 1);
    // The second says the same without the number it was given: still one event.
    let answer = push(&gateway, &[step("r", 2), step("r", 2).replace("\"sequence\":2,", "")]).await;
    assert_eq!(counts(&answer), (1, 1, 1, 0), "{}", answer.text);
    assert_eq!(sequences(&page(&gateway, "r", 0).await), [1, 2]);
}

// A-17
#[tokio::test]
async fn a_relay_that_re_encodes_sends_the_same_event() {
    let gateway = gateway().await;
    let first = event_text("r", "evt_1", "1", "{\"a\":1.50,\"b\":\"é/\",\"c\":[1,2]}");
    push(&gateway, &[first]).await.expect(200);
    let again = r#" { "payload":{"c":[1.0,2e0],"b":"\u00e9\/","a":15e-1}, "trace":{}, "run_id":"r",
        "agent_id":"agt_test", "step_id":null, "tenant_id":"tnt_demo", "type":"agentos.run.step.started",
        "time":"2025-12-19T22:15:36Z", "sequence":1, "event_\u0069d":"\u0065vt_1" } "#;
    let answer = push(&gateway, &[again.to_owned()]).await;
    assert_eq!((counts(&answer), outcomes(&answer)), ((1, 0, 1, 0), vec!["duplicate".to_owned()]));
    let answer = push(&gateway, &[again.replace("15e-1", "15e-2")]).await;
    assert_eq!(counts(&answer), (0, 1, 0, 1), "{}", answer.text);
}

// A-17, L3
#[tokio::test]
pub(crate) async fn what_contradicts_the_log_is_set_aside_and_audited_and_the_first_stays() {
    let gateway = gateway().await;
    let first = event_text("r", "evt_1", "1", "{\"is\":\"first\"}");
    let other_content = event_text("r", "evt_1", "1", "{\"is\":\"second\"}");
    // In one request or in two: the same judgement.
    let answer = push(&gateway, &[first.clone(), other_content.clone()]).await;
    assert_eq!(outcomes(&answer), ["stored", "conflict event_conflict"], "{}", answer.text);
    assert_eq!(counts(&answer), (1, 1, 0, 1));
    let other_id = event_text("r", "evt_2", "1", "{\"is\":\"third\"}");
    let moved = event_text("r", "evt_1", "5", "{\"is\":\"first\"}");
    let answer = push(&gateway, &[other_id, moved, first.clone()]).await;
    assert_eq!(outcomes(&answer), ["conflict event_conflict", "conflict event_conflict", "duplicate"]);
    let page = page(&gateway, "r", 0).await;
    assert!(page.text.contains(&first) && !page.text.contains("second"), "{}", page.text);
    assert_eq!(sequences(&page), [1]);
    let database = beside(&gateway.data_dir());
    let aside = |sql: &str| number(&database, &format!("SELECT count(*) FROM {sql}"));
    assert_eq!(aside("events_aside WHERE kind = 'conflict_event_id' AND event_id = 'evt_1'"), 2);
    assert_eq!(aside("events_aside WHERE kind = 'conflict_sequence' AND event_id = 'evt_2'"), 1);
    assert_eq!(aside("events_aside WHERE instr(json, '\"second\"') > 0"), 1);
    assert_eq!(aside("audit WHERE action = 'events.set_aside' AND object = 'run/r'"), 2);
    assert_eq!(gateway.metric("events_conflict_total ").await as u64, 3);
}

// A-18, defect 3
#[tokio::test]
async fn late_events_fill_holes_in_any_order() {
    let gateway = gateway().await;
    for (sequence, high_water) in [(5, 0), (2, 0), (1, 2), (4, 2), (3, 5), (7, 5), (6, 7)] {
        let answer = push(&gateway, &[step("r", sequence)]).await;
        assert_eq!(outcomes(&answer), ["stored"], "{sequence}: {}", answer.text);
        let run = gateway.get("/v1/federation/runs/r").await.expect(200);
        let page = page(&gateway, "r", 0).await;
        assert_eq!(page.json["high_water"].as_u64(), Some(high_water), "{} {}", page.text, run.text);
        assert_eq!(sequences(&page), (1..=high_water).collect::<Vec<_>>(), "nothing beyond a hole");
    }
}

// defects 4 and 14
#[tokio::test]
async fn another_tenants_event_is_refused_and_that_tenant_hears_nothing() {
    let gateway = gateway().await;
    let foreign = step("r", 1).replace(TENANT, "tnt_other");
    let answer = push(&gateway, &[foreign.clone(), step("r", 2)]).await;
    assert_eq!(outcomes(&answer), ["rejected origin_mismatch", "stored"], "{}", answer.text);
    let body: Value = serde_json::from_str(&format!("{{\"events\":[{foreign}]}}")).expect("JSON");
    let as_other = [("x-tenant-id", "tnt_other")];
    gateway.get_with("/v1/federation/runs/r", &as_other).await.expect(404);
    let answer = gateway.post_with(INGEST, &body, &as_other).await.expect(200);
    assert_eq!(outcomes(&answer), ["stored"]);
    assert_eq!(rows_of(&beside(&gateway.data_dir()), "none"), 0);
    assert_eq!(number(&beside(&gateway.data_dir()), "SELECT count(*) FROM streams"), 2, "one each");
    let claim = json!({ "auth": { "tenant_id": "tnt_other" }, "events": body["events"] });
    let answer = gateway.post(INGEST, &claim).await.expect(400);
    assert_eq!(answer.code(), "tenant_mismatch");
}

// defect 4, A-31
#[tokio::test]
async fn a_forwarded_run_takes_new_events_from_its_home_only_and_knows_a_repeat() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    home.emit_steps(&run, 2);
    home.finish(&run, crate::support::orchestrator::RunStatus::Completed);
    let path = format!("/v1/federation/runs/{run}");
    gateway.until(&path, |answer| answer.json.to_string().contains("\"completed\"")).await;
    let held = page(&gateway, &run, 0).await;
    let first = held.json["events"][0]["event"].to_string();
    let answer = push(&gateway, std::slice::from_ref(&first)).await;
    assert_eq!((counts(&answer), outcomes(&answer)), ((1, 0, 1, 0), vec!["duplicate".to_owned()]));
    let mut changed = held.json["events"][0]["event"].clone();
    changed["payload"] = json!({ "forged": true });
    let forged = [step(&run, 99), event_text(&run, "evt_new", "", "{}"), changed.to_string()];
    let answer = push(&gateway, &forged).await;
    assert_eq!(outcomes(&answer), ["rejected origin_mismatch"; 3], "{}", answer.text);
    assert_eq!(sequences(&page(&gateway, &run, 0).await), sequences(&held));
}

// L2, A-21
#[tokio::test]
async fn without_a_sequence_the_home_gives_dense_ones_and_a_repeat_gets_the_same() {
    let gateway = gateway().await;
    let unnumbered = |id: &str| event_text("r", id, "", "{\"n\":1}");
    let batch = [unnumbered("a"), unnumbered("b"), unnumbered("c")];
    let answer = push(&gateway, &batch).await;
    let given = |answer: &crate::support::gateway::Answer| -> Vec<u64> {
        let results = answer.json["results"].as_array().expect("results");
        results.iter().filter_map(|result| result["sequence"].as_u64()).collect()
    };
    assert_eq!((counts(&answer), given(&answer)), ((3, 0, 0, 0), vec![1, 2, 3]));
    let again = push(&gateway, &batch).await;
    assert_eq!((counts(&again), given(&again)), ((3, 0, 3, 0), vec![1, 2, 3]), "{}", again.text);
    let numbered = unnumbered("b").replacen('{', "{\"sequence\":2,", 1);
    let page = page(&gateway, "r", 0).await;
    assert_eq!(sequences(&page), [1, 2, 3]);
    assert!(page.text.contains(&numbered), "the stored event carries its sequence: {}", page.text);
    assert_eq!(outcomes(&push(&gateway, &[numbered]).await), ["duplicate"]);
    let other = event_text("r", "b", "", "{\"n\":2}");
    assert_eq!(outcomes(&push(&gateway, &[other]).await), ["conflict event_conflict"]);
}

// A-18
#[tokio::test]
async fn after_the_end_only_holes_are_filled() {
    let gateway = gateway().await;
    push(&gateway, &[step("r", 1), last_step("r", 5)]).await.expect(200);
    let late = [step("r", 6), event_text("r", "evt_x", "", "{}"), step("r", 3), step("r", 1)];
    let answer = push(&gateway, &late).await;
    let wanted = ["rejected stream_ended", "rejected stream_ended", "stored", "duplicate"];
    assert_eq!(outcomes(&answer), wanted, "{}", answer.text);
    let second_end = typed_event("r", "evt_end", "4", "agentos.run.failed", "{}");
    assert_eq!(outcomes(&push(&gateway, &[second_end, step("r", 2)]).await), ["stored"; 2]);
    let page = page(&gateway, "r", 0).await;
    assert_eq!(sequences(&page), [1, 2, 3, 4, 5]);
    assert_eq!(page.json["run"]["status"], "completed", "the first end decides");
}

// L3
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_event_from_32_pushers_at_once_is_stored_once() {
    let gateway = gateway().await;
    for entry in [step("numbered", 1), event_text("unnumbered", "evt_1", "", "{}")] {
        let entries = [entry];
        let answers = join_all((0..32).map(|_| push(&gateway, &entries))).await;
        assert!(answers.iter().all(|answer| counts(answer).0 == 1), "a repeated push is a success");
        let stored = answers.iter().filter(|answer| outcomes(answer) == ["stored"]).count();
        assert_eq!(stored, 1);
    }
    let database = beside(&gateway.data_dir());
    assert_eq!((rows_of(&database, "numbered"), rows_of(&database, "unnumbered")), (1, 1));
}
