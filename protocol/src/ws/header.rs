//! Frame headers (RFC 6455, section 5.2): tungstenite's reading and writing, and the rules around it.
//!
//! tungstenite reads what a header says; what a header may say is decided here: reserved bits, masking
//! by role, control frames and minimal lengths, all before any byte of the payload is waited for.
//!
//! ```text
//!  0               1               2 .. 10                 up to 14
//!  |F|R R R|opcode |M| length 7    | length 16 or 64 (BE)  | mask (client) | payload ...
//! ```

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::{Role, Violation, unmask};
use crate::limits;

const RESERVED_BITS: u8 = 0x70;
const OPCODE_BITS: u8 = 0x0F;
const FIN_BIT: u8 = 0x80;
const MASK_BIT: u8 = 0x80;
const LENGTH_BITS: u8 = 0x7F;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next piece of a message.
    Continuation = 0,
    /// UTF-8.
    Text = 1,
    /// Anything.
    Binary = 2,
    /// The sender will send nothing more.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    /// Close, ping and pong: short, never split, and allowed between the pieces of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    const fn coding(self) -> OpCode {
        match self {
            Self::Continuation => OpCode::Data(Data::Continue),
            Self::Text => OpCode::Data(Data::Text),
            Self::Binary => OpCode::Data(Data::Binary),
            Self::Close => OpCode::Control(Control::Close),
            Self::Ping => OpCode::Control(Control::Ping),
            Self::Pong => OpCode::Control(Control::Pong),
        }
    }
}

/// A header that was read and may be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// The last frame of its message.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// All zero when the frame is not masked.
    pub mask: [u8; 4],
    /// Below 2^63; bounded by the reader's limits, not here.
    pub payload_bytes: u64,
    /// 2..=14.
    pub header_bytes: usize,
}

/// Reads the header at the front of `input`, as `role` receives it.
///
/// `Ok(None)` means that it is not all here yet. What two bytes can show is refused after two bytes.
pub fn read_header(input: &[u8], role: Role) -> Result<Option<FrameHead>, Violation> {
    let [first, second, ..] = *input else {
        return Ok(None);
    };
    if first & RESERVED_BITS != 0 {
        return Err(Violation::Protocol("a reserved bit is set"));
    }
    let Some(opcode) = Opcode::from_bits(first & OPCODE_BITS) else {
        return Err(Violation::Protocol("the opcode is reserved"));
    };
    match (role, second & MASK_BIT != 0) {
        (Role::Client, true) => return Err(Violation::Protocol("a frame of the server is masked")),
        (Role::Server, false) => return Err(Violation::Protocol("a frame of the client is not masked")),
        (Role::Client, false) | (Role::Server, true) => {}
    }
    let short_length = second & LENGTH_BITS;
    if opcode.is_control() {
        if first & FIN_BIT == 0 {
            return Err(Violation::Protocol("a control frame is split"));
        }
        if usize::from(short_length) > limits::CONTROL_BYTES_MAX {
            return Err(Violation::Protocol("a control frame is too long"));
        }
    }
    let mut cursor = Cursor::new(input);
    // The parser's only own complaint is a reserved opcode, refused above already.
    let read = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Protocol("the header is malformed"))?;
    let Some((header, payload_bytes)) = read else {
        return Ok(None);
    };
    let minimal = match short_length {
        126 => payload_bytes > 125,
        127 => payload_bytes > u64::from(u16::MAX) && payload_bytes <= i64::MAX as u64,
        _ => true,
    };
    if !minimal {
        return Err(Violation::Protocol("the length is not in its shortest form"));
    }
    Ok(Some(FrameHead {
        fin: header.is_final,
        opcode,
        mask: header.mask.unwrap_or_default(),
        payload_bytes,
        header_bytes: cursor.position() as usize,
    }))
}

/// The header of a whole, unmasked frame, as a server sends it: the bytes and how many of them count
/// (2, 4 or 10).
pub fn frame_header(opcode: Opcode, payload_bytes: usize) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let header = FrameHeader { opcode: opcode.coding(), ..FrameHeader::default() };
    let mut rest = bytes.as_mut_slice();
    header.format(payload_bytes as u64, &mut rest).expect("an unmasked header fits ten bytes");
    let unused = rest.len();
    (bytes, bytes.len() - unused)
}

/// Appends a header as `role` receives it, with a mask of zeros if masked ones are what it takes.
pub(super) fn write_header(role: Role, fin: bool, opcode: Opcode, payload_bytes: u64, out: &mut Vec<u8>) {
    let mask = (role == Role::Server).then_some([0; 4]);
    let header = FrameHeader { is_final: fin, opcode: opcode.coding(), mask, ..FrameHeader::default() };
    header.format(payload_bytes, out).expect("writing to memory does not fail");
}

/// Appends one whole frame. A client gives a mask, a server none.
pub fn encode_frame(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode: opcode.coding(), mask, ..FrameHeader::default() };
    out.reserve(limits::WEBSOCKET_HEADER_BYTES_MAX + payload.len());
    header.format(payload.len() as u64, out).expect("writing to memory does not fail");
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        unmask(&mut out[start..], mask, 0);
    }
}
