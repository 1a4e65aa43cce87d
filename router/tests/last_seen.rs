//! When users were last seen is known after a restart too: exactly after an orderly end, and within an hour after a crash.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;

use protocol::command::{Command, Connect};
use protocol::event::ServerFrame;
use protocol::ids::{ConversationId, DeviceId, UnixMillis};
use protocol::record::StreamKind;
use router::Places;
use router::mail::SessionId;
use router::places::direct_conversation;
use router::user::{LAST_SEEN_ERROR_MILLIS, PRESENCE_GRACE_MILLIS};
use support::{Chat, NOW, answer, id_of, send, user};

/// Alice and bob have talked, alice has gone for good, and the node has run for a while.
fn talked() -> Chat {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    answer(&chat.command(alice, send("bob", "hello", id_of(NOW.0, 1)))).expect("stored");
    chat.users.disconnect(alice);
    wait(&mut chat, 2 * PRESENCE_GRACE_MILLIS);
    chat
}

/// Lets time go by as it does on a node, and what is due be written.
fn wait(chat: &mut Chat, millis: u64) {
    for step in (0..millis).step_by(1_000) {
        chat.wait(1_000.min(millis - step));
        carry(chat);
    }
}

fn carry(chat: &mut Chat) {
    while chat.carry_mail() | chat.write() | chat.carry_replies() {
        while let Some(read) = chat.side.poll_read() {
            chat.answer_read(read);
        }
    }
}

fn conversation() -> ConversationId {
    direct_conversation(&user("alice"), &user("bob"))
}

/// When bob was last seen, as alice is told once the first seconds of a run are over.
fn last_seen(chat: &mut Chat) -> Option<u64> {
    let (alice, _) = chat.connect("alice", None);
    wait(chat, PRESENCE_GRACE_MILLIS);
    let frames = chat.command(alice, Command::View { conversation: conversation() });
    let seen = frames.iter().find_map(|frame| match frame {
        ServerFrame::Viewed { presence, .. } => presence.iter().find(|one| one.user == user("bob")).cloned(),
        _ => None,
    });
    let seen = seen.unwrap_or_else(|| panic!("bob is not told of: {frames:?}"));
    assert!(!seen.online, "he has gone");
    chat.users.disconnect(alice);
    seen.last_seen.map(|UnixMillis(at)| at - NOW.0)
}

/// Records of sightings, of each user.
fn records(chat: &Chat) -> BTreeMap<Vec<u8>, usize> {
    let mut records: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    chat.read_back(&mut |record| {
        if record.stream().kind.0 == StreamKind::Sightings as u8 {
            *records.entry(record.stream().id.to_vec()).or_default() += 1;
        }
    });
    records
}

fn of_bob(chat: &Chat) -> usize {
    let stream = Places::new([1; 16], [2; 32], 1, 1).user_stream(&user("bob"), StreamKind::Sightings);
    records(chat).get(stream.id.as_slice()).copied().unwrap_or(0)
}

fn now(chat: &Chat) -> u64 {
    chat.clock.unix.0 - NOW.0
}

#[test]
fn who_left_before_a_restart_was_last_seen_when_it_left() {
    let mut chat = talked();
    assert_eq!(last_seen(&mut chat), None, "he was never here");
    let (bob, _) = chat.connect("bob", None);
    wait(&mut chat, 30_000);
    let left_at = now(&chat);
    chat.users.disconnect(bob);
    wait(&mut chat, PRESENCE_GRACE_MILLIS + 1_000);
    for _ in 0..2 {
        chat.restart();
        assert_eq!(last_seen(&mut chat), Some(left_at));
        wait(&mut chat, 3_600_000);
    }
}

#[test]
fn who_is_here_at_an_orderly_end_was_last_seen_then() {
    let mut chat = talked();
    let (bob, _) = chat.connect("bob", None);
    wait(&mut chat, 30_000);
    chat.users.leave();
    wait(&mut chat, 3_000);
    let left_at = now(&chat);
    chat.users.disconnect(bob);
    assert!(!chat.users.has_written());
    carry(&mut chat);
    assert!(chat.users.has_written());
    chat.restart();
    assert_eq!(last_seen(&mut chat), Some(left_at));
}

#[test]
fn after_a_crash_it_is_wrong_by_an_hour_at_most_however_one_comes_and_goes() {
    let mut chat = talked();
    let (mut bob, _) = chat.connect("bob", None);
    let mut records_before = 0;
    for minutes in [1, 30, 59, 61, 300] {
        for minute in 0..minutes {
            // Every other minute it loses its network for a moment, so its session is another one.
            if minute % 2 == 1 {
                chat.users.disconnect(bob);
                wait(&mut chat, 3_000);
                (bob, _) = chat.connect("bob", None);
            }
            wait(&mut chat, 60_000);
        }
        let crashed_at = now(&chat);
        chat.restart();
        let seen = last_seen(&mut chat).expect("it is known");
        let is_near = crashed_at <= seen + LAST_SEEN_ERROR_MILLIS;
        assert!(seen <= crashed_at && is_near, "{seen} of {crashed_at} after {minutes} min");
        (bob, _) = chat.connect("bob", None);
        let all = of_bob(&chat);
        // Coming, staying, and now and again after less than an hour.
        let most = 3 + minutes / 20;
        assert!(all - records_before <= most, "{} records in {minutes} min", all - records_before);
        records_before = all;
    }
}

/// A crowd that leaves at once is written at a pace, and what waits is known meanwhile.
#[test]
fn a_crowd_that_leaves_is_written_at_a_pace_and_each_once() {
    const CROWD: usize = 5_000;
    let mut chat = talked();
    let sessions: Vec<SessionId> = (0..CROWD)
        .map(|number| {
            let device = DeviceId::new("phone").expect("a name");
            let name = if number == CROWD - 1 { "bob".to_owned() } else { format!("user-{number}") };
            chat.begin_with(&name, Connect { token: None, device, cursor: None, positions: None })
        })
        .collect();
    wait(&mut chat, 60_000);
    let come = records(&chat).values().sum::<usize>();
    let left_at = now(&chat);
    sessions.into_iter().for_each(|session| drop(chat.users.disconnect(session)));
    wait(&mut chat, PRESENCE_GRACE_MILLIS - 1_000);
    assert_eq!(records(&chat).values().sum::<usize>(), come, "who is back within grace costs nothing");
    let mut before = come;
    for second in 0..10 {
        // As often as a node looks while something is due.
        for _ in 0..20 {
            chat.wait(50);
            carry(&mut chat);
        }
        let written = records(&chat).values().sum::<usize>();
        assert!(written - before <= 1_200, "{} in a second", written - before);
        before = written;
        if second == 2 {
            assert!(!chat.users.has_written());
            assert_eq!(last_seen(&mut chat), Some(left_at));
            before = records(&chat).values().sum();
        }
    }
    wait(&mut chat, PRESENCE_GRACE_MILLIS);
    assert!(chat.users.has_written());
    // Alice came, left, came and left, and looked.
    let of_others = records(&chat).into_values().filter(|count| *count <= 2).count();
    assert!(of_others >= CROWD, "{of_others} of {CROWD}");
    chat.restart();
    assert_eq!(last_seen(&mut chat), Some(left_at));
}

#[test]
fn of_who_is_invisible_nothing_is_written_and_later_it_was_last_seen_before() {
    let mut chat = talked();
    let (bob, _) = chat.connect("bob", None);
    wait(&mut chat, 60_000);
    let hidden_at = now(&chat);
    chat.command(bob, Command::Invisible { on: true });
    let before = records(&chat);
    wait(&mut chat, 2 * LAST_SEEN_ERROR_MILLIS);
    chat.users.disconnect(bob);
    wait(&mut chat, 60_000);
    let (bob, _) = chat.connect("bob", None);
    wait(&mut chat, 60_000);
    let count = |records: &BTreeMap<Vec<u8>, usize>| records.values().sum::<usize>();
    assert_eq!(count(&records(&chat)), count(&before));
    // It is visible again and has gone before anybody could see it.
    chat.request(bob, Command::Invisible { on: false });
    while chat.carry_mail() | chat.write() {}
    chat.users.disconnect(bob);
    wait(&mut chat, 60_000);
    chat.restart();
    assert_eq!(last_seen(&mut chat), Some(hidden_at));
}
