//! The node: its shards as they are made at start, from what is on the disk.

use std::sync::Arc;

use gateway::auth::{DenyList, Keys};
use gateway::mailbox::{Mailboxes, Mesh};
use gateway::metrics::ShardMetrics;
use gateway::peers::{PeerLimits, Peers};
use gateway::shard::{OwnedLog, Shard, ShardConfig, ShardParts};
use gateway::state::NodeState;
use protocol::upgrade::{Origins, UpgradePolicy};
use router::conversation::{Recent, Unjudged};
use router::places::KINDS;
use router::user::UserLimits;
use router::{ConversationSide, Places, ShardId, Starts};
use storage_log::{Answer, CompactionPolicy, Geometry, LogConfig};

use crate::Rng;
use crate::calling::Calls;
use crate::dice::{SEARCHING, searches};
use crate::disk::Disk;
use crate::erasing::Erasures;

/// Records in memory: little, so that readers go to the disk.
const TAIL_BYTES: usize = 8 << 10;

/// Deliveries in one lane, at most: few, so that lanes overflow.
const DELIVER_PLACES_MAX: u64 = 4;

/// Sets the dice of small outboxes and few credits apart from those of everything else.
const SQUEEZING: u64 = 0x7371_7565_657a;

/// Sets the dice of retention apart likewise.
const KEEPING: u64 = 0x6b65_6570;

/// How long somebody is held to be online without a session: most come back sooner.
pub(crate) const PRESENCE_GRACE_MILLIS: u64 = 40;

/// By how much it may be wrong after a crash when somebody was last seen: little, so that who stays is written again.
pub(crate) const LAST_SEEN_ERROR_MILLIS: u64 = 2_400;

/// What a node of this world may hold, and for how long.
pub(crate) struct Bounds {
    pub(crate) users: UserLimits,
    pub(crate) keep_ms: Option<u64>,
}

impl Bounds {
    /// Whether a node holds less than it would.
    pub(crate) fn is_tight(&self) -> bool {
        self.users.outbox_bytes_max < UserLimits::default().outbox_bytes_max
    }

    /// In some worlds little, so that outboxes fill up and credits run out. Each kind has dice of its own.
    pub(crate) fn of_world(seed: u64) -> Self {
        let mut users = UserLimits {
            presence_grace_millis: PRESENCE_GRACE_MILLIS,
            last_seen_error_millis: LAST_SEEN_ERROR_MILLIS,
            searches: searches(seed),
            index_asks_max: Rng::new(seed ^ SEARCHING ^ u64::MAX).between(1, 4) as u32,
            ..UserLimits::default()
        };
        if matches!(seed % 16, 8 | 11 | 15) {
            let mut rng = Rng::new(seed ^ SQUEEZING);
            users = UserLimits {
                outbox_bytes_max: rng.between(200, 4_000) as usize,
                command_credits: rng.between(2, 40) as u32,
                page_credits: rng.between(1, 10) as u32,
                ..users
            };
        }
        let keep_ms = (seed % 16 == 14).then(|| Rng::new(seed ^ KEEPING).between(200, 900));
        Self { users, keep_ms }
    }
}

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
        (denied, erasures, calls): (&DenyList, &mut Erasures, &mut Calls),
        disk: &mut Disk,
        rng: &mut Rng,
        now: u64,
        bounds: &Bounds,
    ) -> Self {
        let mut run = [0; 16];
        run[..8].copy_from_slice(&rng.roll().to_le_bytes());
        run[8..].copy_from_slice(&rng.roll().to_le_bytes());
        let mut logs = Vec::new();
        for number in 0..places.logs {
            logs.push(recover(places, disk, calls, number, run, now));
        }
        let starts = Arc::new(Starts::new(logs.iter().map(|(log, ..)| log.runs().to_vec()).collect()));
        logs.iter().for_each(|(log, ..)| starts.keep_from(log.number(), log.links_kept_from()));
        let mesh = Mesh::new(places.shards, rng.between(1, DELIVER_PLACES_MAX + 1) as usize);
        let state = Arc::new(NodeState::new(places.logs));
        let metrics: Vec<_> = (0..places.shards).map(|_| Arc::new(ShardMetrics::default())).collect();
        let (mut shards, pushes) = (Vec::new(), calls.dice.is_some());
        for id in (0..places.shards).map(ShardId) {
            let owned = logs.extract_if(.., |(log, ..)| places.owner_of(log.number()) == id);
            let owned = owned.map(|(log, recent, unjudged)| {
                let side = ConversationSide::new(places.clone(), log.number(), recent);
                let begun = log.runs().last().map_or(0, |run| run.first_position - 1);
                let end = log.durable().position();
                let mut owned = OwnedLog::new(log, side);
                erasures.put_in_force(begun, &mut owned);
                calls.begin(&mut owned, unjudged, end);
                owned
            });
            shards.push(Shard::new(ShardParts {
                id,
                places: places.clone(),
                starts: starts.clone(),
                config: ShardConfig {
                    connections_max: 1_000,
                    handshakes_max: 1_000,
                    connects_per_second_max: 1_000_000,
                    policy: UpgradePolicy { path: Some(UpgradePolicy::PATH), origins: Origins::Unset },
                    proxies: Vec::new(),
                    work_per_turn: rng.between(1, 60) as usize,
                    drain_seconds: 1,
                    users: bounds.users,
                    pushes,
                    compaction: CompactionPolicy {
                        after_ms: Some(rng.below(300)),
                        keep_ms: bounds.keep_ms,
                        // What inboxes hold goes first.
                        keep_links_ms: bounds.keep_ms.map(|keep| keep * 3 / 4),
                        keep_bytes: None,
                    },
                },
                mail: Mailboxes::new(mesh.clone(), id),
                logs: owned.collect(),
                peers: Peers::new(PeerLimits::NONE, 1_000, [4; 32]),
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
    calls: &Calls,
    number: u16,
    run: [u8; 16],
    now: u64,
) -> (storage_log::Log, Recent, Unjudged) {
    let epoch = u32::from_le_bytes([run[0], run[1], run[2], run[3]]);
    let config = log_config(places, disk.geometry(), number);
    let mut unjudged = calls.unjudged(number, now);
    let read = disk.recover(&config, epoch, now, &mut |record| unjudged.observe(record));
    let (recovered, recent) = read.expect("a crash is not damage");
    if let Some(batch) = &recovered.rewrite {
        disk.write_now(number, batch);
    }
    let mut log = recovered.log;
    let mut begun = log.begin_run(run, now);
    if begun == Answer::Busy {
        // The last segment is full, and the disk had no room for the next until now.
        disk.create(number, log.spare_base());
        log.handle_spare(Ok(()));
        begun = log.begin_run(run, now);
    }
    assert!(matches!(begun, Answer::Stored(_)));
    while let Some(batch) = log.poll_write(now) {
        disk.write_now(number, &batch);
        log.handle_written(batch.buffer, true).expect("written");
    }
    (log, recent, unjudged)
}
