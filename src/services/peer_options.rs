//! What an operator says of one peer: where it is, who it is, and what it may do.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::{Host, Url};

use super::options::Profile;
use super::secret_file;
use crate::domain::address::{AddressRange, AddressRule};
use crate::domain::base_url;
use crate::domain::grants::{Grants, Operation};
use crate::domain::id::{PeerId, is_id};
use crate::domain::key::PublicKey;
use crate::domain::limits::{LABEL_RULE, is_label};
use crate::domain::peer::PeerKind;
use crate::domain::rate::Rate;
use crate::domain::run::RunStatus;
use crate::domain::secret::Secret;
use crate::domain::tenant_names::TenantNames;
use crate::domain::units::{self, TextForm, quoted};
use crate::tls::SpkiPin;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `[[peers]]`: one peer, by configuration. `peer_id` and `base_url` are required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerOptions {
    /// The id callers name it by; `stack_id` is read too.
    #[serde(alias = "stack_id", with = "units::text")]
    pub peer_id: PeerId,
    /// Where its API is, `http` or `https`; the only place that ever gets this peer's requests.
    #[serde(with = "base_url")]
    pub base_url: Url,
    /// What answers there. Left out: `orchestrator`.
    #[serde(default = "orchestrator")]
    pub kind: PeerKind,
    /// It executes what comes in through this gateway's own orchestrator face. At most one peer is local.
    #[serde(default)]
    pub local: bool,
    /// Region a selector may ask for. Left out or empty: unknown, so only a selector that names the peer fits.
    #[serde(default)]
    pub region: String,
    /// Label. Left out: empty.
    #[serde(default)]
    pub environment: String,
    /// What it can do. Left out or empty: a gateway is asked, an orchestrator has the usual three.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// One idempotency key creates one run there. Left out: true, as AgentOS promises. False: an attempt
    /// whose outcome is unknown is never repeated.
    #[serde(default = "yes")]
    pub idempotent_create: bool,
    /// For how long the peer keeps keys, unless it says so itself. Left out: 24 h.
    #[serde(default = "a_day", with = "units::text")]
    pub idempotency_retention: Duration,
    /// Event types that end a run there, besides the usual ones. Left out: none.
    #[serde(default)]
    pub terminal_events: Vec<TerminalEvent>,
    /// File with the bearer credential sent to this peer. Left out or empty: none is sent.
    #[serde(default, with = "units::optional_text")]
    pub token_file: Option<PathBuf>,
    /// How people call it; no decision looks at it. Left out: empty.
    #[serde(default)]
    pub name: String,
    /// The domain it belongs to. Left out or empty: this gateway's own.
    #[serde(default)]
    pub domain: String,
    /// Its Ed25519 key, `ed25519:…` as its `causeway key show` prints it: its certificate and its signatures
    /// must be made with it. Left out or empty: none.
    #[serde(default, with = "units::optional_text")]
    pub public_key: Option<PublicKey>,
    /// SHA-256 of its certificate's public key, `sha256:…`. Left out or empty: any that else proves it.
    #[serde(default, with = "units::optional_text")]
    pub certificate: Option<SpkiPin>,
    /// The DNS name in its certificate, which `peering.ca_file` must vouch for. Left out or empty: none.
    #[serde(default)]
    pub tls_name: String,
    /// What may be done with it: `forward_in`, `forward_out`, `ingest`, `subscribe`. Left out: `forward_out`.
    #[serde(default = "outward")]
    pub operations: Vec<Operation>,
    /// Tenants it may be used for, or act for; `*` is all. Left out: all under profile dev, none under prod.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// What the peer calls them, theirs by ours, where it has other names: whatever goes there bears those, and
    /// whatever it says is read so. Left out: the same on both sides.
    #[serde(default)]
    pub tenant_names: TenantNames,
    /// Agents that may run there, or that it may run here: ids, `prefix*` or `*`. Left out: all.
    #[serde(default = "all")]
    pub agents: Vec<String>,
    /// Regions where the runs it is sent, sends and pushes may run: names, `prefix*` or `*`. Left out: all.
    #[serde(default = "all")]
    pub regions: Vec<String>,
    /// Addresses it may be dialled at though they are not public, such as `10.1.0.0/16`. Left out: any under
    /// profile dev, none under prod.
    #[serde(default, with = "units::texts")]
    pub allowed_addresses: Vec<AddressRange>,
    /// Requests it may make here, such as `200/s burst 400`. Left out or empty: `limits.peer`.
    #[serde(default, with = "units::optional_text")]
    pub rate: Option<Rate>,
    /// The hub that introduced it; kept by the gateway, so that nobody writes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vouched_by: String,
    /// What the file held at start.
    #[serde(skip)]
    pub token: Option<Secret>,
}

/// An event type that ends a run, written `acme.done=completed`; the type alone means completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalEvent {
    /// The event's type.
    pub event_type: String,
    /// How the run ended: completed, failed or canceled.
    pub status: RunStatus,
}

impl PeerOptions {
    /// A peer with everything else at its default.
    pub fn new(peer_id: PeerId, base_url: Url) -> Self {
        Self {
            peer_id,
            base_url,
            kind: orchestrator(),
            local: false,
            region: String::new(),
            environment: String::new(),
            capabilities: Vec::new(),
            idempotent_create: yes(),
            idempotency_retention: a_day(),
            terminal_events: Vec::new(),
            token_file: None,
            name: String::new(),
            domain: String::new(),
            public_key: None,
            certificate: None,
            tls_name: String::new(),
            operations: outward(),
            tenants: Vec::new(),
            tenant_names: TenantNames::default(),
            agents: all(),
            regions: all(),
            allowed_addresses: Vec::new(),
            rate: None,
            vouched_by: String::new(),
            token: None,
        }
    }
}

impl PeerOptions {
    /// What it may do, with what `dev` leaves open filled in.
    pub fn grants(&self, profile: Profile) -> Grants {
        let mut tenants = self.tenants.clone();
        if tenants.is_empty() && profile == Profile::Dev {
            tenants = all();
        }
        Grants {
            operations: self.operations.clone(),
            tenants,
            tenant_names: self.tenant_names.clone(),
            agents: self.agents.clone(),
            regions: self.regions.clone(),
        }
    }

    /// Reads the credential that `token_file` names.
    pub fn read_token(&mut self) -> Result<(), String> {
        let Some(path) = &self.token_file else { return Ok(()) };
        self.token = Some(secret_file::read(path)?);
        Ok(())
    }

    /// True when it can prove who it is, so that it may come in.
    pub fn has_identity(&self) -> bool {
        self.public_key.is_some() || self.certificate.is_some() || !self.tls_name.is_empty()
    }

    /// True from its introduction until an operator says what may be done with it.
    pub fn awaits_acceptance(&self) -> bool {
        !self.vouched_by.is_empty() && self.operations.is_empty()
    }

    /// True when it may do something here.
    pub fn comes_in(&self) -> bool {
        self.operations.iter().any(|operation| *operation != Operation::ForwardOut)
    }
}

impl TextForm for TerminalEvent {
    fn read(text: &str) -> Result<Self, String> {
        let (event_type, status) = text.split_once('=').unwrap_or((text, "completed"));
        let status = RunStatus::find(status).filter(|status| status.is_finished());
        match status {
            Some(status)
                if !event_type.is_empty() && event_type.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Ok(Self { event_type: event_type.to_owned(), status })
            }
            _ => Err(format!(
                "{} does not say how a run ends: write an event type, or \"type=status\" with the status \
                 completed, failed or canceled",
                quoted(text)
            )),
        }
    }

    fn write(&self) -> String {
        format!("{}={}", self.event_type, self.status.as_str())
    }
}

impl Serialize for TerminalEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        units::text::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for TerminalEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        units::text::deserialize(deserializer)
    }
}

fn orchestrator() -> PeerKind {
    PeerKind::Orchestrator
}

fn outward() -> Vec<Operation> {
    vec![Operation::ForwardOut]
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

fn yes() -> bool {
    true
}

fn a_day() -> Duration {
    DAY
}

/// What must hold of an entry by itself: the first key that is wrong, and why.
pub fn check(options: &PeerOptions, profile: Profile) -> Result<(), (&'static str, String)> {
    mistakes(options, profile).into_iter().next().map_or(Ok(()), Err)
}

/// Every key of an entry that is wrong by itself, and why.
pub fn mistakes(options: &PeerOptions, profile: Profile) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if options.comes_in() && !has_plain_id(options) {
        let message = "a peer that comes in has an id of letters, digits, `.`, `_` and `-`";
        found.push(("peer_id", message.to_owned()));
    }
    if options.comes_in() && !options.has_identity() {
        let message = "a peer that comes in needs an identity: public_key, certificate or tls_name";
        found.push(("operations", message.to_owned()));
    }
    if !is_label(&options.name) {
        found.push(("name", format!("a name {LABEL_RULE}")));
    }
    if !options.domain.is_empty() && !is_id(&options.domain) {
        let message =
            format!("{} is not a domain: write 1 to 128 visible ASCII characters", quoted(&options.domain));
        found.push(("domain", message));
    }
    if let Some(bad) = options.tenants.iter().find(|tenant| !is_id(tenant)) {
        found.push(("tenants", format!("{} is not a tenant: write its id, or \"*\" for all", quoted(bad))));
    }
    if let Some(bad) = options.agents.iter().find(|agent| !is_id(agent)) {
        let message = format!("{} is not an agent: write its id, \"prefix*\", or \"*\" for all", quoted(bad));
        found.push(("agents", message));
    }
    if let Some(bad) = options.regions.iter().find(|region| !is_id(region)) {
        let message =
            format!("{} is not a region: write its name, \"prefix*\", or \"*\" for all", quoted(bad));
        found.push(("regions", message));
    }
    found.extend(misnamed_tenant(options, profile).map(|message| ("tenant_names", message)));
    if profile == Profile::Prod {
        found.extend(unsafe_settings(options));
    }
    found
}

/// True for an id that stands in a header and in the principals of its callers as it is.
pub(super) fn has_plain_id(options: &PeerOptions) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    options.peer_id.as_str().bytes().all(is_plain)
}

/// What is wrong with the names that the peer has for tenants, beside those it is granted.
fn misnamed_tenant(options: &PeerOptions, profile: Profile) -> Option<String> {
    let (grants, names) = (options.grants(profile), &options.tenant_names);
    if let Some(ours) = grants.tenants.iter().find(|tenant| names.theirs(tenant).is_none()) {
        return Some(format!(
            "{ours} is granted under its own name, which is another tenant's there: name it too, or take it out of \
             tenants"
        ));
    }
    let idle = names.named().find(|named| !grants.has_tenant(named))?;
    Some(format!("{idle} is not granted: add it to tenants, or leave its name out"))
}

/// What profile prod does not allow of an entry.
fn unsafe_settings(options: &PeerOptions) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if options.tenants.is_empty() {
        let message = "profile prod grants no tenant by itself: list them, or write [\"*\"] for all";
        found.push(("tenants", message.to_owned()));
    }
    if options.kind == PeerKind::Gateway && !options.comes_in() && !options.has_identity() {
        let message = "a gateway needs an identity: public_key, certificate or tls_name";
        found.push(("public_key", message.to_owned()));
    }
    if options.base_url.scheme() == "http" && options.allowed_addresses.is_empty() {
        let message = "plain http is for a network that is trusted: use https, or name its addresses in \
                       allowed_addresses";
        found.push(("base_url", message.to_owned()));
    } else if let Some(denied) = literal_address(options)
        .and_then(|address| AddressRule::new(options.allowed_addresses.clone()).may_dial(address).err())
    {
        found.push(("allowed_addresses", denied.to_string()));
    }
    found
}

/// The address that the base URL is written with, where it is no name.
fn literal_address(options: &PeerOptions) -> Option<IpAddr> {
    match options.base_url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

impl TextForm for PublicKey {
    fn read(text: &str) -> Result<Self, String> {
        PublicKey::parse(text).map_err(|error| format!("{} is not a public key: {error}", quoted(text)))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl TextForm for SpkiPin {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{} is not a certificate's pin: {error}", quoted(text)))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_event_says_how_the_run_ended() {
        for (text, written) in [
            ("acme.done", "acme.done=completed"),
            ("acme.died=failed", "acme.died=failed"),
            ("acme.stopped=cancelled", "acme.stopped=canceled"),
        ] {
            assert_eq!(TerminalEvent::read(text).map(|event| event.write()), Ok(written.to_owned()));
        }
        for bad in ["", "=failed", "acme.done=running", "acme.done=lost", "a b", "a=b=failed"] {
            assert!(TerminalEvent::read(bad).is_err(), "{bad:?}");
        }
    }
}
