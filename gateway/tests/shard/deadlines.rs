//! Who is late, and when that is seen.

use crate::*;

#[test]
fn a_handshake_has_ten_seconds_or_two_while_others_wait_for_its_place() {
    for (handshakes_max, seconds) in [(4, 2), (5, 10)] {
        let mut bench = Bench::new(1_000, handshakes_max, 1_000_000);
        let silent = asked(&bench.accept(Listener::Chat, 4));
        for second in 1..=seconds {
            assert_eq!(sent(&bench.turn(Vec::new())), [], "{second}");
            bench.micros += 1_000_000;
        }
        let told = sent(&bench.turn(Vec::new()));
        assert_eq!(told.len(), silent.len(), "after {seconds} s");
        assert!(told.iter().all(|(_, head)| head.starts_with("HTTP/1.1 408 ")), "{told:?}");
        let refused = |reason| bench.metrics.refused_total(reason).value();
        let counts = [refused(RefusedReason::Displaced), refused(RefusedReason::Timeout)];
        assert_eq!(counts, if seconds == 2 { [4, 0] } else { [0, 4] });
    }
}

/// Sixty seconds, counted from the last frame that came: a ping each thirty keeps a session for ever.
#[test]
fn a_session_of_which_nothing_is_heard_for_a_minute_is_closed() {
    let mut bench = Bench::new(10, 10, 1_000_000);
    let alice = asked(&bench.accept(Listener::Chat, 1))[0];
    let mut events = vec![came(alice, &bench.handshake(&UserId::new("alice").expect("a name")))];
    while bench.metrics.handshakes.value() > 0 || !events.is_empty() {
        events = went_out(sent(&bench.turn(events)));
    }
    let mut heard = 0;
    let closed = (1..200).find(|second: &u64| {
        bench.micros += 1_000_000;
        let pings = [30, 60, 90].contains(second);
        heard = if pings { *second } else { heard };
        let ping = pings.then(|| came(alice, &frame(r#"{"op":"ping","id":7}"#)));
        let told = sent(&bench.turn(ping.into_iter().collect()));
        let close = told.iter().any(|(_, text)| text.contains("nothing was heard for 60 s"));
        bench.turn(went_out(told));
        close
    });
    let waited = closed.expect("it is closed") - heard;
    assert!(heard == 90 && (60..=61).contains(&waited), "{waited} s after {heard}");
}

/// The upgrade of a connection, which has gone out.
fn upgraded(bench: &mut Bench, listener: Listener) -> ConnectionId {
    let connection = asked(&bench.accept(listener, 1))[0];
    let answer = sent(&bench.turn(vec![came(connection, REQUEST)]));
    bench.turn(went_out(answer));
    connection
}

/// In which second from `from` on a connection is shut down.
fn shut_down_in(bench: &mut Bench, connection: ConnectionId, from: u64) -> Option<u64> {
    (from..from + 100).find(|second| {
        bench.micros = second * 1_000_000;
        let actions = bench.turn(Vec::new());
        actions.iter().any(|action| matches!(action, Action::Shutdown(of, _) if *of == connection))
    })
}

#[test]
fn a_reader_that_takes_nothing_is_closed_after_thirty_seconds_however_lately_it_was_heard() {
    let mut bench = Bench::new(10, 10, 1_000);
    let connection = upgraded(&mut bench, Listener::Echo);
    // By then its deadline is that of one of whom nothing is heard.
    for second in 2..=12 {
        bench.micros = second * 1_000_000;
        bench.turn(Vec::new());
    }
    bench.micros = 13_000_000;
    assert_eq!(sent(&bench.turn(vec![came(connection, FRAME)])).len(), 1, "it is echoed, and not taken");
    assert_eq!(shut_down_in(&mut bench, connection, 14), Some(43));
}

#[test]
fn who_says_goodbye_and_takes_no_answer_is_let_go_after_five_seconds() {
    let mut bench = Bench::new(10, 10, 1_000);
    let connection = upgraded(&mut bench, Listener::Chat);
    bench.micros = 2_000_000;
    let goodbye = [0x88, 0x82, 0, 0, 0, 0, 3, 232];
    assert_eq!(sent(&bench.turn(vec![came(connection, &goodbye)])).len(), 1, "it is answered");
    assert_eq!(shut_down_in(&mut bench, connection, 3), Some(7));
}
