//! What all workers together have seen: seconds, totals, evidence.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use anyhow::Context;
use protocol::ids::MessageId;

use super::{Cost, Costs, gone::Watch, progress::Progress};
use crate::{
    clock::Moment,
    latency::Latencies,
    link::{Counts, GroupName, NewestChange, Split, Tick, Totals},
    plan::{Plan, RoomIndex, UserIndex},
    report::GoneReport,
    verify::{Evidence, ReadUpTo, Stand, ToldStays, Violations},
};

/// Latencies outside and inside the outage.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) outside: Latencies,
    pub(crate) outage: Latencies,
}

impl Measured {
    fn merge(&mut self, split: &Split) {
        self.outside.merge(&split.outside);
        self.outage.merge(&split.outage);
    }
}

/// One second of all workers.
#[derive(Default)]
pub(crate) struct Second {
    pub(crate) tick: Tick,
    pub(crate) delivery: Latencies,
    pub(crate) lag: Latencies,
    pub(crate) cost: Cost,
}

/// Everything that came in.
pub(crate) struct Board {
    pub(crate) plan: Rc<Plan>,
    pub(crate) seconds: BTreeMap<u64, Second>,
    pub(crate) counts: Counts,
    /// What of it had been counted while the node was there, when it has gone away.
    pub(crate) confirmed: Counts,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) closes: BTreeMap<u16, u64>,
    pub(crate) given_up_by: BTreeMap<String, u64>,
    pub(crate) ack: Measured,
    pub(crate) delivery: Measured,
    pub(crate) lag: Measured,
    pub(crate) back: Latencies,
    /// From a delivery to the `ok` of the `read` that answers it.
    pub(crate) read: Measured,
    /// From when a change of members was due to its `ok`.
    pub(crate) change: Measured,
    /// From when an absent user set out until it had read everything.
    pub(crate) whole: Measured,
    /// From a search to its answer,
    pub(crate) search: Measured,
    /// and from an acknowledgement until a search finds it.
    pub(crate) found: Measured,
    pub(crate) violations: Violations,
    pub(crate) evidence: Evidence,
    /// The node's names of the rooms, as text.
    pub(crate) conversations: BTreeMap<RoomIndex, String>,
    heads: HashMap<RoomIndex, u64>,
    /// How far users have read that have an `ok` for it.
    pub(super) reads: Vec<ReadUpTo>,
    /// The node's names of the groups whose members change.
    pub(super) groups: Vec<GroupName>,
    /// Who joined or left last.
    pub(super) changes: Vec<NewestChange>,
    /// Resident memory of all workers when all users were online.
    pub(crate) generator_bytes: u64,
    pub(crate) progress: Progress,
    pub(super) costs: Costs,
    /// Whether the node is still there, where that is asked.
    pub(super) watch: Option<Watch>,
    /// How far all members have seen each conversation, when it is not.
    pub(super) seen: HashMap<RoomIndex, u64>,
    pub(crate) gone: Option<GoneReport>,
}

impl Board {
    pub(crate) fn new(plan: Rc<Plan>, progress: Progress, costs: Costs) -> Self {
        Self {
            plan,
            seconds: BTreeMap::new(),
            counts: Counts::default(),
            confirmed: Counts::default(),
            errors: BTreeMap::new(),
            closes: BTreeMap::new(),
            given_up_by: BTreeMap::new(),
            ack: Measured::default(),
            delivery: Measured::default(),
            lag: Measured::default(),
            back: Latencies::default(),
            read: Measured::default(),
            change: Measured::default(),
            whole: Measured::default(),
            search: Measured::default(),
            found: Measured::default(),
            violations: Violations::default(),
            evidence: Evidence::default(),
            conversations: BTreeMap::new(),
            heads: HashMap::new(),
            reads: Vec::new(),
            groups: Vec::new(),
            changes: Vec::new(),
            generator_bytes: 0,
            progress,
            costs,
            watch: None,
            seen: HashMap::new(),
            gone: None,
        }
    }

    /// Since when nobody reaches the node, if that is so long that it has gone away.
    pub(super) fn gone_since(&self) -> Option<Moment> {
        self.watch.as_ref()?.gone_since(Moment::now())
    }

    pub(super) fn handle_seen(&mut self, seen: Vec<(RoomIndex, u64)>) {
        for (room, seen) in seen {
            let all = self.seen.entry(room).or_insert(seen);
            *all = seen.min(*all);
        }
    }

    /// How far conversations are known to go, by whoever knows most.
    pub(super) fn heads(&self) -> Vec<(RoomIndex, u64)> {
        self.heads.iter().map(|(room, head)| (*room, *head)).collect()
    }

    pub(super) fn handle_heads(&mut self, heads: Vec<(RoomIndex, u64)>) {
        for (room, head) in heads {
            let known = self.heads.entry(room).or_default();
            *known = head.max(*known);
        }
    }

    pub(super) fn handle_tick(&mut self, worker: usize, tick: &Tick) {
        if let Some(watch) = &mut self.watch {
            watch.note(worker, tick.reach, Moment::now());
        }
        let Some(number) = tick.second else { return };
        let costs = &mut self.costs;
        let first = || Second { cost: costs.take(), ..Second::default() };
        let second = self.seconds.entry(number).or_insert_with(first);
        second.tick.connected += tick.connected;
        second.tick.sent += tick.sent;
        second.tick.acked += tick.acked;
        second.tick.delivered += tick.delivered;
        second.tick.stored += tick.stored;
        second.tick.received += tick.received;
        second.tick.errors += tick.errors;
        second.delivery.merge(&tick.delivery);
        second.lag.merge(&tick.lag);
        self.progress.show(number, second);
    }

    pub(super) fn handle_log(
        &mut self,
        room: RoomIndex,
        conversation: String,
        items: &[(u64, String)],
    ) -> anyhow::Result<()> {
        let items = items.iter().map(|(seq, id)| anyhow::Ok((*seq, parse(id)?)));
        self.evidence.logs.insert(room, items.collect::<Result<_, _>>()?);
        self.conversations.insert(room, conversation);
        Ok(())
    }

    pub(super) fn handle_end(&mut self, user: UserIndex, stands: &[Stand], stays: Vec<ToldStays>) {
        self.evidence.stays.extend(stays);
        self.evidence.present.insert(user);
        let name = self.plan.name(user);
        self.evidence
            .ends
            .extend(stands.iter().map(|stand| (name.as_str().to_owned(), stand.room, stand.at)));
    }

    pub(super) fn handle_done(&mut self, totals: Totals) -> anyhow::Result<()> {
        self.counts.add(&totals.counts);
        self.confirmed.add(totals.confirmed.as_ref().unwrap_or(&totals.counts));
        for (name, count) in totals.errors {
            *self.errors.entry(name).or_default() += count;
        }
        for (code, count) in totals.closes {
            *self.closes.entry(code).or_default() += count;
        }
        // A user belongs to one worker.
        self.given_up_by.extend(totals.given_up_by);
        self.ack.merge(&totals.ack);
        self.delivery.merge(&totals.delivery);
        self.lag.merge(&totals.lag);
        self.back.merge(&totals.back);
        self.read.merge(&totals.read);
        self.change.merge(&totals.change);
        self.whole.merge(&totals.whole);
        self.search.merge(&totals.search);
        self.found.merge(&totals.found);
        self.violations.merge(totals.violations);
        self.evidence.overtaken.extend(totals.overtaken);
        for id in &totals.refused {
            self.evidence.refused.push(parse(id)?);
        }
        Ok(())
    }
}

fn parse(id: &str) -> anyhow::Result<MessageId> {
    id.parse().context("a worker named a message that is none")
}
