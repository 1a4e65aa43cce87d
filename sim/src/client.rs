//! A client: one device of one user, with a cursor, commands that it repeats until they are answered, and a memory of
//! what it was told.

mod hearing;
mod saying;

use std::collections::{BTreeMap, BTreeSet};

use protocol::command::{Command, Connect, HistoryRange, Request, Token};
use protocol::ids::{ConversationId, DeviceId, MessageId, RequestId, Seq, UnixMillis, UserId};
use protocol::session::{Session, SessionLimits};
use protocol::upgrade::{Form, UpgradePolicy};
use router::mail::Clock;

use crate::Rng;
use crate::calling::Registering;
use crate::delivering::Acknowledging;
use crate::governing;
use crate::hiding::Hiding;
use crate::keeping::{self, Since};
use crate::listing::Listing;
use crate::oracle::Oracle;
use crate::owed::{CONNECT, Owed};
use crate::searching::Searching;
use crate::settings::Setting;
use crate::viewing::Viewing;
use saying::new_message_id;

/// Commands without an answer at one time, below what closes a session.
const PENDING_MAX: usize = 20;

/// Pages that are asked for at once, fewer than these: what is pending has room beside them.
const PAGES_MAX: u64 = 8;

pub(crate) struct Link {
    pub(crate) pipe: usize,
    session: Session,
    welcomed: bool,
    /// Connected with positions: its conversations are surveyed until `caught_up`, which may take as long as an index file is made again.
    surveyed: bool,
    /// Started at the head: what came before is not owed.
    fresh: bool,
    sent: Vec<usize>,
    /// When it was opened: what it is sent until it is caught up is read from then on.
    begun: Since,
    /// When each page was asked for.
    pages: BTreeMap<RequestId, Since>,
    /// Of which conversation each list of members was asked for, and its newest sequence then.
    lists: BTreeMap<RequestId, (ConversationId, u64)>,
    /// The run of the process that it was opened to.
    run: u32,
    /// The times of its token.
    pub(crate) times: Times,
    /// A new token under way, and the times of that.
    refreshing: Option<(RequestId, Times)>,
    /// What is still to come.
    pub(crate) owed: Owed,
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
    /// How far it had been given each conversation, when its cursor came: also of one that it has left, and forgotten.
    given: BTreeMap<ConversationId, u64>,
    /// What others may expect to be told of that.
    pub(crate) acknowledging: Acknowledging,
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
    /// where it is set how much is kept,
    pub(crate) keeping: Option<Rng>,
    /// and where roles are handed out.
    pub(crate) governing: Option<Rng>,
    /// Likewise, where messages are more than texts.
    pub(crate) elaborating: Option<Rng>,
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
            given: BTreeMap::new(),
            acknowledging: Acknowledging::default(),
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
            governing: None,
            elaborating: None,
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
            && self.link.as_ref().is_some_and(|link| link.welcomed && link.owed.is_empty())
    }

    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn id(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    /// Opens a connection: the upgrade and, without waiting for the answer, `connect`.
    pub(crate) fn connect(&mut self, pipe: usize, pass: Pass, (begun, run): (Since, u32), rng: &mut Rng) {
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
            surveyed: false,
            fresh,
            sent: Vec::new(),
            begun,
            pages: BTreeMap::new(),
            lists: BTreeMap::new(),
            run,
            times,
            refreshing: None,
            owed: Owed::new(!fresh),
        });
        let link = self.link.as_mut().expect("just made");
        link.session.poll_control(&mut self.output);
        let connect = Connect { token: Some(token), device: self.device.clone(), cursor, positions };
        let request = Request { id: Some(CONNECT), command: Command::Connect(connect) };
        self.next_id = 1;
        // Numbers of an earlier connection mean nothing on this one.
        self.pending.iter_mut().for_each(|pending| pending.id = RequestId(0));
        self.viewing.begin();
        self.acknowledging.begin(run);
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

    /// The device is set up anew: it knows of nothing, and begins at the head.
    pub(crate) fn forget(&mut self) {
        self.cursor = None;
    }

    /// Another process goes on with these connections.
    pub(crate) fn note_taken_over(&mut self, pipes: &BTreeSet<usize>) {
        if let Some(link) = self.link.as_mut().filter(|link| pipes.contains(&link.pipe)) {
            link.owed.note_taken_over();
            self.viewing.note_taken_over();
        }
    }

    /// Whether it goes on with its connection, as another process owes it something there.
    pub(crate) fn waits(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.owed.is_waited_for())
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
        link.owed.note_asked(request);
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
        // When it is calm whatever is under way is answered on its connection. Who says all of it again with every `busy` is closed for that, and comes back
        // with more: a world of long lookups never came to rest. (seed 2241)
        self.is_patient |= calm;
        self.retry(oracle, micros);
        self.ask_list(oracle, calm);
        if calm {
            self.search(oracle, calm);
            self.look_at_rest(oracle);
        }
        if calm || self.pending.len() >= PENDING_MAX {
            return;
        }
        let has_acted = self.keep(oracle, now)
            || self.govern(users, oracle, now)
            || self.amend(oracle, now)
            || self.look(oracle);
        if has_acted || self.set(users, oracle, now) || self.register() || self.hide(oracle) {
            return;
        }
        if self.search(oracle, calm) {
            return;
        }
        let conversations: Vec<ConversationId> = self.seen.keys().copied().collect();
        let known = (!conversations.is_empty()).then(|| *rng.pick(&conversations));
        match (rng.below(20), known) {
            (0, _) => self.ping(oracle),
            (1 | 2, Some(conversation)) => self.ask_history(conversation, rng, oracle),
            (3, Some(conversation)) => {
                self.list_members(conversation, oracle);
            }
            (choice, known) => {
                let claimed = UnixMillis(now.0.saturating_add_signed(self.skew_ms));
                let message_id = new_message_id(rng, claimed);
                let command = self.storing(rng, users, choice, known, message_id);
                self.store(command, message_id, oracle);
            }
        }
    }

    fn ask_history(&mut self, conversation: ConversationId, rng: &mut Rng, oracle: &Oracle) {
        let range = match rng.below(3) {
            0 => HistoryRange::Latest,
            1 => HistoryRange::After(Seq(rng.below(5))),
            _ => HistoryRange::Before(Seq(rng.between(1, 50))),
        };
        let (id, limit) = (self.id(), rng.between(1, 60) as u32);
        let link = self.link.as_mut().expect("the caller looked");
        link.pages.insert(id, oracle.since());
        self.write(&Request { id: Some(id), command: Command::History { conversation, range, limit } });
    }

    /// Asks for several pages at once, of which all but the first wait for their turn, where it knows of something.
    pub(crate) fn ask_much(&mut self, rng: &mut Rng, oracle: &Oracle) {
        let conversations: Vec<ConversationId> = self.seen.keys().copied().collect();
        if conversations.is_empty() || !self.link.as_ref().is_some_and(|link| link.welcomed) {
            return;
        }
        for _ in 0..rng.between(2, PAGES_MAX) {
            let conversation = *rng.pick(&conversations);
            match rng.below(4) {
                0 => self.list_members(conversation, oracle),
                1 if self.viewing.dice.is_some() => {
                    let id = self.id();
                    self.viewing.asked(id, conversation, oracle);
                    self.write(&Request { id: Some(id), command: Command::View { conversation } });
                }
                _ => self.ask_history(conversation, rng, oracle),
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
        match (id, &command) {
            (Some(id), Command::View { conversation }) => self.viewing.asked(id, *conversation, oracle),
            (Some(id), Command::Unview { conversation }) => self.viewing.unviewed(id, *conversation, oracle),
            _ => {}
        }
        self.write(&Request { id, command });
        true
    }

    /// What it had been given when its cursor came may be told to be delivered from now on.
    pub(crate) fn acknowledge(&self, oracle: &mut Oracle) {
        for (conversation, seq) in &self.given {
            oracle.reads.acknowledged(*conversation, &self.user, Seq(*seq));
        }
    }

    /// A cursor: it stands behind all that was given by now, and perhaps behind more, which was not.
    fn take_cursor(&mut self, cursor: Option<String>) {
        let Some(cursor) = cursor else { return };
        self.cursor = Some(cursor);
        self.acknowledging.took_cursor();
        let received = self.received.iter().map(|(conversation, seq)| (conversation, seq));
        for (conversation, seq) in self.seen.iter().chain(&self.headed).chain(received) {
            let given = self.given.entry(*conversation).or_default();
            *given = (*seq).max(*given);
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
    fn keep(&mut self, oracle: &mut Oracle, now: UnixMillis) -> bool {
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

    fn list_members(&mut self, conversation: ConversationId, oracle: &Oracle) {
        let (id, head) = (self.id(), oracle.head_in(conversation));
        let link = self.link.as_mut().expect("the caller looked");
        link.lists.insert(id, (conversation, head));
        self.write(&Request { id: Some(id), command: Command::ListMembers { conversation } });
    }

    /// Asks who is in something, hands out roles, or takes them, as its dice have it.
    fn govern(&mut self, users: &[UserId], oracle: &mut Oracle, now: UnixMillis) -> bool {
        let claimed = UnixMillis(now.0.saturating_add_signed(self.skew_ms));
        let Some(dice) = &mut self.governing else { return false };
        let role = |conversation: &ConversationId| oracle.groups.role(*conversation, &self.user);
        let known: Vec<_> =
            self.seen.keys().map(|conversation| (*conversation, role(conversation))).collect();
        if !known.is_empty() && dice.one_in(30) {
            let (conversation, _) = *dice.pick(&known);
            self.list_members(conversation, oracle);
            return true;
        }
        let message_id = |dice: &mut Rng| new_message_id(dice, claimed);
        let Some(command) = governing::act(dice, &known, (&self.user, users), message_id) else {
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
    fn store(&mut self, command: Command, message_id: MessageId, oracle: &mut Oracle) {
        oracle.groups.issued(&self.user, message_id, &command);
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
}
