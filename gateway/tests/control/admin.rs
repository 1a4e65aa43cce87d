//! The admin server over real sockets.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use gateway::{
    admin::{AdminContext, Commands, serve},
    auth::{AdminToken, Revocation},
    erasures::{Erasure, Erasures, ErasuresFile, ErasuresParts},
    metrics::{CareMetrics, ShardMetrics},
    revocations::{Revocations, RevocationsFile},
    state::{LogHealth, NodeState},
};
use router::Places;
use tempfile::TempDir;
use tokio::sync::oneshot;

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// How long the seconds of a server are.
enum Time {
    Real,
    /// They are over as soon as the server has nothing else to do.
    Skipped,
}

/// What was asked of it before.
#[derive(Default)]
struct Kept {
    revoked: Vec<Revocation>,
    erased: Vec<Erasure>,
}

/// A running admin server and what it shows.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<NodeState>,
    metrics: Arc<ShardMetrics>,
    drains: Arc<AtomicUsize>,
    /// Where revocations are kept.
    pub(crate) data: TempDir,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::serve(listener(), Time::Real, Kept::default())
    }

    /// With these revoked before.
    pub(crate) fn start_with(revoked: Vec<Revocation>) -> Self {
        Self::serve(listener(), Time::Real, Kept { revoked, ..Kept::default() })
    }

    /// With these erased before.
    pub(crate) fn start_with_erased(erased: Vec<Erasure>) -> Self {
        Self::serve(listener(), Time::Real, Kept { erased, ..Kept::default() })
    }

    fn serve(listener: TcpListener, time: Time, kept: Kept) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let state = Arc::new(NodeState::new(1));
        let metrics = Arc::new(ShardMetrics::default());
        let drains = Arc::new(AtomicUsize::new(0));
        let counted = drains.clone();
        let care = Arc::new(CareMetrics::new(1));
        let erasures = Erasures::new(ErasuresParts {
            file: ErasuresFile::of(data.path()),
            kept: kept.erased,
            newest_mark: 0,
            shards: Vec::new(),
            places: Arc::new(Places::new([1; 16], [2; 32], 1, 1)),
            directory: data.path().to_owned(),
            care: care.clone(),
        });
        let context = AdminContext {
            search: None,
            keys: Arc::default(),
            state: state.clone(),
            metrics: vec![metrics.clone()],
            care,
            pushes: None,
            admin_token: Arc::new(AdminToken::new(TOKEN.as_bytes())),
            commands: Arc::new(OnceLock::new()),
        };
        let commands = Commands {
            revocations: Revocations::new(RevocationsFile::of(data.path()), kept.revoked, Vec::new()),
            erasures,
            drain: Arc::new(move || {
                counted.fetch_add(1, Ordering::SeqCst);
            }),
            upgrade: Arc::new(|| anyhow::bail!("there is nothing new")),
            changes: Arc::default(),
        };
        context.commands.set(commands).expect("nobody else sets them");
        let address = listener.local_addr().expect("an address");
        let (end, ended) = oneshot::channel();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(matches!(time, Time::Skipped));
        let thread = thread::spawn(move || {
            runtime.build().expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                serve(listener, context, async {
                    let _ = ended.await;
                })
                .await;
            });
        });
        Self { address, state, metrics, drains, data, end: Some(end), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Sends one request on a connection of its own and reads to the end.
    pub(crate) fn ask(&self, request_line: &str, headers: &str) -> String {
        self.ask_with(request_line, headers, "")
    }

    /// The same with a body.
    pub(crate) fn ask_with(&self, request_line: &str, headers: &str, body: &str) -> String {
        let headers = format!("{headers}Content-Length: {}\r\n", body.len());
        let mut stream = self.connect();
        write!(stream, "{request_line} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{headers}\r\n{body}")
            .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends in order");
        }
    }
}

/// A port that takes callers into the kernel's queue.
fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket of ours");
    listener
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket of ours");
    stream
}

pub(crate) fn check(answer: &str, status: &str, body: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    assert!(answer.contains(body), "{answer}");
}

#[test]
fn health_follows_the_node() {
    let server = Server::start();
    check(&server.ask("GET /livez", ""), "200", "\r\n\r\nok\n");
    check(&server.ask("GET /readyz", ""), "503", "\r\n\r\nrecovering: ");
    server.state.set_log(0, LogHealth::Serving);
    server.state.set_recovered();
    check(&server.ask("GET /readyz", ""), "200", "\r\n\r\nready\n");
    server.state.set_log(0, LogHealth::Failed);
    check(&server.ask("GET /readyz", ""), "503", "log 0 failed: ");
    server.state.set_draining();
    check(&server.ask("GET /readyz", ""), "503", "draining: ");
    check(&server.ask("GET /livez", ""), "200", "ok");
}

#[test]
fn metrics_are_served_as_prometheus_reads_them() {
    let server = Server::start();
    server.metrics.messages_stored_total.add(42);
    let answer = server.ask("GET /metrics", "");
    check(&answer, "200", "\ngatehouse_messages_stored_total 42\n");
    check(&answer, "200", "content-type: text/plain; version=0.0.4; charset=utf-8\r\n");
    check(&answer, "200", "\ngatehouse_logs{health=\"starting\"} 1\n");
    assert!(!answer.contains(TOKEN));
}

#[test]
fn a_drain_needs_the_token() {
    let server = Server::start();
    for headers in [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer wrong\r\n".to_owned(),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
        format!("Authorization: {TOKEN}\r\n"),
    ] {
        let answer = server.ask("POST /v1/drain", &headers);
        check(&answer, "401", "www-authenticate: Bearer\r\n");
        assert!(!answer.contains(TOKEN), "{answer}");
    }
    check(&server.ask(&format!("POST /v1/drain?token={TOKEN}"), ""), "401", "");
    check(&server.ask("GET /v1/drain", &format!("Authorization: Bearer {TOKEN}\r\n")), "405", "");
    assert_eq!(server.drains.load(Ordering::SeqCst), 0);
    check(&server.ask("POST /v1/drain", &format!("Authorization: bearer {TOKEN}\r\n")), "202", "draining\n");
    assert_eq!(server.drains.load(Ordering::SeqCst), 1);
}

#[test]
fn other_requests_are_refused_and_disturb_nothing() {
    let server = Server::start();
    check(&server.ask("GET /", ""), "200", "/readyz");
    check(&server.ask("GET /../etc/passwd", ""), "404", "there is no such path");
    check(&server.ask("DELETE /metrics", ""), "405", "");
    let large = format!("GET /livez HTTP/1.1\r\nHost: admin\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    for junk in [large.as_bytes(), b"\x16\x03\x01 not HTTP at all\r\n\r\n"] {
        let mut stream = server.connect();
        let mut answer = Vec::new();
        // It answers and closes without reading on, so either call may find the connection reset.
        let _ = stream.write_all(junk).and_then(|()| stream.read_to_end(&mut answer));
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    check(&server.ask("GET /livez", ""), "200", "ok");
}

#[test]
fn a_head_that_never_ends_is_cut() {
    let listener = listener();
    let address = listener.local_addr().expect("an address");
    let mut slow = connect(address);
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: a").expect("the kernel takes it");
    let mut silent = connect(address);
    // Both wait in the kernel's queue until now: the server's seconds end when it has read what there is.
    let _server = Server::serve(listener, Time::Skipped, Kept::default());
    for stream in [&mut slow, &mut silent] {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("closed in time, not reset by the read timeout");
    }
}

#[test]
fn callers_beyond_the_limit_wait_for_a_place() {
    const PLACES: usize = 64;
    const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n";
    let server = Server::start();
    let mut byte = [0; 1];
    let mut held: Vec<_> = (0..PLACES).map(|_| server.connect()).collect();
    for stream in &mut held {
        stream.write_all(REQUEST).expect("it reads");
        stream.read_exact(&mut byte).expect("it answers");
    }
    let mut late = server.connect();
    late.write_all(REQUEST).expect("the kernel takes it");
    late.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket of ours");
    let waiting = loop {
        let error = late.read(&mut byte).expect_err("there is no place");
        // A process that was stopped and goes on hears of it: signal(7).
        if error.kind() != ErrorKind::Interrupted {
            break error;
        }
    };
    assert!(matches!(waiting.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waiting}");
    held.pop();
    late.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket of ours");
    late.read_exact(&mut byte).expect("a place is free");
}

#[test]
fn the_end_waits_for_no_idle_caller() {
    let server = Server::start();
    let mut idle = server.connect();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n").expect("it reads");
    let mut byte = [0; 1];
    idle.read_exact(&mut byte).expect("it answers");
    let address = server.address;
    drop(server);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("the server closes");
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}
