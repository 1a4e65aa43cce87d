//! Keys that a node fetches: it serves when it has them, goes on with what it had, and puts nobody out.

use std::{
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use gateway::auth::COPY_FILE;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    chat::{Chat, Received, verdict},
    key_server::{Answer, KeyServer},
    node::{Node, PATIENCE, directory},
};

const EC_PEM: &[u8] = include_bytes!("../keys/es256.pem");

fn set(kids: &[&str]) -> Answer {
    let (x, y) =
        ("eK50B41ehdt2P9B2kPYk8dpIIRXSZ3CNGhKSYj60jDk", "IIynCbGPEa8uZgCsB9sZ5KnbGhZL_bdGmeyRx3jrgZE");
    let key = |kid: &&str| json!({ "kty": "EC", "kid": kid, "crv": "P-256", "x": x, "y": y });
    Answer::text(&json!({ "keys": kids.iter().map(key).collect::<Vec<Value>>() }).to_string())
}

fn token(user: &str, kid: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
    let claims = json!({ "sub": user, "iat": now, "exp": now + 600 });
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_pem(EC_PEM).expect("a key")).expect("signed")
}

fn down() -> Answer {
    Answer::with("503 Service Unavailable", "")
}

fn enter(node: &Node, token: &str) -> Chat {
    Chat::connect_with(node, token, json!({ "device": "d" }))
}

/// What a token gets, and the close code behind it.
#[track_caller]
fn check_refused(node: &Node, token: &str, reply: &str, code: u16) {
    let mut chat = Chat::open(node);
    let answer = chat.ask("connect", json!({ "token": token, "device": "d" }));
    assert_eq!(verdict(&answer), reply, "{answer}");
    assert_eq!(chat.until_closed(|_, _| {}).1, Received::Closed(code));
}

fn start(data: &Path, url: &str) -> Node {
    Node::start(data, &[("GATEHOUSE_JWKS_URL", url)])
}

fn reread(node: &Node) {
    kill_process(node.id(), Signal::HUP).expect("it runs");
}

#[test]
fn keys_that_are_published_anew_let_in_the_new_and_keep_out_the_old_and_put_out_nobody() {
    let data = directory();
    let server = KeyServer::start(set(&["old"]));
    let node = start(data.path(), &server.url("http", "127.0.0.1"));
    node.log_line(&["the keys that tokens are judged by were fetched", "keys=1"]);
    let alices = token("alice", "old");
    let mut alice = enter(&node, &alices);
    check_refused(&node, &token("bob", "new"), "3004 unavailable", 4003);

    server.tell(set(&["old", "new"]));
    reread(&node);
    node.log_line(&["were fetched again", "keys=2"]);
    enter(&node, &token("bob", "new"));
    for bad in [down(), Answer::text("{"), Answer::text(&"x".repeat(100_000))] {
        let failures = node.metric("jwks_fetch_failures_total");
        server.tell(bad);
        reread(&node);
        node.wait_for_metric("jwks_fetch_failures_total", failures + 1);
        enter(&node, &token("bob", "new"));
        enter(&node, &token("carol", "old"));
    }
    node.log_line(&["could not be fetched again; those of before stay in force", "it answers 503"]);
    // What a new process has is what the one before had kept.
    assert!(node.upgrade().starts_with("HTTP/1.1 200 "));
    enter(&node, &token("bob", "new"));
    // It fetches for itself first, in vain: behind that there are only the fetches that are asked for below.
    node.wait_for_metric("jwks_fetch_failures_total", 1);

    server.tell(set(&["new"]));
    reread(&node);
    node.log_line(&["were fetched again", "keys=1"]);
    node.wait_for_metric("jwks_keys", 1);
    enter(&node, &token("bob", "new"));
    check_refused(&node, &alices, "3004 unavailable", 4003);
    // A set that was fetched since says for certain that it is gone.
    let fetches = node.metric("jwks_fetches_total");
    reread(&node);
    node.wait_for_metric("jwks_fetches_total", fetches + 1);
    let begun = Instant::now();
    loop {
        let mut chat = Chat::open(&node);
        let answer = chat.ask("connect", json!({ "token": alices, "device": "d" }));
        if verdict(&answer) == "2001 bad_token" {
            break;
        }
        // The fetch is counted when it begins.
        assert!(verdict(&answer) == "3004 unavailable" && begun.elapsed() < PATIENCE, "{answer}");
    }
    alice.is_fine();
    assert!(!node.log_text().contains(&alices));
}

/// Whoever shows tokens with names made up has the provider asked once in a while at the most.
#[test]
fn names_made_up_are_no_way_to_have_the_provider_asked() {
    let data = directory();
    let server = KeyServer::start(set(&["old"]));
    let node = start(data.path(), &server.url("http", "127.0.0.1"));
    for number in 0..100 {
        check_refused(&node, &token("alice", &format!("made-up-{number}")), "3004 unavailable", 4003);
    }
    assert_eq!(server.requests(), 1, "at the start");
    enter(&node, &token("alice", "old")).is_fine();
}

#[test]
fn a_start_without_keys_waits_for_them_and_says_so() {
    let data = directory();
    let server = KeyServer::start(down());
    let url = server.url("http", "127.0.0.1");
    let mut node = Node::begin(data.path(), &[("GATEHOUSE_JWKS_URL", &url)]).expect("it begins");
    node.log_line(&["could not be fetched, and none were kept", "it answers 503"]);
    let ready = node.admin_get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("\nno keys: "), "{ready}");
    assert!(!ready.contains("recovering"), "{ready}");
    server.tell(set(&["old"]));
    node.wait_until_it_serves().expect("there are keys");
    assert!(node.admin_get("/readyz").starts_with("HTTP/1.1 200 "));
    enter(&node, &token("alice", "old")).is_fine();
    assert!(node.metric("jwks_fetches_total") >= 2);

    // From the next start on there are some, whatever becomes of the provider: and who has a newer one is told to come back.
    let begun = Instant::now();
    while !data.path().join(COPY_FILE).exists() {
        assert!(begun.elapsed() < PATIENCE, "they are not kept");
        std::thread::yield_now();
    }
    server.tell(down());
    node.restart();
    node.log_line(&["those that were fetched last are in force", "it answers 503"]);
    enter(&node, &token("alice", "old")).is_fine();
    check_refused(&node, &token("alice", "new"), "3004 unavailable", 4003);
    // Who has one that is good goes on with it, and shows the newer one again.
    let mut alice = enter(&node, &token("alice", "old"));
    let put_off = alice.ask("refresh", json!({ "token": token("alice", "new") }));
    assert_eq!(verdict(&put_off), "3004 unavailable", "{put_off}");
    assert!(put_off["retry_after_ms"].is_u64(), "{put_off}");
    alice.is_fine();
    server.tell(set(&["new"]));
    reread(&node);
    node.log_line(&["were fetched again", "keys=1"]);
    enter(&node, &token("bob", "new")).is_fine();
    assert_eq!(verdict(&alice.ask("refresh", json!({ "token": token("alice", "new") }))), "ok");
    alice.is_fine();
}

#[test]
fn a_start_that_waits_for_keys_can_be_ended() {
    let data = directory();
    let server = KeyServer::start(Answer::Nothing);
    let url = server.url("http", "127.0.0.1");
    let mut node = Node::begin(data.path(), &[("GATEHOUSE_JWKS_URL", &url)]).expect("it begins");
    while server.requests() == 0 {
        std::thread::yield_now();
    }
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn over_tls_the_certificate_counts() {
    let data = directory();
    let server = KeyServer::start_tls(set(&["old"]));
    let trusted = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/tls-ca.pem");
    let start = |directory: &str, url: &str, trusted: &str| {
        let settings = [("GATEHOUSE_JWKS_URL", url), ("SSL_CERT_FILE", trusted)];
        Node::begin(&data.path().join(directory), &settings).expect("it begins")
    };
    for host in ["localhost", "127.0.0.1"] {
        let mut node = start(host, &server.url("https", host), trusted);
        node.wait_until_it_serves().expect("there are keys");
        enter(&node, &token("alice", "old")).is_fine();
    }
    let asked = server.requests();
    // Another name, another authority, no authority, no TLS.
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/tls.pem");
    let node = start("name", &server.url("https", "127.0.0.2"), trusted);
    node.log_line(&["none were kept", "TLS was refused"]);
    let node = start("authority", &server.url("https", "localhost"), other);
    node.log_line(&["none were kept", "TLS was refused"]);
    let node = start("none", &server.url("https", "localhost"), "/dev/null");
    node.log_line(&["none were kept", "no certificates to trust"]);
    let plain = KeyServer::start(set(&["old"]));
    let node = start("plain", &plain.url("https", "localhost"), trusted);
    node.log_line(&["none were kept", "TLS was refused"]);
    assert_eq!(server.requests(), asked, "nothing was asked of whom nobody vouches for");
}
