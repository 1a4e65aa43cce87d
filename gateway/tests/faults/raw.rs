//! A peer that sends any bytes it likes, and writes down what it gets.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketType, bind, connect as connect_socket, socket};

use serde_json::Value;

use crate::{
    node::PATIENCE,
    wire::{self, masked},
};

/// A good request for `/v1/connect`, line by line, to be damaged.
pub(crate) const REQUEST: [&str; 6] = [
    "GET /v1/connect HTTP/1.1",
    "Host: chat.example.org",
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// Lines as a head.
pub(crate) fn head(lines: &[&str]) -> Vec<u8> {
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

/// One connection.
pub(crate) struct Raw {
    stream: TcpStream,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("it listens"))
    }

    /// From another address of this machine.
    pub(crate) fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddr::from((source, 0))).expect("an address of this machine");
        connect_socket(&socket, &address).expect("it listens");
        Self::of(socket.into())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket of ours");
        stream.set_nodelay(true).expect("a socket of ours");
        Self { stream }
    }

    /// A WebSocket, its upgrade done.
    pub(crate) fn upgraded(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address);
        raw.write(&head(&REQUEST));
        let response = raw.head();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        raw
    }

    /// A session of `user`: `connect` sent and answered.
    pub(crate) fn session(address: SocketAddr, token: &str, device: &str) -> Self {
        let mut raw = Self::connect(address);
        raw.enter(token, device);
        raw
    }

    /// The upgrade, and `connect`.
    #[track_caller]
    pub(crate) fn enter(&mut self, token: &str, device: &str) {
        self.write(&head(&REQUEST));
        let response = self.head();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        self.connect_as(token, device);
    }

    /// `connect`, and its answer.
    #[track_caller]
    pub(crate) fn connect_as(&mut self, token: &str, device: &str) {
        self.write(&masked(0x81, connect_of(token, device).as_bytes()));
        let (first, payload) = self.frame();
        assert!(first == 0x81 && payload.starts_with(b"{\"op\":\"welcome\""), "{payload:?}");
    }

    /// A command of a session, and its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> Value {
        self.write(&masked(0x81, command.as_bytes()));
        loop {
            let (_, payload) = self.frame();
            let frame: Value = serde_json::from_slice(&payload).expect("JSON");
            if frame["id"].is_number() {
                return frame;
            }
        }
    }

    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the peer reads");
    }

    /// Writes until the peer hangs up, or answers and takes no more. Whether it took everything.
    ///
    /// A peer that has closed with a full window resets nothing: its FIN is all there is to notice.
    pub(crate) fn write_anyway(&mut self, mut bytes: &[u8]) -> bool {
        let begun = Instant::now();
        self.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a socket of ours");
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.hears_within(Duration::from_millis(1)) {
                        return false;
                    }
                    assert!(begun.elapsed() < PATIENCE, "the peer neither reads nor hangs up");
                }
                Err(_) => return false,
            }
        }
        self.stream.set_write_timeout(Some(PATIENCE)).expect("a socket of ours");
        true
    }

    /// The head of a response, up to its empty line.
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("heads are text")
    }

    /// One frame: its first byte and its payload.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut start = [0; 2];
        self.stream.read_exact(&mut start).expect("a frame");
        let length = match start[1] {
            126 => u64::from(u16::from_be_bytes(self.array())),
            127 => u64::from_be_bytes(self.array()),
            short => u64::from(short),
        };
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).expect("a whole frame");
        (start[0], payload)
    }

    fn array<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        self.stream.read_exact(&mut bytes).expect("a whole header");
        bytes
    }

    /// Everything until the peer ends the connection, by FIN or by RST.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the peer does not hang up: {error}; it sent {} bytes", bytes.len()),
        }
        bytes
    }

    /// All frames until the peer ends the connection, one line each: `text hello`, `close 1002`.
    #[track_caller]
    pub(crate) fn transcript(&mut self) -> Vec<String> {
        wire::transcript(&self.rest())
    }

    /// The status of a response, until the peer ends the connection.
    #[track_caller]
    pub(crate) fn status(&mut self) -> u16 {
        let response = String::from_utf8(self.rest()).expect("responses are text");
        assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
        let status = response.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status in {response:?}"))
    }

    /// Whether anything comes in this time, be it the end.
    pub(crate) fn hears_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a socket of ours");
        let heard =
            !matches!(self.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
        heard
    }

    /// FIN: nothing more is sent.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a socket of ours");
    }

    /// RST: what a kernel sends for a socket that is closed with something unread, here a pong.
    pub(crate) fn reset(self) {
        self.stream.peek(&mut [0]).expect("something to leave unread");
    }
}

/// A `connect` in JSON.
pub(crate) fn connect(token: &str) -> String {
    connect_of(token, "raw")
}

/// The same from a device of this name.
pub(crate) fn connect_of(token: &str, device: &str) -> String {
    format!(r#"{{"op":"connect","id":1,"device":"{device}","token":"{token}"}}"#)
}
