//! The command line: one command per file, results on standard output, everything else on standard error.
//!
//! Invariants: a command returns how it ended and never ends the process itself; what comes from outside is made
//! harmless before it reaches a terminal (see `output`).

mod backup;
mod client;
mod config_cmd;
mod create;
mod demo;
mod demo_hints;
mod demo_request;
mod exit;
mod follow;
mod forward;
mod health;
mod line;
mod logging;
mod openapi;
mod orchestrator;
mod output;
mod serve;
mod settings;
mod signals;
mod stream;
mod tail;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::exit::{Exit, Failure, Outcome};
use self::output::{note, visible};

/// How long work that cannot be interrupted (a read of standard input) may hold up the end of the process.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

const ABOUT: &str = "\
Causeway is a federation gateway: create a run at a peer through your own gateway, once
and only once, and follow its events through it, in order, without a silent hole.";

const START: &str = "\
New here? Try:
  causeway demo          two gateways and a run between them, on this machine
  causeway config show   every key and its value; config/causeway.toml explains them
  causeway serve --config causeway.toml

Exit codes:
  0 done   1 failed   2 usage   64 configuration   69 gateway not reachable
  75 try again later";

const SERVE: &str = "\
Examples:
  causeway serve                 environment alone: 127.0.0.1:8080, data in ./data
  causeway serve --config config/causeway.toml
  CAUSEWAY_LISTEN=127.0.0.1:9000 AGENTOS_DEFAULT_TENANT=tnt_demo causeway serve

Every key of the configuration is a variable too: forward.max_attempts is
CAUSEWAY_FORWARD_MAX_ATTEMPTS. The first SIGTERM or Ctrl-C drains: /readyz says no,
new work is refused, event streams end at a frame. The second one does not wait.

Exit codes:
  0 drained   1 cannot start, or the disk failed   64 configuration (all mistakes)";

const CONFIG: &str = "\
Examples:
  causeway config check --config causeway.toml    64 and every mistake, or 0
  causeway config show                            what holds without a file
  causeway config show --config left.toml --json | jq .forward";

const HEALTH: &str = "\
Examples:
  causeway healthcheck                            where the configuration listens
  causeway healthcheck --url http://127.0.0.1:8080
  HEALTHCHECK CMD [\"causeway\", \"healthcheck\"]    in a Dockerfile

Exit codes:
  0 ready   1 not ready, not reachable, or no answer within 2 s";

const OPENAPI: &str = "\
Examples:
  causeway openapi > causeway.v1.yaml
  causeway openapi --format json | jq '.paths | keys'";

const BACKUP: &str = "\
Examples:
  causeway backup /backups/causeway-$(date +%F).db --config causeway.toml
  causeway backup copy.db --data-dir data --json

The copy is one file, checked, and gets its name last; a gateway may run meanwhile.
It holds all the gateway knows, its secret too: keep it as safe as the data directory.";

const RESTORE: &str = "\
Examples:
  causeway restore /backups/causeway-2026-01-05.db --data-dir data

Stop the gateway and move the old data directory away first: nothing is overwritten.
List cursors given out before are refused afterwards: what they point at may be lost.";

const TAIL: &str = "\
Examples:
  causeway tail run_01JH9YZZ                 all so far, then live, until the run ends
  causeway tail run_01JH9YZZ --from 12       only what comes after sequence 12
  causeway tail run_01JH9YZZ --no-follow --json | jq .event.type

A cut connection is taken up again where it broke, with growing pauses.

Exit codes:
  0 the run completed   1 it failed, was canceled or lost
  69 the gateway could not be reached at first   75 try again later";

const FORWARD: &str = "\
Examples:
  causeway forward --to stk_b --agent agt_echo --text 'hello' --follow
  causeway forward --region us-west-2 --require tool_hosting --agent agt_sql \\
      --input '{\"query\":\"select 1\"}'
  causeway forward --to stk_b --agent agt_echo --input-file - --key order-4711 < in.json

The key makes it one run: a request that was interrupted, or not answered, is sent
again with the same key, a few times. If the command gives up all the same, run it
again with the --key it names.

Exit codes:
  0 the run exists (with --async: will be created; with --follow: completed)
  1 refused   69 gateway not reachable   75 try again later, with the same key";

const DEMO: &str = "\
Examples:
  causeway demo                              then stays up, with curl lines to try
  causeway demo --once                       0 if all went as promised
  causeway demo --input my-run.json          {\"agent_id\":\"agt_a\",\"input\":{\"text\":\"hi\"}}
  CAUSEWAY_LOG=info causeway demo --once     with the gateways' log";

const ORCHESTRATOR: &str = "\
Examples:
  causeway orchestrator                      where config/pair/right.toml looks for it
  causeway orchestrator --listen 127.0.0.1:0 --run-time 1m

It listens on loopback only and keeps everything in memory. Its runs count the words
of their input: they are there to be forwarded and followed.";

/// The command line as it was given.
#[derive(Debug, Parser)]
#[command(name = "causeway", version, about = ABOUT, after_help = START, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway
    #[command(after_help = SERVE)]
    Serve(serve::ServeArgs),
    /// Check or show the configuration
    #[command(subcommand, after_help = CONFIG)]
    Config(config_cmd::ConfigCommand),
    /// Ask a gateway whether it takes work
    #[command(after_help = HEALTH)]
    Healthcheck(health::HealthArgs),
    /// Print the HTTP contract (OpenAPI 3.1)
    #[command(after_help = OPENAPI)]
    Openapi(openapi::OpenApiArgs),
    /// Copy the log to a file
    #[command(after_help = BACKUP)]
    Backup(backup::BackupArgs),
    /// Fill an empty data directory from a backup
    #[command(after_help = RESTORE)]
    Restore(backup::BackupArgs),
    /// Follow the events of a run
    #[command(after_help = TAIL)]
    Tail(tail::TailArgs),
    /// Create a run at a peer, once
    #[command(after_help = FORWARD)]
    Forward(forward::ForwardArgs),
    /// See it work: two gateways, an orchestrator and a run, on this machine
    #[command(after_help = DEMO)]
    Demo(demo::DemoArgs),
    /// Run the small built-in orchestrator
    #[command(after_help = ORCHESTRATOR)]
    Orchestrator(orchestrator::OrchestratorArgs),
}

/// Runs the command that the arguments name, and says how it ended.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help and version go to standard output, mistakes to standard error; nobody reading is no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return ended(Err(Failure::failed(format!("no threads can be started: {error}")))).into();
        }
    };
    let outcome = runtime.block_on(run(command));
    runtime.shutdown_timeout(LAST_PATIENCE);
    ended(outcome).into()
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Config(command) => config_cmd::run(&command),
        Command::Healthcheck(args) => health::run(args).await,
        Command::Openapi(args) => openapi::run(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Tail(args) => tail::run(args).await,
        Command::Forward(args) => forward::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Orchestrator(args) => orchestrator::run(args).await,
    }
}

/// Says why a command failed, and gives its exit code.
fn ended(outcome: Outcome) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(Failure::ReaderGone) => Exit::Done,
        Err(Failure::Told { exit, message }) => {
            for (index, line) in message.lines().enumerate() {
                let name = if index == 0 { "causeway: " } else { "" };
                note(format_args!("{name}{}", visible(line)));
            }
            exit
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_with_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("causeway {}", command.get_name());
            assert!(help.contains(&example), "{example}");
        }
    }

    #[test]
    fn examples_are_taken_as_they_are_printed() {
        for line in [
            "causeway serve",
            "causeway serve --config config/causeway.toml --listen 127.0.0.1:0 --data-dir /tmp/x",
            "causeway config check --config causeway.toml",
            "causeway config show --json",
            "causeway healthcheck --url http://127.0.0.1:8080",
            "causeway openapi --format json",
            "causeway backup copy.db --data-dir data --json",
            "causeway restore copy.db --data-dir data",
            "causeway tail run_01JH9YZZ --no-follow --json",
            "causeway tail run_01JH9YZZ --from 12 --tenant t --principal p --url http://127.0.0.1:1",
            "causeway forward --to stk_b --agent agt_echo --text hello --follow",
            "causeway forward --require a --require b --region r --agent agt_echo --input {} --async --json",
            "causeway forward --to stk_b --agent agt_echo --input-file - --key order-4711",
            "causeway demo --once --input -",
            "causeway orchestrator --listen 127.0.0.1:0 --run-time 1m",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "causeway",
            "causeway tail",
            "causeway tail run_1 --from -1",
            "causeway tail run_1 --from 1.5",
            "causeway tail run_1 --url ftp://x",
            "causeway tail run_1 --url http://user:pw@x",
            "causeway forward --agent agt --text x",
            "causeway forward --to stk_b --text x",
            "causeway forward --to stk_b --agent agt",
            "causeway forward --to stk_b --agent agt --text x --input {}",
            "causeway openapi --format xml",
            "causeway orchestrator --listen 0.0.0.0:9090",
            "causeway orchestrator --run-time 0s",
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.use_stderr(), "{line}");
        }
    }
}
