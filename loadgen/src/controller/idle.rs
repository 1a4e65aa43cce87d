//! `loadgen idle`: users come, stay, and leave, and what each of them costs is read meanwhile.
//!
//! ```text
//!  read -> connect -> settle, read ---- hold ----> read -> leave -> settle, read      (as often as there are rounds)
//! ```

use std::{collections::BTreeMap, io::Write, net::IpAddr, process::ExitCode, thread, time::Duration};

use anyhow::ensure;

use super::{Costs, crew::Crew, endpoint};
use crate::{
    cli::{IdleFlags, check_writable},
    client::{Endpoint, Signer},
    clock::Moment,
    host::Reading,
    latency::Latencies,
    link::{ADDRESS_CONNECTIONS, FromWorker, IdleConfig, IdleCounts, IdleTick, Order, ToWorker},
    random::Random,
    report::{Bounds, Floor, IdleReport, IdleRound, IdleSecond},
    worker::workers_for,
};

/// From the start of the workers until the first user comes.
const START_NOTICE: Duration = Duration::from_secs(1);
/// How long users may take beyond what their number takes at the rate.
const PHASE_WAIT_MAX: Duration = Duration::from_secs(60);
/// After everybody has come or left: what the node puts off for a second is done.
const SETTLE_WAIT: Duration = Duration::from_secs(3);
/// Of a user's codec: it holds a ping's answer.
const READ_BUFFER_BYTES: usize = 256;
/// What one point of the page stands for, at least: workers tell once a second.
const SECOND: Duration = Duration::from_secs(1);
/// How often it is said how far things are.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// `loadgen idle`.
pub(crate) fn idle(flags: &IdleFlags) -> anyhow::Result<ExitCode> {
    let secret = Signer::read_secret(&flags.node.secret())?;
    let endpoint = Endpoint { read_buffer_bytes: READ_BUFFER_BYTES, ..endpoint(&flags.node.url)? };
    let floor = Floor::find(&flags.floor)?;
    [&flags.json, &flags.html].into_iter().flatten().try_for_each(|path| check_writable(path))?;
    Bounds::new(&flags.limit).check(flags.pid)?;
    let mut random = Random::from_system()?;
    let (mut rounds, begun) = (Vec::new(), Moment::now());
    // The same users come again: new ones would be new to the node's index as well, which is not what a connection costs.
    let tag = format!("idle{:08x}", random.next() as u32);
    for number in 1..=flags.rounds {
        let mut orders = Vec::new();
        for worker in 0..workers_for(flags.connections) {
            orders.push(IdleConfig {
                worker,
                workers: workers_for(flags.connections),
                endpoint: endpoint.clone(),
                sources: sources(&endpoint, flags.connections, &mut random),
                secret: secret.clone(),
                tag: tag.clone(),
                users: flags.connections,
                connects_per_second: flags.rate,
                start: Moment::now().after(START_NOTICE),
            });
        }
        say(&format!("round {number}: {} users connect to {}", flags.connections, endpoint.host));
        rounds.push(Round::new(flags, orders.len(), begun).play(orders)?);
    }
    let report = IdleReport::new(flags, workers_for(flags.connections), rounds, floor.as_ref());
    // A reader that has gone away does not change the verdict.
    let _ = write!(std::io::stdout(), "{report}");
    report.write(flags.json.as_deref(), flags.html.as_deref())?;
    Ok(report.exit_code())
}

/// On this machine, addresses of its own for each worker and each round, so that their ports are free. Elsewhere the system
/// knows best.
fn sources(endpoint: &Endpoint, users: u32, random: &mut Random) -> Vec<IpAddr> {
    let Some([first, second, third]) = endpoint.own_network(random) else { return Vec::new() };
    let count = users.div_ceil(workers_for(users)).div_ceil(ADDRESS_CONNECTIONS) as u8;
    (1..=count).map(|host| IpAddr::from([first, second, third, host])).collect()
}

fn sum<'a, K: Ord + Clone + 'a>(parts: impl Iterator<Item = &'a BTreeMap<K, u64>>) -> BTreeMap<K, u64> {
    let mut all = BTreeMap::new();
    for (key, count) in parts.flatten() {
        *all.entry(key.clone()).or_default() += count;
    }
    all
}

fn say(text: &str) {
    eprintln!("loadgen: {text}");
}

/// One round, while it goes.
struct Round<'a> {
    flags: &'a IdleFlags,
    /// By worker, the newest.
    ticks: Vec<IdleTick>,
    pongs: Latencies,
    lag: Latencies,
    left: usize,
    said: Moment,
    /// When the first round began.
    begun: Moment,
    costs: Costs,
    /// Of the second that goes on.
    pongs_now: Latencies,
    second_ends: Moment,
    timeline: Vec<IdleSecond>,
}

impl<'a> Round<'a> {
    fn new(flags: &'a IdleFlags, workers: usize, begun: Moment) -> Self {
        Self {
            flags,
            ticks: vec![IdleTick::default(); workers],
            pongs: Latencies::default(),
            lag: Latencies::default(),
            left: 0,
            said: Moment::now(),
            begun,
            costs: Costs::of_process(flags.pid),
            pongs_now: Latencies::default(),
            second_ends: Moment::now().after(SECOND),
            timeline: Vec::new(),
        }
    }

    fn play(mut self, orders: Vec<IdleConfig>) -> anyhow::Result<IdleRound> {
        let &IdleFlags { connections, seconds, rate, pid, .. } = self.flags;
        let read = || pid.map(Reading::take).transpose();
        let (users, workers) = (u64::from(connections), orders.len());
        let start = orders[0].start;
        let before = read()?;
        let orders: Vec<_> = orders.into_iter().map(Order::Idle).collect();
        let mut crew = Crew::start(&orders)?;
        self.costs.begin(crew.processes());
        let all = Duration::from_secs(1) * connections / rate;
        self.listen(&mut crew, start.after(all + PHASE_WAIT_MAX), |round| {
            let IdleCounts { welcomed, refused, .. } = round.counts();
            welcomed + refused >= users
        })?;
        let (welcomed, errors) = (self.counts().welcomed, sum(self.ticks.iter().map(|tick| &tick.errors)));
        ensure!(welcomed > 0, "nobody is online: {errors:?}; is a node there, and is this its key?");
        let connected = self.ticks.iter().map(|tick| tick.last_welcome).max().unwrap_or_default();
        self.listen(&mut crew, Moment::now().after(SETTLE_WAIT), |_| false)?;
        say(&format!("{} users are online for {seconds} s", self.counts().welcomed));
        let (held, pings) = (read()?, self.counts().pings);
        self.listen(&mut crew, Moment::now().after(Duration::from_secs(seconds.into())), |_| false)?;
        let (kept, pings) = (read()?, self.counts().pings - pings);
        let generator_bytes = self.ticks.iter().map(|tick| tick.resident_bytes).sum();
        say("the users leave");
        crew.tell_all(&ToWorker::Finish)?;
        self.listen(&mut crew, Moment::now().after(all + PHASE_WAIT_MAX), |round| round.left == workers)?;
        ensure!(self.left == workers, "the workers did not end");
        drop(crew);
        thread::sleep(SETTLE_WAIT);
        Ok(IdleRound {
            counts: self.counts(),
            connect: connected.since(start),
            pings_held: pings,
            before,
            held,
            kept,
            after: read()?,
            generator_bytes,
            pong: self.pongs.summary(),
            lag: self.lag.summary(),
            errors: sum(self.ticks.iter().map(|tick| &tick.errors)),
            closes: sum(self.ticks.iter().map(|tick| &tick.closes)),
            fault: self.ticks.iter().find_map(|tick| tick.fault.clone()),
            timeline: self.timeline,
        })
    }

    fn counts(&self) -> IdleCounts {
        let mut counts = IdleCounts::default();
        self.ticks.iter().for_each(|tick| counts.add(&tick.counts));
        counts
    }

    /// Takes what workers say until it is enough or time is over.
    fn listen(
        &mut self,
        crew: &mut Crew,
        deadline: Moment,
        is_enough: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        while !is_enough(self) {
            match crew.next(deadline)? {
                None => break,
                Some((place, FromWorker::Idle(tick))) => {
                    self.pongs.merge(&tick.pongs);
                    self.pongs_now.merge(&tick.pongs);
                    self.lag.merge(&tick.lag);
                    self.ticks[place] = *tick;
                    self.end_second();
                    self.say_how_it_goes();
                }
                Some((_, FromWorker::Left)) => self.left += 1,
                Some((_, _)) => {}
            }
        }
        Ok(())
    }

    fn online(&self) -> u64 {
        let IdleCounts { welcomed, lost, left, .. } = self.counts();
        welcomed.saturating_sub(lost + left)
    }

    /// A second is over, or more: every worker has said something since.
    fn end_second(&mut self) {
        let now = Moment::now();
        if now < self.second_ends {
            return;
        }
        self.second_ends = now.after(SECOND);
        let (at, online, cost) = (now.since(self.begun), self.online(), self.costs.take());
        let [pong_p50_ms, pong_p99_ms] = [50.0, 99.0].map(|rank| self.pongs_now.percentile_ms(rank));
        self.pongs_now = Latencies::default();
        let at_seconds = (at.as_secs_f64() * 10.0).round() / 10.0;
        self.timeline.push(IdleSecond { at_seconds, online, pong_p50_ms, pong_p99_ms, cost });
    }

    fn say_how_it_goes(&mut self) {
        if Moment::now().since(self.said) >= SAY_EVERY {
            self.said = Moment::now();
            let (IdleCounts { refused, lost, pings, pongs, .. }, online) = (self.counts(), self.online());
            say(&format!("{online} online, {refused} refused, {lost} lost, {pings} pings, {pongs} pongs"));
        }
    }
}
