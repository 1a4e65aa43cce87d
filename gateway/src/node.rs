//! One node: recovers its logs, starts its shards, and keeps the control plane until it is told to stop.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
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
use crate::auth::{AdminToken, DenyList, Keys, Revocation, Verifier, development_banner};
use crate::caretaker::{self, Care, CareParts};
use crate::compaction::{self, Compactor};
use crate::config::{CONNECTS_PER_SECOND_EACH, Config, HANDSHAKES_EACH};
use crate::control::{ControlPlane, Operators};
use crate::driver::{Driver, DriverParts};
use crate::erasures::{self, Erasure, Erasures, ErasuresFile, ErasuresParts};
use crate::files::{self, Inbox, Job};
use crate::layout::{self, Layout};
use crate::mailbox::{Mailboxes, Mesh, deliver_places};
use crate::memory::Gauge;
use crate::metrics::{CareMetrics, ShardMetrics};
use crate::retention;
use crate::revocations::{Revocations, RevocationsFile};
use crate::scan::{ReadAhead, Reading};
use crate::shard::{Listener, MAIL_PER_TURN, OwnedLog, Shard, ShardConfig, ShardParts};
use crate::state::{LogHealth, NodeState};
use crate::store::{LogRefusal, OpenLog, ReadLog, Store, StoreFacts};
use crate::upgrade::leaving::{Leaving, LeavingParts, Program};
use crate::upgrade::passenger::SNAPSHOT_VERSION;
use crate::upgrade::successor::{self, Granted, Predecessor};
use crate::upgrade::wire::{FromNew, Hello};

/// A slow reader pins at most this much in the kernel, in bytes.
const SEND_BUFFER_BYTES: u32 = 64 << 10;

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
    let (store, compaction) = with_retention(store, &config)?;
    let lists = Lists::read(&config)?;
    let context = admin_context(&config, &store, layout.shards)?;
    let state = context.state.clone();
    let admin = bind_admin(config.admin)?;
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
    let seats = bind_all(&config, layout.shards)?;
    let seated = seat_shards(layout, seats.into_iter().map(|listeners| (None, listeners)).collect())?;
    let node = Node { config, keys, program, layout, gauge, store, compaction, context, admin: listener };
    node.serve(plane, lists, (opened, starts), seated, || Ok(()))
}

/// Runs a node that goes on with what another process has. Until that says so, nothing is changed.
fn take_over(
    predecessor: &Predecessor,
    config: Config,
    keys: Keys,
    program: Program,
) -> anyhow::Result<ExitCode> {
    let (layout, gauge) = (layout_of(&config)?, Gauge::of_this_process(config.memory_reserve_bytes));
    let facts = StoreFacts::read(&config.data)?;
    let Granted { lock, admin, seats } = predecessor.introduce(hello(&config, &facts, &layout))?;
    let store = Store::take_over(&config.data, lock)?;
    let (store, compaction) = with_retention(store, &config)?;
    let context = admin_context(&config, &store, layout.shards)?;
    check_addresses(&config, &admin, &seats)?;
    let seats = seats.into_iter().map(|(stream, listeners)| (Some(stream), listeners)).collect();
    let mut seated = seat_shards(layout, seats)?;
    predecessor.say(&FromNew::Seated)?;
    let reading = LogReaders::start(&store, predecessor.wait_for_quiet()?)?;
    predecessor.say(&FromNew::Ahead)?;
    predecessor.wait_for_pause()?;
    let lists = Lists::read(&config)?;
    let read = reading.finish()?;
    seated.wait_for_passengers()?;
    predecessor.take()?;
    let (opened, starts) = read.begin(&store, &context.state)?;
    admin.set_nonblocking(true)?;
    let plane = ControlPlane::start(admin.try_clone()?, context.clone())?;
    let node = Node { config, keys, program, layout, gauge, store, compaction, context, admin };
    node.serve(plane, lists, (opened, starts), seated, || predecessor.say(&FromNew::Ready))
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
        (opened, starts): (Vec<OpenLog>, Starts),
        seated: Seated,
        told: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        let Self { config, keys, program, layout, gauge, store, compaction, context, admin } = self;
        let AdminContext { state, metrics, care, .. } = context;
        let shards = layout.shards;
        let places = Arc::new(Places::new(store.id, store.key, store.logs, shards));
        let (file, erased) = (lists.erasures, lists.erased);
        let parts = settle_erasures(file, erased, &opened, &places, (&store, care.clone()))?;
        let (errands, helpers) = Helpers::start(&store, &config, care)?;
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
            config: Arc::new(config),
            layout,
            verifier: keys.verifier.clone(),
            denied: Arc::new(lists.revoked.iter().collect()),
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
        let leaving = Arc::new(Leaving::new(leaving));
        let operators = Operators { revocations, erasures, leaving };
        let ended = plane.run(operators, gauge, keys.rereading, inboxes, threads)?;
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

/// Says what becomes of the logs of a store with time.
fn with_retention(mut store: Store, config: &Config) -> anyhow::Result<(Arc<Store>, CompactionPolicy)> {
    store.segment_ms_max = retention::segment_ms_max(config);
    let compaction = retention::policy(config, &store)?;
    retention::warn_if_too_much(config, &store);
    Ok((Arc::new(store), compaction))
}

/// The logs of a store that another process has, while they are read back side by side.
struct LogReaders {
    run: [u8; 16],
    ahead: Vec<Arc<ReadAhead>>,
    threads: Vec<JoinHandle<Result<ReadLog, LogRefusal>>>,
}

impl LogReaders {
    /// Reads all logs back, each up to where it is durable, and then as much as is written until [`LogReaders::finish`]. Changes nothing.
    fn start(store: &Arc<Store>, durable: Vec<u64>) -> anyhow::Result<Self> {
        let (mut run, mut seed) = ([0; 16], [0; 8]);
        getrandom::fill(&mut run).context("the system gives no randomness")?;
        getrandom::fill(&mut seed).context("the system gives no randomness")?;
        let (now, seed) = (unix_now().0, u64::from_le_bytes(seed));
        if durable.len() != usize::from(store.logs) {
            bail!("{} logs are handed over, and {} are here", durable.len(), store.logs);
        }
        let ahead: Vec<_> = durable.into_iter().map(ReadAhead::new).collect();
        let read = |(log, ahead): (u16, &Arc<ReadAhead>)| {
            let (store, ahead) = (store.clone(), ahead.clone());
            thread::spawn(move || {
                let read = store.read_log(log, run, seed, now, Reading::Beside(ahead.clone()));
                ahead.finish();
                read
            })
        };
        let threads = (0..).zip(&ahead).map(read).collect();
        ahead.iter().for_each(|ahead| ahead.wait_until_read());
        Ok(Self { run, ahead, threads })
    }

    /// Nobody writes any more: the rest. A log that is refused ends the attempt: the other process has it.
    fn finish(self) -> anyhow::Result<ReadLogs> {
        self.ahead.iter().for_each(|ahead| ahead.release());
        let mut logs = Vec::new();
        for thread in self.threads {
            let read = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            logs.push(read.map_err(|refusal| anyhow::anyhow!("a log cannot be read back: {refusal:?}"))?);
        }
        Ok(ReadLogs { run: self.run, logs })
    }
}

/// The same, read back.
struct ReadLogs {
    run: [u8; 16],
    logs: Vec<ReadLog>,
}

impl ReadLogs {
    /// From here on they are this process's.
    fn begin(self, store: &Store, state: &NodeState) -> anyhow::Result<(Vec<OpenLog>, Starts)> {
        let (now, mut opened) = (unix_now().0, Vec::new());
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); usize::from(store.logs)];
        for read in self.logs {
            let log = read.number();
            let open = store.begin_log(read, self.run, now).context("a log cannot be written")?;
            runs[usize::from(log)] = open.log.runs().to_vec();
            state.set_log(log, LogHealth::Serving);
            opened.push(open);
        }
        let starts = starts_of(runs, &opened);
        Ok((opened, starts))
    }
}

fn starts_of(runs: Vec<Vec<Run>>, opened: &[OpenLog]) -> Starts {
    let starts = Starts::new(runs);
    opened.iter().for_each(|open| starts.keep_from(open.log.number(), open.log.links_kept_from()));
    starts
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
    let starts = starts_of(runs, &opened);
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

type Listeners = Vec<(TcpListener, Listener)>;

/// One chat listener per shard on the same address, and the echo listener on every shard.
fn bind_all(config: &Config, shards: u16) -> anyhow::Result<Vec<Listeners>> {
    let send_buffer_bytes = Some(SEND_BUFFER_BYTES);
    let options = ListenOptions { reuse_port: true, send_buffer_bytes, ..ListenOptions::default() };
    let (mut chat, mut echo, mut bound) = (config.listen, config.echo, Vec::new());
    for _ in 0..shards {
        let mut listeners = vec![(bind(&mut chat, &options)?, Listener::Chat)];
        if let Some(address) = &mut echo {
            listeners.push((bind(address, &options)?, Listener::Echo));
        }
        bound.push(listeners);
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

/// Where clients come.
#[derive(Clone, Copy)]
struct Addresses {
    chat: SocketAddr,
    echo: Option<SocketAddr>,
}

impl Addresses {
    fn of(listeners: &Listeners) -> anyhow::Result<Self> {
        let of_kind = |wanted| {
            let found = listeners.iter().find(|(_, kind)| *kind == wanted);
            found.map(|(listener, _)| listener.local_addr()).transpose().context("a listener has an address")
        };
        Ok(Self {
            chat: of_kind(Listener::Chat)?.context("there is no listener")?,
            echo: of_kind(Listener::Echo)?,
        })
    }

    fn say_serving(&self, leaving: &LeavingParts, layout: &Layout) -> anyhow::Result<()> {
        let admin = TcpListener::from(leaving.admin.try_clone()?).local_addr()?;
        let echo = self.echo.map_or_else(|| "off".to_owned(), |address| address.to_string());
        let Layout { shards, connections_max, .. } = *layout;
        tracing::info!(listen = %self.chat, %admin, echo, shards, connections_max, "serving");
        Ok(())
    }
}

/// What a shard's thread is told once the logs are open.
struct Begin {
    addresses: Vec<RingAddress>,
    common: Common,
    logs: Vec<OpenLog>,
    metrics: Arc<ShardMetrics>,
}

/// Threads of shards that have their rings and wait.
struct Seated {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    begins: Vec<Sender<Begin>>,
    rings: Vec<RingAddress>,
    inboxes: Vec<Inbox>,
    boarded: Receiver<()>,
    addresses: Addresses,
}

/// What a thread says before it waits.
struct Seat {
    id: ShardId,
    /// The way connections of another process come.
    stream: Option<UnixStream>,
    listeners: Listeners,
    made: Sender<(ShardId, RingAddress, Inbox)>,
    boarded: Sender<()>,
    begin: Receiver<Begin>,
}

/// Starts the threads of all shards: each makes its ring, takes what connections come from another process, and waits.
fn seat_shards(layout: Layout, seats: Vec<(Option<UnixStream>, Listeners)>) -> anyhow::Result<Seated> {
    let shards = seats.len();
    let (made, rings) = channel::<(ShardId, RingAddress, Inbox)>();
    let (board, boarded) = channel();
    let (mut threads, mut begins) = (Vec::new(), Vec::new());
    let addresses = Addresses::of(&seats.first().context("there is a shard")?.1)?;
    for (id, (stream, listeners)) in (0..).map(ShardId).zip(seats) {
        let (begin, begun) = channel();
        begins.push(begin);
        let (made, boarded) = (made.clone(), board.clone());
        let seat = Seat { id, stream, listeners, made, boarded, begin: begun };
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
    Ok(Seated { threads, begins, rings, inboxes, boarded, addresses })
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
    fn wait_for_passengers(&mut self) -> anyhow::Result<()> {
        let boarded = self.boarded.iter().take(self.threads.len()).count();
        if boarded < self.threads.len() {
            self.begins.clear();
            join_early(std::mem::take(&mut self.threads))?;
            bail!("a shard ended while starting");
        }
        Ok(())
    }

    /// Gives each its logs and its counters, and where the others are.
    fn begin(
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
            begun.ok().context("a shard waits for the addresses")?;
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

fn shard_thread(layout: Layout, seat: Seat) -> anyhow::Result<()> {
    let Seat { id, stream, listeners, made, boarded, begin } = seat;
    if let Err(error) = ring::pin_to_core(layout.core_of(id.index(), cores())) {
        tracing::debug!(shard = id.0, %error, "not pinned");
    }
    let sockets_max = layout.sockets_each;
    let mut ring = Ring::new(RingConfig { sockets_max, ..RingConfig::default() })
        .map_err(|error| anyhow::anyhow!("shard {} cannot make its ring: {error}", id.0))?;
    let inbox = Inbox::new(ring.waker());
    made.send((id, ring.address(), inbox.clone())).context("the node waits for its shards")?;
    let passengers = match stream {
        Some(stream) => successor::board(&stream, &mut ring)?,
        None => Vec::new(),
    };
    // Nobody waits for it where there can be none.
    let _ = boarded.send(());
    drop((made, boarded));
    let Ok(begin) = begin.recv() else {
        return Ok(());
    };
    let mut driver = begin.into_driver(id, ring, inbox)?;
    driver.take_over(passengers);
    for (listener, kind) in listeners {
        driver.listen(listener, kind);
    }
    driver.run().context("a shard's ring broke")
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
        Ok(Driver::new(shard, parts))
    }
}
