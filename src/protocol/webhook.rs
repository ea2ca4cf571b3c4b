//! Signatures of what is posted to webhooks, as the Standard Webhooks specification has them (version `v1`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Names the message; the same for all attempts to deliver it.
pub const ID: &str = "webhook-id";
/// When this attempt was made, in seconds since the Unix epoch.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The signature over both and the body.
pub const SIGNATURE: &str = "webhook-signature";

/// The headers of one attempt to deliver a body.
pub fn headers(key: &[u8], id: &str, time_s: i64, body: &[u8]) -> [(&'static str, String); 3] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{time_s}.").as_bytes());
    mac.update(body);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    [(ID, id.to_owned()), (TIMESTAMP, time_s.to_string()), (SIGNATURE, signature)]
}

#[cfg(test)]
mod tests {
    use super::*;

    // M-04
    #[test]
    fn the_signature_is_that_of_the_specifications_example() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let body = br#"{"test": 2432232314}"#;
        let [(_, id), (_, time), (_, signature)] =
            headers(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!((id.as_str(), time.as_str()), ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"));
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
