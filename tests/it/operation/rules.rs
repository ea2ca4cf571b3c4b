//! The shipped Prometheus rules: every metric they ask for is one that a gateway shows.

use std::collections::BTreeSet;

use causeway::domain::alert::AlertCode;
use serde_json::Value;

use crate::support::forwards::FORWARD;
use crate::support::gateway::{TestGateway, forward_body};
use crate::support::orchestrator::{RunStatus, ScriptedOrchestrator};

/// Words of PromQL that are no metric.
const WORDS: [&str; 7] = ["and", "histogram_quantile", "increase", "max", "rate", "sum", "time"];

fn rules() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus-rules.yml");
    let text = std::fs::read_to_string(path).expect("the rules");
    serde_saphyr::from_str(&text).expect("YAML")
}

fn each(rules: &Value) -> Vec<Value> {
    let groups = rules["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

/// The metrics in an expression: what stands in `{…}`, in `[…]` and after `by` is none.
fn names(expression: &str) -> BTreeSet<String> {
    let mut expression = expression.to_owned();
    while let Some(at) = expression.find("by (") {
        let end = at + expression[at..].find(')').expect("a closed list of labels");
        expression.replace_range(at..=end, "");
    }
    let (mut names, mut word, mut depth) = (BTreeSet::new(), String::new(), 0);
    for letter in expression.chars().chain([' ']) {
        match letter {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ if depth > 0 => continue,
            _ if letter.is_alphanumeric() || letter == '_' || letter == ':' => {
                word.push(letter);
                continue;
            }
            _ => {}
        }
        let done = std::mem::take(&mut word);
        if done.starts_with(|first: char| first.is_alphabetic()) && !WORDS.contains(&done.as_str()) {
            names.insert(done);
        }
    }
    names
}

// M-04, R-44
#[tokio::test]
async fn every_metric_of_the_shipped_rules_is_shown_by_a_gateway() {
    let home = ScriptedOrchestrator::start().await;
    let gateway = TestGateway::with_orchestrator(&home.base_url()).await;
    let run = gateway.forward_run("stk_b").await;
    home.finish(&run, RunStatus::Completed);
    gateway.until_run(&run, |run| run["status"] == "completed").await;
    let mut unknown = forward_body("stk_b");
    unknown["forward"]["target_selector"]["stack_id"] = Value::from("stk_nobody");
    gateway.post(FORWARD, &unknown).await.expect(404);
    gateway.until_metric("alerts{code=\"disk_full\",severity=\"critical\"} ", |count| count == 0.0).await;
    let page = gateway.get("/metrics").await.expect(200).text;
    let shown: BTreeSet<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let rules = rules();
    let mut asked = BTreeSet::new();
    for rule in each(&rules) {
        let (name, expression) = (&rule["alert"], rule["expr"].as_str().expect("an expression"));
        for metric in names(expression) {
            assert!(shown.contains(metric.as_str()), "{name}: no gateway shows {metric}");
            asked.insert(metric);
        }
        for needed in ["/labels/severity", "/annotations/summary", "/annotations/description"] {
            assert!(rule.pointer(needed).is_some_and(Value::is_string), "{name} has no {needed}");
        }
    }
    assert!(asked.len() >= 8 && asked.contains("alerts"), "{asked:?}");
}

// M-04
#[test]
fn no_rule_names_a_code_that_there_is_not() {
    let codes: Vec<&str> = AlertCode::ALL.iter().map(|code| code.as_str()).collect();
    for rule in each(&rules()) {
        let expression = rule["expr"].as_str().expect("an expression");
        for (_, rest) in
            expression.match_indices("code=\"").map(|(at, found)| (at, &expression[at + found.len()..]))
        {
            let code = rest.split('"').next().expect("a quote");
            assert!(codes.contains(&code), "{} names {code}", rule["alert"]);
        }
    }
    assert_eq!(
        names("sum by (peer) (rate(a_total{b=\"c\"}[5m])) > 0.5").into_iter().collect::<Vec<_>>(),
        ["a_total"]
    );
}
