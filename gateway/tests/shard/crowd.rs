//! Before a crowd: how much of it a turn does, who is let in, and who has to go.

use gateway::mailbox::Forward;
use protocol::ids::{ConversationId, RequestId};
use router::mail::{Asker, Request, SessionId};

use crate::*;

#[test]
fn a_turn_does_a_part_of_a_crowd_in_its_order_and_the_next_follows_at_once() {
    let mut bench = Bench::new(1_000, 1_000, 1_000_000);
    let crowd = asked(&bench.accept(Listener::Chat, 300));
    assert_eq!(crowd.len(), 300);
    let mut answered = Vec::new();
    let mut events: Vec<Event> = crowd.iter().map(|connection| came(*connection, REQUEST)).collect();
    while answered.len() < crowd.len() {
        let sends = sent(&bench.turn(std::mem::take(&mut events)));
        assert!((1..=64).contains(&sends.len()), "{} in one turn", sends.len());
        assert!(sends.iter().all(|(_, head)| head.starts_with("HTTP/1.1 101 ")));
        answered.extend(sends.into_iter().map(|(connection, _)| connection));
        let waits = bench.shard.wait_micros() > 0;
        assert_eq!(waits, answered.len() == crowd.len(), "{} are answered", answered.len());
    }
    assert_eq!(answered, crowd);
}

#[test]
fn who_is_in_already_does_not_wait_behind_a_crowd() {
    let mut bench = Bench::new(1_000, 1_000, 1_000_000);
    let echo = asked(&bench.accept(Listener::Echo, 1))[0];
    let upgraded = sent(&bench.turn(vec![came(echo, REQUEST)]));
    assert_eq!(upgraded.len(), 1);
    bench.turn(vec![Event::Sent {
        connection: echo,
        bytes: upgraded[0].1.clone().into(),
        sent: Some(upgraded[0].1.len()),
    }]);
    let crowd = asked(&bench.accept(Listener::Chat, 300));
    let mut events: Vec<Event> = crowd.iter().map(|connection| came(*connection, REQUEST)).collect();
    events.push(came(echo, FRAME));
    let sends = sent(&bench.turn(events));
    assert!(
        sends.iter().any(|(connection, frame)| *connection == echo && frame.ends_with("hi")),
        "{sends:?}"
    );
    assert!(sends.len() < crowd.len());
}

#[test]
fn who_has_little_is_sent_it_beside_those_who_always_have_more() {
    let mut bench = Bench::new(1_000, 1_000, 1_000_000);
    let user = UserId::new("alice").expect("a name");
    let alice = asked(&bench.accept(Listener::Chat, 1))[0];
    let mut events = vec![came(alice, &bench.handshake(&user))];
    while bench.metrics.handshakes.value() > 0 || !events.is_empty() {
        events = went_out(sent(&bench.turn(events)));
    }
    let crowd = asked(&bench.accept(Listener::Echo, 600));
    let mut sends = sent(&bench.turn(crowd.iter().map(|id| came(*id, REQUEST)).collect()));
    while !sends.is_empty() {
        sends = sent(&bench.turn(went_out(sends)));
    }
    // Of each a frame is under way, and more wait behind it.
    let mut under_way = sent(&bench.turn(crowd.iter().map(|id| came(*id, FRAME)).collect()));
    for _ in 0..4 {
        bench.turn(crowd.iter().map(|id| came(*id, FRAME)).collect());
    }
    let conversation = "00000000-0000-8000-8000-000000000001";
    for number in 2..4 {
        let mut events = went_out(std::mem::take(&mut under_way));
        let ask = format!(r#"{{"op":"members","id":{number},"conversation":"{conversation}","list":true}}"#);
        events.push(came(alice, &frame(&ask)));
        under_way = sent(&bench.turn(events));
        assert!((2..=256).contains(&under_way.len()), "{} in one turn", under_way.len());
        let is_answered = |(to, text): &(ConnectionId, String)| *to == alice && text.contains("unavailable");
        assert!(under_way.iter().any(is_answered), "answer {number} waits behind the crowd");
    }
}

#[test]
fn buffers_do_not_wait_without_a_bound() {
    let mut bench = Bench::new(2_000, 2_000, 1_000_000);
    let crowd = asked(&bench.accept(Listener::Chat, 2_000));
    let actions = bench.turn(crowd.iter().map(|connection| came(*connection, REQUEST)).collect());
    let recycled = actions.iter().filter(|action| matches!(action, Action::Recycle(_))).count();
    assert!(recycled >= 2_000 - 512, "{recycled} of 2000 went back");
}

#[test]
fn connections_are_let_in_while_there_is_room_for_their_handshakes() {
    let mut bench = Bench::new(1_000, 4, 1_000_000);
    assert_eq!(bench.shard.admits(), 4);
    assert_eq!(room(&bench.accept(Listener::Chat, 3)), None, "one may still come");
    let crowd = asked(&bench.accept(Listener::Chat, 1));
    assert_eq!(bench.metrics.accept_pauses_total(PauseReason::Handshakes).value(), 1);
    assert_eq!(bench.metrics.handshakes.value(), 4);
    bench.turn(Vec::new());
    assert_eq!(bench.metrics.accept_pauses_total(PauseReason::Handshakes).value(), 1, "it goes on");
    assert_eq!(room(&bench.end(crowd[0])), None, "told as soon as it was over");
    assert_eq!(bench.shard.admits(), 1);
    assert_eq!(bench.metrics.handshakes.value(), 3);
}

#[test]
fn connections_are_let_in_as_fast_as_they_may_come() {
    // Two at once, then one every 50 ms.
    let mut bench = Bench::new(1_000, 1_000, 20);
    assert_eq!(bench.shard.admits(), 2);
    bench.turn(Vec::new());
    assert_eq!(room(&bench.accept(Listener::Chat, 2)), None);
    assert_eq!(bench.shard.wait_micros(), 50_000);
    bench.micros += 49_999;
    assert_eq!(room(&bench.turn(Vec::new())), None);
    bench.micros += 1;
    assert_eq!(room(&bench.turn(Vec::new())), Some(1));
    assert_eq!(bench.metrics.accept_pauses_total(PauseReason::Rate).value(), 1);
}

#[test]
fn a_drain_does_not_wake_up_for_those_whom_it_does_not_let_in() {
    let mut bench = Bench::new(1_000, 1_000, 8_000);
    bench.turn(Vec::new());
    bench.accept(Listener::Chat, 800);
    assert_eq!(bench.shard.wait_micros(), 1_000, "until the next may come");
    bench.turn(vec![Event::Drain]);
    // Goodbyes are a crowd of their own.
    while bench.shard.wait_micros() == 0 {
        bench.turn(Vec::new());
    }
    assert_eq!(bench.shard.wait_micros(), 20_000, "as in every drain");
}

#[test]
fn who_is_turned_away_is_told_what_is_wrong() {
    for (first, words) in [
        ("hello", "JSON"),
        (r#"{"op":"connect","device":"d"}"#, "`id` is missing"),
        (r#"{"op":"connect","id":1,"device":"d"}"#, "there is no token"),
        (r#"{"op":"connect","id":1,"device":"d","token":"x"}"#, "the token is not valid"),
    ] {
        let mut bench = Bench::new(10, 10, 1_000_000);
        let connection = asked(&bench.accept(Listener::Chat, 1))[0];
        let upgraded = sent(&bench.turn(vec![came(connection, REQUEST)]));
        bench.turn(went_out(upgraded));
        let told = sent(&bench.turn(vec![came(connection, &frame(first))]));
        assert!(told.iter().any(|(_, text)| text.contains(words)), "{first}: {told:?}");
    }
}

#[test]
fn those_who_are_refused_leave_sockets_for_those_who_move() {
    let mut bench = Bench::new(10, 1_000, 1_000_000);
    assert_eq!(bench.shard.admits(), 128, "what a turn takes");
    let sends = sent(&bench.accept(Listener::Chat, 128));
    assert_eq!(sends.len(), 118, "ten are served");
    assert!(
        sends.iter().all(|(_, head)| head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: "))
    );
    assert_eq!(bench.shard.admits(), 10, "half of the spare 256 are left");
    bench.accept(Listener::Chat, 10);
    assert_eq!(bench.shard.admits(), 0);
    assert_eq!(bench.metrics.accept_pauses_total(PauseReason::Sockets).value(), 1);
    bench.end(sends[0].0);
    assert_eq!(bench.shard.admits(), 1);
}

#[test]
fn a_shortage_of_memory_is_told_while_it_lasts() {
    let mut bench = Bench::new(1_000, 1_000, 1_000_000);
    bench.state.set_short_of_memory(true);
    let told = sent(&bench.accept(Listener::Chat, 3));
    assert!(told.len() == 3 && told.iter().all(|(_, head)| head.starts_with("HTTP/1.1 503 ")), "{told:?}");
    assert_eq!(bench.metrics.refused_total(RefusedReason::Memory).value(), 3);
    assert_eq!(bench.metrics.handshakes.value(), 0);
    bench.state.set_short_of_memory(false);
    assert_eq!(asked(&bench.accept(Listener::Chat, 3)).len(), 3);
}

#[test]
fn a_system_that_ran_out_is_asked_again_after_a_second() {
    let mut bench = Bench::new(1_000, 1_000, 1_000_000);
    assert_eq!(bench.shard.admits(), 128);
    assert_eq!(room(&bench.turn(vec![Event::NotAccepted, Event::NotAccepted])), None);
    assert_eq!(bench.metrics.refused_total(RefusedReason::System).value(), 2);
    bench.micros += 1_000_000;
    assert_eq!(room(&bench.turn(Vec::new())), None);
    bench.micros += 1_000_000;
    assert_eq!(room(&bench.turn(Vec::new())), Some(128));
}

/// Those of `connections` whose descriptors go to another shard.
fn moved(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::SendSocket { .. })).count()
}

#[test]
fn a_connection_that_cannot_move_at_once_waits_until_another_has_moved() {
    const MORE: usize = 3;
    let crowd_count = MOVE_CREDITS as usize + MORE;
    // Others wait for the places of those who wait to move.
    let mut bench = Bench::of_shards(2, 1_000, MORE as u32, 1_000_000);
    let name = (0..).map(|number| format!("user{number}"));
    let mut names = name.map(|name| UserId::new(&name).expect("a name"));
    let user = names.find(|user| bench.places.home_of(user) == ShardId(1)).expect("some live there");
    let handshake = bench.handshake(&user);

    let crowd = asked(&bench.accept(Listener::Chat, crowd_count as u32));
    let (mut events, mut gone) = (crowd.iter().map(|id| came(*id, &handshake)).collect(), 0);
    for _ in 0..20 {
        let actions = bench.turn(std::mem::take(&mut events));
        gone += moved(&actions);
        // The answer to the upgrade has gone out.
        events = went_out(sent(&actions));
    }
    assert_eq!(gone, MOVE_CREDITS as usize);
    assert_eq!(bench.metrics.handshakes.value(), MORE as u64, "they wait, and are handshakes meanwhile");

    for _ in 0..3 {
        bench.micros += 1_000_000;
        assert_eq!(sent(&bench.turn(Vec::new())), [], "it is this node that they wait for");
    }

    let mut target = Mailboxes::new(bench.mesh.clone(), ShardId(1));
    for waiting in (0..MORE).rev() {
        target.reply(ShardId(0), Back::Moved);
        assert_eq!(moved(&bench.turn(Vec::new())), 1);
        assert_eq!(bench.metrics.handshakes.value(), waiting as u64);
    }
    assert_eq!(bench.metrics.refused_total(RefusedReason::NoCredit).value(), 0);
}

#[test]
fn of_the_mail_of_each_shard_a_turn_takes_an_equal_share() {
    let mut bench = Bench::of_shards(3, 10, 10, 10);
    let share = WORK_PER_TURN / 2;
    let mut others = [1, 2].map(|shard| (ShardId(shard), Mailboxes::new(bench.mesh.clone(), ShardId(shard))));
    let answered =
        |(_, mail): &(ShardId, Mailboxes)| std::iter::from_fn(|| mail.take_reply(ShardId(0))).count();
    for ((shard, mail), count) in others.iter_mut().zip([share * 2, 3]) {
        for slot in 0..count {
            let session = SessionId { slot: slot as u32, generation: 0 };
            let asker = Asker { shard: *shard, session, id: RequestId(1), asked_micros: 0 };
            let (user, conversation) = (UserId::new("alice").expect("a name"), ConversationId([7; 16]));
            mail.post(ShardId(0), Forward::Request(Request::ListMembers { asker, user, conversation }));
        }
    }
    bench.turn(Vec::new());
    assert_eq!(others.each_ref().map(answered), [share, 3]);
    assert!(!bench.mesh.fall_asleep(ShardId(0)), "there is more to do");
    bench.turn(Vec::new());
    assert_eq!(others.each_ref().map(answered), [share, 0]);
}

#[test]
fn those_who_are_overdue_together_are_ended_in_parts() {
    let mut bench = Bench::new(1_000, 1_000, 1_000_000);
    bench.accept(Listener::Chat, 200);
    bench.micros += 10_000_000;
    let ended = |actions: &[Action]| sent(actions).iter().filter(|(_, text)| text.contains(" 408 ")).count();
    let turns: Vec<usize> = (0..5).map(|_| ended(&bench.turn(Vec::new()))).collect();
    assert_eq!(turns, [64, 64, 64, 8, 0]);
    assert_eq!(bench.metrics.refused_total(RefusedReason::Timeout).value(), 200);
}
