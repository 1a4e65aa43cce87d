//! What two processes say to each other at an upgrade: checked messages over a Unix socket, with descriptors.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Descriptors in one message: the kernel takes no more (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: usize = 253;

/// Bytes of one message. 253 connections with a full outbox each are 17 MB.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Length, and checksum of what follows.
const HEAD_BYTES: usize = 4 + 32;

/// What a new process says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Of the snapshot of sessions that it takes.
    pub snapshot: u16,
    /// Of the store that it reads and writes.
    pub format: u16,
    /// The store that it finds.
    pub store: String,
    /// Logs of that store.
    pub logs: u16,
    /// Data-plane threads that it would have.
    pub shards: u16,
    /// Connections of each that it would serve.
    pub connections_each: u32,
    /// Whether it would have the echo service.
    pub echo: bool,
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromNew {
    /// It has begun, and read its configuration and keys.
    Hello(Hello),
    /// It goes no further, and why.
    Refused(String),
    /// Its threads wait for connections.
    Seated,
    /// It has read what does not change any more.
    Ahead,
    /// It has all that it needs and has changed nothing.
    Prepared,
    /// It serves.
    Ready,
}

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromOld {
    /// Descriptors: the lock, the admin's listener, and of each shard its stream and its listeners.
    Granted,
    /// Segments stay as they are, and each log is durable up to here: that much can be read ahead.
    Quiet(Vec<u64>),
    /// Nothing is under way any more: the logs can be read.
    Paused,
    /// From here on the store and the clients are the new one's.
    Yours,
}

/// Sends a message that can be written as JSON, with at most [`DESCRIPTORS_MAX`] descriptors.
///
/// # Errors
/// Those of the socket.
pub fn say<T: Serialize>(stream: &UnixStream, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send(stream, &serde_json::to_vec(message)?, descriptors)
}

/// Takes one.
///
/// # Errors
/// Those of the socket, and `InvalidData` for what cannot be understood.
pub fn hear<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let (bytes, descriptors) = receive(stream)?;
    Ok((serde_json::from_slice(&bytes)?, descriptors))
}

/// Sends bytes, with at most [`DESCRIPTORS_MAX`] descriptors.
///
/// # Errors
/// Those of the socket.
pub fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    assert!(bytes.len() <= MESSAGE_BYTES_MAX && descriptors.len() <= DESCRIPTORS_MAX);
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(blake3::hash(bytes).as_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)), "there is room for the most");
    }
    let sent = loop {
        match sendmsg(stream.as_fd(), &[IoSlice::new(&head)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            sent => break sent?,
        }
    };
    let mut stream = stream;
    stream.write_all(&head[sent..])?;
    stream.write_all(bytes)
}

/// Takes bytes and descriptors.
///
/// # Errors
/// Those of the socket, `UnexpectedEof` when the other side is gone, `InvalidData` when the checksum does not hold.
pub fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut head = [0; HEAD_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut head)];
        match recvmsg(stream.as_fd(), &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?.bytes,
        }
    };
    if received == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    let mut stream = stream;
    stream.read_exact(&mut head[received..])?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    if blake3::hash(&bytes).as_bytes()[..] != head[4..] {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_with_their_descriptors_and_damage_is_seen() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let file = std::fs::File::open("/dev/null").expect("a file");
        let many = vec![file.as_fd(); DESCRIPTORS_MAX];
        send(&one, b"first", &many).expect("sent");
        send(&one, b"", &[]).expect("sent");
        say(&one, &FromOld::Paused, &[]).expect("sent");
        let (bytes, descriptors) = receive(&other).expect("received");
        assert_eq!((&bytes[..], descriptors.len()), (&b"first"[..], DESCRIPTORS_MAX));
        assert_eq!(receive(&other).expect("received").0, b"");
        assert!(matches!(hear(&other).expect("received").0, FromOld::Paused));
        send(&one, b"more", &[]).expect("sent");
        let mut damaged = [0; HEAD_BYTES + 4];
        (&other).read_exact(&mut damaged).expect("read");
        damaged[HEAD_BYTES] ^= 1;
        (&one).write_all(&damaged).expect("written");
        assert_eq!(receive(&other).expect_err("damaged").kind(), ErrorKind::InvalidData);
        drop(one);
        assert_eq!(receive(&other).expect_err("gone").kind(), ErrorKind::UnexpectedEof);
    }
}
