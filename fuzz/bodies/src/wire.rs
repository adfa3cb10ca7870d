//! The messages between nodes and clients.

use bytes::Bytes;
use zerocache_core::{
    time::Instant,
    wire::{RequestMessage, Response},
};

/// The time at which a request arrives; not 0, so that a lifetime differs from an instant.
const NOW: Instant = Instant::from_millis(5_000);

/// Decodes a request; what decodes survives being sent again.
pub fn request(data: &[u8]) {
    if let Ok(message) = RequestMessage::decode(Bytes::copy_from_slice(data), NOW) {
        let again = check_request(&message, NOW);
        assert_eq!(again, message, "a request arrives changed");
    }
}

/// Decodes a response; what decodes survives being sent again.
pub fn response(data: &[u8]) {
    if let Ok(response) = Response::decode(Bytes::copy_from_slice(data)) {
        check_response(&response);
    }
}

/// The request as its receiver decodes it. It must equal the original, except for a record that
/// expired in between: its expiry becomes the moment of arrival.
pub(crate) fn check_request(message: &RequestMessage, now: Instant) -> RequestMessage {
    let encoded = message.encode(now);
    let decoded = RequestMessage::decode(encoded.clone(), now).expect("a request can be read");
    assert_eq!(decoded.encode(now), encoded, "two ways to say one request");
    decoded
}

/// A response arrives as it was sent.
pub(crate) fn check_response(response: &Response) {
    let encoded = response.encode();
    let decoded = Response::decode(encoded.clone());
    assert_eq!(decoded.as_ref(), Ok(response), "a response arrives changed");
    assert_eq!(decoded.map(|again| again.encode()), Ok(encoded), "two ways to say one response");
}
