//! Calls of users whom a message has not reached, on their way out of the node: the thread that writes them into a file, and keeps the
//! marks of the logs.
//!
//! A shard hands over a batch at a time and waits for its answer. When that says that it was taken, every call of it is a line on the disk;
//! only then the marks that came with it count. A file that takes nothing (a disk is full, a consumer is away) stops calls and nothing
//! else: the batch is offered again, what comes meanwhile waits at the owners of the logs, and the marks stay.
//!
//! Invariant: a mark in the data directory never says more than the file has taken.

pub mod call;
pub mod marks;
mod sink;
pub mod start;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use protocol::command::PushToken;
use protocol::ids::DeviceId;

use crate::files::{Command, Inbox};
use crate::metrics::PushMetrics;
use call::{PushBatch, PushCall, Pushed};
use marks::{Mark, MarksFile};
use sink::Sink;

/// How often marks are written, at most: each time is three syncs. What was taken since is taken once more after a crash.
const MARKS_EVERY: Duration = Duration::from_secs(1);

/// What a shard wants of the thread: [`Command::Pushed`] follows.
pub struct Job {
    /// What.
    pub batch: Arc<PushBatch>,
    /// Who wants it.
    pub inbox: Inbox,
}

/// Why `file` could never take a call, in words for an operator. Its directory may be the data directory, which the first start makes.
#[must_use]
pub fn check(file: &Path, data: &Path) -> Option<String> {
    if file.is_dir() {
        return Some(format!("`push_file` is {}, which is a directory; name a file", file.display()));
    }
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty())?;
    let is_of_data = absolute(directory).ok() == absolute(data).ok();
    (!is_of_data && !directory.is_dir()).then(|| {
        format!(
            "`push_file` is {}, and {} is no directory: nobody would be called; make it, for the user of the node, or name another",
            file.display(),
            directory.display()
        )
    })
}

/// Starts the thread: it writes calls into `file`, and the marks into the data directory. It ends when the last sender is gone.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    file: &Path,
    directory: &Path,
    kept: Vec<Mark>,
    metrics: Arc<PushMetrics>,
) -> io::Result<(Sender<Job>, JoinHandle<()>)> {
    let (sender, jobs) = channel();
    let pushes = Pushes {
        sink: Sink::new(file.to_owned(), metrics.clone()),
        marks: MarksFile::of(directory),
        kept,
        written_at: None,
        file: file.to_owned(),
        is_failing: false,
        metrics,
    };
    let thread = thread::Builder::new().name("pushes".to_owned()).spawn(move || pushes.work(&jobs))?;
    Ok((sender, thread))
}

struct Pushes {
    sink: Sink,
    marks: MarksFile,
    /// The newest marks.
    kept: Vec<Mark>,
    written_at: Option<Instant>,
    file: PathBuf,
    is_failing: bool,
    metrics: Arc<PushMetrics>,
}

impl Pushes {
    fn work(mut self, jobs: &Receiver<Job>) {
        while let Ok(Job { batch, inbox }) = jobs.recv() {
            let pushed = self.push(&batch);
            inbox.send(Command::Pushed(pushed));
        }
    }

    fn push(&mut self, batch: &PushBatch) -> Pushed {
        if !batch.calls.is_empty() {
            let taken = self.sink.take(&lines_of(&batch.calls));
            self.note(taken.as_ref().err());
            if taken.is_err() {
                return Pushed::Refused;
            }
            self.metrics.calls_total.add(batch.calls.len() as u64);
        }
        for (log, mark) in &batch.marks {
            match self.kept.iter_mut().find(|kept| kept.log == *log) {
                Some(kept) => kept.mark = *mark,
                None => self.kept.push(Mark { log: *log, mark: *mark }),
            }
        }
        if self.written_at.is_some_and(|written| written.elapsed() < MARKS_EVERY) {
            return Pushed::Taken;
        }
        self.written_at = Some(Instant::now());
        match self.marks.write(&self.kept) {
            Ok(()) => Pushed::Kept,
            Err(error) => {
                tracing::warn!(%error, "the marks of push calls could not be written: it is tried again; a start repeats some calls");
                Pushed::Taken
            }
        }
    }

    /// Says so when it begins and when it ends, not each time.
    fn note(&mut self, error: Option<&io::Error>) {
        self.metrics.failures_total.add(u64::from(error.is_some()));
        self.metrics.failing.set(u64::from(error.is_some()));
        let file = self.file.display();
        match error {
            Some(error) if !self.is_failing => tracing::error!(
                %file,
                %error,
                "push calls cannot be written: nobody is called until they can, chat goes on, and what is due waits; see that `push_file` \
                 is a file in a directory that is there, that there is room, and that the consumer takes the file away"
            ),
            None if self.is_failing => {
                tracing::info!(%file, "push calls can be written again: what waited is being called");
            }
            _ => {}
        }
        self.is_failing = error.is_some();
    }
}

/// A line of JSON for each.
fn lines_of(calls: &[PushCall]) -> String {
    let mut lines = String::new();
    let text = |text: &str| serde_json::Value::from(text).to_string();
    for PushCall { at, user, tokens, conversation, seq, count } in calls {
        let token = |(device, token): &(DeviceId, PushToken)| {
            format!(r#"{{"device":{},"token":{}}}"#, text(device.as_str()), text(token.as_str()))
        };
        let tokens: Vec<String> = tokens.iter().map(token).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            lines,
            r#"{{"op":"push_due","at":{},"user":{},"conversation":"{conversation}","seq":{},"count":{count},"tokens":[{}]}}"#,
            at.0,
            text(user.as_str()),
            seq.0,
            tokens.join(",")
        );
    }
    lines
}
