//! Sets of public keys: which tokens they let in, and which sets are refused.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use gateway::{
    auth::{Keys, TokenError, Verifier},
    config::{Config, KeyConfig},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use protocol::ids::UnixMillis;
use serde_json::{Value, json};

const NOW_SECONDS: u64 = 1_800_000_000;
const NOW: UnixMillis = UnixMillis(NOW_SECONDS * 1000);

const RSA_PEM: &[u8] = include_bytes!("../keys/rs256.pem");
const RSA_N: &str = "rxJThlt-ZbImDfOMzWE_Xo_wwNkhQT4dYv3mrmEhYMAPs3Q0mgnXT-P1eCPBFNWpeyEdDz10drAS1MEDWHlGaPvYB0sgI6mKuJwYT6ysexWy9Rd1QgYwmh4Vfb7d5_9LGkthxzUipGLBgQV8XmuaRP0jIvIFZduPb42i3yTOh5ImyhKrHimJ_fjkFoKbM8bDueUN_kIU8o8f_XzrB4JXu3AVm-H671ZQQqFZ5Ofa-xbD_aDQuFevT34EPBsUwcXt6Y1XQoFFYKhv6DSwmQqqLzi6ngZET8CeK2BSPdP4W9UPHcUXXUubA7kZw-1ZEr3TVZ0yhhhnDLrm6pSIxNCLhw";
/// Of 1,024 bits.
const SHORT_RSA_N: &str = "wlDrEZAoq_bQGpzvApMjD5uEMuxqlF4QYjDCpN6a2MmZpVu3QeCPTLG2DWP0Lld-_q1FgnR2zGg-v9fx0Nq0kqSavj8_3_Q1JmfCShlIHG9Z3HMXscM8j-O8q5PiJWj04QYuV3nywujSxS6wOR8JpKBWAz0j-YbOVNXIgiQErXU";
const EC_PEM: &[u8] = include_bytes!("../keys/es256.pem");
const EC_X: &str = "eK50B41ehdt2P9B2kPYk8dpIIRXSZ3CNGhKSYj60jDk";
const EC_Y: &str = "IIynCbGPEa8uZgCsB9sZ5KnbGhZL_bdGmeyRx3jrgZE";
const ED_PEM: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIF3aRFc4usCpgdVtTePpGHeQtNQ29X0h7234mcrLSuCz\n\
    -----END PRIVATE KEY-----\n";
const ED_X: &str = "1IbL5AJRMqCMTt89oTsWq073TOQqts4VmptT0tW22SQ";

fn rsa(id: &str) -> Value {
    json!({ "kty": "RSA", "kid": id, "use": "sig", "n": RSA_N, "e": "AQAB" })
}

fn ec(id: &str) -> Value {
    json!({ "kty": "EC", "kid": id, "crv": "P-256", "x": EC_X, "y": EC_Y })
}

fn ed(id: &str) -> Value {
    json!({ "kty": "OKP", "kid": id, "crv": "Ed25519", "x": ED_X, "alg": "EdDSA", "key_ops": ["verify"] })
}

fn without(name: &str, mut key: Value) -> Value {
    key.as_object_mut().expect("an object").remove(name);
    key
}

fn with(name: &str, value: &str, mut key: Value) -> Value {
    key[name] = value.into();
    key
}

/// What comes of a file that says this.
fn load(text: &str, mode: u32) -> Result<Verifier, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("jwks.json");
    fs::write(&file, text).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our own");
    let config = Config { keys: KeyConfig::Jwks { file }, ..Config::default() };
    Keys::load(&config).map(|keys| keys.verifier).map_err(|error| error.to_string())
}

#[track_caller]
fn set(keys: &[Value]) -> Verifier {
    load(&json!({ "keys": keys }).to_string(), 0o644).expect("a set that can be used")
}

fn sign(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    let claims = json!({ "sub": "alice", "iat": NOW_SECONDS, "exp": NOW_SECONDS + 60 });
    jsonwebtoken::encode(&header, &claims, key).expect("it can be signed")
}

fn rsa_key() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA_PEM).expect("a key")
}

#[track_caller]
fn check(verifier: &Verifier, token: &str, expected: Result<&str, TokenError>) {
    let user = verifier.verify(token, NOW).map(|verified| verified.user.as_str().to_owned());
    assert_eq!(user.as_deref().map_err(|error| *error), expected);
}

#[test]
fn each_key_lets_in_the_tokens_that_name_it() {
    let verifier = set(&[rsa("r"), ec("c"), ed("d")]);
    assert_eq!(verifier.keys(), 3);
    let ec_key = EncodingKey::from_ec_pem(EC_PEM).expect("a key");
    let ed_key = EncodingKey::from_ed_pem(ED_PEM).expect("a key");
    check(&verifier, &sign(Algorithm::RS256, Some("r"), &rsa_key()), Ok("alice"));
    check(&verifier, &sign(Algorithm::ES256, Some("c"), &ec_key), Ok("alice"));
    check(&verifier, &sign(Algorithm::EdDSA, Some("d"), &ed_key), Ok("alice"));
    for kid in [Some("c"), Some("R"), Some("unknown"), Some(""), None] {
        check(&verifier, &sign(Algorithm::RS256, kid, &rsa_key()), Err(TokenError::Bad));
    }
    // Where there is only one, a token need not name it, but names no other.
    let alone = set(&[rsa("r")]);
    check(&alone, &sign(Algorithm::RS256, None, &rsa_key()), Ok("alice"));
    check(&alone, &sign(Algorithm::RS256, Some("s"), &rsa_key()), Err(TokenError::Bad));
    let unnamed = set(&[without("kid", rsa("r"))]);
    check(&unnamed, &sign(Algorithm::RS256, Some("any"), &rsa_key()), Ok("alice"));
}

#[test]
fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let verifier = set(&[rsa("r"), ec("c")]);
    // What is public is no secret to sign with.
    for secret in [RSA_N.as_bytes(), RSA_PEM] {
        let forged = sign(Algorithm::HS256, Some("r"), &EncodingKey::from_secret(secret));
        check(&verifier, &forged, Err(TokenError::Bad));
    }
    check(&verifier, &sign(Algorithm::RS512, Some("r"), &rsa_key()), Err(TokenError::Bad));
    check(&verifier, &sign(Algorithm::PS256, Some("r"), &rsa_key()), Err(TokenError::Bad));
    let verifier = set(&[with("alg", "PS256", rsa("r"))]);
    check(&verifier, &sign(Algorithm::PS256, Some("r"), &rsa_key()), Ok("alice"));
    check(&verifier, &sign(Algorithm::RS256, Some("r"), &rsa_key()), Err(TokenError::Bad));
}

#[test]
fn what_is_not_for_tokens_is_passed_over() {
    let others = [
        json!({ "kty": "of tomorrow", "kid": "t" }),
        json!({ "kty": "OKP", "kid": "x", "crv": "X25519", "x": ED_X }),
        with("use", "enc", rsa("e")),
        with("alg", "RSA-OAEP", rsa("o")),
        with("alg", "ES256", rsa("w")),
        with("n", SHORT_RSA_N, rsa("s")),
        json!("no key at all"),
    ];
    let verifier = set(&[&others[..], &[rsa("r")]].concat());
    assert_eq!(verifier.keys(), 1);
    check(&verifier, &sign(Algorithm::RS256, Some("r"), &rsa_key()), Ok("alice"));
    let refused = load(&json!({ "keys": others }).to_string(), 0o644).expect_err("no key is left");
    assert!(refused.contains("holds no key that verifies tokens"), "{refused}");
}

#[test]
fn sets_that_would_let_in_the_wrong_ones_are_refused() {
    let many: Vec<Value> = (0..65).map(|number| rsa(&number.to_string())).collect();
    let text = |keys: &[Value]| json!({ "keys": keys }).to_string();
    for (text, mode, words) in [
        (String::new(), 0o644, "is not a JWKS"),
        (r#"{"keys":1}"#.to_owned(), 0o644, "is not a JWKS"),
        (text(&[]), 0o644, "holds no key"),
        (
            text(&[rsa("r"), json!({ "kty": "oct", "k": "c2VjcmV0" })]),
            0o644,
            "number 2, that is a shared secret",
        ),
        (text(&[rsa("r"), ec("r")]), 0o644, "number 2, that has the `kid` of one before it"),
        (text(&[rsa("r"), without("kid", ec("c"))]), 0o644, "no token could name it"),
        (text(&[with("x", "!", ec("c"))]), 0o644, "cannot be decoded"),
        (text(&many), 0o644, "holds 65 keys, more than 64"),
        (text(&[rsa("r")]), 0o664, "other users can read or change"),
    ] {
        let refused = load(&text, mode).expect_err(words);
        assert!(refused.contains(words) && refused.contains("jwks.json"), "{words}: {refused}");
    }
    let nowhere =
        Config { keys: KeyConfig::Jwks { file: Path::new("/nowhere").into() }, ..Config::default() };
    assert!(Keys::load(&nowhere).is_err());
}
