//! How a storm went: each step, what the others had to bear meanwhile, and the verdict with its reasons.

use std::{fmt, path::Path, process::ExitCode, time::Duration};

use serde::Serialize;

use super::{
    Bounds, P99_MAX_MS,
    bounds::Found,
    crowd::{CrowdReport, Footprint, MIB, StepReport, write_json, write_page},
    crowd_page,
};
use crate::{
    cli::StormFlags,
    controller::{Dropped, Played},
    latency::Summary,
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

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StormReport {
    #[serde(flatten)]
    crowd: CrowdReport,
    at_once: u32,
    backlog: u32,
    limits: Bounds,
    /// Of the system's cache, between the backlog and the return.
    dropped_cache: Option<Dropped>,
}

impl StormReport {
    pub(crate) fn new(flags: &StormFlags, played: Played, dropped_cache: Option<Dropped>) -> Self {
        let StormFlags { at_once, backlog, .. } = *flags;
        let (crowd, limits) = (CrowdReport::new(&flags.crowd, played), Bounds::new(&flags.limit));
        let mut report = Self { crowd, at_once, backlog, limits, dropped_cache };
        let slow = [report.slow(), report.limits.missed(|name| report.found(name))].concat();
        report.crowd.decide(Vec::new(), slow);
        report
    }

    /// What limits are for.
    fn found(&self, name: &str) -> Found {
        match name {
            "connects_per_second" => Found::one(self.crowd.step("connect").map(StepReport::per_second)),
            "return_seconds" => Found::one(self.crowd.step("return").map(|step| step.took.as_secs_f64())),
            "rss_times" => Found::one(self.rss_times()),
            _ => self.crowd.deliveries(),
        }
    }

    /// What the node took at most since everybody came back, as a multiple of what it took to hold all. That is not known of one that went
    /// away before.
    fn rss_times(&self) -> Option<f64> {
        let node = self.crowd.node.filter(|_| self.crowd.gone.is_none())?;
        Some(node.peak as f64 / node.held.max(1) as f64)
    }

    /// What took too long, or too much, where nobody asked for something else.
    fn slow(&self) -> Vec<String> {
        let mut slow = Vec::new();
        let mut add = |wrong: bool, text: String| slow.extend(wrong.then_some(text));
        let share = f64::from(self.crowd.users) / USERS;
        let connect_max = Duration::from_secs_f64(f64::from(self.crowd.users) / CONNECTS_PER_SECOND_MIN);
        for (name, limit, max) in [
            ("connect", "connects_per_second", connect_max.max(Duration::from_secs(1))),
            ("return", "return_seconds", RETURN_MAX.mul_f64(share).max(Duration::from_secs(5))),
            ("drop", "", CLOSE_MAX.mul_f64(share).max(Duration::from_secs(1))),
            ("close", "", CLOSE_MAX.mul_f64(share).max(Duration::from_secs(1))),
        ] {
            if self.limits.names(limit) {
                continue;
            }
            let Some(StepReport { took, .. }) = self.crowd.step(name) else { continue };
            add(*took > max, format!("`{name}` took {took:.1?}, at most {max:.1?} are asked"));
        }
        for phase in &self.crowd.phases {
            let (name, Summary { p99_ms, max_ms, .. }) = (phase.name, phase.delivery);
            add(
                p99_ms >= P99_MAX_MS && !self.limits.names("delivery.p99"),
                format!("delivery p99 {p99_ms:.1} ms in `{name}`, below {P99_MAX_MS} ms"),
            );
            let is_leaving = ["drop", "close"].contains(&name);
            let text = format!("a delivery took {max_ms:.1} ms in `{name}`, at most {CLOSE_STALL_MAX_MS} ms");
            add(is_leaving && max_ms > CLOSE_STALL_MAX_MS, text);
        }
        if let Some(times) = self.rss_times().filter(|_| !self.limits.names("rss_times")) {
            add(times > RESIDENT_TIMES_MAX, format!("the node grew to {times:.2} times what it took before"));
        }
        slow
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        self.crowd.exit_code()
    }

    /// The files that were asked for.
    pub(crate) fn write(&self, json: Option<&Path>, html: Option<&Path>) -> anyhow::Result<()> {
        write_json(self, json)?;
        write_page(|| self.page(), html)
    }

    /// For people.
    fn page(&self) -> String {
        let Self { crowd, at_once, backlog, .. } = self;
        let CrowdReport { users, established, rate, .. } = crowd;
        let intro = format!(
            "{users} users come, {at_once} at once, are dropped, miss {backlog} messages in each of five conversations, come back and leave, \
             beside {established} who send {rate} messages a second."
        );
        crowd_page::page(crowd, &intro)
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
            let Some(step @ StepReport { took, each, .. }) = crowd.step(name) else { continue };
            let (seconds, rate) = (took.as_secs_f64(), step.per_second());
            let (half, most) = (each.p50_ms / 1000.0, each.p99_ms / 1000.0);
            writeln!(
                f,
                "{name:<10} {} users in {seconds:.2} s: {rate:.0} a second; half after {half:.2}, 99 % after {most:.2} s",
                each.count
            )?;
        }
        if let Some(Dropped { before_bytes, after_bytes }) = self.dropped_cache {
            let [before, after] = [before_bytes, after_bytes].map(|bytes| bytes as f64 / MIB);
            writeln!(
                f,
                "cache      dropped before the return: {before:.0} MiB of this machine's, {after:.0} left"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Bound, PhaseReport, crowd::tests::sound};

    /// Of a storm of 100 users, all of whom came and came back within this time.
    fn storm(took: Duration, p99_ms: f64, limits: &[&str]) -> StormReport {
        let each = Summary { count: 100, ..Summary::default() };
        let steps = ["connect", "return"].map(|name| StepReport { name, missing: 0, took, each });
        let mut phase = PhaseReport::new("connect", 0..=9, took, None);
        phase.delivery = Summary { count: 1, p99_ms, ..Summary::default() };
        let node = Some(Footprint { before: 1, held: 100, away: 90, peak: 160 });
        let mut crowd = sound();
        (crowd.users, crowd.node) = (100, node);
        let limits: Vec<_> = limits.iter().map(|text| Bound::of_storm(text).expect(text)).collect();
        let mut report =
            StormReport { crowd, at_once: 1, backlog: 1, limits: Bounds::new(&limits), dropped_cache: None };
        report.crowd.phases.push(phase);
        report.crowd.steps.extend(steps);
        report
    }

    fn reasons(report: &StormReport) -> Vec<String> {
        [report.slow(), report.limits.missed(|name| report.found(name))].concat()
    }

    #[test]
    fn a_limit_takes_the_place_of_what_is_asked_anyway() {
        let usual = reasons(&storm(Duration::from_secs(10), 250.0, &[]));
        assert_eq!(usual.len(), 4, "{usual:?}");
        let wide = ["connects_per_second=9", "return_seconds=11", "rss_times=1.7", "delivery.p99=300"];
        assert_eq!(reasons(&storm(Duration::from_secs(10), 250.0, &wide)), [""; 0]);
        assert_eq!(
            reasons(&storm(Duration::from_secs(1), 20.0, &["rss_times=1.7"])),
            [""; 0],
            "as much as is asked anyway"
        );
        let narrow = ["connects_per_second=101", "return_seconds=1", "rss_times=1.6", "delivery.p99=20"];
        assert_eq!(
            reasons(&storm(Duration::from_secs(1), 20.0, &narrow)),
            [
                "connects_per_second 100.00, at least 101 is asked",
                "delivery.p99 20.00 ms in `connect`, below 20 ms is asked",
                "return_seconds 1.00, below 1 is asked",
                "rss_times 1.60, below 1.6 is asked",
            ]
        );
    }
}
