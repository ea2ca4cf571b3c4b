//! Writers that append, each to a stream of its own, and go on when all of a batch is acknowledged.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, Statement};

use crate::event;
use crate::peers::{Keeping, Peer, Running};
use crate::process::Server;
use crate::window::{Latency, Sample, Times, Window, latency, note, since, stamp};
use crate::wire::{Nats, Resp, Wire, answer, each, nats, post, resp};

/// How many write, and how much at once.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub writers: usize,
    pub batch: usize,
}

/// One who appends to a stream.
pub struct Writer {
    kind: Kind,
    stream: usize,
    /// Events that were acknowledged.
    pub written: u64,
    out: Vec<u8>,
    event: Vec<u8>,
}

enum Kind {
    Bare { wire: Wire },
    Nats { wire: Wire },
    Redis { wire: Wire },
    Postgres { client: Client, one: Statement, many: Statement },
}

/// Measures, and counts afterwards what the server has.
pub async fn measure(peer: Peer, shape: Shape, parent: &Path, times: Times) -> Result<Sample> {
    let Running { server, .. } = &peer.start(parent, Keeping::Synced, None).await?;
    prepare(peer, server).await?;
    let window = Arc::new(Window::default());
    let mut workers: Vec<JoinHandle<Result<Latency>>> = Vec::new();
    let (sums, mut total) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..shape.writers {
        let mut writer = Writer::new(peer, server, number).await?;
        let (window, sums) = (Arc::clone(&window), sums.clone());
        workers.push(tokio::spawn(async move {
            let mut times = latency();
            while !window.is_over() {
                let start = Instant::now();
                writer.write(shape.batch, &window).await?;
                if window.counts() {
                    note(&mut times, since(start), 1)?;
                }
            }
            sums.send(writer.written)?;
            Ok(times)
        }));
    }
    drop(sums);
    let sample = window.measure(times, server, workers).await?;
    let mut acknowledged = 0;
    while let Some(written) = total.recv().await {
        acknowledged += written;
    }
    let stored = stored(peer, server, shape.writers).await?;
    ensure!(stored == acknowledged, "{acknowledged} events were acknowledged, {stored} are stored");
    Ok(sample)
}

/// Makes the place where events are kept.
pub async fn prepare(peer: Peer, server: &Server) -> Result<()> {
    match peer {
        Peer::Nats => {
            let config = r#"{"name":"BENCH","subjects":["bench.*"],"storage":"file","retention":"limits"}"#;
            let answer = ask_nats(server, "$JS.API.STREAM.CREATE.BENCH", config).await?;
            ensure!(!answer.contains("\"error\""), "NATS: {answer}");
        }
        Peer::Postgres => {
            let sql = "CREATE TABLE events (stream bigint, sequence bigint, event_id text NOT NULL, body text NOT NULL, \
                       PRIMARY KEY (stream, sequence), UNIQUE (stream, event_id))";
            connect(server).await?.batch_execute(sql).await?;
        }
        _ => {}
    }
    Ok(())
}

/// How many events the server has.
async fn stored(peer: Peer, server: &Server, streams: usize) -> Result<u64> {
    match peer {
        Peer::Nats => {
            let answer = ask_nats(server, "$JS.API.STREAM.INFO.BENCH", "").await?;
            let answer: serde_json::Value = serde_json::from_str(&answer)?;
            answer["state"]["messages"].as_u64().with_context(|| answer.to_string())
        }
        Peer::Postgres => {
            let row = connect(server).await?.query_one("SELECT count(*) FROM events", &[]).await?;
            Ok(row.get::<_, i64>(0) as u64)
        }
        Peer::Bare => {
            let mut wire = Wire::connect(server.address).await?;
            wire.send(b"GET /streams HTTP/1.1\r\nhost: bench\r\n\r\n").await?;
            let mut events = None;
            while events.is_none() {
                wire.read(|bytes| {
                    each(bytes, answer, |(status, body)| {
                        ensure!(status == 200, "the answer was {status}");
                        events = Some(std::str::from_utf8(body)?.parse()?);
                        Ok(())
                    })
                })
                .await?;
            }
            events.context("no answer")
        }
        _ => {
            let mut wire = Wire::connect(server.address).await?;
            let mut sum = 0;
            for stream in 0..streams {
                wire.send(format!("XLEN stream{stream}\r\n").as_bytes()).await?;
                wire.read(|bytes| {
                    let Some(digits) = bytes.strip_suffix(b"\r\n") else { return Ok(0) };
                    let digits = std::str::from_utf8(digits)?.strip_prefix(':').context("no length")?;
                    sum += digits.parse::<u64>()?;
                    Ok(bytes.len())
                })
                .await?;
            }
            Ok(sum)
        }
    }
}

/// Asks a NATS server, and waits for its answer.
pub async fn ask_nats(server: &Server, subject: &str, body: &str) -> Result<String> {
    let mut wire = Wire::connect(server.address).await?;
    let length = body.len();
    let hello = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answers 1\r\nPUB {subject} answers {length}\r\n{body}\r\n"
    );
    wire.send(hello.as_bytes()).await?;
    let mut answer = None;
    while answer.is_none() {
        wire.read(|bytes| {
            each(bytes, nats, |said| {
                if let Nats::Message(body) = said {
                    answer = Some(String::from_utf8_lossy(body).into_owned());
                }
                Ok(())
            })
        })
        .await?;
    }
    answer.context("no answer")
}

/// Connects to PostgreSQL.
pub async fn connect(server: &Server) -> Result<Client> {
    let (host, port) = (server.address.ip(), server.address.port());
    let place = format!("host={host} port={port} user=postgres dbname=postgres");
    // It listens before it takes part in anything.
    let asked = Instant::now();
    let (client, connection) = loop {
        match tokio_postgres::connect(&place, NoTls).await {
            Ok(connected) => break connected,
            Err(error) if asked.elapsed() > crate::window::PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    tokio::spawn(connection);
    Ok(client)
}

impl Writer {
    pub async fn new(peer: Peer, server: &Server, stream: usize) -> Result<Self> {
        let kind = match peer {
            Peer::Nats => {
                let mut wire = Wire::connect(server.address).await?;
                let hello =
                    format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB acks.{stream} 1\r\n");
                wire.send(hello.as_bytes()).await?;
                Kind::Nats { wire }
            }
            Peer::Redis => Kind::Redis { wire: Wire::connect(server.address).await? },
            Peer::Postgres => {
                let client = connect(server).await?;
                let insert = "INSERT INTO events (stream, sequence, event_id, body)";
                let one = client
                    .prepare(&format!("{insert} VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"))
                    .await?;
                let rows = "SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[])";
                let many = client.prepare(&format!("{insert} {rows} ON CONFLICT DO NOTHING")).await?;
                Kind::Postgres { client, one, many }
            }
            Peer::Bare => Kind::Bare { wire: Wire::connect(server.address).await? },
            other => bail!("{other:?} keeps no events"),
        };
        Ok(Writer { kind, stream, written: 0, out: Vec::new(), event: Vec::new() })
    }

    /// Appends the next events and waits until all of them are acknowledged, each of which counts as it is.
    pub async fn write(&mut self, batch: usize, window: &Window) -> Result<()> {
        let numbers = self.written + 1..=self.written + batch as u64;
        let at = stamp(Instant::now());
        let (stream, event) = (self.stream, &mut self.event);
        self.out.clear();
        let mut waiting = batch;
        match &mut self.kind {
            Kind::Bare { wire } => {
                event.clear();
                for number in numbers {
                    event.push(if event.is_empty() { b'[' } else { b',' });
                    event::write(event, number, at);
                }
                event.push(b']');
                let accepted = format!("{{\"accepted\":{batch}}}");
                wire.send(&post(&format!("/streams/{stream}/events"), event)).await?;
                while waiting > 0 {
                    wire.read(|bytes| {
                        each(bytes, answer, |(status, body)| {
                            ensure!(status == 200 && body == accepted.as_bytes(), "the answer was {status}");
                            waiting = 0;
                            window.count(batch as u64);
                            Ok(())
                        })
                    })
                    .await?;
                }
            }
            Kind::Nats { wire } => {
                for number in numbers {
                    one(event, number, at);
                    // Its id makes JetStream drop a repeat, for two minutes.
                    let head = format!("NATS/1.0\r\nNats-Msg-Id: {stream}-{number:032x}\r\n\r\n");
                    let (head_bytes, all) = (head.len(), head.len() + event.len());
                    let line = format!("HPUB bench.{stream} acks.{stream} {head_bytes} {all}\r\n{head}");
                    self.out.extend_from_slice(line.as_bytes());
                    self.out.extend_from_slice(event);
                    self.out.extend_from_slice(b"\r\n");
                }
                wire.send(&self.out).await?;
                while waiting > 0 {
                    wire.read(|bytes| {
                        each(bytes, nats, |said| {
                            let Nats::Message(ack) = said else { return Ok(()) };
                            let text = String::from_utf8_lossy(ack);
                            ensure!(
                                text.starts_with("{\"stream\"") && !text.contains("duplicate"),
                                "NATS: {text}"
                            );
                            waiting -= 1;
                            window.count(1);
                            Ok(())
                        })
                    })
                    .await?;
                }
            }
            Kind::Redis { wire } => {
                let key = format!("stream{stream}");
                for number in numbers {
                    one(event, number, at);
                    let head =
                        format!("*5\r\n$4\r\nXADD\r\n${}\r\n{key}\r\n$1\r\n*\r\n$1\r\ne\r\n", key.len());
                    self.out.extend_from_slice(head.as_bytes());
                    self.out.extend_from_slice(format!("${}\r\n", event.len()).as_bytes());
                    self.out.extend_from_slice(event);
                    self.out.extend_from_slice(b"\r\n");
                }
                wire.send(&self.out).await?;
                while waiting > 0 {
                    wire.read(|bytes| {
                        each(bytes, resp, |said| {
                            ensure!(matches!(said, Resp::Bulk(_)), "Redis answered {said:?}");
                            waiting -= 1;
                            window.count(1);
                            Ok(())
                        })
                    })
                    .await?;
                }
            }
            Kind::Postgres { client, one: single, many } => {
                let id = |number| format!("evt_5eed5eed5eed5eed{number:016x}");
                let mut body = |number| {
                    one(event, number, at);
                    String::from_utf8_lossy(event).into_owned()
                };
                let stream = stream as i64;
                let rows = if batch == 1 {
                    let number = self.written + 1;
                    client.execute(&*single, &[&stream, &(number as i64), &id(number), &body(number)]).await?
                } else {
                    let ids: Vec<String> = numbers.clone().map(id).collect();
                    let bodies: Vec<String> = numbers.clone().map(&mut body).collect();
                    let numbers: Vec<i64> = numbers.map(|number| number as i64).collect();
                    client.execute(&*many, &[&stream, &numbers, &ids, &bodies]).await?
                };
                ensure!(rows == batch as u64, "{rows} rows of {batch} were inserted");
                window.count(rows);
            }
        }
        self.written += batch as u64;
        Ok(())
    }
}

fn one(event: &mut Vec<u8>, number: u64, at: u64) {
    event.clear();
    event::write(event, number, at);
}
