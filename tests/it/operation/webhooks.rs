//! Who is told of alerts: signed, in order, tried again, and never at the cost of anything else.

use std::path::Path;
use std::time::Duration;

use causeway::config::Config;
use causeway::domain::units::TextForm;
use causeway::services::alert_options::WebhookUrl;
use serde_json::json;

use super::alerts::impatient;
use super::receiver::{Receiver, Reply};
use super::until_alert;
use crate::config::{load, mistakes};
use crate::support::gateway::TestGateway;
use crate::support::orchestrator::ScriptedOrchestrator;
use crate::support::secrets;

/// 32 bytes nobody knows but both ends.
const SECRET: &str = "whsec_Y2FuYXJ5LW9mLXRoZS13ZWJob29rLXNlY3JldC05MDAx";

fn told(config: &mut Config, directory: &Path, urls: &[String]) {
    let file = directory.join("webhook.secret");
    std::fs::write(&file, format!("{SECRET}\n")).expect("written");
    let alerts = &mut config.alerts;
    alerts.webhook_urls = urls.iter().map(|url| WebhookUrl::read(url).expect("a URL")).collect();
    alerts.webhook_secret_file = Some(file);
    alerts.webhook_backoff = Duration::from_millis(20);
    alerts.read_secret().expect("a secret");
    secrets::keep(SECRET);
}

async fn hold(gateway: &TestGateway, held: bool) {
    let verb = if held { "drain" } else { "resume" };
    gateway.post(&format!("/v1/federation/gateway:{verb}"), &json!({})).await.expect(200);
}

// M-04
#[tokio::test]
async fn a_webhook_hears_of_each_beginning_and_each_end_signed_and_in_order() {
    let (receiver, directory) = (Receiver::start().await, tempfile::tempdir().expect("a directory"));
    let mut config = impatient();
    told(&mut config, directory.path(), &[receiver.url()]);
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    hold(&gateway, true).await;
    receiver.until("the beginning", |posts| posts.len() == 1).await;
    hold(&gateway, false).await;
    let posts = receiver.until("the end", |posts| posts.len() == 2).await;
    let heard: Vec<String> = posts.iter().map(|post| post.told()).collect();
    assert_eq!(heard, ["alert.begin intake_held/gateway", "alert.end intake_held/gateway"]);
    assert_ne!(posts[0].header("webhook-id"), posts[1].header("webhook-id"));
    for post in &posts {
        assert!(post.is_signed_with(SECRET), "{post:?}");
        assert!(!post.is_signed_with("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        assert_eq!(post.header("content-type"), "application/json");
        for name in ["authorization", "cookie", "causeway-origin", "x-tenant-id"] {
            assert_eq!(post.header(name), "", "{name}");
        }
        let data = &post.json()["data"];
        assert_eq!((&data["severity"], &data["gateway"]), (&json!("info"), &json!("stk_local")));
        assert!(data["message"].as_str().is_some_and(|text| text.contains("causeway gateway resume")));
    }
    assert_eq!(posts[0].json()["data"]["ended_at"], serde_json::Value::Null);
    assert!(posts[1].json()["data"]["ended_at"].is_string());
    assert_eq!(posts[0].json()["data"]["since"], posts[1].json()["data"]["since"]);
    gateway.until_metric("alert_webhooks_total{outcome=\"delivered\"} ", |count| count == 2.0).await;
}

// M-04
#[tokio::test]
async fn what_is_not_taken_is_sent_again_under_the_same_id_and_given_up_in_the_end() {
    let (receiver, directory) = (Receiver::start().await, tempfile::tempdir().expect("a directory"));
    let elsewhere = Receiver::start().await;
    let mut config = impatient();
    told(&mut config, directory.path(), &[receiver.url()]);
    config.alerts.webhook_attempts = 4;
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    receiver.next([Reply::Status(500, None), Reply::Redirect(elsewhere.url()), Reply::Status(429, Some(0))]);
    hold(&gateway, true).await;
    let posts = receiver.until("four attempts", |posts| posts.len() == 4).await;
    assert!(posts.iter().all(|post| post.header("webhook-id") == posts[0].header("webhook-id")));
    assert!(posts.iter().all(|post| post.body == posts[0].body && post.is_signed_with(SECRET)));
    assert!(elsewhere.posts().is_empty(), "a redirect was followed");
    let metric = |outcome: &str| format!("alert_webhooks_total{{outcome=\"{outcome}\"}} ");
    gateway.until_metric(&metric("delivered"), |count| count == 1.0).await;
    gateway.until_metric(&metric("failed"), |count| count == 3.0).await;

    receiver.next(vec![Reply::Status(503, None); 4]);
    hold(&gateway, false).await;
    receiver.until("four more", |posts| posts.len() == 8).await;
    gateway.until_metric(&metric("given_up"), |count| count == 1.0).await;
    let heard = gateway.watch().written();
    let line = heard.lines().find(|line| line.contains("a webhook was not told")).expect("a line in the log");
    assert!(line.contains("127.0.0.1") && line.contains("503") && !line.contains("of=tests"), "{line}");

    // Gone is gone: it is not tried again.
    receiver.next([Reply::Status(410, None)]);
    hold(&gateway, true).await;
    gateway.until_metric(&metric("given_up"), |count| count == 2.0).await;
    assert_eq!(receiver.posts().len(), 9);
}

// M-04
#[tokio::test]
async fn a_webhook_that_hangs_holds_up_neither_another_one_nor_the_gateway() {
    let (stuck, good) = (Receiver::start().await, Receiver::start().await);
    let directory = tempfile::tempdir().expect("a directory");
    let home = ScriptedOrchestrator::start().await;
    let mut config = impatient();
    config.outbound.answer_timeout = Duration::from_secs(60);
    told(&mut config, directory.path(), &[stuck.url(), good.url()]);
    let near = crate::support::gateway::peer(
        "stk_b",
        &home.base_url(),
        causeway::domain::peer::PeerKind::Orchestrator,
    );
    let mut gateway = TestGateway::start_with(config, vec![near]).await;
    stuck.next(vec![Reply::Hang; 8]);
    hold(&gateway, true).await;
    good.until("the beginning", |posts| posts.len() == 1).await;
    stuck.until("the first", |posts| posts.len() == 1).await;
    hold(&gateway, false).await;
    good.until("the end", |posts| posts.len() == 2).await;
    gateway.forward_run("stk_b").await;
    assert_eq!(stuck.posts().len(), 1, "one at a time");
    let stopping = tokio::time::timeout(Duration::from_secs(10), gateway.stop());
    stopping.await.expect("a hanging webhook does not hold up the end");
}

// M-04: over a restart what still holds begins anew, in the name of another process.
#[tokio::test]
async fn a_restart_begins_anew_under_another_instance_and_shows_the_secret_nowhere() {
    let (receiver, directory) = (Receiver::start().await, tempfile::tempdir().expect("a directory"));
    let gone = ScriptedOrchestrator::start().await;
    gone.stop().await;
    let mut config = impatient();
    told(&mut config, directory.path(), &[receiver.url()]);
    assert!(!format!("{config:?}").contains("Y2FuYXJ5"), "{config:?}");
    assert!(!config.to_toml().contains("Y2FuYXJ5"), "{}", config.to_toml());
    let far = crate::support::gateway::peer(
        "stk_far",
        &gone.base_url(),
        causeway::domain::peer::PeerKind::Orchestrator,
    );
    let mut gateway = TestGateway::start_with(config, vec![far]).await;
    until_alert(&gateway, "peer_unreachable/peer:stk_far").await;
    receiver.until("the first beginning", |posts| posts.len() == 1).await;
    gateway.restart().await;
    let posts = receiver.until("the second beginning", |posts| posts.len() == 2).await;
    let [first, second] = [posts[0].json(), posts[1].json()];
    assert_eq!((&first["type"], &second["type"]), (&json!("alert.begin"), &json!("alert.begin")));
    assert_eq!(first["data"]["alert_id"], second["data"]["alert_id"]);
    assert_ne!(first["data"]["instance_id"], second["data"]["instance_id"]);
    gateway.stop().await;
    assert_eq!(gateway.watch().findings(), Vec::<String>::new());
}

// M-04
#[tokio::test]
async fn a_webhook_at_an_address_that_is_not_granted_is_never_dialled() {
    let (receiver, directory) = (Receiver::start().await, tempfile::tempdir().expect("a directory"));
    let mut config = impatient();
    told(&mut config, directory.path(), &[receiver.url(), receiver.url().replace("127.0.0.1", "localhost")]);
    config.alerts.webhook_allowed_addresses = vec!["10.0.0.0/8".parse().expect("a range")];
    config.alerts.webhook_attempts = 1;
    let gateway = TestGateway::start_with(config, Vec::new()).await;
    hold(&gateway, true).await;
    gateway.until_metric("alert_webhooks_total{outcome=\"given_up\"} ", |count| count == 2.0).await;
    assert!(receiver.posts().is_empty());
    assert!(gateway.watch().written().contains("loopback"), "the log says why");
}

// M-04
#[test]
fn mistakes_of_webhooks_are_told_with_their_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (good, short, other) =
        (write("good", SECRET), write("short", "whsec_c2hvcnQ="), write("other", "a-canary-password"));
    let dev = |alerts: &str| mistakes(load(&format!("[alerts]\n{alerts}"), &[]));
    let one = |found: Vec<String>, key: &str, text: &str| {
        assert!(found.len() == 1 && found[0].contains(key) && found[0].contains(text), "{found:?}");
        assert!(!found[0].contains("canary") && !found[0].contains("hunter2"), "{found:?}");
    };
    let url = "webhook_urls = [\"https://hooks.example/x?token=hunter2\"]\n";
    load(&format!("[alerts]\n{url}webhook_secret_file = \"{good}\""), &[]).expect("good");
    one(dev(url), "alerts.webhook_urls", "alerts.webhook_secret_file");
    one(dev(&format!("webhook_secret_file = \"{good}\"")), "alerts.webhook_secret_file", "does nothing");
    for file in [&short, &other] {
        one(dev(&format!("{url}webhook_secret_file = \"{file}\"")), "alerts.webhook_secret_file", "whsec_");
    }
    one(
        dev(&format!("{url}webhook_secret_file = \"/nowhere\"")),
        "alerts.webhook_secret_file",
        "cannot be read",
    );
    for (bad, text) in [
        ("ftp://hooks.example/hunter2", "http or https"),
        ("https://ops:hunter2@hooks.example", "credentials"),
        ("https://hooks.example/#hunter2", "fragment"),
        ("hunter2", "not a URL"),
    ] {
        let file = format!("webhook_urls = [\"{bad}\"]\nwebhook_secret_file = \"{good}\"");
        one(dev(&file), "alerts.webhook_urls", text);
    }
    let many: Vec<String> = (0..9).map(|number| format!("\"https://h{number}.example\"")).collect();
    let many = format!("webhook_urls = [{}]\nwebhook_secret_file = \"{good}\"", many.join(","));
    one(dev(&many), "alerts.webhook_urls", "at most 8");
    one(dev("interval = \"0s\""), "alerts.interval", "longer than zero");
    one(dev("webhook_attempts = 21"), "alerts.webhook_attempts", "from 1 to 20");

    let prod = "[gateway]\nprofile = \"prod\"\nstack_id = \"stk_acme\"\n[alerts]\n";
    let plain = url.replace("https", "http");
    let found = mistakes(load(&format!("{prod}{plain}webhook_secret_file = \"{good}\""), &[]));
    one(found, "alerts.webhook_urls", "profile prod");
    load(&format!("{prod}{url}webhook_secret_file = \"{good}\""), &[]).expect("good");
    let variables = [("CAUSEWAY_ALERTS_WEBHOOK_URLS", "https://a.example,https://b.example")];
    let loaded = load(&format!("[alerts]\nwebhook_secret_file = \"{good}\""), &variables).expect("good");
    assert_eq!(loaded.alerts.webhook_urls.len(), 2);
}
