//! C2: what is done for a token that is bad is no more than for a good one, whatever is wrong with it and however many keys there are: one check of a
//! signature at most, and nothing is kept. What it is answered with, and that it has nobody asked for keys, is held through sockets
//! (`faults/tokens.rs`, `faults/jwks_url.rs`).
//!
//! Checks are counted where the library asks for whoever makes them, which is chosen once for a process: so this is a process of its own.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway::auth::{Keys, TokenCache, TokenError, Verifier};
use gateway::config::{Config, KeyConfig};
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, aws_lc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, errors::Result};
use protocol::ids::UnixMillis;
use serde_json::{Value, json};

const NOW_SECONDS: u64 = 1_800_000_000;
const NOW: UnixMillis = UnixMillis(NOW_SECONDS * 1_000);
const SECRET: [u8; 32] = [7; 32];
const EC_PEM: &[u8] = include_bytes!("keys/es256.pem");
const ED_PEM: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIF3aRFc4usCpgdVtTePpGHeQtNQ29X0h7234mcrLSuCz\n\
    -----END PRIVATE KEY-----\n";

static CHECKS: AtomicUsize = AtomicUsize::new(0);

/// Whoever checks a signature, which is asked for once for each.
fn counted(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    CHECKS.fetch_add(1, Ordering::Relaxed);
    (aws_lc::DEFAULT_PROVIDER.verifier_factory)(algorithm, key)
}

/// Claims of a good token, changed; null takes one out.
fn claims(changes: &[(&str, Value)]) -> Value {
    let mut claims = json!({ "sub": "alice", "iat": NOW_SECONDS, "exp": NOW_SECONDS + 60 });
    for (name, value) in changes {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(*name)),
            value => claims[*name] = value.clone(),
        }
    }
    claims
}

fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).expect("it can be signed")
}

/// Shows each token twice to a shard that has seen none: how many signatures are checked each time, and what it says.
fn check(verifier: &Verifier, tokens: &[(&str, String, usize, Option<TokenError>)]) {
    let mut cache = TokenCache::new([1; 32]);
    for (what, token, checks, error) in tokens {
        for time in 1..=2 {
            let before = CHECKS.load(Ordering::Relaxed);
            let verdict = cache.check(verifier, token, NOW).err();
            let made = CHECKS.load(Ordering::Relaxed) - before;
            // One that is good is known the second time. Nothing is kept of another.
            let expected = if error.is_none() && time == 2 { 0 } else { *checks };
            assert_eq!((verdict, made), (*error, expected), "{what}, time {time}");
            assert!(made <= 1, "{what}");
        }
    }
    let good = tokens.iter().filter(|(_, _, _, error)| error.is_none()).count();
    assert_eq!(cache.entries(), good);
}

#[test]
fn no_token_costs_more_than_one_that_is_good() {
    let provider = CryptoProvider { verifier_factory: counted, ..aws_lc::DEFAULT_PROVIDER.clone() };
    Box::leak(Box::new(provider)).install_default().expect("nobody has chosen another");
    let (bad, expired) = (Some(TokenError::Bad), Some(TokenError::Expired));

    let key = EncodingKey::from_secret(&SECRET);
    let hs256 = Header::new(Algorithm::HS256);
    let with = |name: &str, value: Value| sign(&hs256, &claims(&[(name, value)]), &key);
    let good = sign(&hs256, &claims(&[]), &key);
    let (signed, _) = good.rsplit_once('.').expect("three parts");
    let (_, rest) = good.split_once('.').expect("a header");
    let other = EncodingKey::from_secret(&[8; 32]);
    let verifier = Keys::from_secret(&SECRET).expect("a long secret").verifier;
    check(
        &verifier,
        &[
            ("good", good.clone(), 1, None),
            ("expired", with("exp", json!(NOW_SECONDS)), 1, expired),
            ("no sub", with("sub", Value::Null), 1, bad),
            ("no user", with("sub", json!("")), 1, bad),
            ("no iat", with("iat", Value::Null), 1, bad),
            ("not yet", with("nbf", json!(NOW_SECONDS + 1)), 1, bad),
            ("signed with another secret", sign(&hs256, &claims(&[]), &other), 1, bad),
            ("signed with nothing", format!("{signed}."), 1, bad),
            ("another algorithm", sign(&Header::new(Algorithm::HS384), &claims(&[]), &key), 0, bad),
            // {"alg":"none","typ":"JWT"}
            ("no algorithm", format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{rest}"), 0, bad),
            ("no token", "a.b.c".to_owned(), 0, bad),
            ("too long", "x".repeat(1 << 20), 0, bad),
        ],
    );

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("jwks.json");
    let (x, y) =
        ("eK50B41ehdt2P9B2kPYk8dpIIRXSZ3CNGhKSYj60jDk", "IIynCbGPEa8uZgCsB9sZ5KnbGhZL_bdGmeyRx3jrgZE");
    let ec = json!({ "kty": "EC", "kid": "ec", "crv": "P-256", "x": x, "y": y });
    let ed = json!({ "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "1IbL5AJRMqCMTt89oTsWq073TOQqts4VmptT0tW22SQ" });
    fs::write(&file, json!({ "keys": [ec, ed] }).to_string()).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("our own");
    let config = Config { keys: KeyConfig::Jwks { file }, ..Config::default() };
    let verifier = Keys::load(&config).expect("a set of two").verifier;
    let (ec, ed) =
        (EncodingKey::from_ec_pem(EC_PEM).expect("a key"), EncodingKey::from_ed_pem(ED_PEM).expect("a key"));
    let named = |algorithm, kid: Option<&str>, key: &EncodingKey| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        sign(&header, &claims(&[]), key)
    };
    let forged = named(Algorithm::ES256, Some("ec"), &ec);
    let (signed, _) = forged.rsplit_once('.').expect("three parts");
    check(
        &verifier,
        &[
            ("of the first key", named(Algorithm::ES256, Some("ec"), &ec), 1, None),
            ("of the last key", named(Algorithm::EdDSA, Some("ed"), &ed), 1, None),
            ("of the last key by the first one's name", named(Algorithm::EdDSA, Some("ec"), &ed), 0, bad),
            ("with a made up signature", format!("{signed}.{}", "A".repeat(86)), 1, bad),
            ("of a key that is not there", named(Algorithm::ES256, Some("no"), &ec), 0, bad),
            ("of a key without a name", named(Algorithm::ES256, None, &ec), 0, bad),
        ],
    );
}
