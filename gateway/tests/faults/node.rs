//! A node as an operator has it: the binary, a data directory, signals, its log lines and its metrics.
//!
//! Nothing here waits for time to pass. Whatever is waited for either happens or is missing after
//! [`PATIENCE`], which is far beyond what the slowest machine needs.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::trace::{CALLS, TraceFile};

/// After this long something will not happen any more. Also what a drain may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Of /proc/PID/statm.
const PAGE_BYTES: u64 = 4096;

/// A directory for one store, on the disk that builds are on: a memory file system has no room for logs.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// Runs the binary to its end with nothing of our own environment in its way.
pub(crate) fn gatehouse(arguments: &[&OsStr], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    command.args(arguments).env_clear().envs(settings.iter().copied());
    command.output().expect("the binary runs")
}

/// A start that has to be refused: exit code 2, and every word on standard error.
#[track_caller]
pub(crate) fn check_refused(data: &Path, settings: &[(&str, &str)], words: &[&str]) {
    let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let given = |flag: &str| {
        settings.iter().any(|(key, _)| *key == format!("GATEHOUSE_{}", &flag[2..].to_uppercase()))
    };
    let mut arguments = vec![OsStr::new("--data"), data.as_os_str(), OsStr::new("--shards"), OsStr::new("2")];
    for flag in ports.chunks(2).filter(|flag| !given(flag[0])) {
        arguments.extend(flag.iter().map(OsStr::new));
    }
    let output = gatehouse(&arguments, settings);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in {stderr}");
    }
}

/// A running node. Dropped, it is killed.
pub(crate) struct Node {
    child: Child,
    log: Arc<Log>,
    data: PathBuf,
    settings: Vec<(String, String)>,
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Health and metrics.
    pub(crate) admin: SocketAddr,
    /// The echo service.
    pub(crate) echo: SocketAddr,
}

/// Standard error, line by line as it comes.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    fn read(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            self.lines.lock().expect("no reader panics").0.push(String::from_utf8_lossy(&line).into_owned());
            self.changed.notify_all();
        }
        self.lines.lock().expect("no reader panics").1 = true;
        self.changed.notify_all();
    }

    /// The first line with all of `words`, when it comes; `None` when the log ends without it.
    fn find(&self, words: &[&str]) -> Option<String> {
        let begun = Instant::now();
        let mut lines = self.lines.lock().expect("no reader panics");
        loop {
            if let Some(line) = lines.0.iter().find(|line| words.iter().all(|word| line.contains(word))) {
                return Some(line.clone());
            }
            if lines.1 {
                return None;
            }
            let Some(left) = PATIENCE.checked_sub(begun.elapsed()) else {
                // Let go of first: whoever shows the log after this has to read it.
                let said = lines.0.clone();
                drop(lines);
                panic!("no line with {words:?} in {said:#?}");
            };
            lines = self.changed.wait_timeout(lines, left).expect("no reader panics").0;
        }
    }

    fn wait_for_end(&self) {
        let lines = self.lines.lock().expect("no reader panics");
        let waited = self.changed.wait_timeout_while(lines, PATIENCE, |(_, ended)| !*ended);
        let (lines, timeout) = waited.expect("no reader panics");
        assert!(!timeout.timed_out(), "it does not end: {:#?}", lines.0);
    }
}

impl Node {
    /// A node with two shards on `data`, ready to serve. `settings` are variables: `("GATEHOUSE_LOGS", "1")`.
    #[track_caller]
    pub(crate) fn start(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::try_start(data, settings).unwrap_or_else(|log| panic!("it does not serve: {log:#?}"))
    }

    fn try_start(data: &Path, settings: &[(&str, &str)]) -> Result<Self, Vec<String>> {
        let mut node = Self::begin(data, settings)?;
        node.wait_until_it_serves()?;
        Ok(node)
    }

    /// The same as [`Node::start`], under strace.
    #[track_caller]
    pub(crate) fn start_traced(data: &Path, settings: &[(&str, &str)]) -> (Self, TraceFile) {
        let file = data.with_extension("trace");
        let mut command = Command::new("strace");
        // Not as our child, which the node is.
        command.args(["-D", "-f", "-y", "-s", "0", "-e", CALLS, "-o"]).arg(&file);
        command.arg(env!("CARGO_BIN_EXE_gatehouse"));
        let traced = Self::begin_as(command, data, settings).and_then(|mut node| {
            node.wait_until_it_serves()?;
            Ok(node)
        });
        (traced.unwrap_or_else(|log| panic!("it does not serve: {log:#?}")), TraceFile(file))
    }

    /// The same, which has yet to read its logs back: of its addresses it has that of the admin.
    pub(crate) fn begin(data: &Path, settings: &[(&str, &str)]) -> Result<Self, Vec<String>> {
        Self::begin_as(Command::new(env!("CARGO_BIN_EXE_gatehouse")), data, settings)
    }

    fn begin_as(mut command: Command, data: &Path, settings: &[(&str, &str)]) -> Result<Self, Vec<String>> {
        let mut child = command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--echo",
                "127.0.0.1:0",
                "--shards",
                "2",
            ])
            .args([OsStr::new("--data"), data.as_os_str()])
            .env_clear()
            // Tests send as fast as they can.
            .envs([
                ("GATEHOUSE_USER_MESSAGES_PER_SECOND", "0"),
                ("GATEHOUSE_SESSION_COMMANDS_PER_SECOND", "0"),
            ])
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let log = Arc::new(Log::default());
        let (reader, stderr) = (log.clone(), child.stderr.take().expect("it is piped"));
        std::thread::spawn(move || reader.read(stderr));
        let Some(line) = log.find(&["recovering", "admin="]) else {
            let _ = child.wait();
            return Err(log.lines.lock().expect("no reader panics").0.clone());
        };
        let nowhere = SocketAddr::from(([0; 4], 0));
        let admin = field_of(&line, "admin").parse().expect("an address");
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Ok(Self { child, log, data: data.to_owned(), settings, listen: nowhere, admin, echo: nowhere })
    }

    /// Until it has read its logs back and serves.
    pub(crate) fn wait_until_it_serves(&mut self) -> Result<(), Vec<String>> {
        let Some(line) = self.log.find(&["serving", "listen="]) else {
            return Err(self.log.lines.lock().expect("no reader panics").0.clone());
        };
        let address = |field| field_of(&line, field).parse().expect("an address");
        (self.listen, self.echo) = (address("listen"), address("echo"));
        Ok(())
    }

    /// SIGKILL, and a new process on the same directory.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let settings = self.settings.clone();
        let settings: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        *self = Self::start(&self.data.clone(), &settings);
    }

    /// The newest process that has taken over, if one has.
    pub(crate) fn successor(&self) -> Option<Pid> {
        let text = self.log_text();
        let line = text.lines().rev().find(|line| line.contains("upgraded to pid "))?;
        let number = line.split("upgraded to pid ").nth(1)?.split(':').next()?;
        Pid::from_raw(number.parse().expect("a number"))
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(successor) = self.successor() {
            // Fails when it has ended before, which is just as well.
            let _ = kill_process(successor, Signal::KILL);
        }
        // Fails when it has ended before, which is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process.
    pub(crate) fn id(&self) -> Pid {
        self.successor().unwrap_or_else(|| Pid::from_child(&self.child))
    }

    /// A node with two shards on `data` that runs the file `program`.
    #[track_caller]
    pub(crate) fn start_as(program: &Path, data: &Path, settings: &[(&str, &str)]) -> Self {
        let node = Self::begin_as(Command::new(program), data, settings).and_then(|mut node| {
            node.wait_until_it_serves()?;
            Ok(node)
        });
        node.unwrap_or_else(|log| panic!("it does not serve: {log:#?}"))
    }

    /// Asks for an upgrade: the answer, whole.
    pub(crate) fn upgrade(&self) -> String {
        let token = std::fs::read_to_string(self.data.join("admin.token")).expect("it was made");
        self.admin_ask("POST /v1/upgrade", &format!("Authorization: Bearer {}\r\n", token.trim()))
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        kill_process(self.id(), Signal::TERM).expect("it runs");
    }

    /// How the process ended, after [`Node::terminate`] or on its own.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.log.wait_for_end();
        self.child.wait().expect("it is a child of ours")
    }

    /// How the first process ended, when it has.
    pub(crate) fn first_ended(&mut self) -> ExitStatus {
        self.child.wait().expect("it is a child of ours")
    }

    /// A line of the log with all of `words`, when it comes.
    #[track_caller]
    pub(crate) fn log_line(&self, words: &[&str]) -> String {
        self.log.find(words).unwrap_or_else(|| panic!("it ended without a line with {words:?}"))
    }

    /// Everything logged so far.
    pub(crate) fn log_text(&self) -> String {
        self.log.lines.lock().expect("no reader panics").0.join("\n")
    }

    /// A token of `user`, as `gatehouse token` prints it.
    pub(crate) fn token(&self, user: &str) -> String {
        let arguments = ["token", "--data"].map(OsStr::new);
        let arguments =
            [&arguments[..], &[self.data.as_os_str()], &["--user", user].map(OsStr::new)].concat();
        let settings: Vec<_> =
            self.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let output = gatehouse(&arguments, &settings);
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8(output.stdout).expect("a token is text");
        stdout.lines().last().expect("a token").to_owned()
    }

    /// Memory in use, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("it runs");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        pages.expect("the second field of statm") * PAGE_BYTES
    }

    /// One GET at the admin: status line, headers and body.
    pub(crate) fn admin_get(&self, path: &str) -> String {
        self.admin_ask(&format!("GET {path}"), "")
    }

    /// One request at the admin, with headers of the caller's, each ended.
    pub(crate) fn admin_ask(&self, request: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
        write!(stream, "{request} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{headers}\r\n")
            .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// A metric, summed over its lines; `name` may end in labels (`closes_total{code="1002"}`).
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = self.admin_get("/metrics");
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix("gatehouse_")?.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<u64>().ok())?
        });
        let values: Vec<u64> = values.collect();
        assert!(!values.is_empty(), "no {name} in {page}");
        values.iter().sum()
    }

    /// Asks for a metric until it is `expected`.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, name: &str, expected: u64) {
        let begun = Instant::now();
        loop {
            let value = self.metric(name);
            if value == expected {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{name} stays {value}, not {expected}");
        }
    }
}

/// SIGKILL, while others still use the node.
pub(crate) fn kill(process: Pid) {
    kill_process(process, Signal::KILL).expect("it runs");
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the node said:\n{}", self.log_text());
        }
    }
}

/// A field of a log line: `listen=127.0.0.1:1` or `echo="127.0.0.1:1"`.
#[track_caller]
pub(crate) fn field_of<'l>(line: &'l str, field: &str) -> &'l str {
    let value = line.split(' ').find_map(|word| word.strip_prefix(field)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {field} in {line}")).trim_matches('"')
}
