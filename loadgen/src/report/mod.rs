//! What a run came to: the verdict with its reasons, as text, as JSON, and as one HTML file.

mod bounds;
mod crowd;
mod crowd_page;
mod floor;
mod html;
mod idle;
mod idle_page;
mod limits;
mod machine;
mod origin;
mod page;
mod slow;
mod soak;
mod soak_page;
mod storm;
mod svg;
mod text;
mod verdict;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::Context;
use protocol::limits::SMALL_GROUP_MEMBERS_MAX;
use serde::Serialize;

use crate::{
    cli::OutputFlags,
    controller::{Board, Cost, Measured},
    latency::{Latencies, Summary},
    link::Counts,
    load::Load,
    plan::Think,
    scenario::Scenario,
    verify::{Violations, switches},
};
pub(crate) use bounds::{Bound, Bounds};
pub(crate) use crowd::{Footprint, PhaseReport, StepReport};
pub(crate) use floor::{Floor, Multiples, compare, write_floor};
pub(crate) use idle::{IdleReport, IdleRound, IdleSecond};
pub(crate) use limits::{Limit, Limits};
use machine::Machine;
pub(crate) use origin::Origin;
pub(crate) use slow::SlowReport;
pub(crate) use soak::{SoakReport, SoakRound};
pub(crate) use storm::StormReport;
pub(crate) use verdict::{LAG_P99_MAX_MS, Verdict};

/// What users are promised outside an outage, in milliseconds.
pub(crate) const P99_MAX_MS: f64 = 200.0;
/// How long nobody may be able to connect before the node is said to have gone away. Long enough for one that is started again and reads
/// its logs back; `run --help` says it.
pub(crate) const GONE_AFTER: Duration = Duration::from_secs(20);
/// The percentiles of the drawn distribution: ten steps for each further nine.
const NINES: u32 = 5;
const STEPS_PER_NINE: u32 = 10;

/// What times are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Timing {
    /// They decide with.
    Judged,
    /// They are only shown.
    Reported,
}

/// When the node was gone, in seconds of the schedule.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct OutageReport {
    pub(crate) from_seconds: f64,
    /// `None` when not everybody came back.
    pub(crate) until_seconds: Option<f64>,
}

/// A node that went away and did not come back.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct GoneReport {
    /// In seconds of the schedule.
    pub(crate) from_seconds: f64,
    /// How long nobody could connect when it was given up.
    pub(crate) after_seconds: u64,
    /// What was acknowledged in conversations that could not be read any more, and not seen by all members: whether it is kept could not
    /// be asked.
    pub(crate) acked_unseen: u64,
    /// Conversations that had been read when it went, and were judged,
    pub(crate) logs_read: usize,
    /// and the others.
    pub(crate) logs_unread: usize,
}

/// Percentiles outside and inside the outage.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Pair {
    pub(crate) outside: Summary,
    pub(crate) outage: Summary,
}

impl Pair {
    fn of(measured: &Measured) -> Self {
        Self { outside: measured.outside.summary(), outage: measured.outage.summary() }
    }
}

/// One second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SecondReport {
    pub(crate) second: u64,
    pub(crate) connected: u64,
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    pub(crate) errors: u64,
    pub(crate) delivery_p50_ms: Option<f64>,
    pub(crate) delivery_p99_ms: Option<f64>,
    #[serde(flatten)]
    pub(crate) cost: Cost,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) users: u32,
    #[serde(flatten)]
    pub(crate) load: Load,
    pub(crate) mix: String,
    /// Changes of members a second.
    pub(crate) churn: u32,
    pub(crate) absent_percent: u32,
    pub(crate) read_percent: u32,
    pub(crate) think: Think,
    pub(crate) viewers: u32,
    pub(crate) search_percent: u32,
    pub(crate) form: crate::link::Forms,
    pub(crate) workers: u32,
    pub(crate) rooms: usize,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) origin: Origin,
    pub(crate) settings: Settings,
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<String>,
    pub(crate) counts: Counts,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) closes: BTreeMap<u16, u64>,
    /// Users, and how many of their sends were given up.
    pub(crate) given_up_by: BTreeMap<String, u64>,
    pub(crate) ack: Pair,
    pub(crate) delivery: Pair,
    pub(crate) lag: Pair,
    /// From the end of a connection until the user has caught up on the next one.
    pub(crate) back: Summary,
    /// From when a delivery was looked at to the `ok` of the `read` that answers it.
    pub(crate) read: Pair,
    /// From when a change of members was due to its `ok`.
    pub(crate) change: Pair,
    /// From when an absent user set out until it had read everything.
    pub(crate) whole: Pair,
    /// Times that a group went from fan-out on write to fan-out on read, and back.
    pub(crate) switches: u64,
    /// From a search to its answer.
    pub(crate) search: Pair,
    /// From an acknowledgement until a search finds what was acknowledged: asked once a second.
    pub(crate) found: Pair,
    pub(crate) outage: Option<OutageReport>,
    pub(crate) gone: Option<GoneReport>,
    /// What the node took of the cores while messages were sent, where it is one process on this machine.
    pub(crate) node_cpu_seconds: Option<f64>,
    /// Of what the bare machine can do, where that is known.
    pub(crate) multiples: Option<Multiples>,
    /// Resident memory of the generator when all users were online and no room was made.
    pub(crate) generator_bytes: u64,
    pub(crate) violations: Violations,
    pub(crate) timeline: Vec<SecondReport>,
    /// Percentile and milliseconds, outside the outage.
    pub(crate) ack_distribution: Vec<(f64, f64)>,
    pub(crate) delivery_distribution: Vec<(f64, f64)>,
}

impl Report {
    pub(crate) fn new(
        board: &Board,
        scenario: &Scenario,
        timing: Timing,
        outage: Option<OutageReport>,
    ) -> Self {
        let settings = Settings {
            users: scenario.users,
            load: scenario.load.clone(),
            mix: scenario.mix.to_string(),
            churn: scenario.comings.churn,
            absent_percent: scenario.comings.absent_percent,
            read_percent: scenario.attention.read_percent,
            think: scenario.attention.think,
            viewers: scenario.attention.viewers,
            search_percent: scenario.attention.search_percent,
            form: scenario.forms,
            workers: scenario.workers,
            rooms: board.plan.rooms_count() as usize,
            timing,
            limits: scenario.limits.clone(),
        };
        let mut report = Self {
            origin: Origin::this(),
            settings,
            verdict: Verdict::Good,
            reasons: Vec::new(),
            counts: board.counts,
            errors: board.errors.clone(),
            closes: board.closes.clone(),
            given_up_by: board.given_up_by.clone(),
            ack: Pair::of(&board.ack),
            delivery: Pair::of(&board.delivery),
            lag: Pair::of(&board.lag),
            back: board.back.summary(),
            read: Pair::of(&board.read),
            change: Pair::of(&board.change),
            whole: Pair::of(&board.whole),
            switches: switches(&board.evidence.changes, SMALL_GROUP_MEMBERS_MAX),
            search: Pair::of(&board.search),
            found: Pair::of(&board.found),
            outage,
            gone: board.gone,
            node_cpu_seconds: None,
            multiples: None,
            generator_bytes: board.generator_bytes,
            violations: board.violations.clone(),
            timeline: timeline(board),
            ack_distribution: distribution(&board.ack.outside),
            delivery_distribution: distribution(&board.delivery.outside),
        };
        let (verdict, reasons) = match board.gone {
            Some(gone) => report.decide_of_gone(&gone, &board.confirmed),
            None => {
                let logs_missing = board.plan.rooms_count() as usize - board.evidence.logs.len();
                report.decide(report.faults(logs_missing))
            }
        };
        report.verdict = verdict;
        report.reasons = reasons;
        report
    }

    /// Puts the figures beside those of the bare machine.
    pub(crate) fn compare_with(&mut self, floor: &Floor) {
        let mut multiples = Multiples::default();
        multiples.latency("ack", self.ack.outside, floor);
        multiples.latency("delivery", self.delivery.outside, floor);
        if let Some(seconds) = self.node_cpu_seconds {
            multiples.processor(seconds, self.counts.acked, self.counts.delivered, floor);
        }
        self.multiples = Some(multiples);
    }

    /// The files that were asked for.
    pub(crate) fn write(&self, outputs: &OutputFlags) -> anyhow::Result<()> {
        crowd::write_json(self, outputs.json.as_deref())?;
        outputs.html.as_deref().map_or(Ok(()), |path| self.write_html(path))
    }

    /// The page for people.
    pub(crate) fn write_html(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, html::page(self)).with_context(|| format!("{}: could not be written", path.display()))
    }
}

fn timeline(board: &Board) -> Vec<SecondReport> {
    let seconds = board.seconds.iter().map(|(number, second)| SecondReport {
        second: *number,
        connected: second.tick.connected,
        sent: second.tick.sent,
        acked: second.tick.acked,
        delivered: second.tick.delivered,
        errors: second.tick.errors,
        delivery_p50_ms: second.delivery.percentile_ms(50.0),
        delivery_p99_ms: second.delivery.percentile_ms(99.0),
        cost: second.cost,
    });
    seconds.collect()
}

/// Percentiles ever closer to 100, down to the last one that stands for a whole sample.
fn distribution(latencies: &Latencies) -> Vec<(f64, f64)> {
    let steps = (0..=NINES * STEPS_PER_NINE).map(|step| {
        let rest = 10_f64.powf(-f64::from(step) / f64::from(STEPS_PER_NINE));
        (1.0 - rest) * 100.0
    });
    let count = latencies.count() as f64;
    let whole = steps.filter(|percentile| (100.0 - percentile) / 100.0 * count >= 1.0);
    whole.filter_map(|percentile| Some((percentile, latencies.percentile_ms(percentile)?))).collect()
}
