//! Where a record stands, and under which key a stream has it.

use crate::format::RECORD_ALIGN;
use crate::segment::is_cold;

const BYTES_BITS: u32 = 16;

/// Where a record stands, or a run of them: its byte in the log and its length, packed into 64 bits (48 + 16, in units of 16 bytes). Of
/// the byte the two highest bits are the generation of its segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Location(u64);

impl Location {
    pub(crate) fn new(lsn: u64, bytes: usize) -> Self {
        let unit = RECORD_ALIGN as u64;
        let (place, length) = (lsn / unit, bytes as u64 / unit);
        assert!(lsn.is_multiple_of(unit) && (bytes as u64).is_multiple_of(unit));
        assert!(
            place < 1 << (64 - BYTES_BITS) && length < 1 << BYTES_BITS,
            "a log holds 1 PiB, a record 1 MiB"
        );
        Self(place << BYTES_BITS | length)
    }

    /// First byte in the log.
    #[must_use]
    pub fn lsn(self) -> u64 {
        (self.0 >> BYTES_BITS) * RECORD_ALIGN as u64
    }

    /// Whether it lies below the durable mark. What was rewritten always does.
    pub(crate) fn is_below(self, durable_lsn: u64) -> bool {
        is_cold(self.lsn()) || self.lsn() < durable_lsn
    }

    /// Length in the log.
    #[must_use]
    pub fn bytes(self) -> usize {
        ((self.0 & ((1 << BYTES_BITS) - 1)) as usize) * RECORD_ALIGN
    }

    /// The bytes of both, where one begins where the other ends. They are of one segment then: it begins with a header, so no record
    /// ends where the next segment begins another. `None` elsewhere, and where both together are longer than 1 MiB.
    #[must_use]
    pub fn joined(self, other: Self) -> Option<Self> {
        let (low, high) = if self.lsn() < other.lsn() { (self, other) } else { (other, self) };
        let bytes = low.bytes() + high.bytes();
        let touch = low.lsn() + low.bytes() as u64 == high.lsn();
        (touch && bytes / RECORD_ALIGN < 1 << BYTES_BITS).then(|| Self::new(low.lsn(), bytes))
    }

    /// As eight bytes; 0 is no location, as no record has no length.
    pub(crate) fn pack(place: Option<Self>) -> u64 {
        place.map_or(0, |place| place.0)
    }

    pub(crate) fn unpack(packed: u64) -> Option<Self> {
        (packed != 0).then_some(Self(packed))
    }
}

/// One record of a stream: `key` is its sequence in a home stream and its position in a linked one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Sequence (home) or position (linked).
    pub key: u64,
    /// Where it stands.
    pub location: Location,
}

/// The newest record of a home stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// Its sequence; 0 when the stream has no record.
    pub seq: u64,
    /// Messages in the stream.
    pub message_count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_side_by_side_is_one_run_in_either_order() {
        let [first, second, third] =
            [(4096, 64), (4160, 160), (4320, 16)].map(|(lsn, bytes)| Location::new(lsn, bytes));
        let run = Location::new(4096, 240);
        assert_eq!(first.joined(second).and_then(|run| run.joined(third)), Some(run));
        assert_eq!(third.joined(second).and_then(|run| run.joined(first)), Some(run));
        assert_eq!((first.joined(third), first.joined(first)), (None, None));
        let longest = Location::new(4096 + 64, (1 << 20) - 64 - RECORD_ALIGN);
        assert_eq!(first.joined(longest).map(Location::bytes), Some((1 << 20) - RECORD_ALIGN));
        assert_eq!(first.joined(Location::new(4096 + 64, (1 << 20) - 64)), None, "it has no length");
    }
}
