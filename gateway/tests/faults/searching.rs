//! Search over real sockets: what is found, by whom, over kill -9, a new process, and whatever becomes of the index.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    chat::{Chat, verdict},
    erasure::{erase, files, wait_until_done},
    node::{Node, PATIENCE, directory},
};

const SEARCHES: [(&str, &str); 3] = [("shards", "3"), ("GATEHOUSE_LOGS", "3"), ("GATEHOUSE_SEARCH", "true")];

/// The sequences that a query finds, page by page, newest first; `None` while the index does not know everything.
#[track_caller]
fn found(chat: &mut Chat, query: &str, conversation: Option<&Value>) -> Option<Vec<u64>> {
    let (mut seqs, mut before) = (Vec::new(), Value::Null);
    loop {
        let mut fields = json!({ "query": query, "limit": 7 });
        if let Some(conversation) = conversation {
            fields["conversation"] = conversation.clone();
        }
        if !before.is_null() {
            fields["before"] = before;
        }
        let mut page = chat.ask("search", fields);
        assert_eq!(page["op"], "page", "{page}");
        if page["partial"] == true {
            return None;
        }
        let hits = page["hits"].as_array().expect("a list");
        seqs.extend(hits.iter().map(|hit| hit["seq"].as_u64().expect("a sequence")));
        if page["more"] == false {
            return Some(seqs);
        }
        before = page["before"].take();
    }
}

/// Asks until the index knows as much.
#[track_caller]
fn wait_for(chat: &mut Chat, query: &str, expected: &[u64]) {
    let begun = Instant::now();
    loop {
        let found = found(chat, query, None);
        if found.as_deref() == Some(expected) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{query} finds {found:?}, not {expected:?}");
    }
}

fn index_of(data: &Path) -> PathBuf {
    data.join("search")
}

#[test]
fn what_is_said_is_found_by_who_may_read_it_and_after_kill_9() {
    let data = directory();
    let mut node = Node::start(data.path(), &SEARCHES);
    let mut alice = Chat::connect(&node, "alice", "phone");
    assert!(alice.welcome["features"].as_array().expect("a list").iter().any(|feature| feature == "search"));
    let ok = alice.tell("bob", "Red fish, and more");
    let conversation = &ok["conversation"];
    for text in ["blue fish", "red herring", "a plan"] {
        alice.tell("bob", text);
    }
    alice.tell("carol", "red fish too");
    let mut bob = Chat::connect(&node, "bob", "phone");
    wait_for(&mut bob, "fish RED", &[1]);
    wait_for(&mut alice, "fish red", &[1, 1]);
    assert_eq!(found(&mut alice, "fish", Some(conversation)), Some(vec![2, 1]));
    let hit = bob.ask("search", json!({ "query": "more", "limit": 1 }));
    assert_eq!(
        hit["hits"],
        json!([{ "conversation": conversation, "seq": 1, "snippet": "Red fish, and more" }])
    );
    let mut mallory = Chat::connect(&node, "mallory", "phone");
    assert_eq!(found(&mut mallory, "fish", None), Some(Vec::new()));
    let refusal = mallory.ask("search", json!({ "query": "fish", "limit": 1, "conversation": conversation }));
    assert_eq!(verdict(&refusal), "2004 not_a_member");
    // Nothing that was taken back is found behind the `ok`, whatever the index knows.
    let edit = json!({ "conversation": conversation, "seq": 1, "text": "green bird" });
    assert_eq!(verdict(&alice.ask("edit", edit)), "ok");
    assert_eq!(verdict(&alice.ask("delete", json!({ "conversation": conversation, "seq": 3 }))), "ok");
    for query in ["more", "herring"] {
        assert_eq!(found(&mut bob, query, None).unwrap_or_default(), [] as [u64; 0], "{query}");
    }
    wait_for(&mut bob, "bird", &[1]);
    // Said in the last moment before a kill.
    alice.tell("bob", "the last words");
    node.restart();
    let mut bob = Chat::connect(&node, "bob", "phone");
    wait_for(&mut bob, "last words", &[7]);
    for (query, seqs) in [("fish", &[2][..]), ("bird", &[1]), ("herring", &[]), ("plan", &[4])] {
        assert_eq!(found(&mut bob, query, None).as_deref(), Some(seqs), "{query}");
    }
    assert_eq!(node.metric("search_rebuilds_total"), 0);
    assert_eq!(node.metric("search_documents"), 5);
}

/// Several segments, some of them written anew, with amendments far behind what they amend.
#[test]
fn an_index_that_is_gone_or_damaged_is_made_again_from_all_kinds_of_segments() {
    const COUNT: u64 = 3_000;
    let data = directory();
    let settings = [
        ("shards", "2"),
        ("GATEHOUSE_LOGS", "1"),
        ("GATEHOUSE_SEARCH", "true"),
        ("GATEHOUSE_SEGMENT_MIB", "4"),
        ("GATEHOUSE_COMPACT_AFTER_SECONDS", "1"),
        ("GATEHOUSE_USER_MESSAGES_PER_SECOND", "0"),
        ("GATEHOUSE_SESSION_COMMANDS_PER_SECOND", "0"),
    ];
    let mut node = Node::start(data.path(), &settings);
    let mut alice = Chat::connect(&node, "alice", "phone");
    let mut conversation = Value::Null;
    for window in (0..COUNT).collect::<Vec<_>>().chunks(30) {
        let say = |number: &u64| {
            let word = if number.is_multiple_of(100) { "needle" } else { "hay" };
            json!({ "to": "bob", "kind": "text", "text": format!("{word} {number} {}", "x ".repeat(2_000)) })
        };
        let asked: Vec<u64> = window.iter().map(|number| alice.send("send", say(number))).collect();
        for (id, number) in asked.into_iter().zip(window) {
            let reply = alice.reply(id);
            let reply = alice.ask_again(reply, &say(number));
            assert_eq!(verdict(&reply), "ok");
            conversation = reply["conversation"].clone();
        }
        alice.take_events();
    }
    let begun = Instant::now();
    while node.metric("log_compactions_total") < 2 {
        assert!(begun.elapsed() < PATIENCE, "segments are written anew");
    }
    let page = alice.ask("history", json!({ "conversation": conversation, "limit": 1 }));
    assert_eq!(page["messages"][0]["seq"], COUNT);
    wait_for_needles(&mut alice, &node);
    let needles = found(&mut alice, "needle", None).expect("it is not partial");
    let edit = json!({ "conversation": conversation, "seq": needles[29], "text": "a pin" });
    assert_eq!(verdict(&alice.ask("edit", edit)), "ok");
    assert_eq!(
        verdict(&alice.ask("delete", json!({ "conversation": conversation, "seq": needles[28] }))),
        "ok"
    );
    let expected = &needles[..28];
    wait_for(&mut alice, "needle", expected);
    for how in ["gone", "damaged"] {
        node.kill();
        match how {
            "gone" => fs::remove_dir_all(index_of(data.path())).expect("it is there"),
            _ => fs::write(index_of(data.path()).join("meta.json"), "{}").expect("it is there"),
        }
        node.restart();
        let mut alice = Chat::connect(&node, "alice", "phone");
        wait_for(&mut alice, "needle", expected);
        wait_for(&mut alice, "pin", &[needles[29]]);
        assert_eq!(node.metric("search_documents"), COUNT - 1, "{how}: each once");
        assert_eq!(node.metric("search_rebuilds_total"), u64::from(how == "damaged"));
    }
}

#[test]
fn an_index_that_is_ahead_of_logs_that_were_restored_is_made_again() {
    let (data, copy) = (directory(), directory());
    let mut node = Node::start(data.path(), &SEARCHES);
    let mut alice = Chat::connect(&node, "alice", "phone");
    alice.tell("bob", "red fish");
    node.kill();
    copy_logs(data.path(), copy.path());
    node.restart();
    let mut alice = Chat::connect(&node, "alice", "phone");
    alice.tell("bob", "blue fish");
    alice.tell("bob", "green fish");
    wait_for(&mut alice, "fish", &[3, 2, 1]);
    node.kill();
    copy_logs(copy.path(), data.path());
    node.restart();
    node.wait_for_metric("search_rebuilds_total", 1);
    let mut alice = Chat::connect(&node, "alice", "phone");
    wait_for(&mut alice, "fish", &[1]);
}

/// How far the index was is no more than a number then, and the logs are past it.
#[test]
fn an_index_of_logs_that_were_restored_and_have_grown_since_is_made_again() {
    let (data, copy) = (directory(), directory());
    let mut node = Node::start(data.path(), &SEARCHES);
    let mut alice = Chat::connect(&node, "alice", "phone");
    alice.tell("bob", "red fish");
    wait_for(&mut alice, "fish", &[1]);
    node.kill();
    copy_logs(data.path(), copy.path());
    node.restart();
    let mut alice = Chat::connect(&node, "alice", "phone");
    alice.tell("bob", "blue fish");
    wait_for(&mut alice, "fish", &[2, 1]);
    node.kill();
    drop(node);
    copy_logs(copy.path(), data.path());
    let mut grown = Node::start(data.path(), &SEARCHES[..2]);
    let mut alice = Chat::connect(&grown, "alice", "phone");
    for number in 0..5 {
        alice.tell("bob", &format!("pink fish {number}"));
    }
    grown.kill();
    drop(grown);
    let node = Node::start(data.path(), &SEARCHES);
    node.wait_for_metric("search_rebuilds_total", 1);
    let mut alice = Chat::connect(&node, "alice", "phone");
    wait_for(&mut alice, "pink", &[6, 5, 4, 3, 2]);
    wait_for(&mut alice, "blue", &[]);
}

fn copy_logs(from: &Path, to: &Path) {
    for log in ["log-00", "log-01", "log-02"] {
        let _ = fs::remove_dir_all(to.join(log));
        let cp =
            Command::new("cp").args(["-a", "--sparse=always"]).args([from.join(log), to.join(log)]).status();
        assert!(cp.expect("there is cp").success());
    }
}

#[track_caller]
fn wait_for_needles(alice: &mut Chat, node: &Node) {
    let begun = Instant::now();
    while found(alice, "needle", None).is_none_or(|found| found.len() < 30) {
        assert!(begun.elapsed() < PATIENCE, "{}", node.log_text());
    }
}

#[test]
fn what_an_operator_erases_is_found_no_more_and_its_words_leave_the_index() {
    let data = directory();
    let node = Node::start(data.path(), &SEARCHES);
    let mut alice = Chat::connect(&node, "alice", "phone");
    alice.tell("bob", "under four eyes: abracadabra");
    let mut bob = Chat::connect(&node, "bob", "phone");
    bob.tell("alice", "four winds");
    wait_for(&mut bob, "four", &[2, 1]);
    let asked_at = erase(&node, data.path(), &json!({ "user": "alice" }));
    assert_eq!(found(&mut bob, "abracadabra", None).unwrap_or_default(), [] as [u64; 0]);
    wait_until_done(&node, data.path(), asked_at);
    node.wait_for_metric("search_documents", 1);
    let begun = Instant::now();
    let holds = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(11).any(|bytes| bytes == b"abracadabra")
    };
    while files(&index_of(data.path())).iter().any(holds) {
        assert!(begun.elapsed() < PATIENCE, "its words are on the disk");
    }
    wait_for(&mut bob, "four", &[2]);
    // What is said afterwards is.
    alice.tell("bob", "abracadabra once more");
    wait_for(&mut bob, "abracadabra", &[3]);
}

#[test]
fn a_node_without_search_says_so_and_has_no_index() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "phone");
    assert!(alice.welcome["features"].as_array().expect("a list").iter().all(|feature| feature != "search"));
    let refusal = alice.ask("search", json!({ "query": "fish", "limit": 1 }));
    assert_eq!(verdict(&refusal), "2005 not_allowed");
    assert!(!index_of(data.path()).exists());
}

/// A file stands where the directory is to be.
#[test]
fn an_index_that_cannot_be_written_leaves_chat_alone() {
    let data = directory();
    fs::write(index_of(data.path()), "in the way").expect("a directory of ours");
    let node = Node::start(data.path(), &SEARCHES);
    let mut alice = Chat::connect(&node, "alice", "phone");
    let ok = alice.tell("bob", "red fish");
    node.log_line(&["the index of words cannot be written"]);
    assert_eq!(found(&mut alice, "fish", None), None, "it is partial");
    assert_eq!(alice.history(&ok["conversation"]).len(), 1);
    fs::remove_file(index_of(data.path())).expect("it is there");
    wait_for(&mut alice, "fish", &[1]);
}

#[test]
fn a_new_process_goes_on_with_the_index() {
    let data = directory();
    let node = Node::start(data.path(), &SEARCHES);
    let mut alice = Chat::connect(&node, "alice", "phone");
    alice.tell("bob", "red fish");
    wait_for(&mut alice, "fish", &[1]);
    let answer = node.upgrade();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    alice.tell("bob", "blue fish");
    wait_for(&mut alice, "fish", &[2, 1]);
    assert_eq!(node.metric("search_documents"), 2);
    assert_eq!(node.metric("search_rebuilds_total"), 0);
}
