//! A block of an index file: postings of one segment, sorted by stream and key, checksummed.
//!
//! A list that is longer than what is left of a block goes on in the next one as another **piece**. Each piece says everything
//! about its list, so one block is enough to read from.

use crate::format::{index_at, put, read_u16, read_u32};
use crate::record::{StreamId, StreamKind};

use super::lowest::Lowest;
use super::postings::{List, Posting};
use super::resident::{Chain, put_uint, read_uint};

/// Bytes of a block: what one read brings. Holds 2,040 postings of one stream, or those of 292 streams with one each.
pub const INDEX_BLOCK_BYTES: usize = 16 << 10;

const HEAD_BYTES: usize = 16;
const PIECE_BYTES: usize = 48;

/// A part of a list.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'b> {
    pub(crate) stream: StreamId,
    pub(crate) list: List,
    /// Number of its first posting within the list.
    pub(crate) place: u32,
    /// Its list has another piece in the next block.
    pub(crate) goes_on: bool,
    postings: &'b [u8],
}

impl<'b> Piece<'b> {
    pub(crate) fn len(&self) -> usize {
        self.postings.len() / Posting::BYTES
    }

    pub(crate) fn posting(&self, at: usize) -> Posting {
        Posting::read(&self.postings[at * Posting::BYTES..])
    }

    fn parse(bytes: &'b [u8]) -> Option<(Self, usize)> {
        let head = bytes.get(..PIECE_BYTES)?;
        let count = usize::from(read_u16(head, index_at::PIECE_COUNT));
        let end = PIECE_BYTES + count * Posting::BYTES;
        let number = |at| read_uint::<6>(head, at);
        let piece = Self {
            stream: StreamId {
                id: head[index_at::PIECE_ID].try_into().expect("an id of 16 bytes"),
                kind: StreamKind(head[index_at::PIECE_KIND.start]),
            },
            list: List {
                before: Chain {
                    newest: read_uint::<3>(head, index_at::PIECE_BEFORE.start) as u32,
                    jump: read_uint::<3>(head, index_at::PIECE_JUMP.start) as u32,
                },
                key_before: number(index_at::PIECE_KEY_BEFORE.start),
                first_key: number(index_at::PIECE_FIRST_KEY.start),
                message_count: number(index_at::PIECE_MESSAGES.start),
                amended: Lowest::read(head[index_at::PIECE_AMENDED.start]),
            },
            place: read_uint::<3>(head, index_at::PIECE_PLACE.start) as u32,
            goes_on: head[index_at::PIECE_FLAGS.start] & index_at::FLAG_GOES_ON != 0,
            postings: bytes.get(PIECE_BYTES..end)?,
        };
        (count > 0).then_some((piece, end))
    }
}

/// The pieces of a block, in their order.
#[derive(Clone)]
pub(crate) struct Pieces<'b> {
    rest: &'b [u8],
    left: u16,
}

impl<'b> Pieces<'b> {
    /// `None` when the block is not one that was written for this segment and place.
    pub(crate) fn of(block: &'b [u8], base: u64, number: u32) -> Option<Self> {
        let block = block.get(..INDEX_BLOCK_BYTES)?;
        let sound = read_u32(block, index_at::BLOCK_CHECKSUM) == checksum(block, base, number);
        let left = read_u16(block, index_at::BLOCK_PIECES);
        (sound && left > 0).then_some(Self { rest: &block[HEAD_BYTES..], left })
    }
}

impl<'b> Iterator for Pieces<'b> {
    type Item = Piece<'b>;

    fn next(&mut self) -> Option<Piece<'b>> {
        self.left = self.left.checked_sub(1)?;
        let (piece, end) = Piece::parse(self.rest)?;
        self.rest = &self.rest[end..];
        Some(piece)
    }
}

/// Of the block and of where it belongs: a block of another place never passes.
fn checksum(block: &[u8], base: u64, number: u32) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&base.to_le_bytes()), &number.to_le_bytes());
    crc32c::crc32c_append(place, &block[index_at::BLOCK_CHECKSUM.end..])
}

/// Fills blocks with lists, in the order of their streams.
pub(crate) struct BlockWriter {
    base: u64,
    block: Vec<u8>,
    pieces: u16,
    /// Of each block, the first four bytes of its first stream's id: where to look for a stream.
    pub(crate) fences: Vec<u32>,
}

impl BlockWriter {
    pub(crate) fn new(base: u64) -> Self {
        Self { base, block: Vec::with_capacity(INDEX_BLOCK_BYTES), pieces: 0, fences: Vec::new() }
    }

    /// Adds a list; every block that is full goes to `out`.
    pub(crate) fn push<E>(
        &mut self,
        stream: StreamId,
        list: &List,
        postings: &[Posting],
        out: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.push_units(stream, list, postings, 1, out)
    }

    /// The same, of a list of pairs: none is torn.
    pub(crate) fn push_pairs<E>(
        &mut self,
        stream: StreamId,
        list: &List,
        postings: &[Posting],
        out: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.push_units(stream, list, postings, 2, out)
    }

    fn push_units<E>(
        &mut self,
        stream: StreamId,
        list: &List,
        postings: &[Posting],
        unit: usize,
        out: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut place = 0;
        while place < postings.len() {
            let room = INDEX_BLOCK_BYTES.saturating_sub(self.block.len() + PIECE_BYTES) / Posting::BYTES;
            let room = room / unit * unit;
            if room == 0 {
                self.flush(out)?;
                continue;
            }
            if self.block.is_empty() {
                self.block.resize(HEAD_BYTES, 0);
                self.fences.push(fence(stream.id));
                continue;
            }
            let end = postings.len().min(place + room);
            self.push_piece(stream, list, place, &postings[place..end], end < postings.len());
            place = end;
        }
        Ok(())
    }

    fn push_piece(&mut self, stream: StreamId, list: &List, place: usize, postings: &[Posting], more: bool) {
        let mut head = [0; PIECE_BYTES];
        put(&mut head, index_at::PIECE_ID, &stream.id);
        put(&mut head, index_at::PIECE_KIND, &[stream.kind.0]);
        put(&mut head, index_at::PIECE_FLAGS, &[if more { index_at::FLAG_GOES_ON } else { 0 }]);
        put(&mut head, index_at::PIECE_COUNT, &(postings.len() as u16).to_le_bytes());
        put_uint::<3>(&mut head, index_at::PIECE_BEFORE.start, u64::from(list.before.newest));
        put_uint::<3>(&mut head, index_at::PIECE_JUMP.start, u64::from(list.before.jump));
        put_uint::<6>(&mut head, index_at::PIECE_FIRST_KEY.start, list.first_key);
        put_uint::<6>(&mut head, index_at::PIECE_KEY_BEFORE.start, list.key_before);
        put_uint::<6>(&mut head, index_at::PIECE_MESSAGES.start, list.message_count);
        put_uint::<3>(&mut head, index_at::PIECE_PLACE.start, place as u64);
        put(&mut head, index_at::PIECE_AMENDED, &[list.amended.byte()]);
        self.block.extend_from_slice(&head);
        self.block.extend(postings.iter().flat_map(|posting| posting.to_bytes()));
        self.pieces += 1;
    }

    /// Ends the block that was begun, if one was.
    pub(crate) fn flush<E>(&mut self, out: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.block.resize(INDEX_BLOCK_BYTES, 0);
        put(&mut self.block, index_at::BLOCK_PIECES, &self.pieces.to_le_bytes());
        let checksum = checksum(&self.block, self.base, self.fences.len() as u32 - 1);
        put(&mut self.block, index_at::BLOCK_CHECKSUM, &checksum.to_le_bytes());
        out(&self.block)?;
        self.block.clear();
        self.pieces = 0;
        Ok(())
    }
}

/// The first bytes of an id, in the order of ids.
pub(crate) fn fence(id: [u8; 16]) -> u32 {
    u32::from_be_bytes([id[0], id[1], id[2], id[3]])
}
