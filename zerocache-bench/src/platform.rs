//! Functions that only Linux offers. Elsewhere the program builds, and reports that it cannot
//! measure.

use anyhow::Result;

#[cfg(target_os = "linux")]
mod linux {
    use anyhow::{Context, Result, ensure};
    use rustix::process::{Signal, set_parent_process_death_signal};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub fn end_with_parent() -> Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL)).context("PR_SET_PDEATHSIG")
    }

    pub fn pin(core: usize) -> Result<()> {
        ensure!(core < CpuSet::MAX_CPU, "there is no core {core}");
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores).with_context(|| format!("pin to core {core}"))
    }

    pub fn last_core() -> Result<usize> {
        let allowed = sched_getaffinity(None).context("the cores of this process")?;
        (0..CpuSet::MAX_CPU).rev().find(|core| allowed.is_set(*core)).context("a core")
    }
}

#[cfg(not(target_os = "linux"))]
mod linux {
    use anyhow::{Result, bail};

    pub fn end_with_parent() -> Result<()> {
        bail!("only Linux can be measured on")
    }

    pub fn pin(_core: usize) -> Result<()> {
        bail!("only Linux can be measured on")
    }

    pub fn last_core() -> Result<usize> {
        bail!("only Linux can be measured on")
    }
}

/// Has the kernel kill this process when the thread that started it ends.
pub fn end_with_parent() -> Result<()> {
    linux::end_with_parent()
}

/// Pins this thread, and all threads and children that it starts from now on.
pub fn pin(core: usize) -> Result<()> {
    linux::pin(core)
}

/// The last core that this process may use: the first one often serves interrupts.
pub fn last_core() -> Result<usize> {
    linux::last_core()
}
