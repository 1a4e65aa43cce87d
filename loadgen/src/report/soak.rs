//! What came of a soak: its rounds, whether all of them were good, and whether the node grew or slowed down from one part to another.

use std::{fmt, process::ExitCode};

use serde::Serialize;

use crate::cli::OutputFlags;

use super::{
    Multiples, Origin, Timing, Verdict,
    crowd::{MIB, write_json, write_page},
    soak_page, write_floor,
};

/// Rounds that say something of growth: four quarters.
const ROUNDS_MIN: usize = 4;

/// Times that delivery may take at the end of what it took near the beginning, at p99: these machines drift by a third.
const SLOWER_MAX: f64 = 2.0;

/// Below this a p99 is noise, in milliseconds.
const NOISE_MS: f64 = 10.0;

/// One round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SoakRound {
    pub(crate) at_seconds: f64,
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<String>,
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    pub(crate) ack_p99_ms: f64,
    pub(crate) delivery_p50_ms: f64,
    pub(crate) delivery_p99_ms: f64,
    pub(crate) lag_p99_ms: f64,
    /// The node's, where it is on this machine; an upgrade changes it.
    pub(crate) process: Option<u32>,
    /// Resident memory of the node behind the round.
    pub(crate) node_bytes: Option<u64>,
    /// Of the node's cores, a message, in microseconds.
    pub(crate) cpu_micros: Option<f64>,
    /// Of what the bare machine can do, where that is known.
    pub(crate) multiples: Option<Multiples>,
}

impl fmt::Display for SoakRound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minutes, seconds) = (self.at_seconds as u64 / 60, self.at_seconds as u64 % 60);
        write!(
            f,
            "{minutes:>5}:{seconds:02}  {:<9} {} acked, {} delivered; p50 {:.1}, p99 {:.1} ms, late by {:.1}",
            self.verdict.to_string(),
            self.acked,
            self.delivered,
            self.delivery_p50_ms,
            self.delivery_p99_ms,
            self.lag_p99_ms
        )?;
        if let Some(bytes) = self.node_bytes {
            write!(f, "; node {:.0} MiB", bytes as f64 / MIB)?;
        }
        if let Some(micros) = self.cpu_micros {
            write!(f, ", {micros:.0} us a message")?;
        }
        Ok(())
    }
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SoakReport {
    #[serde(flatten)]
    pub(super) origin: Origin,
    /// In percent.
    growth_max: f64,
    timing: Timing,
    pub(super) verdict: Verdict,
    pub(super) reasons: Vec<String>,
    /// The medians of the rounds', where they have any.
    pub(super) multiples: Option<Multiples>,
    pub(super) rounds: Vec<SoakRound>,
}

impl SoakReport {
    pub(crate) fn new(growth_max: f64, timing: Timing) -> Self {
        Self {
            origin: Origin::this(),
            growth_max,
            timing,
            verdict: Verdict::Invalid,
            reasons: Vec::new(),
            multiples: None,
            rounds: Vec::new(),
        }
    }

    /// The verdict is as of the rounds so far.
    pub(crate) fn add(&mut self, round: SoakRound) {
        self.rounds.push(round);
        let known: Vec<_> = self.rounds.iter().filter_map(|round| round.multiples.as_ref()).collect();
        self.multiples = (!known.is_empty()).then(|| Multiples::median(known.into_iter()));
        (self.verdict, self.reasons) = self.judge();
    }

    fn judge(&self) -> (Verdict, Vec<String>) {
        let bad = self.rounds.iter().filter(|round| round.verdict == Verdict::Bad);
        let bad: Vec<String> = bad.flat_map(|round| round.reasons.clone()).collect();
        if !bad.is_empty() {
            return (Verdict::Bad, bad);
        }
        if self.rounds.len() < ROUNDS_MIN {
            let words =
                format!("{} rounds do not say whether a node grows, {ROUNDS_MIN} do", self.rounds.len());
            return (Verdict::Invalid, vec![words]);
        }
        let grown: Vec<String> = self.grown().into_iter().chain(self.slower()).collect();
        if !grown.is_empty() {
            return (Verdict::Bad, grown);
        }
        let unknown = self.unknown();
        if !unknown.is_empty() {
            return (Verdict::Invalid, unknown);
        }
        (Verdict::Good, Vec::new())
    }

    /// The medians of a figure in the second quarter and in the last: in the first one, memory is touched for the first time.
    fn ends(&self, figure: impl Fn(&SoakRound) -> Option<f64>) -> Option<(f64, f64)> {
        let quarter = self.rounds.len() / 4;
        let median = |rounds: &[SoakRound]| {
            let mut values: Vec<f64> = rounds.iter().filter_map(&figure).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        let last = self.rounds.len() - quarter;
        median(&self.rounds[quarter..2 * quarter]).zip(median(&self.rounds[last..]))
    }

    /// What could not be looked at, so that nothing is proven.
    fn unknown(&self) -> Vec<String> {
        let mut unknown = Vec::new();
        if !self.is_one_process() {
            unknown.push("the node's process changed: whether it grows cannot be said".to_owned());
        } else if self.ends(|round| Some(round.node_bytes? as f64)).is_none() {
            unknown.push("the node's memory is not known: give --data of a node on this machine".to_owned());
        }
        let late = self.rounds.iter().filter(|round| round.verdict == Verdict::Invalid).count();
        let is_timely = self.timely_ends().is_some();
        if self.timing == Timing::Judged && (late * 2 > self.rounds.len() || !is_timely) {
            unknown.push(format!("the generator was late in {late} rounds"));
        }
        unknown
    }

    fn is_one_process(&self) -> bool {
        self.rounds.iter().all(|round| round.process == self.rounds[0].process)
    }

    /// p99 of delivery, of rounds whose generator was in time.
    fn timely_ends(&self) -> Option<(f64, f64)> {
        self.ends(|round| (round.verdict == Verdict::Good).then_some(round.delivery_p99_ms))
    }

    /// A round could not be played: the node is gone, or nobody can tell.
    pub(crate) fn fail(&mut self, why: &anyhow::Error) {
        (self.verdict, self.reasons) = (Verdict::Bad, vec![format!("{why:#}")]);
    }

    fn grown(&self) -> Option<String> {
        let (before, after) =
            self.ends(|round| Some(round.node_bytes? as f64)).filter(|_| self.is_one_process())?;
        let percent = (after / before - 1.0) * 100.0;
        (percent > self.growth_max).then(|| {
            format!(
                "the node grew by {percent:.0} %, from {:.0} to {:.0} MiB, at most {} % are asked",
                before / MIB,
                after / MIB,
                self.growth_max
            )
        })
    }

    fn slower(&self) -> Option<String> {
        let (before, after) = self.timely_ends()?;
        let is_slower = self.timing == Timing::Judged && after > NOISE_MS && after > SLOWER_MAX * before;
        is_slower.then(|| format!("delivery p99 went from {before:.1} to {after:.1} ms"))
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        self.verdict.exit_code()
    }

    /// The files that were asked for.
    pub(crate) fn write(&self, outputs: &OutputFlags) -> anyhow::Result<()> {
        write_json(self, outputs.json.as_deref())?;
        write_page(|| soak_page::page(self), outputs.html.as_deref())
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |figure: fn(&SoakRound) -> u64| self.rounds.iter().map(figure).sum::<u64>();
        writeln!(
            f,
            "soak       {} rounds, {} acked, {} delivered",
            self.rounds.len(),
            sum(|round| round.acked),
            sum(|round| round.delivered)
        )?;
        if let Some((before, after)) = self.ends(|round| Some(round.node_bytes? as f64)) {
            writeln!(
                f,
                "node       RSS {:.0} MiB in the second quarter, {:.0} in the last",
                before / MIB,
                after / MIB
            )?;
        }
        if let Some((before, after)) = self.ends(|round| Some(round.delivery_p99_ms)) {
            writeln!(f, "delivery   p99 {before:.1} ms in the second quarter, {after:.1} in the last")?;
        }
        write_floor(f, self.multiples.as_ref())?;
        writeln!(f, "verdict    {}", self.verdict)?;
        self.reasons.iter().try_for_each(|reason| writeln!(f, "because    {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(verdict: Verdict, mib: u64, p99_ms: f64) -> SoakRound {
        SoakRound {
            at_seconds: 61.0,
            verdict,
            reasons: vec!["a reason".to_owned()],
            acked: 10,
            delivered: 25,
            ack_p99_ms: p99_ms,
            delivery_p50_ms: 1.0,
            delivery_p99_ms: p99_ms,
            lag_p99_ms: 0.5,
            process: Some(1),
            node_bytes: Some(mib << 20),
            cpu_micros: None,
            multiples: None,
        }
    }

    fn verdict(rounds: impl IntoIterator<Item = SoakRound>) -> (Verdict, String) {
        let mut report = SoakReport::new(10.0, Timing::Judged);
        rounds.into_iter().for_each(|round| report.add(round));
        (report.verdict, report.reasons.join("; "))
    }

    #[test]
    fn what_stays_as_it_is_passes_and_the_first_quarter_may_grow() {
        let sizes = [50, 80, 100, 101, 102, 103, 104, 105];
        assert_eq!(verdict(sizes.map(|mib| round(Verdict::Good, mib, 20.0))).0, Verdict::Good);
    }

    #[test]
    fn a_node_that_grows_or_slows_down_or_has_one_bad_round_does_not_pass() {
        let (grown, why) = verdict((1..=8).map(|number| round(Verdict::Good, 100 + 5 * number, 20.0)));
        assert!(grown == Verdict::Bad && why.contains("the node grew by"), "{why}");
        let (slower, why) =
            verdict((1..=8).map(|number| round(Verdict::Good, 100, f64::from(number * number))));
        assert!(slower == Verdict::Bad && why.contains("p99 went from"), "{why}");
        let (one, why) = verdict([Verdict::Good, Verdict::Bad].map(|of| round(of, 100, 20.0)));
        assert_eq!((one, why.as_str()), (Verdict::Bad, "a reason"));
    }

    #[test]
    fn too_few_rounds_and_a_late_generator_prove_nothing() {
        assert_eq!(verdict((0..3).map(|_| round(Verdict::Good, 100, 20.0))).0, Verdict::Invalid);
        assert_eq!(verdict((0..8).map(|_| round(Verdict::Invalid, 100, 20.0))).0, Verdict::Invalid);
        let at_the_end = |number| if number < 6 { Verdict::Good } else { Verdict::Invalid };
        assert_eq!(verdict((0..8).map(|number| round(at_the_end(number), 100, 20.0))).0, Verdict::Invalid);
    }

    #[test]
    fn a_node_that_is_not_seen_or_another_one_proves_nothing() {
        let unseen = SoakRound { node_bytes: None, process: None, ..round(Verdict::Good, 100, 20.0) };
        let (verdict_of, why) = verdict((0..8).map(|_| unseen.clone()));
        assert!(verdict_of == Verdict::Invalid && why.contains("memory is not known"), "{why}");
        let another =
            |number: u32| SoakRound { process: Some(number / 4), ..round(Verdict::Good, 100, 20.0) };
        let (verdict_of, why) = verdict((0..8).map(another));
        assert!(verdict_of == Verdict::Invalid && why.contains("process changed"), "{why}");
    }
}
