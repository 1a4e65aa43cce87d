//! How many others a user may approach in an hour: what counts, and what does not.

#![forbid(unsafe_code)]

mod support;

use std::sync::Arc;

use protocol::command::{Command, Create, HistoryPolicy, Members};
use protocol::event::{ErrorCode, ServerFrame};
use protocol::ids::{ConversationId, MessageId};
use router::cursor::Starts;
use router::mail::SessionId;
use router::user::{ApproachLimits, Rate, UserLimits};
use router::{Places, ShardId, UserSide};

use support::{Chat, NOW, answer, id_of, send, user};

/// A shard on which a user may begin two conversations in an hour and put two people into groups; alice is there.
fn limited() -> (Chat, SessionId) {
    let mut chat = Chat::new();
    let approaches = ApproachLimits { conversations: Rate::per_hour(2), people: Rate::per_hour(2) };
    let limits = UserLimits { approaches, ..UserLimits::default() };
    let places = Arc::new(Places::new([1; 16], [2; 32], 1, 1));
    let starts = Arc::new(Starts::new(vec![chat.log.runs().to_vec()]));
    chat.users = UserSide::new(places, starts, ShardId(0), limits, 1);
    let (alice, _) = chat.connect("alice", None);
    (chat, alice)
}

fn create(members: &[&str], message_id: Option<MessageId>) -> Command {
    let members = members.iter().map(|name| user(name)).collect();
    Command::Create(Create { title: "group".into(), members, history: HistoryPolicy::All, message_id })
}

fn add(conversation: ConversationId, name: &str, message_id: Option<MessageId>) -> Command {
    let (remove, roles) = (Vec::new(), Vec::new());
    Command::Members(Members { conversation, add: vec![user(name)], remove, roles, message_id })
}

/// In how many milliseconds it may be asked for again.
#[track_caller]
fn wait(frames: &[ServerFrame]) -> u64 {
    let error = frames.iter().find_map(|frame| match frame {
        ServerFrame::Error(error) => Some(error),
        _ => None,
    });
    let error = error.unwrap_or_else(|| panic!("{frames:?}"));
    assert_eq!(error.code, ErrorCode::RateLimited);
    error.retry_after_ms.expect("when")
}

#[test]
fn what_was_begun_counts_although_its_session_has_gone() {
    let (mut chat, mut alice) = limited();
    for (number, to) in ["u1", "u2", "u3"].into_iter().enumerate() {
        chat.request(alice, send(to, "x", id_of(NOW.0, number as u8)));
        chat.carry_mail();
        chat.users.disconnect(alice);
        alice = chat.connect("alice", None).0;
    }
    assert_eq!(wait(&chat.command(alice, send("u4", "x", None))), 1_800_000);
}

#[test]
fn a_command_that_is_repeated_at_the_limit_is_answered_with_what_it_did() {
    let (mut chat, alice) = limited();
    let (first, group) = (send("u1", "x", id_of(NOW.0, 1)), create(&["u1", "u2"], id_of(NOW.0, 2)));
    assert_eq!(answer(&chat.command(alice, first.clone())), Ok(1));
    assert_eq!(answer(&chat.command(alice, group.clone())), Ok(1));
    for _ in 0..3 {
        assert_eq!(answer(&chat.command(alice, first.clone())), Ok(1));
        assert_eq!(answer(&chat.command(alice, group.clone())), Ok(1));
    }
    // And begins nothing more that would have to be waited for.
    assert_eq!(wait(&chat.command(alice, send("u2", "x", None))), 1_800_000);
    chat.wait(1_800_000);
    assert_eq!(answer(&chat.command(alice, send("u2", "x", None))), Ok(1));
}

#[test]
fn a_group_grows_by_so_many_and_a_repetition_grows_nothing() {
    let (mut chat, alice) = limited();
    let frames = chat.command(alice, create(&["u1"], None));
    let made = frames.iter().find_map(|frame| match frame {
        ServerFrame::Ok(ok) => ok.conversation,
        _ => None,
    });
    let group = made.unwrap_or_else(|| panic!("{frames:?}"));
    let second = add(group, "u2", id_of(NOW.0, 9));
    assert_eq!(answer(&chat.command(alice, second.clone())), Ok(2));
    assert_eq!(answer(&chat.command(alice, second)), Ok(2));
    assert_eq!(wait(&chat.command(alice, add(group, "u3", None))), 1_800_000);
    assert_eq!(
        answer(&chat.command(alice, send("u1", "x", None))),
        Ok(1),
        "a conversation is another matter"
    );
}

#[test]
fn what_is_refused_has_approached_nobody() {
    let (mut chat, alice) = limited();
    let elsewhere = ConversationId([9; 16]);
    for _ in 0..5 {
        answer(&chat.command(alice, add(elsewhere, "u1", None))).expect_err("she is not in it");
    }
    assert_eq!(answer(&chat.command(alice, create(&["u1", "u2"], None))), Ok(1));
    assert_eq!(wait(&chat.command(alice, create(&["u3"], None))), 1_800_000);
}
