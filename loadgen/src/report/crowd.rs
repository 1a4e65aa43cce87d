//! What was seen of a crowd, of a storm or of slow readers: each step, what the others had to bear meanwhile, and the verdict with its reasons.

use std::{
    collections::BTreeMap, fmt, fs, ops::RangeInclusive, path::Path, process::ExitCode, time::Duration,
};

use anyhow::Context;
use serde::Serialize;

use super::{Floor, Machine, Multiples, Verdict, floor};
use crate::{
    cli::CrowdFlags,
    controller::{Board, Played},
    latency::{Latencies, Summary},
    link::Counts,
    verify::Violations,
};

/// How late the generator may be, in milliseconds: it works for the crowd on the same cores.
const LAG_P99_MAX_MS: f64 = 100.0;
pub(super) const MIB: f64 = 1024.0 * 1024.0;

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

/// What every report of a crowd has.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CrowdReport {
    tool: &'static str,
    version: &'static str,
    command: String,
    machine: Machine,
    pub(super) users: u32,
    pub(super) established: u32,
    pub(super) rate: u32,
    is_timed: bool,
    pub(super) verdict: Verdict,
    pub(super) reasons: Vec<String>,
    steps: Vec<StepReport>,
    pub(super) phases: Vec<PhaseReport>,
    pub(super) counts: Counts,
    errors: BTreeMap<String, u64>,
    pub(super) closes: BTreeMap<u16, u64>,
    violations: Violations,
    is_drained: bool,
    /// Conversations that could not be read at the end.
    logs_missing: usize,
    pub(super) node: Option<Footprint>,
    /// What the others had, as multiples of what the bare machine can do, where that is known.
    multiples: Option<Multiples>,
}

impl CrowdReport {
    /// Without a verdict.
    pub(super) fn new(flags: &CrowdFlags, played: Played) -> Self {
        let Played { board, steps, mut phases, node, floor } = played;
        phases.iter_mut().for_each(|phase| phase.fill(&board));
        let multiples = floor.map(|floor| multiples(&phases, &floor));
        Self {
            tool: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::this(),
            users: flags.users,
            established: flags.established,
            rate: flags.rate,
            is_timed: !flags.no_timing,
            verdict: Verdict::Pass,
            reasons: Vec::new(),
            steps,
            phases,
            counts: board.counts,
            errors: board.errors,
            closes: board.closes,
            violations: board.violations,
            is_drained: board.counts.undrained == 0,
            logs_missing: board.plan.rooms_count() as usize - board.evidence.logs.len(),
            node,
            multiples,
        }
    }

    /// What is wrong counts whoever was late. Times count only when the generator was not.
    /// `more_faults` and `slow` are what this kind of crowd asks for.
    pub(super) fn decide(&mut self, more_faults: Vec<String>, slow: Vec<String>) {
        (self.verdict, self.reasons) = self.judge(more_faults, slow);
    }

    fn judge(&self, more_faults: Vec<String>, slow: Vec<String>) -> (Verdict, Vec<String>) {
        let mut faults = self.faults();
        faults.extend(more_faults);
        if !self.is_timed {
            return (if faults.is_empty() { Verdict::Pass } else { Verdict::Fail }, faults);
        }
        let late = self.phases.iter().filter(|phase| phase.lag.p99_ms > LAG_P99_MAX_MS);
        let late: Vec<_> = late
            .map(|phase| {
                format!("the generator was late in `{}`: lag p99 {:.0} ms", phase.name, phase.lag.p99_ms)
            })
            .collect();
        Verdict::with_reasons(faults, late, slow)
    }

    /// What is wrong, whatever the times were.
    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.violations.counts.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
        let mut add = |wrong: bool, text: String| faults.extend(wrong.then_some(text));
        for StepReport { name, missing, .. } in &self.steps {
            add(*missing > 0, format!("{missing} users were not done with `{name}`"));
        }
        let Counts { due, sent, refused, unanswered, given_up, stopped, online_at_end, .. } = self.counts;
        let away = u64::from(self.users + self.established).saturating_sub(online_at_end);
        add(refused > 0, format!("{refused} sends were refused"));
        add(unanswered > 0, format!("{unanswered} sends were never answered"));
        let unsent = due.saturating_sub(sent + given_up);
        add(unsent > 0, format!("{unsent} messages that were due were neither sent nor given up"));
        add(given_up > 0, format!("{given_up} sends were given up"));
        add(stopped > 0, format!("{stopped} users were told not to come back"));
        add(away > 0, format!("{away} users were not there to the end"));
        add(self.logs_missing > 0, format!("{} conversations could not be read", self.logs_missing));
        add(!self.is_drained, "not everybody had seen everything in time".to_owned());
        faults
    }

    pub(super) fn step(&self, name: &str) -> &StepReport {
        self.steps.iter().find(|step| step.name == name).expect("it was played")
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        self.verdict.exit_code()
    }

    pub(super) fn phase(&self, name: &str) -> &PhaseReport {
        self.phases.iter().find(|phase| phase.name == name).expect("it was played")
    }

    /// What was received, and by how many connections.
    pub(super) fn write_received(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { received, replayed, connections, dial_failures, .. } = self.counts;
        writeln!(
            f,
            "received   {received} records, {replayed} of them again; {connections} connections, \
             {dial_failures} failed; errors {:?}, closes {:?}",
            self.errors, self.closes
        )
    }

    /// What the others had to bear.
    pub(super) fn write_phases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        Ok(())
    }

    /// What was wrong, and what follows.
    pub(super) fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        floor::write(f, self.multiples.as_ref())?;
        for violation in &self.violations.first {
            writeln!(f, "wrong      {}: {}", violation.kind, violation.detail)?;
        }
        for reason in &self.reasons {
            writeln!(f, "because    {reason}")?;
        }
        writeln!(f, "verdict    {}", self.verdict)
    }
}

fn multiples(phases: &[PhaseReport], floor: &Floor) -> Multiples {
    let mut multiples = Multiples::default();
    for PhaseReport { name, delivery, .. } in phases {
        multiples.latency(name, *delivery, floor);
    }
    multiples
}

/// The file that was asked for.
pub(super) fn write_json(report: &impl Serialize, json: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)? + "\n";
    fs::write(path, text).with_context(|| format!("{}: could not be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> CrowdReport {
        let counts = Counts { due: 10, sent: 10, acked: 10, online_at_end: 2, ..Counts::default() };
        CrowdReport {
            tool: "",
            version: "",
            command: String::new(),
            machine: Machine::this(),
            users: 2,
            established: 0,
            rate: 1,
            is_timed: false,
            verdict: Verdict::Pass,
            reasons: Vec::new(),
            steps: Vec::new(),
            phases: Vec::new(),
            counts,
            errors: BTreeMap::new(),
            closes: BTreeMap::new(),
            violations: Violations::default(),
            is_drained: true,
            logs_missing: 0,
            node: None,
            multiples: None,
        }
    }

    #[test]
    fn a_message_that_was_neither_sent_nor_given_up_is_a_fault_of_a_crowd() {
        let mut report = sound();
        report.decide(Vec::new(), Vec::new());
        assert_eq!((report.verdict, report.reasons.len()), (Verdict::Pass, 0), "{:?}", report.reasons);
        report.counts.sent = 9;
        report.decide(Vec::new(), Vec::new());
        assert_eq!(report.verdict, Verdict::Fail);
        assert_eq!(report.reasons, ["1 messages that were due were neither sent nor given up"]);
    }

    #[test]
    fn a_crowd_whose_generator_was_late_is_told_what_was_too_slow_as_well() {
        let mut report = CrowdReport { is_timed: true, ..sound() };
        let mut phase = PhaseReport::new("calm", 0..=1, Duration::ZERO, None);
        phase.lag.p99_ms = LAG_P99_MAX_MS + 1.0;
        report.phases.push(phase);
        report.decide(Vec::new(), vec!["slow".to_owned()]);
        assert_eq!((report.verdict, report.reasons.len()), (Verdict::Invalid, 2), "{:?}", report.reasons);
        assert!(
            report.reasons[0].starts_with("the generator was late in `calm`") && report.reasons[1] == "slow"
        );
        report.decide(vec!["wrong".to_owned()], vec!["slow".to_owned()]);
        assert_eq!((report.verdict, report.reasons.len()), (Verdict::Fail, 3), "{:?}", report.reasons);
    }
}
