//! Whose readers are slow, and since when: each user once, and in another process as before.

#![forbid(unsafe_code)]

mod support;

use protocol::command::Connect;
use protocol::ids::{DeviceId, UnixMillis};
use router::mail::SessionId;
use support::{Chat, NOW, answer, id_of, send, user};

/// Sessions of a user that take nothing, on so many devices.
fn devices(chat: &mut Chat, name: &str, count: usize) -> Vec<SessionId> {
    let device = |number: usize| DeviceId::new(&format!("device-{number}")).expect("a name");
    let connect = |number| Connect { token: None, device: device(number), cursor: None, positions: None };
    let sessions: Vec<SessionId> = (0..count).map(|number| chat.begin_with(name, connect(number))).collect();
    // Each is live by then.
    sessions.iter().for_each(|session| _ = chat.exchange(*session));
    sessions
}

/// More than an outbox holds, of which nothing is taken.
fn flood(chat: &mut Chat, alice: SessionId, name: &str, random: u8) {
    for number in 0..8_u64 {
        let id = id_of(NOW.0 + number, random);
        chat.request(alice, send(name, &"x".repeat(16_000), id));
        while chat.carry_mail() | chat.write() | chat.carry_replies() {}
        answer(&chat.take(alice)).expect("stored");
    }
}

#[test]
fn a_user_with_many_slow_devices_is_named_once_and_hides_nobody() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    // More sessions than are named in all.
    let slow = [("bob", 8), ("carol", 8), ("dora", 1)];
    slow.iter().for_each(|(name, count)| _ = devices(&mut chat, name, *count));
    for (number, (name, _)) in (1..).zip(slow) {
        flood(&mut chat, alice, name, number);
        chat.wait(1_000);
    }
    let named = (0..).zip(slow).map(|(second, (name, _))| (user(name), UnixMillis(NOW.0 + 1_000 * second)));
    assert_eq!(chat.users.slow_readers(), (17, named.collect()));
}

#[test]
fn who_is_slow_is_named_in_a_new_process_too_until_it_has_everything() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let bob = devices(&mut chat, "bob", 1)[0];
    let carol = devices(&mut chat, "carol", 1)[0];
    flood(&mut chat, alice, "bob", 1);
    chat.wait(5_000);
    let [alice, bob, _] = chat.upgrade([alice, bob, carol]);
    assert!(chat.users.has_slow_readers());
    assert_eq!(chat.users.slow_readers(), (1, vec![(user("bob"), NOW)]));
    // Alice has something unsent as well, and misses nothing.
    chat.exchange(alice);
    chat.exchange(bob);
    assert_eq!(chat.users.slow_readers(), (0, vec![]));
    assert!(!chat.users.has_slow_readers());
}
