//! A log over a real disk: how much of what the disk can do is left when records are appended, synced and acknowledged.
//!
//! A closed loop: so many records are under way at a time, each acknowledged by the sync of its batch and replaced by the
//! next. Beside each depth stands the disk alone, in batches of the size that the log made, in turn with it, and an embedded store.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use ring::FileBuffer;
use storage_log::format::{BATCH_BYTES_MAX, SEGMENT_BYTES};
use storage_log::{Answer, Buffer, Draft, IndexJob, Log, Postings, SealedSegment, StreamId, StreamKind};

use crate::disk::{Blocks, Caching, Figures, Scratch, Way, Writer, write};
use crate::embedded::Embedded;
use crate::{empty_log, keep_spare};

/// Payload of a record.
pub(crate) const PAYLOAD: [u8; 256] = [9; 256];

/// Records under way at a time: one sender, a busy node, all that fits into batches of 1 MiB.
const DEPTHS: [usize; 5] = [1, 64, 512, 4_096, 16_384];

/// Conversations that the records are spread over.
pub(crate) const STREAMS: u64 = 10_000;

/// How long log and disk are measured before it is the other's turn, and how often.
const SLICE: Duration = Duration::from_millis(300);
const ROUNDS: usize = 4;

/// Files that the segments are written to in turn.
const FILES: usize = 3;

/// Bytes of the newest batches in memory: as a node has it.
const TAIL_BYTES: usize = 16 << 20;

/// Measures all of it in files under `directory`, which are removed again, and prints a table.
///
/// # Errors
/// Those of the disk.
pub fn measure(directory: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for place in 0..FILES {
        let name = format!("append-{place}.measured");
        files.push(Scratch::new(directory, &name, Blocks::Zeroed, Caching::Direct)?);
    }
    let files: Vec<&Scratch> = files.iter().collect();
    println!(
        "{:>5} {:>7} {:>10} {:>9} {:>8} {:>8} {:>8}   {:>9} {:>8} {:>8}   {:>6} {:>6}   {:>10} {:>8} {:>8} {:>9}",
        "links",
        "depth",
        "records/s",
        "batch B",
        "MB/s",
        "p50 ms",
        "p99 ms",
        "disk MB/s",
        "p50 ms",
        "p99 ms",
        "MB/s x",
        "p99 x",
        "fjall/s",
        "p50 ms",
        "p99 ms",
        "records x"
    );
    for links in [0, 2] {
        for depth in DEPTHS {
            let mut log = Loop::new(&files, depth, links)?;
            let mut disk = Figures::default();
            for _ in 0..ROUNDS {
                log.run(SLICE)?;
                let mut writer = Writer::new(&files[..1], Way::Through)?;
                write(&mut writer, &mut disk, log.batch_bytes(), SLICE, &mut 0)?;
            }
            // Behind them and not in turn: it works on in the background for a while, on the core that the log is measured on.
            let mut store = Embedded::new(directory, depth, links)?;
            store.run(SLICE * ROUNDS as u32)?;
            log.print(&disk, &store);
        }
    }
    println!("\nlogs, each on a thread of its own, {TOGETHER_DEPTH} records under way in each:");
    for links in [0, 2] {
        for logs in [1, 2, 4] {
            together(directory, logs, links, files[0])?;
        }
    }
    Ok(())
}

/// Records under way in each of several logs: batches of 1 MiB.
const TOGETHER_DEPTH: usize = 4_096;

/// What several logs on one device come to, in turn with the disk alone: written in sequence, without a sync.
fn together(directory: &Path, logs: usize, links: u64, alone: &Scratch) -> io::Result<()> {
    let turn = Barrier::new(logs + 1);
    let mut sequential = Figures::default();
    let logs_came_to = thread::scope(|scope| {
        let begin = |log| {
            // Named, so that a profile tells them from the rest.
            let thread = thread::Builder::new().name(format!("log-{log}"));
            let turn = &turn;
            thread.spawn_scoped(scope, move || one_of_several(directory, log, links, turn))
        };
        let threads = (0..logs).map(begin).collect::<io::Result<Vec<_>>>()?;
        for _ in 0..ROUNDS {
            turn.wait();
            turn.wait();
            let mut writer = Writer::new(&[alone], Way::Unsynced)?;
            write(&mut writer, &mut sequential, BATCH_BYTES_MAX, SLICE, &mut 0)?;
        }
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a log's thread"))
            .collect::<io::Result<Vec<_>>>()
    })?;
    let records: f64 = logs_came_to.iter().map(|(records, _)| records).sum();
    let megabytes: f64 = logs_came_to.iter().map(|(_, megabytes)| megabytes).sum();
    println!(
        "{links} links, {logs} logs: {records:.0} records/s, {megabytes:.0} MB/s, {:.2} of the disk in sequence, {:.0} MB/s",
        megabytes / sequential.megabytes(),
        sequential.megabytes()
    );
    Ok(())
}

/// Records and megabytes a second of one log beside others, which all begin together.
fn one_of_several(directory: &Path, log: usize, links: u64, turn: &Barrier) -> io::Result<(f64, f64)> {
    let file = |place| {
        let name = format!("append-{log}-{place}.measured");
        Scratch::new(directory, &name, Blocks::Zeroed, Caching::Direct)
    };
    let files = (0..FILES).map(file).collect::<io::Result<Vec<_>>>()?;
    let mut log = Loop::new(&files.iter().collect::<Vec<_>>(), TOGETHER_DEPTH, links)?;
    for _ in 0..ROUNDS {
        turn.wait();
        log.run(SLICE)?;
        turn.wait();
    }
    let seconds = log.acks.elapsed().as_secs_f64();
    Ok((log.records as f64 / seconds, log.bytes as f64 / 1e6 / seconds))
}

/// Records that were appended one right after the other, at most [`TOGETHER_MAX`].
struct Waiting {
    last_position: u64,
    since: Instant,
    records: usize,
}

/// Records that share an entry: reading the clock for each would cost more than appending it.
const TOGETHER_MAX: usize = 64;

/// What a node has another thread do for a log: index files, which are given to nobody here, and letting go of what they were made from.
struct Files {
    work: Sender<Work>,
    sealed: Receiver<SealedSegment>,
}

enum Work {
    Seal(Box<IndexJob>),
    Discard(Postings),
}

impl Files {
    /// With a thread that ends when this is dropped.
    fn new() -> Self {
        let (work, works) = channel();
        let (done, sealed) = channel();
        thread::spawn(move || {
            for work in works {
                match work {
                    Work::Discard(postings) => drop(postings),
                    Work::Seal(job) => {
                        let Ok(sealed) = job.write(|_| Ok::<(), Infallible>(()));
                        // Nobody waits for it when the measurement is over.
                        _ = done.send(sealed);
                    }
                }
            }
        });
        Self { work, sealed }
    }

    fn turn(&self, log: &mut Log) {
        let job = log.poll_index().map(|job| Work::Seal(Box::new(job)));
        let discarded = self.sealed.try_recv().ok().and_then(|sealed| log.handle_indexed(Some(sealed)));
        for work in job.into_iter().chain(discarded.map(Work::Discard)) {
            self.work.send(work).expect("the thread ends after this");
        }
    }
}

/// A log, its disk, and those who wait for an acknowledgement.
struct Loop {
    log: Log,
    files: Files,
    writer: Writer,
    depth: usize,
    links: u64,
    next: u64,
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    under_way: usize,
    records: u64,
    /// One latency for each [`Waiting`].
    acks: Figures,
    /// By batch.
    batches: u64,
    bytes: u64,
}

impl Loop {
    fn new(files: &[&Scratch], depth: usize, links: u64) -> io::Result<Self> {
        let mut log = empty_log(TAIL_BYTES);
        keep_spare(&mut log);
        let (waiting, acks) = (VecDeque::new(), Figures::default());
        Ok(Self {
            log,
            files: Files::new(),
            writer: Writer::new(files, Way::Through)?,
            depth,
            links,
            next: 0,
            waiting,
            under_way: 0,
            records: 0,
            acks,
            batches: 0,
            bytes: 0,
        })
    }

    /// In the order of a node's turn: what waits is handed to the disk, then who was acknowledged is told so and sends the next.
    fn run(&mut self, time: Duration) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let goes_on = begun.elapsed() < time;
            let batch = self.log.poll_write(0);
            let is_writing = batch.is_some();
            if let Some(batch) = batch {
                self.batches += 1;
                self.bytes += batch.buffer.bytes().len() as u64;
                let (vec, range) = batch.buffer.into_parts();
                let file = (batch.segment / SEGMENT_BYTES) as usize % FILES;
                self.writer.begin(file, batch.offset, FileBuffer::new(vec, range));
                self.writer.submit()?;
            } else if self.waiting.is_empty() && !goes_on {
                self.acks.ran(begun.elapsed());
                return Ok(());
            }
            if goes_on {
                self.fill();
            }
            if !is_writing {
                continue;
            }
            for (_, buffer) in self.writer.wait()? {
                let (vec, range) = buffer.into_parts();
                let durable = self.log.handle_written(Buffer::from_parts(vec, range), true).expect("written");
                let now = Instant::now();
                while let Some(acked) =
                    self.waiting.pop_front_if(|waiting| durable.covers(waiting.last_position))
                {
                    self.acks.enter(now - acked.since, acked.records * PAYLOAD.len());
                    self.under_way -= acked.records;
                    self.records += acked.records as u64;
                }
            }
            keep_spare(&mut self.log);
            self.files.turn(&mut self.log);
        }
    }

    /// Appends until as many are under way as may be.
    fn fill(&mut self) {
        while self.under_way < self.depth {
            let (since, before) = (Instant::now(), self.next);
            let together = TOGETHER_MAX.min(self.depth - self.under_way);
            let last_position = (0..together).map_while(|_| self.append()).last();
            let records = (self.next - before) as usize;
            self.under_way += records;
            self.waiting.extend(last_position.map(|last_position| Waiting { last_position, since, records }));
            if records < together {
                return;
            }
        }
    }

    /// Appends the next record; `None` when enough waits for the disk.
    fn append(&mut self) -> Option<u64> {
        let stream = stream(1, self.next % STREAMS);
        let links = [self.next, self.next + 1].map(|user| stream_of_user(user).into());
        let expected_head = self.log.head(stream).seq;
        let links = &links[..self.links as usize];
        let draft = Draft { stream, expected_head, messages: 1, schema: 1, payload: &PAYLOAD, links };
        let Answer::Stored(stored) = self.log.append(&[draft], 1) else {
            return None;
        };
        self.next += 1;
        Some(stored.last_position)
    }

    /// Bytes of a batch on average, whole blocks.
    fn batch_bytes(&self) -> usize {
        ((self.bytes / self.batches) as usize).next_multiple_of(512)
    }

    fn print(&self, disk: &Figures, store: &Embedded) {
        let a_second = self.records as f64 / self.acks.elapsed().as_secs_f64();
        let stored_a_second = store.acked as f64 / store.acks.elapsed().as_secs_f64();
        let megabytes = self.bytes as f64 / 1e6 / self.acks.elapsed().as_secs_f64();
        println!(
            "{:>5} {:>7} {:>10.0} {:>9} {megabytes:>8.1} {:>8.3} {:>8.3}   {:>9.1} {:>8.3} {:>8.3}   {:>6.2} {:>6.2}   {stored_a_second:>10.0} {:>8.3} {:>8.3} {:>9.1}",
            self.links,
            self.depth,
            a_second,
            self.batch_bytes(),
            self.acks.millis_at(50),
            self.acks.millis_at(99),
            disk.megabytes(),
            disk.millis_at(50),
            disk.millis_at(99),
            megabytes / disk.megabytes(),
            self.acks.millis_at(99) / disk.millis_at(99),
            store.acks.millis_at(50),
            store.acks.millis_at(99),
            a_second / stored_a_second,
        );
    }
}

fn stream(kind: u8, number: u64) -> StreamId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    StreamId { kind: StreamKind(kind), id }
}

fn stream_of_user(number: u64) -> StreamId {
    stream(4, number % STREAMS)
}
