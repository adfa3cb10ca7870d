//! Reads request bodies within bounds of size, time, rate, and the memory of all bodies.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use zerocache_net::transport::framed::{MemoryBudget, MemoryReservation};

use super::limits::BodyLimits;
use super::suspension;
use crate::telemetry::{MemoryShare, ServerCounters};

/// The unit in which memory is counted, so that a budget above 4 GiB fits the semaphore.
const UNIT_BYTES: usize = 1 << 10;
/// The first allocation of a body: a client that announces much and sends little costs little.
const FIRST_BYTES: usize = 16 << 10;
/// The `Retry-After` of a 503, in seconds: memory is freed within moments.
const RETRY_AFTER_S: u32 = 1;

/// The reason why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body is longer than allowed.
    #[error("the body is larger than {bytes_max} bytes")]
    TooLarge {
        /// The most bytes allowed.
        bytes_max: u64,
    },
    /// The body arrived below the minimum rate, or took longer than the total time.
    #[error("the body arrived too slowly")]
    TooSlow,
    /// The body ended before its announced length, or its chunks are malformed.
    #[error("the body is incomplete or malformed")]
    Incomplete,
    /// All bodies together use as much memory as they may.
    #[error("too many bodies are in flight")]
    NoMemory,
    /// The process was suspended while the body arrived, so its age is unknown.
    #[error("the node was suspended while it read the body")]
    Suspended,
}

impl BodyError {
    /// The status of the response: 413, 408, 400 or 503.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Incomplete => StatusCode::BAD_REQUEST,
            Self::NoMemory | Self::Suspended => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The value of `Retry-After` in seconds, if the response has one.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u32> {
        matches!(self, Self::NoMemory | Self::Suspended).then_some(RETRY_AFTER_S)
    }
}

/// The limits, the memory and the counters that all bodies of a listener share.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    limits: BodyLimits,
    memory: Arc<Semaphore>,
    counters: Arc<ServerCounters>,
    /// Bodies that announce at most this many bytes are not charged.
    exempt_bytes_max: u64,
}

impl BodyBudget {
    /// Creates a budget with all its memory free.
    #[must_use]
    pub fn new(limits: BodyLimits, counters: Arc<ServerCounters>) -> Self {
        let units = usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX) / UNIT_BYTES;
        let memory = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
        Self { limits, memory, counters, exempt_bytes_max: 0 }
    }

    /// Exempts bodies that announce at most `bytes` from the charge; every connection may buffer that
    /// much anyway. So a flood of large bodies does not block pings.
    #[must_use]
    pub fn exempting(mut self, bytes: u64) -> Self {
        self.exempt_bytes_max = bytes;
        self
    }

    /// Returns the bytes that bodies may still take.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        (self.memory.available_permits() * UNIT_BYTES) as u64
    }

    /// Returns the memory of this budget, and what of it is charged.
    #[must_use]
    pub fn share(&self) -> MemoryShare {
        let max = self.limits.memory_bytes;
        MemoryShare { used: max.saturating_sub(self.free_bytes()), max }
    }

    /// Charges `bytes` until the returned permit is dropped. Returns none, and counts it, when the
    /// budget is used up.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        let charge = Arc::clone(&self.memory).try_acquire_many_owned(units).ok();
        if charge.is_none() {
            self.count(BodyError::NoMemory);
        }
        charge
    }

    fn count(&self, error: BodyError) {
        match error {
            BodyError::TooLarge { .. } => self.counters.bodies_too_large.add(),
            BodyError::TooSlow => self.counters.body_timeouts.add(),
            BodyError::Incomplete => self.counters.bodies_incomplete.add(),
            BodyError::NoMemory => self.counters.bodies_over_memory.add(),
            BodyError::Suspended => self.counters.refused_after_suspend.add(),
        }
    }
}

impl MemoryBudget for BodyBudget {
    fn try_reserve(&self, bytes: usize) -> Option<MemoryReservation> {
        self.charge(bytes).map(|charge| Box::new(charge) as MemoryReservation)
    }
}

/// Reads a whole body of at most `bytes_max` bytes. A body that announces more is refused unread. Its
/// memory is charged to the budget as it arrives, until the last clone of the returned bytes is dropped.
///
/// # Errors
/// [`BodyError`]; nothing of the body is kept.
///
/// # Cancellation
/// Dropping the future returns the memory; the rest of the body is not read.
pub async fn read_body<B>(body: B, bytes_max: u64, budget: &BodyBudget) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
{
    let suspensions = suspension::count();
    let result = read(body, bytes_max, budget).await;
    let result =
        if suspension::count() == suspensions { result } else { Err(BodyError::Suspended) };
    if let Err(error) = &result {
        budget.count(*error);
    }
    result
}

async fn read<B>(body: B, bytes_max: u64, budget: &BodyBudget) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let hint = body.size_hint();
    if hint.lower() > bytes_max {
        return Err(BodyError::TooLarge { bytes_max });
    }
    let limits = &budget.limits;
    let expected = hint.exact().unwrap_or(bytes_max);
    let is_exempt = hint.exact().is_some_and(|exact| exact <= budget.exempt_bytes_max);
    let mut received = ChargedBody::new(&budget.memory, expected, is_exempt);
    let mut end = pin!(sleep(limits.total_time));
    let mut window = pin!(sleep(limits.window));
    let mut in_window = 0;
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = &mut end => return Err(BodyError::TooSlow),
            () = &mut window => {
                if in_window < least(limits.rate_min, limits.window) {
                    return Err(BodyError::TooSlow);
                }
                in_window = 0;
                window.set(sleep(limits.window));
                continue;
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| BodyError::Incomplete)?;
        // Trailers are not stored.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        in_window += data.len() as u64;
        if (received.data.len() + data.len()) as u64 > bytes_max {
            return Err(BodyError::TooLarge { bytes_max });
        }
        received.push(&data)?;
    }
    if hint.exact().is_some_and(|exact| exact != received.data.len() as u64) {
        return Err(BodyError::Incomplete);
    }
    Ok(received.freeze())
}

fn least(rate: u64, window: Duration) -> u64 {
    (rate.saturating_mul(window.as_millis() as u64) / 1000).max(1)
}

/// The bytes of a body and their charge.
struct ChargedBody {
    data: Vec<u8>,
    /// The size that the body may reach.
    expected: usize,
    memory: Arc<Semaphore>,
    charge: Option<OwnedSemaphorePermit>,
    is_exempt: bool,
}

impl ChargedBody {
    fn new(memory: &Arc<Semaphore>, expected: u64, is_exempt: bool) -> Self {
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        Self { data: Vec::new(), expected, memory: Arc::clone(memory), charge: None, is_exempt }
    }

    fn push(&mut self, more: &[u8]) -> Result<(), BodyError> {
        let needed = self.data.len() + more.len();
        if needed > self.data.capacity() {
            let doubled = self.data.capacity().saturating_mul(2).max(FIRST_BYTES);
            self.grow(needed.max(doubled.min(self.expected)))?;
        }
        self.data.extend_from_slice(more);
        Ok(())
    }

    fn grow(&mut self, capacity: usize) -> Result<(), BodyError> {
        if !self.is_exempt {
            self.charge_for(capacity)?;
        }
        self.data.reserve_exact(capacity - self.data.len());
        Ok(())
    }

    fn charge_for(&mut self, capacity: usize) -> Result<(), BodyError> {
        let charged = self.charge.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let units = capacity.div_ceil(UNIT_BYTES).saturating_sub(charged);
        let units = u32::try_from(units).map_err(|_| BodyError::NoMemory)?;
        let more = Arc::clone(&self.memory).try_acquire_many_owned(units);
        let more = more.map_err(|_| BodyError::NoMemory)?;
        match &mut self.charge {
            Some(charge) => charge.merge(more),
            None => self.charge = Some(more),
        }
        Ok(())
    }

    fn freeze(self) -> Bytes {
        if self.data.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for ChargedBody {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests;
