//! `POST /v1/messages`: one message of the protocol in, one out.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response as HttpResponse},
};
use zerocache_core::{
    limits::VALUE_BYTES_WIRE_MAX,
    wire::{MESSAGE_OVERHEAD_BYTES, RefusalCode, RequestMessage, Response},
};
use zerocache_net::{clock, transport::MESSAGES_TYPE};

use super::{Api, error::ApiError};
use crate::http::read_body;

/// A node takes values of at least this size from its peers, whatever its own limit, because limits
/// apply to the node that accepts a write. Of a larger one it is told only that it is there.
const VALUE_BYTES_FLOOR: u64 = 16 << 20;

/// Messages of at most this size are taken whatever large ones are under way: pings, handshakes,
/// reads, deletes.
pub const SMALL_MESSAGE_BYTES: u64 = 16 << 10;

/// The largest message that a node takes.
pub fn message_bytes_max(value_bytes_max: u64) -> u64 {
    let values = value_bytes_max.max(VALUE_BYTES_FLOOR).min(VALUE_BYTES_WIRE_MAX as u64);
    values + MESSAGE_OVERHEAD_BYTES as u64
}

pub(super) async fn post(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    // A type that no web page can send without asking first keeps browsers out.
    if headers.get(header::CONTENT_TYPE).is_none_or(|given| given != MESSAGES_TYPE) {
        return Err(ApiError::missing_type(MESSAGES_TYPE));
    }
    let started = clock::mono();
    let bytes_max = message_bytes_max(api.value_bytes_max);
    let body = read_body(body, bytes_max, &api.messages).await?;
    let message = RequestMessage::decode(body, clock::mono()).map_err(|error| {
        api.counters.bad_messages.add();
        ApiError::bad_message(error.to_string())
    })?;
    let timeout_ms = message.envelope.timeout_ms;
    let response = if timeout_ms > 0 && clock::mono().since_ms(started) > timeout_ms {
        // Its caller has given it up while it was on its way.
        Response::refused(RefusalCode::Expired, "the deadline passed before the message was whole")
    } else {
        api.runtime.request(message).await
    };
    Ok(([(header::CONTENT_TYPE, MESSAGES_TYPE)], response.encode()).into_response())
}
