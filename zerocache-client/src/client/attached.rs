//! A task that is busy with one node at a time.

use std::future::Future;

use tokio::task::JoinHandle;
use zerocache_core::{client::Attachment, time::Instant, version::Incarnation};

/// A task that is attached to one node, and ends with this. It begins on a Tokio runtime.
#[derive(Default)]
pub(super) struct Attached {
    task: Option<JoinHandle<()>>,
    attachment: Attachment,
}

impl Attached {
    /// Whether a task is at work.
    pub(super) fn is_on(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Whether a new task may begin. One that is at work continues while its node `suits`; after the end
    /// of one there is a pause.
    pub(super) fn is_due(&mut self, now: Instant, suits: impl FnOnce(Incarnation) -> bool) -> bool {
        let is_due = self.attachment.is_due(now, !self.is_on(), suits);
        if self.attachment.node().is_none()
            && let Some(task) = self.task.take()
        {
            task.abort();
        }
        is_due
    }

    pub(super) fn begin(
        &mut self,
        node: Incarnation,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.attachment.begin(node);
        self.task = Some(tokio::spawn(task));
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE_MS: u64 = 250;

    #[tokio::test]
    async fn one_task_goes_on_while_its_node_suits_and_the_next_begins_after_a_pause() {
        let (at, node) = (Instant::from_millis, Incarnation(7));
        let mut attached = Attached::default();
        assert!(attached.is_due(at(1_000), |_| false) && !attached.is_on());
        attached.begin(node, std::future::pending());
        assert!(attached.is_on());
        assert!(!attached.is_due(at(2_000), |other| other == node));
        assert!(!attached.is_due(at(3_000), |_| false), "the pause begins");
        assert!(!attached.is_on());
        assert!(!attached.is_due(at(3_000 + PAUSE_MS - 1), |_| true));
        assert!(attached.is_due(at(3_000 + PAUSE_MS), |_| true));
        // One that ended by itself is like one whose node does not suit.
        attached.begin(node, async {});
        tokio::task::yield_now().await;
        assert!(!attached.is_on() && !attached.is_due(at(4_000), |_| true));
        assert!(attached.is_due(at(4_000 + PAUSE_MS), |_| true));
    }
}
