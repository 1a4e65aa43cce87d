//! The only place where actions become operations of a ring, and completions become events.

mod commands;
mod segments;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use ring::{Completion, Errno, ListenerId, Received, Ring, RingAddress, Token};
use router::conversation::ReadPlace;
use router::index::IndexAsk;
use router::mail::Clock;
use slab::Slab;
use storage_log::{Buffer, Geometry, Location};
use tokio::sync::oneshot;

use crate::caretaker::Care;
use crate::caretaker::quarantine::DamagedPlace;
use crate::clock::unix_now;
use crate::compaction;
use crate::erasures::ask::LogLeft;
use crate::files::{Inbox, Job, Work};
use crate::mailbox::Mesh;
use crate::metrics::ShardMetrics;
use crate::pushes;
use crate::pushes::call::PushBatch;
use crate::search::Question;
use crate::shard::{Action, ConnectionId, Event, Listener, ReceiveEnd, Shard};
use crate::store::segments::SegmentFile;
use crate::upgrade::successor::BoardedShard;
use segments::{ReadUnderWay, Segment, add};

/// Everything that a shard's thread has beside the shard.
pub struct DriverParts {
    /// Made on this thread.
    pub ring: Ring,
    /// Where the other rings are, by shard.
    pub addresses: Vec<RingAddress>,
    /// Who sleeps.
    pub mesh: Arc<Mesh>,
    /// Segment files of the logs that this shard owns.
    pub segments: Vec<(u16, Vec<(u64, SegmentFile)>)>,
    /// Where other threads leave commands.
    pub inbox: Inbox,
    /// How the logs are cut.
    pub geometry: Geometry,
    /// Who makes segments.
    pub jobs: Sender<Job>,
    /// Who writes them anew.
    pub compactions: Sender<compaction::Job>,
    /// Who looks after what is on the disk.
    pub care: Sender<Care>,
    /// Who has the index of words, if there is one.
    pub search: Option<Sender<Question>>,
    /// Who calls users, where anybody does.
    pub pushes: Option<Sender<pushes::Job>>,
    /// The moment that all shards count microseconds from.
    pub epoch: Instant,
    /// Where the ring's counters go.
    pub metrics: Arc<ShardMetrics>,
}

/// One shard's loop.
pub struct Driver {
    ring: Ring,
    shard: Shard,
    addresses: Vec<RingAddress>,
    mesh: Arc<Mesh>,
    /// Those of a shard that drains are closed; connections that were taken before may still be told of.
    listeners: Vec<(ListenerId, Listener)>,
    listens: bool,
    segments: HashMap<(u16, u64), Segment>,
    reads: Slab<ReadUnderWay>,
    inbox: Inbox,
    geometry: Geometry,
    /// What other threads do for this shard.
    background: usize,
    /// Another process has everything.
    leaving: bool,
    /// Who waits for which revocation, in the order in which the shard was told of them.
    revoking: VecDeque<oneshot::Sender<u64>>,
    /// Who waits for what is left to do for erasures, in the order in which the shard was asked.
    erasing: VecDeque<oneshot::Sender<Vec<LogLeft>>>,
    jobs: Sender<Job>,
    compactions: Sender<compaction::Job>,
    care: Sender<Care>,
    search: Option<Sender<Question>>,
    pushes: Option<Sender<pushes::Job>>,
    epoch: Instant,
    metrics: Arc<ShardMetrics>,
}

impl Driver {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(shard: Shard, parts: DriverParts) -> Self {
        let DriverParts {
            mut ring,
            addresses,
            mesh,
            segments: files,
            inbox,
            geometry,
            jobs,
            compactions,
            care,
            search,
            pushes,
            epoch,
            metrics,
        } = parts;
        let mut segments = HashMap::new();
        for (log, files) in files {
            for (_, file) in files {
                segments.insert((log, file.in_log), add(&mut ring, file));
            }
        }
        let (listeners, reads, revoking) = (Vec::new(), Slab::new(), VecDeque::new());
        let erasing = VecDeque::new();
        Self {
            ring,
            shard,
            addresses,
            mesh,
            listeners,
            listens: true,
            segments,
            reads,
            inbox,
            geometry,
            background: 0,
            leaving: false,
            revoking,
            erasing,
            jobs,
            compactions,
            care,
            search,
            pushes,
            epoch,
            metrics,
        }
    }

    /// Takes connections from `listener`.
    pub fn listen(&mut self, listener: std::net::TcpListener, kind: Listener) {
        let id = match kind {
            Listener::Chat => self.ring.listen_within(listener, self.shard.admits()),
            Listener::Echo => self.ring.listen(listener),
        };
        self.listeners.push((id, kind));
    }

    /// Turns until the shard is drained, or has handed over.
    ///
    /// # Errors
    /// When the ring breaks, which none is known to do.
    pub fn run(mut self) -> std::io::Result<()> {
        let id = self.shard.id();
        let mut completions = Vec::new();
        let mut events = Vec::new();
        let mut actions = Vec::new();
        for config in self.shard.log_configs() {
            self.ask(Care::Serve { config, inbox: self.inbox.clone() });
        }
        while !self.shard.is_drained() && !self.leaving {
            let wait = Duration::from_micros(self.shard.wait_micros());
            let wait = if self.mesh.fall_asleep(id) { wait } else { Duration::ZERO };
            self.ring.turn(Some(wait), &mut completions)?;
            self.mesh.wake_up(id);
            for completion in completions.drain(..) {
                events.extend(self.event(completion));
            }
            self.take_commands(&mut events);
            self.shard.turn(self.clock(), &mut events, &mut actions);
            for action in actions.drain(..) {
                self.execute(action);
            }
            self.count();
            let settled = self.shard.is_paused() && self.background == 0 && self.shard.is_settled();
            self.mesh.report(id, self.background == 0, settled);
        }
        Ok(())
    }

    /// Whoever writes zeros for a log stops, if somebody does.
    fn hurry_zeros(&self, log: u16) {
        let job = Job { log, base: 0, inbox: self.inbox.clone(), work: Work::HurryZeros };
        assert!(self.jobs.send(job).is_ok(), "the thread lives as long as its senders");
    }

    fn clock(&self) -> Clock {
        Clock { unix: unix_now(), micros: self.epoch.elapsed().as_micros() as u64 }
    }

    fn count(&self) {
        let counters = self.ring.counters();
        self.metrics.ring_enters_total.set_total(counters.enters);
        self.metrics.ring_cq_overflows_total.set_total(counters.cq_overflows);
        self.metrics.ring_recv_starved_total.set_total(counters.recv_starved);
    }

    fn event(&mut self, completion: Completion) -> Option<Event> {
        Some(match completion {
            Completion::Accepted { listener, result } => {
                let (_, listener) = *self.listeners.iter().find(|(id, _)| *id == listener)?;
                match result {
                    Ok((socket, peer)) => Event::Accepted { listener, socket, peer },
                    Err(errno) if errno.is_out_of_something() => Event::NotAccepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        return None;
                    }
                }
            }
            Completion::Adopted { tag, socket } => Event::Adopted { migration: tag, socket },
            Completion::Closed { token, .. } => Event::Closed(connection(token)),
            Completion::Received { token, result } => received(connection(token), result),
            Completion::Sent { token, bytes, result } => {
                // Of a send that was cancelled nothing is sent; the connection is as good as before.
                let sent = if result == Err(Errno::CANCELLED) { Some(0) } else { result.ok() };
                Event::Sent { connection: connection(token), bytes, sent }
            }
            Completion::ShutDown { token } => Event::ShutDown(connection(token)),
            Completion::SocketSent { token, result } => {
                Event::SocketSent { connection: connection(token), installed: result.is_ok() }
            }
            Completion::Written { token, buffer, result } => {
                if let Err(error) = result {
                    tracing::error!(log = token.value(), %error, "writing a batch failed");
                }
                let (vec, range) = buffer.into_parts();
                let buffer = Buffer::from_parts(vec, range);
                Event::Written { log: token.value() as u16, buffer, synced: result.is_ok() }
            }
            Completion::Read { token, buffer, result } => {
                let read = self.reads.remove(token.value() as usize);
                let bytes = result.ok().and_then(|()| buffer.bytes().get(read.range)).map(<[u8]>::to_vec);
                Event::Read { log: read.log, job: read.job, place: read.place, bytes }
            }
            Completion::Doorbell | Completion::Woken | Completion::Synced { .. } => return None,
        })
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::Admit { room } => {
                let chat = self.listeners.iter().filter(|(_, kind)| *kind == Listener::Chat);
                chat.for_each(|(listener, _)| self.ring.admit(*listener, room));
            }
            Action::CloseListeners => {
                self.listens = false;
                self.listeners.iter().for_each(|(listener, _)| self.ring.close_listener(*listener));
            }
            Action::Push(batch) => self.push(batch),
            Action::Pause => self.pause(),
            Action::Unpause { is_draining } => self.unpause(is_draining),
            Action::Close(connection, socket) => self.ring.close(socket, token(connection)),
            Action::Doorbell(shard) => self.ring.doorbell(self.addresses[shard.index()]),
            Action::PrepareSegment { log, base } => {
                self.start(Job { log, base, inbox: self.inbox.clone(), work: Work::Make });
            }
            Action::ZeroSegment { log, base } => {
                self.start(Job { log, base, inbox: self.inbox.clone(), work: Work::Zero });
            }
            Action::HurryZeros { log } => self.hurry_zeros(log),
            Action::Read { log, job, place, what } => match what {
                ReadPlace::Records(location) => self.read(log, job, place, location),
                ReadPlace::Index(block) => self.read_index(log, job, place, block),
            },
            Action::WriteIndex { log, job } => {
                let (base, work) = (job.base(), Work::Index(Box::new(job)));
                self.start(Job { log, base, inbox: self.inbox.clone(), work });
            }
            Action::Quarantine { log, location } => self.quarantine(log, location),
            Action::Compact { log, job, erased } => {
                self.background += 1;
                let job = compaction::Job::Compact { log, job, erased, inbox: self.inbox.clone() };
                assert!(self.compactions.send(job).is_ok(), "the thread lives as long as its senders");
            }
            Action::Erased(left) => answer(&mut self.erasing, left),
            Action::Release { log, base } => self.release(log, base),
            Action::RebuildIndex { job } => {
                self.background += 1;
                self.ask(Care::Rebuild { job, inbox: self.inbox.clone() });
            }
            Action::Discard(postings) => {
                let work = Work::Discard(postings);
                self.start(Job { log: 0, base: 0, inbox: self.inbox.clone(), work });
            }
            Action::Receive { connection, socket, once: true } => {
                self.ring.recv_once(socket, token(connection))
            }
            Action::Receive { connection, socket, once: false } => {
                self.ring.recv_multishot(socket, token(connection));
            }
            Action::Recycle(buffer) => self.ring.recycle(buffer),
            Action::Revoked { closed } => answer(&mut self.revoking, closed),
            Action::Search(ask) => self.search(ask),
            Action::Send(connection, socket, bytes) => self.ring.send(socket, token(connection), bytes),
            Action::SendSocket { connection, socket, target, migration } => {
                let address = self.addresses[target.index()];
                self.ring.send_socket(socket, address, migration, token(connection));
            }
            Action::Shutdown(connection, socket) => self.ring.shutdown(socket, token(connection)),
            Action::Write { log, batch } => self.write(log, batch),
        }
    }

    fn quarantine(&self, log: u16, location: Location) {
        let (base, bytes) = (self.geometry.segment_of(location.lsn()), location.bytes() as u64);
        let offset = self.geometry.offset_of(location.lsn());
        self.ask(Care::Quarantine(DamagedPlace { log, base, offset, bytes }));
    }

    /// Goes on with what a shard of another process had. Called before the first turn, and before there is a listener.
    pub fn take_over(&mut self, before: BoardedShard) {
        let clock = self.clock();
        self.shard.go_on(clock, before.absent_known);
        before.connections.into_iter().for_each(|boarded| self.shard.take_over(boarded));
    }

    fn search(&self, ask: IndexAsk) {
        let search = self.search.as_ref().expect("only where there is an index");
        let question = Question { ask, inbox: self.inbox.clone() };
        assert!(search.send(question).is_ok(), "the thread lives as long as its senders");
    }

    fn ask(&self, care: Care) {
        assert!(self.care.send(care).is_ok(), "the thread lives as long as its senders");
    }

    fn push(&mut self, batch: Arc<PushBatch>) {
        self.background += 1;
        let pushes = self.pushes.as_ref().expect("shards call nobody where there is no such thread");
        let job = pushes::Job { batch, inbox: self.inbox.clone() };
        assert!(pushes.send(job).is_ok(), "the thread lives as long as its senders");
    }

    fn pause(&mut self) {
        self.listeners.iter().for_each(|(listener, _)| self.ring.pause_accepts(*listener));
        self.ring.cancel_transfers();
    }

    fn unpause(&mut self, is_draining: bool) {
        // A drain has closed them.
        if !is_draining {
            self.listeners.iter().for_each(|(listener, _)| self.ring.resume_accepts(*listener));
        }
    }

    fn start(&mut self, job: Job) {
        // What is let go is waited for by nobody.
        self.background += usize::from(!matches!(job.work, Work::Discard(_)));
        assert!(self.jobs.send(job).is_ok(), "the thread lives as long as its senders");
    }
}

/// Answers whoever has waited longest.
fn answer<T>(waiting: &mut VecDeque<oneshot::Sender<T>>, answer: T) {
    let next = waiting.pop_front().expect("one answer to each");
    // Nobody may wait any more.
    let _ = next.send(answer);
}

fn token(connection: ConnectionId) -> Token {
    Token::new(connection.pack())
}

fn connection(token: Token) -> ConnectionId {
    ConnectionId::unpack(token.value())
}

fn received(connection: ConnectionId, result: Received) -> Event {
    match result {
        Received::Data { buffer, armed } => Event::Received { connection, buffer, armed },
        Received::Disarmed => Event::ReceiveEnded { connection, end: ReceiveEnd::Disarmed },
        Received::End | Received::Failed(_) => Event::ReceiveEnded { connection, end: ReceiveEnd::Gone },
    }
}
