//! The control plane: admin HTTP, signals and the service manager, on the thread that everything else is waited for.
//!
//! It begins before the logs are read back, so that whoever asks meanwhile is told so.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::admin::{self, AdminContext, Commands};
use crate::auth::{self, Keys, Refetching, Rereading, Verifier};
use crate::erasures::Erasures;
use crate::files::{Command, Inbox};
use crate::gatekeeper::{Gatekeeper, LOOK_EVERY};
use crate::memory::Gauge;
use crate::metrics::{KeyMetrics, ShardMetrics};
use crate::revocations::Revocations;
use crate::state::NodeState;
use crate::supervisor::{Supervisor, manager_of_environment};
use crate::upgrade::leaving::Leaving;

/// Asked to end by the system: SIGTERM or SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// When one comes, or has come since this was asked before.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What operators can have done.
pub struct Operators {
    /// What was revoked, and where more of it goes.
    pub revocations: Arc<Revocations>,
    /// What was erased, and where more of it goes.
    pub erasures: Arc<Erasures>,
    /// Hands over to a new process.
    pub leaving: Arc<Leaving>,
}

/// Admin HTTP and signals.
pub struct ControlPlane {
    runtime: Runtime,
    signals: Signals,
    /// Asks for the keys to be read again; without keys that can change, for nothing.
    hangup: Signal,
    /// Asks for an upgrade.
    upgrade: Signal,
    state: Arc<NodeState>,
    metrics: Vec<Arc<ShardMetrics>>,
    keys: Arc<KeyMetrics>,
    commands: Arc<OnceLock<Commands>>,
    /// The admin server, and what ends it.
    admin: (tokio::task::JoinHandle<()>, oneshot::Sender<()>),
}

impl ControlPlane {
    /// From here on the admin answers, and signals do not end the process by themselves.
    ///
    /// # Errors
    /// When the system does not let signals be watched, or does not take the admin's listener.
    pub fn start(admin: TcpListener, context: AdminContext) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let watch = |kind| signal(kind).context("signals cannot be watched");
        let signals = Signals {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
        };
        let hangup = watch(SignalKind::hangup())?;
        let upgrade = watch(SignalKind::user_defined2())?;
        let listener = tokio::net::TcpListener::from_std(admin)?;
        let AdminContext { state, metrics, keys, commands, .. } = context.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = admin::serve(listener, context, async {
            let _ = stopped.await;
        });
        let admin = (runtime.spawn(serve), stop);
        drop(inside);
        Ok(Self { runtime, signals, hangup, upgrade, state, metrics, keys, commands, admin })
    }

    /// Fetches keys that have an address, before anybody is served. Where that fails and some were kept, the node goes on with those; without any it
    /// is tried again until it succeeds. `None` when the process was asked to end before.
    pub fn fetch_keys(&mut self, mut keys: Keys) -> Option<Keys> {
        let (metrics, state) = (self.keys.clone(), self.state.clone());
        self.runtime.block_on(async {
            tokio::select! {
                () = fetch_first(&mut keys, &metrics, &state) => Some(keys),
                () = self.signals.asked() => None,
            }
        })
    }

    /// Has `work` done on a thread of its own while the admin answers. `None` when the process was asked to end before
    /// that was done: then it is left where it is, which is no more than a crash would do to it.
    ///
    /// # Errors
    /// Those of the work, and when the system gives no thread.
    pub fn wait_for<T: Send + 'static>(
        &mut self,
        name: &str,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<Option<T>> {
        let (done, result) = oneshot::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Nobody waits for it any more when the process ends.
            let _ = done.send(work());
        })?;
        self.runtime.block_on(async {
            tokio::select! {
                result = result => result.with_context(|| format!("the {name} thread panicked"))?.map(Some),
                () = self.signals.asked() => Ok(None),
            }
        })
    }

    /// Runs until all shards have ended. Whether all ended well.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(
        self,
        operators: Operators,
        gauge: Gauge,
        (rereading, refetching): (Option<Rereading>, Option<Refetching>),
        inboxes: Vec<Inbox>,
        threads: Vec<JoinHandle<anyhow::Result<()>>>,
    ) -> anyhow::Result<bool> {
        let Self { runtime, signals, hangup, upgrade, state, metrics, keys, commands, admin } = self;
        let Operators { revocations, erasures, leaving } = operators;
        let changing = keep_keys(rereading, refetching, hangup, inboxes.clone(), keys);
        let drain = drain_of(state.clone(), inboxes);
        let noting = erasures.clone().watch(leaving.changes.clone());
        let upgrading = upgrade_when_asked(upgrade, leaving.clone());
        let changes = leaving.changes.clone();
        let upgrade = Arc::new(move || leaving.upgrade());
        commands.get_or_init(|| Commands { revocations, erasures, drain: drain.clone(), upgrade, changes });
        let well = runtime.block_on(async {
            let ended = reap(threads)?;
            let keeping = tokio::spawn(keep(Gatekeeper::new(state.clone(), metrics.clone(), gauge)));
            let changing = tokio::spawn(changing);
            let supervisor = Supervisor::new(manager_of_environment(), metrics);
            supervisor.ready();
            let signals = tokio::spawn(watch(state, supervisor, signals, drain));
            let noting = tokio::spawn(noting);
            let upgrading = tokio::spawn(upgrading);
            let well = ended.await.unwrap_or(false);
            signals.abort();
            noting.abort();
            upgrading.abort();
            keeping.abort();
            changing.abort();
            finish(admin).await;
            Ok(well)
        });
        runtime.shutdown_timeout(LEFT_MAX);
        well
    }

    /// Ends without having served.
    pub fn end(self) {
        self.runtime.block_on(finish(self.admin));
        self.runtime.shutdown_timeout(LEFT_MAX);
    }
}

/// How long an end waits for what was given to other threads: a name that is looked up may take half a minute, and nobody wants it any more.
const LEFT_MAX: Duration = Duration::from_secs(1);

/// Lets answers that are on their way finish.
async fn finish((serving, stop): (tokio::task::JoinHandle<()>, oneshot::Sender<()>)) {
    let _ = stop.send(());
    let _ = serving.await;
}

/// What begins the drain, once, however often it is called.
fn drain_of(state: Arc<NodeState>, inboxes: Vec<Inbox>) -> Arc<dyn Fn() + Send + Sync> {
    let told = Mutex::new(false);
    Arc::new(move || {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *told, true) {
            state.set_draining();
            tracing::info!("draining: no new connections, goodbyes are spread, acknowledgements go on");
            inboxes.iter().for_each(|inbox| inbox.send(Command::Drain));
        }
    })
}

/// Waits for all threads: whether all ended well.
fn reap(threads: Vec<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<oneshot::Receiver<bool>> {
    let (done, ended) = oneshot::channel::<bool>();
    thread::Builder::new().name("reaper".to_owned()).spawn(move || {
        let well = threads.into_iter().fold(true, |well, thread| match thread.join() {
            Ok(Ok(())) => well,
            Ok(Err(error)) => {
                tracing::error!("{error:#}");
                false
            }
            Err(_) => false,
        });
        // The receiver lives as long as the node runs.
        let _ = done.send(well);
    })?;
    Ok(ended)
}

/// Keys that may change, for as long as the node runs.
async fn keep_keys(
    rereading: Option<Rereading>,
    refetching: Option<Refetching>,
    hangup: Signal,
    inboxes: Vec<Inbox>,
    metrics: Arc<KeyMetrics>,
) {
    match (rereading, refetching) {
        (Some(rereading), _) => reread(rereading, hangup, inboxes, metrics).await,
        (None, Some(refetching)) => refetch(refetching, hangup, inboxes, metrics).await,
        // Held, so that the signal ends nothing.
        (None, None) => say_nothing_is_read_again(hangup).await,
    }
}

/// Whoever reloads a service expects that something comes of it.
async fn say_nothing_is_read_again(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::info!(
            "SIGHUP: this node has no `jwks_file` and no `jwks_url`, and reads nothing else again; a changed configuration is taken with \
             `gatehouse upgrade`, or a restart"
        );
    }
}

/// How long after the first try the next one follows; then twice as long each time, up to [`auth::FLOOR`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

async fn fetch_first(keys: &mut Keys, metrics: &KeyMetrics, state: &NodeState) {
    let Some(refetching) = &mut keys.refetching else { return };
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match refetching.fetch(metrics).await {
            Ok(fetched) => {
                keys.verifier = fetched.unwrap_or_else(|| keys.verifier.clone());
                tracing::info!(url = %refetching.url(), keys = keys.verifier.keys(), "the keys that tokens are judged by were fetched");
                state.set_keys_missing(false);
                return;
            }
            Err(error) => error,
        };
        let url = refetching.url();
        if refetching.has_keys() {
            metrics.keys.set(keys.verifier.keys() as u64);
            return tracing::warn!(
                %url,
                keys = keys.verifier.keys(),
                "the keys that tokens are judged by could not be fetched; those that were fetched last are in force, and it is tried \
                 again every 30 s: {error}"
            );
        }
        state.set_keys_missing(true);
        tracing::error!(
            %url,
            "the keys that tokens are judged by could not be fetched, and none were kept: nobody is listened to until they are; next \
             try in {} s: {error}",
            pause.as_secs()
        );
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(auth::FLOOR);
    }
}

/// Fetches the keys of tokens again, now and then, when a token names one that is not here, and when SIGHUP asks for it; then every shard has
/// them.
async fn refetch(
    mut refetching: Refetching,
    mut hangup: Signal,
    inboxes: Vec<Inbox>,
    metrics: Arc<KeyMetrics>,
) {
    let mut tick = tokio::time::interval(auth::ASKED_EVERY);
    loop {
        let anyway = tokio::select! {
            _ = tick.tick() => false,
            _ = hangup.recv() => true,
        };
        if refetching.is_unkept() {
            let kept = tokio::task::spawn_blocking(move || (refetching.keep(), refetching)).await;
            let Ok((kept, given_back)) = kept else { return };
            refetching = given_back;
            if let Err(error) = kept {
                tracing::warn!(%error, "the keys that were fetched could not be kept: a start without `jwks_url` would not have them");
            }
        }
        if !anyway && !refetching.is_due(tokio::time::Instant::now()) {
            continue;
        }
        match refetching.fetch(&metrics).await {
            Ok(None) => {}
            Err(error) => tracing::error!(
                url = %refetching.url(),
                "the keys that tokens are judged by could not be fetched again; those of before stay in force: {error}"
            ),
            Ok(Some(verifier)) => {
                if tell_keys(&inboxes, &verifier) {
                    tracing::info!(
                        keys = verifier.keys(),
                        "the keys that tokens are judged by were fetched again"
                    );
                } else {
                    refetching.again();
                }
            }
        }
    }
}

/// Whether every shard takes new keys.
fn tell_keys(inboxes: &[Inbox], verifier: &Verifier) -> bool {
    inboxes.iter().filter(|inbox| inbox.offer(Command::Keys(verifier.clone()))).count() == inboxes.len()
}

/// Reads the keys of tokens again where their file has changed, and when SIGHUP asks for it; then every shard has them.
async fn reread(mut rereading: Rereading, mut hangup: Signal, inboxes: Vec<Inbox>, metrics: Arc<KeyMetrics>) {
    let mut tick = tokio::time::interval(auth::LOOK_EVERY);
    loop {
        let anyway = tokio::select! {
            _ = tick.tick() => false,
            _ = hangup.recv() => true,
        };
        // A file system that does not answer holds up nothing else.
        let looked = tokio::task::spawn_blocking(move || (rereading.look(anyway), rereading)).await;
        let Ok((found, given_back)) = looked else { return };
        rereading = given_back;
        match found {
            None => {}
            Some(Err(error)) => {
                metrics.fetches_total.increment();
                metrics.failures_total.increment();
                tracing::error!(
                    "the keys that tokens are judged by could not be read again; those of before stay in force: {error}"
                );
            }
            Some(Ok(verifier)) => {
                metrics.fetches_total.increment();
                metrics.keys.set(verifier.keys() as u64);
                if tell_keys(&inboxes, &verifier) {
                    tracing::info!(
                        keys = verifier.keys(),
                        "the keys that tokens are judged by were read again"
                    );
                } else {
                    rereading.again();
                }
            }
        }
    }
}

/// Hands over on SIGUSR2. What came of it is said on a line.
async fn upgrade_when_asked(mut asked: Signal, leaving: Arc<Leaving>) {
    while asked.recv().await.is_some() {
        let leaving = leaving.clone();
        // Handed over, there is nothing to hand over again, however often it was asked for meanwhile.
        if let Ok(Ok(_)) = tokio::task::spawn_blocking(move || leaving.upgrade()).await {
            return;
        }
    }
}

/// Looks after who is let in, for as long as the node runs.
async fn keep(mut gatekeeper: Gatekeeper) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        gatekeeper.look();
    }
}

/// Drains on SIGTERM or SIGINT, and when a log has failed; keeps the service manager informed.
async fn watch(
    state: Arc<NodeState>,
    mut supervisor: Supervisor,
    mut signals: Signals,
    drain: Arc<dyn Fn() + Send + Sync>,
) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut told = false;
    loop {
        tokio::select! {
            () = signals.asked() => drain(),
            _ = tick.tick() => if state.exit_failed() { drain() },
        }
        if !state.is_draining() {
            supervisor.feed_watchdog();
        } else if std::mem::replace(&mut told, true) {
            supervisor.feed_watchdog_anyway();
        } else {
            supervisor.stopping();
        }
    }
}
