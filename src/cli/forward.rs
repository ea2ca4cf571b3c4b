//! `causeway forward`: a run at a peer, created once, whatever has to be repeated for that.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgGroup;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Client, GatewayArgs, Reply};
use super::create::{RunRequest, Target, Waiting, body, create, mint_key};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Output, Tone, note, shell_word, visible};
use super::stream::Follow;
use super::tail::{self, Form};
use crate::domain::id::{AgentId, PeerId};
use crate::protocol::headers;

/// The largest file taken as input; a gateway takes no larger request.
const MOST_INPUT_BYTES: u64 = 1024 * 1024;
/// First and longest wait between two looks at a forward that is not at rest.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What `causeway forward` takes.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("target").required(true).multiple(true).args(["to", "region", "require"]))]
#[command(group = ArgGroup::new("given").required(true).args(["input", "text", "input_file"]))]
pub(super) struct ForwardArgs {
    /// The peer that is to run it, by its stack id
    #[arg(long, value_name = "STACK", value_parser = PeerId::parse)]
    to: Option<PeerId>,
    /// Only a peer of this region
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Only a peer that can do this, such as events.sse_proxy; may be repeated
    #[arg(long, value_name = "CAPABILITY")]
    require: Vec<String>,
    /// The agent that is to run
    #[arg(long, value_name = "AGENT", value_parser = AgentId::parse)]
    agent: AgentId,
    /// Its input, as JSON
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// Its input, as text: short for --input '{"type":"text","text":…}'
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Its input, as JSON from a file; - is standard input
    #[arg(long, value_name = "FILE")]
    input_file: Option<PathBuf>,
    /// Idempotency key: the same key creates the same run once. Left out: a new one
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Do not wait for the peer: return once the gateway has written the intent down
    #[arg(long = "async")]
    respond_async: bool,
    /// Go on to follow its events, as `causeway tail` does
    #[arg(long)]
    follow: bool,
    /// Print the gateway's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Creates a run, and follows it if asked to.
pub(super) async fn run(args: ForwardArgs) -> Outcome {
    let input = args.input()?;
    let client = args.gateway.client()?;
    let key = args.key.clone().unwrap_or_else(mint_key);
    let request = RunRequest { agent_id: args.agent.as_str(), input: &input };
    let waiting = if args.respond_async { Waiting::ForTheIntent } else { Waiting::ForTheRun };
    let reply = create(&client, &body(&args.target(), &request)?, &key, waiting).await?;
    let output = Output::stdout();
    match args.json {
        true => output.json(&reply.body)?,
        false => report(output, &client, &reply, &key)?,
    }
    if !args.follow {
        return Ok(Exit::Done);
    }
    let run = match run_of(&reply.json()) {
        Some(run) => run,
        None => settled(&client, &reply).await?,
    };
    let form = if args.json { Form::Json } else { Form::Lines };
    tail::print(client, &run, 0, Follow::ToEnd, form).await
}

impl ForwardArgs {
    fn target(&self) -> Target {
        Target {
            stack_id: self.to.as_ref().map(|peer| peer.as_str().to_owned()),
            region: self.region.clone(),
            required_capabilities: self.require.clone(),
        }
    }

    /// The input as JSON, in the words it was given in.
    fn input(&self) -> Result<Box<RawValue>, Failure> {
        if let Some(text) = &self.text {
            let part = serde_json::json!({"type": "text", "text": text});
            return serde_json::value::to_raw_value(&part).map_err(Failure::failed);
        }
        let (name, json) = match (&self.input, &self.input_file) {
            (Some(json), _) => ("--input".to_owned(), json.clone()),
            (None, Some(path)) => (path.display().to_string(), read_input(path)?),
            (None, None) => return Err(Failure::usage("one of --input, --text, --input-file is needed")),
        };
        serde_json::from_str(&json)
            .map_err(|error| Failure::usage(format!("{}: this is not JSON: {error}", visible(&name))))
    }
}

/// Reads a file of input, or standard input for `-`.
pub(super) fn read_input(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MOST_INPUT_BYTES + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MOST_INPUT_BYTES + 1).read_to_string(&mut text))
    };
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let name = visible(&name);
    match read {
        Err(error) => Err(Failure::usage(format!("{name} cannot be read: {error}"))),
        Ok(_) if text.len() as u64 > MOST_INPUT_BYTES => Err(Failure::usage(format!(
            "{name} is longer than {MOST_INPUT_BYTES} bytes, the most a gateway takes"
        ))),
        Ok(_) => Ok(text),
    }
}

/// The run an answer names, when it names one already.
fn run_of(answer: &Value) -> Option<String> {
    ["/forwarded/run_id", "/forward/run_id"]
        .iter()
        .find_map(|pointer| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned))
}

fn report(output: Output, client: &Client, reply: &Reply, key: &str) -> Result<(), Failure> {
    let answer = reply.json();
    let answer = answer.get("forwarded").or_else(|| answer.get("forward")).unwrap_or(&Value::Null);
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let row = |name: &str, value: &str| {
        output.line(format_args!(
            "{} {}",
            output.style.paint(Tone::Faint, format!("{name:<8}")),
            visible(value)
        ))
    };
    for (name, field) in [
        ("run", "run_id"),
        ("peer", "remote_stack_id"),
        ("peer", "stack_id"),
        ("status", "status"),
        ("state", "state"),
        ("forward", "forward_id"),
    ] {
        if let Some(value) = text(field) {
            row(name, value)?;
        }
    }
    row("key", key)?;
    if reply.header(headers::IDEMPOTENCY_REPLAYED).is_some() {
        row("note", "this key had created the run before; nothing was created now")?;
    }
    match (text("run_id"), text("forward_id")) {
        (Some(run), _) => row("events", &format!("causeway tail {}{}", shell_word(run), client.flags())),
        (None, Some(forward)) => {
            let url = client.url(&["v1", "federation", "forwards", forward]);
            row("look", &format!("curl -s {}", shell_word(url.as_str())))
        }
        (None, None) => Ok(()),
    }
}

/// Waits until a forward is at rest, and names its run.
async fn settled(client: &Client, reply: &Reply) -> Result<String, Failure> {
    let answer = reply.json();
    let forward = answer
        .pointer("/forward/forward_id")
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::failed("the gateway's answer names neither a run nor a forward"))?;
    let url = client.url(&["v1", "federation", "forwards", forward]);
    let mut wait = LOOK_AGAIN.0;
    note(format_args!("waiting for the peer; Ctrl-C stops waiting, not the forward {}", visible(forward)));
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_AGAIN.1);
        // A gateway that is away for a while is why a forward is asynchronous.
        let Ok(reply) = client.get(url.clone()).await else { continue };
        let answer = reply.json();
        if let Some(run) = run_of(&answer) {
            return Ok(run);
        }
        let state = answer.pointer("/forward/state").and_then(Value::as_str).unwrap_or_default();
        if matches!(state, "refused" | "expired") {
            let why =
                answer.pointer("/forward/error/message").and_then(Value::as_str).unwrap_or("no reason given");
            return Err(Failure::failed(format!("the forward is {state}: {}", visible(why))));
        }
        if reply.status == 404 {
            return Err(Failure::failed(format!(
                "the gateway does not know the forward {}",
                visible(forward)
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_is_found_in_both_kinds_of_answer() {
        use serde_json::json;
        assert_eq!(run_of(&json!({"forwarded": {"run_id": "r1"}})).as_deref(), Some("r1"));
        assert_eq!(
            run_of(&json!({"forward": {"run_id": "r2", "state": "forwarded"}})).as_deref(),
            Some("r2")
        );
        assert_eq!(run_of(&json!({"forward": {"run_id": null, "state": "reserved"}})), None);
    }
}
