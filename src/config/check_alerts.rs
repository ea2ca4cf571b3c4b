//! What must hold of alerts: webhooks that can be signed for and called, and a secret that is one.
//!
//! Invariant: a webhook that was asked for is told, signed, or the gateway does not start.

use super::draft::Draft;
use super::sections::Config;
use crate::services::alert_options::{MOST_WEBHOOKS, WebhookUrl};
use crate::services::options::Profile;

/// Reads the secret, and keeps every mistake.
pub(super) fn check(config: &mut Config, draft: &mut Draft) {
    let (urls_key, file_key) = ("alerts.webhook_urls", "alerts.webhook_secret_file");
    if let Err(message) = config.alerts.read_secret() {
        draft.refuse_checked(file_key, &message);
    }
    let alerts = &config.alerts;
    let is_unusable = draft.is_refused(urls_key) || draft.is_refused(file_key);
    match (alerts.webhook_urls.is_empty(), &alerts.webhook_secret_file) {
        _ if is_unusable => {}
        (false, None) => {
            let message = format!("needs {file_key}: whoever is told must be able to tell who told it");
            draft.refuse_checked(urls_key, &message);
        }
        (true, Some(_)) => {
            draft.refuse_checked(
                file_key,
                &format!("does nothing without {urls_key}: set it, or leave the key out"),
            );
        }
        _ => {}
    }
    if alerts.webhook_urls.len() > MOST_WEBHOOKS {
        draft.refuse_checked(urls_key, &format!("at most {MOST_WEBHOOKS} webhooks are allowed"));
    }
    let is_plain = |url: &&WebhookUrl| url.0.scheme() == "http";
    if config.gateway.profile == Profile::Prod
        && let Some(plain) = alerts.webhook_urls.iter().find(is_plain)
    {
        let host = plain.0.host_str().unwrap_or_default();
        let message = format!("http to {host} is not allowed: write https (profile prod)");
        draft.refuse_checked(urls_key, &message);
    }
}
