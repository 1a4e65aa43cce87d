//! What a service manager hears.

use std::{
    io::ErrorKind,
    os::unix::net::{SocketAddr, UnixDatagram},
    sync::Arc,
};

use gateway::{metrics::ShardMetrics, supervisor::Supervisor};

/// What was said since the last time.
fn heard(manager: &UnixDatagram) -> Vec<String> {
    let mut said = Vec::new();
    let mut buffer = [0; 256];
    loop {
        match manager.recv(&mut buffer) {
            Ok(bytes) => said.push(String::from_utf8_lossy(&buffer[..bytes]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return said,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_shard_that_does_not_turn_is_not_vouched_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_nonblocking(true).expect("a socket of ours");
    let shards = [Arc::new(ShardMetrics::default()), Arc::new(ShardMetrics::default())];
    let address = SocketAddr::from_pathname(&path).expect("a path");
    let mut supervisor = Supervisor::new(Some(address), shards.to_vec());
    supervisor.ready();
    assert_eq!(heard(&manager), ["READY=1\nSTATUS=serving"]);

    shards[0].ring_enters_total.set_total(1);
    supervisor.feed_watchdog();
    assert!(heard(&manager).is_empty(), "the other has not begun");
    shards[1].ring_enters_total.set_total(1);
    supervisor.feed_watchdog();
    assert_eq!(heard(&manager), ["WATCHDOG=1"]);

    // One turns on, the other is stuck; then both turn.
    for turns in 2..5 {
        shards[0].ring_enters_total.set_total(turns);
        supervisor.feed_watchdog();
        assert!(heard(&manager).is_empty());
    }
    shards[1].ring_enters_total.set_total(2);
    supervisor.feed_watchdog();
    assert_eq!(heard(&manager), ["WATCHDOG=1"]);

    supervisor.stopping();
    assert_eq!(heard(&manager), ["STOPPING=1\nSTATUS=draining"]);
}
