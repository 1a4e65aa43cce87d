//! The newest part of a log, in memory: written batches, kept until a byte budget is passed.
//!
//! Only batches that are synced stand here, so whatever is found may be shown to readers. It serves the last page of
//! a catch-up and most history without touching the disk.

use std::collections::VecDeque;

use crate::index::Location;

struct Chunk {
    lsn: u64,
    bytes: Vec<u8>,
}

pub(crate) struct Tail {
    chunks: VecDeque<Chunk>,
    held_bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { chunks: VecDeque::new(), held_bytes: 0, bytes_max }
    }

    /// Adds the batch that was written at `lsn`, which is above everything held, and lets the oldest go.
    pub(crate) fn push(&mut self, lsn: u64, bytes: Vec<u8>) {
        self.held_bytes += bytes.capacity();
        self.chunks.push_back(Chunk { lsn, bytes });
        while self.held_bytes > self.bytes_max && self.chunks.len() > 1 {
            let oldest = self.chunks.pop_front().expect("len > 1");
            self.held_bytes -= oldest.bytes.capacity();
        }
    }

    /// The record's bytes, when its batch is still held.
    pub(crate) fn find(&self, location: Location) -> Option<&[u8]> {
        let lsn = location.lsn();
        let after = self.chunks.partition_point(|chunk| chunk.lsn <= lsn);
        let chunk = &self.chunks[after.checked_sub(1)?];
        let start = usize::try_from(lsn - chunk.lsn).ok()?;
        chunk.bytes.get(start..start + location.bytes())
    }
}
