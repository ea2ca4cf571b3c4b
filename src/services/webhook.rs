//! Posts what is to be told to webhooks: signed, in order, tried again for a while, and never waited for.
//!
//! Invariant: each webhook has a bounded queue and a task of its own, so that one that hangs delays nothing but
//! itself; what is not delivered is counted and logged.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::alert_options::{AlertsOptions, WebhookUrl};
use super::options::Profile;
use crate::clock::Clock;
use crate::domain::address::AddressRule;
use crate::domain::backoff::{Backoff, BackoffError};
use crate::entropy::Entropy;
use crate::metrics::{Metrics, Outcome};
use crate::outbound::options::OutboundOptions;
use crate::outbound::{Network, WebhookClient};
use crate::protocol::webhook;
use crate::tasks::Tasks;

/// Messages that may wait for one webhook; beyond it they are dropped and counted.
const WAITING: usize = 256;
/// Where the wait between attempts stops growing.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What is posted, the same bytes to every webhook.
#[derive(Debug)]
pub(super) struct Message {
    /// Names it over all attempts.
    pub(super) id: String,
    /// JSON.
    pub(super) body: Vec<u8>,
}

/// What every webhook is served with.
#[derive(Clone)]
pub struct WebhookGround {
    /// How strict the gateway is.
    pub profile: Profile,
    /// Bounds of one call.
    pub outbound: OutboundOptions,
    /// How requests leave.
    pub network: Network,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Why webhooks cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// No client can be made.
    #[error("alerts.webhook_urls: {0}")]
    Client(String),
    /// The configured backoff.
    #[error("alerts.webhook_backoff: {0}")]
    Backoff(#[from] BackoffError),
}

/// Every webhook, before any task runs.
pub(super) struct Webhooks {
    clients: Vec<WebhookClient>,
    poster: Poster,
}

/// The queues of webhooks at work.
pub(super) struct Queues {
    queues: Vec<mpsc::Sender<Arc<Message>>>,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Poster {
    key: Arc<[u8]>,
    attempts: u32,
    backoff: Backoff,
    clock: Clock,
    entropy: Entropy,
    metrics: Arc<Metrics>,
}

impl Webhooks {
    /// Those of a configuration that was checked.
    pub(super) fn new(options: &AlertsOptions, ground: &WebhookGround) -> Result<Self, WebhookError> {
        let allowed = &options.webhook_allowed_addresses;
        let rule = match ground.profile {
            Profile::Dev if allowed.is_empty() => AddressRule::any(),
            Profile::Dev | Profile::Prod => AddressRule::new(allowed.clone()),
        };
        let client = |url: &WebhookUrl| {
            WebhookClient::new(&url.0, &rule, &ground.outbound, &ground.network, &ground.clock)
        };
        let clients = options.webhook_urls.iter().map(client).collect::<Result<_, _>>();
        let key = options.webhook_secret.as_ref().and_then(|secret| secret.bytes()).unwrap_or_default();
        let poster = Poster {
            key: Arc::from(key),
            attempts: options.webhook_attempts,
            backoff: Backoff::try_new(options.webhook_backoff, LONGEST_WAIT.max(options.webhook_backoff))?,
            clock: ground.clock.clone(),
            entropy: ground.entropy.clone(),
            metrics: Arc::clone(&ground.metrics),
        };
        // What is 0 can be told from what is not counted.
        for outcome in ["delivered", "failed", "given_up", "dropped"] {
            drop(ground.metrics.alert_webhooks.get_or_create(&Outcome { outcome }));
        }
        Ok(Webhooks { clients: clients.map_err(WebhookError::Client)?, poster })
    }

    /// Starts a task for each, until the gateway stops.
    pub(super) fn start(&self, tasks: &Tasks) -> Queues {
        let start = |client: &WebhookClient| {
            let (queue, mut waiting) = mpsc::channel::<Arc<Message>>(WAITING);
            let (client, poster, stopping) = (client.clone(), self.poster.clone(), tasks.stopping().clone());
            tasks.spawn(async move {
                let posting = async {
                    while let Some(message) = waiting.recv().await {
                        poster.deliver(&client, &message).await;
                    }
                };
                tokio::select! {
                    biased;
                    () = posting => {}
                    () = stopping.cancelled() => {}
                }
            });
            queue
        };
        Queues { queues: self.clients.iter().map(start).collect(), metrics: Arc::clone(&self.poster.metrics) }
    }
}

impl Queues {
    /// True when nobody is to be told.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Hands a message to every webhook, and waits for none.
    pub(super) fn post(&self, message: Message) {
        let message = Arc::new(message);
        for queue in &self.queues {
            if queue.try_send(Arc::clone(&message)).is_err() {
                self.metrics.alert_webhooks.get_or_create(&Outcome { outcome: "dropped" }).inc();
            }
        }
    }
}

impl Poster {
    /// Attempts until it is taken, refused for good, or given up.
    async fn deliver(&self, client: &WebhookClient, message: &Message) {
        for attempt in 1..=self.attempts.max(1) {
            let time_s = self.clock.now_ms().div_euclid(1000);
            let headers = webhook::headers(&self.key, &message.id, time_s, &message.body);
            let (reason, asked) = match client.post(&headers, message.body.clone()).await {
                Ok(taken) if (200..300).contains(&taken.status) => return self.count("delivered"),
                // It will never want this again.
                Ok(taken) if taken.status == 410 => {
                    tracing::warn!(
                        host = client.host(),
                        "a webhook is gone (410); take it from alerts.webhook_urls"
                    );
                    return self.count("given_up");
                }
                Ok(taken) => (format!("answered {}", taken.status), taken.retry_after),
                Err(failure) => (failure.to_string(), None),
            };
            if attempt >= self.attempts {
                tracing::warn!(
                    host = client.host(),
                    message.id = message.id,
                    attempts = attempt,
                    reason,
                    "a webhook was not told of an alert"
                );
                return self.count("given_up");
            }
            self.count("failed");
            let pause = self.backoff.delay(attempt - 1, 0.5 + 0.5 * self.entropy.fraction());
            tokio::time::sleep(asked.map_or(pause, |asked| pause.max(asked.min(LONGEST_WAIT)))).await;
        }
    }

    fn count(&self, outcome: &'static str) {
        self.metrics.alert_webhooks.get_or_create(&Outcome { outcome }).inc();
    }
}
