//! The logs that a shard owns: requests in, batches out, answers and deliveries when they are durable.

use protocol::ids::UnixMillis;
use router::conversation::{Pace, Read, Subject};
use router::mail::{Clock, Reply, Request};
use router::{ConversationSide, ShardId, UserSide};
use storage_log::{
    Buffer, Cause, Compacted, CompactionJob, CompactionPolicy, ErasureLeft, Log, LogConfig, NotMade,
    SealedSegment, SpareWork, segment_file_name,
};

use super::aging::{Aging, Doubt};
use super::{Action, Shard};
use crate::erasures::ask::LogLeft;
use crate::mailbox::Back;
use crate::state::{LogHealth, NodeState};

/// Reads of one log that the disk works on at the same time; more wait here.
const READS_IN_FLIGHT_MAX: usize = 64;

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

/// A log and the conversations in it.
pub struct OwnedLog {
    pub(super) log: Log,
    pub(super) side: ConversationSide,
    reads_in_flight: usize,
    /// Second before which no segment is asked for.
    segment_not_before: u64,
    /// Second before which no index file is written.
    index_not_before: u64,
    /// Bases of segments whose index files the scrubber found damaged: at most one of each.
    found_damaged: Vec<u64>,
    /// An index file is being made again.
    rebuilding: bool,
    /// Those that were, of the segments at these bases, and the second before which none of them is again: a disk that rots what
    /// was just written would be read over and over.
    rebuilt: Vec<(u64, u64)>,
    /// By when what it keeps is too old.
    aging: Aging,
    /// When the batch in flight was handed out, in microseconds.
    written_at: u64,
    /// Second before which no segment is written anew.
    compaction_not_before: u64,
    /// Second before which none is but those of which all goes.
    rewrite_not_before: u64,
    /// One that is to be, while what its records are judged by is being collected.
    collecting: Option<CompactionJob>,
    /// Why one is, while it is.
    compacting: Option<Cause>,
    /// Base of a segment that has moved, while somebody reads where it was.
    moved: Option<u64>,
}

impl OwnedLog {
    /// A recovered log, ready to serve.
    #[must_use]
    pub fn new(log: Log, side: ConversationSide) -> Self {
        Self {
            aging: Aging::new(log.clock_before()),
            log,
            side,
            reads_in_flight: 0,
            segment_not_before: 0,
            index_not_before: 0,
            found_damaged: Vec::new(),
            rebuilding: false,
            rebuilt: Vec::new(),
            written_at: 0,
            compaction_not_before: 0,
            rewrite_not_before: 0,
            collecting: None,
            compacting: None,
            moved: None,
        }
    }
}

impl OwnedLog {
    /// Number of the log.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.log.number()
    }

    /// Erases what is stored of a subject up to a position: no reader is given it, and what holds it is written anew.
    pub fn erase(&mut self, mark: u64, subject: &Subject, to: u64) {
        self.side.erase(subject, to);
        self.log.erase(mark, to);
    }

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

    /// Says how far it is durable, for whoever reads it from its files.
    pub(super) fn tell_durable_end(&self, state: &NodeState) {
        state.note_durable_end(self.number(), self.log.durable_end());
    }

    pub(super) fn has_news(&self) -> bool {
        self.side.has_news()
    }

    /// Whether its next turn goes on with what no event says.
    pub(super) fn is_collecting(&self) -> bool {
        self.collecting.is_some()
    }

    pub(super) fn newest_position(&self) -> u64 {
        self.log.newest_position()
    }

    pub(super) fn erasure_left(&self, mark: u64, to: u64) -> LogLeft {
        let ErasureLeft { segments, unsound: damaged } = self.log.erasure_left(mark, to);
        LogLeft { log: self.number(), mark, to, segments, damaged }
    }

    pub(super) fn messages_stored(&self) -> u64 {
        self.side.messages_stored
    }
}

impl Shard {
    fn owned(&mut self, log: u16) -> Option<&mut OwnedLog> {
        self.logs.iter_mut().find(|owned| owned.log.number() == log)
    }

    /// Whether every log of this shard is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.logs.iter().all(|owned| owned.log.is_healthy())
    }

    pub(super) fn handle_request(&mut self, request: Request) {
        let clock = self.clock;
        let log = match &request {
            Request::Store(store) => self.places.log_of(store.conversation),
            Request::Block { conversation, .. }
            | Request::History { conversation, .. }
            | Request::ListMembers { conversation, .. }
            | Request::MaySearch { conversation, .. }
            | Request::Mute { conversation, .. }
            | Request::Read { conversation, .. }
            | Request::View { conversation, .. } => self.places.log_of(*conversation),
            Request::PushTokens { user, .. }
            | Request::Set { user, .. }
            | Request::Settings { user, .. }
            | Request::Sighting { user, .. } => self.places.settings_log_of(user),
            Request::Candidates { log, .. }
            | Request::CatchUp { log, .. }
            | Request::Feed { log, .. }
            | Request::List { log, .. }
            | Request::Memberships { log, .. }
            | Request::Reads { log, .. }
            | Request::Seen { log, .. }
            | Request::Signals { log, .. }
            | Request::Survey { log, .. } => *log,
        };
        let Some(owned) = self.owned(log) else {
            // Refused at start: the node serves what it has.
            let (target, reply) = request.into_unavailable();
            if target == self.id {
                return self.handle_reply(target, reply);
            }
            return self.mail.reply(target, Back::Reply(reply));
        };
        owned.side.handle_request(request, clock.unix, &mut owned.log);
    }

    pub(super) fn handle_read(&mut self, log: u16, job: u32, place: u32, bytes: Option<Vec<u8>>) {
        let (now, metrics) = (self.clock.unix, self.metrics.clone());
        let owned = self.owned(log).expect("reads come back to their log");
        owned.reads_in_flight -= 1;
        owned.side.handle_read(job, place, bytes, now, &mut owned.log);
        let geometry = owned.log.geometry();
        let mut damaged = Vec::new();
        while let Some(location) = owned.side.poll_damage() {
            damaged.push(Action::Quarantine { log, location });
            metrics.log_damaged_records_total.increment();
            tracing::error!(
                log,
                segment = segment_file_name(geometry.segment_of(location.lsn())),
                offset = geometry.offset_of(location.lsn()),
                bytes = location.bytes(),
                "a stored record is damaged or cannot be read: its readers are told of a gap, everything else is served"
            );
        }
        self.actions.extend(damaged);
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

    /// Of the logs that this shard serves.
    #[must_use]
    pub fn log_configs(&self) -> Vec<LogConfig> {
        self.logs.iter().map(|owned| owned.log.config().clone()).collect()
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

    pub(super) fn handle_indexed(&mut self, log: u16, sealed: Option<SealedSegment>) {
        let second = self.second();
        let owned = self.owned(log).expect("index files come back to their log");
        if sealed.is_none() {
            owned.index_not_before = second + SEGMENT_RETRY_SECONDS;
        }
        let postings = owned.log.handle_indexed(sealed);
        self.actions.extend(postings.map(Action::Discard));
    }

    pub(super) fn handle_written(&mut self, log: u16, buffer: Buffer, synced: bool) {
        let (clock, metrics, state) = (self.clock, self.metrics.clone(), self.state.clone());
        let bytes = buffer.bytes().len() as u64;
        let owned = self.owned(log).expect("batches come back to their log");
        metrics.sync_seconds.record(clock.micros.saturating_sub(owned.written_at));
        metrics.batch_bytes.record(bytes);
        metrics.log_batches_total.increment();
        metrics.log_bytes_total.add(bytes);
        let before = owned.log.durable().position();
        match owned.log.handle_written(buffer, synced) {
            Ok(durable) => {
                let records = durable.position() - before;
                if records > 0 {
                    metrics.batch_records.record(records);
                }
                owned.tell_durable_end(&state);
                owned.side.handle_durable(&durable, clock.unix, &mut owned.log);
            }
            Err(_) => {
                tracing::error!(
                    log,
                    "log stopped: a batch was not written and synced; the node drains and exits, start it again to \
                     recover by reading"
                );
                owned.side.handle_failed();
                state.set_log(log, LogHealth::Failed);
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

    /// Hands on what the conversations have to say. Whether there was anything.
    pub(super) fn poll_outputs(&mut self) -> bool {
        let mut any = false;
        for owned in &mut self.logs {
            while let Some((target, reply)) = owned.side.poll_output() {
                any = true;
                if let (true, Reply::PushTokens { call, tokens }) = (target == self.id, &reply) {
                    self.pushing.handle_tokens(*call, tokens.clone());
                } else if target == self.id {
                    self.users.handle_reply(target, reply, self.clock);
                } else {
                    self.mail.reply(target, Back::Reply(reply));
                }
            }
            let me = self.id;
            while let Some((target, news)) =
                owned.side.poll_news(|target| target == me || self.mail.has_room(target))
            {
                any = true;
                if target == me {
                    self.users.handle_reply(target, news, self.clock);
                } else {
                    self.mail.reply(target, Back::Reply(news));
                }
            }
        }
        any
    }

    /// Starts what the disk is to do: at most one batch per log, whatever has gathered since the last one.
    pub(super) fn poll_logs(&mut self) {
        let held = self.background_held || self.paused;
        self.poll_rebuilds(held);
        let pace = match () {
            () if self.paused => Pace::AtOnce,
            () if self.drain.is_some() => Pace::Leaving,
            () => Pace::Usual,
        };
        let (clock, second) = (self.clock, self.second());
        for owned in &mut self.logs {
            let log = owned.log.number();
            // Who read where it was may have been refused, or gone on without a read.
            self.actions.extend(owned.release_moved());
            owned.side.write_positions(clock.micros, clock.unix, pace, &mut owned.log);
            if !held
                && second >= owned.segment_not_before
                && let Some(work) = owned.log.poll_spare()
            {
                self.actions.push(match work {
                    SpareWork::Make(base) => Action::PrepareSegment { log, base },
                    SpareWork::Zero(base) => Action::ZeroSegment { log, base },
                    SpareWork::Hurry => Action::HurryZeros { log },
                });
            }
            while owned.reads_in_flight < READS_IN_FLIGHT_MAX {
                let Some(read) = owned.side.poll_read() else {
                    break;
                };
                owned.reads_in_flight += 1;
                let Read { job, place, what } = read;
                self.actions.push(Action::Read { log, job, place, what });
            }
            if !held && owned.collecting.is_none() && second >= owned.compaction_not_before {
                owned.compaction_not_before = second + COMPACTION_SECONDS;
                owned.age(clock, &self.config.compaction, &self.state);
                owned.collecting = owned.poll_compaction(second, &self.config.compaction);
            }
            if !held
                && owned.collecting.is_some()
                && let Some(erased) = owned.side.poll_erased(UnixMillis(owned.aging.unix_ms()), &owned.log)
                && let Some(job) = owned.collecting.take()
            {
                self.actions.push(Action::Compact { log, job, erased });
            }
            if !held
                && second >= owned.index_not_before
                && let Some(job) = owned.log.poll_index()
            {
                self.actions.push(Action::WriteIndex { log, job });
            }
            // Once it stands still nothing is written, not a mark either: another process may be reading, and goes on behind what it read.
            let may_write = !self.paused || !owned.log.is_settled();
            if may_write && let Some(batch) = owned.log.poll_write(clock.unix.0) {
                owned.written_at = clock.micros;
                self.actions.push(Action::Write { log, batch });
            }
        }
    }

    /// Microseconds until a log has a mark to write, if nothing happens before.
    pub(super) fn mark_in_micros(&self) -> Option<u64> {
        let marks = self.logs.iter().filter_map(|owned| owned.log.mark_in(self.clock.unix.0));
        marks.min().map(|millis| millis * 1_000)
    }

    /// Up to where each log here is durable, in bytes.
    #[must_use]
    pub fn durable_ends(&self) -> Vec<(u16, u64)> {
        self.logs.iter().map(|owned| (owned.number(), owned.log.durable_end())).collect()
    }

    /// Whether nothing waits for the disk; a mark may be missing.
    pub(super) fn logs_are_settled(&self) -> bool {
        self.logs.iter().all(|owned| {
            owned.log.is_settled()
                && !owned.side.is_waiting()
                && owned.reads_in_flight == 0
                && !owned.has_news()
        })
    }

    /// Whether nothing waits for the disk, and every log ends in a mark.
    pub(super) fn logs_are_quiet(&self) -> bool {
        self.logs
            .iter()
            .all(|owned| !owned.log.is_healthy() || (owned.log.is_quiet() && !owned.side.is_waiting()))
    }

    /// The sessions here; to look at.
    #[must_use]
    pub fn users(&self) -> &UserSide {
        &self.users
    }

    /// The shard itself; for the driver.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }
}
