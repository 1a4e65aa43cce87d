//! A ring with its completions in order, and waits that end: either what is waited for comes, or the test
//! fails.

// Each test binary uses its own part of this file.
#![allow(dead_code)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ring::{Completion, Errno, ListenerId, Received, RecvBuffer, Ring, RingConfig, Socket, Token};

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SMALL: RingConfig = RingConfig {
    sq_entries: 64,
    cq_entries: 256,
    sockets_max: 256,
    recv_buffers: 64,
    recv_buffer_bytes: 2048,
    accepts: 8,
};

pub(crate) fn ring(config: RingConfig) -> Driver {
    Driver { ring: Ring::new(config).expect("this machine can make a ring"), waiting: Vec::new() }
}

pub(crate) fn token(value: u64) -> Token {
    Token::new(value)
}

/// A ring and what it completed that nobody asked for yet.
pub(crate) struct Driver {
    pub(crate) ring: Ring,
    pub(crate) waiting: Vec<Completion>,
}

impl Driver {
    /// One turn that must bring something.
    pub(crate) fn turn(&mut self) {
        let before = self.waiting.len();
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.waiting.len() == before {
            assert!(std::time::Instant::now() < deadline, "nothing completed; {:?}", self.ring.counters());
            self.ring.turn(Some(PATIENCE), &mut self.waiting).expect("a turn");
        }
    }

    /// Turns until `pick` takes a completion; the others keep waiting, in order.
    #[track_caller]
    pub(crate) fn until<T>(
        &mut self,
        mut pick: impl FnMut(&Completion) -> bool,
        take: impl FnOnce(Completion) -> T,
    ) -> T {
        loop {
            if let Some(position) = self.waiting.iter().position(&mut pick) {
                return take(self.waiting.remove(position));
            }
            self.turn();
        }
    }

    /// All completions of the next turns until one has come.
    pub(crate) fn next(&mut self) -> Completion {
        self.until(|_| true, |completion| completion)
    }

    pub(crate) fn listen(&mut self) -> (ListenerId, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        (self.ring.listen(listener), address)
    }

    pub(crate) fn accepted(&mut self) -> (Socket, SocketAddr) {
        self.until(
            |completion| matches!(completion, Completion::Accepted { .. }),
            |completion| match completion {
                Completion::Accepted { result, .. } => result.expect("the accept succeeds"),
                _ => unreachable!(),
            },
        )
    }

    /// A connection: its end in the ring and its plain end.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> (Socket, TcpStream) {
        let client = TcpStream::connect(address).expect("the listener listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (socket, peer) = self.accepted();
        assert_eq!(peer, client.local_addr().expect("a connected socket has an address"));
        (socket, client)
    }

    pub(crate) fn received(&mut self, wanted: Token) -> Received {
        self.until(
            |completion| matches!(completion, Completion::Received { token, .. } if *token == wanted),
            |completion| match completion {
                Completion::Received { result, .. } => result,
                _ => unreachable!(),
            },
        )
    }

    pub(crate) fn data(&mut self, wanted: Token) -> (RecvBuffer, bool) {
        match self.received(wanted) {
            Received::Data { buffer, armed } => (buffer, armed),
            other => panic!("data expected, got {other:?}"),
        }
    }

    pub(crate) fn sent(&mut self, wanted: Token) -> Result<usize, Errno> {
        self.until(
            |completion| matches!(completion, Completion::Sent { token, .. } if *token == wanted),
            |completion| match completion {
                Completion::Sent { result, .. } => result,
                _ => unreachable!(),
            },
        )
    }

    pub(crate) fn closed(&mut self, wanted: Token) -> Result<(), Errno> {
        self.until(
            |completion| matches!(completion, Completion::Closed { token, .. } if *token == wanted),
            |completion| match completion {
                Completion::Closed { result, .. } => result,
                _ => unreachable!(),
            },
        )
    }

    pub(crate) fn shut_down(&mut self, wanted: Token) {
        self.until(
            |completion| matches!(completion, Completion::ShutDown { token } if *token == wanted),
            drop,
        );
    }
}

/// A small generator, so that a seed names a run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        println!("seed {seed}");
        Random(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
