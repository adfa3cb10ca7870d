//! `POST /v1/messages`: one message of the protocol in, one out; or the beginning of a framed
//! connection, when the message is a handshake and the request asks for it.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request as HttpRequest, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use bytes::Bytes;
use tokio::time::timeout;
use zerocache_core::{
    limits::VALUE_BYTES_WIRE_MAX,
    node::Cost,
    version::Incarnation,
    wire::{Envelope, MESSAGE_OVERHEAD_BYTES, RefusalCode, Request, RequestMessage, Response},
};
use zerocache_net::{
    clock,
    transport::{
        MESSAGES_TYPE,
        framed::{SENT_HEADER, UPGRADE_TOKEN},
    },
};

use super::{Api, error::ApiError, served::charged};
use crate::{
    frames::{Begun, Frames},
    http::{BodyError, Upgrade, read_body, upgraded},
};

/// A node takes values of at least this size from its peers, whatever its own limit, because limits
/// apply to the node that accepts a write. Of a larger one it is told only that it is there.
const VALUE_BYTES_FLOOR: u64 = 16 << 20;

/// Messages of at most this size are taken whatever large ones are under way: pings, handshakes,
/// reads, deletes.
pub const SMALL_MESSAGE_BYTES: u64 = 16 << 10;

/// Responses of at most this size are not charged: handshakes and values that every connection may
/// hold.
const RESPONSE_BYTES_FREE: u64 = 64 << 10;

/// How long a caller may take to read the answer after which its connection carries frames.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest message that a node takes.
pub fn message_bytes_max(value_bytes_max: u64) -> u64 {
    let values = value_bytes_max.max(VALUE_BYTES_FLOOR).min(VALUE_BYTES_WIRE_MAX as u64);
    values + MESSAGE_OVERHEAD_BYTES as u64
}

pub(super) async fn post(
    State(api): State<Api>,
    mut request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let headers = request.headers();
    // A type that no web page can send without asking first keeps browsers out.
    if headers.get(header::CONTENT_TYPE).is_none_or(|given| given != MESSAGES_TYPE) {
        return Err(ApiError::missing_type(MESSAGES_TYPE));
    }
    let started = clock::mono();
    let wish = Wish::of(&mut request).filter(|_| api.frames.is_some());
    let bytes_max = message_bytes_max(api.value_bytes_max);
    let body = read_body(request.into_body(), bytes_max, &api.messages).await?;
    let message = RequestMessage::decode(body, clock::mono()).map_err(|error| {
        api.counters.bad_messages.add();
        ApiError::bad_message(error.to_string())
    })?;
    let timeout_ms = message.envelope.timeout_ms;
    if timeout_ms > 0 && clock::mono().since_ms(started) > timeout_ms {
        // Its caller has given it up while it was on its way.
        let text = "the deadline passed before the message was whole";
        return Ok(over_http(Response::refused(RefusalCode::Expired, text).encode()));
    }
    let (envelope, node) = (message.envelope, introduced(&message.request));
    // What waits for callers that do not read is bounded, as it is for those that do not send.
    let charge = match Cost::of(&message.request).response_bytes {
        bytes if bytes as u64 <= RESPONSE_BYTES_FREE => None,
        bytes => Some(api.messages.charge(bytes).ok_or(BodyError::NoMemory)?),
    };
    let response = api.driver.request(message).await;
    Ok(match (wish, &api.frames, &response) {
        (Some(wish), Some(frames), Response::Hello(hello)) if node.is_some() => {
            let own = hello.node.as_ref().map(|node| node.incarnation);
            let known = Envelope {
                cluster: envelope.cluster,
                from: node.flatten(),
                to: own,
                ..Envelope::default()
            };
            wish.grant(frames, known, response)
        }
        _ => over_http(
            charge.map_or_else(|| response.encode(), |charge| charged(response.encode(), charge)),
        ),
    })
}

fn over_http(response: Bytes) -> HttpResponse {
    ([(header::CONTENT_TYPE, MESSAGES_TYPE)], response).into_response()
}

/// Whether a request is a handshake, and of which node, if of one.
fn introduced(request: &Request) -> Option<Option<Incarnation>> {
    match request {
        Request::Hello(hello) => Some(hello.node.as_ref().map(|node| node.incarnation)),
        _ => None,
    }
}

/// The wish to go on with frames.
struct Wish {
    upgrade: Upgrade,
    sent_ms: Option<u32>,
}

impl Wish {
    fn of(request: &mut HttpRequest) -> Option<Self> {
        let wanted = request.headers().get_all(header::UPGRADE).iter().any(|token| {
            let mut tokens = token.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            tokens.any(|token| token.eq_ignore_ascii_case(UPGRADE_TOKEN.as_bytes()))
        });
        let sent = request.headers().get(SENT_HEADER).and_then(|sent| sent.to_str().ok());
        let sent_ms = sent.and_then(|text| text.parse().ok());
        let upgrade = request.extensions_mut().remove::<Upgrade>().filter(|_| wanted)?;
        Some(Self { upgrade, sent_ms })
    }

    /// The answer after which the connection carries frames.
    fn grant(self, frames: &Arc<Frames>, known: Envelope, hello: Response) -> HttpResponse {
        let Self { upgrade, sent_ms } = self;
        frames.serve(async move {
            let (stream, read) = timeout(UPGRADE_TIMEOUT, upgraded(upgrade)).await.ok()??;
            Some((stream, Begun { read, sent_ms, known, hello }))
        });
        let sent_ms = clock::mono().as_millis() as u32;
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static(UPGRADE_TOKEN)),
            (HeaderName::from_static(SENT_HEADER), HeaderValue::from(sent_ms)),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
}
