//! A scripted history that is in order, and one mutant of it per kind of violation.

use protocol::ids::MessageId;

use super::{judge::LogItem, *};
use crate::plan::RoomIndex;

const ROOM: RoomIndex = RoomIndex(4);
const ELSEWHERE: RoomIndex = RoomIndex(9);

fn id(number: u8) -> MessageId {
    MessageId([number; 16])
}

/// A run of one room: what was acknowledged, what one member saw, what the log holds.
#[derive(Clone)]
struct Script {
    acks: Vec<LogItem>,
    seen: Vec<(RoomIndex, u64, MessageId)>,
    log: Vec<LogItem>,
    refused: Vec<MessageId>,
}

impl Script {
    fn sound() -> Self {
        let items: Vec<LogItem> = (1..=9).map(|number| (number, id(number as u8))).collect();
        Self {
            acks: items[..6].to_vec(),
            seen: items.iter().map(|(seq, id)| (ROOM, *seq, *id)).collect(),
            log: items,
            refused: vec![id(100)],
        }
    }

    /// The kinds found, each once.
    fn verdict(&self) -> Vec<Kind> {
        let mut book = Book::default();
        let mut live = Violations::default();
        let mut reader = Reader::new(&[ROOM]);
        for (seq, id) in &self.acks {
            book.acknowledge(ROOM, *seq, *id);
        }
        for (room, seq, id) in &self.seen {
            match reader.handle_item(*room, *seq) {
                Receipt::New | Receipt::Replayed => book.note(*room, *seq, *id),
                Receipt::NoMember => live.add(Kind::Recipient, String::new),
                Receipt::Skipped { .. } => live.add(Kind::Hole, String::new),
                Receipt::Back { .. } => live.add(Kind::Order, String::new),
            }
        }
        live.merge(std::mem::take(&mut book.violations));
        let evidence = Evidence {
            books: book.into_rooms().collect(),
            logs: [(ROOM, self.log.clone())].into(),
            ends: vec![("reader".to_owned(), ROOM, reader.stands()[0].at)],
            refused: self.refused.clone(),
        };
        live.merge(judge(&evidence).expect("the book was not cut"));
        live.counts.into_keys().collect()
    }
}

#[track_caller]
fn check(mutate: impl FnOnce(&mut Script), expected: &[Kind]) {
    let mut script = Script::sound();
    mutate(&mut script);
    assert_eq!(script.verdict(), expected);
}

#[test]
fn a_sound_history_has_no_violation() {
    check(|_| {}, &[]);
}

#[test]
fn an_acked_message_that_is_gone_is_lost() {
    check(|script| script.log.truncate(5), &[Kind::AckedLost, Kind::Hole]);
    check(
        |script| {
            script.log.remove(2);
        },
        &[Kind::AckedLost, Kind::Hole],
    );
}

#[test]
fn a_delivered_message_that_is_gone_is_lost_although_nobody_was_promised_it() {
    check(|script| script.log[8].1 = id(50), &[Kind::AckedLost]);
}

#[test]
fn one_message_twice_in_the_log_is_doubled() {
    check(
        |script| {
            script.log.push((10, id(3)));
            script.seen.push((ROOM, 10, id(3)));
        },
        &[Kind::Doubled],
    );
}

#[test]
fn two_messages_under_one_sequence_are_doubled() {
    check(|script| script.seen[3].2 = id(77), &[Kind::Doubled]);
}

#[test]
fn swapped_messages_are_out_of_order() {
    check(|script| script.log.swap(1, 2), &[Kind::Hole, Kind::Order]);
    check(
        |script| {
            script.seen.swap(6, 7);
            script.seen.truncate(8);
        },
        &[Kind::Hole, Kind::Order],
    );
}

#[test]
fn swapped_contents_are_out_of_order() {
    check(
        |script| {
            script.log[6].1 = id(8);
            script.log[7].1 = id(7);
        },
        &[Kind::Order],
    );
}

#[test]
fn a_leak_is_a_wrong_recipient() {
    check(|script| script.seen.insert(4, (ELSEWHERE, 1, id(60))), &[Kind::Recipient]);
}

#[test]
fn a_skip_is_a_hole_and_so_is_an_end_before_the_head() {
    check(
        |script| {
            script.seen.remove(4);
        },
        &[Kind::Hole],
    );
    check(
        |script| {
            script.seen.pop();
        },
        &[Kind::Hole],
    );
}

#[test]
fn a_refused_message_that_is_stored_shows() {
    check(|script| script.refused.push(id(9)), &[Kind::Refused]);
}

#[test]
fn a_connection_goes_on_from_its_cursor_and_nowhere_else() {
    let mut reader = Reader::new(&[ROOM]);
    for seq in 1..=3 {
        assert_eq!(reader.handle_item(ROOM, seq), Receipt::New);
    }
    reader.save();
    assert_eq!(reader.handle_item(ROOM, 4), Receipt::New);
    reader.reopen();
    assert_eq!(reader.handle_item(ROOM, 4), Receipt::Replayed);
    assert_eq!(reader.handle_item(ROOM, 5), Receipt::New);
    reader.reopen();
    assert_eq!(reader.handle_item(ROOM, 5), Receipt::Skipped { expected: 4 });
    reader.reopen();
    assert_eq!(reader.handle_item(ROOM, 3), Receipt::Back { expected: 4 });
}

#[test]
fn passing_over_moves_the_reader_forward_only() {
    let mut reader = Reader::new(&[ROOM]);
    reader.handle_passed_over(ROOM, 7);
    reader.handle_passed_over(ROOM, 2);
    assert_eq!(reader.handle_item(ROOM, 8), Receipt::New);
}

#[test]
fn details_are_capped_and_counts_are_not() {
    let mut violations = Violations::default();
    for _ in 0..100 {
        violations.add(Kind::Hole, String::new);
    }
    violations.merge(violations.clone());
    assert_eq!((violations.total(), violations.first.len()), (200, DETAILS_MAX));
}
