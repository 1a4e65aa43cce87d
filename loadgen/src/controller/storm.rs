//! `loadgen storm`: a crowd comes all at once, falls behind, comes back and leaves, while others chat.
//!
//! ```text
//!  the others begin -> calm -> connect -> rooms -> drop -> backlog -> calm -> return -> verify -> close -> judge
//! ```
//! The first worker has those who chat, on a schedule that goes on through all of it; the crowd is dealt to the rest.

use std::{net::IpAddr, process::ExitCode, rc::Rc, time::Duration};

use anyhow::ensure;

use super::{
    Board, FINISH_WAIT_MAX, PHASE_WAIT_MAX, START_NOTICE, crew::Crew, endpoint, idle::workers,
    progress::Progress,
};
use crate::{
    cli::StormFlags,
    client::{Endpoint, Signer},
    clock::Moment,
    host::{Reading, resident_bytes},
    latency::Latencies,
    letter::LETTER_BYTES_MIN,
    link::{Forms, FromWorker, Load, Order, Parting, Step, ToWorker, WorkerConfig},
    plan::{Mix, Plan},
    random::Random,
    report::{Footprint, PhaseReport, StepReport, StormReport},
    verify,
};

/// How long the others are alone, and how long nothing happens in between.
const CALM: Duration = Duration::from_secs(5);
/// Longest storm: the schedule is made for it and ended before.
const SCHEDULE_SECONDS: u32 = 86_400;
/// Of a user's codec and its socket: many users, most messages fit.
const READ_BUFFER_BYTES: usize = 1024;
/// How often the node's memory is read.
const PROBE_EVERY: Duration = Duration::from_millis(250);

/// `loadgen storm`.
pub(crate) fn storm(flags: &StormFlags) -> anyhow::Result<ExitCode> {
    let tag = format!("st{:08x}", Random::from_system()?.next() as u32);
    let configs = configs(flags, &tag)?;
    let config = &configs[0];
    let plan = Rc::new(Plan::with_crowd(&tag, config.users, config.crowd, config.mix));
    let orders: Vec<_> = configs.iter().cloned().map(Order::Storm).collect();
    let mut storm = Storm {
        flags,
        crew: Crew::start(&orders)?,
        board: Board::new(plan, Progress::new(1)),
        start: Moment::default(),
        steps: Vec::new(),
        phases: Vec::new(),
        footprint: Footprint::default(),
        probed: Moment::now(),
    };
    storm.play()?;
    let Storm { crew, mut board, steps, phases, footprint, .. } = storm;
    drop(crew);
    let late = verify::judge(&board.evidence)?;
    board.violations.merge(late);
    let report = StormReport::new(flags, &board, steps, phases, flags.pid.map(|_| footprint));
    report.write(flags.json.as_deref())?;
    print!("{report}");
    Ok(report.exit_code())
}

fn configs(flags: &StormFlags, tag: &str) -> anyhow::Result<Vec<WorkerConfig>> {
    let endpoint = Endpoint { read_buffer_bytes: READ_BUFFER_BYTES, ..endpoint(&flags.node.url)? };
    let secret = Signer::read_secret(&flags.node.secret())?;
    let is_here = matches!(endpoint.address.ip(), IpAddr::V4(address) if address.is_loopback());
    let mut random = Random::from_system()?;
    let workers = 1 + workers(flags.users);
    let config = |worker| {
        let [.., network, subnet] = (random.next() as u32).to_be_bytes();
        WorkerConfig {
            worker,
            workers,
            endpoint: endpoint.clone(),
            secret: secret.clone(),
            tag: tag.to_owned(),
            users: flags.established + flags.users,
            crowd: flags.users,
            // Not in the network of the usual 127.0.0.1.
            network: (is_here && worker > 0).then_some([127, network.max(1), subnet]),
            // A storm is of those who come and go: what they write stays as it was written.
            mix: Mix { amend_weight: 0, ..Mix::default() },
            load: Load {
                messages_per_second: flags.rate,
                seconds: SCHEDULE_SECONDS,
                payload_bytes: LETTER_BYTES_MIN.max(128),
            },
            forms: Forms::Mixed,
            history: None,
        }
    };
    Ok((0..workers).map(config).collect())
}

/// Who is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    All,
    Crowd,
    Established,
}

struct Storm<'a> {
    flags: &'a StormFlags,
    crew: Crew,
    board: Board,
    /// Of the schedule.
    start: Moment,
    steps: Vec<StepReport>,
    phases: Vec<PhaseReport>,
    footprint: Footprint,
    probed: Moment,
}

impl Storm<'_> {
    fn play(&mut self) -> anyhow::Result<()> {
        let StormFlags { users, backlog, .. } = *self.flags;
        let at_once = self.flags.at_once.div_ceil(self.crew.count() - 1);
        self.begin()?;
        self.phase("calm", |storm| storm.wait(CALM))?;
        self.footprint.before = self.resident()?;
        self.say(&format!("{users} users connect"));
        self.phase("connect", |storm| {
            let step = Step::Gather { from: Moment::now().after(START_NOTICE), at_once };
            storm.step("connect", Whom::Crowd, step)
        })?;
        self.phase("rooms", |storm| {
            storm.step("rooms", Whom::Established, Step::OpenHalls)?;
            storm.step("mark", Whom::Crowd, Step::Mark)
        })?;
        self.phase("calm, all there", |storm| storm.wait(CALM))?;
        self.footprint.held = self.resident()?;
        self.say(&format!("{users} users are dropped"));
        self.phase("drop", |storm| storm.step("drop", Whom::Crowd, Step::Part(Parting::Drop)))?;
        self.say("messages for those who are away");
        let each = backlog;
        self.phase("backlog", |storm| storm.step("backlog", Whom::Established, Step::Backlog { each }))?;
        self.phase("calm, all away", |storm| storm.wait(CALM))?;
        self.footprint.away = self.resident()?;
        self.footprint.peak = self.footprint.away;
        self.say(&format!("{users} users come back"));
        self.phase("return", |storm| {
            let step = Step::Gather { from: Moment::now().after(START_NOTICE), at_once };
            storm.step("return", Whom::Crowd, step)
        })?;
        self.phase("calm, all back", |storm| storm.wait(CALM))?;
        self.end()
    }

    /// Those who chat come online, their rooms are made, the schedule starts.
    fn begin(&mut self) -> anyhow::Result<()> {
        let StormFlags { established, rate, .. } = *self.flags;
        self.say(&format!("{established} users begin, {rate} messages a second"));
        let at_once = self.flags.at_once;
        self.step("begin", Whom::Established, Step::Gather { from: Moment::now(), at_once })?;
        self.step("begin", Whom::Established, Step::Open)?;
        self.step("begin", Whom::Established, Step::Mark)?;
        self.start = Moment::now().after(START_NOTICE);
        self.step("begin", Whom::Established, Step::Start { at: self.start })?;
        self.steps.clear();
        self.wait(START_NOTICE)
    }

    /// Everybody has to have seen everything; then the crowd leaves, and the logs are read.
    fn end(&mut self) -> anyhow::Result<()> {
        self.say("everybody leaves when all was seen");
        self.phase("close", |storm| storm.step("close", Whom::Crowd, Step::Part(Parting::Close)))?;
        self.phase("calm, all gone", |storm| storm.wait(CALM))?;
        self.step("end", Whom::All, Step::Stop)?;
        let heads = ToWorker::Until { heads: self.board.heads() };
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

    fn say(&self, text: &str) {
        self.board.progress.say(text);
    }

    fn resident(&self) -> anyhow::Result<u64> {
        self.flags.pid.map_or(Ok(0), |pid| resident_bytes(&pid.to_string()))
    }

    /// What the others had to bear while `act` went on.
    fn phase(
        &mut self,
        name: &'static str,
        act: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let second = |storm: &Self| Moment::now().since(storm.start).as_secs();
        let cpu = |storm: &Self| storm.flags.pid.map(Reading::take).transpose();
        let (first, from, before) = (second(self), Moment::now(), cpu(self)?);
        act(self)?;
        let (last, took, after) = (second(self), Moment::now().since(from), cpu(self)?);
        let node_cpu = before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
        self.phases.push(PhaseReport::new(name, first..=last, took, node_cpu));
        Ok(())
    }

    /// Has workers do something, until all have; then adds up how it went.
    fn step(&mut self, name: &'static str, whom: Whom, step: Step) -> anyhow::Result<()> {
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
            ensure!(Moment::now() < deadline, "the step `{name}` of a storm did not end");
            match self.listen()? {
                Some((_, FromWorker::Stepped { last, missing, took })) => {
                    open -= 1;
                    all_missing += missing;
                    end = end.max(last);
                    all.merge(&took);
                }
                Some((place, message)) => self.crew.handle(place, message, &mut self.board)?,
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

    fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        let deadline = Moment::now().after(time);
        while Moment::now() < deadline {
            if let Some((place, message)) = self.listen()? {
                self.crew.handle(place, message, &mut self.board)?;
            }
        }
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
