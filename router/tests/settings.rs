//! What a user has set: stored before it is answered, the same on all devices, and kept over everything.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Connect, PushToken};
use protocol::event::{ErrorCode, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, UnixMillis};
use protocol::limits::{MUTED_FOR_EVER, MUTES_MAX, PUSH_DEVICES_MAX, PUSH_TOKEN_BYTES_MAX};
use protocol::record::{Ext, Portable, Stored, StoredBody, StreamKind};
use router::ShardId;
use router::mail::{Reply, Request, SessionId};
use router::places::{Places, direct_conversation};
use storage_log::Geometry;
use storage_log::format::BLOCK_BYTES_MIN;

use support::{Chat, NOW, answer, id_of, send, user};

const FOR_EVER: UnixMillis = UnixMillis(MUTED_FOR_EVER);

fn mute(conversation: ConversationId, until: UnixMillis) -> Command {
    Command::Mute { conversation, until }
}

/// The refusal, or a bare `ok`.
#[track_caller]
fn done(frames: &[ServerFrame]) -> Result<(), (ErrorCode, String)> {
    let answers = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Ok(ok) if ok.seq.is_none() => Some(Ok(())),
        ServerFrame::Error(error) => Some(Err((error.code, error.message.clone()))),
        _ => None,
    });
    let mut answers: Vec<_> = answers.collect();
    assert_eq!(answers.len(), 1, "{frames:?}");
    answers.pop().expect("looked at")
}

fn refusal(frames: &[ServerFrame]) -> Option<ErrorCode> {
    done(frames).err().map(|(code, _)| code)
}

/// What the list of a session says is muted.
fn muted(chat: &mut Chat, session: SessionId) -> Vec<(ConversationId, UnixMillis)> {
    let frames = chat.command(session, Command::Conversations { after: None, limit: 50 });
    let listed = frames.iter().find_map(|frame| match frame {
        ServerFrame::Conversations { conversations, end, .. } => {
            assert!(!end.partial, "all of it can be read");
            Some(conversations)
        }
        _ => None,
    });
    let listed = listed.unwrap_or_else(|| panic!("no list: {frames:?}"));
    listed.iter().filter_map(|listed| Some((listed.conversation, listed.muted_until?))).collect()
}

/// Alice talks with bob and with carol.
fn talked_in(mut chat: Chat) -> (Chat, SessionId, [ConversationId; 2]) {
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    for (number, name) in [(1, "bob"), (2, "carol")] {
        answer(&chat.command(alice, send(name, "hello", id_of(NOW.0, number)))).expect("stored");
    }
    let with = |name: &str| direct_conversation(&user("alice"), &user(name));
    (chat, alice, [with("bob"), with("carol")])
}

#[test]
fn a_mute_is_on_disk_before_it_is_answered_and_the_same_on_all_devices() {
    let (mut chat, alice, [bob, carol]) = talked_in(Chat::new());
    let device = DeviceId::new("tablet").expect("a name");
    let tablet = chat.begin_with("alice", Connect { token: None, device, cursor: None, positions: None });
    chat.exchange(tablet);
    let before = chat.log.durable().position();
    chat.request(alice, mute(bob, FOR_EVER));
    // To the owner of the conversation, back, and to that of the settings: nothing is synced meanwhile.
    while chat.carry_mail() | chat.carry_replies() {}
    assert!(chat.take(alice).is_empty(), "it is not on disk");
    assert_eq!(done(&chat.exchange(alice)), Ok(()));
    assert_eq!(chat.log.durable().position(), before + 1);
    let until = UnixMillis(NOW.0 + 60_000);
    assert_eq!(done(&chat.command(tablet, mute(carol, until))), Ok(()));
    for session in [alice, tablet] {
        let mut muted = muted(&mut chat, session);
        muted.sort_unstable_by_key(|(_, until)| *until);
        assert_eq!(muted, [(carol, until), (bob, FOR_EVER)]);
    }
    let (other, _) = chat.connect("bob", None);
    assert_eq!(muted(&mut chat, other), [], "it is the other's alone");
    // Said again it is no record; taken back it is one, and said again that is none.
    let before = chat.log.durable().position();
    assert_eq!(done(&chat.command(alice, mute(bob, FOR_EVER))), Ok(()));
    assert_eq!(chat.log.durable().position(), before);
    for _ in 0..2 {
        assert_eq!(done(&chat.command(alice, mute(bob, UnixMillis(0)))), Ok(()));
    }
    assert_eq!(chat.log.durable().position(), before + 1);
    assert_eq!(muted(&mut chat, tablet), [(carol, until)]);
    // What has passed is not shown, whoever wrote last.
    chat.wait(60_000);
    assert_eq!(muted(&mut chat, alice), []);
}

#[test]
fn who_is_not_in_a_conversation_mutes_nothing() {
    let (mut chat, _, [bob, _]) = talked_in(Chat::new());
    let (eve, _) = chat.connect("eve", None);
    assert_eq!(refusal(&chat.command(eve, mute(bob, FOR_EVER))), Some(ErrorCode::NotAMember));
    let nothing = ConversationId([9; 16]);
    assert_eq!(refusal(&chat.command(eve, mute(nothing, FOR_EVER))), Some(ErrorCode::NotFound));
    let before = chat.log.durable().position();
    assert_eq!(done(&chat.command(eve, mute(bob, UnixMillis(0)))), Ok(()), "there is nothing to take back");
    assert_eq!(chat.log.durable().position(), before);
}

#[test]
fn mutes_are_bounded_and_those_that_have_passed_make_room() {
    let (mut chat, alice, [bob, carol]) = talked_in(Chat::new());
    let names = |number: usize| format!("friend-{number}");
    let conversation = |number: usize| direct_conversation(&user("alice"), &user(&names(number)));
    for number in 0..MUTES_MAX - 1 {
        answer(&chat.command(alice, send(&names(number), "hello", None))).expect("stored");
        assert_eq!(done(&chat.command(alice, mute(conversation(number), FOR_EVER))), Ok(()));
    }
    let until = UnixMillis(NOW.0 + 60_000);
    assert_eq!(done(&chat.command(alice, mute(bob, until))), Ok(()));
    let (code, words) = done(&chat.command(alice, mute(carol, FOR_EVER))).expect_err("one too many");
    assert!(code == ErrorCode::Limit && words.contains("512"), "{words}");
    assert_eq!(done(&chat.command(alice, mute(bob, FOR_EVER))), Ok(()), "one of those that there are");
    assert_eq!(done(&chat.command(alice, mute(bob, until))), Ok(()));
    chat.wait(60_000);
    assert_eq!(done(&chat.command(alice, mute(carol, FOR_EVER))), Ok(()), "one has passed");
    assert_eq!(refusal(&chat.command(alice, mute(bob, FOR_EVER))), Some(ErrorCode::Limit));
}

/// Over a start, and where the record stands in a segment that was sealed long ago.
#[test]
fn mutes_are_kept_over_a_start_and_many_segments() {
    let geometry =
        Geometry { segment_bytes: 32 << 10, batch_bytes_max: 16 << 10, block_bytes: BLOCK_BYTES_MIN };
    let (mut chat, alice, [bob, _]) = talked_in(Chat::with_geometry(16 << 10, geometry));
    chat.disk_reads = true;
    assert_eq!(done(&chat.command(alice, mute(bob, FOR_EVER))), Ok(()));
    for _ in 0..60 {
        answer(&chat.command(alice, send("carol", &"x".repeat(2_000), None))).expect("stored");
    }
    chat.forget();
    assert_eq!(muted(&mut chat, alice), [(bob, FOR_EVER)]);
    assert_eq!(done(&chat.command(alice, mute(bob, UnixMillis(0)))), Ok(()));
    chat.forget();
    assert_eq!(muted(&mut chat, alice), []);
}

/// A list says that something could not be read rather than that nothing is muted, and nothing is written over what is not known.
#[test]
fn settings_that_cannot_be_read_are_not_held_to_be_none() {
    let (mut chat, alice, [bob, carol]) = talked_in(Chat::with_tail(1 << 10));
    assert_eq!(done(&chat.command(alice, mute(bob, FOR_EVER))), Ok(()));
    for _ in 0..4 {
        answer(&chat.command(alice, send("dave", &"x".repeat(1_000), None))).expect("stored");
    }
    chat.forget();
    chat.disk_reads = false;
    assert_eq!(refusal(&chat.command(alice, mute(carol, UnixMillis(0)))), Some(ErrorCode::Unavailable));
    chat.disk_reads = true;
    assert_eq!(muted(&mut chat, alice), [(bob, FOR_EVER)]);
}

fn push_token(token: &str) -> Command {
    Command::PushToken { token: Some(PushToken::new(token.to_owned())) }
}

/// The push tokens of alice, as the newest record of hers has them.
fn push_tokens(chat: &Chat) -> Vec<(String, String)> {
    let places = Places::new([1; 16], [2; 32], 1, 1);
    let stream = places.user_stream(&user("alice"), StreamKind::Settings);
    let location = chat.log.last(stream).expect("she has set something");
    let record = chat.log.recent(location).expect("it is new");
    let stored =
        Stored::with_checked_sum(Portable::parse(record.portable()).expect("whole"), record.portable());
    let StoredBody::Settings(settings) = stored.expect("whole").body else { panic!("another record") };
    let tokens = Ext::new(&settings.ext).push_tokens();
    tokens.iter().map(|(device, token)| (device.as_str().to_owned(), token.as_str().to_owned())).collect()
}

fn on(chat: &mut Chat, device: &str) -> SessionId {
    let device = DeviceId::new(device).expect("a name");
    let connect = Connect { token: None, device, cursor: None, positions: None };
    let session = chat.begin_with("alice", connect);
    chat.exchange(session);
    session
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(device, token)| ((*device).to_owned(), (*token).to_owned())).collect()
}

#[test]
fn a_push_token_is_of_its_device_and_stands_beside_the_mutes() {
    let (mut chat, alice, [bob, _]) = talked_in(Chat::new());
    let tablet = on(&mut chat, "tablet");
    assert_eq!(done(&chat.command(alice, push_token("a"))), Ok(()));
    assert_eq!(done(&chat.command(tablet, push_token("b"))), Ok(()));
    assert_eq!(done(&chat.command(alice, mute(bob, FOR_EVER))), Ok(()));
    assert_eq!(push_tokens(&chat), pairs(&[("phone", "a"), ("tablet", "b")]));

    let written = chat.written.len();
    assert_eq!(done(&chat.command(alice, push_token("a"))), Ok(()));
    assert_eq!(chat.written.len(), written, "an app says its token at each start: nothing is written");

    assert_eq!(done(&chat.command(alice, push_token("c"))), Ok(()));
    assert_eq!(push_tokens(&chat), pairs(&[("tablet", "b"), ("phone", "c")]));
    // The same app, set up anew, is another device: it is not called twice.
    assert_eq!(done(&chat.command(alice, push_token("b"))), Ok(()));
    assert_eq!(push_tokens(&chat), pairs(&[("phone", "b")]));
    assert_eq!(done(&chat.command(alice, Command::PushToken { token: None })), Ok(()));
    assert_eq!(push_tokens(&chat), []);
    assert_eq!(muted(&mut chat, alice), [(bob, FOR_EVER)]);
}

/// Answered before it is durable, a token would be lost with a crash, and the device never called.
#[test]
fn a_push_token_is_on_disk_before_it_is_answered() {
    let (mut chat, alice, _) = talked_in(Chat::new());
    chat.request(alice, push_token("a"));
    while chat.carry_mail() || chat.carry_replies() {}
    assert_eq!(chat.take(alice), [], "it is not durable");
    assert_eq!(done(&chat.exchange(alice)), Ok(()));
}

#[test]
fn of_too_many_devices_the_one_that_said_its_token_longest_ago_makes_room() {
    let (mut chat, ..) = talked_in(Chat::new());
    let longest = |number: usize| format!("{number:04}").repeat(PUSH_TOKEN_BYTES_MAX / 4);
    let say = |chat: &mut Chat, device: &str, token: &str| {
        let session = on(chat, device);
        assert_eq!(done(&chat.command(session, push_token(token))), Ok(()));
        chat.users.disconnect(session);
        chat.wait(1_000);
    };
    for number in 0..PUSH_DEVICES_MAX {
        say(&mut chat, &number.to_string(), &longest(number));
    }
    // This one is in use.
    say(&mut chat, "0", &longest(0));
    say(&mut chat, "new", "n");
    let tokens = push_tokens(&chat);
    assert_eq!(tokens.len(), PUSH_DEVICES_MAX);
    assert!(tokens.iter().all(|(device, _)| device != "1"), "the one before all others");
    assert_eq!(tokens[PUSH_DEVICES_MAX - 2..], pairs(&[("0", &longest(0)), ("new", "n")]));
}

#[test]
fn push_tokens_are_kept_where_the_record_is_read_again() {
    let (mut chat, alice, [bob, _]) = talked_in(Chat::new());
    assert_eq!(done(&chat.command(alice, push_token("a"))), Ok(()));
    chat.forget();
    assert_eq!(done(&chat.command(alice, mute(bob, FOR_EVER))), Ok(()));
    assert_eq!(push_tokens(&chat), pairs(&[("phone", "a")]));
}

/// By how many tokens alice is called of a conversation; `None` where that cannot be read.
fn called_by(chat: &mut Chat, conversation: ConversationId) -> Option<usize> {
    let shard = ShardId(0);
    let request = Request::PushTokens { shard, call: 7, user: user("alice"), conversation };
    chat.side.handle_request(request, chat.clock.unix, &mut chat.log);
    while let Some(read) = chat.side.poll_read() {
        chat.answer_read(read);
    }
    let (_, reply) = chat.side.poll_output().expect("an answer");
    let Reply::PushTokens { call: 7, tokens } = reply else { panic!("{reply:?}") };
    tokens.map(|tokens| tokens.len())
}

#[test]
fn nobody_is_called_of_what_is_muted_until_that_has_passed_nor_without_a_token() {
    let (mut chat, alice, [bob, carol]) = talked_in(Chat::new());
    assert_eq!(called_by(&mut chat, bob), Some(0));
    chat.command(alice, push_token("a"));
    let tablet = on(&mut chat, "tablet");
    chat.command(tablet, push_token("b"));
    assert_eq!(called_by(&mut chat, bob), Some(2));
    chat.command(alice, mute(bob, UnixMillis(chat.clock.unix.0 + 1_000)));
    assert_eq!((called_by(&mut chat, bob), called_by(&mut chat, carol)), (Some(0), Some(2)));
    chat.wait(999);
    assert_eq!(called_by(&mut chat, bob), Some(0));
    chat.wait(1);
    assert_eq!(called_by(&mut chat, bob), Some(2));
    chat.forget();
    assert_eq!(called_by(&mut chat, bob), Some(2), "the log says it");
}
