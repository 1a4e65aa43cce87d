//! The records of a sealed segment, shown once more to whoever keeps something that is in no index.

use crate::batch::BatchHeader;
use crate::format::{BATCH_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::record::Record;
use crate::segment::Geometry;

/// Goes through the batches of one sealed segment. Enters nothing and judges nothing: it ends at the first batch that is not
/// sound, and says so.
#[derive(Debug)]
pub struct Glance {
    geometry: Geometry,
    /// Where the next batch begins.
    lsn: u64,
    /// Where the last one ends.
    end_lsn: u64,
}

impl Glance {
    /// Of the segment at `base`, whose batches end at `end_lsn`.
    #[must_use]
    pub fn new(geometry: Geometry, base: u64, end_lsn: u64) -> Self {
        Self { geometry, lsn: base + SEGMENT_HEADER_BYTES as u64, end_lsn }
    }

    /// Offset in the segment that the next feed begins at; `None` at the end.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        (self.lsn < self.end_lsn).then(|| self.geometry.offset_of(self.lsn))
    }

    /// Takes bytes from [`Glance::offset`] on, [`crate::format::FEED_BYTES`] or all that are left, and shows their records.
    /// `false`: what stands there is not what was written.
    #[must_use]
    pub fn feed(&mut self, bytes: &[u8], observe: &mut dyn FnMut(&Record<'_>)) -> bool {
        let begun = self.lsn;
        while self.lsn < self.end_lsn {
            let rest = bytes.get((self.lsn - begun) as usize..).unwrap_or_default();
            let header = BatchHeader::parse(rest).filter(|header| header.lsn == self.lsn);
            let Some(batch) = header.and_then(|header| {
                Some((header, rest.get(..header.padded_bytes(self.geometry.block_bytes))?))
            }) else {
                // The rest of a batch that was cut off comes with the next feed.
                return self.lsn > begun;
            };
            let (header, bytes) = batch;
            if !show(&header, &bytes[BATCH_HEADER_BYTES..], observe) {
                return false;
            }
            self.lsn += bytes.len() as u64;
        }
        true
    }
}

fn show(header: &BatchHeader, mut body: &[u8], observe: &mut dyn FnMut(&Record<'_>)) -> bool {
    let mut lsn = header.lsn + BATCH_HEADER_BYTES as u64;
    for _ in 0..header.records {
        let Ok(record) = Record::parse(body, lsn) else {
            return false;
        };
        observe(&record);
        lsn += record.bytes_in_log() as u64;
        body = &body[record.bytes_in_log()..];
    }
    true
}
