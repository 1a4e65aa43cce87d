//! What a client asks: checked against its session, then mailed to the conversation's home, or answered here.

use protocol::command::{Command, PushToken, Target};
use protocol::event::{CloseCode, ErrorCode, ErrorReply, OkReply, Refusal, ServerFrame};
use protocol::ids::{ConversationId, MessageId, RequestId, Seq, UnixMillis, UserId};
use protocol::limits::COMMANDS_IN_FLIGHT_MAX;

use super::UserSide;
use super::rates::is_stored;
use super::session::Held;
use crate::cursor::{self, Cursor};
use crate::mail::{Asker, Change, Clock, Request, SessionId, Setting, Store};
use crate::places::{created_conversation, direct_conversation};

/// When to try again with a token whose key is being fetched: a fetch takes a second or two, and comes within half a minute.
const REFRESH_RETRY_MS: u64 = 5_000;

impl UserSide {
    /// Takes a command of a session. `refresh` is the gateway's: only it can judge a token.
    ///
    /// # Errors
    /// The close code, when the session has more commands under way than it may have.
    pub fn handle_command(
        &mut self,
        id: SessionId,
        request: protocol::command::Request,
        clock: Clock,
    ) -> Result<(), CloseCode> {
        let now = clock.unix;
        if request.id.is_some() {
            self.count_command(id)?;
        }
        if !self.may_ask(id, request.id, clock.micros) {
            return Ok(());
        }
        if let Command::Typing { conversation, on } = request.command {
            self.type_in(id, conversation, on);
            return Ok(());
        }
        if let Command::Ack { cursor } | Command::Ping { cursor: Some(cursor) } = &request.command {
            self.note_acked(id, cursor);
        }
        let Some(number) = request.id else {
            return Ok(());
        };
        if is_stored(&request.command) && !self.may_store(id, number, clock.micros) {
            return Ok(());
        }
        match request.command {
            Command::Ack { .. } | Command::Refresh { .. } | Command::Typing { .. } => {}
            Command::Block { user, on, .. } => self.block(id, number, user, on, clock),
            Command::Invisible { on } => self.set_invisible(id, number, on, clock),
            Command::Mute { conversation, until } => self.mute(id, number, conversation, until, clock),
            Command::PushToken { token } => self.set_push_token(id, number, token, clock),
            Command::Read { conversation, seq } => self.read(id, number, conversation, seq, clock),
            Command::View { conversation } => self.view(id, number, conversation, clock),
            Command::Unview { conversation } => self.unview(id, number, conversation),
            Command::Connect(_) => {
                self.refuse(id, number, ErrorCode::BadField, "this session is connected already")
            }
            Command::Ping { .. } => {
                let cursor = self.cursor_of(id, now);
                self.push_reply(id, &ServerFrame::Pong { id: number, now, cursor });
            }
            Command::History { conversation, range, limit } => {
                let Some((asker, user)) = self.asker(id, number, clock) else { return Ok(()) };
                self.hold(id, Held::Page(Request::History { asker, user, conversation, range, limit }));
            }
            Command::ListMembers { conversation } => {
                let Some((asker, user)) = self.asker(id, number, clock) else { return Ok(()) };
                self.hold(id, Held::Page(Request::ListMembers { asker, user, conversation }));
            }
            Command::Conversations { after, limit } => {
                self.list_conversations(id, number, after.as_deref(), limit);
            }
            Command::Search(search) => self.search(id, number, search, clock),
            command @ (Command::Create(_)
            | Command::Delete { .. }
            | Command::Edit(_)
            | Command::Leave { .. }
            | Command::Members(_)
            | Command::React(_)
            | Command::Retention { .. }
            | Command::Send(_)
            | Command::Title { .. }) => self.store(id, number, command, clock),
        }
        Ok(())
    }

    /// A command that could be read no further than its number.
    ///
    /// # Errors
    /// The close code, when the session has more commands under way than it may have.
    pub fn handle_refusal(&mut self, id: SessionId, refusal: Refusal, clock: Clock) -> Result<(), CloseCode> {
        self.count_command(id)?;
        if self.may_ask(id, refusal.id, clock.micros) {
            self.push_reply(id, &ServerFrame::Error(refusal.into_reply()));
        }
        Ok(())
    }

    /// A `refresh` came: whether its token is to be judged now. Where it is not, the session is told when to come again.
    ///
    /// # Errors
    /// The close code, when the session has more commands under way than it may have.
    pub fn begin_refresh(
        &mut self,
        id: SessionId,
        number: RequestId,
        clock: Clock,
    ) -> Result<bool, CloseCode> {
        self.count_command(id)?;
        Ok(self.may_ask(id, Some(number), clock.micros))
    }

    /// The token of a `refresh` that was begun is good.
    pub fn finish_refresh(&mut self, id: SessionId, number: RequestId) {
        self.push_done(id, number);
    }

    /// The token of a `refresh` that was begun cannot be judged yet: the session goes on with the one it has.
    pub fn put_off_refresh(&mut self, id: SessionId, number: RequestId) {
        let (code, message) =
            (ErrorCode::Unavailable, "the key of the token is being fetched: send it again".to_owned());
        let error = ErrorReply { id: Some(number), code, message, retry_after_ms: Some(REFRESH_RETRY_MS) };
        self.push_reply(id, &ServerFrame::Error(error));
    }

    /// A command took effect of which there is no more to say.
    pub(super) fn push_done(&mut self, id: SessionId, number: RequestId) {
        let ok = OkReply { id: number, conversation: None, seq: None, message_id: None, at: None };
        self.push_reply(id, &ServerFrame::Ok(ok));
    }

    pub(super) fn count_command(&mut self, id: SessionId) -> Result<(), CloseCode> {
        let Some(session) = self.session(id) else {
            return Ok(());
        };
        if session.commands as usize >= COMMANDS_IN_FLIGHT_MAX {
            return Err(CloseCode::OVERLOAD);
        }
        session.commands += 1;
        Ok(())
    }

    pub(super) fn refuse(&mut self, id: SessionId, number: RequestId, code: ErrorCode, message: &str) {
        let message = message.to_owned();
        let error = ErrorReply { id: Some(number), code, message, retry_after_ms: None };
        self.push_reply(id, &ServerFrame::Error(error));
    }

    /// `busy`, and when to try again.
    pub(super) fn refuse_busy(
        &mut self,
        id: SessionId,
        number: RequestId,
        message: &str,
        retry_after_ms: u64,
    ) {
        let (code, message) = (ErrorCode::Busy, message.to_owned());
        let error = ErrorReply { id: Some(number), code, message, retry_after_ms: Some(retry_after_ms) };
        self.push_reply(id, &ServerFrame::Error(error));
    }

    pub(super) fn asker(
        &mut self,
        id: SessionId,
        number: RequestId,
        clock: Clock,
    ) -> Option<(Asker, UserId)> {
        let shard = self.shard;
        let session = self.session(id)?;
        let asker = Asker { shard, session: id, id: number, asked_micros: clock.micros };
        Some((asker, session.user.clone()))
    }

    /// History and lists are large: one at a time, made when the outbox is empty.
    pub(super) fn hold(&mut self, id: SessionId, held: Held) {
        if let Some(session) = self.session(id) {
            session.held.push_back(held);
            self.ask_pages(id);
        }
    }

    fn store(&mut self, id: SessionId, number: RequestId, command: Command, clock: Clock) {
        let Some((asker, user)) = self.asker(id, number, clock) else {
            return;
        };
        let idempotent = command.message_id();
        if idempotent.is_some_and(|message_id| !message_id.is_v7()) {
            return self.refuse(id, number, ErrorCode::BadField, "message_id is not a UUIDv7");
        }
        let message_id = idempotent.unwrap_or_else(|| self.make_message_id(clock.unix));
        let content_hash = command.content_hash();
        let (conversation, change) = match change_of(command, &user, message_id) {
            Ok(change) => change,
            Err(message) => return self.refuse(id, number, ErrorCode::NotAllowed, message),
        };
        let may = self.approaches.judge((id, number), &user, &change, clock.micros);
        let idempotent = idempotent.is_some();
        let store = Store { asker, user, conversation, message_id, idempotent, content_hash, change, may };
        self.mail_command(asker, conversation, Request::Store(Box::new(store)));
    }

    /// A block is its own repetition, so its id is not looked for.
    fn block(&mut self, id: SessionId, number: RequestId, peer: UserId, on: bool, clock: Clock) {
        let Some((asker, user)) = self.asker(id, number, clock) else { return };
        if peer == user {
            return self.refuse(id, number, ErrorCode::NotAllowed, "nobody blocks oneself");
        }
        let conversation = direct_conversation(&user, &peer);
        self.mail_command(asker, conversation, Request::Block { asker, user, peer, conversation, on });
    }

    /// Muting is for who is in the conversation, which its owner says first; what was muted can be taken back also by who has left it.
    fn mute(
        &mut self,
        id: SessionId,
        number: RequestId,
        conversation: ConversationId,
        until: UnixMillis,
        clock: Clock,
    ) {
        let Some((asker, user)) = self.asker(id, number, clock) else { return };
        if until == UnixMillis(0) {
            return self.set(asker, user, Setting::Mute { conversation, until });
        }
        self.mail_command(asker, conversation, Request::Mute { asker, user, conversation, until });
    }

    fn set_push_token(&mut self, id: SessionId, number: RequestId, token: Option<PushToken>, clock: Clock) {
        let Some((asker, user)) = self.asker(id, number, clock) else { return };
        let Some(device) = self.session(id).map(|session| session.device.clone()) else { return };
        self.set(asker, user, Setting::PushToken { device, token });
    }

    fn set_invisible(&mut self, id: SessionId, number: RequestId, on: bool, clock: Clock) {
        if let Some((asker, user)) = self.asker(id, number, clock) {
            self.set(asker, user, Setting::Invisible { on });
        }
    }

    /// Mails a setting to the owner of the log that the user's settings stand in.
    pub(super) fn set(&mut self, asker: Asker, user: UserId, setting: Setting) {
        let log = self.places.settings_log_of(&user);
        self.mail_to_log(asker, log, Request::Set { asker, user, setting });
    }

    fn read(
        &mut self,
        id: SessionId,
        number: RequestId,
        conversation: ConversationId,
        seq: Seq,
        clock: Clock,
    ) {
        if let Some((asker, user)) = self.asker(id, number, clock) {
            self.mail_command(asker, conversation, Request::Read { asker, user, conversation, seq });
        }
    }

    /// Mails a command to the owner of the conversation's log, if it has a credit.
    fn mail_command(&mut self, asker: Asker, conversation: ConversationId, request: Request) {
        self.mail_to_log(asker, self.places.log_of(conversation), request);
    }

    fn mail_to_log(&mut self, asker: Asker, log: u16, request: Request) {
        let owner = self.places.owner_of(log);
        let credits = &mut self.credits[owner.index()];
        if credits.commands == 0 {
            self.counters.busy += 1;
            let retry_after_ms = credits.refuse_command(asker.asked_micros);
            self.approaches.note_answered((asker.session, asker.id), false);
            let words = "too many commands are under way";
            return self.refuse_busy(asker.session, asker.id, words, retry_after_ms);
        }
        credits.take_command(asker.asked_micros);
        self.mail.push_back((owner, request));
    }

    /// For a command without an id: unique, not repeatable.
    fn make_message_id(&mut self, now: UnixMillis) -> MessageId {
        let mut random = [0; 10];
        for half in random.chunks_mut(5) {
            // xorshift64*: unique under one seed for 2^64 - 1 ids; nothing secret hangs on it.
            self.random ^= self.random >> 12;
            self.random ^= self.random << 25;
            self.random ^= self.random >> 27;
            half.copy_from_slice(&self.random.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()[3..]);
        }
        MessageId::v7(now, random)
    }

    pub(super) fn cursor_of(&mut self, id: SessionId, now: UnixMillis) -> Option<String> {
        let (places, starts) = (self.places.clone(), self.starts.clone());
        let session = self.session(id)?;
        let positions = session.positions()?;
        // Of a group whose state cannot be read no head was named: nor does a later cursor say so of what stands before this one.
        let followed =
            session.logs.iter().map(|log| if session.partial { 0 } else { log.followed() }).collect();
        let is_whole = session.is_live() && !session.partial;
        let cursor = Cursor { positions, followed, is_whole };
        session.since_cursor = 0;
        session.cursor_at = now.0;
        Some(cursor::encode(&places, &starts, &session.user, &cursor))
    }
}

/// Which conversation a command is for, and what it does there.
fn change_of(
    command: Command,
    user: &UserId,
    message_id: MessageId,
) -> Result<(ConversationId, Change), &'static str> {
    Ok(match command {
        Command::Create(create) => (created_conversation(user, message_id), Change::Create(create)),
        Command::Delete { conversation, seq, .. } => (conversation, Change::Delete { target: seq }),
        Command::Edit(edit) => (edit.conversation, Change::Edit(edit)),
        Command::Leave { conversation, .. } => (conversation, Change::Leave),
        Command::Members(members) => (members.conversation, Change::Members(members)),
        Command::React(react) => (react.conversation, Change::React(react)),
        Command::Retention { conversation, retention, .. } => (conversation, Change::Retention(retention)),
        Command::Title { conversation, title, .. } => (conversation, Change::Title(title)),
        Command::Send(send) => match send.target.clone() {
            Target::Conversation(conversation) => (conversation, Change::Send { send, peer: None }),
            Target::User(peer) if peer == *user => return Err("a direct conversation is between two users"),
            Target::User(peer) => (direct_conversation(user, &peer), Change::Send { send, peer: Some(peer) }),
        },
        _ => unreachable!("only storing commands come here"),
    })
}
