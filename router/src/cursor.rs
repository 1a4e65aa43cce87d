//! Cursors: where a device stands in every log, as an opaque string that only this store understands.
//!
//! `base64url([version u8][logs u8][run 16][position u64 each][followed u16 each][tag 16])`. The tag is keyed BLAKE3 over all before it,
//! the store and the user, so nobody can make one up or use another user's. The run says which start of the node made
//! it: a position that this start cannot have reached before the next one began comes from a copy of the directory that
//! went on without us, and is answered with a reset instead of silence. A device that began at the head was not given what stands before, so
//! a position alone says nothing of what was delivered: `followed`, by fours, is of how many positions up to there it was. Version 1 had none of that.
//! The top bit of `logs` says that the cursor is [whole](Cursor::is_whole).

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::ids::UserId;
use protocol::limits::CURSOR_BYTES_MAX;
use smallvec::SmallVec;
use storage_log::Run;

use crate::places::{LOGS_MAX, Places};

const VERSION: u8 = 2;
/// Without what was followed, which then was nothing.
const VERSION_1: u8 = 1;
const HEAD_BYTES: usize = 2 + 16;

const _: () = assert!((HEAD_BYTES + LOGS_MAX as usize * 10 + TAG_BYTES).div_ceil(3) * 4 <= CURSOR_BYTES_MAX);

/// In the byte of `logs`, of which there are at most 32.
const WHOLE: u8 = 1 << 7;
pub(crate) const TAG_BYTES: usize = 16;

/// Sets its tags apart from others.
const DOMAIN: &[u8] = b"cursor";

/// One position per log, in the order of the logs.
pub type Positions = SmallVec<[u64; 4]>;

/// Positions behind which it is not counted how many a device was given: as many as two bytes of a cursor say, by fours.
pub(crate) const FOLLOWED_MAX: u32 = (1 << 18) - 1;

/// Positions that are one in a cursor: with 32 logs it has 472 bytes of the 512 that it may have.
const FOLLOWED_UNIT: u32 = 4;

/// A cursor that was understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// Every record of the user at or below these positions has been given to the device.
    pub positions: Positions,
    /// How many positions before each were given to the device, rounded down, 262,143 at most; of what stands before it is not known.
    pub followed: SmallVec<[u32; 4]>,
    /// It was made while its session was live in every log: of large groups, too, all that these positions are of was given to the device or named
    /// by a head. While a session catches up, a page names no group whose newest record stands behind it, and its cursor is beyond older ones.
    pub is_whole: bool,
}

impl Cursor {
    /// Of a device that stands at these positions, and of which nothing is known beside.
    #[must_use]
    pub fn at(positions: Positions) -> Self {
        let followed = SmallVec::from_elem(0, positions.len());
        Self { positions, followed, is_whole: false }
    }
}

/// Why a cursor is not honoured. The client is told `reset`, whatever the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CursorError {
    /// Not a cursor of this store and this user.
    Foreign,
    /// From a start that this store does not remember, or ahead of what that start wrote.
    Unknown,
    /// Something that follows it may not be kept any more.
    Forgotten,
}

/// What cursors are judged by: the starts of this node in each log, fixed while it runs, and from where on inboxes are kept.
#[derive(Debug)]
pub struct Starts {
    runs: Vec<Vec<Run>>,
    kept_from: Vec<AtomicU64>,
}

impl Starts {
    /// `runs[log]` are the starts that log remembers, oldest first; the last is the present one, in every log.
    #[must_use]
    pub fn new(runs: Vec<Vec<Run>>) -> Self {
        let kept_from = runs.iter().map(|_| AtomicU64::new(0)).collect();
        Self { runs, kept_from }
    }

    /// Inboxes in `log` are kept from `position` on. The owner of the log says so before anything of them is missing to anybody:
    /// a cursor that was judged before is judged again where its page is made.
    pub fn keep_from(&self, log: u16, position: u64) {
        self.kept_from[usize::from(log)].fetch_max(position, Ordering::Relaxed);
    }

    fn is_kept_after(&self, log: usize, position: u64) -> bool {
        position + 1 >= self.kept_from[log].load(Ordering::Relaxed)
    }

    /// A log that was refused at start: positions in it are taken as they are and kept.
    fn is_refused(&self, log: usize) -> bool {
        self.runs[log].is_empty()
    }

    fn current(&self) -> Option<[u8; 16]> {
        self.runs.iter().find_map(|runs| runs.last()).map(|run| run.id)
    }

    /// The first position that run `id` cannot have given out in `log`; `None` when the run is not remembered.
    ///
    /// A log that was refused in a run does not know it. What a cursor of that run says of it comes from a run before, so
    /// it stands below the next run that the log knows.
    fn end_of(&self, log: usize, id: [u8; 16]) -> Option<u64> {
        let runs = &self.runs[log];
        if let Some(later) = later_than(runs, id) {
            return Some(later.first().map_or(u64::MAX, |next| next.first_position));
        }
        let later = self.runs.iter().find_map(|runs| later_than(runs, id))?;
        let next = later.iter().find_map(|run| runs.iter().find(|known| known.id == run.id))?;
        Some(next.first_position)
    }
}

/// The runs after run `id`, if it is one of `runs`.
fn later_than(runs: &[Run], id: [u8; 16]) -> Option<&[Run]> {
    let place = runs.iter().position(|run| run.id == id)?;
    Some(&runs[place + 1..])
}

/// Writes the cursor of a user.
#[must_use]
pub fn encode(places: &Places, starts: &Starts, user: &UserId, cursor: &Cursor) -> String {
    let Cursor { positions, followed, is_whole } = cursor;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + positions.len() * 10 + TAG_BYTES);
    bytes.push(VERSION);
    bytes.push(positions.len() as u8 | if *is_whole { WHOLE } else { 0 });
    bytes.extend_from_slice(&starts.current().unwrap_or_default());
    for position in positions {
        bytes.extend_from_slice(&position.to_le_bytes());
    }
    for positions in followed {
        let units = u16::try_from(positions / FOLLOWED_UNIT).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&units.to_le_bytes());
    }
    let tag = tag(places, user, DOMAIN, &bytes);
    bytes.extend_from_slice(&tag);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor of a user.
///
/// # Errors
/// [`CursorError`]: start afresh and say so.
pub fn decode(places: &Places, starts: &Starts, user: &UserId, text: &str) -> Result<Cursor, CursorError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Foreign)?;
    let logs = usize::from(places.logs);
    let each = match bytes.first() {
        Some(&VERSION) => 8 + 2,
        Some(&VERSION_1) => 8,
        _ => return Err(CursorError::Foreign),
    };
    let is_whole = bytes[0] == VERSION && bytes.get(1).is_some_and(|logs| logs & WHOLE != 0);
    let logs_given = bytes.get(1).map_or(0, |logs| usize::from(if is_whole { logs & !WHOLE } else { *logs }));
    if bytes.len() != HEAD_BYTES + logs * each + TAG_BYTES || logs_given != logs {
        return Err(CursorError::Foreign);
    }
    let (signed, given) = bytes.split_at(bytes.len() - TAG_BYTES);
    if tag(places, user, DOMAIN, signed) != given {
        return Err(CursorError::Foreign);
    }
    let run: [u8; 16] = signed[2..HEAD_BYTES].try_into().expect("16 bytes");
    let (positions, followed) = signed[HEAD_BYTES..].split_at(logs * 8);
    let units = followed.chunks_exact(2).map(|chunk| u16::from_le_bytes(chunk.try_into().expect("2 bytes")));
    let followed = units.map(|units| u32::from(units) * FOLLOWED_UNIT).chain(std::iter::repeat(0)).take(logs);
    let followed = followed.collect();
    let positions: Positions = positions
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("8 bytes")))
        .collect();
    for (log, position) in positions.iter().enumerate().filter(|(log, _)| !starts.is_refused(*log)) {
        let end = starts.end_of(log, run).ok_or(CursorError::Unknown)?;
        if *position >= end {
            return Err(CursorError::Unknown);
        }
        if !starts.is_kept_after(log, *position) {
            return Err(CursorError::Forgotten);
        }
    }
    Ok(Cursor { positions, followed, is_whole })
}

/// The tag of something that only this store makes, of a user, as what it is.
pub(crate) fn tag(places: &Places, user: &UserId, domain: &[u8], signed: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(&places.key);
    hasher.update(domain).update(&places.store);
    hasher.update(&(signed.len() as u64).to_le_bytes()).update(signed).update(user.as_bytes());
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::new([1; 16], [2; 32], 2, 2)
    }

    fn at(positions: [u64; 2]) -> Cursor {
        let followed = [7, 900_000].into_iter().collect();
        Cursor { positions: positions.into_iter().collect(), followed, is_whole: false }
    }

    fn run(id: u8, first_position: u64) -> Run {
        Run { id: [id; 16], first_position }
    }

    #[test]
    fn a_cursor_is_honoured_only_by_the_store_the_user_and_the_history_it_came_from() {
        let user = UserId::new("alice").expect("a user");
        let first = Starts::new(vec![vec![run(1, 1)], vec![run(1, 1)]]);
        let cursor = encode(&places(), &first, &user, &at([10, 20]));
        let read = |starts: &Starts| {
            decode(&places(), starts, &user, &cursor).map(|cursor| cursor.positions.to_vec())
        };
        assert_eq!(read(&first), Ok(vec![10, 20]));
        let whole = decode(&places(), &first, &user, &cursor).expect("it is ours");
        assert_eq!(whole.followed.to_vec(), [4, FOLLOWED_MAX - 3], "rounded down, and bounded");
        assert!(!whole.is_whole);
        let live = Cursor { is_whole: true, ..at([10, 20]) };
        let live = decode(&places(), &first, &user, &encode(&places(), &first, &user, &live));
        assert_eq!(live, Ok(Cursor { is_whole: true, ..whole }));
        // One of before counts as it did.
        let mut older = vec![VERSION_1, 2];
        older.extend_from_slice(&[1; 16]);
        [10_u64, 20].iter().for_each(|position| older.extend_from_slice(&position.to_le_bytes()));
        let tag = tag(&places(), &user, DOMAIN, &older);
        older.extend_from_slice(&tag);
        let older = decode(&places(), &first, &user, &URL_SAFE_NO_PAD.encode(older)).expect("it is ours");
        assert_eq!((older.positions.to_vec(), older.followed.to_vec()), (vec![10, 20], vec![0, 0]));
        // After a restart it still stands within what the first run wrote.
        assert_eq!(
            read(&Starts::new(vec![vec![run(1, 1), run(2, 11)], vec![run(1, 1), run(2, 21)]])),
            Ok(vec![10, 20])
        );
        // A backup from before position 20 was restored and went on.
        let restored = Starts::new(vec![vec![run(1, 1), run(3, 11)], vec![run(1, 1), run(3, 15)]]);
        assert_eq!(read(&restored), Err(CursorError::Unknown));
        // Another installation's history.
        assert_eq!(read(&Starts::new(vec![vec![run(9, 1)], vec![run(9, 1)]])), Err(CursorError::Unknown));

        // One log is refused at start: the others are followed, and its position is kept.
        assert_eq!(read(&Starts::new(vec![vec![run(1, 1), run(2, 11)], vec![]])), Ok(vec![10, 20]));

        // And what was kept for it then is honoured when it is served again, unless it is an older copy.
        let second = Starts::new(vec![vec![run(1, 1), run(2, 11)], vec![]]);
        let kept = encode(&places(), &second, &user, &at([12, 20]));
        let read_kept = |first_position| {
            let runs = vec![vec![run(1, 1), run(2, 11), run(3, 14)], vec![run(1, 1), run(3, first_position)]];
            decode(&places(), &Starts::new(runs), &user, &kept).map(|cursor| cursor.positions.to_vec())
        };
        assert_eq!(read_kept(21), Ok(vec![12, 20]));
        assert_eq!(read_kept(20), Err(CursorError::Unknown));

        // A cursor is good as long as all that follows it is kept.
        first.keep_from(1, 21);
        assert_eq!(read(&first), Ok(vec![10, 20]));
        let whole = decode(&places(), &first, &user, &cursor).expect("it is ours");
        assert_eq!(whole.followed.to_vec(), [4, FOLLOWED_MAX - 3], "rounded down, and bounded");
        first.keep_from(1, 22);
        first.keep_from(1, 3);
        assert_eq!(read(&first), Err(CursorError::Forgotten));
        let first = Starts::new(vec![vec![run(1, 1)], vec![run(1, 1)]]);

        let other = UserId::new("bob").expect("a user");
        assert_eq!(decode(&places(), &first, &other, &cursor), Err(CursorError::Foreign));
        let store = Places { store: [9; 16], ..places() };
        assert_eq!(decode(&store, &first, &user, &cursor), Err(CursorError::Foreign));
        for bad in ["", "AAAA", "not base64!", &cursor[1..], &cursor.to_lowercase()] {
            assert!(decode(&places(), &first, &user, bad).is_err());
        }
    }
}
