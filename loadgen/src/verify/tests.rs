//! A scripted history that is in order, and one mutant of it per kind of violation.

use protocol::ids::MessageId;

use super::*;
use crate::plan::{RoomIndex, UserIndex};

const ROOM: RoomIndex = RoomIndex(4);
const ELSEWHERE: RoomIndex = RoomIndex(9);

fn id(number: u8) -> MessageId {
    MessageId([number; 16])
}

const AUTHOR: UserIndex = UserIndex(3);
const OTHER: UserIndex = UserIndex(5);

fn amendment(seq: u64, target: u64, change: Change) -> Amendment {
    Amendment { room: ROOM, seq, target, by: AUTHOR, command: command_id(id(seq as u8)), change }
}

fn shown(seq: u64, target: u64, form: FoldedForm) -> ShownAmendment {
    ShownAmendment { seq, target, by: AUTHOR, form }
}

/// What 2 is in the end.
fn edited() -> FoldedForm {
    let (text, reactions) = (Some(command_id(id(7))), vec![(1, vec![AUTHOR])]);
    FoldedForm { text, edited: true, deleted: false, reactions }
}

/// What 3 is in the end.
fn deleted() -> FoldedForm {
    FoldedForm { deleted: true, ..FoldedForm::default() }
}

/// A run of one room: what was acknowledged, what one member saw, what the log holds.
#[derive(Clone)]
struct Script {
    acks: Vec<LogItem>,
    seen: Vec<(RoomIndex, u64, MessageId)>,
    log: Vec<LogItem>,
    refused: Vec<MessageId>,
    amendments: Vec<Amendment>,
    overtaken: Vec<Overtaken>,
    shown: Shown,
    senders: Vec<(u64, UserIndex)>,
    /// What one member was told that it is in, if it was asked.
    list: Option<UserList>,
}

impl Script {
    /// 7 edits 2, 8 reacts to it, 9 deletes 3.
    fn sound() -> Self {
        let items: Vec<LogItem> = (1..=9).map(|number| (number, id(number as u8))).collect();
        Self {
            acks: items[..6].to_vec(),
            seen: items.iter().map(|(seq, id)| (ROOM, *seq, *id)).collect(),
            log: items,
            refused: vec![id(100)],
            amendments: vec![
                amendment(7, 2, Change::Edit),
                amendment(8, 2, Change::React { emoji: 1, on: true }),
                amendment(9, 3, Change::Delete),
            ],
            overtaken: vec![Overtaken { room: ROOM, target: 3, by: AUTHOR, command: command_id(id(100)) }],
            shown: Shown {
                messages: [(2, edited()), (3, deleted())].into(),
                amendments: vec![shown(7, 2, edited()), shown(8, 2, edited()), shown(9, 3, deleted())],
            },
            // 1 makes the group.
            senders: vec![(2, AUTHOR), (3, AUTHOR), (4, OTHER), (5, AUTHOR), (6, AUTHOR)],
            list: None,
        }
    }

    /// The kinds found, each once.
    fn verdict(&self) -> Vec<Kind> {
        let mut book = Book::default();
        let mut live = Violations::default();
        let mut reader = Reader::new(&[ROOM], |_| false);
        for (seq, id) in &self.acks {
            book.acknowledge(ROOM, *seq, *id);
        }
        for (room, seq, id) in &self.seen {
            match reader.handle_item(*room, *seq) {
                Receipt::New | Receipt::Replayed => book.note(*room, *seq, *id),
                Receipt::NoMember => live.add(Kind::Recipient, String::new),
                Receipt::Skipped { .. } => live.add(Kind::Hole, String::new),
                Receipt::Back { .. } => live.add(Kind::Order, String::new),
                Receipt::Outside => live.add(Kind::Membership, String::new),
            }
        }
        live.merge(std::mem::take(&mut book.violations));
        let evidence = Evidence {
            books: book.into_rooms().collect(),
            logs: [(ROOM, self.log.clone())].into(),
            ends: vec![("reader".to_owned(), ROOM, reader.stands()[0].at)],
            refused: self.refused.clone(),
            amendments: self.amendments.clone(),
            overtaken: self.overtaken.clone(),
            shown: [(ROOM, self.shown.clone())].into(),
            senders: [(ROOM, self.senders.clone())].into(),
            lists: self.list.iter().cloned().collect(),
            ..Evidence::default()
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

/// The one who has sent 4 is asked; elsewhere nothing was said.
#[test]
fn a_list_that_a_recount_does_not_confirm_is_wrong() {
    #[track_caller]
    fn check_list(mutate: impl FnOnce(&mut UserList), expected: &[Kind]) {
        let sound = ListedRoom { room: ROOM, head: 9, read: 4, unread: 2 };
        let mut list = UserList { user: OTHER, rooms: vec![ROOM, ELSEWHERE], listed: vec![sound] };
        mutate(&mut list);
        check(|script| script.list = Some(list), expected);
    }
    let wrong = [Kind::Unread];
    check_list(|_| {}, &[]);
    check_list(|list| list.listed[0].unread = 3, &wrong);
    check_list(|list| list.listed[0].unread = 1, &wrong);
    check_list(|list| list.listed[0].read = 5, &wrong);
    check_list(|list| list.listed[0].head = 8, &wrong);
    check_list(|list| list.listed.clear(), &wrong);
    check_list(|list| list.listed.push(list.listed[0]), &wrong);
    // Who has sent nothing has read the record by which it joined, and no message.
    check_list(|list| list.user = UserIndex(77), &wrong);
    let unspoken = ListedRoom { room: ROOM, head: 9, read: 1, unread: 5 };
    check_list(|list| (list.user, list.listed[0]) = (UserIndex(77), unspoken), &[]);
    let strange = ListedRoom { room: RoomIndex(77), ..unspoken };
    check_list(|list| list.listed.push(strange), &[Kind::Recipient]);
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
        &[Kind::Hole, Kind::NotGiven, Kind::Order],
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
fn a_skip_is_a_hole_and_an_end_before_the_head_is_not_given() {
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
        &[Kind::NotGiven],
    );
}

#[test]
fn a_refused_message_that_is_stored_shows() {
    check(|script| script.refused.push(id(9)), &[Kind::Refused]);
}

/// Changes what is shown of a message, in its place and by the amendments of it.
fn show(script: &mut Script, target: u64, form: &FoldedForm) {
    script.shown.messages.insert(target, form.clone());
    for amendment in script.shown.amendments.iter_mut().filter(|amendment| amendment.target == target) {
        amendment.form = form.clone();
    }
}

#[test]
fn an_acked_amendment_that_is_no_amendment_or_another_one_shows() {
    check(|script| drop(script.shown.amendments.remove(1)), &[Kind::Amendment]);
    check(|script| script.shown.amendments[1].target = 4, &[Kind::Amendment]);
    check(|script| script.shown.amendments[2].by = OTHER, &[Kind::Amendment]);
    check(|script| script.amendments.push(amendment(5, 4, Change::Edit)), &[Kind::Amendment, Kind::Edit]);
}

#[test]
fn an_acked_amendment_that_is_gone_is_lost_like_a_message() {
    check(
        |script| {
            script.acks.push((9, id(9)));
            script.log.pop();
            script.seen.pop();
        },
        &[Kind::AckedLost],
    );
}

#[test]
fn an_edit_that_is_not_the_newest_one_or_does_not_say_so_shows() {
    for text in [Some(command_id(id(2))), Some(NO_LETTER), None] {
        check(
            |script| {
                let form = FoldedForm { text, ..edited() };
                script.shown.messages.insert(2, form);
            },
            &[Kind::Edit],
        );
    }
    check(|script| drop(script.shown.messages.remove(&2)), &[Kind::Edit]);
    check(
        |script| {
            let form = FoldedForm { edited: false, ..edited() };
            script.shown.messages.insert(2, form);
        },
        &[Kind::Edit],
    );
    // What nobody edited.
    check(
        |script| {
            let form = FoldedForm { edited: true, ..FoldedForm::plain(command_id(id(4))) };
            script.shown.messages.insert(4, form);
        },
        &[Kind::Edit],
    );
}

#[test]
fn anything_of_a_deleted_message_is_too_much() {
    let text = Some(command_id(id(3)));
    let reactions = vec![(1, vec![OTHER])];
    for form in [
        FoldedForm { text, ..FoldedForm::default() },
        FoldedForm { text, ..deleted() },
        FoldedForm { edited: true, ..deleted() },
        FoldedForm { reactions, ..deleted() },
    ] {
        check(|script| drop(script.shown.messages.insert(3, form.clone())), &[Kind::DeletedShown]);
        // In an earlier amendment of it alone.
        check(|script| script.shown.amendments[2].form = form.clone(), &[Kind::DeletedShown]);
    }
    check(|script| drop(script.shown.messages.remove(&3)), &[Kind::DeletedShown]);
}

#[test]
fn a_message_that_nobody_deleted_is_not_deleted() {
    check(|script| drop(script.shown.messages.insert(4, deleted())), &[Kind::DeletedUnasked]);
    check(|script| drop(script.shown.messages.insert(2, deleted())), &[Kind::DeletedUnasked]);
}

#[test]
fn reactions_are_those_that_were_made_in_their_order() {
    for reactions in [vec![], vec![(1, vec![OTHER])], vec![(2, vec![AUTHOR])], vec![(1, vec![AUTHOR, OTHER])]]
    {
        check(
            |script| {
                let form = FoldedForm { reactions, ..edited() };
                script.shown.messages.insert(2, form);
            },
            &[Kind::Reactions],
        );
    }
    // On, on again, another's, another one, off: in any order that the processes tell them.
    let react = |seq, by, emoji, on| {
        let change = Change::React { emoji, on };
        Amendment { by, ..amendment(seq, 2, change) }
    };
    let made = [
        (10, AUTHOR, 1, true, vec![(1, vec![AUTHOR])]),
        (11, OTHER, 2, true, vec![(1, vec![AUTHOR]), (2, vec![OTHER])]),
        (12, OTHER, 1, true, vec![(1, vec![AUTHOR, OTHER]), (2, vec![OTHER])]),
        (13, AUTHOR, 1, false, vec![(2, vec![OTHER]), (1, vec![OTHER])]),
        (14, AUTHOR, 1, false, vec![(2, vec![OTHER]), (1, vec![OTHER])]),
    ];
    let mut script = Script::sound();
    for (seq, by, emoji, on, reactions) in made {
        script.amendments.insert(0, react(seq, by, emoji, on));
        script.log.push((seq, id(seq as u8)));
        script.seen.push((ROOM, seq, id(seq as u8)));
        let form = FoldedForm { reactions, ..edited() };
        script.shown.amendments.push(ShownAmendment { by, ..shown(seq, 2, form.clone()) });
        show(&mut script, 2, &form);
        assert_eq!(script.verdict(), [], "after {seq}");
    }
}

#[test]
fn an_amendment_in_a_history_says_what_its_target_is_by_now() {
    check(|script| script.shown.amendments[0].form.reactions.clear(), &[Kind::Unfolded]);
    check(|script| script.shown.amendments[1].form = FoldedForm::default(), &[Kind::Unfolded]);
}

#[test]
fn only_a_deleted_message_may_be_missing_for_an_amendment() {
    check(|script| script.overtaken[0].target = 4, &[Kind::NotFound]);
}

#[test]
fn a_connection_goes_on_from_its_cursor_and_nowhere_else() {
    let mut reader = Reader::new(&[ROOM], |_| false);
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
    let mut reader = Reader::new(&[ROOM], |_| false);
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
