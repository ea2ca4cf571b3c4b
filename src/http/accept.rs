//! Which representation of an event stream a client prefers.

use axum::http::header::{ACCEPT, HeaderMap};

/// The representations of a run's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Representation {
    /// `text/event-stream`.
    Sse,
    /// `application/x-ndjson`.
    Ndjson,
    /// `application/json`.
    Page,
}

/// Reads `Accept`; `None` when none of ours is wanted. Absent, or `*/*`, means SSE.
pub(super) fn representation(sent: &HeaderMap) -> Option<Representation> {
    let mut best: Option<(f32, Representation)> = None;
    let mut any = false;
    for value in sent.get_all(ACCEPT) {
        for range in value.to_str().ok()?.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            any = true;
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("").to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            let wanted = match kind.as_str() {
                "text/event-stream" | "text/*" | "*/*" => Representation::Sse,
                "application/x-ndjson" | "application/jsonl" | "application/ndjson" => Representation::Ndjson,
                "application/json" | "application/*" => Representation::Page,
                _ => continue,
            };
            if quality > 0.0 && best.is_none_or(|(other, _)| quality > other) {
                best = Some((quality, wanted));
            }
        }
    }
    if any { best.map(|(_, wanted)| wanted) } else { Some(Representation::Sse) }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn wanted(accept: &str) -> Option<Representation> {
        let mut sent = HeaderMap::new();
        sent.insert(ACCEPT, HeaderValue::from_str(accept).expect("a header"));
        representation(&sent)
    }

    #[test]
    fn the_most_wanted_of_ours_is_chosen() {
        assert_eq!(wanted("text/event-stream"), Some(Representation::Sse));
        assert_eq!(wanted("*/*"), Some(Representation::Sse));
        assert_eq!(wanted("application/json, text/event-stream;q=0.5"), Some(Representation::Page));
        assert_eq!(wanted("application/json;q=0.1, application/x-ndjson"), Some(Representation::Ndjson));
        assert_eq!(wanted("text/html"), None);
        assert_eq!(wanted("text/event-stream;q=0"), None);
        assert_eq!(representation(&HeaderMap::new()), Some(Representation::Sse));
    }
}
