//! Acknowledged writes that are lost with the node that accepted them.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use zerocache_core::wire::{Status, Written};
use zerocache_net::clock;

use crate::net::Net;
use crate::poll::{StopFlag, pass, until};
use crate::probes::Probes;

/// The time that a write waits for its answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The load on node 0.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Writers; each waits for its answer before the next write.
    pub writers: usize,
    /// The pause of a writer before its next write.
    pub pause: Duration,
}

/// The result of one kill.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Writes that the killed node had acknowledged.
    pub acknowledged: usize,
    /// Of these, what no other node has.
    pub lost: usize,
    /// From the acknowledgement of the first lost write to the last acknowledgement of the killed
    /// node; zero when none is lost.
    pub window: Duration,
    /// Writes each second before the kill.
    pub each_second: u64,
}

/// Puts node 0 under load, kills it after `time`, and looks for its acknowledged writes on all
/// other nodes. Restarts all nodes at the end. Each `round` uses keys of its own.
///
/// # Panics
///
/// If the other nodes do not become quiet.
pub fn measure(net: &mut Net, probes: &Probes, round: usize, load: Load, time: Duration) -> Loss {
    let at = net.address(0);
    let (stop, count) = (StopFlag::default(), AtomicU64::new(0));
    let acknowledged: Mutex<Vec<(Bytes, Duration)>> = Mutex::default();
    let began = clock::elapsed();
    let killed = std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        threads.spawn(|| {
            let write_on = |_| async {
                while !stop.is_set() {
                    let n = count.fetch_add(1, Ordering::Relaxed);
                    let key = Bytes::from(format!("round {round} write {n}"));
                    let answer = probes.write(at, &key, Some(key.clone()), PATIENCE).await;
                    if let Ok(Some(Written { status: Status::Stored, .. })) = answer {
                        let mut list = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                        list.push((key, clock::elapsed()));
                    }
                    if !load.pause.is_zero() {
                        tokio::time::sleep(load.pause).await;
                    }
                }
            };
            probes.block_on(join_all((0..load.writers).map(write_on)));
        });
        pass(time);
        let killed = clock::elapsed();
        net.cluster[0].kill();
        drop(end);
        killed
    });
    let acknowledged = acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
    let keys: Vec<Bytes> = acknowledged.iter().map(|(key, _)| key.clone()).collect();
    let others: Vec<_> = (1..net.len()).map(|n| net.address(n)).collect();
    // Messages in flight between the others arrive: their counts no longer change.
    let mut last = Vec::new();
    until("nodes that get nothing more", || {
        pass(Duration::from_millis(500));
        let counts: Vec<u64> = net.others(0).map(|node| node.stat("entries")).collect();
        std::mem::replace(&mut last, counts.clone()).eq(&counts).then_some(())
    });
    let mut lost: Vec<bool> = vec![true; keys.len()];
    for other in others {
        for (n, lacked) in probes.absent(other, &keys).into_iter().enumerate() {
            lost[n] &= lacked;
        }
    }
    let first = acknowledged.iter().zip(&lost).filter(|(_, lost)| **lost).map(|((_, at), _)| *at);
    let last = acknowledged.iter().map(|(_, at)| *at).max().unwrap_or_default();
    let window = first.min().map_or(Duration::ZERO, |first| last.saturating_sub(first));
    // Entries of earlier rounds must not evict those of this round.
    net.restart_all();
    let seconds = killed.saturating_sub(began).as_secs_f64().max(0.001);
    let each_second = (keys.len() as f64 / seconds) as u64;
    let lost = lost.into_iter().filter(|lost| *lost).count();
    Loss { acknowledged: keys.len(), lost, window, each_second }
}
