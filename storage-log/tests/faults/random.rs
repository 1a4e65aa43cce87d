//! Long workloads from seeds: any operation, any call that fails, any crash, one after the other on the same disk.

use storage_log::Geometry;

use super::crashes::TINY;
use super::disk::Fault;
use super::node::{Node, OPS, Op, Outcome};
use super::rot::SMALL;
use crate::support::roll;

const SEEDS: u64 = 60;

/// Operations of each.
const STEPS: usize = 80;

const OF_LARGE_BLOCKS: Geometry =
    Geometry { segment_bytes: 32 << 10, batch_bytes_max: 8 << 10, block_bytes: 4096 };

/// Numbers from a seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        roll(&mut self.0) as usize % limit
    }
}

/// What has happened to a log.
#[derive(Default, Debug)]
struct Counts {
    crashes: usize,
    kills: usize,
    stopped: usize,
}

fn run(seed: u64, counts: &mut Counts) -> Result<(), String> {
    let mut rng = Rng(seed);
    let geometry = [TINY, SMALL, OF_LARGE_BLOCKS][rng.below(3)];
    let mut node = Node::new(geometry);
    for _ in 0..STEPS {
        let fault = [Fault::Error, Fault::Short][rng.below(2)];
        node.disk.calls = 0;
        node.disk.fault = (rng.below(6) == 0).then(|| (rng.below(10), fault));
        node.disk.moments = Some(Vec::new());
        let op = OPS[rng.below(OPS.len())];
        let outcome = node.perform(op)?;
        node.disk.fault = None;
        let mut moments = node.disk.moments.take().expect("they were noted");
        moments.push(node.disk.clone());
        let is_stopped = !node.log.is_healthy() || (op, outcome) == (Op::Restart, Outcome::Failed);
        if !node.log.is_healthy() {
            counts.stopped += 1;
            node.assert_stopped();
        }
        if rng.below(8) == 0 {
            counts.crashes += 1;
            let moment = &moments[rng.below(moments.len())];
            let luck = rng.below(3);
            let image = moment.image(|| luck == 0 || (luck == 1 && rng.below(2) == 0));
            let model = node.model.when_told(image.told);
            node = Node::start(image, model, geometry, node.starts() + 1)?;
        } else if is_stopped {
            counts.kills += 1;
            node = Node::start(node.disk.killed(), node.model.clone(), geometry, node.starts() + 1)?;
        }
    }
    Ok(())
}

#[test]
fn long_workloads_keep_what_was_told() {
    let mut counts = Counts::default();
    for seed in 0..SEEDS {
        println!("seed {seed}");
        assert_eq!(run(seed, &mut counts), Ok(()), "seed {seed}");
    }
    println!("{counts:?}");
    assert!(counts.crashes > 300 && counts.kills > 60 && counts.stopped > 50, "{counts:?}");
}
