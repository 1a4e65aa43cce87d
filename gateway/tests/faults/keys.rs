//! Keys that are replaced while a node runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    chat::{Chat, verdict},
    node::{Node, directory},
};

const EC_PEM: &[u8] = include_bytes!("../keys/es256.pem");
const ED_PEM: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIF3aRFc4usCpgdVtTePpGHeQtNQ29X0h7234mcrLSuCz\n\
    -----END PRIVATE KEY-----\n";

fn ec() -> Value {
    let (x, y) =
        ("eK50B41ehdt2P9B2kPYk8dpIIRXSZ3CNGhKSYj60jDk", "IIynCbGPEa8uZgCsB9sZ5KnbGhZL_bdGmeyRx3jrgZE");
    json!({ "kty": "EC", "kid": "old", "crv": "P-256", "x": x, "y": y })
}

fn ed() -> Value {
    json!({ "kty": "OKP", "kid": "new", "crv": "Ed25519", "x": "1IbL5AJRMqCMTt89oTsWq073TOQqts4VmptT0tW22SQ" })
}

/// In the place of what was there, as whoever publishes keys should: whole, by a rename.
fn publish(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).expect("our own");
    fs::rename(new, file).expect("renamed");
}

fn token(user: &str, algorithm: Algorithm, kid: &str, key: &EncodingKey) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &json!({ "sub": user, "iat": now, "exp": now + 600 }), key).expect("signed")
}

#[test]
fn keys_that_are_replaced_let_in_the_new_and_keep_out_the_old_and_put_out_nobody() {
    let data = directory();
    let file = data.path().join("jwks.json");
    publish(&file, &json!({ "keys": [ec()] }).to_string());
    let path = file.to_str().expect("a plain path");
    let node = Node::start(&data.path().join("data"), &[("GATEHOUSE_JWKS_FILE", path)]);
    let reread = || kill_process(node.id(), Signal::HUP).expect("it runs");
    let old_key = EncodingKey::from_ec_pem(EC_PEM).expect("a key");
    let new_key = EncodingKey::from_ed_pem(ED_PEM).expect("a key");
    let old = |user: &str| token(user, Algorithm::ES256, "old", &old_key);
    let new = |user: &str| token(user, Algorithm::EdDSA, "new", &new_key);
    let enter = |token: &str, device: &str| Chat::connect_with(&node, token, json!({ "device": device }));
    #[track_caller]
    fn refused(node: &Node, token: &str) {
        let reply = Chat::open(node).ask("connect", json!({ "token": token, "device": "d" }));
        assert_eq!(verdict(&reply), "2001 bad_token", "{reply}");
    }

    // Shown once, so that it is remembered.
    let alices = old("alice");
    let mut alice = enter(&alices, "phone");
    refused(&node, &new("bob"));

    publish(&file, &json!({ "keys": [ec(), ed()] }).to_string());
    reread();
    node.log_line(&["were read again", "keys=2"]);
    enter(&new("bob"), "d");
    enter(&alices, "tablet");

    publish(&file, "{");
    reread();
    node.log_line(&["could not be read again", "those of before stay in force", "jwks.json"]);
    enter(&new("bob"), "d");

    publish(&file, &json!({ "keys": [ed()] }).to_string());
    reread();
    node.log_line(&["were read again", "keys=1"]);
    enter(&new("bob"), "d");
    refused(&node, &alices);
    refused(&node, &old("carol"));
    alice.is_fine();
    let log = node.log_text();
    assert!(!log.contains(&alices) && !log.contains("1IbL5"), "{log}");
}

#[test]
fn a_hangup_ends_no_node() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    kill_process(node.id(), Signal::HUP).expect("it runs");
    Chat::connect(&node, "alice", "d").is_fine();
}
