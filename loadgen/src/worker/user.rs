//! One virtual user: what it has sent, seen and stored. No I/O: bytes and times come in, bytes wait in
//! its link to be written.
//!
//! ```text
//!  Offline --welcome with a cursor given--> Replaying --caught_up--> Live     (Live at once without one)
//!     ^------------------ the connection ended --------'---------------'
//!     '--> Stopped: told not to come back
//! ```
//! Invariant: a send whose answer has not come is in `queue` or `in_flight`, with the id it was first
//! sent under.

use std::{collections::VecDeque, time::Duration};

use monoio::net::tcp::TcpOwnedWriteHalf;
use protocol::{
    command::{Command, Connect, MessageKind, Request, Send, Target, Token},
    event::{CloseCode, ServerFrame, Welcome},
    ids::{DeviceId, MessageId, RequestId, UnixMillis},
    limits::COMMANDS_IN_FLIGHT_MAX,
    upgrade::Form,
};

use super::{
    CONNECTS_PER_SECOND,
    absence::Absence,
    attention::Attending,
    desk::Desk,
    history::Who,
    in_flight::{Asked, InFlight, Pending},
    opening::Openings,
};
use crate::{
    client::{Codec, Incoming},
    clock::{Moment, unix_now},
    letter::Letter,
    plan::{RoomIndex, UserIndex},
    random::Random,
    verify::{Kind, Reader},
};

/// Commands under way on one connection. Fewer than a node takes, because it counts one until the answer
/// is written, which can be after we have read it.
pub(super) const IN_FLIGHT_MAX: usize = COMMANDS_IN_FLIGHT_MAX / 2;
/// Waits before the next connection: anything up to this much, doubled with every failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// And up to this much at most, however many users there are.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Fewer users wait shorter, down to this: then they do not come denser than they came first, and an outage, in which
/// latency is not judged, is not much longer than the node was gone.
const BACKOFF_MAX_LEAST: Duration = Duration::from_millis(500);
/// How often a user says what it has stored.
const PING_EVERY: Duration = Duration::from_secs(30);
/// When a retry is due if the node does not say.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Bits of a connection's number that count the connections of one user.
const CONNECTION_BITS: u32 = 20;

/// Sends of one user that wait for it to be connected, for a place, or for the time of a retry. An open loop does not wait for the node: this is an
/// outage of minutes at several sends a second, and 1,000 such users hold some 300 MB. What comes on top is given up and
/// makes the run bad.
const WAITING_MAX: usize = 1024;

/// How far a user has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Offline,
    Replaying,
    Live,
    Stopped,
}

/// The writing side of a connection.
pub(super) struct Link {
    pub(super) codec: Codec,
    /// `None` while a write is under way.
    pub(super) writer: Option<TcpOwnedWriteHalf>,
}

pub(super) struct User {
    pub(super) index: UserIndex,
    /// Its place among the users of this worker.
    pub(super) place: usize,
    pub(super) form: Form,
    pub(super) reader: Reader,
    pub(super) attending: Attending,
    pub(super) openings: Openings,
    /// Of those who go away for a part of the run.
    pub(super) absence: Option<Box<Absence>>,
    pub(super) presence: Presence,
    pub(super) link: Option<Link>,
    /// Names the connection; a new one has a higher number.
    pub(super) connection: u64,
    pub(super) cursor: Option<String>,
    /// When the node's goodbye said to come back, until then.
    reconnect_after: Option<Duration>,
    failures: u32,
    queue: VecDeque<Pending>,
    /// Sends that stand among the desk's retries.
    pub(super) retrying: usize,
    pub(super) in_flight: InFlight,
    next_request: u32,
    /// How far the node's clock is ahead of ours, in milliseconds.
    clock_ahead: i64,
    next_ping: Moment,
    /// When it was last caught up.
    pub(super) live_since: Option<Moment>,
    /// When the last connection ended, until the next one has caught up.
    pub(super) lost_at: Option<Moment>,
    /// When the last connection ended, until the next welcome: it has no session meanwhile.
    pub(super) without_session_since: Option<Moment>,
}

impl User {
    pub(super) fn new(index: UserIndex, desk: &mut Desk) -> Self {
        Self {
            index,
            place: desk.config.place_of(index),
            form: desk.config.forms.of(index),
            reader: Reader::new(&desk.plan.rooms_of(index), |room| desk.plan.guest(room) == Some(index)),
            attending: Attending::new(index, desk),
            openings: Openings::default(),
            absence: None,
            presence: Presence::Offline,
            link: None,
            connection: u64::from(index.0) << CONNECTION_BITS,
            cursor: None,
            reconnect_after: None,
            failures: 0,
            queue: VecDeque::new(),
            retrying: 0,
            in_flight: InFlight::default(),
            next_request: 1,
            clock_ahead: 0,
            next_ping: Moment::default(),
            live_since: None,
            lost_at: None,
            without_session_since: None,
        }
    }

    /// It was told not to come back.
    pub(super) fn is_stopped(&self) -> bool {
        self.presence == Presence::Stopped
    }

    pub(super) fn has_session(&self) -> bool {
        matches!(self.presence, Presence::Replaying | Presence::Live)
    }

    /// Its heartbeat has no answer yet.
    pub(super) fn awaits_pong(&self) -> bool {
        self.in_flight.all().any(|asked| matches!(asked, Asked::Ping))
    }

    /// Its next heartbeat is due.
    pub(super) fn hurry_ping(&mut self) {
        self.next_ping = Moment::default();
    }

    /// How many WebSockets it has opened.
    pub(super) const fn connection_count(&self) -> u64 {
        self.connection & ((1 << CONNECTION_BITS) - 1)
    }

    /// Storing commands and reads without an answer.
    pub(super) fn unanswered(&self) -> u64 {
        self.stores_unanswered() + self.attending.unanswered()
    }

    pub(super) fn stores_unanswered(&self) -> u64 {
        let stores = self.in_flight.all().filter(|asked| matches!(asked, Asked::Store(_)));
        (self.queue.len() + stores.count()) as u64
    }

    /// A message id with the node's time.
    pub(super) fn message_id(&self, random: &mut Random) -> MessageId {
        let millis = unix_now().0.saturating_add_signed(self.clock_ahead);
        MessageId::v7(UnixMillis(millis), random.id_bytes())
    }

    /// A message of the schedule, or (`due` absent) the first one of a direct conversation.
    pub(super) fn offer_message(
        &mut self,
        desk: &mut Desk,
        room: RoomIndex,
        due: Option<Moment>,
        target: Target,
    ) {
        let message_id = self.message_id(&mut desk.random);
        let letter = Letter { message_id, due: due.unwrap_or_default(), room, sender: self.index };
        let bytes = desk.config.load.text_bytes(&mut desk.random);
        let command = Command::Send(Send {
            target,
            kind: MessageKind::Text,
            text: letter.write(bytes),
            media: None,
            reply_to: None,
            mentions: Vec::new(),
            message_id: Some(message_id),
        });
        self.offer(desk, room, due, message_id, command);
    }

    /// A storing command waits for a place on the connection.
    pub(super) fn offer(
        &mut self,
        desk: &mut Desk,
        room: RoomIndex,
        due: Option<Moment>,
        message_id: MessageId,
        command: Command,
    ) {
        let pending = Pending { message_id, room, due, command, sent_at: None, in_history: false };
        if self.queue.len() + self.retrying >= WAITING_MAX {
            return desk.give_up(self.index, &pending);
        }
        self.queue.push_back(pending);
        self.pump(desk, Moment::now());
    }

    /// A send whose retry time has come.
    pub(super) fn offer_again(&mut self, desk: &mut Desk, pending: Pending) {
        desk.tally.counts.retried += 1;
        self.retrying -= 1;
        self.queue.push_back(pending);
        self.pump(desk, Moment::now());
    }

    /// Writes what there is room for.
    fn pump(&mut self, desk: &mut Desk, now: Moment) {
        if !self.has_session() {
            return;
        }
        while self.in_flight.len() < IN_FLIGHT_MAX {
            let Some(mut pending) = self.queue.pop_front() else { return };
            if self.queue.is_empty() {
                self.queue = VecDeque::new();
            }
            if pending.sent_at.is_none() {
                pending.sent_at = Some(now);
                desk.tally.counts.sent += u64::from(pending.due.is_some() && !pending.is_change());
            } else {
                desk.tally.counts.resent += 1;
            }
            self.log_send(desk, &mut pending);
            self.ask(pending.command.clone(), Asked::Store(pending));
        }
    }

    /// A send appears in the history as soon as the node's name for its conversation is known.
    pub(super) fn log_send(&self, desk: &mut Desk, pending: &mut Pending) {
        let (Some(history), Some(sent_at)) = (&mut desk.history, pending.sent_at) else { return };
        if let (Some(conversation), false) = (desk.rooms.id(pending.room), pending.in_history) {
            pending.in_history = true;
            let who = Who { user: &desk.plan.name(self.index), connection: self.connection };
            history.send(sent_at, pending.due.unwrap_or(sent_at), who, conversation, pending.message_id);
        }
    }

    pub(super) fn ask(&mut self, command: Command, asked: Asked) {
        let Some(link) = &mut self.link else { return };
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.in_flight.insert(id.0, Moment::now(), asked);
        let mut payload = Vec::new();
        Request { id: Some(id), command }.encode(self.form, &mut payload);
        link.codec.send(self.form, payload);
    }

    /// A heartbeat, when it is time, that tells the node what is stored.
    pub(super) fn ping_if_due(&mut self, now: Moment) -> bool {
        let is_due = self.presence == Presence::Live && now >= self.next_ping;
        if is_due {
            self.next_ping = now.after(PING_EVERY);
            self.ask(Command::Ping { cursor: self.cursor.clone() }, Asked::Ping);
        }
        is_due
    }

    /// A WebSocket is open.
    pub(super) fn handle_open(&mut self, desk: &mut Desk, link: Link, token: Token) {
        self.link = Some(link);
        self.connection += 1;
        desk.dials_fail_since = None;
        desk.tally.counts.connections += 1;
        self.next_request = 1;
        self.reader.reopen();
        let device = DeviceId::new("loadgen").expect("a short word is an id");
        let cursor = self.cursor.clone();
        let connect = Connect { token: Some(token), device, cursor, positions: None };
        self.ask(Command::Connect(connect), Asked::Connect);
    }

    /// The connection ended. What was not answered is asked again, in order.
    pub(super) fn handle_lost(&mut self, desk: &mut Desk, code: CloseCode) {
        let now = Moment::now();
        self.link = None;
        self.attending.handle_lost(self.index, desk, now);
        self.without_session_since = Some(now);
        self.openings.handle_lost();
        desk.muster.welcomed -= u32::from(self.has_session());
        desk.muster.live -= u32::from(self.presence == Presence::Live);
        if desk.muster.is_over {
            self.presence = Presence::Offline;
            self.in_flight = InFlight::default();
            return desk.muster.count(now);
        }
        self.lost_at.get_or_insert(now);
        self.presence =
            if code.resumable() || self.has_gone() { Presence::Offline } else { Presence::Stopped };
        if !self.has_gone() {
            *desk.tally.closes.entry(code.0).or_default() += 1;
        }
        if self.presence == Presence::Stopped {
            desk.tally.counts.stopped += 1;
            desk.last_fault = Some(format!("{} was closed with {code}", desk.plan.name(self.index)));
        }
        for asked in self.in_flight.drain_back() {
            match asked {
                Asked::Search(quest) => desk.search_again(*quest, now),
                Asked::Store(pending) => self.queue.push_front(pending),
                _ => {}
            }
        }
    }

    /// How long to wait before the next connection: full jitter, so that users do not come in waves.
    pub(super) fn backoff(&mut self, desk: &mut Desk) -> Duration {
        if let Some(wait) = self.reconnect_after.take() {
            return wait;
        }
        // A wait is half its ceiling on average.
        let spread = Duration::from_secs(1) * 2 * desk.config.users / CONNECTS_PER_SECOND;
        let ceiling_max = spread.clamp(BACKOFF_MAX_LEAST, BACKOFF_MAX);
        let ceiling = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(ceiling_max);
        self.failures += 1;
        Duration::from_micros(desk.random.below(ceiling.as_micros() as u64))
    }

    /// Bytes arrived. `Some` ends the connection.
    pub(super) fn handle_bytes(&mut self, desk: &mut Desk, bytes: &[u8], now: Moment) -> Option<CloseCode> {
        self.link.as_mut()?.codec.handle_bytes(bytes);
        desk.is_heard = true;
        desk.watching.note_heard(now);
        loop {
            let mut frames = std::mem::take(&mut desk.frames);
            let read = match self.link.as_mut()?.codec.poll_incoming() {
                Ok(None) => Ok(None),
                Ok(Some(Incoming::Closed(code))) => Ok(Some(code)),
                Ok(Some(Incoming::Binary(bytes))) => {
                    read_frames(protocol::session::Input::Binary(bytes), &mut frames)
                }
                Ok(Some(Incoming::Text(text))) => {
                    read_frames(protocol::session::Input::Text(text), &mut frames)
                }
                Err(fault) => Err(fault),
            };
            let is_empty = frames.is_empty();
            for frame in frames.drain(..) {
                self.handle_frame(desk, frame, now);
            }
            desk.frames = frames;
            match read {
                Ok(None) if is_empty => break,
                Ok(None) => {}
                Ok(Some(code)) => return Some(code),
                Err(fault) => {
                    let name = desk.plan.name(self.index);
                    desk.tally.violations.add(Kind::Content, || format!("{name} could not read: {fault}"));
                    return Some(CloseCode::ABNORMAL);
                }
            }
        }
        self.pump(desk, now);
        self.pump_attention(desk, now);
        self.pump_openings(now);
        None
    }

    fn handle_frame(&mut self, desk: &mut Desk, frame: ServerFrame, now: Moment) {
        match frame {
            ServerFrame::Amended(event) => self.handle_amended(desk, &event, now),
            ServerFrame::CaughtUp { cursor, .. } => {
                self.store(cursor);
                self.enter_live(desk, now);
            }
            ServerFrame::Cursor { cursor } => self.store(cursor),
            ServerFrame::Drain { reconnect_in_ms, .. } => {
                desk.tally.counts.drains += 1;
                self.reconnect_after = Some(Duration::from_millis(reconnect_in_ms));
            }
            ServerFrame::Error(error) => self.handle_error(desk, error, now),
            ServerFrame::Gap(gap) => self.handle_gap(desk, &gap, now),
            ServerFrame::Heads { conversations, .. } => {
                conversations.iter().for_each(|head| self.handle_head(desk, head, now));
            }
            ServerFrame::Member(event) => self.handle_member(desk, &event, now),
            ServerFrame::Message(event) => self.handle_message(desk, &event, now),
            ServerFrame::Ok(ok) => self.handle_ok(desk, &ok, now),
            ServerFrame::Pong { id, cursor, .. } => {
                self.note_answered(desk, id);
                if let Some(cursor) = cursor {
                    self.store(cursor);
                }
            }
            ServerFrame::Welcome(welcome) => self.handle_welcome(desk, *welcome, now),
            ServerFrame::Page { id, messages, .. } => match self.in_flight.remove(id.0) {
                Some(Asked::Page) => self.handle_page(desk, &messages, now),
                Some(Asked::Look { room, left }) => self.handle_looked(desk, room, left, &messages, now),
                _ => {}
            },
            ServerFrame::Presence(event) => self.handle_presence(desk, &event, now),
            ServerFrame::Receipt { conversation, user, reached } => {
                self.handle_receipt(desk, conversation, &user, reached);
            }
            ServerFrame::Viewed { id, presence, receipts } => {
                if let Some(Asked::View(room)) = self.in_flight.remove(id.0) {
                    self.handle_viewed(desk, room, &presence, &receipts, now);
                }
            }
            ServerFrame::Found { id, hits, end } => {
                if let Some(Asked::Search(quest)) = self.in_flight.remove(id.0) {
                    self.handle_found(desk, *quest, &hits, &end, now);
                }
            }
            // Asked for by nobody here.
            ServerFrame::Conversations { .. }
            | ServerFrame::MembersPage { .. }
            | ServerFrame::Invisible { .. }
            | ServerFrame::Typing { .. } => {}
        }
    }

    fn handle_welcome(&mut self, desk: &mut Desk, welcome: Welcome, now: Moment) {
        self.note_answered(desk, welcome.id);
        desk.muster.welcomed += 1;
        desk.searching.is_offered |= welcome.features.iter().any(|feature| feature == "search");
        self.note_away(desk, now);
        self.without_session_since = None;
        self.clock_ahead = welcome.now.0 as i64 - unix_now().0 as i64;
        if welcome.reset {
            let name = desk.plan.name(self.index);
            desk.tally.violations.add(Kind::Reset, || format!("the cursor of {name} was not honoured"));
        }
        self.log_opens(desk, now);
        if self.has_gone() {
            // It was on its way when its time came.
            self.leave();
        }
        match (self.cursor.is_some(), welcome.cursor) {
            (false, Some(cursor)) => {
                self.store(cursor);
                self.enter_live(desk, now);
            }
            _ => self.presence = Presence::Replaying,
        }
        self.pump(desk, now);
    }

    /// The node was there when this was asked.
    fn note_answered(&mut self, desk: &mut Desk, id: RequestId) {
        if let Some(flight) = self.in_flight.take(id.0) {
            desk.answered = desk.answered.max(flight.asked_at);
        }
    }

    fn store(&mut self, cursor: String) {
        self.reader.save();
        self.cursor = Some(cursor);
    }

    fn enter_live(&mut self, desk: &mut Desk, now: Moment) {
        let was_absent = self.is_catching_up_after_absence();
        if let Some(lost_at) = self.lost_at.take().filter(|_| !was_absent) {
            desk.tally.back.record(now.since(lost_at));
        }
        if self.presence != Presence::Live {
            desk.muster.live += 1;
            desk.muster.count(now);
        }
        if self.live_since.is_none() {
            // As clients are told to: who came together does not ping together.
            let first_ping = Duration::from_millis(desk.random.below(PING_EVERY.as_millis() as u64));
            self.next_ping = now.after(first_ping);
        }
        self.presence = Presence::Live;
        self.live_since = Some(now);
        self.failures = 0;
        self.note_whole(desk, now);
    }
}

pub(super) fn read_frames(
    input: protocol::session::Input<'_>,
    frames: &mut Vec<ServerFrame>,
) -> Result<Option<CloseCode>, String> {
    ServerFrame::from_input(&input, frames).map(|()| None).map_err(|fault| fault.to_string())
}
