//! Reads a body that may be of any length and any speed.

use bytes::Buf;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::{FetchLimits, failed};
use crate::clock::now;
use crate::failure::Failure;

/// The most that is allocated because an origin says how much it will send.
const FIRST_ALLOCATION_MAX: usize = 256 << 10;

pub(super) async fn read(mut body: Incoming, limits: &FetchLimits) -> Result<Vec<u8>, Failure> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limits.bytes {
        return Err(Failure::TooLarge);
    }
    let mut bytes = Vec::with_capacity(announced.min(FIRST_ALLOCATION_MAX));
    let per_interval = (limits.rate as f64 * limits.rate_interval.as_secs_f64()) as usize;
    let (mut begin, mut before) = (now(), 0);
    loop {
        let left = limits.rate_interval.saturating_sub(now() - begin);
        match timeout(left, body.frame()).await {
            Ok(None) => return Ok(bytes),
            // A connection that ends early is one too: the length is known to be wrong then.
            Ok(Some(Err(error))) => return Err(failed(&error)),
            Ok(Some(Ok(frame))) => {
                let Ok(mut data) = frame.into_data() else { continue };
                if bytes.len() + data.remaining() > limits.bytes {
                    return Err(Failure::TooLarge);
                }
                bytes.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            Err(_) => {
                if bytes.len() - before < per_interval {
                    return Err(Failure::OriginTimeout);
                }
                (begin, before) = (now(), bytes.len());
            }
        }
    }
}
