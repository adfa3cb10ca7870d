//! `POST /v1/messages`: one message of the protocol in, one out; or the upgrade to a framed connection,
//! when the message is a handshake and the request asks for it.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Request as HttpRequest, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use bytes::Bytes;
use tokio::time::timeout;
use zerocache_core::{
    access::Operation,
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

use super::{Api, error::ApiError, readable_entry::charged};
use crate::{
    access::Caller,
    framed::{FramedConnections, FramedHandshake},
    http::{BodyError, Upgrade, read_body, upgraded},
};

/// A node accepts values up to this size from its peers, whatever its own limit, because limits apply
/// to the node that accepts a write. Of a larger value it receives only the version.
const VALUE_BYTES_FLOOR: u64 = 16 << 20;

/// Messages up to this size are accepted whatever large ones are in flight: pings, handshakes, reads,
/// deletes.
pub const SMALL_MESSAGE_BYTES: u64 = 16 << 10;

/// Responses up to this size are not charged: handshakes, and values that every connection may hold.
const RESPONSE_BYTES_FREE: u64 = 64 << 10;

/// The time that a caller has to read the 101 response.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the size of the largest message that a node accepts.
pub fn message_bytes_max(value_bytes_max: u64) -> u64 {
    let values = value_bytes_max.max(VALUE_BYTES_FLOOR).min(VALUE_BYTES_WIRE_MAX as u64);
    values + MESSAGE_OVERHEAD_BYTES as u64
}

pub(super) async fn post(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
    mut request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let headers = request.headers();
    // A web page cannot send this type without a preflight request, which keeps browsers out.
    if headers.get(header::CONTENT_TYPE).is_none_or(|given| given != MESSAGES_TYPE) {
        let message = format!("the content type must be {MESSAGES_TYPE}");
        return Err(ApiError::bad_content_type(message));
    }
    // The node reads nothing of a caller that may do nothing. The message is judged when it is known.
    api.permit(&caller, Operation::Connect)?;
    let started = clock::mono();
    let upgrade = UpgradeRequest::of(&mut request).filter(|_| api.framed.is_some());
    let bytes_max = message_bytes_max(api.value_bytes_max);
    let body = read_body(request.into_body(), bytes_max, &api.messages).await?;
    let mut message = RequestMessage::decode(body, clock::mono()).map_err(|error| {
        api.counters.bad_messages.add();
        ApiError::bad_message(error.to_string())
    })?;
    api.permit_message(&caller, &message)?;
    // Its body took this long at least.
    message.envelope.delay_ms = clock::mono().since_ms(started);
    let timeout_ms = message.envelope.timeout_ms;
    if timeout_ms > 0 && clock::mono().since_ms(started) > timeout_ms {
        // Its caller has given up meanwhile.
        let text = "the deadline passed before the message was complete";
        return Ok(over_http(Response::refused(RefusalCode::Expired, text).encode()));
    }
    let (envelope, node) = (message.envelope, caller_of_handshake(&message.request));
    // Pending responses are bounded like pending requests.
    let charge = match Cost::of(&message.request).response_bytes {
        bytes if bytes as u64 <= RESPONSE_BYTES_FREE => None,
        bytes => Some(api.messages.charge(bytes).ok_or(BodyError::NoMemory)?),
    };
    let response = api.driver.request(caller.to_core(), message).await;
    Ok(match (upgrade, &api.framed, &response) {
        (Some(upgrade), Some(framed), Response::Hello(hello)) if node.is_some() => {
            let own = hello.node.as_ref().map(|node| node.incarnation);
            let known = Envelope {
                cluster: envelope.cluster,
                from: node.flatten(),
                to: own,
                ..Envelope::default()
            };
            upgrade.accept(framed, (caller, known), response)
        }
        _ => over_http(
            charge.map_or_else(|| response.encode(), |charge| charged(response.encode(), charge)),
        ),
    })
}

fn over_http(response: Bytes) -> HttpResponse {
    ([(header::CONTENT_TYPE, MESSAGES_TYPE)], response).into_response()
}

/// Returns the caller of a handshake: a node, or `Some(None)` for a client; none for other requests.
fn caller_of_handshake(request: &Request) -> Option<Option<Incarnation>> {
    match request {
        Request::Hello(hello) => Some(hello.node.as_ref().map(|node| node.incarnation)),
        _ => None,
    }
}

/// A request to switch to frames.
struct UpgradeRequest {
    upgrade: Upgrade,
    sent_ms: Option<u32>,
}

impl UpgradeRequest {
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

    /// Returns the response after which the connection carries frames.
    fn accept(
        self,
        framed: &Arc<FramedConnections>,
        (caller, known): (Arc<Caller>, Envelope),
        hello: Response,
    ) -> HttpResponse {
        let Self { upgrade, sent_ms } = self;
        framed.serve(async move {
            let (stream, read) = timeout(UPGRADE_TIMEOUT, upgraded(upgrade)).await.ok()??;
            Some((stream, FramedHandshake { read, sent_ms, caller, known, hello }))
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
