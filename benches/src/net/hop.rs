//! From one shard to another and back: two rings on two threads, with nothing to do but that.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use gateway::mailbox::{Back, Forward, Mailboxes, Mesh, deliver_places};
use ring::{Completion, Ring, RingAddress, RingConfig};
use router::ShardId;

use super::Cost;
use super::cpu::cpu_of_this_thread;

/// How it is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hop {
    /// By a doorbell alone, which each ring answers with one.
    Doorbell,
    /// By mail, so much of it under way, and a doorbell for whoever sleeps: as shards do it.
    Mail(u32),
}

/// How long a thread sleeps that nobody rings for.
const WAIT: Duration = Duration::from_millis(100);

/// One of the two threads.
struct Side {
    me: ShardId,
    hop: Hop,
    mesh: Arc<Mesh>,
    mail: Mailboxes,
    stop: Arc<AtomicBool>,
    /// Messages taken.
    taken: u64,
}

/// Hops between two threads for `time`, each on a core of its own, and what both of them took.
///
/// # Errors
/// When a ring cannot be made or breaks.
///
/// # Panics
/// When a thread does.
pub fn hops(hop: Hop, time: Duration) -> io::Result<Cost> {
    let (mesh, stop) = (Mesh::new(2, deliver_places(2)), Arc::new(AtomicBool::new(false)));
    let (to_first, from_second) = channel();
    let (to_second, from_first) = channel();
    let start = |me: u16, tell: Sender<RingAddress>, told: Receiver<RingAddress>| {
        let (mesh, stop) = (mesh.clone(), stop.clone());
        thread::spawn(move || {
            let me = ShardId(me);
            let mail = Mailboxes::new(mesh.clone(), me);
            Side { me, hop, mesh, mail, stop, taken: 0 }.run(&tell, &told)
        })
    };
    let threads = [start(0, to_second, from_second), start(1, to_first, from_first)];
    let begun = Instant::now();
    thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    let mut cost = Cost::default();
    for thread in threads {
        let (count, cpu) = thread.join().expect("a side does not panic")?;
        cost.count += count;
        cost.cpu += cpu;
    }
    cost.elapsed = begun.elapsed();
    Ok(cost)
}

impl Side {
    /// Turns until it is told to stop: how much it took, and its CPU.
    fn run(
        mut self,
        tell: &Sender<RingAddress>,
        told: &Receiver<RingAddress>,
    ) -> io::Result<(u64, Duration)> {
        let _ = ring::pin_to_core(self.me.index());
        let mut ring = Ring::new(RingConfig::default()).map_err(io::Error::other)?;
        // The other one waits for it, or has failed and says so itself.
        let _ = tell.send(ring.address());
        let other = told.recv().map_err(io::Error::other)?;
        if self.me == ShardId(0) {
            self.begin(&mut ring, other);
        }
        let (mut completions, mut rings) = (Vec::new(), Vec::new());
        let before = cpu_of_this_thread()?;
        while !self.stop.load(Ordering::Relaxed) {
            let wait = if self.mesh.fall_asleep(self.me) { WAIT } else { Duration::ZERO };
            ring.turn(Some(wait), &mut completions)?;
            self.mesh.wake_up(self.me);
            for completion in completions.drain(..) {
                if self.hop == Hop::Doorbell && matches!(completion, Completion::Doorbell) {
                    self.taken += 1;
                    ring.doorbell(other);
                }
            }
            self.take_mail();
            self.mail.take_doorbells(&mut rings);
            rings.drain(..).for_each(|_| ring.doorbell(other));
        }
        let cpu = cpu_of_this_thread()?.saturating_sub(before);
        // The other one may still ring: its ring must be there.
        thread::sleep(WAIT);
        Ok((self.taken, cpu))
    }

    fn begin(&mut self, ring: &mut Ring, other: RingAddress) {
        match self.hop {
            Hop::Doorbell => ring.doorbell(other),
            Hop::Mail(count) => (0..count).for_each(|_| self.ask()),
        }
    }

    /// The smallest request that there is.
    fn ask(&mut self) {
        self.mail.post(ShardId(1), Forward::CancelMove(0));
    }

    fn take_mail(&mut self) {
        let other = ShardId(1 - self.me.0);
        while self.mail.take_request(other).is_some() {
            self.taken += 1;
            self.mail.reply(other, Back::Moved);
        }
        // What is asked again now is answered in a later turn: it ends.
        while self.mail.take_reply(other).is_some() {
            self.taken += 1;
            self.ask();
        }
    }
}
