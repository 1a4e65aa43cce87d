//! The thread that looks after what is on the disk, away from the data plane: index files that turned out to be damaged are made
//! again from their segments.
//!
//! Invariant: it changes no segment. What it writes is derived from them, and takes the place of what was there when it is whole.

mod files;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use storage_log::{RebuildJob, index_file_name};

use crate::files::{Command, Inbox};
use crate::indexes;
use crate::segments::log_directory;
use files::Files;

/// What is asked of it.
pub enum Care {
    /// Make an index file again: [`Command::Rebuilt`] follows.
    Rebuild {
        /// Which.
        job: RebuildJob,
        /// Who wants it.
        inbox: Inbox,
    },
}

/// Starts the thread. It ends when the last sender is gone.
///
/// # Errors
/// When the system gives no thread.
pub fn start(directory: PathBuf) -> std::io::Result<(Sender<Care>, JoinHandle<()>)> {
    let (sender, asked) = channel();
    let caretaker = Caretaker { directory, asked };
    let thread = thread::Builder::new().name("caretaker".to_owned()).spawn(move || caretaker.run())?;
    Ok((sender, thread))
}

struct Caretaker {
    /// Of the store.
    directory: PathBuf,
    asked: Receiver<Care>,
}

impl Caretaker {
    fn run(self) {
        while let Ok(care) = self.asked.recv() {
            self.take(care);
        }
    }

    fn take(&self, care: Care) {
        match care {
            Care::Rebuild { job, inbox } => self.rebuild(&job, &inbox),
        }
    }

    /// Makes an index file again from its segment, and says on one line what came of it.
    fn rebuild(&self, job: &RebuildJob, inbox: &Inbox) {
        let (log, base) = (job.config().number, job.base());
        let directory = log_directory(&self.directory, log);
        let made = job.run(&mut Files::new(&directory)).and_then(|rebuilt| {
            let Some(rebuilt) = rebuilt else {
                return Ok((None, 0));
            };
            let made = indexes::write(&directory, &rebuilt.index)?;
            Ok((Some(made), rebuilt.damaged.len()))
        });
        let index = index_file_name(base);
        match &made {
            // Compacted meanwhile: the cold segment has its own.
            Ok((None, _)) => {}
            Ok((_, 0)) => tracing::warn!(
                log,
                index,
                "an index file was damaged and is made again from its segment; no message was: what waited for it goes on"
            ),
            Ok((_, damaged_ranges)) => tracing::error!(
                log,
                index,
                damaged_ranges,
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
