//! `loadgen run` against a node that goes away half-way and does not come back.

#![forbid(unsafe_code)]

mod support;

use std::{
    collections::HashMap,
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

/// What came of `command` and a node that ends by `signal` when a line with `cue` was said so many times: the exit code, all that was printed, and
/// how long it took from then on.
fn end_at(
    node: &Node,
    (command, arguments): (&str, &[&str]),
    (cue, times): (&str, usize),
    signal: Signal,
) -> (Option<i32>, String, Duration) {
    let mut run = node.begin(command, arguments);
    let mut said = BufReader::new(run.stderr.take().expect("piped"));
    let (mut line, mut left) = (String::new(), times);
    while left > 0 {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended before");
        left -= usize::from(line.contains(cue));
    }
    node.end(signal);
    let ended = Instant::now();
    let mut text = String::new();
    said.read_to_string(&mut text).expect("text");
    run.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    let code = run.wait().expect("it ends").code();
    (code, text, ended.elapsed())
}

/// A run whose node ends by `signal` while half of the users are away: what is sent to them is acknowledged, and not seen by all.
fn run_into(name: &str, signal: Signal) {
    let node = Node::start(name, &[]);
    let [json, html, history] = ["run.json", "run.html", "run.jsonl"].map(|file| node.directory.join(file));
    let [json_path, html_path, history_path] =
        [&json, &html, &history].map(|path| path.to_str().expect("a plain path"));
    let load =
        ["--users", "12", "--rate", "40", "--seconds", "30", "--workers", "2", "--absent-percent", "50"];
    let files = ["--json", json_path, "--html", html_path, "--history", history_path];
    // Each fifth second is told when it is over. They leave by 10.5 s, and come back from 18 s on.
    let (code, text, took) = end_at(&node, ("run", &[&load[..], &files].concat()), ("delivered", 3), signal);
    assert_eq!(code, Some(2), "{text}");
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
    assert!(gone["from_seconds"].as_f64().is_some_and(|from| from > 14.0), "{gone}");
    let history = fs::read_to_string(history).expect("written");
    let unseen = acked_unseen(&history);
    // For 4.5 s all who go away are away, and a group of twelve has some of them for certain.
    assert!(unseen >= 20, "{unseen} of {}", count("acked"));
    assert_eq!(gone["acked_unseen"].as_u64(), Some(unseen), "{gone}");
    let page = fs::read_to_string(html).expect("written");
    assert!(page.contains("the node went away "), "{page}");
}

/// By a history, what was acknowledged and lies behind what the slowest member of its conversation has received.
fn acked_unseen(history: &str) -> u64 {
    let (mut conversations, mut received) = (HashMap::new(), HashMap::<String, HashMap<String, u64>>::new());
    let mut acked = Vec::new();
    for line in history.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let text = |name: &str| event[name].as_str().expect("text").to_owned();
        match event["e"].as_str().expect("a kind") {
            "send" => drop(conversations.insert(text("m"), text("c"))),
            "ack" => acked.push((text("m"), event["s"].as_u64().expect("a sequence"))),
            "recv" => {
                // Everybody has received the first of its conversation before the run began.
                let seen = received.entry(text("c")).or_default().entry(text("u")).or_default();
                *seen = (*seen).max(event["s"].as_u64().expect("a sequence"));
            }
            _ => {}
        }
    }
    let unseen = acked.iter().filter(|(message, seq)| {
        let members = received.get(&conversations[message]);
        members.into_iter().flat_map(HashMap::values).any(|seen| seen < seq)
    });
    unseen.count() as u64
}

#[test]
fn a_node_that_is_killed_for_good_makes_a_report_of_what_is_known() {
    run_into("killed", Signal::KILL);
}

#[test]
fn a_node_that_is_stopped_for_good_makes_a_report_of_what_is_known() {
    run_into("stopped", Signal::TERM);
}

/// A crowd beside others, and a node that is killed at a `cue`: it is said in time and with what is known.
fn crowd_into(command: &str, more: &[&str], cue: &str, played: &[&str]) {
    let node = Node::start(&format!("{command}-gone"), &[]);
    let (json, pid) = (node.directory.join("crowd.json"), node.process().to_string());
    let json_path = json.to_str().expect("a plain path");
    let load = ["--users", "20", "--established", "12", "--rate", "20", "--no-timing"];
    let arguments = [&load[..], &["--pid", &pid, "--json", json_path], more].concat();
    let (code, text, took) = end_at(&node, (command, &arguments), (cue, 1), Signal::KILL);
    assert_eq!(code, Some(2), "{text}");
    assert!(took >= GONE_AFTER && took < GONE_AFTER + SAID_WITHIN, "{took:?}: {text}");
    for words in ["verdict    invalid", "the node went away ", "start it again"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let report: Value = serde_json::from_slice(&fs::read(json).expect("written")).expect("JSON");
    assert_eq!(report["verdict"], "invalid");
    assert!(report["counts"]["acked"].as_u64().is_some_and(|acked| acked >= 100), "{text}");
    assert!(report["gone"]["from_seconds"].as_f64().is_some_and(|from| from > 10.0), "{report}");
    let phases = report["phases"].as_array().expect("a list").iter().map(|phase| phase["name"].as_str());
    let phases: Vec<&str> = phases.map(|name| name.expect("a name")).collect();
    assert!(phases.starts_with(played), "{phases:?}");
}

/// Nobody of the crowd is connected then, and nobody is to be.
#[test]
fn a_storm_whose_node_goes_away_for_good_ends_soon_and_says_what_is_known() {
    let played = ["calm", "connect", "rooms", "calm, all there", "drop"];
    crowd_into("storm", &[], "messages for those who are away", &played);
}

/// The crowd does not read then, and so does not see that its connections end.
#[test]
fn slow_readers_whose_node_goes_away_for_good_end_soon_and_say_what_is_known() {
    crowd_into("slow", &["--seconds", "12"], "loadgen: stalled", &["alone", "reading"]);
}
