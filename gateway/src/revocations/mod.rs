//! What was revoked, kept by the control plane: in a map that its threads share, in a file, and told to every shard.
//!
//! Shards have copies of their own and never come here; they hear of a revocation as they hear of a drain. The map's
//! locks are held for single statements, never across an `await`: clippy knows the types.
//!
//! Invariant: a revocation is in the map, and sent to the shards, before it is written; so every file that is written
//! later holds it, and a full disk keeps nobody in.

mod file;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{Mutex, oneshot};
use tokio::time;

use crate::auth::{Revocation, Span, Subject};
use crate::files::{Command, Inbox};

pub use file::{ENTRIES_MAX, REVOCATIONS_FILE, RevocationsFile};

/// How long the shards may take to say how many sessions they closed. They have them all within a second; one that is
/// later is not waited for, it acts on the revocation before it takes another connection.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// All revocations of a node.
pub struct Revocations {
    kept: DashMap<Subject, Span>,
    file: RevocationsFile,
    shards: Vec<Inbox>,
    /// One revocation at a time, so that the file only ever moves forward and the shards' inboxes have room.
    turn: Arc<Mutex<()>>,
}

/// A revocation that is in force and durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// What is revoked now: what was asked for, merged with what was before.
    pub revocation: Revocation,
    /// Sessions that it closed, unless a shard did not say in time.
    pub sessions_closed: Option<u64>,
}

/// Why a revocation is not what was asked for.
#[derive(Debug)]
pub enum RevokeError {
    /// [`ENTRIES_MAX`]: nothing was done.
    Full,
    /// It is in force until the node stops, and not on disk.
    NotDurable(std::io::Error),
    /// The node is stopping; it may be on disk.
    Stopping,
    /// It is on disk, and a shard takes nothing any more.
    Untold,
}

impl fmt::Display for RevokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(
                f,
                "nothing was revoked: {ENTRIES_MAX} users and tokens are, which is the limit; `until` lets them be \
                 forgotten, and {{\"issued_before\": …}} revokes all tokens up to a time and takes the place of users \
                 revoked up to an earlier one"
            ),
            Self::NotDurable(error) => write!(
                f,
                "it is in force until this node stops, but {REVOCATIONS_FILE} could not be written: {error}; mend \
                 that and ask again"
            ),
            Self::Stopping => f.write_str("the node is stopping: ask again when it has started"),
            Self::Untold => f.write_str(
                "it is on disk, but a shard of this node takes no commands: restart the node, and it is in force",
            ),
        }
    }
}

impl std::error::Error for RevokeError {}

impl Revocations {
    /// Those that `file` held, for the shards with these inboxes.
    #[must_use]
    pub fn new(file: RevocationsFile, kept: Vec<Revocation>, shards: Vec<Inbox>) -> Arc<Self> {
        let revocations = Self { kept: DashMap::new(), file, shards, turn: Arc::default() };
        for Revocation { subject, span } in kept {
            revocations.merge(subject, span);
        }
        Arc::new(revocations)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    /// Revokes what was asked for at `now`, in seconds since 1970. When it returns well, it is durable, every shard
    /// refuses what it concerns, and the sessions are closed. `kept` is let go of when what has begun is at its end, whoever has gone away.
    ///
    /// # Errors
    /// [`RevokeError`] says what is in force nevertheless.
    pub async fn revoke(
        self: &Arc<Self>,
        asked: Revocation,
        now: u64,
        kept: impl Send + 'static,
    ) -> Result<Revoked, RevokeError> {
        // Whoever goes away while waiting here has asked for nothing; what has begun is brought to its end.
        let turn = self.turn.clone().lock_owned().await;
        let revocations = self.clone();
        let work = tokio::spawn(async move {
            let result = revocations.carry_out(asked, now).await;
            drop((turn, kept));
            result
        });
        work.await.unwrap_or(Err(RevokeError::Stopping))
    }

    async fn carry_out(self: &Arc<Self>, asked: Revocation, now: u64) -> Result<Revoked, RevokeError> {
        let revocation = self.keep(asked, now)?;
        let told = self.tell(&revocation);
        let revocations = self.clone();
        let written = tokio::task::spawn_blocking(move || revocations.file.write(&revocations.list())).await;
        if let Err(error) = written.map_err(|_| RevokeError::Stopping)? {
            tracing::error!(
                revocation = revocation.to_string(),
                %error,
                "an operator revoked tokens: in force until the node stops, but not on disk"
            );
            return Err(RevokeError::NotDurable(error));
        }
        let Some(shards) = told else {
            tracing::error!(
                revocation = revocation.to_string(),
                "an operator revoked tokens: on disk, but a shard takes no commands"
            );
            return Err(RevokeError::Untold);
        };
        let sessions_closed = sum(shards).await;
        tracing::info!(revocation = revocation.to_string(), sessions_closed, "an operator revoked tokens");
        Ok(Revoked { revocation, sessions_closed })
    }

    /// Takes it into the map, and out of it what is over by now or revoked with everybody's.
    fn keep(&self, asked: Revocation, now: u64) -> Result<Revocation, RevokeError> {
        let Revocation { subject, span } = asked;
        self.kept.retain(|_, span| now < span.until);
        let is_new = subject != Subject::Everyone && !self.kept.contains_key(&subject);
        if is_new && self.kept.len() >= ENTRIES_MAX {
            return Err(RevokeError::Full);
        }
        let span = self.merge(subject.clone(), span);
        if subject == Subject::Everyone {
            self.kept.retain(|other, kept| *other == Subject::Everyone || !span.covers(*kept));
        }
        Ok(Revocation { subject, span })
    }

    fn merge(&self, subject: Subject, span: Span) -> Span {
        *self.kept.entry(subject).and_modify(|kept| *kept = kept.merged(span)).or_insert(span)
    }

    fn list(&self) -> Vec<Revocation> {
        let entries = self.kept.iter();
        entries.map(|entry| Revocation { subject: entry.key().clone(), span: *entry.value() }).collect()
    }

    /// The answers to come, one a shard; none when a shard takes no commands.
    fn tell(&self, revocation: &Revocation) -> Option<Vec<oneshot::Receiver<u64>>> {
        let told = self.shards.iter().map(|shard| {
            let (closed, answer) = oneshot::channel();
            shard.offer(Command::Revoke { revocation: revocation.clone(), closed }).then_some(answer)
        });
        // First each is told, whatever another does.
        let told: Vec<Option<_>> = told.collect();
        told.into_iter().collect()
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations({})", self.count())
    }
}

async fn sum(shards: Vec<oneshot::Receiver<u64>>) -> Option<u64> {
    let all = async {
        let mut closed = 0;
        for shard in shards {
            closed += shard.await.ok()?;
        }
        Some(closed)
    };
    time::timeout(CLOSE_TIME_MAX, all).await.ok().flatten()
}
