//! Somebody who leaves and comes back, in order, and one mutant of it for each thing that can be wrong.

use protocol::ids::MessageId;

use super::*;

const ROOM: RoomIndex = RoomIndex(4);
const OWNER: UserIndex = UserIndex(0);
const ME: UserIndex = UserIndex(1);
const GUEST: UserIndex = UserIndex(2);

const fn id(seq: u64) -> MessageId {
    MessageId([seq as u8; 16])
}

const fn stay(from: u64, until: Option<u64>) -> Stay {
    Stay { from, until }
}

fn logged(seq: u64, added: &[UserIndex], removed: &[UserIndex]) -> LoggedChange {
    LoggedChange { seq, added: added.to_vec(), removed: removed.to_vec() }
}

fn promised(seq: u64, added: &[UserIndex], removed: &[UserIndex]) -> PromisedChange {
    let (added, removed) = (added.to_vec(), removed.to_vec());
    let (asked_at, done_at) = (Moment(10 * seq), Moment(10 * seq + 5));
    PromisedChange { room: ROOM, seq, command: command_id(id(seq)), added, removed, asked_at, done_at }
}

fn page(asked: u64, first: u64, last: u64, at: u64) -> ShownPage {
    ShownPage { user: ME, room: ROOM, asked, first, lowest: first, last, at: Moment(at), left: None }
}

const fn refused(user: UserIndex, asked_at: u64, at: u64) -> Outsider {
    Outsider { user, room: ROOM, asked_at: Moment(asked_at), at: Moment(at) }
}

const fn early(user: UserIndex, seq: u64, at: u64) -> EarlyRead {
    EarlyRead { user, room: ROOM, seq, at: Moment(at) }
}

/// 1 makes the group, 4 takes ME out, 6 adds it again, 8 adds the guest, 10 is the head. A change at `seq` is asked for at ten times that,
/// and answered 5 later.
fn sound() -> Evidence {
    let told = |user, stays: &[Stay]| ToldStays { user, room: ROOM, stays: stays.to_vec() };
    let changes = LoggedChanges {
        from_join: true,
        changes: vec![
            logged(1, &[OWNER, ME], &[]),
            logged(4, &[], &[ME]),
            logged(6, &[ME], &[]),
            logged(8, &[GUEST], &[]),
        ],
    };
    Evidence {
        logs: [(ROOM, (1..=10).map(|seq| (seq, id(seq))).collect())].into(),
        changes: [(ROOM, changes)].into(),
        senders: [(ROOM, vec![(2, ME), (3, OWNER), (5, OWNER), (7, ME), (9, GUEST), (10, OWNER)])].into(),
        stays: vec![
            told(OWNER, &[stay(1, Some(10))]),
            told(ME, &[stay(1, Some(4)), stay(6, Some(10))]),
            told(GUEST, &[stay(8, Some(10))]),
        ],
        membership: MembershipBook {
            promised: vec![promised(4, &[], &[ME]), promised(6, &[ME], &[]), promised(8, &[GUEST], &[])],
            early_reads: vec![early(ME, 3, 60)],
            outsiders: vec![refused(ME, 44, 46)],
            limited: Vec::new(),
            unchanged: Vec::new(),
            pages: vec![
                page(1, 1, 3, 39),
                page(1, 6, 7, 65),
                ShownPage { left: Some(4), ..page(1, 6, 7, 65) },
            ],
        },
        ..Evidence::default()
    }
}

#[track_caller]
fn check(mutate: impl FnOnce(&mut Evidence), expected: &[Kind]) {
    let mut evidence = sound();
    mutate(&mut evidence);
    let mut violations = Violations::default();
    judge(&evidence, &Members::of(&evidence.changes), &mut violations);
    assert_eq!(violations.counts.keys().copied().collect::<Vec<_>>(), expected, "{violations:?}");
}

#[test]
fn who_leaves_and_comes_back_in_order_gives_no_violation() {
    check(|_| {}, &[]);
    // A guest that was never in has seen nothing.
    check(|evidence| evidence.stays.push(ToldStays { user: UserIndex(9), room: ROOM, stays: vec![] }), &[]);
}

#[test]
fn what_was_given_is_what_the_log_allows() {
    let me = |evidence: &mut Evidence, stays: &[Stay]| evidence.stays[1].stays = stays.to_vec();
    check(|evidence| me(evidence, &[stay(1, Some(10))]), &[Kind::Membership]);
    check(|evidence| me(evidence, &[stay(1, Some(5)), stay(6, Some(10))]), &[Kind::Membership]);
    check(|evidence| me(evidence, &[stay(1, Some(4)), stay(7, Some(10))]), &[Kind::Hole]);
    check(|evidence| me(evidence, &[stay(1, Some(4)), stay(6, Some(9))]), &[Kind::Hole]);
    check(|evidence| me(evidence, &[stay(1, Some(4))]), &[Kind::Hole]);
    check(|evidence| me(evidence, &[stay(1, Some(3)), stay(5, Some(10))]), &[Kind::Hole, Kind::Membership]);
}

#[test]
fn who_writes_is_in_it() {
    let by = |evidence: &mut Evidence, seq, user| {
        evidence.senders.insert(ROOM, vec![(seq, user)]);
    };
    for seq in [4, 5, 6] {
        check(|evidence| by(evidence, seq, ME), &[Kind::Membership]);
    }
    check(|evidence| by(evidence, 7, GUEST), &[Kind::Membership]);
    check(|evidence| by(evidence, 3, ME), &[]);
}

#[test]
fn a_change_is_what_was_asked_for_and_a_promised_one_is_there() {
    check(|evidence| evidence.membership.promised[0].removed = vec![OWNER], &[Kind::Membership]);
    check(|evidence| evidence.membership.promised[1].added = vec![ME, UserIndex(9)], &[Kind::Membership]);
    // Who was in it already is not added again.
    check(|evidence| evidence.membership.promised[1].added = vec![ME, OWNER], &[]);
    check(|evidence| evidence.membership.promised.truncate(2), &[Kind::Membership]);
    check(|evidence| evidence.membership.promised[2].seq = 9, &[Kind::AckedLost, Kind::Membership]);
    check(|evidence| evidence.membership.promised[2].command = 7, &[Kind::AckedLost]);
}

#[test]
fn only_who_is_out_is_refused() {
    let is_told =
        |outsider| check(|evidence| evidence.membership.outsiders.push(outsider), &[Kind::Membership]);
    let is_right = |outsider| check(|evidence| evidence.membership.outsiders.push(outsider), &[]);
    is_told(refused(OWNER, 90, 99));
    // Until the leave is asked for, and from when it is promised that one is in again.
    is_told(refused(ME, 30, 39));
    is_told(refused(ME, 65, 70));
    is_told(refused(GUEST, 85, 90));
    // While it is on its way, and in between.
    is_right(refused(ME, 30, 40));
    is_right(refused(ME, 41, 64));
    is_right(refused(ME, 64, 70));
    is_right(refused(GUEST, 70, 75));
    is_right(refused(GUEST, 84, 90));
}

#[test]
fn only_what_was_before_a_join_is_refused_as_too_early() {
    let read = |early| move |evidence: &mut Evidence| evidence.membership.early_reads.push(early);
    // It was in it all the while, or was not back yet, or reads what came since.
    check(read(early(OWNER, 3, 60)), &[Kind::Membership]);
    check(read(early(ME, 3, 59)), &[Kind::Membership]);
    check(read(early(ME, 6, 70)), &[Kind::Membership]);
    // Where everything is for everybody nothing is too early.
    let all = |evidence: &mut Evidence| {
        evidence.changes.get_mut(&ROOM).expect("it changes").from_join = false;
        evidence.membership.pages.clear();
    };
    check(all, &[Kind::Membership]);
}

#[test]
fn a_history_shows_what_one_stay_allows() {
    let shown = |page| move |evidence: &mut Evidence| evidence.membership.pages.push(page);
    // What came before the join, and what came behind the leave.
    check(shown(page(1, 5, 7, 65)), &[Kind::Membership]);
    check(shown(page(1, 1, 7, 65)), &[Kind::Membership]);
    check(shown(page(1, 1, 5, 59)), &[Kind::Membership]);
    // An amendment that says what came before.
    check(shown(ShownPage { lowest: 5, ..page(1, 6, 7, 65) }), &[Kind::Membership]);
    // What there is was passed over.
    check(shown(page(2, 3, 3, 39)), &[Kind::Membership]);
    // Who knew to be out, before anybody asked to have it back.
    check(shown(ShownPage { left: Some(4), ..page(1, 1, 3, 45) }), &[Kind::Membership]);
    check(shown(page(6, 6, 7, 59)), &[Kind::Membership]);
    // Where everything is for everybody it is from the first on.
    let all = |page| {
        move |evidence: &mut Evidence| {
            evidence.changes.get_mut(&ROOM).expect("it changes").from_join = false;
            evidence.membership.pages = vec![page];
            evidence.membership.early_reads.clear();
        }
    };
    check(all(page(1, 1, 7, 65)), &[]);
    check(all(page(1, 6, 7, 65)), &[Kind::Membership]);
}

#[test]
fn crossings_of_the_line_are_counted_both_ways() {
    let changes = sound().changes;
    assert_eq!([1, 2, 3].map(|small_max| switches(&changes, small_max)), [2, 1, 0]);
}

#[test]
fn a_change_that_is_refused_as_too_much_was_too_much() {
    // ROOM of `others` more, and of OWNER and ME, of whom ME is out from 4 to 6.
    let with = |others: u32, asker, added| {
        move |evidence: &mut Evidence| {
            let others: Vec<UserIndex> = (100..100 + others).map(UserIndex).collect();
            for user in &others {
                evidence.stays.push(ToldStays { user: *user, room: ROOM, stays: vec![stay(1, Some(10))] });
            }
            let changes = &mut evidence.changes.get_mut(&ROOM).expect("a room").changes;
            changes[0].added.extend(others);
            evidence.membership.limited.push(Limited { asker, added });
        }
    };
    let early = refused(OWNER, 20, 22);
    check(with(0, early, 1), &[Kind::Membership]);
    check(with(96, early, 1), &[Kind::Membership]);
    // One more is large, of which there may be too many elsewhere; one that is large is not one more.
    check(with(97, early, 1), &[]);
    check(with(98, early, 1), &[Kind::Membership]);
    check(with(497, early, 1), &[Kind::Membership]);
    check(with(498, early, 1), &[]);
    // While ME leaves it may be in or out.
    check(with(498, refused(OWNER, 42, 44), 1), &[]);
    check(with(498, refused(OWNER, 46, 50), 1), &[Kind::Membership]);
}

#[test]
fn what_is_answered_as_so_already_was_so_in_between() {
    let told = |asker, added: &[UserIndex], removed: &[UserIndex]| {
        let (command, added, removed) = (7, added.to_vec(), removed.to_vec());
        let unchanged = Unchanged { asker, command, added, removed };
        move |evidence: &mut Evidence| evidence.membership.unchanged.push(unchanged)
    };
    let is_right = |asker, added| check(told(asker, added, &[]), &[]);
    let is_told = |asker, added| check(told(asker, added, &[]), &[Kind::Membership]);
    // ME is in until its leave is asked for or may have been done, and from when it may be back.
    is_right(refused(OWNER, 20, 30), &[ME]);
    is_right(refused(OWNER, 44, 46), &[ME]);
    is_told(refused(OWNER, 46, 59), &[ME]);
    is_right(refused(OWNER, 46, 60), &[ME]);
    is_right(refused(OWNER, 90, 99), &[ME, GUEST]);
    // Nobody was in while the other was not.
    is_told(refused(OWNER, 20, 79), &[ME, GUEST]);
    is_right(refused(OWNER, 20, 80), &[ME, GUEST]);
    // Who is out itself is refused, and who leaves is not in afterwards.
    is_told(refused(ME, 46, 59), &[OWNER]);
    is_told(refused(OWNER, 90, 99), &[UserIndex(9)]);
    check(told(refused(OWNER, 90, 99), &[], &[ME]), &[Kind::Membership]);
    check(told(refused(OWNER, 46, 59), &[], &[ME]), &[Kind::Membership]);
    // And it is nowhere.
    let is_stored = |evidence: &mut Evidence| {
        told(refused(OWNER, 90, 99), &[ME], &[])(evidence);
        evidence.membership.unchanged[0].command = command_id(id(6));
    };
    check(is_stored, &[Kind::Membership]);
}
