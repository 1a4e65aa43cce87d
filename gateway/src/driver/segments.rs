//! The files of segments in the ring: which one a batch is written to, and which one a record or an index block is read from.

use std::fs::File;
use std::ops::Range;

use ring::{FileBuffer, FileId, Ring, Token};
use storage_log::format::BLOCK_BYTES_MAX;
use storage_log::{BlockPlace, Compacted, INDEX_BLOCK_BYTES, Location, SealedSegment, WriteBatch};

use super::Driver;
use crate::compaction;
use crate::files::Written;
use crate::store::segments::SegmentFile;

pub(super) struct ReadUnderWay {
    pub(super) log: u16,
    pub(super) job: u32,
    pub(super) place: u32,
    /// Where what is wanted stands in what is read.
    pub(super) range: Range<usize>,
}

/// A segment's file in the ring, in each way that it is used.
pub(super) struct Segment {
    buffered: FileId,
    /// Until it is sealed, where it can be had.
    direct: Option<FileId>,
    /// Its index file, once it is sealed.
    pub(super) index: Option<FileId>,
}

impl Driver {
    /// Reads a segment that was written anew from its file from now on, beside that of before.
    pub(super) fn take_compacted(&mut self, log: u16, made: Result<Written, ()>) -> Compacted {
        let mut read_from = |sealed: &SealedSegment, file| {
            let file = self.ring.add_file(file);
            let cold = Segment { buffered: file, direct: None, index: Some(file) };
            self.segments.insert((log, sealed.base()), cold);
        };
        match made {
            Ok(Written::Made(sealed, file)) => {
                read_from(&sealed, file);
                Compacted::Made(sealed)
            }
            Ok(Written::MadeBeside(sealed, file)) => {
                read_from(&sealed, file);
                Compacted::MadeBeside(sealed)
            }
            Ok(Written::Clean) => Compacted::Clean,
            Ok(Written::Unsound) => Compacted::Unsound,
            Err(()) => Compacted::Failed,
        }
    }

    /// Writes and syncs in one operation. The segment before, if this is the first batch of the next, is sealed: from now
    /// on it is read through the page cache.
    pub(super) fn write(&mut self, log: u16, batch: WriteBatch) {
        let before = batch.segment.checked_sub(self.geometry.segment_bytes);
        let sealed = before.and_then(|base| self.segments.get_mut(&(log, base))?.direct.take());
        if let Some(sealed) = sealed {
            self.ring.remove_file(sealed);
        }
        let segment = &self.segments[&(log, batch.segment)];
        let file = segment.direct.unwrap_or(segment.buffered);
        let (vec, range) = batch.buffer.into_parts();
        let buffer = FileBuffer::new(vec, range);
        self.ring.write_through(file, batch.offset, buffer, Token::new(u64::from(log)));
    }

    /// Reads the index of a segment from this file from now on, unless the segment was written anew meanwhile.
    pub(super) fn replace_index(&mut self, log: u16, base: u64, file: File) {
        let Some(segment) = self.segments.get_mut(&(log, base)) else {
            return;
        };
        let damaged = segment.index.replace(self.ring.add_file(file));
        // That of a cold segment is in the segment itself.
        if let Some(damaged) = damaged.filter(|damaged| *damaged != segment.buffered) {
            self.ring.remove_file(damaged);
        }
    }

    /// Closes the file of a segment that was written anew; nobody has an operation under way on it.
    pub(super) fn release(&mut self, log: u16, base: u64) {
        let Segment { buffered, direct, index } = self.segments.remove(&(log, base)).expect("it has moved");
        let index = index.filter(|index| *index != buffered);
        for file in [Some(buffered), direct, index].into_iter().flatten() {
            self.ring.remove_file(file);
        }
        self.background += 1;
        let released = compaction::Job::Release { log, inbox: self.inbox.clone() };
        assert!(self.compactions.send(released).is_ok(), "the thread lives as long as its senders");
    }

    /// Reads records that stand side by side; past the page cache with the whole blocks around it.
    pub(super) fn read(&mut self, log: u16, job: u32, place: u32, location: Location) {
        let segment = &self.segments[&(log, self.geometry.segment_of(location.lsn()))];
        let (start, bytes) = (self.geometry.offset_of(location.lsn()) as usize, location.bytes());
        let align = if segment.direct.is_some() { BLOCK_BYTES_MAX } else { 1 };
        let first = start - start % align;
        let length = (start + bytes).next_multiple_of(align) - first;
        let range = start - first..start - first + bytes;
        let token = Token::new(self.reads.insert(ReadUnderWay { log, job, place, range }) as u64);
        let file = segment.direct.unwrap_or(segment.buffered);
        self.ring.read(file, first as u64, length, token);
    }

    /// Reads a block of an index file, through the page cache.
    pub(super) fn read_index(&mut self, log: u16, job: u32, place: u32, block: BlockPlace) {
        let index =
            self.segments[&(log, block.base)].index.expect("a segment is sealed when its index is open");
        let read = ReadUnderWay { log, job, place, range: 0..INDEX_BLOCK_BYTES };
        let token = Token::new(self.reads.insert(read) as u64);
        self.ring.read(index, block.offset(), INDEX_BLOCK_BYTES, token);
    }
}

pub(super) fn add(ring: &mut Ring, file: SegmentFile) -> Segment {
    let SegmentFile { buffered, direct, index, .. } = file;
    Segment {
        buffered: ring.add_file(buffered),
        direct: direct.map(|file| ring.add_file(file)),
        index: index.map(|file| ring.add_file(file)),
    }
}
