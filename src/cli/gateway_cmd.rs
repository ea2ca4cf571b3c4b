//! `causeway gateway`: whether a running gateway takes new work.

use reqwest::Method;

use super::exit::{Exit, Outcome};
use super::operator::OperatorArgs;
use super::output::Output;
use super::table::text;

/// What `causeway gateway` can do.
#[derive(Debug, clap::Subcommand)]
pub(super) enum GatewayCommand {
    /// Hold new work off: /readyz says no, new runs get 503, what is under way goes on
    Drain(OperatorArgs),
    /// Take new work again
    Resume(OperatorArgs),
}

/// Holds new work off, or takes it again.
pub(super) async fn run(command: GatewayCommand) -> Outcome {
    let (verb, args) = match &command {
        GatewayCommand::Drain(args) => ("gateway:drain", args),
        GatewayCommand::Resume(args) => ("gateway:resume", args),
    };
    let reply = args.within_running(async |api| api.call(Method::POST, api.url(&[verb]), None).await).await?;
    let output = Output::stdout();
    if args.reach.json {
        output.json(&reply.body)?;
        return Ok(Exit::Done);
    }
    let answer = reply.json();
    let number = |name: &str| text(&answer, &format!("/intake/{name}"));
    let (forwards, streams, readers) =
        (number("forwards_unsettled"), number("streams_open"), number("readers"));
    let under_way =
        format!("{forwards} forwards unsettled, {streams} streams open, {readers} runs read at peers");
    match answer.pointer("/intake/draining") {
        Some(serde_json::Value::Bool(true)) => {
            output.line(format_args!("draining; under way: {under_way}"))?
        }
        _ => output.line(format_args!("takes new work; under way: {under_way}"))?,
    }
    Ok(Exit::Done)
}
