//! Making durable what is written, beside the thread that writes.

use std::{io, sync::Arc};

use crate::{
    directory::{Directory, SegmentFile},
    log::Log,
    marker,
    segments::Handle,
};

/// What makes durable all that was flushed before, and then stores the state of the caller.
///
/// It may run on another thread: the log is written meanwhile.
pub struct Checkpoint<D: Directory> {
    directory: Arc<D>,
    handles: Vec<Arc<Handle<D::File>>>,
    state: Option<Vec<u8>>,
}

impl<D: Directory> Log<D> {
    /// Returns what makes durable all that was flushed, and then stores `state`, if there is one.
    pub fn checkpoint(&mut self, state: Option<Vec<u8>>) -> Checkpoint<D> {
        let mut handles: Vec<_> = self.unsynced.drain(..).map(|(_, handle)| handle).collect();
        if let Some(active) = self.active.as_mut().filter(|active| active.unsynced) {
            active.unsynced = false;
            handles.push(Arc::clone(&active.handle));
        }
        Checkpoint { directory: Arc::clone(&self.directory), handles, state }
    }
}

impl<D: Directory> Checkpoint<D> {
    /// Returns when what was flushed would survive a power failure.
    ///
    /// # Errors
    /// Any part of it may be lost by a power failure, then, and the former state is there.
    pub fn run(self) -> io::Result<()> {
        for handle in &self.handles {
            handle.file.sync()?;
        }
        match self.state {
            Some(state) => marker::write_state(&*self.directory, &state),
            None => Ok(()),
        }
    }
}
