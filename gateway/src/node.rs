//! One node: recovers its logs, starts its shards, and keeps the control plane until it is told to stop.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use protocol::ids::UnixMillis;
use protocol::upgrade::UpgradePolicy;
use ring::{ListenOptions, Ring, RingAddress, RingConfig};
use router::user::{Rate, UserLimits};
use router::{ConversationSide, Places, ShardId, Starts};
use storage_log::format::FORMAT_VERSION;
use storage_log::{CompactionPolicy, Damage, DamageKind, Geometry, Run};

use crate::admin::AdminContext;
use crate::auth::{AdminToken, DenyList, Keys, Verifier, development_banner};
use crate::caretaker::{self, Care, CareParts};
use crate::compaction::{self, Compactor};
use crate::config::{CONNECTS_PER_SECOND_EACH, Config, HANDSHAKES_EACH};
use crate::control::ControlPlane;
use crate::driver::{Driver, DriverParts};
use crate::erasures::{self, Erasure, Erasures, ErasuresFile, ErasuresParts};
use crate::files::{self, Inbox, Job};
use crate::layout::{self, Layout};
use crate::mailbox::{Mailboxes, Mesh, deliver_places};
use crate::memory::Gauge;
use crate::metrics::{CareMetrics, ShardMetrics};
use crate::retention;
use crate::revocations::{Revocations, RevocationsFile};
use crate::shard::{Listener, MAIL_PER_TURN, OwnedLog, Shard, ShardConfig, ShardParts};
use crate::state::{LogHealth, NodeState};
use crate::store::{LogRefusal, OpenLog, Store};

/// A slow reader pins at most this much in the kernel, in bytes.
const SEND_BUFFER_BYTES: u32 = 64 << 10;

/// Everything one shard's thread needs to begin.
struct ShardStart {
    id: ShardId,
    logs: Vec<OpenLog>,
    listeners: Vec<(TcpListener, Listener)>,
    metrics: Arc<ShardMetrics>,
}

/// What all shards share.
#[derive(Clone)]
struct Common {
    places: Arc<Places>,
    starts: Arc<Starts>,
    config: Arc<Config>,
    layout: Layout,
    verifier: Verifier,
    denied: Arc<DenyList>,
    erased: Arc<Vec<Erasure>>,
    mesh: Arc<Mesh>,
    state: Arc<NodeState>,
    epoch: Instant,
    geometry: Geometry,
    compaction: CompactionPolicy,
    errands: Errands,
}

/// Where a shard leaves what would block it.
#[derive(Clone)]
struct Errands {
    jobs: Sender<Job>,
    compactions: Sender<compaction::Job>,
    care: Sender<Care>,
}

/// The threads that do it.
struct Helpers {
    files: JoinHandle<()>,
    compactor: Compactor,
    caretaker: JoinHandle<()>,
}

impl Helpers {
    fn start(store: &Store, config: &Config, metrics: Arc<CareMetrics>) -> anyhow::Result<(Errands, Self)> {
        let (jobs, files) = files::start(store.segment_maker())?;
        let (compactions, compactor) = Compactor::start(store.directory().to_owned(), store.access)?;
        let (care, caretaker) = caretaker::start(CareParts {
            directory: store.directory().to_owned(),
            scrub_bytes_per_second: config.scrub_bytes_per_second,
            metrics,
        })?;
        Ok((Errands { jobs, compactions, care }, Self { files, compactor, caretaker }))
    }

    /// Waits for their ends. Nobody can leave them anything any more.
    fn join(self) -> anyhow::Result<()> {
        let panicked = |what| move |_| anyhow::anyhow!("the {what} thread panicked");
        self.compactor.stop().map_err(panicked("compaction"))?;
        self.caretaker.join().map_err(panicked("caretaker"))?;
        self.files.join().map_err(panicked("files"))
    }
}

/// Runs a node until it is drained. 0 when it was asked to stop, 1 when a log failed.
///
/// # Errors
/// Why it could not start.
pub fn run(config: Config, keys: Keys) -> anyhow::Result<ExitCode> {
    ring::probe().map_err(|missing| anyhow::anyhow!("{missing}"))?;
    let (layout, gauge) = (layout_of(&config)?, Gauge::of_this_process(config.memory_reserve_bytes));
    let shards = layout.shards;
    let (store, compaction) = open_store(&config, shards)?;
    let store = Arc::new(store);
    let revocations_file = RevocationsFile::of(&config.data);
    let revoked = revocations_file.read()?;
    let (erasures_file, erased) = read_erasures(&config)?;
    let context = AdminContext {
        state: Arc::new(NodeState::new(store.logs)),
        metrics: (0..shards).map(|_| Arc::default()).collect(),
        care: Arc::new(CareMetrics::new(store.logs)),
        admin_token: Arc::new(AdminToken::load(&config)?),
        commands: Arc::new(OnceLock::new()),
    };
    let AdminContext { state, metrics, care, .. } = context.clone();
    let admin = bind_admin(config.admin)?;
    let admin_address = admin.local_addr()?;
    // Before the logs are read back: a probe is to hear of that, and to be stopped meanwhile is no crash.
    let mut plane = ControlPlane::start(admin, context)?;
    tracing::info!(admin = %admin_address, "recovering: the logs are read back");
    let reading = (store.clone(), state.clone());
    let Some((opened, starts)) = plane.wait_for("recovery", move || open_logs(&reading.0, &reading.1))?
    else {
        plane.end();
        tracing::info!("stopped before the logs were read back: the next start reads them");
        return Ok(ExitCode::SUCCESS);
    };
    let places = Arc::new(Places::new(store.id, store.key, store.logs, shards));
    let parts = settle_erasures(erasures_file, erased, &opened, &places, (&store, care.clone()))?;
    let (errands, helpers) = Helpers::start(&store, &config, care)?;
    let Bound { listeners, chat, echo } = bind_all(&config, shards)?;
    let starting = parts_of_shards(&places, opened, listeners, metrics);
    let common = Common {
        places,
        starts: Arc::new(starts),
        config: Arc::new(config),
        layout,
        verifier: keys.verifier.clone(),
        denied: Arc::new(revoked.iter().collect()),
        erased: Arc::new(parts.kept.clone()),
        mesh: Mesh::new(shards, deliver_places(shards)),
        state: state.clone(),
        epoch: Instant::now(),
        geometry: store.geometry,
        compaction,
        errands,
    };
    let (threads, inboxes) = start_shards(&common, starting)?;
    drop(common);
    state.set_recovered();
    let echo = echo.map_or_else(|| "off".to_owned(), |address| address.to_string());
    tracing::info!(listen = %chat, admin = %admin_address, echo, shards, connections_max = layout.connections_max, "serving");
    if let Some(banner) = development_banner(&keys, chat, unix_now()) {
        // Nobody has to read it.
        let _ = std::io::stdout().write_all(banner.as_bytes());
    }
    let revocations = Revocations::new(revocations_file, revoked, inboxes.clone());
    let erasures = Erasures::new(ErasuresParts { shards: inboxes.clone(), ..parts });
    let ended = plane.run(revocations, erasures, gauge, keys.rereading, inboxes, threads)?;
    helpers.join()?;
    if ended && !state.exit_failed() {
        tracing::info!("drained");
        Ok(ExitCode::SUCCESS)
    } else {
        tracing::error!("stopped after a failure: start it again to recover");
        Ok(ExitCode::FAILURE)
    }
}

/// What was erased, on the disk for certain before anything relies on it.
fn read_erasures(config: &Config) -> anyhow::Result<(ErasuresFile, Vec<Erasure>)> {
    let file = ErasuresFile::of(&config.data);
    let erased = file.read()?;
    file.sync().context("the erasures cannot be brought to the disk")?;
    Ok((file, erased))
}

/// Fits what was erased to the logs as they were read back, and writes what that changes before anybody is served.
fn settle_erasures(
    file: ErasuresFile,
    mut kept: Vec<Erasure>,
    opened: &[OpenLog],
    places: &Arc<Places>,
    (store, care): (&Store, Arc<CareMetrics>),
) -> anyhow::Result<ErasuresParts> {
    if erasures::start::settle(&mut kept, opened, places) {
        file.write(&kept).context("how far erasures reach cannot be written")?;
    }
    let newest_mark = opened.iter().map(|open| open.newest_mark).max().unwrap_or(0);
    let (shards, places, directory) = (Vec::new(), places.clone(), store.directory().to_owned());
    Ok(ErasuresParts { file, kept, newest_mark, shards, places, directory, care })
}

/// Gives each shard its logs, its listeners and its counters.
fn parts_of_shards(
    places: &Places,
    mut opened: Vec<OpenLog>,
    listeners: Vec<Vec<(TcpListener, Listener)>>,
    metrics: Vec<Arc<ShardMetrics>>,
) -> Vec<ShardStart> {
    let parts = (0..).map(ShardId).zip(listeners.into_iter().zip(metrics));
    let start = |(id, (listeners, metrics))| {
        let logs = opened.extract_if(.., |log| places.owner_of(log.log.number()) == id).collect();
        ShardStart { id, logs, listeners, metrics }
    };
    parts.map(start).collect()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The layout of this machine, if the file limit lets its shards hold what is configured.
fn layout_of(config: &Config) -> anyhow::Result<Layout> {
    let limit = layout::raise_file_limit().context("the limit of open files cannot be raised")?;
    let layout = Layout::of(config, cores(), limit);
    let Layout { shards, sockets_each, is_stretched, .. } = layout;
    let files_max = limit.unwrap_or(u64::MAX);
    if files_max < u64::from(sockets_each) {
        bail!(
            "the file limit is {files_max} and each of {shards} shards wants {sockets_each} sockets: raise it \
             (ulimit -n, LimitNOFILE), leave out `shards`, or ask for fewer `connections_max`"
        );
    }
    if is_stretched {
        tracing::info!(
            shards,
            cores = cores(),
            files_max,
            connections_max = layout.connections_max,
            "more shards than cores: the file limit bounds the sockets of each"
        );
    }
    Ok(layout)
}

/// Opens the store, and says what becomes of its logs with time.
fn open_store(config: &Config, shards: u16) -> anyhow::Result<(Store, CompactionPolicy)> {
    let logs = config.logs.unwrap_or(shards.min(4).min(cores() as u16));
    let mut store = Store::open(&config.data, logs, u64::from(config.segment_mib) << 20)?;
    store.segment_ms_max = retention::segment_ms_max(config);
    let compaction = retention::policy(config, &store)?;
    retention::warn_if_too_much(config, &store);
    Ok((store, compaction))
}

/// Reads all logs back. One that is refused is named and left out; if none is left, the node does not start.
fn open_logs(store: &Store, state: &NodeState) -> anyhow::Result<(Vec<OpenLog>, Starts)> {
    let (mut run, mut seed) = ([0; 16], [0; 8]);
    getrandom::fill(&mut run).context("the system gives no randomness")?;
    getrandom::fill(&mut seed).context("the system gives no randomness")?;
    let now = unix_now().0;
    let mut opened = Vec::new();
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); usize::from(store.logs)];
    for log in 0..store.logs {
        match store.open_log(log, run, u64::from_le_bytes(seed), now) {
            Ok(open) => {
                runs[usize::from(log)] = open.log.runs().to_vec();
                state.set_log(log, LogHealth::Serving);
                opened.push(open);
            }
            Err(refusal) => {
                state.set_log(log, LogHealth::Refused);
                report_refusal(log, &refusal);
            }
        }
    }
    if opened.is_empty() {
        bail!("no log of this store can be served: see the lines above");
    }
    let starts = Starts::new(runs);
    opened.iter().for_each(|open| starts.keep_from(open.log.number(), open.log.links_kept_from()));
    Ok((opened, starts))
}

fn unix_now() -> UnixMillis {
    UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

fn report_refusal(log: u16, refusal: &LogRefusal) {
    match refusal {
        LogRefusal::Damaged(Damage { kind: DamageKind::Newer(version), segment, .. }) => tracing::error!(
            log,
            segment = storage_log::segment_file_name(*segment),
            "this segment has format {version}, this program knows {FORMAT_VERSION}: its log is not served, the others are; \
             nothing was changed: start the newer program that made it"
        ),
        LogRefusal::Damaged(damage) => tracing::error!(
            log,
            segment = storage_log::segment_file_name(damage.segment),
            offset = damage.offset,
            kind = ?damage.kind,
            "this log is damaged and not served, the others are; nothing was changed: restore it from a backup"
        ),
        LogRefusal::Disk(error) => tracing::error!(
            log,
            %error,
            "this log cannot be read or made, the others are served: look at the disk and its permissions"
        ),
    }
}

/// The listeners of all shards, and the addresses that they were given.
struct Bound {
    listeners: Vec<Vec<(TcpListener, Listener)>>,
    chat: SocketAddr,
    echo: Option<SocketAddr>,
}

/// One chat listener per shard on the same address, and the echo listener on every shard.
fn bind_all(config: &Config, shards: u16) -> anyhow::Result<Bound> {
    let send_buffer_bytes = Some(SEND_BUFFER_BYTES);
    let options = ListenOptions { reuse_port: true, send_buffer_bytes, ..ListenOptions::default() };
    let mut bound = Bound { listeners: Vec::new(), chat: config.listen, echo: config.echo };
    for _ in 0..shards {
        let mut listeners = vec![(bind(&mut bound.chat, &options)?, Listener::Chat)];
        if let Some(address) = &mut bound.echo {
            listeners.push((bind(address, &options)?, Listener::Echo));
        }
        bound.listeners.push(listeners);
    }
    Ok(bound)
}

fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address} for the admin: is another node running there?")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Port 0 becomes the port that the first listener was given.
fn bind(address: &mut SocketAddr, options: &ListenOptions) -> anyhow::Result<TcpListener> {
    let listener = ring::bind(*address, options)
        .with_context(|| format!("cannot listen on {address}: is another node running there?"))?;
    *address = listener.local_addr().context("a listener has an address")?;
    Ok(listener)
}

type Started = (Vec<JoinHandle<anyhow::Result<()>>>, Vec<Inbox>);

/// Starts all shards: each makes its ring on its own thread, and begins when it knows where the others are.
fn start_shards(common: &Common, starting: Vec<ShardStart>) -> anyhow::Result<Started> {
    let shards = starting.len();
    let (made, rings) = channel::<(ShardId, RingAddress, Inbox)>();
    let mut threads = Vec::new();
    let mut go = Vec::new();
    for start in starting {
        let (begin, addresses) = channel::<Vec<RingAddress>>();
        go.push(begin);
        let (common, made) = (common.clone(), made.clone());
        let thread = thread::Builder::new().name(format!("shard-{}", start.id.0));
        threads.push(thread.spawn(move || shard_thread(common, start, &made, &addresses))?);
    }
    drop(made);
    let mut answers: Vec<Option<(RingAddress, Inbox)>> = vec![None; shards];
    for (id, address, inbox) in rings.iter().take(shards) {
        answers[id.index()] = Some((address, inbox));
    }
    if answers.iter().any(Option::is_none) {
        drop(go);
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a shard panicked while starting"))??;
        }
        bail!("a shard did not start");
    }
    let (addresses, inboxes): (Vec<_>, Vec<_>) = answers.into_iter().flatten().unzip();
    for begin in go {
        begin.send(addresses.clone()).context("a shard waits for the addresses")?;
    }
    Ok((threads, inboxes))
}

fn shard_config(common: &Common) -> ShardConfig {
    let shards = u32::from(common.layout.shards);
    let share = |of_node: Option<u32>, each: u32| of_node.map_or(each, |of_node| of_node.div_ceil(shards));
    ShardConfig {
        connections_max: common.layout.connections_each,
        handshakes_max: share(common.config.handshakes_max, HANDSHAKES_EACH),
        connects_per_second_max: share(common.config.connects_per_second_max, CONNECTS_PER_SECOND_EACH),
        policy: UpgradePolicy { path: Some(UpgradePolicy::PATH), origins: common.config.origins.clone() },
        mail_per_turn: MAIL_PER_TURN,
        drain_seconds: common.config.drain.as_secs(),
        users: UserLimits {
            session_commands: Rate::per_second(common.config.session_commands_per_second),
            user_messages: Rate::per_second(common.config.user_messages_per_second),
            ..UserLimits::default()
        },
        compaction: common.compaction,
    }
}

fn shard_thread(
    common: Common,
    start: ShardStart,
    made: &Sender<(ShardId, RingAddress, Inbox)>,
    addresses: &Receiver<Vec<RingAddress>>,
) -> anyhow::Result<()> {
    let ShardStart { id, logs, listeners, metrics } = start;
    if let Err(error) = ring::pin_to_core(common.layout.core_of(id.index(), cores())) {
        tracing::debug!(shard = id.0, %error, "not pinned");
    }
    let sockets_max = common.layout.sockets_each;
    let ring = Ring::new(RingConfig { sockets_max, ..RingConfig::default() })
        .map_err(|error| anyhow::anyhow!("shard {} cannot make its ring: {error}", id.0))?;
    let inbox = Inbox::new(ring.waker());
    made.send((id, ring.address(), inbox.clone())).context("the node waits for its shards")?;
    let Ok(addresses) = addresses.recv() else {
        return Ok(());
    };
    let mut random = [0; 8];
    getrandom::fill(&mut random).context("the system gives no randomness")?;
    let mut cache_key = [0; 32];
    getrandom::fill(&mut cache_key).context("the system gives no randomness")?;
    let mut segments = Vec::new();
    let mut owned = Vec::new();
    for OpenLog { log, recent, segments: files, .. } in logs {
        segments.push((log.number(), files));
        let side = ConversationSide::new(common.places.clone(), log.number(), recent);
        let mut log = OwnedLog::new(log, side);
        erasures::start::put_in_force(&common.erased, &mut log);
        owned.push(log);
    }
    let shard = Shard::new(ShardParts {
        id,
        places: common.places.clone(),
        starts: common.starts.clone(),
        config: shard_config(&common),
        mail: Mailboxes::new(common.mesh.clone(), id),
        logs: owned,
        verifier: common.verifier.clone(),
        cache_key,
        denied: DenyList::clone(&common.denied),
        metrics: metrics.clone(),
        state: common.state.clone(),
        random: u64::from_le_bytes(random),
    });
    let (mesh, geometry) = (common.mesh.clone(), common.geometry);
    let (Errands { jobs, compactions, care }, epoch) = (common.errands.clone(), common.epoch);
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
        epoch,
        metrics,
    };
    let mut driver = Driver::new(shard, parts);
    for (listener, kind) in listeners {
        driver.listen(listener, kind);
    }
    driver.run().context("a shard's ring broke")
}
