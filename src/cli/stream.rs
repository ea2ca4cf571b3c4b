//! One connection to the events of a run: frames, checked against the contract, as items.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use serde_json::Value;

use super::client::{CallError, Client, Complaint, Reply, failure};
use super::output::one_json_line;
use crate::domain::limits;
use crate::protocol::headers;
use crate::protocol::sse::{Control, DecodeError, Decoder, EVENT_NAME, Frame, Limits};

/// Silence after which a connection counts as dead: six of a gateway's usual heartbeats.
const SILENCE: Duration = Duration::from_secs(90);
/// The largest frame: an event, and what a gateway says beside it.
const FRAME_BYTES: usize = limits::EVENT_BYTES + 64 * 1024;

/// One thing a stream says. `json` is its data on one line, safe to print.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// An event of the run.
    Event {
        /// Its sequence.
        sequence: u64,
        /// The envelope.
        json: String,
    },
    /// History ends here, live begins.
    CaughtUp {
        /// `{"sequence":…}`.
        json: String,
    },
    /// Sequences that are not held and will not come.
    Gap {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
        /// Why.
        reason: String,
        /// The whole.
        json: String,
    },
    /// The run is finished and all was sent.
    End {
        /// The last sequence.
        sequence: u64,
        /// How it ended.
        status: String,
        /// The whole.
        json: String,
    },
    /// The stream cannot go on.
    StreamError {
        /// What is wrong.
        complaint: Complaint,
        /// The whole.
        json: String,
    },
}

/// What came of asking for a stream.
pub(super) enum Opened {
    /// It is open.
    Stream(EventStream),
    /// The run is finished, and nothing follows the cursor. Its status.
    Nothing(String),
    /// The gateway does not give it.
    Refused(Reply),
}

/// Why nothing more comes on a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    /// It closed, or broke.
    #[error("{0}")]
    Closed(String),
    /// The gateway broke its contract: trying again brings the same.
    #[error("{0}")]
    Contract(String),
}

/// An open connection.
pub(super) struct EventStream {
    response: Response,
    decoder: Decoder,
}

impl EventStream {
    /// Asks for the events of `run` after `cursor`; with `follow`, also for those still to come.
    pub(super) async fn open(
        client: &Client,
        run: &str,
        cursor: u64,
        follow: Follow,
    ) -> Result<Opened, CallError> {
        let mut url = client.url(&["v1", "federation", "runs", run, "events"]);
        url.query_pairs_mut().append_pair("from_sequence", &cursor.to_string()).append_pair("on_gap", "skip");
        if follow == Follow::ToPresent {
            url.query_pairs_mut().append_pair("follow", "false");
        }
        let last_event_id = HeaderName::from_static(headers::LAST_EVENT_ID);
        let asked = [
            (ACCEPT, HeaderValue::from_static("text/event-stream")),
            (last_event_id, HeaderValue::from(cursor)),
        ];
        let response = client.open(url, &asked).await?;
        match response.status().as_u16() {
            200 => {
                let limits = Limits { line_bytes: FRAME_BYTES, event_bytes: FRAME_BYTES };
                Ok(Opened::Stream(EventStream { response, decoder: Decoder::new(limits) }))
            }
            204 => {
                let status =
                    response.headers().get(headers::RUN_STATUS).and_then(|value| value.to_str().ok());
                Ok(Opened::Nothing(limits::clean_reason(status.unwrap_or("unknown"))))
            }
            _ => Ok(Opened::Refused(client.finish(response).await?)),
        }
    }

    /// The next item. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Item, Cut> {
        loop {
            while let Some(frame) = self.decoder.next_frame() {
                if let Some(item) = read(&frame.map_err(too_large)?)? {
                    return Ok(item);
                }
            }
            match tokio::time::timeout(SILENCE, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.decoder.push(&chunk),
                Ok(Ok(None)) => return Err(Cut::Closed("the gateway closed the stream".to_owned())),
                Ok(Err(error)) => return Err(Cut::Closed(failure(&error).to_string())),
                Err(_) => {
                    let silence = humantime::format_duration(SILENCE);
                    return Err(Cut::Closed(format!("nothing was heard for {silence}")));
                }
            }
        }
    }

    /// How long the gateway asks clients to wait before they connect again.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.decoder.last_retry()
    }
}

/// How far a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// To the end of the run.
    ToEnd,
    /// To what is there now.
    ToPresent,
}

fn too_large(error: DecodeError) -> Cut {
    Cut::Contract(error.to_string())
}

/// One frame as an item; a kind of frame this version does not know is none.
fn read(frame: &Frame) -> Result<Option<Item>, Cut> {
    let Some(name) = frame.event.as_deref() else { return Ok(None) };
    let control = Control::ALL.into_iter().find(|control| control.name() == name);
    if control.is_none() && name != EVENT_NAME {
        return Ok(None);
    }
    let broken = || Cut::Contract(format!("the gateway sent a frame `{name}` that cannot be read"));
    let json = one_json_line(frame.data.as_bytes()).map_err(|_| broken())?;
    let value: Value = serde_json::from_str(&json).map_err(|_| broken())?;
    let number = |field: &str| value.get(field).and_then(Value::as_u64).ok_or_else(broken);
    let text =
        |field: &str| value.get(field).and_then(Value::as_str).map(limits::clean_reason).ok_or_else(broken);
    Ok(Some(match control {
        None => {
            let sequence = frame.id.as_deref().and_then(|id| id.parse().ok()).ok_or_else(broken)?;
            Item::Event { sequence, json }
        }
        Some(Control::CaughtUp) => Item::CaughtUp { json },
        Some(Control::Gap) => Item::Gap {
            from: number("from_sequence")?,
            to: number("to_sequence")?,
            reason: text("reason")?,
            json,
        },
        Some(Control::End) => Item::End { sequence: number("sequence")?, status: text("status")?, json },
        Some(Control::StreamError) => Item::StreamError { complaint: Complaint::of(&value), json },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: Option<&str>, event: &str, data: &str) -> Frame {
        let event = Some(event.to_owned());
        Frame { id: id.map(str::to_owned), event, data: data.to_owned(), retry: None }
    }

    #[test]
    fn each_frame_of_the_contract_is_an_item() {
        let item = |frame: Frame| read(&frame).expect("readable").expect("known");
        assert_eq!(
            item(frame(Some("12"), EVENT_NAME, "{ \"event\": {} }")),
            Item::Event { sequence: 12, json: r#"{"event":{}}"#.to_owned() }
        );
        assert!(matches!(
            item(frame(None, "gap", r#"{"from_sequence":12,"to_sequence":40,"reason":"retention"}"#)),
            Item::Gap { from: 12, to: 40, .. }
        ));
        assert!(matches!(
            item(frame(None, "end", r#"{"sequence":60,"status":"completed"}"#)),
            Item::End { sequence: 60, status, .. } if status == "completed"
        ));
        assert!(matches!(item(frame(None, "caught_up", r#"{"sequence":60}"#)), Item::CaughtUp { .. }));
        let lost = r#"{"error":{"code":"run_lost","message":"gone","retryable":false}}"#;
        assert!(matches!(
            item(frame(None, "stream_error", lost)),
            Item::StreamError { complaint, .. } if complaint.retryable == Some(false)
        ));
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_what_is_broken_is_not() {
        assert_eq!(read(&frame(None, "future", "?")), Ok(None));
        assert_eq!(read(&Frame { data: "x".to_owned(), ..Frame::default() }), Ok(None));
        for broken in [
            frame(None, EVENT_NAME, "{}"),
            frame(Some("x"), EVENT_NAME, "{}"),
            frame(Some("1"), EVENT_NAME, "{"),
            frame(None, "end", "{}"),
            frame(None, "gap", r#"{"from_sequence":-1,"to_sequence":2,"reason":"x"}"#),
        ] {
            assert!(matches!(read(&broken), Err(Cut::Contract(_))), "{broken:?}");
        }
    }
}
