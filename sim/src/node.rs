//! The node: its shards as they are made at start, from what is on the disk.

use std::sync::Arc;

use gateway::auth::{DenyList, Keys};
use gateway::mailbox::{Mailboxes, Mesh};
use gateway::metrics::ShardMetrics;
use gateway::shard::{OwnedLog, Shard, ShardConfig, ShardParts};
use gateway::state::NodeState;
use protocol::upgrade::{Origins, UpgradePolicy};
use router::conversation::Recent;
use router::places::KINDS;
use router::{ConversationSide, Places, ShardId, Starts};
use storage_log::{Answer, CompactionPolicy, Geometry, LogConfig};

use crate::Rng;
use crate::disk::Disk;

/// Records in memory: little, so that readers go to the disk.
const TAIL_BYTES: usize = 8 << 10;

/// Deliveries in one lane, at most: few, so that lanes overflow.
const DELIVER_PLACES_MAX: u64 = 4;

pub(crate) struct Node {
    pub(crate) shards: Vec<Shard>,
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) state: Arc<NodeState>,
    pub(crate) metrics: Vec<Arc<ShardMetrics>>,
}

pub(crate) fn log_config(places: &Places, geometry: Geometry, number: u16) -> LogConfig {
    LogConfig {
        store: places.store,
        number,
        geometry,
        tail_bytes_max: TAIL_BYTES,
        kinds: KINDS,
        segment_ms_max: None,
    }
}

impl Node {
    /// Recovers every log and makes the shards.
    pub(crate) fn start(
        places: &Arc<Places>,
        keys: &Keys,
        denied: &DenyList,
        disk: &mut Disk,
        rng: &mut Rng,
        now: u64,
        keep_ms: Option<u64>,
    ) -> Self {
        let mut run = [0; 16];
        run[..8].copy_from_slice(&rng.roll().to_le_bytes());
        run[8..].copy_from_slice(&rng.roll().to_le_bytes());
        let mut logs = Vec::new();
        for number in 0..places.logs {
            logs.push(recover(places, disk, number, run, now));
        }
        let starts = Arc::new(Starts::new(logs.iter().map(|(log, _)| log.runs().to_vec()).collect()));
        logs.iter().for_each(|(log, _)| starts.keep_from(log.number(), log.links_kept_from()));
        let mesh = Mesh::new(places.shards, rng.between(1, DELIVER_PLACES_MAX + 1) as usize);
        let state = Arc::new(NodeState::new(places.logs));
        let metrics: Vec<_> = (0..places.shards).map(|_| Arc::new(ShardMetrics::default())).collect();
        let mut shards = Vec::new();
        for id in (0..places.shards).map(ShardId) {
            let owned = logs.extract_if(.., |(log, _)| places.owner_of(log.number()) == id);
            let owned = owned.map(|(log, recent)| {
                let side = ConversationSide::new(places.clone(), log.number(), recent);
                OwnedLog::new(log, side)
            });
            shards.push(Shard::new(ShardParts {
                id,
                places: places.clone(),
                starts: starts.clone(),
                config: ShardConfig {
                    connections_max: 1_000,
                    policy: UpgradePolicy { path: Some(UpgradePolicy::PATH), origins: Origins::Unset },
                    mail_per_turn: rng.between(1, 6) as usize,
                    drain_seconds: 1,
                    compaction: CompactionPolicy {
                        after_ms: Some(rng.below(300)),
                        keep_ms,
                        // What inboxes hold goes first.
                        keep_links_ms: keep_ms.map(|keep| keep * 3 / 4),
                        keep_bytes: None,
                    },
                },
                mail: Mailboxes::new(mesh.clone(), id),
                logs: owned.collect(),
                verifier: keys.verifier.clone(),
                cache_key: [3; 32],
                denied: denied.clone(),
                metrics: metrics[id.index()].clone(),
                state: state.clone(),
                random: rng.roll(),
            }));
        }
        Self { shards, mesh, state, metrics }
    }
}

fn recover(
    places: &Places,
    disk: &mut Disk,
    number: u16,
    run: [u8; 16],
    now: u64,
) -> (storage_log::Log, Recent) {
    let epoch = u32::from_le_bytes([run[0], run[1], run[2], run[3]]);
    let config = log_config(places, disk.geometry(), number);
    let (recovered, recent) = disk.recover(&config, epoch, now, &mut |_| {}).expect("a crash is not damage");
    if let Some(batch) = &recovered.rewrite {
        disk.write_now(number, batch);
    }
    let mut log = recovered.log;
    assert!(matches!(log.begin_run(run, now), Answer::Stored(_)));
    while let Some(batch) = log.poll_write(now) {
        disk.write_now(number, &batch);
        log.handle_written(batch.buffer, true).expect("written");
    }
    (log, recent)
}
