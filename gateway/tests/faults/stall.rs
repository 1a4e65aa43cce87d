//! A disk that answers nobody for a while, and a process that the system has stopped: nothing is acknowledged meanwhile, everybody
//! else goes on, and afterwards everything is there once.

use std::process::Command;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    chat::{Chat, message_id, verdict},
    disk::Disk,
    node::{Node, directory},
};

/// Sends that are under way when it happens.
const SENDS: usize = 12;

/// Round trips of somebody else meanwhile.
const ROUNDS: usize = 200;

/// A file system that takes no writes until this is dropped: they wait, as those of a device that does not answer.
struct Frozen<'d>(&'d Disk);

impl<'d> Frozen<'d> {
    fn freeze(disk: &'d Disk) -> Self {
        fsfreeze(disk, "--freeze");
        Self(disk)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        fsfreeze(self.0, "--unfreeze");
    }
}

fn fsfreeze(disk: &Disk, what: &str) {
    let status = Command::new("fsfreeze").arg(what).arg(&disk.root).status().expect("util-linux has it");
    assert!(status.success(), "fsfreeze {what}: {status}");
}

fn letter(id: &str) -> Value {
    json!({ "to": "bob", "kind": "text", "text": id, "message_id": id })
}

/// The texts of a conversation, in order.
fn texts(chat: &mut Chat, conversation: &Value) -> Vec<String> {
    let items = chat.history(conversation);
    items.iter().map(|item| item["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_disk_that_answers_nobody_acknowledges_nothing_and_stops_nobody_else() {
    let Some(disk) = Disk::mount() else { return };
    let node =
        Node::start(&disk.root.join("data"), &[("GATEHOUSE_SEGMENT_MIB", "16"), ("GATEHOUSE_LOGS", "1")]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let conversation = alice.tell("bob", "before")["conversation"].take();
    let mut others: Vec<Chat> =
        (0..8).map(|number| Chat::connect(&node, &format!("other-{number}"), "d")).collect();
    let now = alice.welcome["now"].clone();
    let ids: Vec<String> = (0..SENDS).map(|_| message_id(&now)).collect();

    let frozen = Frozen::freeze(&disk);
    let asked: Vec<u64> = ids.iter().map(|id| alice.send("send", letter(id))).collect();
    for _ in 0..ROUNDS {
        // Those of both shards are answered, and who waits for the disk is too, in what needs none.
        others.iter_mut().for_each(Chat::is_fine);
        alice.is_fine();
    }
    assert_eq!(texts(&mut alice, &conversation), ["before"], "what is not on the disk is read by nobody");
    let early = alice.take_events().into_iter().find(|frame| frame["op"] == "ok");
    assert_eq!(early, None, "nothing is acknowledged that is not on the disk");
    drop(frozen);

    let seqs: Vec<u64> =
        asked.into_iter().map(|id| alice.reply(id)["seq"].as_u64().expect("stored")).collect();
    assert_eq!(seqs, (2..2 + SENDS as u64).collect::<Vec<_>>());
    assert_eq!(texts(&mut alice, &conversation)[1..], ids);
}

#[test]
fn who_gives_up_on_a_stopped_process_and_comes_back_has_sent_everything_once() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let conversation = alice.tell("bob", "before")["conversation"].take();
    let now = alice.welcome["now"].clone();
    let ids: Vec<String> = (0..SENDS).map(|_| message_id(&now)).collect();

    kill_process(node.id(), Signal::STOP).expect("it runs");
    // They lie in its socket. The client waits for none of them, and leaves.
    for id in &ids {
        alice.send("send", letter(id));
    }
    drop(alice);
    kill_process(node.id(), Signal::CONT).expect("it is there");

    let mut alice = Chat::connect(&node, "alice", "a");
    let asked: Vec<u64> = ids.iter().map(|id| alice.send("send", letter(id))).collect();
    for id in asked {
        assert_eq!(verdict(&alice.reply(id)), "ok");
    }
    let mut stored = texts(&mut alice, &conversation);
    assert_eq!(stored.remove(0), "before");
    assert_eq!(stored, ids, "each once, in their order");
}
