//! A user that reads: when it says so.

use super::*;

/// One that answers everything, when it has looked at it for so long.
fn reader(think: &str) -> Pair {
    let think = think.parse().expect("a time to think");
    let attention = Attention { read_percent: 100, think, ..Attention::default() };
    let mut pair = Pair::of(WorkerConfig { attention, ..config(Forms::Binary, USERS_MIN, 10) });
    pair.desk.watching.is_reading = true;
    pair
}

/// What it says then that it has read.
fn reads(pair: &mut Pair, now: Moment) -> Vec<u64> {
    pair.user.pump_attention(&mut pair.desk, now);
    let mut said = Vec::new();
    for request in pair.asked() {
        let (Some(id), Command::Read { seq, .. }) = (request.id, request.command) else { panic!("no read") };
        let (conversation, message_id, at) = (None, None, None);
        pair.feed(ServerFrame::Ok(OkReply { id, conversation, seq: None, message_id, at }));
        said.push(seq.0);
    }
    said
}

#[test]
fn a_message_is_looked_at_before_it_is_read_and_what_comes_meanwhile_is_looked_at_next() {
    let mut pair = reader("5000");
    let after = |seconds| Moment::now().after(Duration::from_secs(seconds));
    let is_looking = |pair: &Pair| pair.user.attending.is_looking();
    (1..=3).for_each(|seq| pair.receive(seq, seq as u8));
    assert_eq!((reads(&mut pair, after(4)), is_looking(&pair)), (vec![], true));
    let first = after(5);
    assert_eq!(reads(&mut pair, first), [1]);
    assert_eq!(reads(&mut pair, first.after(Duration::from_millis(4999))), [0; 0]);
    assert_eq!(reads(&mut pair, first.after(Duration::from_secs(5))), [3], "both at once");
    assert!(!is_looking(&pair));

    (4..=5).for_each(|seq| pair.receive(seq, seq as u8));
    pair.desk.watching.is_reading = false;
    assert_eq!(
        (reads(&mut pair, after(10)), is_looking(&pair)),
        (vec![4], false),
        "no look is begun at the end"
    );
    pair.desk.watching.is_reading = true;
    pair.receive(6, 6);
    assert!(is_looking(&pair));
    pair.user.handle_lost(&mut pair.desk, CloseCode::ABNORMAL);
    assert!(!is_looking(&pair), "who is away looks at nothing");
}

#[test]
fn who_does_not_think_reads_at_once() {
    let mut pair = reader("0");
    pair.receive(1, 1);
    assert_eq!((reads(&mut pair, Moment::now()), pair.user.attending.is_looking()), (vec![1], false));
}
