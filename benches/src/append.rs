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
const DEPTHS: [usize; 7] = [1, 64, 512, 1_024, 2_048, 4_096, 16_384];

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
                write(&mut writer, &mut disk, log.came_to.batch_bytes(), SLICE, &mut 0)?;
            }
            // Behind them and not in turn: it works on in the background for a while, on the core that the log is measured on.
            let mut store = Embedded::new(directory, depth, links)?;
            store.run(SLICE * ROUNDS as u32)?;
            log.print(&disk, &store);
        }
    }
    println!("\nlogs, each on a thread of its own, so many records under way in each:");
    for links in [0, 2] {
        for logs in [1, 2, 4] {
            for depth in TOGETHER_DEPTHS {
                together(directory, logs, depth, links, files[0])?;
            }
        }
    }
    Ok(())
}

/// Records under way in each of several logs.
const TOGETHER_DEPTHS: [usize; 3] = [512, 1_024, 2_048];

/// What several logs on one device come to, in turn with the disk alone: written in sequence, without a sync; and by as many writers as there
/// are logs, each with one batch of the size that its log made after the other, each synced.
fn together(directory: &Path, logs: usize, depth: usize, links: u64, alone: &Scratch) -> io::Result<()> {
    let turn = Barrier::new(logs + 1);
    let mut sequential = Figures::default();
    let came_to = thread::scope(|scope| {
        let begin = |log| {
            // Named, so that a profile tells them from the rest.
            let thread = thread::Builder::new().name(format!("log-{log}"));
            let turn = &turn;
            thread.spawn_scoped(scope, move || one_of_several(directory, log, depth, links, turn))
        };
        let threads = (0..logs).map(begin).collect::<io::Result<Vec<_>>>()?;
        for _ in 0..ROUNDS {
            turn.wait();
            turn.wait();
            let mut writer = Writer::new(&[alone], Way::Unsynced)?;
            write(&mut writer, &mut sequential, BATCH_BYTES_MAX, SLICE, &mut 0)?;
            turn.wait();
        }
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a log's thread"))
            .collect::<io::Result<Vec<_>>>()
    })?;
    let records: f64 = came_to.iter().map(|(log, _)| log.records_a_second()).sum();
    let megabytes: f64 = came_to.iter().map(|(log, _)| log.megabytes_a_second()).sum();
    let slowest = came_to.iter().map(|(log, _)| log.acks.millis_at(99)).fold(0.0, f64::max);
    let slowest_synced = came_to.iter().map(|(_, synced)| synced.millis_at(99)).fold(0.0, f64::max);
    println!(
        "{links} links, {logs} logs, {depth} records: {records:.0} records/s, {megabytes:.0} MB/s, {:.2} of the disk in sequence, {:.0} MB/s; \
         p99 {slowest:.3} ms, {:.1} times the disk's, {:.3} ms",
        megabytes / sequential.megabytes(),
        sequential.megabytes(),
        slowest / slowest_synced,
        slowest_synced,
    );
    Ok(())
}

/// One log beside others, which all begin together; and then, beside the same others, the disk alone in batches of its size.
fn one_of_several(
    directory: &Path,
    log: usize,
    depth: usize,
    links: u64,
    turn: &Barrier,
) -> io::Result<(CameTo, Figures)> {
    let file = |place| {
        let name = format!("append-{log}-{place}.measured");
        Scratch::new(directory, &name, Blocks::Zeroed, Caching::Direct)
    };
    let files = (0..FILES).map(file).collect::<io::Result<Vec<_>>>()?;
    let mut log = Loop::new(&files.iter().collect::<Vec<_>>(), depth, links)?;
    let mut synced = Figures::default();
    for _ in 0..ROUNDS {
        turn.wait();
        log.run(SLICE)?;
        turn.wait();
        // One thread writes in sequence.
        turn.wait();
        let mut writer = Writer::new(&[&files[0]], Way::Through)?;
        write(&mut writer, &mut synced, log.came_to.batch_bytes(), SLICE, &mut 0)?;
    }
    Ok((log.came_to, synced))
}

/// Records that were appended in one turn, at most [`TURN_RECORDS`].
struct Waiting {
    last_position: u64,
    since: Instant,
    records: usize,
}

/// What a turn appends at most: short beside a write, so that what waits is handed out as soon as the disk is free.
const TURN_RECORDS: usize = 64;

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
    came_to: CameTo,
}

/// What a log acknowledged.
#[derive(Default)]
struct CameTo {
    records: u64,
    /// One latency for each [`Waiting`].
    acks: Figures,
    batches: u64,
    /// Of batches.
    bytes: u64,
}

impl CameTo {
    fn records_a_second(&self) -> f64 {
        self.records as f64 / self.acks.elapsed().as_secs_f64()
    }

    fn megabytes_a_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.acks.elapsed().as_secs_f64()
    }

    /// Of a batch on average, whole blocks.
    fn batch_bytes(&self) -> usize {
        ((self.bytes / self.batches) as usize).next_multiple_of(512)
    }
}

impl Loop {
    fn new(files: &[&Scratch], depth: usize, links: u64) -> io::Result<Self> {
        let mut log = empty_log(TAIL_BYTES);
        keep_spare(&mut log);
        Ok(Self {
            log,
            files: Files::new(),
            writer: Writer::new(files, Way::Through)?,
            depth,
            links,
            next: 0,
            waiting: VecDeque::new(),
            under_way: 0,
            came_to: CameTo::default(),
        })
    }

    /// In the order of a node's turn: some are appended, what waits is handed to the disk if that is free, and one enter of the ring brings what
    /// has ended; it waits only where there is nothing to append.
    fn run(&mut self, time: Duration) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let goes_on = begun.elapsed() < time;
            let has_more = goes_on && self.append_some();
            if let Some(batch) = self.log.poll_write(0) {
                self.came_to.batches += 1;
                self.came_to.bytes += batch.buffer.bytes().len() as u64;
                let (vec, range) = batch.buffer.into_parts();
                let file = (batch.segment / SEGMENT_BYTES) as usize % FILES;
                self.writer.begin(file, batch.offset, FileBuffer::new(vec, range));
            } else if self.waiting.is_empty() && !goes_on {
                self.came_to.acks.ran(begun.elapsed());
                return Ok(());
            }
            let ended = if has_more { self.writer.poll()? } else { self.writer.wait()? };
            for (_, buffer) in ended {
                self.handle_written(buffer);
            }
        }
    }

    fn handle_written(&mut self, buffer: FileBuffer) {
        let (vec, range) = buffer.into_parts();
        let durable = self.log.handle_written(Buffer::from_parts(vec, range), true).expect("written");
        let now = Instant::now();
        while let Some(acked) = self.waiting.pop_front_if(|waiting| durable.covers(waiting.last_position)) {
            self.came_to.acks.enter(now - acked.since, acked.records * PAYLOAD.len());
            self.under_way -= acked.records;
            self.came_to.records += acked.records as u64;
        }
        keep_spare(&mut self.log);
        self.files.turn(&mut self.log);
    }

    /// Appends what one turn brings, and no more than may be under way; says whether the next turn has some to append.
    fn append_some(&mut self) -> bool {
        let (since, before) = (Instant::now(), self.next);
        let together = TURN_RECORDS.min(self.depth - self.under_way);
        let last_position = (0..together).map_while(|_| self.append()).last();
        let records = (self.next - before) as usize;
        self.under_way += records;
        self.waiting.extend(last_position.map(|last_position| Waiting { last_position, since, records }));
        records == together && self.under_way < self.depth
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

    fn print(&self, disk: &Figures, store: &Embedded) {
        let CameTo { acks, .. } = &self.came_to;
        let a_second = self.came_to.records_a_second();
        let stored_a_second = store.acked as f64 / store.acks.elapsed().as_secs_f64();
        let megabytes = self.came_to.megabytes_a_second();
        println!(
            "{:>5} {:>7} {:>10.0} {:>9} {megabytes:>8.1} {:>8.3} {:>8.3}   {:>9.1} {:>8.3} {:>8.3}   {:>6.2} {:>6.2}   {stored_a_second:>10.0} {:>8.3} {:>8.3} {:>9.1}",
            self.links,
            self.depth,
            a_second,
            self.came_to.batch_bytes(),
            acks.millis_at(50),
            acks.millis_at(99),
            disk.megabytes(),
            disk.millis_at(50),
            disk.millis_at(99),
            megabytes / disk.megabytes(),
            acks.millis_at(99) / disk.millis_at(99),
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
