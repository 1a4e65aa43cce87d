//! What was seen of a crowd, of a storm or of slow readers: each step, what the others had to bear meanwhile, and the verdict with its reasons.

use std::{
    collections::BTreeMap, fmt, fs, ops::RangeInclusive, path::Path, process::ExitCode, time::Duration,
};

use anyhow::Context;
use serde::Serialize;

use super::{
    Floor, GoneReport, Multiples, Origin, SecondReport, Verdict, bounds::Found, timeline, write_floor,
};
use crate::{
    cli::CrowdFlags,
    controller::{Board, Played, Second},
    latency::{Latencies, Summary},
    link::Counts,
    verify::Violations,
};

/// How late the generator may be, in milliseconds: it works for the crowd on the same cores.
const LAG_P99_MAX_MS: f64 = 100.0;
/// Messages that are due in a part of which it is asked that something was delivered: of fewer all may fall beside it.
const DUE_MIN: u64 = 20;
pub(super) const MIB: f64 = 1024.0 * 1024.0;

/// Parts in which nobody comes or goes, and nobody else is there or all of them are sent messages: what the node does is for records.
const CHATTING: [&str; 6] = ["calm", "alone", "reading", "stalled", "slow", "reading again"];

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

impl StepReport {
    /// Users that were done.
    pub(super) fn per_second(&self) -> f64 {
        self.each.count as f64 / self.took.as_secs_f64().max(1e-9)
    }
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
    /// Of the whole seconds in it, where the node was measured.
    traffic: Option<Traffic>,
    pub(crate) delivery: Summary,
    /// How late messages were sent.
    pub(crate) lag: Summary,
}

/// What the node did for records, and what that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Traffic {
    node_seconds: f64,
    stored: u64,
    /// By all clients.
    received: u64,
}

impl Traffic {
    /// `None` where one of the seconds was not measured.
    fn of<'a>(seconds: impl Iterator<Item = &'a Second>) -> Option<Self> {
        let mut all = Self::default();
        for Second { tick, cost, .. } in seconds {
            all.node_seconds += cost.node_cores?;
            all.stored += tick.stored;
            all.received += tick.received;
        }
        (all.received > 0).then_some(all)
    }

    fn micros_a_record(&self) -> f64 {
        self.node_seconds * 1e6 / self.received as f64
    }
}

impl PhaseReport {
    /// Without the latencies, which come in a second later.
    pub(crate) fn new(
        name: &'static str,
        seconds: RangeInclusive<u64>,
        took: Duration,
        node_cpu: Option<Duration>,
    ) -> Self {
        let (traffic, delivery, lag) = (None, Summary::default(), Summary::default());
        Self { name, seconds, took, node_cpu, traffic, delivery, lag }
    }

    /// That it was at work on, where it was measured.
    pub(super) fn node_cores(&self) -> Option<f64> {
        Some(self.node_cpu?.as_secs_f64() / self.took.as_secs_f64().max(1e-9))
    }

    fn fill(&mut self, board: &Board) {
        let (mut delivery, mut lag) = (Latencies::default(), Latencies::default());
        for (_, second) in board.seconds.range(self.seconds.clone()) {
            delivery.merge(&second.delivery.buckets());
            lag.merge(&second.lag.buckets());
        }
        (self.delivery, self.lag) = (delivery.summary(), lag.summary());
        // Of the first and the last second a part is of other phases.
        let whole = (self.seconds.start() + 1)..(*self.seconds.end()).max(self.seconds.start() + 1);
        self.traffic = Traffic::of(board.seconds.range(whole).map(|(_, second)| second));
    }
}

/// What every report of a crowd has.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CrowdReport {
    #[serde(flatten)]
    pub(super) origin: Origin,
    pub(super) users: u32,
    pub(super) established: u32,
    pub(super) rate: u32,
    workers: u32,
    is_timed: bool,
    pub(super) verdict: Verdict,
    pub(super) reasons: Vec<String>,
    pub(super) steps: Vec<StepReport>,
    pub(super) phases: Vec<PhaseReport>,
    pub(super) counts: Counts,
    /// What of it had been counted while the node was there, when it has gone away.
    #[serde(skip)]
    confirmed: Counts,
    pub(super) gone: Option<GoneReport>,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) closes: BTreeMap<u16, u64>,
    pub(super) violations: Violations,
    /// Conversations that could not be read at the end.
    logs_missing: usize,
    pub(super) node: Option<Footprint>,
    /// What the others had, as multiples of what the bare machine can do, where that is known.
    pub(super) multiples: Option<Multiples>,
    /// Of the schedule of the others; connections are those of all.
    pub(super) timeline: Vec<SecondReport>,
}

impl CrowdReport {
    /// Without a verdict.
    pub(super) fn new(flags: &CrowdFlags, played: Played) -> Self {
        let Played { board, workers, steps, mut phases, node, floor } = played;
        phases.iter_mut().for_each(|phase| phase.fill(&board));
        let multiples = floor.map(|floor| multiples(&phases, &floor));
        Self {
            timeline: timeline(&board),
            origin: Origin::this(),
            users: flags.users,
            established: flags.established,
            rate: flags.rate,
            workers,
            is_timed: !flags.no_timing,
            verdict: Verdict::Good,
            reasons: Vec::new(),
            steps,
            phases,
            counts: board.counts,
            confirmed: board.confirmed,
            gone: board.gone,
            errors: board.errors,
            closes: board.closes,
            violations: board.violations,
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
        let (mut faults, mut doubts) = match &self.gone {
            Some(gone) => (self.faults_of_gone(), gone.doubts(&self.counts)),
            None => (self.faults(), Vec::new()),
        };
        faults.extend(more_faults);
        if !self.is_timed {
            return Verdict::with_reasons(faults, doubts, Vec::new());
        }
        let late = self.phases.iter().filter(|phase| phase.lag.p99_ms > LAG_P99_MAX_MS);
        doubts.extend(late.map(|phase| {
            format!("the generator was late in `{}`: lag p99 {:.0} ms", phase.name, phase.lag.p99_ms)
        }));
        // Nothing is faster than nothing.
        let is_due = |phase: &&PhaseReport| {
            phase.took.as_secs().saturating_mul(self.rate.into()) >= DUE_MIN && phase.delivery.count == 0
        };
        let empty = self.phases.iter().filter(is_due);
        doubts.extend(empty.map(|phase| format!("nothing was delivered in `{}`", phase.name)));
        Verdict::with_reasons(faults, doubts, slow)
    }

    /// What is wrong, whatever the times were.
    fn faults(&self) -> Vec<String> {
        let undone = self.steps.iter().filter(|step| step.missing > 0);
        let undone = undone.map(|step| format!("{} users were not done with `{}`", step.missing, step.name));
        let mut faults: Vec<String> = undone.collect();
        faults.extend(self.faults_so_far(&self.counts));
        faults.extend(self.faults_at_end(&self.counts));
        if self.logs_missing > 0 {
            faults.push(format!("{} conversations could not be read", self.logs_missing));
        }
        faults
    }

    /// What was wrong before the node went away: what it says is so whenever it says it, what it does not say only where it was there.
    fn faults_of_gone(&self) -> Vec<String> {
        let Counts { unanswered, given_up, undone, undrained, ended, .. } = self.confirmed;
        let mut faults = Vec::new();
        if undone > 0 {
            faults.push(format!("{undone} users were not done with what they were told"));
        }
        let said = Counts { unanswered, given_up, undrained, ..self.counts };
        faults.extend(self.faults_so_far(&said));
        if ended >= u64::from(self.workers) {
            faults.extend(self.faults_at_end(&self.confirmed));
        }
        faults
    }

    /// What is wrong whenever it is counted, whatever comes next.
    fn faults_so_far(&self, counts: &Counts) -> Vec<String> {
        let mut faults: Vec<String> =
            self.violations.counts.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
        let mut add = |wrong: bool, text: String| faults.extend(wrong.then_some(text));
        let Counts { refused, unanswered, given_up, stopped, undrained, others_refused, .. } = *counts;
        add(others_refused > 0, format!("{others_refused} heartbeats were refused"));
        add(refused > 0, format!("{refused} sends were refused"));
        add(unanswered > 0, format!("{unanswered} sends were never answered"));
        add(given_up > 0, format!("{given_up} sends were given up"));
        add(stopped > 0, format!("{stopped} users were told not to come back"));
        add(undrained > 0, "not everybody had seen everything in time".to_owned());
        faults
    }

    /// What is wrong when everything that was to come has.
    fn faults_at_end(&self, counts: &Counts) -> Vec<String> {
        let mut faults = Vec::new();
        let mut add = |wrong: bool, text: String| faults.extend(wrong.then_some(text));
        let Counts { due, sent, given_up, online_at_end, .. } = *counts;
        let unsent = due.saturating_sub(sent + given_up);
        add(unsent > 0, format!("{unsent} messages that were due were neither sent nor given up"));
        let away = u64::from(self.users + self.established).saturating_sub(online_at_end);
        add(away > 0, format!("{away} users were not there to the end"));
        faults
    }

    /// A step, unless the node went away before.
    pub(super) fn step(&self, name: &str) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.name == name)
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        self.verdict.exit_code()
    }

    /// Of the others, in each part.
    pub(super) fn deliveries(&self) -> Found {
        Found::Times(
            self.phases.iter().map(|phase| (format!(" in `{}`", phase.name), phase.delivery)).collect(),
        )
    }

    /// A part, unless the node went away before its end.
    pub(super) fn phase(&self, name: &str) -> Option<&PhaseReport> {
        self.phases.iter().find(|phase| phase.name == name)
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
        writeln!(
            f,
            "others     seconds  delivery p50 / p99 / max ms     lag p99 / max ms   node's cores   us a record to a client"
        )?;
        for phase in &self.phases {
            let PhaseReport { name, took, traffic, delivery, lag, .. } = phase;
            let each =
                traffic.map_or_else(|| "-".to_owned(), |traffic| format!("{:.1}", traffic.micros_a_record()));
            let cores = phase.node_cores().unwrap_or_default();
            writeln!(
                f,
                "  {name:<15}{:>5.1} {:>9.1} / {:>6.1} / {:>7.1} {:>10.1} / {:>7.1} {cores:>10.2} {each:>14}",
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
        write_floor(f, self.multiples.as_ref())?;
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
    for PhaseReport { name, traffic, .. } in phases.iter().filter(|phase| CHATTING.contains(&phase.name)) {
        if let Some(Traffic { node_seconds, stored, received }) = *traffic {
            multiples.records(&format!("{name} CPU a record"), node_seconds, (stored, received), floor);
        }
    }
    multiples
}

/// The page that was asked for.
pub(super) fn write_page(page: impl FnOnce() -> String, html: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = html else { return Ok(()) };
    fs::write(path, page()).with_context(|| format!("{}: could not be written", path.display()))
}

/// The file that was asked for.
pub(super) fn write_json(report: &impl Serialize, json: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)? + "\n";
    fs::write(path, text).with_context(|| format!("{}: could not be written", path.display()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::report) fn sound() -> CrowdReport {
        let counts = Counts { due: 10, sent: 10, acked: 10, online_at_end: 2, ..Counts::default() };
        CrowdReport {
            origin: Origin::this(),
            users: 2,
            established: 0,
            rate: 1,
            workers: 2,
            is_timed: false,
            verdict: Verdict::Good,
            reasons: Vec::new(),
            steps: Vec::new(),
            phases: Vec::new(),
            counts,
            confirmed: Counts::default(),
            gone: None,
            errors: BTreeMap::new(),
            closes: BTreeMap::new(),
            violations: Violations::default(),
            logs_missing: 0,
            node: None,
            multiples: None,
            timeline: Vec::new(),
        }
    }

    #[test]
    fn a_record_takes_what_the_node_took_in_the_whole_seconds_of_a_phase() {
        let second = |node_cores, stored, received| {
            let mut second = Second::default();
            (second.tick.stored, second.tick.received, second.cost.node_cores) =
                (stored, received, node_cores);
            second
        };
        let seconds = [second(Some(0.5), 100, 900), second(Some(0.25), 150, 600)];
        let traffic = Traffic::of(seconds.iter()).expect("measured");
        assert_eq!(traffic, Traffic { node_seconds: 0.75, stored: 250, received: 1500 });
        assert_eq!(traffic.micros_a_record(), 500.0);
        assert_eq!(Traffic::of([second(Some(0.5), 1, 1), second(None, 1, 1)].iter()), None);
        assert_eq!(Traffic::of([second(Some(0.5), 0, 0)].iter()), None);

        let floor = serde_json::json!({
            "echo_cpu_nanos": 6000.0, "send_cpu_nanos": 4000.0, "sync_p50_ms": 0.1, "sync_p99_ms": 0.2
        });
        let floor: Floor = serde_json::from_value(floor).expect("a floor");
        let phases = ["calm", "connect"].map(|name| PhaseReport {
            traffic: Some(traffic),
            ..PhaseReport::new(name, 0..=3, Duration::from_secs(3), None)
        });
        let rows: Vec<_> = multiples(&phases, &floor).rows().collect();
        let cpu: Vec<_> = rows.iter().filter(|row| row[0].contains("CPU")).collect();
        // Bare, 1500 sends and 250 receives with an answer: 7.5 ms of a core.
        assert_eq!(cpu, [&["calm CPU a record", "500.00 us", "5.00 us", "100.00"].map(str::to_owned)]);
    }

    #[test]
    fn a_message_that_was_neither_sent_nor_given_up_is_a_fault_of_a_crowd() {
        let mut report = sound();
        report.decide(Vec::new(), Vec::new());
        assert_eq!((report.verdict, report.reasons.len()), (Verdict::Good, 0), "{:?}", report.reasons);
        report.counts.sent = 9;
        report.decide(Vec::new(), Vec::new());
        assert_eq!(report.verdict, Verdict::Bad);
        assert_eq!(report.reasons, ["1 messages that were due were neither sent nor given up"]);
    }

    #[test]
    fn a_crowd_whose_node_went_away_is_bad_only_by_what_was_wrong_before() {
        let gone = GoneReport {
            from_seconds: 9.0,
            after_seconds: 20,
            acked_unseen: 0,
            logs_read: 0,
            logs_unread: 3,
        };
        let mut report = CrowdReport { gone: Some(gone), logs_missing: 3, ..sound() };
        // What comes of its going.
        report.counts = Counts { sent: 4, online_at_end: 0, unanswered: 2, given_up: 1, ..report.counts };
        report.counts = Counts { undrained: 1, undone: 5, ..report.counts };
        report.confirmed = Counts { due: 9, sent: 4, ..Counts::default() };
        report.decide(Vec::new(), Vec::new());
        assert_eq!((report.verdict, report.reasons.len()), (Verdict::Invalid, 3), "{:?}", report.reasons);
        for (confirmed, reason) in [
            (Counts { undone: 5, ..report.confirmed }, "5 users were not done with what they were told"),
            (Counts { undrained: 1, ..report.confirmed }, "not everybody had seen everything in time"),
            (
                Counts { ended: 2, sent: 9, online_at_end: 1, ..report.confirmed },
                "1 users were not there to the end",
            ),
        ] {
            let mut report = CrowdReport { confirmed, ..report.clone() };
            report.decide(Vec::new(), Vec::new());
            assert_eq!((report.verdict, report.reasons[0].as_str()), (Verdict::Bad, reason));
            assert_eq!(report.reasons.len(), 4);
        }
    }

    #[test]
    fn a_part_in_which_nothing_was_delivered_proves_nothing() {
        let verdict = |seconds, delivered| {
            let mut report = CrowdReport { is_timed: true, rate: 20, ..sound() };
            let mut phase = PhaseReport::new("calm", 0..=seconds, Duration::from_secs(seconds), None);
            phase.delivery.count = delivered;
            report.phases.push(phase);
            report.decide(Vec::new(), Vec::new());
            (report.verdict, report.reasons)
        };
        assert_eq!(verdict(5, 1), (Verdict::Good, vec![]));
        assert_eq!(verdict(0, 0), (Verdict::Good, vec![]), "it was short");
        assert_eq!(verdict(5, 0), (Verdict::Invalid, vec!["nothing was delivered in `calm`".to_owned()]));
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
        assert_eq!((report.verdict, report.reasons.len()), (Verdict::Bad, 3), "{:?}", report.reasons);
    }
}
