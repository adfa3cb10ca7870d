//! Making durable what is written, beside the thread that writes.

use std::{
    io,
    sync::{Arc, PoisonError},
};

use crate::{
    directory::Directory,
    log::Log,
    marker,
    segments::{Handle, Unsynced},
};

/// What makes durable all that was flushed before, and then stores the state of the caller.
///
/// It may run on another thread: the log is written meanwhile. One runs at a time. What it has not made durable, because
/// it failed or was dropped, is left to the next one.
pub struct Checkpoint<D: Directory> {
    directory: Arc<D>,
    handles: Vec<(u32, Arc<Handle<D::File>>)>,
    unsynced: Unsynced<D::File>,
    state: Option<Vec<u8>>,
}

impl<D: Directory> Log<D> {
    /// Returns what makes durable all that was flushed, and then stores `state`, if there is one.
    pub fn checkpoint(&mut self, state: Option<Vec<u8>>) -> Checkpoint<D> {
        let active = self.active.as_mut().filter(|active| active.unsynced);
        let written = active.map(|active| {
            active.unsynced = false;
            (active.number, Arc::clone(&active.handle))
        });
        let mut handles = self.with_unsynced(std::mem::take);
        // What went while another one had it need not last.
        let active = self.active.as_ref().map(|active| active.number);
        handles.retain(|(number, _)| active == Some(*number) || self.table.get(*number).is_some());
        handles
            .extend(written.filter(|(number, _)| handles.iter().all(|(other, _)| other != number)));
        let (directory, unsynced) = (Arc::clone(&self.directory), Arc::clone(&self.unsynced));
        Checkpoint { directory, handles, unsynced, state }
    }
}

impl<D: Directory> Checkpoint<D> {
    /// Returns when what was flushed would survive a power failure.
    ///
    /// # Errors
    /// Any part of it may be lost by a power failure, then, and the former state is there. If a sync failed, so do all
    /// later ones until its segment is gone, since the system may have dropped what it had not written.
    pub fn run(mut self) -> io::Result<()> {
        while let Some((_, handle)) = self.handles.last() {
            handle.sync()?;
            self.handles.pop();
        }
        match self.state.take() {
            Some(state) => marker::write_state(&*self.directory, &state),
            None => Ok(()),
        }
    }
}

impl<D: Directory> Drop for Checkpoint<D> {
    fn drop(&mut self) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        unsynced.append(&mut self.handles);
    }
}
