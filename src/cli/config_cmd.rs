//! `causeway config`: what holds, and what is wrong with it, without starting anything.

use serde_json::{Value, json};

use super::exit::{Exit, Failure, Outcome};
use super::output::{Output, Tone, note, one_json_line, visible};
use super::settings::{Settings, explain};
use crate::config::{Config, ConfigErrors};
use crate::domain::units::TextForm;

/// What `causeway config` can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Name every mistake at once, or say that there is none
    Check(ConfigArgs),
    /// Print the whole configuration as it holds, every key with its value
    ///
    /// Files, environment and defaults are put together; the output is a configuration file that loads to the
    /// same. Credentials are not in it: only the files they come from are named.
    Show(ConfigArgs),
}

/// What both take.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    settings: Settings,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks or shows a configuration.
pub(super) fn run(command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Show(args) => show(args),
    }
}

fn check(args: &ConfigArgs) -> Outcome {
    let output = Output::stdout();
    match args.settings.load(&[]) {
        Ok(config) if args.json => {
            output.line(json!({"ok": true, "errors": [], "warnings": config.warnings()}))?;
            Ok(Exit::Done)
        }
        Ok(config) => tell(output, &args.settings, &config),
        Err(errors) if args.json => {
            output.line(errors_as_json(&errors))?;
            Ok(Exit::Configuration)
        }
        Err(errors) => Err(explain(&errors, &[])),
    }
}

fn tell(output: Output, settings: &Settings, config: &Config) -> Outcome {
    let source = match settings.file() {
        Some(path) => format!("{} and the environment", path.display()),
        None => "the environment alone (no file is named)".to_owned(),
    };
    let row = |name: &str, value: &str| output.line(format_args!("  {name:<9} {}", visible(value)));
    output.line(format_args!("{} {}", output.style.paint(Tone::Good, "ok:"), visible(&source)))?;
    row("gateway", config.gateway.stack_id.as_str())?;
    row("listen", &config.server.listen.to_string())?;
    row("data", &config.gateway.data_dir.write())?;
    for peer in &config.peers {
        let local = if peer.local { ", local" } else { "" };
        row("peer", &format!("{} at {} ({}{local})", peer.peer_id, peer.base_url, peer.kind.as_str()))?;
    }
    for warning in config.warnings() {
        output.line(format_args!("{} {}", output.style.paint(Tone::Odd, "note:"), visible(&warning)))?;
    }
    Ok(Exit::Done)
}

fn errors_as_json(errors: &ConfigErrors) -> Value {
    let entry = |error: &crate::config::ConfigError| json!({"origin": error.origin.to_string(), "key": error.key, "message": error.message});
    json!({"ok": false, "errors": errors.as_slice().iter().map(entry).collect::<Vec<_>>(), "warnings": []})
}

fn show(args: &ConfigArgs) -> Outcome {
    let config = args.settings.load_or_explain(&[])?;
    let output = Output::stdout();
    if args.json {
        let json = serde_json::to_vec(&config).map_err(Failure::failed)?;
        output.line(one_json_line(&json).map_err(|_| Failure::failed("the configuration is not JSON"))?)?;
        return Ok(Exit::Done);
    }
    note("# every key as it holds; credentials are named by their files only");
    output.text(&config.to_toml())?;
    Ok(Exit::Done)
}
