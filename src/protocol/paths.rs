//! URLs towards a peer: always below its configured base, whatever the peer says.

use url::Url;

/// Why a URL a peer gave is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedUrl {
    /// It does not parse.
    #[error("the events URL of the peer cannot be read")]
    Unreadable,
    /// It leads to another server.
    #[error("the events URL of the peer leads to another origin than its configured base")]
    OtherOrigin,
}

/// A URL below `base` made of segments, each escaped.
pub fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// `POST` here creates a run.
pub fn create_run(base: &Url, agent_id: &str) -> Url {
    below(base, &["v1", "agents", agent_id, "runs"])
}

/// `GET` here asks for a run.
pub fn run(base: &Url, run_id: &str) -> Url {
    below(base, &["v1", "runs", run_id])
}

/// `POST` here cancels a run.
pub fn cancel_run(base: &Url, run_id: &str) -> Url {
    below(base, &["v1", "runs", &format!("{run_id}:cancel")])
}

/// The events of a run, where the peer did not say.
pub fn default_events_path(base: &Url, run_id: &str) -> String {
    below(base, &["v1", "runs", run_id, "events"]).path().to_owned()
}

/// The URL of an events path kept in the index.
pub fn events(base: &Url, events_path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(events_path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// Reduces the events URL a peer gave to a path on the peer's own origin. A path that does not begin with
/// the base's own prefix is taken as relative to the base.
pub fn events_path(base: &Url, given: &str) -> Result<String, RefusedUrl> {
    let url = base.join(given).map_err(|_| RefusedUrl::Unreadable)?;
    if url.origin() != base.origin() || !url.origin().is_tuple() {
        return Err(RefusedUrl::OtherOrigin);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RefusedUrl::Unreadable);
    }
    let prefix = base.path().trim_end_matches('/');
    let path = url.path();
    let inside = prefix.is_empty() || path == prefix || path.starts_with(&format!("{prefix}/"));
    Ok(if inside { path.to_owned() } else { format!("{prefix}{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> Url {
        Url::parse(text).expect("a base")
    }

    #[test]
    fn ids_cannot_leave_their_segment() {
        let plain = base("http://peer:8081");
        assert_eq!(
            create_run(&plain, "a/../b?c#d").as_str(),
            "http://peer:8081/v1/agents/a%2F..%2Fb%3Fc%23d/runs"
        );
        assert_eq!(run(&base("http://peer/stack/"), "r").as_str(), "http://peer/stack/v1/runs/r");
        assert_eq!(cancel_run(&plain, "r").as_str(), "http://peer:8081/v1/runs/r:cancel");
    }

    #[test]
    fn events_urls_stay_on_the_peers_origin() {
        // defect 5, reliability 4d.47
        let plain = base("http://peer:8081");
        assert_eq!(events_path(&plain, "/v1/runs/r/events"), Ok("/v1/runs/r/events".to_owned()));
        assert_eq!(
            events_path(&plain, "http://peer:8081/v1/runs/r/events?x=1"),
            Ok("/v1/runs/r/events".into())
        );
        assert_eq!(events_path(&plain, "/../../etc"), Ok("/etc".to_owned()));
        for other in [
            "http://169.254.169.254/latest/meta-data",
            "https://peer:8081/v1/runs/r/events",
            "http://peer:8082/v1/runs/r/events",
            "//elsewhere/v1/runs/r/events",
            "http://peer:8081@elsewhere/",
            "file:///etc/passwd",
            "data:text/plain,x",
        ] {
            assert_eq!(events_path(&plain, other), Err(RefusedUrl::OtherOrigin), "{other}");
        }
        assert_eq!(events_path(&plain, "http://["), Err(RefusedUrl::Unreadable));
        assert_eq!(events_path(&plain, "http://user:pw@peer:8081/x"), Err(RefusedUrl::Unreadable));
    }

    #[test]
    fn a_base_with_a_path_keeps_it() {
        let prefixed = base("http://peer/stack-b");
        assert_eq!(events_path(&prefixed, "/v1/runs/r/events"), Ok("/stack-b/v1/runs/r/events".to_owned()));
        assert_eq!(
            events_path(&prefixed, "/stack-b/v1/runs/r/events"),
            Ok("/stack-b/v1/runs/r/events".into())
        );
        assert_eq!(default_events_path(&prefixed, "r"), "/stack-b/v1/runs/r/events");
    }
}
