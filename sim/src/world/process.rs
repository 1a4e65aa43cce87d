//! The node's processes: how one starts, crashes or stops in order, and what the next one finds.
//!
//! What a crash left whole counts from then on, durable or not: the oracle is told so at each start, from the logs as recovery reads
//! them.

use std::collections::BTreeMap;

use gateway::shard::{Event, Shard};
use protocol::event::CloseCode;
use protocol::ids::ConversationId;
use storage_log::Log;

use super::{Item, World};
use crate::node::{Node, log_config};
use crate::oracle::{Truth, truth_of};
use crate::seen::End;

/// `drain_is_bounded`: how long an orderly stop takes at most, whoever does not read, in microseconds: a second in which all are told, one until
/// they are closed, and six for their answers to that; then what is still to be written.
const DRAIN_MICROS: u64 = 8_500_000;

impl World {
    pub(super) fn restart(&mut self) {
        self.run += 1;
        let now = self.unix().0;
        let (disk, rng) = (&mut self.disk, &mut self.rng);
        self.begun_at = self.now;
        self.calls.begin_run();
        let kept = (&self.denied, &mut self.oracle.erasures, &mut self.calls);
        let node = Node::start(&self.places, &self.keys, kept, disk, rng, now, &self.bounds);
        // What a crash left whole above the mark counts from now on.
        let mut states = BTreeMap::new();
        let mut positions = BTreeMap::new();
        let survived = self.read_logs(&mut states, &mut positions);
        for (conversation, record) in states {
            self.oracle.enter_state(conversation, &record);
        }
        for (place, truth) in survived {
            self.oracle.survived(place, positions.get(&place).copied(), truth);
        }
        self.oracle.searches.index.begin(now);
        self.arrived = node.shards.iter().map(|_| Vec::new()).collect();
        self.node = Some(node);
        self.turns = vec![None; self.arrived.len()];
        for shard in 0..self.arrived.len() {
            let wait = self.node.as_ref().map_or(0, |node| node.shards[shard].wait_micros());
            self.ask_turn(shard, wait);
        }
    }

    pub(super) fn crash(&mut self) {
        // Users are called when it is calm, and that is to be interrupted.
        if self.node.is_none() || (self.is_calm() && self.calls.dice.is_none()) {
            return;
        }
        self.crashes += 1;
        self.draining_since = None;
        self.disk.crash(&mut self.rng);
        self.stop_node(End::Crashed);
    }

    /// The process is gone: every connection ends, and after a while the next one starts.
    fn stop_node(&mut self, end: End) {
        self.note_losses();
        let has_failed = self.node.as_ref().is_some_and(|node| node.state.exit_failed());
        let end = if has_failed { End::Failed } else { end };
        self.oracle.check_refused(end == End::Orderly);
        self.oracle.seen.end_run(self.unix(), end);
        self.keep_away();
        self.count_node();
        (self.node, self.upgrade) = (None, None);
        self.run += 1;
        self.net.reset();
        for client in 0..self.clients.len() {
            // What was sent may still arrive; then the end of the connection is seen.
            let delay = self.rng.between(1, 2_000);
            self.later(delay, Item::ReadClient(client));
        }
        let delay = self.rng.between(1_000, 100_000);
        self.later(delay, Item::Restart);
    }

    /// Another process goes on: of when users were last seen it knows what could be written, and can be read.
    pub(super) fn note_losses(&mut self) {
        self.oracle.seen.is_lossy |= self.full > 0 || self.oracle.has_rotted;
    }

    /// An orderly stop: every shard is told, and nothing is under way when the last one is done.
    pub(super) fn drain(&mut self) {
        let failed = self.node.as_ref().is_some_and(|node| node.state.exit_failed());
        if self.node.is_none() || self.draining_since.is_some() || (self.is_calm() && !failed) {
            return;
        }
        self.draining_since = Some(self.now);
        for shard in 0..self.arrived.len() {
            let delay = self.rng.below(2_000);
            self.event(shard, delay, Event::Drain);
        }
    }

    pub(super) fn end_drain_if_done(&mut self) {
        let drained = self.node.as_ref().is_some_and(|node| node.shards.iter().all(Shard::is_drained));
        let Some(since) = self.draining_since.filter(|_| drained) else { return };
        assert!(self.now - since <= DRAIN_MICROS, "drain_is_bounded: it took {} us", self.now - since);
        self.draining_since = None;
        self.drains += 1;
        self.disk.assert_quiet();
        self.stop_node(End::Orderly);
    }

    pub(super) fn count_node(&mut self) {
        if let Some(node) = &self.node {
            for metrics in &node.metrics {
                self.overruns += metrics.overruns_total.value();
                self.outbox_full += metrics.outbox_full_total.value();
                self.busy += metrics.busy_total.value();
                self.moved += metrics.moved_total.value();
                self.expired += metrics.closes_total(CloseCode::EXPIRED).value();
                self.revoked += metrics.closes_total(CloseCode::REVOKED).value();
            }
        }
    }

    /// All records of conversations, as recovery reads them, the newest state of each, and where those stand that are whole.
    pub(super) fn read_logs(
        &self,
        states: &mut BTreeMap<ConversationId, Vec<u8>>,
        positions: &mut BTreeMap<(ConversationId, u64), (u16, u64)>,
    ) -> BTreeMap<(ConversationId, u64), Truth> {
        let mut truths = BTreeMap::new();
        for number in 0..self.places.logs {
            let mut observe = |record: &storage_log::Record<'_>| {
                let place = (ConversationId(record.stream().id), record.seq());
                if record.stream().kind.0 == protocol::record::StreamKind::State as u8 {
                    states.insert(place.0, record.portable().to_vec());
                }
                if record.stream().kind.0 == protocol::record::StreamKind::Messages as u8
                    && record.schema() != storage_log::SCHEMA_GONE
                {
                    let truth = if record.schema() == storage_log::SCHEMA_ERASED {
                        let may_be = self.oracle.may_be_erased(place)
                            || self.oracle.amends_front(place, self.unix().0);
                        assert!(may_be, "{place:?} is gone, and was not erased");
                        self.oracle.durable[&place].clone()
                    } else {
                        positions.insert(place, (number, record.position()));
                        truth_of(record.portable())
                    };
                    truths.insert(place, truth);
                }
            };
            let config = log_config(&self.places, self.disk.geometry(), number);
            let read = self.disk.without_indexes().recover(&config, 1, 0, &mut observe);
            let log: Log = read.expect("a sound log").0.log;
            assert!(log.is_healthy());
        }
        truths
    }
}
