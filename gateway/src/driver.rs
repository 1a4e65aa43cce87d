//! The only place where actions become operations of a ring, and completions become events.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::ids::UnixMillis;
use ring::{Completion, Errno, FileBuffer, FileId, ListenerId, Received, Ring, RingAddress, Token};
use router::conversation::ReadPlace;
use router::mail::Clock;
use slab::Slab;
use storage_log::format::BLOCK_BYTES_MAX;
use storage_log::{
    BlockPlace, Buffer, Compacted, Geometry, INDEX_BLOCK_BYTES, Location, SealedSegment, WriteBatch,
};
use tokio::sync::oneshot;

use crate::caretaker::Care;
use crate::caretaker::quarantine::DamagedPlace;
use crate::compaction::{self, Written};
use crate::erasures::LogLeft;
use crate::files::{Command, Inbox, Job, Work};
use crate::mailbox::Mesh;
use crate::metrics::ShardMetrics;
use crate::segments::SegmentFile;
use crate::shard::{Action, ConnectionId, Event, Listener, ReceiveEnd, Shard};
use crate::upgrade::passenger;
use crate::upgrade::successor::Boarded;
use crate::upgrade::wire;

struct ReadUnderWay {
    log: u16,
    job: u32,
    place: u32,
    /// Where what is wanted stands in what is read.
    range: Range<usize>,
}

/// A segment's file in the ring, in each way that it is used.
struct Segment {
    buffered: FileId,
    /// Until it is sealed, where it can be had.
    direct: Option<FileId>,
    /// Its index file, once it is sealed.
    index: Option<FileId>,
}

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
    /// What tells whoever writes zeros for a log to stop.
    zeros: HashMap<u16, Arc<AtomicBool>>,
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
            epoch,
            metrics,
        } = parts;
        let mut segments = HashMap::new();
        for (log, files) in files {
            for (_, file) in files {
                segments.insert((log, file.in_log), add(&mut ring, file));
            }
        }
        let (listeners, reads, zeros, revoking) = (Vec::new(), Slab::new(), HashMap::new(), VecDeque::new());
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
            zeros,
            inbox,
            geometry,
            background: 0,
            leaving: false,
            revoking,
            erasing,
            jobs,
            compactions,
            care,
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
        self.zeros.values().for_each(|enough| enough.store(true, Ordering::Relaxed));
        Ok(())
    }

    fn clock(&self) -> Clock {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { unix: UnixMillis(unix.as_millis() as u64), micros: self.epoch.elapsed().as_micros() as u64 }
    }

    fn count(&self) {
        let counters = self.ring.counters();
        self.metrics.ring_enters_total.set_total(counters.enters);
        self.metrics.ring_cq_overflows_total.set_total(counters.cq_overflows);
        self.metrics.ring_recv_starved_total.set_total(counters.recv_starved);
    }

    fn take_commands(&mut self, events: &mut Vec<Event>) {
        while let Some(command) = self.inbox.take() {
            match command {
                Command::Drain => events.push(Event::Drain),
                Command::HoldBackground(held) => self.shard.hold_background(held),
                Command::Pause => events.push(Event::Pause),
                Command::Resume => events.push(Event::Resume),
                Command::Describe { stream, told } => {
                    // Nobody may wait for it any more.
                    let _ = told.send(self.describe(&stream));
                }
                Command::Listeners(told) => {
                    let duplicate = |(id, kind): &(ListenerId, Listener)| {
                        Some((*kind, self.ring.duplicate_listener(*id).ok()?))
                    };
                    let open = self.listeners.iter().filter(|_| self.listens);
                    let _ = told.send(open.filter_map(duplicate).collect());
                }
                Command::DurableEnds(told) => drop(told.send(self.shard.durable_ends())),
                Command::Leave => self.leaving = true,
                Command::Keys(verifier) => events.push(Event::Keys(verifier)),
                Command::Revoke { revocation, closed } => {
                    self.revoking.push_back(closed);
                    events.push(Event::Revoke(revocation));
                }
                Command::Erase { ask, answer } => {
                    self.erasing.push_back(answer);
                    events.push(Event::Erase(ask));
                }
                Command::Segment { log, base, file } => {
                    self.background -= 1;
                    let made = file.map(|file| {
                        self.segments.insert((log, base), add(&mut self.ring, file));
                    });
                    events.push(Event::SegmentPrepared { log, made });
                }
                Command::Indexed { log, base, made } => {
                    self.background -= 1;
                    let sealed = made.map(|(sealed, file)| {
                        let segment = self.segments.get_mut(&(log, base)).expect("a sealed segment stays");
                        segment.index = Some(self.ring.add_file(file));
                        sealed
                    });
                    events.push(Event::IndexWritten { log, sealed });
                }
                Command::Compacted { log, base, made } => {
                    self.background -= 1;
                    let compacted = self.take_compacted(log, made);
                    events.push(Event::Compacted { log, base, compacted });
                }
                Command::IndexDamaged { log, base } => events.push(Event::IndexDamaged { log, base }),
                Command::Rebuilt { log, base, made } => {
                    self.background -= 1;
                    let sealed = made.map(|(sealed, file)| {
                        self.replace_index(log, base, file);
                        sealed
                    });
                    events.push(Event::IndexRebuilt { log, base, sealed });
                }
                Command::Zeroed { log } => {
                    self.background -= 1;
                    self.zeros.remove(&log);
                    events.push(Event::SegmentZeroed { log });
                }
            }
        }
    }

    /// Reads a segment that was written anew from its file from now on, beside that of before.
    fn take_compacted(&mut self, log: u16, made: Result<Written, ()>) -> Compacted {
        let mut read_from = |sealed: &SealedSegment, file| {
            let file = self.ring.add_file(file);
            let cold = Segment { buffered: file, direct: None, index: Some(file) };
            self.segments.insert((log, sealed.base()), cold);
        };
        match made {
            Ok(Written::Made(sealed, file)) => {
                read_from(&sealed, file);
                Compacted::Made(sealed)
            }
            Ok(Written::MadeBeside(sealed, file)) => {
                read_from(&sealed, file);
                Compacted::MadeBeside(sealed)
            }
            Ok(Written::Clean) => Compacted::Clean,
            Ok(Written::Unsound) => Compacted::Unsound,
            Err(()) => Compacted::Failed,
        }
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
            Completion::Doorbell
            | Completion::Woken
            | Completion::Allocated { .. }
            | Completion::Synced { .. } => return None,
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
            Action::Pause => self.pause(),
            Action::Unpause { is_draining } => self.unpause(is_draining),
            Action::Close(connection, socket) => self.ring.close(socket, token(connection)),
            Action::Doorbell(shard) => self.ring.doorbell(self.addresses[shard.index()]),
            Action::PrepareSegment { log, base } => {
                self.start(Job { log, base, inbox: self.inbox.clone(), work: Work::Make });
            }
            Action::ZeroSegment { log, base } => {
                let enough = self.zeros.entry(log).or_default().clone();
                self.start(Job { log, base, inbox: self.inbox.clone(), work: Work::Zero { enough } });
            }
            Action::HurryZeros { log } => {
                self.zeros.get(&log).inspect(|enough| enough.store(true, Ordering::Relaxed));
            }
            Action::Read { log, job, place, what } => match what {
                ReadPlace::Records(location) => self.read(log, job, place, location),
                ReadPlace::Index(block) => self.read_index(log, job, place, block),
            },
            Action::WriteIndex { log, job } => {
                let (base, work) = (job.base(), Work::Index(Box::new(job)));
                self.start(Job { log, base, inbox: self.inbox.clone(), work });
            }
            Action::Quarantine { log, location } => {
                let (base, bytes) = (self.geometry.segment_of(location.lsn()), location.bytes() as u64);
                let offset = self.geometry.offset_of(location.lsn());
                self.ask(Care::Quarantine(DamagedPlace { log, base, offset, bytes }));
            }
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
            Action::Send(connection, socket, bytes) => self.ring.send(socket, token(connection), bytes),
            Action::SendSocket { connection, socket, target, migration } => {
                let address = self.addresses[target.index()];
                self.ring.send_socket(socket, address, migration, token(connection));
            }
            Action::Shutdown(connection, socket) => self.ring.shutdown(socket, token(connection)),
            Action::Write { log, batch } => self.write(log, batch),
        }
    }

    /// Tells another process of all connections, with their descriptors, as many at a time as one message takes: it says when it has
    /// them, so that few are open here. How many there are.
    fn describe(&mut self, stream: &UnixStream) -> std::io::Result<usize> {
        let (travellers, mut count) = (self.shard.travellers(), 0);
        for some in travellers.chunks(wire::DESCRIPTORS_MAX) {
            let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
            for (id, socket) in some {
                if let Some(passenger) = self.shard.describe(*id) {
                    passenger::write(&passenger, &mut bytes);
                    descriptors.push(self.ring.duplicate(*socket)?);
                }
            }
            if descriptors.is_empty() {
                continue;
            }
            count += descriptors.len();
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            wire::send(stream, &bytes, &borrowed)?;
            wire::receive(stream)?;
        }
        wire::send(stream, &[], &[])?;
        Ok(count)
    }

    /// Goes on with connections of another process. Called before the first turn, and before there is a listener.
    pub fn take_over(&mut self, boarded: Vec<Boarded>) {
        let clock = self.clock();
        boarded.into_iter().for_each(|boarded| self.shard.take_over(boarded, clock));
    }

    fn ask(&self, care: Care) {
        assert!(self.care.send(care).is_ok(), "the thread lives as long as its senders");
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

    /// Writes and syncs in one operation. The segment before, if this is the first batch of the next, is sealed: from now
    /// on it is read through the page cache.
    fn write(&mut self, log: u16, batch: WriteBatch) {
        let before = batch.segment.checked_sub(self.geometry.segment_bytes);
        let sealed = before.and_then(|base| self.segments.get_mut(&(log, base))?.direct.take());
        if let Some(sealed) = sealed {
            self.ring.remove_file(sealed);
        }
        let segment = &self.segments[&(log, batch.segment)];
        let file = segment.direct.unwrap_or(segment.buffered);
        let (vec, range) = batch.buffer.into_parts();
        let buffer = FileBuffer::new(vec, range);
        self.ring.write_through(file, batch.offset, buffer, Token::new(u64::from(log)));
    }

    /// Reads the index of a segment from this file from now on, unless the segment was written anew meanwhile.
    fn replace_index(&mut self, log: u16, base: u64, file: File) {
        let Some(segment) = self.segments.get_mut(&(log, base)) else {
            return;
        };
        let damaged = segment.index.replace(self.ring.add_file(file));
        // That of a cold segment is in the segment itself.
        if let Some(damaged) = damaged.filter(|damaged| *damaged != segment.buffered) {
            self.ring.remove_file(damaged);
        }
    }

    /// Closes the file of a segment that was written anew; nobody has an operation under way on it.
    fn release(&mut self, log: u16, base: u64) {
        let Segment { buffered, direct, index } = self.segments.remove(&(log, base)).expect("it has moved");
        let index = index.filter(|index| *index != buffered);
        for file in [Some(buffered), direct, index].into_iter().flatten() {
            self.ring.remove_file(file);
        }
        let released = compaction::Job::Release { log };
        assert!(self.compactions.send(released).is_ok(), "the thread lives as long as its senders");
    }

    /// Reads records that stand side by side; past the page cache with the whole blocks around it.
    fn read(&mut self, log: u16, job: u32, place: u32, location: Location) {
        let segment = &self.segments[&(log, self.geometry.segment_of(location.lsn()))];
        let (start, bytes) = (self.geometry.offset_of(location.lsn()) as usize, location.bytes());
        let align = if segment.direct.is_some() { BLOCK_BYTES_MAX } else { 1 };
        let first = start - start % align;
        let length = (start + bytes).next_multiple_of(align) - first;
        let range = start - first..start - first + bytes;
        let token = Token::new(self.reads.insert(ReadUnderWay { log, job, place, range }) as u64);
        let file = segment.direct.unwrap_or(segment.buffered);
        self.ring.read(file, first as u64, length, token);
    }

    /// Reads a block of an index file, through the page cache.
    fn read_index(&mut self, log: u16, job: u32, place: u32, block: BlockPlace) {
        let index =
            self.segments[&(log, block.base)].index.expect("a segment is sealed when its index is open");
        let read = ReadUnderWay { log, job, place, range: 0..INDEX_BLOCK_BYTES };
        let token = Token::new(self.reads.insert(read) as u64);
        self.ring.read(index, block.offset(), INDEX_BLOCK_BYTES, token);
    }
}

/// Answers whoever has waited longest.
fn answer<T>(waiting: &mut VecDeque<oneshot::Sender<T>>, answer: T) {
    let next = waiting.pop_front().expect("one answer to each");
    // Nobody may wait any more.
    let _ = next.send(answer);
}

fn add(ring: &mut Ring, file: SegmentFile) -> Segment {
    let SegmentFile { buffered, direct, index, .. } = file;
    Segment {
        buffered: ring.add_file(buffered),
        direct: direct.map(|file| ring.add_file(file)),
        index: index.map(|file| ring.add_file(file)),
    }
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
