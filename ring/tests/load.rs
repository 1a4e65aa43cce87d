//! Many sockets at once, with everything that can run short running short: the peers must not notice.

mod common;

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use common::{Driver, PATIENCE, Random, SMALL, ring, token};
use ring::{Completion, Counters, Received, RingConfig, Socket, Token};

/// What a run sends.
#[derive(Clone, Copy)]
struct Load {
    sockets: usize,
    rounds: usize,
    message_bytes_max: usize,
    seed: u64,
}

#[test]
fn an_echo_over_many_sockets_returns_every_byte_in_order() {
    let load = Load { sockets: 150, rounds: 20, message_bytes_max: 6000, seed: 0xec40 };
    let counters = echo(RingConfig { accepts: 64, recv_buffers: 256, ..SMALL }, load);
    assert_eq!(counters.recv_buffers_out, 0);
    assert_eq!(counters.recv_parked, 0);
}

#[test]
fn random_sizes_arrive_whole_whatever_the_ring_is_sized_to() {
    let mut random = Random::new(0x51_2e5);
    for _ in 0..12 {
        let sq_entries = 4 << random.below(5);
        let config = RingConfig {
            sq_entries,
            cq_entries: sq_entries << random.below(4),
            sockets_max: 64,
            recv_buffers: 1 << random.below(7),
            recv_buffer_bytes: 1 + random.below(5000) as u32,
            accepts: 1 + random.below(40) as u32,
        };
        let load = Load {
            sockets: 1 + random.below(30),
            rounds: 6,
            message_bytes_max: 1 + random.below(12_000),
            seed: random.next(),
        };
        println!("{config:?}");
        assert_eq!(echo(config, load).recv_buffers_out, 0);
    }
}

#[test]
fn a_completion_queue_that_overflows_loses_nothing() {
    let config = RingConfig { cq_entries: 64, recv_buffers: 512, recv_buffer_bytes: 32, ..SMALL };
    let load = Load { sockets: 80, rounds: 10, message_bytes_max: 2000, seed: 0x0f10 };
    let counters = echo(config, load);
    assert!(counters.cq_overflows > 0, "the test is of no use without: {counters:?}");
    assert_eq!(counters.recv_buffers_out, 0);
}

#[test]
fn two_buffers_serve_fifty_busy_sockets_without_spinning() {
    let config = RingConfig { recv_buffers: 2, ..SMALL };
    let load = Load { sockets: 50, rounds: 10, message_bytes_max: 5000, seed: 0x2b0f };
    let counters = echo(config, load);
    assert!(counters.recv_starved > 0, "the test is of no use without: {counters:?}");
    assert!(counters.enters < 2 * counters.completions + 100, "turns without work: {counters:?}");
    assert_eq!((counters.recv_buffers_out, counters.recv_parked), (0, 0));
}

#[test]
fn silent_sockets_that_starved_are_armed_as_soon_as_one_buffer_is_back() {
    let mut driver = ring(RingConfig { recv_buffers: 2, ..SMALL });
    let (_, address) = driver.listen();
    let (greedy, mut greedy_client) = driver.connect(address);
    let mut silent: Vec<_> = (0..20).map(|_| driver.connect(address)).collect();
    greedy_client.write_all(&[1; 4096]).expect("written");
    driver.ring.recv_multishot(greedy, token(100));
    let mut held = Vec::new();
    while held.len() < 2 {
        held.push(driver.data(token(100)).0);
    }
    for (index, (socket, _)) in silent.iter().enumerate() {
        match index % 2 {
            0 => driver.ring.recv_once(*socket, token(index as u64)),
            _ => driver.ring.recv_multishot(*socket, token(index as u64)),
        }
    }
    driver.ring.turn(Some(Duration::ZERO), &mut driver.waiting).expect("a turn");
    let parked = driver.ring.counters().recv_parked;
    for _ in 0..10 {
        driver.ring.turn(Some(Duration::ZERO), &mut driver.waiting).expect("a turn");
    }
    assert_eq!(driver.ring.counters().recv_parked, parked, "nothing moves without a buffer");

    driver.ring.recycle(held.pop().expect("one of two"));
    for (index, (_, client)) in silent.iter_mut().enumerate() {
        client.write_all(&[index as u8; 3]).expect("written");
        let (buffer, _) = driver.data(token(index as u64));
        assert_eq!(buffer.bytes(), [index as u8; 3]);
        driver.ring.recycle(buffer);
    }
    assert_eq!(driver.ring.counters().recv_parked, 0);
}

#[test]
fn a_shutdown_ends_a_receive_that_waits_for_a_buffer() {
    let mut driver = ring(RingConfig { recv_buffers: 1, ..SMALL });
    let (_, address) = driver.listen();
    let (greedy, mut greedy_client) = driver.connect(address);
    let (starved, mut client) = driver.connect(address);
    greedy_client.write_all(b"all").expect("written");
    driver.ring.recv_once(greedy, token(1));
    let (held, _) = driver.data(token(1));
    client.write_all(b"never read").expect("written");
    driver.ring.recv_multishot(starved, token(2));
    driver.ring.turn(Some(Duration::ZERO), &mut driver.waiting).expect("a turn");
    assert_eq!(driver.ring.counters().recv_parked, 1);
    driver.ring.shutdown(starved, token(3));
    assert!(matches!(driver.received(token(2)), Received::End));
    driver.shut_down(token(3));
    driver.ring.close(starved, token(4));
    assert_eq!(driver.closed(token(4)), Ok(()));
    driver.ring.recycle(held);
    driver.ring.turn(Some(Duration::ZERO), &mut driver.waiting).expect("a turn");
    assert!(driver.waiting.is_empty(), "{:?}", driver.waiting);
}

#[test]
fn a_slow_reader_gets_short_sends_and_in_the_end_everything() {
    let mut driver = ring(SMALL);
    let (_, address) = driver.listen();
    let (socket, mut client) = driver.connect(address);
    let mut random = Random::new(0x510);
    let message = Bytes::from(random.bytes(8 << 20));
    let expected = message.clone();
    driver.ring.send(socket, token(1), message.clone());
    driver.ring.turn(Some(Duration::ZERO), &mut driver.waiting).expect("a turn");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut rest = message;
    loop {
        let sent = driver.sent(token(1)).expect("progress");
        assert!(sent > 0);
        rest = rest.slice(sent..);
        if rest.is_empty() {
            break;
        }
        driver.ring.send(socket, token(1), rest.clone());
    }
    driver.ring.shutdown(socket, token(2));
    driver.shut_down(token(2));
    assert!(reader.join().expect("the reader ends").expect("read") == expected);
}

/// Runs an echo server on a ring against plain sockets on another thread, to the end of all connections.
fn echo(config: RingConfig, load: Load) -> Counters {
    let mut driver = ring(config);
    let (_, address) = driver.listen();
    let clients = std::thread::spawn(move || talk(address, load));
    let mut echoes = HashMap::new();
    let mut closed = 0;
    while closed < load.sockets {
        driver.turn();
        for completion in std::mem::take(&mut driver.waiting) {
            closed += usize::from(serve(&mut driver, &mut echoes, completion));
        }
    }
    clients.join().expect("the clients got what they sent");
    driver.ring.counters()
}

/// One connection of the echo server.
#[derive(Default)]
struct Echo {
    queue: VecDeque<Bytes>,
    sending: bool,
    ended: bool,
}

/// Handles one completion of the echo server; `true` if a connection is over.
fn serve(driver: &mut Driver, echoes: &mut HashMap<u32, Echo>, completion: Completion) -> bool {
    let index = match completion {
        Completion::Accepted { result, .. } => {
            let (socket, _) = result.expect("accepted");
            echoes.insert(socket.index(), Echo::default());
            driver.ring.recv_multishot(socket, by_socket(socket));
            return false;
        }
        Completion::Closed { result, .. } => {
            assert_eq!(result, Ok(()));
            return true;
        }
        Completion::Received { token, result } => {
            let index = token.value() as u32;
            let echo = echoes.get_mut(&index).expect("an open connection");
            match result {
                Received::Data { buffer, armed } => {
                    echo.queue.push_back(Bytes::copy_from_slice(buffer.bytes()));
                    driver.ring.recycle(buffer);
                    if !armed {
                        driver.ring.recv_multishot(Socket::from_index(index), token);
                    }
                }
                Received::End => echo.ended = true,
                Received::Disarmed | Received::Failed(_) => panic!("{result:?}"),
            }
            index
        }
        Completion::Sent { token, mut bytes, result } => {
            let index = token.value() as u32;
            let echo = echoes.get_mut(&index).expect("an open connection");
            let sent = result.expect("the peer reads");
            echo.sending = false;
            let rest = bytes.split_off(sent);
            if !rest.is_empty() {
                echo.queue.push_front(rest);
            }
            index
        }
        other => panic!("{other:?}"),
    };
    let socket = Socket::from_index(index);
    let echo = echoes.get_mut(&index).expect("an open connection");
    if !echo.sending
        && let Some(bytes) = echo.queue.pop_front()
    {
        echo.sending = true;
        driver.ring.send(socket, by_socket(socket), bytes);
    } else if !echo.sending && echo.ended {
        echoes.remove(&index);
        driver.ring.close(socket, by_socket(socket));
    }
    false
}

fn by_socket(socket: Socket) -> Token {
    token(u64::from(socket.index()))
}

/// The plain side: all sockets send, then all read, so that they are busy at the same time.
fn talk(address: SocketAddr, load: Load) {
    let mut random = Random::new(load.seed);
    let mut streams: Vec<TcpStream> = (0..load.sockets)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("the listener listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.set_nodelay(true).expect("an option");
            stream
        })
        .collect();
    for round in 0..load.rounds {
        let mut expected = Vec::new();
        for stream in &mut streams {
            let length = 1 + random.below(load.message_bytes_max);
            let bytes = random.bytes(length);
            stream.write_all(&bytes).expect("written");
            expected.push(bytes);
        }
        for (index, (stream, expected)) in streams.iter_mut().zip(expected).enumerate() {
            let mut bytes = vec![0; expected.len()];
            stream.read_exact(&mut bytes).expect("an echo");
            assert!(bytes == expected, "socket {index}, round {round}");
        }
    }
    for stream in &mut streams {
        stream.shutdown(Shutdown::Write).expect("shut down");
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    }
}
