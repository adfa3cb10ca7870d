//! CPU time and memory of processes and of the machine, as /proc tells them.

use std::fs;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of one process with all its threads.
///
/// A server's own children count too when they have ended, such as those that Redis forks for a
/// replica. Ours do not: they are the servers.
pub fn process_cpu(pid: u32, with_children: bool) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    let ticks = process_ticks(&stat, with_children).with_context(|| path)?;
    Ok(duration(ticks))
}

/// Memory of a process that is resident, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    resident(&status).with_context(|| path)
}

/// Returns the CPU time used by all processes since the machine started: on one core, or on all.
pub fn machine_cpu(core: Option<usize>) -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    Ok(duration(busy_ticks(&stat, core).context("/proc/stat")?))
}

fn duration(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// utime and stime, with children also cutime and cstime: see proc_pid_stat(5).
fn process_ticks(stat: &str, with_children: bool) -> Option<u64> {
    // The name of the program stands in brackets and may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let wanted: Range<usize> = if with_children { 11..15 } else { 11..13 };
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields.get(wanted)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// Everything but idle and waiting for I/O. Time that the hypervisor took away counts as used.
fn busy_ticks(stat: &str, core: Option<usize>) -> Option<u64> {
    let name = core.map_or_else(|| "cpu".to_owned(), |core| format!("cpu{core}"));
    let mut fields = stat
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut fields| (fields.next()? == name).then_some(fields))?;
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let mut sum = 0;
    for at in 0..8 {
        let ticks: u64 = fields.next()?.parse().ok()?;
        if at != 3 && at != 4 {
            sum += ticks;
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "77 (a (b) c) S 1 77 77 0 -1 4194560 200 0 0 0 150 50 7 3 20 0 4 0 900 5 6";

    #[test]
    fn process_times_are_found_behind_any_name() {
        assert_eq!(process_ticks(STAT, false), Some(200));
        assert_eq!(process_ticks(STAT, true), Some(210));
        assert_eq!(process_ticks("77 (a) S 1", false), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1664 kB\nRssAnon: 1 kB\n"), Some(1_703_936));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn idle_time_is_not_busy() {
        let stat = "cpu  10 1 5 900 70 2 3 4 8 0\ncpu0 4 1 2 450 35 1 1 2 8 0\nintr 1\n";
        assert_eq!(busy_ticks(stat, None), Some(25));
        assert_eq!(busy_ticks(stat, Some(0)), Some(11));
        assert_eq!(busy_ticks(stat, Some(1)), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn process_and_machine_figures_are_positive() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).expect("status") > 0);
        assert!(machine_cpu(None).expect("stat") >= process_cpu(pid, false).expect("stat"));
    }
}
