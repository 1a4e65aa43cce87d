//! `gatehouse log`: what it says of logs that are whole, torn, damaged and in use, and that it changes nothing.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    chat::{Chat, message_id, verdict},
    node::{Node, directory, gatehouse},
};

/// One log in segments that a test fills.
pub(crate) const SMALL: [(&str, &str); 2] = [("GATEHOUSE_LOGS", "1"), ("GATEHOUSE_SEGMENT_MIB", "4")];

const WINDOW: usize = 16;

const SEGMENT: &str = "log-00/seg-0000000000000000.log";

/// What a command of ours said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }

    /// Checks the exit code, and that it says each of `words`.
    #[track_caller]
    pub(crate) fn check(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{} {}", self.out, self.err);
        for word in words {
            assert!(
                self.out.contains(word) || self.err.contains(word),
                "no {word:?} in {} {}",
                self.out,
                self.err
            );
        }
    }
}

/// Runs `gatehouse log`.
#[track_caller]
pub(crate) fn log(arguments: &[&str]) -> Said {
    let arguments: Vec<&OsStr> = ["log"].iter().chain(arguments).map(OsStr::new).collect();
    let output = gatehouse(&arguments, &[]);
    let text = |bytes| String::from_utf8(bytes).expect("it says text");
    let code = output.status.code().expect("it ends by itself");
    Said { code, out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// The text of the letter with this id: no other has it, nor does a part of it.
pub(crate) fn letter_text(id: &str, bytes: usize) -> String {
    let mut text = id.repeat(bytes.div_ceil(id.len()));
    text.truncate(bytes - 1);
    text.push('.');
    text
}

/// Sends `count` texts of `bytes` to bob; sequence and id of each, and the conversation.
#[track_caller]
pub(crate) fn fill(alice: &mut Chat, count: usize, bytes: usize) -> (BTreeMap<u64, String>, Value) {
    fill_to(alice, "bob", count, bytes)
}

/// The same to somebody else.
#[track_caller]
pub(crate) fn fill_to(
    alice: &mut Chat,
    to: &str,
    count: usize,
    bytes: usize,
) -> (BTreeMap<u64, String>, Value) {
    let now = alice.welcome["now"].clone();
    let letter =
        |id: &str| json!({ "to": to, "kind": "text", "text": letter_text(id, bytes), "message_id": id });
    let (mut acked, mut conversation) = (BTreeMap::new(), Value::Null);
    while acked.len() < count {
        let window = WINDOW.min(count - acked.len());
        let sent: Vec<_> = (0..window).map(|_| message_id(&now)).collect();
        let asked: Vec<_> = sent.iter().map(|id| alice.send("send", letter(id))).collect();
        for (request, id) in asked.into_iter().zip(sent) {
            let reply = alice.reply(request);
            let reply = alice.ask_again(reply, &letter(&id));
            assert_eq!(verdict(&reply), "ok", "{reply}");
            conversation = reply["conversation"].clone();
            acked.insert(reply["seq"].as_u64().expect("a sequence"), id);
        }
        alice.take_events();
    }
    (acked, conversation)
}

/// Every file of a directory: its length, and when it was changed.
fn files(directory: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        }
        let file = entry.metadata().expect("it is there");
        found.insert(entry.path(), (file.len(), file.mtime(), file.mtime_nsec()));
    }
    found
}

/// Inverts the byte at `offset`; called twice, it was never done.
pub(crate) fn flip(file: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("it is long");
    file.write_all_at(&[!byte[0]], offset).expect("it is ours");
    file.sync_all().expect("a disk");
}

#[test]
fn stat_says_what_stands_in_a_log_in_use_and_at_rest() {
    let data = directory();
    let mut node = Node::start(data.path(), &SMALL);
    let mut alice = Chat::connect(&node, "alice", "a");
    fill(&mut alice, 700, 16 << 10);
    let arguments = ["stat", "--data", text(data.path()), "--json"];
    let used = log(&arguments);
    used.check(0, &[]);
    let used = used.json();
    assert_eq!(used["in_use"], true);
    assert!(used["logs"][0]["records"].as_u64().is_some_and(|records| records >= 650), "{used}");

    node.kill();
    let before = files(data.path());
    let rest = log(&arguments).json();
    assert_eq!(rest["in_use"], false);
    let log_0 = &rest["logs"][0];
    // Beside the messages: the start, and the conversation's state.
    assert!(log_0["records"].as_u64().is_some_and(|records| (702..710).contains(&records)), "{rest}");
    assert_eq!((&log_0["conversations"], &log_0["users"]), (&json!(1), &json!(2)));
    assert_eq!((&log_0["first_position"], &log_0["last_position"]), (&json!(1), &log_0["records"]));
    assert!(log_0["segments"].as_u64().is_some_and(|segments| segments >= 3));
    assert!(log_0["oldest"].as_u64() < log_0["newest"].as_u64());
    log(&["stat", "--data", text(data.path())]).check(0, &["1 conversations and 2 users", "ends at offset"]);
    // Each letter is a message of 16 KiB, and hardly anything else is there.
    let [sealed, live] = ["sealed_bytes", "live_bytes"].map(|field| log_0[field].as_u64().expect("a number"));
    assert!(sealed > 0 && live <= sealed && live * 100 > sealed * 90, "{live} of {sealed}");

    // What is torn is no damage; what is damaged is.
    let end = log_0["end_offset"].as_u64().expect("an offset");
    let segment = data.path().join("log-00").join(log_0["end_segment"].as_str().expect("a name"));
    flip(&segment, end + 7);
    log(&arguments[..3]).check(0, &["nobody was told of it"]);
    flip(&segment, end + 7);
    flip(&data.path().join(SEGMENT), 4096 + 20);
    fs::remove_file(data.path().join(SEGMENT).with_extension("idx")).expect("it is sealed");
    log(&arguments[..3]).check(1, &["damaged at offset 4096 of seg-0000000000000000.log"]);
    flip(&data.path().join(SEGMENT), 4096 + 20);
    assert_eq!(log(&arguments).json()["logs"][0]["records"], log_0["records"]);
    // It reads; two files of ours were changed and changed back, and one is gone.
    let changed = files(data.path());
    let same = before.iter().filter(|(path, facts)| changed.get(*path) == Some(facts)).count();
    assert_eq!((changed.len(), same), (before.len() - 1, before.len() - 4), "{before:?} {changed:?}");
}

/// A directory that a killed node left, in several segments.
fn left_behind() -> tempfile::TempDir {
    let data = directory();
    let mut node = Node::start(data.path(), &SMALL);
    let mut alice = Chat::connect(&node, "alice", "a");
    fill(&mut alice, 700, 16 << 10);
    // The index files of its sealed segments are made by the next start at the latest.
    node.restart();
    node.kill();
    data
}

#[test]
fn verify_finds_every_damage_and_names_its_place() {
    let data = left_behind();
    let before = files(data.path());
    let arguments = ["verify", "--data", text(data.path()), "--json"];
    let sound = log(&arguments);
    sound.check(0, &["log 0: "]);
    let sound = sound.json()["logs"][0].clone();
    assert_eq!((&sound["damaged"], &sound["torn"]), (&json!([]), &json!([])));
    assert!(sound["indexes_compared"].as_u64().is_some_and(|files| files >= 2), "{sound}");
    let records = sound["records"].as_u64().expect("a number");
    assert!(records >= 702);

    let log_0 = data.path().join("log-00");
    let index = "seg-0000000000000000.idx";
    let footer = fs::metadata(log_0.join(index)).expect("an index").len() - 128;
    for (file, offset, damaged, words) in [
        // The start takes the first block; the second batch holds messages.
        ("seg-0000000000000000.log", 4096 + 70, 4096 + 64, "records that do not hold their checksums"),
        ("seg-0000000000000000.log", 4096 + 9, 4096, "no batch stands where one must"),
        ("seg-0000000000400000.log", 9, 0, "the segment's header is unreadable"),
        (index, 100, 0, "an index file that is not what is made from its segment"),
        (index, footer + 40, footer, "an index file that is not what is made from its segment"),
    ] {
        flip(&log_0.join(file), offset);
        let found = log(&arguments);
        found.check(1, &[words]);
        let found = found.json()["logs"][0].clone();
        assert_eq!(found["damaged"][0]["file"], file);
        assert_eq!(found["damaged"][0]["offset"], damaged, "{found}");
        assert_eq!(found["damaged"].as_array().map(Vec::len), Some(1), "{found}");
        let lost = found["records_damaged"].as_u64().expect("a number");
        assert_eq!(found["records"].as_u64(), Some(records - lost), "it goes on behind: {found}");
        flip(&log_0.join(file), offset);
    }
    // A whole segment is gone; what stands behind it is read.
    fs::rename(log_0.join("seg-0000000000400000.log"), data.path().join("away")).expect("it was made");
    let found = log(&arguments);
    found.check(1, &["the segment is missing"]);
    let found = found.json()["logs"][0].clone();
    let lost = found["records_damaged"].as_u64().expect("a number");
    assert!(lost > 200 && found["records"].as_u64() == Some(records - lost), "{found}");
    fs::rename(data.path().join("away"), log_0.join("seg-0000000000400000.log")).expect("it was moved");

    // What is torn is said, and is no damage.
    let end = sound["end_offset"].as_u64().expect("an offset");
    let segment = log_0.join(sound["end_segment"].as_str().expect("a name"));
    flip(&segment, end + 600);
    let torn = log(&arguments[..3]);
    torn.check(0, &["torn: log 0", "nobody was told of it", "sound;"]);
    flip(&segment, end + 600);
    assert_eq!(log(&arguments).json()["logs"][0], sound);
    let changed: Vec<_> = files(data.path()).into_keys().collect();
    assert!(changed.iter().eq(before.keys()), "nothing was made: {changed:?}");
}

/// A node that is busy all the while: what it has under way is neither counted nor damage.
#[test]
fn verify_and_stat_disturb_no_node_and_are_not_disturbed() {
    let data = directory();
    let mut node = Node::start(data.path(), &SMALL);
    let mut alice = Chat::connect(&node, "alice", "a");
    let mut seen = 0;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| fill(&mut alice, 3_000, 4 << 10).0.len());
        while !sender.is_finished() {
            let verified = log(&["verify", "--data", text(data.path()), "--json"]);
            verified.check(0, &[]);
            let verified = verified.json();
            assert_eq!(verified["in_use"], true);
            let records = verified["logs"][0]["records"].as_u64().expect("a number");
            assert!(records >= seen, "{records} after {seen}");
            seen = records;
            log(&["stat", "--data", text(data.path())]).check(0, &["in use by a node"]);
        }
        assert_eq!(sender.join().expect("it sends"), 3_000);
    });
    alice.is_fine();
    node.restart();
    let mut bob = Chat::connect(&node, "bob", "b");
    bob.is_fine();
}

/// One JSON object a line.
fn lines(said: &Said) -> Vec<Value> {
    said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn dump_prints_one_stream_and_nothing_else() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_LOGS", "2"), ("GATEHOUSE_SEGMENT_MIB", "4")]);
    let (mut alice, mut carl) = (Chat::connect(&node, "alice", "a"), Chat::connect(&node, "carl", "c"));
    let conversation = alice.tell("bob", "first")["conversation"].as_str().expect("an id").to_owned();
    carl.tell("bob", "of another");
    for number in 2..=20 {
        alice.tell("bob", &format!("number {number} \u{1b}[31m\nred"));
    }
    // The last is above the durable mark until the log is idle; the mark comes 50 ms later.
    let path = text(data.path()).to_owned();
    let arguments = ["dump", "--data", &path, "--conversation", &conversation];
    let begun = std::time::Instant::now();
    let dumped = loop {
        let dumped = log(&[&arguments[..], &["--json"]].concat());
        dumped.check(0, &[]);
        let lines = lines(&dumped);
        if lines.len() >= 20 {
            break lines;
        }
        assert!(begun.elapsed() < crate::node::PATIENCE, "{lines:?}");
    };
    let sequences: Vec<_> = dumped.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert!(sequences.iter().copied().eq(1..=sequences.len() as u64), "{sequences:?}");
    let messages: Vec<_> = dumped.iter().filter(|line| line["op"] == "message").collect();
    assert_eq!(messages.len(), 20);
    assert!(
        messages.iter().all(|line| line["sender"] == "alice" && line["stream"] == 1 && line["schema"] == 1)
    );
    assert_eq!(
        (&messages[0]["text"], &messages[1]["text"]),
        (&json!("first"), &json!("number 2 \u{1b}[31m\nred"))
    );
    let positions: Vec<_> = dumped.iter().map(|line| line["position"].as_u64()).collect();
    assert!(positions.is_sorted() && dumped.iter().all(|line| line["at"].is_u64()));

    // For people: nothing in it ends a line or steers a terminal.
    let part = log(&[&arguments[..], &["--from", "5", "--limit", "3"]].concat());
    part.check(0, &[" seq 5 message ", " seq 7 message ", "sender=\"alice\""]);
    assert_eq!(part.out.lines().count(), 3, "{}", part.out);
    assert!(!part.out.contains('\u{1b}'));

    // A user's inbox: everything linked into it, from every log.
    let inbox = lines(&log(&["dump", "--data", &path, "--user", "bob", "--json"]));
    assert_eq!(inbox.iter().filter(|line| line["op"] == "message").count(), 21);
    assert_eq!(inbox.iter().filter(|line| line["sender"] == "carl").count(), 1);
    let states = lines(&log(&[&arguments[..], &["--state", "--json"]].concat()));
    let members = states.last().expect("a state")["members"].as_array().expect("a list").len();
    assert_eq!((members, &states[0]["kind"], &states[0]["stream"]), (2, &json!("direct"), &json!(2)));

    let nobody = log(&["dump", "--data", &path, "--user", "nobody"]);
    nobody.check(0, &["no such record"]);
    for bad in [&["dump", "--data", &path][..], &["dump", "--data", &path, "--conversation", "x"]] {
        log(bad).check(2, &[]);
    }
}

#[test]
fn a_directory_that_is_none_is_refused_in_words() {
    let data = directory();
    log(&["verify", "--data", text(data.path())]).check(2, &["is no data directory"]);
    log(&["stat", "--data", text(data.path())]).check(2, &["is no data directory", "store.toml"]);
    assert_eq!(fs::read_dir(data.path()).expect("a directory").count(), 0, "nothing is made");
    let file = data.path().join("file");
    fs::write(&file, "of mine").expect("a file");
    log(&["stat", "--data", text(&file)]).check(2, &["file is no data directory", "store.toml"]);
}

/// `script` gives it a terminal; what goes there goes to our pipe.
#[test]
fn a_bar_is_shown_on_a_terminal_and_taken_away_again() {
    let data = directory();
    let mut node = Node::start(data.path(), &SMALL);
    fill(&mut Chat::connect(&node, "alice", "a"), 300, 15 << 10);
    node.kill();
    let verify = format!("{} log verify --data {}", env!("CARGO_BIN_EXE_gatehouse"), text(data.path()));
    let mut script = Command::new("script");
    script.args(["-qec", &verify, "/dev/null"]).stdin(Stdio::null());
    let said = script.output().expect("script is in every Debian");
    let said = String::from_utf8(said.stdout).expect("it says text");
    let (shown, rest) =
        said.rsplit_once("\r\x1b[K").unwrap_or_else(|| panic!("nothing is taken away: {said:?}"));
    let bars: Vec<&str> = shown.split("\x1b[K").filter(|bar| !bar.is_empty()).collect();
    assert!(!bars.is_empty(), "{said:?}");
    for bar in bars {
        let parts = bar.strip_prefix("\rlog 0: ").and_then(|bar| bar.split_once(" segments ["));
        let (bar, percent) = parts.and_then(|(_, bar)| bar.split_once("] ")).expect("a bar");
        assert!(bar.len() == 24 && bar.trim_start_matches('#').trim_end_matches('.').is_empty(), "{bar}");
        assert!(percent.contains(" %, "), "{percent}");
    }
    assert!(rest.starts_with("log 0: sound"), "{rest:?}");
    // Elsewhere it is plain lines.
    let plain = log(&["verify", "--data", text(data.path())]);
    plain.check(0, &["log 0: sound", " segments: ", " %\n"]);
    assert!(!plain.err.contains(['\r', '\x1b', '#']), "{}", plain.err);
}
