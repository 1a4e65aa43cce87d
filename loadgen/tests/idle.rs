//! `loadgen idle` against a real node: the program as people use it, and its verdict.

#![forbid(unsafe_code)]

mod support;

use std::fs;

use support::{Node, check_page};

#[test]
fn idle_users_come_stay_and_leave_and_are_measured() {
    let node = Node::start("idle", &[]);
    let json = node.directory.join("idle.json");
    let html = node.directory.join("idle.html");
    let [path, html_path] = [&json, &html].map(|path| path.to_str().expect("a plain path"));
    let load = ["--connections", "200", "--seconds", "3", "--rounds", "2"];
    let files = ["--json", path, "--html", html_path];
    let (status, text) = node.load("idle", &[&load[..], &files].concat());
    assert_eq!(status.code(), Some(0), "{text}");
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(json).expect("written")).expect("JSON");
    for round in report["rounds"].as_array().expect("rounds") {
        let count = |name: &str| round["counts"][name].as_u64().expect("a number");
        let counts = ["welcomed", "refused", "lost", "left", "unanswered"].map(count);
        assert_eq!(counts, [200, 0, 0, 200, 0], "{text}");
        // A tenth of them at least is due in three seconds.
        assert!(count("pings") >= 20, "{text}");
        // Who is told to leave waits for no pong that is under way, and none was missed before.
        assert!((1..=count("pings")).contains(&count("pongs")), "{text}");
    }
    let headings =
        ["Connections", "From ping to pong", "Cores at work", "Memory of the node", "Rounds", "Machine"];
    check_page(&html, &headings, 4);
    let timeline = report["rounds"][1]["timeline"].as_array().expect("seconds");
    assert!(
        timeline.iter().any(|second| second["online"] == 200 && second["node_cores"].is_number()),
        "{text}"
    );
    let costs = report["costs"].as_array().expect("costs");
    assert!(costs.len() == 2 && costs.iter().all(|costs| costs["heartbeat_cpu_micros"].is_number()));
    assert!(text.contains("verdict    good"), "{text}");
}

#[test]
fn users_that_the_node_does_not_take_make_the_verdict_bad() {
    let node = Node::start("full", &[("GATEHOUSE_SHARDS", "1"), ("GATEHOUSE_CONNECTIONS_MAX", "20")]);
    let (status, text) = node.load("idle", &["--connections", "30", "--seconds", "1"]);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("because    10 users could not connect"), "{text}");
}

#[test]
fn limits_that_no_node_keeps_make_the_verdict_bad() {
    let node = Node::start("idle-limits", &[]);
    let load = ["--connections", "200", "--seconds", "1"];
    let limits = ["--limit", "rss_kib=0.0001", "--limit", "pong.max=0.0001", "--limit", "pong.p50=1e9"];
    let (status, text) = node.load("idle", &[&load[..], &limits].concat());
    assert_eq!(status.code(), Some(1), "{text}");
    for name in ["rss_kib", "pong.max"] {
        assert!(text.contains(&format!("because    {name} ")), "no {name} in {text}");
    }
    assert!(!text.contains("because    pong.p50"), "{text}");
}

#[test]
fn a_limit_that_is_none_or_cannot_be_measured_is_told_before_the_run() {
    let node = Node::start("idle-refused", &[]);
    let load = ["--connections", "20", "--seconds", "1"];
    for (limit, words) in [
        ("rss_kib=2", "--limit rss_kib: the node is measured by its --pid"),
        ("delivery.p99=5", "delivery.p99: a limit is for rss_kib, or growth_percent, or pong with one of"),
        ("pong.p99=0", "pong.p99: a limit is a number above 0"),
    ] {
        let (status, text) = node.load_at(&node.url, "idle", &[&load[..], &["--limit", limit]].concat());
        assert!(status.code() == Some(2) && text.contains(words), "{text}");
        assert!(!text.contains("users connect"), "{text}");
    }
}
