//! How the node is, for whoever asks: health endpoints, the drain, the exit code.
//!
//! All threads share one [`NodeState`]; it is atomics only, so a shard that reports never waits for a
//! scrape that reads. Times and counts are `metrics`, not here.
//!
//! Invariant: what can only happen once stays: recovered, draining and a failed log are never taken back. A shortage of memory is.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use tokio::sync::watch;

/// How one log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogHealth {
    /// A write or sync failed while serving: it takes nothing more until a restart recovers it.
    Failed,
    /// It could not be opened at start; its conversations answer `unavailable`, the others are served.
    Refused,
    /// Taking messages.
    Serving,
    /// Still being recovered.
    Starting,
}

impl LogHealth {
    /// In the order of their numbers in [`NodeState`].
    const ALL: [Self; 4] = [Self::Starting, Self::Serving, Self::Refused, Self::Failed];

    /// The word for it in metrics and texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Serving => "serving",
            Self::Starting => "starting",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Starting => 0,
            Self::Serving => 1,
            Self::Refused => 2,
            Self::Failed => 3,
        }
    }
}

/// Whether the admin takes callers: two processes that share its listener do not both.
pub struct Door {
    shut: watch::Sender<bool>,
    nobody_comes: AtomicBool,
}

impl Default for Door {
    fn default() -> Self {
        Self { shut: watch::Sender::new(false), nobody_comes: AtomicBool::new(false) }
    }
}

impl Door {
    /// Asks the admin to take nobody, or to do so again. Callers that it has are answered.
    pub fn shut(&self, shut: bool) {
        self.shut.send_replace(shut);
    }

    /// Whether it takes nobody by now.
    pub fn is_shut(&self) -> bool {
        self.nobody_comes.load(Ordering::Acquire)
    }

    /// The admin's side: hears of every change.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.shut.subscribe()
    }

    /// The admin's side: whether it takes nobody.
    pub fn note(&self, nobody_comes: bool) {
        self.nobody_comes.store(nobody_comes, Ordering::Release);
    }
}

/// The node as a whole and each of its logs.
pub struct NodeState {
    recovered: AtomicBool,
    draining: AtomicBool,
    /// The system, or the node's control group, has too little memory left for more connections.
    memory_short: AtomicBool,
    /// There are no keys yet that tokens could be judged by.
    keys_missing: AtomicBool,
    /// Another process has everything.
    handed_over: AtomicBool,
    /// It did not come to serve.
    hand_over_failed: AtomicBool,
    /// The admin's.
    pub door: Door,
    /// One number of [`LogHealth`] per log.
    logs: Box<[AtomicU8]>,
    /// Whether the segment after the present one could not be made, per log.
    without_next_segment: Box<[AtomicBool]>,
    /// Up to where each log is durable, in bytes; 0 before it is served.
    durable_ends: Box<[AtomicU64]>,
    /// The time by which what is too old goes, per log, in milliseconds since 1970; 0 before it is served.
    aging: Box<[AtomicU64]>,
}

impl NodeState {
    /// A node that has just started: no log is open yet.
    pub fn new(logs: u16) -> Self {
        Self {
            recovered: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            memory_short: AtomicBool::new(false),
            keys_missing: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            hand_over_failed: AtomicBool::new(false),
            door: Door::default(),
            logs: (0..logs).map(|_| AtomicU8::new(LogHealth::Starting.number())).collect(),
            without_next_segment: (0..logs).map(|_| AtomicBool::new(false)).collect(),
            durable_ends: (0..logs).map(|_| AtomicU64::new(0)).collect(),
            aging: (0..logs).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// A log is durable up to there, in bytes: its shard says so with each batch.
    pub fn note_durable_end(&self, log: u16, end: u64) {
        if let Some(durable_end) = self.durable_ends.get(usize::from(log)) {
            durable_end.store(end, Ordering::Release);
        }
    }

    /// Up to where a log is durable, in bytes; `None` of one that is not served.
    pub fn durable_end(&self, log: u16) -> Option<u64> {
        let end = self.durable_ends.get(usize::from(log))?.load(Ordering::Acquire);
        (end > 0).then_some(end)
    }

    /// What is too old in a log goes by this time, in milliseconds since 1970: its shard says so each second or so.
    pub fn note_aging(&self, log: u16, unix_ms: u64) {
        if let Some(aging) = self.aging.get(usize::from(log)) {
            aging.store(unix_ms, Ordering::Relaxed);
        }
    }

    /// The time by which what is too old goes from all logs that are served; `None` until each has said so.
    pub fn aging(&self) -> Option<u64> {
        let logs = 0..self.aging.len() as u16;
        let served = logs.filter(|log| self.durable_end(*log).is_some());
        let times = served.map(|log| self.aging[usize::from(log)].load(Ordering::Relaxed));
        times.min().filter(|least| *least > 0)
    }

    /// Whether the next segment of a log could not be made when it was last tried.
    pub fn set_without_next_segment(&self, log: u16, without: bool) {
        self.without_next_segment[usize::from(log)].store(without, Ordering::Relaxed);
    }

    /// Whether that is so of a log, by its index.
    pub fn is_without_next_segment(&self, log: u16) -> bool {
        self.without_next_segment[usize::from(log)].load(Ordering::Relaxed)
    }

    /// Recovery is over and clients may come.
    pub fn set_recovered(&self) {
        self.recovered.store(true, Ordering::Release);
    }

    /// The node is going away. Asked for by a signal, by an operator, or by a log that failed.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether there is too little memory for more connections. Unlike the rest, this is taken back.
    pub fn set_short_of_memory(&self, short: bool) {
        self.memory_short.store(short, Ordering::Relaxed);
    }

    /// Whether a start waits for keys.
    pub fn set_keys_missing(&self, missing: bool) {
        self.keys_missing.store(missing, Ordering::Relaxed);
    }

    /// Whether new connections are refused for want of memory.
    pub fn is_short_of_memory(&self) -> bool {
        self.memory_short.load(Ordering::Relaxed)
    }

    /// Reports a log, by its index. What is reported after [`LogHealth::Failed`] is not kept.
    pub fn set_log(&self, log: u16, health: LogHealth) {
        let failed = LogHealth::Failed.number();
        let keep = |old: u8| (old != failed).then_some(health.number());
        // Refused exactly when the log has failed before.
        let _ = self.logs[usize::from(log)].fetch_update(Ordering::AcqRel, Ordering::Acquire, keep);
    }

    /// How a log is, by its index.
    pub fn log(&self, log: u16) -> LogHealth {
        LogHealth::ALL[usize::from(self.logs[usize::from(log)].load(Ordering::Acquire))]
    }

    /// Another process has everything: this one changes nothing any more.
    pub fn set_handed_over(&self) {
        self.handed_over.store(true, Ordering::Release);
    }

    /// Whether another process has everything.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Acquire)
    }

    /// That process did not come to serve.
    pub fn set_hand_over_failed(&self) {
        self.hand_over_failed.store(true, Ordering::Release);
    }

    /// Whether the node is going away.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether new clients should come here; if not, why not, one reason a line.
    ///
    /// A refused log alone does not make a node unready, because all its other conversations are served;
    /// it shows in [`NodeState::degraded`]. When every log is refused there is nothing to serve.
    pub fn is_ready(&self) -> Result<(), String> {
        let mut reasons = String::new();
        let (starting, keys_missing) =
            (self.count(LogHealth::Starting), self.keys_missing.load(Ordering::Relaxed));
        if !self.recovered.load(Ordering::Acquire) && (starting > 0 || !keys_missing) {
            let _ = writeln!(
                reasons,
                "recovering: {starting} of {} logs are not open yet; wait",
                self.logs.len()
            );
        }
        if keys_missing {
            reasons.push_str(
                "no keys: `jwks_url` could not be fetched yet, so no token could be judged; it is tried again, and the log says why it fails\n",
            );
        }
        if self.is_draining() {
            reasons.push_str("draining: the node is going away and takes no new connections\n");
        }
        if self.is_short_of_memory() {
            reasons.push_str(
                "short of memory: new connections are refused until there is more than `memory_reserve_mib`; those \
                 that are there are served\n",
            );
        }
        for log in self.with(LogHealth::Failed) {
            let _ = writeln!(
                reasons,
                "log {log} failed: a write or sync did not succeed; check the disk (dmesg, free space), then \
                 restart: recovery keeps everything that was acknowledged"
            );
        }
        if self.count(LogHealth::Refused) == self.logs.len() {
            reasons.push_str("no log could be opened: the messages of this start say why\n");
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// What a node that serves cannot serve, one line a log; empty when it serves everything.
    pub fn degraded(&self) -> String {
        let mut lines = String::new();
        for log in self.with(LogHealth::Refused) {
            let _ = writeln!(
                lines,
                "log {log} was refused at start: its conversations answer `unavailable`; the messages of this \
                 start say why"
            );
        }
        lines
    }

    /// Which logs take no more than their present segment holds, one line a log.
    pub fn without_next_segment(&self) -> String {
        let mut lines = String::new();
        let without = self.without_next_segment.iter().map(|without| without.load(Ordering::Relaxed));
        for (log, _) in without.enumerate().filter(|(_, without)| *without) {
            let _ = writeln!(
                lines,
                "log {log} has no next segment: when the present one is full, sends are answered `storage_full`; the log says why it \
                 cannot be made, and it is tried again each second"
            );
        }
        lines
    }

    /// Whether the process should say with its exit code that it did not just drain.
    pub fn exit_failed(&self) -> bool {
        self.count(LogHealth::Failed) > 0 || self.hand_over_failed.load(Ordering::Acquire)
    }

    /// Appends what there is to know as Prometheus text.
    pub fn render(&self, out: &mut String) {
        let ready = u8::from(self.is_ready().is_ok());
        let draining = u8::from(self.is_draining());
        let _ = write!(
            out,
            "# HELP gatehouse_build_info The version that runs here; always 1.\n\
             # TYPE gatehouse_build_info gauge\n\
             gatehouse_build_info{{version=\"{}\"}} 1\n\
             # HELP gatehouse_ready Whether /readyz says yes.\n\
             # TYPE gatehouse_ready gauge\n\
             gatehouse_ready {ready}\n\
             # HELP gatehouse_draining Whether the node is going away.\n\
             # TYPE gatehouse_draining gauge\n\
             gatehouse_draining {draining}\n\
             # HELP gatehouse_logs Logs by how they are.\n\
             # TYPE gatehouse_logs gauge\n",
            env!("CARGO_PKG_VERSION"),
        );
        for health in LogHealth::ALL {
            let _ = writeln!(out, "gatehouse_logs{{health=\"{}\"}} {}", health.name(), self.count(health));
        }
        let _ = write!(
            out,
            "# HELP gatehouse_logs_without_next_segment Logs whose next segment cannot be made: sends are refused once the present one is full.\n\
             # TYPE gatehouse_logs_without_next_segment gauge\n\
             gatehouse_logs_without_next_segment {}\n",
            self.without_next_segment.iter().filter(|without| without.load(Ordering::Relaxed)).count()
        );
    }

    fn with(&self, health: LogHealth) -> impl Iterator<Item = usize> {
        let number = health.number();
        let matches = move |(_, log): &(usize, &AtomicU8)| log.load(Ordering::Acquire) == number;
        self.logs.iter().enumerate().filter(matches).map(|(index, _)| index)
    }

    fn count(&self, health: LogHealth) -> usize {
        self.with(health).count()
    }
}
