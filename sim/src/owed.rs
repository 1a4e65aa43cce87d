//! What a client is owed on its connection: the answers to what it has asked, and `caught_up` where it came with something.
//!
//! `answered_once`: every command is answered on the connection that it came by, unless that ends; once, and of pages each behind those that
//! were asked for before it, whatever process goes on with the connection. While nothing is under way in the node, nobody waits for anything.

use std::collections::BTreeMap;

use protocol::command::{Command, Request};
use protocol::event::ServerFrame;
use protocol::ids::RequestId;

/// The `connect` of each connection.
pub(crate) const CONNECT: RequestId = RequestId(1);

/// No number of a command: stands for `caught_up`, which none asks for.
const UNASKED: RequestId = RequestId(0);

/// In which order something is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// When it is done.
    Any,
    /// Behind all pages that were asked for before it.
    Page,
}

/// Of one connection.
pub(crate) struct Owed {
    /// By the numbers of the commands, which grow.
    asked: BTreeMap<RequestId, Turn>,
    caught_up: bool,
    /// What was owed longest when that was last looked at, and since when nothing but that is to be done.
    oldest: Option<(RequestId, u64)>,
    /// What was owed when another process went on with it: up to which command, and whether `caught_up`.
    taken_over: (RequestId, bool),
}

impl Owed {
    /// Of a connection that begins with `connect`; with something behind which it is to be fed, or at the head.
    pub(crate) fn new(caught_up: bool) -> Self {
        let asked = BTreeMap::from([(CONNECT, Turn::Any)]);
        Self { asked, caught_up, oldest: None, taken_over: (UNASKED, false) }
    }

    pub(crate) fn note_asked(&mut self, request: &Request) {
        let Some(id) = request.id else { return };
        let turn = match request.command {
            Command::Conversations { .. }
            | Command::History { .. }
            | Command::ListMembers { .. }
            | Command::Search(_)
            | Command::View { .. } => Turn::Page,
            _ => Turn::Any,
        };
        assert!(self.asked.insert(id, turn).is_none(), "a command has a number of its own");
    }

    /// Takes what may be an answer. A refusal need not wait for its turn.
    pub(crate) fn note_told(&mut self, frame: &ServerFrame) {
        let Some(id) = answered_by(frame) else { return };
        let turn = self.asked.remove(&id);
        assert!(turn.is_some(), "answered_once: {id} was not asked, or answered before: {frame:?}");
        if turn == Some(Turn::Page) && !matches!(frame, ServerFrame::Error(_)) {
            let mut before = self.asked.range(..id).filter(|(_, turn)| **turn == Turn::Page);
            let passed_over = before.next().map(|(id, _)| id);
            assert_eq!(passed_over, None, "answered_once: it was asked for before {frame:?}");
        }
    }

    pub(crate) fn note_caught_up(&mut self) {
        assert!(std::mem::take(&mut self.caught_up), "answered_once: `caught_up` comes where one is behind");
    }

    /// It begins at the head, whatever it came with.
    pub(crate) fn note_reset(&mut self) {
        self.caught_up = false;
    }

    /// Until `caught_up` what is known already may come again.
    pub(crate) fn is_catching_up(&self) -> bool {
        self.caught_up
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty() && !self.caught_up
    }

    /// Another process goes on with the connection: what is owed by now is waited for, or nobody would see that it does not come.
    pub(crate) fn note_taken_over(&mut self) {
        let newest = self.asked.last_key_value().map_or(UNASKED, |(id, _)| *id);
        self.taken_over = (newest, self.caught_up);
    }

    /// Whether some of that is still to come.
    pub(crate) fn is_waited_for(&self) -> bool {
        let (newest, caught_up) = self.taken_over;
        (caught_up && self.caught_up) || self.asked.range(..=newest).next().is_some()
    }

    /// What has been owed longest, and for how many microseconds at least nothing has been under way for it.
    pub(crate) fn oldest(&mut self, now: u64, is_under_way: bool) -> Option<(RequestId, u64)> {
        let first = self.asked.first_key_value().map(|(id, _)| *id);
        let oldest = if self.caught_up { first.or(Some(UNASKED)) } else { first }.filter(|_| !is_under_way);
        let since = self.oldest.filter(|(id, _)| Some(*id) == oldest).map_or(now, |(_, since)| since);
        self.oldest = oldest.map(|id| (id, since));
        oldest.map(|id| (id, now - since))
    }
}

/// Which command a frame answers.
fn answered_by(frame: &ServerFrame) -> Option<RequestId> {
    match frame {
        ServerFrame::Conversations { id, .. }
        | ServerFrame::Found { id, .. }
        | ServerFrame::MembersPage { id, .. }
        | ServerFrame::Page { id, .. }
        | ServerFrame::Pong { id, .. }
        | ServerFrame::Viewed { id, .. } => Some(*id),
        ServerFrame::Error(error) => error.id,
        ServerFrame::Ok(ok) => Some(ok.id),
        ServerFrame::Welcome(welcome) => Some(welcome.id),
        ServerFrame::Amended(_)
        | ServerFrame::CaughtUp { .. }
        | ServerFrame::Cursor { .. }
        | ServerFrame::Drain { .. }
        | ServerFrame::Gap(_)
        | ServerFrame::Heads { .. }
        | ServerFrame::Invisible { .. }
        | ServerFrame::Member(_)
        | ServerFrame::Message(_)
        | ServerFrame::Presence(_)
        | ServerFrame::Receipt { .. }
        | ServerFrame::Typing { .. } => None,
    }
}
