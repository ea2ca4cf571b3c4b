//! Readers of event streams that write down all they see, and come back from where they were.
//!
//! They are no judges: what they see is judged from the history. Frames are parsed by another SSE decoder than
//! the gateway's own.

use std::net::SocketAddr;
use std::time::Duration;

use eventsource_stream::{Event, Eventsource};
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::Instant;

use crate::history::{History, Seen, What};
use crate::process::json_of;

/// The pause before the next try.
const RETRY: Duration = Duration::from_millis(30);
/// Without a byte for so long, a connection is given up; heartbeats come more often.
const SILENCE: Duration = Duration::from_secs(4);

/// One reader of one run at one gateway.
pub(crate) struct Reader {
    history: History,
    gateway: String,
    address: SocketAddr,
    run: String,
    number: u64,
    last: u64,
    ended: bool,
    /// It goes once it has seen this sequence.
    enough: u64,
    chance: StdRng,
}

impl Reader {
    /// A reader from the beginning of the run.
    pub(crate) fn new(history: &History, (gateway, address): (&str, SocketAddr), run: &str) -> Self {
        let number = history.number();
        Reader {
            history: history.clone(),
            gateway: gateway.to_owned(),
            address,
            run: run.to_owned(),
            number,
            last: 0,
            ended: false,
            enough: u64::MAX,
            chance: StdRng::seed_from_u64(number),
        }
    }

    /// Reads until the run ends, or until this time; answers whether the run ended.
    pub(crate) async fn read_until(mut self, deadline: Instant) -> bool {
        while !self.ended && Instant::now() < deadline {
            let visit = tokio::time::timeout_at(deadline, self.visit()).await;
            if visit.is_ok() && !self.ended {
                tokio::time::sleep(RETRY).await; // why: a reader's own pause between two connections
            }
        }
        self.ended
    }

    /// Reads until it has seen this sequence.
    pub(crate) async fn visit_until(&mut self, sequence: u64) {
        self.enough = sequence;
        while !self.has_enough() {
            self.visit().await;
        }
    }

    fn has_enough(&self) -> bool {
        self.ended || self.last >= self.enough
    }

    /// One connection, to its end, or until it is tired of it.
    async fn visit(&mut self) {
        let client = reqwest::Client::builder().no_proxy().read_timeout(SILENCE).build().expect("a client");
        let path = format!("/v1/federation/runs/{}/events?on_gap=skip", self.run.replace('@', "%40"));
        let mut request =
            client.get(format!("http://{}{path}", self.address)).header("accept", "text/event-stream");
        if self.last > 0 {
            request = request.header("last-event-id", self.last.to_string());
        }
        let Ok(answer) = request.send().await else { return };
        match answer.status().as_u16() {
            200 => {}
            204 => {
                self.ended = true;
                return;
            }
            status => {
                let body = json_of(answer).await;
                let code = body["error"]["code"].as_str().unwrap_or("");
                self.heed(&body["error"]["code"]);
                // Nobody needs a line for each try at a gateway that is down.
                if status < 500 && status != 429 {
                    self.note_refusal(&format!("{status} {code}"));
                }
                return;
            }
        }
        self.note(What::Opened {
            reader: self.number,
            gateway: self.gateway.clone(),
            run: self.run.clone(),
            after: self.last,
        });
        let mut patience = self.chance.random_range(1..60);
        let mut frames = answer.bytes_stream().eventsource();
        while let Some(Ok(frame)) = frames.next().await {
            self.take(&frame);
            patience -= 1;
            if self.has_enough() || patience == 0 {
                return;
            }
        }
    }

    fn take(&mut self, frame: &Event) {
        let data: Value = serde_json::from_str(&frame.data).unwrap_or(Value::Null);
        let number = |name: &str| data[name].as_u64().unwrap_or_default();
        match frame.event.as_str() {
            "agentos.event" => {
                let seen = seen(&self.run, &data["event"]);
                self.last = seen.sequence;
                self.note(What::Saw { reader: self.number, gateway: self.gateway.clone(), seen });
            }
            "gap" => {
                let (from, to) = (number("from_sequence"), number("to_sequence"));
                let reason = data["reason"].as_str().unwrap_or_default().to_owned();
                self.note(What::Gap { reader: self.number, from, to, reason });
            }
            "end" => {
                self.ended = true;
                let sequence = number("sequence");
                let (gateway, run) = (self.gateway.clone(), self.run.clone());
                self.note(What::Ended { reader: self.number, gateway, run, sequence });
            }
            "stream_error" => {
                self.note_refusal(&frame.data);
                self.heed(&data["error"]["code"]);
            }
            _ => {}
        }
    }

    /// A cursor beyond the end of a run is one of a run that a restore took: what is there now is another.
    fn heed(&mut self, code: &Value) {
        if code == "cursor_ahead" {
            self.last = 0;
        }
    }

    fn note_refusal(&self, code: &str) {
        self.note(What::Refused {
            reader: self.number,
            gateway: self.gateway.clone(),
            run: self.run.clone(),
            after: self.last,
            code: code.to_owned(),
        });
    }

    fn note(&self, what: What) {
        self.history.note(what);
    }
}

/// An event object as the history has it.
pub(crate) fn seen(run: &str, event: &Value) -> Seen {
    Seen {
        run: run.to_owned(),
        sequence: event["sequence"].as_u64().unwrap_or_default(),
        id: event["event_id"].as_str().unwrap_or_default().to_owned(),
        digest: crc32fast::hash(event.to_string().as_bytes()),
    }
}
