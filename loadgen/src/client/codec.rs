//! The WebSocket codec: tungstenite over memory.
//!
//! Bytes that arrived go in, messages come out, and what has to be sent lies in a buffer. It shares no
//! code with the server's codec, so the two check each other.
//!
//! Nearly all that comes is one whole frame with one whole message. Its header is read by tungstenite too, and the message is handed out
//! where it lies. Every other frame is tungstenite's own affair: control frames, parts of messages, mistakes, and all behind a goodbye. It is
//! given whole frames only, so it holds no bytes in between; it would copy each message twice, and write zeros over its buffer for each read.

use std::{
    io::{self, Cursor, Read, Write},
    ops::Range,
};

use protocol::{event::CloseCode, limits::EVENT_BYTES_MAX, upgrade::Form};
use tungstenite::{
    Error, Message,
    protocol::{
        CloseFrame, Role, WebSocketConfig, WebSocketContext,
        frame::{
            FrameHeader,
            coding::{Data, OpCode},
        },
    },
};

/// Of tungstenite's buffer, which is there as long as the codec, and there are thousands of them: a ping fits, and it grows for what is
/// longer.
const CONTEXT_BUFFER_BYTES: usize = 128;

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    Binary(&'a [u8]),
    /// The node closes, with this code.
    Closed(CloseCode),
    Text(&'a str),
}

/// One side of one open WebSocket.
pub(crate) struct Codec {
    context: WebSocketContext,
    pipe: Pipe,
    /// Bytes that arrived, of which `taken` were frames that were read.
    input: Vec<u8>,
    taken: usize,
    /// A message has begun whose last part has not come.
    is_mid_message: bool,
    /// What tungstenite made of the last frame.
    message: Option<Message>,
}

impl Codec {
    /// A client whose upgrade is over. `leftover` came behind the response.
    pub(crate) fn new(leftover: &[u8]) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(CONTEXT_BUFFER_BYTES)
            // Written at once: the buffer is ours.
            .write_buffer_size(0)
            .max_message_size(Some(EVENT_BYTES_MAX))
            .max_frame_size(Some(EVENT_BYTES_MAX));
        let context = WebSocketContext::new(Role::Client, Some(config));
        let (pipe, input) = (Pipe::default(), leftover.to_vec());
        Self { context, pipe, input, taken: 0, is_mid_message: false, message: None }
    }

    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next message; `Ok(None)` when it is not all here yet. An error is the node's mistake.
    pub(crate) fn poll_incoming(&mut self) -> Result<Option<Incoming<'_>>, String> {
        loop {
            let Some(frame) = read_frame(&self.input[self.taken..])? else {
                self.forget_taken();
                return Ok(None);
            };
            let begin = self.taken;
            self.taken += frame.payload.end;
            let opcode = frame.header.opcode;
            if frame.is_message() && !self.is_mid_message && self.is_open() {
                let payload = &self.input[begin..][frame.payload];
                return Ok(Some(match opcode {
                    OpCode::Data(Data::Text) => {
                        Incoming::Text(str::from_utf8(payload).map_err(|error| error.to_string())?)
                    }
                    _ => Incoming::Binary(payload),
                }));
            }
            if matches!(opcode, OpCode::Data(_)) {
                self.is_mid_message = !frame.header.is_final;
            }
            let Some(message) = self.pass_on(begin..self.taken)? else { continue };
            return Ok(Some(match self.message.insert(message) {
                Message::Binary(bytes) => Incoming::Binary(bytes),
                Message::Text(text) => Incoming::Text(text),
                Message::Close(Some(frame)) => Incoming::Closed(CloseCode(frame.code.into())),
                Message::Close(None) => Incoming::Closed(CloseCode::NO_STATUS),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                    unreachable!("those are passed over")
                }
            }));
        }
    }

    /// Gives tungstenite one frame, and takes the message that ends with it. Pings are answered there.
    fn pass_on(&mut self, frame: Range<usize>) -> Result<Option<Message>, String> {
        self.pipe.input.extend_from_slice(&self.input[frame]);
        loop {
            match self.context.read(&mut self.pipe) {
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(message) => return Ok(Some(message)),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    let frame = CloseFrame { code: CloseCode::NORMAL.0.into(), reason: "".into() };
                    return Ok(Some(Message::Close(Some(frame))));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Only the beginning of a frame is kept. Given back where there is none: nothing arrives for most of them most of the time.
    fn forget_taken(&mut self) {
        self.message = None;
        if self.taken == self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..self.taken);
        }
        self.taken = 0;
    }

    /// Appends a message to what has to be sent. After a close there is nobody to send to.
    pub(crate) fn send(&mut self, form: Form, payload: Vec<u8>) {
        let message = match form {
            Form::Binary => Message::binary(payload),
            Form::Json => match String::from_utf8(payload) {
                Ok(text) => Message::text(text),
                Err(_) => unreachable!("JSON is text"),
            },
        };
        let _ = self.context.write(&mut self.pipe, message);
    }

    pub(crate) fn close(&mut self) {
        let frame = CloseFrame { code: 1000.into(), reason: "".into() };
        let _ = self.context.close(&mut self.pipe, Some(frame));
    }

    /// No goodbye was sent or taken.
    pub(crate) fn is_open(&self) -> bool {
        self.context.can_write()
    }

    pub(crate) const fn has_output(&self) -> bool {
        !self.pipe.output.is_empty()
    }

    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pipe.output)
    }
}

/// A frame that is all here.
struct WholeFrame {
    header: FrameHeader,
    /// Where its payload lies, from its first byte on.
    payload: Range<usize>,
}

impl WholeFrame {
    /// It is a message of its own, as a server has to send it.
    fn is_message(&self) -> bool {
        let FrameHeader { is_final, rsv1, rsv2, rsv3, opcode, mask } = &self.header;
        let is_data = matches!(opcode, OpCode::Data(Data::Binary | Data::Text));
        is_data && *is_final && !(*rsv1 || *rsv2 || *rsv3) && mask.is_none()
    }
}

/// The frame at the front of `input`, if all of it is here.
fn read_frame(input: &[u8]) -> Result<Option<WholeFrame>, String> {
    let mut cursor = Cursor::new(input);
    let read = FrameHeader::parse(&mut cursor).map_err(|error| error.to_string())?;
    let Some((header, bytes)) = read else { return Ok(None) };
    // Said now: what would be refused is not waited for.
    if bytes > EVENT_BYTES_MAX as u64 {
        return Err(format!("a frame of {bytes} bytes, where {EVENT_BYTES_MAX} are the most"));
    }
    let begin = cursor.position() as usize;
    let payload = begin..begin + bytes as usize;
    Ok((payload.end <= input.len()).then_some(WholeFrame { header, payload }))
}

/// The two directions of what tungstenite does, as memory.
#[derive(Default)]
struct Pipe {
    input: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = &self.input[self.taken..];
        if rest.is_empty() {
            (self.input, self.taken) = (Vec::new(), 0);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = rest.read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use protocol::ws::{Opcode, encode_close, encode_frame};

    use super::*;

    /// What comes of these bytes, however they are cut, as one line each; the fault is the last.
    fn check(bytes: &[u8], expected: &[&str]) -> Codec {
        let mut checked = None;
        for step in [1, 3, 1000, bytes.len()] {
            let (mut codec, mut lines) = (Codec::new(&[]), Vec::new());
            'bytes: for chunk in bytes.chunks(step) {
                codec.handle_bytes(chunk);
                loop {
                    match codec.poll_incoming() {
                        Ok(None) => break,
                        Ok(Some(Incoming::Binary(bytes))) => lines.push(format!("{} bytes", bytes.len())),
                        Ok(Some(Incoming::Text(text))) => lines.push(text.to_owned()),
                        Ok(Some(Incoming::Closed(code))) => lines.push(format!("closed {}", code.0)),
                        Err(fault) => {
                            lines.push(fault);
                            break 'bytes;
                        }
                    }
                }
            }
            assert_eq!(lines, expected, "in steps of {step}");
            checked = Some(codec);
        }
        checked.expect("there is a last step")
    }

    fn frames(frames: &[(Opcode, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(opcode, payload)| encode_frame(*opcode, payload, None, &mut bytes));
        bytes
    }

    #[test]
    fn messages_come_out_however_the_bytes_are_cut() {
        let bytes = frames(&[(Opcode::Text, b"hello"), (Opcode::Binary, &[7; 5000]), (Opcode::Text, b"")]);
        let codec = check(&bytes, &["hello", "5000 bytes", ""]);
        assert_eq!(codec.input.capacity(), 0, "a quiet one holds nothing");
    }

    #[test]
    fn pings_between_messages_are_answered() {
        let bytes = frames(&[(Opcode::Text, b"one"), (Opcode::Ping, b"there?"), (Opcode::Text, b"two")]);
        let mut codec = check(&bytes, &["one", "two"]);
        let answer = codec.take_output();
        assert_eq!((answer[0], answer.len()), (0x8a, 2 + 4 + 6), "one pong, masked");
    }

    #[test]
    fn a_message_in_parts_comes_out_whole_with_pings_between_them() {
        let mut bytes = vec![0x01, 3, b'a', b'b', b'c'];
        bytes.extend(frames(&[(Opcode::Ping, b"")]));
        bytes.extend([0x00, 1, b'd', 0x80, 2, b'e', b'f']);
        bytes.extend(frames(&[(Opcode::Text, b"next")]));
        check(&bytes, &["abcdef", "next"]);
    }

    #[test]
    fn a_goodbye_is_answered_and_what_comes_behind_it_is_a_mistake() {
        let goodbye = encode_close(CloseCode(4000), "later");
        let bytes = frames(&[(Opcode::Text, b"last"), (Opcode::Close, &goodbye), (Opcode::Text, b"no")]);
        check(&bytes, &["last", "closed 4000", "WebSocket protocol error: Remote sent after having closed"]);
    }

    #[test]
    fn what_a_server_must_not_send_is_a_fault() {
        let mut masked = Vec::new();
        encode_frame(Opcode::Text, b"x", Some([1; 4]), &mut masked);
        let inside = [vec![0x01, 1, b'a'], frames(&[(Opcode::Text, b"b")])].concat();
        for (bytes, fault) in [
            (masked, "masked frame from server"),
            (inside, "more fragments"),
            (vec![0xc1, 0], "reserved bits"),
            (vec![0x83, 0], "opcode"),
            (vec![0x80, 0], "continue frame"),
            (vec![0x09, 0], "fragmented control frame"),
            (vec![0x81, 1, 0xff], "invalid utf-8"),
            (vec![0x82, 127, 0, 0, 0, 0, 0xff, 0, 0, 0], "the most"),
        ] {
            let mut codec = Codec::new(&bytes);
            let said = codec.poll_incoming().expect_err("a fault").to_lowercase();
            assert!(said.contains(fault), "{bytes:?}: {said}");
        }
    }
}
