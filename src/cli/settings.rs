//! The configuration as a command gets it: a file if one is named, the environment over it, flags over both.

use std::env;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use super::output::visible;
use crate::config::{Config, ConfigErrors, Origin};

/// Where the configuration file is.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Settings {
    /// Configuration file (TOML). Left out: none, the environment alone decides
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CONFIG")]
    config: Option<PathBuf>,
}

/// A flag that says what a variable could say too.
#[derive(Debug, Clone)]
pub(super) struct Flag {
    name: &'static str,
    /// The first is the one it stands for; the others would contradict it.
    variables: [&'static str; 2],
    value: String,
}

impl Flag {
    /// `--listen`: the address of the API.
    pub(super) fn listen(value: &str) -> Self {
        let variables = ["CAUSEWAY_LISTEN", "CAUSEWAY_SERVER_LISTEN"];
        Flag { name: "--listen", variables, value: value.to_owned() }
    }

    /// `--data-dir`: the directory of the log.
    pub(super) fn data_dir(value: &Path) -> Self {
        let variables = ["CAUSEWAY_DATA_DIR", "CAUSEWAY_GATEWAY_DATA_DIR"];
        Flag { name: "--data-dir", variables, value: value.to_string_lossy().into_owned() }
    }
}

impl Settings {
    /// The file, when one is named; the empty name is none.
    pub(super) fn file(&self) -> Option<&Path> {
        self.config.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// Reads file, environment and flags. Every mistake there is comes back at once.
    pub(super) fn load(&self, flags: &[Flag]) -> Result<Config, ConfigErrors> {
        let mut given = environment();
        for flag in flags {
            given.retain(|(name, _)| !flag.variables.contains(&name.as_str()));
            given.push((flag.variables[0].to_owned(), flag.value.clone()));
        }
        Config::load(self.file(), given)
    }

    /// As [`Settings::load`], for commands that can only stop at mistakes.
    pub(super) fn load_or_explain(&self, flags: &[Flag]) -> Result<Config, Failure> {
        self.load(flags).map_err(|errors| explain(&errors, flags))
    }
}

/// All mistakes, one per line, each where it was made.
pub(super) fn explain(errors: &ConfigErrors, flags: &[Flag]) -> Failure {
    let errors = errors.as_slice();
    let mistakes =
        if errors.len() == 1 { "a mistake".to_owned() } else { format!("{} mistakes", errors.len()) };
    let mut message = format!("the configuration has {mistakes}; nothing was started");
    for error in errors {
        let mut error = error.clone();
        if let Origin::Variable(name) = &mut error.origin
            && let Some(flag) = flags.iter().find(|flag| flag.variables[0] == *name)
        {
            flag.name.clone_into(name);
        }
        message.push_str(&format!("\n  {}", visible(&error.to_string())));
    }
    Failure::new(Exit::Configuration, message)
}

/// The variables as text. One that is no text keeps its name, so that it is refused and not passed over.
fn environment() -> Vec<(String, String)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_a_flag_is_named_by_its_flag() {
        let flags = [Flag::listen("0.0.0.0:80")];
        let errors = Settings::default().load(&flags).expect_err("not loopback");
        let Failure::Told { exit, message } = explain(&errors, &flags) else { panic!("told") };
        assert_eq!(exit, Exit::Configuration);
        assert!(message.contains("--listen: server.listen: 0.0.0.0:80 is not allowed"), "{message}");
        assert!(!message.contains("CAUSEWAY_LISTEN"), "{message}");
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let config = Settings::default().load(&[Flag::data_dir(Path::new("/tmp/x"))]).expect("valid");
        assert_eq!(config.gateway.data_dir, Path::new("/tmp/x"));
    }
}
