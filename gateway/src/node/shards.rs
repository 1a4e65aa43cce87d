//! The threads of the shards: each makes its ring, waits until the logs are open, and turns until the node has gone.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, bail};
use protocol::upgrade::UpgradePolicy;
use ring::{Ring, RingAddress, RingConfig};
use router::user::{ApproachLimits, Rate, UserLimits};
use router::{ConversationSide, ShardId};

use super::listeners::{Addresses, Listeners};
use super::{Common, Errands, cores};
use crate::auth::DenyList;
use crate::config::{CONNECTS_PER_SECOND_EACH, HANDSHAKES_EACH};
use crate::driver::{Driver, DriverParts};
use crate::erasures;
use crate::files::Inbox;
use crate::layout::Layout;
use crate::mailbox::Mailboxes;
use crate::metrics::ShardMetrics;
use crate::peers::Peers;
use crate::shard::{OwnedLog, Shard, ShardConfig, ShardParts, WORK_PER_TURN};
use crate::store::OpenLog;
use crate::upgrade::successor::{self, KeepsPeers};

type Started = (Vec<JoinHandle<anyhow::Result<()>>>, Vec<Inbox>);

/// What a shard's thread is told once the logs are open.
struct Begin {
    addresses: Vec<RingAddress>,
    common: Common,
    logs: Vec<OpenLog>,
    metrics: Arc<ShardMetrics>,
}

/// Threads of shards that have their rings and wait.
pub(super) struct Seated {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    begins: Vec<Sender<Begin>>,
    rings: Vec<RingAddress>,
    pub(super) inboxes: Vec<Inbox>,
    boarded: Receiver<()>,
    pub(super) addresses: Addresses,
    pub(super) peers: Arc<Peers>,
}

/// What a thread says before it waits.
struct Seat {
    id: ShardId,
    /// The way connections of another process come.
    stream: Option<UnixStream>,
    listeners: Listeners,
    peers: Arc<Peers>,
    keeps_peers: KeepsPeers,
    made: Sender<(ShardId, RingAddress, Inbox)>,
    boarded: Sender<()>,
    begin: Receiver<Begin>,
}

/// Starts the threads of all shards: each makes its ring, takes what connections come from another process, and waits.
pub(super) fn seat_shards(
    layout: Layout,
    seats: Vec<(Option<UnixStream>, Listeners)>,
    (peers, keeps_peers): (Arc<Peers>, KeepsPeers),
) -> anyhow::Result<Seated> {
    let shards = seats.len();
    let (made, rings) = channel::<(ShardId, RingAddress, Inbox)>();
    let (board, boarded) = channel();
    let (mut threads, mut begins) = (Vec::new(), Vec::new());
    let addresses = Addresses::of(&seats.first().context("a node has at least one shard")?.1)?;
    for (id, (stream, listeners)) in (0..).map(ShardId).zip(seats) {
        let (begin, begun) = channel();
        begins.push(begin);
        let (made, boarded) = (made.clone(), board.clone());
        let seat =
            Seat { id, stream, listeners, peers: peers.clone(), keeps_peers, made, boarded, begin: begun };
        let thread = thread::Builder::new().name(format!("shard-{}", id.0));
        threads.push(thread.spawn(move || shard_thread(layout, seat))?);
    }
    drop((made, board));
    let mut answers: Vec<Option<(RingAddress, Inbox)>> = vec![None; shards];
    for (id, address, inbox) in rings.iter().take(shards) {
        answers[id.index()] = Some((address, inbox));
    }
    if answers.iter().any(Option::is_none) {
        drop(begins);
        join_early(threads)?;
        bail!("a shard did not start");
    }
    let (rings, inboxes) = answers.into_iter().flatten().unzip();
    Ok(Seated { threads, begins, rings, inboxes, boarded, addresses, peers })
}

/// Why a thread ended that was to wait.
fn join_early(threads: Vec<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a shard panicked while starting"))??;
    }
    Ok(())
}

impl Seated {
    /// Until all connections of another process are here.
    pub(super) fn wait_for_passengers(&mut self) -> anyhow::Result<()> {
        let boarded = self.boarded.iter().take(self.threads.len()).count();
        if boarded < self.threads.len() {
            self.begins.clear();
            join_early(std::mem::take(&mut self.threads))?;
            bail!("a shard ended while starting");
        }
        Ok(())
    }

    /// Gives each its logs and its counters, and where the others are.
    pub(super) fn begin(
        self,
        common: &Common,
        mut opened: Vec<OpenLog>,
        metrics: Vec<Arc<ShardMetrics>>,
    ) -> anyhow::Result<Started> {
        for ((id, begin), metrics) in (0..).map(ShardId).zip(self.begins).zip(metrics) {
            let owner = |log: &OpenLog| common.places.owner_of(log.log.number());
            let logs = opened.extract_if(.., |log| owner(log) == id).collect();
            let (addresses, common) = (self.rings.clone(), common.clone());
            let begun = begin.send(Begin { addresses, common, logs, metrics });
            begun.ok().context("a shard ended before it was told where the others are")?;
        }
        Ok((self.threads, self.inboxes))
    }
}

fn shard_config(common: &Common) -> ShardConfig {
    let shards = u32::from(common.layout.shards);
    let share = |of_node: Option<u32>, each: u32| of_node.map_or(each, |of_node| of_node.div_ceil(shards));
    ShardConfig {
        connections_max: common.layout.connections_each,
        handshakes_max: share(common.config.handshakes_max, HANDSHAKES_EACH),
        connects_per_second_max: share(common.config.connects_per_second_max, CONNECTS_PER_SECOND_EACH),
        policy: UpgradePolicy { path: Some(UpgradePolicy::PATH), origins: common.config.origins.clone() },
        proxies: common.config.proxies.clone(),
        work_per_turn: WORK_PER_TURN,
        drain_seconds: common.config.drain.as_secs(),
        users: UserLimits {
            session_commands: Rate::per_second(common.config.session_commands_per_second),
            user_messages: Rate::per_second(common.config.user_messages_per_second),
            approaches: ApproachLimits {
                conversations: Rate::per_hour(common.config.user_new_conversations_per_hour),
                people: Rate::per_hour(common.config.user_added_people_per_hour),
            },
            searches: common.config.search,
            ..UserLimits::default()
        },
        compaction: common.compaction,
        pushes: common.config.push_file.is_some(),
    }
}

fn shard_thread(layout: Layout, seat: Seat) -> anyhow::Result<()> {
    let Seat { id, stream, listeners, peers, keeps_peers, made, boarded, begin } = seat;
    if let Err(error) = ring::pin_to_core(layout.core_of(id.index(), cores())) {
        tracing::debug!(shard = id.0, %error, "not pinned");
    }
    let sockets_max = layout.sockets_each;
    let mut ring = Ring::new(RingConfig { sockets_max, ..RingConfig::default() })
        .map_err(|error| anyhow::anyhow!("shard {} cannot make its ring: {error}", id.0))?;
    let inbox = Inbox::new(ring.waker());
    made.send((id, ring.address(), inbox.clone())).context("the node gave up before this shard had begun")?;
    let board = |stream| successor::board(&stream, &mut ring, &peers, keeps_peers);
    let boarded_shard = stream.map(board).transpose()?;
    // Nobody waits for it where there can be none.
    let _ = boarded.send(());
    drop((made, boarded));
    let Ok(begin) = begin.recv() else {
        return Ok(());
    };
    let mut driver = begin.into_driver(id, ring, inbox)?;
    if let Some(shard) = boarded_shard {
        driver.take_over(shard);
    }
    for (listener, kind) in listeners {
        driver.listen(listener, kind);
    }
    if let Err(error) = driver.run() {
        // Whose users it serves can neither be served nor told, and the other shards would serve on without it.
        panic!("a ring broke ({error}): the node ends at once, as after kill -9; start it again to recover");
    }
    Ok(())
}

impl Begin {
    /// The shard with all that it is made from, and what drives it.
    fn into_driver(self, id: ShardId, ring: Ring, inbox: Inbox) -> anyhow::Result<Driver> {
        let Self { addresses, common, logs, metrics } = self;
        let mut random = [0; 8];
        getrandom::fill(&mut random).context("the system gives no randomness")?;
        let mut cache_key = [0; 32];
        getrandom::fill(&mut cache_key).context("the system gives no randomness")?;
        let mut segments = Vec::new();
        let mut owned = Vec::new();
        for OpenLog { log, recent, unjudged, segments: files, .. } in logs {
            segments.push((log.number(), files));
            let side = ConversationSide::new(common.places.clone(), log.number(), recent);
            let mut log = OwnedLog::new(log, side);
            erasures::start::put_in_force(&common.erased, &mut log);
            if common.config.push_file.is_some() {
                log.begin_pushes(unjudged);
            }
            owned.push(log);
        }
        let shard = Shard::new(ShardParts {
            id,
            places: common.places.clone(),
            starts: common.starts.clone(),
            config: shard_config(&common),
            mail: Mailboxes::new(common.mesh.clone(), id),
            logs: owned,
            peers: common.peers.clone(),
            verifier: common.verifier.clone(),
            cache_key,
            denied: DenyList::clone(&common.denied),
            metrics: metrics.clone(),
            state: common.state.clone(),
            random: u64::from_le_bytes(random),
        });
        let (mesh, geometry) = (common.mesh.clone(), common.geometry);
        let (Errands { jobs, compactions, care, search, pushes }, epoch) =
            (common.errands.clone(), common.epoch);
        drop(common);
        let parts = DriverParts {
            ring,
            addresses,
            mesh,
            segments,
            inbox,
            geometry,
            jobs,
            compactions,
            care,
            search,
            pushes,
            epoch,
            metrics,
        };
        Ok(Driver::new(shard, parts))
    }
}
