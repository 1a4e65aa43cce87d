//! The segment after the present one, made ahead: a full disk shows when it is made and never when a message is stored.
//!
//! It is reserved as soon as the log goes on in another. Once that one is well under way the spare is written with zeros,
//! so that batches change nothing but their own blocks; a small store never gets that far and writes none. Nobody waits
//! for zeros: shortly before the end of the present segment whoever writes them is told to stop.

use crate::log::Answer;

/// What somebody else is to do about the next segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpareWork {
    /// Make the segment at this base: [`crate::Log::handle_spare`] takes the answer.
    Make(u64),
    /// Write zeros over all but its header: [`crate::Log::handle_spare_zeroed`] takes the answer, however much was written.
    Zero(u64),
    /// Stop writing zeros at once, and answer.
    Hurry,
}

/// Part of the present segment that is full when zeros are begun,
const ZERO_FROM: (u64, u64) = (1, 4);

/// and when whoever writes them is to stop. What is left, 32 MiB, takes longer to fill than a piece of zeros to write.
const HURRY_FROM: (u64, u64) = (7, 8);

/// Why a segment could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotMade {
    /// The disk gave an error.
    Failed,
    /// There is no room for it: retention by size may make some.
    NoRoom,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Wanted,
    /// Could not be made when it was last asked for.
    Refused(NotMade),
    Reserved,
    /// Its zeros are being written: no batch may go there.
    Zeroing {
        hurried: bool,
    },
    Zeroed,
}

pub(crate) struct Spare {
    state: State,
    /// Somebody makes it.
    asked: bool,
}

impl Spare {
    pub(crate) fn wanted() -> Self {
        Self { state: State::Wanted, asked: false }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, State::Reserved | State::Zeroed)
    }

    /// What an append is told that needs it now.
    pub(crate) fn refusal(&self) -> Option<Answer> {
        match self.state {
            State::Reserved | State::Zeroed => None,
            State::Refused(_) => Some(Answer::Full),
            State::Wanted | State::Zeroing { .. } => Some(Answer::Busy),
        }
    }

    /// Whether there was no room for it when it was last asked for.
    pub(crate) fn lacks_room(&self) -> bool {
        self.state == State::Refused(NotMade::NoRoom)
    }

    /// What is to be done now, said once. `base` is its own, `filled` of `segment_bytes` are full in the present segment.
    pub(crate) fn poll(&mut self, base: u64, filled: u64, segment_bytes: u64) -> Option<SpareWork> {
        let beyond = |(part, of): (u64, u64)| filled * of > segment_bytes * part;
        match self.state {
            State::Wanted | State::Refused(_) if !self.asked => {
                self.asked = true;
                Some(SpareWork::Make(base))
            }
            State::Reserved if beyond(ZERO_FROM) && !beyond(HURRY_FROM) => {
                self.state = State::Zeroing { hurried: false };
                Some(SpareWork::Zero(base))
            }
            State::Zeroing { hurried: false } if beyond(HURRY_FROM) => {
                self.state = State::Zeroing { hurried: true };
                Some(SpareWork::Hurry)
            }
            _ => None,
        }
    }

    pub(crate) fn handle_made(&mut self, made: Result<(), NotMade>) {
        self.asked = false;
        self.state = made.map_or_else(State::Refused, |()| State::Reserved);
    }

    pub(crate) fn handle_zeroed(&mut self) {
        assert!(matches!(self.state, State::Zeroing { .. }), "zeros are asked for once");
        self.state = State::Zeroed;
    }
}
