//! What an operator may turn of alerts: when a condition is one, and who hears of it.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use url::Url;

use super::secret_file;
use crate::domain::address::AddressRange;
use crate::domain::alert::Bounds;
use crate::domain::secret::Secret;
use crate::domain::units::{self, TextForm, quoted};

/// What begins a secret of Standard Webhooks.
const SECRET_PREFIX: &str = "whsec_";
/// Bytes of such a secret: fewer can be guessed.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Webhooks in all; more are refused.
pub const MOST_WEBHOOKS: usize = 8;

/// `[alerts]`: when a condition is an alert, and who hears of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsOptions {
    /// Time between two looks at what holds. Left out: 15 s.
    #[serde(with = "units::text")]
    pub interval: Duration,
    /// How long a peer must be in trouble before that is an alert. Left out: 60 s.
    #[serde(with = "units::text")]
    pub patience: Duration,
    /// How long a forward may be unfinished before that is an alert. Left out: 15 min.
    #[serde(with = "units::text")]
    pub forward_patience: Duration,
    /// How long before its end a certificate is told of. Left out: 14 d.
    #[serde(with = "units::text")]
    pub certificate_notice: Duration,
    /// Bytes of the write-ahead log beyond which it is told of. Left out: 256 MiB.
    #[serde(with = "units::size")]
    pub max_write_ahead_log: usize,
    /// Where each beginning and each end of an alert is posted. Left out: nowhere.
    #[serde(with = "units::texts")]
    pub webhook_urls: Vec<WebhookUrl>,
    /// File with the secret that signs them, `whsec_…`. Required with `webhook_urls`.
    #[serde(with = "units::optional_text")]
    pub webhook_secret_file: Option<PathBuf>,
    /// Addresses they may be dialled at though they are not public. Left out: any under profile dev, none under
    /// prod.
    #[serde(with = "units::texts")]
    pub webhook_allowed_addresses: Vec<AddressRange>,
    /// Attempts to post one of them before it is given up. Left out: 8.
    pub webhook_attempts: u32,
    /// Ceiling of the first wait between attempts; it doubles each time, up to 5 min. Left out: 2 s.
    #[serde(with = "units::text")]
    pub webhook_backoff: Duration,
    /// What the file held at start.
    #[serde(skip)]
    pub webhook_secret: Option<WebhookSecret>,
}

/// Where a webhook is: `http` or `https`, with whatever path and query it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl(pub Url);

/// Signs what is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSecret(Secret);

impl AlertsOptions {
    /// When a condition is worth an alert.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            patience: self.patience,
            forward_patience: self.forward_patience,
            certificate_notice: self.certificate_notice,
            write_ahead_log: self.max_write_ahead_log as u64,
        }
    }

    /// Reads the secret that `webhook_secret_file` names.
    pub fn read_secret(&mut self) -> Result<(), String> {
        let Some(path) = &self.webhook_secret_file else { return Ok(()) };
        let secret = WebhookSecret(secret_file::read(path)?);
        if !secret.bytes().is_some_and(|bytes| SECRET_BYTES.contains(&bytes.len())) {
            return Err(format!(
                "{} must hold {SECRET_PREFIX} and the base64 of {} to {} random bytes, such as: printf \
                 '{SECRET_PREFIX}%s' \"$(openssl rand -base64 32)\"",
                path.display(),
                SECRET_BYTES.start(),
                SECRET_BYTES.end()
            ));
        }
        self.webhook_secret = Some(secret);
        Ok(())
    }
}

impl WebhookSecret {
    /// The key itself; `None` for a text that holds none.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.0.expose().strip_prefix(SECRET_PREFIX)?).ok()
    }
}

impl TextForm for WebhookUrl {
    fn read(text: &str) -> Result<Self, String> {
        // A refused one is not repeated: paths and queries of webhooks are often secrets.
        let url = Url::parse(text).map_err(|_| {
            "holds what is not a URL: write one such as \"https://alerts.example.com/hook\"".to_owned()
        })?;
        match url.scheme() {
            "http" | "https" if !url.username().is_empty() || url.password().is_some() => {
                Err("a URL with credentials is not allowed: what is posted is signed".to_owned())
            }
            "http" | "https" if url.fragment().is_some() => {
                Err("a URL with a fragment is not allowed: it is never sent".to_owned())
            }
            "http" | "https" => Ok(WebhookUrl(url)),
            other => Err(format!("the scheme {} is not allowed: write http or https", quoted(other))),
        }
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

impl Default for AlertsOptions {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            interval: Duration::from_secs(15),
            patience: MINUTE,
            forward_patience: MINUTE.saturating_mul(15),
            certificate_notice: MINUTE.saturating_mul(60 * 24 * 14),
            max_write_ahead_log: 256 * 1024 * 1024,
            webhook_urls: Vec::new(),
            webhook_secret_file: None,
            webhook_allowed_addresses: Vec::new(),
            webhook_attempts: 8,
            webhook_backoff: Duration::from_secs(2),
            webhook_secret: None,
        }
    }
}
