//! Reading the logs back at a start, or of a process that hands them over.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, bail};
use router::Starts;
use storage_log::format::FORMAT_VERSION;
use storage_log::{Damage, DamageKind, Run};

use crate::clock::unix_now;
use crate::state::{LogHealth, NodeState};
use crate::store::disk::log_directory;
use crate::store::scan::{ReadAhead, Reading};
use crate::store::{LogRefusal, OpenLog, ReadLog, Store};

/// The logs of a store that another process has, while they are read back side by side.
pub(super) struct LogReaders {
    run: [u8; 16],
    ahead: Vec<Arc<ReadAhead>>,
    threads: Vec<JoinHandle<Result<ReadLog, LogRefusal>>>,
}

impl LogReaders {
    /// Reads all logs back, each up to where it is durable, and then as much as is written until [`LogReaders::finish`]. Changes nothing.
    pub(super) fn start(store: &Arc<Store>, durable: Vec<u64>) -> anyhow::Result<Self> {
        let ((run, seed), now) = (run_and_seed()?, unix_now().0);
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
    pub(super) fn finish(self) -> anyhow::Result<ReadLogs> {
        self.ahead.iter().for_each(|ahead| ahead.release());
        let mut logs = Vec::new();
        for (log, thread) in self.threads.into_iter().enumerate() {
            let read =
                thread.join().map_err(|_| anyhow::anyhow!("the thread that reads log {log} panicked"))?;
            logs.push(read.map_err(|refusal| anyhow::anyhow!("log {log} {}", why(&refusal)))?);
        }
        Ok(ReadLogs { run: self.run, logs })
    }
}

/// The same, read back.
pub(super) struct ReadLogs {
    run: [u8; 16],
    logs: Vec<ReadLog>,
}

impl ReadLogs {
    /// From here on they are this process's.
    pub(super) fn begin(self, store: &Store, state: &NodeState) -> anyhow::Result<(Vec<OpenLog>, Starts)> {
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

/// The id of this run, and what its logs are seeded with.
fn run_and_seed() -> anyhow::Result<([u8; 16], u64)> {
    let (mut run, mut seed) = ([0; 16], [0; 8]);
    getrandom::fill(&mut run).context("the system gives no randomness")?;
    getrandom::fill(&mut seed).context("the system gives no randomness")?;
    Ok((run, u64::from_le_bytes(seed)))
}

fn starts_of(runs: Vec<Vec<Run>>, opened: &[OpenLog]) -> Starts {
    let starts = Starts::new(runs);
    opened.iter().for_each(|open| starts.keep_from(open.log.number(), open.log.links_kept_from()));
    starts
}

/// Reads all logs back. One that is refused is named and left out; if none is left, the node does not start.
pub(super) fn open_logs(store: &Store, state: &NodeState) -> anyhow::Result<(Vec<OpenLog>, Starts)> {
    let ((run, seed), now) = (run_and_seed()?, unix_now().0);
    let mut opened = Vec::new();
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); usize::from(store.logs)];
    for log in 0..store.logs {
        match store.open_log(log, run, seed, now) {
            Ok(open) => {
                runs[usize::from(log)] = open.log.runs().to_vec();
                state.set_log(log, LogHealth::Serving);
                opened.push(open);
            }
            Err(refusal) => {
                state.set_log(log, LogHealth::Refused);
                report_refusal(store, log, &refusal);
            }
        }
    }
    if opened.is_empty() {
        bail!("no log of this store can be served: see the lines above");
    }
    let starts = starts_of(runs, &opened);
    Ok((opened, starts))
}

fn words(kind: DamageKind) -> &'static str {
    match kind {
        DamageKind::Acknowledged => "records that were acknowledged do not hold their checksums",
        DamageKind::Header => "the header of the segment cannot be read",
        DamageKind::Foreign => "the segment is of another store or log, or of another place in it",
        DamageKind::Newer(_) => "the segment has a format that this program does not know",
        DamageKind::Missing => "the segment is missing",
        DamageKind::Contradiction => "a sound batch contradicts those before it",
    }
}

/// In words, for an upgrade that goes no further: the process before has the log, and serves it.
fn why(refusal: &LogRefusal) -> String {
    match refusal {
        LogRefusal::Damaged(Damage { kind, segment, offset, .. }) => {
            let segment = storage_log::segment_file_name(*segment);
            format!(
                "is damaged in {segment} at {offset} ({}): see what `gatehouse log verify` says",
                words(*kind)
            )
        }
        LogRefusal::Disk(error) => format!("cannot be read: {error}"),
    }
}

fn report_refusal(store: &Store, log: u16, refusal: &LogRefusal) {
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
            what = words(damage.kind),
            "this log is damaged and not served, the others are; nothing was changed: restore it from a backup, or see what \
             `gatehouse log verify` and `repair` say"
        ),
        LogRefusal::Disk(error) => tracing::error!(
            log,
            directory = %log_directory(store.directory(), log).display(),
            %error,
            "this log cannot be read or made, the others are served: look at the disk and its permissions"
        ),
    }
}
