//! One worker process: a monoio runtime, and one task per virtual user.
//!
//! All state of a worker is one value behind one cell. A handler borrows it, runs to its end without
//! waiting, and whatever it left to be written is written after; no borrow lives across an await.

mod abandoned;
mod absence;
mod alarm;
mod amending;
mod answers;
mod attention;
mod churning;
mod connection;
mod desk;
mod history;
mod idle;
mod in_flight;
mod inbox;
mod list_reader;
mod log_reader;
mod moves;
mod opening;
mod receipts;
mod schedule;
mod searching;
mod storm;
mod tally;
mod user;

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, Write},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use monoio::time::sleep;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    client::{Endpoint, Signer},
    clock::Moment,
    host::resident_bytes,
    link::{FromWorker, NewestChange, Order, ToWorker, WorkerConfig},
    plan::{RoomIndex, RoomKind, THINK_MILLIS_MAX, UserIndex},
    runtime,
    verify::{ReadUpTo, Stand, ToldRoom, ToldStays},
};

use alarm::Alarm;
use desk::Desk;
use inbox::Inbox;
pub(crate) use schedule::rooms_per_second;
use user::{Presence, User};

/// Operations of one submission; more are submitted in between.
const RING_ENTRIES: u32 = 4096;
/// New connections a second of all workers together: below what fills the queue of a listener.
const CONNECTS_PER_SECOND: u32 = 4000;
/// How long the first user may take to come online.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long all users may take to come online.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long rooms may take to be made, beyond what their number takes at the rate.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long after the schedule answers and receipts are waited for.
pub(crate) const DRAIN_WAIT_MAX: Duration = Duration::from_secs(15);
/// How long after the schedule it is waited for those who still look at a message: the longest look, and until that is noticed.
const LOOK_WAIT_MAX: Duration = Duration::from_millis(THINK_MILLIS_MAX as u64 + 1000);
/// Open files of a worker that are no connections of users.
const FILES_SPARE: u64 = 64;
/// Users of one worker at most, however many files it may open.
const WORKER_USERS_MAX: u64 = 50_000;
/// Promised amendments that are told on one line.
const AMENDMENTS_A_LINE: usize = 1024;
/// Viewed conversations that are told on one line.
const TOLD_ROOMS_A_LINE: usize = 64;
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The state of a worker and what its tasks share.
struct Worker {
    state: RefCell<State>,
    signer: Signer,
    endpoint: Endpoint,
}

struct State {
    users: Vec<User>,
    desk: Desk,
    /// Users with something to write.
    dirty: Vec<usize>,
    /// The user whose chores are next.
    next_chore: usize,
}

impl Worker {
    fn new(config: WorkerConfig) -> anyhow::Result<Self> {
        let (signer, endpoint) = (Signer::new(&config.secret), config.endpoint.clone());
        Ok(Self { state: RefCell::new(State::new(config)?), signer, endpoint })
    }

    /// Runs `handle` on the state and then writes what it left.
    fn with<R>(self: &Rc<Self>, handle: impl FnOnce(&mut State) -> R) -> R {
        let result = handle(&mut self.state.borrow_mut());
        connection::flush(self);
        result
    }

    /// Waits for `condition`; false when the time was up first.
    async fn wait_until(
        self: &Rc<Self>,
        wait_max: Duration,
        mut condition: impl FnMut(&mut State) -> bool,
    ) -> bool {
        let deadline = Moment::now().after(wait_max);
        loop {
            if self.with(&mut condition) {
                return true;
            }
            if Moment::now() >= deadline {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Says one thing to the controller.
fn say(message: &FromWorker) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}

/// The whole life of a worker. What goes wrong is told to the controller.
pub(crate) fn run() -> io::Result<()> {
    match serve() {
        Ok(()) => Ok(()),
        Err(error) => say(&FromWorker::Failed { reason: format!("{error:#}") }),
    }
}

fn serve() -> anyhow::Result<()> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("no configuration came")?;
    let order: Order = serde_json::from_str(&line).context("the order does not read")?;
    raise_file_limit(&order)?;
    let inbox = Inbox::start();
    let mut runtime = runtime::start(RING_ENTRIES, runtime::Completions::Deferred)?;
    match order {
        Order::Idle(config) => runtime.block_on(idle::conduct(config, inbox)),
        Order::Run(config) => runtime.block_on(conduct(config, inbox)),
        Order::Storm(config) => runtime.block_on(storm::conduct(config, inbox)),
    }
}

/// Workers for so many users: as few as the file limit of a process allows.
pub(crate) fn workers_for(users: u32) -> u32 {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let each = limit.saturating_sub(FILES_SPARE).clamp(1, WORKER_USERS_MAX);
    u64::from(users).div_ceil(each) as u32
}

/// A connection is a file. What the system lets a process have at most is taken, and must be enough.
fn raise_file_limit(order: &Order) -> anyhow::Result<()> {
    let (users, workers) = match order {
        Order::Idle(config) => (config.users, config.workers),
        Order::Run(config) => (config.users, config.workers),
        Order::Storm(config) => (config.crowd, config.workers - 1),
    };
    let more = "use more --workers, or raise ulimit -n";
    raise_file_limit_for(users.div_ceil(workers).into()).context(more)
}

/// Allows this process as many connections as the system lets it.
///
/// # Errors
/// When that is fewer than are needed.
pub(crate) fn raise_file_limit_for(connections: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("the limit of open files could not be raised")?;
    let (needed, allowed) = (connections + FILES_SPARE, limit.maximum.unwrap_or(u64::MAX));
    ensure!(needed <= allowed, "{needed} open files are needed and {allowed} are allowed");
    Ok(())
}

/// The phases of a run, in order.
async fn conduct(config: WorkerConfig, mut inbox: Inbox) -> anyhow::Result<()> {
    let worker = Rc::new(Worker::new(config.clone())?);
    // From the first user on, or heartbeats that are due by the time of the last one would come all at once, every half minute.
    monoio::spawn(schedule::tick_every_second(worker.clone()));
    connect_all(&worker, &config).await?;
    let is_searched = |state: &mut State| {
        state.desk.config.attention.search_percent == 0 || state.desk.searching.is_offered
    };
    ensure!(
        worker.with(is_searched),
        "the node does not search: start it with `search = true` in its configuration, or leave --search-percent away"
    );
    say(&FromWorker::Connected { resident_bytes: resident_bytes("self")? })?;
    let ToWorker::Open = inbox.next().await? else { bail!("expected to open rooms") };
    schedule::open_rooms(&worker, &[RoomKind::Direct, RoomKind::Group]).await;
    let wait_max = OPEN_WAIT_MAX;
    ensure!(worker.wait_until(wait_max, |state| state.is_opened()).await, worker.with(|s| s.missing()));
    worker.with(|state| state.desk.watching.is_viewing = true);
    let is_viewing = |state: &mut State| state.users.iter().all(|user| user.attending.is_viewing_all());
    ensure!(worker.wait_until(wait_max, is_viewing).await, "not everything could be viewed");
    say(&FromWorker::Opened { groups: worker.with(|state| state.desk.own_group_names()) })?;
    let ToWorker::Start { at, groups } = inbox.next().await? else { bail!("expected to start") };
    worker.with(|state| state.desk.learn_groups(&groups))?;
    monoio::spawn(inbox.listen(worker.clone()));
    abandoned::unless_abandoned(&worker, load(&worker, &config, at)).await
}

/// From the first message of the schedule to the last word.
async fn load(worker: &Rc<Worker>, config: &WorkerConfig, at: Moment) -> anyhow::Result<()> {
    worker.with(|state| state.desk.watching.is_reading = true);
    let churn = match config.comings.churn {
        0 => None,
        _ => Some(monoio::spawn(churning::churn_on_time(worker.clone(), at, Alarm::new()?))),
    };
    if config.comings.absent_percent > 0 {
        monoio::spawn(absence::come_and_go(worker.clone(), at));
    }
    schedule::send_on_time(worker, at, Alarm::new()?).await;
    if let Some(churn) = churn {
        churn.await;
    }
    worker.with(|state| {
        state.desk.watching.is_reading = false;
        state.desk.watching.is_over = true;
    });
    worker.wait_until(LOOK_WAIT_MAX, |state| !state.is_looking()).await;
    worker.wait_until(DRAIN_WAIT_MAX, |state| state.unanswered() == 0).await;
    worker.wait_until(searching::FOUND_WAIT_MAX, |state| state.desk.searching.is_idle()).await;
    worker.with(|state| state.end_searches(Moment::now()));
    say(&worker.with(|state| FromWorker::Sent {
        heads: state.desk.book.heads(),
        reads: state.reads(),
        changes: state.desk.churning.newest(),
    }))?;
    let heads = Inbox::heads(worker).await;
    drain(worker, &heads).await;
    let told = attention_ends(worker).await;
    say(&FromWorker::Drained)?;
    Inbox::finish(worker).await;
    tell_told(worker, &told)?;
    tell_ends(worker)?;
    hand_over(worker).await
}

/// Waits until everybody has seen everything.
async fn drain(worker: &Rc<Worker>, heads: &HashMap<RoomIndex, u64>) {
    let is_complete = worker.wait_until(DRAIN_WAIT_MAX, |state| state.has_seen(heads)).await;
    worker.with(|state| state.desk.tally.counts.undrained += u64::from(!is_complete));
}

async fn connect_all(worker: &Rc<Worker>, config: &WorkerConfig) -> anyhow::Result<()> {
    let count = worker.with(|state| state.users.len());
    let pause = Duration::from_secs(1) * config.workers / CONNECTS_PER_SECOND;
    for place in 0..count {
        monoio::spawn(connection::live(worker.clone(), place, pause * place as u32));
    }
    let is_over = |state: &mut State| state.all_live() || state.users.iter().any(User::is_stopped);
    // A node that takes nobody is told soon; one that takes somebody gets the time for all.
    let takes_somebody = |state: &mut State| state.users.iter().any(|user| user.connection_count() > 0);
    if worker.wait_until(FIRST_WAIT_MAX, takes_somebody).await {
        worker.wait_until(CONNECT_WAIT_MAX, is_over).await;
    }
    ensure!(
        worker.with(|state| state.all_live()),
        worker.with(|state| {
            let live = state.users.iter().filter(|user| user.presence == Presence::Live).count();
            let totals = &state.desk.tally;
            let hint = match totals.errors.contains_key("bad_token") {
                true => ": it takes no tokens of this key; are --data or --key those of the node at --url?",
                false => "",
            };
            format!(
                "only {live} of {count} users came online (errors {:?}, closes {:?}, {}){hint}",
                totals.errors,
                totals.closes,
                state.desk.last_fault.as_deref().unwrap_or("no fault")
            )
        })
    );
    Ok(())
}

/// Waits until viewers have been told how far everybody has read, and has them look once more. What is not told in time is
/// found missing by the judge.
async fn attention_ends(worker: &Rc<Worker>) -> Vec<ToldRoom> {
    let has_been_told = |state: &mut State| {
        let reads = &state.desk.watching.reads;
        state.users.iter().all(|user| user.attending.has_been_told(reads))
    };
    worker.wait_until(DRAIN_WAIT_MAX, has_been_told).await;
    let mut told = worker.with(|state| {
        let told = state.users.iter().flat_map(|user| user.attending.told(user.index)).collect::<Vec<_>>();
        state.desk.watching.is_recounting = true;
        told
    });
    let is_recounted = |state: &mut State| state.users.iter().all(|user| user.attending.is_recounted());
    let is_whole = worker.wait_until(DRAIN_WAIT_MAX, is_recounted).await;
    worker.with(|state| {
        state.desk.tally.counts.views_unanswered += u64::from(!is_whole);
        told.append(&mut state.desk.watching.recounts);
    });
    told
}

/// What viewers knew, and what there was to know.
fn tell_told(worker: &Rc<Worker>, told: &[ToldRoom]) -> io::Result<()> {
    for rooms in told.chunks(TOLD_ROOMS_A_LINE) {
        say(&FromWorker::Told(rooms.to_vec()))?;
    }
    let attendance = worker.with(|state| {
        let State { users, desk, .. } = state;
        let now = Moment::now();
        desk.watching.note_heard(now);
        for user in users {
            user.note_away(desk, now);
            user.attending.note_watched(user.index, desk, now);
        }
        let mut attendance = std::mem::take(&mut desk.watching.attendance);
        attendance.away_ms = desk.watching.away_ms.drain().collect();
        attendance.reads = state.reads();
        attendance
    });
    say(&FromWorker::Attended(Box::new(attendance)))
}

/// Where everybody stands that is online, or has left when all did.
fn tell_ends(worker: &Rc<Worker>) -> io::Result<()> {
    let ends: Vec<_> = worker.with(|state| {
        let plan = state.desk.plan.clone();
        let all_left = state.desk.muster.is_over;
        let stayed = state.users.iter().filter(|user| match user.presence {
            Presence::Live => true,
            Presence::Offline => all_left,
            Presence::Replaying | Presence::Stopped => false,
        });
        let ends = stayed.map(|user| {
            let (mut stands, mut stays) = (user.reader.stands().to_vec(), Vec::new());
            for stand in stands.extract_if(.., |stand| plan.is_changing(stand.room)) {
                let (room, user, reader) = (stand.room, user.index, &user.reader);
                stays.push(ToldStays { user, room, stays: reader.stays(room) });
            }
            (user.index, stands, stays)
        });
        ends.collect()
    });
    worker.with(|state| {
        state.note_unanswered();
        let State { users, desk, .. } = state;
        desk.tally.counts.online_at_end = ends.len() as u64;
        desk.tally.counts.ended = 1;
        desk.book.close();
        users.iter().for_each(|user| user.judge_openings(desk));
    });
    for (user, stands, stays) in ends {
        say(&FromWorker::End { user, stands, stays })?;
    }
    Ok(())
}

/// Reads the logs and hands over everything.
async fn hand_over(worker: &Rc<Worker>) -> anyhow::Result<()> {
    log_reader::read_all(worker).await?;
    list_reader::read_lists(worker).await?;
    hand_over_books(worker)
}

/// Everything that was promised, seen and counted.
fn hand_over_books(worker: &Rc<Worker>) -> anyhow::Result<()> {
    worker.with(|state| state.desk.close_history())?;
    let book = worker.with(|state| std::mem::take(&mut state.desk.book));
    let promised = worker.with(|state| std::mem::take(&mut state.desk.amending.promised));
    for amendments in promised.chunks(AMENDMENTS_A_LINE) {
        say(&FromWorker::Amended(amendments.to_vec()))?;
    }
    let membership = worker.with(|state| std::mem::take(&mut state.desk.churning.book));
    say(&FromWorker::Membership(Box::new(membership)))?;
    let mut totals = worker.with(|state| state.totals());
    totals.violations.merge(book.violations.clone());
    for room in book.into_rooms() {
        say(&FromWorker::Book(room))?;
    }
    say(&FromWorker::Done(Box::new(totals)))?;
    Ok(())
}

impl State {
    fn new(config: WorkerConfig) -> anyhow::Result<Self> {
        let mut desk = Desk::new(config)?;
        let indices = (0..desk.config.users).map(UserIndex).filter(|user| desk.config.owns(*user));
        let indices: Vec<UserIndex> = indices.collect();
        let users = indices.into_iter().map(|index| User::new(index, &mut desk)).collect();
        Ok(Self { users, desk, dirty: Vec::new(), next_chore: 0 })
    }

    /// How far everybody is promised to have read.
    fn reads(&self) -> Vec<ReadUpTo> {
        self.users.iter().flat_map(|user| user.attending.reads(user.index)).collect()
    }

    fn all_live(&self) -> bool {
        self.users.iter().all(|user| user.presence == Presence::Live)
    }

    /// All rooms of all users have begun, and nothing is under way.
    fn is_opened(&self) -> bool {
        let begun = |user: &User| {
            let reader = &user.reader;
            reader.stands().iter().all(|stand| stand.seen > 0 || !reader.is_in(stand.room))
        };
        self.unanswered() == 0 && self.users.iter().all(begun)
    }

    /// Somebody who is there looks at a message that it will say it has read.
    fn is_looking(&self) -> bool {
        let mut there = self.users.iter().filter(|user| user.presence == Presence::Live);
        there.any(|user| user.attending.is_looking())
    }

    /// What keeps [`State::is_opened`] from being true.
    fn missing(&self) -> String {
        let stands = self.users.iter().flat_map(|user| user.reader.stands());
        let unbegun = stands.filter(|stand| stand.seen == 0).count();
        format!(
            "the rooms were not made: {} commands unanswered, {unbegun} memberships without a first \
             message (errors {:?}, violations {:?})",
            self.unanswered(),
            self.desk.tally.errors,
            self.desk.tally.violations.first
        )
    }

    /// Sends and reads without an answer.
    fn unanswered(&self) -> u64 {
        self.stores_unanswered() + self.reads_unanswered()
    }

    fn stores_unanswered(&self) -> u64 {
        self.users.iter().map(User::stores_unanswered).sum::<u64>() + self.desk.retries.len() as u64
    }

    fn reads_unanswered(&self) -> u64 {
        self.users.iter().map(|user| user.attending.unanswered()).sum()
    }

    /// What has no answer when nothing is sent any more. At the end it is noted for good: what is answered later may be behind what is read of
    /// the logs, and who loses its connection later asks anew for what it had been told.
    fn note_unanswered(&mut self) {
        if self.desk.tally.counts.ended == 0 {
            self.desk.tally.counts.unanswered = self.stores_unanswered();
            self.desk.tally.counts.reads_unanswered = self.reads_unanswered();
        }
    }

    /// All users that are online have seen this much.
    fn has_seen(&self, heads: &HashMap<RoomIndex, u64>) -> bool {
        let is_seen = |user: &User, stand: &Stand| {
            !user.reader.is_in(stand.room) || heads.get(&stand.room).is_none_or(|head| stand.at >= *head)
        };
        let mut online = self.users.iter().filter(|user| user.presence != Presence::Stopped);
        online.all(|user| {
            user.openings.is_empty() && user.reader.stands().iter().all(|stand| is_seen(user, stand))
        }) && self.desk.changes.iter().all(|change| self.knows(*change))
    }

    /// Who joined or left last knows, where it belongs to this worker.
    fn knows(&self, (user, room, seq): NewestChange) -> bool {
        let config = &self.desk.config;
        if !config.owns(user) {
            return true;
        }
        let stands = self.users[config.place_of(user)].reader.stands();
        stands.iter().any(|stand| stand.room == room && stand.seen >= seq)
    }
}

#[cfg(test)]
mod tests;
