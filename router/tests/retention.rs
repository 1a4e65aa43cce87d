//! How much of a conversation is kept: who may set it, who is told, and what is shown from then on.

#![forbid(unsafe_code)]

mod support;

use std::sync::Arc;

use protocol::command::{
    Command, Connect, Create, HistoryPolicy, HistoryRange, Members, React, Retention, Role,
};
use protocol::event::{ErrorCode, ListedConversation, MemberEvent, PageItem, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, MessageId, Seq, UnixMillis};
use protocol::record::StreamKind;
use router::ShardId;
use router::conversation::Erased;
use router::mail::{Request, SessionId};
use router::places::{conversation_stream, created_conversation, direct_conversation};
use storage_log::format::BLOCK_BYTES_MIN;
use storage_log::{Geometry, Verdict};

use support::{Chat, NOW, answer, id_of, send, user};

const WEEK: Retention = Retention { days: Some(7), last: None };

fn talk() -> ConversationId {
    direct_conversation(&user("alice"), &user("bob"))
}

fn newest(last: u32) -> Retention {
    Retention { days: None, last: Some(last) }
}

fn set(conversation: ConversationId, retention: Retention, message_id: Option<MessageId>) -> Command {
    Command::Retention { conversation, retention, message_id }
}

/// A group of alice, who owns it, bob, an admin, and carol.
fn group(chat: &mut Chat, alice: SessionId) -> ConversationId {
    let message_id = id_of(NOW.0, 200);
    let members = vec![user("bob"), user("carol")];
    let create = Create { title: "ours".to_owned(), members, history: HistoryPolicy::All, message_id };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    let conversation = created_conversation(&user("alice"), message_id.expect("an id"));
    let roles = vec![(user("bob"), Role::Admin)];
    let (add, remove, message_id) = (Vec::new(), Vec::new(), None);
    let members = Members { conversation, add, remove, roles, message_id };
    answer(&chat.command(alice, Command::Members(members))).expect("stored");
    conversation
}

fn listed(chat: &mut Chat, session: SessionId, conversation: ConversationId) -> ListedConversation {
    let frames = chat.command(session, Command::Conversations { after: None, limit: 50 });
    let Some(ServerFrame::Conversations { conversations, .. }) = frames.into_iter().next() else {
        panic!("a list");
    };
    conversations.into_iter().find(|listed| listed.conversation == conversation).expect("it is listed")
}

/// What a list and the members of a conversation say is kept of it.
fn kept(chat: &mut Chat, session: SessionId, conversation: ConversationId) -> Retention {
    let frames = chat.command(session, Command::ListMembers { conversation });
    let Some(ServerFrame::MembersPage { retention, .. }) = frames.into_iter().next() else {
        panic!("a page");
    };
    assert_eq!(listed(chat, session, conversation).retention, retention);
    retention
}

fn told(frames: &[ServerFrame]) -> Option<&MemberEvent> {
    frames.iter().find_map(|frame| if let ServerFrame::Member(event) = frame { Some(event) } else { None })
}

#[test]
fn owners_and_admins_set_what_is_kept_of_a_group_and_all_are_told() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let (carol, _) = chat.connect("carol", None);
    let (mallory, _) = chat.connect("mallory", None);
    let group = group(&mut chat, alice);
    assert_eq!(answer(&chat.command(carol, set(group, WEEK, None))), Err(ErrorCode::NotAllowed));
    assert_eq!(answer(&chat.command(mallory, set(group, WEEK, None))), Err(ErrorCode::NotAMember));
    let nowhere = set(ConversationId([9; 16]), WEEK, None);
    assert_eq!(answer(&chat.command(alice, nowhere)), Err(ErrorCode::NotFound));
    assert_eq!(kept(&mut chat, carol, group), Retention::default());
    chat.exchange(carol);
    for (number, (session, retention)) in
        (3..).zip([(alice, WEEK), (bob, newest(9)), (bob, Retention::default())])
    {
        chat.request(session, set(group, retention, None));
        let frames = chat.exchange(carol);
        let event = told(&frames).expect("a change");
        assert_eq!((event.seq.0, event.retention, &event.title), (number, Some(retention), &None));
        assert_eq!(kept(&mut chat, carol, group), retention);
        chat.forget();
        assert_eq!(kept(&mut chat, carol, group), retention, "it is in the log");
    }
}

#[test]
fn either_of_the_two_sets_what_is_kept_of_a_direct_conversation_once_there_is_something() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let block = |on| Command::Block { user: user("alice"), on, message_id: None };
    chat.command(bob, block(true));
    chat.command(bob, block(false));
    // The conversation has a state by now, and nothing in it.
    assert_eq!(answer(&chat.command(alice, set(talk(), WEEK, None))), Err(ErrorCode::NotFound));
    assert_eq!(answer(&chat.command(alice, send("bob", "hello", None))), Ok(1));
    let id = id_of(NOW.0, 7);
    assert_eq!(answer(&chat.command(bob, set(talk(), WEEK, id))), Ok(2));
    assert_eq!(answer(&chat.command(bob, set(talk(), WEEK, id))), Ok(2), "said again it is stored once");
    let other = set(talk(), newest(7), id);
    assert_eq!(answer(&chat.command(bob, other)), Err(ErrorCode::Conflict));
    assert_eq!(answer(&chat.command(alice, set(talk(), newest(5), None))), Ok(3));
    assert_eq!(kept(&mut chat, bob, talk()), newest(5));
    chat.command(bob, block(true));
    for session in [alice, bob] {
        assert_eq!(answer(&chat.command(session, set(talk(), WEEK, None))), Err(ErrorCode::NotAllowed));
    }
    assert_eq!(kept(&mut chat, bob, talk()), newest(5));
}

const DAY: u64 = 24 * 60 * 60 * 1_000;

/// What it is and at which sequence, and what it says.
fn line(item: &PageItem) -> String {
    match item {
        PageItem::Amended(event) => format!("amended {} of {}", event.seq.0, event.target.0),
        PageItem::Gap(gap) => format!("gap {}..={} {}", gap.from.0, gap.to.0, gap.reason),
        PageItem::Member(event) => format!("member {}", event.seq.0),
        PageItem::Message(event) => format!("message {}", event.seq.0),
    }
}

/// The same of what is pushed.
fn lines(frames: Vec<ServerFrame>) -> Vec<String> {
    let items = frames.into_iter().filter_map(|frame| match frame {
        ServerFrame::Message(event) => Some(PageItem::Message(event)),
        ServerFrame::Member(event) => Some(PageItem::Member(event)),
        ServerFrame::Amended(event) => Some(PageItem::Amended(event)),
        ServerFrame::Gap(gap) => Some(PageItem::Gap(gap)),
        _ => None,
    });
    items.map(|item| line(&item)).collect()
}

fn page(chat: &mut Chat, session: SessionId, range: HistoryRange, limit: u32) -> (Vec<String>, bool) {
    let history = Command::History { conversation: talk(), range, limit };
    let Some(ServerFrame::Page { messages, more, .. }) = chat.command(session, history).pop() else {
        panic!("a page");
    };
    (messages.iter().map(line).collect(), more)
}

/// The conversation, in whichever way it is asked for.
#[track_caller]
fn check_history(chat: &mut Chat, session: SessionId, expected: &[&str]) {
    for range in [HistoryRange::Latest, HistoryRange::After(Seq(0)), HistoryRange::Before(Seq(99))] {
        let (lines, more) = page(chat, session, range, 99);
        assert_eq!(
            (lines.as_slice(), more),
            (&expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..], false),
            "{range:?}"
        );
    }
}

fn react(seq: u64) -> Command {
    let emoji = "+".to_owned();
    Command::React(React { conversation: talk(), seq: Seq(seq), emoji, on: true, message_id: None })
}

/// What a device is told that comes back with this, and whether it is told to begin anew.
fn back(
    chat: &mut Chat,
    name: &str,
    cursor: Option<String>,
    positions: Option<Vec<(ConversationId, Seq)>>,
) -> Vec<String> {
    let device = DeviceId::new("back").expect("a name");
    let session = chat.begin_with(name, Connect { token: None, device, cursor, positions });
    let frames = chat.exchange(session);
    chat.users.disconnect(session);
    assert!(matches!(frames.last(), Some(ServerFrame::CaughtUp { partial: false, .. })), "{frames:?}");
    lines(frames)
}

fn cursor_of(frames: &[ServerFrame]) -> Option<String> {
    frames.iter().find_map(|frame| {
        if let ServerFrame::Welcome(welcome) = frame { welcome.cursor.clone() } else { None }
    })
}

/// Alice has said so many things to bob, of which he has read nothing; and his cursor from before.
fn said(chat: &mut Chat, count: u64) -> (SessionId, SessionId, Option<String>) {
    chat.wait(0);
    let (bob, frames) = chat.connect("bob", None);
    let (alice, _) = chat.connect("alice", None);
    for seq in 1..=count {
        assert_eq!(answer(&chat.command(alice, send("bob", "words", None))), Ok(seq));
    }
    chat.exchange(bob);
    (alice, bob, cursor_of(&frames))
}

/// Exactly the newest are kept, wherever they are read, by whom and after what.
#[test]
fn what_stands_before_the_newest_is_one_gap_everywhere() {
    let mut chat = Chat::new();
    let (alice, bob, cursor) = said(&mut chat, 5);
    assert_eq!(answer(&chat.command(alice, set(talk(), newest(3), None))), Ok(6));
    let kept = ["gap 1..=3 not kept any more", "message 4", "message 5", "member 6"];
    for _ in 0..2 {
        check_history(&mut chat, bob, &kept);
        assert_eq!(
            page(&mut chat, bob, HistoryRange::Before(Seq(4)), 9),
            (vec!["gap 1..=3 not kept any more".to_owned()], false)
        );
        assert_eq!(page(&mut chat, bob, HistoryRange::Before(Seq(3)), 9).0, ["gap 1..=2 not kept any more"]);
        assert_eq!(
            page(&mut chat, bob, HistoryRange::After(Seq(1)), 1),
            (vec!["gap 2..=3 not kept any more".to_owned(), "message 4".to_owned()], true)
        );
        assert_eq!(
            page(&mut chat, bob, HistoryRange::After(Seq(3)), 1),
            (vec!["message 4".to_owned()], true)
        );
        assert_eq!(page(&mut chat, bob, HistoryRange::Latest, 2).0, kept[2..]);
        assert_eq!(page(&mut chat, bob, HistoryRange::After(Seq(6)), 9), (Vec::new(), false));
        assert_eq!(back(&mut chat, "bob", cursor.clone(), None), kept);
        assert_eq!(back(&mut chat, "bob", None, Some(vec![(talk(), Seq(0))])), kept);
        assert_eq!(
            back(&mut chat, "bob", None, Some(vec![(talk(), Seq(2))])),
            ["gap 3..=3 not kept any more", "message 4", "message 5", "member 6"]
        );
        let listed = listed(&mut chat, bob, talk());
        assert_eq!(
            (listed.head, listed.unread, listed.read),
            (Seq(6), 2, Seq(0)),
            "what is gone is not unread"
        );
        chat.forget();
    }
    assert_eq!(answer(&chat.command(alice, send("bob", "more", None))), Ok(7));
    check_history(&mut chat, bob, &["gap 1..=4 not kept any more", "message 5", "member 6", "message 7"]);
    assert_eq!(listed(&mut chat, bob, talk()).unread, 2);
}

/// Nor does it come back when all is kept from now on.
#[test]
fn what_is_gone_stays_so_whatever_is_set_next() {
    let mut chat = Chat::new();
    let (alice, bob, cursor) = said(&mut chat, 5);
    for (seq, retention) in [(6, newest(3)), (7, newest(100)), (8, WEEK), (9, Retention::default())] {
        assert_eq!(answer(&chat.command(bob, set(talk(), retention, None))), Ok(seq));
    }
    assert_eq!(answer(&chat.command(alice, send("bob", "more", None))), Ok(10));
    // The first of them left three of six, and was in force when the seventh came.
    let kept = [
        "gap 1..=3 not kept any more",
        "message 4",
        "message 5",
        "member 6",
        "member 7",
        "member 8",
        "member 9",
        "message 10",
    ];
    for _ in 0..2 {
        check_history(&mut chat, bob, &kept);
        assert_eq!(back(&mut chat, "bob", cursor.clone(), None), kept);
        assert_eq!(listed(&mut chat, bob, talk()).unread, 3);
        chat.forget();
    }
}

#[test]
fn what_is_older_than_the_days_is_gone_to_the_millisecond_and_stays_so_when_the_clock_goes_back() {
    let mut chat = Chat::new();
    let (alice, bob, cursor) = said(&mut chat, 1);
    chat.wait(DAY);
    assert_eq!(answer(&chat.command(alice, send("bob", "later", None))), Ok(2));
    assert_eq!(answer(&chat.command(alice, set(talk(), WEEK, None))), Ok(3));
    let all = ["message 1", "message 2", "member 3"];
    chat.wait(6 * DAY);
    check_history(&mut chat, bob, &all);
    assert_eq!(
        (listed(&mut chat, bob, talk()).unread, back(&mut chat, "bob", cursor.clone(), None)),
        (2, all.map(str::to_owned).to_vec())
    );
    chat.wait(1);
    let later = ["gap 1..=1 not kept any more", "message 2", "member 3"];
    check_history(&mut chat, bob, &later);
    assert_eq!(
        (listed(&mut chat, bob, talk()).unread, back(&mut chat, "bob", cursor.clone(), None)),
        (1, later.map(str::to_owned).to_vec())
    );
    chat.clock.unix.0 -= DAY;
    check_history(&mut chat, bob, &later);
    chat.clock.unix.0 += 2 * DAY;
    for _ in 0..2 {
        check_history(&mut chat, bob, &["gap 1..=3 not kept any more"]);
        let listed = listed(&mut chat, bob, talk());
        assert_eq!((listed.head, listed.unread, listed.last), (Seq(3), 0, None), "its head stays");
        chat.forget();
    }
    assert_eq!(answer(&chat.command(alice, send("bob", "again", None))), Ok(4));
    check_history(&mut chat, bob, &["gap 1..=3 not kept any more", "message 4"]);
}

/// An amendment holds all of its message, and is gone with it; it takes a sequence itself, so it may push out what it amends.
#[test]
fn nothing_amends_what_is_gone_and_what_did_says_nothing_of_it() {
    let mut chat = Chat::new();
    let (alice, bob, cursor) = said(&mut chat, 3);
    assert_eq!(answer(&chat.command(bob, react(1))), Ok(4));
    assert_eq!(answer(&chat.command(bob, react(3))), Ok(5));
    assert_eq!(answer(&chat.command(bob, set(talk(), newest(4), None))), Ok(6));
    let kept = ["gap 1..=2 not kept any more", "message 3", "gap 4..=4 erased", "amended 5 of 3", "member 6"];
    check_history(&mut chat, alice, &kept);
    assert_eq!(back(&mut chat, "bob", cursor, None), kept);
    assert_eq!(answer(&chat.command(alice, react(2))), Err(ErrorCode::NotFound));
    chat.exchange(bob);
    chat.request(alice, react(3));
    assert_eq!(lines(chat.exchange(bob)), ["gap 7..=7 erased"], "the message is gone with that");
    check_history(
        &mut chat,
        alice,
        &[
            "gap 1..=3 not kept any more",
            "gap 4..=4 erased",
            "gap 5..=5 erased",
            "member 6",
            "gap 7..=7 erased",
        ],
    );
    assert_eq!(answer(&chat.command(alice, react(3))), Err(ErrorCode::NotFound));
}

/// Also while all of it is under way, and what is amended is known from memory.
#[test]
fn nothing_amends_behind_a_setting_what_was_amended_before_it() {
    let mut chat = Chat::new();
    let (alice, ..) = said(&mut chat, 3);
    for command in [react(1), set(talk(), newest(3), None), react(1)] {
        chat.request(alice, command);
    }
    let frames = chat.exchange(alice);
    let stored = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Ok(ok) => ok.seq,
        _ => None,
    });
    assert!(stored.eq([Seq(4), Seq(5)]), "{frames:?}");
    let refused =
        |frame: &ServerFrame| matches!(frame, ServerFrame::Error(error) if error.code == ErrorCode::NotFound);
    assert!(frames.iter().any(refused), "{frames:?}");
}

/// Whoever amends what a setting that is under way puts in front is told so when that is durable: and not at all where it never will be.
#[test]
fn nothing_is_told_to_be_gone_by_a_setting_that_is_not_stored() {
    for is_stored in [true, false] {
        let mut chat = Chat::new();
        let (alice, bob, _) = said(&mut chat, 3);
        chat.request(alice, set(talk(), newest(1), None));
        chat.carry_mail();
        let batch = chat.log.poll_write(0).expect("the change");
        chat.request(bob, react(1));
        chat.carry_mail();
        while let Some(read) = chat.side.poll_read() {
            chat.answer_read(read);
        }
        chat.carry_replies();
        assert_eq!(chat.take(bob), [], "stored: {is_stored}");
        if is_stored {
            chat.handle_written(batch);
        } else {
            chat.log.handle_written(batch.buffer, false).expect_err("it failed");
            chat.side.handle_failed();
        }
        chat.carry_replies();
        let expected = if is_stored { ErrorCode::NotFound } else { ErrorCode::Unavailable };
        let frames = chat.take(bob);
        let errors = frames.iter().filter_map(|frame| match frame {
            ServerFrame::Error(error) => Some(error.code),
            _ => None,
        });
        assert_eq!(errors.collect::<Vec<_>>(), [expected], "{frames:?}");
    }
}

/// A setting that is under way takes nothing from anybody: a crash may undo it.
#[test]
fn nothing_is_gone_before_the_setting_is_durable() {
    let mut chat = Chat::new();
    let (alice, _, cursor) = said(&mut chat, 3);
    chat.request(alice, set(talk(), newest(1), None));
    chat.carry_mail();
    let batch = chat.log.poll_write(0).expect("the change");
    // A page of catching up does not wait for it.
    let back = chat.begin("bob", cursor);
    chat.take(back);
    chat.carry_mail();
    chat.carry_replies();
    assert_eq!(lines(chat.take(back)), ["message 1", "message 2", "message 3"]);
    chat.handle_written(batch);
    chat.exchange(alice);
    check_history(&mut chat, alice, &["gap 1..=3 not kept any more", "member 4"]);
}

/// Nor does one stay in force that was taken back before it was durable.
#[test]
fn a_setting_that_is_taken_back_while_it_is_under_way_takes_nothing() {
    let mut chat = Chat::new();
    let (alice, bob, _) = said(&mut chat, 2);
    chat.request(alice, set(talk(), newest(4), None));
    chat.request(alice, set(talk(), Retention::default(), None));
    chat.exchange(alice);
    assert_eq!(answer(&chat.command(alice, send("bob", "more", None))), Ok(5));
    for _ in 0..2 {
        assert!(!chat.side.has_fronts(), "whoever writes a segment anew would take it from the disk");
        check_history(&mut chat, bob, &["message 1", "message 2", "member 3", "member 4", "message 5"]);
        chat.forget();
    }
}

/// What came in front stays there, and what is said meanwhile is not put there.
#[test]
fn a_clock_that_goes_back_brings_nothing_back_with_the_next_setting_and_takes_nothing_that_is_new() {
    let mut chat = Chat::new();
    let (alice, bob, _) = said(&mut chat, 2);
    assert_eq!(answer(&chat.command(alice, set(talk(), WEEK, None))), Ok(3));
    chat.wait(8 * DAY);
    check_history(&mut chat, bob, &["gap 1..=3 not kept any more"]);
    chat.clock.unix.0 -= 8 * DAY;
    assert_eq!(answer(&chat.command(alice, send("bob", "new", None))), Ok(4));
    check_history(&mut chat, bob, &["gap 1..=3 not kept any more", "message 4"]);
    assert_eq!(answer(&chat.command(alice, set(talk(), Retention::default(), None))), Ok(5));
    for _ in 0..2 {
        check_history(&mut chat, bob, &["gap 1..=3 not kept any more", "message 4", "member 5"]);
        chat.forget();
    }
}

/// Who catches up by positions asks how far it has read while a start does not know yet what is kept: it waits, as all who catch up do.
#[test]
fn who_catches_up_by_positions_waits_on_while_an_index_cannot_be_read() {
    let (segment_bytes, batch_bytes_max) = (32 << 10, 16 << 10);
    let geometry = Geometry { segment_bytes, batch_bytes_max, block_bytes: BLOCK_BYTES_MIN };
    let mut chat = Chat::with_geometry(1, geometry);
    chat.disk_reads = true;
    let (alice, ..) = said(&mut chat, 1);
    answer(&chat.command(alice, set(talk(), newest(9), None))).expect("stored");
    while chat.log.sealed_blocks().next().is_none() {
        answer(&chat.command(alice, send("bob", "one of many", None))).expect("stored");
    }
    chat.forget();
    chat.disk_reads = false;
    let (session, shard) = (SessionId { slot: 9, generation: 0 }, ShardId(0));
    let request = Request::Reads { session, shard, log: 0, user: user("bob"), conversations: vec![talk()] };
    chat.side.handle_request(request, chat.clock.unix, &mut chat.log);
    let answers = |chat: &mut Chat| {
        while let Some(read) = chat.side.poll_read() {
            chat.answer_read(read);
        }
        std::iter::from_fn(|| chat.side.poll_output()).count()
    };
    assert_eq!(answers(&mut chat), 0);
    let damaged = chat.side.index_damage().next().expect("it waits for an index");
    chat.side.refuse_stalled(damaged, chat.clock.unix, &mut chat.log);
    assert_eq!(answers(&mut chat), 0, "it is not refused");
    chat.disk_reads = true;
    chat.rebuild_index();
    assert_eq!(answers(&mut chat), 1);
}

/// What whoever writes a segment anew is given.
fn erased(chat: &mut Chat, now: UnixMillis) -> Arc<Erased> {
    std::iter::from_fn(|| Some(chat.side.poll_erased(now, &chat.log))).flatten().next().expect("it ends")
}

/// Whoever writes a segment anew may come when nobody has asked for anything for days.
#[test]
fn whoever_writes_a_segment_anew_is_told_what_is_in_front_by_then() {
    let mut chat = Chat::new();
    let (alice, ..) = said(&mut chat, 2);
    assert_eq!(answer(&chat.command(alice, set(talk(), WEEK, None))), Ok(3));
    for (days, expected) in [(7, Verdict::Keep), (8, Verdict::EraseAndLeave)] {
        let erased = erased(&mut chat, UnixMillis(NOW.0 + days * DAY));
        let mut verdicts = Vec::new();
        chat.read_back(&mut |record| {
            if record.stream() == conversation_stream(talk(), StreamKind::Messages) && record.seq() < 3 {
                verdicts.push(erased.verdict(record.position(), record.portable()));
            }
        });
        assert_eq!(verdicts, [expected; 2], "after {days} days");
        assert_eq!(erased.fronts()[&talk().0].head, 3);
    }
}

/// Of many conversations each call looks at some: the thread that calls has others to serve.
#[test]
fn what_is_in_front_of_many_conversations_is_collected_a_part_at_a_time() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let names: Vec<String> = (0..600).map(|number| format!("user-{number}")).collect();
    let of = |name: &String| direct_conversation(&user("alice"), &user(name));
    for (number, name) in (0..).zip(&names) {
        chat.wait(1_000);
        answer(&chat.command(alice, send(name, "hello", id_of(NOW.0 + number, 1)))).expect("stored");
        answer(&chat.command(alice, set(of(name), WEEK, id_of(NOW.0 + number, 2)))).expect("stored");
    }
    let later = UnixMillis(chat.clock.unix.0 + 8 * DAY);
    assert!(chat.side.poll_erased(later, &chat.log).is_none());
    assert!(chat.side.poll_erased(later, &chat.log).is_none());
    // One that was collected, and one that was not, set anew meanwhile: what is in front is so still.
    let by_id = |name: &&String| of(name);
    let (first, last) = (names.iter().min_by_key(by_id), names.iter().max_by_key(by_id));
    for name in [first, last].map(|name| name.expect("600 of them")) {
        answer(&chat.command(alice, set(of(name), newest(1), None))).expect("stored");
    }
    let erased = chat.side.poll_erased(later, &chat.log).expect("it is all");
    assert_eq!(erased.fronts().len(), names.len());
    for name in &names {
        let front = erased.fronts()[&of(name).0];
        assert!(front.at > NOW.0 || front.seq > 1, "{name}: {front:?}");
    }
    assert_eq!(self::erased(&mut chat, later).fronts().len(), names.len(), "and again from the first");
}

/// What grows too old while the change is under way by which it is kept is kept.
#[test]
fn whoever_writes_a_segment_anew_leaves_alone_of_what_the_setting_is_being_changed() {
    let mut chat = Chat::new();
    let (alice, ..) = said(&mut chat, 1);
    assert_eq!(answer(&chat.command(alice, set(talk(), WEEK, None))), Ok(2));
    chat.wait(7 * DAY);
    chat.request(alice, set(talk(), Retention::default(), None));
    chat.carry_mail();
    let later = UnixMillis(chat.clock.unix.0 + 1);
    assert!(erased(&mut chat, later).fronts().is_empty());
    chat.exchange(alice);
    let fronts = erased(&mut chat, later).fronts().clone();
    assert_eq!(fronts[&talk().0].at, NOW.0, "all is kept that was so when it was asked for");
}

/// A state that could not be read at start says what is kept as soon as it can be.
#[test]
fn what_a_failed_read_at_start_did_not_say_is_known_when_the_disk_reads_again() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let (alice, bob, cursor) = said(&mut chat, 3);
    assert_eq!(answer(&chat.command(alice, set(talk(), newest(1), None))), Ok(4));
    // The newest batch is in memory whatever the disk does.
    answer(&chat.command(alice, send("carol", "hello", None))).expect("stored");
    chat.forget();
    chat.disk_reads = false;
    chat.command(bob, Command::Conversations { after: None, limit: 50 });
    chat.disk_reads = true;
    let kept = ["gap 1..=3 not kept any more", "member 4"];
    check_history(&mut chat, bob, &kept);
    assert_eq!(back(&mut chat, "bob", cursor, None), kept);
}

/// As a recount has it, over messages and what is none, also where it has to be looked for on the disk.
#[test]
fn what_is_unread_is_what_is_kept_of_it() {
    let (segment_bytes, batch_bytes_max) = (256 << 10, 64 << 10);
    let geometry = Geometry { segment_bytes, batch_bytes_max, block_bytes: BLOCK_BYTES_MIN };
    let mut chat = Chat::with_geometry(4 << 10, geometry);
    chat.disk_reads = true;
    let (alice, bob, _) = said(&mut chat, 1);
    // Whether it is a message, and when.
    let mut records = vec![(true, chat.clock.unix.0)];
    for number in 2..=3_000_u64 {
        chat.wait(DAY / 100);
        let is_message = number % 7 != 0;
        let command = if is_message { send("bob", "words", None) } else { react(number - 1) };
        assert_eq!(answer(&chat.command(alice, command)), Ok(number));
        records.push((is_message, chat.clock.unix.0));
    }
    let settings = [Some(20), Some(3), None, Some(1)];
    for (number, days) in settings.into_iter().enumerate() {
        let last = if number == 2 { Some(77) } else { None };
        answer(&chat.command(bob, set(talk(), Retention { days, last }, None))).expect("stored");
        records.push((false, chat.clock.unix.0));
        for _ in 0..3 {
            chat.wait(DAY / 7);
            let kept = records.iter().rev().take(last.unwrap_or(u32::MAX) as usize);
            let kept = kept
                .filter(|(_, at)| days.is_none_or(|days| at + u64::from(days) * DAY >= chat.clock.unix.0));
            let unread = kept.filter(|(is_message, _)| *is_message).count() as u64;
            let listed = listed(&mut chat, bob, talk());
            assert_eq!((listed.head.0, listed.unread), (records.len() as u64, unread), "{days:?} {last:?}");
            chat.forget();
        }
    }
}
