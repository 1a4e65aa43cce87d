//! One receive per socket: its token, whether it is armed, and who waits for a buffer.
//!
//! Invariant: `armed` counts the sockets whose receive the kernel has; a socket is in `queue` at least once
//! while it is parked. (It may be there once more for a receive that was ended meanwhile: such entries are
//! skipped.)

use std::collections::VecDeque;

use crate::operation::Mode;
use crate::{Socket, Token};

/// What a socket's receive is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Armed(Mode),
    Parked(Mode),
}

/// Eight bytes for each slot: `[shut down: 1][state: 3][-: 4][token: 56]`, made at start.
pub(crate) struct Receives {
    table: Vec<u64>,
    armed: u32,
    parked: u32,
    queue: VecDeque<u32>,
}

const TOKEN: u64 = (1 << Token::BITS) - 1;
const STATE_SHIFT: u32 = 60;
const SHUT_DOWN: u64 = 1 << 63;

impl Receives {
    pub(crate) fn new(sockets_max: u32) -> Receives {
        Receives { table: vec![0; sockets_max as usize], armed: 0, parked: 0, queue: VecDeque::new() }
    }

    pub(crate) fn slots(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn armed(&self) -> u32 {
        self.armed
    }

    pub(crate) fn parked(&self) -> u32 {
        self.parked
    }

    /// A slot has a new socket.
    pub(crate) fn open(&mut self, socket: Socket) {
        assert!(self.is_idle(socket), "a slot is taken again only after its receive ended");
        self.table[socket.0 as usize] = 0;
    }

    /// Panics if the number of the socket is not one of this ring.
    pub(crate) fn is_idle(&self, socket: Socket) -> bool {
        self.state(socket) == State::Idle
    }

    /// A receive goes to the kernel.
    pub(crate) fn arm(&mut self, socket: Socket, token: Token, mode: Mode) {
        assert!(self.is_idle(socket), "one receive at a time for each socket");
        self.set_token(socket, token);
        self.set_state(socket, State::Armed(mode));
    }

    /// The token and the mode of the receive that just completed.
    pub(crate) fn get(&self, socket: Socket) -> (Token, Mode) {
        let State::Armed(mode) = self.state(socket) else { unreachable!("only an armed receive completes") };
        (Token::new(self.table[socket.0 as usize] & TOKEN), mode)
    }

    /// The receive will not complete again.
    pub(crate) fn end(&mut self, socket: Socket) {
        self.set_state(socket, State::Idle);
    }

    /// The receive found no buffer. Returns whether it now waits for one; a socket that was shut down does
    /// not: it is over.
    pub(crate) fn park(&mut self, socket: Socket) -> bool {
        let (_, mode) = self.get(socket);
        if self.table[socket.0 as usize] & SHUT_DOWN != 0 {
            self.end(socket);
            return false;
        }
        self.set_state(socket, State::Parked(mode));
        self.queue.push_back(socket.0);
        true
    }

    /// The receive that has waited longest, armed again.
    pub(crate) fn unpark(&mut self) -> Option<(Socket, Mode)> {
        while let Some(index) = self.queue.pop_front() {
            let socket = Socket(index);
            if let State::Parked(mode) = self.state(socket) {
                self.set_state(socket, State::Armed(mode));
                return Some((socket, mode));
            }
        }
        None
    }

    /// The socket is about to be shut down. Returns the token of a parked receive, which is thereby over: the
    /// kernel does not have it and so cannot end it.
    pub(crate) fn shut_down(&mut self, socket: Socket) -> Option<Token> {
        self.table[socket.0 as usize] |= SHUT_DOWN;
        if !matches!(self.state(socket), State::Parked(_)) {
            return None;
        }
        self.end(socket);
        Some(Token::new(self.table[socket.0 as usize] & TOKEN))
    }

    /// Sockets whose receive the kernel has.
    pub(crate) fn all_armed(&self) -> Vec<Socket> {
        let sockets = (0..self.table.len() as u32).map(Socket);
        sockets.filter(|socket| matches!(self.state(*socket), State::Armed(_))).collect()
    }

    /// Ends all parked receives, which the kernel does not have: their tokens.
    pub(crate) fn end_parked(&mut self) -> Vec<Token> {
        let queue = std::mem::take(&mut self.queue);
        let mut ended = Vec::new();
        for socket in queue.into_iter().map(Socket) {
            if matches!(self.state(socket), State::Parked(_)) {
                self.end(socket);
                ended.push(Token::new(self.table[socket.0 as usize] & TOKEN));
            }
        }
        ended
    }

    fn state(&self, socket: Socket) -> State {
        match self.table[socket.0 as usize] >> STATE_SHIFT & 0b111 {
            0 => State::Idle,
            1 => State::Armed(Mode::Multishot),
            2 => State::Armed(Mode::Once),
            3 => State::Parked(Mode::Multishot),
            _ => State::Parked(Mode::Once),
        }
    }

    fn set_state(&mut self, socket: Socket, state: State) {
        match self.state(socket) {
            State::Idle => (),
            State::Armed(_) => self.armed -= 1,
            State::Parked(_) => self.parked -= 1,
        }
        let bits = match state {
            State::Idle => 0,
            State::Armed(Mode::Multishot) => 1,
            State::Armed(Mode::Once) => 2,
            State::Parked(Mode::Multishot) => 3,
            State::Parked(Mode::Once) => 4,
        };
        match state {
            State::Idle => (),
            State::Armed(_) => self.armed += 1,
            State::Parked(_) => self.parked += 1,
        }
        let entry = &mut self.table[socket.0 as usize];
        *entry = *entry & !(0b111 << STATE_SHIFT) | bits << STATE_SHIFT;
    }

    fn set_token(&mut self, socket: Socket, token: Token) {
        let entry = &mut self.table[socket.0 as usize];
        *entry = *entry & !TOKEN | token.value();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Socket = Socket(0);
    const B: Socket = Socket(1);

    #[test]
    fn parked_receives_come_back_in_order_with_their_token() {
        let mut receives = Receives::new(2);
        receives.arm(A, Token::new(7), Mode::Once);
        receives.arm(B, Token::new((1 << 56) - 1), Mode::Multishot);
        assert!(receives.park(B));
        assert!(receives.park(A));
        assert_eq!((receives.armed(), receives.parked()), (0, 2));
        assert_eq!(receives.unpark(), Some((B, Mode::Multishot)));
        assert_eq!(receives.unpark(), Some((A, Mode::Once)));
        assert_eq!(receives.unpark(), None);
        assert_eq!(receives.get(B), (Token::new((1 << 56) - 1), Mode::Multishot));
        assert_eq!((receives.armed(), receives.parked()), (2, 0));
    }

    #[test]
    fn all_receives_are_ended_wherever_they_are() {
        let mut receives = Receives::new(2);
        receives.arm(A, Token::new(7), Mode::Once);
        receives.arm(B, Token::new(8), Mode::Multishot);
        assert!(receives.park(A));
        assert_eq!(receives.all_armed(), [B]);
        assert_eq!(receives.end_parked(), [Token::new(7)]);
        assert!(receives.is_idle(A) && receives.end_parked().is_empty());
        assert_eq!((receives.armed(), receives.parked()), (1, 0));
    }

    #[test]
    fn shutting_down_ends_a_parked_receive_and_keeps_it_ended() {
        let mut receives = Receives::new(2);
        receives.arm(A, Token::new(7), Mode::Once);
        assert!(receives.park(A));
        assert_eq!(receives.shut_down(A), Some(Token::new(7)));
        assert!(receives.is_idle(A));
        assert_eq!(receives.unpark(), None);

        receives.open(B);
        receives.arm(B, Token::new(8), Mode::Multishot);
        assert_eq!(receives.shut_down(B), None);
        assert!(!receives.park(B));
        assert!(receives.is_idle(B));
        assert_eq!((receives.armed(), receives.parked()), (0, 0));
    }
}
