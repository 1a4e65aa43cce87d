//! Tokens that were good and are taken back, from outside: who is put out, who is kept out, and for how long.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    chat::{Chat, Received, verdict},
    node::{Node, PATIENCE, check_refused, directory},
};

/// By when a live session must have been closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// Sessions of the test that revokes everything: on each of two shards more than are closed in one turn.
const MANY: usize = 700;

const REVOKED: &str = "2001 bad_token, the token was revoked, 4102";

/// A node, its key and its admin token.
struct Place {
    data: TempDir,
    node: Node,
}

impl Place {
    fn start() -> Self {
        let data = directory();
        let node = Node::start(data.path(), &[]);
        Self { data, node }
    }

    fn secret(&self, file: &str) -> String {
        let content = fs::read_to_string(self.data.path().join(file)).expect("the node made it");
        content.trim_end().to_owned()
    }

    /// A token of `user` that was issued at this second, or will be.
    fn token(&self, user: &str, issued_at: i64, jti: Option<&str>) -> String {
        let mut claims = json!({ "sub": user, "iat": issued_at, "exp": now() + 3600 });
        if let Some(jti) = jti {
            claims["jti"] = jti.into();
        }
        let key = self.secret("dev.key");
        let key = EncodingKey::from_secret(key.as_bytes());
        jsonwebtoken::encode(&Header::default(), &claims, &key).expect("it can be signed")
    }

    fn connect(&self, token: &str, device: &str) -> Chat {
        Chat::connect_with(&self.node, token, json!({ "device": device }))
    }

    /// What the admin answers to a revocation that it takes.
    #[track_caller]
    fn revoke(&self, asked: &Value) -> Value {
        let mut stream = TcpStream::connect(self.node.admin).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
        let (token, body) = (self.secret("admin.token"), asked.to_string());
        write!(
            stream,
            "POST /v1/revoke HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(body).expect("JSON")
    }

    /// What `connect` with this token comes to, on whichever shard takes it: asked for until both have.
    #[track_caller]
    fn check(&self, token: &str, expected: &str) {
        for attempt in 0..12 {
            let mut chat = Chat::open(&self.node);
            chat.send("connect", json!({ "device": format!("check-{attempt}"), "token": token }));
            let outcome = match chat.next() {
                Received::Frame(frame) if frame["op"] == "welcome" => "welcome".to_owned(),
                Received::Frame(frame) => {
                    let Received::Closed(code) = chat.next() else { panic!("no close after {frame}") };
                    format!("{}, {}, {code}", verdict(&frame), frame["message"].as_str().expect("words"))
                }
                ended => panic!("{ended:?} without a word"),
            };
            assert_eq!(outcome, expected);
            if outcome == "welcome" {
                return;
            }
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// That a session ends with 4102, whatever came before.
#[track_caller]
fn is_out(chat: &mut Chat) {
    let (_, ended) = chat.until_closed(|_, _| {});
    assert_eq!(ended, Received::Closed(4102));
}

#[test]
fn a_revoked_user_is_out_and_stays_out_and_nobody_else_notices() {
    let place = Place::start();
    let old = place.token("alice", now() - 5, None);
    let mut phones = [place.connect(&old, "phone"), place.connect(&old, "tablet")];
    let mut bob = place.connect(&place.token("bob", now() - 5, None), "phone");
    bob.tell("alice", "are you there?");
    let begun = Instant::now();
    let answer = place.revoke(&json!({ "user": "alice" }));
    phones.iter_mut().for_each(is_out);
    assert!(begun.elapsed() < CLOSED_WITHIN, "{:?}", begun.elapsed());
    assert_eq!(answer["sessions_closed"], 2, "{answer}");
    bob.is_fine();
    place.node.wait_for_metric("sessions", 1);
    assert_eq!(place.node.metric("closes_total{code=\"4102\"}"), 2);
    let line = place.node.log_line(&["an operator revoked tokens", "tokens of alice issued before"]);
    assert!(line.contains("sessions_closed=2"), "{line}");

    // Every shard has judged this token before and found it good.
    place.check(&old, REVOKED);
    let bound = answer["revoked"]["issued_before"].as_i64().expect("up to now");
    place.check(&place.token("alice", bound - 1, None), REVOKED);
    let new = place.token("alice", bound, None);
    let mut alice = place.connect(&new, "phone");
    bob.tell("alice", "and now?");
    assert_eq!(alice.event("message")["text"], "and now?");
    // Whoever is in cannot go back to it either.
    alice.send("refresh", json!({ "token": old }));
    is_out(&mut alice);
    assert!(!place.node.log_text().contains(&old), "a token is in the log");
}

#[test]
fn one_token_is_revoked_by_its_id_and_a_refresh_leaves_it_behind() {
    let place = Place::start();
    let [first, second] = ["4f0c-1", "4f0c-2"].map(|jti| place.token("alice", now(), Some(jti)));
    let mut phone = place.connect(&first, "phone");
    let mut tablet = place.connect(&second, "tablet");
    let mut laptop = place.connect(&first, "laptop");
    let mut plain = place.connect(&place.token("alice", now(), None), "plain");
    assert_eq!(laptop.ask("refresh", json!({ "token": second }))["op"], "ok");
    let begun = Instant::now();
    assert_eq!(place.revoke(&json!({ "jti": "4f0c-1" }))["sessions_closed"], 1);
    is_out(&mut phone);
    assert!(begun.elapsed() < CLOSED_WITHIN, "{:?}", begun.elapsed());
    [&mut tablet, &mut laptop, &mut plain].into_iter().for_each(Chat::is_fine);
    place.check(&first, REVOKED);
    place.check(&second, "welcome");
}

#[test]
fn everybody_is_out_at_once_and_a_newer_token_is_not() {
    let place = Place::start();
    let bound = now() - 10;
    let mut old: Vec<_> = (0..MANY)
        .map(|number| place.connect(&place.token(&format!("user-{number}"), now() - 60, None), "phone"))
        .collect();
    let mut new: Vec<_> = (0..8)
        .map(|number| place.connect(&place.token(&format!("user-{number}"), now(), None), "tablet"))
        .collect();
    let begun = Instant::now();
    let answer = place.revoke(&json!({ "issued_before": bound }));
    assert!(begun.elapsed() < CLOSED_WITHIN, "{:?}", begun.elapsed());
    assert_eq!(answer, json!({ "revoked": { "issued_before": bound }, "sessions_closed": MANY }));
    old.iter_mut().for_each(is_out);
    new.iter_mut().for_each(Chat::is_fine);
    assert_eq!(place.node.metric("closes_total{code=\"4102\"}"), MANY as u64);
    place.check(&place.token("newcomer", now() - 60, None), REVOKED);
    place.check(&place.token("newcomer", now(), None), "welcome");
}

#[test]
fn a_revocation_outlives_the_node() {
    let mut place = Place::start();
    let old = place.token("alice", now() - 5, None);
    let one = place.token("bob", now() - 5, Some("4f0c"));
    place.revoke(&json!({ "user": "alice" }));
    place.revoke(&json!({ "jti": "4f0c" }));
    place.node.restart();
    place.check(&old, REVOKED);
    place.check(&one, REVOKED);
    place.check(&place.token("alice", now() + 30, None), "welcome");
    place.check(&place.token("bob", now() - 5, Some("4f0d")), "welcome");
    assert_eq!(place.node.metric("revocations"), 2);

    // The second start reads what the first one wrote, and adds to it.
    place.revoke(&json!({ "user": "carol" }));
    place.node.restart();
    assert_eq!(place.node.metric("revocations"), 3);
    place.node.kill();
    let file = place.data.path().join("revocations.json");
    let text = fs::read_to_string(&file).expect("it was written");
    fs::write(&file, &text[..text.len() / 2]).expect("our own file");
    let words = ["revocations.json cannot be used", "revoked tokens would be taken again", "from a backup"];
    check_refused(place.data.path(), &[], &words);
}

/// A token is shown on one shard and its session begins on another, while it is being revoked: nobody stays in.
#[test]
fn nobody_slips_in_between_two_shards() {
    const THREADS: usize = 4;
    let place = Place::start();
    let (revoked, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    let tokens: Vec<_> =
        (0..64).map(|number| place.token(&format!("user-{number}"), now() - 5, Some("shared"))).collect();
    thread::scope(|scope| {
        for first in 0..THREADS {
            let (place, tokens, revoked, begun) = (&place, &tokens, &revoked, &begun);
            scope.spawn(move || {
                let mut inside = Vec::new();
                for token in tokens.iter().skip(first).step_by(THREADS).cycle() {
                    let late = revoked.load(Ordering::SeqCst);
                    let mut chat = Chat::open(&place.node);
                    chat.send("connect", json!({ "device": "phone", "token": token }));
                    match chat.next() {
                        Received::Frame(frame) if frame["op"] == "welcome" && !late => inside.push(chat),
                        Received::Frame(frame) => {
                            assert_eq!(frame["message"], "the token was revoked");
                            assert_eq!(chat.next(), Received::Closed(4102));
                        }
                        // Its session had begun, and its welcome waited for a log.
                        ended => assert!(ended == Received::Closed(4102) && !late, "{ended:?}"),
                    }
                    begun.fetch_add(1, Ordering::SeqCst);
                    if late {
                        break;
                    }
                }
                for mut chat in inside {
                    let (_, ended) = chat.until_closed(|_, _| {});
                    assert!(matches!(ended, Received::Closed(4102 | 4104)), "{ended:?}");
                }
            });
        }
        while begun.load(Ordering::SeqCst) < 100 {
            thread::yield_now();
        }
        place.revoke(&json!({ "jti": "shared" }));
        revoked.store(true, Ordering::SeqCst);
    });
    place.node.wait_for_metric("sessions", 0);
}
