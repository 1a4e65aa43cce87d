//! One session: where it stands in every log, and what it may still ask for.

use std::collections::VecDeque;

use hashbrown::HashMap;
use protocol::event::{Presence, Reached};
use protocol::ids::{ConversationId, DeviceId, RequestId, Seq, UserId};
use protocol::upgrade::Form;
use smallvec::SmallVec;

use super::listing::Listing;
use super::outbox::Outbox;
use super::rates::Meter;
use super::searching::Searching;
use crate::cursor::{self, Positions};
use crate::mail::{Request, Surveyed};
use crate::turns::When;

/// How a session gets the records of one log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It has everything up to its position and is given what comes.
    Live,
    /// It is fed from the log: the next page is to be asked for.
    Behind,
    /// A page is on its way.
    Asked,
    /// It starts at the head, which is not known yet: to be asked for.
    Unplaced,
    /// Its conversations are surveyed and fed one by one before it follows the log.
    Surveyed,
}

/// Where a session stands in one log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogState {
    pub(super) position: u64,
    /// Positions up to there that its device has not acknowledged, of those since it began; [`UNKNOWN`] until it has a place, and where they
    /// are too many.
    unacked: u32,
    /// Positions up to there that its device was given, on this connection and before, as far as a [cursor] says it; little endian.
    followed: [u8; 3],
    pub(super) phase: Phase,
}

/// No number of positions.
const UNKNOWN: u32 = u32::MAX;

// There is one for each session and log.
const _: () = assert!(size_of::<LogState>() == 16);
const _: () = assert!(cursor::FOLLOWED_MAX < 1 << 24);

impl LogState {
    pub(super) fn at(position: u64, phase: Phase) -> Self {
        let has_place = !matches!(phase, Phase::Unplaced | Phase::Surveyed);
        Self { position, unacked: if has_place { 0 } else { UNKNOWN }, followed: [0; 3], phase }
    }

    /// Its device has been given so many positions before it came.
    pub(super) fn having_followed(mut self, positions: u32) -> Self {
        self.follow(positions);
        self
    }

    /// Up to where its device has acknowledged, if that counts.
    pub(super) fn acked(&self) -> Option<u64> {
        (self.unacked != UNKNOWN).then(|| self.position.saturating_sub(u64::from(self.unacked)))
    }

    /// As [`LogState::acked`] said of it in another process.
    pub(super) fn acked_up_to(self, acked: Option<u64>) -> Self {
        let unacked = acked.and_then(|acked| u32::try_from(self.position.saturating_sub(acked)).ok());
        // What it has not acknowledged it was given there.
        Self { unacked: unacked.unwrap_or(UNKNOWN), ..self.having_followed(unacked.unwrap_or(0)) }
    }

    /// How many positions up to where it stands its device was given, as far as is known.
    pub(super) fn followed(&self) -> u32 {
        let [low, middle, high] = self.followed;
        u32::from_le_bytes([low, middle, high, 0])
    }

    fn follow(&mut self, positions: u32) {
        let followed = self.followed().saturating_add(positions).min(cursor::FOLLOWED_MAX);
        let [low, middle, high, _] = followed.to_le_bytes();
        self.followed = [low, middle, high];
    }

    /// It was given what there is up to a position.
    pub(super) fn move_to(&mut self, position: u64) {
        let moved = u32::try_from(position.saturating_sub(self.position)).unwrap_or(UNKNOWN);
        // Who has no place yet is put there, and was given nothing of what stands before.
        if self.unacked != UNKNOWN {
            self.follow(moved);
        }
        self.unacked = self.unacked.saturating_add(moved);
        self.position = position;
    }

    /// It has a place: what comes from there on is for its device to acknowledge.
    pub(super) fn begin_acked(&mut self) {
        if self.unacked == UNKNOWN {
            self.unacked = 0;
        }
    }

    /// Its device was given what it did not have from a position up to where it stands: that is for it to acknowledge.
    pub(super) fn was_fed_from(&mut self, position: u64) {
        let given = self.position.saturating_sub(position.saturating_sub(1));
        let given = u32::try_from(given).unwrap_or(cursor::FOLLOWED_MAX).min(cursor::FOLLOWED_MAX);
        self.unacked = given;
        self.follow(given);
    }

    /// Its device has stored what stands up to a position, which it was given: after where, and up to where, if that is news.
    pub(super) fn note_acked(&mut self, position: u64) -> Option<(u64, u64)> {
        let to = position.min(self.position);
        let after = self.acked().filter(|after| to > *after)?;
        self.unacked = u32::try_from(self.position - to).unwrap_or(UNKNOWN);
        Some((after, to))
    }
}

/// The first answer that is still owed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Greeting {
    pub(super) id: RequestId,
    pub(super) reset: bool,
}

/// A conversation whose missing records are to be fed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Missing {
    pub(super) log: u16,
    pub(super) conversation: ConversationId,
    pub(super) after: Seq,
    pub(super) visible_from: Seq,
}

/// What a session that connected with positions goes through before it follows the logs.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// What the client knows.
    pub(super) known: Vec<(ConversationId, Seq)>,
    /// What was found: per conversation the latest, so it is bounded by the conversations that the user was ever in.
    pub(super) found: HashMap<ConversationId, Surveyed, foldhash::fast::RandomState>,
    /// Per log: where the survey goes on, until it has ended.
    pub(super) next: SmallVec<[Option<u64>; 4]>,
    /// Conversations to name, by log, once it is known how far they were read.
    pub(super) unnamed: VecDeque<(u16, Surveyed)>,
    /// Conversations to feed.
    pub(super) missing: VecDeque<Missing>,
    /// Its device is only told the head of some conversation, so it does not have all that stands before its place.
    pub(super) leaves_some: bool,
    /// Per log: position of the first record that it was fed there.
    pub(super) fed_from: SmallVec<[Option<u64>; 4]>,
}

/// A conversation that a session views.
#[derive(Debug)]
pub(super) struct View {
    pub(super) conversation: ConversationId,
    /// The command that is not answered yet.
    pub(super) asked: Option<RequestId>,
}

/// What a session views, and what it has not been told of that because it did not read: the newest of each user.
#[derive(Debug, Default)]
pub(super) struct Viewing {
    pub(super) views: Vec<View>,
    pub(super) late: Vec<Presence>,
    /// Likewise, how far somebody has come: the newest of each.
    pub(super) late_receipts: Vec<(ConversationId, UserId, Reached)>,
    /// Likewise, that its user is invisible or is not any more: whichever is so then.
    pub(super) late_invisible: bool,
}

impl Viewing {
    /// Whether it has not been told something of others yet: what follows waits behind that.
    pub(super) fn has_late(&self) -> bool {
        !self.late.is_empty() || !self.late_receipts.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.views.is_empty() && !self.has_late() && !self.late_invisible
    }
}

/// What waits for its turn to be made when the outbox is empty.
#[derive(Debug)]
pub(super) enum Held {
    /// A view that waits ahead of this was ended, which is said after its answer: whoever goes on with the session hears of both.
    Ended { number: RequestId, conversation: ConversationId },
    /// A list of conversations, which takes several requests.
    Listing(Box<Listing>),
    /// What one request answers.
    Page(Request),
    /// A search, which takes several requests, and the index.
    Search(Box<Searching>),
}

/// What was known of a session's user in the process that this one goes on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ToldBefore {
    /// Nothing: the session began here, or while it was still asked for whether its user is invisible.
    Nothing,
    /// The session knew whether its user is invisible, and viewers that it is here; or not, where it is.
    AllThatIsSo,
    /// The same, but that was while its user was invisible, which it is not any more: viewers do not know that it is here.
    Otherwise,
}

pub(super) struct Session {
    pub(super) generation: u32,
    /// The gateway's name for the connection.
    pub(super) connection: u64,
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) form: Form,
    pub(super) logs: SmallVec<[LogState; 4]>,
    pub(super) outbox: Outbox,
    /// What it has asked for lately.
    pub(super) asked: Meter,
    /// Commands whose reply has not left the outbox.
    pub(super) commands: u32,
    /// History and lists that wait until the outbox is empty: at most `commands`.
    pub(super) held: VecDeque<Held>,
    pub(super) page_in_flight: bool,
    pub(super) greeting: Option<Greeting>,
    /// `caught_up` is owed.
    pub(super) catching_up: bool,
    /// Something could not be read for this session.
    pub(super) partial: bool,
    pub(super) survey: Option<Box<Survey>>,
    pub(super) viewing: Option<Box<Viewing>>,
    pub(super) since_cursor: u32,
    pub(super) cursor_at: u64,
    /// The log whose page is asked for next, so that no log waits for another to end.
    pub(super) turn: u16,
    /// Stands among the sessions that wait for a page credit: soon, where its user asks for one.
    pub(super) starved: Option<When>,
    /// Stands among the sessions with something to send: soon, where that is for few, a reply or news of its own.
    pub(super) listed: Option<When>,
    /// In which unit it was written when its user was last seen; of a user's first session.
    pub(super) written: u16,
    /// What was told in another process.
    pub(super) told: ToldBefore,
}

// An idle connection has one.
const _: () = assert!(size_of::<Session>() <= 296);

impl Session {
    /// One that has asked for nothing and is owed nothing.
    pub(super) fn at_rest(
        connection: u64,
        user: UserId,
        device: DeviceId,
        form: Form,
        logs: SmallVec<[LogState; 4]>,
    ) -> Self {
        Self {
            generation: 0,
            connection,
            user,
            device,
            form,
            logs,
            outbox: Outbox::default(),
            asked: Meter::default(),
            commands: 0,
            held: VecDeque::new(),
            page_in_flight: false,
            greeting: None,
            catching_up: false,
            partial: false,
            survey: None,
            viewing: None,
            since_cursor: 0,
            cursor_at: 0,
            turn: 0,
            starved: None,
            listed: None,
            written: 0,
            told: ToldBefore::Nothing,
        }
    }

    /// Positions, once every log has one.
    pub(super) fn positions(&self) -> Option<Positions> {
        let placed = |log: &LogState| !matches!(log.phase, Phase::Unplaced | Phase::Surveyed);
        // A page that is being asked for by a session without a place has position 0 and `greeting` set.
        (self.survey.is_none() && self.greeting.is_none() && self.logs.iter().all(placed))
            .then(|| self.logs.iter().map(|log| log.position).collect())
    }

    /// Gives back what it held while something was under way: of a hundred thousand quiet sessions that is most of a node's memory.
    pub(super) fn release(&mut self) {
        if self.held.is_empty() && self.held.capacity() > 0 {
            self.held = VecDeque::new();
        }
        self.viewing.take_if(|viewing| viewing.is_empty());
    }

    pub(super) fn is_released(&self) -> bool {
        let holds_some = self.held.capacity() > 0 || self.survey.is_some() || self.viewing.is_some();
        self.outbox.is_released() && !holds_some
    }

    pub(super) fn is_live(&self) -> bool {
        self.logs.iter().all(|log| log.phase == Phase::Live)
    }
}
