//! Server-sent events, both ways: [`decode`] reads what peers send, [`encode`] writes what we send.
//!
//! The grammar is WHATWG HTML §9.2.5. A stream is lines ended by LF, CR or CRLF; a line is a comment (`:…`),
//! a field (`name: value`) or blank; a blank line ends a frame. The two halves are deliberately not
//! symmetric:
//!
//! - reading accepts everything the standard accepts, and bounds it, because the bytes come from outside;
//! - writing uses the narrow subset that every measured client reads alike: LF only, one `data:` line, an
//!   `id:` on each event and on nothing else, heartbeats that end no frame.
//!
//! Neither half knows what is inside `data`, and neither does any I/O.

pub mod decode;
pub mod encode;

pub use decode::{DecodeError, Decoder, Frame, Limits};
pub use encode::{Control, EVENT_NAME, HEARTBEAT, control_frame, event_frame, retry_prefix};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_write_is_what_we_read() {
        let mut wire = Vec::new();
        retry_prefix(&mut wire, std::time::Duration::from_secs(2));
        event_frame(&mut wire, 12, br#"{"event_id":"e1"}"#, b"null");
        wire.extend_from_slice(HEARTBEAT);
        control_frame(&mut wire, Control::CaughtUp, br#"{"sequence":12}"#);

        let mut decoder = Decoder::new(Limits { line_bytes: 1024, event_bytes: 1024 });
        decoder.push(&wire);
        let event = Frame {
            id: Some("12".to_owned()),
            event: Some(EVENT_NAME.to_owned()),
            data: r#"{"event":{"event_id":"e1"},"federation":null}"#.to_owned(),
            retry: Some(std::time::Duration::from_secs(2)),
        };
        let caught_up = Frame {
            event: Some(Control::CaughtUp.name().to_owned()),
            data: r#"{"sequence":12}"#.to_owned(),
            ..Frame::default()
        };
        assert_eq!(decoder.next_frame(), Some(Ok(event)));
        assert_eq!(decoder.next_frame(), Some(Ok(caught_up)));
        assert_eq!(decoder.next_frame(), None);
    }
}
