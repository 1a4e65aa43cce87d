//! Sockets that another ring, of another process, goes on with.

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use common::{PATIENCE, SMALL, ring, token};
use ring::{Errno, Received};

/// More than the buffers of both ends take.
const MUCH: usize = 16 << 20;

#[test]
fn a_socket_goes_on_in_another_ring_and_nothing_is_lost() {
    let mut old = ring(SMALL);
    let (_, address) = old.listen();
    let (idle, mut client) = old.connect(address);
    let (busy, mut slow) = old.connect(address);
    old.ring.recv_multishot(idle, token(1));
    old.ring.recv_once(busy, token(2));
    old.ring.send(busy, token(3), Bytes::from(vec![7; MUCH]));
    let first = old.sent(token(3)).expect("a part fits the buffers");
    assert!(first < MUCH);
    old.ring.send(busy, token(4), Bytes::from(vec![7; MUCH - first]));
    client.write_all(b"before").expect("written");
    let (buffer, _) = old.data(token(1));
    assert_eq!(buffer.bytes(), b"before");
    old.ring.recycle(buffer);

    old.ring.cancel_transfers();
    assert!(matches!(old.received(token(1)), Received::Disarmed));
    assert!(matches!(old.received(token(2)), Received::Disarmed));
    let second = match old.sent(token(4)) {
        Err(Errno::CANCELLED) => 0,
        sent => sent.expect("a send ends with what was sent"),
    };
    client.write_all(b"between").expect("the socket is not touched");

    let passed: Vec<OwnedFd> =
        [idle, busy].map(|socket| old.ring.duplicate(socket).expect("a descriptor")).into();
    let mut new = ring(SMALL);
    let adopted = new.ring.adopt(passed).expect("its table is empty");
    drop(old);
    new.ring.recv_multishot(adopted[0], token(5));
    let (buffer, armed) = new.data(token(5));
    assert_eq!((buffer.bytes(), armed), (&b"between"[..], true));
    new.ring.recycle(buffer);
    let left = MUCH - first - second;
    let reader = std::thread::spawn(move || {
        slow.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
        let mut read = vec![0; MUCH];
        slow.read_exact(&mut read).expect("all of it comes");
        read.iter().all(|byte| *byte == 7)
    });
    let mut gone = 0;
    while gone < left {
        new.ring.send(adopted[1], token(6), Bytes::from(vec![7; left - gone]));
        gone += new.sent(token(6)).expect("it reads");
    }
    assert!(reader.join().expect("it reads"));

    // Those that the kernel gives out later are others.
    let (_, address) = new.listen();
    let (socket, _client) = new.connect(address);
    assert!(!adopted.contains(&socket));
}

#[test]
fn what_is_no_room_for_stays_with_the_caller_and_leaves_the_table_as_it_was() {
    let mut driver = ring(SMALL);
    let file = std::fs::File::open("/dev/null").expect("a file");
    let connect = || OwnedFd::from(file.try_clone().expect("a descriptor"));
    let many = (0..=SMALL.sockets_max).map(|_| connect()).collect();
    assert!(driver.ring.adopt(many).is_err());
    assert_eq!(driver.ring.adopt(vec![connect(), connect()]).expect("there is room").len(), 2);
}

#[test]
fn a_ring_whose_transfers_were_cancelled_goes_on_by_itself() {
    let mut driver = ring(SMALL);
    let (_, address) = driver.listen();
    let (socket, mut client) = driver.connect(address);
    for round in 0..100 {
        driver.ring.recv_multishot(socket, token(round));
        client.write_all(b"x").expect("written");
        driver.ring.cancel_transfers();
        let mut came = 0;
        loop {
            match driver.received(token(round)) {
                Received::Data { buffer, armed } => {
                    came += buffer.bytes().len();
                    driver.ring.recycle(buffer);
                    if !armed {
                        break;
                    }
                }
                Received::Disarmed => break,
                other => panic!("{other:?}"),
            }
        }
        if came == 0 {
            driver.ring.recv_once(socket, token(1_000));
            let (buffer, _) = driver.data(token(1_000));
            driver.ring.recycle(buffer);
        }
    }
}
