//! Revocations: what may be asked, what is kept, and what a file must be to be believed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use gateway::{
    auth::{DenyList, FOR_EVER, Issued, JTI_BYTES_MAX, Revocation, Span, Subject, TokenId},
    clock::unix_now,
    revocations::{ENTRIES_MAX, REVOCATIONS_FILE, RevocationsFile},
};
use protocol::ids::{UnixMillis, UserId};
use serde_json::{Value, json};

use crate::admin::{Server, TOKEN, check};

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a short word is an id")
}

fn of_user(name: &str, issued_before: u64) -> Revocation {
    let span = Span { issued_before, until: FOR_EVER };
    Revocation { subject: Subject::User(user(name)), span }
}

fn revoke(server: &Server, body: &str) -> String {
    server.ask_with("POST /v1/revoke", &format!("Authorization: Bearer {TOKEN}\r\n"), body)
}

/// What was answered to a revocation that was taken.
#[track_caller]
fn revoked(server: &Server, asked: &Value) -> Value {
    let answer = revoke(server, &asked.to_string());
    check(&answer, "200", "content-type: application/json\r\n");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

/// What the file holds.
fn file(server: &Server) -> Value {
    let text = fs::read_to_string(server.data.path().join(REVOCATIONS_FILE)).expect("it was written");
    serde_json::from_str(&text).expect("JSON")
}

fn seconds() -> u64 {
    unix_now().0 / 1000
}

#[test]
fn a_revocation_needs_the_token() {
    let server = Server::start();
    for headers in
        ["", "Authorization: Bearer wrong\r\n", "Authorization: Bearer\r\n", "Authorization: Basic YTpi\r\n"]
    {
        let answer = server.ask_with("POST /v1/revoke", headers, r#"{"user":"alice"}"#);
        check(&answer, "401", "www-authenticate: Bearer\r\n");
        check(&answer, "401", "admin token");
    }
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    check(&server.ask("GET /v1/revoke", &bearer), "405", "");
    assert!(!server.data.path().join(REVOCATIONS_FILE).exists());
    check(&server.ask("GET /metrics", ""), "200", "\ngatehouse_revocations 0\n");
    check(&server.ask("GET /", ""), "200", "POST /v1/revoke");
}

#[test]
fn what_is_no_revocation_is_refused_in_words() {
    let server = Server::start();
    let now = seconds();
    let one_of = "give one of: `user`, ";
    let long = "x".repeat(JTI_BYTES_MAX + 1);
    for (body, words) in [
        (String::new(), "it must be a JSON object"),
        ("alice".to_owned(), "it must be a JSON object"),
        (r#"["alice"]"#.to_owned(), "it must be a JSON object"),
        (r#"{"user":"alice""#.to_owned(), "this is not a revocation: EOF"),
        ("{}".to_owned(), one_of),
        (r#"{"user":"alice"} {}"#.to_owned(), "this is not a revocation: trailing"),
        (r#"{"users":"alice"}"#.to_owned(), "unknown field `users`"),
        (r#"{"user":"alice","user":"bob"}"#.to_owned(), "duplicate field `user`"),
        (json!({ "user": null, "issued_before": now }).to_string(), "invalid type: null"),
        (json!({ "user": 7 }).to_string(), "this is not a revocation: "),
        (json!({ "user": "" }).to_string(), "`user` is none: "),
        (json!({ "user": "a\u{0}" }).to_string(), "`user` is none: "),
        (json!({ "user": "x".repeat(65) }).to_string(), "`user` is none: "),
        (json!({ "user": "alice", "jti": "1" }).to_string(), one_of),
        (json!({ "jti": "1", "issued_before": now }).to_string(), one_of),
        (json!({ "until": now + 60 }).to_string(), one_of),
        (json!({ "jti": "" }).to_string(), "`jti` must be 1..=256 bytes"),
        (json!({ "jti": long }).to_string(), "`jti` must be 1..=256 bytes"),
        (json!({ "jti": "a\nb" }).to_string(), "`jti` must be 1..=256 bytes"),
        (json!({ "jti": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln" }).to_string(), "holds a whole token"),
        (json!({ "issued_before": -1 }).to_string(), "this is not a revocation: "),
        (json!({ "issued_before": 1.5 }).to_string(), "this is not a revocation: "),
        (json!({ "issued_before": now + 3600 }).to_string(), "`issued_before` lies in the future"),
        (json!({ "issued_before": now * 1000 }).to_string(), "`issued_before` lies in the future"),
        (json!({ "user": "a", "until": now }).to_string(), "`until` has passed already"),
        (json!({ "user": "a", "until": now * 1000 }).to_string(), "`until` lies behind the year 9999"),
        (json!({ "user": "a", "until": u64::MAX }).to_string(), "`until` lies behind the year 9999"),
        (format!("{}{}", r#"{"user":"alice"}"#, " ".repeat(4096)), "larger than 4096 bytes"),
    ] {
        check(&revoke(&server, &body), "400", words);
    }
    assert!(!server.data.path().join(REVOCATIONS_FILE).exists(), "nothing was revoked");
}

#[test]
fn the_answer_says_what_is_revoked_and_the_file_has_it() {
    let server = Server::start();
    let before = seconds();
    let answer = revoked(&server, &json!({ "user": "alice" }));
    let bound = answer["revoked"]["issued_before"].as_u64().expect("up to now");
    assert!((before + 1..=seconds() + 1).contains(&bound), "up to now, this second included: {answer}");
    assert_eq!(
        answer,
        json!({ "revoked": { "user": "alice", "issued_before": bound }, "sessions_closed": 0 })
    );
    let until = before + 3600;
    let answer = revoked(&server, &json!({ "jti": "4f0c", "until": until }));
    assert_eq!(answer["revoked"], json!({ "jti": "4f0c", "until": until }));
    let answer = revoked(&server, &json!({ "jti": "4f0c", "until": until - 60 }));
    assert_eq!(answer["revoked"], json!({ "jti": "4f0c", "until": until }), "the later of both");
    let answer = revoked(&server, &json!({ "user": "alice", "issued_before": 5, "until": until }));
    assert_eq!(answer["revoked"], json!({ "user": "alice", "issued_before": bound }), "the later of both");
    revoked(&server, &json!({ "issued_before": 7 }));
    let kept = json!({ "version": 1, "revocations": [
        { "issued_before": 7 },
        { "jti": "4f0c", "until": until },
        { "user": "alice", "issued_before": bound },
    ]});
    let mut written = file(&server);
    assert!(written.as_object_mut().expect("a document").remove("sum").is_some());
    assert_eq!(written, kept);
    check(&server.ask("GET /metrics", ""), "200", "\ngatehouse_revocations 3\n");
    let metadata = fs::metadata(server.data.path().join(REVOCATIONS_FILE)).expect("it was written");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    let read = RevocationsFile::of(server.data.path()).read().expect("what it wrote it reads");
    assert_eq!(read.len(), 3);
    assert!(read.contains(&of_user("alice", bound)), "{read:?}");
}

#[test]
fn the_list_is_bounded_and_everybody_takes_the_place_of_users() {
    let many: Vec<_> = (0..ENTRIES_MAX).map(|number| of_user(&format!("user-{number}"), 10)).collect();
    let server = Server::start_with(many);
    let full = revoke(&server, &json!({ "user": "one-more" }).to_string());
    check(&full, "507", "nothing was revoked: 10000 users and tokens are");
    check(
        &revoke(&server, &json!({ "jti": "one-more" }).to_string()),
        "507",
        "`until` lets them be forgotten",
    );
    assert!(!server.data.path().join(REVOCATIONS_FILE).exists());
    // One that is there already, and all: these always have room.
    revoked(&server, &json!({ "user": "user-7", "issued_before": 12 }));
    assert_eq!(file(&server)["revocations"].as_array().map(Vec::len), Some(ENTRIES_MAX));
    revoked(&server, &json!({ "issued_before": 11 }));
    let left = json!([{ "issued_before": 11 }, { "user": "user-7", "issued_before": 12 }]);
    assert_eq!(file(&server)["revocations"], left, "what all cover is not kept for each");
    revoked(&server, &json!({ "user": "one-more", "issued_before": 12 }));
}

#[test]
fn what_cannot_be_written_is_in_force_but_not_promised() {
    let server = Server::start();
    let (path, elsewhere) = (server.data.path().to_owned(), server.data.path().with_extension("away"));
    fs::rename(&path, &elsewhere).expect("our own directory");
    let refused = revoke(&server, &json!({ "user": "alice", "issued_before": 9 }).to_string());
    check(&refused, "500", "it is in force until this node stops, but revocations.json could not be written");
    check(&server.ask("GET /metrics", ""), "200", "\ngatehouse_revocations 1\n");
    fs::rename(&elsewhere, &path).expect("it stands there");
    // The next one writes both.
    revoked(&server, &json!({ "user": "bob", "issued_before": 9 }));
    let both = json!([{ "user": "alice", "issued_before": 9 }, { "user": "bob", "issued_before": 9 }]);
    assert_eq!(file(&server)["revocations"], both);
}

#[test]
fn a_file_that_cannot_be_understood_is_refused_in_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = RevocationsFile::of(directory.path());
    assert_eq!(file.read().expect("none yet"), []);
    let list = vec![of_user("alice", 5), of_user("bob", 6)];
    file.write(&list).expect("there is room");
    let path = directory.path().join(REVOCATIONS_FILE);
    let whole = fs::read(&path).expect("it was written");
    let mut contents: Vec<(Vec<u8>, &str)> = vec![
        (br#"{"version":2,"what":[]}"#.to_vec(), "it has version 2 and this program knows 1"),
        (br#"{"version":1}"#.to_vec(), "missing field `revocations`"),
        (br#"{"version":1,"revocations":[],"more":1}"#.to_vec(), "unknown field `more`"),
        (br#"{"version":1,"revocations":[{"user":"alice"}]}"#.to_vec(), "entry 1 of it: give one of"),
        (br#"{"version":1,"revocations":[{"jti":""}]}"#.to_vec(), "entry 1 of it: `jti` must be"),
        (vec![0xFF; 64], "UTF-8"),
        (vec![b' '; 9 << 20], "larger than 8388608 bytes"),
    ];
    // The line end behind it is not missed.
    contents.extend((0..whole.len() - 1).map(|length| (whole[..length].to_vec(), "")));
    for (content, words) in contents {
        fs::write(&path, &content).expect("our own file");
        let error = format!("{:#}", file.read().expect_err("it is damaged"));
        for word in ["revocations.json cannot be used", "restore it from a backup", words] {
            assert!(error.contains(word), "no {word:?} in {error}");
        }
    }
    fs::write(&path, &whole).expect("our own file");
    let mut read = file.read().expect("it is whole again");
    read.sort_by_key(|revocation| revocation.span.issued_before);
    assert_eq!(read, list);
}

#[test]
fn a_list_refuses_what_it_names_while_it_lasts() {
    let at = |seconds: u64| UnixMillis(seconds * 1000);
    let issued = |seconds: u32, jti: &str| Issued { at: seconds, id: TokenId::of(jti) };
    let bounded = |subject, issued_before, until| Revocation { subject, span: Span { issued_before, until } };
    let alice = Subject::User(user("alice"));
    let mut list: DenyList = [
        bounded(alice.clone(), 100, FOR_EVER),
        bounded(Subject::Token("one".to_owned()), FOR_EVER, 500),
        bounded(Subject::Everyone, 50, 400),
    ]
    .iter()
    .collect();
    for (name, token, now, expected) in [
        ("alice", issued(99, "a"), 200, true),
        ("alice", issued(100, "a"), 200, false),
        ("alice", issued(99, "a"), 1_000_000, true),
        ("bob", issued(99, "a"), 200, false),
        ("bob", issued(49, "a"), 399, true),
        ("bob", issued(49, "a"), 400, false),
        ("bob", issued(50, "a"), 399, false),
        ("bob", issued(4_000_000_000, "one"), 499, true),
        ("bob", issued(99, "one"), 500, false),
        ("bob", Issued { at: 99, id: TokenId::NONE }, 200, false),
    ] {
        assert_eq!(list.revokes(&user(name), token, at(now)), expected, "{name} {token:?} at {now}");
    }
    // In whichever order and however often: what was revoked stays so.
    list.insert(&bounded(alice, 80, 300));
    list.prune(at(450));
    assert!(list.revokes(&user("alice"), issued(99, "a"), at(450)));
    assert!(list.revokes(&user("bob"), issued(99, "one"), at(450)));
    assert!(!list.revokes(&user("bob"), issued(1, "a"), at(450)), "that one is over");
    list.insert(&bounded(Subject::Everyone, 200, FOR_EVER));
    list.prune(at(500));
    assert!(list.revokes(&user("alice"), issued(99, "a"), at(500)));
    assert!(list.revokes(&user("bob"), issued(199, "a"), at(500)));
}
