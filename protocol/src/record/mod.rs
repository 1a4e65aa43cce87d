//! Stored records: the portable 64 bytes and the payload behind them.
//!
//! These bytes are the same on disk, in a backup, in another node and on the wire of `chat.v1.bin`.
//! What only one log knows (positions, links, its own checksums) stands before and behind them there
//! and never leaves it.
//!
//! ```text
//!  0      4     6   7    8        12     14     16             32    40    48      56      64
//!  | crc  |magic|ver|kind| length |schema|flags | conversation | seq | at  | count |  sum  | payload ...
//!  | u32  | u16 | u8| u8 |  u32   | u16  | u16  |   [u8; 16]   | u64 | u64 |  u64  |  u64  |
//! ```
//!
//! All integers little-endian. `crc` is CRC-32C over bytes 4..64; `sum` is XXH3-64 of the payload,
//! seeded with (first 8 bytes of the conversation id, little-endian) XOR seq, so that a payload does not
//! fit another record's header.
//!
//! Invariant: a [`Portable`] that was parsed had an intact header; a payload that passed
//! [`Portable::check_payload`] is the one the header was made for.

mod amendment;
mod ext;
mod payload;
mod stored;

use std::{fmt, ops::Range};

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use amendment::{Amendment, AmendmentKind, ReactionsFull};
pub(crate) use amendment::{ReactionGroup, reaction_groups};
pub use ext::Ext;
pub use payload::{
    AmendmentV1, ArchivedAmendmentV1, ArchivedConversationStateV1, ArchivedFormV1, ArchivedMemberV1,
    ArchivedMembershipV1, ArchivedMessageV1, ArchivedMuteV1, ArchivedNameV1, ArchivedPositionV1,
    ArchivedPositionsV1, ArchivedReactionV1, ArchivedSettingsV1, ArchivedSightingV1, ArchivedTakenUserV1,
    ArchivedTakenV1, Body, ConversationStateV1, FormV1, MemberV1, MembershipV1, MessageV1, MuteV1, NameV1,
    PositionV1, PositionsV1, ReactionV1, Schema, SettingsV1, SightingV1, TakenUserV1, TakenV1,
};
pub use stored::{Stored, StoredBody, StoredItem, StoredListed};

pub use crate::json::{render_json, write_json};

use crate::{
    ids::{ConversationId, Seq, UnixMillis},
    limits,
};

/// Size of the portable part.
pub const PORTABLE_BYTES: usize = 64;

/// "GH", at byte 4.
pub const MAGIC: u16 = u16::from_le_bytes(*b"GH");

/// Version of the portable part.
pub const VERSION: u8 = 1;

/// Schema of a record of which nothing is kept but its number, nor of any before it in its stream.
pub const SCHEMA_GONE: u16 = 0;

/// Schema of a record whose content was erased: its number is kept, and what stands before it.
pub const SCHEMA_ERASED: u16 = u16::MAX;

const CHECKSUM: Range<usize> = 0..4;
const CHECKED: Range<usize> = 4..64;
const MAGIC_AT: Range<usize> = 4..6;
const VERSION_AT: usize = 6;
const KIND: usize = 7;
const LENGTH: Range<usize> = 8..12;
const SCHEMA: Range<usize> = 12..14;
const FLAGS: Range<usize> = 14..16;
const CONVERSATION: Range<usize> = 16..32;
const SEQ: Range<usize> = 32..40;
const AT: Range<usize> = 40..48;
const MESSAGE_COUNT: Range<usize> = 48..56;
const PAYLOAD_SUM: Range<usize> = 56..64;

/// Why bytes are not a record we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A checksum does not match, or the bytes contradict themselves.
    Damaged,
    /// Not all here yet: more bytes may make it a record.
    Short,
    /// Intact, but of a version or stream kind that this program does not know.
    Unsupported,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "the record is damaged",
            Self::Short => "the record is cut short",
            Self::Unsupported => "the record is of an unknown version or kind",
        })
    }
}

impl std::error::Error for RecordError {}

/// What a stream holds. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StreamKind {
    /// Messages, amendments and membership events of a conversation.
    Messages = 1,
    /// The newest state of a conversation.
    State = 2,
    /// Read and delivered positions of a conversation's members.
    Positions = 3,
    /// Links to what a user has to receive.
    Inbox = 4,
    /// Links to what made or ended a user's memberships.
    Memberships = 5,
    /// Mutes, devices, push tokens of a user.
    Settings = 6,
    /// The starts of the process.
    Runs = 7,
    /// Links from a conversation's amendments to what they amend.
    Amendments = 8,
    /// When a user was last seen.
    Sightings = 9,
}

impl StreamKind {
    /// The kind of a stored number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Messages),
            2 => Some(Self::State),
            3 => Some(Self::Positions),
            4 => Some(Self::Inbox),
            5 => Some(Self::Memberships),
            6 => Some(Self::Settings),
            7 => Some(Self::Runs),
            8 => Some(Self::Amendments),
            9 => Some(Self::Sightings),
            _ => None,
        }
    }
}

/// The portable part of a record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portable {
    /// The kind of the record's home stream.
    pub kind: StreamKind,
    /// Length of the payload, without padding.
    pub payload_bytes: u32,
    /// The payload's type, see [`Schema`].
    pub schema: u16,
    /// None are defined; kept as they are.
    pub flags: u16,
    /// The home stream: a conversation for messages and state, else the stream's own id.
    pub conversation: ConversationId,
    /// The place in the home stream.
    pub seq: Seq,
    /// When it was stored.
    pub at: UnixMillis,
    /// Messages in the conversation up to and including this record.
    pub message_count: u64,
    /// See [`payload_sum`].
    pub payload_sum: u64,
}

impl Portable {
    /// Reads the first 64 bytes of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some(header) = bytes.first_chunk::<PORTABLE_BYTES>() else {
            return Err(RecordError::Short);
        };
        if read_u16(header, MAGIC_AT) != MAGIC
            || read_u32(header, CHECKSUM) != crc32c::crc32c(&header[CHECKED])
        {
            return Err(RecordError::Damaged);
        }
        if header[VERSION_AT] != VERSION {
            return Err(RecordError::Unsupported);
        }
        let Some(kind) = StreamKind::from_number(header[KIND]) else {
            return Err(RecordError::Unsupported);
        };
        let mut conversation = [0; 16];
        conversation.copy_from_slice(&header[CONVERSATION]);
        Ok(Self {
            kind,
            payload_bytes: read_u32(header, LENGTH),
            schema: read_u16(header, SCHEMA),
            flags: read_u16(header, FLAGS),
            conversation: ConversationId(conversation),
            seq: Seq(read_u64(header, SEQ)),
            at: UnixMillis(read_u64(header, AT)),
            message_count: read_u64(header, MESSAGE_COUNT),
            payload_sum: read_u64(header, PAYLOAD_SUM),
        })
    }

    /// The 64 bytes, checksum included. `Portable::parse(&portable.encode()) == Ok(portable)`.
    pub fn encode(&self) -> [u8; PORTABLE_BYTES] {
        let mut header = [0; PORTABLE_BYTES];
        header[MAGIC_AT].copy_from_slice(&MAGIC.to_le_bytes());
        header[VERSION_AT] = VERSION;
        header[KIND] = self.kind as u8;
        header[LENGTH].copy_from_slice(&self.payload_bytes.to_le_bytes());
        header[SCHEMA].copy_from_slice(&self.schema.to_le_bytes());
        header[FLAGS].copy_from_slice(&self.flags.to_le_bytes());
        header[CONVERSATION].copy_from_slice(&self.conversation.0);
        header[SEQ].copy_from_slice(&self.seq.0.to_le_bytes());
        header[AT].copy_from_slice(&self.at.0.to_le_bytes());
        header[MESSAGE_COUNT].copy_from_slice(&self.message_count.to_le_bytes());
        header[PAYLOAD_SUM].copy_from_slice(&self.payload_sum.to_le_bytes());
        let checksum = crc32c::crc32c(&header[CHECKED]);
        header[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// Sets length and sum for `payload`, which must be shorter than 4 GiB.
    pub fn seal(&mut self, payload: &[u8]) {
        self.payload_bytes = u32::try_from(payload.len()).expect("payloads are bounded far below 4 GiB");
        self.payload_sum = payload_sum(self.conversation, self.seq, payload);
    }

    /// Whether `payload` is the one this header was sealed for.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), RecordError> {
        let matches = payload.len() == self.payload_bytes as usize
            && payload_sum(self.conversation, self.seq, payload) == self.payload_sum;
        if matches { Ok(()) } else { Err(RecordError::Damaged) }
    }

    /// Header, payload and padding to a multiple of 16: what one record takes on the wire.
    pub const fn padded_bytes(&self) -> usize {
        (PORTABLE_BYTES + self.payload_bytes as usize).next_multiple_of(limits::RECORD_ALIGN)
    }
}

/// XXH3-64 of `payload`, seeded with (first 8 bytes of `conversation`, little-endian) XOR `seq`.
pub fn payload_sum(conversation: ConversationId, seq: Seq, payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, read_u64(&conversation.0, 0..8) ^ seq.0)
}

fn read_u16(bytes: &[u8], at: Range<usize>) -> u16 {
    u16::from_le_bytes(bytes[at].try_into().expect("the range is two bytes"))
}

fn read_u32(bytes: &[u8], at: Range<usize>) -> u32 {
    u32::from_le_bytes(bytes[at].try_into().expect("the range is four bytes"))
}

fn read_u64(bytes: &[u8], at: Range<usize>) -> u64 {
    u64::from_le_bytes(bytes[at].try_into().expect("the range is eight bytes"))
}
