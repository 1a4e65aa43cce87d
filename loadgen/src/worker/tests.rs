//! One user against a scripted node: frames go in as bytes, commands come out as bytes, time is a value.

#[path = "tests_amending.rs"]
mod amending;
#[path = "tests_attention.rs"]
mod attention;
#[path = "tests_churning.rs"]
mod churning;
#[path = "tests_opening.rs"]
mod opening;

use std::time::Duration;

use protocol::{
    command::{Command, MessageKind, Request, Target, Token},
    event::{
        AmendedEvent, AmendedForm, CloseCode, ErrorCode, ErrorReply, MessageEvent, OkReply, ServerFrame,
        Welcome, WireLimits,
    },
    ids::{ConversationId, MessageId, RequestId, Seq, UnixMillis, UserId},
    session::Input,
    upgrade::Form,
    ws::{Decoder, DecoderLimits, Message, Role, encode_frame},
};

use super::{
    desk::Desk,
    user::{Link, Presence, User},
};
use crate::{
    client::{Codec, Endpoint},
    clock::{Moment, unix_now},
    letter::Letter,
    link::{Forms, WorkerConfig},
    load::Load,
    plan::{Attention, Comings, Mix, RoomIndex, USERS_MIN, UserIndex},
    verify::Kind,
};

const ME: UserIndex = UserIndex(0);
const PEER: UserIndex = UserIndex(1);
/// The direct conversation of the two.
const ROOM: RoomIndex = RoomIndex(0);
/// One that neither is in.
const FOREIGN_ROOM: RoomIndex = RoomIndex(12);
const CONVERSATION: ConversationId = ConversationId([8; 16]);
const DUE: Moment = Moment(1);

/// Of the only worker of a run with so many users, in groups of so many.
pub(super) fn config(forms: Forms, users: u32, group_members: u32) -> WorkerConfig {
    WorkerConfig {
        worker: 0,
        workers: 1,
        endpoint: Endpoint {
            address: ([127, 0, 0, 1], 1).into(),
            host: "node".to_owned(),
            path: "/".to_owned(),
            read_buffer_bytes: 4096,
            receive_buffer_bytes: None,
        },
        secret: "0".repeat(64),
        tag: "test".to_owned(),
        users,
        crowd: 0,
        network: None,
        mix: Mix::of_groups(group_members),
        attention: Attention::default(),
        comings: Comings::default(),
        load: Load::steady(1, 1, 100),
        forms,
        history: None,
    }
}

pub(super) fn welcome(id: RequestId, user: UserId, cursor: Option<&str>) -> ServerFrame {
    ServerFrame::Welcome(Box::new(Welcome {
        id,
        user,
        session: "s".to_owned(),
        store: "s".to_owned(),
        cursor: cursor.map(str::to_owned),
        now: unix_now(),
        heartbeat_ms: 30_000,
        limits: WireLimits::default(),
        features: Vec::new(),
        reset: false,
    }))
}

struct Pair {
    user: User,
    desk: Desk,
}

impl Pair {
    /// A user that has just come online.
    fn online(forms: Forms) -> Self {
        Self::among(forms, USERS_MIN, 10)
    }

    /// One of so many, in groups of so many.
    fn among(forms: Forms, users: u32, group_members: u32) -> Self {
        Self::coming(forms, users, group_members, Comings::default())
    }

    /// The same, where members come and go.
    fn coming(forms: Forms, users: u32, group_members: u32, comings: Comings) -> Self {
        Self::of(WorkerConfig { comings, ..config(forms, users, group_members) })
    }

    fn of(config: WorkerConfig) -> Self {
        let mut desk = Desk::new(config).expect("it opens no file");
        let mut pair = Self { user: User::new(ME, &mut desk), desk };
        pair.connect(Some("c1"));
        assert_eq!(pair.user.presence, Presence::Live);
        pair
    }

    /// A connection and its welcome. Says which cursor was given.
    fn connect(&mut self, cursor: Option<&str>) -> Option<String> {
        let token = Token::new("token").expect("a short word is a token");
        let link = Link { codec: Codec::new(&[]), writer: None };
        self.user.handle_open(&mut self.desk, link, token);
        let asked = self.asked();
        let [Request { id: Some(id), command: Command::Connect(connect) }] = &asked[..] else {
            panic!("{asked:?} is no connect");
        };
        let welcome = welcome(*id, self.desk.plan.name(ME).clone(), cursor);
        self.feed(welcome);
        connect.cursor.clone()
    }

    fn feed(&mut self, frame: ServerFrame) {
        let (mut payload, mut bytes) = (Vec::new(), Vec::new());
        frame.encode(self.user.form, &mut payload);
        encode_frame(self.user.form.opcode(), &payload, None, &mut bytes);
        let ended = self.user.handle_bytes(&mut self.desk, &bytes, Moment::now());
        assert_eq!(ended, None);
    }

    /// What the user has written since.
    fn asked(&mut self) -> Vec<Request> {
        let link = self.user.link.as_mut().expect("it is connected");
        let mut bytes = link.codec.take_output();
        let limits = DecoderLimits { message_bytes_max: 65_536, fragments_max: 1 };
        let (mut decoder, mut taken, mut requests) = (Decoder::new(Role::Server, limits), 0, Vec::new());
        while taken < bytes.len() {
            let decoded = decoder.decode(&mut bytes[taken..]).expect("sound frames");
            taken += decoded.consumed;
            let input = match decoded.message.expect("whole frames") {
                Message::Binary(bytes) => Input::Binary(bytes),
                Message::Text(text) => Input::Text(text),
                other => panic!("{other:?} is no command"),
            };
            requests.push(Request::from_input(&input).expect("a message").expect("a sound command"));
        }
        requests
    }

    fn offer(&mut self) {
        let target = Target::User(self.desk.plan.name(PEER).clone());
        self.user.offer_message(&mut self.desk, ROOM, Some(DUE), target);
    }

    /// The one send that was written since.
    fn asked_send(&mut self) -> (RequestId, MessageId) {
        let asked = self.asked();
        let [Request { id: Some(id), command: Command::Send(send) }] = &asked[..] else {
            panic!("{asked:?} is not one send");
        };
        (*id, send.message_id.expect("every send has one"))
    }

    /// A message of the peer.
    fn message(&self, seq: u64, number: u8, room: RoomIndex) -> MessageEvent {
        // A fixed time: the same number is the same message, however many milliseconds pass between two.
        let mut id = MessageId::v7(UnixMillis(1_800_000_000_000), [number; 10]);
        id.0[15] = number;
        let letter = Letter { message_id: id, due: DUE, room, sender: PEER };
        MessageEvent {
            conversation: CONVERSATION,
            seq: Seq(seq),
            message_id: id,
            sender: self.desk.plan.name(PEER).clone(),
            kind: MessageKind::Text,
            text: letter.write(100),
            at: unix_now(),
            media: None,
            reply_to: None,
            mentions: Vec::new(),
            edited_at: None,
            deleted: false,
            reactions: Vec::new(),
        }
    }

    fn receive(&mut self, seq: u64, number: u8) {
        let message = self.message(seq, number, ROOM);
        self.feed(ServerFrame::Message(message));
    }

    /// The kinds of violations so far, each once.
    fn violations(&self) -> Vec<Kind> {
        let (live, book) = (&self.desk.tally.violations, &self.desk.book.violations);
        live.counts.keys().chain(book.counts.keys()).copied().collect()
    }
}

fn ok(id: RequestId, message_id: MessageId, seq: u64) -> ServerFrame {
    let (conversation, seq) = (Some(CONVERSATION), Some(Seq(seq)));
    ServerFrame::Ok(OkReply { id, conversation, seq, message_id: Some(message_id), at: Some(UnixMillis(1)) })
}

#[test]
fn an_unanswered_send_is_asked_again_verbatim_after_a_reconnect() {
    for forms in [Forms::Binary, Forms::Json] {
        let mut pair = Pair::online(forms);
        pair.offer();
        pair.offer();
        let first: Vec<_> = pair.asked().into_iter().map(|request| request.command).collect();
        pair.user.handle_lost(&mut pair.desk, CloseCode::ABNORMAL);
        assert_eq!((pair.user.presence, pair.user.unanswered()), (Presence::Offline, 2));
        assert_eq!(pair.connect(None).as_deref(), Some("c1"));
        let again: Vec<_> = pair.asked().into_iter().map(|request| request.command).collect();
        assert_eq!(first, again);
        assert_eq!((pair.desk.tally.counts.sent, pair.desk.tally.counts.resent), (2, 2));
    }
}

#[test]
fn an_ok_ends_a_send_and_counts_from_when_it_was_due() {
    let mut pair = Pair::online(Forms::Binary);
    pair.offer();
    let (id, message_id) = pair.asked_send();
    pair.feed(ok(id, message_id, 1));
    assert_eq!((pair.user.unanswered(), pair.desk.tally.counts.acked), (0, 1));
    assert_eq!(pair.desk.rooms.id(ROOM), Some(CONVERSATION));
    assert_eq!(pair.violations(), []);
}

#[test]
fn a_busy_node_is_asked_later_and_a_refusal_is_final() {
    let mut pair = Pair::online(Forms::Binary);
    pair.offer();
    let (id, first) = pair.asked_send();
    let mut error =
        ErrorReply { id: Some(id), code: ErrorCode::Busy, message: String::new(), retry_after_ms: Some(50) };
    pair.feed(ServerFrame::Error(error.clone()));
    let (_, _, pending) = pair.desk.retries.pop().expect("it waits for its time");
    pair.user.offer_again(&mut pair.desk, pending);
    let (id, again) = pair.asked_send();
    assert_eq!(first, again);
    error = ErrorReply { id: Some(id), code: ErrorCode::NotAMember, ..error };
    pair.feed(ServerFrame::Error(error));
    assert_eq!((pair.user.unanswered(), pair.desk.tally.counts.refused), (0, 1));
    assert!(pair.desk.retries.is_empty());
}

#[test]
fn commands_beyond_what_a_node_takes_wait() {
    let mut pair = Pair::online(Forms::Binary);
    for _ in 0..40 {
        pair.offer();
    }
    let asked = pair.asked();
    assert!(asked.len() < protocol::limits::COMMANDS_IN_FLIGHT_MAX);
    let Command::Send(send) = &asked[0].command else { panic!("not a send") };
    let id = asked[0].id.expect("every send has one");
    pair.feed(ok(id, send.message_id.expect("every send has one"), 1));
    assert_eq!(pair.asked().len(), 1);
}

#[test]
fn what_waits_for_a_node_that_stays_away_is_bounded_and_counted() {
    let mut pair = Pair::online(Forms::Binary);
    pair.user.handle_lost(&mut pair.desk, CloseCode::ABNORMAL);
    for _ in 0..1024 + 3 {
        pair.offer();
    }
    assert_eq!((pair.user.unanswered(), pair.desk.tally.counts.given_up), (1024, 3));
    let me = pair.desk.plan.name(ME).to_string();
    assert_eq!(pair.desk.tally.given_up_by, [(me, 3)].into(), "it says who");
}

#[test]
fn what_a_busy_node_wants_later_counts_as_waiting() {
    let mut pair = Pair::online(Forms::Binary);
    for _ in 0..1024 {
        pair.offer();
    }
    // Every send that is written is answered busy and makes room for the next: in the end all wait for a retry.
    loop {
        let asked = pair.asked();
        if asked.is_empty() {
            break;
        }
        for id in asked.into_iter().filter_map(|request| request.id) {
            let (code, message) = (ErrorCode::Busy, String::new());
            let error = ErrorReply { id: Some(id), code, message, retry_after_ms: Some(50) };
            pair.feed(ServerFrame::Error(error));
        }
    }
    assert_eq!((pair.user.unanswered(), pair.desk.retries.len()), (0, 1024));
    pair.offer();
    assert_eq!(pair.desk.tally.counts.given_up, 1);
    let (_, _, pending) = pair.desk.retries.pop().expect("all of them are there");
    pair.user.offer_again(&mut pair.desk, pending);
    let (id, message_id) = pair.asked_send();
    pair.feed(ok(id, message_id, 1));
    pair.offer();
    assert_eq!((pair.user.unanswered(), pair.desk.tally.counts.given_up), (1, 1));
}

#[test]
fn receipts_in_order_are_counted_and_a_replay_starts_where_the_cursor_stands() {
    let mut pair = Pair::online(Forms::Json);
    pair.receive(1, 1);
    pair.feed(ServerFrame::Cursor { cursor: "c2".to_owned() });
    pair.receive(2, 2);
    pair.user.handle_lost(&mut pair.desk, CloseCode::DRAIN);
    assert_eq!(pair.connect(None).as_deref(), Some("c2"));
    assert_eq!(pair.user.presence, Presence::Replaying);
    pair.receive(2, 2);
    pair.receive(3, 3);
    pair.feed(ServerFrame::CaughtUp { cursor: "c3".to_owned(), partial: false });
    assert_eq!(pair.user.presence, Presence::Live);
    let counts = pair.desk.tally.counts;
    assert_eq!((counts.delivered, counts.replayed, counts.received), (3, 1, 4));
    assert_eq!(pair.violations(), []);
}

#[test]
fn an_amendment_takes_its_sequence_and_a_folded_message_the_one_it_had() {
    for form in [Forms::Json, Forms::Binary] {
        let mut pair = Pair::online(form);
        pair.receive(1, 1);
        let MessageEvent { conversation, message_id, at, sender, .. } = pair.message(2, 2, ROOM);
        let (seq, by, target, form) = (Seq(2), sender, Seq(1), AmendedForm::Deleted);
        pair.feed(ServerFrame::Amended(AmendedEvent { conversation, seq, message_id, at, by, target, form }));
        let message = pair.message(3, 3, ROOM);
        let text = pair.message(3, 33, ROOM).text;
        let edited = MessageEvent { text, edited_at: Some(at), ..message };
        pair.feed(ServerFrame::Message(edited));
        let message = pair.message(4, 4, ROOM);
        pair.feed(ServerFrame::Message(MessageEvent { text: String::new(), deleted: true, ..message }));
        pair.receive(5, 5);
        assert_eq!((pair.desk.tally.counts.received, pair.violations()), (5, vec![]));
        pair.feed(ServerFrame::Message(MessageEvent { deleted: true, ..pair.message(7, 7, ROOM) }));
        assert_eq!(pair.violations(), [Kind::Hole]);
    }
}

#[test]
fn mutants_of_a_delivery_are_told_by_their_kind() {
    type Mutant = fn(&mut Pair);
    let mutants: [(Mutant, Kind); 8] = [
        (|pair| pair.receive(3, 3), Kind::Hole),
        (|pair| pair.receive(1, 1), Kind::Order),
        (|pair| pair.receive(2, 1), Kind::Doubled),
        (
            |pair| {
                pair.user.handle_lost(&mut pair.desk, CloseCode::ABNORMAL);
                pair.connect(None);
                pair.receive(1, 9);
            },
            Kind::Doubled,
        ),
        (
            |pair| {
                let message = pair.message(1, 2, FOREIGN_ROOM);
                pair.feed(ServerFrame::Message(MessageEvent {
                    conversation: ConversationId([9; 16]),
                    ..message
                }));
            },
            Kind::Content,
        ),
        (
            |pair| {
                let message = pair.message(2, 2, ROOM);
                let conversation = ConversationId([9; 16]);
                pair.feed(ServerFrame::Message(MessageEvent { conversation, ..message }));
            },
            Kind::Recipient,
        ),
        (
            |pair| {
                let message = pair.message(2, 2, ROOM);
                let text = pair.message(2, 3, ROOM).text;
                pair.feed(ServerFrame::Message(MessageEvent { text, ..message }));
            },
            Kind::Content,
        ),
        (
            |pair| {
                let message = pair.message(2, 2, ROOM);
                let sender = pair.desk.plan.name(UserIndex(5)).clone();
                pair.feed(ServerFrame::Message(MessageEvent { sender, ..message }));
            },
            Kind::Content,
        ),
    ];
    for (number, (mutate, expected)) in mutants.into_iter().enumerate() {
        let mut pair = Pair::online(Forms::Binary);
        pair.receive(1, 1);
        mutate(&mut pair);
        assert_eq!(pair.violations(), [expected], "mutant {number}");
    }
}

#[test]
fn a_message_of_a_room_that_the_reader_is_not_in_is_a_leak() {
    let mut pair = Pair::online(Forms::Binary);
    // A contact of the peer with somebody else: the text is sound, the reader is not meant.
    let theirs = pair.desk.plan.rooms_of(PEER).into_iter();
    let theirs = theirs.into_iter().find(|room| !pair.desk.plan.room(*room).contains(ME));
    let message = pair.message(1, 1, theirs.expect("the peer has other contacts"));
    pair.feed(ServerFrame::Message(message));
    assert_eq!(pair.violations(), [Kind::Recipient]);
}

#[test]
fn closes_of_the_41_range_stop_a_user_and_a_drain_says_when_to_come_back() {
    let mut pair = Pair::online(Forms::Binary);
    pair.feed(ServerFrame::Drain { reconnect_in_ms: 1234, reason: String::new() });
    pair.user.handle_lost(&mut pair.desk, CloseCode::DRAIN);
    assert_eq!(pair.user.backoff(&mut pair.desk), Duration::from_millis(1234));
    pair.connect(None);
    pair.user.handle_lost(&mut pair.desk, CloseCode::REPLACED);
    assert_eq!((pair.user.presence, pair.desk.tally.counts.stopped), (Presence::Stopped, 1));
}

#[test]
fn few_users_come_back_soon_and_many_no_denser_than_they_came() {
    for (users, longest) in [(USERS_MIN, 500), (1_000, 500), (4_000, 2_000), (100_000, 5_000)] {
        let mut pair = Pair::online(Forms::Binary);
        pair.desk.config.users = users;
        for failures in 0..12 {
            let ceiling = Duration::from_millis((100 << failures).min(longest));
            let wait = pair.user.backoff(&mut pair.desk);
            assert!(wait <= ceiling, "{users} users after {failures} failures: {wait:?}");
        }
        let late = (0..100).map(|_| pair.user.backoff(&mut pair.desk)).max().expect("a hundred");
        assert!(late > Duration::from_millis(longest / 2), "{users} users use all of the time: {late:?}");
    }
}

#[test]
fn a_heartbeat_carries_what_is_stored() {
    let mut pair = Pair::online(Forms::Binary);
    assert_eq!(pair.user.form, Form::Binary);
    let later = Moment::now().after(Duration::from_secs(31));
    assert!(pair.user.ping_if_due(later));
    assert!(!pair.user.ping_if_due(later));
    let asked = pair.asked();
    assert!(
        matches!(&asked[..], [Request { command: Command::Ping { cursor: Some(cursor) }, .. }] if cursor == "c1")
    );
}
