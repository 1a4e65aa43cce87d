//! A node for the program's tests, and the program against it.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A node on a directory of its own. Dropping it kills it and removes the directory.
pub(crate) struct Node {
    child: Child,
    pub(crate) directory: PathBuf,
    pub(crate) url: String,
    admin: String,
}

impl Node {
    /// Starts a node with these settings, and waits until it serves.
    pub(crate) fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        let directory = env::temp_dir().join(format!("loadgen-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let mut child = Command::new(program())
            .arg("serve")
            .arg("--data")
            .arg(&directory)
            // It says which ports it took: one that is looked for before may be another's by then.
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .env("GATEHOUSE_LOGS", "1")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the node starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        // Whatever it ends with is told.
        let mut said = Vec::new();
        let serving =
            lines.by_ref().inspect(|line| said.push(line.clone())).find(|line| line.contains(" serving "));
        let address = |field: &str| {
            let fields = serving.as_deref().unwrap_or_else(|| panic!("the node serves: {said:?}"));
            let value = fields.split_whitespace().find_map(|part| part.strip_prefix(field));
            value.unwrap_or_else(|| panic!("no {field} in {fields}")).to_owned()
        };
        let (url, admin) = (format!("ws://{}", address("listen=")), address("admin="));
        let node = Self { child, directory, url, admin };
        // It must be able to write on.
        std::thread::spawn(move || lines.for_each(drop));
        node
    }

    /// Runs `loadgen` with this command: how it ended, and what it printed.
    #[allow(dead_code, reason = "not each of the tests asks")]
    pub(crate) fn load(&self, command: &str, arguments: &[&str]) -> (ExitStatus, String) {
        let id = self.child.id().to_string();
        self.load_at(&self.url, command, &[arguments, &["--pid", &id]].concat())
    }

    /// The same at another address than the node's, which is not measured.
    #[allow(dead_code, reason = "not each of the tests asks")]
    pub(crate) fn load_at(&self, url: &str, command: &str, arguments: &[&str]) -> (ExitStatus, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args([command, "--url", url, "--data"])
            .arg(&self.directory)
            .args(arguments)
            .output()
            .expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }

    /// Flags that name a bare machine: what `floor --save` writes.
    #[allow(dead_code, reason = "not each of the tests asks")]
    pub(crate) fn floor(&self) -> [String; 2] {
        let (path, text) = (
            self.directory.join("floor.json"),
            r#"{"echo_cpu_nanos": 4000, "send_cpu_nanos": 2000,
            "sync_p50_ms": 0.1, "sync_p99_ms": 0.2}"#,
        );
        fs::write(&path, text).expect("written");
        ["--floor".to_owned(), path.to_str().expect("a plain path").to_owned()]
    }

    /// The number of the node's process.
    #[allow(dead_code, reason = "not each of the tests asks")]
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends the node: at once, or in order.
    #[allow(dead_code, reason = "not each of the tests asks")]
    pub(crate) fn end(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Starts `loadgen` with this command, its output piped.
    #[allow(dead_code, reason = "not each of the tests asks")]
    pub(crate) fn begin(&self, command: &str, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args([command, "--url", &self.url, "--data"])
            .arg(&self.directory)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs")
    }

    /// A counter of the node.
    #[allow(dead_code, reason = "not each of the tests asks")]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(&self.admin).expect("the admin answers");
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).expect("the admin answers");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the admin answers");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }
}

/// A page for people that is whole: it has these headings, and so many charts.
#[allow(dead_code, reason = "not each of the tests asks")]
#[track_caller]
pub(crate) fn check_page(path: &Path, headings: &[&str], charts: usize) {
    let page = fs::read_to_string(path).expect("written");
    for heading in headings {
        assert!(page.contains(&format!("<h2>{heading}")), "no {heading} in {page}");
    }
    assert_eq!(page.matches("<svg").count(), charts, "{page}");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>"), "{page}");
}

/// The figures of a report that stand beside the bare machine.
#[allow(dead_code, reason = "not each of the tests asks")]
pub(crate) fn multiples(of: &serde_json::Value) -> Vec<String> {
    let rows = of["multiples"].as_array().unwrap_or_else(|| panic!("no multiples in {of}"));
    let is_whole = |row: &serde_json::Value| {
        let number = |name: &str| row[name].as_f64().expect("a number");
        number("bare") > 0.0 && number("times") >= 0.0
    };
    assert!(rows.iter().all(is_whole), "{rows:?}");
    rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where nobody listens yet.
#[allow(dead_code, reason = "not each of the tests asks")]
pub(crate) fn free_address() -> String {
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
