//! A long stream, read from its beginning to its end, again and again.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use futures_util::TryStreamExt;

use crate::event;
use crate::ingest::{Writer, connect, prepare};
use crate::peers::{Keeping, Peer, Running};
use crate::window::{Latency, Sample, Times, Window, latency, note, since};
use crate::wire::{Events, Nats, Resp, Wire, each, nats, resp};

/// Events written at once while the stream is filled.
const FILL: u64 = 1000;
/// Events of one page.
const PAGE: usize = 1000;

/// Measures; the latency is that of the first event.
pub async fn measure(peer: Peer, events: u64, parent: &Path, times: Times) -> Result<Sample> {
    let Running { server, .. } = &peer.start(parent, Keeping::Written, None).await?;
    prepare(peer, server).await?;
    let window = Arc::new(Window::default());
    let mut writer = Writer::new(peer, server, 0).await?;
    while writer.written < events {
        writer.write(FILL.min(events - writer.written) as usize, &window).await?;
    }
    drop(writer);
    let (address, shared) = (server.address, Arc::clone(&window));
    let client = if peer == Peer::Postgres { Some(connect(server).await?) } else { None };
    let worker = tokio::spawn(async move {
        let mut firsts = latency();
        for reading in 0.. {
            if shared.is_over() {
                break;
            }
            let mut course = Course { window: &shared, firsts: &mut firsts, start: Instant::now(), read: 0 };
            match (peer, &client) {
                (Peer::Nats, _) => {
                    read_nats(Wire::connect(address).await?, reading, events, &mut course).await?
                }
                (Peer::Bare, _) => read_bare(Wire::connect(address).await?, events, &mut course).await?,
                (Peer::Redis, _) => read_redis(Wire::connect(address).await?, &mut course).await?,
                (_, Some(client)) => read_postgres(client, &mut course).await?,
                _ => bail!("{peer:?} keeps no events"),
            }
            ensure!(course.read == events, "{} events of {events} came", course.read);
        }
        Ok::<Latency, anyhow::Error>(firsts)
    });
    window.measure(times, server, vec![worker]).await
}

/// One reading of the whole.
struct Course<'a> {
    window: &'a Window,
    firsts: &'a mut Latency,
    start: Instant,
    read: u64,
}

impl Course<'_> {
    /// Takes the next event.
    fn take(&mut self, body: &[u8]) -> Result<()> {
        event::check(body, self.read + 1)?;
        self.read += 1;
        if self.window.count(1) && self.read == 1 {
            note(self.firsts, since(self.start), 1)?;
        }
        Ok(())
    }
}

async fn read_bare(mut wire: Wire, events: u64, course: &mut Course<'_>) -> Result<()> {
    wire.send(&Events::request("/streams/0/events")).await?;
    let mut stream = Events::default();
    while course.read < events {
        wire.read(|bytes| stream.take(bytes, |body| course.take(body))).await?;
    }
    Ok(())
}

async fn read_nats(mut wire: Wire, reading: u64, events: u64, course: &mut Course<'_>) -> Result<()> {
    let consumer = format!(
        "{{\"stream_name\":\"BENCH\",\"config\":{{\"deliver_subject\":\"read.{reading}\",\"deliver_policy\":\"all\",\
         \"ack_policy\":\"none\",\"replay_policy\":\"instant\",\"mem_storage\":true}}}}"
    );
    let length = consumer.len();
    let hello = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB read.{reading} 1\r\n\
         PUB $JS.API.CONSUMER.CREATE.BENCH {length}\r\n{consumer}\r\n"
    );
    wire.send(hello.as_bytes()).await?;
    while course.read < events {
        wire.read(|bytes| {
            each(bytes, nats, |said| if let Nats::Message(body) = said { course.take(body) } else { Ok(()) })
        })
        .await?;
    }
    Ok(())
}

async fn read_redis(mut wire: Wire, course: &mut Course<'_>) -> Result<()> {
    let mut after = b"-".to_vec();
    loop {
        let mut request = format!("*6\r\n$6\r\nXRANGE\r\n$7\r\nstream0\r\n${}\r\n", after.len()).into_bytes();
        request.extend_from_slice(&after);
        request.extend_from_slice(format!("\r\n$1\r\n+\r\n$5\r\nCOUNT\r\n${}\r\n{PAGE}\r\n", 4).as_bytes());
        wire.send(&request).await?;
        // The page is `*n`, then for each entry `*2`, its id, `*2`, the field's name and the event.
        let (mut entries, mut token) = (None, 0);
        while entries.is_none_or(|entries| token < entries * 5) {
            wire.read(|bytes| {
                each(bytes, resp, |said| {
                    match (entries, said) {
                        (None, Resp::Array(length)) => {
                            entries = Some(length);
                            return Ok(());
                        }
                        (Some(_), Resp::Bulk(id)) if token % 5 == 1 => {
                            after.clear();
                            after.push(b'(');
                            after.extend_from_slice(id);
                        }
                        (Some(_), Resp::Bulk(body)) if token % 5 == 4 => course.take(body)?,
                        (Some(_), _) => {}
                        (None, said) => bail!("Redis answered {said:?}"),
                    }
                    token += 1;
                    Ok(())
                })
            })
            .await?;
        }
        if entries.is_none_or(|entries| entries < PAGE) {
            return Ok(());
        }
    }
}

async fn read_postgres(client: &tokio_postgres::Client, course: &mut Course<'_>) -> Result<()> {
    let sql = "COPY (SELECT body FROM events WHERE stream = 0 ORDER BY sequence) TO STDOUT";
    let mut rows = pin!(client.copy_out(sql).await?);
    while let Some(row) = rows.try_next().await? {
        course.take(row.strip_suffix(b"\n").context("a row without an end")?)?;
    }
    Ok(())
}
