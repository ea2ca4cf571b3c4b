//! What a peer answers: capabilities, runs, errors, keys. Nothing it says is believed to be short or clean.

use causeway::domain::key::SigningKey;
use causeway::domain::succession::Succession;
use causeway::protocol::problem::PeerError;
use causeway::protocol::{capabilities, proof, run};

/// The body of an answer, read as each kind of answer.
pub(crate) fn run(data: &[u8]) {
    let key = SigningKey::from_seed(&[7; 32]);
    let stranger = key.public();
    if let Some(document) = capabilities::parse(data) {
        assert!(document.capabilities.names().count() <= 256);
        assert!(document.capabilities.model_tiers.len() <= 64);
        let trusted = document.succession.and_then(|next| next.verify("stk_b", stranger));
        assert!(trusted.is_none(), "nobody signs for a key of ours");
        let proven = document.proof.is_some_and(|text| proof::holds(stranger, ("a", "b"), "nonce", &text));
        assert!(!proven);
    }
    if let Some(answer) = run::parse_answer(data) {
        assert!(answer.value().is_object());
    }
    let error = PeerError::parse(data);
    for said in [error.code, error.message].into_iter().flatten() {
        assert!(!said.chars().any(char::is_control), "{said:?} goes into logs and answers");
        assert!(said.len() <= 1024);
    }
    if let Some(next) = std::str::from_utf8(data).ok().and_then(Succession::from_text) {
        assert!(next.verify("stk_b", stranger).is_none());
    }
}
