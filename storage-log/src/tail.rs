//! The newest part of a log, in memory: written batches in one ring of bytes, the oldest overwritten by the newest.
//!
//! Only batches that are synced stand here, so whatever is found may be shown to readers. It serves the last page of
//! a catch-up and most history without touching the disk. The newest batch is always held.

use std::collections::VecDeque;

use crate::location::Location;

/// A batch in the ring.
struct Held {
    lsn: u64,
    start: usize,
    len: usize,
}

pub(crate) struct Tail {
    /// As long as it was ever filled. A batch that does not fit behind the one before it begins at the front.
    ring: Vec<u8>,
    bytes_max: usize,
    /// In the order of the log. Those that were written since the ring last began at the front stand behind those that
    /// are left of the round before.
    batches: VecDeque<Held>,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Self {
        // Address space only, until it is filled.
        Self { ring: Vec::with_capacity(bytes_max), bytes_max, batches: VecDeque::new() }
    }

    /// Adds the batch that was written at `lsn`, which is above everything held, and lets the oldest go.
    pub(crate) fn push(&mut self, lsn: u64, bytes: &[u8]) {
        let room = self.bytes_max.max(bytes.len());
        let end = self.batches.back().map_or(0, |newest| newest.start + newest.len);
        let wraps = end + bytes.len() > room;
        let start = if wraps { 0 } else { end };
        while let Some(oldest) = self.batches.front() {
            let of_round_before = oldest.start >= end;
            let overlaps = oldest.start < start + bytes.len();
            let in_the_way = if wraps { of_round_before || overlaps } else { of_round_before && overlaps };
            if !in_the_way {
                break;
            }
            self.batches.pop_front();
        }
        self.ring.resize(self.ring.len().max(start + bytes.len()), 0);
        self.ring[start..start + bytes.len()].copy_from_slice(bytes);
        self.batches.push_back(Held { lsn, start, len: bytes.len() });
    }

    /// The record's bytes, when its batch is still held.
    pub(crate) fn find(&self, location: Location) -> Option<&[u8]> {
        let lsn = location.lsn();
        let after = self.batches.partition_point(|held| held.lsn <= lsn);
        let held = &self.batches[after.checked_sub(1)?];
        let offset = usize::try_from(lsn - held.lsn).ok()?;
        let batch = &self.ring[held.start..held.start + held.len];
        batch.get(offset..offset + location.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING_BYTES: usize = 4096;

    /// Batches of many sizes, each of one value: whatever is found is of the batch that stood there, the newest always is,
    /// and most of the ring is held.
    #[test]
    fn what_is_found_is_what_was_written() {
        let mut tail = Tail::new(RING_BYTES);
        let (mut lsn, mut size, mut written) = (0, 7_usize, Vec::new());
        for value in 0..2_000_u32 {
            size = (size * 31 + 11) % 101;
            // Once in a while one that is larger than the ring was.
            let len = if value == 1_000 { 2 * RING_BYTES } else { 16 * (1 + size % 64) };
            let bytes = vec![value as u8; len];
            tail.push(lsn, &bytes);
            written.push((lsn, bytes));
            lsn += len as u64;
            let mut held = 0;
            for (place, (lsn, bytes)) in written.iter().enumerate().rev().take(600) {
                let found = tail.find(Location::new(*lsn, bytes.len()));
                assert!(found.is_none_or(|found| found == bytes), "batch {place} after {value}");
                assert!(found.is_some() || place + 1 < written.len(), "the newest is held");
                held += found.map_or(0, <[u8]>::len);
            }
            assert!(held <= RING_BYTES || value == 1_000);
            // Behind the large one the ring fills anew.
            let filled = !(1_001..1_100).contains(&value) && lsn > RING_BYTES as u64;
            assert!(held > RING_BYTES / 2 || !filled, "{held} bytes held after {value}");
        }
    }
}
