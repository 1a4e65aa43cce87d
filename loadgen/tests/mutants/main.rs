//! The verdict of `loadgen run` against servers that are wrong once, in one of several hundred messages, and against one that is not.
//!
//! With `LOADGEN_TEST_MUTANTS=full` each is wrong once in 100,000 messages, and ten runs of as many against the one that is not wrong have to be
//! good. One after the other, because a run takes both of two cores; some thirty runs of 25 s and what comes before and behind them.
//!
//! ```text
//! LOADGEN_TEST_MUTANTS=full cargo test -p loadgen --test mutants -- --test-threads 1
//! ```

#![forbid(unsafe_code)]

mod proxy;
#[path = "../support/mod.rs"]
mod support;

use std::{env, fs, time::Duration};

use proxy::{Mutant, Proxy};
use serde_json::Value;
use support::Node;

/// How much is sent in a run.
struct Extent {
    rate: u64,
    seconds: u64,
    /// Where messages are few enough to be delivered to 99 each.
    large_mix: &'static str,
    read_percent: &'static str,
    search_percent: &'static str,
    /// Deliveries before the wrong one: some way into the run.
    before: usize,
    /// Runs against a server that is not wrong: none may be called bad.
    clean_runs: usize,
}

const USUAL: Extent = Extent {
    rate: 200,
    seconds: 4,
    large_mix: "direct=50,group100=50",
    read_percent: "50",
    search_percent: "20",
    before: 0,
    clean_runs: 3,
};
const FULL: Extent = Extent {
    rate: 4000,
    seconds: 25,
    large_mix: "direct=99,group100=1",
    read_percent: "2",
    search_percent: "1",
    before: 100_000,
    clean_runs: 10,
};

fn extent() -> &'static Extent {
    match env::var("LOADGEN_TEST_MUTANTS").as_deref() {
        Err(_) => &USUAL,
        Ok("full") => &FULL,
        Ok(other) => panic!("LOADGEN_TEST_MUTANTS is `full`, or not set: {other}"),
    }
}

struct Outcome {
    code: Option<i32>,
    text: String,
    report: Value,
    done: usize,
}

/// A run through a mutant. Times count only where they are what is wrong.
fn run(name: &str, node: &Node, mutant: Mutant) -> Outcome {
    let extent = extent();
    // A departure is told to others ten seconds later, and each frame late by 40 ms is as many as there are.
    let (rate, seconds, before) = match mutant {
        Mutant::LoseDepartures => (20, 40, 0),
        Mutant::Delay(_) => (USUAL.rate, USUAL.seconds, 0),
        _ => (extent.rate, extent.seconds, extent.before),
    };
    let searches = if node_searches(mutant) { extent.search_percent } else { "0" };
    let proxy = Proxy::start(mutant, before, &node.url);
    let json = node.directory.join(format!("{name}.json"));
    // Only of large groups somebody is told that they have moved.
    let is_of_large = matches!(mutant, Mutant::LoseHead | Mutant::LoseItem);
    let (users, mix) = match mutant {
        _ if is_of_large => ("104", extent.large_mix),
        // Of who is in several viewed conversations each log may say it.
        Mutant::PresenceTwice => ("24", "direct=100"),
        Mutant::LoseDepartures => ("24", "direct=50,group12=50"),
        _ => ("24", "direct=80,group10=20"),
    };
    let (rate, seconds) = (rate.to_string(), seconds.to_string());
    let mut arguments = vec!["--users", users, "--rate", &rate, "--seconds", &seconds, "--form", "json"];
    arguments.extend(["--mix", mix, "--json", json.to_str().expect("a plain path")]);
    // Those who go away are spread as evenly as those who view: of half and half they would be the same.
    let viewers = if mutant == Mutant::LoseDepartures { "24" } else { "12" };
    // Who sends has read, so a message makes good for a receipt before it: of few who read, none may have read last.
    let read_percent = if mutant == Mutant::LoseReceipts { USUAL.read_percent } else { extent.read_percent };
    arguments.extend(["--read-percent", read_percent, "--viewers", viewers]);
    if matches!(mutant, Mutant::EmptyPage | Mutant::None | Mutant::Refuse | Mutant::Stale) {
        arguments.extend(["--churn", "20"]);
    }
    if is_of_large || mutant == Mutant::None {
        arguments.extend(["--absent-percent", "30"]);
    }
    if mutant == Mutant::LoseDepartures {
        arguments.extend(["--absent-percent", "50"]);
    }
    arguments.extend(["--search-percent", searches]);
    if !matches!(mutant, Mutant::Delay(_)) {
        arguments.push("--no-timing");
    }
    let (status, text) = node.load_at(&proxy.url, "run", &arguments);
    let report = serde_json::from_slice(&fs::read(&json).unwrap_or_else(|_| panic!("no report: {text}")));
    Outcome { code: status.code(), text, report: report.expect("JSON"), done: proxy.done() }
}

/// A node that lets few users send as much as many.
fn start(name: &str, searches: bool) -> Node {
    let limits = ["GATEHOUSE_USER_MESSAGES_PER_SECOND", "GATEHOUSE_SESSION_COMMANDS_PER_SECOND"];
    let [messages, commands] = limits.map(|limit| (limit, "0"));
    Node::start(name, &[messages, commands, ("GATEHOUSE_SEARCH", if searches { "true" } else { "false" })])
}

/// Where the index would only cost time there is none.
fn node_searches(mutant: Mutant) -> bool {
    use Mutant::{Hit, LoseAnswer, LoseHit, None, Partial};
    matches!(mutant, Hit | LoseAnswer | LoseHit | None | Partial)
}

/// It was wrong once, and the verdict is bad because of one of these. What follows from it may be told as well.
#[track_caller]
fn is_found(mutant: Mutant, kinds: &[&str]) {
    let name = format!("mutant-{mutant:?}").to_lowercase();
    let node = start(&name, node_searches(mutant));
    let Outcome { code, text, report, done } = run(&name, &node, mutant);
    assert_eq!(done, 1, "it was wrong once: {text}");
    if mutant != Mutant::LoseDepartures {
        assert_eq!(report["counts"]["due"], extent().rate * extent().seconds, "{text}");
    }
    assert_eq!(code, Some(1), "{text}");
    let counts = report["violations"]["counts"].as_object().expect("violations");
    assert!(kinds.iter().any(|kind| counts.contains_key(*kind)), "{text}");
}

#[test]
fn a_server_that_is_not_wrong_is_never_called_so() {
    let node = start("mutant-none", true);
    for round in 0..extent().clean_runs {
        let Outcome { code, text, .. } = run(&format!("none-{round}"), &node, Mutant::None);
        assert_eq!(code, Some(0), "{text}");
    }
}

/// Where it is the last of its conversation, no other one behind it shows that it is missing.
#[test]
fn a_message_that_does_not_come_is_found() {
    is_found(Mutant::Lose, &["hole", "not-given"]);
}

#[test]
fn a_message_that_comes_twice_is_found() {
    is_found(Mutant::Double, &["order"]);
}

#[test]
fn two_messages_that_change_places_are_found() {
    is_found(Mutant::Swap, &["order"]);
}

#[test]
fn a_message_that_comes_to_a_stranger_is_found() {
    is_found(Mutant::Leak, &["recipient"]);
}

#[test]
fn a_message_that_comes_to_somebody_who_has_left_is_found() {
    is_found(Mutant::Stale, &["membership"]);
}

#[test]
fn a_message_that_is_refused_to_who_has_come_back_is_found() {
    is_found(Mutant::Refuse, &["membership"]);
}

#[test]
fn a_page_that_shows_nothing_to_who_has_joined_is_found() {
    is_found(Mutant::EmptyPage, &["hole", "not-given"]);
}

#[test]
fn a_message_with_another_text_is_found() {
    is_found(Mutant::Alter, &["content"]);
}

#[test]
fn a_message_that_is_acknowledged_and_not_stored_is_found() {
    // Another message may have had that sequence by then.
    is_found(Mutant::Forge, &["acked_lost", "doubled"]);
}

#[test]
fn a_head_that_who_comes_back_is_not_told_is_found() {
    is_found(Mutant::LoseHead, &["hole", "not-given"]);
}

#[test]
fn an_item_that_a_page_is_without_is_found() {
    is_found(Mutant::LoseItem, &["hole", "not-given"]);
}

#[test]
fn a_receipt_that_goes_back_is_found() {
    is_found(Mutant::ReceiptBack, &["receipt"]);
}

#[test]
fn a_last_receipt_that_does_not_come_is_found() {
    is_found(Mutant::LoseReceipts, &["receipt"]);
}

#[test]
fn a_presence_that_comes_to_who_views_nothing_is_found() {
    is_found(Mutant::Presence, &["presence"]);
}

#[test]
fn a_member_who_is_said_twice_to_have_come_is_found() {
    is_found(Mutant::PresenceTwice, &["presence"]);
}

/// It takes longest, and so has the name that stands first.
#[test]
fn a_departure_that_somebody_is_not_told_of_is_found() {
    is_found(Mutant::LoseDepartures, &["presence"]);
}

#[test]
fn a_hit_of_a_conversation_of_others_is_found() {
    is_found(Mutant::Hit, &["recipient", "hit"]);
}

#[test]
fn a_hit_that_does_not_come_is_found() {
    is_found(Mutant::LoseHit, &["unfound"]);
}

#[test]
fn a_search_that_is_not_answered_is_found() {
    let node = start("mutant-loseanswer", true);
    let Outcome { code, text, report, done } = run("loseanswer", &node, Mutant::LoseAnswer);
    assert_eq!((done, code), (1, Some(1)), "{text}");
    assert_eq!(report["counts"]["searches_unanswered"], 1, "{text}");
    assert!(text.contains("because    1 searches were not answered in time"), "{text}");
}

#[test]
fn searches_that_never_find_anything_prove_nothing() {
    let node = start("mutant-partial", true);
    let Outcome { code, text, report, .. } = run("partial", &node, Mutant::Partial);
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(report["violations"]["counts"], serde_json::json!({}), "{text}");
    assert!(report["counts"]["searches_undecided"].as_u64() > Some(0), "{text}");
    assert!(text.contains("because    0 were found by "), "{text}");
}

#[test]
fn a_node_that_does_not_search_is_told_before_the_run_begins() {
    let node = Node::start("mutant-off", &[]);
    let flags = ["--users", "12", "--rate", "20", "--seconds", "1", "--search-percent", "5"];
    let (status, text) = node.load_at(&node.url, "run", &flags);
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.contains("the node does not search: start it with `search = true`"), "{text}");
}

#[test]
fn messages_that_come_late_are_found() {
    let node = start("mutant-delay", false);
    let late = Duration::from_millis(40);
    let Outcome { code, text, report, .. } = run("delay", &node, Mutant::Delay(late));
    // On a machine on which the generator was late as well the run proves nothing; that messages were too late is told all the same.
    match code {
        Some(2) => assert!(text.contains("because    the generator was late"), "{text}"),
        code => assert_eq!(code, Some(1), "{text}"),
    }
    assert!(text.contains("because    delivery.p99 "), "it was found: {text}");
    assert!(report["violations"]["counts"].as_object().is_some_and(serde_json::Map::is_empty), "{text}");
    let p99 = report["delivery"]["outside"]["p99_ms"].as_f64().expect("it was measured");
    assert!(p99 >= 200.0, "{text}");
}
