//! The command line: one command per file, results on standard output, everything else on standard error.
//!
//! Invariants: a command returns how it ended and never ends the process itself; what comes from outside is made
//! harmless before it reaches a terminal (see `output`).

mod access;
mod audit;
mod audit_copy;
mod backup;
mod bench;
mod client;
mod config_cmd;
mod create;
mod demo;
mod demo_hints;
mod demo_request;
mod exit;
mod follow;
mod forward;
mod gateway_cmd;
mod health;
mod help;
mod key;
mod line;
mod logging;
mod monitor;
mod openapi;
mod operator;
mod orchestrator;
mod output;
mod peer;
mod peer_entry;
mod serve;
mod settings;
mod signals;
mod stream;
mod table;
mod tail;
mod token;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::exit::{Exit, Failure, Outcome};
use self::help::*;
use self::output::{note, visible};

/// How long work that cannot be interrupted (a read of standard input) may hold up the end of the process.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

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
    /// Make, list and revoke the tokens of clients and operators
    #[command(subcommand, after_help = TOKEN)]
    Token(token::TokenCommand),
    /// Enrol, change, ask, drain and revoke peers
    #[command(subcommand, after_help = PEER)]
    Peer(peer::PeerCommand),
    /// Show and rotate the gateway's own key
    #[command(subcommand, after_help = KEY)]
    Key(key::KeyCommand),
    /// Show and verify the trail of decisions and changes
    #[command(subcommand, after_help = AUDIT)]
    Audit(audit::AuditCommand),
    /// List what wants attention at a running gateway
    #[command(after_help = ALERTS)]
    Alerts(operator::OperatorArgs),
    /// List the way to each peer: how it is, since when and why
    #[command(after_help = LINKS)]
    Links(operator::OperatorArgs),
    /// Show which way work may go between a gateway and its peers
    #[command(after_help = TOPOLOGY)]
    Topology(operator::OperatorArgs),
    /// List forwards: where they go and how that goes
    #[command(after_help = DELIVERIES)]
    Deliveries(Box<monitor::DeliveriesArgs>),
    /// Hold new work off a running gateway, or let it in again
    #[command(subcommand, after_help = GATEWAY)]
    Gateway(gateway_cmd::GatewayCommand),
    /// See it work: two gateways, an orchestrator and a run, on this machine
    #[command(after_help = DEMO)]
    Demo(demo::DemoArgs),
    /// Measure a gateway, and verify what is measured
    #[command(after_help = BENCH)]
    Bench(bench::BenchArgs),
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
        Command::Config(command) => config_cmd::run(&command).await,
        Command::Healthcheck(args) => health::run(args).await,
        Command::Openapi(args) => openapi::run(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Tail(args) => tail::run(args).await,
        Command::Forward(args) => forward::run(args).await,
        Command::Token(command) => token::run(command).await,
        Command::Peer(command) => peer::run(command).await,
        Command::Key(command) => key::run(command).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Alerts(args) => monitor::alerts(&args).await,
        Command::Links(args) => monitor::links(&args).await,
        Command::Topology(args) => monitor::topology(&args).await,
        Command::Deliveries(args) => monitor::deliveries(&args).await,
        Command::Gateway(command) => gateway_cmd::run(command).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Bench(args) => bench::run(args).await,
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
            "causeway forward --to stk_b --agent a --text x --url https://gw --token-file t --ca-file ca.pem",
            "causeway token create --tenant t --principal p --scopes runs:forward,events:read --label ci --lifetime 90d",
            "causeway token create --admin --principal alice --data-dir data",
            "causeway token list --url https://gw --token-file t --json",
            "causeway token list --gateway https://gw --token-file t --json",
            "causeway token revoke abc --config c.toml",
            "causeway peer add stk_b --url https://b:8443 --kind gateway --operations forward_out --tenants *",
            "causeway peer add stk_b --url https://b --gateway https://gw --token-file t --peer-token-file f --local",
            "causeway peer update stk_b --tenants acme,beta",
            "causeway peer revoke stk_b --reason lost",
            "causeway peer verify stk_b --url https://gw",
            "causeway key show --bare",
            "causeway key rotate --overlap 1h",
            "causeway key rotate --cancel",
            "causeway audit list --subject operator:alice --limit 10",
            "causeway audit verify --sink audit.jsonl --data-dir data",
            "causeway alerts --json",
            "causeway links --url https://gw --token-file t",
            "causeway topology --config c.toml",
            "causeway deliveries --peer stk_b --state expired --tenant acme --limit 500",
            "causeway gateway drain",
            "causeway config check --live --config c.toml",
            "causeway demo --once --input -",
            "causeway orchestrator --listen 127.0.0.1:0 --run-time 1m",
            "causeway bench ingest --writers 16 --batch 100 --compare before.json",
            "causeway bench proxy --rate 1000 --hops 2 --json",
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
            "causeway token create --principal p --scopes runs:read",
            "causeway token create --tenant t --principal p",
            "causeway token create --tenant t --principal p --scopes runs:fly",
            "causeway token create --admin --tenant t --principal p",
            "causeway token create --admin --principal p --lifetime soon",
            "causeway peer add stk_b",
            "causeway peer add stk_b --url ftp://b",
            "causeway peer add stk_b --url https://b --kind server",
            "causeway key rotate --cancel --overlap 1h",
            "causeway audit list --limit 0",
            "causeway deliveries --state lost",
            "causeway deliveries --limit 0",
            "causeway deliveries --peer 'a b'",
            "causeway gateway",
            "causeway orchestrator --listen 0.0.0.0:9090",
            "causeway orchestrator --run-time 0s",
            "causeway bench",
            "causeway bench ingest --batch 501",
            "causeway bench ingest --rate 0",
            "causeway bench ingest --pid 1",
            "causeway bench forward --hops 2 --url http://127.0.0.1:1",
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.use_stderr(), "{line}");
        }
    }
}
