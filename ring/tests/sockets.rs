//! Sockets of a ring against plain ones.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use bytes::Bytes;
use common::{SMALL, ring, token};
use ring::{Completion, Errno, Received, RingConfig, Socket};

#[test]
fn every_accept_brings_the_address_of_its_peer() {
    let mut driver = ring(RingConfig { accepts: 64, ..SMALL });
    let (_, address) = driver.listen();
    let clients: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(address).expect("the listener listens")).collect();
    let mut expected: Vec<_> = clients.iter().map(|client| client.local_addr().expect("connected")).collect();
    let mut accepted: Vec<_> = (0..100).map(|_| driver.accepted().1).collect();
    expected.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(accepted, expected);
}

#[test]
fn peers_of_an_ipv6_listener_have_ipv6_addresses() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return;
    };
    let mut driver = ring(SMALL);
    let address = listener.local_addr().expect("bound");
    driver.ring.listen(listener);
    driver.connect(address);
}

#[test]
fn what_arrives_once_is_received_once() {
    let mut driver = ring(SMALL);
    let (_, address) = driver.listen();
    let (socket, mut client) = driver.connect(address);
    driver.ring.recv_once(socket, token(7));
    client.write_all(b"first").expect("written");
    let (mut buffer, armed) = driver.data(token(7));
    assert_eq!((buffer.bytes(), armed), (&b"first"[..], false));
    buffer.bytes_mut()[0] = b'F';
    assert_eq!(buffer.bytes(), b"First");
    driver.ring.recycle(buffer);

    client.write_all(b"second").expect("written");
    driver.ring.recv_once(socket, token(8));
    assert_eq!(driver.data(token(8)).0.bytes(), b"second");
    assert_eq!(driver.ring.counters().recv_buffers_out, 1);
}

#[test]
fn a_multishot_receive_goes_on_until_the_peer_ends_it() {
    let mut driver = ring(SMALL);
    let (_, address) = driver.listen();
    let (socket, mut client) = driver.connect(address);
    driver.ring.recv_multishot(socket, token(1));
    for message in [&b"one"[..], b"two", b"three"] {
        client.write_all(message).expect("written");
        let (buffer, armed) = driver.data(token(1));
        assert_eq!((buffer.bytes(), armed), (message, true));
        driver.ring.recycle(buffer);
    }
    client.shutdown(Shutdown::Write).expect("shut down");
    assert!(matches!(driver.received(token(1)), Received::End));
    driver.ring.close(socket, token(2));
    assert_eq!(driver.closed(token(2)), Ok(()));
    assert_eq!(client.read(&mut [0]).expect("the end, not an error"), 0);
}

#[test]
fn a_shutdown_ends_the_receive_and_the_peer_sees_the_end() {
    let mut driver = ring(SMALL);
    let (_, address) = driver.listen();
    let (socket, mut client) = driver.connect(address);
    driver.ring.recv_multishot(socket, token(1));
    driver.ring.send(socket, token(2), Bytes::from_static(b"bye"));
    assert_eq!(driver.sent(token(2)), Ok(3));
    driver.ring.shutdown(socket, token(3));
    driver.shut_down(token(3));
    assert!(matches!(driver.received(token(1)), Received::End));
    let mut said = Vec::new();
    client.read_to_end(&mut said).expect("the peer reads to the end");
    assert_eq!(said, b"bye");
    driver.ring.close(socket, token(4));
    assert_eq!(driver.closed(token(4)), Ok(()));
}

#[test]
fn a_reset_fails_the_receive_and_the_send() {
    let mut driver = ring(SMALL);
    let (_, address) = driver.listen();
    let (socket, client) = driver.connect(address);
    driver.ring.recv_multishot(socket, token(1));
    driver.ring.send(socket, token(2), Bytes::from_static(b"never read"));
    assert_eq!(driver.sent(token(2)), Ok(10));
    // Closing with unread bytes resets the connection.
    drop(client);
    assert!(matches!(driver.received(token(1)), Received::Failed(_)));
    driver.ring.send(socket, token(3), Bytes::from_static(b"into the void"));
    assert_eq!(driver.sent(token(3)), Err(Errno::new(32)), "EPIPE, and no signal");
}

#[test]
fn an_empty_slot_is_an_error_and_not_a_danger() {
    let mut driver = ring(SMALL);
    let nobody = Socket::from_index(9);
    let bad_fd = Errno::new(9);
    driver.ring.recv_once(nobody, token(1));
    assert!(matches!(driver.received(token(1)), Received::Failed(errno) if errno == bad_fd));
    driver.ring.send(nobody, token(2), Bytes::from_static(b"x"));
    assert_eq!(driver.sent(token(2)), Err(bad_fd));
    driver.ring.shutdown(nobody, token(3));
    driver.shut_down(token(3));
    driver.ring.close(nobody, token(4));
    assert_eq!(driver.closed(token(4)), Err(bad_fd));
    assert!(driver.ring.duplicate(nobody).is_err());
}

#[test]
fn options_of_the_listener_are_inherited() {
    let options = ring::ListenOptions { no_delay: true, ..ring::ListenOptions::default() };
    let listener = ring::bind("127.0.0.1:0".parse().expect("an address"), &options).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut driver = ring(SMALL);
    driver.ring.listen(listener);
    let (socket, client) = driver.connect(address);
    let ours = TcpStream::from(driver.ring.duplicate(socket).expect("a plain descriptor"));
    assert!(ours.nodelay().expect("an option"));
    assert_eq!(ours.peer_addr().ok(), client.local_addr().ok());
}

#[test]
fn a_paused_listener_takes_nothing_and_a_resumed_one_takes_what_waited() {
    let mut driver = ring(SMALL);
    let (listener, address) = driver.listen();
    driver.connect(address);
    driver.ring.pause_accepts(listener);
    while driver.ring.counters().in_flight > 1 {
        driver.ring.turn(Some(common::PATIENCE), &mut driver.waiting).expect("a turn");
    }
    assert!(driver.waiting.is_empty(), "{:?}", driver.waiting);
    let client = TcpStream::connect(address).expect("the backlog takes it");
    driver.ring.turn(Some(std::time::Duration::ZERO), &mut driver.waiting).expect("a turn");
    assert!(driver.waiting.is_empty(), "{:?}", driver.waiting);
    driver.ring.resume_accepts(listener);
    assert_eq!(Some(driver.accepted().1), client.local_addr().ok());
}

#[test]
fn a_resume_right_after_a_pause_keeps_all_accepts_posted() {
    let mut driver = ring(SMALL);
    let (listener, address) = driver.listen();
    driver.ring.pause_accepts(listener);
    driver.ring.resume_accepts(listener);
    for _ in 0..20 {
        driver.connect(address);
    }
    assert_eq!(driver.ring.counters().in_flight, SMALL.accepts + 1);
}

#[test]
fn a_listener_with_room_takes_so_many_and_the_others_wait() {
    let mut driver = ring(SMALL);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let listener = driver.ring.listen_within(listener, 2);
    let clients: Vec<_> =
        (0..5).map(|_| TcpStream::connect(address).expect("the backlog takes it")).collect();
    let mut peers: Vec<_> = (0..2).map(|_| driver.accepted().1).collect();
    driver.ring.turn(Some(std::time::Duration::ZERO), &mut driver.waiting).expect("a turn");
    assert!(driver.waiting.is_empty(), "{:?}", driver.waiting);
    assert_eq!(driver.ring.counters().in_flight, 1, "the waker: no accept is posted");
    driver.ring.admit(listener, 1);
    driver.ring.admit(listener, 3);
    peers.extend((0..3).map(|_| driver.accepted().1));
    peers.sort_unstable();
    let mut expected: Vec<_> =
        clients.iter().map(|client| client.local_addr().expect("an address")).collect();
    expected.sort_unstable();
    assert_eq!(peers, expected);
    assert_eq!(driver.ring.counters().in_flight, 1);
}

#[test]
fn a_listener_that_finds_the_table_full_takes_nobody_until_there_is_room_again() {
    let mut driver = ring(RingConfig { sockets_max: 2, accepts: 1, ..SMALL });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let listener = driver.ring.listen_within(listener, 100);
    let _clients: Vec<_> =
        (0..5).map(|_| TcpStream::connect(address).expect("the backlog takes it")).collect();
    let (socket, _) = driver.accepted();
    driver.accepted();
    match driver.next() {
        Completion::Accepted { result: Err(errno), .. } => assert_eq!(errno, Errno::TABLE_FULL),
        other => panic!("an error expected, got {other:?}"),
    }
    driver.ring.turn(Some(std::time::Duration::ZERO), &mut driver.waiting).expect("a turn");
    assert!(driver.waiting.is_empty(), "one was lost, and no more are: {:?}", driver.waiting);
    driver.ring.close(socket, token(1));
    assert!(matches!(driver.next(), Completion::Closed { .. }));
    driver.ring.admit(listener, 1);
    driver.accepted();
}

#[test]
fn a_closed_listener_refuses() {
    let mut driver = ring(SMALL);
    let (listener, address) = driver.listen();
    driver.connect(address);
    driver.ring.close_listener(listener);
    while driver.ring.counters().in_flight > 1 {
        driver.ring.turn(Some(common::PATIENCE), &mut driver.waiting).expect("a turn");
    }
    assert!(TcpStream::connect(address).is_err());
    let (again, address) = driver.listen();
    assert_eq!(again, listener, "the name is free again");
    driver.connect(address);
}

#[test]
fn a_full_table_refuses_one_connection_and_not_the_next() {
    let mut driver = ring(RingConfig { sockets_max: 2, accepts: 2, ..SMALL });
    let (_, address) = driver.listen();
    let (first, _client) = driver.connect(address);
    let (_second, _other) = driver.connect(address);
    let mut refused = TcpStream::connect(address).expect("the handshake is the kernel's");
    let result = driver.until(
        |completion| matches!(completion, Completion::Accepted { .. }),
        |completion| match completion {
            Completion::Accepted { result, .. } => result,
            _ => unreachable!(),
        },
    );
    assert_eq!(result, Err(Errno::TABLE_FULL));
    assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)));
    driver.ring.close(first, token(1));
    assert_eq!(driver.closed(token(1)), Ok(()));
    assert_eq!(driver.connect(address).0, first);
}
