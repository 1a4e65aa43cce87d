//! The one thread that does what would block a shard: making segment files, filling them with zeros, writing index files. And
//! how any thread leaves a shard a command.
//!
//! Zeros are what it does while it has nothing else to do: a piece, and then the disk is left to the batches for a while, in which it takes
//! whatever comes. So nobody waits for the zeros of another log, nor for a rest.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use ring::Waker;
use router::index::IndexAnswer;
use router::user::ASKS_MAX;
use storage_log::{IndexJob, NotMade, Postings, SealedSegment, as_appended, index_file_name};
use tokio::sync::oneshot;

use crate::auth::{Revocation, Verifier};
use crate::erasures::ask::{ErasureAsk, LogLeft};
use crate::pushes::call::Pushed;
use crate::shard::Listener;
use crate::state::NodeState;
use crate::store::disk::log_directory;
use crate::store::indexes;
use crate::store::segments::{SegmentFile, SegmentMaker};
use crate::store::snapshots;
use crate::store::zeros::Zeros;

/// What another thread has for a shard.
pub enum Command {
    /// Finish and stop.
    Drain,
    /// Begin nothing behind the sessions, or do so again.
    HoldBackground(bool),
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Tell another process, which waits at the other end, of all connections; hears how many there are.
    Describe {
        /// The way there.
        stream: UnixStream,
        /// Hears it.
        told: SyncSender<io::Result<usize>>,
    },
    /// Hears up to where each log of this shard is durable.
    DurableEnds(SyncSender<Vec<(u16, u64)>>),
    /// Hears of the listeners, each with what comes from it.
    Listeners(SyncSender<Vec<(Listener, TcpListener)>>),
    /// Another process has everything: end.
    Leave,
    /// Tokens are taken back.
    Revoke {
        /// Which.
        revocation: Revocation,
        /// Hears how many sessions were closed, when they are.
        closed: oneshot::Sender<u64>,
    },
    /// Something is to be erased, or somebody wants to know how far that is.
    Erase {
        /// What.
        ask: ErasureAsk,
        /// Hears what is left to do.
        answer: oneshot::Sender<Vec<LogLeft>>,
    },
    /// Tokens are judged by these keys from now on.
    Keys(Verifier),
    /// What became of a batch of push calls.
    Pushed(Pushed),
    /// A segment that was asked for, or why there is none.
    Segment {
        /// Of which log.
        log: u16,
        /// At which base.
        base: u64,
        /// The file.
        file: Result<SegmentFile, NotMade>,
    },
    /// An index file was written, or could not be.
    Indexed {
        /// Of which log.
        log: u16,
        /// Of the segment at this base.
        base: u64,
        /// What memory keeps of it, and the file.
        made: Option<(SealedSegment, File)>,
    },
    /// A compaction ended.
    Compacted {
        /// Of which log.
        log: u16,
        /// Of the segment at this base, with its generation.
        base: u64,
        /// What was made; an error where the disk gave one.
        made: Result<Written, ()>,
    },
    /// The blocks are free of what a compaction has replaced.
    Released {
        /// Of which log.
        log: u16,
    },
    /// The scrubber found an index file damaged or missing.
    IndexDamaged {
        /// Of which log.
        log: u16,
        /// Of the segment at this base.
        base: u64,
    },
    /// An index file was made again, or could not be.
    Rebuilt {
        /// Of which log.
        log: u16,
        /// Of the segment at this base.
        base: u64,
        /// What memory keeps of it, and the file.
        made: Option<(SealedSegment, File)>,
    },
    /// The index of words answers a session.
    Found(IndexAnswer),
    /// Nobody writes zeros into the next segment any more.
    Zeroed {
        /// Of which log.
        log: u16,
    },
}

/// What came of a segment that was to be written anew.
pub enum Written {
    /// It stays as it is: nothing of it is erased.
    Clean,
    /// What memory keeps of the cold segment, and its file.
    Made(SealedSegment, File),
    /// The same, but what it was made from may still be there, or that it was gone through for what is erased is not noted.
    MadeBeside(SealedSegment, File),
    /// It is damaged, and stays as it is.
    Unsound,
}

/// Where other threads leave commands for one shard.
#[derive(Clone)]
pub struct Inbox {
    queue: Arc<ArrayQueue<Command>>,
    waker: Waker,
}

/// Commands waiting for one shard: some per owned log, an answer for each search that the index works on, one batch of calls, and a
/// drain, with room to spare: a command that must not be refused has to find a place.
const COMMANDS_MAX: usize = 512;

/// Commands that may wait when another is offered: the rest of the places is for those that must not be refused.
const OFFERED_MAX: usize = 128;

const _: () = assert!(OFFERED_MAX + ASKS_MAX as usize + 256 <= COMMANDS_MAX);

impl Inbox {
    /// An inbox of the shard that `waker` wakes.
    #[must_use]
    pub fn new(waker: Waker) -> Self {
        Self { queue: Arc::new(ArrayQueue::new(COMMANDS_MAX)), waker }
    }

    /// Leaves a command and wakes the shard.
    pub fn send(&self, command: Command) {
        assert!(self.queue.push(command).is_ok(), "a log asks for one thing at a time");
        self.waker.wake();
    }

    /// Leaves a command and wakes the shard, unless so many wait that it has stopped taking any. Whether it was left.
    #[must_use]
    pub fn offer(&self, command: Command) -> bool {
        let left = self.queue.len() < OFFERED_MAX && self.queue.push(command).is_ok();
        self.waker.wake();
        left
    }

    /// The next command.
    #[must_use]
    pub fn take(&self) -> Option<Command> {
        self.queue.pop()
    }
}

/// What is to be done with a segment file.
pub enum Work {
    /// Make it: [`Command::Segment`] follows.
    Make,
    /// Fill it with zeros: [`Command::Zeroed`] follows.
    Zero,
    /// What is written of the zeros of this log has to do: [`Command::Zeroed`] follows now, if it has not come.
    HurryZeros,
    /// Write its index file: [`Command::Indexed`] follows.
    Index(Box<IndexJob>),
    /// Nothing: what is given takes long to drop.
    Discard(Postings),
}

/// Work on a segment.
pub struct Job {
    /// Of which log.
    pub log: u16,
    /// At which base.
    pub base: u64,
    /// Who wants it.
    pub inbox: Inbox,
    /// What.
    pub work: Work,
}

/// Starts the thread. It ends when the last sender is gone.
///
/// # Errors
/// When the system gives no thread.
pub fn start(maker: SegmentMaker, state: Arc<NodeState>) -> io::Result<(Sender<Job>, JoinHandle<()>)> {
    let (sender, jobs) = channel();
    let (without_index, zeroing, rests_until) = (BTreeSet::new(), VecDeque::new(), Instant::now());
    let worker = Worker { maker, state, without_index, zeroing, rests_until };
    let thread = thread::Builder::new().name("files".to_owned()).spawn(move || worker.run(&jobs))?;
    Ok((sender, thread))
}

/// Behind a piece of zeros the disk is left alone for so many times as long as that took.
const REST: u32 = 3;

/// A segment that is being filled with zeros.
struct Zeroing {
    log: u16,
    inbox: Inbox,
    zeros: Zeros,
}

struct Worker {
    maker: SegmentMaker,
    state: Arc<NodeState>,
    /// Logs whose index file is tried again each second: that is said once.
    without_index: BTreeSet<u16>,
    /// In the order in which they were asked for: one of each log at most. The first is written.
    zeroing: VecDeque<Zeroing>,
    /// When its next piece is due.
    rests_until: Instant,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let job = if self.zeroing.is_empty() {
                jobs.recv().map_err(RecvTimeoutError::from)
            } else {
                jobs.recv_timeout(self.rests_until.saturating_duration_since(Instant::now()))
            };
            match job {
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) => self.write_zeros(),
                // All shards have ended, and a start goes on with the zeros where they end.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, Job { log, base, inbox, work }: Job) {
        match work {
            Work::Make => {
                let file = make(&self.maker, &self.state, log, base);
                inbox.send(Command::Segment { log, base, file });
            }
            Work::Zero => match self.maker.zeros(log, base) {
                Ok(Some(zeros)) => self.zeroing.push_back(Zeroing { log, inbox, zeros }),
                Ok(None) => tell_zeroed(log, &inbox, Ok(())),
                Err(error) => tell_zeroed(log, &inbox, Err(error)),
            },
            Work::HurryZeros => {
                if let Some(place) = self.zeroing.iter().position(|zeroing| zeroing.log == log) {
                    self.end_zeros(place, Ok(()));
                }
            }
            Work::Index(job) => self.write_index(log, base, &job, &inbox),
            Work::Discard(postings) => drop(postings),
        }
    }

    fn write_zeros(&mut self) {
        let Some(first) = self.zeroing.front_mut() else { return };
        let begun = Instant::now();
        let written = first.zeros.write_piece();
        self.rests_until = Instant::now() + begun.elapsed() * REST;
        match written {
            Ok(true) => {}
            Ok(false) => self.end_zeros(0, Ok(())),
            Err(error) => self.end_zeros(0, Err(error)),
        }
    }

    fn end_zeros(&mut self, place: usize, written: io::Result<()>) {
        let Zeroing { log, inbox, zeros } = self.zeroing.remove(place).expect("it is one of them");
        tell_zeroed(log, &inbox, written.and_then(|()| zeros.finish()));
    }

    fn write_index(&mut self, log: u16, base: u64, job: &IndexJob, inbox: &Inbox) {
        let directory = log_directory(&self.maker.directory, log);
        let (made, index) = (indexes::write(&directory, job), index_file_name(base));
        let is_made = made.is_ok();
        match &made {
            Err(error) if self.without_index.insert(log) => {
                tracing::warn!(log, index, %error, "an index file could not be written: it stays in memory, and is tried again each second");
            }
            Ok(_) if self.without_index.remove(&log) => {
                tracing::info!(log, index, "the index file could be written");
            }
            _ => {}
        }
        inbox.send(Command::Indexed { log, base, made: made.ok() });
        if is_made && let Err(error) = snapshots::renew_if_due(&directory, job.config(), as_appended(base)) {
            tracing::warn!(log, %error, "no snapshot of the index could be made: the next start takes longer");
        }
    }
}

fn tell_zeroed(log: u16, inbox: &Inbox, written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(log, %error, "the next segment could not be filled with zeros: syncs may take longer there");
    }
    inbox.send(Command::Zeroed { log });
}

fn make(maker: &SegmentMaker, state: &NodeState, log: u16, base: u64) -> Result<SegmentFile, NotMade> {
    let was_failing = state.is_without_next_segment(log);
    let made = maker.make(log, base);
    state.set_without_next_segment(log, made.is_err());
    if let Err(error) = &made
        && !was_failing
    {
        match not_made(error) {
            NotMade::NoRoom => tracing::error!(
                log,
                %error,
                "no room for the next segment: when the present one is full, sends are answered storage_full; reads and \
                 deliveries go on; free some space and it recovers by itself"
            ),
            NotMade::Failed => tracing::error!(
                log,
                %error,
                "the next segment cannot be made: when the present one is full, sends are answered storage_full; reads and \
                 deliveries go on; mend what the error says (too many open files: raise LimitNOFILE) and it recovers by itself"
            ),
        }
    }
    if was_failing && made.is_ok() {
        tracing::info!(log, "the next segment could be made: there is room for it again");
    }
    made.map_err(|error| not_made(&error))
}

fn not_made(error: &io::Error) -> NotMade {
    match error.kind() {
        ErrorKind::QuotaExceeded | ErrorKind::StorageFull => NotMade::NoRoom,
        _ => NotMade::Failed,
    }
}
