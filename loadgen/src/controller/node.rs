//! A node of our own: found or built, started on a temporary directory, killed, started again.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};

const PROGRAM: &str = "gatehouse";
/// How long a node may take to be ready: recovery is part of it.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_millis(5);
const PROBE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Lines of its log that are shown when it ends by itself.
const LOG_LINES: usize = 12;

/// A running node. Dropping it kills it.
pub(super) struct Node {
    program: PathBuf,
    /// Whether its users may search.
    searches: bool,
    directory: PathBuf,
    pub(super) listen: SocketAddr,
    admin: SocketAddr,
    child: Child,
}

impl Node {
    /// Starts `program` on a new directory and free ports, and waits until it is ready.
    pub(super) fn start(program: PathBuf, searches: bool) -> anyhow::Result<Self> {
        let directory = env::temp_dir().join(format!("loadgen-{}", std::process::id()));
        fs::create_dir_all(&directory)
            .with_context(|| format!("{} could not be made", directory.display()))?;
        let (listen, admin) = (free_address()?, free_address()?);
        eprintln!("loadgen: {} is started on {}", program.display(), directory.display());
        let child = spawn(&program, &directory, (listen, admin), searches)?;
        let mut node = Self { program, searches, directory, listen, admin, child };
        node.wait_until_ready()?;
        Ok(node)
    }

    pub(super) fn data(&self) -> PathBuf {
        data_of(&self.directory)
    }

    /// SIGKILL: the process gets no chance to finish anything.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// The same program on the same directory and ports.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.program, &self.directory, (self.listen, self.admin), self.searches)?;
        self.wait_until_ready()
    }

    /// The directory stays, for whoever wants to look.
    pub(super) fn keep_directory(mut self) -> PathBuf {
        let _ = self.kill();
        std::mem::take(&mut self.directory)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WAIT_MAX;
        loop {
            if is_ready(self.admin).unwrap_or(false) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the node ended with {status}:\n{}", tail(&log_of(&self.directory)));
            }
            ensure!(Instant::now() < deadline, "the node was not ready after {READY_WAIT_MAX:?}");
            thread::sleep(PROBE_EVERY);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.kill();
        if !self.directory.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Turns this process into a node that is killed when the controller ends, however that happens: a
/// controller that is killed leaves no node behind. Comes back only with a failure.
pub(crate) fn become_node(command: &[OsString]) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let (program, arguments) = command.split_first().context("no program was named")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("{} could not be started", Path::new(program).display()))
}

/// The node's program: the one that was named, the one beside us, or one that is built now.
pub(super) fn find_program(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        ensure!(named.is_file(), "{}: there is no such program", named.display());
        return Ok(named.to_owned());
    }
    let own = env::current_exe().context("the path of this program is not known")?;
    let beside = own.with_file_name(PROGRAM);
    if beside.is_file() {
        return Ok(beside);
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml");
    ensure!(
        manifest.is_file(),
        "{} is not there; name the node's program with --gatehouse PATH",
        beside.display()
    );
    eprintln!("loadgen: {} is not there, so it is built: cargo build --release -p gateway", beside.display());
    let status = Command::new("cargo")
        .args(["build", "--release", "-p", "gateway", "--manifest-path"])
        .arg(&manifest)
        .stdout(Stdio::null())
        .status()
        .context("cargo could not be run; name the node's program with --gatehouse PATH")?;
    ensure!(status.success(), "the node could not be built");
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| manifest.with_file_name("target"), PathBuf::from);
    let built = target.join("release").join(PROGRAM);
    ensure!(built.is_file(), "{} is not where cargo builds to; use --gatehouse PATH", built.display());
    Ok(built)
}

fn data_of(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn log_of(directory: &Path) -> PathBuf {
    directory.join("node.log")
}

fn spawn(
    program: &Path,
    directory: &Path,
    (listen, admin): (SocketAddr, SocketAddr),
    searches: bool,
) -> anyhow::Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log_of(directory))?;
    Command::new(env::current_exe().context("the path of this program is not known")?)
        .args(["node", "--"])
        .arg(program)
        .arg("serve")
        .arg("--data")
        .arg(data_of(directory))
        .args(["--listen", &listen.to_string(), "--admin", &admin.to_string()])
        // Few users may be asked to send as much as many: what is measured is the node, and not what it allows one of them.
        .envs([("GATEHOUSE_USER_MESSAGES_PER_SECOND", "0"), ("GATEHOUSE_SESSION_COMMANDS_PER_SECOND", "0")])
        .env("GATEHOUSE_SEARCH", searches.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("{} could not be started", program.display()))
}

/// A port that is free now; nobody else is expected to take it before the node does.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").context("no port is free")?.local_addr()?)
}

fn is_ready(admin: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&admin, PROBE_WAIT_MAX)?;
    stream.set_read_timeout(Some(PROBE_WAIT_MAX))?;
    stream.write_all(
        format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    Ok(line.ends_with(b" 200"))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
