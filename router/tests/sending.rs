//! Who is sent to first, when there is more to send than a turn does.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, HistoryPolicy};
use router::mail::SessionId;
use support::{Chat, id_of, send, user};

const CROWD: usize = 100;

/// A message to a group of a hundred and then one between two, both on disk, nothing of it sent yet. The two and the hundred.
fn crowd() -> (Chat, [SessionId; 2], Vec<SessionId>) {
    let mut chat = Chat::new();
    let names: Vec<String> = (0..CROWD - 1).map(|place| format!("user{place}")).collect();
    let mut crowd: Vec<_> = names.iter().map(|name| chat.connect(name, None).0).collect();
    let [carol, alice, bob] = ["carol", "alice", "bob"].map(|name| chat.connect(name, None).0);
    crowd.push(carol);
    let create = Create {
        title: "all".to_owned(),
        members: names.iter().map(|name| user(name)).collect(),
        history: HistoryPolicy::All,
        message_id: id_of(chat.clock.unix.0, 1),
    };
    chat.request(carol, Command::Create(create));
    chat.request(alice, send("bob", "hello", id_of(chat.clock.unix.0, 2)));
    while chat.carry_mail() | chat.write() | chat.carry_replies() {}
    (chat, [alice, bob], crowd)
}

#[test]
fn what_is_for_two_goes_ahead_of_what_is_for_a_hundred() {
    let (mut chat, two, crowd) = crowd();
    let order: Vec<_> = std::iter::from_fn(|| chat.users.poll_sendable()).map(|(id, _)| id).collect();
    assert!(!chat.users.has_sendable());
    let place = |id: &SessionId| order.iter().position(|other| other == id).expect("it has something");
    // Behind carol, who is answered as well, and one of the hundred in five, who wait for nobody for ever.
    assert!(two.iter().map(place).max() < Some(5), "{order:?}");
    assert_eq!(order.len(), two.len() + crowd.len(), "each comes once");
    assert!(crowd.iter().all(|id| order.contains(id)));
}

#[test]
fn the_hundred_are_not_held_up_by_those_who_always_have_something() {
    let (mut chat, [alice, _], crowd) = crowd();
    let mut left = crowd.len();
    for turn in 0.. {
        assert!(turn < 6 * CROWD, "{left} wait");
        // Whoever asks without a pause is answered without one.
        chat.request(alice, Command::Ping { cursor: None });
        let (id, _) = chat.users.poll_sendable().expect("alice at least");
        while let Some(bytes) = chat.users.take_send(id, &mut Vec::new()) {
            let sent = bytes.len();
            chat.users.handle_sent(id, bytes, sent);
        }
        left -= usize::from(crowd.contains(&id));
        if left == 0 {
            break;
        }
    }
}
