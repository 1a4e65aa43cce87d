//! One node: recovers its logs, starts its shards, and keeps the control plane until it is told to stop.

mod listeners;
mod logs;
mod shards;

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use router::user::Rate;
use router::{Places, Starts};
use storage_log::format::FORMAT_VERSION;
use storage_log::{CompactionPolicy, Geometry};

use crate::admin::AdminContext;
use crate::auth::{AdminToken, DenyList, Keys, Revocation, Verifier, development_banner};
use crate::caretaker::{self, Care, CareParts};
use crate::clock::unix_now;
use crate::compaction::{self, Compactor};
use crate::config::{Config, SEGMENT_MIB_MAX};
use crate::control::{ControlPlane, Operators};
use crate::erasures::{self, Erasure, Erasures, ErasuresFile, ErasuresParts};
use crate::files::{self, Job};
use crate::layout::{self, Layout};
use crate::mailbox::{Mesh, deliver_places};
use crate::memory::Gauge;
use crate::metrics::{CareMetrics, KeyMetrics, PushMetrics, SearchMetrics};
use crate::peers::{PeerLimits, Peers};
use crate::pushes;
use crate::pushes::marks::Mark;
use crate::retention;
use crate::revocations::{Revocations, RevocationsFile};
use crate::search::{FollowParts, Question, Search};
use crate::shard::Listener;
use crate::state::NodeState;
use crate::store::{OpenLog, Store, StoreFacts};
use crate::upgrade::leaving::{Leaving, LeavingParts, Program};
use crate::upgrade::passenger::SNAPSHOT_VERSION;
use crate::upgrade::successor::{Granted, KeepsPeers, Predecessor};
use crate::upgrade::wire::{FromNew, Hello};
use listeners::{bind_admin, bind_all, claim};
use logs::{LogReaders, open_logs};
use shards::{Seated, seat_shards};

/// What all shards share.
#[derive(Clone)]
struct Common {
    places: Arc<Places>,
    starts: Arc<Starts>,
    config: Arc<Config>,
    layout: Layout,
    verifier: Verifier,
    denied: Arc<DenyList>,
    peers: Arc<Peers>,
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
    search: Option<Sender<Question>>,
    pushes: Option<Sender<pushes::Job>>,
}

/// The threads that do it.
struct Helpers {
    files: JoinHandle<()>,
    compactor: Compactor,
    caretaker: JoinHandle<()>,
    search: Option<Search>,
    pushes: Option<JoinHandle<()>>,
}

impl Helpers {
    fn start(
        store: &Store,
        config: &Config,
        state: Arc<NodeState>,
        metrics: Arc<CareMetrics>,
        search: Option<Arc<SearchMetrics>>,
        calls: Option<(Vec<Mark>, Arc<PushMetrics>)>,
    ) -> anyhow::Result<(Errands, Self)> {
        let (jobs, files) = files::start(store.segment_maker(), state)?;
        let (compactions, compactor) = Compactor::start(store.directory().to_owned(), store.access)?;
        let (care, caretaker) = caretaker::start(CareParts {
            directory: store.directory().to_owned(),
            scrub_bytes_per_second: config.scrub_bytes_per_second,
            metrics,
        })?;
        let (asking, search) = search.map(Search::start).transpose()?.unzip();
        let calls = config.push_file.as_ref().zip(calls);
        let calls =
            calls.map(|(file, (marks, metrics))| pushes::start(file, store.directory(), marks, metrics));
        let (pushes, calling) = calls.transpose()?.unzip();
        let errands = Errands { jobs, compactions, care, search: asking, pushes };
        Ok((errands, Self { files, compactor, caretaker, search, pushes: calling }))
    }

    /// The index of words follows the logs from now on, if there is one.
    fn follow(
        &mut self,
        directory: &Path,
        state: &Arc<NodeState>,
        erasures: &Arc<Erasures>,
        keep: Option<Duration>,
    ) -> anyhow::Result<()> {
        let Some(search) = &mut self.search else { return Ok(()) };
        let (directory, state, erasures) = (directory.to_owned(), state.clone(), erasures.clone());
        Ok(search.follow(FollowParts { directory, state, erasures, keep })?)
    }

    /// Waits for their ends. Nobody can leave them anything any more.
    fn join(self) -> anyhow::Result<()> {
        let panicked = |what| move |_| anyhow::anyhow!("the {what} thread panicked");
        if let Some(search) = self.search {
            search.stop().map_err(panicked("search"))?;
        }
        self.compactor.stop().map_err(panicked("compaction"))?;
        self.caretaker.join().map_err(panicked("caretaker"))?;
        self.pushes.map_or(Ok(()), JoinHandle::join).map_err(panicked("pushes"))?;
        self.files.join().map_err(panicked("files"))
    }
}

/// Runs a node until it is drained, or another process has taken over. 0 when it was asked to, 1 when a log failed.
///
/// # Errors
/// Why it could not start.
pub fn run(config: Config, keys: Keys) -> anyhow::Result<ExitCode> {
    // Before anything else: the file may be replaced while this runs.
    let program = Program::of_this_process().context("the system does not say what runs here")?;
    ring::probe().map_err(|missing| anyhow::anyhow!("{missing}"))?;
    let Some(predecessor) = Predecessor::of_environment()? else {
        return run_first(config, keys, program);
    };
    let taken = take_over(&predecessor, config, keys, program);
    if let Err(error) = &taken {
        // It may be gone.
        let _ = predecessor.say(&FromNew::Refused(format!("{error:#}")));
    }
    taken
}

/// Runs a node that begins by itself.
fn run_first(config: Config, keys: Keys, program: Program) -> anyhow::Result<ExitCode> {
    let (layout, gauge) = (layout_of(&config)?, Gauge::of_this_process(config.memory_reserve_bytes));
    let logs = config.logs.unwrap_or(layout.shards.min(4).min(cores() as u16));
    let store = Store::open(&config.data, logs, u64::from(config.segment_mib) << 20)?;
    warn_of_another_shape(&config, &store);
    let (store, compaction) = with_retention(store, &config)?;
    let lists = Lists::read(&config)?;
    let context = admin_context(&config, &store, layout.shards)?;
    let state = context.state.clone();
    let admin = bind_admin(config.admin)?;
    claim(&config)?;
    let admin_address = admin.local_addr()?;
    let (listener, commands) = (admin.try_clone()?, context.clone());
    // Before the logs are read back: a probe is to hear of that, and to be stopped meanwhile is no crash.
    let mut plane = ControlPlane::start(admin, commands)?;
    tracing::info!(admin = %admin_address, "recovering: the logs are read back");
    let reading = (store.clone(), state);
    let Some((opened, starts)) = plane.wait_for("recovery", move || open_logs(&reading.0, &reading.1))?
    else {
        plane.end();
        tracing::info!("stopped before the logs were read back: the next start reads them");
        return Ok(ExitCode::SUCCESS);
    };
    let Some(keys) = plane.fetch_keys(keys) else {
        plane.end();
        tracing::info!("stopped before there were keys");
        return Ok(ExitCode::SUCCESS);
    };
    let seats = bind_all(&config, layout.shards)?.into_iter().map(|listeners| (None, listeners)).collect();
    let seated = seat_shards(layout, seats, peers_of(&config, &layout)?)?;
    let node = Node { config, keys, program, layout, gauge, store, compaction, context, admin: listener };
    node.serve(plane, lists, (opened, starts), seated, || Ok(()))
}

/// What was chosen when the directory was made stays, whatever is configured now.
fn warn_of_another_shape(config: &Config, store: &Store) {
    if let Some(logs) = config.logs.filter(|logs| *logs != store.logs) {
        tracing::warn!(
            configured = logs,
            in_force = store.logs,
            "`logs` is not what this data directory was made with, which stays"
        );
    }
    let (configured, made) = (config.segment_mib, store.geometry.segment_bytes >> 20);
    if configured != SEGMENT_MIB_MAX && u64::from(configured) != made {
        tracing::warn!(
            configured,
            in_force = made,
            "`segment_mib` is not what this data directory was made with, which stays"
        );
    }
}

/// Runs a node that goes on with what another process has. Until that says so, nothing is changed.
fn take_over(
    predecessor: &Predecessor,
    config: Config,
    mut keys: Keys,
    program: Program,
) -> anyhow::Result<ExitCode> {
    fetch_if_none(&mut keys)?;
    let (layout, gauge) = (layout_of(&config)?, Gauge::of_this_process(config.memory_reserve_bytes));
    let facts = StoreFacts::read(&config.data)?;
    let Granted { lock, admin, seats } = predecessor.introduce(hello(&config, &facts, &layout))?;
    let store = Store::take_over(&config.data, lock)?;
    let (store, compaction) = with_retention(store, &config)?;
    let context = admin_context(&config, &store, layout.shards)?;
    check_addresses(&config, &admin, &seats)?;
    let seats = seats.into_iter().map(|(stream, listeners)| (Some(stream), listeners)).collect();
    let mut seated = seat_shards(layout, seats, peers_of(&config, &layout)?)?;
    predecessor.say(&FromNew::Seated)?;
    let reading = LogReaders::start(&store, predecessor.wait_for_quiet()?)?;
    predecessor.say(&FromNew::Ahead)?;
    predecessor.wait_for_pause()?;
    let lists = Lists::read(&config)?;
    let read = reading.finish()?;
    seated.wait_for_passengers()?;
    admin.set_nonblocking(true)?;
    // Before it is the node: from then on a signal that ended it by itself would put out everybody. Nobody is answered before `run`.
    let plane = ControlPlane::start(admin.try_clone()?, context.clone())?;
    predecessor.take()?;
    let (opened, starts) = read.begin(&store, &context.state)?;
    let node = Node { config, keys, program, layout, gauge, store, compaction, context, admin };
    node.serve(plane, lists, (opened, starts), seated, || predecessor.say(&FromNew::Ready))
}

/// Keys are those that the process before kept; of another address they are fetched while that one serves, or it goes on.
fn fetch_if_none(keys: &mut Keys) -> anyhow::Result<()> {
    let Some(refetching) = keys.refetching.as_mut().filter(|refetching| !refetching.has_keys()) else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fetched = runtime.block_on(refetching.fetch(&KeyMetrics::default()));
    // A name that is still looked up is waited for by nobody: the process before waits for this one.
    runtime.shutdown_background();
    let fetched =
        fetched.map_err(|error| anyhow::anyhow!("{} could not be fetched: {error}", refetching.url()))?;
    keys.verifier = fetched.unwrap_or_else(|| keys.verifier.clone());
    Ok(())
}

/// What a new process says of itself.
fn hello(config: &Config, facts: &StoreFacts, layout: &Layout) -> Hello {
    Hello {
        snapshot: SNAPSHOT_VERSION,
        format: FORMAT_VERSION,
        store: protocol::ids::ConversationId(facts.id).to_string(),
        logs: facts.logs,
        shards: layout.shards,
        connections_each: layout.connections_each,
        echo: config.echo.is_some(),
    }
}

/// Listeners go on where they are: a configuration that says another place is for a restart.
fn check_addresses(
    config: &Config,
    admin: &TcpListener,
    seats: &[(UnixStream, Vec<(TcpListener, Listener)>)],
) -> anyhow::Result<()> {
    let chat = seats.first().and_then(|(_, listeners)| listeners.first()).context("there is no listener")?;
    for (what, wanted, given) in
        [("listen", config.listen, chat.0.local_addr()?), ("admin", config.admin, admin.local_addr()?)]
    {
        if wanted.port() != 0 && wanted != given {
            bail!("`{what}` is {wanted} now and {given} where clients are: restart the node instead");
        }
    }
    Ok(())
}

fn admin_context(config: &Config, store: &Store, shards: u16) -> anyhow::Result<AdminContext> {
    Ok(AdminContext {
        state: Arc::new(NodeState::new(store.logs)),
        metrics: (0..shards).map(|_| Arc::default()).collect(),
        care: Arc::new(CareMetrics::new(store.logs)),
        keys: Arc::default(),
        search: config.search.then(Arc::default),
        pushes: config.push_file.as_ref().map(|_| Arc::default()),
        admin_token: Arc::new(AdminToken::load(config)?),
        commands: Arc::new(OnceLock::new()),
    })
}

/// What was revoked and erased.
struct Lists {
    revocations: RevocationsFile,
    revoked: Vec<Revocation>,
    erasures: ErasuresFile,
    erased: Vec<Erasure>,
}

impl Lists {
    fn read(config: &Config) -> anyhow::Result<Self> {
        let revocations = RevocationsFile::of(&config.data);
        let revoked = revocations.read()?;
        let (erasures, erased) = read_erasures(config)?;
        Ok(Self { revocations, revoked, erasures, erased })
    }
}

/// All that a node has before it serves.
struct Node {
    config: Config,
    keys: Keys,
    program: Program,
    layout: Layout,
    gauge: Gauge,
    store: Arc<Store>,
    compaction: CompactionPolicy,
    context: AdminContext,
    admin: TcpListener,
}

impl Node {
    /// Serves until it is drained, or has handed over. `told` is called when it does.
    fn serve(
        self,
        plane: ControlPlane,
        lists: Lists,
        (mut opened, starts): (Vec<OpenLog>, Starts),
        seated: Seated,
        told: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        let Self { config, keys, program, layout, gauge, store, compaction, context, admin } = self;
        let AdminContext { state, metrics, care, keys: key_metrics, search, pushes: push_metrics, .. } =
            context;
        if keys.rereading.is_some() || keys.refetching.is_some() {
            key_metrics.keys.set(keys.verifier.keys() as u64);
        }
        let shards = layout.shards;
        let places = Arc::new(Places::new(store.id, store.key, store.logs, shards));
        let (file, erased) = (lists.erasures, lists.erased);
        let parts = settle_erasures(file, erased, &opened, &places, (&store, care.clone()))?;
        let calls =
            push_metrics.map(|metrics| (pushes::start::settle(store.directory(), &mut opened), metrics));
        let (errands, mut helpers) = Helpers::start(&store, &config, state.clone(), care, search, calls)?;
        let keep = retention::gone_after(&config);
        let leaving = LeavingParts {
            program,
            facts: hello(&config, &StoreFacts::read(&config.data)?, &layout),
            lock: store.lock()?,
            admin: admin.into(),
            inboxes: seated.inboxes.clone(),
            mesh: Mesh::new(shards, deliver_places(shards)),
            compaction: helpers.compactor.hold(),
            state: state.clone(),
        };
        let common = Common {
            places: places.clone(),
            starts: Arc::new(starts),
            layout,
            verifier: keys.verifier.clone(),
            denied: Arc::new(lists.revoked.iter().collect()),
            peers: seated.peers.clone(),
            config: Arc::new(config),
            erased: Arc::new(parts.kept.clone()),
            mesh: leaving.mesh.clone(),
            state: state.clone(),
            epoch: Instant::now(),
            geometry: store.geometry,
            compaction,
            errands,
        };
        let addresses = seated.addresses;
        let (threads, inboxes) = seated.begin(&common, opened, metrics)?;
        drop(common);
        state.set_recovered();
        // Nobody is to lose a connection because the process before, which has nothing any more, is gone too.
        if let Err(error) = told() {
            tracing::warn!("the process before does not hear that this one serves: {error:#}");
        }
        addresses.say_serving(&leaving, &layout)?;
        if let Some(banner) = development_banner(&keys, addresses.chat, unix_now()) {
            // Nobody has to read it.
            let _ = std::io::stdout().write_all(banner.as_bytes());
        }
        let revocations = Revocations::new(lists.revocations, lists.revoked, inboxes.clone());
        let erasures = Erasures::new(ErasuresParts { shards: inboxes.clone(), ..parts });
        helpers.follow(store.directory(), &state, &erasures, keep)?;
        let leaving = Arc::new(Leaving::new(leaving));
        let operators = Operators { revocations, erasures, leaving };
        let ended = plane.run(operators, gauge, (keys.rereading, keys.refetching), inboxes, threads)?;
        helpers.join()?;
        Ok(exit(ended, &state))
    }
}

fn exit(ended: bool, state: &NodeState) -> ExitCode {
    if ended && !state.exit_failed() {
        tracing::info!("{}", if state.is_handed_over() { "handed over" } else { "drained" });
        ExitCode::SUCCESS
    } else {
        tracing::error!("stopped after a failure: start it again to recover");
        ExitCode::FAILURE
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

fn limits_of(config: &Config) -> PeerLimits {
    PeerLimits {
        connections_max: config.ip_connections_max,
        connects: Rate::per_second(config.ip_connects_per_second),
        commands: Rate::per_second(config.ip_commands_per_second),
        messages: Rate::per_second(config.ip_messages_per_second),
    }
}

/// What counts addresses, and whether they are kept at all.
fn peers_of(config: &Config, layout: &Layout) -> anyhow::Result<(Arc<Peers>, KeepsPeers)> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).context("the system gives no randomness")?;
    let peers = Peers::new(limits_of(config), layout.connections_max, key);
    let is_asked_for = peers.limits_something() || !config.proxies.is_empty();
    Ok((peers, if is_asked_for { KeepsPeers::Yes } else { KeepsPeers::No }))
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

/// Says what becomes of the logs of a store with time, and what a start looks for in them.
fn with_retention(mut store: Store, config: &Config) -> anyhow::Result<(Arc<Store>, CompactionPolicy)> {
    store.segment_ms_max = retention::segment_ms_max(config);
    store.pushes = config.push_file.is_some();
    let compaction = retention::policy(config, &store)?;
    retention::warn_if_too_much(config, &store);
    Ok((Arc::new(store), compaction))
}
