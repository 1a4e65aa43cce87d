//! A client: one device of one user, with a cursor, commands that it repeats until they are answered, and a memory of
//! what it was told.

mod saying;

use std::collections::{BTreeMap, BTreeSet};

use protocol::command::{Command, Connect, HistoryRange, Request, Token};
use protocol::event::{
    CloseCode, ErrorReply, Gap, Head, ListEnd, ListedConversation, MemberEvent, MessageEvent, OkReply,
    PageItem, ServerFrame,
};
use protocol::ids::{ConversationId, DeviceId, MessageId, RequestId, Seq, UnixMillis, UserId};
use protocol::session::{Input, Session, SessionLimits};
use protocol::upgrade::{Form, UpgradePolicy};
use router::mail::Clock;

use crate::Rng;
use crate::calling::Registering;
use crate::hiding::Hiding;
use crate::keeping::{self, Since};
use crate::listing::{self, Listing};
use crate::oracle::Oracle;
use crate::searching::Searching;
use crate::settings::Setting;
use crate::unread::Told;
use crate::viewing::Viewing;
use saying::new_message_id;

/// Commands without an answer at one time, below what closes a session.
const PENDING_MAX: usize = 20;

pub(crate) struct Link {
    pub(crate) pipe: usize,
    session: Session,
    welcomed: bool,
    /// Until `caught_up`, what is known already may come again.
    replaying: bool,
    /// Connected with positions: its conversations are surveyed until `caught_up`, which may take as long as an index file is made again.
    surveyed: bool,
    /// Started at the head: what came before is not owed.
    fresh: bool,
    sent: Vec<usize>,
    /// When it was opened: what it is sent until it is caught up is read from then on.
    begun: Since,
    /// When each page was asked for.
    pages: BTreeMap<RequestId, Since>,
    /// The times of its token.
    pub(crate) times: Times,
    /// A new token under way, and the times of that.
    refreshing: Option<(RequestId, Times)>,
}

/// What a client shows: good for some seconds, then for nothing.
pub(crate) struct Pass {
    pub(crate) token: Token,
    pub(crate) times: Times,
}

/// Of one token.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// In seconds since 1970.
    pub(crate) issued_at: u32,
    /// In milliseconds since 1970.
    pub(crate) expires_at: u64,
}

struct Pending {
    id: RequestId,
    command: Command,
    message_id: MessageId,
    /// What the disk held of the group that it changes when it was last sent: it is decided by a state that is no older.
    head: u64,
}

pub(crate) struct Client {
    pub(crate) user: UserId,
    device: DeviceId,
    /// How long its tokens are good, in seconds.
    pub(crate) token_seconds: u64,
    form: Form,
    pub(crate) link: Option<Link>,
    /// Connections that it left open when it made another: each is told that it was replaced.
    pub(crate) older: Vec<Link>,
    cursor: Option<String>,
    next_id: u32,
    pending: Vec<Pending>,
    seen: BTreeMap<ConversationId, u64>,
    /// Told by `heads`: everything up to here is to be read, not to come.
    pub(crate) headed: BTreeMap<ConversationId, u64>,
    pub(crate) received: BTreeSet<(ConversationId, u64)>,
    /// When it last connected with positions, in milliseconds since 1970: what was left by then is not fed.
    pub(crate) surveyed_at: Option<u64>,
    /// Milliseconds since 1970 from which on everything is owed.
    pub(crate) owed_since: Option<u64>,
    pub(crate) stalled_until: u64,
    /// Retry nothing before this.
    retry_at: u64,
    /// Repeats what was refused and not all that is under way: more at once than a session may have would close it, again and again.
    pub(crate) is_patient: bool,
    /// What it is in.
    pub(crate) listing: Listing,
    /// What it looks at, where anybody does.
    pub(crate) viewing: Viewing,
    /// What it sets, where anybody does.
    pub(crate) setting: Setting,
    /// Whether it has said its token, where anybody is called.
    pub(crate) registering: Registering,
    /// Whether it is invisible, where anybody is.
    pub(crate) hiding: Hiding,
    /// What it searches for, where anybody does.
    pub(crate) searching: Searching,
    /// Dice of its own, where messages are amended,
    pub(crate) amending: Option<Rng>,
    /// and where it is set how much is kept.
    pub(crate) keeping: Option<Rng>,
    /// How far its own clock, by which it names its messages, is behind or ahead.
    skew_ms: i64,
    output: Vec<u8>,
}

impl Client {
    pub(crate) fn new(user: UserId, device: &str, token_seconds: u64, form: Form, skew_ms: i64) -> Self {
        Self {
            user,
            device: DeviceId::new(device).expect("a device"),
            token_seconds,
            form,
            link: None,
            older: Vec::new(),
            cursor: None,
            next_id: 1,
            pending: Vec::new(),
            seen: BTreeMap::new(),
            headed: BTreeMap::new(),
            received: BTreeSet::new(),
            surveyed_at: None,
            owed_since: None,
            stalled_until: 0,
            retry_at: 0,
            is_patient: false,
            listing: Listing::default(),
            viewing: Viewing::default(),
            setting: Setting::default(),
            registering: Registering::default(),
            hiding: Hiding::default(),
            searching: Searching::default(),
            amending: None,
            keeping: None,
            skew_ms,
            output: Vec::new(),
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
            && self.setting.is_settled()
            && self.registering.is_settled()
            && self.hiding.is_settled()
            && self.older.is_empty()
            && self.link.as_ref().is_some_and(|link| link.welcomed && !link.replaying)
    }

    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn id(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    /// Opens a connection: the upgrade and, without waiting for the answer, `connect`.
    pub(crate) fn connect(&mut self, pipe: usize, pass: Pass, begun: Since, rng: &mut Rng) {
        let session =
            Session::client(&SessionLimits::CLIENT, self.form, "sim", UpgradePolicy::PATH, None, rng.roll());
        let fresh = self.cursor.is_none();
        let positions = (!fresh && rng.one_in(4)).then(|| {
            self.seen.iter().map(|(conversation, seq)| (*conversation, Seq(*seq))).collect::<Vec<_>>()
        });
        let cursor = if positions.is_none() { self.cursor.clone() } else { None };
        let Pass { token, times } = pass;
        self.link = Some(Link {
            pipe,
            session,
            welcomed: false,
            replaying: !fresh,
            surveyed: false,
            fresh,
            sent: Vec::new(),
            begun,
            pages: BTreeMap::new(),
            times,
            refreshing: None,
        });
        let link = self.link.as_mut().expect("just made");
        link.session.poll_control(&mut self.output);
        let connect = Connect { token: Some(token), device: self.device.clone(), cursor, positions };
        let request = Request { id: Some(RequestId(1)), command: Command::Connect(connect) };
        self.next_id = 1;
        // Numbers of an earlier connection mean nothing on this one.
        self.pending.iter_mut().for_each(|pending| pending.id = RequestId(0));
        self.viewing.begin();
        self.setting.begin();
        self.registering.begin();
        self.hiding.begin();
        self.listing.begin();
        self.searching.begin();
        // The first frame is pipelined behind the upgrade request: a server must take it as a frame.
        let mut payload = Vec::new();
        request.encode(self.form, &mut payload);
        let opcode = self.form.opcode();
        protocol::ws::encode_frame(opcode, &payload, Some([1, 2, 3, 4]), &mut self.output);
    }

    /// Shows a newer token, which may be good for longer or for less.
    pub(crate) fn refresh(&mut self, pass: Pass) {
        let id = self.id();
        if let Some(link) = &mut self.link
            && link.welcomed
        {
            link.refreshing = Some((id, pass.times));
            self.write(&Request { id: Some(id), command: Command::Refresh { token: pass.token } });
        }
    }

    pub(crate) fn lose_link(&mut self) {
        self.link = None;
        self.output.clear();
    }

    /// Goes on without its connection, which stays open.
    pub(crate) fn leave_link(&mut self) {
        self.older.extend(self.link.take());
        self.output.clear();
    }

    fn write(&mut self, request: &Request) {
        let Some(link) = &mut self.link else {
            return;
        };
        if !link.session.is_open() {
            return;
        }
        let mut payload = Vec::new();
        request.encode(self.form, &mut payload);
        link.session.encode_message(self.form.opcode(), &payload, &mut self.output);
    }

    /// Does something, as the dice have it. `calm`: only what is needed to come to an end.
    pub(crate) fn act(
        &mut self,
        rng: &mut Rng,
        users: &[UserId],
        oracle: &mut Oracle,
        clock: Clock,
        calm: bool,
    ) {
        let Clock { unix: now, micros } = clock;
        if !self.link.as_ref().is_some_and(|link| link.welcomed) {
            return;
        }
        self.retry(oracle, micros);
        self.ask_list(oracle, calm);
        if calm {
            self.search(oracle, calm);
        }
        if calm || self.pending.len() >= PENDING_MAX {
            return;
        }
        let has_acted = self.keep(oracle, now) || self.amend(oracle, now) || self.look(oracle);
        if has_acted || self.set(users, oracle, now) || self.register() || self.hide(oracle) {
            return;
        }
        if self.search(oracle, calm) {
            return;
        }
        let conversations: Vec<ConversationId> = self.seen.keys().copied().collect();
        let known = (!conversations.is_empty()).then(|| *rng.pick(&conversations));
        match (rng.below(20), known) {
            (0, _) => {
                let id = self.id();
                let cursor = self.cursor.clone();
                self.acknowledge(oracle);
                self.write(&Request { id: Some(id), command: Command::Ping { cursor } });
            }
            (1 | 2, Some(conversation)) => {
                let range = match rng.below(3) {
                    0 => HistoryRange::Latest,
                    1 => HistoryRange::After(Seq(rng.below(5))),
                    _ => HistoryRange::Before(Seq(rng.between(1, 50))),
                };
                let (id, limit) = (self.id(), rng.between(1, 60) as u32);
                let link = self.link.as_mut().expect("looked at");
                link.pages.insert(id, oracle.since());
                self.write(&Request {
                    id: Some(id),
                    command: Command::History { conversation, range, limit },
                });
            }
            (3, Some(conversation)) => {
                let id = self.id();
                self.write(&Request { id: Some(id), command: Command::ListMembers { conversation } });
            }
            (choice, known) => {
                let claimed = UnixMillis(now.0.saturating_add_signed(self.skew_ms));
                let message_id = new_message_id(rng, claimed);
                let command = self.storing(rng, users, choice, known, message_id);
                self.store(command, message_id, oracle);
            }
        }
    }

    /// Asks what it is in: at rest for all of it.
    fn ask_list(&mut self, oracle: &Oracle, calm: bool) {
        let id = RequestId(self.next_id + 1);
        let since = oracle.since();
        let command = if calm { self.listing.next_page(id, since) } else { self.listing.act(id, since) };
        if let Some(command) = command {
            self.next_id += 1;
            self.write(&Request { id: Some(id), command });
        }
    }

    /// Views something, ends that, is typing or has read, as its dice have it.
    fn look(&mut self, oracle: &mut Oracle) -> bool {
        let Some(command) = self.viewing.act(&self.seen) else {
            return false;
        };
        if let Command::Read { conversation, seq } = command {
            oracle.reads.said(conversation, &self.user, seq);
        }
        let id = command.has_reply().then(|| self.id());
        if let (Some(id), Command::View { conversation }) = (id, &command) {
            self.viewing.asked(id, *conversation, oracle);
        }
        self.write(&Request { id, command });
        true
    }

    /// What it has been given may be told to be delivered from now on.
    fn acknowledge(&self, oracle: &mut Oracle) {
        for (conversation, seq) in self.seen.iter().chain(&self.headed) {
            oracle.reads.acknowledged(*conversation, &self.user, Seq(*seq));
        }
    }

    /// Sets something, as its dice have it.
    fn set(&mut self, users: &[UserId], oracle: &mut Oracle, now: UnixMillis) -> bool {
        if self.setting.acknowledges()
            && let Some(cursor) = self.cursor.clone()
        {
            self.acknowledge(oracle);
            self.write(&Request { id: None, command: Command::Ack { cursor } });
        }
        let id = RequestId(self.next_id + 1);
        let known = self.seen.keys().copied();
        let command = self.setting.act(id, &self.user, known, now, &mut oracle.mutes);
        let block = || self.setting.block(id, &self.user, users, &oracle.blocks);
        let Some(command) = command.or_else(block) else {
            return false;
        };
        self.next_id += 1;
        self.write(&Request { id: Some(id), command });
        true
    }

    /// Says by which token it is called, as its dice have it.
    fn register(&mut self) -> bool {
        let id = RequestId(self.next_id + 1);
        let Some(command) = self.registering.act(id, &self.user, &self.device) else {
            return false;
        };
        self.next_id += 1;
        self.write(&Request { id: Some(id), command });
        true
    }

    /// Sets how much is kept, as its dice have it.
    fn keep(&mut self, oracle: &Oracle, now: UnixMillis) -> bool {
        let claimed = UnixMillis(now.0.saturating_add_signed(self.skew_ms));
        let known = self.seen.keys().copied();
        let Some(command) = self
            .keeping
            .as_mut()
            .and_then(|dice| keeping::act(dice, known, |dice| new_message_id(dice, claimed)))
        else {
            return false;
        };
        let message_id = command.message_id().expect("it is named");
        self.store(command, message_id, oracle);
        true
    }

    /// Becomes invisible, or visible again, as its dice have it.
    fn hide(&mut self, oracle: &mut Oracle) -> bool {
        let id = RequestId(self.next_id + 1);
        let Some(command) = self.hiding.act(id, &self.user, &mut oracle.invisibles) else {
            return false;
        };
        self.next_id += 1;
        self.write(&Request { id: Some(id), command });
        true
    }

    /// Searches for something, as its dice have it: at rest for all that has some words.
    fn search(&mut self, oracle: &mut Oracle, calm: bool) -> bool {
        let id = RequestId(self.next_id + 1);
        let Self { searching, user, .. } = self;
        let command =
            if calm { searching.next_page(id, user, oracle) } else { searching.act(id, user, oracle) };
        let Some(command) = command else {
            return false;
        };
        self.next_id += 1;
        self.write(&Request { id: Some(id), command });
        true
    }

    /// Says something that is to be stored, and repeats it until it is answered.
    fn store(&mut self, command: Command, message_id: MessageId, oracle: &Oracle) {
        let (id, head) = (self.id(), oracle.head_of(&command));
        self.pending.push(Pending { id, command: command.clone(), message_id, head });
        self.write(&Request { id: Some(id), command });
    }

    /// Repeats what has no answer on this connection, verbatim: all of it, or only what was refused.
    fn retry(&mut self, oracle: &Oracle, micros: u64) {
        if micros < self.retry_at || self.pending.is_empty() {
            return;
        }
        let is_patient = self.is_patient;
        let Some(link) = &mut self.link else {
            return;
        };
        if link.sent.is_empty() {
            link.sent.push(self.pending.len());
            let mut repeated = Vec::new();
            for place in 0..self.pending.len() {
                if is_patient && self.pending[place].id != RequestId(0) {
                    continue;
                }
                let id = self.id();
                let pending = &mut self.pending[place];
                (pending.id, pending.head) = (id, oracle.head_of(&pending.command));
                repeated.push(Request { id: Some(id), command: pending.command.clone() });
            }
            repeated.iter().for_each(|request| self.write(request));
        }
    }

    /// Takes bytes from the server. Says whether the connection goes on.
    pub(crate) fn handle_bytes(
        &mut self,
        bytes: &mut [u8],
        oracle: &mut Oracle,
        now: UnixMillis,
        micros: u64,
    ) -> bool {
        let mut at = 0;
        loop {
            let Some(link) = &mut self.link else {
                return false;
            };
            let handled = link.session.handle_bytes(&UpgradePolicy::ANY, &mut bytes[at..]);
            let handled = handled.expect("the server keeps to the protocol");
            at += handled.consumed;
            let mut frames = Vec::new();
            match handled.input {
                None => return true,
                Some(Input::PeerClosed { .. }) => {
                    link.session.poll_control(&mut self.output);
                    return false;
                }
                Some(input) => ServerFrame::from_input(&input, &mut frames).expect("frames of this protocol"),
            }
            for frame in frames {
                self.handle_frame(frame, oracle, now, micros);
            }
        }
    }

    /// Takes bytes of a connection that was left open. What ended it, and the answer to that, once it has.
    pub(crate) fn handle_older(&mut self, place: usize, bytes: &mut [u8]) -> Option<(CloseCode, Vec<u8>)> {
        let session = &mut self.older[place].session;
        let mut at = 0;
        loop {
            let handled = session.handle_bytes(&UpgradePolicy::ANY, &mut bytes[at..]);
            let handled = handled.expect("the server keeps to the protocol");
            at += handled.consumed;
            match handled.input {
                None => return None,
                Some(Input::PeerClosed { code }) => {
                    let mut answer = Vec::new();
                    session.poll_control(&mut answer);
                    return Some((code, answer));
                }
                Some(_) => {}
            }
        }
    }

    fn handle_frame(&mut self, frame: ServerFrame, oracle: &mut Oracle, now: UnixMillis, micros: u64) {
        match frame {
            ServerFrame::Welcome(welcome) => {
                assert!(
                    !welcome.reset || oracle.keep_ms.is_some(),
                    "a cursor of this store was not honoured"
                );
                let link = self.link.as_mut().expect("a frame comes by a link");
                link.welcomed = true;
                if welcome.reset {
                    oracle.gone += 1;
                    (link.fresh, link.replaying) = (true, false);
                }
                if link.fresh {
                    self.owed_since = Some(now.0);
                    self.seen.clear();
                }
                link.surveyed = welcome.cursor.is_none();
                if link.surveyed {
                    self.surveyed_at = Some(now.0 + 1_000);
                }
                self.cursor = welcome.cursor.or(self.cursor.take());
            }
            ServerFrame::Cursor { cursor } => self.cursor = Some(cursor),
            ServerFrame::CaughtUp { cursor, partial } => {
                assert!(!partial, "every log is served");
                self.cursor = Some(cursor);
                let link = self.link.as_mut().expect("a frame comes by a link");
                link.replaying = false;
                if std::mem::take(&mut link.surveyed) {
                    self.surveyed_at = self.surveyed_at.max(Some(now.0));
                }
            }
            ServerFrame::Pong { cursor, .. } => self.cursor = cursor.or(self.cursor.take()),
            ServerFrame::Ok(ok) => self.handle_ok(&ok, oracle),
            ServerFrame::Error(error) => self.handle_error(&error, oracle, now, micros),
            ServerFrame::Amended(event) => {
                oracle.check_amended(&event, now);
                oracle.told_amended(&event, self.since());
                self.receive((event.conversation, event.seq.0), false);
            }
            ServerFrame::Message(message) => self.handle_message(&message, oracle, now),
            ServerFrame::Member(event) => self.handle_member(&event, oracle),
            ServerFrame::Heads { conversations, .. } => {
                conversations.iter().for_each(|head| self.handle_head(head, oracle));
            }
            ServerFrame::Conversations { id, conversations, end } => {
                self.handle_list(id, conversations, end, oracle, now);
            }
            ServerFrame::Page { id, messages, .. } => self.handle_page(id, &messages, oracle, now),
            ServerFrame::Found { id, hits, end } => {
                self.searching.told(id, &self.user, &hits, end, oracle);
            }
            ServerFrame::MembersPage { .. } | ServerFrame::Drain { .. } => {}
            ServerFrame::Invisible { on } => self.hiding.told(&self.user, on, &oracle.invisibles),
            ServerFrame::Presence(presence) => self.viewing.told(&self.user, presence, oracle),
            ServerFrame::Typing { conversation, user, .. } => {
                self.viewing.told_typing(&self.user, conversation, &user);
            }
            ServerFrame::Receipt { conversation, user, reached } => {
                self.viewing.told_reached(conversation, user, reached, oracle);
            }
            ServerFrame::Viewed { id, presence, receipts } => {
                self.viewing.viewed(id, presence, receipts, oracle);
            }
            ServerFrame::Gap(gap) => self.handle_gap(&gap, oracle, now),
        }
    }

    fn handle_member(&mut self, event: &MemberEvent, oracle: &mut Oracle) {
        let place = (event.conversation, event.seq.0);
        oracle.delivered(place, event.message_id, None);
        self.receive(place, event.added.contains(&self.user));
        if event.removed.contains(&self.user) {
            self.seen.remove(&event.conversation);
            self.viewing.left(event.conversation);
        }
    }

    fn handle_message(&mut self, message: &MessageEvent, oracle: &mut Oracle, now: UnixMillis) {
        let place = (message.conversation, message.seq.0);
        oracle.check_not_erased(place, now);
        oracle.told_message(message, self.since());
        self.receive(place, false);
    }

    fn handle_list(
        &mut self,
        id: RequestId,
        conversations: Vec<ListedConversation>,
        end: ListEnd,
        oracle: &mut Oracle,
        now: UnixMillis,
    ) {
        listing::check_page(&self.user, &conversations, self.listing.asked_at(id), oracle);
        let last: Vec<PageItem> = conversations.iter().filter_map(|listed| listed.last.clone()).collect();
        let since = self.listing.told(id, conversations, end);
        last.iter().for_each(|last| check_page(std::slice::from_ref(last), since, oracle, now));
    }

    fn handle_page(&mut self, id: RequestId, items: &[PageItem], oracle: &mut Oracle, now: UnixMillis) {
        let link = self.link.as_mut().expect("a frame comes by a link");
        check_page(items, link.pages.remove(&id), oracle, now);
    }

    fn handle_head(&mut self, head: &Head, oracle: &mut Oracle) {
        oracle.told_head(head.conversation, head.head.0);
        let Head { conversation, head: newest, read, unread, .. } = *head;
        let since = self.since();
        oracle.told_unread(&self.user, Told { conversation, head: newest, read, unread }, since);
        // From an older cursor on, what ends a time of which nothing is sent may be known already.
        for known in [&mut self.seen, &mut self.headed] {
            let known = known.entry(head.conversation).or_default();
            *known = head.head.0.max(*known);
        }
    }

    /// Since when what it is told now was read: what is told live may have waited.
    fn since(&self) -> Option<Since> {
        self.link.as_ref().filter(|link| link.replaying).map(|link| link.begun)
    }

    fn handle_ok(&mut self, ok: &OkReply, oracle: &mut Oracle) {
        let link = self.link.as_mut().expect("a frame comes by a link");
        if let Some((_, times)) = link.refreshing.take_if(|(id, _)| *id == ok.id) {
            link.times = times;
        } else if self.setting.done(ok.id, &self.user, &mut oracle.mutes)
            || self.setting.blocked(ok.id, &self.user, &oracle.blocks)
            || self.registering.done(ok.id, &self.user, &mut oracle.tokens)
            || self.hiding.done(ok.id, &self.user, &mut oracle.invisibles)
        {
        } else if let Some(place) = self.pending.iter().position(|pending| pending.id == ok.id) {
            let pending = self.pending.remove(place);
            match ok.conversation.zip(ok.seq) {
                Some((of, seq)) => oracle.acked(&self.user, pending.message_id, (of, seq.0)),
                None => {
                    oracle.unchanged(&self.user, pending.message_id, &pending.command, pending.head);
                }
            }
        }
    }

    fn handle_gap(&mut self, gap: &Gap, oracle: &mut Oracle, now: UnixMillis) {
        if gap.reason == "erased" {
            let place = oracle.told_erased(gap, now.0);
            return self.receive(place, false);
        }
        oracle.told_gone(gap, now.0);
        self.seen.insert(gap.conversation, gap.to.0);
        let headed = self.headed.entry(gap.conversation).or_default();
        *headed = gap.to.0.max(*headed);
    }

    fn handle_error(&mut self, error: &ErrorReply, oracle: &mut Oracle, now: UnixMillis, micros: u64) {
        self.viewing.refused(error.id);
        self.listing.refused(error.id);
        self.searching.refused(error.id, error.code);
        self.registering.refused(error.id);
        self.hiding.refused(error.id, error.code, &self.user, &mut oracle.invisibles);
        self.setting.refused(error.id, error.code, &self.user, &mut oracle.mutes);
        let Some(place) = self.pending.iter().position(|pending| Some(pending.id) == error.id) else {
            return;
        };
        if error.code.retryable() {
            self.retry_at = micros + error.retry_after_ms.unwrap_or(10) * 1_000;
            self.link.as_mut().expect("a frame comes by a link").sent.clear();
            if self.is_patient {
                self.pending[place].id = RequestId(0);
            }
        } else {
            let pending = self.pending.remove(place);
            oracle.refused(&self.user, pending.message_id, now.0);
        }
    }

    /// `dense_order`: the next, or one known already while catching up, or the first since a join.
    fn receive(&mut self, (conversation, seq): (ConversationId, u64), joined: bool) {
        let replaying = self.link.as_ref().expect("a frame comes by a link").replaying;
        match self.seen.get(&conversation) {
            Some(last) if seq <= *last => {
                assert!(replaying, "dense_order: {} was told {conversation} {seq} twice", self.user);
            }
            Some(last) => {
                assert!(
                    joined || seq == last + 1,
                    "dense_order: {} lost {conversation} {last}..{seq}",
                    self.user
                );
                self.seen.insert(conversation, seq);
            }
            None => drop(self.seen.insert(conversation, seq)),
        }
        self.received.insert((conversation, seq));
    }
}

fn check_page(items: &[PageItem], since: Option<Since>, oracle: &mut Oracle, now: UnixMillis) {
    let mut last = None;
    for item in items {
        let (conversation, seq) = match item {
            PageItem::Amended(event) => {
                oracle.check_amended(event, now);
                oracle.told_amended(event, since);
                (event.conversation, event.seq.0)
            }
            PageItem::Message(message) => {
                oracle.check_not_erased((message.conversation, message.seq.0), now);
                oracle.told_message(message, since);
                (message.conversation, message.seq.0)
            }
            PageItem::Member(event) => {
                oracle.delivered((event.conversation, event.seq.0), event.message_id, None);
                oracle.check_kept((event.conversation, event.seq.0), since);
                (event.conversation, event.seq.0)
            }
            PageItem::Gap(gap) if gap.reason == "erased" => oracle.told_erased(gap, now.0),
            PageItem::Gap(gap) => {
                assert!(last.is_none(), "only the front of a conversation goes");
                oracle.told_gone(gap, now.0);
                last = Some(gap.to.0);
                continue;
            }
        };
        assert!(
            last.is_none_or(|last| seq == last + 1),
            "dense_order: a page of {conversation} skips to {seq}"
        );
        last = Some(seq);
    }
}
