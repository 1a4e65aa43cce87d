//! Who is invisible is shown as one who went away when it became so, whatever it does since; and is told that it is, on all its devices.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Connect};
use protocol::event::{Presence, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, UnixMillis};
use router::mail::{Reply, Request, SessionId, Sighting};
use router::places::direct_conversation;
use router::user::PRESENCE_GRACE_MILLIS;
use support::{Chat, NOW, answer, id_of, send, talked, user};

const ON: Command = Command::Invisible { on: true };
const OFF: Command = Command::Invisible { on: false };

fn on(chat: &mut Chat, name: &str, device: &str) -> SessionId {
    let device = DeviceId::new(device).expect("a name");
    chat.begin_with(name, Connect { token: None, device, cursor: None, positions: None })
}

#[track_caller]
fn is_done(frames: &[ServerFrame]) {
    let is_ok = |frame: &ServerFrame| matches!(frame, ServerFrame::Ok(ok) if ok.seq.is_none());
    assert_eq!(frames.iter().filter(|frame| is_ok(frame)).count(), 1, "{frames:?}");
}

/// What frames say of somebody's presence and of one's own, in order.
fn told(frames: &[ServerFrame]) -> Vec<String> {
    let one = |presence: &Presence| match (presence.online, presence.last_seen) {
        (true, _) => format!("{} is here", presence.user),
        (false, None) => format!("{} is away", presence.user),
        (false, Some(at)) => format!("{} is away since {}", presence.user, at.0 - NOW.0),
    };
    let words = frames.iter().flat_map(|frame| match frame {
        ServerFrame::Invisible { on } => vec![format!("invisible: {on}")],
        ServerFrame::Presence(presence) => vec![one(presence)],
        ServerFrame::Typing { user, .. } => vec![format!("{user} is typing")],
        ServerFrame::Viewed { presence, .. } => presence.iter().map(one).collect(),
        _ => Vec::new(),
    });
    words.collect()
}

fn typing(conversation: ConversationId) -> Command {
    Command::Typing { conversation, on: true }
}

#[test]
fn whatever_one_who_is_invisible_does_nobody_is_told() {
    let (mut chat, alice, conversation) = talked();
    let (bob, _) = chat.connect("bob", None);
    assert_eq!(told(&chat.command(alice, Command::View { conversation })), ["alice is here", "bob is here"]);
    chat.wait(500);
    chat.request(bob, ON);
    let away = format!("bob is away since {}", PRESENCE_GRACE_MILLIS + 500);
    assert_eq!(told(&chat.exchange(alice)), [away.as_str()]);
    let counted = chat.users.counters.presence;
    // Writing, a second device, leaving, time, coming back, by the same device and another: none of it is told.
    chat.wait(1_000);
    chat.request(bob, typing(conversation));
    let tablet = on(&mut chat, "bob", "tablet");
    assert!(chat.exchange(alice).is_empty());
    chat.users.disconnect(bob);
    chat.users.disconnect(tablet);
    chat.wait(PRESENCE_GRACE_MILLIS);
    assert!(chat.exchange(alice).is_empty());
    let (bob, frames) = chat.connect("bob", None);
    assert_eq!(told(&frames), ["invisible: true"], "it is told that it still is");
    chat.request(bob, typing(conversation));
    let bob_again = chat.begin("bob", None);
    assert!(chat.exchange(alice).is_empty());
    // Nor is it who looks anew, be it here or not.
    for is_here in [true, false] {
        chat.command(alice, Command::Unview { conversation });
        let viewed = chat.command(alice, Command::View { conversation });
        assert_eq!(told(&viewed), ["alice is here", away.as_str()], "here: {is_here}");
        chat.users.disconnect(bob_again);
        chat.wait(3 * PRESENCE_GRACE_MILLIS);
        assert!(chat.exchange(alice).is_empty());
    }
    assert_eq!(chat.users.counters.presence, counted);
    // And once it is visible it is here, and may write.
    let (bob, _) = chat.connect("bob", None);
    chat.wait(1_000);
    chat.request(bob, OFF);
    while chat.carry_mail() | chat.write() | chat.carry_replies() {}
    chat.request(bob, typing(conversation));
    assert_eq!(told(&chat.exchange(alice)), ["bob is here", "bob is typing"]);
    let left_at = chat.clock.unix.0 - NOW.0;
    chat.users.disconnect(bob);
    chat.wait(PRESENCE_GRACE_MILLIS);
    assert_eq!(told(&chat.exchange(alice)), [format!("bob is away since {left_at}")]);
}

#[test]
fn it_is_on_disk_before_it_is_answered_and_said_twice_it_is_no_record() {
    let (mut chat, _, _) = talked();
    let (bob, _) = chat.connect("bob", None);
    let before = chat.log.durable().position();
    chat.request(bob, ON);
    while chat.carry_mail() | chat.carry_replies() {}
    assert!(chat.take(bob).is_empty(), "it is not on disk");
    is_done(&chat.exchange(bob));
    chat.wait(1_000);
    for _ in 0..2 {
        is_done(&chat.command(bob, ON));
    }
    // What is set, and that it was seen until then; likewise that it is seen again.
    assert_eq!(chat.log.durable().position(), before + 2);
    for _ in 0..2 {
        is_done(&chat.command(bob, OFF));
    }
    assert_eq!(chat.log.durable().position(), before + 4);
}

#[test]
fn all_devices_of_a_user_learn_it_and_nobody_else_does() {
    let (mut chat, alice, _) = talked();
    let (bob, frames) = chat.connect("bob", None);
    assert!(told(&frames).is_empty(), "who is visible is told nothing");
    let tablet = on(&mut chat, "bob", "tablet");
    chat.exchange(tablet);
    for (command, on) in [(ON, true), (OFF, false)] {
        chat.request(bob, command.clone());
        assert_eq!(told(&chat.exchange(tablet)), [format!("invisible: {on}")]);
        assert!(told(&chat.exchange(bob)).is_empty(), "it has its answer");
        assert!(told(&chat.exchange(alice)).is_empty());
        chat.request(bob, command);
        assert!(told(&chat.exchange(tablet)).is_empty(), "that is no news");
    }
    // A device that comes while it is so is told behind its `welcome`.
    chat.command(bob, ON);
    let laptop = on(&mut chat, "bob", "laptop");
    let frames = chat.exchange(laptop);
    assert!(
        matches!(frames[..], [ServerFrame::Welcome(_), ServerFrame::Invisible { on: true }]),
        "{frames:?}"
    );
}

#[test]
fn after_a_start_one_who_is_invisible_and_comes_is_as_one_who_does_not() {
    let (mut chat, _, _) = talked();
    let (alice, bob) = (user("alice"), user("bob"));
    let conversation = direct_conversation(&alice, &bob);
    let (session, _) = chat.connect("bob", None);
    chat.command(session, ON);
    let away = format!("bob is away since {PRESENCE_GRACE_MILLIS}");
    for comes in [true, false] {
        chat.wait(5_000);
        chat.restart();
        let (alice, _) = chat.connect("alice", None);
        assert_eq!(told(&chat.command(alice, Command::View { conversation })), ["alice is here"]);
        chat.wait(3_000);
        let bob = comes.then(|| chat.begin("bob", None));
        assert!(chat.exchange(alice).is_empty());
        chat.wait(PRESENCE_GRACE_MILLIS - 3_001);
        assert!(chat.exchange(alice).is_empty());
        chat.wait(1);
        assert_eq!(told(&chat.exchange(alice)), [away.as_str()], "it comes: {comes}");
        bob.map(|bob| chat.users.disconnect(bob));
        chat.wait(PRESENCE_GRACE_MILLIS);
        assert!(chat.exchange(alice).is_empty());
    }
}

/// While that is asked for, who has come is neither here nor away.
#[test]
fn nobody_is_shown_before_it_is_known_who_is_invisible() {
    let (mut chat, alice, conversation) = talked();
    chat.command(alice, Command::View { conversation });
    let is_sighting = |request: &Request| matches!(request, Request::Sighting { .. });
    chat.begin("bob", None);
    assert_eq!(told(&chat.exchange(alice)), ["bob is here"], "it was known before");
    // Carol is in a conversation that is begun only now.
    answer(&chat.command(alice, send("carol", "hello", id_of(NOW.0, 2)))).expect("stored");
    let carol = chat.begin("carol", None);
    let (target, request) = loop {
        let (target, request) = chat.users.poll_mail().expect("a question");
        if is_sighting(&request) {
            break (target, request);
        }
        chat.side.handle_request(request, chat.clock.unix, &mut chat.log);
    };
    let conversation = direct_conversation(&user("alice"), &user("carol"));
    assert!(told(&chat.command(alice, Command::View { conversation })).is_empty(), "it waits");
    // It came, left and came again before anybody knew.
    chat.users.disconnect(carol);
    let carol = chat.begin("carol", None);
    let (invisible_since, last_seen, is_whole) = (Some(UnixMillis(NOW.0 + 7)), None, true);
    let Request::Sighting { user, .. } = request else { unreachable!("it is one") };
    let reply = Reply::Sighting { user, found: Some(Sighting { invisible_since, last_seen, is_whole }) };
    chat.users.handle_reply(target, reply, chat.clock);
    assert_eq!(told(&chat.exchange(alice)), ["alice is here", "carol is away since 7"]);
    assert_eq!(told(&chat.exchange(carol)), Vec::<String>::new(), "the node's own questions are no news");
}

#[test]
fn what_cannot_be_read_shows_nobody_until_it_can_be() {
    let (mut chat, alice, conversation) = talked();
    let (bob, _) = chat.connect("bob", None);
    chat.command(bob, ON);
    chat.users.disconnect(alice);
    chat.restart();
    chat.wait(PRESENCE_GRACE_MILLIS);
    let (alice, _) = chat.connect("alice", None);
    let bob = chat.begin("bob", None);
    while let Some((target, request)) = chat.users.poll_mail() {
        match request {
            Request::Sighting { user, .. } => {
                chat.users.handle_reply(target, Reply::Sighting { user, found: None }, chat.clock);
            }
            request => chat.side.handle_request(request, chat.clock.unix, &mut chat.log),
        }
    }
    let viewed = chat.command(alice, Command::View { conversation });
    assert_eq!(told(&viewed), ["alice is here"], "bob may be invisible");
    chat.request(bob, typing(conversation));
    assert!(chat.exchange(alice).is_empty());
    chat.wait(10_000);
    assert_eq!(told(&chat.exchange(alice)), [format!("bob is away since {PRESENCE_GRACE_MILLIS}")]);
}
