//! Search on a node: an index of words beside the logs, made from them and away from the data plane.
//!
//! One thread follows the logs and writes the index (`follow.rs`), one answers what shards ask of it. A shard tells nobody what it stores:
//! the follower reads the segments as `gatehouse log` does, past the page cache, up to where a shard says in one number that they are
//! durable. So a message costs the data plane nothing, and only what is durable is ever in the index.
//!
//! Invariant: whatever becomes of the index, chat goes on: it is asked for what it has, is made again from the logs, or stays away.

mod follow;
mod progress;
mod tail;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use protocol::ids::{ConversationId, Seq, UnixMillis};
use router::index::{HitPlace, IndexAnswer, IndexAsk};
use search::{Asked, Place, Reader, Scope};

use crate::erasures::Erasures;
use crate::files::{Command, Inbox};
use crate::metrics::SearchMetrics;
use crate::state::NodeState;
use follow::Follower;

/// How long the end of the node waits for these threads: they may be in the middle of a merge, of a pass over all files, or of a disk that hangs.
/// What they write is made from the logs, and goes on from its last commit, wherever the process ends.
const STOP_MAX: Duration = Duration::from_secs(3);

/// How often it is looked whether they have ended.
const STOP_LOOK: Duration = Duration::from_millis(5);

/// Name of the index's directory in the data directory.
pub const SEARCH_DIRECTORY: &str = "search";

/// What a shard asks.
pub struct Question {
    /// What.
    pub ask: IndexAsk,
    /// Who is answered, with [`Command::Found`].
    pub inbox: Inbox,
}

/// What both threads share.
struct Shared {
    /// While there is an index.
    reader: Mutex<Option<Reader>>,
    /// It does not know everything that is in the logs.
    is_partial: AtomicBool,
    /// The node ends.
    is_over: AtomicBool,
    metrics: Arc<SearchMetrics>,
}

/// Everything that the follower is made from.
pub struct FollowParts {
    /// Of the store.
    pub directory: PathBuf,
    /// Where shards say how far their logs are durable.
    pub state: Arc<NodeState>,
    /// What is not to be found any more.
    pub erasures: Arc<Erasures>,
    /// How long messages are kept, with the time that a segment of them may span.
    pub keep: Option<Duration>,
}

/// The threads of a node's search.
pub struct Search {
    shared: Arc<Shared>,
    asked: JoinHandle<()>,
    follower: Option<JoinHandle<()>>,
}

impl Search {
    /// Starts the thread that answers. Nothing is found before [`Search::follow`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(metrics: Arc<SearchMetrics>) -> io::Result<(Sender<Question>, Self)> {
        let (sender, questions) = channel();
        let (reader, is_partial, is_over) = (Mutex::new(None), AtomicBool::new(true), AtomicBool::new(false));
        let shared = Arc::new(Shared { reader, is_partial, is_over, metrics });
        let answering = shared.clone();
        let thread = thread::Builder::new().name("search-ask".to_owned());
        let asked = thread.spawn(move || answer_all(&questions, &answering))?;
        Ok((sender, Self { shared, asked, follower: None }))
    }

    /// Starts the thread that follows the logs and writes the index.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn follow(&mut self, parts: FollowParts) -> io::Result<()> {
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name("search".to_owned());
        self.follower = Some(thread.spawn(move || Follower::new(parts, shared).run())?);
        Ok(())
    }

    /// Ends both, or leaves them to the end of the process. Nobody can ask any more.
    ///
    /// # Errors
    /// When one of them has panicked.
    pub fn stop(self) -> thread::Result<()> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let until = Instant::now() + STOP_MAX;
        if let Some(follower) = self.follower {
            join_until(follower, until)?;
        }
        join_until(self.asked, until)
    }
}

fn join_until(thread: JoinHandle<()>, until: Instant) -> thread::Result<()> {
    while !thread.is_finished() {
        if Instant::now() >= until {
            tracing::info!(
                "the index of words is left in the middle of its work: it goes on from its last commit"
            );
            return Ok(());
        }
        thread::sleep(STOP_LOOK);
    }
    thread.join()
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn set_reader(&self, reader: Option<Reader>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = reader;
    }

    fn reader(&self) -> Option<Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers until nobody can ask any more.
fn answer_all(questions: &Receiver<Question>, shared: &Shared) {
    for Question { ask, inbox } in questions {
        let begun = Instant::now();
        let answer = answer(&ask, shared);
        shared.metrics.queries_total.increment();
        shared.metrics.query_micros_total.add(begun.elapsed().as_micros() as u64);
        inbox.send(Command::Found(answer));
    }
}

fn answer(ask: &IndexAsk, shared: &Shared) -> IndexAnswer {
    let partial = shared.is_partial.load(Ordering::Relaxed);
    let nothing = IndexAnswer { session: ask.session, candidates: Vec::new(), more: false, partial: true };
    let Some(reader) = shared.reader() else {
        return nothing;
    };
    let asked = Asked {
        words: ask.words.clone(),
        scope: Arc::new(Scope::new(ask.scope.iter().map(|(conversation, from)| (conversation.0, from.0)))),
        before: ask.before.map(|HitPlace { at, conversation, seq }| Place {
            at: at.0,
            conversation: conversation.0,
            seq: seq.0,
        }),
        candidates_max: ask.candidates_max,
    };
    match reader.find(&asked) {
        Ok(found) => {
            let candidates = found.newest.into_iter().map(|Place { at, conversation, seq }| HitPlace {
                at: UnixMillis(at),
                conversation: ConversationId(conversation),
                seq: Seq(seq),
            });
            IndexAnswer { session: ask.session, candidates: candidates.collect(), more: found.more, partial }
        }
        Err(error) => {
            // The words of a query are content.
            tracing::warn!(
                ?error,
                "the index of words could not be read: a search was answered with nothing"
            );
            shared.metrics.failures_total.increment();
            nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_node_waits_for_no_merge() {
        let (questions, mut search) = Search::start(Arc::default()).expect("a thread");
        let (go_on, merge) = channel::<()>();
        // As one that is in the middle of something long: it looks at nothing before that is done.
        search.follower = Some(thread::spawn(move || _ = merge.recv()));
        drop(questions);
        let begun = Instant::now();
        search.stop().expect("nobody panicked");
        assert!(begun.elapsed() < STOP_MAX + Duration::from_secs(10));
        go_on.send(()).expect("it is still there");
    }
}
