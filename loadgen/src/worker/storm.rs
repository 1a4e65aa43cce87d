//! The worker of a crowd, of a storm or of slow readers: does one step after another as it is told, the first one beside its schedule.
//!
//! Users are those of a run, with their cursors and their readers. A crowd is large, so nothing here looks at all of it
//! more often than once a second; who has come and who has gone is counted as it happens.

use std::{rc::Rc, time::Duration};

use anyhow::bail;
use monoio::{io::AsyncWriteRent, time::sleep};
use protocol::command::Target;

use super::{
    CONNECT_WAIT_MAX, DRAIN_WAIT_MAX, OPEN_WAIT_MAX, State, Worker,
    abandoned::unless_abandoned,
    alarm::Alarm,
    connection,
    desk::Desk,
    drain, hand_over,
    inbox::Inbox,
    say,
    schedule::{open_rooms, send_on_time, sleep_until, tick_every_second},
    tell_ends,
    user::Presence,
};
use crate::{
    clock::Moment,
    link::{FromWorker, Parting, Step, ToWorker, WorkerConfig},
    plan::{RoomIndex, RoomKind},
};

/// How often it is looked whether a step has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the heartbeats of a crowd are looked at.
const CHORES_EVERY: Duration = Duration::from_secs(1);
/// How long all users of a crowd may take to leave.
const PART_WAIT_MAX: Duration = Duration::from_secs(60);
/// Users whose heartbeats go out together when all are asked for one.
const MARKS_AT_ONCE: usize = 256;
/// Messages of a backlog in a second.
const BACKLOG_PER_SECOND: u32 = 2000;

/// The whole life of a worker.
pub(super) async fn conduct(config: WorkerConfig, inbox: Inbox) -> anyhow::Result<()> {
    let worker = Rc::new(Worker::new(config.clone())?);
    if config.worker == 0 {
        monoio::spawn(tick_every_second(worker.clone()));
    } else {
        monoio::spawn(beat(worker.clone()));
    }
    monoio::spawn(inbox.queue(worker.clone()));
    unless_abandoned(&worker, play(&worker)).await
}

/// One step after another, to the last word.
async fn play(worker: &Rc<Worker>) -> anyhow::Result<()> {
    loop {
        match Inbox::order(worker).await {
            ToWorker::Step(step) => {
                let missing = take(worker, step).await?;
                let (last, took) = worker.with(|state| {
                    let Desk { muster, tally, .. } = &mut state.desk;
                    tally.counts.undone += missing as u64;
                    (muster.last, muster.took.take_buckets())
                });
                say(&FromWorker::Stepped { last, missing: missing as u32, took })?;
            }
            ToWorker::Until { heads, .. } => {
                let heads = heads.into_iter().collect();
                drain(worker, &heads).await;
                say(&FromWorker::Drained)?;
                tell_ends(worker)?;
            }
            ToWorker::Finish => return hand_over(worker).await,
            other => bail!("a storm has no such step: {other:?}"),
        }
    }
}

/// Heartbeats of a crowd, and whether it reaches the node.
async fn beat(worker: Rc<Worker>) {
    loop {
        sleep(CHORES_EVERY).await;
        let tick = worker.with(|state| {
            state.do_chores(Moment::now());
            let reach = state.reach();
            state.confirm();
            let connected = state.desk.muster.live.into();
            state.desk.tally.tick(None, connected, reach)
        });
        if say(&FromWorker::Tick(tick)).is_err() {
            return;
        }
    }
}

/// Does a step; says for how many it could not be done in time.
async fn take(worker: &Rc<Worker>, step: Step) -> anyhow::Result<usize> {
    worker.with(|state| state.desk.muster.begin(Moment::now()));
    let missing = match step {
        Step::Gather { from, at_once } => gather(worker, from, at_once).await,
        Step::Open => open(worker, &[RoomKind::Direct, RoomKind::Group]).await,
        Step::OpenHalls => open(worker, &[RoomKind::Hall]).await,
        Step::Start { at } => {
            let (worker, alarm) = (worker.clone(), Alarm::new()?);
            monoio::spawn(async move { send_on_time(&worker, at, alarm).await });
            0
        }
        Step::Mark => mark(worker).await,
        Step::Backlog { each } => fill(worker, each).await,
        Step::Chatter { per_second } => {
            monoio::spawn(chat(worker.clone(), per_second));
            0
        }
        Step::Pace(pace) => worker.with(|state| {
            state.desk.set_pace(pace, Moment::now());
            0
        }),
        Step::Part(parting) => part(worker, parting).await,
        Step::Stop => stop(worker).await,
    };
    Ok(missing)
}

/// Sends nothing more, and waits for what has been sent.
async fn stop(worker: &Rc<Worker>) -> usize {
    worker.with(|state| state.desk.messages_due = 0);
    worker.wait_until(DRAIN_WAIT_MAX, |state| state.unanswered() == 0).await;
    let heads = worker.with(|state| state.desk.book.heads());
    // The controller is gone when this cannot be said, and with it the process.
    let _ = say(&FromWorker::Sent { heads, reads: Vec::new(), changes: Vec::new() });
    worker.with(|state| state.unanswered() as usize)
}

/// Everybody comes online: the next one when fewer than `at_once` are on their way.
async fn gather(worker: &Rc<Worker>, from: Moment, at_once: u32) -> usize {
    let count = worker.with(|state| {
        state.desk.muster.is_over = false;
        state.desk.muster.begin(from);
        state.users.len()
    });
    sleep_until(from).await;
    for place in 0..count {
        while place as u32 - worker.with(|state| state.desk.muster.welcomed).min(place as u32) >= at_once {
            if Moment::now().since(from) > CONNECT_WAIT_MAX {
                return count - worker.with(|state| state.desk.muster.live) as usize;
            }
            sleep(Duration::from_millis(1)).await;
        }
        monoio::spawn(connection::live(worker.clone(), place, Duration::ZERO));
    }
    let live = |worker: &Rc<Worker>| worker.with(|state| state.desk.muster.live) as usize;
    while live(worker) < count && Moment::now().since(from) < CONNECT_WAIT_MAX {
        sleep(LOOK_EVERY).await;
    }
    count - live(worker)
}

/// Rooms are made, and everybody knows; those of other workers see to it themselves.
async fn open(worker: &Rc<Worker>, kinds: &[RoomKind]) -> usize {
    open_rooms(worker, kinds).await;
    let is_opened = |state: &mut State| state.unanswered() == 0;
    if worker.wait_until(OPEN_WAIT_MAX, is_opened).await { 0 } else { 1 }
}

/// A heartbeat of everybody, so that nobody's cursor is older than now. Those who know no room yet wait for it first.
async fn mark(worker: &Rc<Worker>) -> usize {
    let count = worker.with(|state| state.users.len());
    let unopened = |state: &State, place: usize| {
        let State { users, desk, .. } = state;
        // A room that this worker has still to make is none to wait for.
        let is_to_come =
            |room| desk.rooms.id(room).is_none() && desk.config.owns(desk.plan.room(room).maker());
        users[place].reader.stands().iter().any(|stand| stand.seen == 0 && !is_to_come(stand.room))
    };
    let deadline = Moment::now().after(OPEN_WAIT_MAX);
    for place in 0..count {
        while worker.with(|state| unopened(state, place)) {
            if Moment::now() >= deadline {
                return count - place;
            }
            sleep(LOOK_EVERY).await;
        }
        worker.with(|state| {
            state.users[place].hurry_ping();
            if state.users[place].ping_if_due(Moment::now()) {
                state.dirty.push(place);
            }
        });
        if place % MARKS_AT_ONCE == MARKS_AT_ONCE - 1 {
            sleep(LOOK_EVERY).await;
        }
    }
    let late = |state: &mut State| {
        let awaits = |user: &&super::User| user.presence == Presence::Live && user.awaits_pong();
        state.users.iter().filter(awaits).count()
    };
    while worker.with(late) > 0 && Moment::now() < deadline {
        sleep(CHORES_EVERY).await;
    }
    worker.with(late)
}

/// Messages for a crowd, in turns over its rooms. They are no part of the schedule.
async fn fill(worker: &Rc<Worker>, each: u32) -> usize {
    let halls = worker.with(|state| state.desk.own_rooms(&[RoomKind::Hall]));
    let (start, pause) = (Moment::now(), Duration::from_secs(1) / BACKLOG_PER_SECOND);
    let rounds = (0..each).flat_map(|_| halls.iter());
    for (number, hall) in rounds.enumerate() {
        sleep_until(start.after(pause * number as u32)).await;
        worker.with(|state| write_to(state, *hall));
    }
    worker.wait_until(DRAIN_WAIT_MAX, |state| state.unanswered() == 0).await;
    0
}

/// Messages for a crowd while other things happen, until the schedule ends. They are no part of it.
async fn chat(worker: Rc<Worker>, per_second: u32) {
    let halls = worker.with(|state| state.desk.own_rooms(&[RoomKind::Hall]));
    let (start, pause) = (Moment::now(), Duration::from_secs(1) / per_second);
    for (number, hall) in halls.iter().cycle().enumerate() {
        sleep_until(start.after(pause * number as u32)).await;
        if worker.with(|state| state.desk.messages_due) == 0 {
            return;
        }
        worker.with(|state| write_to(state, *hall));
    }
}

fn write_to(state: &mut State, hall: RoomIndex) {
    let Some(conversation) = state.desk.rooms.id(hall) else { return };
    let writer = state.desk.plan.room(hall).maker();
    let place = state.desk.config.place_of(writer);
    state.users[place].offer_message(&mut state.desk, hall, None, Target::Conversation(conversation));
    state.dirty.push(place);
}

/// Everybody leaves at once.
async fn part(worker: &Rc<Worker>, parting: Parting) -> usize {
    let count = worker.with(|state| {
        state.desk.muster.is_over = true;
        state.users.len()
    });
    let deadline = Moment::now().after(PART_WAIT_MAX);
    // Whose socket is being written to is told in the next round.
    while worker.with(|state| state.desk.muster.tasks) > 0 && Moment::now() < deadline {
        for place in 0..count {
            leave(worker, place, parting).await;
        }
        sleep(LOOK_EVERY).await;
    }
    worker.with(|state| state.desk.muster.tasks) as usize
}

async fn leave(worker: &Rc<Worker>, place: usize, parting: Parting) {
    let writer = worker.with(|state| {
        let link = state.users[place].link.as_mut()?;
        match parting {
            Parting::Close if link.codec.is_open() => {
                link.codec.close();
                state.dirty.push(place);
                None
            }
            Parting::Close => None,
            Parting::Drop => link.writer.take(),
        }
    });
    if let Some(mut writer) = writer {
        // What can go wrong here is that it has ended already.
        let _ = writer.shutdown().await;
    }
}
