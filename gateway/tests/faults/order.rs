//! In which order a node syncs, renames and removes: its system calls, as strace sees them.
//!
//! What a crash leaves depends on that order alone, and no test that only looks at what is left would miss a sync that the page cache
//! makes good. Batches go through the ring and are not seen here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Write as _, stderr},
    path::Path,
    process::{Command, Stdio},
};

use storage_log::format::SEGMENT_HEADER_BYTES;

use crate::{
    chat::Chat,
    compaction::{EAGER, wait_for_cold},
    logtool::{fill, log, text},
    node::{Node, directory},
    trace::{Call, Trace},
};

/// Whether this machine lets a process be traced; said aloud where it does not.
fn may_trace() -> bool {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::piped()).output();
    let tried = tried.expect("strace is there: install the Debian package of that name");
    if !tried.status.success() {
        let reason = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
        // Not by a macro: what those print is shown only when a test fails.
        let _ = writeln!(
            stderr(),
            "NOT RUN: the order of system calls: this machine lets nobody trace ({reason})"
        );
    }
    tried.status.success()
}

fn ending(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or_default()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The first sync of `path` that was begun behind `after`, which has ended before `before`.
fn synced<'t>(trace: &'t Trace, path: &str, after: usize, before: usize) -> Option<&'t Call> {
    let mut syncs = trace.of(&["fsync", "fdatasync"]).filter(|call| call.file == path && call.is_done());
    syncs.find(|call| call.begun >= after && call.ended < before)
}

/// Whoever gets another name is synced before, and its directory next, unless the node is killed there. The endings of those that did.
#[track_caller]
fn check_renames(trace: &Trace, data: &str) -> BTreeSet<String> {
    let mut endings = BTreeSet::new();
    for call in trace.of(&["rename", "renameat", "renameat2"]).filter(|call| call.is_done()) {
        let [from, to] = &call.paths[..] else {
            panic!("{call:?}");
        };
        if !to.starts_with(data) {
            continue;
        }
        let opened = trace.of(&["openat"]).filter(|open| open.paths[0] == *from && open.begun < call.begun);
        let written = opened.filter(|open| open.text.contains("O_CREAT")).last().map_or(0, |open| open.begun);
        assert!(synced(trace, from, written, call.begun).is_some(), "renamed before its sync: {call:?}");
        // By whoever renamed it, before anything else that is to last: others sync the directory when they like.
        let changes = ["fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat"];
        let next = trace.of(&changes).find(|next| next.thread == call.thread && next.begun > call.ended);
        let is_named = next.is_none_or(|next| next.name == "fsync" && next.file == parent(to));
        assert!(is_named, "its name was not synced: {call:?}, then {next:?}");
        endings.insert(ending(to).to_owned());
    }
    endings
}

/// A segment or its index goes only when the cold one in its place, and the name of that, are synced. How many went.
#[track_caller]
fn check_removals(trace: &Trace, log: &str) -> usize {
    let mut count = 0;
    for call in trace.of(&["unlink", "unlinkat"]).filter(|call| call.is_done()) {
        let path = &call.paths[0];
        if parent(path) != log || !["log", "idx"].contains(&ending(path)) {
            continue;
        }
        let cold = path.replace(".log", ".cold").replace(".idx", ".cold");
        let content = [format!("{cold}.new"), cold.clone()];
        let content = content.iter().find_map(|cold| synced(trace, cold, 0, call.begun));
        let content = content.unwrap_or_else(|| panic!("{cold} was not synced: {call:?}"));
        let named = trace.of(&["rename"]).find(|rename| rename.paths.get(1) == Some(&cold));
        let named = named.map_or(content.ended, |rename| rename.ended);
        assert!(
            synced(trace, log, named, call.begun).is_some(),
            "the name of {cold} was not synced: {call:?}"
        );
        count += 1;
    }
    count
}

/// Every segment that stands there at a start is synced, and so is its directory, before anything of it is read; of a cold one the header says
/// which of two files counts, and may be read when its content is synced. How many were read.
#[track_caller]
fn check_opening(trace: &Trace, log: &str, segments: &[String]) -> usize {
    let mut count = 0;
    for name in segments {
        let path = format!("{log}/{name}");
        let mut reads = trace.of(&["pread64", "read"]).filter(|call| call.file == path && call.is_done());
        // A sealed one has its index, and one that was compacted is removed unread.
        let Some(first) = reads.next() else {
            continue;
        };
        assert!(synced(trace, &path, 0, first.begun).is_some(), "read before its sync: {first:?}");
        let is_of_header = |call: &Call| call.text.contains(&format!(", {SEGMENT_HEADER_BYTES}, 0)"));
        let may_be_known = |call: &&Call| name.ends_with(".cold") && is_of_header(call);
        if let Some(read) = [first].into_iter().chain(reads).find(|call| !may_be_known(call)) {
            assert!(synced(trace, log, 0, read.begun).is_some(), "read before its name was synced: {read:?}");
        }
        count += 1;
    }
    count
}

/// Names of the segments that are there.
fn segments(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join("log-00")).expect("a log").flatten();
    let names = entries.map(|entry| entry.file_name().into_string().expect("a name of ours"));
    names.filter(|name| name.starts_with("seg-") && ["log", "cold"].contains(&ending(name))).collect()
}

/// Checks all of a run: what was renamed, and how many files were removed.
#[track_caller]
fn check(trace: &Trace, data: &Path, at_start: &[String]) -> (BTreeSet<String>, usize) {
    let log = data.join("log-00");
    let read = check_opening(trace, text(&log), at_start);
    assert!(at_start.is_empty() || read >= 2, "{read} of {at_start:?} were read");
    (check_renames(trace, text(data)), check_removals(trace, text(&log)))
}

#[test]
fn nothing_is_read_renamed_or_removed_before_what_it_rests_on_is_synced() {
    if !may_trace() {
        return;
    }
    let root = directory();
    let [data, before] = ["data", "before"].map(|name| root.path().join(name));
    let lazy: BTreeMap<_, _> = EAGER.into_iter().chain([("GATEHOUSE_COMPACT_AFTER_SECONDS", "0")]).collect();
    let lazy: Vec<_> = lazy.into_iter().collect();
    // A store is made, and goes on to the next segment.
    let (mut node, trace) = Node::start_traced(&data, &lazy);
    fill(&mut Chat::connect(&node, "alice", "a"), 600, 15 << 10);
    node.kill();
    let (renamed, removed) = check(&trace.read(), &data, &[]);
    assert!(["log", "idx", "toml"].iter().all(|ending| renamed.contains(*ending)), "{renamed:?}");
    assert_eq!(removed, 0);
    // A start reads it back; a snapshot is made, and segments are compacted.
    fs::create_dir_all(before.join("log-00")).expect("room");
    let names = ["log-00/seg-0000000000000000.log", "log-00/seg-0000000000000000.idx"];
    for name in names {
        fs::copy(data.join(name), before.join(name)).expect("it is sealed");
    }
    let at_start = segments(&data);
    let (mut node, trace) = Node::start_traced(&data, &EAGER);
    fill(&mut Chat::connect(&node, "alice", "a"), 1_200, 15 << 10);
    wait_for_cold(&data, 3);
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    let (renamed, removed) = check(&trace.read(), &data, &at_start);
    assert!(
        ["log", "idx", "snap", "cold", "state"].iter().all(|ending| renamed.contains(*ending)),
        "{renamed:?}"
    );
    assert!(removed >= 4, "{removed} files of segments that were compacted");
    // A start that finds both of a segment that was compacted.
    for name in names {
        fs::copy(before.join(name), data.join(name)).expect("room");
    }
    let at_start = segments(&data);
    assert!(at_start.iter().filter(|name| name.starts_with("seg-0000000000000000.")).count() == 2);
    let (mut node, trace) = Node::start_traced(&data, &lazy);
    node.kill();
    let (_, removed) = check(&trace.read(), &data, &at_start);
    assert_eq!(removed, 2);
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
}
