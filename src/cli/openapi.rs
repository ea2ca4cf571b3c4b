//! `causeway openapi`: the contract this binary serves, without a gateway.

use super::exit::{Exit, Outcome};
use super::output::Output;
use crate::http::openapi;

/// What `causeway openapi` takes.
#[derive(Debug, clap::Args)]
pub(super) struct OpenApiArgs {
    /// Which of the two to print
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
}

/// The forms of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// As it was written
    Yaml,
    /// The same as JSON
    Json,
}

/// Prints the document.
pub(super) fn run(args: &OpenApiArgs) -> Outcome {
    let document = match args.format {
        Format::Yaml => openapi::yaml(),
        Format::Json => openapi::json(),
    };
    let output = Output::stdout();
    output.text(document)?;
    if !document.ends_with('\n') {
        output.line("")?;
    }
    Ok(Exit::Done)
}
