//! Tokens that are none, not any more, or somebody else's: the same words for all of them.

use std::{
    fs,
    io::ErrorKind,
    net::TcpListener,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::{
    chat::{Chat, Received, undisturbed, verdict},
    node::{Node, directory},
    raw::{REQUEST, Raw, connect, head},
    wire::masked,
};

const HOUR: i64 = 3600;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// Claims that a node with this issuer and audience takes, changed by `changes`; null takes one out.
fn claims(changes: Value) -> Value {
    let mut claims =
        json!({ "sub": "alice", "iat": now(), "exp": now() + HOUR, "iss": "https://issuer", "aud": "chat" });
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn sign(header: &Header, claims: &Value, key: &[u8]) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(key)).expect("it can be signed")
}

/// A token of any header, with any signature.
fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

/// What `connect` with this token comes to: the error, its message, and the close code.
fn outcome(node: &Node, token: &str) -> String {
    let mut chat = Chat::open(node);
    chat.send("connect", json!({ "device": "d", "token": token }));
    match chat.next() {
        Received::Frame(frame) if frame["op"] == "welcome" => "welcome".to_owned(),
        Received::Frame(frame) => {
            let Received::Closed(code) = chat.next() else { panic!("no close after {frame}") };
            format!("{}, {}, {code}", verdict(&frame), frame["message"].as_str().expect("words"))
        }
        ended => panic!("{ended:?} without a word"),
    }
}

const BAD: &str = "2001 bad_token, the token is not valid, 4100";
const EXPIRED: &str = "2002 expired_token, the token has expired, 4101";

/// C2, C4, C5: with a secret of both sides.
#[test]
fn one_answer_for_every_bad_token() {
    let data = directory();
    let settings = [("GATEHOUSE_ISSUER", "https://issuer"), ("GATEHOUSE_AUDIENCE", "chat")];
    let node = Node::start(data.path(), &settings);
    undisturbed(&node, || {
        let mut witness = Chat::connect(&node, "witness", "w");
        let key = fs::read(data.path().join("dev.key")).expect("the key it made");
        let key = key.trim_ascii_end();
        let hs256 = Header::new(Algorithm::HS256);
        let with = |changes| sign(&hs256, &claims(changes), key);

        let attacker = TcpListener::bind("127.0.0.1:0").expect("a free port");
        attacker.set_nonblocking(true).expect("a socket of ours");
        let url = format!("http://{}/keys.json", attacker.local_addr().expect("an address"));
        let lured = json!({ "alg": "RS256", "typ": "JWT", "jku": url, "x5u": url, "kid": url });
        let kid = Header { kid: Some("shared".to_owned()), ..hs256.clone() };
        let none = json!({ "alg": "none", "typ": "JWT" });
        let good = with(json!({}));
        let (signed, _) = good.rsplit_once('.').expect("three parts");

        for (token, expected) in [
            (good.clone(), "welcome"),
            (with(json!({ "exp": now() - 1 })), EXPIRED),
            (with(json!({ "exp": now() - HOUR, "iss": "https://other" })), BAD),
            (with(json!({ "nbf": now() + HOUR })), BAD),
            (with(json!({ "iat": now() + HOUR })), BAD),
            (with(json!({ "iat": null })), BAD),
            (with(json!({ "exp": null })), BAD),
            (with(json!({ "sub": null })), BAD),
            (with(json!({ "sub": "" })), BAD),
            (with(json!({ "sub": "a\u{0}b" })), BAD),
            (with(json!({ "aud": "another" })), BAD),
            (with(json!({ "aud": null })), BAD),
            (with(json!({ "iss": "https://other" })), BAD),
            (with(json!({ "iss": null })), BAD),
            (sign(&kid, &claims(json!({})), key), "welcome"),
            (sign(&kid, &claims(json!({ "iss": "https://other" })), key), BAD),
            (sign(&hs256, &claims(json!({})), b"another key of thirty-two bytes!!"), BAD),
            (sign(&Header::new(Algorithm::HS384), &claims(json!({})), key), BAD),
            (forged(&none, &claims(json!({})), b""), BAD),
            (forged(&json!({ "alg": "None" }), &claims(json!({})), b""), BAD),
            (forged(&lured, &claims(json!({ "iss": url })), b"x"), BAD),
            (format!("{signed}."), BAD),
            (good[..good.len() - 1].to_owned(), BAD),
            ("a.b.c".to_owned(), BAD),
            ("!!!.???.***".to_owned(), BAD),
            ("x".repeat(8 << 10), BAD),
            ("x".repeat((8 << 10) + 1), BAD),
        ] {
            assert_eq!(outcome(&node, &token), expected, "{}", &token[..token.len().min(300)]);
        }
        let mut raw = Raw::upgraded(node.listen);
        raw.write_anyway(&masked(0x81, connect(&"x".repeat(1 << 20)).as_bytes()));
        assert_eq!(raw.transcript(), ["close 1009"]);
        let called = attacker.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(called, Err(ErrorKind::WouldBlock), "C4: a token makes nobody open a connection");
        witness.is_fine();
    });
}

/// C2: a public key is no secret to sign with.
#[test]
fn a_public_key_is_no_shared_secret() {
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA1IbL5AJRMqCMTt89oTsWq073TOQqts4VmptT0tW22SQ=\n\
                          -----END PUBLIC KEY-----\n";
    let data = directory();
    let file = data.path().join("public.pem");
    fs::write(&file, PUBLIC).expect("a file");
    let node = Node::start(data.path(), &[("GATEHOUSE_EDDSA_PUBLIC_KEY_FILE", text(&file))]);
    let hs256 = Header::new(Algorithm::HS256);
    for key in [PUBLIC.as_bytes(), PUBLIC.trim_ascii_end().as_bytes()] {
        assert_eq!(outcome(&node, &sign(&hs256, &claims(json!({})), key)), BAD);
    }
    assert_eq!(outcome(&node, &forged(&json!({ "alg": "EdDSA" }), &claims(json!({})), &[0; 64])), BAD);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// C3: at the highest level of logging, nothing of a token or a message is in the log.
#[test]
fn no_secret_reaches_the_log() {
    let data = directory();
    let node = Node::start(data.path(), &[("GATEHOUSE_LOG", "trace")]);
    undisturbed(&node, || {
        let token = node.token("alice");
        let mut alice = Chat::connect_with(&node, &token, json!({ "device": "d" }));
        alice.tell("bob", "the words of a letter");
        let mut raw = Raw::connect(node.listen);
        let target = format!("GET /v1/connect?token={token} HTTP/1.1");
        raw.write(&head(&[&[target.as_str()], &REQUEST[1..]].concat()));
        assert_eq!(raw.status(), 400);
        let bearer = format!("Authorization: Bearer {token}");
        let mut raw = Raw::connect(node.listen);
        raw.write(&head(&[REQUEST.as_slice(), &[bearer.as_str(), "Origin: https://foreign"]].concat()));
        assert_eq!(raw.status(), 403);
        assert_eq!(outcome(&node, &token[1..]), BAD);
        let mut broken = Chat::open(&node);
        broken.send_text(&format!(
            "{{\"op\":\"connect\",\"id\":1,\"token\":\"{token}\",\"the words of a letter\":1}}"
        ));
        assert!(matches!(broken.next(), Received::Frame(frame) if frame["op"] == "error"));
        let signature = token.rsplit('.').next().expect("three parts");
        let log = node.log_text();
        for secret in [signature, &signature[1..], "the words of a letter"] {
            assert!(!log.contains(secret), "{secret} is in the log");
        }
        let key = fs::read_to_string(data.path().join("dev.key")).expect("the key it made");
        assert!(!log.contains(key.trim()), "the key is in the log");
        assert!(!node.admin_get("/metrics").contains("alice"));
    });
}
