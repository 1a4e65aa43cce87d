//! Format 1, as it was first written: a log of six segments, index files of three of them, a snapshot and one segment compacted, kept for
//! ever; and the same with amendments, as it is written since there are some.
//!
//! What is in `fixtures/v1` is read by every version to come, and this one still writes the same bytes. Each file is made once: with
//! `WRITE_FIXTURES=1 cargo test -p storage-log --test fixtures`, which leaves alone what is there.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use storage_log::{
    Answer, Draft, Geometry, Log, Retention, StreamId, StreamKind, Wanted, index_file_name, segment_file_name,
};

use support::{
    AMENDED, Disk, INBOX, MESSAGES, STATE, amending, amendments, flush, linked, payload, read, seal, stream,
};

const GEOMETRY: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

const MEMBERSHIPS: StreamKind = StreamKind(5);

/// The snapshots as they are written since they have the positions of heads. That of before is kept, and read, and so is the one
const PLACED: &str = "../v1-placed/index.snap";

/// of the log with amendments,
const PLACED_AMENDED: &str = "../v1-placed/amended.snap";

/// and the one that was the first to have a sum of its blocks.
const SUMMED: &str = "../v1-summed/index.snap";

/// The segment that is there in both ways, as a stop in the moment of its compaction leaves it.
const COMPACTED: u64 = GEOMETRY.segment_bytes;

/// States in it of which a later one is known, and which are left out when it is compacted.
const SUPERSEDED: u64 = 2;

type Model = BTreeMap<StreamId, BTreeMap<u64, Vec<u8>>>;

/// What is kept of each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fixture {
    First,
    Amended,
}

/// The log that the fixture is, and what stands in it.
fn make(fixture: Fixture) -> (Log, Disk, Model) {
    let mut disk = Disk::of(GEOMETRY);
    let mut log = disk.recover(0x0102_0304).expect("an empty log").log;
    let mut model = Model::new();
    assert!(matches!(log.begin_run([5; 16], 1_000), Answer::Stored(_)));
    for number in 0..150_u64 {
        let (talk, user) = ((number * number % 11) as u8, (number % 5) as u8);
        let home = stream(MESSAGES, talk);
        let links = [stream(INBOX, user), stream(INBOX, user + 5), stream(MEMBERSHIPS, user)];
        let mut links = linked(&links[..(number % 4) as usize]);
        let text: Vec<u8> = (0..number % 180).map(|at| (at * number % 251) as u8).collect();
        let expected_head = log.head(home).seq;
        if fixture == Fixture::Amended && number % 4 == 1 && expected_head > 0 {
            links.push(amending(home, expected_head, 1 + number % expected_head));
        }
        let (payload, links) = (&text[..], &links[..]);
        let event = Draft { stream: home, expected_head, messages: number % 2, schema: 1, payload, links };
        let state =
            Draft { stream: stream(STATE, talk), messages: 0, payload: b"state", links: &[], ..event };
        let group = [event, state];
        let group = if number % 10 == 0 { &group[..] } else { &group[..1] };
        let Answer::Stored(stored) = log.append(group, 2_000 + number) else {
            panic!("there is room");
        };
        model.entry(home).or_default().insert(expected_head + 1, text.clone());
        for link in links.iter().filter(|link| link.stream.kind != AMENDED) {
            model.entry(link.stream).or_default().insert(stored.first_position, text.clone());
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

fn directory(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The files of a directory by their names.
fn kept(directory: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(self::directory(directory)).expect("the fixture").map(|entry| {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        (name.into_owned(), fs::read(&path).expect("read"))
    });
    files.collect()
}

/// Every file of the fixture by its name.
fn files(disk: &Disk, snapshot: &str) -> BTreeMap<String, Vec<u8>> {
    let segments = disk.segments.iter().map(|(base, bytes)| (segment_file_name(*base), bytes.clone()));
    let indexes = disk.indexes.iter().map(|(base, bytes)| (index_file_name(*base), bytes.clone()));
    let snapshot = disk.snapshot.iter().map(|bytes| (snapshot.to_owned(), bytes.clone()));
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

fn check_written(name: &str, made: &BTreeMap<String, Vec<u8>>) {
    if std::env::var_os("WRITE_FIXTURES").is_some() {
        for (file, bytes) in made {
            let path = directory(name).join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            if !path.exists() {
                fs::write(path, bytes).expect("a file");
            }
        }
    }
    for (file, bytes) in made {
        let path = directory(name).join(file);
        let kept = fs::read(path).unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
        assert!(kept == *bytes, "{file} is written in another way: that is a new version of the format");
    }
    assert_eq!(kept(name).len(), made.len());
}

#[test]
fn this_version_writes_what_the_first_one_wrote() {
    let (_, disk, _) = make(Fixture::First);
    check_written("v1", &files(&disk, PLACED));
}

#[test]
fn this_version_writes_amendments_as_the_first_one_that_had_them() {
    let (_, disk, _) = make(Fixture::Amended);
    check_written("v1-amended", &files(&disk, PLACED_AMENDED));
}

/// The log of a fixture, and the same with a segment compacted.
fn read_fixture(name: &str) -> (Disk, Disk) {
    let (mut disk, mut cold) = (Disk::of(GEOMETRY), None);
    for (name, bytes) in kept(name) {
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
    (disk, compacted)
}

/// In every way in which the log of a fixture may be found, all of it is read.
fn check_read(disk: &Disk, compacted: &Disk, model: &Model, check: impl Fn(&Log, &Disk)) {
    let without = |disk: &Disk| Disk { indexes: BTreeMap::new(), snapshot: None, ..disk.clone() };
    let (all, without_states) = (1 + 150 + 15, 1 + 150 + 15 - SUPERSEDED);
    let disks = [
        (&without(disk), all),
        (&without(compacted), without_states),
        (disk, all),
        (compacted, without_states),
    ];
    for (disk, records) in disks {
        let recovered = disk.recover(9).expect("a sound log");
        assert_eq!((recovered.dropped, recovered.records), (None, records));
        let log = recovered.log;
        assert_eq!((log.runs().len(), log.runs()[0].id), (1, [5; 16]));
        for (id, expected) in model {
            let expected: Vec<_> = expected.iter().map(|(key, text)| (*key, text.clone())).collect();
            assert!(read(&log, disk, *id) == expected, "{id:?}");
        }
        let newest = log.last(stream(STATE, 0)).expect("a state");
        assert!(!log.may_have_moved(newest), "it is in a later segment");
        assert_eq!(payload(disk, newest), b"state");
        check(&log, disk);
    }
}

#[test]
fn this_version_reads_what_the_first_one_wrote() {
    let (_, _, model) = make(Fixture::First);
    let (disk, compacted) = read_fixture("v1");
    check_read(&disk, &compacted, &model, |_, _| {});
    for snapshot in [SUMMED, PLACED] {
        let snapshot = Some(fs::read(directory("v1").join(snapshot)).expect("a snapshot"));
        check_read(&Disk { snapshot, ..disk.clone() }, &compacted, &model, |_, _| {});
    }
}

#[test]
fn this_version_reads_the_amendments_that_the_first_one_wrote_that_had_them() {
    let (made, made_disk, model) = make(Fixture::Amended);
    let (disk, compacted) = read_fixture("v1-amended");
    let found = |log: &Log, disk: &Disk| {
        let of = |talk| {
            let wanted = (1..=100).map(|seq| Wanted { seq, after: 0 }).collect();
            let (found, _) = amendments(log, disk, stream(MESSAGES, talk), wanted);
            found.into_iter().map(move |(seq, entry)| (talk, seq, entry.key, payload(disk, entry.location)))
        };
        (0..11).flat_map(of).collect::<Vec<_>>()
    };
    let expected = found(&made, &made_disk);
    assert!(expected.len() > 20, "{} amendments", expected.len());
    check_read(&disk, &compacted, &model, |log, disk| assert!(found(log, disk) == expected));
}
