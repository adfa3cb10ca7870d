//! The process, under the names that Prometheus gives the metrics of every process. On systems without
//! `/proc` only the CPU time is there.

use std::{fs, sync::OnceLock};

use rustix::{
    param,
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::{Family, Number, Series};
use crate::telemetry::metrics::Kind;

pub(super) fn families() -> Vec<Family> {
    let mut families =
        vec![family("cpu_seconds", "CPU time used.", Kind::Counter, Number::Float(cpu_seconds()))];
    let mut gauge = |name, help, value: Option<Number>| {
        families.extend(value.map(|value| family(name, help, Kind::Gauge, value)));
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = |field| bytes_of(&status, field).map(Number::Unsigned);
    gauge("resident_memory_bytes", "Memory of the process that is resident.", memory("VmRSS:"));
    gauge("virtual_memory_bytes", "Address space of the process.", memory("VmSize:"));
    let open = fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64);
    gauge("open_fds", "Open file descriptors.", open.map(Number::Unsigned));
    let most = getrlimit(Resource::Nofile).current;
    gauge("max_fds", "Limit of open file descriptors.", most.map(Number::Unsigned));
    let help = "Start of the process, in seconds since the Unix epoch.";
    gauge("start_time_seconds", help, start_seconds().map(Number::Float));
    families
}

fn family(name: &str, help: &'static str, kind: Kind, value: Number) -> Family {
    let series = vec![Series { labels: Vec::new(), value }];
    Family { name: format!("process_{name}"), help, kind, series }
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Returns a size in `/proc/self/status`, which is in kB of 1,024 bytes.
fn bytes_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// Returns the start of the process since the Unix epoch.
fn start_seconds() -> Option<f64> {
    // The boot time of the kernel moves with the wall clock; a start does not.
    static START: OnceLock<Option<f64>> = OnceLock::new();
    *START.get_or_init(|| {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot: u64 = boot.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot as f64 + start_ticks(&stat)? as f64 / param::clock_ticks_per_second() as f64)
    })
}

/// Returns the field `starttime` of `/proc/self/stat`, in ticks since boot. The name of the program, in
/// parentheses, may contain anything.
fn start_ticks(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    // The 22nd field; the first of these is the third.
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_read() {
        let status = "Name:\tVmRSS: 7 kB\nVmSize:\t  100 kB\nVmRSS:\t    12 kB\n";
        assert_eq!(bytes_of(status, "VmRSS:"), Some(12 << 10));
        assert_eq!(bytes_of(status, "VmSwap:"), None);
        let stat = "7 (a) b 3) S 1 7 7 0 -1 4194560 1 0 0 0 2 3 0 0 20 0 9 0 8642 1000 50";
        assert_eq!(start_ticks(stat), Some(8642));
        assert_eq!(start_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn cpu_time_grows() {
        let before = cpu_seconds();
        let mut sum = 0u64;
        while cpu_seconds() <= before {
            sum = sum.wrapping_add(1);
        }
        assert!(cpu_seconds() > before, "{sum}");
    }
}
