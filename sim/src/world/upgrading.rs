//! A new binary takes over, in some worlds: everything comes to rest, and another process goes on with all connections, or refuses to.
//!
//! `upgrade_is_unseen`: every session goes on, and what its client is told goes on as if nothing had been: it keeps what it knows, and all that is
//! held against that. Only connections that the old process was closing end, some of them before their close frame could be sent. As in
//! `gateway/src/upgrade/`, nothing is begun behind the sessions first, then all shards stand still, and what is known of each connection goes as
//! bytes. An operator's orders wait meanwhile.

use std::collections::BTreeSet;

use gateway::shard::{Event, Shard};
use gateway::upgrade::passenger;
use gateway::upgrade::successor::Boarded;
use ring::Socket;
use router::ShardId;
use router::mail::Clock;

use super::{BUSY_MICROS, Item, World};
use crate::Rng;

/// How often it is looked how far it is, in microseconds.
const LOOK_MICROS: u64 = 700;

/// How long what goes on behind the sessions is waited for, in microseconds: as in a node.
const BACKGROUND_MICROS: u64 = 10_000_000;

/// And until all is at rest.
const REST_MICROS: u64 = 1_000_000;

/// How often in a row all have to be at rest: shards have had turns between.
const LOOKS: u32 = 3;

/// How long some do not read from when one begins, in microseconds: what goes on behind the sessions may take half of it.
const STALLED_MICROS: u64 = 400_000;

/// Before all shards are told to stand still clients come, or ask for much, again and again, for at most so long, in microseconds.
const CROWD_MICROS: u64 = 2_500;

/// The last one begins when it has been calm for so long, in microseconds.
const CALM_FOR: u64 = 1_500_000;

/// One that is under way.
#[derive(Clone, Copy)]
pub(super) struct Upgrade {
    begun: u64,
    /// When the shards are to be told, once nothing goes on behind the sessions.
    pause_at: Option<u64>,
    /// Since when the shards are told to stand still.
    paused: Option<u64>,
    /// How often all were found at rest.
    looks: u32,
}

/// How often it was tried.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct UpgradeCounts {
    /// Processes that took over.
    pub done: u32,
    /// Those that did not.
    pub given_up: u32,
    /// Connections that went on in another process.
    pub travelled: u32,
    /// And of those, the ones with something that waited to be sent, or handled.
    pub loaded: u32,
    /// Those to which a `welcome` was owed,
    pub unwelcomed: u32,
    /// `caught_up`,
    pub behind: u32,
    /// and the answer to something that they had asked.
    pub asking: u32,
    /// Connections that were being closed, and ended without a word.
    pub cut: u32,
}

/// What an old shard has said of a connection, and which that is.
type Travelling = (usize, Vec<u8>);

impl World {
    pub(super) fn begin_upgrading(&mut self) {
        let times = self.upgrading.as_mut().map(|rng| -> Vec<u64> {
            (0..rng.between(1, 6)).map(|_| rng.below(BUSY_MICROS + CALM_FOR)).collect()
        });
        times.into_iter().flatten().for_each(|at| self.later(at, Item::Upgrade));
    }

    /// Whether nobody is let in, and no orders are taken.
    pub(crate) fn stands_still(&self) -> bool {
        self.upgrade.is_some_and(|upgrade| upgrade.paused.is_some())
    }

    pub(super) fn begin_upgrade(&mut self) {
        if self.upgrade.is_some() || !self.may_leave() {
            return;
        }
        self.hold_background(true);
        self.stall_some();
        self.upgrade = Some(Upgrade { begun: self.now, pause_at: None, paused: None, looks: 0 });
        self.look_later();
    }

    fn may_leave(&self) -> bool {
        let is_whole = |node: &crate::node::Node| !node.state.exit_failed();
        self.draining_since.is_none() && self.node.as_ref().is_some_and(is_whole)
    }

    fn hold_background(&mut self, held: bool) {
        let shards = self.node.iter_mut().flat_map(|node| &mut node.shards);
        shards.for_each(|shard| shard.hold_background(held));
    }

    fn look_later(&mut self) {
        let run = self.run;
        self.later(LOOK_MICROS, Item::LookUpgrade { run });
    }

    /// The next step, if it is time for that.
    pub(super) fn look_upgrade(&mut self) {
        let Some(upgrade) = self.upgrade else { return };
        let Upgrade { begun, pause_at, paused, looks } = upgrade;
        let is_late = match paused {
            None => self.now - begun > BACKGROUND_MICROS,
            Some(since) => self.now - since > REST_MICROS,
        };
        if is_late || !self.may_leave() {
            return self.give_up();
        }
        let next = match paused {
            None if !self.is_background_done() => upgrade,
            None if pause_at.is_none_or(|at| at > self.now) => {
                self.crowd();
                let pause_at = pause_at.or_else(|| Some(self.now + self.rng.below(CROWD_MICROS)));
                Upgrade { pause_at, ..upgrade }
            }
            None => {
                self.disturb();
                self.crowd();
                for shard in 0..self.arrived.len() {
                    // Before the next look, after which they may be told to go on.
                    let delay = self.rng.below(LOOK_MICROS);
                    self.event(shard, delay, Event::Pause);
                }
                Upgrade { paused: Some(self.now), ..upgrade }
            }
            Some(_) => Upgrade { looks: if self.is_settled() { looks + 1 } else { 0 }, ..upgrade },
        };
        self.upgrade = Some(next);
        if next.looks == LOOKS { self.hand_over() } else { self.look_later() }
    }

    /// Some do not read for a while, so that something waits for them when everything comes to rest.
    fn stall_some(&mut self) {
        let Some(rng) = &mut self.upgrading else { return };
        for client in self.clients.iter_mut().filter(|_| rng.one_in(3)) {
            client.stalled_until = client.stalled_until.max(self.now + STALLED_MICROS);
        }
    }

    /// Some come right before all stand still, of whom a few know of nothing, and others ask for much: so that a `welcome`, what was missed and pages
    /// are owed then.
    fn crowd(&mut self) {
        let Some(rng) = &mut self.upgrading else { return };
        let choices: Vec<u64> = self.clients.iter().map(|_| rng.below(20)).collect();
        for (client, choice) in choices.into_iter().enumerate() {
            match choice {
                0 | 1 => self.come_anew(client, false),
                2..=4 => self.come_anew(client, true),
                5..=7 => self.ask_much(client),
                _ => {}
            }
        }
    }

    /// Now and then the process ends meanwhile, or is told to.
    fn disturb(&mut self) {
        let Some(rng) = &mut self.upgrading else { return };
        let (is_disturbed, delay, how) = (rng.one_in(10), rng.below(5_000), rng.one_in(2));
        if is_disturbed {
            self.later(delay, if how { Item::Crash } else { Item::Drain });
        }
    }

    /// Everybody is served again by the process that was to go.
    fn give_up(&mut self) {
        self.upgrade = None;
        self.upgrades.given_up += 1;
        self.hold_background(false);
        for shard in 0..self.arrived.len() {
            let delay = self.rng.below(LOOK_MICROS);
            self.event(shard, delay, Event::Resume);
        }
    }

    fn is_background_done(&self) -> bool {
        let goes_on = |event: &Event| {
            matches!(
                event,
                Event::Compacted { .. }
                    | Event::IndexRebuilt { .. }
                    | Event::IndexWritten { .. }
                    | Event::Pushed(_)
                    | Event::Released { .. }
                    | Event::SegmentPrepared { .. }
                    | Event::SegmentZeroed { .. }
            )
        };
        let is_job = |item: &Item| matches!(item, Item::Compact { .. } | Item::Push { .. });
        !self.waits_for(goes_on) && !self.is_queued(is_job)
    }

    /// All shards stand still, nothing is on its way between them, and no order is on its way to one.
    fn is_settled(&mut self) -> bool {
        let is_order = |event: &Event| matches!(event, Event::Erase(_) | Event::Pause | Event::Revoke(_));
        if !self.is_background_done() || self.waits_for(is_order) {
            return false;
        }
        let node = self.node.as_mut().expect("the caller looked");
        for (shard, id) in node.shards.iter_mut().zip(0..) {
            node.mesh.report(ShardId(id), true, shard.is_settled());
        }
        node.mesh.is_settled()
    }

    pub(crate) fn waits_for(&self, is_it: impl Fn(&Event) -> bool) -> bool {
        let is_event = |item: &Item| matches!(item, Item::Event { event, .. } if is_it(event));
        self.arrived.iter().flatten().any(&is_it) || self.is_queued(is_event)
    }

    /// The process is told that everything is its own, unless it refuses.
    fn hand_over(&mut self) {
        let sessions = self.sessions_count();
        let (travelling, absent_known) = self.describe_all();
        if self.upgrading.as_mut().is_some_and(|rng| rng.one_in(4)) {
            return self.give_up();
        }
        self.upgrade = None;
        self.upgrades.done += 1;
        self.disk.assert_quiet();
        self.count_node();
        self.node = None;
        let pipes: BTreeSet<usize> = travelling.iter().flatten().map(|(pipe, _)| *pipe).collect();
        self.note_losses();
        self.clients.iter_mut().for_each(|client| client.note_taken_over(&pipes));
        for client in self.net.leave(&pipes) {
            self.later(1, Item::ReadClient(client));
        }
        self.restart();
        let clock = Clock { unix: self.unix(), micros: self.now };
        for ((id, passengers), absent_known) in (0..).map(ShardId).zip(travelling).zip(absent_known) {
            let net = &mut self.net;
            let mut board = |(pipe, bytes): Travelling| {
                let mut read = passenger::read_all(&bytes).expect("what was written is read");
                let passenger = read.pop().expect("one connection");
                net.pipes[pipe].shard = id;
                Boarded { passenger, socket: Socket::from_index(net.install(id, pipe)), counted: None }
            };
            let boarded: Vec<Boarded> = passengers.into_iter().map(&mut board).collect();
            let shard = &mut self.node.as_mut().expect("just started").shards[id.index()];
            shard.go_on(clock, absent_known);
            boarded.into_iter().for_each(|boarded| shard.take_over(boarded));
            let wait = shard.wait_micros();
            self.ask_turn(id.index(), wait);
        }
        // Whose token was taken back meanwhile would be let go, and orders wait.
        assert_eq!(self.sessions_count(), sessions, "upgrade_is_unseen: every session goes on");
    }

    fn sessions_count(&self) -> usize {
        let shards = self.node.iter().flat_map(|node| &node.shards);
        shards.map(|shard| shard.users().sessions_count()).sum()
    }

    /// Every connection that goes on elsewhere, by shard, and what else is to be known of each.
    fn describe_all(&mut self) -> (Vec<Vec<Travelling>>, Vec<bool>) {
        let node = self.node.as_mut().expect("the caller looked");
        let describe = |(shard, id): (&mut Shard, u16)| {
            let mut travelling = Vec::new();
            for (connection, socket) in shard.travellers() {
                let pipe = self.net.pipe_of(ShardId(id), socket.index());
                let Some(passenger) = shard.describe(connection) else { continue };
                let mut bytes = Vec::new();
                passenger::write(&passenger, &mut bytes);
                self.upgrades.travelled += 1;
                self.upgrades.loaded += u32::from(is_loaded(&passenger));
                self.upgrades.count_owed(&passenger);
                travelling.push((pipe, bytes));
            }
            (travelling, shard.users().knows_absent())
        };
        node.shards.iter_mut().zip(0..).map(describe).unzip()
    }
}

impl UpgradeCounts {
    fn count_owed(&mut self, passenger: &passenger::Passenger) {
        if let passenger::PassengerStage::Live { session, .. } = &passenger.stage {
            self.unwelcomed += u32::from(session.greeting.is_some());
            self.behind += u32::from(session.catching_up);
            self.asking += u32::from(!passenger.received.is_empty());
        }
    }
}

fn is_loaded(passenger: &passenger::Passenger) -> bool {
    let unsent = match &passenger.stage {
        passenger::PassengerStage::Arriving { unsent, .. } => unsent,
        passenger::PassengerStage::Live { session, .. } => &session.unsent,
    };
    !unsent.is_empty() || !passenger.received.is_empty()
}

/// Whether a new binary takes over in the world of this seed: where roles are handed out and messages are more than texts, and where users look
/// at each other.
pub(super) fn dice(seed: u64) -> Option<Rng> {
    let is_one = matches!(seed % 64, 7 | 23 | 39) || matches!(seed % 32, 3 | 8 | 13 | 15 | 21);
    is_one.then(|| Rng::new(seed ^ UPGRADING))
}

/// Sets its dice apart from those of everything else.
const UPGRADING: u64 = 0x0075_7067_7261_6465;
