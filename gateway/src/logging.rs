//! Where `tracing` events go: lines on standard error, written by a thread of their own.
//!
//! Whoever logs hands a line over and goes on. When standard error is not read (a full pipe, a stopped
//! terminal), lines are dropped and counted, and the node serves on.
//!
//! Invariant: at most [`LINES_MAX`] lines wait; logging never blocks the thread that logs.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::config::{LOG_FORMAT_VARIABLE, LOG_VARIABLE};

/// Lines that may wait. At a few hundred bytes each, below 1 MiB.
const LINES_MAX: usize = 4096;
/// What standard error gets to take the last lines at the end.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// Keep it until the end of the process: dropping it writes what still waits.
pub struct Logging {
    lines: LineWriter,
    finished: Receiver<()>,
}

/// Starts logging as `GATEHOUSE_LOG` and `GATEHOUSE_LOG_FORMAT` say. `Err` says what is wrong with them.
pub fn start() -> Result<Logging, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let filter = variable(LOG_VARIABLE).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| format!("{LOG_VARIABLE}: {error}; write a level such as info or debug"))?;
    let (lines, logging) = writer(io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(lines);
    let started = match variable(LOG_FORMAT_VARIABLE).as_deref() {
        None | Some("text") => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Some("json") => builder.json().flatten_event(true).try_init(),
        Some(other) => return Err(format!("{LOG_FORMAT_VARIABLE}: must be text or json, not {other:?}")),
    };
    started.map_err(|error| format!("logging could not be started: {error}"))?;
    Ok(logging)
}

enum Message {
    End,
    Line(Vec<u8>),
}

/// Takes lines and passes them on.
#[derive(Clone)]
struct LineWriter {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

fn writer(output: impl Write + Send + 'static) -> (LineWriter, Logging) {
    let (sender, receiver) = mpsc::sync_channel(LINES_MAX);
    let (finish, finished) = mpsc::channel();
    let lines = LineWriter { sender, dropped: Arc::default() };
    let dropped = lines.dropped.clone();
    let thread = thread::Builder::new().name("logging".to_owned());
    // Without the thread there is no logging, and the first dropped line would say so to nobody.
    thread
        .spawn(move || {
            write_lines(&receiver, &dropped, output);
            let _ = finish.send(());
        })
        .expect("a process that cannot start its first thread cannot start its shards either");
    (lines.clone(), Logging { lines, finished })
}

fn write_lines(receiver: &Receiver<Message>, dropped: &AtomicU64, mut output: impl Write) {
    // An output that fails is not better served by ending: it may be read again.
    while let Ok(Message::Line(line)) = receiver.recv() {
        let _ = output.write_all(&line);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ =
                writeln!(output, "{lost} log lines were dropped: standard error was not read fast enough");
        }
    }
    let _ = output.flush();
}

impl Drop for Logging {
    fn drop(&mut self) {
        // Full means that nobody reads: then there is nothing to wait for.
        if self.lines.sender.try_send(Message::End).is_ok() {
            let ended = self.finished.recv_timeout(END_TIME_MAX);
            debug_assert!(!matches!(ended, Err(RecvTimeoutError::Disconnected)), "the writer ends in order");
        }
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { bytes: Vec::new(), lines: self }
    }
}

/// One event in the making; handed over when it is dropped, in one piece.
struct Line<'a> {
    bytes: Vec<u8>,
    lines: &'a LineWriter,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() && self.lines.sender.try_send(Message::Line(bytes)).is_err() {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
