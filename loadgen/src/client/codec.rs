//! The WebSocket codec: tungstenite over memory.
//!
//! Bytes that arrived go in, messages come out, and what has to be sent lies in a buffer. It shares no
//! code with the server's codec, so the two check each other.

use std::io::{self, Read, Write};

use protocol::{event::CloseCode, limits::EVENT_BYTES_MAX, upgrade::Form};
use tungstenite::{
    Bytes, Error, Message, Utf8Bytes,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext},
};

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    Binary(Bytes),
    /// The node closes, with this code.
    Closed(CloseCode),
    Text(Utf8Bytes),
}

/// One side of one open WebSocket.
pub(crate) struct Codec {
    context: WebSocketContext,
    pipe: Pipe,
}

impl Codec {
    /// A client whose upgrade is over. `leftover` came behind the response. The read buffer is there as long as the codec:
    /// small, because there are thousands of them, and such that most messages fit.
    pub(crate) fn new(leftover: &[u8], read_buffer_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(read_buffer_bytes)
            // Written at once: the buffer is ours.
            .write_buffer_size(0)
            .max_message_size(Some(EVENT_BYTES_MAX))
            .max_frame_size(Some(EVENT_BYTES_MAX));
        let context = WebSocketContext::new(Role::Client, Some(config));
        let pipe = Pipe { input: leftover.to_vec(), ..Pipe::default() };
        Self { context, pipe }
    }

    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) {
        self.pipe.input.extend_from_slice(bytes);
    }

    /// The next message; `Ok(None)` when it is not all here yet. An error is the node's mistake.
    pub(crate) fn poll_incoming(&mut self) -> Result<Option<Incoming>, String> {
        loop {
            match self.context.read(&mut self.pipe) {
                Ok(Message::Binary(bytes)) => return Ok(Some(Incoming::Binary(bytes))),
                Ok(Message::Text(text)) => return Ok(Some(Incoming::Text(text))),
                Ok(Message::Close(frame)) => {
                    let code = frame.map_or(CloseCode::NO_STATUS, |frame| CloseCode(frame.code.into()));
                    return Ok(Some(Incoming::Closed(code)));
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Ok(Some(Incoming::Closed(CloseCode::NORMAL)));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
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

/// The two directions, as memory.
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
            // Given back: nothing arrives for most of them most of the time.
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
    use protocol::ws::{Opcode, encode_frame};

    use super::*;

    #[test]
    fn messages_come_out_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        encode_frame(Opcode::Text, b"hello", None, &mut bytes);
        encode_frame(Opcode::Binary, &[7; 5000], None, &mut bytes);
        for step in [1, 3, 1000, bytes.len()] {
            let mut codec = Codec::new(&[], 256);
            let mut lengths = Vec::new();
            for chunk in bytes.chunks(step) {
                codec.handle_bytes(chunk);
                while let Some(incoming) = codec.poll_incoming().expect("sound frames") {
                    lengths.push(match incoming {
                        Incoming::Binary(bytes) => bytes.len(),
                        Incoming::Text(text) => text.len(),
                        Incoming::Closed(_) => unreachable!("nobody closed"),
                    });
                }
            }
            assert_eq!(lengths, [5, 5000], "in steps of {step}");
        }
    }
}
