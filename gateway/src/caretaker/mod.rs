//! The thread that looks after what is on the disk, away from the data plane: it looks through sealed segments for what rots
//! (`scrub.rs`), makes damaged index files again from their segments, keeps copies of damaged records (`quarantine.rs`), and sees how full
//! the disk is (`space.rs`).
//!
//! What is asked of it goes first: the scrubber rests between pieces, and takes what was asked meanwhile.
//!
//! Invariant: it changes no segment. What it writes is derived from them, and takes the place of what was there when it is whole.

mod files;
pub mod quarantine;
pub mod quota;
mod scrub;
pub mod space;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use storage_log::{
    DamagedRange, LogConfig, RebuildJob, ScrubProgress, damaged_kind, index_file_name, segment_file_name,
};

use crate::clock::unix_now;
use crate::files::{Command, Inbox};
use crate::metrics::CareMetrics;
use crate::store::disk::log_directory;
use crate::store::indexes;
use files::Files;
use quarantine::{DamagedPlace, Kept};
use quota::Quota;
pub use scrub::PROGRESS_FILE_NAME;
use space::{Space, Watermark};

/// How long it rests when nothing is due.
const REST: Duration = Duration::from_secs(10);

/// Damaged places remembered, so that each is said once a start: at the limit further ones are passed over.
const PLACES_MAX: usize = 4096;

/// What is asked of it.
pub enum Care {
    /// A shard serves this log: its segments may be looked through.
    Serve {
        /// Which.
        config: LogConfig,
        /// Who serves it.
        inbox: Inbox,
    },
    /// Make an index file again: [`Command::Rebuilt`] follows.
    Rebuild {
        /// Which.
        job: RebuildJob,
        /// Who wants it.
        inbox: Inbox,
    },
    /// Keep a copy of a record that a reader found damaged.
    Quarantine(DamagedPlace),
}

/// What it is started with.
pub struct CareParts {
    /// Of the store.
    pub directory: PathBuf,
    /// What the scrubber reads, in bytes a second; 0 is nothing.
    pub scrub_bytes_per_second: u64,
    /// Where it counts.
    pub metrics: Arc<CareMetrics>,
}

/// Starts the thread. It ends when the last sender is gone.
///
/// # Errors
/// When the system gives no thread.
pub fn start(parts: CareParts) -> io::Result<(Sender<Care>, JoinHandle<()>)> {
    let (sender, asked) = channel();
    let work = move || {
        let CareParts { directory, scrub_bytes_per_second, metrics } = parts;
        metrics.quarantine_bytes.set(quarantine::used_bytes(&directory));
        let (served, places) = (RefCell::default(), RefCell::default());
        let (is_forgetful, is_full, space_seen) = (Cell::new(false), Cell::new(false), Cell::new(None));
        let watermark = Cell::new(Watermark::Fine);
        let caretaker = Caretaker {
            directory,
            asked,
            scrub_bytes_per_second,
            metrics,
            served,
            places,
            is_forgetful,
            is_full,
            space_seen,
            watermark,
            quota: RefCell::new(Quota::of_this_process()),
            replaced: RefCell::default(),
        };
        caretaker.run();
    };
    let thread = thread::Builder::new().name("caretaker".to_owned()).spawn(work)?;
    Ok((sender, thread))
}

struct Served {
    config: LogConfig,
    inbox: Inbox,
    progress: ScrubProgress,
}

struct Caretaker {
    /// Of the store.
    directory: PathBuf,
    asked: Receiver<Care>,
    scrub_bytes_per_second: u64,
    metrics: Arc<CareMetrics>,
    /// By number.
    served: RefCell<BTreeMap<u16, Served>>,
    places: RefCell<HashSet<(u16, u64)>>,
    /// It was said that the quarantine is full.
    is_full: Cell<bool>,
    /// It was said that progress cannot be written.
    is_forgetful: Cell<bool>,
    /// When it was last seen how full the disk is, and what was said of it.
    space_seen: Cell<Option<Instant>>,
    watermark: Cell<Watermark>,
    /// How much of the cores it has.
    quota: RefCell<Quota>,
    /// Files that others took the place of: freeing them is this thread's work, so it closes them last.
    replaced: RefCell<Vec<File>>,
}

impl Caretaker {
    fn run(self) {
        loop {
            let did = self.scrub_pass_step();
            let rest = if did { Duration::ZERO } else { REST };
            if self.rest(rest).is_err() {
                return;
            }
        }
    }

    /// Takes what is asked, for this long.
    fn rest(&self, rest: Duration) -> io::Result<()> {
        let until = Instant::now() + rest;
        self.look_around();
        loop {
            match self.asked.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Care::Serve { config, inbox }) => {
                    self.serve(config, inbox);
                    if rest == REST {
                        return Ok(());
                    }
                }
                Ok(care) => self.take(care),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(scrub::ended()),
            }
        }
    }

    /// What is due now and then, however long the scrubber is at work.
    fn look_around(&self) {
        if self.space_seen.get().is_some_and(|seen| seen.elapsed() < REST) {
            return;
        }
        self.space_seen.set(Some(Instant::now()));
        // Their shards were woken to read the new ones.
        self.replaced.borrow_mut().clear();
        self.look_at_space();
        self.look_at_cores();
    }

    /// Sees whether the node is let run, and says when that changes.
    fn look_at_cores(&self) {
        let mut quota = self.quota.borrow_mut();
        let percent = quota.read();
        self.metrics.held_back_percent.set(percent);
        let changed = quota.has_changed(percent);
        if let Some(is_short) = changed {
            self.metrics.is_held_back.set(u64::from(is_short));
        }
        match changed {
            Some(true) => tracing::warn!(
                percent,
                "its control group does not let the node run in so many of a hundred periods: everything is late, and nothing is lost; give it more \
                 of the cores (CPUQuota), or less to do"
            ),
            Some(false) => tracing::info!(percent, "the control group lets the node run again"),
            None => {}
        }
    }

    /// Sees how full the disk is, and says so where it passes a mark.
    fn look_at_space(&self) {
        let Ok(space) = Space::of(&self.directory) else {
            return;
        };
        self.metrics.data_bytes.set(space.total);
        self.metrics.data_free_bytes.set(space.free);
        let (mark, before) = (space.watermark(), self.watermark.replace(space.watermark()));
        let (used_percent, free_bytes) = (space.used_percent(), space.free);
        match mark.words() {
            _ if mark == before => {}
            None => tracing::info!(used_percent, free_bytes, "the disk of the data directory has room again"),
            Some(words) if mark == Watermark::High => {
                tracing::warn!(used_percent, free_bytes, "the disk of the data directory fills up: {words}");
            }
            Some(words) => {
                tracing::error!(
                    used_percent,
                    free_bytes,
                    "the disk of the data directory is nearly full: {words}"
                );
            }
        }
    }

    /// Counts what the scrubber read, and rests for as long as that may take.
    fn pace(&self, bytes: u64) -> io::Result<()> {
        self.metrics.scrub_bytes_total.add(bytes);
        self.rest(scrub::rest_of(bytes, self.scrub_bytes_per_second))
    }

    /// Takes what is asked.
    ///
    /// # Errors
    /// The node ends.
    fn go_on(&self) -> io::Result<()> {
        match self.asked.try_recv() {
            Ok(care) => self.take(care),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(scrub::ended()),
        }
        Ok(())
    }

    fn take(&self, care: Care) {
        match care {
            Care::Serve { config, inbox } => self.serve(config, inbox),
            Care::Rebuild { job, inbox } => self.rebuild(&job, &inbox),
            Care::Quarantine(place) => drop(self.keep(&place)),
        }
    }

    fn serve(&self, config: LogConfig, inbox: Inbox) {
        let progress = scrub::read_progress(&log_directory(&self.directory, config.number), &config);
        let log = config.number;
        self.metrics.last_pass_seconds[usize::from(log)].set(progress.ended / 1_000);
        self.served.borrow_mut().insert(log, Served { config, inbox, progress });
    }

    /// Looks through the next segment of each log. Whether there was one.
    fn scrub_pass_step(&self) -> bool {
        if self.scrub_bytes_per_second == 0 {
            return false;
        }
        let logs: Vec<u16> = self.served.borrow().keys().copied().collect();
        logs.into_iter().fold(false, |did, log| self.scrub_log(log) | did)
    }

    fn scrub_log(&self, log: u16) -> bool {
        let directory = log_directory(&self.directory, log);
        let (config, inbox, mut progress) = {
            let served = self.served.borrow();
            let served = &served[&log];
            (served.config.clone(), served.inbox.clone(), served.progress)
        };
        let before = progress;
        let Ok(bases) = scrub::sealed_bases(&directory) else {
            return false;
        };
        let base = scrub::next(&mut progress, &bases, unix_now().0);
        if let Some(base) = base {
            match scrub::scrub(self, &config, base) {
                Err(_) if self.go_on().is_err() => return false,
                // What cannot be opened may be gone, and is met again in the next pass.
                Err(error) => {
                    let segment = segment_file_name(base);
                    tracing::warn!(log, segment, %error, "a sealed segment could not be looked through: it is tried again in the next pass");
                }
                Ok(found) => self.report(&config, found.base, &found, &inbox),
            }
            progress.next_base = base + config.geometry.segment_bytes;
        }
        if progress != before {
            self.remember(&config, progress);
        }
        base.is_some()
    }

    fn remember(&self, config: &LogConfig, progress: ScrubProgress) {
        let (log, directory) = (config.number, log_directory(&self.directory, config.number));
        let written = scrub::write_progress(&directory, config, &progress);
        if let Err(error) = &written
            && !self.is_forgetful.get()
        {
            tracing::warn!(log, %error, "how far the scrubber is could not be written: after a restart it begins where it last could");
        }
        self.is_forgetful.set(written.is_err());
        let ended = &self.metrics.last_pass_seconds[usize::from(log)];
        if progress.ended / 1_000 != ended.value() {
            ended.set(progress.ended / 1_000);
            tracing::info!(log, "the scrubber came to the end of the log's sealed segments");
        }
        if let Some(served) = self.served.borrow_mut().get_mut(&log) {
            served.progress = progress;
        }
    }

    fn report(&self, config: &LogConfig, base: u64, found: &scrub::Found, inbox: &Inbox) {
        let log = config.number;
        if !found.index_is_sound {
            self.metrics.scrub_damaged_indexes_total.increment();
            if !inbox.offer(Command::IndexDamaged { log, base }) {
                let index = index_file_name(base);
                tracing::warn!(
                    log,
                    index,
                    "an index file is damaged, and its shard is too busy to be told: it is met again"
                );
            }
        }
        for range in &found.damaged {
            self.report_range(log, range);
        }
    }

    fn report_range(&self, log: u16, range: &DamagedRange) {
        let DamagedRange { segment: base, offset, bytes, records, .. } = *range;
        let place = DamagedPlace { log, base, offset, bytes };
        if !self.is_new(&place) {
            return;
        }
        self.metrics.scrub_damaged_records_total.add(records.unwrap_or(1).max(1));
        let mut record = vec![0; 128];
        let read = Files::new(&log_directory(&self.directory, log)).read_segment(base, offset, &mut record);
        let kind = read.ok().and_then(|read| damaged_kind(&record[..read])).map(|kind| kind.0);
        let copy = self.keep(&place);
        tracing::error!(
            log,
            segment = segment_file_name(base),
            offset,
            bytes,
            stream_kind = kind,
            copy,
            "stored bytes are not what was written: readers of the records there are told of a gap, \
             everything else is served; `gatehouse log verify` says how much, look at the disk, and bring the segment back from a backup"
        );
    }

    /// Whether a damaged place was not met before.
    fn is_new(&self, place: &DamagedPlace) -> bool {
        let mut places = self.places.borrow_mut();
        places.len() < PLACES_MAX && places.insert((place.log, place.base + place.offset))
    }

    /// Keeps a copy of what is damaged; its name, if there is one.
    fn keep(&self, place: &DamagedPlace) -> Option<String> {
        if self.watermark.get() >= Watermark::Higher {
            return None;
        }
        let name = place.file_name();
        match quarantine::keep(&self.directory, place) {
            Ok(Kept::Copied) => {
                self.metrics.quarantined_total.increment();
                self.metrics.quarantine_bytes.set(quarantine::used_bytes(&self.directory));
            }
            Ok(Kept::Known) => {}
            Ok(Kept::Full) => {
                if !self.is_full.replace(true) {
                    tracing::warn!(
                        bytes_max = quarantine::QUARANTINE_BYTES_MAX,
                        "the quarantine is full: what is found damaged is still said and counted, and not copied any more; move \
                         the files of `quarantine` elsewhere"
                    );
                }
                return None;
            }
            Err(error) => {
                let segment = segment_file_name(place.base);
                tracing::warn!(log = place.log, segment, offset = place.offset, %error, "a damaged place could not be copied; it is said and counted all the same");
                return None;
            }
        }
        Some(name)
    }

    /// Makes an index file again from its segment, and says on one line what came of it.
    fn rebuild(&self, job: &RebuildJob, inbox: &Inbox) {
        let (log, base) = (job.config().number, job.base());
        let (directory, begun) = (log_directory(&self.directory, log), Instant::now());
        let made = job.run(&mut Files::new(&directory)).and_then(|rebuilt| {
            let Some(rebuilt) = rebuilt else {
                return Ok((None, Vec::new()));
            };
            self.replaced.borrow_mut().extend(indexes::open(&directory, base)?);
            let made = indexes::write(&directory, &rebuilt.index)?;
            Ok((Some(made), rebuilt.damaged))
        });
        let (index, took_ms) = (index_file_name(base), begun.elapsed().as_millis() as u64);
        for range in made.iter().flat_map(|(_, damaged)| damaged) {
            self.report_range(log, range);
        }
        match &made {
            // Compacted meanwhile: the cold segment has its own.
            Ok((None, _)) => {}
            Ok((_, damaged)) if damaged.is_empty() => tracing::warn!(
                log,
                index,
                took_ms,
                "an index file was damaged and is made again from its segment; no message was: what waited for it goes on"
            ),
            Ok((_, damaged)) => tracing::error!(
                log,
                index,
                took_ms,
                damaged_ranges = damaged.len(),
                "an index file was damaged and is made again, but its segment is damaged too: records there are told as gaps; \
                 `gatehouse log verify` says how much, restore the segment from a backup"
            ),
            Err(error) => tracing::error!(
                log,
                index,
                %error,
                "an index file is damaged and could not be made again: who reads what it holds waits or is told unavailable; it \
                 is tried again in a minute: look at the disk and its space"
            ),
        }
        inbox.send(Command::Rebuilt { log, base, made: made.ok().and_then(|(made, _)| made) });
    }
}
