//! Where a peer's API is: the only place that ever gets requests and credentials for that peer.
//!
//! Invariant: a base URL has a scheme, a host, perhaps a port and a path, and nothing else; what an error
//! repeats of a refused one holds no credential. The functions serve `#[serde(with = "base_url")]` too.

use serde::{Deserialize, Deserializer, Serializer};
use url::Url;

use super::units::quoted;

/// Why a text is not a peer's base URL. Parts that may hold a credential are not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBaseUrl {
    /// No URL at all.
    #[error("{0} is not a URL: write one such as \"https://peer.example.com\"")]
    NotAUrl(String),
    /// A scheme other than `http` and `https`.
    #[error("the scheme \"{0}\" is not allowed: write http or https")]
    Scheme(String),
    /// User name or password.
    #[error("a URL with credentials is not allowed: write them to a file and name it in token_file")]
    Credentials,
    /// Query or fragment.
    #[error("a URL with a query or a fragment is not allowed: write scheme, host, port and path only")]
    QueryOrFragment,
}

/// Reads a peer's base URL. A slash at its end means nothing and goes.
pub fn parse(text: &str) -> Result<Url, InvalidBaseUrl> {
    let mut url = Url::parse(text).map_err(|_| InvalidBaseUrl::NotAUrl(shown_url(text)))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(InvalidBaseUrl::Scheme(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidBaseUrl::Credentials);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(InvalidBaseUrl::QueryOrFragment);
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Writes a base URL.
pub fn serialize<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.as_str())
}

/// Reads a base URL.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// A text that was meant as a URL, unless it may hold a credential.
fn shown_url(text: &str) -> String {
    if text.contains(['@', '?', '#']) { "the text given".to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_never_repeats_what_may_be_a_credential() {
        for bad in ["http://u:hunter2@h", "http://h/?key=hunter2", "http://u:hunter2@ h", "ftp://hunter2/"] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let url = parse("https://h:8443/fed/").expect("a base URL");
        assert_eq!(url.as_str(), "https://h:8443/fed");
    }
}
