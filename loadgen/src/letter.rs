//! The text of a message: proves itself to whoever reads it.
//!
//! ```text
//!  0..32  message id   32..48  due, ns   48..56  room   56..64  sender   64..72  sum   72..  padding
//! ```
//! All fields are lower-case hexadecimal. The sum covers everything else, so a text that was cut, mixed
//! up or filed under another message does not read.

use std::ops::Range;

use protocol::{ids::MessageId, limits::TEXT_BYTES_MAX};

use crate::{
    clock::Moment,
    plan::{RoomIndex, UserIndex},
};

const ID: Range<usize> = 0..32;
const DUE: Range<usize> = 32..48;
const ROOM: Range<usize> = 48..56;
const SENDER: Range<usize> = 56..64;
const SUM: Range<usize> = 64..72;

/// Smallest text: the fields alone.
pub(crate) const LETTER_BYTES_MIN: usize = SUM.end;
/// Largest text.
pub(crate) const LETTER_BYTES_MAX: usize = TEXT_BYTES_MAX;

/// What a text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) message_id: MessageId,
    /// When it was to be sent.
    pub(crate) due: Moment,
    pub(crate) room: RoomIndex,
    pub(crate) sender: UserIndex,
}

impl Letter {
    /// A text of `bytes` bytes.
    pub(crate) fn write(&self, bytes: usize) -> String {
        let id = u128::from_be_bytes(self.message_id.0);
        let mut text =
            format!("{id:032x}{:016x}{:08x}{:08x}00000000", self.due.0, self.room.0, self.sender.0);
        while text.len() < bytes {
            text.push(char::from(b'a' + (text.len() % 26) as u8));
        }
        let sum = format!("{:08x}", sum(text.as_bytes()));
        text.replace_range(SUM, &sum);
        text
    }

    /// `None` for a text that nobody wrote like this.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let field = |range: Range<usize>| text.get(range);
        let number = |range| u32::from_str_radix(field(range)?, 16).ok();
        if number(SUM)? != sum(text.as_bytes()) {
            return None;
        }
        Some(Self {
            message_id: MessageId(u128::from_str_radix(field(ID)?, 16).ok()?.to_be_bytes()),
            due: Moment(u64::from_str_radix(field(DUE)?, 16).ok()?),
            room: RoomIndex(number(ROOM)?),
            sender: UserIndex(number(SENDER)?),
        })
    }
}

/// FNV-1a over everything but the sum itself, folded to 32 bits.
fn sum(text: &[u8]) -> u32 {
    let (before, after) = (&text[..SUM.start.min(text.len())], &text[SUM.end.min(text.len())..]);
    let hash = before.iter().chain(after).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: Letter =
        Letter { message_id: MessageId([7; 16]), due: Moment(99), room: RoomIndex(5), sender: UserIndex(3) };

    #[test]
    fn what_is_written_reads() {
        for bytes in [LETTER_BYTES_MIN, 128, LETTER_BYTES_MAX] {
            let text = LETTER.write(bytes);
            assert_eq!(text.len(), bytes);
            assert_eq!(Letter::read(&text), Some(LETTER));
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_shows() {
        let text = LETTER.write(100);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_ne!(Letter::read(&changed), Some(LETTER), "byte {at}");
            assert_eq!(Letter::read(&text[..at]), None, "cut at {at}");
        }
    }
}
