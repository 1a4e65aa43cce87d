//! `loadgen slow` against a real node: readers fall behind, are fed from the log, and have missed nothing.

#![forbid(unsafe_code)]

mod support;

use std::fs;

use serde_json::Value;
use support::{Node, check_page, multiples};

#[test]
fn readers_that_stop_and_go_slowly_are_fed_from_the_log_and_miss_nothing() {
    let node = Node::start("slow", &[]);
    let json = node.directory.join("slow.json");
    let html = node.directory.join("slow.html");
    let [path, html_path] = [&json, &html].map(|path| path.to_str().expect("a plain path"));
    let floor = node.floor();
    let (status, text) = node.load(
        "slow",
        &[
            ["--users", "20"],
            ["--established", "12"],
            ["--rate", "20"],
            ["--crowd-rate", "200"],
            ["--seconds", "2"],
            ["--kbit", "800"],
            ["--json", path],
            ["--html", html_path],
            floor.each_ref().map(String::as_str),
        ]
        .concat()
        .into_iter()
        .chain(["--no-timing"])
        .collect::<Vec<_>>(),
    );
    assert!(status.success(), "{text}");
    assert!(text.contains("verdict    good") && text.contains("KiB a slow reader"), "{text}");
    assert!(node.metric("gatehouse_outbox_full_total") > 0, "nobody fell behind: {text}");
    assert!(node.metric("gatehouse_replays_total") > 0, "nobody was fed from the log: {text}");
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("a report")).expect("JSON");
    let phases: Vec<&str> = report["phases"]
        .as_array()
        .expect("phases")
        .iter()
        .map(|phase| phase["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(phases, ["alone", "reading", "stalled", "slow", "reading again"]);
    let charts =
        ["Delivery latency of the others", "Connections of all", "Cores at work", "Memory of the node"];
    check_page(&html, &charts, 5);
    check_page(
        &html,
        &["Steps", "What the others had to bear", "Counts", "Beside the bare machine", "Machine"],
        5,
    );
    // Of two seconds one is whole at least.
    let multiples = multiples(&report);
    for name in ["alone p50", "stalled p99", "alone CPU a record", "reading CPU a record"] {
        assert!(multiples.iter().any(|row| row == name), "no {name} in {multiples:?}");
    }
    assert_eq!(report["closes"].as_object().map(serde_json::Map::len), Some(0), "{report}");
}
