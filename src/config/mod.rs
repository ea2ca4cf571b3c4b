//! The configuration: one TOML file, the environment over it, checked as a whole before anything starts.
//!
//! Each layer defines its options beside the code that uses them; here they are gathered, read and checked.
//! Invariant: a loaded [`Config`] can be acted on without further doubt, and one that cannot tells all its
//! mistakes at once.

mod boundary;
mod check;
mod check_alerts;
mod check_peers;
mod check_profile;
mod check_trust;
mod draft;
mod env;
mod error;
mod file;
mod native_bridges;
mod native_peers;
mod peers_file;
mod policy_names;
mod schema;
mod sections;
mod source;
mod warnings;

use std::path::Path;

pub use self::error::{ConfigError, ConfigErrors, Origin, Place};
pub use self::sections::{Config, LogFormat, LogOptions};

use self::draft::Draft;

impl Config {
    /// Reads `file` if there is one, then `environment` over it, then the AgentOS peers file if one is named.
    ///
    /// A native variable takes the place of what the file says; an AgentOS name must agree with both. What
    /// nobody gives is at its default.
    ///
    /// # Errors
    ///
    /// Every mistake there is, each with its key, its place, and what is allowed.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let mut draft = Draft::new();
        if let Some(file) = file {
            file::read(file, &mut draft);
        }
        env::read(environment, &mut draft);
        if let Some(path) = draft.find_text("gateway.peers_file").map(str::to_owned) {
            peers_file::read(Path::new(&path), &mut draft);
        }
        let mut config = draft.to_config();
        check::check(&config, &mut draft);
        check_profile::check(&config, &mut draft);
        check_trust::check(&config, &mut draft);
        check_alerts::check(&mut config, &mut draft);
        boundary::check(&config, &mut draft);
        check_peers::check(&config, &mut draft);
        match draft.into_errors() {
            Some(errors) => Err(errors),
            None => Ok(config),
        }
    }
}
