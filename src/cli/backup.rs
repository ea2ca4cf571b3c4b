//! `causeway backup` and `causeway restore`: the log as one file, and back.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde_json::json;

use super::exit::{Exit, Failure, Outcome};
use super::output::{Output, shell_word, visible};
use super::settings::{Flag, Settings};
use crate::entropy::Entropy;
use crate::store::{self, DATABASE_FILE};

/// What both commands take.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// The backup's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    settings: Settings,
    /// Directory of the event log; then no configuration is read
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Copies the log to a file; a gateway may be at work on it.
pub(super) fn backup(args: &BackupArgs) -> Outcome {
    let data_dir = args.data_dir()?;
    store::backup(&data_dir, &args.file).map_err(Failure::failed)?;
    report(args, "backed up", &data_dir.join(DATABASE_FILE), &args.file)?;
    Ok(Exit::Done)
}

/// Fills an empty data directory from a backup.
pub(super) fn restore(args: &BackupArgs) -> Outcome {
    let data_dir = args.data_dir()?;
    store::restore(&args.file, &data_dir, &Entropy::from_os()).map_err(Failure::failed)?;
    report(args, "restored", &args.file, &data_dir.join(DATABASE_FILE))?;
    if !args.json {
        let directory = data_dir.to_string_lossy();
        Output::stdout().line(format_args!("next: causeway serve --data-dir {}", shell_word(&directory)))?;
    }
    Ok(Exit::Done)
}

impl BackupArgs {
    /// The flag alone is enough; without it the configuration says, and must be free of mistakes.
    fn data_dir(&self) -> Result<PathBuf, Failure> {
        match &self.data_dir {
            Some(data_dir) => Ok(data_dir.clone()),
            None => Ok(self.settings.load_or_explain(&[] as &[Flag])?.gateway.data_dir),
        }
    }
}

fn report(args: &BackupArgs, act: &str, from: &Path, to: &Path) -> Result<(), Failure> {
    let bytes = std::fs::metadata(to).map_err(Failure::failed)?.len();
    let output = Output::stdout();
    if args.json {
        return output
            .line(json!({"from": from.to_string_lossy(), "to": to.to_string_lossy(), "bytes": bytes}));
    }
    let size = ByteSize::b(bytes);
    output.line(format_args!("{act} {} to {} ({size}), checked", shown(from), shown(to)))
}

fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy()).into_owned()
}
