//! `/v1/stats`: the metrics of this node as one JSON object.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Extension, Json, extract::State};
use serde::{Serialize, Serializer, ser::SerializeMap};

use zerocache_core::access::Operation;

use super::{Api, error::ApiError};
use crate::access::Caller;
use crate::disk::DiskTier;
use crate::http;
use crate::telemetry::{
    Distribution, HISTOGRAMS, HistogramMetric, ReadCounts, Sample, Value, metrics,
};

/// The values of all metrics and histograms, in the order of the tables.
pub(super) struct StatsBody {
    values: Vec<(&'static str, Value)>,
    histograms: Vec<(&'static str, BTreeMap<String, Distribution>)>,
}

impl Serialize for StatsBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.values.len() + self.histograms.len();
        let mut map = serializer.serialize_map(Some(fields))?;
        for (name, value) in &self.values {
            map.serialize_entry(name, value)?;
        }
        for (name, series) in &self.histograms {
            map.serialize_entry(name, series)?;
        }
        map.end()
    }
}

impl StatsBody {
    pub(super) fn of(sample: &Sample<'_>) -> Self {
        let series = |metric: &HistogramMetric| {
            let series = metric.series(sample).into_iter();
            series.map(|(label, values)| (label.into_owned(), values)).collect()
        };
        Self {
            values: metrics().map(|metric| (metric.name, metric.value(sample))).collect(),
            histograms: HISTOGRAMS.iter().map(|metric| (metric.name, series(metric))).collect(),
        }
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
        disk_entries: storage.disk_counts(),
        disk: api.driver.disk().map(DiskTier::stats).unwrap_or_default(),
        node: readings.status,
        queued: readings.queued,
        datagrams: readings.datagrams,
        datagram_send_errors: readings.datagram_send_errors,
        watchers: readings.watchers,
        requests: api.driver.request_metrics(),
        writes: api.driver.request_metrics().writes(),
        bodies: api.bodies.share(),
        messages: api.messages.share(),
        replication_delays: readings.replication_delays,
        response_bytes_pending: pending as u64,
    }
}
