//! Where `tracing` events go: lines on standard error, written by a thread of their own.
//!
//! Whoever logs hands a line over and goes on. When standard error is not read (a full pipe, a stopped
//! terminal), lines are dropped and counted, and the node serves on.
//!
//! Invariant: at most `LINES_MAX` lines wait; logging never blocks the thread that logs.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam::channel::{self, Receiver, Sender};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt::MakeWriter};

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
    let filter =
        filter_of(&variable(LOG_VARIABLE).unwrap_or_else(|| "info".to_owned())).map_err(|wrong| {
            format!("{LOG_VARIABLE}: {wrong}; write a level: error, warn, info, debug, trace or off")
        })?;
    let format = match variable(LOG_FORMAT_VARIABLE).as_deref() {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(format!("{LOG_FORMAT_VARIABLE}: must be text or json, not {other:?}")),
    };
    let (lines, logging) = writer(io::stderr(), format);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(lines);
    let started = match format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| format!("logging could not be started: {error}"))?;
    Ok(logging)
}

/// A level, or several for parts of the program (`info,gateway::shard=debug`).
fn filter_of(text: &str) -> Result<EnvFilter, String> {
    // A word that is no level would be the name of a part, and nothing would be said of all others.
    let word = text.split(',').find(|part| !part.contains('=') && part.parse::<LevelFilter>().is_err());
    match word {
        Some(word) => Err(format!("{word:?} is no level")),
        None => EnvFilter::try_new(text).map_err(|error| error.to_string()),
    }
}

#[derive(Clone, Copy)]
enum Format {
    Json,
    Text,
}

impl Format {
    /// The line that stands where `lost` lines are missing.
    fn dropped(self, lost: u64) -> String {
        let text = format!("{lost} log lines were dropped because standard error was not read fast enough");
        match self {
            Self::Json => format!("{{\"level\":\"WARN\",\"message\":\"{text}\",\"lost\":{lost}}}\n"),
            Self::Text => format!("WARN {text}\n"),
        }
    }
}

enum Message {
    End,
    Line(Vec<u8>),
}

/// Takes lines and passes them on.
#[derive(Clone)]
struct LineWriter {
    sender: Sender<Message>,
    dropped: Arc<AtomicU64>,
}

fn writer(output: impl Write + Send + 'static, format: Format) -> (LineWriter, Logging) {
    let (sender, receiver) = channel::bounded(LINES_MAX);
    let (finish, finished) = channel::unbounded();
    let lines = LineWriter { sender, dropped: Arc::default() };
    let dropped = lines.dropped.clone();
    let thread = thread::Builder::new().name("logging".to_owned());
    // Without the thread there is no logging, and the first dropped line would say so to nobody.
    thread
        .spawn(move || {
            write_lines(&receiver, &dropped, output, format);
            let _ = finish.send(());
        })
        .expect("a process that cannot start its first thread cannot start its shards either");
    (lines.clone(), Logging { lines, finished })
}

fn write_lines(receiver: &Receiver<Message>, dropped: &AtomicU64, mut output: impl Write, format: Format) {
    loop {
        let message = receiver.recv();
        // An output that fails is not better served by ending: it may be read again.
        if let Ok(Message::Line(line)) = &message {
            let _ = output.write_all(line);
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = output.write_all(format.dropped(lost).as_bytes());
        }
        if !matches!(message, Ok(Message::Line(_))) {
            break;
        }
    }
    let _ = output.flush();
}

impl Drop for Logging {
    fn drop(&mut self) {
        // When nobody reads, the last lines are lost and the process still ends.
        if self.lines.sender.send_timeout(Message::End, END_TIME_MAX).is_ok() {
            let _ = self.finished.recv_timeout(END_TIME_MAX);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing until it is told to, then passes on what it got.
    struct Pipe {
        open: Receiver<()>,
        output: Sender<Vec<u8>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Closed means open for good.
            let _ = self.open.recv();
            let _ = self.output.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_filter_is_of_levels() {
        for (text, taken) in [
            ("debug", true),
            ("INFO", true),
            ("off", true),
            ("info,gateway::shard=debug", true),
            ("warn,gateway=trace", true),
            ("loud", false),
            ("info,gateway", false),
            ("gateway=loud", false),
        ] {
            assert_eq!(filter_of(text).is_ok(), taken, "{text}");
        }
    }

    #[test]
    fn a_blocked_output_delays_nobody_and_what_was_lost_is_told() {
        let (open, opened) = channel::unbounded();
        let (output, written) = channel::unbounded();
        let (lines, logging) = writer(Pipe { open: opened, output }, Format::Text);
        // One line may be in the writer's hands already, so the last of these finds no room.
        for number in 0..LINES_MAX + 2 {
            writeln!(lines.make_writer(), "line {number}").expect("a line takes everything");
        }
        drop(open);
        drop(logging);
        let written: Vec<u8> = written.into_iter().flatten().collect();
        let text = String::from_utf8(written).expect("lines are text");
        assert!(text.starts_with("line 0\n"), "the first line is kept");
        assert!(text.contains(" log lines were dropped"), "the loss is told");
        let kept = text.lines().filter(|line| line.starts_with("line ")).count();
        assert!((LINES_MAX..LINES_MAX + 2).contains(&kept), "{kept} lines of {LINES_MAX} were kept");
    }

    #[test]
    fn an_event_is_one_line_however_it_is_written() {
        let (output, written) = channel::unbounded();
        let (_, opened) = channel::unbounded();
        let (lines, logging) = writer(Pipe { open: opened, output }, Format::Json);
        let mut line = lines.make_writer();
        line.write_all(b"one ").expect("a line takes everything");
        line.write_all(b"event\n").expect("a line takes everything");
        drop(line);
        drop(logging);
        assert_eq!(written.iter().next().as_deref(), Some(&b"one event\n"[..]));
    }
}
