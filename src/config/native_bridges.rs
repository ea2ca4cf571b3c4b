//! Reads `[bridges."<domain>"]` of the configuration file.

use toml::{Table, Value};

use super::boundary::not_a_domain;
use super::draft::{Draft, GivenBridge, bridge_key};
use super::schema::{advise_on_entry, refuse_material, shown};
use super::source::Places;
use crate::domain::id::{PeerId, is_id};
use crate::domain::units::TextForm;
use crate::services::trust_options::BridgeOptions;

/// Takes each bridge into the draft, or its mistakes. `prefix` is where the file has them.
pub(super) fn read(prefix: &str, bridges: Table, places: &Places<'_>, draft: &mut Draft) {
    for (domain, bridge) in bridges {
        let place = format!("{prefix}.{domain}");
        match bridge {
            Value::Table(keys) => read_bridge(domain, keys, &place, places, draft),
            other => {
                let message = format!(
                    "{} is not a bridge: write [{prefix}.\"<domain>\"] and its keys below",
                    shown(&other)
                );
                draft.refuse(places.origin(&place), &bridge_key(&domain), &message);
            }
        }
    }
}

fn read_bridge(domain: String, keys: Table, place: &str, places: &Places<'_>, draft: &mut Draft) {
    let origin = places.origin(place);
    let mut is_good = is_id(&domain);
    if !is_good {
        draft.refuse(origin.clone(), "bridges", &not_a_domain(&domain));
    }
    let mut good = Table::new();
    for (name, value) in keys {
        match read_key(&name, &value) {
            Ok(()) => {
                good.insert(name, value);
            }
            Err(message) => {
                is_good = false;
                let key = format!("{}.{name}", bridge_key(&domain));
                draft.refuse(places.origin(&format!("{place}.{name}")), &key, &message);
            }
        }
    }
    if is_good {
        let options = good.try_into().expect("each key was read alone");
        draft.add_bridge(GivenBridge { domain, options, origin });
    }
}

/// Reads one key as a whole bridge would.
fn read_key(name: &str, value: &Value) -> Result<(), String> {
    let mut bridge = Table::try_from(BridgeOptions::default()).expect("options are a table of lists");
    if !bridge.contains_key(name) {
        return Err(advise_on_entry(name, &bridge, "bridge"));
    }
    refuse_material(value)?;
    bridge.insert(name.to_owned(), value.clone());
    let bridge: BridgeOptions =
        bridge.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
    bridge.allowed_peers.iter().try_for_each(|id| PeerId::read(id).map(|_| ()))
}
