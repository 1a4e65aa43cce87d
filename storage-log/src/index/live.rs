//! How much of the sealed segments is still what somebody may ask for: what a compaction or retention could free is the rest.

use crate::log::Log;

use super::Role;
use super::lookup::BlockPlace;

impl Log {
    /// Bytes that the sealed segments take on the disk, with their indexes, but for less than a block each.
    #[must_use]
    pub fn sealed_bytes(&self) -> u64 {
        let segment_bytes = self.geometry().segment_bytes;
        self.index.all_sealed().iter().map(|sealed| sealed.bytes_on_disk(segment_bytes)).sum()
    }

    /// The blocks of the indexes of all sealed segments, in their order.
    pub fn sealed_blocks(&self) -> impl Iterator<Item = BlockPlace> + '_ {
        let all = self.index.all_sealed().iter();
        all.flat_map(|sealed| (0..sealed.blocks()).map(|number| sealed.block_place(number)))
    }

    /// Bytes of the records that such a block says stand in home streams, and of the newest ones of streams that keep the last. `None`
    /// when it is not what was written. A record that stays for links alone is not counted.
    #[must_use]
    pub fn live_bytes(&self, place: BlockPlace, block: &[u8]) -> Option<u64> {
        let number = self.index.number_of(place.base);
        let pieces = self.index.sealed(number)?.pieces(block, place.number)?;
        let live = pieces.filter(|piece| match self.index.role(piece.stream.kind) {
            Some(Role::Home) => true,
            Some(Role::Last(_)) => self.index.last(piece.stream).is_some_and(|newest| {
                self.index.number_of(self.geometry().segment_of(newest.lsn())) == number
            }),
            Some(Role::Amended | Role::Linked(_) | Role::Runs) | None => false,
        });
        let bytes = live.map(|piece| {
            (0..piece.len()).map(|at| piece.posting(at).location(place.base).bytes() as u64).sum::<u64>()
        });
        Some(bytes.sum())
    }
}
