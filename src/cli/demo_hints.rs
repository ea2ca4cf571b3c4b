//! What to try by hand once the demo has been shown: lines to copy as they are.

use super::demo_request::DemoRequest;
use super::exit::Failure;
use super::output::{Output, Tone, shell_word};
use crate::demo::{RIGHT, Stage};
use crate::protocol::headers;
use crate::protocol::paths;

/// A longer body is not worth a line.
const LONGEST_BODY: usize = 1000;
/// Sent when the user's own is longer.
const SHORT_BODY: &str = r#"{"forward":{"target_selector":{"stack_id":"stk_right"},"run_request":{"agent_id":"agt_demo","input":{"type":"text","text":"hello"}}}}"#;

/// What the tour leaves to play with.
pub(super) struct Souvenir {
    /// The run that was shown.
    pub(super) run: String,
    /// A sequence in its middle.
    pub(super) middle: u64,
}

/// Prints them.
pub(super) fn print(stage: &Stage, request: &DemoRequest, souvenir: &Souvenir) -> Result<(), Failure> {
    let output = Output::stdout();
    let left = stage.left();
    let url = |segments: &[&str]| shell_word(paths::below(&left, segments).as_str()).into_owned();
    let run = souvenir.run.as_str();
    let tenant = match &request.tenant {
        Some(tenant) => format!(" -H {}", shell_word(&format!("{}: {tenant}", headers::TENANT))),
        None => String::new(),
    };
    let events = url(&["v1", "federation", "runs", run, "events"]);
    output.line("")?;
    let strong = |text: &str| output.style.paint(Tone::Strong, text);
    output.line(format_args!("{}; everything stays up until Ctrl-C.", strong("Try it by hand")))?;
    for (what, line) in [
        (
            "create another run at stk_right",
            forward_line(&url(&["v1", "federation", "runs:forward"]), &tenant, request),
        ),
        ("create one and follow it live, reconnecting by itself", own_line(left.as_str(), request)),
        ("follow the run you saw, from the beginning", format!("curl -N{tenant} {events}")),
        (
            "resume it in the middle, as a browser does",
            format!("curl -N{tenant} -H 'Last-Event-ID: {}' {events}", souvenir.middle),
        ),
        ("the same as one page of JSON", format!("curl -s{tenant} -H 'Accept: application/json' {events}")),
        (
            "what left knows of the run, and of its peer",
            format!("curl -s{tenant} {}", url(&["v1", "federation", "runs", run])),
        ),
        ("", format!("curl -s{tenant} {}", url(&["v1", "federation", "peers"]))),
        ("the whole contract", format!("curl -s {}", url(&["openapi.yaml"]))),
    ] {
        if !what.is_empty() {
            output.line("")?;
            output.line(output.style.paint(Tone::Faint, format!("   # {what}")))?;
        }
        output.line(format_args!("   {line}"))?;
    }
    output.line("")
}

fn forward_line(url: &str, tenant: &str, request: &DemoRequest) -> String {
    let own = std::str::from_utf8(&request.body).ok().filter(|body| body.len() <= LONGEST_BODY);
    let body = shell_word(own.unwrap_or(SHORT_BODY)).into_owned();
    format!("curl -s{tenant} -H 'Content-Type: application/json' {url} \\\n     -d {body}")
}

/// The same with this program, wherever it lies.
fn own_line(left: &str, request: &DemoRequest) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "causeway".into());
    let program = shell_word(&program.to_string_lossy()).into_owned();
    let tenant = match &request.tenant {
        Some(tenant) => format!(" --tenant {}", shell_word(tenant.as_str())),
        None => String::new(),
    };
    let left = shell_word(left.trim_end_matches('/')).into_owned();
    format!("{program} forward --url {left}{tenant} --to {RIGHT} --agent agt_demo --text hello --follow")
}
