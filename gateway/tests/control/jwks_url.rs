//! Sets of keys that are fetched: what is taken from an address, when, and what is kept of it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use gateway::{
    auth::{COPY_FILE, FLOOR, Keys, Refetching, TokenError, Verifier},
    config::{Config, JwksUrl, KeyConfig},
    metrics::KeyMetrics,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use protocol::ids::UnixMillis;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::key_server::{Answer, KeyServer};

const NOW_SECONDS: u64 = 1_800_000_000;
const NOW: UnixMillis = UnixMillis(NOW_SECONDS * 1000);

const EC_PEM: &[u8] = include_bytes!("../keys/es256.pem");

fn key(kid: &str) -> Value {
    let (x, y) =
        ("eK50B41ehdt2P9B2kPYk8dpIIRXSZ3CNGhKSYj60jDk", "IIynCbGPEa8uZgCsB9sZ5KnbGhZL_bdGmeyRx3jrgZE");
    json!({ "kty": "EC", "kid": kid, "crv": "P-256", "x": x, "y": y })
}

fn set(kids: &[&str]) -> String {
    json!({ "keys": kids.iter().map(|kid| key(kid)).collect::<Vec<_>>() }).to_string()
}

fn token(kid: &str) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
    let claims = json!({ "sub": "alice", "iat": NOW_SECONDS, "exp": NOW_SECONDS + 60 });
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_pem(EC_PEM).expect("a key")).expect("signed")
}

fn load(data: &Path, url: &str) -> (Refetching, Verifier) {
    let url = url.parse().expect("an address");
    let config = Config { data: data.to_owned(), keys: KeyConfig::JwksUrl { url }, ..Config::default() };
    let keys = Keys::load(&config).expect("nothing is fetched yet");
    (keys.refetching.expect("it is fetched"), keys.verifier)
}

/// `good`, or the verdict's words.
fn verdict(verifier: &Verifier, kid: &str) -> Result<(), TokenError> {
    verifier.verify(&token(kid), NOW).map(|verified| assert_eq!(verified.user.as_str(), "alice"))
}

async fn fetch(refetching: &mut Refetching) -> Result<Option<Verifier>, String> {
    refetching.fetch(&KeyMetrics::default()).await
}

#[tokio::test]
async fn a_token_of_a_new_key_has_the_set_fetched_again_and_no_more_often_than_may_be() {
    let data = tempfile::tempdir().expect("a directory");
    let server = KeyServer::start(Answer::text(&set(&["old"])));
    let (mut refetching, none) = load(data.path(), &server.url("http", "127.0.0.1"));
    assert!(!refetching.has_keys() && refetching.is_due(Instant::now()));
    // While there are no keys at all nobody is told that a token is bad.
    assert_eq!(verdict(&none, "old"), Err(TokenError::Unknown));
    let metrics = KeyMetrics::default();
    let old = refetching.fetch(&metrics).await.expect("an answer").expect("the first");
    let fetched = Instant::now();
    assert_eq!((verdict(&old, "old"), metrics.keys.value()), (Ok(()), 1));

    server.tell(Answer::text(&set(&["old", "new"])));
    assert!(!refetching.is_due(fetched + FLOOR), "nobody has asked since");
    for _ in 0..1_000 {
        // Right after a fetch a key may be newer than that.
        assert_eq!(verdict(&old, "new"), Err(TokenError::Unknown));
        assert!(!refetching.is_due(Instant::now()));
    }
    assert_eq!(server.requests(), 1);
    assert!(refetching.is_due(fetched + FLOOR));
    // What names no key, and what is no token, asks for nothing.
    let both = refetching.fetch(&metrics).await.expect("an answer").expect("another");
    assert_eq!((verdict(&both, "old"), verdict(&both, "new"), metrics.keys.value()), (Ok(()), Ok(()), 2));
    assert_eq!(both.verify("x.y.z", NOW), Err(TokenError::Bad));
    assert!(!refetching.is_due(Instant::now() + FLOOR - Duration::from_secs(1)));

    // The same set is no news.
    assert!(refetching.fetch(&metrics).await.expect("an answer").is_none());
    server.tell(Answer::text(&set(&["new"])));
    let new = refetching.fetch(&metrics).await.expect("an answer").expect("another");
    assert_eq!((verdict(&new, "old").is_err(), verdict(&new, "new")), (true, Ok(())));
    assert_eq!(verdict(&new, "newer"), Err(TokenError::Unknown));
    // What is in no set that was fetched since it was asked for is no key, also where it is the same set.
    assert!(refetching.fetch(&metrics).await.expect("an answer").is_none());
    assert_eq!((verdict(&new, "newer"), verdict(&new, "new")), (Err(TokenError::Bad), Ok(())));
    assert!(!refetching.is_due(Instant::now() + FLOOR), "nobody has asked since");
    assert_eq!(verdict(&new, "newer"), Err(TokenError::Unknown), "after a while it may be there");
    assert_eq!((metrics.fetches_total.value(), metrics.failures_total.value(), server.requests()), (5, 0, 5));
}

/// Of a set of one key that has no name, or that a token does not name, its signature alone says that it is another one.
#[tokio::test]
async fn a_key_without_a_name_that_has_taken_the_place_of_another_one_is_fetched_as_soon_as_may_be() {
    let data = tempfile::tempdir().expect("a directory");
    let (x, y) =
        ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let other = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
    let (mut named, mut ours) = (other.clone(), key("any"));
    named["kid"] = json!("other");
    ours.as_object_mut().expect("an object").remove("kid");
    let set = |key: &Value| Answer::text(&json!({ "keys": [key] }).to_string());
    let server = KeyServer::start(set(&other));
    let (mut refetching, _) = load(data.path(), &server.url("http", "127.0.0.1"));
    let header = Header::new(Algorithm::ES256);
    let signer = EncodingKey::from_ec_pem(EC_PEM).expect("a key");
    let token = |user: &str| {
        let claims = json!({ "sub": user, "iat": NOW_SECONDS, "exp": NOW_SECONDS + 60 });
        jsonwebtoken::encode(&header, &claims, &signer).expect("signed")
    };
    for (user, key) in [("alice", &other), ("bob", &named)] {
        server.tell(set(key));
        let verifier = fetch(&mut refetching).await.expect("an answer").expect("news");
        // Everybody whose key was replaced, and nobody has them all in mind: each is told to come back, and then to get another token.
        let tokens: Vec<String> = (0..300).map(|number| token(&format!("{user} {number}"))).collect();
        let verdict = |verifier: &Verifier| {
            let mut verdicts = tokens.iter().map(|token| verifier.verify(token, NOW).map(drop));
            let first = verdicts.next().expect("there are some");
            assert!(verdicts.all(|verdict| verdict == first), "{first:?} for all");
            first
        };
        assert_eq!(verdict(&verifier), Err(TokenError::Unknown));
        assert!(!refetching.is_due(Instant::now()), "the floor holds");
        assert!(refetching.is_due(Instant::now() + FLOOR));
        assert!(fetch(&mut refetching).await.expect("an answer").is_none());
        assert_eq!(verdict(&verifier), Err(TokenError::Bad), "it is none of this one either");
    }
    server.tell(set(&ours));
    let verifier = fetch(&mut refetching).await.expect("an answer").expect("news");
    assert!(verifier.verify(&token("alice"), NOW).is_ok());
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_changes_nothing() {
    let data = tempfile::tempdir().expect("a directory");
    let good = Answer::text(&set(&["old"]));
    let server = KeyServer::start(good.clone());
    let (mut refetching, _) = load(data.path(), &server.url("http", "127.0.0.1"));
    fetch(&mut refetching).await.expect("an answer");
    let secret = json!({ "keys": [{ "kty": "oct", "kid": "old", "k": "AAAA" }] }).to_string();
    let padded = format!("{}{}", set(&["old"]), " ".repeat(64 << 10));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "fff0\r\n".to_owned() + &"x".repeat(0xfff0)
    );
    let endless = format!("{chunked}\r\n{}", "10000\r\n".to_owned() + &"x".repeat(1 << 20));
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"keys\":";
    let header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    for (answer, words) in [
        (Answer::text(""), "is not a JWKS"),
        (Answer::text("<html>"), "is not a JWKS"),
        (Answer::text(r#"{"keys":[]}"#), "holds no key"),
        (Answer::text(&secret), "is a shared secret"),
        (Answer::text(&set(&["a", "a"])), "has the `kid` of one before it"),
        (Answer::with("500 Internal Server Error", &set(&["a"])), "it answers 500"),
        (Answer::with("404 Not Found", ""), "it answers 404"),
        (
            Answer::with("301 Moved Permanently\r\nLocation: /jwks.json?of=tests", ""),
            "redirects are not followed",
        ),
        (Answer::text(&padded), "more than 61440 bytes"),
        (Answer::Bytes(endless.into_bytes()), "more than 61440 bytes"),
        (Answer::Bytes(short.into()), "broke off"),
        (Answer::Bytes(header.into_bytes()), "cannot be understood"),
        (Answer::Bytes(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()), "cannot be understood"),
        (Answer::Bytes(Vec::new()), "cannot be understood"),
    ] {
        server.tell(answer);
        let error = fetch(&mut refetching).await.expect_err(words);
        assert!(error.contains(words), "{error} is not {words}");
    }
    server.tell(good);
    assert!(fetch(&mut refetching).await.expect("an answer").is_none(), "it is what is in force");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_no_longer_than_may_be() {
    let data = tempfile::tempdir().expect("a directory");
    let server = KeyServer::start(Answer::Nothing);
    let (mut refetching, _) = load(data.path(), &server.url("http", "127.0.0.1"));
    let begun = Instant::now();
    let error = fetch(&mut refetching).await.expect_err("nothing");
    assert!(error.contains("no whole answer within 8 s"), "{error}");
    assert!((7..12).contains(&begun.elapsed().as_secs()));
    // And nobody is there at all.
    let (mut refetching, _) = load(data.path(), "http://127.0.0.1:1/");
    assert!(fetch(&mut refetching).await.expect_err("nobody").contains("there is no connection"));
}

#[tokio::test]
async fn what_was_kept_is_used_for_its_own_address_and_only_if_it_is_sound() {
    let data = tempfile::tempdir().expect("a directory");
    let server = KeyServer::start(Answer::text(&set(&["old"])));
    let url = server.url("http", "127.0.0.1");
    let (mut refetching, _) = load(data.path(), &url);
    fetch(&mut refetching).await.expect("an answer");
    refetching.keep().expect("written");
    let file = data.path().join(COPY_FILE);
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);

    let (refetching, verifier) = load(data.path(), &url);
    assert!(refetching.has_keys() && refetching.is_due(Instant::now()));
    assert_eq!(verdict(&verifier, "old"), Ok(()));
    // Until it is fetched it may be old.
    assert_eq!(verdict(&verifier, "new"), Err(TokenError::Unknown));
    assert!(!load(data.path(), &server.url("http", "127.0.0.2")).0.has_keys(), "of another address");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o622)).expect("ours");
    assert!(!load(data.path(), &url).0.has_keys(), "others may have written it");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
    assert!(load(data.path(), &url).0.has_keys());
    let text = fs::read_to_string(&file).expect("text");
    for end in 0..text.len() {
        fs::write(&file, &text[..end]).expect("written");
        assert!(!load(data.path(), &url).0.has_keys(), "cut at {end}");
    }
}

#[tokio::test]
async fn the_largest_set_is_read_again_from_where_it_was_kept() {
    let data = tempfile::tempdir().expect("a directory");
    let largest = format!("{{\"keys\":[{}],\"x\":\"\"}}", key("old"));
    let largest = largest.replace("\"\"}", &format!("\"{}\"}}", "x".repeat(61_440 - largest.len())));
    let server = KeyServer::start(Answer::text(&largest));
    let url = server.url("http", "127.0.0.1");
    let (mut refetching, _) = load(data.path(), &url);
    fetch(&mut refetching).await.expect("an answer");
    assert!(refetching.is_unkept());
    refetching.keep().expect("written");
    assert!(!refetching.is_unkept() && load(data.path(), &url).0.has_keys());
    let kept = fs::metadata(data.path().join(COPY_FILE)).expect("it is there").len();
    assert!(kept + 1_024 < 64 << 10, "{kept} bytes, and an address may have 1,024");
}

#[tokio::test]
async fn a_set_that_is_as_it_was_kept_counts_its_keys_and_is_not_kept_again() {
    let data = tempfile::tempdir().expect("a directory");
    // As the copy has it: names in their order, no spaces.
    let as_kept = serde_json::from_str::<Value>(&set(&["one", "other"])).expect("JSON").to_string();
    let server = KeyServer::start(Answer::text(&as_kept));
    let url = server.url("http", "127.0.0.1");
    let (mut refetching, _) = load(data.path(), &url);
    fetch(&mut refetching).await.expect("an answer");
    refetching.keep().expect("written");
    let (mut refetching, metrics) = (load(data.path(), &url).0, KeyMetrics::default());
    assert!(refetching.fetch(&metrics).await.expect("an answer").is_none(), "it is what was kept");
    assert_eq!(metrics.keys.value(), 2);
    assert!(!refetching.is_unkept(), "it would get the time of now");
}

#[test]
fn addresses_are_https_or_of_this_machine() {
    for (text, host, port) in [
        ("https://login.example.org/jwks.json", "login.example.org", 443),
        ("https://login.example.org:8443/a/b?c=d", "login.example.org", 8443),
        ("https://[2001:db8::1]/", "2001:db8::1", 443),
        ("http://127.0.0.1:8080/jwks", "127.0.0.1", 8080),
        ("http://127.9.9.9", "127.9.9.9", 80),
        ("http://[::1]/jwks", "::1", 80),
    ] {
        let url: JwksUrl = text.parse().expect("an address");
        assert_eq!((url.host.as_str(), url.port, url.whole()), (host, port, text));
        assert_eq!(url.is_tls, text.starts_with("https"));
    }
    for (text, words) in [
        ("", "must look like"),
        ("login.example.org", "must look like"),
        ("/jwks.json", "must look like"),
        ("https://", "must look like"),
        ("https:///jwks", "must look like"),
        ("ftp://login.example.org/", "must begin with https://"),
        ("file:///etc/passwd", "must look like"),
        ("http://login.example.org/", "must be https"),
        ("http://localhost/", "must be https"),
        ("http://10.0.0.1/", "must be https"),
        ("https://user:secret@login.example.org/", "neither a user nor a fragment"),
        ("https://login.example.org/#a", "neither a user nor a fragment"),
    ] {
        let error = text.parse::<JwksUrl>().expect_err(text);
        assert!(error.contains(words), "{text}: {error}");
    }
    assert!(format!("https://a/{}", "a".repeat(2_000)).parse::<JwksUrl>().is_err());
}
