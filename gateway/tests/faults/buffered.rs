//! A store on a disk that does not take its batches past the page cache: one made with blocks of 512 bytes, moved to a disk that
//! takes nothing smaller than 4096.
//!
//! What is told while the power goes does not count here. ext4 says of a write into blocks that are only reserved, synced through the page
//! cache, that it succeeded where the shutdown overtakes it: to any program, and of that one write alone. After a real power cut nobody
//! hears it. Past the page cache the write fails, and `power.rs` counts all that was told.

use std::{
    fs::{self, File},
    path::Path,
    time::Instant,
};

use rustix::fs::{SeekFrom, seek};

use crate::{
    chat::Chat,
    compaction::{EAGER, wait_for_cold},
    disk::Disk,
    logtool::{log, text},
    node::{Node, PATIENCE},
    power::{Kept, LONG, check_stopped},
};

const SAID: [&str; 3] =
    ["batches are written through the page cache", "block_bytes=512", "does not take such blocks"];

/// The next segment is filled with zeros ahead of time, which go past the cache here too: nothing of it is a hole any more.
fn wait_for_zeros(log: &Path) {
    let begun = Instant::now();
    loop {
        let names = fs::read_dir(log).expect("a log").map(|entry| entry.expect("a file").path());
        let newest = names.filter(|path| path.extension().is_some_and(|ending| ending == "log")).max();
        let file = File::open(newest.expect("a segment")).expect("it is there");
        let length = file.metadata().expect("it is open").len();
        if seek(&file, SeekFrom::Hole(0)) == Ok(length) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the next segment is not filled with zeros");
        std::thread::yield_now();
    }
}

/// Segments are gone through, compacted and read as elsewhere; the power is cut in the middle of it, and what was acknowledged is there.
#[test]
fn a_store_that_is_written_through_the_page_cache_loses_nothing_by_power_cuts() {
    let Some(mut disk) = Disk::mount() else {
        return;
    };
    let data = disk.root.join("data");
    let settings = [&EAGER[..], &[("GATEHOUSE_DRAIN_SECONDS", "0")]].concat();
    let mut kept = Kept::default();
    let mut node = Node::start(&data, &settings);
    node.log_line(&["batches are written past the page cache", "block_bytes=512"]);
    kept.send(&mut Chat::connect(&node, "alice", "a"), LONG, 100);
    node.kill();
    drop(node);
    disk.move_to_blocks_of(4096);

    // The first in the segment that was written past the cache before, the others behind roll-overs.
    for cut in [7, 350, 600] {
        let node = Node::start(&data, &settings);
        node.log_line(&SAID);
        kept.check(&node, "bob");
        let mut alice = Chat::connect(&node, "alice", "a");
        let before = kept.head();
        kept.send_until_the_end(&mut alice, LONG, |count| {
            if count == cut {
                disk.cut_power();
            }
        });
        drop(alice);
        kept.forget_behind(before + cut as u64);
        check_stopped(node, &disk);
    }
    let mut node = Node::start(&data, &settings);
    node.log_line(&SAID);
    wait_for_cold(&data, 3);
    wait_for_zeros(&data.join("log-00"));
    kept.check(&node, "bob");
    kept.send(&mut Chat::connect(&node, "alice", "a"), LONG, 20);
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);

    // Back on the first disk it goes past the cache again.
    disk.move_to_blocks_of(512);
    let node = Node::start(&data, &settings);
    node.log_line(&["batches are written past the page cache"]);
    kept.check(&node, "bob");
    drop(node);
    drop(disk);
}
