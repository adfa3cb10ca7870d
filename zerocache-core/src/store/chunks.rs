//! A vector in chunks: it grows and shrinks without copying its items.

use alloc::{boxed::Box, vec::Vec};
use core::ops::{Index, IndexMut};

/// Items per chunk: few enough that a half empty last chunk costs little, and many enough that the overhead
/// of the chunks does.
const CHUNK: usize = 64;

/// Items at indices 0 to `len`, without holes. Slots beyond them hold defaults.
///
/// Invariant: at most one chunk holds no item.
// Thin boxes of a known size: an item is two loads away, without a check of the second index.
#[derive(Debug)]
pub struct Chunks<T> {
    chunks: Vec<Box<[T; CHUNK]>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T: Default> Chunks<T> {
    /// Returns the number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the chunk that holds the item at `index`, and the index within it.
    #[must_use]
    pub fn chunk_of(&self, index: u32) -> (&[T], usize) {
        (&self.chunks[index as usize / CHUNK][..], index as usize % CHUNK)
    }

    /// Appends an item and returns its index.
    pub fn push(&mut self, item: T) -> u32 {
        let index = self.len as u32;
        if self.len / CHUNK == self.chunks.len() {
            self.chunks.push(Box::new(core::array::from_fn(|_| T::default())));
        }
        self[index] = item;
        self.len += 1;
        index
    }

    /// Removes the item at `index`; the last item moves there.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn swap_remove(&mut self, index: u32) -> T {
        assert!(
            (index as usize) < self.len,
            "index {index} is out of range for {} items",
            self.len
        );
        self.len -= 1;
        let last = self.len as u32;
        let last = core::mem::take(&mut self[last]);
        // One empty chunk stays, so that alternating around a boundary does not allocate.
        if self.chunks.len() > self.len / CHUNK + 2 {
            self.chunks.pop();
        }
        if self.len == index as usize { last } else { core::mem::replace(&mut self[index], last) }
    }
}

impl<T> Index<u32> for Chunks<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Chunks<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_vector_and_returns_its_memory() {
        let (mut chunks, mut vector) = (Chunks::default(), Vec::new());
        for n in 0..1_000u32 {
            assert_eq!(chunks.push(n) as usize, vector.len());
            vector.push(n);
            if n % 3 == 0 {
                let index = n / 7;
                assert_eq!(chunks.swap_remove(index), vector.swap_remove(index as usize));
            }
        }
        assert!((0..vector.len()).all(|n| chunks[n as u32] == vector[n]));
        while let Some(last) = vector.len().checked_sub(1) {
            assert_eq!(chunks.swap_remove(last as u32 / 2), vector.swap_remove(last / 2));
            assert_eq!(chunks.len(), vector.len());
        }
        assert!(chunks.chunks.len() <= 2);
    }
}
