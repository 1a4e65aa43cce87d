//! How slow readers went: what they cost the node, what the others had to bear meanwhile, and the verdict with its reasons.

use std::{fmt, path::Path, process::ExitCode};

use protocol::event::CloseCode;
use serde::Serialize;

use super::{
    Bounds, P99_MAX_MS,
    bounds::Found,
    crowd::{CrowdReport, Footprint, MIB, write_json, write_page},
    crowd_page,
};
use crate::{cli::SlowFlags, controller::Played};

/// What a reader that reads nothing, or little, may cost the node: its outbox.
const READER_BYTES_MAX: f64 = 64.0 * 1024.0;

/// The parts of it in which the crowd is there, and does not read as it comes.
const PARTS: [&str; 3] = ["stalled", "slow", "reading again"];

/// Ends of connections that come of it when a node goes away.
const GOING: [u16; 3] = [CloseCode::GOING_AWAY.0, CloseCode::ABNORMAL.0, CloseCode::DRAIN.0];

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SlowReport {
    #[serde(flatten)]
    crowd: CrowdReport,
    seconds: u32,
    crowd_rate: u32,
    kbit: u32,
    limits: Bounds,
}

impl SlowReport {
    pub(crate) fn new(flags: &SlowFlags, played: Played) -> Self {
        let SlowFlags { seconds, crowd_rate, kbit, .. } = *flags;
        let (crowd, limits) = (CrowdReport::new(&flags.crowd, played), Bounds::new(&flags.limit));
        let mut report = Self { crowd, seconds, crowd_rate, kbit, limits };
        let too_much = [report.too_much(), report.limits.missed(|name| report.found(name))].concat();
        report.crowd.decide(report.closed(), too_much);
        report
    }

    /// Nobody is closed for being slow; that a node goes away is another matter.
    fn closed(&self) -> Vec<String> {
        let comes_of_going = |code: &u16| self.crowd.gone.is_some() && GOING.contains(code);
        let closes = self.crowd.closes.iter().filter(|(code, _)| !comes_of_going(code));
        closes.map(|(code, count)| format!("{count} connections ended with {code}")).collect()
    }

    /// What limits are for.
    fn found(&self, name: &str) -> Found {
        match name {
            "reader_kib" => Found::one(self.reader_bytes().map(|bytes| bytes / 1024.0)),
            "delivery_times" => {
                let parts = ["reading"].into_iter().chain(PARTS);
                let times = parts.filter_map(|part| Some((format!(" in `{part}`"), self.times_alone(part)?)));
                Found::Numbers(times.collect())
            }
            _ => self.crowd.deliveries(),
        }
    }

    /// What the others had to bear in a part, as a multiple of what they had alone.
    fn times_alone(&self, part: &str) -> Option<f64> {
        let p99_ms = |part| self.crowd.phase(part).map(|phase| phase.delivery.p99_ms);
        Some(p99_ms(part)? / p99_ms("alone")?.max(1e-9))
    }

    /// What took too long, or too much, where nobody asked for something else.
    fn too_much(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for part in ["alone", "reading"].iter().chain(&PARTS) {
            let Some(phase) = self.crowd.phase(part) else { continue };
            let p99_ms = phase.delivery.p99_ms;
            if p99_ms >= P99_MAX_MS && !self.limits.names("delivery.p99") {
                reasons.push(format!("delivery p99 {p99_ms:.1} ms in `{part}`, below {P99_MAX_MS} ms"));
            }
        }
        let reader_bytes = self.reader_bytes().filter(|_| !self.limits.names("reader_kib"));
        if let Some(each) = reader_bytes.filter(|each| *each > READER_BYTES_MAX) {
            reasons
                .push(format!("a slow reader costs the node {:.0} KiB, at most 64 are asked", each / 1024.0));
        }
        reasons
    }

    /// What the node grew by for each of the crowd, since all of it read as it came.
    fn reader_bytes(&self) -> Option<f64> {
        let Footprint { held, peak, .. } = self.crowd.node.filter(|_| self.crowd.gone.is_none())?;
        Some(peak.saturating_sub(held) as f64 / f64::from(self.crowd.users))
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
        let Self { crowd, seconds, crowd_rate, kbit, .. } = self;
        let CrowdReport { users, established, rate, .. } = crowd;
        let intro = format!(
            "{users} users who are sent {crowd_rate} messages a second read all, nothing, {kbit} kbit/s, and all again, {seconds} s each, beside \
             {established} who send {rate} messages a second."
        );
        crowd_page::page(crowd, &intro)
    }
}

impl fmt::Display for SlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { crowd, crowd_rate, kbit, .. } = self;
        let CrowdReport { users, established, rate, .. } = crowd;
        writeln!(
            f,
            "load       {users} users who are sent {crowd_rate} messages a second, each 49 of them, and read nothing, then {kbit} kbit/s"
        )?;
        writeln!(f, "           beside {established} who send {rate} messages a second")?;
        crowd.write_received(f)?;
        crowd.write_phases(f)?;
        let times = PARTS.iter().filter_map(|part| Some(format!("{:.2} {part}", self.times_alone(part)?)));
        let times = times.collect::<Vec<_>>().join(", ");
        if !times.is_empty() {
            writeln!(f, "           p99 as a multiple of that alone: {times}")?;
        }
        if let (Some(Footprint { before, held, peak, .. }), Some(each)) = (crowd.node, self.reader_bytes()) {
            let [before, held, peak] = [before, held, peak].map(|bytes| bytes as f64 / MIB);
            writeln!(
                f,
                "node       RSS {before:.0} MiB before, {held:.0} with all reading, {peak:.0} at most: {:.1} KiB a slow reader",
                each / 1024.0
            )?;
        }
        crowd.write_verdict(f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        latency::Summary,
        report::{Bound, PhaseReport, crowd::tests::sound},
    };

    /// What speaks against it where a reader costs 70 KiB, and the others are three times as slow while it stalls.
    fn reasons(limits: &[&str]) -> Vec<String> {
        let node = Some(Footprint { before: 0, held: 1024, away: 0, peak: 141 * 1024 });
        let mut crowd = sound();
        (crowd.users, crowd.node) = (2, node);
        for (name, p99_ms) in [("alone", 100.0), ("reading", 110.0), ("stalled", 300.0)] {
            let mut phase = PhaseReport::new(name, 0..=1, Duration::from_secs(1), None);
            phase.delivery = Summary { count: 1, p99_ms, ..Summary::default() };
            crowd.phases.push(phase);
        }
        let limits: Vec<_> = limits.iter().map(|text| Bound::of_slow(text).expect(text)).collect();
        let limits = Bounds::new(&limits);
        let report = SlowReport { crowd, seconds: 1, crowd_rate: 1, kbit: 1, limits };
        [report.too_much(), report.limits.missed(|name| report.found(name))].concat()
    }

    #[test]
    fn a_limit_takes_the_place_of_what_is_asked_anyway() {
        assert_eq!(reasons(&[]).len(), 2, "{:?}", reasons(&[]));
        assert_eq!(reasons(&["reader_kib=70.1", "delivery.p99=301", "delivery_times=3.1"]), [""; 0]);
        assert_eq!(
            reasons(&["reader_kib=70", "delivery.p99=300", "delivery_times=1.05"]),
            [
                "delivery.p99 300.00 ms in `stalled`, below 300 ms is asked",
                "delivery_times 1.10 in `reading`, below 1.05 is asked",
                "delivery_times 3.00 in `stalled`, below 1.05 is asked",
                "reader_kib 70.00, below 70 is asked",
            ]
        );
    }
}
