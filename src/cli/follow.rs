//! Following a run over any number of connections: one cursor, and a wait after each cut.
//!
//! Invariant: what [`Follower::next`] gives strictly increases in sequence, whatever reconnects; a gateway that
//! sends otherwise is not believed.

use std::time::Duration;

use super::client::{CallError, Client, Reply};
use super::exit::{Exit, Failure};
use super::stream::{Cut, EventStream, Follow, Item, Opened};
use crate::domain::backoff;
use crate::entropy::Entropy;

/// Wait before the first new connection, unless the gateway says another one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait between two connections.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait a gateway may ask for with `Retry-After`.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// The longest first wait a gateway may ask for.
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// Connections in a row without anything new, where patience has an end.
const MOST_ATTEMPTS: u32 = 5;

/// What a follower has to tell.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// Something new.
    Item(Item),
    /// The connection was cut; after the wait there will be another.
    Cut {
        /// Why.
        reason: String,
        /// For how long.
        wait: Duration,
    },
    /// Nothing more will come: all that is there was told.
    Over(Ending),
}

/// How a following ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The run is finished, with this status.
    Finished(String),
    /// The present end was reached, and no more was asked for.
    Present,
}

/// Follows one run.
pub(super) struct Follower {
    client: Client,
    run: String,
    follow: Follow,
    /// The last sequence told.
    cursor: u64,
    stream: Option<EventStream>,
    entropy: Entropy,
    /// A connection was open once: the gateway and the run are real.
    connected: bool,
    /// On this connection history has ended.
    caught_up: bool,
    /// Connections in a row that brought nothing new.
    fruitless: u32,
    first_wait: Duration,
    /// To be waited before the next connection.
    pause: Option<Duration>,
    ending: Option<Ending>,
}

impl Follower {
    /// Follows `run` after `cursor`.
    pub(super) fn new(client: Client, run: &str, cursor: u64, follow: Follow) -> Self {
        Follower {
            client,
            run: run.to_owned(),
            follow,
            cursor,
            stream: None,
            entropy: Entropy::from_os(),
            connected: false,
            caught_up: false,
            fruitless: 0,
            first_wait: FIRST_WAIT,
            pause: None,
            ending: None,
        }
    }

    /// The last sequence told.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Waits for the next thing to tell. After [`Heard::Over`] it is that again.
    pub(super) async fn next(&mut self) -> Result<Heard, Failure> {
        loop {
            if let Some(ending) = &self.ending {
                return Ok(Heard::Over(ending.clone()));
            }
            if let Some(pause) = self.pause.take() {
                tokio::time::sleep(pause).await;
            }
            let heard = match self.stream.take() {
                Some(stream) => self.read(stream).await?,
                None => self.connect().await?,
            };
            if let Some(heard) = heard {
                return Ok(heard);
            }
        }
    }

    async fn connect(&mut self) -> Result<Option<Heard>, Failure> {
        match EventStream::open(&self.client, &self.run, self.cursor, self.follow).await {
            Ok(Opened::Stream(stream)) => {
                self.connected = true;
                self.caught_up = false;
                self.stream = Some(stream);
                Ok(None)
            }
            Ok(Opened::Nothing(status)) => {
                self.ending = Some(Ending::Finished(status));
                Ok(None)
            }
            Ok(Opened::Refused(reply)) => self.refused(&reply).map(Some),
            Err(CallError::Unreachable(reason)) if !self.connected => {
                let message = format!("{} cannot be reached: {reason}", self.client.base());
                Err(Failure::new(Exit::Unreachable, message))
            }
            Err(error) => self.cut(error.to_string(), None).map(Some),
        }
    }

    fn refused(&mut self, reply: &Reply) -> Result<Heard, Failure> {
        let complaint = reply.complaint();
        let said = format!("the gateway answered {}: {}", reply.status, complaint.sentence());
        if complaint.retryable.unwrap_or(matches!(reply.status, 429 | 502..=504)) {
            return self.cut(said, reply.retry_after());
        }
        Err(Failure::failed(said))
    }

    async fn read(&mut self, mut stream: EventStream) -> Result<Option<Heard>, Failure> {
        let read = stream.next().await;
        if let Some(retry) = stream.retry() {
            self.first_wait = retry.clamp(Duration::from_millis(100), LONGEST_RETRY);
        }
        let item = match read {
            Ok(item) => item,
            Err(Cut::Contract(reason)) => return Err(Failure::failed(reason)),
            Err(Cut::Closed(_)) if self.caught_up && self.follow == Follow::ToPresent => {
                self.ending = Some(Ending::Present);
                return Ok(None);
            }
            Err(Cut::Closed(reason)) => return self.cut(reason, None).map(Some),
        };
        self.stream = Some(stream);
        self.take(&item)?;
        Ok(Some(Heard::Item(item)))
    }

    /// Moves the cursor, and notices the ends.
    fn take(&mut self, item: &Item) -> Result<(), Failure> {
        match item {
            Item::Event { sequence, .. } if *sequence <= self.cursor => {
                let message = format!("the gateway sent event {sequence} after event {}", self.cursor);
                return Err(Failure::failed(message));
            }
            Item::Event { sequence: last, .. } | Item::Gap { to: last, .. } => {
                self.cursor = self.cursor.max(*last);
                self.fruitless = 0;
            }
            Item::CaughtUp { .. } => {
                self.caught_up = true;
                self.fruitless = 0;
            }
            Item::End { status, .. } => self.ending = Some(Ending::Finished(status.clone())),
            Item::StreamError { complaint, .. } if complaint.retryable == Some(true) => {}
            Item::StreamError { complaint, .. } => {
                return Err(Failure::failed(format!("the stream ended: {}", complaint.sentence())));
            }
        }
        Ok(())
    }

    /// Decides on another connection: for ever once the run was seen and all of it is wanted.
    fn cut(&mut self, reason: String, asked: Option<Duration>) -> Result<Heard, Failure> {
        let patient = self.connected && self.follow == Follow::ToEnd;
        if !patient && self.fruitless >= MOST_ATTEMPTS {
            return Err(Failure::new(
                Exit::TryAgain,
                format!("{reason}; tried {} times", self.fruitless + 1),
            ));
        }
        let ceiling = backoff::doubled(self.first_wait, LONGEST_WAIT, self.fruitless);
        let drawn = backoff::scaled(ceiling, 0.5 + 0.5 * self.entropy.fraction());
        let wait = drawn.max(asked.unwrap_or_default().min(LONGEST_ASKED));
        self.fruitless += 1;
        self.pause = Some(wait);
        Ok(Heard::Cut { reason, wait })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::{DEFAULT_URL, Identity, PATIENCE};
    use crate::domain::base_url;

    fn follower(follow: Follow) -> Follower {
        let base = base_url::parse(DEFAULT_URL).expect("a URL");
        let client = Client::new(base, Identity::default(), PATIENCE).expect("a client");
        Follower::new(client, "run_1", 0, follow)
    }

    fn event(sequence: u64) -> Item {
        Item::Event { sequence, json: "{}".to_owned() }
    }

    fn wait(heard: Heard) -> Duration {
        match heard {
            Heard::Cut { wait, .. } => wait,
            other => panic!("a cut, not {other:?}"),
        }
    }

    #[test]
    fn once_connected_a_follower_never_gives_up_and_waits_longer_each_time() {
        let mut follower = follower(Follow::ToEnd);
        follower.connected = true;
        for attempt in 0..100 {
            let wait = wait(follower.cut("cut".to_owned(), None).expect("goes on"));
            assert!(wait >= backoff::doubled(FIRST_WAIT, LONGEST_WAIT, attempt) / 2, "{attempt}");
            assert!(wait <= LONGEST_WAIT, "{attempt}");
        }
        follower.take(&event(1)).expect("in order");
        assert!(wait(follower.cut("cut".to_owned(), None).expect("goes on")) <= FIRST_WAIT, "news calm it");
    }

    #[test]
    fn a_follower_that_never_connected_gives_up_and_says_to_try_again() {
        let mut follower = follower(Follow::ToEnd);
        for _ in 0..MOST_ATTEMPTS {
            follower.cut("busy".to_owned(), None).expect("once more");
        }
        let end = follower.cut("busy".to_owned(), None).expect_err("enough");
        assert!(matches!(end, Failure::Told { exit: Exit::TryAgain, .. }), "{end:?}");
    }

    #[test]
    fn a_gateway_that_asks_for_time_gets_it() {
        let asked = Duration::from_secs(60);
        let heard = follower(Follow::ToEnd).cut("busy".to_owned(), Some(asked)).expect("once more");
        assert_eq!(wait(heard), asked);
    }

    #[test]
    fn what_does_not_increase_is_not_believed() {
        let mut follower = follower(Follow::ToEnd);
        follower.take(&event(5)).expect("in order");
        let gap = Item::Gap { from: 6, to: 8, reason: "upstream".to_owned(), json: "{}".to_owned() };
        follower.take(&gap).expect("announced");
        assert_eq!(follower.cursor(), 8);
        for sequence in [5, 8] {
            assert!(follower.take(&event(sequence)).is_err(), "{sequence}");
        }
        follower.take(&event(9)).expect("in order");
    }
}
