//! `loadgen storm` against a real node: a crowd comes, falls behind, comes back and leaves, and limits decide.

#![forbid(unsafe_code)]

mod support;

use std::fs::{self, File};

use serde_json::Value;
use support::{Node, check_page};

const LOAD: [&str; 6] = ["--users", "20", "--established", "12", "--rate", "20"];

#[test]
fn limits_that_no_node_keeps_make_the_verdict_bad() {
    let node = Node::start("storm", &[]);
    let json = node.directory.join("storm.json");
    let limits = ["connects_per_second=1e9", "return_seconds=0.0001", "rss_times=0.1", "delivery.p50=0.0001"];
    let limits = limits.map(|limit| ["--limit", limit]).concat();
    let html = node.directory.join("storm.html");
    let [json_path, html_path] = [&json, &html].map(|path| path.to_str().expect("a plain path"));
    let files = ["--json", json_path, "--html", html_path];
    let (status, text) = node.load("storm", &[&LOAD[..], &limits, &files].concat());
    // A generator that was late proves nothing, and all of it is told.
    match status.code() {
        Some(2) => assert!(text.contains("because    the generator was late"), "{text}"),
        code => assert_eq!(code, Some(1), "{text}"),
    }
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("a report")).expect("JSON");
    assert!(report["dropped_cache"].is_null(), "{report}");
    let named = report["limits"].as_object().expect("limits");
    assert_eq!(named.len(), 4, "{report}");
    for name in named.keys() {
        assert!(text.contains(&format!("because    {name} ")), "no {name} in {text}");
    }
    check_page(
        &html,
        &["Delivery latency of the others", "Steps", "What the others had to bear", "Machine"],
        5,
    );
    let phases = report["phases"].as_array().expect("phases");
    assert!(phases.iter().any(|phase| phase["name"] == "return"), "{report}");
    assert_eq!(report["violations"]["counts"], serde_json::json!({}), "{text}");
}

/// Where this process may drop the page cache it is said that it did; elsewhere the run does not begin.
#[test]
fn a_crowd_comes_back_to_a_cache_that_was_dropped_or_not_at_all() {
    let node = Node::start("storm-cold", &[]);
    let json = node.directory.join("storm.json");
    let more = ["--no-timing", "--drop-cache", "--json", json.to_str().expect("a plain path")];
    let (status, text) = node.load("storm", &[&LOAD[..], &more].concat());
    if File::options().write(true).open("/proc/sys/vm/drop_caches").is_err() {
        assert!(status.code() == Some(2) && text.contains("cannot be written: be root"), "{text}");
        assert!(!text.contains("users begin"), "{text}");
        return;
    }
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("cache      dropped before the return: "), "{text}");
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("a report")).expect("JSON");
    assert!(report["dropped_cache"]["before_bytes"].as_u64() > Some(0), "{report}");
}

#[test]
fn a_limit_that_cannot_be_measured_is_told_before_the_run() {
    let node = Node::start("crowd-refused", &[]);
    for (command, limit) in [("storm", "rss_times=2"), ("slow", "reader_kib=64")] {
        let name = limit.split('=').next().expect("a name");
        let flags = [&LOAD[..], &["--limit", limit]].concat();
        let (status, text) = node.load_at(&node.url, command, &flags);
        let words = format!("--limit {name}: the node is measured by its --pid");
        assert!(status.code() == Some(2) && text.contains(&words) && !text.contains("users begin"), "{text}");
    }
}
