//! Edits, deletions and reactions: who may make them, and what everybody is shown from then on.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Connect, Create, Edit, HistoryPolicy, HistoryRange, Members, React};
use protocol::event::{AmendedForm, ErrorCode, PageItem, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, RequestId, Seq};
use protocol::limits::{FRAME_BYTES_MAX, REACTIONS_MAX, TEXT_BYTES_MAX};
use protocol::upgrade::Form;
use router::mail::SessionId;
use router::places::direct_conversation;

use support::{Chat, NOW, answer, id_of, send, user};

fn talk() -> ConversationId {
    direct_conversation(&user("alice"), &user("bob"))
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

/// Alice has written to Bob.
fn begun(text: &str) -> (Chat, SessionId) {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    assert_eq!(answer(&chat.command(alice, send("bob", text, id_of(NOW.0, 1)))), Ok(1));
    (chat, alice)
}

/// One line of what somebody is told: `message 1 alice: text (edited) [emoji bob]`.
fn line(item: &PageItem) -> String {
    match item {
        PageItem::Message(event) => {
            let state = if event.deleted { " deleted" } else { "" };
            let edited = event.edited_at.map_or("", |_| " (edited)");
            let reactions = reactions(&event.reactions);
            format!(
                "message {} {}:{state} {}{edited}{reactions}",
                event.seq.0,
                event.sender.as_str(),
                event.text
            )
        }
        PageItem::Amended(event) => {
            let form = match &event.form {
                AmendedForm::Deleted => "deleted".to_owned(),
                AmendedForm::Hidden => "hidden".to_owned(),
                AmendedForm::Shown { text, reactions: all, .. } => format!("{text}{}", reactions(all)),
            };
            format!("amended {} {} of {}: {form}", event.seq.0, event.by.as_str(), event.target.0)
        }
        PageItem::Member(event) => format!("member {} {}", event.seq.0, event.by.as_str()),
        PageItem::Gap(gap) => format!("gap {}..={} {}", gap.from.0, gap.to.0, gap.reason),
    }
}

fn reactions(reactions: &[protocol::event::Reaction]) -> String {
    let each = reactions.iter().map(|reaction| {
        let users: Vec<&str> = reaction.users.iter().map(|user| user.as_str()).collect();
        format!(" [{} {}]", reaction.emoji, users.join(" "))
    });
    each.collect()
}

/// The same of what is pushed.
fn told(frames: Vec<ServerFrame>) -> Vec<String> {
    let items = frames.into_iter().filter_map(|frame| match frame {
        ServerFrame::Message(event) => Some(PageItem::Message(event)),
        ServerFrame::Amended(event) => Some(PageItem::Amended(event)),
        ServerFrame::Member(event) => Some(PageItem::Member(event)),
        ServerFrame::Gap(gap) => Some(PageItem::Gap(gap)),
        _ => None,
    });
    items.map(|item| line(&item)).collect()
}

fn page(
    chat: &mut Chat,
    session: SessionId,
    conversation: ConversationId,
    range: HistoryRange,
) -> (Vec<String>, bool) {
    let frames = chat.command(session, Command::History { conversation, range, limit: 200 });
    let page = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::Page { messages, more, .. } => Some((messages.iter().map(line).collect(), more)),
        _ => None,
    });
    page.expect("a page")
}

fn history(chat: &mut Chat, session: SessionId, conversation: ConversationId) -> Vec<String> {
    page(chat, session, conversation, HistoryRange::Latest).0
}

fn cursor_of(frames: &[ServerFrame]) -> Option<String> {
    frames.iter().find_map(|frame| match frame {
        ServerFrame::Welcome(welcome) => welcome.cursor.clone(),
        _ => None,
    })
}

#[test]
fn an_amended_message_is_shown_as_it_is_now_in_every_way() {
    let (mut chat, alice) = begun("first");
    let (bob, welcome) = chat.connect("bob", None);
    let cursor = cursor_of(&welcome);
    assert_eq!(answer(&chat.command(alice, edit(talk(), 1, "second"))), Ok(2));
    assert_eq!(told(chat.exchange(bob)), Vec::<String>::new(), "it was told in the same exchange");
    chat.command(bob, react(talk(), 1, "+", true));
    assert_eq!(answer(&chat.command(alice, send("bob", "next", id_of(NOW.0, 2)))), Ok(4));
    let now = [
        "message 1 alice: second (edited) [+ bob]",
        "amended 2 alice of 1: second [+ bob]",
        "amended 3 bob of 1: second [+ bob]",
        "message 4 alice: next",
    ];
    assert_eq!(history(&mut chat, alice, talk()), now);
    chat.users.disconnect(bob);
    // By cursor, from where the first message was known; and by a sequence.
    assert_eq!(told(chat.connect("bob", cursor).1), now[1..]);
    let positions = Some(vec![(talk(), Seq(0))]);
    let device = DeviceId::new("tablet").expect("a name");
    let connect = Connect { token: None, device, cursor: None, positions };
    let by_seq =
        chat.users.connect(9, user("bob"), Form::Json, RequestId(1), connect, NOW).expect("a session");
    assert_eq!(told(chat.exchange(by_seq)), now);
    // And to whoever looks it up without anything in memory.
    chat.forget();
    assert_eq!(history(&mut chat, alice, talk()), now);
}

#[test]
fn an_amendment_is_told_live_to_every_member_and_once() {
    let (mut chat, alice) = begun("hello");
    let (bob, _) = chat.connect("bob", None);
    chat.request(alice, edit(talk(), 1, "hi"));
    assert_eq!(told(chat.exchange(bob)), ["amended 2 alice of 1: hi"]);
    chat.request(bob, react(talk(), 1, "+", true));
    assert_eq!(told(chat.exchange(alice)), ["amended 3 bob of 1: hi [+ bob]"]);
    chat.request(bob, react(talk(), 1, "+", false));
    assert_eq!(told(chat.exchange(alice)), ["amended 4 bob of 1: hi"]);
    chat.request(alice, delete(talk(), 1));
    assert_eq!(told(chat.exchange(bob)), ["amended 5 alice of 1: deleted"]);
}

#[test]
fn who_may_amend_what() {
    let (mut chat, alice) = begun("hers");
    let (bob, _) = chat.connect("bob", None);
    let (eve, _) = chat.connect("eve", None);
    let mut answer_to = |session, command| answer(&chat.command(session, command));
    assert_eq!(answer_to(bob, edit(talk(), 1, "his")), Err(ErrorCode::NotAllowed));
    assert_eq!(answer_to(bob, delete(talk(), 1)), Err(ErrorCode::NotAllowed));
    assert_eq!(answer_to(eve, react(talk(), 1, "+", true)), Err(ErrorCode::NotAMember));
    assert_eq!(answer_to(alice, edit(talk(), 1, "")), Err(ErrorCode::BadField));
    assert_eq!(answer_to(alice, edit(talk(), 2, "what is not there")), Err(ErrorCode::NotFound));
    assert_eq!(answer_to(alice, edit(ConversationId([7; 16]), 1, "nowhere")), Err(ErrorCode::NotFound));
    assert_eq!(answer_to(bob, react(talk(), 1, "+", true)), Ok(2));
    assert_eq!(answer_to(alice, edit(talk(), 2, "an amendment")), Err(ErrorCode::NotFound));
    assert_eq!(answer_to(alice, delete(talk(), 1)), Ok(3));
    assert_eq!(answer_to(alice, edit(talk(), 1, "again")), Err(ErrorCode::NotFound));
    assert_eq!(answer_to(bob, react(talk(), 1, "+", false)), Err(ErrorCode::NotFound));
    assert_eq!(answer_to(alice, delete(talk(), 1)), Err(ErrorCode::NotFound));
}

fn group(chat: &mut Chat, creator: SessionId, members: &[&str], history: HistoryPolicy) -> ConversationId {
    let members = members.iter().map(|name| user(name)).collect();
    let create = Create { title: "group".to_owned(), members, history, message_id: id_of(NOW.0, 77) };
    let frames = chat.command(creator, Command::Create(create));
    let made = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::Ok(ok) => ok.conversation,
        _ => None,
    });
    made.expect("a group")
}

fn say(conversation: ConversationId, text: &str, id: u8) -> Command {
    let Command::Send(letter) = send("nobody", text, id_of(NOW.0, id)) else {
        unreachable!("a send");
    };
    let target = protocol::command::Target::Conversation(conversation);
    Command::Send(protocol::command::Send { target, ..letter })
}

fn add(conversation: ConversationId, name: &str) -> Command {
    let (add, remove, roles) = (vec![user(name)], Vec::new(), Vec::new());
    Command::Members(Members { conversation, add, remove, roles, message_id: None })
}

#[test]
fn an_admin_deletes_what_others_wrote_and_edits_nothing_of_it() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let room = group(&mut chat, alice, &["bob", "carol"], HistoryPolicy::All);
    assert_eq!(answer(&chat.command(bob, say(room, "rude", 1))), Ok(2));
    assert_eq!(answer(&chat.command(alice, edit(room, 2, "kind"))), Err(ErrorCode::NotAllowed));
    assert_eq!(answer(&chat.command(alice, edit(room, 1, "a membership"))), Err(ErrorCode::NotFound));
    assert_eq!(answer(&chat.command(alice, delete(room, 2))), Ok(3));
    assert_eq!(
        history(&mut chat, bob, room),
        ["member 1 alice", "message 2 bob: deleted ", "amended 3 alice of 2: deleted"]
    );
}

#[test]
fn a_deleted_text_is_never_served_again() {
    let (mut chat, alice) = begun("secret-one");
    let (bob, welcome) = chat.connect("bob", None);
    let cursor = cursor_of(&welcome);
    chat.users.disconnect(bob);
    chat.command(alice, send("bob", "before", id_of(NOW.0, 9)));
    chat.command(alice, send("bob", "secret-two", id_of(NOW.0, 8)));
    chat.command(alice, edit(talk(), 1, "secret-three"));
    chat.command(alice, edit(talk(), 3, "secret-four"));
    assert_eq!(answer(&chat.command(alice, delete(talk(), 1))), Ok(6));
    assert_eq!(answer(&chat.command(alice, delete(talk(), 3))), Ok(7));
    let expected = [
        "message 1 alice: deleted ",
        "message 2 alice: before",
        "message 3 alice: deleted ",
        "amended 4 alice of 1: deleted",
        "amended 5 alice of 3: deleted",
        "amended 6 alice of 1: deleted",
        "amended 7 alice of 3: deleted",
    ];
    assert_eq!(history(&mut chat, alice, talk()), expected);
    assert_eq!(told(chat.connect("bob", cursor).1), expected[1..]);
    for seq in 0..7 {
        let (after, _) = page(&mut chat, alice, talk(), HistoryRange::After(Seq(seq)));
        assert_eq!(after, expected[seq as usize..]);
        let (before, _) = page(&mut chat, alice, talk(), HistoryRange::Before(Seq(seq + 1)));
        assert_eq!(before, expected[..seq as usize]);
    }
}

#[test]
fn amendments_of_one_batch_follow_from_each_other() {
    let (mut chat, alice) = begun("one");
    let (bob, _) = chat.connect("bob", None);
    for emoji in ["a", "b", "c"] {
        chat.request(alice, react(talk(), 1, emoji, true));
        chat.request(bob, react(talk(), 1, emoji, true));
    }
    chat.request(alice, edit(talk(), 1, "two"));
    chat.request(bob, react(talk(), 1, "b", false));
    chat.exchange(alice);
    let now = history(&mut chat, alice, talk());
    assert_eq!(now[0], "message 1 alice: two (edited) [a alice bob] [b alice] [c alice bob]");
    assert_eq!(now.len(), 9);
}

#[test]
fn an_amendment_that_comes_again_is_answered_and_not_stored_again() {
    let (mut chat, alice) = begun("one");
    let message_id = id_of(NOW.0, 50);
    let command = |text: &str| {
        Command::Edit(Edit { conversation: talk(), seq: Seq(1), text: text.to_owned(), message_id })
    };
    assert_eq!(answer(&chat.command(alice, command("two"))), Ok(2));
    assert_eq!(answer(&chat.command(alice, command("two"))), Ok(2));
    assert_eq!(answer(&chat.command(alice, command("other"))), Err(ErrorCode::Conflict));
    // Also in one batch, and after the message was deleted.
    chat.command(alice, delete(talk(), 1));
    chat.request(alice, command("two"));
    assert_eq!(answer(&chat.command(alice, command("two")).split_off(1)), Ok(2));
    assert_eq!(answer(&chat.command(alice, send("bob", "next", None))), Ok(4));
}

#[test]
fn reactions_have_an_end() {
    let (mut chat, alice) = begun("loved");
    for number in 0..REACTIONS_MAX as u64 {
        assert_eq!(
            answer(&chat.command(alice, react(talk(), 1, &format!("{number}"), true))),
            Ok(number + 2)
        );
    }
    assert_eq!(answer(&chat.command(alice, react(talk(), 1, "more", true))), Err(ErrorCode::Limit));
    chat.command(alice, react(talk(), 1, "7", false));
    assert!(answer(&chat.command(alice, react(talk(), 1, "more", true))).is_ok());
}

#[test]
fn who_joined_later_is_told_that_something_was_amended_and_not_what() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let room = group(&mut chat, alice, &["bob"], HistoryPolicy::Joined);
    chat.command(alice, say(room, "before carol", 1));
    let (carol, welcome) = chat.connect("carol", None);
    let cursor = cursor_of(&welcome);
    chat.command(alice, add(room, "carol"));
    chat.request(alice, edit(room, 2, "not for carol"));
    let expected = ["member 3 alice", "amended 4 alice of 2: hidden", "message 5 alice: for carol"];
    assert_eq!(told(chat.exchange(carol)), expected[1..2]);
    assert_eq!(answer(&chat.command(carol, react(room, 2, "+", true))), Err(ErrorCode::NotFound));
    chat.command(alice, say(room, "for carol", 2));
    assert_eq!(history(&mut chat, carol, room), expected);
    chat.users.disconnect(carol);
    assert_eq!(told(chat.connect("carol", cursor).1), expected);
    let device = DeviceId::new("tablet").expect("a name");
    let positions = Some(vec![(room, Seq(0))]);
    let connect = Connect { token: None, device, cursor: None, positions };
    let by_seq =
        chat.users.connect(9, user("carol"), Form::Json, RequestId(1), connect, NOW).expect("a session");
    assert_eq!(told(chat.exchange(by_seq)), expected);
    let bob = chat.connect("bob", None).0;
    assert_eq!(history(&mut chat, bob, room)[1], "message 2 alice: not for carol (edited)");
}

#[test]
fn what_cannot_be_read_any_more_is_a_gap_and_not_what_it_was_before() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let (alice, _) = chat.connect("alice", None);
    chat.command(alice, send("bob", "secret", id_of(NOW.0, 1)));
    chat.command(alice, send("bob", "other", id_of(NOW.0, 2)));
    // In its payload, behind the heads of the batch and of the record.
    let rotten = chat.written.len() + 64 + 32 + 64 + 10;
    chat.command(alice, delete(talk(), 1));
    chat.command(alice, send("bob", "last", id_of(NOW.0, 3)));
    assert_eq!(history(&mut chat, alice, talk())[0], "message 1 alice: deleted ");
    // The record of the deletion rots.
    chat.written[rotten] ^= 1;
    let now = history(&mut chat, alice, talk());
    assert_eq!(now[0], "gap 1..=1 damaged on disk", "{now:?}");
    assert_eq!((now[1].as_str(), now.len()), ("message 2 alice: other", 4));
    assert!(chat.side.poll_damage().is_some(), "somebody is told");
    assert_eq!(answer(&chat.command(alice, react(talk(), 1, "+", true))), Err(ErrorCode::Unavailable));
}

/// It became durable while an earlier amendment of the same message was being read.
#[test]
fn what_was_deleted_while_a_page_was_read_is_not_in_it() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    chat.command(alice, send("bob", "first", id_of(NOW.0, 1)));
    chat.command(alice, edit(talk(), 1, "secret"));
    chat.command(alice, send("bob", "another batch", id_of(NOW.0, 2)));
    let (conversation, range) = (talk(), HistoryRange::Latest);
    chat.request(bob, Command::History { conversation, range, limit: 200 });
    chat.carry_mail();
    let records: Vec<_> = std::iter::from_fn(|| chat.side.poll_read()).collect();
    assert!(!records.is_empty(), "of the page");
    records.into_iter().for_each(|read| chat.answer_read(read));
    let held: Vec<_> = std::iter::from_fn(|| chat.side.poll_read()).collect();
    assert_eq!(held.len(), 1, "the edit");
    chat.request(alice, delete(talk(), 1));
    chat.carry_mail();
    while let Some(read) = chat.side.poll_read() {
        chat.answer_read(read);
    }
    assert!(chat.write(), "the deletion is durable");
    held.into_iter().for_each(|read| chat.answer_read(read));
    let shown = chat.exchange(bob).into_iter().find_map(|frame| match frame {
        ServerFrame::Page { messages, .. } => Some(messages.iter().map(line).collect::<Vec<_>>()),
        _ => None,
    });
    let expected =
        ["message 1 alice: deleted ", "amended 2 alice of 1: deleted", "message 3 alice: another batch"];
    assert_eq!(shown.expect("a page"), expected);
}

/// A page is cut by what its messages are now: short ones may have become long.
#[test]
fn a_page_whose_messages_grew_is_still_a_page() {
    let (mut chat, alice) = begun("1");
    let (bob, welcome) = chat.connect("bob", None);
    let cursor = cursor_of(&welcome);
    chat.users.disconnect(bob);
    let count = 20;
    for seq in 2..=count {
        chat.command(alice, send("bob", &seq.to_string(), id_of(NOW.0, seq as u8)));
    }
    for seq in 1..=count {
        let text = "x".repeat(TEXT_BYTES_MAX);
        assert_eq!(answer(&chat.command(alice, edit(talk(), seq, &text))), Ok(count + seq));
    }
    for is_up in [true, false] {
        let (mut seen, mut range) =
            (0, if is_up { HistoryRange::After(Seq(0)) } else { HistoryRange::Latest });
        loop {
            let (items, more) = page(&mut chat, alice, talk(), range);
            let bytes: usize = items.iter().map(String::len).sum();
            assert!(bytes <= FRAME_BYTES_MAX && !items.is_empty());
            assert!(items.iter().all(|item| item.len() >= TEXT_BYTES_MAX));
            seen += items.len() as u64;
            if !more {
                break;
            }
            range = if is_up {
                HistoryRange::After(Seq(seen))
            } else {
                HistoryRange::Before(Seq(2 * count - seen + 1))
            };
        }
        assert_eq!(seen, 2 * count);
    }
    let caught_up = told(chat.connect("bob", cursor).1);
    assert_eq!(caught_up.len() as u64, 2 * count - 1);
}
