//! What a viewer is told by a process that goes on with its session: what it does not know, and nothing else.

#![forbid(unsafe_code)]

mod support;

use std::sync::Arc;

use protocol::command::{Command, Create, HistoryPolicy, Members};
use protocol::event::{Reached, ServerFrame};
use protocol::ids::{ConversationId, RequestId, Seq};
use router::ShardId;
use router::mail::{Asker, Reply, Request, SessionId};
use router::places::{created_conversation, direct_conversation};
use router::user::PRESENCE_GRACE_MILLIS;
use storage_log::Geometry;
use storage_log::format::BLOCK_BYTES_MIN;
use support::{Chat, NOW, answer, id_of, send, talked, user};

/// What is told of who is there, and of how far somebody has read.
fn told(frames: &[ServerFrame]) -> Vec<String> {
    let words = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Presence(presence) => {
            Some(format!("{} {}", presence.user, if presence.online { "here" } else { "away" }))
        }
        ServerFrame::Receipt { user, reached: Reached { read: Seq(read), .. }, .. } => {
            Some(format!("{user} has read {read}"))
        }
        _ => None,
    });
    words.collect()
}

/// Everything that can be done while no session takes anything.
fn carry(chat: &mut Chat) {
    while chat.carry_mail() | chat.write() | chat.carry_replies() {}
}

fn group(chat: &mut Chat, alice: SessionId, names: &[&str]) -> ConversationId {
    let (title, history, id) = ("a group".to_owned(), HistoryPolicy::All, id_of(NOW.0, 50));
    let members = names.iter().map(|name| user(name)).collect();
    let create = Create { title, members, history, message_id: id };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    created_conversation(&user("alice"), id.expect("an id"))
}

/// Alice views a group with Bob, who is away, and Carol, who is here.
fn viewing() -> (Chat, [SessionId; 2], ConversationId) {
    let (mut chat, alice, _) = talked();
    let (carol, _) = chat.connect("carol", None);
    let conversation = group(&mut chat, alice, &["bob", "carol"]);
    chat.command(alice, Command::View { conversation });
    chat.wait(10 * PRESENCE_GRACE_MILLIS);
    chat.exchange(alice);
    (chat, [alice, carol], conversation)
}

#[test]
fn who_views_is_told_nothing_that_it_knows() {
    let (mut chat, sessions, _) = viewing();
    let [alice, _] = chat.upgrade(sessions);
    assert_eq!(told(&chat.exchange(alice)), Vec::<String>::new());
}

/// Another device of the same user reads on while this one waits for its place in a log, which an upgrade makes longer.
#[test]
fn how_far_its_user_has_read_is_told_to_nobody_before_the_welcome() {
    let (mut chat, _, conversation) = viewing();
    let bob = chat.begin("bob", None);
    let reached = Reached { read: Seq(1), delivered: Seq(0) };
    let event = Arc::new(ServerFrame::Receipt { conversation, user: user("bob"), reached });
    chat.users.handle_reply(ShardId(0), Reply::TellUser { user: user("bob"), event }, chat.clock);
    let frames = chat.exchange(bob);
    assert!(matches!(&frames[..], [ServerFrame::Welcome(_), ..]), "{frames:?}");
}

/// Fills the disk until not even the sighting of one who comes or goes finds room; a start of the node still does.
fn fill_disk(chat: &mut Chat, alice: SessionId) {
    (chat.disk_is_full, chat.disk_reads) = (true, true);
    let mut message = NOW.0;
    for bytes in [15_000, 1] {
        while answer(&chat.command(alice, send("bob", &"x".repeat(bytes), id_of(message, 60)))).is_ok() {
            message += 1;
            chat.wait(50);
        }
    }
    for _ in 0..40 {
        let (dora, _) = chat.connect("dora", None);
        chat.users.disconnect(dora);
        chat.wait(PRESENCE_GRACE_MILLIS);
        chat.exchange(alice);
    }
}

/// What the disk has of her says that she was away for minutes, and would have been shown so before. She is held to be here for as long as she
/// may be on the way back all the same.
#[test]
fn who_has_just_left_when_the_disk_is_full_is_told_to_have_left_after_an_upgrade() {
    let (segment_bytes, batch_bytes_max, block_bytes) = (2 << 20, 64 << 10, BLOCK_BYTES_MIN);
    let mut chat = Chat::with_geometry(64 << 20, Geometry { segment_bytes, batch_bytes_max, block_bytes });
    chat.wait(0);
    let [alice, carol] = ["alice", "carol"].map(|name| chat.connect(name, None).0);
    let conversation = group(&mut chat, alice, &["carol"]);
    chat.command(alice, Command::View { conversation });
    fill_disk(&mut chat, alice);
    chat.users.disconnect(carol);
    chat.wait(PRESENCE_GRACE_MILLIS / 2);
    let [alice] = chat.upgrade([alice]);
    assert_eq!(told(&chat.exchange(alice)), Vec::<String>::new());
    chat.wait(PRESENCE_GRACE_MILLIS / 2);
    assert_eq!(told(&chat.exchange(alice)), Vec::<String>::new());
    chat.wait(PRESENCE_GRACE_MILLIS / 2);
    assert_eq!(told(&chat.exchange(alice)), ["carol away"]);
}

/// Its `connect` is a command as well, which is under way until the welcome has left: what is under way counts, and more than 32 end a session.
#[test]
fn who_was_owed_a_welcome_by_the_process_before_has_its_first_command_answered() {
    let (mut chat, ..) = talked();
    chat.users.pause();
    let bob = chat.begin("bob", None);
    let [bob] = chat.upgrade([bob]);
    let frames = chat.exchange(bob);
    assert!(matches!(&frames[..], [ServerFrame::Welcome(_)]), "{frames:?}");
    let frames = chat.command(bob, Command::Ping { cursor: None });
    assert!(matches!(&frames[..], [ServerFrame::Pong { .. }]), "{frames:?}");
}

/// Nothing is sent for the view that is taken up, and so nothing whose end would have the next be asked for.
#[test]
fn what_is_asked_while_a_view_is_taken_up_is_answered() {
    let (mut chat, sessions, conversation) = viewing();
    let [alice, _] = chat.upgrade(sessions);
    chat.request(alice, Command::ListMembers { conversation });
    let frames = chat.exchange(alice);
    assert!(matches!(&frames[..], [ServerFrame::MembersPage { .. }]), "{frames:?}");
}

/// Its view was not taken up in the process between: what became so there it was not told.
#[test]
fn a_view_that_another_upgrade_finds_unanswered_is_told_all() {
    let (mut chat, sessions, _) = viewing();
    let [alice, carol] = chat.upgrade(sessions);
    carry(&mut chat);
    let bob = chat.begin("bob", None);
    carry(&mut chat);
    chat.take(bob);
    carry(&mut chat);
    let [alice, ..] = chat.upgrade([alice, carol, bob]);
    assert_eq!(told(&chat.exchange(alice)), ["bob here", "carol here"]);
}

/// All of it is more than an outbox takes beside other things.
#[test]
fn a_view_of_a_large_group_that_is_taken_up_late_is_told_how_far_each_has_read() {
    let (mut chat, alice, _) = talked();
    let names: Vec<String> = (0..400).map(|number| format!("{number:03}-{}", "m".repeat(58))).collect();
    let conversation = group(&mut chat, alice, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        let (member, _) = chat.connect(name, None);
        chat.command(member, Command::Read { conversation, seq: Seq(1) });
    }
    chat.command(alice, Command::View { conversation });
    chat.wait(10 * PRESENCE_GRACE_MILLIS);
    chat.exchange(alice);
    let [alice] = chat.upgrade([alice]);
    carry(&mut chat);
    let [alice] = chat.upgrade([alice]);
    let told = told(&chat.exchange(alice));
    let read = |name: &String| told.contains(&format!("{name} has read 1"));
    assert!(names.iter().all(read), "{} of {}", told.len(), names.len());
}

#[test]
fn a_member_who_is_new_before_the_view_is_taken_up_is_told_of() {
    let (mut chat, [alice, carol], conversation) = viewing();
    let (dora, _) = chat.connect("dora", None);
    let [alice, carol, _] = chat.upgrade([alice, carol, dora]);
    chat.take(carol);
    let add = vec![user("dora")];
    let change = Members { conversation, add, remove: vec![], roles: vec![], message_id: None };
    chat.request(alice, Command::Members(change));
    carry(&mut chat);
    assert_eq!(told(&chat.exchange(alice)), ["bob away", "carol here", "dora here"]);
}

/// How the members stand is asked of their homes, which takes a while: whoever joins meanwhile is new as well.
#[test]
fn a_member_who_is_new_while_a_view_is_taken_up_is_told_of() {
    let (mut chat, [alice, carol], conversation) = viewing();
    let (dora, _) = chat.connect("dora", None);
    let [alice, ..] = chat.upgrade([alice, carol, dora]);
    // Alice's outbox is empty: her view is asked for, and waits for an answer.
    chat.take(alice);
    chat.carry_mail();
    let add = vec![user("dora")];
    let change = Members { conversation, add, remove: vec![], roles: vec![], message_id: None };
    chat.request(alice, Command::Members(change));
    chat.carry_mail();
    while chat.write() {}
    assert_eq!(told(&chat.exchange(alice)), ["bob away", "carol here", "dora here"]);
}

#[test]
fn who_is_unblocked_before_the_view_is_taken_up_is_told_of() {
    let (mut chat, alice, _) = talked();
    let (bob, _) = chat.connect("bob", None);
    let conversation = direct_conversation(&user("alice"), &user("bob"));
    chat.command(bob, Command::Read { conversation, seq: Seq(1) });
    let block = |on| Command::Block { user: user("alice"), on, message_id: None };
    chat.command(bob, block(true));
    chat.command(alice, Command::View { conversation });
    chat.wait(10 * PRESENCE_GRACE_MILLIS);
    chat.exchange(alice);
    let [alice, bob] = chat.upgrade([alice, bob]);
    chat.request(bob, block(false));
    carry(&mut chat);
    assert_eq!(told(&chat.exchange(alice)), ["bob here", "bob has read 1"]);
}

/// The view waits until what is unsent has left, which is after the upgrade.
#[test]
fn a_view_that_was_ended_before_its_turn_is_none_after_an_upgrade() {
    let (mut chat, [alice, carol], conversation) = viewing();
    chat.command(alice, Command::Unview { conversation });
    chat.request(alice, Command::Ping { cursor: None });
    chat.request(alice, Command::View { conversation });
    chat.request(alice, Command::Unview { conversation });
    let [alice, _] = chat.upgrade([alice, carol]);
    let answers = chat.exchange(alice);
    let is_viewed = |frame: &&ServerFrame| matches!(frame, ServerFrame::Viewed { .. });
    let is_ok = |frame: &&ServerFrame| matches!(frame, ServerFrame::Ok(_));
    let count = |is: fn(&&ServerFrame) -> bool| answers.iter().filter(is).count();
    assert_eq!((count(is_viewed), count(is_ok)), (1, 1), "{answers:?}");
    chat.begin("bob", None);
    assert_eq!(told(&chat.exchange(alice)), Vec::<String>::new());
}

/// Ended and begun again while the first still waits: the last word counts.
#[test]
fn a_view_that_was_ended_and_begun_again_before_its_turn_stands_after_an_upgrade() {
    let (mut chat, [alice, carol], conversation) = viewing();
    chat.request(alice, Command::Ping { cursor: None });
    chat.request(alice, Command::View { conversation });
    chat.request(alice, Command::Unview { conversation });
    chat.request(alice, Command::View { conversation });
    let [alice, _] = chat.upgrade([alice, carol]);
    chat.exchange(alice);
    chat.begin("bob", None);
    assert_eq!(told(&chat.exchange(alice)), ["bob here"]);
}

/// A shard that goes on where the next process refused has all its sessions behind, and has others to serve.
#[test]
fn after_a_refused_upgrade_no_turn_asks_for_all_sessions() {
    let (mut chat, ..) = talked();
    chat.users.pause();
    let names: Vec<String> = (0..600).map(|number| format!("user-{number}")).collect();
    names.iter().for_each(|name| _ = chat.begin(name, None));
    let asked = |chat: &mut Chat| {
        let mut asked = 0;
        while let Some((_, request)) = chat.users.poll_mail() {
            asked += usize::from(matches!(request, Request::CatchUp { .. }));
            // Answered at once: its credit is for another one.
            chat.side.handle_request(request, chat.clock.unix, &mut chat.log);
            chat.carry_replies();
        }
        asked
    };
    assert_eq!(asked(&mut chat), 0);
    chat.users.unpause();
    let mut turns = vec![asked(&mut chat)];
    while chat.users.is_waking() {
        chat.wait(0);
        turns.push(asked(&mut chat));
    }
    assert_eq!(turns.iter().sum::<usize>(), names.len(), "{turns:?}");
    assert!(turns.iter().all(|turn| *turn <= 256), "{turns:?}");
}

/// What a view says nothing of to who knows it: how far its own user has read, on another device and while this one did not read.
#[test]
fn how_far_its_user_has_read_outlives_a_view_that_is_taken_up() {
    let (mut chat, [alice, carol], conversation) = viewing();
    for number in 0..8_u8 {
        chat.request(carol, send("alice", &"x".repeat(16_000), id_of(NOW.0, 100 + number)));
    }
    carry(&mut chat);
    let reached = Reached { read: Seq(1), delivered: Seq(0) };
    let event = Arc::new(ServerFrame::Receipt { conversation, user: user("alice"), reached });
    chat.users.handle_reply(ShardId(0), Reply::TellUser { user: user("alice"), event }, chat.clock);
    // A number that no client asks by.
    let asker = Asker { shard: ShardId(0), session: alice, id: RequestId(0), asked_micros: 0 };
    let viewed = Reply::Viewed { asker, conversation, presence: [].into(), receipts: [].into() };
    chat.users.handle_reply(ShardId(0), viewed, chat.clock);
    assert_eq!(told(&chat.exchange(alice)), ["alice has read 1"]);
}
