//! What rows of the table are made with.

use super::metrics::{Kind, Metric, Sample, Unit, Value};

type Accessor = fn(&Sample<'_>) -> Value;

pub(super) const fn counter(name: &'static str, help: &'static str, value: Accessor) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, help, family: None, label: None, value }
}

pub(super) const fn gauge(name: &'static str, help: &'static str, value: Accessor) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: Unit::Count, help, family: None, label: None, value }
}

impl Metric {
    pub(super) const fn bytes(self) -> Self {
        Self { unit: Unit::Bytes, ..self }
    }

    pub(super) const fn milliseconds(self) -> Self {
        Self { unit: Unit::Milliseconds, ..self }
    }

    /// Names its series in `/metrics`.
    pub(super) const fn in_family(self, family: &'static str) -> Self {
        Self { family: Some(family), ..self }
    }

    /// Makes it one of several series of a family in [`FAMILIES`](super::families::FAMILIES); `value` is that of
    /// the family's label.
    pub(super) const fn series(
        self,
        family: &'static str,
        label: &'static str,
        value: &'static str,
    ) -> Self {
        Self { family: Some(family), label: Some((label, value)), ..self }
    }
}
