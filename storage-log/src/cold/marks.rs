//! Which segments of a log were gone through for which erasures, as a file remembers it: `[head 32][base, mark]...`.
//!
//! Derived: a segment that it does not name is looked through once more. So it is no part of a backup, and a copy of the directory
//! that is restored without it never passes for erased.

use std::collections::BTreeMap;

use crate::format::{
    FORMAT_VERSION, MARKS_ENTRY_BYTES, MARKS_HEAD_BYTES, MARKS_MAGIC, marks_at, put, read_u16, read_u32,
    read_u64,
};
use crate::log::LogConfig;

/// What the bytes of a file say: by the base of the segment, without its generation, the mark of the newest erasure that it was gone
/// through for. `None` when they are not whole, or of another log.
#[must_use]
pub fn decode_marks(bytes: &[u8], config: &LogConfig) -> Option<BTreeMap<u64, u64>> {
    let (head, entries) = bytes.split_at_checked(MARKS_HEAD_BYTES)?;
    let belongs = read_u32(head, marks_at::CHECKSUM) == crc32c::crc32c(&bytes[marks_at::CHECKSUM.end..])
        && read_u32(head, marks_at::MAGIC) == MARKS_MAGIC
        && read_u16(head, marks_at::VERSION) == FORMAT_VERSION
        && read_u16(head, marks_at::LOG) == config.number
        && head[marks_at::STORE] == config.store
        && entries.len().is_multiple_of(MARKS_ENTRY_BYTES);
    let read = |entry: &[u8]| (read_u64(entry, marks_at::BASE), read_u64(entry, marks_at::MARK));
    belongs.then(|| entries.chunks_exact(MARKS_ENTRY_BYTES).map(read).collect())
}

/// The bytes of a file.
#[must_use]
pub fn encode_marks(marks: &BTreeMap<u64, u64>, config: &LogConfig) -> Vec<u8> {
    let mut bytes = vec![0; MARKS_HEAD_BYTES];
    put(&mut bytes, marks_at::MAGIC, &MARKS_MAGIC.to_le_bytes());
    put(&mut bytes, marks_at::VERSION, &FORMAT_VERSION.to_le_bytes());
    put(&mut bytes, marks_at::LOG, &config.number.to_le_bytes());
    put(&mut bytes, marks_at::STORE, &config.store);
    for (base, mark) in marks {
        bytes.extend_from_slice(&base.to_le_bytes());
        bytes.extend_from_slice(&mark.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&bytes[marks_at::CHECKSUM.end..]);
    put(&mut bytes, marks_at::CHECKSUM, &checksum.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Kinds;
    use crate::record::StreamKind;
    use crate::segment::Geometry;

    #[test]
    fn marks_read_back_and_nothing_else_passes_for_them() {
        let kind = StreamKind;
        let (last, linked) = ([kind(2), kind(3)], [kind(4), kind(5)]);
        let kinds =
            Kinds { home: kind(1), last, alone: [6, 9].map(kind), linked, amended: kind(8), content: 1 };
        let geometry = Geometry::of_blocks(512);
        let config =
            LogConfig { store: [7; 16], number: 3, geometry, tail_bytes_max: 0, kinds, segment_ms_max: None };
        for marks in [BTreeMap::new(), BTreeMap::from([(0, 5), (1 << 28, u64::MAX)])] {
            let bytes = encode_marks(&marks, &config);
            assert_eq!(decode_marks(&bytes, &config), Some(marks));
            for length in 0..bytes.len() {
                assert_eq!(decode_marks(&bytes[..length], &config), None);
            }
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                assert_eq!(decode_marks(&flipped, &config), None, "{at}");
            }
            assert_eq!(decode_marks(&bytes, &LogConfig { number: 4, ..config.clone() }), None);
            assert_eq!(decode_marks(&bytes, &LogConfig { store: [8; 16], ..config.clone() }), None);
        }
    }
}
