//! `loadgen idle` against a real node: the program as people use it, and its verdict.

#![forbid(unsafe_code)]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// A node on a directory of its own. Dropping it kills it and removes the directory.
struct Node {
    child: Child,
    directory: PathBuf,
    url: String,
}

impl Node {
    /// Starts a node with these settings, and waits until it serves.
    fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        let directory = env::temp_dir().join(format!("loadgen-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let (listen, admin) = (free_address(), free_address());
        let mut child = Command::new(program())
            .arg("serve")
            .arg("--data")
            .arg(&directory)
            .args(["--listen", &listen, "--admin", &admin])
            .env("GATEHOUSE_LOGS", "1")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the node starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let node = Self { child, directory, url: format!("ws://{listen}") };
        assert!(lines.any(|line| line.contains("serving")), "the node serves");
        // It must be able to write on.
        std::thread::spawn(move || lines.for_each(drop));
        node
    }

    /// Runs `loadgen idle`: how it ended, and what it printed.
    fn idle(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["idle", "--url", &self.url, "--data"])
            .arg(&self.directory)
            .args(["--pid", &self.child.id().to_string()])
            .args(arguments)
            .output()
            .expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

/// The node's program: the one that is built with this one, else it is built now.
fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_loadgen")).with_file_name("gatehouse");
    if !program.is_file() {
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let build = ["build", "--package", "gateway", "--bin", "gatehouse", "--profile", profile];
        let status = Command::new(env!("CARGO")).args(build).status();
        assert!(status.is_ok_and(|status| status.success()), "the node is built");
    }
    program
}

#[test]
fn idle_users_come_stay_and_leave_and_are_measured() {
    let node = Node::start("idle", &[]);
    let json = node.directory.join("idle.json");
    let path = json.to_str().expect("a plain path");
    let (status, text) =
        node.idle(&["--connections", "200", "--seconds", "3", "--rounds", "2", "--json", path]);
    assert_eq!(status.code(), Some(0), "{text}");
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(json).expect("written")).expect("JSON");
    for round in report["rounds"].as_array().expect("rounds") {
        let count = |name: &str| round["counts"][name].as_u64().expect("a number");
        let counts = ["welcomed", "refused", "lost", "left", "unanswered"].map(count);
        assert_eq!(counts, [200, 0, 0, 200, 0], "{text}");
        // A tenth of them at least is due in three seconds.
        assert!(count("pings") >= 20 && count("pings") == count("pongs"), "{text}");
    }
    let costs = report["costs"].as_array().expect("costs");
    assert!(costs.len() == 2 && costs.iter().all(|costs| costs["heartbeat_cpu_micros"].is_number()));
    assert!(text.contains("verdict    good"), "{text}");
}

#[test]
fn users_that_the_node_does_not_take_make_the_verdict_bad() {
    let node = Node::start("full", &[("GATEHOUSE_SHARDS", "1"), ("GATEHOUSE_CONNECTIONS_MAX", "20")]);
    let (status, text) = node.idle(&["--connections", "30", "--seconds", "1"]);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("because    10 users could not connect"), "{text}");
}
