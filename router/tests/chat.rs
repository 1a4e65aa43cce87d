//! Both sides with nothing between them: what one user does and another is told, in frames.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Connect, HistoryRange, Request, Send, Target};
use protocol::event::{ErrorCode, PageItem, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, RequestId, Seq};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::upgrade::Form;
use router::mail::{Reply, Request as MailRequest, SessionId};
use router::places::direct_conversation;
use router::user::PAGE_CREDITS;
use router::{ShardId, UserSide};

use support::{Chat, NOW, answer, id_of, send, user};

#[test]
fn a_command_that_comes_again_is_answered_and_not_stored_again() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let id = id_of(NOW.0, 1);
    assert_eq!(answer(&chat.command(alice, send("bob", "one", id))), Ok(1));
    assert_eq!(answer(&chat.command(alice, send("bob", "one", id))), Ok(1));
    assert_eq!(answer(&chat.command(alice, send("bob", "other", id))), Err(ErrorCode::Conflict));
    assert_eq!(answer(&chat.command(alice, send("bob", "two", id_of(NOW.0, 2)))), Ok(2));
}

#[test]
fn an_id_is_judged_by_the_servers_clock_and_looked_up_for_a_day() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let (minute, hour) = (60_000, 3_600_000);
    let ahead = id_of(NOW.0 + 2 * minute, 1);
    assert_eq!(answer(&chat.command(alice, send("bob", "ahead", ahead))), Err(ErrorCode::BadField));
    let old = id_of(NOW.0 - hour, 2);
    assert_eq!(answer(&chat.command(alice, send("bob", "a phone that was off", old))), Ok(1));
    for seq in 2..200 {
        assert_eq!(answer(&chat.command(alice, send("bob", "later", id_of(NOW.0, seq as u8)))), Ok(seq));
    }
    // An hour on, memory has forgotten it: it is found in the log, however far back.
    chat.clock.unix.0 += hour;
    assert_eq!(answer(&chat.command(alice, send("bob", "on again", id_of(NOW.0 + hour, 200)))), Ok(200));
    assert_eq!(answer(&chat.command(alice, send("bob", "a phone that was off", old))), Ok(1));
    assert_eq!(answer(&chat.command(alice, send("bob", "never sent", id_of(NOW.0 - hour, 201)))), Ok(201));
}

#[test]
fn a_page_of_nothing_but_escapes_fits_a_frame_and_says_that_there_is_more() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    for seq in 1..=8_u8 {
        let text = "\u{1}".repeat(5_000);
        assert_eq!(answer(&chat.command(alice, send("bob", &text, id_of(NOW.0, seq)))), Ok(u64::from(seq)));
    }
    let conversation = direct_conversation(&user("alice"), &user("bob"));
    let mut page = |range| {
        let frames = chat.command(alice, Command::History { conversation, range, limit: 200 });
        let Some(ServerFrame::Page { messages, more, .. }) = frames.into_iter().next() else {
            panic!("a page");
        };
        let seqs = messages.iter().map(|item| match item {
            PageItem::Message(message) => message.seq.0,
            other => panic!("a message, not {other:?}"),
        });
        (seqs.collect::<Vec<_>>(), more)
    };
    let rendered = 5_000 * 6 + 256;
    let fits = FRAME_BYTES_MAX / rendered;
    assert_eq!(page(HistoryRange::Latest), ((9 - fits as u64..9).collect(), true));
    assert_eq!(page(HistoryRange::After(Seq(0))), ((1..=fits as u64).collect(), true));
}

#[test]
fn what_was_missed_comes_once_and_in_order() {
    let mut chat = Chat::new();
    let (bob, welcome) = chat.connect("bob", None);
    let Some(ServerFrame::Welcome(welcome)) = welcome.into_iter().next() else {
        panic!("a welcome");
    };
    chat.users.disconnect(bob);
    let (alice, _) = chat.connect("alice", None);
    for seq in 1..=200_u64 {
        chat.command(alice, send("bob", &format!("message {seq}"), id_of(NOW.0, seq as u8)));
    }
    let (_, frames) = chat.connect("bob", welcome.cursor);
    let seqs: Vec<u64> = frames
        .iter()
        .filter_map(|frame| match frame {
            ServerFrame::Message(message) => Some(message.seq.0),
            _ => None,
        })
        .collect();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    assert!(matches!(frames.last(), Some(ServerFrame::CaughtUp { partial: false, .. })));
}

#[test]
fn strangers_read_and_send_nothing() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    chat.command(alice, send("bob", "for bob", id_of(NOW.0, 1)));
    let (eve, _) = chat.connect("eve", None);
    let conversation = direct_conversation(&user("alice"), &user("bob"));
    let history = Command::History { conversation, range: HistoryRange::Latest, limit: 1 };
    assert_eq!(answer(&chat.command(eve, history)), Err(ErrorCode::NotAMember));
    assert_eq!(answer(&chat.command(eve, Command::ListMembers { conversation })), Err(ErrorCode::NotAMember));
    let Command::Send(letter) = send("bob", "let me in", id_of(NOW.0, 2)) else {
        unreachable!("a send");
    };
    let letter = Send { target: Target::Conversation(conversation), ..letter };
    assert_eq!(answer(&chat.command(eve, Command::Send(letter))), Err(ErrorCode::NotAMember));
    let unknown = Command::ListMembers { conversation: ConversationId([9; 16]) };
    assert_eq!(answer(&chat.command(eve, unknown)), Err(ErrorCode::NotFound));
    assert_eq!(answer(&chat.command(eve, send("eve", "to myself", None))), Err(ErrorCode::NotAllowed));
}

#[test]
fn an_old_id_is_not_stored_again_when_the_disk_cannot_say() {
    let mut chat = Chat::with_tail(1);
    let (alice, _) = chat.connect("alice", None);
    let first = send("bob", "once", id_of(NOW.0, 1));
    assert!(chat.command(alice, first.clone()).iter().any(|frame| matches!(frame, ServerFrame::Ok(_))));
    // Later than memory reaches, and another batch is the only one in memory.
    chat.clock.unix.0 += 13 * 60_000;
    chat.command(alice, send("bob", "other", id_of(chat.clock.unix.0, 2)));
    let again = chat.command(alice, first);
    assert!(
        again
            .iter()
            .any(|frame| matches!(frame, ServerFrame::Error(error) if error.code == ErrorCode::Unavailable)),
        "{again:?}"
    );
}

/// Seqs of the messages, and of the gaps, in the order in which they came.
fn told(frames: &[ServerFrame]) -> Vec<(&'static str, u64)> {
    let told = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Message(message) => Some(("message", message.seq.0)),
        ServerFrame::Gap(gap) => {
            assert_eq!(gap.from, gap.to);
            assert_eq!(gap.conversation, direct_conversation(&user("alice"), &user("bob")));
            Some(("gap", gap.from.0))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn a_damaged_record_is_told_as_a_gap_to_who_catches_up() {
    let mut chat = Chat::with_tail(1);
    let (bob, welcome) = chat.connect("bob", None);
    let Some(ServerFrame::Welcome(welcome)) = welcome.into_iter().next() else {
        panic!("a welcome");
    };
    chat.users.disconnect(bob);
    let (alice, _) = chat.connect("alice", None);
    for seq in 1..=3 {
        chat.command(alice, send("bob", "hello", id_of(NOW.0, seq)));
    }
    // Only the newest batch is in memory, and the disk reads nothing.
    let (bob, frames) = chat.connect("bob", welcome.cursor.clone());
    let expected = [("gap", 1), ("gap", 2), ("message", 3)];
    assert_eq!(told(&frames), expected);
    assert!(matches!(frames.last(), Some(ServerFrame::CaughtUp { partial: false, .. })));
    assert_eq!(std::iter::from_fn(|| chat.side.poll_damage()).count(), 2, "each is news once");
    chat.users.disconnect(bob);
    assert_eq!(told(&chat.connect("bob", welcome.cursor).1), expected);
    assert_eq!(chat.side.poll_damage(), None);
}

#[test]
fn a_state_that_could_not_be_read_once_is_read_again() {
    let mut chat = Chat::with_tail(1);
    let (alice, _) = chat.connect("alice", None);
    let conversation = direct_conversation(&user("alice"), &user("bob"));
    chat.command(alice, send("bob", "first", id_of(NOW.0, 1)));
    // A restart: the state is on the disk, which reads nothing, then reads again.
    chat.forget();
    chat.command(alice, send("carol", "another batch", id_of(NOW.0, 2)));
    let list = Command::ListMembers { conversation };
    assert_eq!(answer(&chat.command(alice, list.clone())), Err(ErrorCode::Unavailable));
    chat.disk_reads = true;
    let frames = chat.command(alice, list);
    assert!(frames.iter().any(|frame| matches!(frame, ServerFrame::MembersPage { .. })), "{frames:?}");
}

#[test]
fn heads_count_what_is_durable() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    chat.command(alice, send("bob", "durable", id_of(NOW.0, 1)));
    chat.request(alice, send("bob", "under way", id_of(NOW.0, 2)));
    while let Some((_, request)) = chat.users.poll_mail() {
        chat.side.handle_request(request, NOW, &mut chat.log);
    }
    let connect = Connect {
        token: None,
        device: DeviceId::new("b").expect("a name"),
        cursor: None,
        positions: Some(vec![]),
    };
    chat.users.connect(1, user("bob"), Form::Json, RequestId(1), connect, NOW).expect("a first session");
    // It reads its welcome, and the survey is answered before the second message is durable.
    while let Some((id, _)) = chat.users.poll_sendable() {
        while let Some(bytes) = chat.users.take_send(id, &mut Vec::new()) {
            let sent = bytes.len();
            chat.users.handle_sent(id, bytes, sent);
        }
    }
    let (_, survey) = chat.users.poll_mail().expect("a survey");
    chat.side.handle_request(survey, NOW, &mut chat.log);
    let Some((_, Reply::Surveyed { conversations, .. })) = chat.side.poll_output() else {
        panic!("what was surveyed");
    };
    assert_eq!((conversations[0].head, conversations[0].message_count), (Seq(1), 1));
}

#[test]
fn nobody_reads_by_a_membership_that_is_not_durable() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let conversation = direct_conversation(&user("alice"), &user("bob"));
    chat.request(alice, send("bob", "first", id_of(NOW.0, 1)));
    chat.request(alice, Command::ListMembers { conversation });
    while let Some((_, request)) = chat.users.poll_mail() {
        chat.side.handle_request(request, NOW, &mut chat.log);
    }
    assert!(chat.side.poll_output().is_none(), "nothing is durable, nothing is said");
    let frames = chat.exchange(alice);
    assert!(frames.iter().any(|frame| matches!(frame, ServerFrame::MembersPage { .. })), "{frames:?}");
}

/// What found no room on its way here stands in the log: for who is named, and for everybody where nobody is.
#[test]
fn deliveries_that_were_dropped_are_read_from_the_log() {
    for users in [Some(vec![user("alice"), user("bob")]), None] {
        let mut chat = Chat::new();
        let [alice, bob, _] = ["alice", "bob", "carol"].map(|name| chat.connect(name, None).0);
        chat.request(alice, send("bob", "on its way", id_of(NOW.0, 1)));
        while chat.carry_mail() | chat.write() {}
        while let Some((shard, reply)) = chat.side.poll_output() {
            if !matches!(reply, Reply::Deliver(_)) {
                chat.users.handle_reply(shard, reply, chat.clock);
            }
        }
        let note = Reply::Overrun { log: 0, users };
        chat.users.handle_reply(ShardId(0), note, chat.clock);
        let frames = chat.exchange(bob);
        let given = frames.iter().filter(|frame| matches!(frame, ServerFrame::Message(_))).count();
        assert_eq!((given, chat.users.behind_count()), (1, 0), "{frames:?}");
    }
}

#[test]
fn a_session_that_cannot_use_a_page_credit_leaves_it_to_the_next() {
    let mut chat = Chat::new();
    let connect = |users: &mut UserSide, name: String| {
        let device = DeviceId::new("phone").expect("a name");
        let connect = Connect { token: None, device, cursor: None, positions: None };
        users.connect(0, user(&name), Form::Json, RequestId(1), connect, NOW).expect("a first session")
    };
    // As many as there are credits ask, as many wait for one, and one more behind them.
    for number in 0..PAGE_CREDITS {
        connect(&mut chat.users, format!("first-{number}"));
    }
    let waiting: Vec<SessionId> =
        (0..PAGE_CREDITS).map(|number| connect(&mut chat.users, format!("busy-{number}"))).collect();
    let last = connect(&mut chat.users, "last".to_owned());
    // Those in between do not read what they have asked for: until they do, they are given no page.
    for id in waiting {
        let ping = Request { id: Some(RequestId(2)), command: Command::Ping { cursor: None } };
        chat.users.handle_command(id, ping, chat.clock).expect("a first command");
    }
    let is_page = |(_, request): &(_, MailRequest)| request.is_page();
    let asked: Vec<_> = std::iter::from_fn(|| chat.users.poll_mail()).filter(is_page).collect();
    assert_eq!(asked.len(), PAGE_CREDITS as usize);
    for (_, request) in asked {
        chat.side.handle_request(request, NOW, &mut chat.log);
    }
    while let Some((shard, reply)) = chat.side.poll_output() {
        chat.users.handle_reply(shard, reply, chat.clock);
    }
    let next = chat.users.poll_mail().map(|(_, request)| request);
    assert!(
        matches!(next, Some(MailRequest::CatchUp { session, .. }) if session == last),
        "the last one has its credit"
    );
}
