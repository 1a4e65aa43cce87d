//! Two users of whom one blocks the other: nothing passes between them in their direct conversation, and nothing else changes.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, Edit, HistoryPolicy, HistoryRange, React, Request};
use protocol::event::{ErrorCode, ListedConversation, Reached, ServerFrame};
use protocol::ids::{ConversationId, Seq};
use router::mail::SessionId;
use router::places::direct_conversation;

use support::{Chat, NOW, answer, id_of, send, user};

fn block(name: &str, on: bool) -> Command {
    Command::Block { user: user(name), on, message_id: None }
}

/// The refusal in words, or a bare `ok`.
#[track_caller]
fn done(frames: &[ServerFrame]) -> Result<(), (ErrorCode, String)> {
    let answers = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Ok(_) => Some(Ok(())),
        ServerFrame::Error(error) => Some(Err((error.code, error.message.clone()))),
        _ => None,
    });
    let mut answers: Vec<_> = answers.collect();
    assert_eq!(answers.len(), 1, "{frames:?}");
    answers.pop().expect("looked at")
}

#[track_caller]
fn refused(frames: &[ServerFrame]) -> String {
    let (code, words) = done(frames).expect_err("refused");
    assert_eq!(code, ErrorCode::NotAllowed);
    words
}

fn list(chat: &mut Chat, session: SessionId) -> Vec<ListedConversation> {
    let frames = chat.command(session, Command::Conversations { after: None, limit: 50 });
    let list = frames.into_iter().find_map(|frame| match frame {
        ServerFrame::Conversations { conversations, .. } => Some(conversations),
        _ => None,
    });
    list.expect("a list")
}

fn react(conversation: ConversationId, seq: u64) -> Command {
    let (seq, emoji) = (Seq(seq), "+".to_owned());
    Command::React(React { conversation, seq, emoji, on: true, message_id: None })
}

/// Alice and bob are here and have said something each.
fn talked() -> (Chat, SessionId, SessionId, ConversationId) {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    answer(&chat.command(alice, send("bob", "hello", id_of(NOW.0, 1)))).expect("stored");
    answer(&chat.command(bob, send("alice", "hello", id_of(NOW.0, 2)))).expect("stored");
    chat.exchange(alice);
    (chat, alice, bob, direct_conversation(&user("alice"), &user("bob")))
}

#[test]
fn while_one_blocks_the_other_neither_says_anything_and_both_may_read() {
    let (mut chat, alice, bob, conversation) = talked();
    let before = chat.log.durable().position();
    assert_eq!(done(&chat.command(alice, block("bob", true))), Ok(()));
    assert_eq!(done(&chat.command(alice, block("bob", true))), Ok(()), "it is so already");
    assert_eq!(chat.log.durable().position(), before + 1);
    assert_eq!(refused(&chat.command(alice, send("bob", "no", None))), "you block this user");
    let words = refused(&chat.command(bob, send("alice", "no", None)));
    assert!(!words.contains("block"), "{words}");
    assert_eq!(refused(&chat.command(bob, react(conversation, 1))), words);
    let text = "otherwise".to_owned();
    let edit = Command::Edit(Edit { conversation, seq: Seq(2), text, message_id: None });
    assert_eq!(refused(&chat.command(bob, edit)), words);
    // A repetition of what was stored before is answered as it was.
    assert_eq!(answer(&chat.command(bob, send("alice", "hello", id_of(NOW.0, 2)))), Ok(2));
    let history = Command::History { conversation, range: HistoryRange::Latest, limit: 10 };
    for session in [alice, bob] {
        let frames = chat.command(session, history.clone());
        let read = frames
            .iter()
            .any(|frame| matches!(frame, ServerFrame::Page { messages, .. } if messages.len() == 2));
        assert!(read, "{frames:?}");
    }
    let blocked =
        |chat: &mut Chat, session| list(chat, session).iter().map(|one| one.blocked).collect::<Vec<_>>();
    assert_eq!((blocked(&mut chat, alice), blocked(&mut chat, bob)), (vec![true], vec![false]));
    // What one said can be taken back.
    let delete = Command::Delete { conversation, seq: Seq(2), message_id: None };
    assert_eq!(answer(&chat.command(bob, delete)), Ok(3));
    // Both block: it ends when neither does, over a start as well.
    assert_eq!(done(&chat.command(bob, block("alice", true))), Ok(()));
    assert_eq!(done(&chat.command(alice, block("bob", false))), Ok(()));
    chat.forget();
    assert_eq!(refused(&chat.command(bob, send("alice", "no", None))), "you block this user");
    refused(&chat.command(alice, send("bob", "no", None)));
    assert_eq!(done(&chat.command(bob, block("alice", false))), Ok(()));
    assert_eq!(answer(&chat.command(alice, send("bob", "again", None))), Ok(4), "no sequence was taken");
    assert_eq!(refused(&chat.command(alice, block("alice", true))), "nobody blocks oneself");
}

#[test]
fn a_block_is_on_disk_before_it_is_answered_and_what_comes_after_it_is_refused() {
    let (mut chat, alice, bob, _) = talked();
    chat.request(bob, send("alice", "just before", None));
    chat.request(alice, block("bob", true));
    chat.request(bob, send("alice", "just after", None));
    while chat.carry_mail() | chat.carry_replies() {}
    assert!(chat.take(alice).is_empty(), "it is not on disk");
    let frames = chat.exchange(bob);
    let stored = frames.iter().filter(|frame| matches!(frame, ServerFrame::Ok(_))).count();
    let refusals = frames.iter().filter(|frame| matches!(frame, ServerFrame::Error(_))).count();
    assert_eq!((stored, refusals), (1, 1), "the log decides by order: {frames:?}");
}

#[test]
fn a_block_before_anything_was_said_is_in_nobodys_list() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    assert_eq!(done(&chat.command(alice, block("bob", false))), Ok(()), "there is nothing to end");
    assert_eq!(done(&chat.command(alice, block("bob", true))), Ok(()));
    refused(&chat.command(bob, send("alice", "hello", None)));
    chat.forget();
    refused(&chat.command(bob, send("alice", "hello", None)));
    for session in [alice, bob] {
        assert_eq!(list(&mut chat, session), []);
    }
    assert_eq!(done(&chat.command(alice, block("bob", false))), Ok(()));
    assert_eq!(answer(&chat.command(bob, send("alice", "hello", None))), Ok(1));
    for session in [alice, bob] {
        let list = list(&mut chat, session);
        assert!(list.len() == 1 && !list[0].blocked && list[0].head == Seq(1), "{list:?}");
    }
    // It reaches who comes back, as any other.
    let (_, frames) = chat.connect("alice", None);
    assert!(frames.iter().any(|frame| matches!(frame, ServerFrame::Welcome(_))));
}

#[test]
fn a_block_does_not_touch_groups() {
    let (mut chat, alice, bob, _) = talked();
    let id = id_of(NOW.0, 9);
    let (title, members) = ("a group".to_owned(), vec![user("bob")]);
    let create = Create { title, members, history: HistoryPolicy::All, message_id: id };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    assert_eq!(done(&chat.command(alice, block("bob", true))), Ok(()));
    let group = router::places::created_conversation(&user("alice"), id.expect("an id"));
    assert_eq!(answer(&chat.command(bob, react(group, 1))), Err(ErrorCode::NotFound), "no message");
    let title = Command::Title { conversation: group, title: "ours".to_owned(), message_id: None };
    chat.request(alice, title);
    assert!(chat.exchange(bob).iter().any(|frame| matches!(frame, ServerFrame::Member(_))));
}

fn type_in(chat: &mut Chat, session: SessionId, conversation: ConversationId) {
    let typing = Request { id: None, command: Command::Typing { conversation, on: true } };
    chat.users.handle_command(session, typing, chat.clock).expect("few commands");
}

/// What the two are told of each other.
fn told(frames: &[ServerFrame]) -> Vec<&ServerFrame> {
    let is_news = |frame: &&ServerFrame| {
        matches!(frame, ServerFrame::Presence(_) | ServerFrame::Typing { .. } | ServerFrame::Receipt { .. })
    };
    frames.iter().filter(is_news).collect()
}

#[test]
fn nothing_of_one_reaches_the_other_while_one_blocks() {
    let (mut chat, alice, bob, conversation) = talked();
    chat.command(alice, Command::View { conversation });
    assert_eq!(done(&chat.command(bob, block("alice", true))), Ok(()));
    // He types, reads, goes and comes; she looks again.
    chat.request(bob, Command::Read { conversation, seq: Seq(1) });
    type_in(&mut chat, bob, conversation);
    let mut frames = chat.exchange(alice);
    chat.wait(1_000);
    frames.extend(chat.exchange(alice));
    chat.users.disconnect(bob);
    chat.wait(20_000);
    frames.extend(chat.exchange(alice));
    let (bob, _) = chat.connect("bob", None);
    frames.extend(chat.exchange(alice));
    assert_eq!(told(&frames), Vec::<&ServerFrame>::new());
    let viewed = chat.command(alice, Command::View { conversation });
    let of_her = viewed.iter().any(|frame| match frame {
        ServerFrame::Viewed { presence, receipts, .. } => {
            presence.iter().all(|one| one.user == user("alice"))
                && receipts.iter().all(|(who, _)| *who == user("alice"))
        }
        _ => false,
    });
    assert!(of_her, "{viewed:?}");
    // Once it ends, and that is on the disk, each is told how the other stands; who looks again in between is told nothing.
    chat.request(bob, block("alice", false));
    chat.carry_mail();
    chat.carry_replies();
    chat.request(alice, Command::View { conversation });
    chat.carry_mail();
    chat.carry_replies();
    let undurable = chat.take(alice);
    assert!(told(&undurable).is_empty(), "a crash could have kept the block: {undurable:?}");
    let frames = chat.exchange(alice);
    let news = told(&frames);
    let is_here = |frame: &&&ServerFrame| matches!(frame, ServerFrame::Presence(one) if one.online && one.user == user("bob"));
    assert_eq!(news.iter().filter(is_here).count(), 1, "{news:?}");
    assert!(
        news.iter()
            .any(|frame| matches!(frame, ServerFrame::Receipt { reached: Reached { read: Seq(2), .. }, .. })),
        "{news:?}"
    );
    type_in(&mut chat, bob, conversation);
    assert_eq!(told(&chat.exchange(alice)).len(), 1, "as before");
}

/// Each end of a block told both how far the other had come, as often as there was one.
#[test]
fn a_block_that_comes_and_goes_tells_each_receipt_once() {
    let (mut chat, alice, bob, conversation) = talked();
    chat.command(alice, Command::View { conversation });
    let receipts = |chat: &mut Chat, command: Option<Command>| {
        let mut frames = command.map(|command| chat.command(alice, command)).unwrap_or_default();
        chat.wait(1_000);
        frames.extend(chat.exchange(alice));
        let receipts = frames.into_iter().filter_map(|frame| match frame {
            ServerFrame::Receipt { user: who, reached, .. } if who == user("bob") => Some(reached.read),
            _ => None,
        });
        receipts.collect::<Vec<Seq>>()
    };
    receipts(&mut chat, None);
    for _ in 0..8 {
        assert_eq!(receipts(&mut chat, Some(block("bob", true))), []);
        assert_eq!(receipts(&mut chat, Some(block("bob", false))), [], "nothing has changed");
    }
    answer(&chat.command(alice, send("bob", "hello", id_of(NOW.0, 3)))).expect("stored");
    chat.command(alice, block("bob", true));
    chat.request(bob, Command::Read { conversation, seq: Seq(3) });
    assert_eq!(receipts(&mut chat, None), [], "nothing of one reaches the other");
    assert_eq!(receipts(&mut chat, Some(block("bob", false))), [Seq(3)]);
    chat.command(alice, block("bob", true));
    // Who begins to look meanwhile is told of itself alone, and of the other then.
    chat.command(alice, Command::Unview { conversation });
    chat.command(alice, Command::View { conversation });
    assert_eq!(receipts(&mut chat, Some(block("bob", false))), [Seq(3)]);
}
