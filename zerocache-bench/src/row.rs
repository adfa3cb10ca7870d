//! One turn of one contender as a line of CSV.

use anyhow::{Context, Result};

use crate::measure::Sample;

/// The figures of a turn. A workload fills in those that it measures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub workload: String,
    pub tasks: usize,
    pub contender: String,
    pub round: usize,
    /// Whether it counts: no other process used the CPU, and its round had no error.
    pub kept: bool,
    pub errors: usize,
    pub ops_per_s: Option<f64>,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    /// CPU time per operation in the process of the callers and in those of the servers.
    pub client_cpu_us: Option<f64>,
    pub server_cpu_us: Option<f64>,
    pub server_rss_bytes: Option<f64>,
    /// Memory for each entry or connection.
    pub bytes_each: Option<f64>,
    /// Foreign CPU use, in cores.
    pub other_cpu: Option<f64>,
}

/// The first line of the file.
pub const HEADER: &str = "workload,tasks,contender,round,kept,errors,ops_per_s,p50_us,p99_us,p999_us,\
    client_cpu_us,server_cpu_us,server_rss_bytes,bytes_each,other_cpu";

impl Row {
    pub fn new(workload: &str, tasks: usize, contender: &str, round: usize) -> Self {
        let (workload, contender) = (workload.to_owned(), contender.to_owned());
        Self { workload, tasks, contender, round, kept: true, ..Self::default() }
    }

    /// With what was measured while callers worked.
    pub fn with_sample(mut self, sample: &Sample) -> Self {
        let quantile = |share| Some(sample.latency.value_at_quantile(share) as f64 / 1_000.0);
        let each = |cpu: std::time::Duration| {
            (sample.ops > 0).then(|| cpu.as_secs_f64() * 1e6 / sample.ops as f64)
        };
        self.errors = sample.errors.len();
        self.ops_per_s = Some(sample.ops as f64 / sample.seconds);
        self.p50_us = quantile(0.5);
        self.p99_us = quantile(0.99);
        self.p999_us = quantile(0.999);
        self.client_cpu_us = each(sample.client_cpu);
        self.server_cpu_us = each(sample.server_cpu);
        self.server_rss_bytes = Some(sample.server_rss as f64);
        self.other_cpu = Some(sample.other_cpu);
        self
    }

    /// CPU time per operation on both sides.
    pub fn cpu_us(&self) -> Option<f64> {
        Some(self.client_cpu_us? + self.server_cpu_us?)
    }

    fn figures(&self) -> [Option<f64>; 9] {
        [
            self.ops_per_s,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            self.client_cpu_us,
            self.server_cpu_us,
            self.server_rss_bytes,
            self.bytes_each,
            self.other_cpu,
        ]
    }

    pub fn to_csv(&self) -> String {
        let Self { workload, tasks, contender, round, kept, errors, .. } = self;
        let mut line = format!("{workload},{tasks},{contender},{round},{kept},{errors}");
        for figure in self.figures() {
            line.push(',');
            line.push_str(&figure.map(|figure| format!("{figure:.3}")).unwrap_or_default());
        }
        line
    }

    pub fn from_csv(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        let [workload, tasks, contender, round, kept, errors, figures @ ..] = &fields[..] else {
            anyhow::bail!("too few fields: {line}");
        };
        let figure = |at: usize| -> Result<Option<f64>> {
            let text = *figures.get(at).context("too few fields")?;
            if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
        };
        Ok(Self {
            kept: kept.parse()?,
            errors: errors.parse()?,
            ops_per_s: figure(0)?,
            p50_us: figure(1)?,
            p99_us: figure(2)?,
            p999_us: figure(3)?,
            client_cpu_us: figure(4)?,
            server_cpu_us: figure(5)?,
            server_rss_bytes: figure(6)?,
            bytes_each: figure(7)?,
            other_cpu: figure(8)?,
            ..Self::new(workload, tasks.parse()?, contender, round.parse()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn row_round_trips_through_csv() {
        let row =
            Row { ops_per_s: Some(1_000.5), bytes_each: None, ..Row::new("get", 64, "redis", 3) };
        assert_eq!(Row::from_csv(&row.to_csv()).expect("a row"), row);
        assert_eq!(HEADER.split(',').count(), row.to_csv().split(',').count());
        Row::from_csv("get,64").expect_err("too short");
    }

    #[test]
    fn sample_yields_figures_per_second_and_per_operation() {
        let mut latency = hdrhistogram::Histogram::new(3).expect("a histogram");
        for micros in 1..=1_000_u64 {
            latency.record(micros * 1_000).expect("recorded");
        }
        let sample = Sample {
            ops: 1_000,
            seconds: 2.0,
            latency,
            client_cpu: Duration::from_millis(5),
            server_cpu: Duration::from_millis(3),
            server_rss: 4_096,
            other_cpu: 0.25,
            errors: vec![],
        };
        let row = Row::new("get", 1, "x", 0).with_sample(&sample);
        assert_eq!((row.ops_per_s, row.cpu_us()), (Some(500.0), Some(8.0)));
        let near = |found: Option<f64>, wanted: f64| {
            (found.expect("measured") / wanted - 1.0).abs() < 0.002
        };
        assert!(near(row.p50_us, 500.0) && near(row.p99_us, 990.0) && near(row.p999_us, 999.0));
    }
}
