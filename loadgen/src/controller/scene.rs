//! What a storm and slow readers have in common: a crowd that is told what to do, step by step, beside others who chat on a schedule that goes
//! on through all of it.
//!
//! The first worker has those who chat; the crowd is dealt to the rest.

use std::{net::TcpStream, rc::Rc, time::Duration};

use anyhow::{Context as _, ensure};

use super::{
    Board, CROWD_READ_BUFFER_BYTES, Costs, FINISH_WAIT_MAX, PHASE_WAIT_MAX, START_NOTICE,
    crew::Crew,
    endpoint,
    gone::{self, Watch},
    progress::Progress,
};
use crate::{
    cli::CrowdFlags,
    client::{Endpoint, Signer},
    clock::Moment,
    host::{Reading, resident_bytes},
    latency::Latencies,
    letter::LETTER_BYTES_MIN,
    link::{Forms, FromWorker, Order, Step, ToWorker, WorkerConfig},
    load::Load,
    plan::{Attention, Comings, Mix, Plan},
    random::Random,
    report::{Floor, Footprint, PhaseReport, StepReport},
    verify,
    worker::workers_for,
};

/// How long the others are alone, and how long nothing happens in between.
pub(super) const CALM: Duration = Duration::from_secs(5);
/// Longest schedule: it is made for this and ended before.
const SCHEDULE_SECONDS: u32 = 86_400;
/// How often the node's memory is read.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// How long a node may take to be there at all.
const THERE_TIME_MAX: Duration = Duration::from_secs(5);

/// How a crowd differs from another one.
pub(super) struct Shape {
    /// Of the name of the run.
    pub(super) tag: &'static str,
    pub(super) payload_bytes: usize,
    /// Of each socket of the crowd.
    pub(super) receive_buffer_bytes: Option<usize>,
}

/// Who is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    All,
    Crowd,
    Established,
}

/// A crowd, and others beside it.
pub(super) struct Scene<'a> {
    flags: &'a CrowdFlags,
    floor: Option<Floor>,
    crew: Crew,
    board: Board,
    /// Of the schedule; before that, of everything.
    start: Moment,
    steps: Vec<StepReport>,
    phases: Vec<PhaseReport>,
    pub(super) footprint: Footprint,
    /// Of the node, at last.
    resident: u64,
    probed: Moment,
}

/// What came of it.
pub(crate) struct Played {
    pub(crate) board: Board,
    pub(crate) workers: u32,
    pub(crate) steps: Vec<StepReport>,
    pub(crate) phases: Vec<PhaseReport>,
    pub(crate) node: Option<Footprint>,
    /// What figures are shown as multiples of.
    pub(crate) floor: Option<Floor>,
}

impl<'a> Scene<'a> {
    /// With all workers, who have done nothing yet.
    pub(super) fn new(flags: &'a CrowdFlags, shape: &Shape) -> anyhow::Result<Self> {
        let tag = format!("{}{:08x}", shape.tag, Random::from_system()?.next() as u32);
        let configs = configs(flags, shape, &tag)?;
        let config = &configs[0];
        // A crowd comes back again and again, also to a node that is away: that it is there to begin with is asked here.
        let address = config.endpoint.address;
        TcpStream::connect_timeout(&address, THERE_TIME_MAX)
            .with_context(|| format!("nobody listens at {address}: is a node there?"))?;
        let plan = Rc::new(Plan::with_crowd(&tag, config.users, config.crowd, config.mix));
        let orders: Vec<_> = configs.iter().cloned().map(Order::Storm).collect();
        let mut board = Board::new(plan, Progress::new(1), Costs::of_process(flags.pid));
        board.watch = Some(Watch::new(config.workers));
        Ok(Self {
            flags,
            floor: Floor::find(&flags.floor)?,
            crew: Crew::start(&orders)?,
            board,
            start: Moment::now(),
            steps: Vec::new(),
            phases: Vec::new(),
            footprint: Footprint::default(),
            resident: 0,
            probed: Moment::now(),
        })
    }

    /// What stopped it is its end, unless the node has gone away: then workers are asked for what they know.
    pub(super) fn abandon(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        let Some(since) = self.board.gone_since() else { return Err(error) };
        gone::abandon(&mut self.crew, &mut self.board, self.start, since)
    }

    /// Ends the workers and judges what they have said.
    pub(super) fn judge(self) -> anyhow::Result<Played> {
        let Self { crew, mut board, steps, phases, footprint, flags, floor, .. } = self;
        let workers = crew.count();
        drop(crew);
        board.progress.end();
        let late = verify::judge(&board.evidence)?;
        board.violations.merge(late);
        Ok(Played { board, workers, steps, phases, node: flags.pid.map(|_| footprint), floor })
    }

    /// Workers of the crowd.
    pub(super) fn crowd_workers(&self) -> u32 {
        self.crew.count() - 1
    }

    /// Those who chat come online, `at_once` of them at a time, their rooms are made, the schedule starts.
    pub(super) fn begin(&mut self, at_once: u32) -> anyhow::Result<()> {
        let CrowdFlags { established, rate, .. } = *self.flags;
        self.say(&format!("{established} users begin, {rate} messages a second"));
        self.step("begin", Whom::Established, Step::Gather { from: Moment::now(), at_once })?;
        self.step("begin", Whom::Established, Step::Open)?;
        self.step("begin", Whom::Established, Step::Mark)?;
        self.start = Moment::now().after(START_NOTICE);
        self.board.costs.begin(self.crew.processes());
        self.step("begin", Whom::Established, Step::Start { at: self.start })?;
        self.steps.clear();
        self.wait(START_NOTICE)
    }

    /// The crowd comes, at most `at_once` of it on its way at a time.
    pub(super) fn gather(&mut self, name: &'static str, at_once: u32) -> anyhow::Result<()> {
        let at_once = at_once.div_ceil(self.crowd_workers());
        let step = Step::Gather { from: Moment::now().after(START_NOTICE), at_once };
        self.step(name, Whom::Crowd, step)
    }

    /// The schedule ends, everybody has to see everything, and the logs are read.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        self.step("end", Whom::All, Step::Stop)?;
        let heads = ToWorker::Until { heads: self.board.heads(), reads: Vec::new(), changes: Vec::new() };
        self.crew.tell_all(&heads)?;
        let workers = self.crew.count();
        let deadline = Moment::now().after(PHASE_WAIT_MAX);
        ensure!(
            self.crew.wait(deadline, &mut self.board, |said| said.drained == workers)?,
            "workers did not drain"
        );
        self.say("reading the logs");
        self.crew.tell_all(&ToWorker::Finish)?;
        let deadline = Moment::now().after(FINISH_WAIT_MAX);
        let is_over = self.crew.wait(deadline, &mut self.board, |said| said.done == workers)?;
        ensure!(is_over, "the logs were not read in time");
        Ok(())
    }

    pub(super) fn say(&mut self, text: &str) {
        self.board.progress.say(text);
    }

    /// What the node's process takes; of one that has ended what it took at last. Whether it is there still is for those to see who connect.
    pub(super) fn resident(&mut self) -> anyhow::Result<u64> {
        let Some(pid) = self.flags.pid else { return Ok(0) };
        match resident_bytes(&pid.to_string()) {
            Err(error) if self.resident == 0 => return Err(error),
            Ok(0) | Err(_) => {}
            Ok(resident) => self.resident = resident,
        }
        Ok(self.resident)
    }

    /// What the others had to bear while `act` went on.
    pub(super) fn phase(
        &mut self,
        name: &'static str,
        act: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let second = |scene: &Self| Moment::now().since(scene.start).as_secs();
        let cpu = |scene: &Self| Reading::take(scene.flags.pid?).ok();
        let (first, from, before) = (second(self), Moment::now(), cpu(self));
        act(self)?;
        let (last, took, after) = (second(self), Moment::now().since(from), cpu(self));
        let node_cpu = before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
        self.phases.push(PhaseReport::new(name, first..=last, took, node_cpu));
        Ok(())
    }

    /// Has workers do something, until all have; then adds up how it went.
    pub(super) fn step(&mut self, name: &'static str, whom: Whom, step: Step) -> anyhow::Result<()> {
        let told: Vec<u32> = match whom {
            Whom::All => (0..self.crew.count()).collect(),
            Whom::Crowd => (1..self.crew.count()).collect(),
            Whom::Established => vec![0],
        };
        let from = if let Step::Gather { from, .. } = step { from } else { Moment::now() };
        for worker in &told {
            self.crew.tell(*worker, &ToWorker::Step(step))?;
        }
        let deadline = Moment::now().after(PHASE_WAIT_MAX);
        let (mut open, mut all_missing, mut end, mut all) = (told.len(), 0, from, Latencies::default());
        while open > 0 {
            ensure!(Moment::now() < deadline, "the step `{name}` did not end");
            match self.listen()? {
                Some((_, FromWorker::Stepped { last, missing, took })) => {
                    open -= 1;
                    all_missing += missing;
                    end = end.max(last);
                    all.merge(&took);
                }
                Some((place, message)) => self.handle(place, message)?,
                None => {}
            }
        }
        self.steps.push(StepReport {
            name,
            missing: all_missing,
            took: end.since(from),
            each: all.summary(),
        });
        Ok(())
    }

    pub(super) fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        let deadline = Moment::now().after(time);
        while Moment::now() < deadline {
            if let Some((place, message)) = self.listen()? {
                self.handle(place, message)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, place: usize, message: FromWorker) -> anyhow::Result<()> {
        self.crew.handle(place, message, &mut self.board)?;
        ensure!(self.board.gone_since().is_none(), "the node has gone away");
        Ok(())
    }

    /// The next thing that a worker says, if it says one soon. The node's memory is watched meanwhile.
    fn listen(&mut self) -> anyhow::Result<Option<(usize, FromWorker)>> {
        let said = self.crew.next(Moment::now().after(PROBE_EVERY))?;
        if Moment::now().since(self.probed) >= PROBE_EVERY {
            self.probed = Moment::now();
            self.footprint.peak = self.footprint.peak.max(self.resident()?);
        }
        Ok(said)
    }
}

fn configs(flags: &CrowdFlags, shape: &Shape, tag: &str) -> anyhow::Result<Vec<WorkerConfig>> {
    let endpoint = Endpoint { read_buffer_bytes: CROWD_READ_BUFFER_BYTES, ..endpoint(&flags.node.url)? };
    let secret = Signer::read_secret(&flags.node.secret())?;
    let mut random = Random::from_system()?;
    let workers = 1 + workers_for(flags.users);
    let config = |worker| {
        let receive_buffer_bytes = shape.receive_buffer_bytes.filter(|_| worker > 0);
        WorkerConfig {
            worker,
            workers,
            endpoint: Endpoint { receive_buffer_bytes, ..endpoint.clone() },
            secret: secret.clone(),
            tag: tag.to_owned(),
            users: flags.established + flags.users,
            crowd: flags.users,
            network: endpoint.own_network(&mut random).filter(|_| worker > 0),
            // This is of those who come and go, or read slowly: what they write stays as it was written.
            mix: Mix { amend_weight: 0, ..Mix::default() },
            attention: Attention::default(),
            comings: Comings::default(),
            load: Load::steady(flags.rate, SCHEDULE_SECONDS, LETTER_BYTES_MIN.max(shape.payload_bytes)),
            forms: Forms::Mixed,
            history: None,
        }
    };
    Ok((0..workers).map(config).collect())
}
