//! Edits, deletions and reactions over real sockets, in both forms, through kills and compactions.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use protocol::{
    command::{Command, Edit, HistoryRange, MessageKind, React, Send, Target},
    event::{ErrorCode, ServerFrame},
    ids::{ConversationId, Seq, UserId},
    upgrade::Form,
};
use serde_json::{Value, json};

use crate::{
    chat::{Chat, message_id, undisturbed, verdict},
    compaction::{EAGER, wait_for_cold},
    logtool::{log, text},
    node::{Node, directory},
    peer::Peer,
};

const FORMS: [Form; 2] = [Form::Json, Form::Binary];

fn say(to: &str, text: &str) -> Command {
    Command::Send(Send {
        target: Target::User(UserId::new(to).expect("a name")),
        kind: MessageKind::Text,
        text: text.to_owned(),
        media: None,
        reply_to: None,
        mentions: Vec::new(),
        message_id: None,
    })
}

fn edit(conversation: ConversationId, seq: u64, text: &str) -> Command {
    Command::Edit(Edit { conversation, seq: Seq(seq), text: text.to_owned(), message_id: None })
}

fn delete(conversation: ConversationId, seq: u64) -> Command {
    Command::Delete { conversation, seq: Seq(seq), message_id: None }
}

fn react(conversation: ConversationId, seq: u64, emoji: &str, on: bool) -> Command {
    Command::React(React { conversation, seq: Seq(seq), emoji: emoji.to_owned(), on, message_id: None })
}

/// The conversation of alice and bob, in which alice has just said this.
fn begun(alice: &mut Peer, text: &str) -> ConversationId {
    match alice.ask(say("bob", text)) {
        ServerFrame::Ok(ok) => ok.conversation.expect("a conversation"),
        other => panic!("{other:?} is no ok"),
    }
}

/// What a reader in either form is shown: in history, and from a cursor of before it all.
#[track_caller]
fn check_shown(node: &Node, conversation: ConversationId, cursors: &[Option<String>], expected: &[&str]) {
    for (form, cursor) in FORMS.into_iter().zip(cursors) {
        let mut bob = Peer::connect(node, "bob", form, cursor.clone());
        assert_eq!(bob.caught_up(), expected, "{form:?} by cursor");
        assert_eq!(bob.history(conversation), expected, "{form:?} in history");
        bob.never_heard("secret");
    }
}

/// Live, in history and by cursor, before and after a kill: every reader in either form is shown the same.
#[test]
fn amendments_of_either_form_are_shown_in_both_and_survive_a_kill() {
    for form in FORMS {
        let data = directory();
        let mut node = Node::start(data.path(), &[]);
        let mut readers = FORMS.map(|form| Peer::connect(&node, "bob", form, None));
        let cursors = readers.each_ref().map(|reader| reader.cursor.clone());
        let mut alice = Peer::connect(&node, "alice", form, None);
        let talk = begun(&mut alice, "first");
        assert_eq!(alice.store(say("bob", "a secret")), Ok(2));
        assert_eq!(alice.store(edit(talk, 1, "better")), Ok(3));
        for reader in &mut readers {
            assert_eq!(
                reader.told(3),
                ["1 alice: first", "2 alice: a secret", "3 alice amended 1: better (edited)"]
            );
        }
        let [json, binary] = &mut readers;
        assert_eq!(json.store(react(talk, 1, "+", true)), Ok(4));
        assert_eq!(binary.store(react(talk, 2, "\u{1f44d}\u{1f3fd}", true)), Ok(5));
        assert_eq!(alice.store(delete(talk, 2)), Ok(6));
        let live = [
            "4 bob amended 1: better (edited) [+ bob]",
            "5 bob amended 2: a secret [\u{1f44d}\u{1f3fd} bob]",
            "6 alice amended 2: deleted",
        ];
        for reader in &mut readers {
            assert_eq!(reader.told(3), live);
        }
        assert_eq!(alice.told(6)[3..], live, "who amends is told as well");
        let mut now = vec![
            "1 alice: better (edited) [+ bob]",
            "2 alice: deleted",
            "3 alice amended 1: better (edited) [+ bob]",
            "4 bob amended 1: better (edited) [+ bob]",
            "5 bob amended 2: deleted",
            "6 alice amended 2: deleted",
        ];
        check_shown(&node, talk, &cursors, &now);
        node.restart();
        check_shown(&node, talk, &cursors, &now);
        // What was amended before the kill is amended on; what was deleted stays so.
        let mut alice = Peer::connect(&node, "alice", form, None);
        let mut bob = Peer::connect(&node, "bob", form, None);
        assert_eq!(bob.store(react(talk, 1, "+", false)), Ok(7));
        assert_eq!(alice.store(edit(talk, 2, "again")), Err(ErrorCode::NotFound));
        now[0] = "1 alice: better (edited)";
        now[2] = "3 alice amended 1: better (edited)";
        now[3] = "4 bob amended 1: better (edited)";
        now.push("7 bob amended 1: better (edited)");
        node.restart();
        check_shown(&node, talk, &cursors, &now);
    }
}

#[test]
fn an_amendment_that_is_sent_again_across_a_kill_is_made_once() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let talk = alice.tell("bob", "one")["conversation"].clone();
    let now = alice.welcome["now"].clone();
    let commands = [
        ("edit", json!({ "conversation": talk, "seq": 1, "text": "two", "message_id": message_id(&now) })),
        (
            "react",
            json!({ "conversation": talk, "seq": 1, "emoji": "+", "on": true, "message_id": message_id(&now) }),
        ),
        ("delete", json!({ "conversation": talk, "seq": 1, "message_id": message_id(&now) })),
    ];
    let seen = |ok: &Value| (verdict(ok), ok["seq"].clone(), ok["message_id"].clone(), ok["at"].clone());
    let first = commands.each_ref().map(|(op, fields)| seen(&alice.ask(op, fields.clone())));
    assert_eq!(first.each_ref().map(|ok| ok.1.clone()), [json!(2), json!(3), json!(4)]);
    node.restart();
    let mut alice = Chat::connect(&node, "alice", "a");
    for ((op, fields), first) in commands.iter().zip(&first) {
        assert_eq!(seen(&alice.ask(op, fields.clone())), *first, "{op}");
    }
    let mut other = commands[0].1.clone();
    other["text"] = json!("three");
    assert_eq!(verdict(&alice.ask("edit", other)), "2006 conflict");
    assert_eq!(alice.history(&talk).len(), 4);
}

/// Whatever is asked for after the `ok` of a deletion is answered without the text, while others ask all the time.
#[test]
fn a_deleted_text_is_in_no_frame_that_is_asked_for_after_its_ok() {
    const MESSAGES: u64 = 40;
    let secret = |seq: u64| format!("secret number {seq:03}");
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut alice = Peer::connect(&node, "alice", Form::Json, None);
        let talk = begun(&mut alice, &secret(1));
        (2..=MESSAGES).for_each(|seq| assert_eq!(alice.store(say("bob", &secret(seq))), Ok(seq)));
        let deleted_to = AtomicU64::new(0);
        thread::scope(|scope| {
            for form in FORMS {
                let (node, deleted_to) = (&node, &deleted_to);
                scope.spawn(move || {
                    let mut bob = Peer::connect(node, "bob", form, None);
                    let mut known = 0;
                    while known < MESSAGES {
                        known = deleted_to.load(Ordering::SeqCst);
                        bob.page(talk, HistoryRange::After(Seq(0)));
                        // The page itself: what is told live comes in its order, and may be older.
                        bob.heard.drain(..bob.heard.len() - 1);
                        bob.unread.clear();
                        (1..=known).for_each(|seq| bob.never_heard(&secret(seq)));
                    }
                });
            }
            for seq in 1..=MESSAGES {
                // Also what it was for a moment.
                assert!(alice.store(edit(talk, seq, &format!("{}, edited", secret(seq)))).is_ok());
                assert!(alice.store(delete(talk, seq)).is_ok());
                deleted_to.store(seq, Ordering::SeqCst);
            }
        });
    });
}

#[test]
fn amendments_of_what_is_not_ones_own_are_refused() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        for form in FORMS {
            let mut alice = Peer::connect(&node, "alice", form, None);
            let mut bob = Peer::connect(&node, "bob", form, None);
            let mut eve = Peer::connect(&node, "eve", form, None);
            let talk = begun(&mut alice, "hers");
            let before = alice.history(talk);
            let seq = before.len() as u64;
            assert_eq!(bob.store(edit(talk, seq, "his")), Err(ErrorCode::NotAllowed));
            assert_eq!(bob.store(delete(talk, seq)), Err(ErrorCode::NotAllowed));
            for command in [edit(talk, seq, "theirs"), delete(talk, seq), react(talk, seq, "+", true)] {
                assert_eq!(eve.store(command), Err(ErrorCode::NotAMember));
            }
            assert_eq!(alice.store(edit(talk, seq, "")), Err(ErrorCode::BadField));
            assert_eq!(bob.store(react(talk, seq, "", true)), Err(ErrorCode::BadField));
            assert_eq!(bob.store(react(talk, seq, "a\nb", true)), Err(ErrorCode::BadField));
            assert_eq!(bob.store(react(talk, seq, &"x".repeat(65), true)), Err(ErrorCode::TooLarge));
            assert_eq!(bob.store(react(talk, seq + 1, "+", true)), Err(ErrorCode::NotFound));
            assert_eq!(bob.history(talk), before, "nothing of it was stored");
            assert_eq!(bob.told(1), [format!("{seq} alice: hers")], "and nobody was told");
        }
    });
}

/// A message in one segment, what it becomes in others, with the first of them compacted: read in both forms, and amended further.
#[test]
fn amendments_and_their_targets_in_segments_apart_are_one_message() {
    let root = directory();
    let data = root.path().join("data");
    let mut node = Node::start(&data, &EAGER);
    let readers = FORMS.map(|form| Peer::connect(&node, "bob", form, None));
    let cursors = readers.map(|reader| reader.cursor);
    let mut alice = Peer::connect(&node, "alice", Form::Binary, None);
    let talk = begun(&mut alice, "a secret");
    assert_eq!(alice.store(say("bob", "first")), Ok(2));
    assert_eq!(alice.store(edit(talk, 1, "a second secret")), Ok(3));
    let mut dora = Chat::connect(&node, "dora", "d");
    fill_a_segment(&mut dora);
    assert_eq!(alice.store(edit(talk, 2, "second")), Ok(4));
    assert_eq!(alice.store(delete(talk, 1)), Ok(5));
    let mut now = vec![
        "1 alice: deleted",
        "2 alice: second (edited)",
        "3 alice amended 1: deleted",
        "4 alice amended 2: second (edited)",
        "5 alice amended 1: deleted",
    ];
    check_shown(&node, talk, &cursors, &now);
    fill_a_segment(&mut dora);
    wait_for_cold(&data, 2);
    check_shown(&node, talk, &cursors, &now);
    // Amended from a segment of its own: what it was stands in cold ones.
    let mut bob = Peer::connect(&node, "bob", Form::Json, None);
    assert_eq!(bob.store(react(talk, 2, "+", true)), Ok(6));
    assert_eq!(bob.store(react(talk, 1, "+", true)), Err(ErrorCode::NotFound));
    now[1] = "2 alice: second (edited) [+ bob]";
    now[3] = "4 alice amended 2: second (edited) [+ bob]";
    now.push("6 bob amended 2: second (edited) [+ bob]");
    check_shown(&node, talk, &cursors, &now);
    for _ in 0..2 {
        node.restart();
        check_shown(&node, talk, &cursors, &now);
        fill_a_segment(&mut Chat::connect(&node, "dora", "d"));
    }
    wait_for_cold(&data, 4);
    check_shown(&node, talk, &cursors, &now);
    log(&["verify", "--data", text(&data)]).check(0, &["log 0: sound"]);
    log(&["stat", "--data", text(&data)]).check(0, &[]);
}

/// More than a segment of 4 MiB, of somebody else to somebody else.
fn fill_a_segment(dora: &mut Chat) {
    let letter = json!({ "to": "carl", "kind": "text", "text": "x".repeat(16 << 10) });
    for _ in 0..280 {
        assert_eq!(verdict(&dora.ask_to_store(&letter)), "ok");
    }
}

#[test]
fn the_log_tools_read_amendments() {
    let data = directory();
    let mut node = Node::start(data.path(), &[("GATEHOUSE_LOGS", "1")]);
    let mut alice = Peer::connect(&node, "alice", Form::Binary, None);
    let talk = begun(&mut alice, "one");
    assert_eq!(alice.store(edit(talk, 1, "two \u{1b}[31m")), Ok(2));
    assert_eq!(alice.store(react(talk, 1, "+", true)), Ok(3));
    assert_eq!(alice.store(delete(talk, 1)), Ok(4));
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    let path = text(data.path());
    let verified = log(&["verify", "--data", path, "--json"]);
    verified.check(0, &[]);
    assert_eq!(verified.json()["logs"][0]["damaged"], json!([]));
    let stat = log(&["stat", "--data", path, "--json"]).json();
    assert_eq!((&stat["logs"][0]["conversations"], &stat["logs"][0]["users"]), (&json!(1), &json!(2)));
    // As they stand in the log: what each made of the message.
    let talk = talk.to_string();
    let arguments = ["dump", "--data", path, "--conversation", &talk];
    let dumped = log(&[&arguments[..], &["--json"]].concat());
    dumped.check(0, &[]);
    let dumped: Vec<Value> =
        dumped.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let facts = dumped.iter().map(|line| (&line["seq"], &line["op"], &line["schema"], &line["target"]));
    let (message, amended) = (json!("message"), json!("amended"));
    let (seqs, schemas) = ([1, 2, 3, 4].map(Value::from), [1, 4].map(Value::from));
    let expected = [
        (&seqs[0], &message, &schemas[0], &Value::Null),
        (&seqs[1], &amended, &schemas[1], &seqs[0]),
        (&seqs[2], &amended, &schemas[1], &seqs[0]),
        (&seqs[3], &amended, &schemas[1], &seqs[0]),
    ];
    assert!(facts.eq(expected), "{dumped:?}");
    assert_eq!((&dumped[1]["text"], &dumped[3]["deleted"]), (&json!("two \u{1b}[31m"), &json!(true)));
    let people = log(&arguments);
    people.check(0, &[" seq 4 amended ", "target=1"]);
    assert_eq!((people.out.lines().count(), people.out.contains('\u{1b}')), (4, false), "{}", people.out);
    // Both inboxes have all of it.
    for user in ["alice", "bob"] {
        assert_eq!(log(&["dump", "--data", path, "--user", user]).out.lines().count(), 4, "{user}");
    }
}

/// Who is mentioned, and what is replied to, belong to the message: they are told live, in history, to who comes back, and behind an edit.
#[test]
fn who_is_mentioned_and_what_is_replied_to_stay_with_a_message() {
    let data = directory();
    let mut node = Node::start(data.path(), &[]);
    let mut alice = Chat::connect(&node, "alice", "a");
    let mut bob = Chat::connect(&node, "bob", "b");
    let cursor = bob.welcome["cursor"].clone();
    let talk = alice.tell("bob", "which of you?")["conversation"].take();
    let fields = json!({ "conversation": talk, "kind": "text", "text": "you, @bob", "reply_to": 1, "mentions": ["bob", "alice"] });
    assert_eq!(verdict(&alice.ask("send", fields)), "ok");
    let is_whole =
        |message: &Value| message["reply_to"] == 1 && message["mentions"] == json!(["bob", "alice"]);
    bob.event("message");
    let live = bob.event("message");
    assert!(is_whole(&live), "{live}");
    let edit = json!({ "conversation": talk, "seq": 2, "text": "you, of course, @bob" });
    assert_eq!(verdict(&alice.ask("edit", edit)), "ok");

    drop(bob);
    node.restart();
    let fields = json!({ "device": "b", "cursor": cursor });
    let mut bob = Chat::connect_with(&node, &node.token("bob"), fields);
    bob.event("message");
    let caught_up = bob.event("message");
    for message in [caught_up, bob.history(&talk)[1].clone()] {
        assert!(is_whole(&message) && message["text"] == "you, of course, @bob", "{message}");
    }
}
