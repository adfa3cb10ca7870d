//! Entries whose values are on disk, in memory and there, or on the way to it.

use alloc::vec::Vec;

use super::{super::backend::Pages, Block, Class, Entries, NewEntry, Slot};
use crate::{
    key::KeyHash,
    store::{disk::DiskCopy, slot::RESTORED},
};

impl<P: Pages> Entries<P> {
    /// Inserts an entry whose value is on disk. There must be no entry whose key has this hash. The value of
    /// `entry` must be empty.
    pub fn insert_on_disk(
        &mut self,
        hash: KeyHash,
        entry: &NewEntry<'_>,
        copy: DiskCopy,
        tick: u64,
    ) -> u32 {
        let bits = self.hasher.bits(hash);
        let contents = [entry.key, entry.metadata, &copy.encode()];
        let block = Block::OnDisk(self.log.append(contents, bits));
        let index = self.add_slot(Slot::new(entry, block, bits));
        self.link(index, Class::Disk, tick);
        index
    }

    /// Drops the value of an entry that is on disk at `copy`. The entry stays in its queue.
    pub fn keep_on_disk(&mut self, index: u32, copy: DiskCopy) {
        let slot = self.slot(index);
        let bits = slot.table_bits;
        let (key, metadata): (Vec<u8>, Vec<u8>) = (slot.key().into(), slot.metadata().into());
        self.clear_block(index);
        let block = Block::OnDisk(self.log.append([&key, &metadata, &copy.encode()], bits));
        self.slots[index].block = block;
    }

    /// Puts the value of an entry on disk into memory as well, in a class, where the read for which it came back is none.
    pub fn restore(
        &mut self,
        index: u32,
        (metadata, value): (&[u8], &[u8]),
        copy: DiskCopy,
        (class, tick): (Class, u64),
    ) {
        let slot = self.slot(index);
        let (bits, version, expires) = (slot.table_bits, slot.version, slot.expires);
        let key: Vec<u8> = slot.key().into();
        let entry = NewEntry { key: &key, metadata, value, version, expires };
        self.clear_block(index);
        let block = self.block(&entry, Some(copy), bits);
        self.slots[index].block = block;
        self.requeue(index, class, tick);
        self.slots[index].uses = RESTORED;
    }

    /// Changes the place of an entry on disk. One whose value is in memory has none afterwards if `copy` is none.
    pub fn set_copy(&mut self, index: u32, copy: Option<DiskCopy>) {
        let slot = &mut self.slots[index];
        match slot.block {
            Block::Copied(address) | Block::OnDisk(address) => {
                let copy = copy.map_or(DiskCopy::NONE, DiskCopy::encode);
                self.log.overwrite_end(address, &copy);
            }
            ref mut block => block.set_copy(copy),
        }
    }
}
