//! What is done to the logs of a shard behind those who use them: segments made ahead, indexed and written anew, index files made again.

use protocol::ids::UnixMillis;
use router::mail::Clock;
use storage_log::{
    Cause, Compacted, CompactionJob, CompactionPolicy, NotMade, SealedSegment, SpareWork, segment_file_name,
};

use super::aging::Doubt;
use super::logs::OwnedLog;
use super::{Action, Shard};
use crate::state::NodeState;

/// How long to wait before a segment or an index file is asked for again, in seconds.
const SEGMENT_RETRY_SECONDS: u64 = 1;

/// How often a log is asked for a segment that is to be written anew, in seconds.
const COMPACTION_SECONDS: u64 = 1;

/// How long to wait when the disk did not let one be written, in seconds: there may be no room.
const COMPACTION_RETRY_SECONDS: u64 = 60;

/// The same of a segment of which all goes, and which needs little room and leaves much: all of it is read for that.
const EXPIRY_RETRY_SECONDS: u64 = 10;

/// How long before the index file of a segment is made again once more, in seconds.
const REBUILD_RETRY_SECONDS: u64 = 60;

impl OwnedLog {
    /// Goes on with the time by which what is too old goes, and says where that is not the system's.
    fn age(&mut self, clock: Clock, policy: &CompactionPolicy, state: &NodeState) {
        state.note_aging(self.number(), self.aging.at(clock));
        let keeps_all = policy.keep_ms.is_none() && policy.keep_links_ms.is_none() && !self.side.has_fronts();
        if keeps_all {
            return;
        }
        match self.aging.poll_doubt() {
            Some(Doubt::Begins(ahead_ms)) => tracing::warn!(
                log = self.number(),
                ahead_seconds = ahead_ms / 1_000,
                "the system's clock is ahead of what was stored last, or has jumped: what is too old by it stays on the disk until it has \
                 been so for a day; if it is wrong, set it right before then, and before the next start, which an upgrade is too"
            ),
            Some(Doubt::Ends) => {
                tracing::info!(log = self.number(), "what is too old goes by the system's clock again");
            }
            None => {}
        }
    }

    fn poll_compaction(&mut self, second: u64, policy: &CompactionPolicy) -> Option<CompactionJob> {
        self.log.note_fronts(self.side.has_fronts());
        let now = self.aging.unix_ms();
        let job = if second < self.rewrite_not_before {
            self.log.poll_expiry(now, policy)
        } else {
            self.log.poll_compaction(now, policy)
        };
        if let Some(job) = &job {
            self.compacting = Some(job.cause);
        }
        job
    }

    /// Lets go of the file of a segment that has moved, once nobody reads it.
    fn release_moved(&mut self) -> Option<Action> {
        let base = self.moved.take_if(|_| !self.side.reads_as_before_move())?;
        Some(Action::Release { log: self.number(), base })
    }
}

impl Shard {
    /// Starts what is due of it; unless it is held, because another process is to go on.
    pub(super) fn poll_background(&mut self) {
        let held = self.background_held || self.paused;
        self.poll_rebuilds(held);
        for owned in &mut self.logs {
            // Who read where it was may have been refused, or gone on without a read.
            self.actions.extend(owned.release_moved());
        }
        if !held {
            self.poll_segments();
        }
    }

    fn poll_segments(&mut self) {
        let (clock, second) = (self.clock, self.second());
        for owned in &mut self.logs {
            let log = owned.log.number();
            if second >= owned.segment_not_before
                && let Some(work) = owned.log.poll_spare()
            {
                self.actions.push(match work {
                    SpareWork::Make(base) => Action::PrepareSegment { log, base },
                    SpareWork::Zero(base) => Action::ZeroSegment { log, base },
                    SpareWork::Hurry => Action::HurryZeros { log },
                });
            }
            if owned.collecting.is_none() && second >= owned.compaction_not_before {
                owned.compaction_not_before = second + COMPACTION_SECONDS;
                owned.age(clock, &self.config.compaction, &self.state);
                owned.collecting = owned.poll_compaction(second, &self.config.compaction);
            }
            if owned.collecting.is_some()
                && let Some(erased) = owned.side.poll_erased(UnixMillis(owned.aging.unix_ms()), &owned.log)
                && let Some(job) = owned.collecting.take()
            {
                self.actions.push(Action::Compact { log, job, erased });
            }
            if second >= owned.index_not_before
                && let Some(job) = owned.log.poll_index()
            {
                self.actions.push(Action::WriteIndex { log, job });
            }
        }
    }

    pub(super) fn handle_segment(&mut self, log: u16, made: Result<(), NotMade>) {
        let second = self.second();
        let owned = self.owned(log).expect("segments come back to their log");
        owned.log.handle_spare(made);
        if made.is_err() {
            owned.segment_not_before = second + SEGMENT_RETRY_SECONDS;
        }
    }

    pub(super) fn handle_zeroed(&mut self, log: u16) {
        self.owned(log).expect("segments come back to their log").log.handle_spare_zeroed();
    }

    pub(super) fn handle_indexed(&mut self, log: u16, sealed: Option<SealedSegment>) {
        let second = self.second();
        let owned = self.owned(log).expect("index files come back to their log");
        if sealed.is_none() {
            owned.index_not_before = second + SEGMENT_RETRY_SECONDS;
        }
        let postings = owned.log.handle_indexed(sealed);
        self.actions.extend(postings.map(Action::Discard));
    }

    pub(super) fn handle_compacted(&mut self, log: u16, base: u64, compacted: Compacted) {
        let (now, second, metrics) = (self.clock.unix, self.second(), self.metrics.clone());
        let starts = self.starts.clone();
        let owned = self.owned(log).expect("compactions come back to their log");
        let cause = owned.compacting.take();
        match (&compacted, cause) {
            (Compacted::Failed, Some(Cause::Expired | Cause::NoRoom)) => {
                owned.compaction_not_before = second + EXPIRY_RETRY_SECONDS;
            }
            (Compacted::Failed, _) => owned.rewrite_not_before = second + COMPACTION_RETRY_SECONDS,
            (Compacted::MadeBeside(_), _) => {
                owned.compaction_not_before = second + COMPACTION_RETRY_SECONDS;
            }
            _ => {}
        }
        if owned.log.handle_compacted(compacted) {
            metrics.log_compactions_total.increment();
            if cause == Some(Cause::NoRoom) {
                metrics.log_freed_segments_total.increment();
                tracing::warn!(
                    log,
                    segment = segment_file_name(base),
                    "no room for the next segment, and the disk gives less than `keep_mib`: the oldest messages of this log, a segment \
                     of them, are not kept any more; free some space, or set `keep_mib` to what the disk gives"
                );
            }
            starts.keep_from(log, owned.log.links_kept_from());
            owned.side.note_moved();
            owned.moved = Some(base);
            // What waits for the index of before to be made again finds what it wants where it is now.
            owned.side.handle_index(base, now, &mut owned.log);
        }
    }

    /// Its blocks are free, and only now is the next one due: with another before that, more would be given up for want of room than has to be.
    pub(super) fn handle_released(&mut self, log: u16) {
        self.owned(log).expect("segments come back to their log").log.end_compaction();
    }

    /// The scrubber found it: it is made again as if somebody had asked for it.
    pub(super) fn handle_index_damaged(&mut self, log: u16, base: u64) {
        let owned = self.owned(log).expect("only served logs are looked through");
        if owned.log.rebuild_job(base).is_some() && !owned.found_damaged.contains(&base) {
            owned.found_damaged.push(base);
        }
    }

    pub(super) fn handle_rebuilt(&mut self, log: u16, base: u64, sealed: Option<SealedSegment>) {
        let (now, second, metrics) = (self.clock.unix, self.second(), self.metrics.clone());
        let owned = self.owned(log).expect("index files come back to their log");
        owned.rebuilding = false;
        owned.found_damaged.retain(|found| *found != base);
        owned.rebuilt.push((base, second + REBUILD_RETRY_SECONDS));
        match sealed {
            Some(sealed) => {
                metrics.index_rebuilds_total.increment();
                owned.log.handle_rebuilt(sealed);
                owned.side.handle_index(base, now, &mut owned.log);
            }
            None => metrics.index_rebuild_failures_total.increment(),
        }
    }

    /// Has the index files made again that turned out not to be what was written: one of a log at a time, and none twice within a
    /// minute, or none now. What it was asked for is not guessed: it waits, or is refused.
    fn poll_rebuilds(&mut self, held: bool) {
        let (now, second) = (self.clock.unix, self.second());
        for owned in &mut self.logs {
            let found = owned.found_damaged.iter().copied();
            let mut damaged: Vec<u64> = owned.side.index_damage().chain(found).collect();
            if damaged.is_empty() {
                continue;
            }
            damaged.dedup();
            owned.rebuilt.retain(|(_, until)| second < *until);
            for base in damaged {
                if (held && !owned.rebuilding) || owned.rebuilt.iter().any(|(of, _)| *of == base) {
                    owned.side.refuse_stalled(base, now, &mut owned.log);
                } else if !owned.rebuilding {
                    let Some(job) = owned.log.rebuild_job(base) else {
                        // It was written anew meanwhile.
                        owned.found_damaged.retain(|found| *found != base);
                        owned.side.handle_index(base, now, &mut owned.log);
                        continue;
                    };
                    owned.rebuilding = true;
                    self.actions.push(Action::RebuildIndex { job });
                }
            }
        }
    }
}
