//! One batch: `[header 64][record]…[zeros to a block]`, the unit of writing, syncing and recovery.

use crate::buffer::Buffer;
use crate::format::{
    BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_MAGIC, batch_at, put, read_u32, read_u64, round_up,
};
use crate::record::{Parts, record_bytes};
use crate::segment::Geometry;

/// A batch that is to be written and synced now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteBatch {
    /// Base of the segment file that it goes to.
    pub segment: u64,
    /// Offset in that file: whole blocks.
    pub offset: u64,
    /// The bytes: whole blocks.
    pub buffer: Buffer,
}

/// A batch that records are being appended to.
pub(crate) struct Batch {
    pub(crate) lsn: u64,
    first_position: u64,
    records: u32,
    geometry: Geometry,
    buffer: Buffer,
}

/// What the header of a batch is completed with when its turn to be written has come.
pub(crate) struct Seal {
    pub(crate) epoch: u32,
    pub(crate) previous: u32,
    pub(crate) durable_lsn: u64,
    pub(crate) at: u64,
}

impl Batch {
    /// An empty batch in an empty buffer.
    pub(crate) fn new(lsn: u64, first_position: u64, geometry: Geometry, mut buffer: Buffer) -> Self {
        assert!(lsn.is_multiple_of(geometry.block_bytes as u64) && buffer.len() == 0);
        buffer.pad(BATCH_HEADER_BYTES);
        Self { lsn, first_position, records: 0, geometry, buffer }
    }

    /// Where the next record of this batch will stand.
    pub(crate) fn next_lsn(&self) -> u64 {
        self.lsn + self.buffer.len() as u64
    }

    /// Where the next batch begins.
    pub(crate) fn end_lsn(&self) -> u64 {
        self.lsn + round_up(self.buffer.len(), self.geometry.block_bytes) as u64
    }

    pub(crate) fn bytes_len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether `bytes` more of records keep it within the batch limit and within its segment.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.geometry.fits_at(self.lsn, self.buffer.len() + bytes)
    }

    pub(crate) fn push(&mut self, parts: &Parts<'_>) {
        let bytes = record_bytes(parts.payload.len(), parts.links.len());
        self.buffer.append(bytes, |vec| parts.write(vec));
        self.records += 1;
    }

    /// Whether it is empty: it only says that what stands before it was durable.
    pub(crate) fn is_mark(&self) -> bool {
        self.records == 0
    }

    /// The position before its first record, for a mark.
    pub(crate) fn last_position(&self) -> u64 {
        self.first_position + u64::from(self.records) - 1
    }

    /// Completes header and padding.
    pub(crate) fn seal(mut self, seal: &Seal) -> Buffer {
        let (header, body) = self.buffer.bytes_mut().split_at_mut(BATCH_HEADER_BYTES);
        put(header, batch_at::MAGIC, &BATCH_MAGIC.to_le_bytes());
        put(header, batch_at::EPOCH, &seal.epoch.to_le_bytes());
        put(header, batch_at::RECORDS, &self.records.to_le_bytes());
        put(header, batch_at::LSN, &self.lsn.to_le_bytes());
        put(header, batch_at::FIRST_POSITION, &self.first_position.to_le_bytes());
        put(header, batch_at::BODY_BYTES, &(body.len() as u32).to_le_bytes());
        put(header, batch_at::PREVIOUS, &seal.previous.to_le_bytes());
        put(header, batch_at::DURABLE_LSN, &seal.durable_lsn.to_le_bytes());
        put(header, batch_at::BODY_SUM, &xxhash_rust::xxh3::xxh3_64(body).to_le_bytes());
        put(header, batch_at::AT, &seal.at.to_le_bytes());
        let checksum = crc32c::crc32c(&header[batch_at::CHECKSUM.end..]);
        put(header, batch_at::CHECKSUM, &checksum.to_le_bytes());
        self.buffer.pad(round_up(self.buffer.len(), self.geometry.block_bytes));
        self.buffer
    }
}

/// The header of a batch as recovery reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchHeader {
    pub(crate) checksum: u32,
    pub(crate) epoch: u32,
    pub(crate) records: u32,
    pub(crate) lsn: u64,
    pub(crate) first_position: u64,
    pub(crate) body_bytes: usize,
    pub(crate) previous: u32,
    pub(crate) durable_lsn: u64,
    pub(crate) body_sum: u64,
    pub(crate) at: u64,
}

impl BatchHeader {
    /// The header at the front of `bytes`, if its checksum holds and its length is a possible one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES)?;
        if read_u32(bytes, batch_at::MAGIC) != BATCH_MAGIC {
            return None;
        }
        let header = Self {
            checksum: read_u32(bytes, batch_at::CHECKSUM),
            epoch: read_u32(bytes, batch_at::EPOCH),
            records: read_u32(bytes, batch_at::RECORDS),
            lsn: read_u64(bytes, batch_at::LSN),
            first_position: read_u64(bytes, batch_at::FIRST_POSITION),
            body_bytes: read_u32(bytes, batch_at::BODY_BYTES) as usize,
            previous: read_u32(bytes, batch_at::PREVIOUS),
            durable_lsn: read_u64(bytes, batch_at::DURABLE_LSN),
            body_sum: read_u64(bytes, batch_at::BODY_SUM),
            at: read_u64(bytes, batch_at::AT),
        };
        let sound = crc32c::crc32c(&bytes[batch_at::CHECKSUM.end..]) == header.checksum
            && header.body_bytes <= BATCH_BYTES_MAX - BATCH_HEADER_BYTES;
        sound.then_some(header)
    }

    /// Bytes of the whole batch, padding included.
    pub(crate) fn padded_bytes(&self, block_bytes: usize) -> usize {
        round_up(BATCH_HEADER_BYTES + self.body_bytes, block_bytes)
    }
}
