//! The old process's part: starts the new one, and gives it everything, or goes on.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;

use super::wire::{self, FromNew, FromOld, Hello};
use super::{
    BACKGROUND_MAX, PREPARE_MAX, READ_AHEAD_MAX, READY_MAX, REST_MAX, START_MAX, UNEXPECTED, UPGRADE_VARIABLE,
};
use crate::files::{Command, Inbox};
use crate::mailbox::Mesh;
use crate::shard::Listener;
use crate::state::NodeState;
use crate::supervisor;

/// How often shards are looked at while they are waited for.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// How this process was started: found out at its start, because the file may be replaced later.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Of this process.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self { path: std::env::current_exe()?, arguments: std::env::args_os().skip(1).collect() })
    }
}

/// What is handed over, and by whom.
pub struct LeavingParts {
    /// What is started.
    pub program: Program,
    /// What the new process has to agree with.
    pub facts: Hello,
    /// The lock of the data directory.
    pub lock: OwnedFd,
    /// The admin's listener.
    pub admin: OwnedFd,
    /// Of all shards.
    pub inboxes: Vec<Inbox>,
    /// Says how far they are.
    pub mesh: Arc<Mesh>,
    /// Breaks off what is written anew.
    pub compaction: Arc<AtomicBool>,
    /// Whether there is something to hand over.
    pub state: Arc<NodeState>,
}

impl LeavingParts {
    /// Waits until each shard has begun and ended a turn, and so has said anew how far it is. Whether all did.
    fn have_had_a_turn(&self) -> bool {
        // What is asked between two turns is answered in the next, which has ended when the one after answers.
        (0..2).all(|_| {
            let (told, heard) = sync_channel(self.inboxes.len());
            self.inboxes.iter().for_each(|inbox| inbox.send(Command::DurableEnds(told.clone())));
            self.inboxes.iter().all(|_| heard.recv_timeout(REST_MAX).is_ok())
        })
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upgraded {
    /// The new process.
    pub pid: u32,
    /// Connections that it has.
    pub connections: usize,
    /// How long nobody was served, in milliseconds.
    pub paused_ms: u64,
}

impl fmt::Display for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, connections, paused_ms } = self;
        write!(f, "upgraded to pid {pid}: {connections} connections in {paused_ms} ms")
    }
}

/// Hands this node over, when it is asked to.
pub struct Leaving {
    parts: LeavingParts,
    one_at_a_time: Mutex<()>,
    /// Held by whoever changes what the new process reads from files; an upgrade waits for them, and they for it.
    pub changes: Arc<RwLock<()>>,
}

impl Leaving {
    /// Nothing is done until it is asked for.
    #[must_use]
    pub fn new(parts: LeavingParts) -> Self {
        Self { parts, one_at_a_time: Mutex::new(()), changes: Arc::default() }
    }

    /// Hands over. Blocks; on a thread that may.
    ///
    /// # Errors
    /// In words for an operator: the node goes on as it was, unless the words say that it has stopped.
    pub fn upgrade(&self) -> anyhow::Result<Upgraded> {
        let Ok(_alone) = self.one_at_a_time.try_lock() else {
            bail!("an upgrade is under way already");
        };
        let upgraded = self.try_upgrade();
        match &upgraded {
            Ok(upgraded) => tracing::info!("{upgraded}"),
            Err(error) if self.parts.state.is_handed_over() => tracing::error!("{error:#}"),
            Err(error) => {
                tracing::error!("the upgrade was given up, and this process serves on: {error:#}");
            }
        }
        upgraded
    }

    fn try_upgrade(&self) -> anyhow::Result<Upgraded> {
        self.check_may_leave()?;
        let mut successor = Successor::start(&self.parts.program)?;
        let seats = self.seat(&mut successor)?;
        let held = Held::begin(&self.parts);
        held.wait_for_background()?;
        self.have_read_ahead(&mut successor)?;
        let _unchanged = self.changes.blocking_write();
        let paused = Instant::now();
        let standing_still = Paused { inboxes: &self.parts.inboxes };
        let connections = match self.give(&mut successor, seats) {
            Ok(connections) => connections,
            Err(error) => {
                // First: a shard may be telling it something.
                drop(successor);
                return Err(error);
            }
        };
        // No way back from here on, whatever happens.
        self.parts.state.set_handed_over();
        std::mem::forget((held, standing_still));
        let pid = successor.child.id();
        let served = successor.finish();
        if served.is_err() {
            self.parts.state.set_hand_over_failed();
        } else {
            supervisor::tell_main_process(pid);
            successor.drain_if(self.parts.state.is_draining());
        }
        self.parts.inboxes.iter().for_each(|inbox| inbox.send(Command::Leave));
        served.context(
            "the new process had everything and did not come to serve: both end, start the node again",
        )?;
        let paused_ms = paused.elapsed().as_millis() as u64;
        Ok(Upgraded { pid, connections, paused_ms })
    }

    fn check_may_leave(&self) -> anyhow::Result<()> {
        let state = &self.parts.state;
        ensure!(!state.is_handed_over(), "this process has handed over already");
        ensure!(!state.is_draining(), "the node drains");
        ensure!(!state.exit_failed(), "a log has failed");
        ensure!(state.degraded().is_empty(), "a log was refused at start: restart the node instead");
        Ok(())
    }

    /// The new process says who it is, and is given listeners and, for each shard, a way to it. Our ends of those.
    fn seat(&self, successor: &mut Successor) -> anyhow::Result<Vec<UnixStream>> {
        match successor.hear(START_MAX).context("it did not begin")? {
            FromNew::Hello(hello) => agree(&self.parts.facts, &hello)?,
            _ => bail!(UNEXPECTED),
        }
        let mut seats = Vec::new();
        successor.tell(&FromOld::Granted, &[self.parts.lock.as_fd(), self.parts.admin.as_fd()])?;
        for (shard, inbox) in self.parts.inboxes.iter().enumerate() {
            let (told, listeners) = sync_channel(1);
            inbox.send(Command::Listeners(told));
            let listeners = listeners.recv_timeout(START_MAX).with_context(|| silent(shard))?;
            // A shard that drains has none.
            self.check_may_leave()?;
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_write_timeout(Some(PREPARE_MAX))?;
            ours.set_read_timeout(Some(PREPARE_MAX))?;
            let of_kind = |wanted| listeners.iter().find(|(kind, _)| *kind == wanted);
            let both = [Listener::Chat, Listener::Echo].into_iter().filter_map(of_kind);
            let descriptors: Vec<_> =
                [theirs.as_fd()].into_iter().chain(both.map(|(_, listener)| listener.as_fd())).collect();
            successor.tell(&FromOld::Granted, &descriptors)?;
            seats.push(ours);
        }
        successor.expect_seated()?;
        Ok(seats)
    }

    /// While everybody is served: the new process reads what is there already, so that little is left for the pause.
    fn have_read_ahead(&self, successor: &mut Successor) -> anyhow::Result<()> {
        let mut durable = vec![0; usize::from(self.parts.facts.logs)];
        for (shard, inbox) in self.parts.inboxes.iter().enumerate() {
            let (told, ends) = sync_channel(1);
            inbox.send(Command::DurableEnds(told));
            for (log, end) in ends.recv_timeout(START_MAX).with_context(|| silent(shard))? {
                durable[usize::from(log)] = end;
            }
        }
        successor.tell(&FromOld::Quiet(durable), &[])?;
        match successor.hear(READ_AHEAD_MAX).context("it did not read the logs back")? {
            FromNew::Ahead => Ok(()),
            _ => bail!(UNEXPECTED),
        }
    }

    /// The pause: everything comes to rest, and is told. The number of connections.
    fn give(&self, successor: &mut Successor, seats: Vec<UnixStream>) -> anyhow::Result<usize> {
        self.check_may_leave()?;
        self.parts.inboxes.iter().for_each(|inbox| inbox.send(Command::Pause));
        let mesh = &self.parts.mesh;
        wait_until(REST_MAX, || mesh.is_settled() && self.parts.have_had_a_turn() && mesh.is_settled())
            .context("the shards did not come to rest: a disk is slow, or one of them very busy")?;
        self.check_may_leave()?;
        successor.tell(&FromOld::Paused, &[])?;
        let (told, numbers) = sync_channel(seats.len());
        for (inbox, stream) in self.parts.inboxes.iter().zip(seats) {
            inbox.send(Command::Describe { stream, told: told.clone() });
        }
        let mut connections = 0;
        let prepared_by = Instant::now() + PREPARE_MAX;
        let left = || prepared_by.saturating_duration_since(Instant::now()).max(LOOK_EVERY);
        for _ in &self.parts.inboxes {
            let told = numbers.recv_timeout(left()).context("the connections could not be passed in time")?;
            connections +=
                told.map_err(|error| successor.why(error)).context("the connections could not be passed")?;
        }
        match successor.hear(left()).context("it did not get ready")? {
            FromNew::Prepared => {}
            _ => bail!(UNEXPECTED),
        }
        self.check_may_leave()?;
        // From here on callers are the new process's: they wait until it takes them.
        let door = &self.parts.state.door;
        door.shut(true);
        let said =
            wait_until(REST_MAX, || door.is_shut()).and_then(|()| successor.tell(&FromOld::Yours, &[]));
        if said.is_err() {
            door.shut(false);
        }
        said?;
        Ok(connections)
    }
}

/// Why two processes do not take over from each other.
fn agree(ours: &Hello, theirs: &Hello) -> anyhow::Result<()> {
    let checks = [
        ("the format of sessions", u64::from(ours.snapshot), u64::from(theirs.snapshot)),
        ("the format of the store", u64::from(ours.format), u64::from(theirs.format)),
        ("the number of logs", u64::from(ours.logs), u64::from(theirs.logs)),
        ("the number of shards", u64::from(ours.shards), u64::from(theirs.shards)),
        ("whether there is an echo service", u64::from(ours.echo), u64::from(theirs.echo)),
    ];
    for (what, old, new) in checks {
        ensure!(
            old == new,
            "{what} differs, {old} here and {new} in the new process: restart the node instead"
        );
    }
    ensure!(ours.store == theirs.store, "it would serve another store: restart the node instead");
    let (old, new) = (ours.connections_each, theirs.connections_each);
    ensure!(
        old <= new,
        "a shard of it has room for {new} connections, and here for {old}: restart the node instead"
    );
    Ok(())
}

fn silent(shard: usize) -> String {
    format!("shard {shard} does not answer within {} s: it is very busy, or stuck", START_MAX.as_secs())
}

/// Nothing is begun behind the sessions for as long as it lives.
struct Held<'p>(&'p LeavingParts);

impl<'p> Held<'p> {
    fn begin(parts: &'p LeavingParts) -> Self {
        parts.compaction.store(true, Ordering::Relaxed);
        parts.inboxes.iter().for_each(|inbox| inbox.send(Command::HoldBackground(true)));
        Self(parts)
    }

    fn wait_for_background(&self) -> anyhow::Result<()> {
        // A report may be of before.
        ensure!(
            self.0.have_had_a_turn(),
            "a shard does not turn: it is very busy, or stuck; `gatehouse_turns_total` says which"
        );
        wait_until(BACKGROUND_MAX, || self.0.mesh.is_background_done())
            .context("segments are being made or written anew and take long: try again later")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.compaction.store(false, Ordering::Relaxed);
        self.0.inboxes.iter().for_each(|inbox| inbox.send(Command::HoldBackground(false)));
    }
}

/// Shards that stand still for as long as it lives.
struct Paused<'p> {
    inboxes: &'p [Inbox],
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.inboxes.iter().for_each(|inbox| inbox.send(Command::Resume));
    }
}

fn wait_until(at_most: Duration, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !done() {
        ensure!(begun.elapsed() < at_most, "not within {} s", at_most.as_secs());
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// The new process. Dropped before it has everything, it is killed.
struct Successor {
    child: Child,
    stream: UnixStream,
    has_everything: bool,
}

impl Successor {
    fn start(program: &Program) -> anyhow::Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_write_timeout(Some(START_MAX))?;
        let child = Process::new(&program.path)
            .args(&program.arguments)
            .env(UPGRADE_VARIABLE, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .with_context(|| format!("{} cannot be started", program.path.display()))?;
        Ok(Self { child, stream, has_everything: false })
    }

    /// Says something to it. That it refuses or has ended is an error in words.
    fn tell(&mut self, message: &FromOld, descriptors: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
        wire::say(&self.stream, message, descriptors).map_err(|error| self.why(error))
    }

    /// What it says next. That it refuses, has ended or says nothing is an error in words.
    fn hear(&mut self, at_most: Duration) -> anyhow::Result<FromNew> {
        self.stream.set_read_timeout(Some(at_most))?;
        match wire::hear(&self.stream) {
            Ok((FromNew::Refused(words), _)) => bail!("the new process refuses: {words}"),
            Ok((said, _)) => Ok(said),
            Err(error) => Err(self.why(error)),
        }
    }

    fn expect_seated(&mut self) -> anyhow::Result<()> {
        match self.hear(START_MAX).context("its threads did not begin")? {
            FromNew::Seated => Ok(()),
            _ => bail!(UNEXPECTED),
        }
    }

    /// An error of the way to it, as what became of it.
    fn why(&mut self, error: io::Error) -> anyhow::Error {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => anyhow!("the new process says nothing"),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                // What it said last may stand in the other of its ways.
                let _ = self.stream.set_read_timeout(Some(Duration::from_millis(100)));
                if let Ok((FromNew::Refused(words), _)) = wire::hear(&self.stream) {
                    return anyhow!("the new process refuses: {words}");
                }
                // Its end closes with it, a moment before it can be waited for.
                let ended =
                    wait_until(Duration::from_millis(200), || !matches!(self.child.try_wait(), Ok(None)));
                match (ended, self.child.try_wait()) {
                    (Ok(()), Ok(Some(status))) => anyhow!(
                        "the new process ended: {status}; if it said why, that stands in the log of this one"
                    ),
                    _ => anyhow!("the new process hung up"),
                }
            }
            _ => anyhow!(error).context("the new process cannot be understood"),
        }
    }

    /// Who told this process to leave in order while it handed over means the node, which is the new one by now.
    fn drain_if(&self, is_draining: bool) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()).filter(|_| is_draining)
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::error!(%error, pid = self.child.id(), "the new process could not be told to drain: send it SIGTERM");
        }
    }

    /// It has everything: waits until it serves.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.has_everything = true;
        match self.hear(READY_MAX) {
            Ok(FromNew::Ready) => Ok(()),
            other => {
                // Or it would hold the directory against whoever is started next. Fails when it has ended.
                let _ = self.child.kill();
                other.and_then(|_| bail!(UNEXPECTED))
            }
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.has_everything {
            // Fails when it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_which_one_could_not_go_on_with_what_the_other_has_do_not_take_over() {
        let here = || Hello {
            snapshot: 5,
            format: 1,
            store: "a store".to_owned(),
            logs: 2,
            shards: 2,
            connections_each: 1_000,
            echo: false,
        };
        agree(&here(), &here()).expect("they are of one kind");
        agree(&here(), &Hello { connections_each: 2_000, ..here() }).expect("more room is no harm");
        let others = [
            (Hello { snapshot: 6, ..here() }, "the format of sessions differs, 5 here and 6"),
            (Hello { format: 2, ..here() }, "the format of the store differs, 1 here and 2"),
            (Hello { logs: 3, ..here() }, "the number of logs differs, 2 here and 3"),
            (Hello { shards: 4, ..here() }, "the number of shards differs, 2 here and 4"),
            (Hello { echo: true, ..here() }, "whether there is an echo service differs"),
            (Hello { store: "another".to_owned(), ..here() }, "another store"),
            (Hello { connections_each: 999, ..here() }, "room for 999 connections, and here for 1000"),
        ];
        for (there, words) in others {
            let refusal = agree(&here(), &there).expect_err(words).to_string();
            assert!(refusal.contains(words) && refusal.contains("restart the node instead"), "{refusal}");
        }
    }
}
