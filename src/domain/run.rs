//! What a run is and how far it has come.

use serde::{Deserialize, Serialize};

/// How far a run has come. Its home alone decides; `Lost` is our word for a home that forgot it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted, not started.
    Queued,
    /// At work.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended on request.
    Canceled,
    /// The home answers that it does not know this run any more.
    Lost,
}

impl RunStatus {
    /// The wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Queued => "queued",
            RunStatus::Running => "running",
            RunStatus::Completed => "completed",
            RunStatus::Failed => "failed",
            RunStatus::Canceled => "canceled",
            RunStatus::Lost => "lost",
        }
    }

    /// Reads a wire name; `cancelled` is understood too.
    pub fn find(name: &str) -> Option<Self> {
        Some(match name {
            "queued" => RunStatus::Queued,
            "running" => RunStatus::Running,
            "completed" => RunStatus::Completed,
            "failed" => RunStatus::Failed,
            "canceled" | "cancelled" => RunStatus::Canceled,
            "lost" => RunStatus::Lost,
            _ => return None,
        })
    }

    /// True once the home says that nothing more will happen.
    pub fn is_finished(self) -> bool {
        matches!(self, RunStatus::Completed | RunStatus::Failed | RunStatus::Canceled)
    }

    /// The event type that says this status, for statuses that end a run.
    pub fn terminal_event_type(self) -> Option<&'static str> {
        match self {
            RunStatus::Completed => Some("agentos.run.completed"),
            RunStatus::Failed => Some("agentos.run.failed"),
            RunStatus::Canceled => Some("agentos.run.canceled"),
            RunStatus::Queued | RunStatus::Running | RunStatus::Lost => None,
        }
    }

    /// The status an event of type `kind` says, when the type ends a run.
    pub fn from_terminal_event_type(kind: &str) -> Option<Self> {
        match kind {
            "agentos.run.completed" => Some(RunStatus::Completed),
            "agentos.run.failed" => Some(RunStatus::Failed),
            "agentos.run.canceled" | "agentos.run.cancelled" => Some(RunStatus::Canceled),
            _ => None,
        }
    }
}

/// How the events of a run come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FollowState {
    /// An upstream reader is at work.
    Following,
    /// An upstream reader is due but waits for a place.
    Waiting,
    /// The log holds the run to its end.
    Finished,
    /// The home forgot the run.
    Lost,
    /// Events are pushed to this gateway; nothing is read.
    Pushed,
}

impl FollowState {
    /// The name stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            FollowState::Following => "following",
            FollowState::Waiting => "waiting",
            FollowState::Finished => "finished",
            FollowState::Lost => "lost",
            FollowState::Pushed => "pushed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_reads_back_from_its_name() {
        use RunStatus::{Canceled, Completed, Failed, Lost, Queued, Running};
        for status in [Queued, Running, Completed, Failed, Canceled, Lost] {
            assert_eq!(RunStatus::find(status.as_str()), Some(status));
            let terminal = status.terminal_event_type().and_then(RunStatus::from_terminal_event_type);
            assert_eq!(terminal.is_some(), status.is_finished());
        }
        assert_eq!(RunStatus::find("done"), None);
    }
}
