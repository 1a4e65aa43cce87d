//! What is to happen, in the order of virtual time.
//!
//! Of two things at the same time the one that was asked for first comes first: nothing else may decide, or one seed would not give one
//! run. What belongs to a process that has ended meanwhile is void, and says so by its `run`.

use std::cmp::Reverse;
use std::sync::Arc;

use gateway::pushes::call::PushBatch;
use gateway::shard::Event;
use protocol::ids::UserId;
use router::conversation::Erased;
use storage_log::CompactionJob;

use super::World;

pub(crate) enum Item {
    Act(usize),
    Crash,
    Drain,
    Event {
        run: u32,
        shard: usize,
        event: Event,
    },
    Compact {
        run: u32,
        log: u16,
        shard: usize,
        job: CompactionJob,
        erased: Arc<Erased>,
    },
    Pump {
        run: u32,
        pipe: usize,
    },
    Push {
        run: u32,
        shard: usize,
        batch: Arc<PushBatch>,
    },
    /// It is time to see how far an upgrade is.
    LookUpgrade {
        run: u32,
    },
    ReadClient(usize),
    Restart,
    Erase,
    /// Of one user, or of whom the dice say.
    Revoke(Option<UserId>),
    /// A new binary is to take over.
    Upgrade,
    Turn {
        run: u32,
        shard: usize,
    },
    WriteDone {
        run: u32,
        log: u16,
        shard: usize,
    },
}

impl Item {
    /// Of the process that it belongs to, where it does.
    fn run(&self) -> Option<u32> {
        match self {
            Self::Compact { run, .. }
            | Self::Event { run, .. }
            | Self::LookUpgrade { run }
            | Self::Pump { run, .. }
            | Self::Push { run, .. }
            | Self::Turn { run, .. }
            | Self::WriteDone { run, .. } => Some(*run),
            _ => None,
        }
    }
}

pub(super) struct Queued(pub(super) u64, pub(super) u64, pub(super) Item);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

impl World {
    pub(crate) fn later(&mut self, delay: u64, item: Item) {
        self.order += 1;
        self.queue.push(Reverse(Queued(self.now + delay, self.order, item)));
    }

    /// Whether something like this is to happen to the present process.
    pub(super) fn is_queued(&self, is_it: impl Fn(&Item) -> bool) -> bool {
        self.queue.iter().any(|Reverse(Queued(_, _, item))| item.run() == Some(self.run) && is_it(item))
    }

    pub(crate) fn event(&mut self, shard: usize, delay: u64, event: Event) {
        let run = self.run;
        self.later(delay, Item::Event { run, shard, event });
    }
}
