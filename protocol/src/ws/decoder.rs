//! From bytes to messages.
//!
//! ```text
//!  input  | header | payload | header | payload | hea      <- a read ends anywhere
//!           \_ whole: unmasked in place, borrowed _/ \_ cut: into `Partial`, byte by byte as it comes
//! ```
//!
//! Does not answer pings, does not close: that is the session's part.
//!
//! Invariant: `partial` exists exactly while a frame or a message is split over calls, or while the
//! caller looks at a message that was; `partial.message.len() <= message_bytes_max`.

use super::{
    FrameHead, Message, Opcode, Role, Utf8, Violation, close::read_close, header::write_header, read_header,
    unmask, utf8::InvalidUtf8,
};
use crate::limits;

/// What one peer may make us hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Largest message, in bytes, over all its fragments.
    pub message_bytes_max: u32,
    /// Most frames one message may be split into, from 1.
    pub fragments_max: u32,
}

/// One direction of a connection. 24 bytes and no heap while nothing is split.
pub struct Decoder {
    partial: Option<Box<Partial>>,
    limits: DecoderLimits,
    role: Role,
}

const _: () = assert!(size_of::<Decoder>() <= 32);

/// What one call to [`Decoder::decode`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Bytes taken from the front of the input.
    pub consumed: usize,
    /// `None`: all of the input was taken and no message is complete.
    pub message: Option<Message<'a>>,
}

impl Decoder {
    /// A decoder for what `role` receives.
    pub const fn new(role: Role, limits: DecoderLimits) -> Self {
        Self { partial: None, limits, role }
    }

    /// Changes the limits. A message that is being received is judged by the new ones from its next frame on.
    pub const fn limit(&mut self, limits: DecoderLimits) {
        self.limits = limits;
    }

    /// Lets go of everything held, when nothing more will be read.
    pub fn release(&mut self) {
        self.partial = None;
    }

    /// Takes bytes from the front of `input` up to the end of the first message or control frame.
    /// Called again with the rest until it gives no message.
    ///
    /// A frame that is whole in `input` is unmasked there and borrowed from it. After a violation the
    /// decoder is of no further use.
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8]) -> Result<Decoded<'a>, Violation> {
        self.settle();
        let mut consumed = 0;
        loop {
            let step = self.step(&mut input[consumed..])?;
            let message = match step.found {
                Found::Nothing if step.consumed > 0 => {
                    consumed += step.consumed;
                    continue;
                }
                Found::Nothing => None,
                Found::Inside { opcode, payload_bytes } => {
                    let end = consumed + step.consumed;
                    Some(read_message(opcode, &input[end - payload_bytes..end])?)
                }
                Found::Control(opcode) => {
                    let partial = self.partial.as_deref_mut().expect("a split control frame is in `partial`");
                    partial.seen = Seen::Control;
                    Some(read_message(opcode, &partial.control)?)
                }
                Found::Message(opcode) => {
                    let partial = self.partial.as_deref_mut().expect("a split message is in `partial`");
                    partial.seen = Seen::Message;
                    Some(read_message(opcode, &partial.message)?)
                }
            };
            return Ok(Decoded { consumed: consumed + step.consumed, message });
        }
    }

    /// Whether nothing is split: the peer may stop here without having cut anything.
    pub fn is_idle(&self) -> bool {
        self.partial.as_deref().is_none_or(|partial| match partial.seen {
            Seen::Nothing => false,
            Seen::Control => partial.opcode.is_none(),
            Seen::Message => true,
        })
    }

    /// Bytes that bring a new decoder, with limits at least as wide, to where this one is: what was received of frames and messages that
    /// have not ended, as its peer could have sent it. Nothing while nothing is split.
    pub fn replay(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(partial) = self.partial.as_deref().filter(|_| !self.is_idle()) else { return bytes };
        let frame = partial.frame;
        let cut = frame.filter(|head| !head.opcode.is_control());
        if let Some(opcode) = partial.opcode {
            let of_cut = cut.map_or(0, |_| partial.received as usize);
            let (whole, begun) = partial.message.split_at(partial.message.len() - of_cut);
            // Where the frames before ended is not known any more, and means nothing: the first has all, the others none.
            let ended = partial.fragments - u32::from(cut.is_some());
            for number in 0..ended {
                let (opcode, payload) =
                    if number == 0 { (opcode, whole) } else { (Opcode::Continuation, &[][..]) };
                write_begun_frame(self.role, false, opcode, payload.len() as u64, payload, &mut bytes);
            }
            if let Some(head) = cut {
                write_begun_frame(self.role, head.fin, head.opcode, head.payload_bytes, begun, &mut bytes);
            }
        }
        if let Some(head) = frame.filter(|head| head.opcode.is_control()) {
            write_begun_frame(self.role, true, head.opcode, head.payload_bytes, &partial.control, &mut bytes);
            mask_again(&mut bytes, partial.control.len(), head);
        } else if let Some(head) = cut {
            mask_again(&mut bytes, partial.received as usize, head);
        }
        bytes.extend_from_slice(&partial.header[..usize::from(partial.header_bytes)]);
        bytes
    }

    /// Heap memory held for this peer, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, |partial| {
            size_of::<Partial>() + partial.message.capacity() + partial.control.capacity()
        })
    }

    /// Lets go of what the caller has seen.
    fn settle(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        match partial.seen {
            Seen::Nothing => {}
            Seen::Control => {
                partial.seen = Seen::Nothing;
                partial.control = Vec::new();
                if partial.is_unused() {
                    self.partial = None;
                }
            }
            Seen::Message => self.partial = None,
        }
    }

    /// One frame, or as much of one as there is.
    fn step(&mut self, input: &mut [u8]) -> Result<Step, Violation> {
        let has_cut_header = self.partial.as_deref().is_some_and(|partial| partial.header_bytes > 0);
        let has_cut_frame = self.partial.as_deref().is_some_and(|partial| partial.frame.is_some());
        if has_cut_frame {
            return self.continue_frame(input);
        }
        if has_cut_header {
            return self.continue_header(input);
        }
        let Some(head) = read_header(input, self.role)? else {
            if input.is_empty() {
                return Ok(Step { consumed: 0, found: Found::Nothing });
            }
            let partial = self.partial.get_or_insert_default();
            partial.header[..input.len()].copy_from_slice(input);
            partial.header_bytes = input.len() as u8;
            return Ok(Step { consumed: input.len(), found: Found::Nothing });
        };
        let payload_bytes = self.admit(&head)?;
        let end = head.header_bytes + payload_bytes;
        let stands_alone = head.opcode.is_control() || (head.fin && head.opcode != Opcode::Continuation);
        if stands_alone && input.len() >= end {
            unmask(&mut input[head.header_bytes..end], head.mask, 0);
            let found = Found::Inside { opcode: head.opcode, payload_bytes };
            return Ok(Step { consumed: end, found });
        }
        self.begin_frame(head);
        let step = self.continue_frame(&mut input[head.header_bytes..])?;
        Ok(Step { consumed: head.header_bytes + step.consumed, ..step })
    }

    /// The rules between frames (section 5.4) and the limits. Returns the length of the payload.
    fn admit(&self, head: &FrameHead) -> Result<usize, Violation> {
        let partial = self.partial.as_deref();
        let message = partial.and_then(|partial| partial.opcode.map(|_| partial));
        let held = match (head.opcode, message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(head.payload_bytes as usize),
            (Opcode::Continuation, None) => return Err(Violation::Protocol("nothing to continue")),
            (Opcode::Binary | Opcode::Text, Some(_)) => {
                return Err(Violation::Protocol("a message begins inside another"));
            }
            (Opcode::Continuation, Some(message)) if message.fragments >= self.limits.fragments_max => {
                return Err(Violation::TooBig);
            }
            (Opcode::Continuation, Some(message)) => message.message.len() as u64,
            (Opcode::Binary | Opcode::Text, None) => 0,
        };
        // Both are far below 2^63, so the sum does not wrap.
        if held + head.payload_bytes > u64::from(self.limits.message_bytes_max) {
            return Err(Violation::TooBig);
        }
        Ok(head.payload_bytes as usize)
    }

    fn begin_frame(&mut self, head: FrameHead) {
        let partial = self.partial.get_or_insert_default();
        partial.header_bytes = 0;
        partial.frame = Some(head);
        partial.received = 0;
        if !head.opcode.is_control() {
            partial.fragments += 1;
            if head.opcode != Opcode::Continuation {
                partial.opcode = Some(head.opcode);
            }
        }
    }

    fn continue_header(&mut self, input: &mut [u8]) -> Result<Step, Violation> {
        let partial = self.partial.as_deref_mut().expect("a cut header is in `partial`");
        let held = usize::from(partial.header_bytes);
        let fresh = input.len().min(partial.header.len() - held);
        partial.header[held..held + fresh].copy_from_slice(&input[..fresh]);
        let Some(head) = read_header(&partial.header[..held + fresh], self.role)? else {
            partial.header_bytes += fresh as u8;
            return Ok(Step { consumed: fresh, found: Found::Nothing });
        };
        self.admit(&head)?;
        self.begin_frame(head);
        // The header was incomplete with `held` bytes, so it ends in the fresh ones.
        let consumed = head.header_bytes - held;
        let step = self.continue_frame(&mut input[consumed..])?;
        Ok(Step { consumed: consumed + step.consumed, ..step })
    }

    fn continue_frame(&mut self, input: &mut [u8]) -> Result<Step, Violation> {
        let partial = self.partial.as_deref_mut().expect("a cut frame is in `partial`");
        let head = partial.frame.expect("a cut frame has its header");
        let missing = (head.payload_bytes - partial.received) as usize;
        let consumed = missing.min(input.len());
        let payload = &mut input[..consumed];
        unmask(payload, head.mask, (partial.received % 4) as usize);
        partial.take(head.opcode, payload)?;
        partial.received += consumed as u64;
        if consumed < missing {
            return Ok(Step { consumed, found: Found::Nothing });
        }
        partial.frame = None;
        if head.opcode.is_control() {
            return Ok(Step { consumed, found: Found::Control(head.opcode) });
        }
        if !head.fin {
            return Ok(Step { consumed, found: Found::Nothing });
        }
        partial.utf8.finish()?;
        let opcode = partial.opcode.expect("a data frame belongs to a message");
        Ok(Step { consumed, found: Found::Message(opcode) })
    }
}

/// What is held while something is split.
#[derive(Default)]
struct Partial {
    /// The frame whose payload is being received.
    frame: Option<FrameHead>,
    /// How much of its payload has come.
    received: u64,
    /// The message being received: unmasked and, if text, checked.
    message: Vec<u8>,
    /// A control frame that is itself split.
    control: Vec<u8>,
    /// Text or binary, from the first frame of a message to its end.
    opcode: Option<Opcode>,
    fragments: u32,
    utf8: Utf8,
    /// A header that is split, and how much of it there is.
    header: [u8; limits::WEBSOCKET_HEADER_BYTES_MAX],
    header_bytes: u8,
    seen: Seen,
}

impl Partial {
    fn is_unused(&self) -> bool {
        self.frame.is_none() && self.opcode.is_none() && self.header_bytes == 0
    }

    fn take(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Violation> {
        if opcode.is_control() {
            self.control.extend_from_slice(payload);
            return Ok(());
        }
        if self.opcode == Some(Opcode::Text) {
            self.utf8.push(payload)?;
        }
        self.message.extend_from_slice(payload);
        Ok(())
    }
}

/// What the caller was shown last and has finished with at the next call.
#[derive(Clone, Copy, Default)]
enum Seen {
    Control,
    Message,
    #[default]
    Nothing,
}

struct Step {
    consumed: usize,
    found: Found,
}

enum Found {
    /// A control frame in `partial.control`.
    Control(Opcode),
    /// A frame in the input, its payload at the end of what was consumed.
    Inside { opcode: Opcode, payload_bytes: usize },
    /// A message in `partial.message`.
    Message(Opcode),
    /// Not yet.
    Nothing,
}

/// Appends a frame of which `payload` has come, with a mask that changes nothing where `role` takes masked ones.
fn write_begun_frame(role: Role, fin: bool, opcode: Opcode, bytes: u64, payload: &[u8], out: &mut Vec<u8>) {
    write_header(role, fin, opcode, bytes, out);
    out.extend_from_slice(payload);
}

/// The mask of a frame that has not ended goes into its header, and over what has come of it: the peer goes on with it.
fn mask_again(bytes: &mut [u8], payload_bytes: usize, head: FrameHead) {
    if head.mask != [0; 4] {
        let payload = bytes.len() - payload_bytes;
        bytes[payload - 4..payload].copy_from_slice(&head.mask);
        unmask(&mut bytes[payload..], head.mask, 0);
    }
}

fn read_message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Violation> {
    Ok(match opcode {
        Opcode::Binary => Message::Binary(payload),
        Opcode::Close => return read_close(payload),
        Opcode::Ping => Message::Ping(payload),
        Opcode::Pong => Message::Pong(payload),
        Opcode::Text => Message::Text(std::str::from_utf8(payload).map_err(|_| Violation::InvalidData)?),
        Opcode::Continuation => unreachable!("messages have the opcode of their first frame"),
    })
}

impl From<InvalidUtf8> for Violation {
    fn from(_: InvalidUtf8) -> Self {
        Self::InvalidData
    }
}
