//! Creating a run through a gateway: one key, and as many requests as it takes, within bounds.
//!
//! Invariant: every request of one creation carries the same key, so repeating it is safe whatever became of the
//! one before; only what says of itself that it may succeed later is repeated.

use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::client::{CallError, Client, Reply};
use super::exit::{Exit, Failure};
use super::output::{note, shell_word, visible};
use crate::clock::Clock;
use crate::domain::backoff;
use crate::entropy::Entropy;
use crate::protocol::headers;

/// Requests in all.
const MOST_ATTEMPTS: u32 = 6;
/// Time for all of them.
const DEADLINE: Duration = Duration::from_secs(60);
/// Ceiling of the first wait between two; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Where the ceiling stops growing.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Which peer is to run it; left out parts are not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Target {
    /// A peer by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stack_id: Option<String>,
    /// A peer of this region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<String>,
    /// A peer that can do all of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) required_capabilities: Vec<String>,
}

/// Whether an answer is waited for until the peer has spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Until the run exists.
    ForTheRun,
    /// Until the intent is on disk.
    ForTheIntent,
}

/// What to make of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judgement {
    /// It is done.
    Accepted,
    /// The same request may succeed later.
    Again {
        /// What the gateway said.
        reason: String,
        /// When.
        after: Option<Duration>,
    },
    /// Repeating it is of no use.
    Refused(String),
}

/// The body of `runs:forward` with a run request as it was given.
pub(super) fn body(target: &Target, run_request: &impl Serialize) -> Result<Vec<u8>, Failure> {
    #[derive(Serialize)]
    struct Body<'a, R> {
        forward: Forward<'a, R>,
    }
    #[derive(Serialize)]
    struct Forward<'a, R> {
        target_selector: &'a Target,
        run_request: &'a R,
    }
    let body = Body { forward: Forward { target_selector: target, run_request } };
    serde_json::to_vec(&body).map_err(Failure::failed)
}

/// A run to ask for; its input keeps its text.
#[derive(Debug, Serialize)]
pub(super) struct RunRequest<'a> {
    /// The agent that is to run.
    pub(super) agent_id: &'a str,
    /// What it gets.
    pub(super) input: &'a RawValue,
}

/// A key nobody else has.
pub(super) fn mint_key() -> String {
    Entropy::from_os().id("cli", Clock::system().now_ms())
}

/// Sends the body under `key` until the gateway accepts it, refuses it for good, or patience ends. A key inside
/// the body must be the same.
pub(super) async fn create(
    client: &Client,
    body: &[u8],
    key: &str,
    waiting: Waiting,
) -> Result<Reply, Failure> {
    let url = client.url(&["v1", "federation", "runs:forward"]);
    let mut headers = vec![(HeaderName::from_static(headers::IDEMPOTENCY_KEY), quoted(key)?)];
    if waiting == Waiting::ForTheIntent {
        headers.push((HeaderName::from_static("prefer"), HeaderValue::from_static("respond-async")));
    }
    let (entropy, deadline) = (Entropy::from_os(), Instant::now() + DEADLINE);
    let mut attempt = 0;
    loop {
        let (exit, reason, after) = match client.post(url.clone(), &headers, body.to_vec()).await {
            Ok(reply) => match judge(&reply) {
                Judgement::Accepted => return Ok(reply),
                Judgement::Refused(message) => return Err(Failure::failed(message)),
                Judgement::Again { reason, after } => (Exit::TryAgain, reason, after),
            },
            Err(CallError::Unreachable(reason)) if attempt == 0 => {
                let message = format!("{} cannot be reached: {reason}", client.base());
                return Err(Failure::new(Exit::Unreachable, message));
            }
            Err(error @ CallError::Unreachable(_)) => (Exit::Unreachable, error.to_string(), None),
            Err(error @ CallError::Broken(_)) => (Exit::TryAgain, error.to_string(), None),
        };
        let wait = wait(attempt, entropy.fraction(), after);
        attempt += 1;
        if attempt == MOST_ATTEMPTS || Instant::now() + wait >= deadline {
            let again =
                format!("repeat the command with --key {}: with it, it stays one run", shell_word(key));
            return Err(Failure::new(exit, format!("{reason}; asked {attempt} times\n{again}")));
        }
        note(format_args!("{}; asking again with the same key in {} ms", visible(&reason), wait.as_millis()));
        tokio::time::sleep(wait).await;
    }
}

/// A key as a structured-field string.
fn quoted(key: &str) -> Result<HeaderValue, Failure> {
    let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
    let header = HeaderValue::try_from(format!("\"{escaped}\"")).ok();
    let header =
        header.filter(|value| value.to_str().is_ok_and(|text| headers::idempotency_key(text).is_some()));
    header.ok_or_else(|| Failure::usage("an idempotency key is 1 to 256 printable ASCII characters"))
}

/// What the gateway asks for, or more: never less, and never in step with others.
fn wait(attempt: u32, chance: f64, asked: Option<Duration>) -> Duration {
    let ceiling = backoff::doubled(FIRST_WAIT, LONGEST_WAIT, attempt);
    asked.unwrap_or_default() + backoff::scaled(ceiling, chance)
}

fn judge(reply: &Reply) -> Judgement {
    if matches!(reply.status, 200..=202) {
        return Judgement::Accepted;
    }
    let complaint = reply.complaint();
    let mut message = format!("the gateway answered {}: {}", reply.status, complaint.sentence());
    if let Some(forward_id) = &complaint.forward_id {
        message.push_str(&format!(", forward {forward_id}"));
    }
    // A proxy's error page does not say; these are never a refusal for good.
    if complaint.retryable.unwrap_or(matches!(reply.status, 408 | 429 | 502..=504)) {
        return Judgement::Again { reason: message, after: reply.retry_after() };
    }
    Judgement::Refused(message)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::header::{HeaderMap, RETRY_AFTER};

    use super::*;
    use crate::protocol::error_code::ErrorCode;
    use crate::protocol::problem::Problem;

    fn reply(status: u16, body: &str, retry_after: Option<&'static str>) -> Reply {
        let mut headers = HeaderMap::new();
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        Reply { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn judged(code: ErrorCode, retry_after: Option<&'static str>) -> Judgement {
        let body = Problem::new(code, "why").with("forward_id", "fwd_1").to_json("req_1").to_string();
        judge(&reply(code.status(), &body, retry_after))
    }

    #[test]
    fn what_may_succeed_later_is_asked_again_with_the_wait_it_names() {
        for code in
            [ErrorCode::RequestInProgress, ErrorCode::CircuitOpen, ErrorCode::Draining, ErrorCode::Busy]
        {
            let Judgement::Again { reason, after } = judged(code, Some("2")) else { panic!("{code:?}") };
            assert_eq!(after, Some(Duration::from_secs(2)));
            assert!(reason.contains(code.as_str()) && reason.contains("fwd_1"), "{reason}");
        }
        assert!(matches!(
            judged(ErrorCode::ForwardOutcomeUnknown, None),
            Judgement::Again { after: None, .. }
        ));
    }

    #[test]
    fn a_refusal_is_final() {
        for &code in ErrorCode::ALL.iter().filter(|code| !code.is_retryable()) {
            assert!(matches!(judged(code, None), Judgement::Refused(_)), "{code:?}");
        }
    }

    #[test]
    fn an_answer_of_something_in_between_is_judged_by_its_status() {
        for (status, again) in
            [(502, true), (503, true), (504, true), (429, true), (404, false), (500, false)]
        {
            let judgement = judge(&reply(status, "<html>", None));
            assert_eq!(matches!(judgement, Judgement::Again { .. }), again, "{status}");
        }
        assert_eq!(judge(&reply(200, "{}", None)), Judgement::Accepted);
        assert_eq!(judge(&reply(202, "{}", None)), Judgement::Accepted);
    }

    #[test]
    fn a_key_is_taken_as_it_is_or_refused() {
        for key in ["k", r#"a "b" \c"#] {
            let header = quoted(key).expect("a key");
            assert_eq!(headers::idempotency_key(header.to_str().expect("text")).as_deref(), Some(key));
        }
        for bad in ["", "é", "a\nb", &"x".repeat(257)] {
            assert!(quoted(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wait_is_never_shorter_than_asked() {
        let asked = Duration::from_secs(2);
        assert_eq!(wait(0, 0.0, Some(asked)), asked);
        assert!(wait(40, 0.999, None) <= LONGEST_WAIT);
    }

    #[test]
    fn a_body_asks_for_what_was_given_and_keeps_the_input() {
        let input = RawValue::from_string("{\"n\": 1.50}".to_owned()).expect("JSON");
        let target = Target { stack_id: Some("stk_b".to_owned()), ..Target::default() };
        let request = RunRequest { agent_id: "agt", input: &input };
        let body = body(&target, &request).expect("a body");
        assert_eq!(
            String::from_utf8_lossy(&body),
            r#"{"forward":{"target_selector":{"stack_id":"stk_b"},"run_request":{"agent_id":"agt","input":{"n": 1.50}}}}"#
        );
    }
}
