//! Erasures: what may be asked, and what is kept of them.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use gateway::erasures::{ERASURES_FILE, ERASURES_MAX, Erasure, ErasuresFile};
use protocol::ids::UserId;
use router::conversation::Subject;
use serde_json::{Value, json};

use crate::admin::{Server, TOKEN, check};

const ID: &str = "43d9a8ed-1145-8f40-bbab-cd5f630625db";

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

fn erase(server: &Server, body: &str) -> String {
    server.ask_with("POST /v1/erase", &bearer(), body)
}

/// The body of an answer that is JSON.
#[track_caller]
fn json_of(answer: &str) -> Value {
    check(answer, "200", "content-type: application/json\r\n");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

fn of_user(number: usize, done_at: Option<u64>) -> Erasure {
    let user = UserId::new(&format!("user-{number}")).expect("a short word is an id");
    let subject = Subject::User(user);
    Erasure { asked_at: 1 + number as u64, subject, logs: BTreeMap::from([(0, 5)]), done_at }
}

fn kept(server: &Server) -> Vec<Erasure> {
    ErasuresFile::of(server.data.path()).read().expect("what it wrote it reads")
}

#[test]
fn an_erasure_and_its_report_need_the_token() {
    let server = Server::start();
    for headers in ["", "Authorization: Bearer wrong\r\n"] {
        check(&server.ask_with("POST /v1/erase", headers, r#"{"user":"alice"}"#), "401", "admin token");
        check(&server.ask("GET /v1/erase", headers), "401", "admin token");
    }
    check(&server.ask("DELETE /v1/erase", &bearer()), "405", "");
    assert!(!server.data.path().join(ERASURES_FILE).exists());
    assert_eq!(json_of(&server.ask("GET /v1/erase", &bearer())), json!({ "erasures": [] }));
    check(&server.ask("GET /", ""), "200", "POST /v1/erase");
}

#[test]
fn what_is_no_erasure_is_refused_in_words() {
    let server = Server::start();
    let one_of = "give one of: `user`, `conversation`, ";
    for (body, words) in [
        (String::new(), "it must be a JSON object"),
        (r#"["alice"]"#.to_owned(), "it must be a JSON object"),
        ("{}".to_owned(), one_of),
        (r#"{"users":"alice"}"#.to_owned(), "unknown field `users`"),
        (json!({ "user": null }).to_string(), "invalid type: null"),
        (json!({ "user": "" }).to_string(), "`user` is none: "),
        (json!({ "user": "alice", "conversation": ID }).to_string(), one_of),
        (json!({ "user": "alice", "below": 5 }).to_string(), one_of),
        (json!({ "below": 5 }).to_string(), one_of),
        (json!({ "conversation": "alice" }).to_string(), "no UUID in canonical text"),
        (json!({ "conversation": ID, "below": null }).to_string(), "invalid type: null"),
        (json!({ "conversation": ID, "below": 1 }).to_string(), "nothing stands before `below`"),
        (json!({ "conversation": ID, "below": -1 }).to_string(), "this is not an erasure: "),
        (format!("{}{}", r#"{"user":"alice"}"#, " ".repeat(4096)), "larger than 4096 bytes"),
    ] {
        check(&erase(&server, &body), "400", words);
    }
    assert!(!server.data.path().join(ERASURES_FILE).exists(), "nothing was erased");
}

#[test]
fn what_was_asked_is_told_and_kept_in_its_order() {
    let server = Server::start();
    let asked = [
        json!({ "user": "alice" }),
        json!({ "conversation": ID }),
        json!({ "conversation": ID, "below": 9 }),
        json!({ "user": "alice" }),
    ];
    let mut times = vec![0];
    for asked in &asked {
        let answer = json_of(&erase(&server, &asked.to_string()));
        assert_eq!(answer["erased"], *asked);
        times.push(answer["asked_at"].as_u64().expect("a time"));
    }
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    let report = json_of(&server.ask("GET /v1/erase", &bearer()));
    for (place, asked) in asked.iter().enumerate() {
        let mut line = asked.clone();
        // Of a log that no shard answers for nobody knows what is left.
        (line["asked_at"], line["logs"]) = (times[place + 1].into(), json!([{ "log": 0 }]));
        assert_eq!(report["erasures"][place], line);
    }
    let told: Vec<u64> = kept(&server).iter().map(|erasure| erasure.asked_at).collect();
    assert_eq!(told, times[1..]);
    let metadata = fs::metadata(server.data.path().join(ERASURES_FILE)).expect("it was written");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    check(&server.ask("GET /metrics", ""), "200", "\ngatehouse_erasures{state=\"pending\"} 4\n");
}

#[test]
fn the_list_is_bounded_and_what_is_done_gives_way() {
    let many =
        |done: usize| (0..ERASURES_MAX).map(move |number| of_user(number, (number == done).then_some(9)));
    let server = Server::start_with_erased(many(ERASURES_MAX).collect());
    check(
        &erase(&server, r#"{"user":"one-more"}"#),
        "507",
        "nothing was erased: 10000 erasures are under way",
    );
    assert!(!server.data.path().join(ERASURES_FILE).exists());
    let server = Server::start_with_erased(many(7).collect());
    check(&server.ask("GET /metrics", ""), "200", "\ngatehouse_erasures{state=\"done\"} 1\n");
    json_of(&erase(&server, r#"{"user":"one-more"}"#));
    let kept = kept(&server);
    assert_eq!((kept.len(), kept[7].asked_at), (ERASURES_MAX, 9));
    check(&erase(&server, r#"{"user":"yet-another"}"#), "507", "");
}

#[test]
fn what_cannot_be_written_is_in_force_but_not_promised() {
    let server = Server::start();
    let (path, elsewhere) = (server.data.path().to_owned(), server.data.path().with_extension("away"));
    fs::rename(&path, &elsewhere).expect("our own directory");
    check(&erase(&server, r#"{"user":"alice"}"#), "500", "in force until this node stops, but erasures.json");
    fs::rename(&elsewhere, &path).expect("it stands there");
    // The next one writes both.
    json_of(&erase(&server, r#"{"user":"bob"}"#));
    assert_eq!(kept(&server).len(), 2);
}
