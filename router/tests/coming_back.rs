//! Who goes and comes back: with the allowance that was left, and without a trace of what it did before in memory.

#![forbid(unsafe_code)]

mod support;

use std::sync::Arc;

use protocol::command::{Command, HistoryRange};
use protocol::event::ErrorCode;
use router::cursor::Starts;
use router::places::direct_conversation;
use router::user::{Rate, UserLimits};
use router::{Places, ShardId, UserSide};

use support::{Chat, answer, send, talked, user};

/// A shard on which a user may send three messages a second, and twelve at once.
fn limited() -> Chat {
    let mut chat = Chat::new();
    let limits = UserLimits { user_messages: Rate::per_second(3), ..UserLimits::default() };
    let places = Arc::new(Places::new([1; 16], [2; 32], 1, 1));
    let starts = Arc::new(Starts::new(vec![chat.log.runs().to_vec()]));
    chat.users = UserSide::new(places, starts, ShardId(0), limits, 1);
    chat.wait(0);
    chat
}

#[test]
fn nobody_gets_a_new_allowance_by_coming_back() {
    let mut chat = limited();
    let (mut alice, _) = chat.connect("alice", None);
    for _ in 0..12 {
        answer(&chat.command(alice, send("bob", "hello", None))).expect("stored");
    }
    for _ in 0..3 {
        assert_eq!(answer(&chat.command(alice, send("bob", "hello", None))), Err(ErrorCode::RateLimited));
        // The network went, and it came back; or the same device came before that was seen.
        chat.users.disconnect(alice);
        chat.connect("alice", None);
        alice = chat.connect("alice", None).0;
    }
    chat.users.disconnect(alice);
    chat.wait(400);
    alice = chat.connect("alice", None).0;
    answer(&chat.command(alice, send("bob", "hello", None))).expect("it has been earned meanwhile");
    assert_eq!(answer(&chat.command(alice, send("bob", "hello", None))), Err(ErrorCode::RateLimited));
    let (carol, _) = chat.connect("carol", None);
    answer(&chat.command(carol, send("bob", "hello", None))).expect("another has its own");
}

/// Most sessions of a node are quiet, and have asked for something once.
#[test]
fn a_session_that_is_quiet_again_holds_nothing() {
    let (mut chat, alice, conversation) = talked();
    assert_eq!(conversation, direct_conversation(&user("alice"), &user("bob")));
    assert!(chat.users.holds_nothing(alice));
    chat.command(alice, Command::History { conversation, range: HistoryRange::Latest, limit: 10 });
    chat.command(alice, Command::ListMembers { conversation });
    chat.command(alice, Command::Conversations { after: None, limit: 10 });
    assert!(chat.users.holds_nothing(alice));
    chat.command(alice, Command::View { conversation });
    assert!(!chat.users.holds_nothing(alice), "it looks");
    chat.command(alice, Command::Unview { conversation });
    assert!(chat.users.holds_nothing(alice));
}
