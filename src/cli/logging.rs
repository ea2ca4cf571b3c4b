//! The log: to standard error, as text on a terminal and as JSON elsewhere, so that standard output is free
//! for results.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::exit::{Exit, Failure};
use crate::config::{LogFormat, LogOptions};

/// Where a client command or the demo looks for a level of its own.
const LEVEL_VARIABLES: [&str; 2] = ["CAUSEWAY_LOG", "RUST_LOG"];

/// Installs the log as configured. Once per process; a second time changes nothing.
pub(super) fn install(options: &LogOptions) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&options.level)
        .map_err(|error| Failure::new(Exit::Configuration, format!("log.level: {error}")))?;
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _ = match options.format {
        LogFormat::Auto if !terminal => builder.json().try_init(),
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Auto | LogFormat::Text => builder.with_ansi(terminal).with_target(false).try_init(),
    };
    Ok(())
}

/// Installs a log for eyes that keeps quiet unless a variable asks for more.
pub(super) fn install_quiet() -> Result<(), Failure> {
    let asked = LEVEL_VARIABLES.iter().find_map(|name| env::var(name).ok().filter(|level| !level.is_empty()));
    let level = asked.unwrap_or_else(|| "warn".to_owned());
    install(&LogOptions { format: LogFormat::Text, level })
}
