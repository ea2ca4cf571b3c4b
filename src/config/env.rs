//! Reads the environment: native variables, the names AgentOS has for the same things, and those this
//! version must not pass over in silence.
//!
//! Invariant: a variable set to nothing is not set; a variable that asks for protection which cannot be had
//! stops the start.

use std::collections::BTreeMap;

use super::check_profile::SWITCHES;
use super::draft::{Draft, Precedence};
use super::error::Origin;
use super::schema::{as_switch, find_nearest, refuse_material};
use crate::domain::units::quoted;

const PREFIX: &str = "CAUSEWAY_";

/// Short names beside `CAUSEWAY_<SECTION>_<KEY>`.
const SHORT_NAMES: [(&str, &str); 3] = [
    ("CAUSEWAY_LISTEN", "server.listen"),
    ("CAUSEWAY_DATA_DIR", "gateway.data_dir"),
    ("CAUSEWAY_LOG", "log.level"),
];

/// Variables that belong to the command line.
const COMMAND_LINE: [&str; 2] = ["CAUSEWAY_CONFIG", "CAUSEWAY_TOKEN"];

/// What AgentOS calls a key, and how it writes the value.
const ALIASES: [(&str, &str, Form); 28] = [
    ("AGENTOS_STACK_ID", "gateway.stack_id", Form::Native),
    ("AGENTOS_ENVIRONMENT", "gateway.environment", Form::Native),
    ("AGENTOS_REGION", "gateway.region", Form::Native),
    ("AGENTOS_PROFILE", "gateway.profile", Form::Native),
    ("AGENTOS_DEFAULT_TENANT", "gateway.default_tenant", Form::Native),
    ("AGENTOS_PEERS_FILE", "gateway.peers_file", Form::Native),
    ("AGENTOS_FED_FORWARD_INDEX_FILE", "gateway.forward_index_file", Form::Native),
    ("AGENTOS_MAX_BODY_SIZE", "server.max_body", Form::Native),
    ("AGENTOS_SHUTDOWN_TIMEOUT", "server.shutdown_timeout", Form::Native),
    ("AGENTOS_FED_FORWARD_MAX_ATTEMPTS", "forward.max_attempts", Form::Native),
    ("AGENTOS_FED_FORWARD_BASE_BACKOFF_MS", "forward.base_backoff", Form::Number { unit: "ms", least: 0 }),
    ("AGENTOS_IDEMPOTENCY_TTL_HOURS", "forward.idempotency_retention", Form::Number { unit: "h", least: 0 }),
    ("AGENTOS_RETENTION_EVENTS_DAYS", "retention.events", Form::Number { unit: "d", least: 7 }),
    ("AGENTOS_QUOTA_CONCURRENT_RUNS", "limits.concurrent_runs", Form::Native),
    ("AGENTOS_AUDIT_SINK", "audit.sink", Form::Native),
    ("AGENTOS_FED_REQUIRE_MTLS", "peering.require_mtls", Form::Native),
    ("AGENTOS_FED_SERVER_CERT", "peering.cert_file", Form::Native),
    ("AGENTOS_FED_SERVER_CERT_FILE", "peering.cert_file", Form::Native),
    ("AGENTOS_FED_SERVER_KEY", "peering.cert_key_file", Form::Native),
    ("AGENTOS_FED_SERVER_KEY_FILE", "peering.cert_key_file", Form::Native),
    ("AGENTOS_FED_CLIENT_CERT", "peering.cert_file", Form::OneInBothDirections),
    ("AGENTOS_FED_CLIENT_CERT_FILE", "peering.cert_file", Form::OneInBothDirections),
    ("AGENTOS_FED_CLIENT_KEY", "peering.cert_key_file", Form::OneInBothDirections),
    ("AGENTOS_FED_CLIENT_KEY_FILE", "peering.cert_key_file", Form::OneInBothDirections),
    ("AGENTOS_FED_CA_CERT", "peering.ca_file", Form::Native),
    ("AGENTOS_FED_CA_CERT_FILE", "peering.ca_file", Form::Native),
    ("AGENTOS_FED_JWT_PUBLIC_KEY", "jwt.public_key_file", Form::Native),
    ("AGENTOS_FED_JWT_PUBLIC_KEY_FILE", "jwt.public_key_file", Form::Native),
];

/// A secret that all of a federation would share: there is nothing here that it could be.
const SHARED_SECRET: [&str; 2] = ["AGENTOS_FED_SHARED_SECRET", "AGENTOS_FED_SHARED_SECRET_FILE"];

/// How AgentOS writes a value.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// As the native key.
    Native,
    /// A bare whole number in a fixed unit, no less than AgentOS allows.
    Number { unit: &'static str, least: u64 },
    /// As the native key, which says the same for the other direction.
    OneInBothDirections,
}

/// Takes everything the environment gives into the draft.
pub(super) fn read(environment: impl IntoIterator<Item = (String, String)>, draft: &mut Draft) {
    let given: BTreeMap<String, String> = environment
        .into_iter()
        .map(|(name, value)| (name, value.trim().to_owned()))
        .filter(|(name, value)| {
            !value.is_empty() && (name.starts_with(PREFIX) || name.starts_with("AGENTOS_"))
        })
        .collect();
    for (name, value) in given.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        read_native(name, value, draft);
    }
    for (name, key, form) in ALIASES {
        if let Some(value) = given.get(name) {
            read_alias(name, key, form, value, draft);
        }
    }
    for name in SWITCHES {
        if let Some(value) = given.get(name) {
            read_switch(name, value, draft);
        }
    }
    for name in SHARED_SECRET.into_iter().filter(|name| given.contains_key(*name)) {
        let message = "peers prove themselves with keys of their own, never with a secret they share: unset it, \
                       and give each peer the public_key that its `causeway key show` prints";
        draft.refuse(Origin::Variable(name.to_owned()), "", message);
    }
}

fn read_native(name: &str, value: &str, draft: &mut Draft) {
    if COMMAND_LINE.contains(&name) || is_service_link(name, value) {
        return;
    }
    let origin = Origin::Variable(name.to_owned());
    let Some(key) = find_key(name, draft) else {
        return draft.refuse(origin, "", &advise(name, draft));
    };
    let by_other_name = matches!(draft.origin(&key), Origin::Variable(_));
    let precedence = if by_other_name { Precedence::MustAgree } else { Precedence::Overrides };
    draft.set_text(&key, value, origin, precedence);
}

fn read_alias(name: &str, key: &str, form: Form, value: &str, draft: &mut Draft) {
    let origin = Origin::Variable(name.to_owned());
    let text = match form {
        Form::Native => value.to_owned(),
        Form::OneInBothDirections => match draft.find_text(key) {
            Some(other) if other != value && refuse_material(&value.into()).is_ok() => {
                let message = format!(
                    "{} is not {} from {}: the gateway shows one certificate in both directions, so name the \
                     same file",
                    quoted(value),
                    quoted(other),
                    draft.origin(key)
                );
                return draft.refuse(origin, key, &message);
            }
            _ => value.to_owned(),
        },
        Form::Number { unit, least } => match value.parse::<u64>() {
            Ok(number) if number >= least => format!("{number}{unit}"),
            _ => {
                let message = format!("{} is not a whole number ({unit}) from {least}", quoted(value));
                return draft.refuse(origin, key, &message);
            }
        },
    };
    draft.set_text(key, &text, origin, Precedence::MustAgree);
}

fn read_switch(name: &'static str, value: &str, draft: &mut Draft) {
    match as_switch(value) {
        Some(true) => draft.note_switch(name),
        Some(false) => {}
        None => {
            let message = format!("{} is neither on nor off: write 1 or 0", quoted(value));
            draft.refuse(Origin::Variable(name.to_owned()), "", &message);
        }
    }
}

fn find_key(name: &str, draft: &Draft) -> Option<String> {
    let short = SHORT_NAMES.into_iter().find(|(short, _)| *short == name).map(|(_, key)| key.to_owned());
    short.or_else(|| draft.schema().keys().find(|key| variable(key) == name))
}

fn advise(name: &str, draft: &Draft) -> String {
    let known: Vec<String> = draft.schema().keys().map(|key| variable(&key)).collect();
    let short = SHORT_NAMES.into_iter().map(|(short, _)| short);
    let names = known.iter().map(String::as_str).chain(short).chain(COMMAND_LINE);
    let stems = names.filter_map(|name| name.strip_prefix(PREFIX));
    match find_nearest(name.strip_prefix(PREFIX).unwrap_or(name), stems) {
        Some(near) => format!("unknown variable; did you mean {PREFIX}{near}?"),
        None => format!("unknown variable; the one of a key `section.name` is {PREFIX}<SECTION>_<NAME>"),
    }
}

/// The variable of a native key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Kubernetes puts such variables into every container beside a service whose name begins with `causeway`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        number.parse::<u16>().is_ok()
            && ["TCP", "UDP", "SCTP"].iter().any(|known| protocol.starts_with(known))
    });
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_url)
        || is_port
}
