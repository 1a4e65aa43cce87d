//! Format 1, as it was first written: a log of six segments, index files of three of them, a snapshot and one segment compacted, kept for
//! ever.
//!
//! What is in `fixtures/v1` is read by every version to come, and this one still writes the same bytes. Each file is made once: with
//! `WRITE_FIXTURES=1 cargo test -p storage-log --test fixtures`, which leaves alone what is there.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use storage_log::format::INDEX_FOOTER_BYTES;
use storage_log::{
    Answer, Draft, Geometry, Log, Retention, StreamId, StreamKind, index_file_name, segment_file_name,
};

use support::{Disk, INBOX, MESSAGES, STATE, flush, payload, read, seal, stream};

const GEOMETRY: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

const MEMBERSHIPS: StreamKind = StreamKind(5);

/// The snapshot as it is written since it has a sum of its blocks: a field that was zero, and that nobody looked at. That of before is
/// kept, and read.
const SUMMED: &str = "../v1-summed/index.snap";

/// Where in the footer of a snapshot that is, and the checksum of the footer.
const SUMS: [std::ops::Range<usize>; 2] = [0..4, 48..52];

/// The segment that is there in both ways, as a stop in the moment of its compaction leaves it.
const COMPACTED: u64 = GEOMETRY.segment_bytes;

/// States in it of which a later one is known, and which are left out when it is compacted.
const SUPERSEDED: u64 = 2;

type Model = BTreeMap<StreamId, BTreeMap<u64, Vec<u8>>>;

/// The log that the fixture is, and what stands in it.
fn make() -> (Log, Disk, Model) {
    let mut disk = Disk::of(GEOMETRY);
    let mut log = disk.recover(0x0102_0304).expect("an empty log").log;
    let mut model = Model::new();
    assert!(matches!(log.begin_run([5; 16], 1_000), Answer::Stored(_)));
    for number in 0..150_u64 {
        let (talk, user) = ((number * number % 11) as u8, (number % 5) as u8);
        let home = stream(MESSAGES, talk);
        let links = [stream(INBOX, user), stream(INBOX, user + 5), stream(MEMBERSHIPS, user)];
        let links = &links[..(number % 4) as usize];
        let text: Vec<u8> = (0..number % 180).map(|at| (at * number % 251) as u8).collect();
        let expected_head = log.head(home).seq;
        let event =
            Draft { stream: home, expected_head, messages: number % 2, schema: 1, payload: &text, links };
        let state =
            Draft { stream: stream(STATE, talk), messages: 0, payload: b"state", links: &[], ..event };
        let group = [event, state];
        let group = if number % 10 == 0 { &group[..] } else { &group[..1] };
        let Answer::Stored(stored) = log.append(group, 2_000 + number) else {
            panic!("there is room");
        };
        model.entry(home).or_default().insert(expected_head + 1, text.clone());
        for link in links {
            model.entry(*link).or_default().insert(stored.first_position, text.clone());
        }
        if number % 3 == 0 {
            flush(&mut log, &mut disk);
            seal(&mut log, &mut disk);
        }
        if number == 100 {
            disk.renew_snapshot();
        }
    }
    flush(&mut log, &mut disk);
    (log, disk, model)
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// Every file of the fixture by its name.
fn files(disk: &Disk) -> BTreeMap<String, Vec<u8>> {
    let segments = disk.segments.iter().map(|(base, bytes)| (segment_file_name(*base), bytes.clone()));
    let indexes = disk.indexes.iter().map(|(base, bytes)| (index_file_name(*base), bytes.clone()));
    let snapshot = disk.snapshot.iter().map(|bytes| (SUMMED.to_owned(), bytes.clone()));
    let compacted = compacted(disk);
    let cold = (segment_file_name(compacted.base_of(COMPACTED)), compacted.segments[&COMPACTED].clone());
    segments.chain(indexes).chain(snapshot).chain([cold]).collect()
}

/// The same log, one segment compacted.
fn compacted(disk: &Disk) -> Disk {
    let mut disk = disk.clone();
    disk.compact(COMPACTED, Retention::default());
    disk
}

#[test]
fn this_version_writes_what_the_first_one_wrote() {
    let (_, disk, _) = make();
    let made = files(&disk);
    if std::env::var_os("WRITE_FIXTURES").is_some() {
        fs::create_dir_all(directory().join(SUMMED).parent().expect("a directory")).expect("a directory");
        for (name, bytes) in &made {
            if !directory().join(name).exists() {
                fs::write(directory().join(name), bytes).expect("a file");
            }
        }
    }
    for (name, bytes) in &made {
        let kept = fs::read(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(kept == *bytes, "{name} is written in another way: that is a new version of the format");
    }
    assert_eq!(fs::read_dir(directory()).expect("the fixture").count(), made.len());
    let mut snapshot = made[SUMMED].clone();
    let footer = snapshot.len() - INDEX_FOOTER_BYTES;
    let first = fs::read(directory().join("index.snap")).expect("the first one");
    for sum in SUMS {
        let sum = footer + sum.start..footer + sum.end;
        snapshot[sum.clone()].copy_from_slice(&first[sum]);
    }
    assert!(snapshot == first, "nothing else is written in another way");
}

#[test]
fn this_version_reads_what_the_first_one_wrote() {
    let (_, _, model) = make();
    let (mut disk, mut cold) = (Disk::of(GEOMETRY), None);
    for entry in fs::read_dir(directory()).expect("the fixture") {
        let path = entry.expect("a file").path();
        let (name, bytes) =
            (path.file_name().expect("a name").to_string_lossy(), fs::read(&path).expect("read"));
        let base = name.get(4..20).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        match (name.rsplit_once('.').map(|(_, end)| end), base) {
            (Some("log"), Some(base)) => drop(disk.segments.insert(base, bytes)),
            (Some("idx"), Some(base)) => drop(disk.indexes.insert(base, bytes)),
            (Some("cold"), Some(COMPACTED)) => cold = Some(bytes),
            (Some("snap"), None) => disk.snapshot = Some(bytes),
            other => panic!("{name}: {other:?}"),
        }
    }
    let mut compacted = disk.clone();
    for files in [&mut compacted.segments, &mut compacted.indexes] {
        files.insert(COMPACTED, cold.clone().expect("a compacted segment"));
    }
    let without = |disk: &Disk| Disk { indexes: BTreeMap::new(), snapshot: None, ..disk.clone() };
    let summed = Disk { snapshot: fs::read(directory().join(SUMMED)).ok(), ..disk.clone() };
    let (all, without_states) = (1 + 150 + 15, 1 + 150 + 15 - SUPERSEDED);
    let disks = [
        (&without(&disk), all),
        (&without(&compacted), without_states),
        (&disk, all),
        (&summed, all),
        (&compacted, without_states),
    ];
    for (disk, records) in disks {
        let recovered = disk.recover(9).expect("a sound log");
        assert_eq!((recovered.dropped, recovered.records), (None, records));
        let log = recovered.log;
        assert_eq!((log.runs().len(), log.runs()[0].id), (1, [5; 16]));
        for (id, expected) in &model {
            let expected: Vec<_> = expected.iter().map(|(key, text)| (*key, text.clone())).collect();
            assert!(read(&log, disk, *id) == expected, "{id:?}");
        }
        let newest = log.last(stream(STATE, 0)).expect("a state");
        assert!(!log.may_have_moved(newest), "it is in a later segment");
        assert_eq!(payload(disk, newest), b"state");
    }
}
