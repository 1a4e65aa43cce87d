//! What a completion says about itself, and the operations that own memory.
//!
//! ```text
//!  user_data   63..56         55..0
//!              kind           token | tag | slot of the socket | slot in `InFlight`
//! ```

use std::mem;

use bytes::Bytes;

use crate::address::PeerAddress;
use crate::ids::{FileId, ListenerId, Token};
use crate::lent::Lent;
use crate::{FileBuffer, Socket};

/// Which kind of operation completed, and thereby what the other 56 bits mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Slot in `InFlight`.
    Accept = 1,
    /// The sender's tag. Posted by another ring.
    Adopted,
    /// Nothing: the outcome of a cancellation shows in what it cancelled.
    Cancel,
    /// Token.
    Close,
    /// Nothing. Posted by another ring.
    Doorbell,
    /// Nothing: a doorbell of ours that failed.
    DoorbellFailed,
    /// Slot in `InFlight`.
    File,
    /// Nothing: `duplicate` waits for it.
    Install,
    /// Slot in `InFlight`: the second half of a write and sync.
    LinkedSync,
    /// Slot in `InFlight`: the first half of a write and sync.
    LinkedWrite,
    /// Slot of the socket.
    Receive,
    /// Slot in `InFlight`.
    Send,
    /// Token.
    ShutDown,
    /// Token.
    SocketSent,
    /// Slot in `InFlight`.
    Wake,
}

impl Kind {
    const ALL: [Kind; 15] = [
        Kind::Accept,
        Kind::Adopted,
        Kind::Cancel,
        Kind::Close,
        Kind::Doorbell,
        Kind::DoorbellFailed,
        Kind::File,
        Kind::Install,
        Kind::LinkedSync,
        Kind::LinkedWrite,
        Kind::Receive,
        Kind::Send,
        Kind::ShutDown,
        Kind::SocketSent,
        Kind::Wake,
    ];

    /// Packs the kind with its 56 bits.
    pub(crate) fn with(self, value: u64) -> u64 {
        debug_assert!(value >> Token::BITS == 0);
        (self as u64) << Token::BITS | value
    }

    /// Takes a `user_data` apart. Panics on one that no ring of this crate made.
    pub(crate) fn split(user_data: u64) -> (Kind, u64) {
        let index = (user_data >> Token::BITS) as usize;
        let kind = index.checked_sub(1).and_then(|index| Kind::ALL.get(index));
        let kind = *kind.expect("only rings of this crate post completions here");
        (kind, user_data & ((1 << Token::BITS) - 1))
    }
}

/// An operation in flight, with everything the kernel may touch until it completes.
pub(crate) enum Operation {
    Accept { listener: ListenerId, address: Lent<PeerAddress> },
    Read { token: Token, file: FileId, buffer: FileBuffer },
    Send { token: Token, bytes: Bytes },
    Sync { token: Token, file: FileId },
    Wake { count: Lent<u64> },
    Write { token: Token, file: FileId, buffer: FileBuffer },
    WriteAndSync { token: Token, file: FileId, buffer: FileBuffer, first: Option<Half> },
}

/// The half of a write and sync that completed first, with its result.
#[derive(Clone, Copy)]
pub(crate) enum Half {
    Sync(i32),
    Write(i32),
}

/// Operations in flight by slot. A slot is used again as soon as its operation completed: the kernel
/// completes each exactly once, so no completion can meet the wrong one.
#[derive(Default)]
pub(crate) struct InFlight {
    slots: Vec<Slot>,
    free: Option<u32>,
    len: u32,
}

enum Slot {
    Vacant { next: Option<u32> },
    Occupied(Operation),
}

impl InFlight {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn insert(&mut self, operation: Operation) -> u32 {
        self.len += 1;
        let Some(slot) = self.free else {
            let slot = u32::try_from(self.slots.len()).expect("fewer operations than fit in memory");
            self.slots.push(Slot::Occupied(operation));
            return slot;
        };
        let vacant = mem::replace(&mut self.slots[slot as usize], Slot::Occupied(operation));
        let Slot::Vacant { next } = vacant else { unreachable!("the free list holds vacant slots") };
        self.free = next;
        slot
    }

    /// The slots of all sends in flight.
    pub(crate) fn sends(&self) -> Vec<u32> {
        let slots = self.slots.iter().enumerate();
        let is_send = |(_, slot): &(usize, &Slot)| matches!(slot, Slot::Occupied(Operation::Send { .. }));
        slots.filter(is_send).map(|(index, _)| index as u32).collect()
    }

    /// Panics unless the slot is taken: a completion for it can come only once.
    pub(crate) fn remove(&mut self, slot: u64) -> Operation {
        let free = self.free;
        let occupied = mem::replace(&mut self.slots[slot as usize], Slot::Vacant { next: free });
        let Slot::Occupied(operation) = occupied else { unreachable!("an operation completes once") };
        self.free = Some(slot as u32);
        self.len -= 1;
        operation
    }

    pub(crate) fn get_mut(&mut self, slot: u64) -> &mut Operation {
        let Slot::Occupied(operation) = &mut self.slots[slot as usize] else {
            unreachable!("an operation completes once");
        };
        operation
    }
}

/// How a receive goes on after data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Multishot,
    Once,
}

/// The `user_data` of a receive: the token is in the table of receives, under the socket.
pub(crate) fn receive_user_data(socket: Socket) -> u64 {
    Kind::Receive.with(u64::from(socket.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_back_with_their_bits() {
        for kind in Kind::ALL {
            for value in [0, 1, u64::from(u32::MAX), (1 << 56) - 1] {
                assert_eq!(Kind::split(kind.with(value)), (kind, value));
            }
        }
    }

    #[test]
    fn slots_are_used_again_and_counted() {
        let mut in_flight = InFlight::default();
        let operation = |value| Operation::Sync { token: Token::new(value), file: FileId(0) };
        let first = in_flight.insert(operation(1));
        let second = in_flight.insert(operation(2));
        assert_ne!(first, second);
        assert!(
            matches!(in_flight.remove(u64::from(first)), Operation::Sync { token, .. } if token.value() == 1)
        );
        assert_eq!(in_flight.insert(operation(3)), first);
        assert_eq!(in_flight.len(), 2);
        assert!(
            matches!(in_flight.get_mut(u64::from(first)), Operation::Sync { token, .. } if token.value() == 3)
        );
    }
}
