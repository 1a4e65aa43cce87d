//! Going through the records of a cold segment, and on behind damage.

use std::ops::Range;

use crate::format::{RECORD_ALIGN, SEGMENT_HEADER_BYTES};
use crate::record::{Record, RecordError};
use crate::segment::Geometry;

/// Goes through the records of one cold segment, in the order in which they stand. Each says itself how long it is and where it belongs:
/// behind bytes that are none, the next one is looked for.
#[derive(Debug)]
pub struct ColdWalk {
    geometry: Geometry,
    /// Where the next record is looked for.
    lsn: u64,
    /// Where they end.
    end_lsn: u64,
    /// Begin of what is no record, if that has not ended.
    damaged_from: Option<u64>,
}

impl ColdWalk {
    /// Of the segment at `base`, whose records end at offset `end`.
    #[must_use]
    pub fn new(geometry: Geometry, base: u64, end: u64) -> Self {
        let lsn = base + SEGMENT_HEADER_BYTES as u64;
        Self { geometry, lsn, end_lsn: base + end, damaged_from: None }
    }

    /// Offset in the segment that the next feed begins at; `None` at the end.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        (self.lsn < self.end_lsn).then(|| self.geometry.offset_of(self.lsn))
    }

    /// Takes bytes from [`ColdWalk::offset`] on: [`crate::format::FEED_BYTES`], or all that are left; none when the file has no more. Shows the records that are sound,
    /// and names the ranges of the file that hold none.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        record: &mut dyn FnMut(&Record<'_>),
        damaged: &mut dyn FnMut(Range<u64>),
    ) {
        let begun = self.lsn;
        let whole = begun + bytes.len() as u64 >= self.end_lsn || bytes.is_empty();
        while self.lsn < self.end_lsn {
            let rest = bytes.get((self.lsn - begun) as usize..).unwrap_or_default();
            let rest = &rest[..rest.len().min((self.end_lsn - self.lsn) as usize)];
            match Record::parse(rest, self.lsn) {
                Ok(found) => {
                    self.end_damage(damaged);
                    record(&found);
                    self.lsn += found.bytes_in_log() as u64;
                }
                // What was cut off comes with the next feed, unless this is all there is.
                Err(RecordError::Short) if !whole && self.lsn > begun => return,
                Err(_) => {
                    self.damaged_from.get_or_insert(self.lsn);
                    self.lsn += RECORD_ALIGN as u64;
                }
            }
        }
        self.end_damage(damaged);
    }

    fn end_damage(&mut self, damaged: &mut dyn FnMut(Range<u64>)) {
        if let Some(from) = self.damaged_from.take() {
            let offset = self.geometry.offset_of(from);
            damaged(offset..offset + (self.lsn.min(self.end_lsn) - from));
        }
    }
}
