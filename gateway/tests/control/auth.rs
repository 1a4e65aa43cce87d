//! Tokens that must not pass, keys that must not be used, and the ones that must.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gateway::{
    auth::{
        AdminToken, Issued, KeyError, Keys, TokenCache, TokenError, TokenId, Verified, Verifier, check,
        development_banner,
    },
    config::{Config, KeyConfig},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use protocol::{
    command::Command,
    ids::{UnixMillis, UserId},
    json::decode_request,
};
use serde_json::{Value, json};

/// A clock reading of these tests, in milliseconds; in seconds it is [`NOW_SECONDS`].
const NOW: UnixMillis = UnixMillis(NOW_SECONDS * 1000);
const NOW_SECONDS: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Two pairs for these tests and nothing else.
const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIF3aRFc4usCpgdVtTePpGHeQtNQ29X0h7234mcrLSuCz\n\
    -----END PRIVATE KEY-----\n";
const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEA1IbL5AJRMqCMTt89oTsWq073TOQqts4VmptT0tW22SQ=\n\
    -----END PUBLIC KEY-----\n";
const OTHER_PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAR9vM+Nr2fnIjAxAFypNi3HAopWzcchx5MYIOCLgZqF\n\
    -----END PRIVATE KEY-----\n";

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a short word is an id")
}

fn verifier() -> Verifier {
    Keys::from_secret(SECRET).expect("32 bytes").verifier
}

/// A token of these claims under the shared secret.
fn sign(claims: &Value) -> String {
    sign_as(&Header::new(Algorithm::HS256), claims, SECRET)
}

fn sign_as(header: &Header, claims: &Value, secret: &[u8]) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).expect("claims are JSON")
}

fn good_claims() -> Value {
    json!({"sub": "alice", "iat": NOW_SECONDS, "exp": NOW_SECONDS + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good_claims();
    claims[name] = value;
    claims
}

fn write(directory: &Path, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
    path
}

fn development(directory: &Path) -> Config {
    Config { data: directory.join("data"), ..Config::default() }
}

#[test]
fn a_good_token_names_its_user_until_its_end() {
    let token = sign(&good_claims());
    let expires_at = UnixMillis(NOW.0 + 60_000);
    let issued = Issued { at: NOW_SECONDS as u32, id: TokenId::NONE };
    let verified = Verified { user: user("alice"), expires_at, issued };
    assert_eq!(verifier().verify(&token, NOW), Ok(verified.clone()));
    assert_eq!(verifier().verify(&token, UnixMillis(expires_at.0 - 1)), Ok(verified));
    assert_eq!(verifier().verify(&token, expires_at), Err(TokenError::Expired));
}

#[test]
fn claims_are_judged_by_the_callers_clock() {
    for (claims, expected) in [
        (with("iat", json!(NOW_SECONDS + 60)), Ok(())),
        (with("iat", json!(NOW_SECONDS + 61)), Err(TokenError::Bad)),
        (with("iat", json!(0)), Ok(())),
        (with("nbf", json!(NOW_SECONDS)), Ok(())),
        (with("nbf", json!(NOW_SECONDS + 1)), Err(TokenError::Bad)),
        (with("nbf", json!("soon")), Err(TokenError::Bad)),
        (with("exp", json!(NOW_SECONDS as f64 + 0.5)), Ok(())),
        (with("exp", json!(NOW_SECONDS)), Err(TokenError::Expired)),
        (with("exp", json!(NOW_SECONDS - 1)), Err(TokenError::Expired)),
        (with("exp", json!(-1)), Err(TokenError::Bad)),
        (with("exp", json!(NOW.0 + 60_000)), Err(TokenError::Bad)),
        (with("exp", json!(1e300)), Err(TokenError::Bad)),
        (with("exp", json!("1900000000")), Err(TokenError::Bad)),
        (with("exp", Value::Null), Err(TokenError::Bad)),
        (with("iat", Value::Null), Err(TokenError::Bad)),
        (with("sub", json!("")), Err(TokenError::Bad)),
        (with("sub", json!("a\u{0}")), Err(TokenError::Bad)),
        (with("sub", json!("x".repeat(65))), Err(TokenError::Bad)),
        (with("sub", json!(7)), Err(TokenError::Bad)),
        (with("jti", json!("x".repeat(1000))), Ok(())),
        (with("jti", json!(7)), Err(TokenError::Bad)),
        (with("aud", json!("anyone")), Ok(())),
        (with("iss", json!("anyone")), Ok(())),
        (with("more", json!({"of": ["it"]})), Ok(())),
    ] {
        assert_eq!(verifier().verify(&sign(&claims), NOW).map(|_| ()), expected, "{claims}");
    }
    for missing in ["sub", "iat", "exp"] {
        let mut claims = good_claims();
        claims.as_object_mut().expect("claims are an object").remove(missing);
        assert_eq!(verifier().verify(&sign(&claims), NOW), Err(TokenError::Bad), "without {missing}");
    }
}

#[test]
fn issuer_and_audience_count_when_they_are_configured() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = Config {
        issuer: Some("us".into()),
        audience: Some("chat".into()),
        keys: KeyConfig::Hs256 { key_file: write(directory.path(), "k", &"s".repeat(32), 0o600) },
        ..Config::default()
    };
    let keys = Keys::load(&config).expect("a good key");
    let own = keys.issuer.expect("a shared secret signs").issue(&user("bob"), Duration::from_secs(1), NOW);
    assert!(keys.verifier.verify(&own, NOW).is_ok(), "our own tokens claim what is asked for");
    for (iss, aud, expected) in [
        (json!("us"), json!("chat"), Ok(())),
        (json!("us"), json!(["mail", "chat"]), Ok(())),
        (json!("us"), json!(["mail"]), Err(TokenError::Bad)),
        (json!("us"), json!([]), Err(TokenError::Bad)),
        (json!("us"), Value::Null, Err(TokenError::Bad)),
        (json!("them"), json!("chat"), Err(TokenError::Bad)),
        (Value::Null, json!("chat"), Err(TokenError::Bad)),
        (json!(["us"]), json!("chat"), Err(TokenError::Bad)),
    ] {
        let mut claims = good_claims();
        (claims["iss"], claims["aud"]) = (iss, aud);
        let token = sign_as(&Header::new(Algorithm::HS256), &claims, &[b's'; 32]);
        assert_eq!(keys.verifier.verify(&token, NOW).map(|_| ()), expected, "{claims}");
    }
}

#[test]
fn the_algorithm_is_the_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = eddsa(directory.path(), PRIVATE_PEM).expect("one pair");
    let token = keys.issuer.expect("a private key signs").issue(&user("alice"), Duration::from_secs(9), NOW);
    assert_eq!(keys.verifier.verify(&token, NOW).map(|verified| verified.user), Ok(user("alice")));
    assert_eq!(verifier().verify(&token, NOW), Err(TokenError::Bad), "EdDSA for an HS256 key");
    // A shared secret that everybody knows: the public key, in each form it could be taken for one.
    let raw = URL_SAFE_NO_PAD.decode("1IbL5AJRMqCMTt89oTsWq073TOQqts4VmptT0tW22SQ").expect("base64");
    for secret in [PUBLIC_PEM.as_bytes(), PUBLIC_PEM.trim_end().as_bytes(), &raw] {
        let forged = sign_as(&Header::new(Algorithm::HS256), &good_claims(), secret);
        assert_eq!(keys.verifier.verify(&forged, NOW), Err(TokenError::Bad));
    }
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = sign_as(&Header::new(algorithm), &good_claims(), SECRET);
        assert_eq!(
            verifier().verify(&token, NOW),
            Err(TokenError::Bad),
            "{algorithm:?} with the right secret"
        );
    }
}

#[test]
fn junk_is_bad_and_nothing_else() {
    let good = sign(&good_claims());
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (_, payload) = message.split_once('.').expect("two parts");
    let none = |name: &str| {
        let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{name}\"}}"));
        format!("{header}.{payload}.")
    };
    let mut junk = vec![
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        message.into(),
        format!("{message}."),
        format!("{message}.{}", &signature[1..]),
        format!("{good}A"),
        format!("{good}."),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{message}.{}", signature.to_lowercase()),
        "€".repeat(100),
        "a.".repeat(1000),
        "A".repeat(1 << 20),
        format!("{good}{}", "A".repeat(1 << 20)),
        none("none"),
        none("None"),
        none("HS256"),
        sign_as(&Header::new(Algorithm::HS256), &good_claims(), b"another secret, of thirty-two bytes"),
    ];
    junk.extend((0..good.len()).map(|length| good[..length].to_owned()));
    let doubled = format!("{{\"sub\":\"a\",\"sub\":\"b\",\"iat\":0,\"exp\":{}}}", NOW_SECONDS + 9);
    junk.push(sign_text(&doubled));
    junk.push(sign_text(&"[".repeat(4000)));
    junk.push(sign_text("null"));
    junk.push(sign_text(""));
    for token in junk {
        assert_eq!(verifier().verify(&token, NOW), Err(TokenError::Bad), "{}", &token[..token.len().min(80)]);
    }
    // Expired and forged is forged: whether a token would have been good is not told.
    let forged = sign_as(&Header::new(Algorithm::HS256), &with("exp", json!(1)), &[b'x'; 32]);
    assert_eq!(verifier().verify(&forged, NOW), Err(TokenError::Bad));
}

/// A rightly signed token of any payload.
fn sign_text(payload: &str) -> String {
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}"), URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(SECRET);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("HMAC signs");
    format!("{message}.{signature}")
}

#[test]
fn headers_point_nowhere_and_demand_nothing() {
    let mut header = Header::new(Algorithm::HS256);
    header.jku = Some("http://127.0.0.1:9/keys".into());
    header.kid = Some("../../etc/passwd".into());
    let token = sign_as(&header, &good_claims(), SECRET);
    assert!(verifier().verify(&token, NOW).is_ok(), "the hints are not followed, and the signature is right");
    header.crit = Some(vec!["exp".into()]);
    let token = sign_as(&header, &good_claims(), SECRET);
    assert_eq!(verifier().verify(&token, NOW), Err(TokenError::Bad), "an extension we do not know");
}

#[test]
fn the_cache_answers_as_the_verifier_does_and_never_after_the_end() {
    let verifier = verifier();
    let mut cache = TokenCache::new([7; 32]);
    let token = sign(&good_claims());
    let expires_at = UnixMillis(NOW.0 + 60_000);
    for now in [NOW, UnixMillis(expires_at.0 - 1), expires_at, NOW] {
        assert_eq!(cache.check(&verifier, &token, now), verifier.verify(&token, now), "at {now}");
    }
    assert_eq!(cache.entries(), 1);
    for bad in ["junk", &token[1..], &"A".repeat(1 << 20)] {
        assert_eq!(cache.check(&verifier, bad, NOW), Err(TokenError::Bad));
    }
    assert_eq!(cache.entries(), 1, "bad tokens take no room");
}

#[test]
fn the_cache_is_bounded_and_forgets_the_oldest() {
    let keys = Keys::from_secret(SECRET).expect("32 bytes");
    let issuer = keys.issuer.expect("a shared secret signs");
    let mut cache = TokenCache::new([7; 32]);
    for number in 0..5000 {
        let token = issuer.issue(&user(&format!("user-{number}")), Duration::from_secs(60), NOW);
        let verified = cache.check(&keys.verifier, &token, NOW).expect("a good token");
        assert_eq!(verified.user.as_str(), format!("user-{number}"));
    }
    assert_eq!(cache.entries(), 4096);
}

#[test]
fn a_development_key_is_made_once_for_its_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = development(directory.path());
    let keys = Keys::load(&config).expect("a new key");
    assert!(keys.is_development);
    let path = config.data.join("dev.key");
    let content = fs::read_to_string(&path).expect("the key");
    assert!(
        content.trim_end().len() == 64 && content.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit())
    );
    assert_eq!(fs::metadata(&path).expect("the key").permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(&config.data).expect("the directory").permissions().mode() & 0o7777, 0o700);
    let token = keys.issuer.expect("it signs").issue(&user("a"), Duration::from_secs(9), NOW);
    let again = Keys::load(&config).expect("the same key");
    assert!(again.verifier.verify(&token, NOW).is_ok(), "a restart takes the tokens of before");
    // The file's text is the secret, so any other program can sign with it.
    let foreign = sign_as(&Header::new(Algorithm::HS256), &good_claims(), content.trim_end().as_bytes());
    assert!(again.verifier.verify(&foreign, NOW).is_ok());
}

#[test]
fn two_processes_that_make_a_key_at_once_have_the_same() {
    const STARTERS: usize = 8;
    let directory = tempfile::tempdir().expect("a directory");
    let config = development(directory.path());
    let barrier = Barrier::new(STARTERS);
    let tokens: Vec<_> = thread::scope(|scope| {
        let start = || {
            barrier.wait();
            let keys = Keys::load(&config).expect("a key");
            keys.issuer.expect("it signs").issue(&user("a"), Duration::from_secs(9), NOW)
        };
        let threads: Vec<_> = (0..STARTERS).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(fs::read_dir(&config.data).expect("the directory").count(), 1, "nothing is left behind");
}

#[test]
fn exposed_short_and_strange_files_are_refused_in_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = "s".repeat(32);
    let at = directory.path();
    for (path, expected) in [
        (write(at, "world", &secret, 0o604), "other users can read or change this key file (mode 0604)"),
        (write(at, "group", &secret, 0o640), "chmod 600"),
        (write(at, "short", "0123456789\n", 0o600), "holds 10 bytes, and fewer than 32 can be guessed"),
        (write(at, "huge", &"s".repeat(1 << 17), 0o600), "larger than any key"),
        (at.to_owned(), "not a regular file"),
        (at.join("missing"), "could not be read: No such file"),
    ] {
        let config = Config { keys: KeyConfig::Hs256 { key_file: path.clone() }, ..Config::default() };
        let error = Keys::load(&config).err().expect("no such key").to_string();
        assert!(error.contains(expected) && error.contains(&path.display().to_string()), "{error}");
        assert!(!error.contains("ssss"), "a key in a message");
        let checked: Vec<_> = check(&config).iter().map(|(_, error)| error.to_string()).collect();
        assert_eq!(checked, [error]);
    }
    let target = write(at, "good", &secret, 0o400);
    let link = at.join("link");
    symlink(&target, &link).expect("a link");
    for key_file in [target, link] {
        let config = Config { keys: KeyConfig::Hs256 { key_file }, ..Config::default() };
        assert!(Keys::load(&config).is_ok());
    }
}

#[test]
fn an_exposed_development_key_is_refused_and_not_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = development(directory.path());
    fs::create_dir(&config.data).expect("a directory");
    let path = write(&config.data, "dev.key", &"s".repeat(64), 0o644);
    assert!(matches!(Keys::load(&config), Err(KeyError::Exposed { mode: 0o644, .. })));
    write(&config.data, "admin.token", "short", 0o600);
    assert!(matches!(
        &check(&config)[..],
        [("data", KeyError::Exposed { .. }), ("data", KeyError::TooShort { .. })]
    ));
    assert_eq!(fs::read_to_string(path).expect("the key"), "s".repeat(64));
}

fn eddsa(directory: &Path, private_pem: &str) -> Result<Keys, KeyError> {
    let keys = KeyConfig::Eddsa {
        public_key_file: write(directory, "public.pem", PUBLIC_PEM, 0o644),
        private_key_file: Some(write(directory, "private.pem", private_pem, 0o600)),
    };
    Keys::load(&Config { keys, ..Config::default() })
}

#[test]
fn key_pairs_are_checked_before_anybody_depends_on_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    assert!(matches!(eddsa(at, OTHER_PRIVATE_PEM), Err(KeyError::Mismatch { .. })));
    assert!(matches!(eddsa(at, PUBLIC_PEM), Err(KeyError::Malformed { .. })));
    assert!(matches!(eddsa(at, "junk"), Err(KeyError::Malformed { .. })));
    let public = |content: &str, mode| {
        let public_key_file = write(at, "public.pem", content, mode);
        let keys = KeyConfig::Eddsa { public_key_file, private_key_file: None };
        Keys::load(&Config { keys, ..Config::default() })
    };
    assert!(public(PUBLIC_PEM, 0o644).is_ok_and(|keys| keys.issuer.is_none()));
    assert!(matches!(public(PUBLIC_PEM, 0o666), Err(KeyError::Exposed { .. })), "others could replace it");
    assert!(matches!(public(PRIVATE_PEM, 0o600), Err(KeyError::Malformed { .. })));
    assert!(matches!(public("", 0o644), Err(KeyError::Malformed { .. })));
}

#[test]
fn the_admin_token_is_made_once_and_compared_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = development(directory.path());
    let token = AdminToken::load(&config).expect("a new token");
    let content = fs::read_to_string(config.data.join("admin.token")).expect("the token");
    let text = content.trim_end();
    assert!(token.matches(text.as_bytes()));
    assert!(AdminToken::load(&config).expect("the same").matches(text.as_bytes()));
    for wrong in [&b""[..], &text.as_bytes()[1..], content.as_bytes(), b"admin"] {
        assert!(!token.matches(wrong));
    }
    let admin_token_file = Some(write(directory.path(), "short", "admin", 0o600));
    let config = Config { admin_token_file, ..config };
    assert!(matches!(AdminToken::load(&config), Err(KeyError::TooShort { bytes: 5, .. })));
}

#[test]
fn nothing_shows_a_secret() {
    let keys = Keys::from_secret(SECRET).expect("32 bytes");
    let issuer = keys.issuer.expect("a shared secret signs");
    let admin = AdminToken::new(SECRET);
    let mut cache = TokenCache::new([b's'; 32]);
    let token = issuer.issue(&user("a"), Duration::from_secs(9), NOW);
    cache.check(&keys.verifier, &token, NOW).expect("a good token");
    let shown = format!("{:?} {issuer:?} {admin:?} {cache:?} {:?}", keys.verifier, Config::default());
    for secret in ["0123456789", "48, 49, 50", "30313233", "115, 115", &token[..20]] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn the_banner_is_for_development_only_and_what_it_says_works() {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = Keys::load(&development(directory.path())).expect("a new key");
    let listen: SocketAddr = "127.0.0.1:7100".parse().expect("an address");
    let banner = development_banner(&keys, listen, NOW).expect("a development key");
    let token_of = |name: &str| {
        let line = banner.lines().find_map(|line| line.strip_prefix(name)).expect("a line of its own");
        line.trim_start().to_owned()
    };
    for name in ["alice", "bob"] {
        let verified = keys.verifier.verify(&token_of(name), NOW).expect("a good token");
        let expires_at = UnixMillis(NOW.0 + 24 * 60 * 60 * 1000);
        assert_eq!((verified.user, verified.expires_at), (user(name), expires_at));
    }
    assert!(banner.lines().any(|line| line == "websocat ws://127.0.0.1:7100/v1/connect"), "{banner}");
    let frames: Vec<_> = banner.lines().filter(|line| line.starts_with('{')).collect();
    let commands: Vec<Command> =
        frames.iter().map(|frame| decode_request(frame).expect("a command").command).collect();
    assert!(matches!(&commands[..], [Command::Connect(_), Command::Send(_)]), "{frames:?}");
    let configured = Keys::from_secret(SECRET).expect("32 bytes");
    assert_eq!(development_banner(&configured, listen, NOW), None);
}
