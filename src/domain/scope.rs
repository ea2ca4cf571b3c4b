//! What a client credential may be used for: six scopes, and sets of them.
//!
//! No scope implies another: `admin:*` opens the operators' doors and none of the clients'.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::quoted;

/// One thing a credential may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `runs:forward`: create runs, here or at a peer.
    RunsForward,
    /// `runs:read`: look at runs and forwards.
    RunsRead,
    /// `runs:cancel`: cancel runs.
    RunsCancel,
    /// `events:read`: follow events.
    EventsRead,
    /// `events:ingest`: push events.
    EventsIngest,
    /// `admin:*`: what operators do.
    Admin,
}

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a scope: allowed are {}", quoted(.word), Scopes::ALL)]
pub struct UnknownScope {
    /// What was given.
    pub word: String,
}

impl Scope {
    /// Every scope, in the order they are shown.
    pub const ALL: [Scope; 6] = [
        Scope::RunsForward,
        Scope::RunsRead,
        Scope::RunsCancel,
        Scope::EventsRead,
        Scope::EventsIngest,
        Scope::Admin,
    ];

    /// The scope as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::RunsForward => "runs:forward",
            Scope::RunsRead => "runs:read",
            Scope::RunsCancel => "runs:cancel",
            Scope::EventsRead => "events:read",
            Scope::EventsIngest => "events:ingest",
            Scope::Admin => "admin:*",
        }
    }

    /// Reads one scope, exactly as written by [`Scope::as_str`].
    pub fn parse(word: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == word)
            .ok_or_else(|| UnknownScope { word: word.to_owned() })
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A set of scopes; empty unless something was granted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// No scope at all.
    pub const NONE: Scopes = Scopes(0);
    /// Every scope there is.
    pub const ALL: Scopes = Scopes((1 << Scope::ALL.len()) - 1);

    /// Reads words separated by commas or spaces; the first word that is no scope is an error.
    pub fn parse(text: &str) -> Result<Self, UnknownScope> {
        words(text).map(Scope::parse).collect()
    }

    /// Reads words separated by commas or spaces and passes over those that are no scope of ours.
    pub fn parse_known(text: &str) -> Self {
        words(text).filter_map(|word| Scope::parse(word).ok()).collect()
    }

    /// True when `scope` itself was granted.
    pub fn allows(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// True when nothing was granted.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is granted by either set.
    #[must_use]
    pub fn union(self, other: Scopes) -> Self {
        Scopes(self.0 | other.0)
    }

    /// The set without `scope`.
    #[must_use]
    pub fn without(self, scope: Scope) -> Self {
        Scopes(self.0 & !scope.bit())
    }

    /// The scopes granted, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.allows(*scope))
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|word| !word.is_empty())
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Scopes(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::parse(text)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, scope) in self.iter().enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(out, "{gap}{scope}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Scopes({self})")
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Scope::as_str))
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        words.iter().map(|word| Scope::parse(word).map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_scope_allows_itself_and_nothing_else() {
        // reliability 4d.8: a valid credential without the scope is refused
        for granted in Scope::ALL {
            let scopes = Scopes::from_iter([granted]);
            for asked in Scope::ALL {
                assert_eq!(scopes.allows(asked), asked == granted, "{granted} {asked}");
                assert_eq!(Scopes::ALL.without(granted).allows(asked), asked != granted);
            }
        }
        assert!(Scope::ALL.into_iter().all(|scope| !Scopes::NONE.allows(scope)));
        assert_eq!(Scopes::ALL.iter().count(), Scope::ALL.len());
    }

    #[test]
    fn scopes_read_from_commas_or_spaces_and_show_in_one_order() {
        let scopes = Scopes::parse("events:read, runs:forward,runs:forward").expect("scopes");
        assert_eq!(scopes.to_string(), "runs:forward events:read");
        assert_eq!(Scopes::parse(&scopes.to_string()), Ok(scopes));
        assert_eq!(Scopes::parse(""), Ok(Scopes::NONE));
        assert_eq!(
            Scopes::parse_known("openid runs:read offline_access"),
            Scopes::from_iter([Scope::RunsRead])
        );
    }

    #[test]
    fn what_is_no_scope_is_named_with_what_is_allowed() {
        for bad in ["runs", "runs:*", "admin", "*", "RUNS:READ", "runs:read\n"] {
            assert_eq!(Scopes::parse(bad), Err(UnknownScope { word: bad.to_owned() }), "{bad:?}");
        }
        assert_eq!(
            Scopes::parse("runs:read runs:write").expect_err("no scope").to_string(),
            "\"runs:write\" is not a scope: allowed are runs:forward runs:read runs:cancel events:read \
             events:ingest admin:*"
        );
    }

    #[test]
    fn scopes_are_a_list_of_words_in_json() {
        let scopes = Scopes::parse("admin:* runs:cancel").expect("scopes");
        let json = serde_json::to_string(&scopes).expect("json");
        assert_eq!(json, r#"["runs:cancel","admin:*"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(&json).expect("scopes"), scopes);
        for bad in [r#"["runs:write"]"#, r#""runs:read""#, r#"["runs:read admin:*"]"#, "7"] {
            assert!(serde_json::from_str::<Scopes>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            if let Ok(scopes) = Scopes::parse(&text) {
                prop_assert_eq!(scopes, Scopes::parse_known(&text));
            }
        }
    }
}
