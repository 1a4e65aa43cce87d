//! What was erased, kept by the control plane: in a list, in a file, and told to every shard.
//!
//! A shard puts an erasure in force when it hears of it, says up to which position it reaches in the logs that it owns, and has their
//! segments written anew. How far that is follows from the segments; here it is asked for once a second, and noted when nothing
//! is left.
//!
//! Invariant: an erasure is in force before it is written, and promised after; and it is said to be done only when no segment, and no
//! copy of a damaged place, is left that could hold it.

pub mod ask;
pub mod entry;
mod file;
pub mod marks;
pub mod start;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use router::Places;
use router::conversation::Subject;
use serde::Serialize;
use tokio::sync::{Mutex as TurnMutex, RwLock, oneshot};
use tokio::time;

pub use entry::{Asked, Erasure};

use ask::{ErasureAsk, LogLeft};
pub use file::{ERASURES_FILE, ERASURES_MAX, ErasuresFile};

use crate::caretaker::quarantine;
use crate::clock::unix_now;
use crate::files::{Command, Inbox};
use crate::metrics::CareMetrics;

/// How long the shards may take to answer: they do it in the turn in which they are asked.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// How often it is asked whether something is done,
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// and of how many at once, the next ones the next time: each costs a shard a look at all its segments.
const LOOK_AT_MAX: usize = 64;

/// Why an erasure is not what was asked for.
#[derive(Debug)]
pub enum EraseError {
    /// [`ERASURES_MAX`] are under way: nothing was done.
    Full,
    /// It is in force until the node stops, and not on disk.
    NotDurable(std::io::Error),
    /// The node is stopping; it may be on disk.
    Stopping,
    /// A shard takes nothing any more, or did not answer; the others obey until the node stops.
    Untold,
}

impl fmt::Display for EraseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(
                f,
                "nothing was erased: {ERASURES_MAX} erasures are under way, which is the limit; ask again when some are done"
            ),
            Self::NotDurable(error) => write!(
                f,
                "it is in force until this node stops, but {ERASURES_FILE} could not be written: {error}; mend that and \
                 ask again"
            ),
            Self::Stopping => f.write_str("the node is stopping: ask again when it has started"),
            Self::Untold => f.write_str(
                "a shard of this node takes no commands, so nothing is on disk: restart the node and ask again",
            ),
        }
    }
}

impl std::error::Error for EraseError {}

/// All erasures of a node.
pub struct Erasures {
    /// Oldest first.
    kept: Mutex<Vec<Erasure>>,
    file: ErasuresFile,
    shards: Vec<Inbox>,
    places: Arc<Places>,
    /// Where copies of damaged places stand, and what counts them.
    copies: (PathBuf, Arc<CareMetrics>),
    /// A mark that is smaller was given before, as far as the logs say.
    newest_mark: u64,
    /// Of those under way, the one that is asked about next.
    next_look: AtomicUsize,
    /// One thing at a time, so that the file only ever moves forward and the shards' inboxes have room.
    turn: Arc<TurnMutex<()>>,
}

/// Everything that [`Erasures`] is made from.
pub struct ErasuresParts {
    /// Where they are kept.
    pub file: ErasuresFile,
    /// Those that it held.
    pub kept: Vec<Erasure>,
    /// The newest mark that a log knows of.
    pub newest_mark: u64,
    /// Who is told.
    pub shards: Vec<Inbox>,
    /// Which logs there are.
    pub places: Arc<Places>,
    /// The data directory.
    pub directory: PathBuf,
    /// What counts the copies of damaged places.
    pub care: Arc<CareMetrics>,
}

/// The report: every erasure that is kept, and what is left of it.
#[derive(Serialize)]
pub struct Report {
    erasures: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    asked_at: u64,
    #[serde(flatten)]
    asked: Asked,
    logs: Vec<LogLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_at: Option<u64>,
}

/// Of a log that is not served nobody knows what is left: both numbers are missing then.
#[derive(Serialize)]
struct LogLine {
    log: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments_left: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<usize>,
}

impl Erasures {
    /// Those that the file held, for the shards with these inboxes.
    #[must_use]
    pub fn new(parts: ErasuresParts) -> Arc<Self> {
        let ErasuresParts { file, kept, newest_mark, shards, places, directory, care } = parts;
        let (kept, copies, turn) = (Mutex::new(kept), (directory, care), Arc::default());
        let next_look = AtomicUsize::new(0);
        Arc::new(Self { kept, file, shards, places, copies, newest_mark, next_look, turn })
    }

    /// How many are under way, and how many are done.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let kept = self.lock();
        let done = kept.iter().filter(|erasure| erasure.done_at.is_some()).count();
        (kept.len() - done, done)
    }

    /// Those that were asked for after a mark, in order.
    #[must_use]
    pub fn since(&self, mark: u64) -> Vec<Erasure> {
        self.lock().iter().filter(|erasure| erasure.asked_at > mark).cloned().collect()
    }

    /// Erases what was asked for. When it returns well, it is durable, and no shard of this node gives it to anybody.
    /// `held` is let go of when what has begun is at its end, whoever has gone away.
    ///
    /// # Errors
    /// [`EraseError`] says what is in force nevertheless.
    pub async fn erase(
        self: &Arc<Self>,
        subject: Subject,
        held: impl Send + 'static,
    ) -> Result<Erasure, EraseError> {
        // Whoever goes away while waiting here has asked for nothing; what has begun is brought to its end.
        let turn = self.turn.clone().lock_owned().await;
        let erasures = self.clone();
        let work = tokio::spawn(async move {
            let result = erasures.carry_out(subject).await;
            drop((turn, held));
            result
        });
        work.await.unwrap_or(Err(EraseError::Stopping))
    }

    async fn carry_out(self: &Arc<Self>, subject: Subject) -> Result<Erasure, EraseError> {
        let mut kept = self.list();
        if kept.len() >= ERASURES_MAX {
            let oldest = kept.iter().position(|erasure| erasure.done_at.is_some());
            kept.remove(oldest.ok_or(EraseError::Full)?);
        }
        let newest = kept.last().map_or(self.newest_mark, |newest| newest.asked_at.max(self.newest_mark));
        let mark = unix_now().0.max(newest + 1);
        let ask = ErasureAsk { new: Some((mark, subject.clone())), pending: Vec::new() };
        let reached = self.ask(&ask).await.ok_or(EraseError::Untold)?;
        // Once more round: what the owners of the logs had mailed to others before is taken there first.
        self.ask(&ErasureAsk { new: None, pending: Vec::new() }).await.ok_or(EraseError::Untold)?;
        let logs = reached.iter().map(|left| (left.log, left.to)).collect();
        let erasure = Erasure { asked_at: mark, subject, logs, done_at: None };
        kept.push(erasure.clone());
        // Also where it cannot be written: it is in force, and every file that is written later holds it.
        *self.lock() = kept.clone();
        if let Err(error) = self.write(kept).await? {
            tracing::error!(erasure = erasure.to_string(), %error, "an operator erased: in force until the node stops, but not on disk");
            return Err(EraseError::NotDurable(error));
        }
        let segments: usize = reached.iter().map(|left| left.segments).sum();
        tracing::info!(
            erasure = erasure.to_string(),
            asked_at = mark,
            segments,
            "an operator erased: no reader is given it from now on"
        );
        Ok(erasure)
    }

    /// Everything that is kept, and what is left to do.
    pub async fn report(self: &Arc<Self>) -> Report {
        let _turn = self.turn.lock().await;
        let kept = self.list();
        let left = self.ask(&start::ask_about(&kept, 0..ERASURES_MAX)).await.unwrap_or_default();
        let line = |erasure: &Erasure| {
            let log_line = |log| {
                let found = left.iter().find(|left| left.log == log && left.mark == erasure.asked_at);
                let of = |number: fn(&LogLeft) -> usize| match erasure.done_at {
                    Some(_) => Some(0),
                    None => found.map(number),
                };
                LogLine { log, segments_left: of(|left| left.segments), damaged: of(|left| left.damaged) }
            };
            let logs = erasure.concerned(&self.places).map(log_line).collect();
            let asked = Asked::of(&erasure.subject);
            Line { asked_at: erasure.asked_at, asked, logs, done_at: erasure.done_at }
        };
        Report { erasures: kept.iter().map(line).collect() }
    }

    /// Notes what is done, as long as the node runs.
    pub async fn watch(self: Arc<Self>, changes: Arc<RwLock<()>>) {
        loop {
            time::sleep(LOOK_EVERY).await;
            // Another process reads the list: what is done it finds out by itself.
            let Ok(_unchanged) = changes.try_read() else { continue };
            if self.counts().0 > 0 {
                let _turn = self.turn.lock().await;
                if let Err(error) = self.note_done().await {
                    tracing::warn!(%error, "that an erasure is done could not be noted: it is tried again");
                }
            }
        }
    }

    async fn note_done(&self) -> std::io::Result<()> {
        let mut kept = self.list();
        let from = self.next_look.load(Ordering::Relaxed);
        let next = if from + LOOK_AT_MAX < self.counts().0 { from + LOOK_AT_MAX } else { 0 };
        self.next_look.store(next, Ordering::Relaxed);
        let Some(left) = self.ask(&start::ask_about(&kept, from..from + LOOK_AT_MAX)).await else {
            return Ok(());
        };
        let now = unix_now().0;
        let mut done = Vec::new();
        for erasure in kept.iter_mut().filter(|erasure| erasure.done_at.is_none()) {
            let is_gone = |log: u16| {
                left.iter().any(|left| left.log == log && left.mark == erasure.asked_at && left.segments == 0)
            };
            if erasure.concerned(&self.places).all(is_gone) {
                erasure.done_at = Some(now.max(erasure.asked_at));
                done.push(erasure.clone());
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        self.forget_copies().await?;
        self.write(kept.clone()).await.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()))?;
        *self.lock() = kept;
        for erasure in done {
            let asked_at = erasure.asked_at;
            tracing::info!(
                erasure = erasure.to_string(),
                asked_at,
                "what was erased stands in no file of this node any more"
            );
        }
        Ok(())
    }

    /// Copies of damaged places may hold it too, and what is in them nobody can tell.
    async fn forget_copies(&self) -> std::io::Result<()> {
        let (directory, care) = self.copies.clone();
        let forget = move || {
            let forgotten = quarantine::forget(&directory);
            care.quarantine_bytes.set(quarantine::used_bytes(&directory));
            forgotten
        };
        tokio::task::spawn_blocking(forget)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()))
    }

    async fn write(&self, erasures: Vec<Erasure>) -> Result<std::io::Result<()>, EraseError> {
        let file = self.file.clone();
        tokio::task::spawn_blocking(move || file.write(&erasures)).await.map_err(|_| EraseError::Stopping)
    }

    /// What the shards answer, of all logs that are served; nothing when one of them does not.
    async fn ask(&self, ask: &ErasureAsk) -> Option<Vec<LogLeft>> {
        let told = self.shards.iter().map(|shard| {
            let (answer, answered) = oneshot::channel();
            shard.offer(Command::Erase { ask: ask.clone(), answer }).then_some(answered)
        });
        // First each is told, whatever another does.
        let told: Vec<Option<_>> = told.collect();
        let told: Option<Vec<_>> = told.into_iter().collect();
        let all = async {
            let mut answers = Vec::new();
            for answered in told? {
                answers.extend(answered.await.ok()?);
            }
            Some(answers)
        };
        time::timeout(ANSWER_TIME_MAX, all).await.ok().flatten()
    }

    fn list(&self) -> Vec<Erasure> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Erasure>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Erasures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Erasures({})", self.lock().len())
    }
}
