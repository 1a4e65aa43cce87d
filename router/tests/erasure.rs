//! What is erased, as both sides show it: to whoever is there, to whoever asks, and to whoever amends it.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Edit, HistoryRange, React};
use protocol::event::{ErrorCode, PageItem, ServerFrame};
use protocol::ids::{ConversationId, Seq};
use router::conversation::Subject;
use router::mail::SessionId;
use router::places::direct_conversation;

use support::{Chat, NOW, answer, id_of, send, user};

fn talk() -> ConversationId {
    direct_conversation(&user("alice"), &user("bob"))
}

/// What it is and at which sequence, and what it says.
fn line(item: &PageItem) -> String {
    match item {
        PageItem::Amended(event) => format!("amended {} of {}", event.seq.0, event.target.0),
        PageItem::Gap(gap) => format!("gap {}..={} {}", gap.from.0, gap.to.0, gap.reason),
        PageItem::Member(event) => format!("member {}", event.seq.0),
        PageItem::Message(event) => {
            let reactions: Vec<&str> =
                event.reactions.iter().map(|reaction| reaction.emoji.as_str()).collect();
            format!("message {} {} {}", event.seq.0, event.text, reactions.join("")).trim_end().to_owned()
        }
    }
}

/// The same of what is pushed.
fn told(frames: Vec<ServerFrame>) -> Vec<String> {
    let items = frames.into_iter().filter_map(|frame| match frame {
        ServerFrame::Message(event) => Some(PageItem::Message(event)),
        ServerFrame::Amended(event) => Some(PageItem::Amended(event)),
        ServerFrame::Gap(gap) => Some(PageItem::Gap(gap)),
        _ => None,
    });
    items.map(|item| line(&item)).collect()
}

/// The conversation, in whichever way it is asked for.
#[track_caller]
fn check_history(chat: &mut Chat, session: SessionId, expected: &[&str]) {
    for range in [HistoryRange::Latest, HistoryRange::After(Seq(0)), HistoryRange::Before(Seq(99))] {
        let history = Command::History { conversation: talk(), range, limit: 99 };
        let Some(ServerFrame::Page { messages, more: false, .. }) = chat.command(session, history).pop()
        else {
            panic!("a page");
        };
        assert_eq!(messages.iter().map(line).collect::<Vec<_>>(), expected, "{range:?}");
    }
}

fn edit(seq: u64, text: &str) -> Command {
    let text = text.to_owned();
    Command::Edit(Edit { conversation: talk(), seq: Seq(seq), text, message_id: None })
}

fn react(seq: u64) -> Command {
    let emoji = "+".to_owned();
    Command::React(React { conversation: talk(), seq: Seq(seq), emoji, on: true, message_id: None })
}

/// What is sent is taken, and not yet durable.
fn take(chat: &mut Chat) {
    while let Some((_, request)) = chat.users.poll_mail() {
        chat.side.handle_request(request, NOW, &mut chat.log);
    }
}

fn erase(chat: &mut Chat, subject: &Subject) {
    chat.side.erase(subject, chat.log.newest_position());
}

/// Also of what is under way to the disk in this moment, and whoever sent it is answered as ever.
#[test]
fn what_is_erased_is_a_gap_live_and_in_every_page_and_what_comes_later_is_heard() {
    let mut chat = Chat::new();
    let (bob, _) = chat.connect("bob", None);
    let (alice, _) = chat.connect("alice", None);
    let first = send("bob", "one", id_of(NOW.0, 1));
    chat.command(alice, first.clone());
    chat.exchange(bob);
    chat.request(alice, send("bob", "two", id_of(NOW.0, 2)));
    take(&mut chat);
    erase(&mut chat, &Subject::User(user("alice")));
    assert_eq!(told(chat.exchange(bob)), ["gap 2..=2 erased"]);
    assert_eq!(answer(&chat.command(alice, first)), Ok(1), "it was stored");
    chat.request(alice, send("bob", "three", id_of(NOW.0, 3)));
    assert_eq!(told(chat.exchange(bob)), ["message 3 three"]);
    check_history(&mut chat, bob, &["gap 1..=1 erased", "gap 2..=2 erased", "message 3 three"]);
}

/// An amendment holds all of its message, whoever made it: it goes with that, and none is made from it any more.
#[test]
fn what_amends_a_message_is_erased_with_it_and_nothing_amends_it_any_more() {
    let mut chat = Chat::new();
    let (bob, _) = chat.connect("bob", None);
    let (alice, _) = chat.connect("alice", None);
    chat.command(alice, send("bob", "hers", id_of(NOW.0, 1)));
    chat.command(bob, send("alice", "his", id_of(NOW.0, 2)));
    assert_eq!(answer(&chat.command(alice, edit(1, "hers, better"))), Ok(3));
    assert_eq!(answer(&chat.command(bob, react(1))), Ok(4));
    assert_eq!(answer(&chat.command(alice, react(2))), Ok(5));
    // Under way: the next would follow from this one, in memory.
    chat.request(alice, edit(1, "hers, best"));
    take(&mut chat);
    erase(&mut chat, &Subject::User(user("alice")));
    chat.request(bob, react(1));
    assert_eq!(answer(&chat.exchange(bob)), Err(ErrorCode::NotFound));
    assert_eq!(answer(&chat.command(alice, edit(1, "hers again"))), Err(ErrorCode::NotFound));
    // What others said she may react to, and what she did stays theirs.
    let kept = [
        "gap 1..=1 erased",
        "message 2 his +",
        "gap 3..=3 erased",
        "gap 4..=4 erased",
        "amended 5 of 2",
        "gap 6..=6 erased",
    ];
    check_history(&mut chat, bob, &kept);
    chat.forget();
    erase(&mut chat, &Subject::User(user("alice")));
    check_history(&mut chat, bob, &kept);
}

#[test]
fn a_front_is_gone_with_all_that_is_said_of_it_behind() {
    let mut chat = Chat::new();
    let (bob, _) = chat.connect("bob", None);
    let (alice, _) = chat.connect("alice", None);
    for (number, text) in ["one", "two", "three"].into_iter().enumerate() {
        chat.command(alice, send("bob", text, id_of(NOW.0, number as u8 + 1)));
    }
    assert_eq!(answer(&chat.command(alice, edit(1, "one, better"))), Ok(4));
    assert_eq!(answer(&chat.command(bob, react(3))), Ok(5));
    erase(&mut chat, &Subject::Front(talk(), Seq(3)));
    let kept = ["gap 1..=2 not kept any more", "message 3 three +", "gap 4..=4 erased", "amended 5 of 3"];
    check_history(&mut chat, bob, &kept);
    assert_eq!(answer(&chat.command(alice, edit(2, "two, better"))), Err(ErrorCode::NotFound));
    assert_eq!(answer(&chat.command(alice, edit(3, "three, better"))), Ok(6));
}
