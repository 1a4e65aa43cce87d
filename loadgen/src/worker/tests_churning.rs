//! Somebody who is taken out of a group and let in again, and somebody who goes away for a while.

use protocol::{
    command::{Command, HistoryRange, Members, MessageKind, Request, Send, Target},
    event::{AmendedForm, ErrorCode, ErrorReply, MemberEvent, OkReply, PageItem, ServerFrame},
    ids::{MessageId, RequestId, Seq, UnixMillis},
};

use super::{super::in_flight::Pending, CONVERSATION, DUE, ME, PEER, Pair};
use crate::{
    clock::Moment,
    link::Forms,
    plan::{Comings, RoomIndex, USERS_MIN, UserIndex},
    verify::{Kind, Outsider, ShownPage, Stay, Unchanged},
};

/// Of strangers: who joins it reads what comes from then on. The direct conversations come before it, and the one of neighbours.
const GROUP: RoomIndex = RoomIndex(4 * USERS_MIN + 1);

/// A leave of PEER's.
const LEAVE: MessageId = MessageId([77; 16]);

enum Move {
    Join,
    Leave,
}

impl Pair {
    /// In a group whose members change, in which three messages were told.
    fn in_changing_group() -> Self {
        let comings = Comings { churn: 1, absent_percent: 0 };
        let mut pair = Self::coming(Forms::Json, USERS_MIN, 10, comings);
        pair.desk.learn(GROUP, CONVERSATION);
        for seq in 1..=3 {
            pair.told(seq);
        }
        assert_eq!(pair.violations(), []);
        pair
    }

    fn told(&mut self, seq: u64) {
        let message = self.message(seq, seq as u8, GROUP);
        self.feed(ServerFrame::Message(message));
    }

    fn moves(&mut self, seq: u64, how: Move) {
        self.told_of(ME, seq, how);
    }

    /// Somebody joins or leaves by a record, which ME is told.
    fn told_of(&mut self, user: UserIndex, seq: u64, how: Move) {
        let user = vec![self.desk.plan.name(user)];
        let (added, removed) = match how {
            Move::Join => (user, Vec::new()),
            Move::Leave => (Vec::new(), user),
        };
        self.feed(ServerFrame::Member(MemberEvent {
            conversation: CONVERSATION,
            seq: Seq(seq),
            message_id: MessageId([seq as u8 + 100; 16]),
            at: UnixMillis(1),
            by: self.desk.plan.name(PEER),
            added,
            removed,
            roles: Vec::new(),
            title: None,
            retention: None,
        }));
    }

    /// The look that was asked for.
    fn asked_look(&mut self) -> RequestId {
        let asked = self.asked();
        let [Request { id: Some(id), command: Command::History { range: HistoryRange::After(Seq(0)), .. } }] =
            &asked[..]
        else {
            panic!("{asked:?} is no look")
        };
        *id
    }

    fn refused(&mut self, id: RequestId, code: ErrorCode) {
        let error = ErrorReply { id: Some(id), code, message: String::new(), retry_after_ms: None };
        self.feed(ServerFrame::Error(error));
    }
}

#[test]
fn what_comes_between_a_leave_and_a_join_is_not_allowed_and_no_hole() {
    let mut pair = Pair::in_changing_group();
    pair.moves(4, Move::Leave);
    pair.moves(9, Move::Join);
    pair.told(10);
    assert_eq!(pair.violations(), []);
    let stays = [Stay { from: 1, until: Some(4) }, Stay { from: 9, until: Some(10) }];
    assert_eq!(pair.user.reader.stays(GROUP), stays);

    let mut pair = Pair::in_changing_group();
    pair.moves(4, Move::Leave);
    pair.told(5);
    assert_eq!(pair.violations(), [Kind::Membership]);

    let mut pair = Pair::in_changing_group();
    pair.moves(4, Move::Leave);
    pair.moves(9, Move::Join);
    pair.told(11);
    assert_eq!(pair.violations(), [Kind::Hole]);
}

#[test]
fn who_left_and_joined_behind_its_cursor_is_told_both_again() {
    let mut pair = Pair::in_changing_group();
    pair.feed(ServerFrame::Cursor { cursor: "c2".to_owned() });
    pair.moves(4, Move::Leave);
    pair.moves(9, Move::Join);
    pair.told(10);
    pair.user.handle_lost(&mut pair.desk, protocol::event::CloseCode::ABNORMAL);
    assert_eq!(pair.connect(None).as_deref(), Some("c2"));
    pair.moves(4, Move::Leave);
    pair.moves(9, Move::Join);
    pair.told(10);
    pair.told(11);
    assert_eq!(pair.violations(), []);
    let stays = [Stay { from: 1, until: Some(4) }, Stay { from: 9, until: Some(11) }];
    assert_eq!(pair.user.reader.stays(GROUP), stays);
    assert_eq!(pair.desk.tally.counts.replayed, 3);
}

#[test]
fn what_was_said_before_a_join_is_hidden_when_it_is_amended() {
    let joined = || {
        let mut pair = Pair::in_changing_group();
        pair.moves(4, Move::Leave);
        pair.moves(9, Move::Join);
        pair
    };
    let mut pair = joined();
    pair.amended(10, 3, AmendedForm::Hidden);
    assert_eq!(pair.violations(), []);

    let mut pair = joined();
    let edited = pair.edited(GROUP);
    pair.amended(10, 3, edited);
    assert_eq!(pair.violations(), [Kind::Membership]);

    let mut pair = Pair::in_changing_group();
    pair.amended(4, 3, AmendedForm::Hidden);
    assert_eq!(pair.violations(), [Kind::Content], "who was always there sees everything");
}

#[test]
fn who_has_just_left_is_refused_and_that_is_held_against_the_log() {
    let mut pair = Pair::in_changing_group();
    pair.user.offer_message(&mut pair.desk, GROUP, Some(DUE), Target::Conversation(CONVERSATION));
    let asked = pair.asked();
    let [Request { id: Some(id), command: Command::Send(Send { kind: MessageKind::Text, .. }) }] = &asked[..]
    else {
        panic!("{asked:?} is not one send")
    };
    pair.refused(*id, ErrorCode::NotAMember);
    let counts = pair.desk.tally.counts;
    assert_eq!((counts.refused, counts.outside, pair.user.unanswered()), (0, 1, 0));
    let [Outsider { user: ME, room: GROUP, .. }] = pair.desk.churning.book.outsiders[..] else {
        panic!("nothing is held against the log")
    };
}

#[test]
fn who_left_or_joined_looks_at_what_it_may_see() {
    let mut pair = Pair::in_changing_group();
    pair.moves(4, Move::Leave);
    let id = pair.asked_look();
    pair.refused(id, ErrorCode::NotAMember);
    assert!(pair.desk.tally.errors.is_empty(), "that is as it should be");
    pair.moves(9, Move::Join);
    let id = pair.asked_look();
    let messages = (10..=11).map(|seq| PageItem::Message(pair.message(seq, seq as u8, GROUP))).collect();
    pair.feed(ServerFrame::Page { id, messages, more: false });
    let [page] = pair.desk.churning.book.pages[..] else { panic!("one page was shown") };
    let at = page.at;
    let shown =
        ShownPage { user: ME, room: GROUP, asked: 1, first: 10, lowest: 10, last: 11, at, left: None };
    assert_eq!(page, shown);
    assert_eq!(pair.desk.tally.counts.looks, 2);
}

#[test]
fn a_look_that_shows_nothing_is_wrong_whether_one_is_in_or_out() {
    let nothing = |id| ServerFrame::Page { id, messages: Vec::new(), more: false };
    let mut pair = Pair::in_changing_group();
    pair.moves(4, Move::Leave);
    let id = pair.asked_look();
    pair.feed(nothing(id));
    assert_eq!(pair.violations(), [Kind::Membership], "who is out is refused");

    let mut pair = Pair::in_changing_group();
    pair.moves(4, Move::Leave);
    let id = pair.asked_look();
    pair.refused(id, ErrorCode::NotAMember);
    pair.moves(9, Move::Join);
    let id = pair.asked_look();
    pair.feed(nothing(id));
    assert_eq!(pair.violations(), [Kind::Hole], "who is in sees that it joined");
}

/// A leave of PEER's that was stored at 4 and not answered, because the connection ended, so that it is asked for again.
fn leave_again(pair: &mut Pair) {
    let command = Command::Leave { conversation: CONVERSATION, message_id: Some(LEAVE) };
    let (due, sent_at) = (Some(DUE), Some(DUE));
    let pending = Pending { message_id: LEAVE, room: GROUP, due, command, sent_at, in_history: false };
    pair.desk.handle_changed(PEER, &pending, 4, Moment::now());
}

#[test]
fn a_leave_that_is_answered_again_takes_out_once_whatever_came_in_between() {
    // Who is out after what was told in which order.
    let out = |told: &[fn(&mut Pair)]| {
        let mut pair = Pair::in_changing_group();
        pair.desk.gather_rosters();
        told.iter().for_each(|tell| tell(&mut pair));
        assert_eq!(pair.violations(), []);
        let [change] = &pair.desk.churning.book.promised[..] else { panic!("one leave was promised") };
        assert_eq!((change.seq, change.asked_at, &change.removed[..]), (4, DUE, &[PEER][..]));
        let guest = pair.desk.plan.guest(GROUP);
        pair.desk.churning.out(GROUP).iter().copied().filter(|user| Some(*user) != guest).collect::<Vec<_>>()
    };
    let left: fn(&mut Pair) = |pair| pair.told_of(PEER, 4, Move::Leave);
    let joined: fn(&mut Pair) = |pair| pair.told_of(PEER, 5, Move::Join);
    // By the record that is told, and by the answer that says where it stands.
    assert_eq!(out(&[left, leave_again]), [PEER]);
    assert_eq!(out(&[leave_again, left]), [PEER]);
    assert_eq!(out(&[left, joined, leave_again]), [], "it is in again by then");
    assert_eq!(out(&[leave_again, left, joined]), []);
    assert_eq!(out(&[left, leave_again, joined]), []);
}

#[test]
fn a_change_that_is_given_up_keeps_its_group_for_nobody() {
    let mut pair = Pair::in_changing_group();
    pair.desk.gather_rosters();
    pair.user.handle_lost(&mut pair.desk, protocol::event::CloseCode::ABNORMAL);
    let is_full = |pair: &Pair| pair.desk.tally.counts.given_up == 1;
    while !is_full(&pair) {
        let target = Target::Conversation(CONVERSATION);
        pair.user.offer_message(&mut pair.desk, GROUP, Some(DUE), target);
    }
    let (add, conversation) = (vec![pair.desk.plan.name(PEER)], CONVERSATION);
    let change = Members { conversation, add, remove: vec![], roles: vec![], message_id: Some(LEAVE) };
    pair.desk.churning.begin(GROUP);
    pair.user.offer(&mut pair.desk, GROUP, Some(DUE), LEAVE, Command::Members(change));
    assert_eq!(pair.desk.tally.counts.given_up, 2);
    assert!(!pair.desk.churning.is_changing(GROUP), "another change may come");
}

#[test]
fn a_change_that_is_answered_as_one_that_changes_nothing_is_held_against_the_log() {
    let ok_alone =
        |id| ServerFrame::Ok(OkReply { id, conversation: None, seq: None, message_id: None, at: None });
    let mut pair = Pair::in_changing_group();
    pair.desk.gather_rosters();
    let guest = pair.desk.plan.guest(GROUP).expect("somebody is out");
    assert_eq!(pair.desk.churning.out(GROUP), [guest]);
    let id = pair.user.message_id(&mut pair.desk.random);
    let (add, conversation) = (vec![pair.desk.plan.name(guest)], CONVERSATION);
    let change = Members { conversation, add, remove: vec![], roles: vec![], message_id: Some(id) };
    pair.desk.churning.begin(GROUP);
    pair.user.offer(&mut pair.desk, GROUP, Some(DUE), id, Command::Members(change));
    let asked = pair.asked();
    pair.feed(ok_alone(asked[0].id.expect("every change has one")));
    assert_eq!(pair.violations(), []);
    let [Unchanged { asker: Outsider { user: ME, room: GROUP, .. }, added, removed, .. }] =
        &pair.desk.churning.book.unchanged[..]
    else {
        panic!("nothing is held against the log")
    };
    assert_eq!((&added[..], &removed[..]), (&[guest][..], &[][..]));
    assert_eq!((pair.desk.tally.counts.changes_acked, pair.user.unanswered()), (1, 0));
    assert!(!pair.desk.churning.is_changing(GROUP), "another change may come");
    assert_eq!(pair.desk.churning.out(GROUP), [], "it is in");
    // A message always has a place.
    pair.user.offer_message(&mut pair.desk, GROUP, Some(DUE), Target::Conversation(CONVERSATION));
    let asked = pair.asked();
    pair.feed(ok_alone(asked[0].id.expect("every send has one")));
    assert_eq!(pair.violations(), [Kind::Content]);
}

#[test]
fn a_change_is_outrun_only_by_what_can_have_come_first() {
    let codes = [ErrorCode::NotAMember, ErrorCode::NotFound, ErrorCode::Limit, ErrorCode::NotAllowed];
    for (is_join, outrun) in [(true, [true, false, true, false]), (false, [true, true, false, false])] {
        for (code, is_outrun) in codes.into_iter().zip(outrun) {
            let mut pair = Pair::in_changing_group();
            pair.desk.gather_rosters();
            let user = vec![pair.desk.plan.name(PEER)];
            let (add, remove) = if is_join { (user, vec![]) } else { (vec![], user) };
            let (conversation, id) = (CONVERSATION, pair.user.message_id(&mut pair.desk.random));
            let change = Members { conversation, add, remove, roles: vec![], message_id: Some(id) };
            pair.user.offer(&mut pair.desk, GROUP, Some(DUE), id, Command::Members(change));
            let asked = pair.asked();
            pair.refused(asked[0].id.expect("every change has one"), code);
            let counts = pair.desk.tally.counts;
            let expected = if is_outrun { (1, 0) } else { (0, 1) };
            assert_eq!((counts.changes_refused, counts.refused), expected, "{code:?} to a join: {is_join}");
        }
    }
}

#[test]
fn a_look_that_is_refused_for_something_else_is_a_fault() {
    for (code, others_refused) in [
        (ErrorCode::NotAMember, 0),
        (ErrorCode::Busy, 0),
        (ErrorCode::NotFound, 1),
        (ErrorCode::NotAllowed, 1),
    ] {
        let mut pair = Pair::in_changing_group();
        pair.moves(4, Move::Leave);
        let id = pair.asked_look();
        pair.refused(id, code);
        assert_eq!(pair.desk.tally.counts.others_refused, others_refused, "{code:?}");
    }
}

#[test]
fn so_many_of_a_hundred_go_away_in_each_worker() {
    let comings = Comings { churn: 0, absent_percent: 30 };
    let absent = |user: &u32| comings.is_absent(UserIndex(*user));
    assert_eq!((0..100).filter(absent).count(), 30);
    assert!((0..2).all(|worker| (0..100).filter(|user| user % 2 == worker).any(|user| absent(&user))));
}
