//! `loadgen run` against a node that goes away half-way and does not come back.

#![forbid(unsafe_code)]

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use support::Node;

/// What `run --help` says: from when on a node that takes nobody has gone away.
const GONE_AFTER: Duration = Duration::from_secs(20);
/// Until it has been said: soon, on a machine that does other things.
const SAID_WITHIN: Duration = Duration::from_secs(10);

/// A run whose node ends by `signal` when something was delivered.
fn run_into(name: &str, signal: Signal) {
    let node = Node::start(name, &[]);
    let [json, html, history] = ["run.json", "run.html", "run.jsonl"].map(|file| node.directory.join(file));
    let [json_path, html_path, history_path] =
        [&json, &html, &history].map(|path| path.to_str().expect("a plain path"));
    let load = ["--users", "12", "--rate", "40", "--seconds", "120", "--workers", "2"];
    let files = ["--json", json_path, "--html", html_path, "--history", history_path];
    let mut run = node.begin("run", &[&load[..], &files].concat());
    let mut said = BufReader::new(run.stderr.take().expect("piped"));
    // The fifth second is told when it is over.
    let mut line = String::new();
    while !line.contains("delivered") {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended before");
    }
    node.end(signal);
    let ended = Instant::now();
    let mut text = String::new();
    said.read_to_string(&mut text).expect("text");
    run.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    let status = run.wait().expect("it ends");
    let took = ended.elapsed();
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(took >= GONE_AFTER && took < GONE_AFTER + SAID_WITHIN, "{took:?}: {text}");
    for words in
        ["verdict    invalid", "the node went away ", "start it again", "the node could not be asked"]
    {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let report: Value = serde_json::from_slice(&fs::read(json).expect("written")).expect("JSON");
    let count = |name: &str| report["counts"][name].as_u64().expect("a number");
    assert_eq!(report["verdict"], "invalid");
    assert!(count("acked") >= 100 && count("delivered") >= 100 && count("unanswered") > 0, "{text}");
    let gone = &report["gone"];
    assert!(gone["from_seconds"].as_f64().is_some_and(|from| from > 4.0), "{gone}");
    assert!(gone["acked_unseen"].as_u64().is_some_and(|unseen| unseen <= count("acked")), "{gone}");
    let page = fs::read_to_string(html).expect("written");
    assert!(page.contains("the node went away "), "{page}");
    let history = fs::read_to_string(history).expect("written");
    assert!(history.contains("\"e\":\"ack\""), "what was acknowledged stands in the history");
}

#[test]
fn a_node_that_is_killed_for_good_makes_a_report_of_what_is_known() {
    run_into("killed", Signal::KILL);
}

#[test]
fn a_node_that_is_stopped_for_good_makes_a_report_of_what_is_known() {
    run_into("stopped", Signal::TERM);
}
