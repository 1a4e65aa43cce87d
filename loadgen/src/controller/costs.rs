//! What node and generator take of the machine, second by second.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use crate::{
    clock::Moment,
    host::{Reading, holder_of},
};

/// What one second took. Nothing is said of what was not there, before and behind it, as the same process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Cores that the node was at work on, where it is a process on this machine.
    pub(crate) node_cores: Option<f64>,
    /// Its resident memory at the end of the second.
    pub(crate) node_bytes: Option<u64>,
    /// Cores of all workers.
    pub(crate) generator_cores: Option<f64>,
}

/// Reads what processes have taken, each time that it is asked.
pub(crate) struct Costs {
    node: Whose,
    workers: Vec<u32>,
    last: Option<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Moment,
    node: Option<(u32, Duration)>,
    generator: Duration,
}

/// Which process is the node.
enum Whose {
    /// The one that holds this locked, also after it was started again.
    Holder(PathBuf),
    Process(u32),
    /// None that is known here.
    Unknown,
}

impl Whose {
    fn process(&self) -> Option<u32> {
        match self {
            Self::Holder(lock) => holder_of(lock),
            Self::Process(process) => Some(*process),
            Self::Unknown => None,
        }
    }
}

impl Costs {
    /// Of a node that holds `lock`, where there is one here.
    pub(super) fn new(lock: Option<PathBuf>) -> Self {
        Self { node: lock.map_or(Whose::Unknown, Whose::Holder), workers: Vec::new(), last: None }
    }

    /// Of a node that somebody has named.
    pub(super) fn of_process(process: Option<u32>) -> Self {
        Self { node: process.map_or(Whose::Unknown, Whose::Process), workers: Vec::new(), last: None }
    }

    /// Begins, with these processes as the generator.
    pub(super) fn begin(&mut self, workers: Vec<u32>) {
        self.workers = workers;
        self.take();
    }

    /// What was taken since it was asked last.
    pub(super) fn take(&mut self) -> Cost {
        let node = self.node.process();
        let node = node.and_then(|process| Some((process, Reading::take(process).ok()?)));
        let generator = self.workers.iter().filter_map(|worker| Reading::take(*worker).ok());
        let sample = Sample {
            at: Moment::now(),
            node: node.map(|(process, reading)| (process, reading.cpu)),
            generator: generator.map(|reading| reading.cpu).sum(),
        };
        let before = self.last.replace(sample);
        Cost { node_bytes: node.map(|(_, reading)| reading.resident_bytes), ..sample.since(before.as_ref()) }
    }
}

impl Sample {
    fn since(&self, before: Option<&Self>) -> Cost {
        let Some(before) = before else {
            return Cost::default();
        };
        let seconds = self.at.since(before.at).as_secs_f64();
        let cores = |now: Duration, then: Duration| {
            (seconds > 0.0).then(|| now.saturating_sub(then).as_secs_f64() / seconds)
        };
        let node = self.node.zip(before.node).filter(|((now, _), (then, _))| now == then);
        Cost {
            node_cores: node.and_then(|((_, now), (_, then))| cores(now, then)),
            node_bytes: None,
            generator_cores: cores(self.generator, before.generator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, node: Option<(u32, u64)>, generator_ms: u64) -> Sample {
        Sample {
            at: Moment(seconds * 1_000_000_000),
            node: node.map(|(process, ms)| (process, Duration::from_millis(ms))),
            generator: Duration::from_millis(generator_ms),
        }
    }

    #[test]
    fn cores_are_what_was_taken_in_between() {
        let (before, now) = (sample(1, Some((7, 100)), 1_000), sample(3, Some((7, 1_100)), 4_000));
        let cost = now.since(Some(&before));
        assert_eq!((cost.node_cores, cost.generator_cores), (Some(0.5), Some(1.5)));
        assert_eq!(now.since(None), Cost::default());
    }

    #[test]
    fn of_a_node_that_was_started_again_in_between_nothing_is_said() {
        let (before, gone) = (sample(1, Some((7, 100)), 0), sample(2, None, 0));
        let again = sample(3, Some((8, 100)), 0);
        for (now, before) in [(again, before), (gone, before), (again, gone)] {
            assert_eq!(now.since(Some(&before)).node_cores, None);
        }
    }

    #[test]
    fn this_process_can_be_read() {
        let mut costs = Costs::new(None);
        assert_eq!(costs.take(), Cost::default());
        costs.begin(vec![std::process::id(), u32::MAX]);
        let cost = costs.take();
        assert_eq!((cost.node_cores, cost.node_bytes), (None, None));
        assert!(cost.generator_cores.is_some_and(|cores| cores >= 0.0));
    }
}
