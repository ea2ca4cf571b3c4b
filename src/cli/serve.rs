//! `causeway serve`: one gateway until it is asked to stop, or cannot go on.

use super::exit::{Exit, Failure, Outcome};
use super::logging;
use super::settings::{Flag, Settings};
use super::signals::Signals;
use crate::app::Gateway;
use crate::http::options::TlsMode;

/// What `causeway serve` takes.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    settings: Settings,
    /// Address and port of the API, over file and environment. Port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Directory of the event log, over file and environment
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
}

/// Runs a gateway. The first signal drains it; a second one does not wait for that.
pub(super) async fn run(args: ServeArgs) -> Outcome {
    let listen = args.listen.as_deref().map(Flag::listen);
    let flags: Vec<_> = listen.into_iter().chain(args.data_dir.as_deref().map(Flag::data_dir)).collect();
    let config = args.settings.load_or_explain(&flags)?;
    logging::install(&config.log)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let scheme = if config.server.tls == TlsMode::Own { "https" } else { "http" };
    let mut signals = Signals::listen()?;
    let gateway = tokio::select! {
        started = Gateway::start(config) => started.map_err(Failure::failed)?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped while starting");
            return Ok(Exit::Done);
        }
    };
    announce(&gateway, scheme);
    let exit = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "draining: new work is refused, streams end at a frame");
            Exit::Done
        }
        () = gateway.failed() => {
            tracing::error!("the gateway cannot go on; draining what it can still answer");
            Exit::Failed
        }
    };
    tokio::select! {
        () = gateway.shutdown() => tracing::info!("stopped"),
        signal = signals.next() => {
            tracing::warn!(signal, "asked again: stopped without waiting");
            return Ok(Exit::Failed);
        }
    }
    Ok(exit)
}

/// Says that the gateway takes work, and where: with port 0 there is no other way to know.
fn announce(gateway: &Gateway, scheme: &str) {
    let address = gateway.address();
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(server.address = %address, version, "ready on {scheme}://{address}");
}
