//! Whether the parts of an index file are what was written, said without the log that they are made from.

use crate::index::IndexFooter;
use crate::index::block::Pieces;

/// Whether `block` is block `number` of the index file of the segment at `base`, and holds its checksum.
#[must_use]
pub fn is_index_block_sound(base: u64, number: u32, block: &[u8]) -> bool {
    Pieces::of(block, base, number).is_some()
}

/// Whether `tail`, which stands between the blocks and the footer, holds its sum.
#[must_use]
pub fn is_index_tail_sound(footer: &IndexFooter, tail: &[u8]) -> bool {
    footer.read_tail(tail).is_some()
}
