//! `/v1/stats`: the metrics of this node as one JSON object.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::{Serialize, Serializer};

use zerocache_core::access::Operation;

use super::{Api, error::ApiError};
use crate::access::Caller;
use crate::http;
use crate::telemetry::{METRICS, ReadCounts, Sample, Value};

/// The values of all metrics, in the order of the table.
pub(super) struct StatsBody(Vec<(&'static str, Value)>);

impl Serialize for StatsBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

impl StatsBody {
    pub(super) fn of(sample: &Sample<'_>) -> Self {
        Self(METRICS.iter().map(|metric| (metric.name, metric.value(sample))).collect())
    }
}

pub(super) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Json<StatsBody>, ApiError> {
    api.permit(&caller, Operation::Monitor)?;
    Ok(Json(StatsBody::of(&sample(&api))))
}

/// Takes the readings from which the values of all metrics are computed. Locks the node once.
pub(super) fn sample(api: &Api) -> Sample<'_> {
    let storage = api.driver.storage();
    let reads = ReadCounts::of(&api.counters, storage);
    let readings = api.driver.readings();
    let pending = api.framed.as_ref().map_or(0, |framed| framed.pending_bytes());
    Sample {
        server: &api.counters,
        denials: api.access.denial_counts(),
        tls_mode: api.access.security().mode() as u64,
        failed_reloads: api.access.failed_reloads(),
        suspensions: http::suspensions(),
        reads,
        store: storage.stats(),
        capacity: storage.capacity(),
        node: readings.status,
        queued: readings.queued,
        datagrams: readings.datagrams,
        datagram_send_errors: readings.datagram_send_errors,
        watchers: readings.watchers,
        response_bytes_pending: pending as u64,
    }
}
