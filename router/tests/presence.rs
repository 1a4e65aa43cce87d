//! Who is told who is online, and who is typing: those who look at a conversation, of its members, and nobody else.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, HistoryPolicy, Members};
use protocol::event::{ErrorCode, Presence, ServerFrame};
use protocol::ids::{ConversationId, UnixMillis, UserId};
use protocol::limits::VIEWS_MAX;
use router::mail::{Reply, Request, SessionId};
use router::places::{created_conversation, direct_conversation};
use router::user::PRESENCE_GRACE_MILLIS;

use support::{Chat, NOW, answer, id_of, send, talked, user};

/// What the answer to a `view` says of everybody.
fn viewed(frames: &[ServerFrame]) -> Vec<Presence> {
    let answers = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Viewed { presence, .. } => Some(presence.clone()),
        _ => None,
    });
    let answers: Vec<_> = answers.collect();
    assert_eq!(answers.len(), 1, "one answer: {frames:?}");
    answers.into_iter().next().expect("looked at")
}

/// News in `frames`.
fn news(frames: &[ServerFrame]) -> Vec<&ServerFrame> {
    let is_news =
        |frame: &&ServerFrame| matches!(frame, ServerFrame::Presence(_) | ServerFrame::Typing { .. });
    frames.iter().filter(is_news).collect()
}

fn online(name: &str) -> Presence {
    Presence { user: user(name), online: true, last_seen: None }
}

fn gone(name: &str, last_seen: Option<UnixMillis>) -> Presence {
    Presence { user: user(name), online: false, last_seen }
}

#[test]
fn who_views_is_told_who_comes_and_goes_and_nobody_else_is() {
    let (mut chat, alice, conversation) = talked();
    let (carol, _) = chat.connect("carol", None);
    let frames = chat.command(alice, Command::View { conversation });
    assert_eq!(viewed(&frames), [online("alice"), gone("bob", None)]);

    let bob = chat.begin("bob", None);
    assert_eq!(news(&chat.exchange(alice)), [&ServerFrame::Presence(online("bob"))]);
    let left_at = chat.clock.unix;
    chat.users.disconnect(bob);
    chat.wait(PRESENCE_GRACE_MILLIS);
    let expected = ServerFrame::Presence(gone("bob", Some(left_at)));
    assert_eq!(news(&chat.exchange(alice)), [&expected]);
    assert!(news(&chat.exchange(carol)).is_empty());

    // And when she looks away she is told nothing more.
    chat.command(alice, Command::Unview { conversation });
    let counted = chat.users.counters.presence;
    chat.begin("bob", None);
    assert!(news(&chat.exchange(alice)).is_empty());
    assert_eq!((counted, chat.users.counters.presence), (2, 2), "as many as there were to tell");
}

#[test]
fn who_comes_back_within_grace_has_not_been_away() {
    let (mut chat, alice, conversation) = talked();
    let (bob, _) = chat.connect("bob", None);
    chat.command(alice, Command::View { conversation });
    for _ in 0..3 {
        // The newer session of a device ends the one before.
        let bob = chat.begin("bob", None);
        chat.users.disconnect(bob);
        chat.wait(PRESENCE_GRACE_MILLIS - 1);
        assert!(news(&chat.exchange(alice)).is_empty());
    }
    chat.users.disconnect(bob);
    chat.wait(1);
    assert!(!news(&chat.exchange(alice)).is_empty(), "away for all of it");
}

#[test]
fn right_after_a_start_nobody_is_said_to_be_away_who_may_be_coming_back() {
    let (mut chat, alice, conversation) = talked();
    // As after a start: nobody has been seen yet.
    let places = std::sync::Arc::new(router::Places::new([1; 16], [2; 32], 1, 1));
    let starts = std::sync::Arc::new(router::Starts::new(vec![chat.log.runs().to_vec()]));
    chat.users.disconnect(alice);
    let limits = router::user::UserLimits::default();
    chat.users = router::UserSide::new(places, starts, router::ShardId(0), limits, 1);
    chat.forget();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    assert_eq!(viewed(&chat.command(alice, Command::View { conversation })), [online("alice")]);
    chat.wait(PRESENCE_GRACE_MILLIS - 1);
    assert!(news(&chat.exchange(alice)).is_empty());
    chat.wait(1);
    assert_eq!(news(&chat.exchange(alice)), [&ServerFrame::Presence(gone("bob", None))]);
}

#[test]
fn typing_is_told_to_the_others_who_look_and_only_by_members() {
    let (mut chat, alice, conversation) = talked();
    let (bob, _) = chat.connect("bob", None);
    let (eve, _) = chat.connect("eve", None);
    chat.command(alice, Command::View { conversation });
    chat.command(bob, Command::View { conversation });
    chat.request(bob, Command::Typing { conversation, on: true });
    chat.request(eve, Command::Typing { conversation, on: true });
    let expected = ServerFrame::Typing { conversation, user: user("bob"), on: true };
    assert_eq!(news(&chat.exchange(alice)), [&expected]);
    assert!(news(&chat.exchange(bob)).is_empty());
    // Said and taken back before anybody is told is the newest of it.
    chat.request(bob, Command::Typing { conversation, on: true });
    chat.request(bob, Command::Typing { conversation, on: false });
    let expected = ServerFrame::Typing { conversation, user: user("bob"), on: false };
    assert_eq!(news(&chat.exchange(alice)), [&expected]);
}

#[test]
fn strangers_view_nothing_and_a_session_views_eight() {
    let (mut chat, alice, conversation) = talked();
    let (eve, _) = chat.connect("eve", None);
    assert_eq!(answer(&chat.command(eve, Command::View { conversation })), Err(ErrorCode::NotAMember));
    let conversation_of = |name: &str| direct_conversation(&user("alice"), &user(name));
    for number in 0..=VIEWS_MAX {
        let name = format!("friend-{number}");
        answer(&chat.command(alice, send(&name, "hello", id_of(NOW.0, 10 + number as u8)))).expect("stored");
        let frames = chat.command(alice, Command::View { conversation: conversation_of(&name) });
        if number < VIEWS_MAX {
            assert_eq!(viewed(&frames).len(), 2);
        } else {
            assert_eq!(answer(&frames), Err(ErrorCode::Limit));
        }
    }
    // A refused one takes no place.
    chat.command(alice, Command::Unview { conversation: conversation_of("friend-0") });
    let nowhere = Command::View { conversation: ConversationId([9; 16]) };
    assert_eq!(answer(&chat.command(alice, nowhere)), Err(ErrorCode::NotFound));
    assert_eq!(viewed(&chat.command(alice, Command::View { conversation })).len(), 2);
}

#[test]
fn who_joins_is_seen_and_who_is_taken_out_sees_nothing_more() {
    let (mut chat, alice, _) = talked();
    let (bob, _) = chat.connect("bob", None);
    let id = id_of(NOW.0, 50);
    let (title, history) = ("a group".to_owned(), HistoryPolicy::All);
    let create = Create { title, members: vec![user("bob")], history, message_id: id };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    let conversation = created_conversation(&user("alice"), id.expect("an id"));
    chat.command(bob, Command::View { conversation });
    let change = |add: Vec<UserId>, remove: Vec<UserId>| {
        Command::Members(Members { conversation, add, remove, roles: Vec::new(), message_id: None })
    };
    chat.connect("carol", None);
    chat.request(alice, change(vec![user("carol")], vec![]));
    assert_eq!(news(&chat.exchange(bob)), [&ServerFrame::Presence(online("carol"))]);

    chat.request(alice, change(vec![], vec![user("bob")]));
    assert!(chat.exchange(bob).iter().any(|frame| matches!(frame, ServerFrame::Member(_))));
    chat.begin("dave", None);
    chat.request(alice, change(vec![user("dave")], vec![]));
    assert!(news(&chat.exchange(bob)).is_empty());
}

/// Nothing new is said of one who is watched already: so what is known has to be told where it joins.
#[test]
fn who_joins_and_was_seen_elsewhere_before_is_seen_there_too() {
    let (mut chat, alice, direct) = talked();
    chat.connect("bob", None);
    let conversation = group(&mut chat, alice, 50, &["carol"]);
    chat.command(alice, Command::View { conversation: direct });
    chat.command(alice, Command::View { conversation });
    let (add, remove, roles) = (vec![user("bob")], Vec::new(), Vec::new());
    chat.request(alice, Command::Members(Members { conversation, add, remove, roles, message_id: None }));
    assert_eq!(news(&chat.exchange(alice)), [&ServerFrame::Presence(online("bob"))]);
}

#[test]
fn a_session_that_does_not_read_is_told_the_newest_when_it_does() {
    let (mut chat, alice, conversation) = talked();
    chat.command(alice, Command::View { conversation });
    let (carol, _) = chat.connect("carol", None);
    // Her outbox is full, and nothing is taken from it.
    for number in 0..8_u8 {
        chat.request(carol, send("alice", &"x".repeat(16_000), id_of(NOW.0, 100 + number)));
    }
    while chat.carry_mail() | chat.write() | chat.carry_replies() {}
    let mut last = None;
    for _ in 0..3 {
        let bob = chat.begin("bob", None);
        while chat.carry_mail() | chat.write() | chat.carry_replies() {}
        chat.users.disconnect(bob);
        last = Some(chat.clock.unix);
        chat.wait(PRESENCE_GRACE_MILLIS);
        while chat.carry_mail() | chat.write() | chat.carry_replies() {}
    }
    let frames = chat.exchange(alice);
    assert_eq!(news(&frames), [&ServerFrame::Presence(gone("bob", last))]);
}

#[test]
fn a_view_that_ended_before_it_was_answered_is_none() {
    let (mut chat, alice, conversation) = talked();
    chat.request(alice, Command::View { conversation });
    chat.request(alice, Command::Unview { conversation });
    chat.exchange(alice);
    chat.begin("bob", None);
    assert!(news(&chat.exchange(alice)).is_empty());
    // Ended and begun again in one breath is a view.
    chat.command(alice, Command::View { conversation });
    chat.request(alice, Command::Unview { conversation });
    assert_eq!(viewed(&chat.command(alice, Command::View { conversation })).len(), 2);
    let (dave, _) = chat.connect("bob", None);
    chat.users.disconnect(dave);
    chat.wait(PRESENCE_GRACE_MILLIS);
    assert_eq!(news(&chat.exchange(alice)).len(), 1);
}

/// Alice has made a group with these, under a message id of this number.
fn group(chat: &mut Chat, alice: SessionId, number: u8, names: &[&str]) -> ConversationId {
    let id = id_of(NOW.0, number);
    let (title, history) = ("a group".to_owned(), HistoryPolicy::All);
    let members = names.iter().map(|name| user(name)).collect();
    let create = Create { title, members, history, message_id: id };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    created_conversation(&user("alice"), id.expect("an id"))
}

/// Nobody says how one stands who was taken out: who waits for that would wait for ever, and hold a credit.
#[test]
fn a_view_that_waits_for_a_member_who_is_taken_out_is_answered() {
    let (mut chat, alice, direct) = talked();
    let conversation = group(&mut chat, alice, 50, &["bob", "carol"]);
    // How alice and bob stand is known already.
    chat.command(alice, Command::View { conversation: direct });
    chat.request(alice, Command::View { conversation });
    // Carol's home has not been asked yet when she is taken out.
    chat.carry_mail();
    let remove = vec![user("carol")];
    let change = Members { conversation, add: vec![], remove, roles: vec![], message_id: None };
    chat.request(alice, Command::Members(change));
    chat.carry_mail();
    while chat.write() {}
    let frames = chat.exchange(alice);
    assert_eq!(viewed(&frames), [online("alice"), gone("bob", None)]);
    assert_eq!(chat.users.requests_under_way(), 0);
}

/// A session that views something and asks again views nothing if that is refused, here and there: or nobody would ever end it.
#[test]
fn a_view_that_is_refused_when_asked_again_leaves_nothing_behind() {
    let (mut chat, alice, _) = talked();
    let conversation = group(&mut chat, alice, 50, &["bob", "carol"]);
    assert_eq!(viewed(&chat.command(alice, Command::View { conversation })).len(), 3);
    chat.request(alice, Command::View { conversation });
    let Some((owner, Request::View { asker, .. })) = chat.users.poll_mail() else {
        panic!("it is asked again");
    };
    let (code, message) = (ErrorCode::Busy, "this conversation is loading");
    let refused = Reply::Refused { asker, is_page: true, code, message, retry_after_ms: None };
    chat.users.handle_reply(owner, refused, chat.clock);
    assert_eq!(answer(&chat.exchange(alice)), Err(ErrorCode::Busy));
    let counted = chat.users.counters.presence;
    chat.begin("bob", None);
    chat.exchange(alice);
    assert_eq!(chat.users.counters.presence, counted, "nobody views it");
}

/// A membership that will never be durable is waited for by nobody.
#[test]
fn a_view_by_what_a_stopped_log_has_not_stored_is_refused() {
    let (mut chat, alice, _) = talked();
    let id = id_of(NOW.0, 60);
    let (title, history) = ("a group".to_owned(), HistoryPolicy::All);
    let create = Create { title, members: vec![user("bob")], history, message_id: id };
    chat.request(alice, Command::Create(create));
    chat.carry_mail();
    let batch = chat.log.poll_write(0).expect("something to write");
    chat.log.handle_written(batch.buffer, false).expect_err("it failed");
    chat.side.handle_failed();
    assert_eq!(answer(&chat.exchange(alice)), Err(ErrorCode::Unavailable));
    let conversation = created_conversation(&user("alice"), id.expect("an id"));
    for command in [Command::View { conversation }, Command::ListMembers { conversation }] {
        assert_eq!(answer(&chat.command(alice, command)), Err(ErrorCode::Unavailable));
    }
    assert_eq!(chat.users.requests_under_way(), 0);
}
