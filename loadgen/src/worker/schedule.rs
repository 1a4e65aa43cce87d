//! When things are done: the making of rooms, the open-loop schedule, the ticks of a second.
//!
//! **Architecture Invariant:** nothing here waits for an answer. A message is due when its number says
//! so; what the node does meanwhile changes how late it is answered, never when it was due.

use std::{rc::Rc, time::Duration};

use monoio::time::sleep;
use protocol::command::{Command, Create, Target};

use super::{State, Worker, alarm::Alarm, say, user::Presence};
use crate::{
    clock::Moment,
    link::{FromWorker, WorkerConfig},
    load::Load,
    plan::{RoomIndex, RoomKind},
};

/// The runtime's timers count in milliseconds.
const TIMER_STEP: Duration = Duration::from_millis(1);
/// Fewest rooms made in a second, of all workers together.
const ROOMS_PER_SECOND_MIN: u32 = 2000;
const TICK: Duration = Duration::from_secs(1);
/// How often retries and heartbeats are looked at.
const CHORES_EVERY: Duration = Duration::from_millis(20);
/// Users that are looked at each time, or a part of them all: looking at tens of thousands takes as long as their messages do.
const CHORE_USERS: usize = 1000;
const CHORE_ROUNDS: usize = 20;
/// Of this many messages to a direct conversation, one names the user instead of the conversation.
const NAMED_BY_USER: u64 = 4;

/// Rooms that all workers together ask for in a second, before a load begins.
pub(crate) fn rooms_per_second(load: &Load) -> u32 {
    load.peak().clamp(ROOMS_PER_SECOND_MIN, ROOMS_PER_SECOND_MIN * 2)
}

/// Asks for all rooms of these kinds that users of this worker make, spread over time, and waits for no answer.
pub(super) async fn open_rooms(worker: &Rc<Worker>, kinds: &[RoomKind]) {
    let (rooms, config) = worker.with(|state| (state.desk.own_rooms(kinds), state.desk.config.clone()));
    let pause = Duration::from_secs(1) * config.senders() / rooms_per_second(&config.load);
    let start = Moment::now();
    for (number, room) in rooms.into_iter().enumerate() {
        sleep_until(start.after(pause * number as u32)).await;
        worker.with(|state| state.open_room(room));
    }
}

/// Sends every message of this worker when it is due, until the last one.
pub(super) async fn send_on_time(worker: &Rc<Worker>, start: Moment, mut alarm: Alarm) {
    let config = worker.with(|state| {
        state.desk.start = Some(start);
        state.desk.config.clone()
    });
    let (senders, WorkerConfig { worker: first, load, .. }) = (config.senders(), config);
    let mut number = u64::from(first);
    while number < worker.with(|state| state.desk.messages_due) {
        let due = load.due(start, number);
        alarm.wait_until(due).await;
        worker.with(|state| {
            let now = Moment::now();
            while number < state.desk.messages_due && load.due(start, number) <= now {
                state.send_one(load.due(start, number), now);
                number += u64::from(senders);
            }
        });
    }
}

/// Tells the controller once a second how things go, and does the chores in between.
pub(super) async fn tick_every_second(worker: Rc<Worker>) {
    let mut next = Moment::now().after(TICK);
    let mut told_settled = false;
    loop {
        sleep(CHORES_EVERY).await;
        let now = Moment::now();
        let is_settled = worker.with(|state| {
            state.do_chores(now);
            !told_settled && state.is_settled()
        });
        if is_settled {
            told_settled = true;
            if say(&FromWorker::Settled).is_err() {
                return;
            }
        }
        if now < next {
            continue;
        }
        let start = worker.with(|state| state.desk.start);
        // From the start on, ticks end on whole seconds of the schedule: one that began before it ends with the first of them.
        let whole = start.map(|start| now.since(start).as_secs());
        if let (Some(start), Some(0)) = (start, whole) {
            next = start.after(TICK);
            continue;
        }
        let tick = worker.with(|state| {
            let connected = state.users.iter().filter(|user| user.presence == Presence::Live).count();
            let reach = state.reach();
            state.confirm();
            state.desk.tally.tick(whole.map(|second| second - 1), connected as u64, reach)
        });
        next = match (start, whole) {
            (Some(start), Some(second)) => start.after(TICK * (second as u32 + 1)),
            _ => now.after(TICK),
        };
        if say(&FromWorker::Tick(tick)).is_err() {
            return;
        }
    }
}

/// At least until `moment`; at once when it is over.
pub(super) async fn sleep_until(moment: Moment) {
    let wait = moment.since(Moment::now());
    if !wait.is_zero() {
        // A whole step at least, or the loop would spin without letting the sockets in.
        sleep(wait.max(TIMER_STEP)).await;
    }
}

impl State {
    pub(super) fn open_room(&mut self, index: RoomIndex) {
        let plan = self.desk.plan.clone();
        let room = plan.room(index);
        let place = self.desk.config.place_of(room.maker());
        let user = &mut self.users[place];
        match room.kind {
            RoomKind::Direct => {
                let to = room.others_than(room.maker()).next().expect("two");
                let to = Target::User(plan.name(to));
                user.offer_message(&mut self.desk, index, None, to);
            }
            RoomKind::Group | RoomKind::Hall => {
                let message_id = user.message_id(&mut self.desk.random);
                let create = Create {
                    title: plan.title(index),
                    members: room.others_than(room.maker()).map(|member| plan.name(member)).collect(),
                    history: plan.history(index),
                    message_id: Some(message_id),
                };
                user.offer(&mut self.desk, index, None, message_id, Command::Create(create));
            }
        }
        self.dirty.push(place);
    }

    /// One message, from anybody to one of its rooms; or an amendment of an earlier one.
    fn send_one(&mut self, due: Moment, now: Moment) {
        let desk = &mut self.desk;
        desk.tally.lag.record(now.since(due), desk.outage.touches(due, now));
        desk.tally.lag_now.record(now.since(due));
        desk.tally.counts.due += 1;
        if desk.config.mix.picks_amendment(&mut desk.random) && self.amend_one(due) {
            return;
        }
        let desk = &mut self.desk;
        let mut place = desk.random.below(self.users.len() as u64) as usize;
        // The next one who is there.
        let there = (place..self.users.len()).chain(0..place).find(|place| !self.users[*place].is_away());
        place = there.unwrap_or(place);
        let user = &mut self.users[place];
        let plan = desk.plan.clone();
        let index = plan.pick_room(user.index, |room| user.reader.is_in(room), &mut desk.random);
        let room = plan.room(index);
        let peer = room.others_than(user.index).next();
        let by_user = room.kind == RoomKind::Direct && desk.random.below(NAMED_BY_USER) == 0;
        let target = match (desk.rooms.id(index), peer) {
            (None, Some(peer)) => Target::User(plan.name(peer)),
            (Some(_), Some(peer)) if by_user => Target::User(plan.name(peer)),
            (Some(conversation), _) => Target::Conversation(conversation),
            (None, None) => return,
        };
        user.offer_message(desk, index, Some(due), target);
        self.dirty.push(place);
    }

    pub(super) fn do_chores(&mut self, now: Moment) {
        self.search_due(now);
        let ripe = self.desk.retries.extract_if(.., |(when, _, _)| *when <= now);
        let ripe: Vec<_> = ripe.collect();
        for (_, place, pending) in ripe {
            self.users[place].offer_again(&mut self.desk, pending);
            self.dirty.push(place);
        }
        let (users, from) = (self.users.len(), self.next_chore);
        let until = users.min(from + CHORE_USERS.max(users / CHORE_ROUNDS));
        self.next_chore = if until < users { until } else { 0 };
        for user in &mut self.users[from..until] {
            if user.ping_if_due(now) | user.pump_attention(&mut self.desk, now) | user.pump_openings(now) {
                self.dirty.push(user.place);
            }
        }
    }

    /// Everybody came back since the outage began.
    fn is_settled(&self) -> bool {
        let outage = self.desk.outage;
        self.users.iter().all(|user| {
            let is_back = user.live_since.is_some_and(|since| outage.is_before(since));
            user.is_away() || user.presence == Presence::Live && is_back
        })
    }
}
