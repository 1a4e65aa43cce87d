//! The follower: reads the logs on, puts what is said in them into the index, and commits how far it is.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use protocol::record::{AmendmentKind, Portable, Stored, StoredBody, StreamKind as Kind};
use router::conversation::Subject;
use router::words;
use search::{Check, Document, Index, IndexError, Opened};
use storage_log::{Met, Record};

use super::progress::Progress;
use super::tail::{Tail, Unreadable};
use super::{FollowParts, SEARCH_DIRECTORY, Shared};
use crate::caretaker::space::{Space, Watermark};
use crate::erasures::Erasure;
use crate::logtool::data::Data;
use crate::store::StoreFacts;

/// How often it looks whether there is something new.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long what was said may wait to be found.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// The same on a busy node: a commit is a few syncs, and the batches that are written meanwhile wait for them.
const COMMIT_EVERY_BUSY: Duration = Duration::from_secs(5);

/// A node is busy that has stored more than so many records since the last commit.
const BUSY_RECORDS: u64 = 1_000;

/// The same while the index is being made: fewer and larger files.
const COMMIT_EVERY_BEHIND: Duration = Duration::from_secs(20);

/// While the index is being made the disk and the core are left to others for as long as each piece took.
const REST: u32 = 1;

/// An index that is farther behind than this says that it does not know everything: some seconds of a busy node.
const BEHIND_BYTES: u64 = 64 << 20;

/// How long it waits when the disk does not take the index, or has no room to spare.
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// The same while another process has it, which is about to end.
const HANDOVER_RETRY: Duration = Duration::from_secs(1);

/// How often messages that are not kept any more are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

const RESTORED: &str = "it knows more than the logs, which were restored";

pub(super) struct Follower {
    parts: FollowParts,
    shared: Arc<Shared>,
    path: PathBuf,
    /// What was said last of what keeps it from going on: once is enough.
    said: RefCell<String>,
    /// A place of a log that cannot be read is waited for once, and passed over then.
    unreadable: Cell<Unreadable>,
    /// Its files hold their checksums: what rots between two starts is found at the second.
    is_checked: Cell<bool>,
}

/// An index that is open, and how far it is.
struct Following {
    index: Index,
    data: Data,
    tails: Vec<Tail>,
    /// Marks of the erasures that have left what is asked, and all files.
    erased: u64,
    purged: u64,
    /// Something was put in or taken out since the last commit.
    is_changed: bool,
    /// Records that were read since.
    pending: u64,
    committed: Instant,
    expired: Option<Instant>,
    /// When it was last tried to write the files anew that hold words of what was erased.
    purge_tried: Option<Instant>,
}

impl Follower {
    pub(super) fn new(parts: FollowParts, shared: Arc<Shared>) -> Self {
        let path = parts.directory.join(SEARCH_DIRECTORY);
        Self {
            parts,
            shared,
            path,
            said: RefCell::default(),
            unreadable: Cell::new(Unreadable::Fails),
            is_checked: Cell::new(false),
        }
    }

    /// Follows until the node ends, with one index after the other where it has to.
    pub(super) fn run(self) {
        while !self.shared.is_over() {
            let ended = self.open().and_then(|mut following| self.follow(&mut following));
            self.shared.set_reader(None);
            self.shared.is_partial.store(true, Ordering::Relaxed);
            match ended {
                Ok(()) => return,
                Err(Trouble::Index(IndexError::Damaged(reason))) => {
                    tracing::warn!(
                        reason,
                        "the index of words cannot be used: it is removed, and made again from the logs"
                    );
                    self.is_checked.set(false);
                    self.shared.metrics.rebuilds_total.increment();
                    if let Err(error) = Index::remove(&self.path) {
                        tracing::error!(%error, "the index of words cannot be removed: remove its directory `search`");
                        self.rest(RETRY_EVERY);
                    }
                }
                Err(Trouble::Index(IndexError::Busy)) => self.rest(HANDOVER_RETRY),
                Err(Trouble::Index(IndexError::Later(reason))) => {
                    self.fail(&format!(
                        "the index of words cannot be written, and goes on from its last commit: {reason}"
                    ));
                }
                Err(Trouble::Log(error)) => {
                    self.fail(&format!(
                        "a log cannot be read for the index of words, and a sector that stays lost is passed over then: {error:#}"
                    ));
                    self.unreadable.set(Unreadable::IsPassedOver);
                }
            }
        }
    }

    fn fail(&self, words: &str) {
        self.say(words);
        self.shared.metrics.failures_total.increment();
        self.rest(RETRY_EVERY);
    }

    /// A line for the operator, unless it is the one of before.
    fn say(&self, words: &str) {
        if *self.said.borrow() != words {
            tracing::warn!(retry_seconds = RETRY_EVERY.as_secs(), "{words}");
            words.clone_into(&mut self.said.borrow_mut());
        }
    }

    fn rest(&self, rest: Duration) {
        let until = Instant::now() + rest;
        while !self.shared.is_over() && Instant::now() < until {
            thread::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())));
        }
    }

    fn open(&self) -> Result<Following, Trouble> {
        let directory = self.parts.directory.clone();
        let facts = StoreFacts::read(&directory)?;
        let (store, logs) = (facts.id, facts.logs);
        let data = Data { directory, facts, is_live: true };
        let check = if self.is_checked.get() { Check::Nothing } else { Check::Sums };
        let opened = Index::open(&self.path, check)?;
        self.is_checked.set(true);
        let (index, progress) = match opened {
            Opened::Made(index) => (index, Progress::none(store, logs)),
            Opened::Found { index, mark } => {
                let progress = Progress::decode(&mark, store, logs);
                let reason = || IndexError::Damaged("it is of another store or version".to_owned());
                (index, progress.ok_or_else(reason)?)
            }
        };
        self.check(&progress)?;
        self.shared.set_reader(Some(index.reader()));
        let tail = |(log, progress): (u16, _)| Tail::new(data.config(log), progress, self.unreadable.get());
        let tails = (0..).zip(progress.logs.iter().copied()).map(tail).collect();
        let Progress { erased, purged, .. } = progress;
        let committed = Instant::now();
        Ok(Following {
            index,
            data,
            tails,
            erased,
            purged,
            is_changed: false,
            pending: 0,
            committed,
            expired: None,
            purge_tried: None,
        })
    }

    /// Whether the logs reach as far as the index: those of a restored copy may not.
    fn check(&self, progress: &Progress) -> Result<(), IndexError> {
        for (log, progress) in (0..).zip(&progress.logs) {
            let durable = self.parts.state.durable_end(log);
            if durable.is_some_and(|durable| progress.base > durable) {
                return Err(IndexError::Damaged(RESTORED.to_owned()));
            }
        }
        Ok(())
    }

    fn follow(&self, following: &mut Following) -> Result<(), Trouble> {
        while !self.shared.is_over() {
            let is_at_marks = following.tails.iter().all(Tail::is_at_mark);
            if is_at_marks && self.is_disk_full() {
                // What is left belongs to the logs, and what they give up is to be free at once.
                following.tails.iter_mut().for_each(Tail::let_go);
                self.say("the disk is 92 % full, and the index of words stands still until there is room");
                self.shared.is_partial.store(true, Ordering::Relaxed);
                self.rest(RETRY_EVERY);
                continue;
            }
            let begun = Instant::now();
            let (behind, more) = self.step(following)?;
            self.shared.metrics.lag_bytes.set(behind);
            let is_behind = behind > BEHIND_BYTES;
            if !more && !is_behind {
                self.settle_erasures(following);
                self.expire(following)?;
            }
            let every = match following.pending {
                _ if is_behind => COMMIT_EVERY_BEHIND,
                BUSY_RECORDS.. => COMMIT_EVERY_BUSY,
                _ => COMMIT_EVERY,
            };
            if following.is_due(every) {
                following.commit()?;
                self.shared.metrics.commits_total.increment();
            }
            let is_known = !more && !following.is_changed;
            if is_behind || is_known {
                self.shared.is_partial.store(is_behind, Ordering::Relaxed);
            }
            if is_known {
                following.purge()?;
            }
            if let Some(reader) = self.shared.reader() {
                self.shared.metrics.documents.set(reader.documents());
            }
            if !more {
                thread::sleep(LOOK_EVERY);
            } else if is_behind {
                self.rest(begun.elapsed() * REST);
            }
        }
        if following.tails.iter().all(Tail::is_at_mark) && following.is_changed {
            following.commit()?;
        }
        Ok(())
    }

    fn is_disk_full(&self) -> bool {
        Space::of(&self.parts.directory).is_ok_and(|space| space.watermark() >= Watermark::Higher)
    }

    /// Reads a piece of each log. How many bytes are behind, and whether there is more to read now.
    fn step(&self, following: &mut Following) -> Result<(u64, bool), Trouble> {
        let (mut behind, mut any_more) = (0, false);
        let Following { index, data, tails, is_changed, pending, .. } = following;
        // One log at a time within a cold segment: there is a moment for a commit behind each then.
        let within_cold = tails.iter().position(|tail| !tail.is_at_mark());
        for (log, tail) in (0..).zip(tails.iter_mut()) {
            let Some(end) = self.parts.state.durable_end(log) else {
                continue;
            };
            if within_cold.is_some_and(|within| within != usize::from(log)) {
                behind += end.saturating_sub(tail.read_to);
                any_more = true;
                continue;
            }
            let (mut records, mut failed, known) = (0, None, tail.progress.position);
            let stepped = tail.step(data, end, &mut |met| {
                if let Met::Record(record) = met
                    && record.position() > known
                    && failed.is_none()
                {
                    records += 1;
                    failed = put(index, log, record).err();
                }
            })?;
            if let Some(error) = failed {
                return Err(error.into());
            }
            if stepped.is_other || !stepped.more && tail.is_ahead(end) {
                return Err(IndexError::Damaged(RESTORED.to_owned()).into());
            }
            *is_changed |= records > 0;
            *pending += records;
            self.shared.metrics.records_total.add(records);
            self.shared.metrics.read_bytes_total.add(stepped.bytes);
            behind += end.saturating_sub(tail.read_to);
            any_more |= stepped.more;
        }
        Ok((behind, any_more))
    }

    /// Takes out what was erased, once everything that an erasure reaches has been read.
    fn settle_erasures(&self, following: &mut Following) {
        for erasure in self.parts.erasures.since(following.erased) {
            let reached = |(log, to): (&u16, &u64)| {
                let tail = following.tails.get(usize::from(*log));
                tail.is_none_or(|tail| tail.progress.position >= *to)
                    || self.parts.state.durable_end(*log).is_none()
            };
            if !erasure.logs.iter().all(reached) || following.erase(&erasure).is_err() {
                // A failure shows at the commit that follows.
                return;
            }
            following.erased = erasure.asked_at;
            following.is_changed = true;
        }
    }

    /// Takes out what the logs do not keep any more.
    fn expire(&self, following: &mut Following) -> Result<(), Trouble> {
        let Some(keep) = self.parts.keep else {
            return Ok(());
        };
        if following.expired.is_some_and(|expired| expired.elapsed() < EXPIRE_EVERY) {
            return Ok(());
        }
        // By the same time as from the logs: what goes by a clock that is wrong for an hour would be found again by an index that is made anew only.
        let Some(now) = self.parts.state.aging() else {
            return Ok(());
        };
        following.expired = Some(Instant::now());
        following.index.remove_before(now.saturating_sub(keep.as_millis() as u64))?;
        following.is_changed = true;
        Ok(())
    }
}

impl Following {
    fn is_due(&self, every: Duration) -> bool {
        self.is_changed && self.committed.elapsed() >= every && self.tails.iter().all(Tail::is_at_mark)
    }

    fn commit(&mut self) -> Result<(), IndexError> {
        let facts = &self.data.facts;
        let mut progress = Progress::none(facts.id, facts.logs);
        progress.logs = self.tails.iter().map(Tail::mark).collect();
        (progress.erased, progress.purged) = (self.erased, self.purged);
        self.index.commit(&progress.encode())?;
        (self.is_changed, self.pending, self.committed) = (false, 0, Instant::now());
        Ok(())
    }

    /// Has the files written anew that hold words of what was erased, if there are some.
    fn purge(&mut self) -> Result<(), IndexError> {
        let was_tried = self.purge_tried.is_some_and(|tried| tried.elapsed() < RETRY_EVERY);
        if self.purged == self.erased || was_tried {
            return Ok(());
        }
        self.purge_tried = Some(Instant::now());
        if self.index.purge()? {
            (self.purged, self.is_changed, self.purge_tried) = (self.erased, true, None);
        }
        Ok(())
    }

    fn erase(&mut self, erasure: &Erasure) -> Result<(), IndexError> {
        for (log, to) in &erasure.logs {
            match &erasure.subject {
                Subject::Conversation(conversation) => {
                    self.index.remove_conversation(conversation.0, u64::MAX, *log, *to)?;
                }
                Subject::Front(conversation, below) => {
                    self.index.remove_conversation(conversation.0, below.0, *log, *to)?;
                }
                Subject::User(user) => self.index.remove_sender(user.as_bytes(), *log, *to)?,
            }
        }
        Ok(())
    }
}

/// Puts what a record says into the index.
fn put(index: &mut Index, log: u16, record: &Record<'_>) -> Result<(), IndexError> {
    let bytes = record.portable();
    let Ok(portable) = Portable::parse(bytes) else {
        return Ok(());
    };
    if portable.kind != Kind::Messages {
        return Ok(());
    }
    let Ok(Stored { body, .. }) = Stored::with_checked_sum(portable, bytes) else {
        return Ok(());
    };
    let (conversation, position) = (portable.conversation.0, record.position());
    let document = |seq, sender, at, text: &[u8]| Document {
        conversation,
        seq,
        sender,
        at,
        log,
        position,
        words: words::of_message(&String::from_utf8_lossy(text)),
    };
    match body {
        StoredBody::Message(message) => {
            index.add(document(portable.seq.0, &*message.sender, portable.at.0, &message.text))
        }
        StoredBody::Amendment(amendment) if amendment.change != AmendmentKind::React as u8 => {
            let (target, form) = (amendment.target.to_native(), &amendment.form);
            index.remove_message(conversation, target);
            if form.deleted != 0 {
                return Ok(());
            }
            index.add(document(target, &*form.sender, form.at.to_native(), &form.text))
        }
        _ => Ok(()),
    }
}

/// Why it cannot go on.
enum Trouble {
    Index(IndexError),
    Log(anyhow::Error),
}

impl From<IndexError> for Trouble {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Log(error)
    }
}
