//! How slow readers went: what they cost the node, what the others had to bear meanwhile, and the verdict with its reasons.

use std::{fmt, path::Path, process::ExitCode};

use protocol::event::CloseCode;
use serde::Serialize;

use super::{
    P99_MAX_MS,
    crowd::{CrowdReport, Footprint, MIB, write_json},
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
}

impl SlowReport {
    pub(crate) fn new(flags: &SlowFlags, played: Played) -> Self {
        let SlowFlags { seconds, crowd_rate, kbit, .. } = *flags;
        let mut report = Self { crowd: CrowdReport::new(&flags.crowd, played), seconds, crowd_rate, kbit };
        report.crowd.decide(report.closed(), report.too_much());
        report
    }

    /// Nobody is closed for being slow; that a node goes away is another matter.
    fn closed(&self) -> Vec<String> {
        let comes_of_going = |code: &u16| self.crowd.gone.is_some() && GOING.contains(code);
        let closes = self.crowd.closes.iter().filter(|(code, _)| !comes_of_going(code));
        closes.map(|(code, count)| format!("{count} connections ended with {code}")).collect()
    }

    /// What took too long, or too much.
    fn too_much(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for part in ["alone", "reading"].iter().chain(&PARTS) {
            let Some(phase) = self.crowd.phase(part) else { continue };
            let p99_ms = phase.delivery.p99_ms;
            if p99_ms >= P99_MAX_MS {
                reasons.push(format!("delivery p99 {p99_ms:.1} ms in `{part}`, below {P99_MAX_MS} ms"));
            }
        }
        if let Some(each) = self.reader_bytes().filter(|each| *each > READER_BYTES_MAX) {
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

    /// The file that was asked for.
    pub(crate) fn write(&self, json: Option<&Path>) -> anyhow::Result<()> {
        write_json(self, json)
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
        let p99 = |part: &str| crowd.phase(part).map(|phase| phase.delivery.p99_ms);
        let times = PARTS.iter().filter_map(|part| {
            let times = p99(part)? / p99("alone")?.max(1e-9);
            Some(format!("{times:.2} {part}"))
        });
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
