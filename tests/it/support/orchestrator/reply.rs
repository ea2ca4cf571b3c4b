//! What a request is answered with, however unlike an answer it is.
//!
//! Invariant: one reply per request; only `Whole` leaves the connection fit for another.

use std::{io, time::Duration};

use super::{
    http::{Answer, Connection},
    script::Garbage,
    truth::RequestSeen,
};

/// The answer, or its absence.
#[derive(Debug)]
pub(super) enum Reply {
    /// All of it.
    Whole(Answer),
    /// These bytes, then the end of the connection.
    Cut(Vec<u8>),
    /// The head, then the body byte by byte with this pause.
    Trickle(Answer, Duration),
    /// The end of the connection.
    Drop,
    /// Nothing for as long as the client waits.
    Hang,
}

/// Whether the connection can carry another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It can.
    KeepAlive,
    /// It is to be closed.
    Close,
}

impl Reply {
    /// AgentOS' error object under this status.
    pub(super) fn refusal(status: u16, request: &RequestSeen) -> Self {
        Self::Whole(Answer::refusal(status, request))
    }

    /// 307 to this location.
    pub(super) fn redirect(location: &str) -> Self {
        Self::Whole(Answer::new(307, "text/plain", Vec::new()).with_header("location", location))
    }

    /// Garbage in place of the right answer.
    pub(super) fn garbage(garbage: &Garbage, right: Answer) -> Self {
        let json = |body: String| Answer::new(200, "application/json", body.into_bytes());
        match garbage {
            Garbage::Html => Self::Whole(Answer::new(200, "text/html", b"<html>Welcome</html>".to_vec())),
            Garbage::UnreadableJson => Self::Whole(json("{\"run\":{\"run_id\":\"run_".to_owned())),
            Garbage::HugeBody(bytes) => Self::Whole(json(format!("{{\"run\":\"{}\"}}", "x".repeat(*bytes)))),
            Garbage::Trickle(pause) => Self::Trickle(right, *pause),
            Garbage::Empty => Self::Whole(json(String::new())),
        }
    }

    /// Sends it.
    pub(super) async fn send(self, connection: &mut Connection) -> io::Result<Next> {
        match self {
            Self::Whole(answer) => {
                connection.send(&answer.to_bytes()).await?;
                return Ok(Next::KeepAlive);
            }
            Self::Cut(bytes) => connection.send(&bytes).await?,
            Self::Trickle(answer, pause) => {
                connection.send(&answer.head()).await?;
                for byte in answer.body() {
                    tokio::time::sleep(pause).await;
                    connection.send(&[*byte]).await?;
                }
            }
            Self::Drop => {}
            Self::Hang => connection.outlast_client().await?,
        }
        Ok(Next::Close)
    }
}
