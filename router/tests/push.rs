//! Whom a message has not reached, as the owner of its log finds it: who is to be called, when, and who is not.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, HistoryPolicy, Members, Request, Retention, Send, Target};
use protocol::event::ServerFrame;
use protocol::ids::{ConversationId, Seq};
use router::conversation::Unjudged;
use router::mail::SessionId;
use router::places::direct_conversation;

use support::{Chat, answer, send, user};

/// How long a message waits for its reader, and one who was called for the next call, in milliseconds.
const WAIT: u64 = 3_000;
const REST: u64 = 10_000;

/// Alice, who has said something to bob.
fn said() -> (Chat, SessionId, ConversationId) {
    let mut chat = Chat::new();
    chat.side.begin_pushes(Unjudged::nothing());
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    say(&mut chat, alice);
    judge(&mut chat);
    (chat, alice, direct_conversation(&user("alice"), &user("bob")))
}

fn say(chat: &mut Chat, session: SessionId) {
    answer(&chat.command(session, send("bob", "hello", None))).expect("stored");
}

/// As many turns as it takes to judge a thousand and some.
fn judge(chat: &mut Chat) {
    (0..5).for_each(|_| judge_some(chat));
}

fn judge_some(chat: &mut Chat) {
    let (micros, now) = (chat.clock.micros, chat.clock.unix);
    chat.side.judge_pushes(micros, now, &mut chat.log);
    while let Some(read) = chat.side.poll_read() {
        chat.answer_read(read);
    }
}

/// Who is called after so many milliseconds: who, up to which message, how many.
fn called(chat: &mut Chat, millis: u64) -> Vec<(String, u64, u64)> {
    chat.wait(millis);
    judge(chat);
    let calls = chat.take_calls().into_iter();
    calls.map(|due| (due.user.as_str().to_owned(), due.seq.0, due.count)).collect()
}

fn bob(seq: u64, count: u64) -> Vec<(String, u64, u64)> {
    vec![("bob".to_owned(), seq, count)]
}

#[test]
fn who_has_nothing_is_called_after_three_seconds_and_the_sender_is_not() {
    let (mut chat, ..) = said();
    assert_eq!(called(&mut chat, WAIT - 1), []);
    assert_eq!(called(&mut chat, 1), bob(1, 1));
    assert_eq!(called(&mut chat, REST * 3), [], "once for a message");
}

/// A session is no reader: its radio may be dead.
#[test]
fn who_is_connected_and_says_nothing_is_called_and_who_acknowledges_or_reads_is_not() {
    let (mut chat, alice, conversation) = said();
    let (session, _) = chat.connect("bob", None);
    assert_eq!(called(&mut chat, WAIT), bob(1, 1));
    chat.wait(REST);

    say(&mut chat, alice);
    judge(&mut chat);
    let frames = [chat.exchange(session), chat.command(session, Command::Ping { cursor: None })].concat();
    let cursor = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::Pong { cursor, .. } => cursor,
        _ => None,
    });
    let ack = Request { id: None, command: Command::Ack { cursor: cursor.expect("a pong") } };
    chat.users.handle_command(session, ack, chat.clock).expect("no command under way");
    chat.exchange(session);
    assert_eq!(called(&mut chat, WAIT), [], "a device has it");

    say(&mut chat, alice);
    judge(&mut chat);
    chat.command(session, Command::Read { conversation, seq: Seq(3) });
    assert_eq!(called(&mut chat, WAIT), [], "it was read");
}

/// By then there is nothing to read; and who is called is told how much there is.
#[test]
fn nobody_is_called_of_what_is_not_kept_any_more() {
    let (mut chat, alice, conversation) = said();
    say(&mut chat, alice);
    let set = |last| {
        let retention = Retention { days: None, last: Some(last) };
        Command::Retention { conversation, retention, message_id: None }
    };
    answer(&chat.command(alice, set(1))).expect("stored");
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), [], "the change alone is kept");
    answer(&chat.command(alice, set(3))).expect("stored");
    (0..5).for_each(|_| say(&mut chat, alice));
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), bob(9, 3));
}

/// Nor after a start where nobody has come by the time of the call, whose request would have had it read what is kept.
#[test]
fn nobody_is_called_after_a_start_of_what_was_not_kept_before_it() {
    let (mut chat, alice, conversation) = said();
    let retention = Retention { days: None, last: Some(1) };
    let set = Command::Retention { conversation, retention, message_id: None };
    answer(&chat.command(alice, set)).expect("stored");
    let mut unjudged = Unjudged::behind(Some(0), chat.clock.unix.0);
    chat.read_back(&mut |record| unjudged.observe(record));
    assert_eq!(unjudged.conversations(), 1);
    chat.forget();
    chat.side.begin_pushes(unjudged);
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), [], "the change alone is kept");
}

#[test]
fn what_comes_within_ten_seconds_of_a_call_waits_for_their_end_and_is_one_call() {
    let (mut chat, alice, conversation) = said();
    assert_eq!(called(&mut chat, WAIT), bob(1, 1));
    for seq in 2..=4 {
        say(&mut chat, alice);
        judge(&mut chat);
        assert_eq!(called(&mut chat, 1_000), [], "{seq}");
    }
    assert_eq!(called(&mut chat, REST - 3_001), [], "within 10 s");
    assert_eq!(called(&mut chat, 1), bob(4, 4));
    // What waits for the end of them and is read before it is no call.
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), []);
    let (session, _) = chat.connect("bob", None);
    chat.command(session, Command::Read { conversation, seq: Seq(5) });
    assert_eq!(called(&mut chat, REST), []);
}

/// Judged with what was 3 s old, the newer message waits its own 3 s.
#[test]
fn a_message_that_comes_while_another_waits_is_given_its_own_time() {
    let (mut chat, alice, conversation) = said();
    assert_eq!(called(&mut chat, WAIT - 500), []);
    let (session, _) = chat.connect("bob", None);
    chat.command(session, Command::Read { conversation, seq: Seq(1) });
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, 500), [], "the first was read, the second has just come");
    assert_eq!(called(&mut chat, WAIT), bob(2, 1));
}

/// Alice, who has made a group of bob and carol and waited.
fn group() -> (Chat, SessionId, ConversationId) {
    let mut chat = Chat::new();
    chat.side.begin_pushes(Unjudged::nothing());
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let create = Create {
        title: "Chess".to_owned(),
        members: vec![user("bob"), user("carol")],
        history: HistoryPolicy::Joined,
        message_id: None,
    };
    let made = chat.command(alice, Command::Create(create));
    let group = made.iter().find_map(|frame| match frame {
        ServerFrame::Ok(ok) => ok.conversation,
        _ => None,
    });
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), [], "a change of members calls nobody");
    (chat, alice, group.expect("made"))
}

fn say_in(chat: &mut Chat, session: SessionId, group: ConversationId) {
    let Command::Send(to_bob) = send("bob", "hello", None) else { unreachable!() };
    let target = Target::Conversation(group);
    answer(&chat.command(session, Command::Send(Send { target, ..to_bob }))).expect("stored");
    judge(chat);
}

#[test]
fn in_a_group_those_are_called_who_may_see_it_and_have_not_said_it() {
    let (mut chat, alice, conversation) = group();
    say_in(&mut chat, alice, conversation);
    let members = Members {
        conversation,
        add: vec![user("dave")],
        remove: vec![user("carol")],
        roles: Vec::new(),
        message_id: None,
    };
    chat.command(alice, Command::Members(members));
    assert_eq!(called(&mut chat, WAIT), bob(2, 1), "carol has left, and dave may not see it");
}

/// The end of one's rest is no time to call another, who has been called of all there is and has rested too.
#[test]
fn the_end_of_a_rest_calls_nobody_of_what_another_waits_for() {
    let (mut chat, alice, group) = group();
    say_in(&mut chat, alice, group);
    let (carol, _) = chat.connect("carol", None);
    chat.command(carol, Command::Read { conversation: group, seq: Seq(2) });
    assert_eq!(called(&mut chat, WAIT), bob(2, 1));
    chat.wait(2_000);
    say_in(&mut chat, alice, group);
    assert_eq!(called(&mut chat, WAIT), [("carol".to_owned(), 3, 1)]);
    assert_eq!(called(&mut chat, REST - 2_000 - WAIT), bob(3, 2), "he has rested");
    assert_eq!(called(&mut chat, 5_000), [], "carol has");
    assert_eq!(called(&mut chat, 5_000), [], "bob has");
}

/// A start goes on behind the mark, so that says no more than has been done.
#[test]
fn the_mark_stays_below_what_somebody_may_have_to_be_called_of() {
    let (mut chat, alice, conversation) = said();
    let begun = chat.side.push_mark(&chat.log);
    chat.wait(WAIT);
    judge(&mut chat);
    let due = chat.side.poll_push().expect("bob is called");
    assert_eq!(chat.side.push_mark(&chat.log), begun, "it is not known whether it was taken");
    chat.side.settle_push(&due);
    let after = chat.side.push_mark(&chat.log);
    assert!(after > begun && after == chat.log.durable().position());
    // Within the rest, and one more that has its own time.
    for _ in 0..2 {
        say(&mut chat, alice);
        assert_eq!(called(&mut chat, WAIT), []);
        assert!(chat.side.push_mark(&chat.log) <= after);
    }
    let (bob, _) = chat.connect("bob", None);
    chat.command(bob, Command::Read { conversation, seq: Seq(3) });
    assert_eq!(called(&mut chat, REST), []);
    assert_eq!(chat.side.push_mark(&chat.log), chat.log.durable().position());
}

/// What a log says is read back, and everybody is called who was not, of what is no older than ten minutes.
#[test]
fn a_start_calls_of_what_stands_behind_the_mark() {
    let (mut chat, alice, _) = said();
    assert_eq!(called(&mut chat, WAIT), bob(1, 1));
    let mark = chat.side.push_mark(&chat.log);
    chat.wait(REST);
    say(&mut chat, alice);
    let now = chat.clock.unix.0;
    for (mark, now, calls) in [
        (Some(mark), now, bob(2, 2)),
        (Some(mark), now + 600_000, bob(2, 2)),
        (Some(mark), now + 600_001, vec![]),
        (Some(0), now, bob(2, 2)),
        (Some(chat.log.durable().position()), now, vec![]),
        (None, now, vec![]),
    ] {
        let mut unjudged = Unjudged::behind(mark, now);
        chat.read_back(&mut |record| unjudged.observe(record));
        chat.forget();
        chat.side.begin_pushes(unjudged);
        judge(&mut chat);
        assert_eq!(called(&mut chat, WAIT - 1), []);
        assert_eq!(called(&mut chat, 1), calls, "{mark:?} {now}");
    }
    // Another process has gone on meanwhile.
    let mut unjudged = Unjudged::behind(Some(0), now);
    chat.read_back(&mut |record| unjudged.observe(record));
    unjudged.pass(Some(mark));
    assert_eq!(unjudged.conversations(), 1);
    unjudged.pass(Some(chat.log.durable().position()));
    assert_eq!(unjudged.conversations(), 0);
}

#[test]
fn who_blocks_the_other_is_not_called() {
    let (mut chat, ..) = said();
    let (session, _) = chat.connect("bob", None);
    chat.command(session, Command::Block { user: user("alice"), on: true, message_id: None });
    assert_eq!(called(&mut chat, WAIT), []);
}

/// More conversations with somebody to call than there may be calls.
const CROWD: usize = 1_100;

/// Each is due now.
fn crowd_said() -> Chat {
    let mut chat = Chat::new();
    chat.side.begin_pushes(Unjudged::nothing());
    chat.wait(0);
    for number in 0..CROWD {
        let (alice, _) = chat.connect(&format!("alice-{number}"), None);
        say(&mut chat, alice);
        chat.users.disconnect(alice);
    }
    judge(&mut chat);
    chat.wait(WAIT);
    chat
}

#[test]
fn a_turn_judges_a_part_of_a_crowd_and_the_next_follows_at_once() {
    let mut chat = crowd_said();
    judge_some(&mut chat);
    let taken = std::iter::from_fn(|| chat.side.poll_push()).count();
    assert_eq!(taken, 256);
    assert_eq!(chat.side.push_in_micros(chat.clock.micros), Some(0));
    assert_eq!(called(&mut chat, 0).len(), CROWD - taken);
}

/// What the calls come to has a bound: conversations stay due meanwhile, and nobody is forgotten.
#[test]
fn while_nobody_takes_the_calls_the_others_stay_due() {
    let mut chat = crowd_said();
    judge(&mut chat);
    let taken = std::iter::from_fn(|| chat.side.poll_push()).count();
    assert_eq!(taken, 1_024);
    assert_eq!(called(&mut chat, 0).len(), CROWD - taken);
    assert_eq!(called(&mut chat, REST * 2), []);
}

/// A node that has nobody to call with keeps nothing.
#[test]
fn without_being_asked_for_nobody_is_called() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), []);
    chat.side.begin_pushes(Unjudged::nothing());
    assert_eq!(called(&mut chat, WAIT), [], "from then on, not from the beginning");
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), bob(2, 2));
}

/// Memory holds nothing of it when it is due: it is read.
#[test]
fn positions_that_are_not_in_memory_are_read() {
    let (mut chat, alice, conversation) = said();
    let (session, _) = chat.connect("bob", None);
    chat.command(session, Command::Read { conversation, seq: Seq(1) });
    chat.wait(1_000);
    chat.exchange(session);
    chat.forget();
    chat.side.begin_pushes(Unjudged::nothing());
    say(&mut chat, alice);
    judge(&mut chat);
    assert_eq!(called(&mut chat, WAIT), bob(2, 1), "the first was read");
}

/// A start that finds thousands of conversations does not have all of them read at once, before what clients ask who come back.
#[test]
fn conversations_that_have_to_be_read_are_looked_at_a_few_at_a_time() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    chat.wait(0);
    let all = 100;
    for number in 0..all {
        let (alice, _) = chat.connect(&format!("alice-{number}"), None);
        say(&mut chat, alice);
        chat.users.disconnect(alice);
    }
    let mut unjudged = Unjudged::behind(Some(0), chat.clock.unix.0);
    chat.read_back(&mut |record| unjudged.observe(record));
    chat.forget();
    chat.side.begin_pushes(unjudged);
    judge(&mut chat);
    chat.wait(WAIT);
    // Those of the first round cannot be read, and keep no place.
    chat.disk_reads = false;
    let (mut rounds, mut calls) = (Vec::new(), 0);
    while chat.side.push_in_micros(chat.clock.micros) == Some(0) {
        chat.side.judge_pushes(chat.clock.micros, chat.clock.unix, &mut chat.log);
        calls += std::iter::from_fn(|| chat.side.poll_push()).count();
        let reads: Vec<_> = std::iter::from_fn(|| chat.side.poll_read()).collect();
        rounds.push(reads.len());
        let waits = reads.len() < 32 || chat.side.push_in_micros(chat.clock.micros).is_none();
        assert!(waits, "for the disk, not for time: {rounds:?}");
        reads.into_iter().for_each(|read| chat.answer_read(read));
        while let Some(read) = chat.side.poll_read() {
            chat.answer_read(read);
        }
        chat.disk_reads = true;
        calls += std::iter::from_fn(|| chat.side.poll_push()).count();
    }
    assert!(rounds.len() >= 4 && rounds.iter().all(|reads| *reads <= 32), "{rounds:?}");
    assert_eq!((calls, called(&mut chat, WAIT).len()), (all - 32, 32), "{rounds:?}");
}
