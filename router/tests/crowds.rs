//! Who goes first where a crowd comes back: what commands wait for is read before pages, and what users ask for is asked before what they
//! missed; and both get their turn.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, HistoryRange};
use protocol::ids::{RequestId, Seq};
use router::ShardId;
use router::conversation::ReadPlace;
use router::mail::{Asker, Request, SessionId};
use router::places::direct_conversation;
use router::user::PAGE_CREDITS;
use storage_log::Geometry;
use storage_log::format::BLOCK_BYTES_MIN;

use support::{Chat, NOW, answer, id_of, send, user};

/// Pages that wait before anything else comes.
const PAGES: u32 = 40;

/// Those with whom alice talks, beside bob, and of whose conversations nothing is in memory.
const OTHERS: u8 = 20;

/// A disk that reads, and memory that holds nothing.
fn cold() -> (Chat, SessionId) {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let peers =
        (0..OTHERS).map(|number| format!("other-{number}")).chain(["bob".to_owned(), "last".to_owned()]);
    for (number, peer) in (0..).zip(peers) {
        answer(&chat.command(alice, send(&peer, "hello", id_of(NOW.0, number)))).expect("stored");
    }
    chat.restart();
    let (alice, _) = chat.connect("alice", None);
    (chat, alice)
}

/// Asks for a page of what alice and bob have said.
fn ask_page(chat: &mut Chat, number: u32) {
    let session = SessionId { slot: 1_000 + number, generation: 0 };
    let asker = Asker { shard: ShardId(0), session, id: RequestId(number), asked_micros: 0 };
    let (user, conversation) = (user("alice"), direct_conversation(&user("alice"), &user("bob")));
    let request =
        Request::History { asker, user, conversation, range: HistoryRange::After(Seq(0)), limit: 1 };
    chat.side.handle_request(request, chat.clock.unix, &mut chat.log);
}

/// The same, and pages of what is known of alice and bob wait for that disk.
fn crowded() -> (Chat, SessionId) {
    let (mut chat, alice) = cold();
    let conversation = direct_conversation(&user("alice"), &user("bob"));
    chat.command(alice, Command::ListMembers { conversation });
    (0..PAGES).for_each(|number| ask_page(&mut chat, number));
    (chat, alice)
}

/// Pages that are done. Nobody takes them.
fn pages_done(chat: &mut Chat) -> usize {
    std::iter::from_fn(|| chat.side.poll_output()).count()
}

#[test]
fn what_a_command_waits_for_is_read_before_pages_that_came_earlier() {
    let (mut chat, alice) = crowded();
    chat.request(alice, send("other-0", "how are you?", None));
    chat.carry_mail();
    let read = chat.side.poll_read().expect("the state of the conversation");
    chat.answer_read(read);
    assert!(chat.write(), "the message is stored after one read");
    assert_eq!(pages_done(&mut chat), 2, "its answer and its delivery");
}

#[test]
fn pages_have_their_turn_while_commands_wait_too() {
    let (mut chat, alice) = crowded();
    (0..OTHERS)
        .for_each(|number| chat.request(alice, send(&format!("other-{number}"), "how are you?", None)));
    chat.carry_mail();
    for _ in 0..OTHERS {
        let read = chat.side.poll_read().expect("more than these wait");
        chat.answer_read(read);
    }
    let done = pages_done(&mut chat);
    assert!((3..=5).contains(&done), "one in five reads: {done}");
}

#[test]
fn a_block_that_a_page_has_asked_for_is_read_at_once_when_a_command_needs_it() {
    let geometry =
        Geometry { segment_bytes: 32 << 10, batch_bytes_max: 16 << 10, block_bytes: BLOCK_BYTES_MIN };
    let mut chat = Chat::with_geometry(1, geometry);
    chat.disk_reads = true;
    let (alice, _) = chat.connect("alice", None);
    chat.command(alice, send("carol", "the first", None));
    while chat.log.sealed_blocks().next().is_none() {
        chat.command(alice, send("carol", "one of many", None));
    }
    for peer in ["bob", "last"] {
        answer(&chat.command(alice, send(peer, "hello", None))).expect("stored");
    }
    (0..PAGES).for_each(|number| ask_page(&mut chat, number));
    let conversation = direct_conversation(&user("alice"), &user("carol"));
    chat.request(alice, Command::History { conversation, range: HistoryRange::After(Seq(0)), limit: 1 });
    chat.request(alice, Command::Delete { conversation, seq: Seq(1), message_id: None });
    chat.carry_mail();
    let read = chat.side.poll_read().expect("more than one wait");
    assert!(
        matches!(read.what, ReadPlace::Index(_)),
        "of a page that came last, and of the command: {read:?}"
    );
}

#[test]
fn what_a_user_asks_for_does_not_wait_until_a_crowd_has_caught_up() {
    let (mut chat, alice) = cold();
    let crowd = PAGE_CREDITS * 3;
    (0..crowd).for_each(|number| _ = chat.begin(&format!("user-{number}"), None));
    let conversation = direct_conversation(&user("alice"), &user("bob"));
    chat.request(alice, Command::History { conversation, range: HistoryRange::Latest, limit: 1 });
    let pages = |chat: &mut Chat| -> Vec<Request> {
        let mail = std::iter::from_fn(|| chat.users.poll_mail()).map(|(_, request)| request);
        mail.filter(Request::is_page).collect()
    };
    let mut asked = pages(&mut chat);
    assert_eq!(asked.len(), PAGE_CREDITS as usize);
    assert!(asked.iter().all(|request| matches!(request, Request::CatchUp { .. })), "all credits are taken");
    asked.truncate(2);
    for request in asked {
        chat.side.handle_request(request, chat.clock.unix, &mut chat.log);
    }
    chat.carry_replies();
    let next = pages(&mut chat);
    assert!(matches!(next[0], Request::History { .. }), "{next:?}");
    assert!(matches!(next[1], Request::CatchUp { .. }), "{next:?}");
}
