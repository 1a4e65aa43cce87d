//! What is sent, and when: a schedule that nothing the node does can change.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{clock::Moment, random::Random};

/// A part of the schedule: a rate that stays as it is, or changes evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoadStep {
    /// Messages a second at its beginning and at its end, of all workers together.
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) seconds: u32,
}

impl LoadStep {
    /// Twice its messages: evenly from one whole rate to another, that is a whole number.
    const fn doubled(&self) -> u64 {
        (self.from as u64 + self.to as u64) * self.seconds as u64
    }

    /// Seconds from its beginning until `number` messages are due. With `from` = a, `to` = b and T seconds, a t + (b - a) t² / 2 T are due after
    /// t; solved for t in the form that loses no digits where a and b are close, or the same.
    fn seconds_until(&self, number: f64) -> f64 {
        let (from, to) = (f64::from(self.from), f64::from(self.to));
        let change = (to - from) / f64::from(self.seconds.max(1));
        // Rounded below zero where the rate ends at 0.
        let root = (from * from + 2.0 * change * number).max(0.0).sqrt();
        if number == 0.0 { 0.0 } else { 2.0 * number / (from + root) }
    }
}

impl fmt::Display for LoadStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, seconds } = self;
        match from == to {
            true => write!(f, "{from} messages a second for {seconds} s"),
            false => write!(f, "{from} to {to} messages a second within {seconds} s"),
        }
    }
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// One after the other; at least one.
    pub(crate) steps: Vec<LoadStep>,
    /// Sizes of a text, evenly from the first to the second.
    pub(crate) payload_bytes: (usize, usize),
}

impl Load {
    pub(crate) fn steady(rate: u32, seconds: u32, payload_bytes: usize) -> Self {
        let steps = vec![LoadStep { from: rate, to: rate, seconds }];
        Self { steps, payload_bytes: (payload_bytes, payload_bytes) }
    }

    /// Messages of the whole run, of all workers.
    pub(crate) fn messages(&self) -> u64 {
        self.steps.iter().map(LoadStep::doubled).sum::<u64>() / 2
    }

    pub(crate) fn seconds(&self) -> u32 {
        self.steps.iter().map(|step| step.seconds).sum()
    }

    /// Messages a second when there are most.
    pub(crate) fn peak(&self) -> u32 {
        self.steps.iter().map(|step| step.from.max(step.to)).max().unwrap_or_default()
    }

    /// When message `number` is due, however things go. One formula, so that no error adds up.
    pub(crate) fn due(&self, start: Moment, number: u64) -> Moment {
        let (mut doubled, mut seconds) = (2 * number, 0_u64);
        for step in &self.steps {
            if doubled < step.doubled() {
                let within = step.seconds_until(doubled as f64 / 2.0);
                return Moment(start.0 + seconds * 1_000_000_000 + (within * 1e9) as u64);
            }
            doubled -= step.doubled();
            seconds += u64::from(step.seconds);
        }
        Moment(start.0 + seconds * 1_000_000_000)
    }

    /// Size of the next text.
    pub(crate) fn text_bytes(&self, random: &mut Random) -> usize {
        let (least, most) = self.payload_bytes;
        least + random.below((most - least) as u64 + 1) as usize
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.steps.iter().map(LoadStep::to_string).collect();
        f.write_str(&steps.join(", then "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(steps: &[(u32, u32, u32)]) -> Load {
        let steps =
            steps.iter().map(|(from, to, seconds)| LoadStep { from: *from, to: *to, seconds: *seconds });
        Load { steps: steps.collect(), payload_bytes: (72, 72) }
    }

    fn due_seconds(load: &Load, number: u64) -> f64 {
        load.due(Moment(0), number).0 as f64 / 1e9
    }

    #[test]
    fn a_steady_rate_is_due_at_even_times() {
        let load = load(&[(4, 4, 10)]);
        assert_eq!((load.messages(), load.seconds(), load.peak()), (40, 10, 4));
        assert!((0..40).all(|number| due_seconds(&load, number) == number as f64 / 4.0));
    }

    #[test]
    fn a_ramp_sends_as_many_as_its_mean_and_each_sooner_behind_the_one_before() {
        let load = load(&[(0, 100, 10), (100, 0, 10)]);
        assert_eq!((load.messages(), load.seconds(), load.peak()), (1000, 20, 100));
        // 5 t² up, the same down: a quarter of the first half is due after half of its time.
        assert!((due_seconds(&load, 125) - 5.0).abs() < 1e-6);
        assert!((due_seconds(&load, 875) - 15.0).abs() < 1e-6);
        let times: Vec<f64> = (0..1000).map(|number| due_seconds(&load, number)).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[1..499].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(gaps[500..998].windows(2).all(|pair| pair[1] > pair[0]));
        assert!(times[999] < 20.0);
    }

    #[test]
    fn steps_follow_each_other_without_a_hole() {
        // The first has 7.5 messages.
        let load = load(&[(1, 2, 5), (2, 2, 5), (2, 1000, 3)]);
        assert_eq!(load.messages(), (15 + 20 + 3006) / 2);
        let times: Vec<f64> = (0..load.messages()).map(|number| due_seconds(&load, number)).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(times[7] < 5.0 && times[8] > 5.0 && times[8] < 5.5);
        assert!(times.last().is_some_and(|last| (12.9..13.0).contains(last)));
    }

    #[test]
    fn texts_have_all_sizes_from_the_least_to_the_most() {
        let load = Load { payload_bytes: (100, 103), ..Load::steady(1, 1, 100) };
        let mut random = Random::from_system().expect("the system's random source");
        let sizes: std::collections::BTreeSet<usize> =
            (0..200).map(|_| load.text_bytes(&mut random)).collect();
        assert!(sizes.into_iter().eq(100..=103));
    }
}
