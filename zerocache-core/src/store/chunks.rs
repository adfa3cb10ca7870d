//! A vector in pieces: it grows and shrinks without copying what it holds.

use alloc::{boxed::Box, vec::Vec};
use core::ops::{Index, IndexMut};

/// Items in one piece: few enough that a half empty last piece costs little, many enough that the
/// pieces' own overhead does.
const CHUNK: usize = 64;

/// Items at places 0 to `len`, without holes; beyond them defaults.
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
    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds an item and returns its place.
    pub fn push(&mut self, item: T) -> u32 {
        let place = self.len as u32;
        if self.len / CHUNK == self.chunks.len() {
            self.chunks.push(Box::new(core::array::from_fn(|_| T::default())));
        }
        self[place] = item;
        self.len += 1;
        place
    }

    /// Takes out the item at `place`; the last item moves there.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn swap_remove(&mut self, place: u32) -> T {
        assert!((place as usize) < self.len, "no item at place {place} of {}", self.len);
        self.len -= 1;
        let last = self.len as u32;
        let last = core::mem::take(&mut self[last]);
        // One empty chunk stays, so that going back and forth over a border allocates nothing.
        if self.chunks.len() > self.len / CHUNK + 2 {
            self.chunks.pop();
        }
        if self.len == place as usize { last } else { core::mem::replace(&mut self[place], last) }
    }
}

impl<T> Index<u32> for Chunks<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        &self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Chunks<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
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
                let place = n / 7;
                assert_eq!(chunks.swap_remove(place), vector.swap_remove(place as usize));
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
