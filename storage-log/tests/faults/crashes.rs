//! Every image that a crash can leave, in every moment of every workload of up to three operations; and every call that fails.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use storage_log::{Geometry, index_file_name, segment_file_name};

use super::disk::{Disk, Fault};
use super::files::cold_file_name;
use super::model::Model;
use super::node::{Node, OPS, Op, Outcome};

/// Segments of eight sectors: every workload gets from one to the next.
pub(crate) const TINY: Geometry =
    Geometry { segment_bytes: 8 << 10, batch_bytes_max: 4 << 10, block_bytes: 512 };

/// What has happened before a workload: nothing; a sealed segment with its index; all kinds of files, and an index that is due.
const BEFORE: [&[Op]; 3] = [
    &[],
    &[Op::Small, Op::Roll, Op::Index],
    &[Op::Group, Op::Large, Op::Roll, Op::Index, Op::Snapshot, Op::Compact, Op::Group, Op::Roll],
];

/// All workloads of `length` operations, whatever came before.
fn workloads(length: usize) -> Vec<(&'static [Op], Vec<Op>)> {
    let mut all: Vec<(&[Op], Vec<Op>)> = BEFORE.iter().map(|before| (*before, Vec::new())).collect();
    for _ in 0..length {
        let longer = |(before, ops): &(&'static [Op], Vec<Op>)| {
            OPS.map(|op| (*before, ops.iter().copied().chain([op]).collect::<Vec<Op>>()))
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// The node in front of the last operation of a workload; `None` where one before it had nothing to do: a shorter workload is the same.
fn in_front_of_last(before: &[Op], ops: &[Op]) -> Option<Node> {
    let mut node = Node::new(TINY);
    for op in before {
        assert_eq!(node.perform(*op), Ok(Outcome::Done), "{op:?}");
    }
    for op in &ops[..ops.len() - 1] {
        if node.perform(*op).expect("nothing fails") == Outcome::Idle {
            return None;
        }
    }
    Some(node)
}

/// How many images were checked, and which: by their fingerprints and those of what was told.
#[derive(Default)]
struct Checker {
    seen: HashSet<(u64, u64)>,
    images: usize,
}

impl Checker {
    /// Everything that a crash could have left in the moments of an operation and after it.
    fn check_moments(&mut self, node: &mut Node) -> Result<(), String> {
        let mut moments = node.disk.moments.take().expect("they were noted");
        moments.push(node.disk.clone());
        for moment in moments {
            for (fingerprint, image) in moment.images() {
                self.check(fingerprint, &image, &node.model, node.starts() + 1)?;
            }
        }
        Ok(())
    }

    /// What a start finds in an image, what one finds that crashes while it starts, and what one finds after it has served.
    fn check(&mut self, fingerprint: u64, image: &Disk, model: &Model, starts: u8) -> Result<(), String> {
        let model = model.when_told(image.told);
        if !self.is_new(fingerprint, &model) {
            return Ok(());
        }
        let mut noted = image.clone();
        noted.moments = Some(Vec::new());
        let mut node = Node::start(noted, model, TINY, starts)?;
        if node.perform(Op::Group)? != Outcome::Done {
            return Err("it takes nothing".to_owned());
        }
        let mut moments = node.disk.moments.take().expect("they were noted");
        moments.push(node.disk.clone());
        for moment in moments {
            for (fingerprint, image) in moment.images() {
                let model = node.model.when_told(image.told);
                if self.is_new(fingerprint, &model) {
                    Node::start(image, model, TINY, starts + 1).map_err(|error| format!("again: {error}"))?;
                }
            }
        }
        Ok(())
    }

    fn is_new(&mut self, image: u64, model: &Model) -> bool {
        let is_new = self.seen.insert((image, model.fingerprint()));
        self.images += usize::from(is_new);
        is_new
    }
}

/// Has `check` look at all of them, on every core. How many images that were.
fn on_all_cores<W: Sync>(works: &[W], check: impl Fn(&mut Checker, &W) + Sync) -> usize {
    let (next, images) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut checker = Checker::default();
                while let Some(work) = works.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(&mut checker, work);
                }
                images.fetch_add(checker.images, Ordering::Relaxed);
            });
        }
    });
    images.into_inner()
}

#[test]
fn every_crash_of_every_short_workload_keeps_what_was_told() {
    let all: Vec<_> = (1..=3).flat_map(workloads).collect();
    let images = on_all_cores(&all, |checker, (before, ops)| {
        let Some(mut node) = in_front_of_last(before, ops) else {
            return;
        };
        node.disk.moments = Some(Vec::new());
        let checked = node.perform(ops[ops.len() - 1]).and_then(|_| checker.check_moments(&mut node));
        assert_eq!(checked, Ok(()), "{ops:?} after {before:?}");
    });
    println!("{images} images of {} workloads", all.len());
    assert!(images > 10_000, "only {images} images");
}

#[test]
fn every_call_that_fails_costs_nothing_that_was_told() {
    let all: Vec<_> = (1..=2).flat_map(workloads).collect();
    let images = on_all_cores(&all, |checker, (before, ops)| {
        for fault in [Fault::Error, Fault::Short] {
            for call in 0.. {
                let Some(mut node) = in_front_of_last(before, ops) else {
                    return;
                };
                let op = ops[ops.len() - 1];
                (node.disk.calls, node.disk.fault) = (0, Some((call, fault)));
                node.disk.moments = Some(Vec::new());
                let outcome = node.perform(op);
                if node.disk.fault.take().is_some() {
                    // It makes fewer calls.
                    break;
                }
                let checked = outcome.and_then(|outcome| check_after_fault(checker, &mut node, op, outcome));
                assert_eq!(checked, Ok(()), "{fault:?} of call {call}: {ops:?} after {before:?}");
            }
        }
    });
    println!("{images} images of {} workloads", all.len());
    assert!(images > 10_000, "only {images} images");
}

fn check_after_fault(checker: &mut Checker, node: &mut Node, op: Op, outcome: Outcome) -> Result<(), String> {
    checker.check_moments(node)?;
    let (mut killed, model) = (node.disk.killed(), node.model.clone());
    killed.moments = Some(Vec::new());
    let mut next = Node::start(killed, model, TINY, node.starts() + 1)?;
    checker.check_moments(&mut next).map_err(|error| format!("killed: {error}"))?;
    for op in [Op::Small, Op::Roll] {
        if next.perform(op)? != Outcome::Done {
            return Err("it takes nothing".to_owned());
        }
    }
    next.disk.moments = Some(Vec::new());
    checker.check_moments(&mut next)?;
    if !node.log.is_healthy() {
        node.assert_stopped();
    } else if op != Op::Restart && matches!(outcome, Outcome::Failed | Outcome::Full) {
        let again = node.perform(op)?;
        // A snapshot that has its name is there, whether that is durable or not.
        if again == Outcome::Idle && op != Op::Snapshot {
            return Err(format!("{again:?} when it is tried again"));
        }
        node.disk.moments = Some(Vec::new());
        checker.check_moments(node)?;
    }
    Ok(())
}

/// A start that reads the name of a cold segment removes what that was made from, and the name need not be durable.
#[test]
fn a_cold_segment_whose_name_is_not_durable_does_not_cost_its_records() {
    let mut node = in_front_of_last(BEFORE[1], &[Op::Compact]).expect("a segment is sealed");
    // The sync of the directory, behind the renaming.
    (node.disk.calls, node.disk.fault) = (0, Some((4, Fault::Error)));
    assert_eq!(node.perform(Op::Compact), Ok(Outcome::Done), "it is complete");
    let (cold, made_from) = (cold_file_name(0), [segment_file_name(0), index_file_name(0)]);
    let is_there = |disk: &Disk, name: &String| disk.file(name).is_some();
    assert!(is_there(&node.disk, &cold) && made_from.iter().all(|name| is_there(&node.disk, name)));
    let mut killed = node.disk.killed();
    killed.moments = Some(Vec::new());
    let mut next = Node::start(killed, node.model.clone(), TINY, 2).expect("both are there");
    assert!(!made_from.iter().any(|name| is_there(&next.disk, name)), "the name is durable now");
    assert_eq!(Checker::default().check_moments(&mut next), Ok(()));
}
