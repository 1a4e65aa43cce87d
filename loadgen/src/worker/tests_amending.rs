//! Amendments: which ones are made, what their answers come to, and what a reader may be told.

use protocol::{
    command::{Command, React},
    event::{AmendedEvent, AmendedForm, CloseCode, ErrorCode, ErrorReply, MessageEvent, ServerFrame},
    ids::{MessageId, RequestId, Seq},
};

use super::{CONVERSATION, DUE, FOREIGN_ROOM, ME, PEER, Pair, ROOM, ok};
use crate::{
    letter::Letter,
    link::Forms,
    plan::RoomIndex,
    verify::{Amendment, Change, Kind, command_id},
    worker::{State, user::User},
};

impl Pair {
    /// The same user among all users of the plan, the others offline.
    fn into_state(mut self) -> State {
        let count = self.desk.config.users;
        let mut users: Vec<User> =
            (0..count).map(|user| User::new(crate::plan::UserIndex(user), &mut self.desk)).collect();
        users[ME.0 as usize] = self.user;
        State { users, desk: self.desk, dirty: Vec::new(), next_chore: 0 }
    }

    /// A message of ours that the node has stored as `seq`.
    fn stored(&mut self, seq: u64) {
        self.offer();
        let (id, message_id) = self.asked_send();
        self.feed(ok(id, message_id, seq));
    }

    /// Asks for an amendment: its number and name.
    fn amend(&mut self, command: impl FnOnce(Option<MessageId>) -> Command) -> (RequestId, MessageId) {
        let message_id = self.user.message_id(&mut self.desk.random);
        self.user.offer(&mut self.desk, ROOM, Some(DUE), message_id, command(Some(message_id)));
        let id = self.asked().pop().and_then(|request| request.id);
        (id.expect("it was asked"), message_id)
    }

    fn delete(&mut self, seq: u64) -> (RequestId, MessageId) {
        let conversation = CONVERSATION;
        self.amend(|message_id| Command::Delete { conversation, seq: Seq(seq), message_id })
    }

    /// An amendment of the peer that takes `seq`.
    pub(super) fn amended(&mut self, seq: u64, target: u64, form: AmendedForm) {
        let MessageEvent { conversation, seq, message_id, at, sender, .. } =
            self.message(seq, seq as u8, ROOM);
        let event = AmendedEvent { conversation, seq, message_id, at, by: sender, target: Seq(target), form };
        self.feed(ServerFrame::Amended(event));
    }

    /// What a message of the peer says after an edit that was made for `room`.
    pub(super) fn edited(&self, room: RoomIndex) -> AmendedForm {
        let MessageEvent { text, at, .. } = self.message(99, 99, room);
        AmendedForm::Shown { text, edited_at: Some(at), reactions: Vec::new() }
    }
}

#[test]
fn what_is_amended_was_acknowledged_and_an_edit_proves_itself() {
    let mut pair = Pair::online(Forms::Json);
    (1..=3).for_each(|seq| pair.stored(seq));
    let mut state = pair.into_state();
    // Each deletion leaves one message less, so there is nothing left only after three.
    let made = (0..12).filter(|_| state.amend_one(DUE)).count();
    assert!(made >= 3, "{made}");
    let user = state.users.remove(ME.0 as usize);
    assert!(state.users.iter().all(|user| user.index == PEER || user.unanswered() == 0));
    let mut pair = Pair { user, desk: state.desk };
    let asked = pair.asked();
    assert!(!asked.is_empty(), "some are reactions of the peer, not all");
    for request in asked {
        let (conversation, seq) = match request.command {
            Command::Delete { conversation, seq, .. } => (conversation, seq),
            Command::Edit(edit) => {
                let letter = Letter::read(&edit.text).expect("a letter");
                assert_eq!(Some(letter.message_id), edit.message_id);
                assert_eq!((letter.room, letter.sender), (ROOM, ME));
                (edit.conversation, edit.seq)
            }
            Command::React(React { conversation, seq, .. }) => (conversation, seq),
            other => panic!("{other:?} amends nothing"),
        };
        assert!(conversation == CONVERSATION && (1..=3).contains(&seq.0));
    }
}

#[test]
fn without_amendments_in_the_mix_nothing_is_kept_for_them() {
    let mut pair = Pair::online(Forms::Json);
    pair.desk.config.mix.amend_weight = 0;
    pair.stored(1);
    assert!(!pair.into_state().amend_one(DUE));
}

#[test]
fn an_ok_to_an_amendment_is_a_promise() {
    let mut pair = Pair::online(Forms::Binary);
    pair.stored(1);
    let (id, message_id) = pair.delete(1);
    pair.feed(ok(id, message_id, 2));
    let (command, change) = (command_id(message_id), Change::Delete);
    let promise = Amendment { room: ROOM, seq: 2, target: 1, by: ME, command, change };
    assert_eq!(pair.desk.amending.promised, [promise]);
    let counts = pair.desk.tally.counts;
    assert_eq!((counts.acked, counts.amended, pair.user.unanswered()), (2, 1, 0));
    assert_eq!(pair.violations(), []);
}

#[test]
fn what_is_not_found_any_more_is_held_against_the_end_and_every_other_refusal_is_bad() {
    for (code, refused, overtaken) in [(ErrorCode::NotFound, 0, 1), (ErrorCode::NotAllowed, 1, 0)] {
        let mut pair = Pair::online(Forms::Binary);
        pair.stored(1);
        let (id, message_id) = pair.delete(1);
        let error = ErrorReply { id: Some(id), code, message: String::new(), retry_after_ms: None };
        pair.feed(ServerFrame::Error(error));
        let tally = &pair.desk.tally;
        assert_eq!((tally.counts.refused, tally.counts.overtaken), (refused, overtaken));
        assert_eq!(tally.overtaken.len() as u64, overtaken);
        assert_eq!(tally.refused, [message_id.to_string()], "it must not be stored all the same");
    }
}

#[test]
fn a_message_that_is_not_found_is_a_refusal_like_any_other() {
    let mut pair = Pair::online(Forms::Binary);
    pair.offer();
    let (id, _) = pair.asked_send();
    let (code, message) = (ErrorCode::NotFound, String::new());
    pair.feed(ServerFrame::Error(ErrorReply { id: Some(id), code, message, retry_after_ms: None }));
    assert_eq!((pair.desk.tally.counts.refused, pair.desk.tally.counts.overtaken), (1, 0));
}

#[test]
fn mutants_of_an_amendment_are_told_by_their_kind() {
    type Mutant = fn(&mut Pair);
    let mutants: [(Mutant, Kind); 7] = [
        (|pair| pair.amended(3, 1, pair.edited(ROOM)), Kind::Hole),
        (
            |pair| {
                pair.receive(2, 2);
                pair.amended(2, 1, pair.edited(ROOM));
            },
            Kind::Order,
        ),
        (|pair| pair.amended(2, 1, pair.edited(FOREIGN_ROOM)), Kind::Content),
        (|pair| pair.amended(2, 1, AmendedForm::Hidden), Kind::Content),
        (
            |pair| {
                let (text, edited_at, reactions) = ("what nobody wrote".to_owned(), None, Vec::new());
                pair.amended(2, 1, AmendedForm::Shown { text, edited_at, reactions });
            },
            Kind::Content,
        ),
        (
            // Edited, and says what it said first.
            |pair| {
                let message = pair.message(2, 2, ROOM);
                let edited_at = Some(message.at);
                pair.feed(ServerFrame::Message(MessageEvent { edited_at, ..message }));
            },
            Kind::Content,
        ),
        (
            // Says what an edit made of it, and not that it was edited.
            |pair| {
                let text = pair.message(2, 22, ROOM).text;
                let message = pair.message(2, 2, ROOM);
                pair.feed(ServerFrame::Message(MessageEvent { text, ..message }));
            },
            Kind::Content,
        ),
    ];
    for (number, (mutate, expected)) in mutants.into_iter().enumerate() {
        let mut pair = Pair::online(Forms::Binary);
        pair.receive(1, 1);
        mutate(&mut pair);
        // Of an order that is broken the book says something as well.
        assert_eq!(pair.violations().first(), Some(&expected), "mutant {number}");
    }
}

#[test]
fn a_deleted_text_that_is_told_to_whoever_comes_back_is_a_violation() {
    type Told = fn(&mut Pair);
    let shown = |pair: &mut Pair| pair.receive(1, 1);
    let amended = |pair: &mut Pair| {
        let edited = pair.edited(ROOM);
        pair.feed(ServerFrame::Message(MessageEvent {
            text: String::new(),
            deleted: true,
            ..pair.message(1, 1, ROOM)
        }));
        pair.amended(2, 1, edited);
    };
    let folded = |pair: &mut Pair| {
        pair.feed(ServerFrame::Message(MessageEvent {
            text: String::new(),
            deleted: true,
            ..pair.message(1, 1, ROOM)
        }));
        pair.amended(2, 1, AmendedForm::Deleted);
    };
    let told: [(Told, &[Kind]); 3] =
        [(shown, &[Kind::DeletedShown]), (amended, &[Kind::DeletedShown]), (folded, &[])];
    for (tell, expected) in told {
        let mut pair = Pair::online(Forms::Json);
        pair.desk.learn(ROOM, CONVERSATION);
        let (id, message_id) = pair.delete(1);
        pair.feed(ok(id, message_id, 3));
        pair.user.handle_lost(&mut pair.desk, CloseCode::ABNORMAL);
        pair.connect(None);
        tell(&mut pair);
        assert_eq!(pair.violations(), expected);
        // Without a connection that ended in between, it may have been on its way.
        let mut pair = Pair::online(Forms::Json);
        pair.desk.learn(ROOM, CONVERSATION);
        let (id, message_id) = pair.delete(1);
        pair.feed(ok(id, message_id, 3));
        tell(&mut pair);
        assert_eq!(pair.violations(), []);
    }
}
