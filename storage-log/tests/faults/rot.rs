//! One flipped bit, anywhere: what it is taken for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use storage_log::format::{
    BATCH_HEADER_BYTES, LINK_BYTES, RECORD_ALIGN, SEGMENT_HEADER_BYTES, batch_at, segment_at,
};
use storage_log::format::{LOCAL_BYTES, PORTABLE_BYTES, local_at, portable_at};
use storage_log::{Damage, DamageKind, Geometry, segment_file_name, segment_of_file_name};

use super::disk::Disk;
use super::files::SNAPSHOT;
use super::node::{Node, Op, Outcome, Seen, look};

/// Segments of sixteen sectors.
pub(crate) const SMALL: Geometry =
    Geometry { segment_bytes: 12 << 10, batch_bytes_max: 4 << 10, block_bytes: 512 };

/// A log with all kinds of files: cold under a snapshot, sealed with an index, sealed without, in use up to a mark, and spare.
pub(crate) fn all_kinds_of_files() -> Node {
    use Op::{Compact, Group, Index, Large, Mark, Roll, Small, Snapshot, Spare};
    let mut node = Node::new(SMALL);
    let ops = [
        Group, Large, Group, Small, Roll, Index, Snapshot, Compact, Large, Small, Group, Roll, Index, Large,
        Group, Large, Roll, Small, Group, Large, Spare, Mark,
    ];
    for op in ops {
        assert_eq!(node.perform(op), Ok(Outcome::Done), "{op:?}");
    }
    node
}

/// What a byte is part of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    /// The checksummed fields of a segment's header.
    Header,
    /// The header of the batch at this offset, which has so many records.
    BatchHeader { batch: usize, records: u32 },
    /// A record, at this position, of the batch at this offset; starts of the node and states that were superseded are not read.
    Record { batch: usize, position: u64, is_read: bool },
    /// Index blocks, fences and footers, wherever they are, and the snapshot.
    Derived,
    /// Nothing that is read, or zeros that fill something up.
    Rest,
}

/// How a file is used at the next start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Use {
    /// Found by an index: its records are read when somebody wants them.
    Indexed,
    /// Read at start; it holds the newest batch.
    Newest,
    /// Read at start.
    Read,
    Spare,
    Derived,
}

/// What comes of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Comes {
    /// Every record is as it was.
    Nothing,
    /// Its readers are told that the record is damaged, and of no other.
    Gap,
    /// The log is refused, with the place of the header.
    HeaderRefused,
    /// The log is refused, with the place of the batch: behind the one before it, which may be in the segment before.
    BatchRefused,
}

/// The table: every use, every part.
fn comes_of(part: &Part, used: Use) -> Comes {
    match (part, used) {
        (Part::Derived | Part::Rest, _) | (_, Use::Derived) => Comes::Nothing,
        (Part::Header, _) => Comes::HeaderRefused,
        (Part::BatchHeader { .. } | Part::Record { .. }, Use::Spare) => unreachable!("it holds none"),
        // It holds no record, and nothing behind it says that it was durable.
        (Part::BatchHeader { records: 0, .. }, Use::Newest) => Comes::Nothing,
        (Part::BatchHeader { .. } | Part::Record { .. }, Use::Read | Use::Newest) => Comes::BatchRefused,
        (Part::BatchHeader { .. }, Use::Indexed) => Comes::Nothing,
        (Part::Record { is_read: false, .. }, Use::Indexed) => Comes::Nothing,
        (Part::Record { is_read: true, .. }, Use::Indexed) => Comes::Gap,
    }
}

fn number(bytes: &[u8], at: usize, field: Range<usize>) -> u64 {
    let mut wide = [0; 8];
    wide[..field.len()].copy_from_slice(&bytes[at + field.start..at + field.end]);
    u64::from_le_bytes(wide)
}

/// Where the record at `at` ends, without what fills it up, and with it.
fn ends_of_record(bytes: &[u8], at: usize) -> (usize, usize) {
    let payload = number(bytes, at + LOCAL_BYTES, portable_at::PAYLOAD_BYTES) as usize;
    let links = number(bytes, at, local_at::LINKS) as usize;
    let end = at + LOCAL_BYTES + PORTABLE_BYTES + payload + links * LINK_BYTES;
    (end, end.next_multiple_of(RECORD_ALIGN))
}

/// The parts of a file that are something, in order.
fn parts(name: &str, bytes: &[u8], read: &BTreeSet<u64>) -> Vec<(Range<usize>, Part)> {
    if name == SNAPSHOT || name.ends_with(".idx") {
        return vec![(0..bytes.len(), Part::Derived)];
    }
    let mut parts = vec![(0..segment_at::END, Part::Header)];
    let note_records = |parts: &mut Vec<_>, batch: usize, mut at: usize, end: usize| {
        while at < end {
            let (record_end, next) = ends_of_record(bytes, at);
            let position = number(bytes, at, local_at::POSITION);
            parts.push((at..record_end, Part::Record { batch, position, is_read: read.contains(&position) }));
            // What fills it up is under the sum of the batch alone.
            parts.push((record_end..next, Part::Record { batch, position, is_read: false }));
            at = next;
        }
    };
    if name.ends_with(".cold") {
        let copy = segment_at::END;
        let end = number(bytes, copy, storage_log::format::index_at::COLD_END) as usize;
        note_records(&mut parts, 0, SEGMENT_HEADER_BYTES, end);
        parts.push((end.next_multiple_of(SEGMENT_HEADER_BYTES)..bytes.len(), Part::Derived));
        return parts;
    }
    for batch in (SEGMENT_HEADER_BYTES..bytes.len()).step_by(SMALL.block_bytes) {
        if bytes[batch + batch_at::MAGIC.start..][..4] == *b"GHBT" {
            let body = batch + BATCH_HEADER_BYTES;
            let records = number(bytes, batch, batch_at::RECORDS) as u32;
            parts.push((batch..body, Part::BatchHeader { batch, records }));
            note_records(&mut parts, batch, body, body + number(bytes, batch, batch_at::BODY_BYTES) as usize);
        }
    }
    parts
}

/// Where a log ends in which a batch is damaged: segment and offset.
fn place_of(node: &Node, base: u64, batch: usize) -> (u64, u64) {
    if batch > SEGMENT_HEADER_BYTES {
        return (base, batch as u64);
    }
    let before = base - SMALL.segment_bytes;
    let bytes = node.disk.bytes(&segment_file_name(before)).expect("a segment before");
    let parts = parts("", bytes, &BTreeSet::new());
    let (last, _) = parts.last().expect("it has batches");
    (before, last.end.next_multiple_of(SMALL.block_bytes) as u64)
}

/// Flips a bit and looks at what comes of it.
fn flip(node: &Node, name: &str, base: u64, at: usize, part: &Part) -> Result<Comes, String> {
    let mut disk: Disk = node.disk.clone();
    disk.flip(name, at, 1 << (at % 8));
    let is_at = |damage: &Damage, (segment, offset), kind| *damage == Damage { segment, offset, kind };
    match (look(&mut disk, &node.model, SMALL)?, part) {
        (Seen::Read(found, tip), _) if !node.model.is_newest(tip) => {
            Err(format!("it ends at {tip}: {found:#?}"))
        }
        (Seen::Read(found, _), _) if found.gaps() == 0 => Ok(Comes::Nothing),
        (Seen::Read(found, tip), Part::Record { position, .. })
            if node.model.damaged(&found, tip).iter().eq([position]) =>
        {
            Ok(Comes::Gap)
        }
        (Seen::Refused(damage), Part::Header) if is_at(&damage, (base, 0), DamageKind::Header) => {
            Ok(Comes::HeaderRefused)
        }
        (Seen::Refused(damage), Part::BatchHeader { batch, .. } | Part::Record { batch, .. })
            if is_at(&damage, place_of(node, base, *batch), DamageKind::Acknowledged) =>
        {
            Ok(Comes::BatchRefused)
        }
        (seen, _) => Err(format!("{seen:#?}")),
    }
}

/// Zeros are looked at here and there, everything else byte by byte.
const ZEROS_STEP: usize = 37;

#[test]
fn one_flipped_bit_is_never_another_record_and_never_silence() {
    let node = all_kinds_of_files();
    let mut counts: BTreeMap<(Use, Comes), usize> = BTreeMap::new();
    let uses = [Use::Derived, Use::Indexed, Use::Derived, Use::Indexed, Use::Read, Use::Newest, Use::Spare];
    for (name, used) in node.disk.names().zip(uses) {
        let bytes = node.disk.bytes(name).expect("it is named");
        let base = segment_of_file_name(&name.replace(".cold", ".log")).unwrap_or(0);
        let parts = parts(name, bytes, &node.model.read_positions());
        for at in (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % ZEROS_STEP == 0) {
            let part = parts
                .iter()
                .find(|(range, _)| range.contains(&at))
                .map_or(Part::Rest, |(_, part)| part.clone());
            let comes = flip(&node, name, base, at, &part)
                .unwrap_or_else(|error| panic!("{name} at {at}, {part:?}: {error}"));
            let expected = comes_of(&part, used);
            assert_eq!(comes, expected, "{name} at {at}: {part:?}, {used:?}");
            *counts.entry((used, comes)).or_default() += 1;
        }
    }
    println!("{counts:#?}");
    let all: usize = counts.values().sum();
    assert!(all > 10_000, "only {all} flips");
}
