//! The log: one writer, one batch in flight, group commit without a timer.
//!
//! Whatever is appended while a batch is being synced becomes the next batch, so batches grow with the load by
//! themselves. Who drives it: [`Log::poll_write`] says what to write and sync, [`Log::handle_written`] takes the answer
//! and hands out the [`Durable`] token that acknowledgements and deliveries are made from.
//!
//! Each batch says that those before it were durable. The last one before a pause has nothing behind it, so an idle log
//! writes one empty batch, a **mark**: [`Log::mark_in`] says when to poll for it.
//!
//! What is appended stands in `append`, how batches become durable in `write`, what a log needs of segments in `segments`, and what it
//! answers to readers in `read`. All of them act on the one [`Log`], and none touches a file.

mod append;
mod read;
mod segments;
mod write;

use std::collections::VecDeque;

use crate::batch::Batch;
use crate::buffer::Buffers;
use crate::cold::Schedule;
use crate::format::{RUNS_MAX, SEGMENT_HEADER_BYTES};
use crate::index::{Index, Kinds};
use crate::record::StreamId;
use crate::segment::Geometry;
use crate::spare::Spare;
use crate::tail::Tail;

pub use append::{Answer, Draft, Stored};
pub use write::{Durable, WriteError};

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The installation.
    pub store: [u8; 16],
    /// Number of this log in its store, from 0.
    pub number: u16,
    /// How it is cut.
    pub geometry: Geometry,
    /// Bytes of the newest batches kept in memory for readers.
    pub tail_bytes_max: usize,
    /// What its kinds of streams are.
    pub kinds: Kinds,
    /// A segment is left for the next one so long after its first record, in milliseconds, full or not: retention acts on what is
    /// sealed. `None`: when it is full.
    pub segment_ms_max: Option<u64>,
}

/// One start of the node, as the log remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Random per start.
    pub id: [u8; 16],
    /// First position of that start.
    pub first_position: u64,
}

struct InFlight {
    lsn: u64,
    end_lsn: u64,
    last_position: u64,
}

/// One log of a store.
pub struct Log {
    config: LogConfig,
    epoch: u32,
    pub(crate) index: Index,
    tail: Tail,
    pub(crate) next_position: u64,
    /// Where the next batch begins, within a segment that exists; or the end of that segment, when it is full.
    pub(crate) end_lsn: u64,
    /// Batches that are full and wait, then the one that takes appends.
    closed: VecDeque<Batch>,
    open: Option<Batch>,
    in_flight: Option<InFlight>,
    buffers: Buffers,
    /// Checksum of the newest batch header: the chain.
    pub(crate) previous: u32,
    pub(crate) durable_lsn: u64,
    pub(crate) durable_position: u64,
    /// No mark is missing: the newest batch is one.
    marked: bool,
    /// When it was first seen, since the last batch, that there is nothing to write.
    idle_since: Option<u64>,
    /// When the newest batch was sealed by this process.
    sealed_at: u64,
    /// `at` of the newest record.
    pub(crate) clock: u64,
    /// The same before this start of the node.
    clock_before: u64,
    /// `at` of the first record of the newest segment; 0 when it has none.
    pub(crate) segment_began: u64,
    /// Home streams hold nothing that was stored before, but for their newest records.
    pub(crate) kept_from: u64,
    /// The first linked kind has lost links to records below this position, or may have.
    pub(crate) links_kept_from: u64,
    spare: Spare,
    pub(crate) schedule: Schedule,
    pub(crate) runs: Vec<Run>,
    poisoned: bool,
}

impl Log {
    /// A log without a record, whose first segment (base 0) exists.
    pub(crate) fn empty(config: LogConfig, epoch: u32) -> Self {
        assert!(config.geometry.is_sound());
        let index = Index::new(config.kinds, config.geometry);
        let tail = Tail::new(config.tail_bytes_max);
        Self {
            config,
            epoch,
            index,
            tail,
            next_position: 1,
            end_lsn: SEGMENT_HEADER_BYTES as u64,
            closed: VecDeque::new(),
            open: None,
            in_flight: None,
            buffers: Buffers::default(),
            previous: 0,
            durable_lsn: 0,
            durable_position: 0,
            // Nothing to say yet; and what recovery reads is marked by the batch of the start that follows.
            marked: true,
            idle_since: None,
            sealed_at: 0,
            clock: 0,
            clock_before: 0,
            segment_began: 0,
            kept_from: 0,
            links_kept_from: 0,
            spare: Spare::wanted(),
            schedule: Schedule::default(),
            runs: Vec::new(),
            poisoned: false,
        }
    }

    /// What it was opened with.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Number of this log in its store.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.config.number
    }

    /// How it is cut.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.config.geometry
    }

    /// False once a write or sync has failed.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.poisoned
    }

    /// Starts, oldest first, this one last.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Ids known: of conversations with a record, and of users. All of the former are looked at: some milliseconds for a million.
    #[must_use]
    pub fn ids_count(&self) -> (usize, usize) {
        self.index.ids_count()
    }

    /// Bytes of memory that grow with what is known and not with what is being written: at most 64 for each id, and 4 for
    /// each block of an index file.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.index.resident_bytes()
    }

    /// Home streams may have lost what was stored before this, milliseconds since 1970: what reads them begins no earlier.
    #[must_use]
    pub fn kept_from(&self) -> u64 {
        self.kept_from
    }

    /// Links of the first kind to records below this position may not be there any more: what follows such a stream from before
    /// has missed something, perhaps.
    #[must_use]
    pub fn links_kept_from(&self) -> u64 {
        self.links_kept_from
    }

    /// The log's clock: the newest `at`, and at least `now`.
    #[must_use]
    pub fn clock(&self, now: u64) -> u64 {
        self.clock.max(now)
    }

    /// The log's clock before this start of the node: 0 of a log that is new.
    #[must_use]
    pub fn clock_before(&self) -> u64 {
        self.clock_before
    }

    /// Enters a start of the node. Called once, before any other append.
    pub fn begin_run(&mut self, id: [u8; 16], now: u64) -> Answer {
        self.clock_before = self.clock;
        let expected_head = self.head(StreamId::RUNS).seq;
        let draft =
            Draft { stream: StreamId::RUNS, expected_head, messages: 0, schema: 1, payload: &id, links: &[] };
        let answer = self.append_keeping(&[draft], now, 0);
        if let Answer::Stored(stored) = answer {
            self.enter_run(Run { id, first_position: stored.first_position });
        }
        answer
    }

    pub(crate) fn enter_run(&mut self, run: Run) {
        if self.runs.len() == RUNS_MAX {
            self.runs.remove(0);
        }
        self.runs.push(run);
    }
}
