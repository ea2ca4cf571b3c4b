//! `causeway demo`: what a gateway is for, shown on this machine in a few seconds, and checked while it is shown.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::client::{Client, Identity, PATIENCE};
use super::create::{Waiting, create};
use super::demo_hints::{self, Souvenir};
use super::demo_request::DemoRequest;
use super::exit::{Exit, Failure, Outcome};
use super::follow::{Ending, Follower, Heard};
use super::line::{Row, for_eyes, tone_of};
use super::logging;
use super::output::{Output, Tone, note, visible};
use super::signals::Signals;
use super::stream::{Follow, Item};
use crate::clock::Clock;
use crate::demo::{LEFT, RIGHT, Stage};
use crate::domain::run::RunStatus;

/// A run that takes longer is not shown to its end.
const LONGEST_RUN: Duration = Duration::from_secs(120);

/// What `causeway demo` takes.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// End after the run; the exit code says whether everything was as promised
    #[arg(long)]
    once: bool,
    /// A run request of your own (JSON): {"agent_id":…,"input":…} or a whole {"forward":…}; - is standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// One reading of the run's events, to its end.
#[derive(Default)]
struct Reading {
    events: Vec<(u64, String)>,
    gaps: usize,
    /// History has ended, and nothing has followed yet.
    caught_up: bool,
    /// The `end` frame: sequence and status.
    end: Option<(u64, String)>,
}

/// The demo while it is told.
struct Tour<'a> {
    output: Output,
    clock: Clock,
    client: Client,
    stage: &'a Stage,
    request: &'a DemoRequest,
}

/// Sets the stage, tells the tour, and takes everything down again.
pub(super) async fn run(args: DemoArgs) -> Outcome {
    let request = DemoRequest::load(args.input.as_deref())?;
    logging::install_quiet()?;
    let mut signals = Signals::listen_in_terminal()?;
    let stage = Stage::set().await.map_err(Failure::failed)?;
    let told = tokio::select! {
        told = tell(&stage, &request) => told,
        _ = signals.next() => Err(Failure::failed("interrupted")),
    };
    let shown = match &told {
        Ok(souvenir) if !args.once => demo_hints::print(&stage, &request, souvenir),
        _ => Ok(()),
    };
    if told.is_ok() && shown.is_ok() && !args.once {
        signals.next().await;
        note("");
    }
    stage.strike().await;
    told.and(shown).map(|()| Exit::Done)
}

async fn tell(stage: &Stage, request: &DemoRequest) -> Result<Souvenir, Failure> {
    let identity = Identity { tenant: request.tenant.clone(), ..Identity::default() };
    let client = Client::new(stage.left(), identity, PATIENCE)?;
    let tour = Tour { output: Output::stdout(), clock: Clock::system(), client, stage, request };
    tour.introduce()?;
    let run = tour.forward().await?;
    let live = tour.follow(&run).await?;
    let middle =
        live.events.get((live.events.len() / 2).saturating_sub(1)).map_or(0, |(sequence, _)| *sequence);
    let again = tour.resume(&run, middle).await?;
    tour.verify(&live, &again, middle)?;
    Ok(Souvenir { run, middle })
}

impl Tour<'_> {
    fn introduce(&self) -> Result<(), Failure> {
        let (left, right) = (host(&self.stage.left()), host(&self.stage.right()));
        let orchestrator = host(&self.stage.orchestrator());
        self.say("")?;
        self.say("Two gateways and an orchestrator, all on this machine, with empty logs on disk:")?;
        self.say("")?;
        let style = self.output.style;
        let name = |text: String| style.paint(Tone::Strong, text);
        self.say(format!(
            "  you ──▶ {} ──▶ {} ──▶ {}",
            name(format!("{:<16}", "left")),
            name(format!("{:<16}", "right")),
            name("orchestrator".to_owned()),
        ))?;
        self.say(format!("          {left:<20} {right:<20} {orchestrator}"))?;
        self.say(style.paint(Tone::Faint, format!("          {LEFT:<20} {RIGHT:<20} executes the runs")))?;
        self.say("")?;
        self.say("The gateways know each other by key: mutual TLS between them, and every request signed.")
    }

    async fn forward(&self) -> Result<String, Failure> {
        self.head(
            1,
            "Forward",
            "ask left for a run at stk_right. Left writes the intent to disk before it asks right.",
        )?;
        self.request_line("POST", &self.client.url(&["v1", "federation", "runs:forward"]))?;
        let started = self.clock.monotonic();
        let reply = create(&self.client, &self.request.body, &self.request.key, Waiting::ForTheRun).await?;
        let took = self.clock.monotonic().saturating_sub(started);
        let answer = reply.json();
        let text = |name: &str| answer.pointer(&format!("/forwarded/{name}")).and_then(Value::as_str);
        let run = text("run_id").ok_or_else(|| Failure::failed("the gateway's answer names no run"))?;
        let peer = visible(text("remote_stack_id").unwrap_or("?")).into_owned();
        let shown = self.output.style.paint(Tone::Strong, visible(run));
        self.say(format!("   {shown} exists at {peer}, {} ms later", took.as_millis()))?;
        Ok(run.to_owned())
    }

    async fn follow(&self, run: &str) -> Result<Reading, Failure> {
        self.head(
            2,
            "Follow",
            "its events, live, through left, which keeps each one on disk before it shows it.",
        )?;
        self.request_line("GET", &self.events_url(run, None))?;
        self.say("")?;
        let reading = self.read(run, 0).await?;
        let output = reading.events.last().and_then(|(_, envelope)| {
            let envelope: Value = serde_json::from_str(envelope).ok()?;
            Some(envelope.pointer("/event/payload/output/text")?.as_str()?.to_owned())
        });
        if let Some(text) = output {
            self.say("")?;
            self.say(format!("   The output: {}", self.output.style.paint(Tone::Strong, visible(&text))))?;
        }
        Ok(reading)
    }

    async fn resume(&self, run: &str, middle: u64) -> Result<Reading, Failure> {
        let what =
            format!("as after a lost connection: only what comes after {middle}, from left's own log.");
        self.head(3, "Resume", &what)?;
        self.request_line("GET", &self.events_url(run, Some(middle)))?;
        self.say("")?;
        self.read(run, middle).await
    }

    /// Shows the run's events after `from`, each with the time that has passed.
    async fn read(&self, run: &str, from: u64) -> Result<Reading, Failure> {
        let started = self.clock.monotonic();
        let mut follower = Follower::new(self.client.clone(), run, from, Follow::ToEnd);
        let mut reading = Reading::default();
        loop {
            let left = LONGEST_RUN.saturating_sub(self.clock.monotonic().saturating_sub(started));
            let heard = tokio::time::timeout(left, follower.next()).await.map_err(|_| {
                Failure::failed(format!("the run has not ended within {} s", LONGEST_RUN.as_secs()))
            })??;
            let passed = self.clock.monotonic().saturating_sub(started);
            match heard {
                Heard::Item(item) => self.show(&item, passed, &mut reading)?,
                Heard::Cut { reason, .. } => self.say(format!("   {}", visible(&reason)))?,
                Heard::Over(Ending::Finished(_) | Ending::Present) => return Ok(reading),
            }
        }
    }

    fn show(&self, item: &Item, passed: Duration, reading: &mut Reading) -> Result<(), Failure> {
        let style = self.output.style;
        match item {
            Item::Event { sequence, json } => {
                if std::mem::take(&mut reading.caught_up) {
                    self.say(
                        style.paint(Tone::Faint, "                   ── caught up: what follows is live ──"),
                    )?;
                }
                reading.events.push((*sequence, json.clone()));
                let when = format!("{:>8.2} s", passed.as_secs_f64());
                return self.say(Row::of(*sequence, json).to_line(&when, style));
            }
            Item::End { sequence, status, .. } => {
                reading.end = Some((*sequence, status.clone()));
                let said = format!("── end: {} at {sequence} ──", visible(status));
                return self.say(format!("                   {}", style.paint(tone_of(status), said)));
            }
            Item::Gap { .. } => reading.gaps += 1,
            Item::CaughtUp { .. } => reading.caught_up = true,
            Item::StreamError { .. } => {}
        }
        for_eyes(item, style).map_or(Ok(()), |line| self.say(line))
    }

    /// Holds what was seen against what was promised.
    fn verify(&self, live: &Reading, again: &Reading, middle: u64) -> Result<(), Failure> {
        self.say("")?;
        let mut kept = true;
        for (claim, holds) in promises(live, again, middle) {
            let style = self.output.style;
            let mark =
                if holds { style.paint(Tone::Good, "✓") } else { style.paint(Tone::Bad, "✗ not so:") };
            self.say(format!("   {mark} {claim}"))?;
            kept &= holds;
        }
        if kept { Ok(()) } else { Err(Failure::failed("the demo did not go as promised")) }
    }

    fn head(&self, number: usize, title: &str, text: &str) -> Result<(), Failure> {
        self.say("")?;
        self.say(format!("{}: {text}", self.output.style.paint(Tone::Strong, format!("{number}  {title}"))))?;
        self.say("")
    }

    fn request_line(&self, method: &str, url: &Url) -> Result<(), Failure> {
        self.say(format!("   {}", self.output.style.paint(Tone::Faint, format!("{method} {url}"))))
    }

    fn events_url(&self, run: &str, from: Option<u64>) -> Url {
        let mut url = self.client.url(&["v1", "federation", "runs", run, "events"]);
        url.set_query(from.map(|from| format!("from_sequence={from}")).as_deref());
        url
    }

    fn say(&self, line: impl std::fmt::Display) -> Result<(), Failure> {
        self.output.line(line)
    }
}

/// What was promised, and whether it came true.
fn promises(live: &Reading, again: &Reading, middle: u64) -> Vec<(String, bool)> {
    let count = live.events.len();
    let rises = live.events.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let ended = |reading: &Reading| {
        let last = reading.events.last().map(|(sequence, _)| *sequence);
        let end = reading.end.as_ref().map(|(sequence, status)| (Some(*sequence), RunStatus::find(status)));
        end == Some((last, Some(RunStatus::Completed)))
    };
    let rest: Vec<_> = live.events.iter().filter(|(sequence, _)| *sequence > middle).collect();
    vec![
        (
            format!("{count} events, strictly in sequence, no gap"),
            count > 0 && rises && live.gaps + again.gaps == 0,
        ),
        (
            "both streams ended by themselves, after the last event, completed".to_owned(),
            ended(live) && ended(again),
        ),
        (
            format!("both readings agree, word for word, on the {} after {middle}", rest.len()),
            rest.into_iter().eq(&again.events),
        ),
    ]
}

/// Host and port.
fn host(url: &Url) -> String {
    url.authority().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(events: &[u64], end: Option<(u64, &str)>) -> Reading {
        let events = events.iter().map(|sequence| (*sequence, format!("event {sequence}"))).collect();
        Reading {
            events,
            gaps: 0,
            caught_up: false,
            end: end.map(|(sequence, status)| (sequence, status.to_owned())),
        }
    }

    #[test]
    fn the_promises_are_checked() {
        let kept = |live: &Reading, again: &Reading| {
            promises(live, again, 1).iter().map(|(_, holds)| *holds).collect()
        };
        let (live, again) =
            (reading(&[1, 2, 3], Some((3, "completed"))), reading(&[2, 3], Some((3, "completed"))));
        let holds: Vec<bool> = kept(&live, &again);
        assert_eq!(holds, [true, true, true]);
        let holds: Vec<bool> = kept(&live, &reading(&[3], Some((3, "completed"))));
        assert_eq!(holds, [true, true, false]);
        let holds: Vec<bool> = kept(&reading(&[2, 1], None), &again);
        assert_eq!(holds, [false, false, false]);
        let holds: Vec<bool> = kept(&reading(&[1, 2, 3], Some((3, "failed"))), &again);
        assert_eq!(holds, [true, false, true]);
    }
}
