//! The controller of a run: starts workers, leads them through its phases, and judges.
//!
//! ```text
//!  connect -> make rooms -> send on time ------------------> drain -> read logs -> judge
//!                              '- kill, restart, settle -'   (`check` only)
//!                              '- the node goes away for good -> what is known -> judge
//! ```

mod board;
mod cache;
mod costs;
mod crew;
mod gone;
mod history;
mod idle;
mod live;
mod node;
mod progress;
mod scene;
mod slow;
mod soak;
mod storm;

use std::{io::Write, net::ToSocketAddrs, path::PathBuf, process::ExitCode, rc::Rc, time::Duration};

use anyhow::{Context, ensure};

pub(crate) use board::{Board, Measured, Second};
pub(crate) use cache::Dropped;
pub(crate) use costs::{Cost, Costs};
pub(crate) use idle::idle;
pub(crate) use node::become_node;
pub(crate) use scene::Played;
pub(crate) use slow::slow;
pub(crate) use soak::soak;
pub(crate) use storm::storm;

use crate::{
    cli::{CheckFlags, OutputFlags, RunFlags, ShapeFlags},
    client::{Endpoint, Signer},
    clock::Moment,
    host::{Reading, holder_of},
    link::{ADDRESS_CONNECTIONS, Order, ToWorker, WorkerConfig},
    plan::{Plan, Think},
    random::Random,
    report::{self, Floor, OutageReport, Report, Timing},
    scenario::Scenario,
    verify,
    worker::{DRAIN_WAIT_MAX, rooms_per_second},
};
use crew::Crew;
use gone::Watch;
use node::Node;
use progress::Progress;

/// The longest any phase without load may take: workers have their own, shorter limits.
const PHASE_WAIT_MAX: Duration = Duration::from_secs(300);
/// How long reading all logs may take.
const FINISH_WAIT_MAX: Duration = Duration::from_secs(1800);
/// From the order to start until the first message.
const START_NOTICE: Duration = Duration::from_millis(500);
/// From the announcement of the kill until it happens, so that every worker knows first.
const OUTAGE_NOTICE: Duration = Duration::from_millis(250);
/// Of a user's codec: most messages fit.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// The same where users are a crowd.
const CROWD_READ_BUFFER_BYTES: usize = 1024;
/// How long users may take to be back.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(60);

/// When the node was gone, and until when; its process, and what that had taken of the cores.
type Loaded = (Option<(Moment, Option<Moment>)>, Option<(u32, Duration)>);

/// What a run is.
struct Plot<'a> {
    endpoint: Endpoint,
    secret: String,
    scenario: Scenario,
    outputs: &'a OutputFlags,
    timing: Timing,
    /// What a node here holds locked: it says which process is measured.
    lock: Option<PathBuf>,
    /// What figures are shown as multiples of.
    floor: Option<Floor>,
}

/// `loadgen check`.
pub(crate) fn check(flags: &CheckFlags) -> anyhow::Result<ExitCode> {
    check_shape(&flags.shape, flags.users)?;
    let program = node::find_program(flags.gatehouse.as_deref())?;
    let mut node = Node::start(program, flags.shape.search_percent > 0)?;
    let plot = Plot {
        endpoint: endpoint(&format!("ws://{}", node.listen))?,
        secret: Signer::read_secret(&node.data().join("dev.key"))?,
        scenario: Scenario::of_flags(flags.users, flags.rate, flags.seconds, &flags.shape, &flags.limits),
        outputs: &flags.outputs,
        timing: if flags.no_timing { Timing::Reported } else { Timing::Judged },
        lock: Some(node.data().join("lock")),
        floor: Floor::find(&flags.outputs.floor)?,
    };
    let report = plot.play(Some(&mut node))?;
    if report.verdict == report::Verdict::Bad {
        println!("kept       {}", node.keep_directory().display());
    }
    Ok(report.exit_code())
}

/// `loadgen run`.
pub(crate) fn run(flags: &RunFlags) -> anyhow::Result<ExitCode> {
    Ok(plot_of(flags)?.play(None)?.exit_code())
}

/// What would be another run than the one that was asked for.
fn check_shape(shape: &ShapeFlags, users: u32) -> anyhow::Result<()> {
    let is_read = shape.read_percent > 0 || shape.think_ms == Think::default();
    ensure!(is_read, "--think-ms: nobody reads, --read-percent is 0");
    shape.mix.check(users).map_err(|wrong| anyhow::anyhow!("--mix: {wrong}"))
}

fn plot_of(flags: &RunFlags) -> anyhow::Result<Plot<'_>> {
    let scenario = match (&flags.scenario, flags.users, flags.rate, flags.seconds) {
        (Some(file), ..) => Scenario::read(file, &flags.limits)?,
        (None, Some(users), Some(rate), Some(seconds)) => {
            check_shape(&flags.shape, users)?;
            Scenario::of_flags(users, rate, seconds, &flags.shape, &flags.limits)
        }
        _ => unreachable!("required without a scenario"),
    };
    Ok(Plot {
        endpoint: endpoint(&flags.node.url)?,
        secret: Signer::read_secret(&flags.node.secret())?,
        scenario,
        outputs: &flags.outputs,
        timing: if flags.no_timing { Timing::Reported } else { Timing::Judged },
        lock: flags.node.data.as_ref().map(|data| data.join("lock")),
        floor: Floor::find(&flags.outputs.floor)?,
    })
}

/// Where `ws://HOST:PORT[/PATH]` leads. The name is looked up once, here.
pub(crate) fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    let rest = url.strip_prefix("ws://").context("a URL looks like ws://127.0.0.1:7100")?;
    let (host, path) = match rest.find('/') {
        Some(slash) if rest.len() > slash + 1 => rest.split_at(slash),
        Some(slash) => (&rest[..slash], "/v1/connect"),
        None => (rest, "/v1/connect"),
    };
    let mut addresses = host.to_socket_addrs().with_context(|| format!("{host}: no such host and port"))?;
    let address = addresses.next().with_context(|| format!("{host} has no address"))?;
    let (host, path) = (host.to_owned(), path.to_owned());
    let receive_buffer_bytes = None;
    Ok(Endpoint { address, host, path, read_buffer_bytes: READ_BUFFER_BYTES, receive_buffer_bytes })
}

impl Plot<'_> {
    /// A run, then its reports.
    fn play(&self, node: Option<&mut Node>) -> anyhow::Result<Report> {
        self.outputs.check()?;
        let report = self.measure(node)?;
        // A reader that has gone away does not change the verdict.
        let _ = write!(std::io::stdout(), "{report}");
        report.write(self.outputs)?;
        Ok(report)
    }

    /// All phases.
    fn measure(&self, node: Option<&mut Node>) -> anyhow::Result<Report> {
        let mut random = Random::from_system()?;
        let tag = format!("lg{:08x}", random.next() as u32);
        let worker = |worker| self.worker(worker, &tag, &mut random);
        let configs: Vec<_> = (0..self.scenario.workers).map(worker).collect();
        let plan = Plan::new(&tag, self.scenario.users, self.scenario.mix);
        let plan = Rc::new(plan.with_changes(self.scenario.comings.churn > 0));
        let costs = Costs::new(self.lock.clone());
        let mut board = Board::new(plan, Progress::new(self.scenario.workers), costs);
        let orders: Vec<_> = configs.iter().cloned().map(Order::Run).collect();
        let mut crew = Crew::start(&orders)?;
        let start = self.begin(&mut crew, &mut board)?;
        // A node of our own is killed, and started again.
        board.watch = node.is_none().then(|| Watch::new(self.scenario.workers.min(self.scenario.users)));
        let before = self.node_cpu();
        let (outage, after) = match self.load(node, start, &mut crew, &mut board) {
            Ok(loaded) => loaded,
            Err(error) => {
                let Some(since) = board.gone_since() else { return Err(error) };
                gone::abandon(&mut crew, &mut board, start, since)?;
                (None, None)
            }
        };
        drop(crew);
        board.progress.end();
        // One of our own is killed and started again: then nobody is connected to it in between.
        let same = before.zip(self.node_cpu()).is_none_or(|((process, _), (now, _))| process == now);
        board.evidence.is_upgraded = board.watch.is_some() && !same;
        let late = verify::judge(&board.evidence)?;
        board.violations.merge(late);
        if let Some(path) = &self.outputs.history {
            let parts: Vec<PathBuf> = configs.into_iter().filter_map(|config| config.history).collect();
            history::merge(path, &parts, &board)?;
        }
        let outage = outage.map(|(from, until)| OutageReport {
            from_seconds: from.since(start).as_secs_f64(),
            until_seconds: until.map(|until| until.since(start).as_secs_f64()),
        });
        let mut report = Report::new(&board, &self.scenario, self.timing, outage);
        report.node_cpu_seconds = before.zip(after).and_then(|((process, before), (same, after))| {
            // Of one that was killed, or has handed over, half is gone.
            (process == same).then(|| after.saturating_sub(before).as_secs_f64())
        });
        if let Some(floor) = &self.floor {
            report.compare_with(floor);
        }
        Ok(report)
    }

    fn worker(&self, worker: u32, tag: &str, random: &mut Random) -> WorkerConfig {
        let is_crowd = self.scenario.users > ADDRESS_CONNECTIONS;
        let read_buffer_bytes = if is_crowd { CROWD_READ_BUFFER_BYTES } else { READ_BUFFER_BYTES };
        let part = |path: &PathBuf| {
            let mut name = path.clone().into_os_string();
            name.push(format!(".{worker}.part"));
            PathBuf::from(name)
        };
        WorkerConfig {
            worker,
            workers: self.scenario.workers,
            endpoint: Endpoint { read_buffer_bytes, ..self.endpoint.clone() },
            secret: self.secret.clone(),
            tag: tag.to_owned(),
            users: self.scenario.users,
            crowd: 0,
            network: self.endpoint.own_network(random).filter(|_| is_crowd),
            mix: self.scenario.mix,
            attention: self.scenario.attention,
            comings: self.scenario.comings,
            load: self.scenario.load.clone(),
            forms: self.scenario.forms,
            history: self.outputs.history.as_ref().map(part),
        }
    }

    /// Everybody comes online, rooms are made, the schedule starts.
    fn begin(&self, crew: &mut Crew, board: &mut Board) -> anyhow::Result<Moment> {
        let workers = crew.count();
        board.progress.say(&format!("{} users connect to {}", self.scenario.users, self.endpoint.host));
        let deadline = || Moment::now().after(PHASE_WAIT_MAX);
        ensure!(crew.wait(deadline(), board, |said| said.connected == workers)?, "users did not connect");
        let rooms = board.plan.rooms_count();
        let seconds = rooms.div_ceil(rooms_per_second(&self.scenario.load));
        board.progress.say(&format!("{rooms} rooms are made, which takes {seconds} s"));
        crew.tell_all(&ToWorker::Open)?;
        let deadline = deadline().after(Duration::from_secs(seconds.into()));
        ensure!(crew.wait(deadline, board, |said| said.opened == workers)?, "rooms were not made");
        board.progress.say(&self.scenario.load.to_string());
        board.costs.begin(crew.processes());
        let start = Moment::now().after(START_NOTICE);
        let groups = std::mem::take(&mut board.groups);
        crew.tell_all(&ToWorker::Start { at: start, groups })?;
        Ok(start)
    }

    /// From the first message to what the logs hold: when the node was gone, and what it had taken of the cores when all was sent.
    fn load(
        &self,
        node: Option<&mut Node>,
        start: Moment,
        crew: &mut Crew,
        board: &mut Board,
    ) -> anyhow::Result<Loaded> {
        let outage = match node {
            Some(node) => Some(self.strike(node, start, crew, board)?),
            None => None,
        };
        self.wait_until_sent(start, crew, board)?;
        let after = self.node_cpu();
        self.end(crew, board)?;
        Ok((outage, after))
    }

    /// Kills the node half-way and starts it again. Says when it was gone, and until when.
    fn strike(
        &self,
        node: &mut Node,
        start: Moment,
        crew: &mut Crew,
        board: &mut Board,
    ) -> anyhow::Result<(Moment, Option<Moment>)> {
        let from = start.after(Duration::from_secs(self.scenario.load.seconds().into()) / 2);
        crew.listen_until(Moment(from.0 - OUTAGE_NOTICE.as_nanos() as u64), board)?;
        crew.tell_all(&ToWorker::Outage { from })?;
        crew.listen_until(from, board)?;
        node.kill().context("the node could not be killed")?;
        board.progress.say("the node is killed");
        node.restart()?;
        let ready = Moment::now();
        board.progress.say(&format!("the node is ready again after {} ms", ready.since(from).as_millis()));
        let workers = crew.count();
        if !crew.wait(ready.after(SETTLE_WAIT_MAX), board, |said| said.settled == workers)? {
            board.progress.say("not everybody came back");
            return Ok((from, None));
        }
        let until = Moment::now();
        crew.tell_all(&ToWorker::Settled { until })?;
        board.progress.say(&format!("everybody is back after {} ms", until.since(from).as_millis()));
        Ok((from, Some(until)))
    }

    /// The node's process, where it is on this machine, and what it has taken of the cores.
    fn node_cpu(&self) -> Option<(u32, Duration)> {
        let process = holder_of(self.lock.as_deref()?)?;
        Some((process, Reading::take(process).ok()?.cpu))
    }

    /// The rest of the schedule.
    fn wait_until_sent(&self, start: Moment, crew: &mut Crew, board: &mut Board) -> anyhow::Result<()> {
        let workers = crew.count();
        let over = start.after(Duration::from_secs(self.scenario.load.seconds().into()));
        let deadline = over.after(PHASE_WAIT_MAX);
        ensure!(crew.wait(deadline, board, |said| said.sent == workers)?, "the schedule did not end");
        Ok(())
    }

    /// The answers, the receipts, the logs.
    fn end(&self, crew: &mut Crew, board: &mut Board) -> anyhow::Result<()> {
        let workers = crew.count();
        board.progress.say("waiting for receipts");
        let (heads, reads) = (board.heads(), std::mem::take(&mut board.reads));
        crew.tell_all(&ToWorker::Until { heads, reads, changes: std::mem::take(&mut board.changes) })?;
        let deadline = Moment::now().after(DRAIN_WAIT_MAX * 2);
        ensure!(crew.wait(deadline, board, |said| said.drained == workers)?, "workers did not drain");
        board.progress.say("reading the logs");
        crew.tell_all(&ToWorker::Finish)?;
        let deadline = Moment::now().after(FINISH_WAIT_MAX);
        ensure!(crew.wait(deadline, board, |said| said.done == workers)?, "the logs were not read in time");
        Ok(())
    }
}
