//! `causeway orchestrator`: the demo's orchestrator by itself, for a tour with gateways of one's own.

use std::net::SocketAddr;
use std::time::Duration;

use super::exit::{Exit, Failure, Outcome};
use super::logging;
use super::output::{Output, note};
use super::signals::Signals;
use crate::demo::orchestrator::{Orchestrator, RUN_TIME};

/// What `causeway orchestrator` takes.
#[derive(Debug, clap::Args)]
pub(super) struct OrchestratorArgs {
    /// Loopback address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", value_parser = parse_loopback)]
    listen: SocketAddr,
    /// How long a run takes, such as 10s or 1m. Left out: 3s
    #[arg(long, value_name = "DURATION", value_parser = parse_run_time)]
    run_time: Option<Duration>,
}

/// Serves runs until it is asked to stop; with it they are gone.
pub(super) async fn run(args: OrchestratorArgs) -> Outcome {
    logging::install_quiet()?;
    let mut signals = Signals::listen()?;
    let orchestrator = Orchestrator::start(args.listen, args.run_time.unwrap_or(RUN_TIME))
        .await
        .map_err(|error| Failure::failed(format!("cannot listen on {}: {error}", args.listen)))?;
    Output::stdout().line(format_args!("orchestrator: http://{}", orchestrator.address()))?;
    note("runs are kept in memory; Ctrl-C ends it, and them");
    signals.next().await;
    orchestrator.shutdown().await;
    Ok(Exit::Done)
}

/// Whoever can connect is believed, as in a gateway's profile dev.
fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address such as 127.0.0.1:9090".to_owned())?;
    match address.ip().to_canonical().is_loopback() {
        true => Ok(address),
        false => Err("anyone who can connect is believed, so it must be a loopback address".to_owned()),
    }
}

fn parse_run_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
    if allowed.contains(&time) { Ok(time) } else { Err("must be from 1ms to 24h".to_owned()) }
}
