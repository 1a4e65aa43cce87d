//! Messages that a node stores and delivers, beside bare rings that send what they were sent, as many as it has shards: what
//! each takes of cores.

use std::io;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use protocol::upgrade::Form;

use super::bare::Bare;
use super::chat::{Door, Talk};
use super::client::{Crowd, Greeting};
use super::{Cost, Priority, Server, spread};

/// Sessions of a conversation, how many of them, and messages under way in each.
struct Shape {
    name: &'static str,
    members: usize,
    conversations: usize,
    depth: usize,
}

/// Sessions of one kind are a thousand, as the echo has them; of the second, as many as there may be commands under way in a shard.
const SHAPES: [Shape; 4] = [
    Shape { name: "direct, 1 under way", members: 2, conversations: 500, depth: 1 },
    Shape { name: "direct, 16 under way", members: 2, conversations: 60, depth: 16 },
    Shape { name: "99 members, 1 under way", members: 99, conversations: 10, depth: 1 },
    Shape { name: "99 members, 16 under way", members: 99, conversations: 10, depth: 16 },
];

/// What the bare ring sends for a message: as many bytes as a frame of the binary form has here; the JSON one has 35 more.
const FRAME_BYTES: usize = 228;

/// How long one of them has before it is the next one's turn, and how often.
const SLICE: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;

/// Measures all shapes with one shard, and with one for each core; or those whose names begin so, with so many shards.
///
/// # Errors
/// When a server does not start, or fails.
pub fn main(shards: Option<usize>, name: &str) -> io::Result<()> {
    let both = [1, available_parallelism()?.get()];
    for shards in shards.as_ref().map_or(both.as_slice(), std::slice::from_ref) {
        for shape in SHAPES.iter().filter(|shape| shape.name.starts_with(name)) {
            let directory = std::env::temp_dir().join(format!("stored-{}", std::process::id()));
            let measured = shape.measure(&directory, *shards);
            let removed = std::fs::remove_dir_all(directory);
            measured.and(removed)?;
        }
    }
    Ok(())
}

impl Shape {
    fn measure(&self, directory: &Path, shards: usize) -> io::Result<()> {
        let node = [Server::node(Priority::Behind, directory, shards, None, "listen")?];
        let (mut bare, mut groups) = (Vec::new(), Crowd::of(Vec::new()));
        for core in 0..shards {
            let server = Server::bare(
                Priority::Behind,
                &Bare { core, reply_bytes: FRAME_BYTES, is_corked: self.depth > 1, ..Bare::ECHO },
            )?;
            let (count, each) = (self.conversations / shards, (self.depth, FRAME_BYTES));
            groups.join(Crowd::connect(server.address, count, self.members, each, Greeting::Group)?);
            bare.push(server);
        }
        let mut talks =
            [self.talks(&node[0], directory, Form::Binary)?, self.talks(&node[0], directory, Form::Json)?];
        let (mut costs, mut ratios) = ([Cost::default(); 3], [Vec::new(), Vec::new()]);
        for _ in 0..ROUNDS {
            let least = Cost::of(&bare, &mut groups, SLICE, self.each(self.members))?;
            costs[0].add(&least);
            for (place, talks) in talks.iter_mut().enumerate() {
                let cost = Cost::of(&node, talks, SLICE, self.each(self.members - 1))?;
                costs[1 + place].add(&cost);
                ratios[place].push(cost.nanos() / least.nanos());
            }
        }
        Cost::heading(&format!("{}; shards: {shards}", self.name), self.unit());
        costs[0].line(if shards == 1 { "bare ring" } else { "bare rings, one a core" });
        for (place, form) in ["binary", "JSON"].into_iter().enumerate() {
            costs[1 + place].line(&format!("gatehouse, {form}"));
            let (middle, least, greatest) = spread(&ratios[place]);
            println!("  times the bare ring: median {middle:.2}, {least:.2} to {greatest:.2}");
        }
        Ok(())
    }

    fn talks(&self, node: &Server, directory: &Path, form: Form) -> io::Result<Crowd<Talk>> {
        let door = Door::new(node.address, directory, form)?;
        let talk = |number| Talk::begin(&door, &format!("{form:?}-{number}"), self.members, self.depth);
        (0..self.conversations).map(talk).collect::<io::Result<_>>().map(Crowd::of)
    }

    /// What two have to do with each other counts once, whatever it takes: one receive and two sends. In a group each of those
    /// who are given it counts.
    fn each(&self, given: usize) -> u64 {
        (self.depth * if self.members == 2 { 1 } else { given }) as u64
    }

    const fn unit(&self) -> &'static str {
        if self.members == 2 { "message" } else { "delivery" }
    }
}
