//! Tables of what sockets and rings can do, in the ways that a shard uses them, and of the node's echo service beside them.

use std::io;
use std::time::Duration;

use benches::net::bare::Bare;
use benches::net::client::{Crowd, Greeting};
use benches::net::hop::{Hop, hops};
use benches::net::{Cost, REPLY_BYTES, Server, spread};

/// Connections to a server: enough that it always finds more of them with something to read than one enter brings.
const CONNECTIONS: usize = 1000;

/// How long one thing is measured before it is the next one's turn.
const SLICE: Duration = Duration::from_secs(1);

/// How often the two echoes are compared.
const PAIRS: usize = 9;

/// What a bare ring does, without a node.
pub(crate) fn short() -> io::Result<()> {
    fan_outs(&[1, 10, 100, 500]).and_then(|()| all_hops())
}

/// The node's echo service beside the bare one, fan-outs, hops.
pub(crate) fn all() -> io::Result<()> {
    echoes().and_then(|()| fan_outs(&[1, 2, 10, 100, 500])).and_then(|()| all_hops())
}

/// The node's echo service beside the bare one.
fn echoes() -> io::Result<()> {
    let directory = std::env::temp_dir().join(format!("floor-{}", std::process::id()));
    let servers = [Server::bare(&Bare::ECHO)?, Server::node(&directory, 1, "echo")?];
    let mut crowds = [
        Crowd::connect(servers[0].address, CONNECTIONS, 1, (1, REPLY_BYTES), Greeting::Group)?,
        Crowd::connect(servers[1].address, CONNECTIONS, 1, (1, REPLY_BYTES), Greeting::Upgrade)?,
    ];
    Cost::heading("echo, 64 B, 1,000 connections", "message");
    let (mut ratios, mut all) = (Vec::new(), [Cost::default(); 2]);
    for _ in 0..PAIRS {
        let mut pair = [Cost::default(); 2];
        for (place, server) in servers.chunks(1).enumerate() {
            pair[place] = Cost::of(server, &mut crowds[place], SLICE, 1)?;
            all[place].add(&pair[place]);
        }
        ratios.push(pair[1].nanos() / pair[0].nanos());
    }
    all[0].line("bare ring");
    all[1].line("gatehouse --echo");
    let (middle, least, greatest) = spread(&ratios);
    println!("node / bare, {PAIRS} pairs: median {middle:.2}, {least:.2} to {greatest:.2}");
    drop(servers);
    std::fs::remove_dir_all(directory)
}

/// One message to so many sockets.
fn fan_outs(sizes: &[usize]) -> io::Result<()> {
    Cost::heading("bare ring, 64 B; one receive and", "send");
    for &members in sizes {
        let server = [Server::bare(&Bare::ECHO)?];
        let mut crowd = Crowd::connect(
            server[0].address,
            CONNECTIONS / members,
            members,
            (1, REPLY_BYTES),
            Greeting::Group,
        )?;
        Cost::of(&server, &mut crowd, SLICE / 4, 1)?;
        let cost = Cost::of(&server, &mut crowd, SLICE * 2, members as u64)?;
        let sends = if members == 1 { "1 send, an echo".to_owned() } else { format!("{members} sends") };
        cost.line(&sends);
    }
    Ok(())
}

/// From one shard to another.
fn all_hops() -> io::Result<()> {
    Cost::heading("hop to another shard, both sides", "hop");
    for (what, hop) in [
        ("doorbell, one under way", Hop::Doorbell),
        ("mail, one under way", Hop::Mail(1)),
        ("mail, 16 under way", Hop::Mail(16)),
        ("mail, 256 under way", Hop::Mail(256)),
    ] {
        hops(hop, SLICE * 2)?.line(what);
    }
    Ok(())
}
