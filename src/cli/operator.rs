//! How an operator's command reaches a gateway: through its control socket, through a moment's own API where no
//! gateway runs, or through another machine's API.
//!
//! Invariant: one API and one path for all three; a command that changes something is audited like any other
//! operator.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::net::UnixStream;
use url::Url;

use super::access::Access;
use super::client::{Client, Identity, PATIENCE, Reply};
use super::exit::{Exit, Failure};
use super::output::{note, visible};
use super::settings::{Flag, Settings};
use crate::app::{CONTROL_SOCKET, Control, StartError};
use crate::config::Config;
use crate::domain::base_url;
use crate::store::{DATABASE_FILE, OpenError};

/// How long another command, or a gateway that is starting, may hold the data directory.
const HELD_FOR: Duration = Duration::from_secs(5);
/// Between two looks at a data directory that is held.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Which gateway an operator means, where nothing else is called a URL.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct OperatorArgs {
    /// The API of a gateway elsewhere. Left out: the gateway of this data directory
    #[arg(long, visible_alias = "gateway", value_name = "URL", value_parser = base_url::parse)]
    pub(super) url: Option<Url>,
    #[command(flatten)]
    pub(super) reach: Reach,
}

/// What every operator's command takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Reach {
    #[command(flatten)]
    settings: Settings,
    /// Directory of the event log, over file and environment
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
    /// Print the API's answer, as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The operators' API of one gateway.
pub(super) struct Api {
    client: Client,
    place: String,
    moment: Option<Control>,
}

impl OperatorArgs {
    /// The API, and what is done there; see [`Reach::within`].
    pub(super) async fn within<T>(
        &self,
        work: impl AsyncFnOnce(&Api) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.reach.within(self.url.as_ref(), work).await
    }

    /// As [`OperatorArgs::within`], for what only a running gateway can do: none is brought up for it.
    pub(super) async fn within_running<T>(
        &self,
        work: impl AsyncFnOnce(&Api) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.url.is_none() {
            let data_dir = match &self.reach.data_dir {
                Some(data_dir) => data_dir.clone(),
                None => self.reach.config()?.gateway.data_dir,
            };
            if running(&data_dir).await?.is_none() {
                let message = format!("no gateway runs on {}", shown(&data_dir));
                return Err(Failure::new(Exit::Unreachable, message));
            }
        }
        self.within(work).await
    }
}

impl Reach {
    /// The gateway of a configuration.
    pub(super) fn of(settings: Settings) -> Self {
        Reach { settings, data_dir: None, access: Access::default(), json: false }
    }

    /// Opens the way, does the work, and leaves everything as it was.
    pub(super) async fn within<T>(
        &self,
        gateway: Option<&Url>,
        work: impl AsyncFnOnce(&Api) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let api = match gateway {
            Some(url) => self.elsewhere(url)?,
            None => self.here().await?,
        };
        let done = work(&api).await;
        if let Some(moment) = api.moment {
            moment.close().await;
        }
        done
    }

    /// The configuration, with the flags over it.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let flag = self.data_dir.as_deref().map(Flag::data_dir);
        self.settings.load_or_explain(&Vec::from_iter(flag))
    }

    fn elsewhere(&self, url: &Url) -> Result<Api, Failure> {
        let identity = Identity { access: Some(self.access.clone()), ..Identity::default() };
        let client = Client::new(url.clone(), identity, PATIENCE)?;
        Ok(Api { client, place: url.to_string(), moment: None })
    }

    /// Beside a running gateway the directory's name is enough; without one the whole configuration counts.
    async fn here(&self) -> Result<Api, Failure> {
        let config = match &self.data_dir {
            Some(data_dir) => match running(data_dir).await? {
                Some(api) => return Ok(api),
                None => self.config()?,
            },
            None => self.config()?,
        };
        let data_dir = &config.gateway.data_dir;
        belongs_to_us(data_dir)?;
        let is_new = !data_dir.join(DATABASE_FILE).exists();
        let held = async {
            loop {
                if let Some(api) = running(data_dir).await? {
                    return Ok(api);
                }
                match Control::open(&config).await {
                    Err(StartError::Open(OpenError::InUse { .. })) => {}
                    Err(error) => return Err(Failure::failed(error)),
                    Ok(moment) => return opened(data_dir, moment, is_new).await,
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(HELD_FOR, held).await.unwrap_or_else(|_| {
            let message = format!(
                "a gateway is at work on {}, and its control socket does not answer: restart it, or use its \
                 API with --url and --token-file",
                shown(data_dir)
            );
            Err(Failure::new(Exit::Unreachable, message))
        })
    }
}

impl Api {
    /// True when no gateway runs: what is kept in memory only is of no use.
    pub(super) fn is_momentary(&self) -> bool {
        self.moment.is_some()
    }

    /// A URL below `/v1/federation`.
    pub(super) fn url(&self, segments: &[&str]) -> Url {
        self.client.url(&[&["v1", "federation"], segments].concat())
    }

    /// Makes a call and hands back whatever was answered.
    pub(super) async fn ask(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Reply, Failure> {
        self.client.send(method, url, body).await.map_err(|error| error.told(&self.place))
    }

    /// Makes a call that must succeed.
    pub(super) async fn call(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let reply = self.ask(method, url, body).await?;
        if reply.is_success() { Ok(reply) } else { Err(refused(&reply)) }
    }

    /// Every item of a list, over all its pages.
    pub(super) async fn all(&self, segments: &[&str]) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut url = self.url(segments);
        loop {
            let mut page = self.call(Method::GET, url, None).await?.json();
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) else { return Ok(items) };
            url = self.url(segments);
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
    }
}

/// An answer that is a refusal, with its exit code.
pub(super) fn refused(reply: &Reply) -> Failure {
    let complaint = reply.complaint();
    let exit = if complaint.retryable == Some(true) { Exit::TryAgain } else { Exit::Failed };
    let hint = match reply.status {
        401 => "\ngive an operator's token with --token-file, or in CAUSEWAY_TOKEN",
        404 if complaint.code.as_deref() == Some("not_found") && complaint.sentence().contains("path") => {
            "\nthe operators' API may be at the gateway's server.admin_listen"
        }
        _ => "",
    };
    let answer = reply.json();
    let sentence = complaint.sentence();
    let field = answer.pointer("/error/details/field").and_then(Value::as_str);
    let field = match field.filter(|field| !sentence.contains(*field)) {
        Some(field) => format!("{}: ", visible(field)),
        None => String::new(),
    };
    Failure::new(exit, format!("{field}{sentence}{hint}"))
}

/// The gateway that listens on the control socket of a data directory.
async fn running(data_dir: &Path) -> Result<Option<Api>, Failure> {
    use std::io::ErrorKind::{ConnectionRefused, InvalidInput, NotFound};
    let socket = data_dir.join(CONTROL_SOCKET);
    match UnixStream::connect(&socket).await {
        Ok(_) => {
            let place = format!("the gateway of {}", shown(data_dir));
            Ok(Some(Api { client: Client::on_socket(&socket, PATIENCE)?, place, moment: None }))
        }
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused | InvalidInput) => Ok(None),
        Err(error) => Err(Failure::failed(format!(
            "{} cannot be used: {error}; run this as the user that the gateway runs as",
            shown(&socket)
        ))),
    }
}

/// What another user makes in a data directory, the gateway's cannot open.
fn belongs_to_us(data_dir: &Path) -> Result<(), Failure> {
    let owner = |path: &Path| fs::metadata(path).map(|facts| facts.uid()).ok();
    match (owner(data_dir), owner(Path::new("/proc/self"))) {
        (Some(theirs), Some(ours)) if theirs != ours => {
            let data_dir = shown(data_dir);
            let message =
                format!("{data_dir} belongs to the user {theirs}: run this as that user, as the gateway is");
            Err(Failure::failed(message))
        }
        _ => Ok(()),
    }
}

async fn opened(data_dir: &Path, moment: Control, is_new: bool) -> Result<Api, Failure> {
    if is_new {
        note(format_args!("no gateway has run on {} before: its log and its key are new", shown(data_dir)));
    }
    match Client::on_socket(moment.socket(), PATIENCE) {
        Ok(client) => Ok(Api { client, place: shown(data_dir), moment: Some(moment) }),
        Err(failure) => {
            moment.close().await;
            Err(failure)
        }
    }
}

fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy()).into_owned()
}
