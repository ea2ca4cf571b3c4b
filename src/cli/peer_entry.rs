//! A peer's entry as flags: the keys of `[[peers]]`, each checked before anything is asked.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::exit::Failure;
use crate::domain::address::AddressRange;
use crate::domain::base_url;
use crate::domain::grants::Operation;
use crate::domain::id::is_id;
use crate::domain::key::PublicKey;
use crate::domain::peer::PeerKind;
use crate::domain::rate::Rate;
use crate::domain::units::{TextForm, quoted};
use crate::services::peer_options::TerminalEvent;
use crate::tls::SpkiPin;

/// What may be said of a peer. Lists are separated by commas; an empty value clears a key.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct EntryArgs {
    /// What answers there: gateway or orchestrator
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<String>,
    /// Its Ed25519 key, as its `causeway key show` prints it
    #[arg(long, value_name = "KEY", value_parser = checked::<PublicKey>)]
    public_key: Option<String>,
    /// SHA-256 of its certificate's public key, sha256:…
    #[arg(long, value_name = "PIN", value_parser = checked::<SpkiPin>)]
    certificate: Option<String>,
    /// The DNS name in its certificate, which peering.ca_file vouches for
    #[arg(long, value_name = "NAME")]
    tls_name: Option<String>,
    /// What may be done with it: forward_in, forward_out, ingest, subscribe
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = operation)]
    operations: Option<Vec<String>>,
    /// Tenants it may be used for, or act for; * is all
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    tenants: Option<Vec<String>>,
    /// What it calls them, where it has other names: ours=theirs
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = tenant_name)]
    tenant_names: Option<Vec<String>>,
    /// Agents that may run there, or that it may run here: ids, prefix* or *
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    agents: Option<Vec<String>>,
    /// Regions where the runs it is sent, sends and pushes may run: names, prefix* or *
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    regions: Option<Vec<String>>,
    /// Addresses that are not public and yet its own, such as 10.1.0.0/16
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = checked::<AddressRange>)]
    allowed_addresses: Option<Vec<String>>,
    /// The domain it belongs to. Left out: this gateway's own
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// How people call it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Region that a selector may ask for
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Label
    #[arg(long, value_name = "LABEL")]
    environment: Option<String>,
    /// It executes what comes in through this gateway's own orchestrator paths
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    local: Option<bool>,
    /// What it can do, where it does not say so itself
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    capabilities: Option<Vec<String>>,
    /// Requests it may make here, such as 200/s or 600/m burst 50
    #[arg(long, value_name = "RATE", value_parser = checked::<Rate>)]
    rate: Option<String>,
    /// File, on the gateway's machine, with the bearer credential sent to it
    #[arg(long, value_name = "FILE")]
    peer_token_file: Option<PathBuf>,
    /// One idempotency key creates one run there. Left out: true
    #[arg(long, value_name = "BOOL")]
    idempotent_create: Option<bool>,
    /// For how long it keeps keys, such as 24h
    #[arg(long, value_name = "DURATION", value_parser = checked::<Duration>)]
    idempotency_retention: Option<String>,
    /// Event types that end a run there, besides the usual: acme.done=completed
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = checked::<TerminalEvent>)]
    terminal_events: Option<Vec<String>>,
}

impl EntryArgs {
    /// Puts every key that was given into `entry`, and leaves the others alone.
    pub(super) fn write_to(&self, entry: &mut Map<String, Value>) -> Result<(), Failure> {
        let texts = [
            ("kind", &self.kind),
            ("public_key", &self.public_key),
            ("certificate", &self.certificate),
            ("tls_name", &self.tls_name),
            ("domain", &self.domain),
            ("name", &self.name),
            ("region", &self.region),
            ("environment", &self.environment),
            ("rate", &self.rate),
            ("idempotency_retention", &self.idempotency_retention),
        ];
        for (key, text) in texts.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?))) {
            entry.insert(key.to_owned(), Value::from(text.as_str()));
        }
        let lists = [
            ("operations", &self.operations),
            ("tenants", &self.tenants),
            ("agents", &self.agents),
            ("regions", &self.regions),
            ("allowed_addresses", &self.allowed_addresses),
            ("capabilities", &self.capabilities),
            ("terminal_events", &self.terminal_events),
        ];
        for (key, items) in lists.into_iter().filter_map(|(key, items)| Some((key, items.as_ref()?))) {
            let items = items.iter().map(String::as_str).filter(|item| !item.is_empty());
            entry.insert(key.to_owned(), items.map(Value::from).collect());
        }
        if let Some(names) = &self.tenant_names {
            let pairs = names.iter().filter_map(|name| name.split_once('='));
            let names: Map<_, _> =
                pairs.map(|(ours, theirs)| (ours.to_owned(), Value::from(theirs))).collect();
            entry.insert("tenant_names".to_owned(), Value::from(names));
        }
        let switches = [("local", self.local), ("idempotent_create", self.idempotent_create)];
        for (key, is_on) in switches.into_iter().filter_map(|(key, is_on)| Some((key, is_on?))) {
            entry.insert(key.to_owned(), Value::from(is_on));
        }
        if let Some(path) = &self.peer_token_file {
            // The gateway's working directory is another one.
            let path = if path.as_os_str().is_empty() { Ok(path.clone()) } else { std::path::absolute(path) };
            let path = path.map_err(Failure::failed)?;
            entry.insert("token_file".to_owned(), Value::from(path.to_string_lossy()));
        }
        Ok(())
    }
}

/// Reads a URL of a peer.
pub(super) fn url(text: &str) -> Result<String, String> {
    base_url::parse(text).map(|url| url.to_string()).map_err(|error| error.to_string())
}

/// A text that can be read as what it must be, or none.
fn checked<T: TextForm>(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { T::read(text).map(|value| value.write()) }
}

fn kind(text: &str) -> Result<String, String> {
    let kinds = [PeerKind::Gateway, PeerKind::Orchestrator].map(PeerKind::as_str);
    one_of(text, &kinds)
}

fn operation(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { one_of(text, &Operation::ALL.map(Operation::as_str)) }
}

/// `ours=theirs`, or none.
fn tenant_name(text: &str) -> Result<String, String> {
    let is_pair = text
        .split_once('=')
        .is_some_and(|(ours, theirs)| is_id(ours) && is_id(theirs) && !theirs.contains('='));
    match text.is_empty() || is_pair {
        true => Ok(text.to_owned()),
        false => Err(format!("{} does not name a tenant: write ours=theirs", quoted(text))),
    }
}

fn one_of(text: &str, words: &[&str]) -> Result<String, String> {
    match words.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(unknown(text, words.join(", "))),
    }
}

fn unknown(text: &str, allowed: impl Display) -> String {
    format!("{} is not one of: {allowed}", quoted(text))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        entry: EntryArgs,
    }

    fn entry(line: &[&str]) -> Result<Value, clap::Error> {
        let flags = Flags::try_parse_from([&["x"], line].concat())?;
        let mut entry =
            Map::from_iter([("region".to_owned(), json!("before")), ("tenants".to_owned(), json!(["a"]))]);
        flags.entry.write_to(&mut entry).expect("written");
        Ok(Value::Object(entry))
    }

    #[test]
    fn only_what_is_given_is_changed() {
        assert_eq!(entry(&[]).expect("nothing"), json!({"region": "before", "tenants": ["a"]}));
        let changed =
            entry(&["--tenants", "b,c", "--local", "--operations", "forward_in,subscribe", "--region="]);
        assert_eq!(
            changed.expect("flags"),
            json!({"region": "", "tenants": ["b", "c"], "local": true, "operations": ["forward_in", "subscribe"]})
        );
        assert_eq!(entry(&["--tenants", "", "--local=false"]).expect("flags")["tenants"], json!([]));
        let named = entry(&["--tenant-names", "a=x,b=y", "--regions", "eu-*,home"]).expect("flags");
        assert_eq!(named["tenant_names"], json!({"a": "x", "b": "y"}));
        assert_eq!(named["regions"], json!(["eu-*", "home"]));
        assert_eq!(entry(&["--tenant-names", ""]).expect("flags")["tenant_names"], json!({}));
    }

    #[test]
    fn mistakes_are_found_before_anything_is_asked() {
        for line in [
            ["--kind", "server"],
            ["--public-key", "ed25519:nonsense"],
            ["--certificate", "sha256:0"],
            ["--operations", "forward_in,fly"],
            ["--allowed-addresses", "10.0.0.0/99"],
            ["--rate", "fast"],
            ["--tenant-names", "a"],
            ["--tenant-names", "a=b=c"],
            ["--idempotency-retention", "soon"],
            ["--terminal-events", "x=running"],
        ] {
            assert!(entry(&line).is_err(), "{line:?}");
        }
    }
}
