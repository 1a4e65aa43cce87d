//! `loadgen run` with a scenario against a real node: what is sent, and what decides.

#![forbid(unsafe_code)]

mod support;

use std::fs;

use serde_json::Value;
use support::Node;

/// A ramp, a plain and texts of several sizes. Times are not judged, whatever the machine does meanwhile.
const SCENARIO: &str = r#"
users = 12
mix = "direct=50,group3=50"
payload = [80, 400]
[[step]]
seconds = 2
rate = [0, 40]
[[step]]
seconds = 1
rate = 40
[limits]
"back.max" = 60000
"#;

#[test]
fn a_scenario_sends_all_it_says_and_its_limits_stand_in_the_report() {
    let node = Node::start("scenario", &[]);
    let (file, json) = (node.directory.join("scenario.toml"), node.directory.join("run.json"));
    fs::write(&file, SCENARIO).expect("written");
    let [file, path] = [&file, &json].map(|path| path.to_str().expect("a plain path"));
    let flags = ["--scenario", file, "--no-timing", "--limit", "delivery.p99=150", "--json", path];
    let (status, text) = node.load_at(&node.url, "run", &flags);
    assert_eq!(status.code(), Some(0), "{text}");
    let report: Value = serde_json::from_str(&fs::read_to_string(json).expect("written")).expect("JSON");
    assert_eq!(report["counts"]["due"], 80, "{text}");
    assert_eq!(report["counts"]["sent"], report["counts"]["acked"], "{text}");
    let limits = &report["settings"]["limits"];
    assert_eq!(*limits, serde_json::json!({"ack.p99": 200.0, "delivery.p99": 150.0, "back.max": 60000.0}));
    assert!(
        text.contains("0 to 40 messages a second within 2 s, then 40 messages a second for 1 s"),
        "{text}"
    );
}

/// A good run of a scenario against a node of its own: its report, as JSON and as text.
fn played(name: &str, scenario: &str) -> (Value, String) {
    let node = Node::start(name, &[]);
    let (file, json) = (node.directory.join("scenario.toml"), node.directory.join("run.json"));
    fs::write(&file, scenario).expect("written");
    let [file, path] = [&file, &json].map(|path| path.to_str().expect("a plain path"));
    let flags = ["--scenario", file, "--no-timing", "--json", path];
    let (status, text) = node.load_at(&node.url, "run", &flags);
    assert_eq!(status.code(), Some(0), "{text}");
    (serde_json::from_str(&fs::read_to_string(json).expect("written")).expect("JSON"), text)
}

#[test]
fn a_scenario_in_which_people_look_and_read_counts_both() {
    let attentive = SCENARIO.replace("users = 12\n", "users = 12\nread_percent = 100\nviewers = 6\n");
    let (report, text) = played("reading", &attentive);
    let count = |name: &str| report["counts"][name].as_u64().expect("a number");
    // Eight of each of the six, and once more at the end.
    assert_eq!(count("views"), 96, "{text}");
    assert!(count("reads") > 0 && count("reads") == count("reads_taken"), "{text}");
    assert!(count("receipts") > 0, "{text}");
    assert_eq!(report["read"]["outside"]["count"], count("reads"), "{text}");
    assert!(text.contains("receipts told, 0 wrong"), "{text}");
}

/// A user of a group of twelve reads one message of it in so long, whatever comes meanwhile.
#[test]
fn people_look_at_what_they_read_as_long_as_the_scenario_says() {
    let reading = SCENARIO.replace("users = 12\n", "users = 12\nread_percent = 100\n");
    let reading = reading.replace("direct=50,group3=50", "direct=0,group12=100");
    let (report, text) = played("at-once", &reading);
    let reads = |report: &Value| report["counts"]["reads"].as_u64().expect("a number");
    // Of 880 deliveries some come together.
    assert!(reads(&report) > 300, "{text}");
    let thinking = reading.replace("read_percent = 100\n", "read_percent = 100\nthink_ms = \"1000..1500\"\n");
    let (report, text) = played("thinking", &thinking);
    assert_eq!(report["settings"]["think"], serde_json::json!({"least_ms": 1000, "most_ms": 1500}));
    // Eleven of each of two groups, each of them two or three times in three seconds and once behind them.
    assert!((24..=4 * 24).contains(&reads(&report)), "{text}");
    assert_eq!(report["counts"]["reads_taken"], report["counts"]["reads"], "{text}");
    assert_eq!(report["counts"]["reads_unanswered"], 0, "{text}");
}

#[test]
fn a_scenario_in_which_people_come_and_go_counts_who_did_and_what_they_missed() {
    let restless = SCENARIO
        .replace("users = 12\n", "users = 102\nworkers = 2\nchurn = 40\nabsent_percent = 25\n")
        .replace("group3=50", "group3=25,group99=25");
    let (report, text) = played("churn", &restless);
    let count = |name: &str| report["counts"][name].as_u64().expect("a number");
    // 40 a second for 3 s; where all groups are changing at a moment, one less.
    assert!((90..=120).contains(&count("changes")), "{text}");
    assert_eq!(count("changes_acked") + count("changes_refused"), count("changes"), "{text}");
    assert_eq!(report["change"]["outside"]["count"], count("changes_acked"), "{text}");
    // About two of three do.
    let switches = report["switches"].as_u64().expect("a number");
    assert!(3 * switches >= count("changes"), "{text}");
    assert_eq!((count("absences"), count("returned")), (25, 25), "{text}");
    assert_eq!(report["whole"]["outside"]["count"], 25, "{text}");
    assert!(count("missed") > 0 && count("heads") > 0, "{text}");
}

/// Everybody of a group as large as one can be is given each message once and in order, and who was away reads what it missed.
#[test]
fn a_group_of_500_hears_everything() {
    let hall = SCENARIO
        .replace("users = 12\n", "users = 500\nabsent_percent = 4\n")
        .replace("direct=50,group3=50", "direct=0,group500=100")
        .replace("rate = 40", "rate = 10")
        .replace("rate = [0, 40]", "rate = 10");
    let (report, text) = played("hall", &hall);
    let count = |name: &str| report["counts"][name].as_u64().expect("a number");
    assert_eq!((count("due"), count("acked")), (30, 30), "{text}");
    assert_eq!((count("absences"), count("returned")), (20, 20), "{text}");
    // To everybody but the sender, then or when it is back; those who were away have it of pages, which are no deliveries.
    assert!((30 * 479..=30 * 499).contains(&count("delivered")), "{text}");
    assert!(count("heads") > 0 && count("opened") > 0, "{text}");
    assert_eq!(report["violations"]["counts"], serde_json::json!({}), "{text}");
}

#[test]
fn a_limit_that_no_node_keeps_makes_the_verdict_bad() {
    let node = Node::start("limit", &[]);
    let flags = ["--users", "12", "--rate", "20", "--seconds", "1", "--limit", "ack.max=0.001"];
    let (status, text) = node.load_at(&node.url, "run", &flags);
    // A generator that was late proves nothing, not even that.
    match status.code() {
        Some(2) => assert!(text.contains("because    the generator was late"), "{text}"),
        code => {
            assert_eq!(code, Some(1), "{text}");
            assert!(
                text.contains("because    ack.max ") && text.contains("below 0.001 ms is asked"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_scenario_that_cannot_be_read_says_what_is_wrong() {
    let node = Node::start("no-scenario", &[]);
    let file = node.directory.join("scenario.toml");
    fs::write(&file, SCENARIO.replace("users = 12", "users = 3")).expect("written");
    let path = file.to_str().expect("a plain path");
    let (status, text) = node.load_at(&node.url, "run", &["--scenario", path]);
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.contains("scenario.toml: no scenario: users: 12 to"), "{text}");
    let (status, _) = node.load_at(&node.url, "run", &["--scenario", path, "--users", "12"]);
    assert_eq!(status.code(), Some(2), "a flag beside it is refused");
    fs::write(&file, SCENARIO.replace("rate = [0, 40]", "rate = [40]")).expect("written");
    let (status, text) = node.load_at(&node.url, "run", &["--scenario", path]);
    assert!(status.code() == Some(2) && text.contains("or two: at the beginning and at the end"), "{text}");
}

/// What would cost the run to find out behind it, or prove something else than what was asked.
#[test]
fn a_run_that_cannot_become_what_was_asked_for_does_not_begin() {
    let node = Node::start("refused", &[]);
    let shape = ["--users", "12", "--rate", "20", "--seconds", "1"];
    for (more, words) in [
        (["--json", "/nowhere/run.json"], "/nowhere/run.json: could not be written"),
        (["--html", "/nowhere/run.html"], "/nowhere/run.html: could not be written"),
        (["--history", "/nowhere/run.jsonl"], "/nowhere/run.jsonl: could not be written"),
        (["--mix", "direct=1,group20=1"], "--mix: a group of 20 needs as many users, and there are 12"),
        (["--think-ms", "200..3000"], "--think-ms: nobody reads, --read-percent is 0"),
    ] {
        let (status, text) = node.load_at(&node.url, "run", &[&shape[..], &more].concat());
        assert!(status.code() == Some(2) && text.contains(words), "{text}");
        assert!(!text.contains("users connect"), "{text}");
    }
    let nowhere = format!("ws://{}", support::free_address());
    for command in ["slow", "storm"] {
        let (status, text) = node.load_at(&nowhere, command, &["--users", "12", "--established", "12"]);
        assert!(status.code() == Some(2) && text.contains("nobody listens at"), "{command}: {text}");
    }
}

#[test]
fn who_has_another_key_is_told_of_it() {
    let (node, other) = (Node::start("key", &[]), Node::start("other-key", &[]));
    let (status, text) =
        node.load_at(&other.url, "run", &["--users", "12", "--rate", "20", "--seconds", "1"]);
    assert!(status.code() == Some(2) && text.contains("are --data or --key those of the node"), "{text}");
}
