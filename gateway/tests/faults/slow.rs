//! A disk that takes a megabyte a second: who sends waits for it or is told to come back, everybody else goes on, memory stays bounded,
//! and everything is stored once.

use std::{
    fs,
    io::{Write as _, stderr},
    os::linux::fs::MetadataExt as _,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{major, minor};
use serde_json::{Value, json};
use storage_log::format::{BATCH_BYTES_MAX, PENDING_BYTES_MAX};

use crate::{
    chat::{Chat, message_id, verdict},
    disk::Disk,
    node::{Node, directory},
};

/// What the disk takes.
const BYTES_A_SECOND: u64 = 1 << 20;

/// Who sends at the same time, how many letters each without waiting, and how long each is: 7 MB more than the 16 MiB that may
/// wait for the disk, because it takes some of them while they are being sent, on a busy machine for seconds.
const SENDERS: usize = 96;
const LETTERS: usize = 16;
const LETTER_BYTES: usize = 15 << 10;

/// How long each waits at least between two letters that it sends again: all at once they would be under way between the shards as well.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What may be written between a letter that was taken and its answer: what waits, the batch that takes records, the one that is being written,
/// and one more in which the answer is on its way.
const AHEAD_BYTES_MAX: u64 = (PENDING_BYTES_MAX + 3 * BATCH_BYTES_MAX) as u64;

/// What the process may grow by: what waits for the disk, as much of the newest batches for readers, and half of that for all else.
const GROWTH_BYTES_MAX: u64 = (2 * PENDING_BYTES_MAX + PENDING_BYTES_MAX / 2) as u64;

/// Where the system lets writes to a device be held back.
const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";

/// A disk that is slow until this is dropped.
struct Slow(String);

impl Slow {
    /// `None`, said aloud, where the system cannot.
    fn make(disk: &Disk) -> Option<Self> {
        let device = fs::metadata(&disk.root).expect("it is mounted").st_dev();
        let device = format!("{}:{}", major(device), minor(device));
        match fs::write(THROTTLE, format!("{device} {BYTES_A_SECOND}\n")) {
            Ok(()) => Some(Self(device)),
            Err(error) => {
                let _ = writeln!(stderr(), "not run: a slow disk needs {THROTTLE} ({error})");
                None
            }
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = fs::write(THROTTLE, format!("{} 0\n", self.0));
    }
}

/// One who sends letters to somebody, and asks again for those that found no room.
struct Sender {
    chat: Chat,
    user: String,
    to: String,
    ids: Vec<String>,
    asked: Vec<(u64, usize)>,
    conversation: Value,
    was_busy: usize,
}

impl Sender {
    fn begin(node: &Node, number: usize) -> Self {
        let user = format!("sender-{number}");
        let chat = Chat::connect(node, &user, "d");
        let now = chat.welcome["now"].clone();
        let ids = (0..LETTERS).map(|_| message_id(&now)).collect();
        let to = format!("reader-{number}");
        let mut sender =
            Self { chat, user, to, ids, asked: Vec::new(), conversation: Value::Null, was_busy: 0 };
        (0..LETTERS).for_each(|letter| sender.send(letter));
        sender
    }

    fn send(&mut self, letter: usize) {
        let id = &self.ids[letter];
        let text = format!("{letter:02}{}", "x".repeat(LETTER_BYTES));
        let asked =
            self.chat.send("send", json!({ "to": self.to, "kind": "text", "text": text, "message_id": id }));
        self.asked.push((asked, letter));
    }

    /// Takes every answer, and asks again for what found no room; whether all is stored.
    fn take_answers(&mut self, node: &Node) -> bool {
        // Each has a moment of its own: one after the other they would be waited for until this is closed for its silence.
        let mut again = Vec::new();
        for (asked, letter) in std::mem::take(&mut self.asked) {
            let reply = self.answer(asked, node);
            match verdict(&reply).as_str() {
                "ok" => self.conversation = reply["conversation"].clone(),
                "3002 busy" => {
                    let millis = reply["retry_after_ms"].as_u64().filter(|millis| *millis > 0);
                    self.was_busy += 1;
                    let wait = Duration::from_millis(millis.expect("when to come back"));
                    again.push((Instant::now() + wait, letter));
                }
                other => panic!("{other}: {reply}"),
            }
        }
        again.sort_unstable();
        for (moment, letter) in again {
            thread::sleep(moment.saturating_duration_since(Instant::now()).max(AGAIN_AFTER));
            self.send(letter);
        }
        self.asked.is_empty()
    }

    /// An answer comes when all has been written that is ahead of it, and no time says when that is: here after 22 s, beside the zeros of the next
    /// segment, and half as long again where the disk under this one is waited for too. What has been written says that it is not lost.
    fn answer(&mut self, asked: u64, node: &Node) -> Value {
        let (mut first, mut newest) = (None, 0);
        self.chat.reply_from_disk(asked, || {
            let written = node.metric("log_bytes_total");
            assert!(written > newest, "nothing is written any more, and {asked} has no answer");
            newest = written;
            let ahead = written - *first.get_or_insert(written);
            assert!(ahead <= AHEAD_BYTES_MAX, "{ahead} bytes were written, and {asked} has no answer");
        })
    }

    /// Each letter is there once. Told to another device: who was done first may have said nothing for a minute.
    fn check(&mut self, node: &Node) {
        let mut stored: Vec<String> = Chat::connect(node, &self.user, "e")
            .history(&self.conversation)
            .iter()
            .map(|item| item["message_id"].as_str().expect("an id").to_owned())
            .collect();
        stored.sort_unstable();
        self.ids.sort_unstable();
        assert_eq!(stored, self.ids);
    }
}

#[test]
fn a_disk_of_a_megabyte_a_second_holds_back_who_sends_and_nobody_else() {
    let Some(disk) = Disk::mount() else { return };
    let node =
        Node::start(&disk.root.join("data"), &[("GATEHOUSE_SEGMENT_MIB", "64"), ("GATEHOUSE_LOGS", "1")]);
    let mut others: Vec<Chat> =
        (0..8).map(|number| Chat::connect(&node, &format!("other-{number}"), "d")).collect();
    let before = node.resident_bytes();
    let Some(slow) = Slow::make(&disk) else { return };

    let begun = Instant::now();
    let mut senders: Vec<Sender> = (0..SENDERS).map(|number| Sender::begin(&node, number)).collect();
    // Those of both shards are answered while the disk has seconds of work.
    for _ in 0..20 {
        others.iter_mut().for_each(Chat::is_fine);
    }
    // Each reads on a thread of its own: who is not read for half a minute is closed.
    let most = thread::scope(|scope| {
        let threads: Vec<_> =
            senders.iter_mut().map(|sender| scope.spawn(|| while !sender.take_answers(&node) {})).collect();
        let mut most = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            most = most.max(node.resident_bytes());
            others.iter_mut().for_each(Chat::is_fine);
        }
        most
    });
    let took = begun.elapsed();
    drop(slow);

    let stored = (SENDERS * LETTERS * LETTER_BYTES) as u64;
    assert!(took > Duration::from_secs(stored / BYTES_A_SECOND / 2), "the disk was slow: {took:?}");
    assert!(most.saturating_sub(before) < GROWTH_BYTES_MAX, "from {before} to {most}");
    assert!(senders.iter().any(|sender| sender.was_busy > 0), "more was sent than may wait");
    senders.iter_mut().for_each(|sender| sender.check(&node));
}

/// An operator who asks whose reader is slow is told, and until when: it is not closed, and nothing of it is lost.
#[test]
fn a_slow_reader_is_named_until_it_has_everything() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let mut bob = Chat::connect(&node, "bob", "b");
    let text = "x".repeat(LETTER_BYTES);
    const LETTERS: u64 = 600;
    for letter in 0..LETTERS {
        alice.tell("bob", &format!("{letter} {text}"));
    }
    node.wait_for_metric("slow_readers", 1);
    let page = node.admin_get("/metrics");
    assert!(page.contains("\ngatehouse_slow_reader_since_timestamp_seconds{user=\"bob\"} 1"), "{page}");
    for letter in 0..LETTERS {
        let told = bob.event("message")["text"].as_str().expect("a text").to_owned();
        assert_eq!(told.split(' ').next(), Some(letter.to_string().as_str()));
    }
    node.wait_for_metric("slow_readers", 0);
    assert!(!node.admin_get("/metrics").contains("{user=\"bob\"}"));
    bob.is_fine();
}

/// Who takes nothing at all for half a minute is closed, which the log says beforehand and then; it has lost nothing when it comes back.
#[test]
fn who_takes_nothing_is_closed_after_half_a_minute_and_resumes() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let bob = Chat::connect(&node, "bob", "b");
    let cursor = bob.welcome["cursor"].as_str().expect("a cursor").to_owned();
    let text = "x".repeat(LETTER_BYTES);
    const LETTERS: u64 = 600;
    for letter in 0..LETTERS {
        alice.tell("bob", &format!("{letter} {text}"));
    }
    let line = node.log_line(&["a reader is slow", "bob"]);
    assert!(line.contains("slow_readers=1"), "{line}");
    alice.is_fine();
    node.log_line(&["bob", "took nothing for 30 s"]);
    assert_eq!(node.metric("closes_total{code=\"4001\"}"), 1);
    node.wait_for_metric("slow_readers", 0);
    drop(bob);
    let mut bob = Chat::connect_with(&node, &node.token("bob"), json!({ "device": "b", "cursor": cursor }));
    for letter in 0..LETTERS {
        let told = bob.event("message")["text"].as_str().expect("a text").to_owned();
        assert_eq!(told.split(' ').next(), Some(letter.to_string().as_str()));
    }
    bob.is_fine();
}
