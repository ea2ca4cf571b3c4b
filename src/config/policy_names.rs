//! Reads what MPREG calls the keys of `[policy]` and the bridges.
//!
//! Invariant: a name of MPREG says the same as the native one or is a mistake; neither wins in silence.

use toml::Value;

use super::draft::{Draft, Precedence};
use super::error::Origin;
use super::native_bridges;
use super::schema::shown;
use super::source::Places;

const SECTION: &str = "policy";
/// Names whose value is that of a native key.
const SAME: [(&str, &str); 2] =
    [("cluster_id", "policy.domain"), ("allowed_foreign_cluster_ids", "policy.allowed_foreign_domains")];
/// The two modes that MPREG knows, as a switch.
const CONNECTIONS: &str = "allow_cross_federation_connections";
const MODE: &str = "policy.federation_mode";
/// The bridges, inside the section.
const BRIDGES: &str = "federation_bridge_config";

/// True for a key of this section that MPREG calls so.
pub(super) fn is_one(section: &str, name: &str) -> bool {
    let is_same = || SAME.iter().any(|(same, _)| *same == name);
    section == SECTION && (name == CONNECTIONS || name == BRIDGES || is_same())
}

/// Takes one of them, after every native key of the section.
pub(super) fn read(name: &str, value: Value, places: &Places<'_>, draft: &mut Draft) {
    let written = format!("{SECTION}.{name}");
    let origin = places.origin(&written);
    if let Some((_, key)) = SAME.iter().find(|(same, _)| *same == name) {
        return draft.set(key, value, origin, Precedence::MustAgree);
    }
    match value {
        Value::Boolean(allows) if name == CONNECTIONS => read_connections(allows, origin, draft),
        Value::Table(bridges) if name == BRIDGES => native_bridges::read(&written, bridges, places, draft),
        other if name == CONNECTIONS => {
            draft.refuse(origin, &written, &format!("{} is neither true nor false", shown(&other)));
        }
        other => {
            let message = format!("{} is not a table of bridges, by foreign domain", shown(&other));
            draft.refuse(origin, &written, &message);
        }
    }
}

fn read_connections(allows: bool, origin: Origin, draft: &mut Draft) {
    let mode = if allows { "bridging" } else { "strict" };
    match draft.find_text(MODE).filter(|given| *given != mode) {
        Some(given) => {
            let message = format!(
                "{allows} means {MODE} = \"{mode}\" and contradicts \"{given}\" from {}: give one of the two",
                draft.origin(MODE)
            );
            draft.refuse(origin, &format!("{SECTION}.{CONNECTIONS}"), &message);
        }
        None => draft.set(MODE, mode.into(), origin, Precedence::MustAgree),
    }
}
