//! More commands than the owner of a log has time for.

#![forbid(unsafe_code)]

mod support;

use protocol::event::{ErrorCode, ServerFrame};
use protocol::limits::COMMANDS_IN_FLIGHT_MAX;
use router::mail::SessionId;
use router::user::COMMAND_CREDITS;
use support::{Chat, id_of, send};

/// Sessions that ask for as much as may be under way, and for half as much again.
const ASKERS: usize = COMMAND_CREDITS as usize / COMMANDS_IN_FLIGHT_MAX * 3 / 2;

const REFUSED: usize = COMMAND_CREDITS as usize / 2;

/// Each of `askers` sends as many messages as one may have under way. Nobody is answered yet but who is refused.
fn ask_all(chat: &mut Chat, askers: &[SessionId]) {
    for asker in askers {
        for _ in 0..COMMANDS_IN_FLIGHT_MAX {
            chat.request(*asker, send("bob", "hello", None));
        }
    }
}

/// In how many milliseconds each refused command is to come again, in the order in which they were refused.
fn waits(chat: &mut Chat, askers: &[SessionId]) -> Vec<u64> {
    let frames = askers.iter().flat_map(|asker| chat.take(*asker)).collect::<Vec<_>>();
    let wait = |frame: &ServerFrame| match frame {
        ServerFrame::Error(error) if error.code == ErrorCode::Busy => error.retry_after_ms,
        _ => None,
    };
    frames.iter().filter_map(wait).collect()
}

fn crowd() -> (Chat, Vec<SessionId>) {
    let mut chat = Chat::new();
    let askers = (0..ASKERS).map(|place| chat.connect(&format!("user{place}"), None).0).collect();
    (chat, askers)
}

#[test]
fn all_who_are_refused_by_a_node_that_is_slow_do_not_come_again_at_once() {
    let (mut chat, askers) = crowd();
    ask_all(&mut chat, &askers);
    // Nothing has been answered yet, so nobody knows how long it takes.
    let first = waits(&mut chat, &askers);
    assert_eq!((first.len(), first.iter().max()), (REFUSED, Some(&50)));
    // It took two seconds for 1,024.
    chat.wait(2_048);
    chat.exchange(askers[0]);

    chat.wait(1);
    ask_all(&mut chat, &askers);
    let second = waits(&mut chat, &askers);
    assert_eq!(second.len(), REFUSED);
    assert!(second.is_sorted(), "one comes behind the other: {second:?}");
    let all_at = second[REFUSED - 1] - second[0];
    assert!((1_000..=1_024).contains(&all_at), "512 are answered in 1,024 ms, not in {all_at}");
}

#[test]
fn a_refused_command_is_stored_when_it_comes_again() {
    let (mut chat, askers) = crowd();
    ask_all(&mut chat, &askers);
    let last = askers[ASKERS - 1];
    assert_eq!(waits(&mut chat, &[last]).len(), COMMANDS_IN_FLIGHT_MAX);
    chat.exchange(last);
    chat.wait(50);
    let frames = chat.command(last, send("bob", "again", id_of(chat.clock.unix.0, 1)));
    assert!(
        frames.iter().any(|frame| matches!(frame, ServerFrame::Ok(ok) if ok.seq.is_some())),
        "{frames:?}"
    );
}
