//! The control plane: admin HTTP, signals and the service manager, on the thread that the shards are waited for.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::{self, AdminContext};
use crate::auth::AdminToken;
use crate::files::{Command, Inbox};
use crate::metrics::{CareMetrics, ShardMetrics};
use crate::revocations::Revocations;
use crate::state::NodeState;
use crate::supervisor::{Supervisor, manager_of_environment};

/// Asked to end by the system: SIGTERM or SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on these signals do not end the process by themselves.
    ///
    /// # Errors
    /// When the system does not let them be watched.
    pub fn watch(runtime: &Runtime) -> io::Result<Self> {
        let _inside = runtime.enter();
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

/// Admin HTTP and signals.
pub struct ControlPlane {
    /// Listener of the admin HTTP.
    pub admin: TcpListener,
    /// What requests that change something have to bear.
    pub admin_token: Arc<AdminToken>,
    /// Tokens that were taken back.
    pub revocations: Arc<Revocations>,
    /// How the node is.
    pub state: Arc<NodeState>,
    /// Of each shard.
    pub metrics: Vec<Arc<ShardMetrics>>,
    /// Of what looks after the disk.
    pub care: Arc<CareMetrics>,
    /// Watched since before the node served.
    pub signals: Signals,
}

impl ControlPlane {
    /// Runs until all shards have ended. Whether all ended well.
    ///
    /// # Errors
    /// When the system gives no thread, or does not take the admin's listener.
    pub fn run(
        self,
        runtime: &Runtime,
        inboxes: Vec<Inbox>,
        threads: Vec<JoinHandle<anyhow::Result<()>>>,
    ) -> anyhow::Result<bool> {
        let Self { admin, admin_token, revocations, state, metrics, care, signals } = self;
        let drain = {
            let (state, told) = (state.clone(), Mutex::new(false));
            Arc::new(move || {
                let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if !std::mem::replace(&mut *told, true) {
                    state.set_draining();
                    tracing::info!(
                        "draining: no new connections, goodbyes are spread, acknowledgements go on"
                    );
                    inboxes.iter().for_each(|inbox| inbox.send(Command::Drain));
                }
            })
        };
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(admin)?;
            let (done, ended) = tokio::sync::oneshot::channel::<bool>();
            thread::Builder::new().name("reaper".to_owned()).spawn(move || {
                let well = threads.into_iter().all(|thread| match thread.join() {
                    Ok(Ok(())) => true,
                    Ok(Err(error)) => {
                        tracing::error!("{error:#}");
                        false
                    }
                    Err(_) => false,
                });
                // The receiver lives as long as the node runs.
                let _ = done.send(well);
            })?;
            let supervisor = Supervisor::new(manager_of_environment(), metrics.clone());
            supervisor.ready();
            let (health, draining) = (state.clone(), drain.clone());
            let context =
                AdminContext { state: health, metrics, care, admin_token, revocations, drain: draining };
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let admin = tokio::spawn(admin::serve(listener, context, async {
                let _ = stopped.await;
            }));
            let signals = tokio::spawn(watch(state.clone(), supervisor, signals, drain));
            let well = ended.await.unwrap_or(false);
            signals.abort();
            let _ = stop.send(());
            let _ = admin.await;
            anyhow::Ok(well)
        })
    }
}

/// Drains on SIGTERM or SIGINT, and when a log has failed; keeps the service manager informed.
async fn watch(
    state: Arc<NodeState>,
    mut supervisor: Supervisor,
    mut signals: Signals,
    drain: Arc<impl Fn()>,
) {
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
    let mut told = false;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => drain(),
            _ = signals.interrupt.recv() => drain(),
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
