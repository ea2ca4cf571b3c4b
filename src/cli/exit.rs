//! How a command ends: few exit codes, each with one meaning, and the sentence that goes with it.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

/// What scripts can rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// The command did what it was asked.
    Done,
    /// It was tried, and came out badly.
    Failed,
    /// The command line, or a file it names, is not usable.
    Usage,
    /// The configuration has mistakes; all of them were printed.
    Configuration,
    /// The gateway cannot be reached.
    Unreachable,
    /// Nothing is wrong with the command: the same one may succeed later.
    TryAgain,
}

/// Why a command ended before its work was done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Whoever read standard output went away, as `head` does: there is nobody to tell.
    ReaderGone,
    /// Something to say on standard error.
    Told {
        /// The exit code.
        exit: Exit,
        /// What happened, and what to do about it.
        message: String,
    },
}

/// What every command returns.
pub(super) type Outcome = Result<Exit, Failure>;

impl Exit {
    /// The code the process ends with.
    pub(super) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Configuration => 64,
            Exit::Unreachable => 69,
            Exit::TryAgain => 75,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

impl Failure {
    /// An end with an exit code and a sentence.
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Failure::Told { exit, message: message.to_string() }
    }

    /// It was tried, and came out badly.
    pub(super) fn failed(message: impl Display) -> Self {
        Failure::new(Exit::Failed, message)
    }

    /// The command line, or a file it names, is not usable.
    pub(super) fn usage(message: impl Display) -> Self {
        Failure::new(Exit::Usage, message)
    }

    /// Standard output could not be written.
    pub(super) fn writing(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::failed(format!("standard output cannot be written: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_a_quiet_end() {
        assert_eq!(Failure::writing(&io::ErrorKind::BrokenPipe.into()), Failure::ReaderGone);
        assert!(matches!(
            Failure::writing(&io::ErrorKind::StorageFull.into()),
            Failure::Told { exit: Exit::Failed, .. }
        ));
    }

    #[test]
    fn exit_codes_are_those_documented() {
        use Exit::{Configuration, Done, Failed, TryAgain, Unreachable, Usage};
        let codes = [Done, Failed, Usage, Configuration, Unreachable, TryAgain].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 64, 69, 75]);
    }
}
