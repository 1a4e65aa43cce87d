//! Sealed segments that rot where nobody reads.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    time::Instant,
};

use serde_json::json;
use storage_log::{ScrubProgress, format::INDEX_FOOTER_BYTES};

use crate::{
    chat::{Chat, verdict},
    node::{Node, PATIENCE, directory},
    snapshot::config_of,
    storage::{SMALL_SEGMENTS, check_whole, file_name, files_of, fill_segments, rot},
};

/// A node that looks through its logs at this many bytes a second.
fn start(data: &Path, bytes_per_second: &str) -> Node {
    let scrub = [("GATEHOUSE_SCRUB_BYTES_PER_SECOND", bytes_per_second)];
    Node::start(data, &[&SMALL_SEGMENTS[..], &scrub].concat())
}

const FAST: &str = "1073741824";

/// When a pass over the log last ended.
const LAST_PASS: &str = "scrub_last_pass_timestamp_seconds{log=\"0\"}";

#[test]
fn a_bit_that_flips_in_a_sealed_segment_is_found_copied_and_told_as_a_gap() {
    let data = directory();
    let mut node = start(data.path(), "0");
    let (conversation, stored) = fill_segments(&node, data.path());
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    assert_eq!(files_of(data.path(), "scrub.state").len(), 0, "nothing is looked through at 0");
    let segment = &files_of(data.path(), ".log")[1];
    // In the payload of the first record of the first batch.
    let (place, offset) = (4096 + 64 + 96 + 500, 4096 + 64);
    let file = File::options().read(true).write(true).open(segment).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).expect("a record");
    file.write_all_at(&[byte[0] ^ 4], place).expect("room");

    let mut node = start(data.path(), FAST);
    node.wait_for_metric("scrub_damaged_records_total", 1);
    let name = file_name(segment);
    node.log_line(&["not what was written", &name, &format!("offset={offset}"), "stream_kind=1"]);
    let copy = data.path().join("quarantine").join(format!("log-00-{:016x}.bin", (4 << 20) + offset));
    let kept = fs::metadata(&copy).expect("a copy");
    assert_eq!(kept.mode() & 0o777, 0o600);
    assert_eq!(node.metric("quarantine_bytes"), kept.len());
    assert_eq!(node.metric("quarantined_total"), 1);
    let copied = fs::read(&copy).expect("a copy");
    let mut stands = vec![0; copied.len()];
    file.read_exact_at(&mut stands, offset - 4096).expect("the segment");
    assert!(copied == stands, "with its surroundings");
    // It is a gap to who reads it, no sequence shifts, and it is not copied once more.
    let page = Chat::connect(&node, "bob", "b").history(&conversation);
    let gaps = page.iter().filter(|item| item["op"] == "gap").count();
    assert_eq!((gaps, page.len() as u64), (1, stored), "{:?}", page.first());
    assert_eq!(node.metric("quarantined_total"), 1);

    // A pass is remembered over a restart: another one is due in a day.
    node.log_line(&["came to the end of the log's sealed segments", "log=0"]);
    let ended = node.metric(LAST_PASS);
    assert!(ended > 0);
    node.restart();
    node.wait_for_metric(LAST_PASS, ended);
    assert_eq!(node.metric("scrub_damaged_records_total"), 0, "{}", node.log_text());
}

#[test]
fn an_index_file_that_rots_unread_is_found_and_made_again() {
    let data = directory();
    let mut node = start(data.path(), "0");
    let (conversation, stored) = fill_segments(&node, data.path());
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    // Slow enough that the last file rots before it is looked at.
    let node = start(data.path(), "4194304");
    let indexes = files_of(data.path(), ".idx");
    let last = indexes.last().expect("sealed segments");
    let whole = fs::read(last).expect("an index file");
    rot(last);
    node.wait_for_metric("index_rebuilds_total", 1);
    assert_eq!(node.metric("scrub_damaged_indexes_total"), 1);
    node.log_line(&["an index file was damaged and is made again", &file_name(last)]);
    let made = fs::read(last).expect("an index file");
    assert!(made[..made.len() - INDEX_FOOTER_BYTES] == whole[..whole.len() - INDEX_FOOTER_BYTES]);
    check_whole(&node, &conversation, stored);
}

#[test]
fn a_damaged_record_that_a_reader_meets_is_copied_too() {
    let data = directory();
    let mut node = start(data.path(), "0");
    let (conversation, stored) = fill_segments(&node, data.path());
    node.restart();
    let segment = &files_of(data.path(), ".log")[0];
    let file = File::options().read(true).write(true).open(segment).expect("a segment");
    // Somewhere in the text of a message.
    file.write_all_at(b"?", 2 << 20).expect("room");
    let page = Chat::connect(&node, "bob", "b").history(&conversation);
    assert_eq!(page.iter().filter(|item| item["op"] == "gap").count(), 1);
    assert_eq!(page.len() as u64, stored, "{}", json!(page.first()));
    node.wait_for_metric("log_damaged_records_total", 1);
    node.wait_for_metric("quarantined_total", 1);
}

#[test]
fn an_index_file_that_cannot_be_made_again_is_told_to_who_asks_and_stops_nothing() {
    let data = directory();
    let node = start(data.path(), "0");
    let (conversation, stored) = fill_segments(&node, data.path());
    let first = &files_of(data.path(), ".idx")[0];
    let whole = fs::read(first).expect("an index file");
    rot(first);
    // Where the new file would be written, something else stands.
    fs::create_dir(first.with_extension("idx.new")).expect("nothing is there");
    let mut bob = Chat::connect(&node, "bob", "b");
    let oldest = json!({ "conversation": conversation, "after": 0, "limit": 2 });
    let refused = bob.ask("history", oldest.clone());
    assert_eq!(verdict(&refused), "3004 unavailable", "{refused}");
    node.log_line(&["could not be made again", "log=0", &file_name(first)]);
    assert_eq!(node.metric("index_rebuild_failures_total"), 1);
    // The newest is read, and more is stored.
    let newest = bob.ask("history", json!({ "conversation": conversation, "limit": 1 }));
    assert_eq!(newest["messages"][0]["seq"], stored, "{newest}");
    let told = bob.tell("alice", "goes on");
    assert_eq!(verdict(&told), "ok", "{told}");
    // What the disk gives again is believed again.
    fs::write(first, whole).expect("room");
    let page = bob.ask("history", oldest);
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(2));
}

/// How far the scrubber is, as a start finds it.
fn progress(data: &Path) -> ScrubProgress {
    let bytes = fs::read(data.join("log-00/scrub.state")).unwrap_or_default();
    ScrubProgress::parse(&bytes, &config_of(data)).unwrap_or_default()
}

/// A pass that was interrupted is not begun anew: what it has been through is not read again, and it comes to its end. Nor is
/// it faster than it may be.
#[test]
fn a_pass_goes_on_after_a_kill_where_it_was_and_keeps_to_its_rate() {
    let data = directory();
    let mut node = start(data.path(), "0");
    fill_segments(&node, data.path());
    node.kill();
    // Four seconds a segment, so that it is in the middle when it is killed.
    let (rate, begun) = (1 << 20, Instant::now());
    let mut node = start(data.path(), &rate.to_string());
    while progress(data.path()).next_base == 0 {
        let read = node.metric("scrub_bytes_total");
        // It rests behind each piece: the clock of whoever asks is ahead of what it may have read, on any machine.
        let may = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64 + (256 << 10);
        assert!(read <= may, "{read} bytes, and {may} are allowed");
        assert!(begun.elapsed() < PATIENCE, "{read} bytes are read");
    }
    node.kill();
    let at = progress(data.path());
    let segments = files_of(data.path(), ".log");
    let next = (at.next_base >> 22) as usize;
    assert!((1..4).contains(&next) && at.ended == 0, "{at:?}");
    let [behind, ahead] = [0, next].map(|number| &segments[number]);
    for segment in [behind, ahead] {
        let file = File::options().write(true).open(segment).expect("a segment");
        file.write_all_at(b"?", 2 << 20).expect("room");
    }
    let mut node = start(data.path(), FAST);
    node.log_line(&["came to the end of the log's sealed segments", "log=0"]);
    node.log_line(&["not what was written", &file_name(ahead)]);
    assert_eq!(node.metric("scrub_damaged_records_total"), 1, "{}", node.log_text());
    assert_eq!(progress(data.path()).begun, at.begun);
    // A pass that is begun anew finds the other too.
    node.kill();
    fs::remove_file(data.path().join("log-00/scrub.state")).expect("it was written");
    let node = start(data.path(), FAST);
    node.wait_for_metric("scrub_damaged_records_total", 2);
}
