//! What idle users cost: the verdict with its reasons, as text and as JSON.

use std::{collections::BTreeMap, fmt, path::Path, process::ExitCode, time::Duration};

use serde::Serialize;

use super::{
    Bounds, Floor, Multiples, Origin, Verdict,
    bounds::Found,
    crowd::{MIB, write_json, write_page},
    idle_page, write_floor,
};
use crate::{cli::IdleFlags, controller::Cost, host::Reading, latency::Summary, link::IdleCounts};

/// How late heartbeats may be before a run proves nothing, in milliseconds: they are 30 s apart.
const LAG_P99_MAX_MS: f64 = 1000.0;
pub(super) const KIB: f64 = 1024.0;

/// One second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct IdleSecond {
    /// Since the first round began.
    pub(crate) at_seconds: f64,
    pub(crate) online: u64,
    pub(crate) pong_p50_ms: Option<f64>,
    pub(crate) pong_p99_ms: Option<f64>,
    #[serde(flatten)]
    pub(crate) cost: Cost,
}

/// How one round went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct IdleRound {
    pub(crate) counts: IdleCounts,
    /// From the first user to the last welcome.
    pub(crate) connect: Duration,
    /// Pings between `held` and `kept`.
    pub(crate) pings_held: u64,
    /// Nobody is there yet.
    pub(crate) before: Option<Reading>,
    /// Everybody has come.
    pub(crate) held: Option<Reading>,
    /// Everybody has been there for a while.
    pub(crate) kept: Option<Reading>,
    /// Everybody has left.
    pub(crate) after: Option<Reading>,
    /// Resident memory of all workers with everybody online.
    pub(crate) generator_bytes: u64,
    pub(crate) pong: Summary,
    pub(crate) lag: Summary,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) closes: BTreeMap<u16, u64>,
    pub(crate) fault: Option<String>,
    pub(crate) timeline: Vec<IdleSecond>,
}

impl IdleRound {
    /// Of the node, a connection, where it was measured.
    pub(super) fn bytes_each(&self) -> Option<f64> {
        Some(self.costs()?.node_bytes)
    }

    fn connects_per_second(&self) -> f64 {
        self.counts.welcomed as f64 / self.connect.as_secs_f64().max(1e-9)
    }

    /// What speaks against it.
    fn faults(&self, users: u64) -> Vec<String> {
        let IdleCounts { welcomed, refused, lost, left, unanswered, .. } = self.counts;
        let silent = users.saturating_sub(welcomed + refused);
        let stayed = welcomed.saturating_sub(lost + left);
        let mut faults = Vec::new();
        let mut consider = |count: u64, what: &str| {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        };
        consider(refused, "users could not connect");
        consider(silent, "users had no welcome in time");
        consider(lost, "connections ended before they were to");
        consider(unanswered, "pings had no answer within 30 s");
        consider(self.errors.values().sum(), "errors were told");
        consider(stayed, "users could not leave");
        for (code, count) in &self.closes {
            faults.push(format!("{count} closed with {code}"));
        }
        if let Some(fault) = self.fault.as_ref().filter(|_| !faults.is_empty()) {
            faults.push(format!("the last fault: {fault}"));
        }
        faults
    }

    fn costs(&self) -> Option<Costs> {
        let (before, held, kept) = (self.before?, self.held?, self.kept?);
        let users = self.counts.welcomed.max(1) as f64;
        let more = |all: u64, none: u64| (all as f64 - none as f64) / users;
        let cpu = kept.cpu.saturating_sub(held.cpu).as_secs_f64();
        Some(Costs {
            node_bytes: more(kept.resident_bytes, before.resident_bytes),
            kernel_bytes_both_ends: more(held.slab_bytes, before.slab_bytes),
            heartbeat_cpu_micros: cpu * 1e6 / self.pings_held.max(1) as f64,
            cpu_seconds: cpu,
        })
    }
}

/// What one connection costs, where the node was measured.
#[derive(Clone, Copy, Debug, Serialize)]
struct Costs {
    node_bytes: f64,
    /// The kernel does not say which end an object is of. Both ends have a socket, a file and a pending receive of a ring,
    /// so one end is half of it.
    kernel_bytes_both_ends: f64,
    heartbeat_cpu_micros: f64,
    cpu_seconds: f64,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct IdleReport {
    #[serde(flatten)]
    pub(super) origin: Origin,
    pub(super) connections: u32,
    pub(super) seconds: u32,
    pub(super) rate: u32,
    workers: u32,
    limits: Bounds,
    pub(super) verdict: Verdict,
    pub(super) reasons: Vec<String>,
    pub(super) rounds: Vec<IdleRound>,
    costs: Vec<Option<Costs>>,
    /// Of what the bare machine can do, where both are known.
    pub(super) multiples: Option<Multiples>,
}

impl IdleReport {
    pub(crate) fn new(
        flags: &IdleFlags,
        workers: u32,
        rounds: Vec<IdleRound>,
        floor: Option<&Floor>,
    ) -> Self {
        let users = u64::from(flags.connections);
        let limits = Bounds::new(&flags.limit);
        let mut reasons: Vec<String> = rounds.iter().flat_map(|round| round.faults(users)).collect();
        reasons.extend(limits.missed(|name| found(&rounds, name)));
        let lag = rounds.iter().map(|round| round.lag.p99_ms).fold(0.0, f64::max);
        let mut verdict = if reasons.is_empty() { Verdict::Good } else { Verdict::Bad };
        if lag > LAG_P99_MAX_MS {
            verdict = Verdict::Invalid;
            reasons.push(format!("the generator was late: p99 of its lag is {lag:.0} ms"));
        }
        let costs: Vec<_> = rounds.iter().map(IdleRound::costs).collect();
        Self {
            origin: Origin::this(),
            connections: flags.connections,
            seconds: flags.seconds,
            rate: flags.rate,
            workers,
            limits,
            verdict,
            reasons,
            multiples: floor.map(|floor| multiples(&costs, floor)),
            costs,
            rounds,
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        self.verdict.exit_code()
    }

    /// The files that were asked for.
    pub(crate) fn write(&self, json: Option<&Path>, html: Option<&Path>) -> anyhow::Result<()> {
        write_json(self, json)?;
        write_page(|| idle_page::page(self), html)
    }
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, seconds, workers, .. } = self;
        writeln!(f, "load       {connections} idle users for {seconds} s, {workers} workers")?;
        for (number, (round, costs)) in self.rounds.iter().zip(&self.costs).enumerate() {
            if self.rounds.len() > 1 {
                writeln!(f, "round      {}", number + 1)?;
            }
            let IdleCounts { welcomed, pings, pongs, .. } = round.counts;
            let rate = round.connects_per_second();
            writeln!(
                f,
                "connected  {welcomed} users in {:.1} s: {rate:.0} a second",
                round.connect.as_secs_f64()
            )?;
            let Summary { p50_ms, p99_ms, max_ms, .. } = round.pong;
            writeln!(
                f,
                "heartbeat  {pings} pings, {pongs} pongs; p50 {p50_ms:.2}, p99 {p99_ms:.2}, max {max_ms:.2} ms"
            )?;
            let own = round.generator_bytes as f64 / welcomed.max(1) as f64 / KIB;
            writeln!(f, "loadgen    {own:.2} KiB a user, p99 of its lag {:.1} ms", round.lag.p99_ms)?;
            if let (Some(before), Some(kept), Some(after), Some(costs)) =
                (round.before, round.kept, round.after, costs)
            {
                write_costs(f, [before, kept, after], costs, *seconds)?;
            }
        }
        write_floor(f, self.multiples.as_ref())?;
        for reason in &self.reasons {
            writeln!(f, "because    {reason}")?;
        }
        writeln!(f, "verdict    {}", self.verdict)
    }
}

/// What limits are for.
fn found(rounds: &[IdleRound], name: &str) -> Found {
    let place = |number: usize| match rounds.len() {
        1 => String::new(),
        _ => format!(" in round {}", number + 1),
    };
    let numbered = rounds.iter().enumerate();
    match name {
        "pong" => Found::Times(numbered.map(|(number, round)| (place(number), round.pong)).collect()),
        "rss_kib" => {
            let each =
                numbered.filter_map(|(number, round)| Some((place(number), round.bytes_each()? / KIB)));
            Found::Numbers(each.collect())
        }
        _ => Found::one(growth_percent(rounds)),
    }
}

/// What the node has more behind the last round than before the first.
fn growth_percent(rounds: &[IdleRound]) -> Option<f64> {
    let (before, after) = (rounds.first()?.before?, rounds.last()?.after?);
    Some((after.resident_bytes as f64 / before.resident_bytes as f64 - 1.0) * 100.0)
}

/// Of each round that was measured.
fn multiples(costs: &[Option<Costs>], floor: &Floor) -> Multiples {
    let mut multiples = Multiples::default();
    for Costs { heartbeat_cpu_micros, .. } in costs.iter().flatten() {
        multiples.heartbeat(*heartbeat_cpu_micros, floor);
    }
    multiples
}

fn write_costs(
    f: &mut fmt::Formatter<'_>,
    readings: [Reading; 3],
    costs: &Costs,
    seconds: u32,
) -> fmt::Result {
    let [before, kept, after] = readings.map(|reading| reading.resident_bytes as f64 / MIB);
    writeln!(
        f,
        "node       {:.2} KiB a connection; RSS {before:.1} MiB before, {kept:.1} with all, {after:.1} after",
        costs.node_bytes / KIB
    )?;
    let kernel = costs.kernel_bytes_both_ends / KIB;
    writeln!(
        f,
        "kernel     {kernel:.2} KiB of slab a connection, for both of its ends: {:.2} each",
        kernel / 2.0
    )?;
    writeln!(
        f,
        "node CPU   {:.2} % of a core, {:.1} us a heartbeat",
        costs.cpu_seconds * 100.0 / f64::from(seconds),
        costs.heartbeat_cpu_micros
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Bound;

    fn round(counts: IdleCounts) -> IdleRound {
        IdleRound {
            counts,
            connect: Duration::from_secs(1),
            pings_held: counts.pings,
            before: None,
            held: None,
            kept: None,
            after: None,
            generator_bytes: 0,
            pong: Summary::default(),
            lag: Summary::default(),
            errors: BTreeMap::new(),
            closes: BTreeMap::new(),
            fault: None,
            timeline: Vec::new(),
        }
    }

    #[test]
    fn whoever_does_not_come_stay_and_leave_is_a_fault() {
        let good = IdleCounts { welcomed: 10, left: 10, pings: 3, pongs: 3, ..IdleCounts::default() };
        assert_eq!(round(good).faults(10), [""; 0]);
        for (counts, fault) in [
            (IdleCounts { welcomed: 9, left: 9, refused: 1, ..good }, "1 users could not connect"),
            (IdleCounts { welcomed: 8, left: 8, ..good }, "2 users had no welcome in time"),
            (IdleCounts { left: 7, lost: 3, ..good }, "3 connections ended before they were to"),
            (IdleCounts { unanswered: 1, ..good }, "1 pings had no answer within 30 s"),
            (IdleCounts { left: 9, ..good }, "1 users could not leave"),
        ] {
            assert_eq!(round(counts).faults(10), [fault]);
        }
    }

    #[test]
    fn limits_are_of_each_round_and_of_the_node_before_the_first_and_behind_the_last() {
        let reading =
            |kib: u64| Some(Reading { resident_bytes: kib * 1024, slab_bytes: 0, cpu: Duration::ZERO });
        let counts = IdleCounts { welcomed: 100, ..IdleCounts::default() };
        let measured = |before, kept, after, p99_ms| IdleRound {
            before: reading(before),
            held: reading(kept),
            kept: reading(kept),
            after: reading(after),
            pong: Summary { count: 1, p99_ms, ..Summary::default() },
            ..round(counts)
        };
        let rounds = [measured(1000, 1200, 1180, 3.0), measured(1180, 1480, 1100, 5.0)];
        let missed = |rounds: &[IdleRound], limits: &[&str]| {
            let limits: Vec<_> = limits.iter().map(|text| Bound::of_idle(text).expect(text)).collect();
            Bounds::new(&limits).missed(|name| found(rounds, name))
        };
        assert_eq!(missed(&rounds, &["rss_kib=3.1", "growth_percent=11", "pong.p99=6"]), [""; 0]);
        assert_eq!(
            missed(&rounds, &["rss_kib=3", "growth_percent=9", "pong.p99=4"]),
            [
                "growth_percent 10.00, below 9 is asked",
                "pong.p99 5.00 ms in round 2, below 4 ms is asked",
                "rss_kib 3.00 in round 2, below 3 is asked"
            ]
        );
        assert_eq!(missed(&rounds[..1], &["rss_kib=1"]), ["rss_kib 2.00, below 1 is asked"]);
        assert_eq!(missed(&[round(counts)], &["growth_percent=9"]), ["growth_percent: nothing was measured"]);
    }

    #[test]
    fn costs_are_differences_for_each_user() {
        let reading = |resident_bytes, slab_bytes, cpu| Some(Reading { resident_bytes, slab_bytes, cpu });
        let counts = IdleCounts { welcomed: 10, pings: 4, ..IdleCounts::default() };
        let round = IdleRound {
            before: reading(1_000, 5_000, Duration::ZERO),
            held: reading(9_000, 105_000, Duration::from_micros(100)),
            kept: reading(11_000, 999_999, Duration::from_micros(180)),
            ..round(counts)
        };
        let costs = round.costs().expect("it was measured");
        assert_eq!(
            (costs.node_bytes, costs.kernel_bytes_both_ends, costs.heartbeat_cpu_micros),
            (1_000.0, 10_000.0, 20.0)
        );
    }
}
