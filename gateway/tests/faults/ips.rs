//! What one address may do: as many connections as it may have, counted wherever they are and however they end, and no more
//! commands than it may send; and another address notices nothing.

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt as _};

use serde_json::Value;

use crate::{
    chat::{Chat, undisturbed, verdict},
    node::{Node, directory},
    raw::{REQUEST, Raw, connect_of, head},
    wire::masked,
};

/// Of the crowd; the witness is at 127.0.0.1.
const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const MAX: usize = 6;

fn refused(node: &Node, reason: &str) -> u64 {
    node.metric(&format!("refused_total{{reason=\"{reason}\"}}"))
}

/// So many sessions of the crowd, of users who live on either shard.
#[track_caller]
fn fill(node: &Node, tokens: &[String]) -> Vec<Raw> {
    tokens
        .iter()
        .map(|token| {
            let mut raw = Raw::connect_from(CROWD, node.listen);
            raw.enter(token, "d");
            raw
        })
        .collect()
}

/// That there is no room for one more of the crowd, and what it is told.
#[track_caller]
fn check_full(node: &Node) {
    let mut raw = Raw::connect_from(CROWD, node.listen);
    let response = raw.head();
    assert!(response.starts_with("HTTP/1.1 429 ") && response.contains("\r\nRetry-After: "), "{response}");
    assert_eq!(raw.rest(), b"your address has too many connections\n");
}

#[track_caller]
fn upgrade(node: &Node) {
    let answer = node.upgrade();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// However connections end, and wherever they are by then, the count is what is open: the same number fits again, and not one more.
#[test]
fn an_address_has_as_many_connections_as_it_may_however_the_others_ended() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_IP_CONNECTIONS_MAX", &MAX.to_string())]);
    let tokens: Vec<String> = (0..MAX).map(|user| node.token(&format!("user{user}"))).collect();
    undisturbed(&node, || {
        let end_all: [&dyn Fn(Vec<Raw>); 4] = [
            // FIN, RST, a goodbye, a frame that is none.
            &drop,
            &|crowd| {
                crowd.into_iter().for_each(|mut raw| {
                    raw.write(&masked(0x89, b"pong"));
                    raw.reset();
                });
            },
            &|crowd| {
                for mut raw in crowd {
                    raw.write(&masked(0x88, &[3, 232]));
                    raw.rest();
                }
            },
            &|crowd| {
                for mut raw in crowd {
                    raw.write(&[0xff; 14]);
                    raw.rest();
                }
            },
        ];
        for end in end_all {
            let crowd = fill(&node, &tokens);
            check_full(&node);
            end(crowd);
            node.wait_for_metric("connections", 1);
        }
        // Before they are sessions: nothing, half a head, a bad one, a bad token.
        let bad_token = [head(&REQUEST), masked(0x81, connect_of("x.y.z", "d").as_bytes())].concat();
        for bytes in [b"".as_slice(), b"GET /v1", b"POST / HTTP/1.1\r\n\r\n", &bad_token] {
            let accepted = node.metric("accepted_total");
            let mut crowd: Vec<_> = (0..MAX).map(|_| Raw::connect_from(CROWD, node.listen)).collect();
            crowd.iter_mut().for_each(|raw| raw.write(bytes));
            drop(crowd);
            // Those that the node has yet to see are among the connections only then.
            node.wait_for_metric("accepted_total", accepted + MAX as u64);
            node.wait_for_metric("connections", 1);
        }
        let crowd = fill(&node, &tokens);
        check_full(&node);
        drop(crowd);
        node.wait_for_metric("connections", 1);
    });
    assert!(node.metric("moved_total") > 0, "some lived on the other shard");
    assert!(refused(&node, "ip_connections") >= 5);
    node.log_line(&[
        "connections were refused with 429 because their address has `ip_connections_max` already",
    ]);
    drop(fill(&node, &tokens));
}

/// A new process counts those that it is given, and so does the old one when it goes on.
#[test]
fn an_upgrade_counts_what_it_takes_over() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_IP_CONNECTIONS_MAX", &MAX.to_string())]);
    let tokens: Vec<String> = (0..MAX).map(|user| node.token(&format!("user{user}"))).collect();
    undisturbed(&node, || {
        let mut crowd = fill(&node, &tokens[..MAX - 1]);
        // One more that is no session yet.
        let mut half = Raw::connect_from(CROWD, node.listen);
        half.write(&head(&REQUEST)[..30]);
        node.wait_for_metric("connections", MAX as u64 + 1);
        check_full(&node);
        upgrade(&node);
        check_full(&node);
        // An upgrade that is given up in the pause changes nothing: those that go end once.
        let list = data.path().join("revocations.json");
        std::fs::write(&list, "no list").expect("a file");
        std::fs::set_permissions(&list, std::fs::Permissions::from_mode(0o600)).expect("ours");
        assert!(node.upgrade().starts_with("HTTP/1.1 409 "));
        std::fs::remove_file(&list).expect("ours");
        check_full(&node);
        crowd.pop();
        node.wait_for_metric("connections", MAX as u64);
        crowd.extend(fill(&node, &tokens[MAX - 1..]));
        check_full(&node);
        upgrade(&node);
        half.write(&head(&REQUEST)[30..]);
        assert!(half.head().starts_with("HTTP/1.1 101 "));
        check_full(&node);
        drop((crowd, half));
        node.wait_for_metric("connections", 1);
        let crowd = fill(&node, &tokens);
        check_full(&node);
        drop(crowd);
    });
}

/// Counted from the upgrade on, where the process before did not.
#[test]
fn a_limit_that_comes_with_an_upgrade_counts_who_is_there() {
    let (data, config) = (directory(), directory());
    let file = config.path().join("g.toml");
    std::fs::write(&file, "").expect("a file");
    let node = Node::start(data.path(), &[("GATEHOUSE_CONFIG", file.to_str().expect("a plain path"))]);
    let tokens: Vec<String> = (0..MAX).map(|user| node.token(&format!("user{user}"))).collect();
    let crowd = fill(&node, &tokens);
    std::fs::write(&file, format!("ip_connections_max = {MAX}\n")).expect("a file");
    upgrade(&node);
    check_full(&node);
    drop(crowd);
    node.wait_for_metric("connections", 0);
    drop(fill(&node, &tokens));
}

#[test]
fn connections_of_an_address_come_no_faster_than_they_may() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_IP_CONNECTS_PER_SECOND", "2")]);
    undisturbed(&node, || {
        let (mut taken, mut told) = (0, 0);
        for _ in 0..40 {
            let mut raw = Raw::connect_from(CROWD, node.listen);
            raw.write_anyway(&head(&REQUEST));
            match raw.head() {
                head if head.starts_with("HTTP/1.1 101 ") => taken += 1,
                head if head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nRetry-After: ") => told += 1,
                head => panic!("{head}"),
            }
        }
        assert!(taken >= 8 && told > 0, "{taken} taken, {told} told: four seconds' at once");
        // It goes on with time, and each that is refused uses nothing.
        while !{
            let mut raw = Raw::connect_from(CROWD, node.listen);
            raw.write_anyway(&head(&REQUEST));
            raw.head().starts_with("HTTP/1.1 101 ")
        } {}
    });
    assert!(refused(&node, "ip_connects") > 0);
    node.log_line(&["connections were refused with 429 because more than `ip_connects_per_second` came"]);
    Chat::connect(&node, "alice", "d").is_fine();
}

/// Asks until it is told to wait, and how often that was.
#[track_caller]
fn until_limited(asks: impl FnMut(usize) -> Value) -> usize {
    let mut answers = (0..200).map(asks);
    let limited = |reply: &Value| {
        let limited = verdict(reply) == "3001 rate_limited";
        assert!(!limited || reply["retry_after_ms"].as_u64().is_some_and(|millis| millis > 0), "{reply}");
        limited
    };
    answers.position(|reply| limited(&reply)).expect("200 in a moment")
}

/// Sessions of several users at one address share what it may ask for, on both shards; another address has its own.
#[test]
fn sessions_of_an_address_share_what_it_may_ask_for() {
    let data = directory();
    let settings = [("GATEHOUSE_IP_COMMANDS_PER_SECOND", "5"), ("GATEHOUSE_IP_MESSAGES_PER_SECOND", "2")];
    let node = Node::start(data.path(), &settings);
    let tokens: Vec<String> = (0..4).map(|user| node.token(&format!("user{user}"))).collect();
    let mut crowd = fill(&node, &tokens);
    let mut alice = Chat::connect(&node, "alice", "d");
    let letter =
        |id: usize| format!(r#"{{"op":"send","id":{},"to":"bob","kind":"text","text":"x"}}"#, id + 2);
    let sent = until_limited(|number| crowd[number % 4].ask(&letter(number)));
    assert!((7..=12).contains(&sent), "{sent} of a burst of 8");
    let asked =
        until_limited(|number| crowd[number % 4].ask(&format!(r#"{{"op":"ping","id":{}}}"#, number + 1_000)));
    assert!((4..=20).contains(&asked), "{asked} of what is left of a burst of 20");
    assert!(node.metric("ip_rate_limited_total") >= 2);
    alice.tell("bob", "not disturbed");
    alice.is_fine();
    // It goes on, and nobody was put out.
    for (number, raw) in crowd.iter_mut().enumerate() {
        while verdict(&raw.ask(&letter(2_000 + number))) == "3001 rate_limited" {}
    }
}

/// Behind a proxy it is the named address that counts, and the proxy's own has no limit by what it carries.
#[test]
fn the_address_that_a_proxy_names_counts() {
    let data = directory();
    let settings = [("GATEHOUSE_PROXIES", "127.0.0.2"), ("GATEHOUSE_IP_CONNECTIONS_MAX", "2")];
    let node = Node::start(data.path(), &settings);
    let tokens: Vec<String> = (0..6).map(|user| node.token(&format!("user{user}"))).collect();
    let named = |client: usize| {
        let mut raw = Raw::connect_from(CROWD, node.listen);
        raw.write(format!("PROXY TCP6 2001:db8:0:{client}::{client} ::1 1 443\r\n").as_bytes());
        raw
    };
    let mut open = Vec::new();
    for (number, token) in tokens.iter().enumerate() {
        let mut raw = named(number / 2);
        raw.enter(token, "d");
        open.push(raw);
    }
    for client in 0..3 {
        let mut raw = named(client);
        raw.write_anyway(&head(&REQUEST));
        assert_eq!(raw.status(), 429, "client {client}");
    }
    drop(open);
    node.wait_for_metric("connections", 0);
    node.wait_for_metric("handshakes", 0);
    named(0).enter(&tokens[0], "d");
}
