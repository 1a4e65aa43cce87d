//! `loadgen soak` against a real node: rounds with verdicts of their own, and one for all of them.

#![forbid(unsafe_code)]

mod support;

use std::fs;

use serde_json::Value;
use support::{Node, check_page, multiples};

#[test]
fn rounds_are_judged_each_and_all_together() {
    let node = Node::start("soak", &[]);
    let json = node.directory.join("soak.json");
    let load = ["--users", "12", "--rate", "20", "--seconds", "1", "--no-timing"];
    let html = node.directory.join("soak.html");
    let [path, html_path] = [&json, &html].map(|path| path.to_str().expect("a plain path"));
    // What is touched for the first time is much of so small a node.
    let rounds = ["--rounds", "4", "--growth", "200", "--json", path, "--html", html_path];
    let floor = node.floor();
    let floor = floor.each_ref().map(String::as_str);
    let (status, text) = node.load_at(&node.url, "soak", &[&load[..], &rounds, &floor].concat());
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("verdict    good") && text.contains("in the second quarter"), "{text}");
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("written")).expect("JSON");
    let rounds = report["rounds"].as_array().expect("rounds");
    assert_eq!(rounds.len(), 4, "{text}");
    assert_eq!(multiples(&report), ["ack p50", "ack p99", "delivery p50", "delivery p99", "CPU a message"]);
    assert!(text.contains("\nCPU a message"), "{text}");
    for round in rounds {
        assert_eq!((&round["verdict"], &round["acked"]), (&"good".into(), &20.into()), "{text}");
        assert_eq!(multiples(round), multiples(&report));
        assert!(round["node_bytes"].as_u64() > Some(1 << 20), "the node is on this machine: {round}");
    }
    check_page(&html, &["Latency of each round", "Memory of the node", "Rounds", "Machine"], 3);
    let (status, text) = node.load_at(&node.url, "soak", &[&load[..], &["--rounds", "3"]].concat());
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.contains("3 rounds do not say whether a node grows"), "{text}");
}

/// The page of the soak says of all rounds how they went; of the one that was not good there is one that says why.
#[test]
fn a_round_that_is_not_good_has_a_page_of_its_own() {
    let node = Node::start("soak-bad", &[]);
    let html = node.directory.join("night.html");
    let load =
        ["--users", "12", "--rate", "20", "--seconds", "1", "--limit", "ack.max=0.001", "--rounds", "1"];
    let files = ["--html", html.to_str().expect("a plain path")];
    let (status, text) = node.load_at(&node.url, "soak", &[&load[..], &files].concat());
    assert!(matches!(status.code(), Some(1 | 2)), "{text}");
    check_page(&html, &["Latency of each round", "Rounds"], 3);
    let page = html.with_file_name("night.round-1.html");
    check_page(&page, &["Distribution outside the outage", "Counts"], 5);
    let page = fs::read_to_string(page).expect("written");
    assert!(page.contains("ack.max ") && page.contains("below 0.001 ms is asked"), "{page}");
}
