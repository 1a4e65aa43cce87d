//! What is remembered of scrubbing a log, so that it goes on after a restart where it was.

use crate::format::{FORMAT_VERSION, SCRUB_BYTES, SCRUB_MAGIC, put, read_u16, read_u32, read_u64, scrub_at};
use crate::log::LogConfig;
use crate::record::{StreamKind, kind_of_damaged};

/// How far the scrubbing of a log is. Times are milliseconds since 1970; 0 is never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrubProgress {
    /// Base of the segment that is looked at next.
    pub next_base: u64,
    /// When the pass began that is under way, or the last one.
    pub begun: u64,
    /// When a pass last came to its end.
    pub ended: u64,
}

impl ScrubProgress {
    /// What the bytes of a file say; `None` when they are not whole, or of another log: then a pass begins anew.
    #[must_use]
    pub fn parse(bytes: &[u8], config: &LogConfig) -> Option<Self> {
        let bytes: &[u8; SCRUB_BYTES] = bytes.try_into().ok()?;
        let belongs = read_u32(bytes, scrub_at::CHECKSUM) == crc32c::crc32c(&bytes[scrub_at::CHECKSUM.end..])
            && read_u32(bytes, scrub_at::MAGIC) == SCRUB_MAGIC
            && read_u16(bytes, scrub_at::VERSION) == FORMAT_VERSION
            && read_u16(bytes, scrub_at::LOG) == config.number
            && bytes[scrub_at::STORE] == config.store;
        belongs.then(|| Self {
            next_base: read_u64(bytes, scrub_at::NEXT_BASE),
            begun: read_u64(bytes, scrub_at::BEGUN),
            ended: read_u64(bytes, scrub_at::ENDED),
        })
    }

    /// The bytes of a file.
    #[must_use]
    pub fn encode(&self, config: &LogConfig) -> [u8; SCRUB_BYTES] {
        let mut bytes = [0; SCRUB_BYTES];
        put(&mut bytes, scrub_at::MAGIC, &SCRUB_MAGIC.to_le_bytes());
        put(&mut bytes, scrub_at::VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, scrub_at::LOG, &config.number.to_le_bytes());
        put(&mut bytes, scrub_at::STORE, &config.store);
        put(&mut bytes, scrub_at::NEXT_BASE, &self.next_base.to_le_bytes());
        put(&mut bytes, scrub_at::BEGUN, &self.begun.to_le_bytes());
        put(&mut bytes, scrub_at::ENDED, &self.ended.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[scrub_at::CHECKSUM.end..]);
        put(&mut bytes, scrub_at::CHECKSUM, &checksum.to_le_bytes());
        bytes
    }
}

/// The kind of the home stream of a damaged record at the front of `bytes`, where its portable part is still sound.
#[must_use]
pub fn damaged_kind(bytes: &[u8]) -> Option<StreamKind> {
    kind_of_damaged(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Kinds;
    use crate::segment::Geometry;

    #[test]
    fn progress_reads_back_and_nothing_else_passes_for_it() {
        let kind = StreamKind;
        let (home, last, linked) = (kind(1), [kind(2), kind(3)], [kind(4), kind(5)]);
        let kinds = Kinds { home, last, alone: [6, 9].map(kind), linked, amended: kind(8), content: 1 };
        let geometry = Geometry::of_blocks(512);
        let config =
            LogConfig { store: [7; 16], number: 3, geometry, tail_bytes_max: 0, kinds, segment_ms_max: None };
        let progress = ScrubProgress { next_base: 1 << 40, begun: 5, ended: 9 };
        let bytes = progress.encode(&config);
        assert_eq!(ScrubProgress::parse(&bytes, &config), Some(progress));
        for length in 0..SCRUB_BYTES {
            assert_eq!(ScrubProgress::parse(&bytes[..length], &config), None);
        }
        for at in 0..SCRUB_BYTES {
            let mut flipped = bytes;
            flipped[at] ^= 1;
            assert_eq!(ScrubProgress::parse(&flipped, &config), None, "{at}");
        }
        assert_eq!(ScrubProgress::parse(&bytes, &LogConfig { number: 4, ..config.clone() }), None);
        assert_eq!(ScrubProgress::parse(&bytes, &LogConfig { store: [8; 16], ..config }), None);
    }
}
