//! `causeway tail`: a run's events in the terminal, over any number of connections.

use super::client::{Client, GatewayArgs};
use super::exit::{Exit, Failure, Outcome};
use super::follow::{Ending, Follower, Heard};
use super::line::{for_eyes, for_programs, tone_of};
use super::output::{Output, note, visible};
use super::stream::{Follow, Item};
use crate::domain::id::RunId;
use crate::domain::run::RunStatus;

/// What `causeway tail` takes.
#[derive(Debug, clap::Args)]
pub(super) struct TailArgs {
    /// The run, by its id on that gateway
    #[arg(value_name = "RUN", value_parser = RunId::parse)]
    run: RunId,
    /// The last sequence you have seen; 0 is the beginning
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    from: u64,
    /// Stop at what is there now, instead of waiting for the end of the run
    #[arg(long)]
    no_follow: bool,
    /// Print one JSON object per line: envelopes, and `gap`, `caught_up`, `end`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// How items are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For eyes.
    Lines,
    /// For programs.
    Json,
}

/// Follows a run and prints what it says.
pub(super) async fn run(args: TailArgs) -> Outcome {
    let follow = if args.no_follow { Follow::ToPresent } else { Follow::ToEnd };
    let form = if args.json { Form::Json } else { Form::Lines };
    print(args.gateway.client()?, args.run.as_str(), args.from, follow, form).await
}

/// Prints a run's events after `from`; the exit code is how the run ended.
pub(super) async fn print(client: Client, run: &str, from: u64, follow: Follow, form: Form) -> Outcome {
    let output = Output::stdout();
    let mut follower = Follower::new(client, run, from, follow);
    let mut told_end = false;
    loop {
        match follower.next().await? {
            Heard::Item(item) => {
                told_end |= matches!(item, Item::End { .. });
                print_item(output, &item, form)?;
            }
            Heard::Cut { reason, wait } => {
                let (reason, cursor, wait) = (visible(&reason), follower.cursor(), wait.as_secs_f64());
                note(format_args!("{reason}; going on after {cursor} in {wait:.1} s"));
            }
            Heard::Over(ending) => {
                if let (Ending::Finished(status), Form::Lines, false) = (&ending, form, told_end) {
                    let said = format!("nothing after {}: the run is {}", follower.cursor(), visible(status));
                    output.line(output.style.paint(tone_of(status), said))?;
                }
                return Ok(exit_of(&ending));
            }
        }
    }
}

fn print_item(output: Output, item: &Item, form: Form) -> Result<(), Failure> {
    match form {
        Form::Json => output.line(for_programs(item)),
        Form::Lines => for_eyes(item, output.style).map_or(Ok(()), |line| output.line(line)),
    }
}

/// A run that did not complete is a failure; a run that goes on is none.
fn exit_of(ending: &Ending) -> Exit {
    match ending {
        Ending::Present => Exit::Done,
        Ending::Finished(status) if RunStatus::find(status) == Some(RunStatus::Completed) => Exit::Done,
        Ending::Finished(_) => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_how_the_run_ended() {
        for (status, exit) in [
            ("completed", Exit::Done),
            ("failed", Exit::Failed),
            ("canceled", Exit::Failed),
            ("lost", Exit::Failed),
            ("something new", Exit::Failed),
        ] {
            assert_eq!(exit_of(&Ending::Finished(status.to_owned())), exit, "{status}");
        }
        assert_eq!(exit_of(&Ending::Present), Exit::Done);
    }
}
