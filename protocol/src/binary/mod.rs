//! The binary form (`chat.v1.bin`): a 16-byte header and an rkyv payload per command, reply and event.
//!
//! ```text
//!  0      2   3    4       8        12      16
//!  |magic |ver| op | id    | length | flags | payload ...
//!  | u16  | u8| u8 | u32   |  u32   |  u32  |
//! ```
//!
//! All integers little-endian; `id` is 0 where there is none; `flags` is 0 in this version. Messages, their
//! amendments and membership events come as stored records (`crate::record`) instead, several in one
//! WebSocket message if they fit, each padded to 16 bytes. The two are told apart by the record's magic and
//! checksum, which are looked at first.
//!
//! In payloads an empty list of bytes stands for an absent text, 0 for an absent number, 16 zero bytes
//! for an absent id.
//!
//! Invariant: a payload is checked for its shape by `rkyv::access` and then by the same rules as JSON.

mod conversations;
mod found;
mod frame;
mod payload;
mod records;
mod request;

use std::ops::Range;

use rkyv::{
    Archive, Deserialize, Serialize,
    api::high::{HighDeserializer, HighSerializer, HighValidator},
    bytecheck::CheckBytes,
    rancor::{self, Failure},
    ser::allocator::ArenaHandle,
    util::AlignedVec,
};

pub use conversations::encode_list;
pub use frame::{decode_frames, encode_frame, encode_page};
pub use request::{decode_request, encode_request};

/// Size of the header.
pub const HEADER_BYTES: usize = 16;

/// "GF", at byte 0.
pub const MAGIC: u16 = u16::from_le_bytes(*b"GF");

/// Version of the header and of all payloads.
pub const VERSION: u8 = 1;

const MAGIC_AT: Range<usize> = 0..2;
const VERSION_AT: usize = 2;
const OP: usize = 3;
const ID: Range<usize> = 4..8;
const LENGTH: Range<usize> = 8..12;
const FLAGS: Range<usize> = 12..16;

/// The operations by number. Commands are below 128, what servers send is not.
mod op {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const REFRESH: u8 = 2;
    pub(super) const SEND: u8 = 3;
    pub(super) const ACK: u8 = 4;
    pub(super) const PING: u8 = 5;
    pub(super) const HISTORY: u8 = 6;
    pub(super) const CREATE: u8 = 7;
    pub(super) const MEMBERS: u8 = 8;
    pub(super) const LIST_MEMBERS: u8 = 9;
    pub(super) const TITLE: u8 = 10;
    pub(super) const LEAVE: u8 = 11;
    pub(super) const EDIT: u8 = 12;
    pub(super) const DELETE: u8 = 13;
    pub(super) const REACT: u8 = 14;
    pub(super) const VIEW: u8 = 15;
    pub(super) const UNVIEW: u8 = 16;
    pub(super) const TYPING: u8 = 17;
    pub(super) const READ: u8 = 18;
    pub(super) const CONVERSATIONS: u8 = 19;
    pub(super) const MUTE: u8 = 20;
    pub(super) const BLOCK: u8 = 21;
    pub(super) const SEARCH: u8 = 22;
    pub(super) const PUSH_TOKEN: u8 = 23;
    pub(super) const RETENTION: u8 = 24;
    pub(super) const INVISIBLE: u8 = 25;

    pub(super) const WELCOME: u8 = 128;
    pub(super) const OK: u8 = 129;
    pub(super) const ERROR: u8 = 130;
    pub(super) const PONG: u8 = 131;
    pub(super) const PAGE: u8 = 132;
    pub(super) const MEMBERS_PAGE: u8 = 133;
    pub(super) const CURSOR: u8 = 134;
    pub(super) const HEADS: u8 = 135;
    pub(super) const CAUGHT_UP: u8 = 136;
    pub(super) const GAP: u8 = 137;
    pub(super) const DRAIN: u8 = 138;
    pub(super) const VIEWED: u8 = 139;
    pub(super) const PRESENCE: u8 = 140;
    pub(super) const IS_TYPING: u8 = 141;
    pub(super) const RECEIPT: u8 = 142;
    pub(super) const LIST_PAGE: u8 = 143;
    pub(super) const FOUND: u8 = 144;
    pub(super) const IS_INVISIBLE: u8 = 146;
}

/// A header that was read: operation, id as it stands there, and the payload.
struct Header<'a> {
    op: u8,
    id: u32,
    payload: &'a [u8],
}

/// Why a frame has no readable header.
enum HeaderError {
    /// No frame of this protocol and version.
    Foreign,
    /// A frame of ours, whose lengths or flags do not fit; its id can be answered.
    Malformed { id: u32 },
}

fn read_header(bytes: &[u8]) -> Result<Header<'_>, HeaderError> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(HeaderError::Foreign);
    };
    if header[MAGIC_AT] != MAGIC.to_le_bytes() || header[VERSION_AT] != VERSION {
        return Err(HeaderError::Foreign);
    }
    let id = read_u32(header, ID);
    if read_u32(header, LENGTH) as usize != payload.len() || read_u32(header, FLAGS) != 0 {
        return Err(HeaderError::Malformed { id });
    }
    Ok(Header { op: header[OP], id, payload })
}

fn read_u32(header: &[u8; HEADER_BYTES], at: Range<usize>) -> u32 {
    u32::from_le_bytes(header[at].try_into().expect("the range is four bytes"))
}

/// Appends one frame.
fn write<T>(op: u8, id: u32, payload: &T, out: &mut Vec<u8>)
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    let payload =
        rkyv::to_bytes::<rancor::Error>(payload).expect("flat types far below 2 GiB always serialise");
    let mut header = [0; HEADER_BYTES];
    header[MAGIC_AT].copy_from_slice(&MAGIC.to_le_bytes());
    header[VERSION_AT] = VERSION;
    header[OP] = op;
    header[ID].copy_from_slice(&id.to_le_bytes());
    header[LENGTH].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&payload);
}

/// The payload as a value, or `None` when its bytes are not one.
fn read<T>(payload: &[u8]) -> Option<T>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, Failure>> + Deserialize<T, HighDeserializer<Failure>>,
{
    rkyv::from_bytes::<T, Failure>(payload).ok()
}
