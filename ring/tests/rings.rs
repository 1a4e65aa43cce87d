//! A ring among others: doorbells, wakers, sockets that move, time limits, and the end.

mod common;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Driver, PATIENCE, SMALL, ring, token};
use ring::{Completion, Errno, FileBuffer, Received, RingAddress, RingConfig, Socket, StartError, Token};

#[test]
fn this_machine_has_what_a_ring_needs() {
    assert_eq!(ring::probe(), Ok(()));
}

#[test]
fn impossible_sizes_are_refused_in_words() {
    let result = ring::Ring::new(RingConfig { recv_buffers: 3, ..SMALL });
    assert!(matches!(result, Err(StartError::Config(_))));
    let result = ring::Ring::new(RingConfig { sockets_max: 1 << 20, ..SMALL });
    if let Err(error) = result {
        assert!(error.to_string().contains("LimitNOFILE"), "{error}");
    }
}

#[test]
fn a_turn_waits_no_longer_than_told() {
    let mut driver = ring(SMALL);
    let mut turn = |timeout| {
        let start = Instant::now();
        driver.ring.turn(Some(timeout), &mut driver.waiting).expect("a turn");
        assert!(driver.waiting.is_empty());
        start.elapsed()
    };
    turn(Duration::ZERO);
    assert!(turn(Duration::from_millis(30)) >= Duration::from_millis(30));
    assert_eq!(driver.ring.counters().enters, 2, "one system call for each turn");
}

#[test]
fn a_waker_ends_a_turn_that_waits_for_ever() {
    let mut driver = ring(SMALL);
    for _ in 0..3 {
        let waker = driver.ring.waker();
        let thread = std::thread::spawn(move || waker.wake());
        driver.ring.turn(None, &mut driver.waiting).expect("a turn");
        assert!(matches!(driver.waiting.pop(), Some(Completion::Woken)));
        thread.join().expect("it woke us");
    }
    let waker = driver.ring.waker();
    (0..5).for_each(|_| waker.wake());
    driver.turn();
    driver.ring.turn(Some(Duration::ZERO), &mut driver.waiting).expect("a turn");
    assert_eq!(driver.waiting.len(), 1, "wakes before a turn are one");
    drop(driver);
    waker.wake();
}

#[test]
fn a_doorbell_ends_the_turn_of_the_other_ring() {
    let (addresses, address) = mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        let mut driver = ring(SMALL);
        addresses.send(driver.ring.address()).expect("the other thread waits");
        for _ in 0..100 {
            assert!(matches!(driver.next(), Completion::Doorbell));
        }
        driver.ring.counters().completions
    });
    let mut driver = ring(SMALL);
    let address = address.recv().expect("an address");
    for _ in 0..100 {
        driver.ring.doorbell(address);
        driver.ring.turn(Some(Duration::ZERO), &mut driver.waiting).expect("a turn");
    }
    assert_eq!(sleeper.join().expect("a hundred doorbells"), 100);
    assert!(driver.waiting.is_empty());
    assert_eq!(driver.ring.counters().doorbells_failed, 0);
}

fn socket_sent(driver: &mut Driver, wanted: Token) -> Result<(), Errno> {
    driver.until(
        |completion| matches!(completion, Completion::SocketSent { token, .. } if *token == wanted),
        |completion| match completion {
            Completion::SocketSent { result, .. } => result,
            _ => unreachable!(),
        },
    )
}

#[test]
fn a_socket_that_cannot_move_stays_and_the_sender_knows_why() {
    let mut source = ring(SMALL);
    let (_, address) = source.listen();
    let (socket, mut client) = source.connect(address);
    let itself = source.ring.address();
    source.ring.send_socket(socket, itself, 1, token(1));
    assert_eq!(
        socket_sent(&mut source, token(1)),
        Err(Errno::new(22)),
        "EINVAL: a ring cannot send to itself"
    );
    let empty = Socket::from_index(200);
    let mut target = ring(RingConfig { sockets_max: 1, ..SMALL });
    let there = target.ring.address();
    source.ring.send_socket(empty, there, 1, token(2));
    assert_eq!(socket_sent(&mut source, token(2)), Err(Errno::new(9)), "EBADF: nothing in the slot");

    // The target has one slot. It takes the first in its own turn, so both turn in between.
    source.ring.send_socket(socket, there, 7, token(3));
    source.ring.turn(Some(Duration::ZERO), &mut source.waiting).expect("a turn");
    assert!(matches!(target.next(), Completion::Adopted { tag: 7, socket } if socket.index() == 0));
    assert_eq!(socket_sent(&mut source, token(3)), Ok(()));
    source.ring.send_socket(socket, there, 8, token(4));
    source.ring.turn(Some(Duration::ZERO), &mut source.waiting).expect("a turn");
    target.ring.turn(Some(Duration::ZERO), &mut target.waiting).expect("a turn");
    assert_eq!(socket_sent(&mut source, token(4)), Err(Errno::TABLE_FULL));
    assert!(target.waiting.is_empty());

    // Still usable here, and there.
    source.ring.send(socket, token(5), Bytes::from_static(b"here "));
    assert_eq!(source.sent(token(5)), Ok(5));
    source.ring.close(socket, token(6));
    assert_eq!(source.closed(token(6)), Ok(()));
    target.ring.send(Socket::from_index(0), token(7), Bytes::from_static(b"there"));
    assert_eq!(target.sent(token(7)), Ok(5));
    let mut bytes = [0; 10];
    client.read_exact(&mut bytes).expect("read");
    assert_eq!(&bytes, b"here there");
}

/// What the threads tell each other, beside the descriptors.
struct Leftover {
    tag: u64,
    bytes: Vec<u8>,
}

const MOVED: usize = 120;

#[test]
fn sockets_move_to_another_thread_and_lose_no_byte() {
    let (addresses, address) = mpsc::channel();
    let (leftovers, left) = mpsc::channel();
    let target = std::thread::spawn(move || {
        let mut driver = ring(SMALL);
        addresses.send(driver.ring.address()).expect("the other thread waits");
        adopt_and_echo(&mut driver, &left);
    });
    let there = address.recv().expect("an address");
    let mut source = ring(SMALL);
    let (_, address) = source.listen();
    let clients = std::thread::spawn(move || {
        let mut streams: Vec<TcpStream> =
            (0..MOVED).map(|_| TcpStream::connect(address).expect("the listener listens")).collect();
        for (index, stream) in streams.iter_mut().enumerate() {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            write!(stream, "first {index:4}.").expect("written");
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            // More bytes race with the move.
            write!(stream, "second {index:4}.").expect("written");
            let mut bytes = [0; 23];
            stream.read_exact(&mut bytes).expect("an echo");
            assert_eq!(bytes.to_vec(), format!("first {index:4}.second {index:4}.").into_bytes());
        }
    });
    move_all(&mut source, there, &leftovers);
    clients.join().expect("the clients got their bytes");
    target.join().expect("the target ends");
}

/// Accepts, receives once, sends the socket away, closes the slot.
fn move_all(driver: &mut Driver, there: RingAddress, leftovers: &mpsc::Sender<Leftover>) {
    let (mut accepted, mut closed) = (0, 0);
    while closed < MOVED {
        match driver.next() {
            Completion::Accepted { result, .. } => {
                let (socket, _) = result.expect("accepted");
                // Slots are used again while the target still sorts; connections are told apart by number.
                driver.ring.recv_once(socket, token(accepted << 32 | u64::from(socket.index())));
                accepted += 1;
            }
            Completion::Received { token, result: Received::Data { buffer, .. } } => {
                let tag = token.value();
                let socket = Socket::from_index(tag as u32);
                let leftover = Leftover { tag, bytes: buffer.bytes().to_vec() };
                // Every other leftover is told only after the descriptor is on its way.
                if (tag >> 32) % 2 == 0 {
                    leftovers.send(leftover).expect("the target lives");
                    driver.ring.send_socket(socket, there, tag, token);
                } else {
                    driver.ring.send_socket(socket, there, tag, token);
                    driver.ring.turn(Some(Duration::ZERO), &mut driver.waiting).expect("a turn");
                    leftovers.send(leftover).expect("the target lives");
                }
                driver.ring.recycle(buffer);
                driver.ring.doorbell(there);
            }
            Completion::SocketSent { token, result } => {
                assert_eq!(result, Ok(()));
                driver.ring.close(Socket::from_index(token.value() as u32), token);
            }
            Completion::Closed { result, .. } => {
                assert_eq!(result, Ok(()));
                closed += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Waits for descriptor and leftover of each connection, in any order, and echoes until the peers go.
fn adopt_and_echo(driver: &mut Driver, left: &mpsc::Receiver<Leftover>) {
    let mut sockets = HashMap::new();
    let mut waiting: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut ended = 0;
    while ended < MOVED {
        match driver.next() {
            Completion::Adopted { tag, socket } => assert!(sockets.insert(tag, socket).is_none()),
            Completion::Received { token, result: Received::Data { buffer, armed } } => {
                assert!(armed);
                let socket = Socket::from_index(token.value() as u32);
                driver.ring.send(socket, token, Bytes::copy_from_slice(buffer.bytes()));
                driver.ring.recycle(buffer);
            }
            Completion::Received { result: Received::End | Received::Failed(_), .. } => ended += 1,
            Completion::Doorbell | Completion::Sent { .. } => (),
            other => panic!("{other:?}"),
        }
        waiting.extend(left.try_iter().map(|leftover| (leftover.tag, leftover.bytes)));
        let both: Vec<u64> = waiting.keys().copied().filter(|tag| sockets.contains_key(tag)).collect();
        for tag in both {
            let (Some(socket), Some(bytes)) = (sockets.remove(&tag), waiting.remove(&tag)) else {
                unreachable!();
            };
            let own = token(u64::from(socket.index()));
            driver.ring.send(socket, own, Bytes::from(bytes));
            assert!(driver.sent(own).is_ok());
            driver.ring.recv_multishot(socket, own);
        }
    }
}

#[test]
fn dropping_a_ring_ends_what_is_in_flight() {
    let mut driver = ring(SMALL);
    let (_, address) = driver.listen();
    let (armed, mut quiet) = driver.connect(address);
    let (full, slow) = driver.connect(address);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let file = driver.ring.add_file(std::os::fd::OwnedFd::from(writer).into());
    driver.ring.recv_multishot(armed, token(1));
    driver.ring.send(full, token(2), Bytes::from(vec![0; 32 << 20]));
    driver.ring.write_and_sync(file, 0, FileBuffer::new(vec![0; 1 << 20], 0..1 << 20), token(3));
    driver.ring.turn(Some(Duration::ZERO), &mut driver.waiting).expect("a turn");
    // Queued and never submitted by a turn.
    driver.ring.recv_once(full, token(4));
    let start = Instant::now();
    drop(driver);
    assert!(start.elapsed() < Duration::from_secs(5), "it did not have to give up");
    // Read to the end, which tries again after a signal: the kernel wakes this thread to clean up the ring.
    let mut bytes = Vec::new();
    assert_eq!(quiet.read_to_end(&mut bytes).expect("the end"), 0);
    reader.read_to_end(&mut bytes).expect("the writer is closed");
    assert!(TcpStream::connect(address).is_err(), "the listener is closed");
    drop(slow);
}

#[test]
fn a_dropped_ring_leaves_no_descriptor_behind() {
    let open = || std::fs::read_dir("/proc/thread-self/fd").expect("proc").count();
    std::thread::spawn(move || {
        // Other tests open descriptors meanwhile, so only a leak for every ring is told apart from them.
        let before = open();
        for _ in 0..300 {
            drop(ring(SMALL));
        }
        assert!(open() < before + 250, "three hundred rings, none left");
    })
    .join()
    .expect("a thread may make many rings, one after the other");
}
