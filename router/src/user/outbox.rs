//! What waits to be sent to one session: whole frames, bounded in bytes, corked into few sends.
//!
//! Nothing that was queued is thrown away. When there is no room, the *next* record is not queued, and its log goes back
//! to being read from the log at the position before it; so a cursor in the queue never runs ahead of the queue.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes queued for a session that does not read. A session over it is fed from the log instead of from memory.
pub const OUTBOX_BYTES_MAX: usize = 64 << 10;

/// More than a frame of news has: who is there, who writes.
pub(super) const NEWS_BYTES_MAX: usize = 1 << 10;

/// Most bytes of one send: a short send then shows as progress, and one slow socket holds little.
pub const SEND_BYTES_MAX: usize = 16 << 10;

struct Queued {
    frame: Bytes,
    is_reply: bool,
}

/// The frames of one session, first in, first out.
#[derive(Default)]
pub struct Outbox {
    /// The rest of what a short send left: goes before everything else, control frames included.
    rest: Option<Bytes>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    sending_bytes: usize,
}

/// One send.
#[derive(Debug)]
pub struct Chunk {
    /// At most [`SEND_BYTES_MAX`] bytes.
    pub bytes: Bytes,
    /// Replies whose frames are begun with it.
    pub replies: u32,
}

impl Outbox {
    /// Whether a frame may be queued where `bytes_max` may be held. An empty outbox takes one frame of any legal size.
    #[must_use]
    pub fn has_room(&self, frame_bytes: usize, bytes_max: usize) -> bool {
        let held = self.held_bytes();
        held == 0 || held + frame_bytes <= bytes_max
    }

    /// Nothing queued and nothing being sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.rest.is_none() && self.sending_bytes == 0
    }

    /// Whether there is something to send and no send in flight.
    #[must_use]
    pub fn is_sendable(&self) -> bool {
        self.sending_bytes == 0 && (self.rest.is_some() || !self.queue.is_empty())
    }

    /// Only what a peer has seen the beginning of: the rest of a frame, and what is in flight.
    #[must_use]
    pub fn into_half_sent(self) -> Self {
        let queued_bytes = self.rest.as_ref().map_or(0, Bytes::len);
        Self { rest: self.rest, queue: VecDeque::new(), queued_bytes, sending_bytes: self.sending_bytes }
    }

    /// Bytes held, queued and in flight.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.queued_bytes + self.sending_bytes
    }

    /// What waits to be sent while no send is in flight, in the order in which it goes: `control` behind the rest of a frame.
    #[must_use]
    pub fn unsent(&self, control: &[u8]) -> Bytes {
        let mut unsent = BytesMut::with_capacity(self.queued_bytes + control.len());
        unsent.extend_from_slice(self.rest.as_deref().unwrap_or_default());
        unsent.extend_from_slice(control);
        self.queue.iter().for_each(|queued| unsent.extend_from_slice(&queued.frame));
        unsent.freeze()
    }

    /// An outbox that goes on with what another had unsent.
    #[must_use]
    pub fn resumed(unsent: Bytes) -> Self {
        let queued_bytes = unsent.len();
        let rest = (!unsent.is_empty()).then_some(unsent);
        Self { rest, queued_bytes, ..Self::default() }
    }

    /// Queues a whole frame.
    pub fn push(&mut self, frame: Bytes, is_reply: bool) {
        self.queued_bytes += frame.len();
        self.queue.push_back(Queued { frame, is_reply });
    }

    /// The next send, if none is in flight: `control` first unless a frame is half sent, then as many frames as fit.
    pub fn take_send(&mut self, control: &mut Vec<u8>) -> Option<Chunk> {
        if self.sending_bytes > 0 {
            return None;
        }
        let chunk = self.next_chunk(control)?;
        self.sending_bytes = chunk.bytes.len();
        Some(chunk)
    }

    fn next_chunk(&mut self, control: &mut Vec<u8>) -> Option<Chunk> {
        if let Some(mut rest) = self.rest.take() {
            self.queued_bytes -= rest.len();
            let bytes = rest.split_to(rest.len().min(SEND_BYTES_MAX));
            self.keep_rest(rest);
            return Some(Chunk { bytes, replies: 0 });
        }
        if control.is_empty() {
            let next = self.queue.front()?;
            if self.queue.len() == 1 || next.frame.len() >= SEND_BYTES_MAX {
                // Alone: the shared block itself is sent, nothing is copied.
                let Queued { mut frame, is_reply } = self.queue.pop_front().expect("looked at");
                self.queued_bytes -= frame.len();
                let bytes = frame.split_to(frame.len().min(SEND_BYTES_MAX));
                self.keep_rest(frame);
                return Some(Chunk { bytes, replies: u32::from(is_reply) });
            }
        }
        let mut corked = BytesMut::with_capacity(SEND_BYTES_MAX.min(control.len() + self.queued_bytes));
        corked.extend_from_slice(control);
        control.clear();
        control.shrink_to(0);
        let mut replies = 0;
        while let Some(next) = self.queue.front() {
            if corked.len() + next.frame.len() > SEND_BYTES_MAX {
                break;
            }
            let Queued { frame, is_reply } = self.queue.pop_front().expect("looked at");
            self.queued_bytes -= frame.len();
            corked.extend_from_slice(&frame);
            replies += u32::from(is_reply);
        }
        self.shrink();
        (!corked.is_empty()).then(|| Chunk { bytes: corked.freeze(), replies })
    }

    fn keep_rest(&mut self, rest: Bytes) {
        if !rest.is_empty() {
            self.queued_bytes += rest.len();
            self.rest = Some(rest);
        }
        self.shrink();
    }

    /// An idle session holds no queue.
    fn shrink(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > 0 {
            self.queue = VecDeque::new();
        }
    }

    /// It owns no memory.
    pub(super) fn is_released(&self) -> bool {
        self.is_empty() && self.queue.capacity() == 0
    }

    /// The send of `bytes` has ended after `sent` of them: the rest goes first.
    pub fn handle_sent(&mut self, mut bytes: Bytes, sent: usize) {
        self.sending_bytes = 0;
        let mut rest = bytes.split_off(sent.min(bytes.len()));
        if rest.is_empty() {
            return;
        }
        if let Some(behind) = self.rest.take() {
            // A frame larger than one send, cut short: both parts are one rest.
            self.queued_bytes -= behind.len();
            let mut joined = BytesMut::with_capacity(rest.len() + behind.len());
            joined.extend_from_slice(&rest);
            joined.extend_from_slice(&behind);
            rest = joined.freeze();
        }
        self.keep_rest(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends everything in pieces of at most `step` bytes and says what went over the wire.
    fn drain(outbox: &mut Outbox, control: &mut Vec<u8>, step: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        while let Some(chunk) = outbox.take_send(control) {
            assert!(chunk.bytes.len() <= SEND_BYTES_MAX + 1024);
            let sent = chunk.bytes.len().min(step);
            wire.extend_from_slice(&chunk.bytes[..sent]);
            outbox.handle_sent(chunk.bytes, sent);
        }
        assert!(outbox.is_empty() && outbox.held_bytes() == 0);
        wire
    }

    #[test]
    fn short_sends_lose_and_repeat_nothing() {
        for step in [1, 7, 100, 1 << 20] {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (byte, length) in [(1, 10), (2, 20_000), (3, 5), (4, 16_384), (5, 40_000), (6, 1)] {
                outbox.push(Bytes::from(vec![byte; length]), false);
                expected.extend(vec![byte; length]);
            }
            assert_eq!(drain(&mut outbox, &mut Vec::new(), step), expected, "step {step}");
        }
    }

    #[test]
    fn what_is_held_is_bounded_with_the_frame_that_comes_next() {
        let mut outbox = Outbox::default();
        assert!(outbox.has_room(200_000, OUTBOX_BYTES_MAX), "one of any size");
        outbox.push(Bytes::from(vec![1; 60_000]), false);
        assert!(!outbox.has_room(16_000, OUTBOX_BYTES_MAX));
        assert!(outbox.has_room(5_000, OUTBOX_BYTES_MAX));
        assert!(outbox.take_send(&mut Vec::new()).is_some());
        assert!(!outbox.has_room(16_000, OUTBOX_BYTES_MAX), "what is being sent counts");
    }

    #[test]
    fn control_frames_go_before_data_but_never_into_a_frame() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from(vec![7; 30_000]), false);
        let first = outbox.take_send(&mut Vec::new()).expect("a send");
        let mut control = vec![9; 4];
        outbox.handle_sent(first.bytes, 100);
        outbox.push(Bytes::from(vec![8; 10]), true);
        let wire = drain(&mut outbox, &mut control, 5_000);
        assert_eq!(wire, [vec![7; 29_900], vec![9; 4], vec![8; 10]].concat());
    }
}
