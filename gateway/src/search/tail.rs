//! Reading a log on and on, as far as it is durable, past the page cache: [`storage_log::Walk`] over segments that grow.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use protocol::record::Portable;
use ring::FileBuffer;
use rustix::io::Errno;
use storage_log::format::{BLOCK_BYTES_MAX, FEED_BYTES, SEGMENT_HEADER_BYTES};
use storage_log::{LogConfig, Met, Walk};

use super::progress::LogProgress;
use crate::logtool::data::{Data, Segment};
use crate::store::disk::is_blank_from;

/// What the system says of a sector that cannot be read.
const EIO: i32 = Errno::IO.raw_os_error();

/// A log that is followed.
pub(super) struct Tail {
    config: LogConfig,
    walk: Walk,
    open: Option<(Segment, File)>,
    pub(super) progress: LogProgress,
    /// Where it has read to, in the log.
    pub(super) read_to: u64,
    buffer: FileBuffer,
    unreadable: Unreadable,
    /// Of the records that were met, the newest: its position, and when it was stored.
    newest: (u64, u64),
}

/// What becomes of a place that the disk cannot read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unreadable {
    /// It is an error: the disk may be able to in a moment.
    Fails,
    /// It is passed over, as what is damaged is: readers are told of a gap there, and all else is to be found nevertheless.
    IsPassedOver,
}

/// What one step has led to.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Stepped {
    /// Bytes that were read.
    pub(super) bytes: u64,
    /// There is more that is durable.
    pub(super) more: bool,
    /// Where the index ends stands another record than it knows.
    pub(super) is_other: bool,
}

impl Tail {
    /// Goes on where `progress` says.
    pub(super) fn new(config: LogConfig, progress: LogProgress, unreadable: Unreadable) -> Self {
        let LogProgress { base, first_position, .. } = progress;
        let walk = Walk::of_segment(config.clone(), base, first_position, base);
        let buffer = FileBuffer::aligned(FEED_BYTES + BLOCK_BYTES_MAX, BLOCK_BYTES_MAX);
        let newest = (progress.position, progress.at);
        Self { config, walk, open: None, progress, read_to: base, buffer, unreadable, newest }
    }

    /// Whether what was read so far can be said in one position: not within a segment whose records are sorted in another way.
    pub(super) fn is_at_mark(&self) -> bool {
        self.open.as_ref().is_none_or(|(segment, _)| !segment.is_cold())
    }

    /// Whether the index knows more than the log holds, once that was read to its end, which is at `end`: the log was restored from an older
    /// copy. Where a segment is just being given up, or cannot be read, nothing is known yet.
    pub(super) fn is_ahead(&self, end: u64) -> bool {
        let is_read = self.read_to >= end || end <= self.progress.base + SEGMENT_HEADER_BYTES as u64;
        is_read && self.is_at_mark() && self.progress.position >= self.walk.next_position()
    }

    /// Closes the segment that it stands in, so that its room is free when it goes: it is read from its beginning again, and what the index has of
    /// it is met once more. Only [`Tail::is_at_mark`].
    pub(super) fn let_go(&mut self) {
        assert!(self.is_at_mark(), "nobody could say what the index has");
        *self = Self::new(self.config.clone(), self.mark(), self.unreadable);
    }

    /// How far it is, for a commit.
    pub(super) fn mark(&self) -> LogProgress {
        let (newest, at) = self.newest;
        let at = if newest == self.progress.position { at } else { 0 };
        LogProgress { at, ..self.progress }
    }

    /// Reads the next piece of what is durable up to `end`, and shows its records; those that the index has are among them.
    ///
    /// # Errors
    /// Those of the disk, with the place.
    pub(super) fn step(
        &mut self,
        data: &Data,
        end: u64,
        met: &mut dyn FnMut(Met<'_>),
    ) -> anyhow::Result<Stepped> {
        if self.open.is_none() && !self.open_next(data, end, met)? {
            return Ok(Stepped::default());
        }
        let (segment, file) = self.open.as_ref().expect("it was just opened");
        let segment_bytes = self.config.geometry.segment_bytes;
        let (base, offset) = (segment.base, self.walk.offset());
        let is_sealed = segment.is_cold() || end > base + segment_bytes;
        let limit = if is_sealed { segment.bytes } else { segment.bytes.min(end.saturating_sub(base)) };
        if !is_sealed && offset >= limit {
            return Ok(Stepped::default());
        }
        let bytes = read(from(file), (offset, limit), self.unreadable, &mut self.buffer)
            .with_context(|| format!("the disk cannot read {}", segment.path.display()))?;
        let read_to = offset + bytes.len() as u64;
        let to_end = is_sealed && (read_to >= limit || is_blank_from(file, read_to));
        let (count, is_cold) = (bytes.len() as u64, segment.is_cold());
        let (known, mut newest, mut is_other) = (self.progress, self.newest, false);
        let fed = self.walk.feed(bytes, to_end, &mut |one| {
            if let Met::Record(record) = &one
                && let Ok(Portable { at, .. }) = Portable::parse(record.portable())
            {
                newest = newest.max((record.position(), at.0));
                is_other |= record.position() == known.position && known.at != 0 && at.0 != known.at;
            }
            met(one);
        });
        self.newest = newest;
        self.read_to = base + self.walk.offset().min(segment_bytes);
        if fed.ended {
            self.open = None;
            self.progress.base = base + segment_bytes;
            self.progress.first_position = self.walk.next_position();
            self.read_to = self.progress.base;
        }
        if fed.ended || !is_cold {
            self.progress.position = self.progress.position.max(self.walk.next_position() - 1);
        }
        // A piece that holds no whole batch would be read for ever.
        let is_moving = fed.consumed > 0 || fed.ended;
        let more = is_moving && (fed.ended || is_sealed || read_to < limit);
        Ok(Stepped { bytes: count, more, is_other })
    }

    /// Opens the segment to go on in, if it holds something durable.
    fn open_next(&mut self, data: &Data, end: u64, met: &mut dyn FnMut(Met<'_>)) -> anyhow::Result<bool> {
        let base = self.progress.base;
        if end <= base + SEGMENT_HEADER_BYTES as u64 {
            return Ok(false);
        }
        let segments = data.segments(self.config.number)?;
        let Some(segment) = segments.into_iter().find(|segment| segment.base >= base) else {
            return Ok(false);
        };
        let file = segment.open()?;
        let place = (0, SEGMENT_HEADER_BYTES as u64);
        let header = read(from(&file), place, self.unreadable, &mut self.buffer)?.to_vec();
        self.progress.base = segment.base;
        let is_ours = self.walk.open_segment(segment.base, &header, segment.bytes, met);
        if is_ours && segment.bytes > SEGMENT_HEADER_BYTES as u64 {
            self.open = Some((segment, file));
            return Ok(true);
        }
        self.progress.base = segment.base + self.config.geometry.segment_bytes;
        Ok(false)
    }
}

fn from(file: &File) -> impl Fn(&mut [u8], u64) -> io::Result<usize> {
    |bytes, offset| file.read_at(bytes, offset)
}

/// Bytes of a file from `offset` on, up to `limit` and as many as fit. Of what is passed over there are zeros, in whole blocks.
fn read(
    read_at: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    (offset, limit): (u64, u64),
    unreadable: Unreadable,
    buffer: &mut FileBuffer,
) -> io::Result<&[u8]> {
    let block = BLOCK_BYTES_MAX as u64;
    let start = offset - offset % block;
    let wanted = ((limit - start).next_multiple_of(block) as usize).min(buffer.bytes().len());
    let (mut read, mut is_apart) = (0, false);
    while read < wanted {
        // A read fails as a whole for one sector of it.
        let end = if is_apart { wanted.min((read + 1).next_multiple_of(BLOCK_BYTES_MAX)) } else { wanted };
        match read_at(&mut buffer.bytes_mut()[read..end], start + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() != Some(EIO) || unreadable == Unreadable::Fails => {
                return Err(error);
            }
            Err(_) if !is_apart => is_apart = true,
            Err(_) => {
                buffer.bytes_mut()[read..end].fill(0);
                read = end;
            }
        }
    }
    let read = read.min((limit - start) as usize);
    Ok(&buffer.bytes()[((offset - start) as usize).min(read)..read])
}

#[cfg(test)]
mod tests {
    use storage_log::Geometry;

    use super::*;
    use crate::store::StoreFacts;

    /// Its segments are being given up while they are listed: that is no reason to make the index again.
    #[test]
    fn a_log_whose_segments_are_not_there_in_this_moment_was_not_restored() {
        let directory = tempfile::tempdir().expect("a directory");
        let geometry = Geometry::of_blocks(BLOCK_BYTES_MAX);
        let facts = StoreFacts { id: [1; 16], key: [2; 32], logs: 1, geometry };
        let data = Data { directory: directory.path().to_owned(), facts, is_live: true };
        let progress = LogProgress { base: 0, first_position: 1, position: 5, at: 0 };
        let mut tail = Tail::new(data.config(0), progress, Unreadable::Fails);
        for (end, is_ahead) in [(1 << 20, false), (SEGMENT_HEADER_BYTES as u64, true)] {
            let stepped = tail.step(&data, end, &mut |_| {}).expect("there is nothing to read");
            assert_eq!((stepped.more, tail.is_ahead(end)), (false, is_ahead), "{end}");
        }
    }

    /// A sector that is lost keeps nothing else from being found, nor whoever searches waiting for ever.
    #[test]
    fn what_the_disk_cannot_read_is_passed_over_alone() {
        let (block, lost) = (BLOCK_BYTES_MAX as u64, 2 * BLOCK_BYTES_MAX as u64 + 512);
        let disk = |bytes: &mut [u8], offset: u64| {
            if (offset..offset + bytes.len() as u64).contains(&lost) {
                return Err(io::Error::from_raw_os_error(EIO));
            }
            bytes.fill(7);
            Ok(bytes.len())
        };
        let mut buffer = FileBuffer::aligned(5 * BLOCK_BYTES_MAX, BLOCK_BYTES_MAX);
        let place = (100, 4 * block + 50);
        let failed = read(disk, place, Unreadable::Fails, &mut buffer);
        assert_eq!(failed.expect_err("it cannot be read").raw_os_error(), Some(EIO));
        let bytes = read(disk, place, Unreadable::IsPassedOver, &mut buffer).expect("the rest can");
        let is_there = |at: usize| !(2 * block..3 * block).contains(&(at as u64 + 100));
        assert_eq!(bytes.len() as u64, 4 * block - 50);
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == if is_there(at) { 7 } else { 0 }));
        // Of a disk that says something else nothing is passed over.
        let gone = |_: &mut [u8], _| Err(io::Error::from(ErrorKind::NotFound));
        assert!(read(gone, place, Unreadable::IsPassedOver, &mut buffer).is_err());
    }
}
