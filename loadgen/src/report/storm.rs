//! How a storm went: each step, what the others had to bear meanwhile, and the verdict with its reasons.

use std::{fmt, path::Path, process::ExitCode, time::Duration};

use serde::Serialize;

use super::{
    P99_MAX_MS,
    crowd::{CrowdReport, Footprint, MIB, StepReport, write_json},
};
use crate::{cli::StormFlags, controller::Played, latency::Summary};

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

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StormReport {
    #[serde(flatten)]
    crowd: CrowdReport,
    at_once: u32,
    backlog: u32,
}

impl StormReport {
    pub(crate) fn new(flags: &StormFlags, played: Played) -> Self {
        let StormFlags { at_once, backlog, .. } = *flags;
        let mut report = Self { crowd: CrowdReport::new(&flags.crowd, played), at_once, backlog };
        report.crowd.decide(Vec::new(), report.slow());
        report
    }

    /// What took too long, or too much.
    fn slow(&self) -> Vec<String> {
        let mut slow = Vec::new();
        let mut add = |wrong: bool, text: String| slow.extend(wrong.then_some(text));
        let share = f64::from(self.crowd.users) / USERS;
        let connect_max = Duration::from_secs_f64(f64::from(self.crowd.users) / CONNECTS_PER_SECOND_MIN);
        for (name, max) in [
            ("connect", connect_max.max(Duration::from_secs(1))),
            ("return", RETURN_MAX.mul_f64(share).max(Duration::from_secs(5))),
            ("drop", CLOSE_MAX.mul_f64(share).max(Duration::from_secs(1))),
            ("close", CLOSE_MAX.mul_f64(share).max(Duration::from_secs(1))),
        ] {
            let Some(StepReport { took, .. }) = self.crowd.step(name) else { continue };
            add(*took > max, format!("`{name}` took {took:.1?}, at most {max:.1?} are asked"));
        }
        for phase in &self.crowd.phases {
            let (name, Summary { p99_ms, max_ms, .. }) = (phase.name, phase.delivery);
            add(
                p99_ms >= P99_MAX_MS,
                format!("delivery p99 {p99_ms:.1} ms in `{name}`, below {P99_MAX_MS} ms"),
            );
            let is_leaving = ["drop", "close"].contains(&name);
            let text = format!("a delivery took {max_ms:.1} ms in `{name}`, at most {CLOSE_STALL_MAX_MS} ms");
            add(is_leaving && max_ms > CLOSE_STALL_MAX_MS, text);
        }
        // What it takes to hold all is not known of one that went away before.
        if let Some(node) = self.crowd.node.filter(|_| self.crowd.gone.is_none()) {
            let times = node.peak as f64 / node.held.max(1) as f64;
            add(times > RESIDENT_TIMES_MAX, format!("the node grew to {times:.2} times what it took before"));
        }
        slow
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        self.crowd.exit_code()
    }

    /// The file that was asked for.
    pub(crate) fn write(&self, json: Option<&Path>) -> anyhow::Result<()> {
        write_json(self, json)
    }
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { crowd, at_once, .. } = self;
        let CrowdReport { users, established, rate, .. } = crowd;
        writeln!(
            f,
            "load       {users} users, {at_once} at once, beside {established} who send {rate} messages a second"
        )?;
        for name in ["connect", "drop", "return", "close"] {
            let Some(StepReport { took, each, .. }) = crowd.step(name) else { continue };
            let seconds = took.as_secs_f64();
            let (half, most) = (each.p50_ms / 1000.0, each.p99_ms / 1000.0);
            let rate = each.count as f64 / seconds.max(1e-9);
            writeln!(
                f,
                "{name:<10} {} users in {seconds:.2} s: {rate:.0} a second; half after {half:.2}, 99 % after {most:.2} s",
                each.count
            )?;
        }
        crowd.write_received(f)?;
        crowd.write_phases(f)?;
        if let Some(Footprint { before, held, away, peak }) = crowd.node {
            let [before, held, away, peak] = [before, held, away, peak].map(|bytes| bytes as f64 / MIB);
            writeln!(
                f,
                "node       RSS {before:.0} MiB before, {held:.0} with all, {away:.0} with all away, {peak:.0} at most: \
                 {:.2} times",
                peak / held.max(1.0)
            )?;
        }
        crowd.write_verdict(f)
    }
}
