//! A segment of the first fixture without what was erased of it, as it was first written, and the file that remembers that, kept for ever.
//!
//! `fixtures/v1-erased` is read by every version to come, and this one still writes the same bytes. Each file is made once: with
//! `WRITE_FIXTURES=1 cargo test -p storage-log --test erased_fixture`, which leaves alone what is there.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use storage_log::{
    Cause, Compacted, CompactionJob, Geometry, Log, Record, Retention, SCHEMA_ERASED, Verdict, decode_marks,
    encode_marks,
};

use support::{Disk, INBOX, MESSAGES, after, config, keys, stream};

const GEOMETRY: Geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };

/// The segment that was gone through, and up to which erasure.
const GONE_THROUGH: (u64, u64) = (GEOMETRY.segment_bytes, 1_800_000_000_000);

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The first fixture, as it was appended.
fn first() -> Disk {
    let mut disk = Disk::of(GEOMETRY);
    for entry in fs::read_dir(path("v1")).expect("the fixture").flatten() {
        let (name, bytes) = (entry.file_name().into_string().expect("a name"), fs::read(entry.path()));
        let base = name.get(4..20).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let files = if name.ends_with(".log") { &mut disk.segments } else { &mut disk.indexes };
        match base {
            Some(base) if !name.ends_with(".cold") => drop(files.insert(base, bytes.expect("read"))),
            _ => {}
        }
    }
    disk
}

/// Every third of what was said.
fn judge(record: &Record<'_>) -> Verdict {
    let is_erased =
        record.stream().kind == MESSAGES && record.schema() == 1 && record.seq().is_multiple_of(3);
    if is_erased { Verdict::Erase } else { Verdict::Keep }
}

/// The two files.
fn make() -> [(&'static str, Vec<u8>); 2] {
    let ((base, mark), mut disk) = (GONE_THROUGH, first());
    let retention = Retention::default();
    let job = CompactionJob { config: config(GEOMETRY), base, retention, mark, cause: Cause::Erased };
    assert!(matches!(disk.erase(&job, &judge), Compacted::Made(_)));
    let marks = encode_marks(&BTreeMap::from([GONE_THROUGH]), &config(GEOMETRY));
    [("v1-erased/seg-0000000000004000.cold", disk.segments[&base].clone()), ("v1-erased/erased.state", marks)]
}

#[test]
fn this_version_writes_and_reads_what_was_erased_as_the_first_one_that_did() {
    for (name, made) in make() {
        if std::env::var_os("WRITE_FIXTURES").is_some() && !path(name).exists() {
            fs::create_dir_all(path("v1-erased")).expect("a directory");
            fs::write(path(name), &made).expect("a file");
        }
        let kept = fs::read(path(name)).expect("the fixture");
        assert!(kept == made, "{name} is written in another way: that is a new version of the format");
    }
    let marks = fs::read(path("v1-erased/erased.state")).expect("the fixture");
    assert_eq!(decode_marks(&marks, &config(GEOMETRY)), Some(BTreeMap::from([GONE_THROUGH])));

    let (before, mut disk) = (first(), first());
    let cold = fs::read(path("v1-erased/seg-0000000000004000.cold")).expect("the fixture");
    for files in [&mut disk.segments, &mut disk.indexes] {
        files.insert(GONE_THROUGH.0, cold.clone());
    }
    let [whole, log] = [&before, &disk].map(|disk| disk.recover(9).expect("a sound log").log);
    let mut erased = 0;
    for stream in (0..11).flat_map(|id| [stream(MESSAGES, id), stream(INBOX, id)]) {
        let [was, is] = [(&whole, &before), (&log, &disk)].map(|(log, disk)| after(log, disk, stream, 0));
        assert_eq!(keys(&was), keys(&is));
        for (was, is) in was.into_iter().zip(is) {
            let (was, is) = (record(&before, was.location), record(&disk, is.location));
            if is.0 == SCHEMA_ERASED {
                assert!(was.0 == 1 && was.1 % 3 == 0 && is == (SCHEMA_ERASED, was.1, vec![]));
                erased += 1;
            } else {
                assert_eq!(is, was);
            }
        }
    }
    assert!(erased > 5, "{erased} are erased");
}

/// Schema, sequence and payload.
fn record(disk: &Disk, location: storage_log::Location) -> (u16, u64, Vec<u8>) {
    let base = storage_log::as_appended(GEOMETRY.segment_of(location.lsn()));
    let offset = GEOMETRY.offset_of(location.lsn()) as usize;
    let bytes = &disk.segments[&base][offset..offset + location.bytes()];
    let record = Log::verify(location, bytes).expect("a sound record");
    (record.schema(), record.seq(), record.payload().to_vec())
}
