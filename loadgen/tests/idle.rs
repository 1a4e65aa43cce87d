//! `loadgen idle` against a real node: the program as people use it, and its verdict.

#![forbid(unsafe_code)]

mod support;

use std::fs;

use support::Node;

#[test]
fn idle_users_come_stay_and_leave_and_are_measured() {
    let node = Node::start("idle", &[]);
    let json = node.directory.join("idle.json");
    let path = json.to_str().expect("a plain path");
    let (status, text) =
        node.load("idle", &["--connections", "200", "--seconds", "3", "--rounds", "2", "--json", path]);
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
    let (status, text) = node.load("idle", &["--connections", "30", "--seconds", "1"]);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("because    10 users could not connect"), "{text}");
}
