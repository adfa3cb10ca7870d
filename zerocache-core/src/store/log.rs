//! The log of a shard: key, metadata and value of its small entries, one after the other in segments.
//!
//! Entries are appended at the end and removed anywhere. An empty segment is returned to the system. While
//! gaps take too much memory, the live blocks of the emptiest segment move to the end, a few with each
//! removal. All memory is therefore in pieces of one size, whatever the sizes of the entries.

use alloc::vec::Vec;

use super::backend::Pages;

/// The header of each block: its length, and the table bits of its key.
const HEADER_BYTES: usize = 8;

/// Gaps may take this fraction of the live bytes (1/4), and two segments in addition.
const GAPS_FRACTION: u64 = 4;

/// The bytes that are compacted for each byte removed. More than a segment holds for each byte of its gaps, or
/// gaps would grow faster than compaction closes them.
const COMPACTED_PER_BYTE: usize = 8;

/// The bytes of a block that are prefetched: a reader copies the rest in order, which the processor foresees.
const PREFETCHED_BYTES_MAX: usize = 1_152;

/// The bytes that the processor loads at once.
const CACHE_LINE_BYTES: usize = 64;

/// No segment.
const NONE: u32 = u32::MAX;

/// The address of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockAddress {
    segment: u32,
    offset: u32,
    bytes: u32,
}

impl BlockAddress {
    /// The address of no block.
    pub const NOWHERE: Self = Self { segment: NONE, offset: 0, bytes: 0 };

    /// Returns the length of the block in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.bytes as usize
    }
}

#[derive(Debug)]
struct Segment<P> {
    pages: P,
    /// Bytes written, from the beginning on.
    used: u32,
    /// Bytes of live blocks, with their headers.
    live: u32,
}

/// Blocks in segments.
///
/// Invariant: blocks are appended to the open segment alone; the segment under compaction is another one.
#[derive(Debug)]
pub struct Log<P> {
    segments: Vec<Option<Segment<P>>>,
    segment_bytes: usize,
    /// The number of segments.
    count: u64,
    /// Bytes of live blocks in all segments, with their headers.
    live: u64,
    open: u32,
    /// The segment under compaction, and the offset of its next block.
    compacting: Option<(u32, u32)>,
}

impl<P: Pages> Log<P> {
    /// Creates an empty log with segments of `segment_bytes`.
    #[must_use]
    pub fn new(segment_bytes: usize) -> Self {
        Self {
            segments: Vec::new(),
            segment_bytes,
            count: 0,
            live: 0,
            open: NONE,
            compacting: None,
        }
    }

    /// Returns the content of a block.
    ///
    /// # Panics
    /// If there is no such block.
    #[inline]
    #[must_use]
    pub fn bytes(&self, address: BlockAddress) -> &[u8] {
        let Some(segment) = &self.segments[address.segment as usize] else { no_block(address) };
        &segment.pages.as_ref()[address.offset as usize..][..address.bytes as usize]
    }

    /// Tells the processor that a block is read soon.
    pub fn prefetch(&self, address: BlockAddress) {
        let Some(Some(segment)) = self.segments.get(address.segment as usize) else { return };
        let (pages, from) = (segment.pages.as_ref(), address.offset as usize);
        for at in (0..address.bytes().min(PREFETCHED_BYTES_MAX)).step_by(CACHE_LINE_BYTES) {
            P::prefetch(pages, from + at);
        }
    }

    /// Appends a block for a key with these table bits.
    pub fn append<const N: usize>(&mut self, contents: [&[u8]; N], bits: u32) -> BlockAddress {
        let bytes: usize = contents.iter().map(|content| content.len()).sum();
        let needed = HEADER_BYTES + bytes;
        if self.room() < needed {
            self.open_segment();
        }
        let open = self.open;
        let segment_bytes = self.segment_bytes;
        let Some(segment) = self.segments.get_mut(open as usize).and_then(Option::as_mut) else {
            unreachable!("a segment was opened");
        };
        debug_assert!(segment.used as usize + needed <= segment_bytes, "a block of {bytes} bytes");
        let offset = segment.used as usize + HEADER_BYTES;
        let header = &mut segment.pages.as_mut()[segment.used as usize..offset];
        header[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
        header[4..].copy_from_slice(&bits.to_le_bytes());
        segment.used += needed as u32;
        segment.live += needed as u32;
        self.live += needed as u64;
        let address = BlockAddress { segment: open, offset: offset as u32, bytes: bytes as u32 };
        self.overwrite(address, contents);
        address
    }

    /// Overwrites a block with contents of the same length.
    pub fn overwrite<const N: usize>(&mut self, address: BlockAddress, contents: [&[u8]; N]) {
        let Some(segment) = &mut self.segments[address.segment as usize] else { no_block(address) };
        let mut room =
            &mut segment.pages.as_mut()[address.offset as usize..][..address.bytes as usize];
        for content in contents {
            let (here, rest) = room.split_at_mut(content.len());
            here.copy_from_slice(content);
            room = rest;
        }
    }

    /// Overwrites the last bytes of a block.
    pub fn overwrite_end(&mut self, address: BlockAddress, end: &[u8]) {
        let (offset, bytes) = (address.offset + address.bytes - end.len() as u32, end.len() as u32);
        self.overwrite(BlockAddress { offset, bytes, ..address }, [end]);
    }

    /// Removes a block.
    pub fn release(&mut self, address: BlockAddress) {
        let at = address.segment as usize;
        let Some(segment) = &mut self.segments[at] else { no_block(address) };
        let bytes = HEADER_BYTES as u32 + address.bytes;
        segment.live -= bytes;
        self.live -= u64::from(bytes);
        if segment.live > 0 {
            return;
        }
        if address.segment == self.open {
            segment.used = 0;
        } else {
            self.segments[at] = None;
            self.count -= 1;
            self.compacting.take_if(|(segment, _)| *segment == address.segment);
        }
    }

    /// Compacts a part of the emptiest segment after `bytes` were removed, if gaps take too much memory.
    /// `relocate` is called for each block, and moves those that are live.
    pub fn compact(
        &mut self,
        bytes: usize,
        mut relocate: impl FnMut(&mut Self, BlockAddress, u32),
    ) {
        let mut left = (HEADER_BYTES + bytes) * COMPACTED_PER_BYTE;
        while left > 0
            && let Some((segment, at)) = self.compacting.or_else(|| self.emptiest())
        {
            let Some((address, bits)) = self.block_at(segment, at) else {
                self.compacting = None;
                return;
            };
            self.compacting = Some((segment, address.offset + address.bytes));
            left = left.saturating_sub(HEADER_BYTES + address.bytes());
            relocate(self, address, bits);
        }
    }

    /// Moves a block to the end.
    pub fn relocate(&mut self, address: BlockAddress, bits: u32) -> BlockAddress {
        // Taken out, so that the block can be read while another segment is written.
        let Some(segment) = self.segments[address.segment as usize].take() else {
            no_block(address)
        };
        let block = &segment.pages.as_ref()[address.offset as usize..][..address.bytes as usize];
        let moved = self.append_keeping(address.segment, [block], bits);
        self.segments[address.segment as usize] = Some(segment);
        self.release(address);
        moved
    }

    /// Appends while the segment `taken` is out of the list, and keeps its position free.
    fn append_keeping(&mut self, taken: u32, contents: [&[u8]; 1], bits: u32) -> BlockAddress {
        let bytes: usize = contents.iter().map(|content| content.len()).sum();
        if self.room() < HEADER_BYTES + bytes {
            self.open_segment_except(Some(taken));
        }
        self.append(contents, bits)
    }

    fn room(&self) -> usize {
        let open = self.segments.get(self.open as usize).and_then(Option::as_ref);
        open.map_or(0, |open| self.segment_bytes - open.used as usize)
    }

    fn open_segment(&mut self) {
        self.open_segment_except(None);
    }

    fn open_segment_except(&mut self, taken: Option<u32>) {
        let is_free = |(at, segment): (usize, &Option<Segment<P>>)| {
            (segment.is_none() && taken != Some(at as u32)).then_some(at)
        };
        let at = self.segments.iter().enumerate().find_map(is_free);
        let at = at.unwrap_or_else(|| {
            self.segments.push(None);
            self.segments.len() - 1
        });
        // The open segment may be empty, and would never be released.
        let before = self.segments.get_mut(self.open as usize);
        if let Some(before) = before
            && before.as_ref().is_some_and(|before| before.live == 0)
        {
            *before = None;
            self.count -= 1;
        }
        self.segments[at] =
            Some(Segment { pages: P::zeroed(self.segment_bytes), used: 0, live: 0 });
        self.count += 1;
        self.open = at as u32;
    }

    /// Returns the start of the segment with the fewest live bytes, if gaps take too much memory.
    fn emptiest(&self) -> Option<(u32, u32)> {
        let held = self.count * self.segment_bytes as u64;
        if held <= self.live + self.live / GAPS_FRACTION + 2 * self.segment_bytes as u64 {
            return None;
        }
        let closed = (0..).zip(&self.segments).filter(|(at, _)| *at != self.open);
        let live = closed.filter_map(|(at, segment)| Some((segment.as_ref()?.live, at)));
        live.min().map(|(_, at)| (at, 0))
    }

    /// Returns the block whose header is at offset `at`, and the table bits of its key.
    fn block_at(&self, segment: u32, at: u32) -> Option<(BlockAddress, u32)> {
        let data = self.segments[segment as usize].as_ref().filter(|data| at < data.used)?;
        let header = data.pages.as_ref()[at as usize..].first_chunk::<HEADER_BYTES>()?;
        let [a, b, c, d, e, f, g, h] = *header;
        let offset = at + HEADER_BYTES as u32;
        let address = BlockAddress { segment, offset, bytes: u32::from_le_bytes([a, b, c, d]) };
        Some((address, u32::from_le_bytes([e, f, g, h])))
    }

    /// Panics unless the sizes are those of `blocks`.
    #[cfg(test)]
    pub fn check(&self, blocks: impl Iterator<Item = BlockAddress>) {
        use alloc::collections::BTreeMap;
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        for address in blocks {
            *live.entry(address.segment).or_default() += (HEADER_BYTES + address.bytes()) as u64;
        }
        let segments = (0..).zip(&self.segments);
        let there = segments.filter_map(|(at, segment)| Some((at, segment.as_ref()?)));
        let mut count = 0;
        for (at, segment) in there {
            count += 1;
            assert_eq!(u64::from(segment.live), live.remove(&at).unwrap_or(0), "segment {at}");
            assert!(segment.live > 0 || at == self.open, "segment {at} is empty");
        }
        assert!(live.is_empty() && count == self.count);
    }

    /// Returns the bytes of segments and of live blocks.
    #[cfg(test)]
    pub fn bytes_held(&self) -> (u64, u64) {
        (self.count * self.segment_bytes as u64, self.live)
    }
}

#[cold]
fn no_block(address: BlockAddress) -> ! {
    panic!("no block at {address:?}")
}
