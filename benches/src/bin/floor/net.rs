//! Tables of what sockets and rings can do, in the ways that a shard uses them, and of the node's echo service beside them.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use benches::net::bare::Bare;
use benches::net::client::{Crowd, Greeting};
use benches::net::hop::{Hop, hops};
use benches::net::paced::{Kept, Pace};
use benches::net::{CORE, Cost, Priority, REPLY_BYTES, Server, spread};

/// Connections to a server: enough that it always finds more of them with something to read than one enter brings.
const CONNECTIONS: usize = 1000;

/// How long one thing is measured before it is the next one's turn.
const SLICE: Duration = Duration::from_secs(1);

/// How often the two echoes are compared.
const PAIRS: usize = 9;

const NAMES: [&str; 2] = ["bare ring", "gatehouse --echo"];

/// Echoes of the paced comparison: a fifth of a core or less, so a server sleeps between most of them.
const MESSAGES_A_SECOND: f64 = 20_000.0;

/// As [`SLICE`], of that: it has as much of the cores counted as a saturated server in a fifth of the time.
const PACED_SLICE: Duration = Duration::from_secs(2);

/// What a bare ring does, without a node.
pub(crate) fn short() -> io::Result<()> {
    fan_outs(&[1, 10, 100, 500]).and_then(|()| all_hops())
}

/// The node's echo service beside the bare one, fan-outs, hops.
pub(crate) fn all() -> io::Result<()> {
    echoes().and_then(|()| fan_outs(&[1, 2, 10, 100, 500])).and_then(|()| all_hops())
}

/// The node's echo service beside the bare one: as fast as they can, and at a rate that leaves them idle in between.
fn echoes() -> io::Result<()> {
    // All of them before this thread is kept on a core: what it starts then is kept there too.
    let (mut saturated, mut paced) = (Both::start(Priority::Behind)?, Both::start(Priority::Usual)?);
    Cost::heading("echo, 64 B, 1,000 conn., saturated", "message");
    let Both { servers, crowds, .. } = &mut saturated;
    pairs(|place| Cost::of(&servers[place..=place], &mut crowds[place], SLICE, 1))?;
    saturated.end()?;
    // Where there is no such core, wherever the system wants it.
    let _ = ring::pin_to_core(CORE + 1);
    Cost::heading(&format!("echo, likewise, {MESSAGES_A_SECOND} a second"), "message");
    let pace = Pace { a_second: MESSAGES_A_SECOND, delay: Duration::ZERO, time: PACED_SLICE };
    let mut kept = [Kept::default(), Kept::default()];
    let Both { servers, crowds, .. } = &mut paced;
    pairs(|place| {
        Cost::of_work(&servers[place..=place], || {
            let slice = crowds[place].keep_pace(&pace)?;
            kept[place].add(&slice);
            Ok(slice.count)
        })
    })?;
    for (name, kept) in NAMES.into_iter().zip(&kept) {
        println!("the client of {name} was {}", kept.in_words());
    }
    paced.end()
}

/// A bare ring, a node, and as many connections to each.
struct Both {
    servers: [Server; 2],
    crowds: [Crowd; 2],
    directory: PathBuf,
}

impl Both {
    fn start(priority: Priority) -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("floor-{}-{priority:?}", std::process::id()));
        let node = Server::node(priority, &directory, 1, None, "echo")?;
        let servers = [Server::bare(priority, &Bare::ECHO)?, node];
        let connect = |place: usize, greeting| {
            Crowd::connect(servers[place].address, CONNECTIONS, 1, (1, REPLY_BYTES), greeting)
        };
        let crowds = [connect(0, Greeting::Group)?, connect(1, Greeting::Upgrade)?];
        Ok(Self { servers, crowds, directory })
    }

    fn end(self) -> io::Result<()> {
        drop(self.servers);
        std::fs::remove_dir_all(self.directory)
    }
}

/// Measures the bare ring, then the node, and again: what each took, and the node's as a multiple of the bare ring's of the same pair.
fn pairs(mut measure: impl FnMut(usize) -> io::Result<Cost>) -> io::Result<()> {
    let (mut ratios, mut all) = (Vec::new(), [Cost::default(); 2]);
    for _ in 0..PAIRS {
        let pair = [measure(0)?, measure(1)?];
        pair.iter().zip(&mut all).for_each(|(cost, all)| all.add(cost));
        ratios.push(pair[1].nanos() / pair[0].nanos());
    }
    NAMES.into_iter().zip(&all).for_each(|(name, cost)| cost.line(name));
    let (middle, least, greatest) = spread(&ratios);
    println!("node / bare, {PAIRS} pairs: median {middle:.2}, {least:.2} to {greatest:.2}");
    Ok(())
}

/// One message to so many sockets.
fn fan_outs(sizes: &[usize]) -> io::Result<()> {
    Cost::heading("bare ring, 64 B; one receive and", "send");
    for &members in sizes {
        let server = [Server::bare(Priority::Behind, &Bare::ECHO)?];
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
