//! Going on with what another process had.

use gateway::upgrade::successor::Boarded;

use crate::*;

#[test]
fn what_came_from_another_process_is_gone_on_with_at_once() {
    let mut bench = Bench::new(10, 10, 1_000);
    let connection = asked(&bench.accept(Listener::Chat, 1))[0];
    bench.turn(vec![Event::Pause, Event::ReceiveEnded { connection, end: ReceiveEnd::Disarmed }]);
    let (id, socket) = bench.shard.travellers()[0];
    let passenger = bench.shard.describe(id).expect("it goes on elsewhere");

    let mut next = Bench::new(10, 10, 1_000);
    next.shard.go_on(Clock { unix: UnixMillis(1), micros: 1 }, true);
    next.shard.take_over(Boarded { passenger, socket, counted: None });
    assert_eq!(next.shard.wait_micros(), 0, "it is to be listened to");
    assert_eq!(asked(&next.turn(Vec::new())).len(), 1);
    assert!(next.shard.wait_micros() > 0);
}
