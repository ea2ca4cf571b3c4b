//! A run whose sequences the gateway gives, kept while its log is copied at work and restored from the copy.
//!
//! B1: no sequence is ever given to two events. B2: what was acknowledged before the copy was made, or after
//! the restore, is there. B3: what was lost in between is announced by a gap with reason `restore`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::client::{Client, Frames};
use super::node::Node;
use super::trace::lock;

const RUN: &str = "ledger";
/// Events before the copy, between the copy and the restore, and after it: so many of each, at most.
const EVENTS: u64 = 8;

/// When an event was acknowledged.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Kept,
    /// After the copy was made, and before the restore was over.
    Perhaps,
}

/// One ledger of one gateway.
pub(crate) struct Ledger {
    client: Client,
    /// Which event a sequence was given to, as far as anybody was told or saw.
    given: Mutex<BTreeMap<u64, String>>,
    told: Mutex<BTreeMap<u64, Told>>,
}

/// What one reading from the beginning showed.
#[derive(Default)]
struct Reading {
    seen: BTreeMap<u64, String>,
    lost: Vec<(u64, u64)>,
    is_whole: bool,
}

impl Ledger {
    pub(crate) fn new(client: Client) -> Self {
        Ledger { client, given: Mutex::default(), told: Mutex::default() }
    }

    /// From the first event to the last, with the copy and the restore in between.
    pub(crate) async fn keep(self: Arc<Self>, node: Arc<Node>) {
        let dice = self.client.dice.clone();
        let reading = tokio::spawn(Arc::clone(&self).read_on());
        let place = tempfile::tempdir().expect("a directory");
        let copy = place.path().join("copy.db");
        let mut count = 0;
        for told in [Told::Kept, Told::Perhaps] {
            self.write(&mut count, 1 + dice.between(0, EVENTS), told).await;
            if told == Told::Kept {
                node.copy_log(&copy);
            }
        }
        node.restore_log(&copy).await;
        // What the process before had answered is heard by now, or never.
        sleep(Duration::from_secs(1)).await;
        self.write(&mut count, 1 + dice.between(0, EVENTS), Told::Kept).await;
        self.append(count, "agentos.run.completed", Told::Kept).await;
        self.check(reading.await.expect("a reader"));
    }

    async fn write(&self, count: &mut u64, events: u64, told: Told) {
        for _ in 0..events {
            self.append(*count, "agentos.run.step.completed", told).await;
            *count += 1;
            sleep(self.client.dice.up_to(Duration::from_millis(600))).await;
        }
    }

    /// Until it is acknowledged.
    async fn append(&self, number: u64, kind: &str, told: Told) {
        let id = format!("evt_ledger_{number}");
        let event = json!({
            "event_id": id,
            "time": "2026-01-02T03:04:05Z",
            "type": kind,
            "tenant_id": self.client.tenant,
            "agent_id": "agt_push",
            "run_id": RUN,
            "trace": {},
            "payload": {},
        });
        let body = json!({ "events": [{ "event": event }] });
        loop {
            let answer =
                self.client.call(Method::POST, "/v1/federation/events:ingest", &[], Some(&body)).await;
            let result = match answer {
                Ok(answer) if answer.status == 200 => answer.json["results"][0].clone(),
                _ => Value::Null,
            };
            match (result["status"].as_str(), result["sequence"].as_u64()) {
                (Some("stored" | "duplicate"), Some(sequence)) => {
                    self.note(sequence, &id);
                    lock(&self.told).insert(sequence, told);
                    return;
                }
                (None, _) => self.client.rest().await,
                _ => return self.client.breach(format!("B2: {id}: {result}")),
            }
        }
    }

    fn note(&self, sequence: u64, id: &str) {
        let before = lock(&self.given).entry(sequence).or_insert_with(|| id.to_owned()).clone();
        if before != id {
            self.client.breach(format!("B1: {sequence} was given to {before} and to {id}"));
        }
    }

    /// Reads from the beginning, again and again, until the end was read.
    async fn read_on(self: Arc<Self>) -> Reading {
        loop {
            let reading = self.read().await;
            if reading.is_whole {
                return reading;
            }
            self.client.rest().await;
        }
    }

    async fn read(&self) -> Reading {
        let mut reading = Reading::default();
        let path = format!("/v1/federation/runs/{RUN}/events");
        let answer = self.client.open(Method::GET, &path, &[("accept", "text/event-stream")], None).await;
        let Some(answer) = answer.ok().filter(|answer| answer.status() == 200) else { return reading };
        let mut frames = Frames::of(answer.into_body());
        while let Some(frame) = frames.next().await {
            match frame.kind.as_str() {
                "agentos.event" => {
                    let id = frame.json["event"]["event_id"].as_str().unwrap_or("").to_owned();
                    self.note(frame.id, &id);
                    reading.seen.insert(frame.id, id);
                }
                "gap" if frame.json["reason"] == "restore" => {
                    let end = |name: &str| frame.json[name].as_u64().unwrap_or(0);
                    reading.lost.push((end("from_sequence"), end("to_sequence")));
                }
                "gap" => self.client.breach(format!("B3: {}", frame.json)),
                "end" => {
                    reading.is_whole = true;
                    return reading;
                }
                _ => {}
            }
        }
        reading
    }

    fn check(&self, reading: Reading) {
        for (sequence, told) in lock(&self.told).iter() {
            let is_lost = reading.lost.iter().any(|(from, to)| (from..=to).contains(&sequence));
            match (told, reading.seen.contains_key(sequence)) {
                (_, true) => {}
                (Told::Perhaps, false) if is_lost => {}
                (Told::Perhaps, false) => {
                    self.client.breach(format!("B3: {sequence} is gone without a word"))
                }
                (Told::Kept, false) => self.client.breach(format!("B2: {sequence} is not there")),
            }
        }
    }
}
