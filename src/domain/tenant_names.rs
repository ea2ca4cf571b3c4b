//! What a peer calls our tenants, where it has other names for them: one to one.
//!
//! Invariant: a tenant that is not named bears its own name there, unless that one is another's or has another
//! name there; then it has none. So nothing that is said in a peer's words means two things in ours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::id::TenantId;
use super::units::quoted;

/// The names, by either side. None by default: each tenant is called the same on both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct TenantNames {
    /// Theirs, by ours.
    theirs: BTreeMap<String, TenantId>,
    /// Ours, by theirs.
    ours: BTreeMap<String, TenantId>,
}

impl TenantNames {
    /// What the peer calls a tenant of ours; nothing where the name would be another's there.
    pub fn theirs<'a>(&'a self, ours: &'a str) -> Option<&'a str> {
        match self.theirs.get(ours) {
            Some(theirs) => Some(theirs.as_str()),
            None => (!self.ours.contains_key(ours)).then_some(ours),
        }
    }

    /// What we call a tenant that the peer names; nothing where the name is only ours.
    pub fn ours(&self, theirs: &TenantId) -> Option<TenantId> {
        match self.ours.get(theirs.as_str()) {
            Some(ours) => Some(ours.clone()),
            None => (!self.theirs.contains_key(theirs.as_str())).then(|| theirs.clone()),
        }
    }

    /// Our names of the tenants that are named here.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.theirs.keys().map(String::as_str)
    }
}

impl TryFrom<BTreeMap<String, String>> for TenantNames {
    type Error = String;

    fn try_from(written: BTreeMap<String, String>) -> Result<Self, String> {
        let mut names = TenantNames::default();
        for (ours, theirs) in written {
            let parse = |text: &str| {
                TenantId::parse(text)
                    .map_err(|error| format!("{} is not a tenant: a name {error}", quoted(text)))
            };
            let (ours, theirs) = (parse(&ours)?, parse(&theirs)?);
            if let Some(other) = names.ours.insert(theirs.to_string(), ours.clone()) {
                return Err(format!(
                    "the tenants {other} and {ours} would both be {theirs} there: give each a name of its own"
                ));
            }
            names.theirs.insert(ours.to_string(), theirs);
        }
        Ok(names)
    }
}

impl From<TenantNames> for BTreeMap<String, String> {
    fn from(names: TenantNames) -> Self {
        names.theirs.into_iter().map(|(ours, theirs)| (ours, theirs.to_string())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pairs: &[(&str, &str)]) -> Result<TenantNames, String> {
        let pairs = pairs.iter().map(|(ours, theirs)| ((*ours).to_owned(), (*theirs).to_owned()));
        TenantNames::try_from(pairs.collect::<BTreeMap<_, _>>())
    }

    fn ours(names: &TenantNames, theirs: &str) -> Option<String> {
        names.ours(&TenantId::parse(theirs).expect("an id")).map(|ours| ours.to_string())
    }

    #[test]
    fn a_name_means_one_tenant_on_each_side() {
        let names = names(&[("acme", "acme-eu"), ("left", "right"), ("right", "left")]).expect("one to one");
        for (here, there) in [("acme", "acme-eu"), ("left", "right"), ("right", "left"), ("beta", "beta")] {
            assert_eq!(names.theirs(here), Some(there));
            assert_eq!(ours(&names, there).as_deref(), Some(here));
        }
        assert_eq!(names.theirs("acme-eu"), None, "that is what acme is called there");
        assert_eq!(ours(&names, "acme"), None, "nobody there is called by a name that only we use");
    }

    #[test]
    fn two_tenants_never_share_a_name() {
        let told = names(&[("acme", "x"), ("beta", "x")]).expect_err("two tenants, one name");
        for part in ["acme", "beta", "x"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(names(&[("acme", "a b")]).expect_err("no id").contains("\"a b\" is not a tenant"));
        assert!(names(&[("", "acme")]).is_err());
    }

    #[test]
    fn it_reads_back_as_it_was_written() {
        let text = r#"{"acme":"acme-eu","beta":"b"}"#;
        let names: TenantNames = serde_json::from_str(text).expect("names");
        assert_eq!(serde_json::to_string(&names).expect("JSON"), text);
        assert!(serde_json::from_str::<TenantNames>(r#"{"a":"x","b":"x"}"#).is_err());
    }
}
