//! Sessions begin and end: `connect` of a verified user, and every way in which a session goes.
//!
//! A session begins behind, and is fed, unless it starts at the head. One that goes leaves what is half sent to its connection, and what
//! it asked for is still answered, to nobody.

use bytes::Bytes;
use protocol::command::Connect;
use protocol::event::{CloseCode, ErrorCode, ErrorReply, ServerFrame};
use protocol::ids::{RequestId, UnixMillis, UserId};
use protocol::upgrade::Form;
use smallvec::SmallVec;

use super::limits::SESSIONS_PER_USER_MAX;
use super::outbox::Outbox;
use super::rates::Present;
use super::session::{Greeting, LogState, Phase, Session, Survey};
use super::{UserSide, error_index, frames};
use crate::cursor;
use crate::mail::SessionId;

/// A session that was ended from this side.
pub struct Ended {
    /// The gateway's name for its connection.
    pub connection: u64,
    /// Whose it was.
    pub user: UserId,
    /// What is half sent.
    pub outbox: Outbox,
    /// Why, as the client is told,
    pub code: CloseCode,
    /// and in words.
    pub reason: &'static str,
}

/// A `connect` that is refused: the reply to send, and the close that follows it.
#[derive(Debug)]
pub struct ConnectRefusal {
    /// The frame with the `error` reply.
    pub frame: Bytes,
    /// Why the connection ends.
    pub close: CloseCode,
}

/// Where a session begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beginning {
    AtHead,
    /// At its cursor, which may be [whole](cursor::Cursor::is_whole).
    Behind {
        is_whole: bool,
    },
    /// At the sequences that it knows.
    Surveyed,
}

impl UserSide {
    /// Starts a session for a verified user. `connection` names the connection in [`UserSide::poll_sendable`].
    ///
    /// # Errors
    /// [`ConnectRefusal`] when the user has too many sessions.
    pub fn connect(
        &mut self,
        connection: u64,
        user: UserId,
        form: Form,
        id: RequestId,
        connect: Connect,
        now: UnixMillis,
    ) -> Result<SessionId, ConnectRefusal> {
        self.replace(&user, &connect);
        if self.users.get(&user).is_some_and(|present| present.slots.len() >= SESSIONS_PER_USER_MAX) {
            self.counters.errors[error_index(ErrorCode::Limit)] += 1;
            let frame = refusal(form, id, ErrorCode::Limit, "this user has 8 sessions");
            return Err(ConnectRefusal { frame, close: CloseCode::POLICY });
        }
        let (session, beginning) = self.new_session(connection, user.clone(), form, id, connect);
        let greeting = session.greeting;
        self.generation = self.generation.wrapping_add(1);
        let slot = self.sessions.insert(session) as u32;
        let absent = &mut self.absent;
        let present = self.users.entry(user.clone());
        let present = present.or_insert_with(|| Present::having_stored(absent.take(&user)));
        present.slots.push(slot);
        if present.slots.len() == 1 {
            self.note_come(&user);
        }
        let session = SessionId { slot, generation: self.generation };
        self.sessions[slot as usize].generation = self.generation;
        if let Beginning::Behind { is_whole } = beginning {
            self.note_came_with(session, is_whole);
        }
        if beginning != Beginning::AtHead
            && let Some(greeting) = greeting
        {
            self.welcome(session, greeting, now);
        }
        self.ask_pages(session);
        Ok(session)
    }

    /// The session as it begins.
    pub(super) fn new_session(
        &self,
        connection: u64,
        user: UserId,
        form: Form,
        id: RequestId,
        connect: Connect,
    ) -> (Session, Beginning) {
        let logs = usize::from(self.places.logs);
        let given =
            connect.cursor.as_ref().map(|text| cursor::decode(&self.places, &self.starts, &user, text));
        let reset = matches!(given, Some(Err(_)));
        let survey = connect.positions.map(|known| {
            Box::new(Survey { known, next: SmallVec::from_elem(Some(0), logs), ..Survey::default() })
        });
        let states = match (&given, &survey) {
            (Some(Ok(cursor)), _) => {
                let places = cursor.positions.iter().zip(&cursor.followed);
                places
                    .map(|(position, followed)| {
                        LogState::at(*position, Phase::Behind).having_followed(*followed)
                    })
                    .collect()
            }
            (_, Some(_)) => SmallVec::from_elem(LogState::at(0, Phase::Surveyed), logs),
            _ => SmallVec::from_elem(LogState::at(0, Phase::Unplaced), logs),
        };
        let beginning = match (&given, &survey) {
            (Some(Ok(cursor)), _) => Beginning::Behind { is_whole: cursor.is_whole },
            (_, Some(_)) => Beginning::Surveyed,
            _ => Beginning::AtHead,
        };
        let session = Session {
            commands: 1,
            greeting: Some(Greeting { id, reset }),
            catching_up: beginning != Beginning::AtHead,
            survey,
            ..Session::at_rest(connection, user, connect.device, form, states)
        };
        (session, beginning)
    }

    /// The newest session of a device wins.
    pub(super) fn replace(&mut self, user: &UserId, connect: &Connect) {
        let older = self.users.get(user).and_then(|present| {
            present.slots.iter().copied().find(|slot| self.sessions[*slot as usize].device == connect.device)
        });
        if let Some(slot) = older {
            let session = SessionId { slot, generation: self.sessions[slot as usize].generation };
            self.end(session, CloseCode::REPLACED, "a newer session of this device");
        }
    }

    /// Ends a session from this side.
    pub(super) fn end(&mut self, session: SessionId, code: CloseCode, reason: &'static str) {
        let of = self.session(session).map(|session| (session.connection, session.user.clone()));
        if let Some((connection, user)) = of {
            let outbox = self.disconnect(session);
            self.ended.push_back(Ended { connection, user, outbox, code, reason });
        }
    }

    /// Ends a session and gives back what is half sent. What it asked for is still answered, to nobody.
    pub fn disconnect(&mut self, session: SessionId) -> Outbox {
        if self.session(session).is_none() {
            return Outbox::default();
        }
        let ended = self.sessions.remove(session.slot as usize);
        if let Some(Present { slots, .. }) = self.users.get_mut(&ended.user) {
            let is_first = slots.first() == Some(&session.slot);
            slots.retain(|slot| *slot != session.slot);
            match slots.first() {
                None => {
                    let present = self.users.remove(&ended.user).expect("looked at");
                    self.absent.keep(&ended.user, &present, self.presence.clock.micros);
                    self.note_gone(&ended.user, ended.written);
                }
                Some(first) if is_first => self.sessions[*first as usize].written = ended.written,
                Some(_) => {}
            }
        }
        for view in ended.viewing.into_iter().flat_map(|viewing| viewing.views) {
            self.end_view(session, view.conversation);
        }
        ended.outbox.into_half_sent()
    }

    /// The next connection that is to be closed because its session was ended.
    pub fn poll_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    /// Who a session belongs to.
    #[must_use]
    pub fn user_of(&self, id: SessionId) -> Option<&UserId> {
        let session = self.sessions.get(id.slot as usize)?;
        (session.generation == id.generation).then_some(&session.user)
    }

    /// The connections of a user's sessions, as [`UserSide::connect`] was told them.
    pub fn connections_of(&self, user: &UserId) -> impl Iterator<Item = u64> + '_ {
        let slots = self.users.get(user).into_iter().flat_map(|present| &present.slots);
        slots.map(|slot| self.sessions[*slot as usize].connection)
    }
}

/// The frame of an `error` reply to a connection that has no session.
#[must_use]
pub fn refusal(form: Form, id: RequestId, code: ErrorCode, message: &str) -> Bytes {
    let error = ErrorReply { id: Some(id), code, message: message.to_owned(), retry_after_ms: None };
    frames::server_frame(form, &ServerFrame::Error(error))
}
