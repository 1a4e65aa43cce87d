//! The logs that a shard owns: requests in, batches out, answers and deliveries when they are durable.

use router::conversation::{Pace, Read, Subject};
use router::mail::{Reply, Request};
use router::{ConversationSide, ShardId, UserSide};
use storage_log::{Buffer, Cause, CompactionJob, ErasureLeft, Log, LogConfig, segment_file_name};

use super::aging::Aging;
use super::{Action, Shard};
use crate::erasures::ask::LogLeft;
use crate::mailbox::Back;
use crate::state::{LogHealth, NodeState};

/// Reads of one log that the disk works on at the same time; more wait here.
const READS_IN_FLIGHT_MAX: usize = 64;

/// A log and the conversations in it.
pub struct OwnedLog {
    pub(super) log: Log,
    pub(super) side: ConversationSide,
    reads_in_flight: usize,
    /// Second before which no segment is asked for.
    pub(super) segment_not_before: u64,
    /// Second before which no index file is written.
    pub(super) index_not_before: u64,
    /// Bases of segments whose index files the scrubber found damaged: at most one of each.
    pub(super) found_damaged: Vec<u64>,
    /// An index file is being made again.
    pub(super) rebuilding: bool,
    /// Those that were, of the segments at these bases, and the second before which none of them is again: a disk that rots what
    /// was just written would be read over and over.
    pub(super) rebuilt: Vec<(u64, u64)>,
    /// By when what it keeps is too old.
    pub(super) aging: Aging,
    /// When the batch in flight was handed out, in microseconds.
    written_at: u64,
    /// Second before which no segment is written anew.
    pub(super) compaction_not_before: u64,
    /// Second before which none is but those of which all goes.
    pub(super) rewrite_not_before: u64,
    /// One that is to be, while what its records are judged by is being collected.
    pub(super) collecting: Option<CompactionJob>,
    /// Why one is, while it is.
    pub(super) compacting: Option<Cause>,
    /// Base of a segment that has moved, while somebody reads where it was.
    pub(super) moved: Option<u64>,
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
    pub(super) fn owned(&mut self, log: u16) -> Option<&mut OwnedLog> {
        self.logs.iter_mut().find(|owned| owned.log.number() == log)
    }

    /// Whether every log of this shard is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.logs.iter().all(|owned| owned.log.is_healthy())
    }

    /// Says how many links and members were stored for it, and users are told.
    pub(super) fn handle_request(&mut self, request: Request) -> usize {
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
                self.handle_reply(target, reply);
            } else {
                self.mail.reply(target, Back::Reply(reply));
            }
            return 0;
        };
        let before = owned.side.work_stored;
        owned.side.handle_request(request, clock.unix, &mut owned.log);
        (owned.side.work_stored - before) as usize
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

    /// Of the logs that this shard serves.
    #[must_use]
    pub fn log_configs(&self) -> Vec<LogConfig> {
        self.logs.iter().map(|owned| owned.log.config().clone()).collect()
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
            while let Some((target, news)) = owned.side.poll_news(|target| {
                if target == me {
                    self.crowd.told < self.config.work_per_turn
                } else {
                    self.mail.has_room(target)
                }
            }) {
                any = true;
                if target == me {
                    self.crowd.told += 1 + news.work();
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
        self.poll_background();
        let pace = match () {
            () if self.paused => Pace::AtOnce,
            () if self.drain.is_some() => Pace::Leaving,
            () => Pace::Usual,
        };
        let clock = self.clock;
        for owned in &mut self.logs {
            let log = owned.log.number();
            owned.side.write_positions(clock.micros, clock.unix, pace, &mut owned.log);
            while owned.reads_in_flight < READS_IN_FLIGHT_MAX {
                let Some(read) = owned.side.poll_read() else {
                    break;
                };
                owned.reads_in_flight += 1;
                let Read { job, place, what } = read;
                self.actions.push(Action::Read { log, job, place, what });
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
