//! `causeway config`: what holds, and what is wrong with it, without starting anything; with `--live`, how the peers are.

use serde_json::{Value, json};

use super::exit::{Exit, Failure, Outcome};
use super::operator::Reach;
use super::output::{Output, Tone, note, one_json_line, visible};
use super::peer::{is_healthy, verified};
use super::settings::{Settings, explain};
use super::table::text;
use crate::config::{Config, ConfigErrors};
use crate::domain::units::TextForm;

/// What `causeway config` can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Name every mistake at once, or say that there is none
    Check(CheckArgs),
    /// Print the whole configuration as it holds, every key with its value
    ///
    /// Files, environment and defaults are put together; the output is a configuration file that loads to the
    /// same. Credentials are not in it: only the files they come from are named.
    Show(ConfigArgs),
}

/// What `causeway config check` takes.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also ask every peer now, through the running gateway or as it would: 1 if any is not healthy
    #[arg(long)]
    live: bool,
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
pub(super) async fn run(command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Check(args) => check(args).await,
        ConfigCommand::Show(args) => show(args),
    }
}

async fn check(args: &CheckArgs) -> Outcome {
    let (output, ConfigArgs { settings, json }) = (Output::stdout(), &args.config);
    let config = match settings.load(&[]) {
        Ok(config) => config,
        Err(errors) if *json => {
            output.line(errors_as_json(&errors))?;
            return Ok(Exit::Configuration);
        }
        Err(errors) => return Err(explain(&errors, &[])),
    };
    let mut answer = json!({"ok": true, "errors": [], "warnings": config.warnings()});
    if !*json {
        tell(output, settings, &config)?;
    }
    let mut is_well = true;
    if args.live {
        let peers = ask_peers(settings, &config).await?;
        is_well = peers.iter().all(|peer| peer["ok"] == true);
        if !*json {
            peers.iter().try_for_each(|peer| tell_peer(output, peer))?;
        }
        answer["ok"] = Value::from(is_well);
        answer["peers"] = Value::from(peers);
    }
    if *json {
        output.line(one_json_line(answer.to_string().as_bytes()).map_err(|_| Failure::failed("no JSON"))?)?;
    }
    Ok(if is_well { Exit::Done } else { Exit::Failed })
}

/// Asks every peer there is now. One that is revoked or only introduced is as it should be, and is not asked.
async fn ask_peers(settings: &Settings, config: &Config) -> Result<Vec<Value>, Failure> {
    Reach::of(settings.clone())
        .within(None, async |api| {
            let known = api.all(&["peers"]).await?;
            let mut asked = Vec::new();
            for peer in &known {
                let id = text(peer, "/peer_id");
                let is_out = |peer: &Value| {
                    let standing = text(peer, "/standing");
                    matches!(standing.as_str(), "revoked" | "introduced").then_some(standing)
                };
                let peer = if is_out(peer).is_some() { peer.clone() } else { verified(api, &id).await? };
                let (ok, state, reason) = match is_out(&peer) {
                    Some(standing) => (true, standing, text(&peer, "/standing_reason")),
                    None => (is_healthy(&peer), text(&peer, "/health/state"), text(&peer, "/health/reason")),
                };
                asked.push(json!({"peer_id": id, "ok": ok, "state": state, "reason": reason}));
            }
            let is_known = |id: &str| known.iter().any(|peer| text(peer, "/peer_id") == id);
            for peer in config.peers.iter().filter(|peer| !is_known(peer.peer_id.as_str())) {
                let reason = "the running gateway does not know it: restart it with this configuration";
                asked.push(
                    json!({"peer_id": peer.peer_id, "ok": false, "state": "unknown", "reason": reason}),
                );
            }
            Ok(asked)
        })
        .await
}

fn tell_peer(output: Output, peer: &Value) -> Result<(), Failure> {
    let (state, reason) = (text(peer, "/state"), text(peer, "/reason"));
    let said = if reason.is_empty() { state } else { format!("{state}: {reason}") };
    let tone = if peer["ok"] == true { Tone::Good } else { Tone::Bad };
    let id = text(peer, "/peer_id");
    output.line(format_args!(
        "  {:<9} {}: {}",
        "live",
        visible(&id),
        output.style.paint(tone, visible(&said))
    ))
}

fn tell(output: Output, settings: &Settings, config: &Config) -> Result<(), Failure> {
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
    Ok(())
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
