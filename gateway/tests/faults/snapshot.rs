//! Power cuts while a snapshot of the index is written.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use gateway::store::StoreFacts;
use storage_log::{INDEX_BLOCK_BYTES, LogConfig, SnapshotFooter, format::INDEX_FOOTER_BYTES};

use crate::{
    chat::Chat,
    compaction::EAGER,
    disk::Disk,
    node::{Node, PATIENCE},
    power::{CUTS_PER_DISK, Kept, LONG, Moments, check_stopped},
};

/// When the power is cut that a snapshot of the index is written with.
#[derive(Clone, Copy, PartialEq)]
enum SnapshotMoment {
    /// While it is written, or synced.
    Written,
    /// When it has its name, which may not be synced.
    Named,
}

/// Cuts the power at that moment of the `nth` snapshot from now on. Whether there was one before nothing more was stored: some ten segments lead to each, and
/// how long that takes is the disk's.
fn cut_at_snapshot(
    disk: &Disk,
    data: &Path,
    (nth, moment): (usize, SnapshotMoment),
    stored: &AtomicUsize,
) -> bool {
    let switch = disk.power_switch();
    let [new, made] = ["index.snap.new", "index.snap"].map(|name| data.join("log-00").join(name));
    let number = || fs::metadata(&made).map_or(0, |file| file.ino());
    // Looks without a pause: it takes a few milliseconds.
    let wait = |until: &dyn Fn() -> bool| {
        let (mut before, mut since) = (0, Instant::now());
        while !until() {
            let now = stored.load(Ordering::Relaxed);
            if now != before {
                (before, since) = (now, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                return false;
            }
            thread::yield_now();
        }
        true
    };
    for seen in 1..=nth {
        let before = number();
        let is_named = || number() != before;
        if !wait(&|| new.exists() || is_named()) {
            return false;
        }
        if (seen < nth || moment == SnapshotMoment::Named) && !wait(&is_named) {
            return false;
        }
    }
    switch.cut();
    true
}

/// What log 0 of a store is opened with.
#[track_caller]
pub(crate) fn config_of(data: &Path) -> LogConfig {
    let StoreFacts { id: store, geometry, .. } = StoreFacts::read(data).expect("a store");
    let (number, kinds) = (0, router::places::KINDS);
    LogConfig { store, number, geometry, tail_bytes_max: 0, kinds, segment_ms_max: None }
}

/// Whether there is a snapshot of log 0; if there is, it is one from its first byte to its last.
#[track_caller]
fn has_whole_snapshot(data: &Path) -> bool {
    let Ok(bytes) = fs::read(data.join("log-00/index.snap")) else {
        return false;
    };
    let config = config_of(data);
    let blocks_bytes = bytes.len().saturating_sub(INDEX_FOOTER_BYTES);
    let footer = SnapshotFooter::parse(&bytes[blocks_bytes..], &config);
    let blocks = footer.expect("it ends in a footer").blocks as usize;
    assert_eq!(blocks * INDEX_BLOCK_BYTES, blocks_bytes);
    true
}

/// The snapshot is derived: whatever a cut leaves of it, the start believes one that is whole or none, and nothing is lost.
#[test]
fn power_cuts_while_a_snapshot_is_written_lose_nothing_and_leave_it_whole() {
    let (mut moments, cuts) = Moments::of_cuts();
    let settings = [&EAGER[..], &[("GATEHOUSE_DRAIN_SECONDS", "0")]].concat();
    for begun in (0..cuts).step_by(CUTS_PER_DISK) {
        let Some(disk) = Disk::mount() else {
            return;
        };
        let data = disk.root.join("data");
        let (mut kept, mut found) = (Kept::default(), 0);
        for cut in begun..cuts.min(begun + CUTS_PER_DISK) {
            let moment = [SnapshotMoment::Written, SnapshotMoment::Named][cut % 2];
            let node = Node::start(&data, &settings);
            let mut alice = Chat::connect(&node, "alice", "a");
            // The first one of a disk outlives the first cut.
            let nth = moments.next(2) + usize::from(cut == begun);
            let stored = AtomicUsize::new(0);
            let is_cut = thread::scope(|scope| {
                let cutting = scope.spawn(|| cut_at_snapshot(&disk, &data, (nth, moment), &stored));
                kept.send_until_the_end(&mut alice, LONG, |count| stored.store(count, Ordering::Relaxed));
                cutting.join().expect("it only looks")
            });
            assert!(is_cut, "no snapshot was written");
            drop(alice);
            check_stopped(node, &disk);
            found += usize::from(has_whole_snapshot(&data));
            let node = Node::start(&data, &settings);
            assert!(!node.log_text().contains("the snapshot of the index is damaged"), "{}", node.log_text());
            kept.check(&node, "bob");
        }
        assert!(found > 0, "no snapshot outlived a cut");
    }
}
