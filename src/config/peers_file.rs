//! Reads an AgentOS peers file: JSON, in every form AgentOS has given it.
//!
//! `{"local": PeerInfo, "peers": [PeerInfo]}` or a bare list of PeerInfo; the orchestrator's URL under any of
//! its names, in `endpoints` or beside it; fields that are not known here are passed over. `local` describes
//! who wrote the file: it says who this gateway is only where nobody else has.

use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::draft::{Draft, GivenPeer, Precedence, peer_key};
use super::error::{ConfigError, Origin};
use super::source::{MAX_FILE_BYTES, read_text};
use crate::domain::base_url;
use crate::domain::id::PeerId;
use crate::domain::peer::PeerKind;
use crate::domain::units::quoted;
use crate::services::options::GatewayOptions;
use crate::services::peer_options::PeerOptions;

/// How mistakes name the file as a whole.
const KEY: &str = "gateway.peers_file";

/// The file's two parts, each still as it was written, so that its place is known.
#[derive(Default, Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    local: Option<&'a RawValue>,
    #[serde(borrow)]
    peers: Option<&'a RawValue>,
}

/// What of a PeerInfo matters here.
#[derive(Deserialize)]
struct PeerInfo<'a> {
    #[serde(borrow)]
    stack_id: Option<&'a RawValue>,
    #[serde(borrow)]
    environment: Option<&'a RawValue>,
    #[serde(borrow)]
    region: Option<&'a RawValue>,
    #[serde(borrow)]
    endpoints: Option<&'a RawValue>,
}

/// The URLs of a PeerInfo, under the names they have had.
#[derive(Default, Deserialize)]
struct Endpoints<'a> {
    #[serde(borrow, rename = "agent-orchestrator_base_url")]
    dashed: Option<&'a RawValue>,
    #[serde(borrow, rename = "agent_orchestrator_base_url")]
    underscored: Option<&'a RawValue>,
    #[serde(borrow, rename = "stack_a_base_url")]
    stack_a: Option<&'a RawValue>,
    #[serde(borrow, rename = "federation_base_url")]
    federation: Option<&'a RawValue>,
}

/// A PeerInfo that could be read; empty texts are left out.
struct Entry<'a> {
    origin: Origin,
    stack_id: Option<Given<'a>>,
    environment: Option<Given<'a>>,
    region: Option<Given<'a>>,
    orchestrator: Option<Given<'a>>,
    federation: Option<Given<'a>>,
}

/// A text of the file and where it is.
struct Given<'a> {
    raw: &'a RawValue,
    text: String,
}

/// The file while it is read.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

/// Takes everything the file gives into the draft.
pub(super) fn read(path: &Path, draft: &mut Draft) {
    let text = match read_text(path, MAX_FILE_BYTES) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("{} cannot be read: {error}", path.display());
            return draft.refuse(draft.origin(KEY), KEY, &message);
        }
    };
    let reader = Reader { path, text: &text };
    let (local, entries) = match reader.split() {
        Ok(parts) => parts,
        Err(error) => return draft.refuse(error.origin, KEY, &error.message),
    };
    let local = local.and_then(|raw| reader.entry(raw, draft));
    if let Some(local) = &local {
        reader.introduce(local, draft);
    }
    let own_id = draft.find_text("gateway.stack_id").map(str::to_owned);
    let own_id = own_id.unwrap_or_else(|| GatewayOptions::default().stack_id.to_string());
    let mut is_listed = false;
    for raw in entries {
        if let Some(entry) = reader.entry(raw, draft) {
            is_listed |= entry.stack_id.as_ref().is_some_and(|id| id.text == own_id);
            reader.add(&entry, &own_id, draft);
        }
    }
    if let (Some(local), false) = (&local, is_listed) {
        reader.add_local(local, &own_id, draft);
    }
}

impl<'a> Reader<'a> {
    /// The parts of the file.
    fn split(&self) -> Result<(Option<&'a RawValue>, Vec<&'a RawValue>), ConfigError> {
        if self.text.trim_start().starts_with('[') {
            return Ok((None, self.list(self.text, 0)?));
        }
        let document: Document<'a> = self.parse(self.text, 0)?;
        let peers = document.peers.map(|raw| self.list(raw.get(), self.offset(raw)));
        Ok((document.local, peers.transpose()?.unwrap_or_default()))
    }

    fn list(&self, json: &'a str, offset: usize) -> Result<Vec<&'a RawValue>, ConfigError> {
        self.parse(json, offset)
    }

    /// Parses a part of the file that begins at `offset`.
    fn parse<T: Deserialize<'a>>(&self, json: &'a str, offset: usize) -> Result<T, ConfigError> {
        serde_json::from_str(json).map_err(|error| {
            let line_start: usize =
                json.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
            let within = line_start + error.column().saturating_sub(1);
            let origin = Origin::place(self.path, self.text, offset + within);
            let message = error.to_string();
            let sentence =
                message.rsplit_once(" at line ").map_or(message.as_str(), |(sentence, _)| sentence);
            ConfigError::new(origin, KEY, sentence)
        })
    }

    /// Reads one PeerInfo, or keeps its mistakes.
    fn entry(&self, raw: &'a RawValue, draft: &mut Draft) -> Option<Entry<'a>> {
        let mistakes = match self.read_entry(raw) {
            Ok(entry) => return Some(entry),
            Err(mistakes) => mistakes,
        };
        for mistake in mistakes {
            draft.refuse(mistake.origin, KEY, &mistake.message);
        }
        None
    }

    fn read_entry(&self, raw: &'a RawValue) -> Result<Entry<'a>, Vec<ConfigError>> {
        let info: PeerInfo<'a> = self.part(raw)?;
        let beside: Endpoints<'a> = self.part(raw)?;
        let inside: Endpoints<'a> = info.endpoints.map(|raw| self.part(raw)).transpose()?.unwrap_or_default();
        let mut mistakes = Vec::new();
        let mut text = |raw: Option<&'a RawValue>| {
            self.text_of(raw?).map_err(|error| mistakes.push(error)).ok().flatten()
        };
        let names = |urls: &Endpoints<'a>| [urls.dashed, urls.underscored, urls.stack_a];
        let entry = Entry {
            origin: self.origin(raw),
            stack_id: text(info.stack_id),
            environment: text(info.environment),
            region: text(info.region),
            orchestrator: names(&inside).into_iter().chain(names(&beside)).find_map(&mut text),
            federation: [inside.federation, beside.federation].into_iter().find_map(&mut text),
        };
        if mistakes.is_empty() { Ok(entry) } else { Err(mistakes) }
    }

    fn part<T: Deserialize<'a>>(&self, raw: &'a RawValue) -> Result<T, Vec<ConfigError>> {
        self.parse(raw.get(), self.offset(raw)).map_err(|error| vec![error])
    }

    /// A text; empty means that there is none.
    fn text_of(&self, raw: &'a RawValue) -> Result<Option<Given<'a>>, ConfigError> {
        let text: String = self.parse(raw.get(), self.offset(raw))?;
        let text = text.trim();
        Ok((!text.is_empty()).then(|| Given { raw, text: text.to_owned() }))
    }

    /// Says who this gateway is, where nobody has.
    fn introduce(&self, local: &Entry<'a>, draft: &mut Draft) {
        for (key, given) in [
            ("gateway.stack_id", &local.stack_id),
            ("gateway.environment", &local.environment),
            ("gateway.region", &local.region),
        ] {
            if let Some(given) = given {
                draft.set(key, given.text.as_str().into(), self.origin(given.raw), Precedence::Yields);
            }
        }
    }

    /// Makes a peer of an entry of the list; the one that bears our own id is our orchestrator.
    fn add(&self, entry: &Entry<'a>, own_id: &str, draft: &mut Draft) {
        let Some(id) = &entry.stack_id else {
            return draft.refuse(entry.origin.clone(), KEY, "a peer without stack_id");
        };
        let local = id.text == own_id;
        let (url, kind) = match (&entry.orchestrator, &entry.federation) {
            (Some(url), _) => (url, PeerKind::Orchestrator),
            // The gateway at our own federation URL is this one.
            (None, _) if local => return,
            (None, Some(url)) => (url, PeerKind::Gateway),
            (None, None) => {
                let message = format!("{} has no agent-orchestrator_base_url", quoted(&id.text));
                return draft.refuse(entry.origin.clone(), KEY, &message);
            }
        };
        self.add_peer(entry, (id.raw, &id.text), url, kind, local, draft);
    }

    /// Makes `local` our orchestrator, when it has one and we have none yet.
    fn add_local(&self, local: &Entry<'a>, own_id: &str, draft: &mut Draft) {
        let known =
            draft.peers().iter().any(|peer| peer.options.local || peer.options.peer_id.as_str() == own_id);
        if let (Some(url), false) = (&local.orchestrator, known) {
            self.add_peer(local, (url.raw, own_id), url, PeerKind::Orchestrator, true, draft);
        }
    }

    fn add_peer(
        &self,
        entry: &Entry<'a>,
        (id_place, id): (&'a RawValue, &str),
        url: &Given<'a>,
        kind: PeerKind,
        local: bool,
        draft: &mut Draft,
    ) {
        let Ok(peer_id) = PeerId::parse(id).map_err(|error| {
            draft.refuse(self.origin(id_place), KEY, &format!("{} is not an id: {error}", quoted(id)));
        }) else {
            return;
        };
        let base_url: Url = match base_url::parse(&url.text) {
            Ok(base_url) => base_url,
            Err(error) => {
                let key = format!("{}.base_url", peer_key(&peer_id));
                return draft.refuse(self.origin(url.raw), &key, &error.to_string());
            }
        };
        let text =
            |given: &Option<Given<'a>>| given.as_ref().map(|given| given.text.clone()).unwrap_or_default();
        let (region, environment) = (text(&entry.region), text(&entry.environment));
        let options = PeerOptions { kind, local, region, environment, ..PeerOptions::new(peer_id, base_url) };
        draft.add_listed_peer(GivenPeer::new(options, entry.origin.clone()));
    }

    fn origin(&self, raw: &RawValue) -> Origin {
        Origin::place(self.path, self.text, self.offset(raw))
    }

    /// Where a part of the file begins in it; each is a slice of the whole.
    fn offset(&self, raw: &RawValue) -> usize {
        raw.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr())
    }
}
