//! How a storm went: each step, what the others had to bear meanwhile, and the verdict with its reasons.

use std::{
    collections::BTreeMap, fmt, fs, ops::RangeInclusive, path::Path, process::ExitCode, time::Duration,
};

use anyhow::Context;
use serde::Serialize;

use super::{Machine, P99_MAX_MS, Verdict};
use crate::{
    cli::StormFlags,
    controller::Board,
    latency::{Latencies, Summary},
    link::Counts,
    verify::Violations,
};

/// Users that a node lets in in a second: what is asked of it.
const CONNECTS_PER_SECOND_MIN: f64 = 8_000.0;
/// The times for so many users; fewer get less, but never less than a second or five.
const USERS: f64 = 100_000.0;
const RETURN_MAX: Duration = Duration::from_secs(60);
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Longest time that a message of the others may take while a crowd leaves, in milliseconds.
const CLOSE_STALL_MAX_MS: f64 = 50.0;
/// What the node may grow by while everybody comes back, as a multiple of what it takes to hold them.
const RESIDENT_TIMES_MAX: f64 = 1.5;
/// How late the generator may be, in milliseconds: it works for the crowd on the same cores.
const LAG_P99_MAX_MS: f64 = 100.0;
const MIB: f64 = 1024.0 * 1024.0;

/// Resident memory of the node, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Footprint {
    /// Without the crowd.
    pub(crate) before: u64,
    /// With all of it, at rest.
    pub(crate) held: u64,
    /// With nobody of it, and what it missed in the log.
    pub(crate) away: u64,
    /// At most, since everybody came back.
    pub(crate) peak: u64,
}

/// One thing that the crowd was made to do.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StepReport {
    pub(crate) name: &'static str,
    /// Users that were not done in time.
    pub(crate) missing: u32,
    /// Until the last user was done.
    pub(crate) took: Duration,
    /// Of each user, since all began.
    pub(crate) each: Summary,
}

/// What the others had to bear for a time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseReport {
    pub(crate) name: &'static str,
    /// Of the schedule.
    pub(crate) seconds: RangeInclusive<u64>,
    pub(crate) took: Duration,
    /// Of the node, where it was measured.
    pub(crate) node_cpu: Option<Duration>,
    pub(crate) delivery: Summary,
    /// How late messages were sent.
    pub(crate) lag: Summary,
}

impl PhaseReport {
    /// Without the latencies, which come in a second later.
    pub(crate) fn new(
        name: &'static str,
        seconds: RangeInclusive<u64>,
        took: Duration,
        node_cpu: Option<Duration>,
    ) -> Self {
        Self { name, seconds, took, node_cpu, delivery: Summary::default(), lag: Summary::default() }
    }

    fn fill(&mut self, board: &Board) {
        let (mut delivery, mut lag) = (Latencies::default(), Latencies::default());
        for (_, second) in board.seconds.range(self.seconds.clone()) {
            delivery.merge(&second.delivery.buckets());
            lag.merge(&second.lag.buckets());
        }
        (self.delivery, self.lag) = (delivery.summary(), lag.summary());
    }
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StormReport {
    tool: &'static str,
    version: &'static str,
    command: String,
    machine: Machine,
    users: u32,
    established: u32,
    rate: u32,
    at_once: u32,
    backlog: u32,
    is_timed: bool,
    verdict: Verdict,
    reasons: Vec<String>,
    steps: Vec<StepReport>,
    phases: Vec<PhaseReport>,
    counts: Counts,
    errors: BTreeMap<String, u64>,
    closes: BTreeMap<u16, u64>,
    violations: Violations,
    is_drained: bool,
    /// Conversations that could not be read at the end.
    logs_missing: usize,
    node: Option<Footprint>,
}

impl StormReport {
    pub(crate) fn new(
        flags: &StormFlags,
        board: &Board,
        steps: Vec<StepReport>,
        mut phases: Vec<PhaseReport>,
        node: Option<Footprint>,
    ) -> Self {
        phases.iter_mut().for_each(|phase| phase.fill(board));
        let mut report = Self {
            tool: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::this(),
            users: flags.users,
            established: flags.established,
            rate: flags.rate,
            at_once: flags.at_once,
            backlog: flags.backlog,
            is_timed: !flags.no_timing,
            verdict: Verdict::Pass,
            reasons: Vec::new(),
            steps,
            phases,
            counts: board.counts,
            errors: board.errors.clone(),
            closes: board.closes.clone(),
            violations: board.violations.clone(),
            is_drained: board.is_drained,
            logs_missing: board.plan.rooms.len() - board.evidence.logs.len(),
            node,
        };
        (report.verdict, report.reasons) = report.decide();
        report
    }

    /// What is wrong counts whoever was late. Times count only when the generator was not.
    fn decide(&self) -> (Verdict, Vec<String>) {
        let faults = self.faults();
        if !faults.is_empty() {
            return (Verdict::Fail, faults);
        }
        if !self.is_timed {
            return (Verdict::Pass, Vec::new());
        }
        let late = self.phases.iter().filter(|phase| phase.lag.p99_ms > LAG_P99_MAX_MS);
        let late: Vec<_> = late
            .map(|phase| {
                format!("the generator was late in `{}`: lag p99 {:.0} ms", phase.name, phase.lag.p99_ms)
            })
            .collect();
        if !late.is_empty() {
            return (Verdict::Invalid, late);
        }
        let slow = self.slow();
        (if slow.is_empty() { Verdict::Pass } else { Verdict::Fail }, slow)
    }

    /// What is wrong, whatever the times were.
    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.violations.counts.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
        let mut add = |wrong: bool, text: String| faults.extend(wrong.then_some(text));
        for StepReport { name, missing, .. } in &self.steps {
            add(*missing > 0, format!("{missing} users were not done with `{name}`"));
        }
        let Counts { refused, unanswered, given_up, stopped, online_at_end, .. } = self.counts;
        let away = u64::from(self.users + self.established).saturating_sub(online_at_end);
        add(refused > 0, format!("{refused} sends were refused"));
        add(unanswered > 0, format!("{unanswered} sends were never answered"));
        add(given_up > 0, format!("{given_up} sends were given up"));
        add(stopped > 0, format!("{stopped} users were told not to come back"));
        add(away > 0, format!("{away} users were not there to the end"));
        add(self.logs_missing > 0, format!("{} conversations could not be read", self.logs_missing));
        add(!self.is_drained, "not everybody had seen everything in time".to_owned());
        faults
    }

    /// What took too long, or too much.
    fn slow(&self) -> Vec<String> {
        let mut slow = Vec::new();
        let mut add = |wrong: bool, text: String| slow.extend(wrong.then_some(text));
        let share = f64::from(self.users) / USERS;
        let connect_max = Duration::from_secs_f64(f64::from(self.users) / CONNECTS_PER_SECOND_MIN);
        for (name, max) in [
            ("connect", connect_max.max(Duration::from_secs(1))),
            ("return", RETURN_MAX.mul_f64(share).max(Duration::from_secs(5))),
            ("drop", CLOSE_MAX.mul_f64(share).max(Duration::from_secs(1))),
            ("close", CLOSE_MAX.mul_f64(share).max(Duration::from_secs(1))),
        ] {
            let took = self.step(name).took;
            add(took > max, format!("`{name}` took {took:.1?}, at most {max:.1?} are asked"));
        }
        for phase in &self.phases {
            let (name, Summary { p99_ms, max_ms, .. }) = (phase.name, phase.delivery);
            add(
                p99_ms >= P99_MAX_MS,
                format!("delivery p99 {p99_ms:.1} ms in `{name}`, below {P99_MAX_MS} ms"),
            );
            let is_leaving = ["drop", "close"].contains(&name);
            let text = format!("a delivery took {max_ms:.1} ms in `{name}`, at most {CLOSE_STALL_MAX_MS} ms");
            add(is_leaving && max_ms > CLOSE_STALL_MAX_MS, text);
        }
        if let Some(node) = self.node {
            let times = node.peak as f64 / node.held.max(1) as f64;
            add(times > RESIDENT_TIMES_MAX, format!("the node grew to {times:.2} times what it took before"));
        }
        slow
    }

    fn step(&self, name: &str) -> &StepReport {
        self.steps.iter().find(|step| step.name == name).expect("every storm has all steps")
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        self.verdict.exit_code()
    }

    /// The file that was asked for.
    pub(crate) fn write(&self, json: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = json else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("{}: could not be written", path.display()))
    }
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, established, rate, at_once, .. } = self;
        writeln!(
            f,
            "load       {users} users, {at_once} at once, beside {established} who send {rate} messages a second"
        )?;
        for name in ["connect", "drop", "return", "close"] {
            let StepReport { took, each, .. } = self.step(name);
            let seconds = took.as_secs_f64();
            let (half, most) = (each.p50_ms / 1000.0, each.p99_ms / 1000.0);
            let rate = each.count as f64 / seconds.max(1e-9);
            writeln!(
                f,
                "{name:<10} {} users in {seconds:.2} s: {rate:.0} a second; half after {half:.2}, 99 % after {most:.2} s",
                each.count
            )?;
        }
        let Counts { received, replayed, connections, dial_failures, .. } = self.counts;
        writeln!(
            f,
            "received   {received} records, {replayed} of them again; {connections} connections, \
             {dial_failures} failed; errors {:?}, closes {:?}",
            self.errors, self.closes
        )?;
        writeln!(f, "others     seconds  delivery p50 / p99 / max ms     lag p99 / max ms   node's cores")?;
        for PhaseReport { name, took, node_cpu, delivery, lag, .. } in &self.phases {
            let cores = node_cpu.map_or(0.0, |cpu| cpu.as_secs_f64() / took.as_secs_f64().max(1e-9));
            writeln!(
                f,
                "  {name:<15}{:>5.1} {:>9.1} / {:>6.1} / {:>7.1} {:>10.1} / {:>7.1} {cores:>10.2}",
                took.as_secs_f64(),
                delivery.p50_ms,
                delivery.p99_ms,
                delivery.max_ms,
                lag.p99_ms,
                lag.max_ms,
            )?;
        }
        if let Some(Footprint { before, held, away, peak }) = self.node {
            let [before, held, away, peak] = [before, held, away, peak].map(|bytes| bytes as f64 / MIB);
            writeln!(
                f,
                "node       RSS {before:.0} MiB before, {held:.0} with all, {away:.0} with all away, {peak:.0} at most: \
                 {:.2} times",
                peak / held.max(1.0)
            )?;
        }
        for violation in &self.violations.first {
            writeln!(f, "wrong      {}: {}", violation.kind, violation.detail)?;
        }
        for reason in &self.reasons {
            writeln!(f, "because    {reason}")?;
        }
        writeln!(f, "verdict    {}", self.verdict)
    }
}
