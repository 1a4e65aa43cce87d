//! What a data directory is opened as, when something of it is missing or full.

use std::fs;
use std::sync::Arc;

use gateway::files::{self, Command, Inbox, Job, Work};
use gateway::state::NodeState;
use gateway::store::segments::Access;
use gateway::store::{LogRefusal, Store};
use ring::{Ring, RingConfig};
use rustix::fs::{SeekFrom, seek};
use storage_log::format::{SEGMENT_BYTES, SEGMENT_HEADER_BYTES};
use storage_log::{Answer, DamageKind, Draft, StreamId, StreamKind};
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

#[test]
fn a_log_that_has_lost_everything_is_refused_and_not_made_anew() {
    let data = directory();
    let store = Store::open(data.path(), 2, SEGMENT_BYTES).expect("a new store");
    (0..2).for_each(|log| drop(store.open_log(log, [1; 16], 1, 1).expect("a new log")));
    drop(store);
    fs::remove_dir_all(data.path().join("log-01")).expect("it was made");
    let store = Store::open(data.path(), 2, SEGMENT_BYTES).expect("the store is known");
    store.open_log(0, [2; 16], 1, 2).expect("this one is whole");
    assert!(store.open_log(1, [2; 16], 1, 2).is_err());
    fs::create_dir(data.path().join("log-01")).expect("it was removed");
    let refused = store.open_log(1, [3; 16], 1, 3).err().expect("nothing stands there");
    assert!(matches!(refused, LogRefusal::Damaged(damage) if damage.kind == DamageKind::Missing));
}

#[test]
fn a_store_whose_making_was_interrupted_is_gone_on_with() {
    let data = directory();
    let store = Store::open(data.path(), 2, SEGMENT_BYTES).expect("a new store");
    let id = store.id;
    drop(store);
    // As it stands before its last step, and one log short.
    let path = data.path().join("store.toml");
    fs::rename(&path, path.with_extension("toml.new")).expect("it was made");
    fs::remove_dir_all(data.path().join("log-01")).expect("it was made");
    let store = Store::open(data.path(), 2, SEGMENT_BYTES).expect("it goes on");
    assert_eq!(store.id, id);
    (0..2).for_each(|log| drop(store.open_log(log, [1; 16], 1, 1).expect("a new log")));

    // A store that was in use is never taken for one that is being made.
    drop(store);
    fs::remove_file(&path).expect("it was made");
    let refused = Store::open(data.path(), 2, SEGMENT_BYTES).err().expect("its segments are another's");
    assert!(format!("{refused:#}").contains("store.toml is missing, and "), "{refused:#}");
    assert!(!path.with_extension("toml.new").exists(), "nothing was begun");
}

/// As where a disk had no room for all of it: whoever sets smaller segments then is to get them.
#[test]
fn a_store_that_was_begun_and_holds_nothing_takes_new_settings() {
    let data = directory();
    let path = data.path().join("store.toml");
    let unfinish = || fs::rename(&path, path.with_extension("toml.new")).expect("it was made");
    drop(Store::open(data.path(), 2, SEGMENT_BYTES).expect("a new store"));
    unfinish();
    let store = Store::open(data.path(), 1, SEGMENT_BYTES / 2).expect("it is begun anew");
    assert_eq!((store.logs, store.geometry.segment_bytes), (1, SEGMENT_BYTES / 2));
    assert!(fs::read_dir(data.path().join("log-01")).expect("it was made").next().is_none());
    let id = store.id;
    drop(store.open_log(0, [1; 16], 1, 1).expect("a new log"));

    // What holds a batch is gone on with as it is.
    drop(store);
    unfinish();
    let store = Store::open(data.path(), 1, SEGMENT_BYTES / 4).expect("it goes on");
    assert_eq!((store.id, store.geometry.segment_bytes), (id, SEGMENT_BYTES / 2));
    drop(store.open_log(0, [2; 16], 1, 2).expect("its log is read"));
}

#[test]
fn a_log_that_is_full_to_its_last_byte_starts_in_a_new_segment() {
    let data = directory();
    let store = Store::open(data.path(), 1, SEGMENT_BYTES).expect("a new store");
    let mut open = store.open_log(0, [1; 16], 1, 1).expect("a new log");
    // While it has no successor its end is kept; this one is lost before the next start.
    assert!(open.log.poll_spare().is_some());
    open.log.handle_spare(Ok(()));
    let (_, file) = &open.segments[0];
    let stream = StreamId { kind: StreamKind(1), id: [1; 16] };
    // One batch of one record each: 160 bytes and the payload. The start took one sector.
    let (batch_bytes, mut left) = (120 << 10, SEGMENT_BYTES as usize - SEGMENT_HEADER_BYTES - 512);
    let payload = vec![1; batch_bytes];
    while left > 0 {
        let bytes = batch_bytes.min(left);
        let expected_head = open.log.head(stream).seq;
        let payload = &payload[..bytes - 160];
        let draft = Draft { stream, expected_head, messages: 1, schema: 1, payload, links: &[] };
        assert!(matches!(open.log.append(&[draft], 1), Answer::Stored(_)));
        let batch = open.log.poll_write(1).expect("it is due");
        file.write(&batch).expect("there is room");
        open.log.handle_written(batch.buffer, true).expect("written");
        left -= bytes;
    }
    let position = open.log.durable().position();
    drop(open);
    let open = store.open_log(0, [2; 16], 1, 2).expect("there is room for another segment");
    assert_eq!(open.segments.len(), 2);
    assert_eq!(open.log.durable().position(), position + 1);
}

#[test]
fn a_spare_is_filled_with_zeros_once_and_from_where_it_was_left() {
    let data = directory();
    let segment_bytes = 8 << 20;
    let store = Store::open(data.path(), 1, segment_bytes).expect("a new store");
    if Access::of(data.path(), store.geometry.block_bytes).0 == Access::Buffered {
        // Through the page cache nothing is zeroed.
        return;
    }
    let maker = store.segment_maker();
    let file = maker.make(0, segment_bytes).expect("room").buffered;
    let hole = || seek(&file, SeekFrom::Hole(SEGMENT_HEADER_BYTES as u64)).expect("a hole, or the end");
    assert_eq!(hole(), SEGMENT_HEADER_BYTES as u64, "it is only reserved");
    let begin = || maker.zeros(0, segment_bytes).expect("it is there");
    let mut zeros = begin().expect("all of it");
    assert_eq!(zeros.write_piece().ok(), Some(true), "the first of eight");
    zeros.finish().expect("it was enough then");
    assert!((SEGMENT_HEADER_BYTES as u64 + 1..segment_bytes).contains(&hole()), "{}", hole());
    let mut zeros = begin().expect("what is left");
    let pieces = 1 + std::iter::from_fn(|| zeros.write_piece().expect("room").then_some(())).count();
    assert_eq!((pieces, hole()), (7, segment_bytes));
    // What stands there now would be lost if it were filled again.
    assert!(begin().is_none(), "nothing to write");
}

/// The thread that makes segments rested behind each piece of zeros, for as long as a slow disk had it rest, and whoever needed a segment waited: the log
/// that they were for too.
#[test]
fn nobody_waits_for_zeros_or_for_a_rest_behind_them() {
    let data = directory();
    let store = Store::open(data.path(), 2, SEGMENT_BYTES).expect("a new store");
    if Access::of(data.path(), store.geometry.block_bytes).0 == Access::Buffered {
        return;
    }
    (0..2).for_each(|log| drop(store.open_log(log, [1; 16], 1, 1).expect("a new log")));
    let maker = store.segment_maker();
    let file = maker.make(0, SEGMENT_BYTES).expect("room").buffered;
    let ring = Ring::new(RingConfig::default()).expect("a ring");
    let inbox = Inbox::new(ring.waker());
    let (jobs, thread) = files::start(maker, Arc::new(NodeState::new(2))).expect("a thread");
    for (log, work) in [(0, Work::Zero), (1, Work::Make), (0, Work::HurryZeros)] {
        let job = Job { log, base: SEGMENT_BYTES, inbox: inbox.clone(), work };
        jobs.send(job).expect("it runs");
    }
    let next = || std::iter::repeat_with(|| inbox.take()).flatten().next();
    assert!(matches!(next(), Some(Command::Segment { log: 1, file: Ok(_), .. })));
    assert!(matches!(next(), Some(Command::Zeroed { log: 0 })));
    let hole = seek(&file, SeekFrom::Hole(SEGMENT_HEADER_BYTES as u64)).expect("a hole, or the end");
    assert!(hole < SEGMENT_BYTES, "it has written all of it first");
    drop(jobs);
    thread.join().expect("it ends");
}
