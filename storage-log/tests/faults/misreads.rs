//! Reads that bring other bytes, once or for ever: those of another place, of another file, or of before.

use std::collections::BTreeSet;

use storage_log::{Geometry, INDEX_BLOCK_BYTES};

use super::disk::{Disk, Misread, Read, SECTOR_BYTES};
use super::node::{Node, Op, Outcome, Seen, look};
use super::rot::{SMALL, all_kinds_of_files};

/// How many readers were told of what.
#[derive(Default, Debug)]
struct Counts {
    right: usize,
    refused: usize,
    gaps: usize,
}

impl Counts {
    /// Looks at a disk: whatever is served is right, and what is not is told.
    fn look(&mut self, disk: &mut Disk, node: &Node) -> Result<(), String> {
        match look(disk, &node.model, node.geometry())? {
            Seen::Refused(_) => self.refused += 1,
            Seen::Read(found, tip) if !node.model.is_newest(tip) => {
                return Err(format!("ends at {tip}: {found:#?}"));
            }
            Seen::Read(found, _) if found.gaps() > 0 => self.gaps += 1,
            Seen::Read(..) => self.right += 1,
        }
        Ok(())
    }
}

/// What may be brought instead of the `unit` at `offset` of a file: zeros, what stands beside it, what stands there in other files.
fn others(disk: &Disk, name: &str, offset: usize, unit: usize) -> BTreeSet<Vec<u8>> {
    let piece = |name: &str, offset: Option<usize>| {
        let file = disk.bytes(name)?;
        let piece = file.get(offset?..file.len().min(offset? + unit))?;
        (!piece.is_empty()).then(|| piece.to_vec())
    };
    let mut others = BTreeSet::from([vec![0; unit]]);
    others.extend(
        [offset.checked_sub(unit), Some(offset + unit), Some(0)].iter().filter_map(|at| piece(name, *at)),
    );
    others.extend(disk.names().filter_map(|other| piece(other, Some(offset))));
    others.retain(|other| piece(name, Some(offset)).is_some_and(|there| !there.starts_with(other)));
    others
}

/// The reads that a start makes, and readers after it.
fn reads_of(node: &Node) -> Vec<Read> {
    let mut disk = node.disk.clone();
    disk.reads = Some(Vec::new());
    assert!(matches!(look(&mut disk, &node.model, node.geometry()), Ok(Seen::Read(..))));
    disk.reads.take().expect("they were noted")
}

/// A log of which nothing else was written than segments: a start has nothing to fall back on.
fn only_segments(log: u16) -> Node {
    let mut node = Node::of_log(log, SMALL);
    for op in [Op::Small, Op::Group, Op::Large, Op::Roll, Op::Large, Op::Group, Op::Roll, Op::Small, Op::Mark]
    {
        assert_eq!(node.perform(op), Ok(Outcome::Done), "{op:?}");
    }
    node
}

/// Has one read bring something else, once: what is served is right, and what was written meanwhile too.
fn check_misread(counts: &mut Counts, node: &Node, misread: Misread) -> Result<(), String> {
    let mut disk = node.disk.clone();
    (disk.reads_count, disk.misread) = (0, Some(misread));
    counts.look(&mut disk, node)?;
    assert!(disk.misread.is_none(), "it was read");
    match look(&mut disk, &node.model, node.geometry())? {
        Seen::Read(found, tip) if found.gaps() == 0 && node.model.is_newest(tip) => Ok(()),
        seen => Err(format!("afterwards {seen:#?}")),
    }
}

#[test]
fn a_read_that_brings_another_sector_once_is_never_taken_for_right() {
    let mut counts = Counts::default();
    for node in [all_kinds_of_files(), only_segments(0)] {
        for (number, read) in reads_of(&node).iter().enumerate() {
            let first = read.offset / SECTOR_BYTES * SECTOR_BYTES;
            for sector in (first..read.offset + read.bytes).step_by(SECTOR_BYTES) {
                let skipped = read.offset.saturating_sub(sector);
                for other in others(&node.disk, &read.name, sector, SECTOR_BYTES) {
                    let (at, bytes) =
                        (sector + skipped - read.offset, other[skipped.min(other.len())..].to_vec());
                    let checked = check_misread(&mut counts, &node, Misread { read: number, at, bytes });
                    assert_eq!(checked, Ok(()), "read {number}, {read:?}, sector at {sector}");
                }
            }
        }
    }
    println!("{counts:?}");
    assert!(counts.right > 1_000 && counts.refused > 100 && counts.gaps > 100, "{counts:?}");
}

/// A block of an index is read as a whole, and sound in itself: it is its place that is wrong, or its time.
#[test]
fn a_block_of_another_index_or_of_another_time_is_never_taken_for_right() {
    let node = all_kinds_of_files();
    let mut counts = Counts::default();
    for (number, read) in reads_of(&node).iter().enumerate() {
        if !read.bytes.is_multiple_of(INDEX_BLOCK_BYTES) || read.bytes == 0 {
            continue;
        }
        for name in node.disk.names() {
            let file = node.disk.bytes(name).expect("it is named");
            for at in (0..(file.len() + 1).saturating_sub(INDEX_BLOCK_BYTES)).step_by(SECTOR_BYTES) {
                let bytes = file[at..at + INDEX_BLOCK_BYTES].to_vec();
                let checked = check_misread(&mut counts, &node, Misread { read: number, at: 0, bytes });
                assert_eq!(checked, Ok(()), "read {number}, {read:?}, from {at} of {name}");
            }
        }
    }
    println!("{counts:?}");
    assert!(counts.right > 50, "{counts:?}");
}

/// Reads of an index that are tried: those of the start, and what finds every stream in one of its blocks or the next.
const INDEX_READS: usize = 12;

#[test]
fn a_block_with_another_number_is_never_taken_for_right() {
    let large = Geometry { segment_bytes: 32 << 10, batch_bytes_max: 16 << 10, block_bytes: 512 };
    let mut node = Node::new(large);
    node.put_for_many();
    while node.perform(Op::Index) != Ok(Outcome::Done) {
        assert_eq!(node.perform(Op::Roll), Ok(Outcome::Done));
    }
    let index = node.disk.bytes("seg-0000000000000000.idx").expect("it was made").to_vec();
    let blocks: Vec<&[u8]> = index.chunks_exact(INDEX_BLOCK_BYTES).collect();
    assert!(blocks.len() > 1, "{} blocks", blocks.len());
    let (mut counts, mut tried) = (Counts::default(), 0);
    for (number, read) in reads_of(&node).iter().enumerate() {
        if !read.name.ends_with(".idx") || read.bytes % INDEX_BLOCK_BYTES != 0 || tried == INDEX_READS {
            continue;
        }
        tried += 1;
        for other in &blocks {
            let misread = Misread { read: number, at: 0, bytes: other.to_vec() };
            assert_eq!(check_misread(&mut counts, &node, misread), Ok(()), "read {number}, {read:?}");
        }
    }
    println!("{counts:?}");
    assert!(counts.right > 10 && counts.gaps + counts.refused == 0, "{counts:?}");
}

/// Two logs of a store stand side by side, and what one has at a place the other may have there too.
#[test]
fn a_record_of_another_log_at_the_same_place_is_never_taken_for_right() {
    let (node, other) = (only_segments(0), only_segments(1));
    let newest = node.disk.names().last().map(str::to_owned);
    let mut counts = Counts::default();
    for (number, read) in reads_of(&node).iter().enumerate() {
        let Some(file) = other.disk.bytes(&read.name) else {
            // An index file that the start makes.
            continue;
        };
        let bytes = file[read.offset..read.offset + read.bytes].to_vec();
        let misread = Misread { read: number, at: 0, bytes };
        // All of the newest segment, when it is read at start: see above.
        let is_newest =
            newest.as_ref() == Some(&read.name) && read.offset + read.bytes == SMALL.segment_bytes as usize;
        let checked = check_misread(&mut counts, &node, misread);
        assert!(checked.is_ok() || is_newest, "read {number}, {read:?}: {checked:?}");
    }
    println!("{counts:?}");
    assert!(counts.refused > 2 && counts.gaps > 5, "{counts:?}");
}

/// Blocks of two logs have the same place too. They say nothing of their log, but begin with different streams, as far as no user that both
/// know comes first: that window stands in FORMAT.md.
#[test]
fn an_index_block_of_another_log_is_never_taken_for_right() {
    let [node, other] = [0, 2].map(|log| {
        let mut node = only_segments(log);
        while node.perform(Op::Index) == Ok(Outcome::Done) {}
        node
    });
    let mut counts = Counts::default();
    for (number, read) in reads_of(&node).iter().enumerate().filter(|(_, read)| read.name.ends_with(".idx")) {
        let bytes =
            other.disk.bytes(&read.name).and_then(|file| file.get(read.offset..read.offset + read.bytes));
        let misread = Misread { read: number, at: 0, bytes: bytes.expect("it has the same files").to_vec() };
        assert_eq!(check_misread(&mut counts, &node, misread), Ok(()), "read {number}, {read:?}");
    }
    println!("{counts:?}");
    assert!(counts.right > 5 && counts.gaps + counts.refused == 0, "{counts:?}");
}

/// Files of before, by name, with the log that they were before of: a conversation of the newest snapshot has no later record.
fn with_files_of_before() -> (Node, Vec<(String, Vec<u8>)>) {
    use Op::{Compact, Group, Index, Large, Mark, Roll, Small, Snapshot};
    let mut node = Node::new(SMALL);
    let mut files = BTreeSet::new();
    let ops = [
        Small, Large, Group, Large, Roll, Index, Snapshot, Group, Group, Group, Large, Index, Snapshot,
        Compact, Small, Mark,
    ];
    for op in ops {
        let names = node
            .disk
            .names()
            .map(|name| (name.to_owned(), node.disk.bytes(name).expect("it is named").to_vec()));
        files.extend(names.collect::<Vec<_>>());
        assert_eq!(node.perform(op), Ok(Outcome::Done), "{op:?}");
    }
    (node, files.into_iter().collect())
}

#[test]
fn a_block_of_before_is_never_taken_for_right() {
    let (node, files) = with_files_of_before();
    let mut counts = Counts::default();
    for (number, read) in reads_of(&node).iter().enumerate() {
        for (name, file) in files.iter().filter(|(name, _)| *name == read.name) {
            for unit in [SECTOR_BYTES, INDEX_BLOCK_BYTES] {
                // Where the newest segment is read whole as it was before, what is left reads as a shorter log (FORMAT.md).
                if !read.bytes.is_multiple_of(unit) {
                    continue;
                }
                for at in (0..read.bytes).step_by(unit) {
                    let from = read.offset + at;
                    let Some(bytes) =
                        file.get(from..file.len().min(from + unit)).filter(|bytes| !bytes.is_empty())
                    else {
                        continue;
                    };
                    let checked = check_misread(
                        &mut counts,
                        &node,
                        Misread { read: number, at, bytes: bytes.to_vec() },
                    );
                    assert_eq!(
                        checked,
                        Ok(()),
                        "read {number}, {read:?}, {unit} from {at} of {name} as it was"
                    );
                }
            }
        }
    }
    println!("{counts:?}");
    assert!(counts.right > 50, "{counts:?}");
}

/// A write that was acknowledged and never done, or done elsewhere too: what stands there is sound, and not what was written.
#[test]
fn a_sector_that_is_another_for_ever_is_never_taken_for_right() {
    let mut counts = Counts::default();
    for node in [all_kinds_of_files(), only_segments(0)] {
        for name in node.disk.names() {
            let bytes = node.disk.bytes(name).expect("it is named").len();
            for sector in (0..bytes).step_by(SECTOR_BYTES) {
                for other in others(&node.disk, name, sector, SECTOR_BYTES) {
                    let mut disk = node.disk.clone();
                    disk.replace(name, sector, &other);
                    assert_eq!(counts.look(&mut disk, &node), Ok(()), "{name}, sector at {sector}");
                }
            }
        }
    }
    println!("{counts:?}");
    assert!(counts.right > 200 && counts.refused > 200 && counts.gaps > 50, "{counts:?}");
}

/// A log with a segment to compact, of which the snapshot knows.
fn before_a_compaction(log: u16) -> Node {
    use Op::{Group, Index, Large, Roll, Small, Snapshot};
    let mut node = Node::of_log(log, SMALL);
    for op in [Group, Small, Large, Group, Small, Roll, Index, Snapshot] {
        assert_eq!(node.perform(op), Ok(Outcome::Done), "{op:?}");
    }
    node
}

/// What a compaction reads wrong ends it, or is not needed: it never takes the place of what was there.
#[test]
fn a_compaction_puts_nothing_in_place_that_it_read_wrong() {
    let (mut reading, other) = (before_a_compaction(0), before_a_compaction(1));
    let whole = reading.disk.clone();
    reading.disk.reads = Some(Vec::new());
    assert_eq!(reading.perform(Op::Compact), Ok(Outcome::Done));
    let (mut counts, mut ended) = (Counts::default(), 0);
    for (number, read) in reading.disk.reads.take().expect("they were noted").iter().enumerate() {
        let first = read.offset / SECTOR_BYTES * SECTOR_BYTES;
        let sectors = (first..read.offset + read.bytes).step_by(SECTOR_BYTES).flat_map(|sector| {
            let skipped = read.offset.saturating_sub(sector);
            let others = others(&whole, &read.name, sector, SECTOR_BYTES).into_iter();
            others.map(move |other| {
                (sector + skipped - read.offset, other[skipped.min(other.len())..].to_vec())
            })
        });
        let of_other =
            other.disk.bytes(&read.name).and_then(|file| file.get(read.offset..read.offset + read.bytes));
        for (at, bytes) in sectors.chain(of_other.map(|bytes| (0, bytes.to_vec()))) {
            let mut node = before_a_compaction(0);
            (node.disk.reads_count, node.disk.misread) = (0, Some(Misread { read: number, at, bytes }));
            ended += usize::from(node.perform(Op::Compact).is_err());
            let gaps = counts.gaps;
            let mut disk = node.disk.clone();
            assert_eq!(counts.look(&mut disk, &node), Ok(()), "read {number}, {read:?}, at {at}");
            assert_eq!(counts.gaps, gaps, "read {number}, {read:?}, at {at}");
        }
    }
    println!("{counts:?}, {ended} ended");
    assert!(counts.refused == 0 && counts.right > 200 && ended > 100, "{counts:?}, {ended} ended");
}
