//! The HTTP upgrade: which requests are taken, and with which status the others are refused.

#![forbid(unsafe_code)]

use protocol::{
    limits,
    session::{End, Input, Session, SessionLimits},
    upgrade::{Form, HttpRefusal, Origins, UpgradePolicy, parse_upgrade},
};

const POLICY: UpgradePolicy = UpgradePolicy { path: Some(UpgradePolicy::PATH), origins: Origins::Unset };

/// A good request, line by line, to be damaged.
const LINES: [&str; 6] = [
    "GET /v1/connect HTTP/1.1",
    "Host: chat.example.org",
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn request(lines: &[&str]) -> Vec<u8> {
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

/// The good request with one more line.
fn with(line: &str) -> Vec<u8> {
    request(&[LINES.as_slice(), &[line]].concat())
}

/// The good request with one line in place of another; empty: without it.
fn replaced(index: usize, line: &str) -> Vec<u8> {
    let mut lines = LINES.to_vec();
    if line.is_empty() {
        lines.remove(index);
    } else {
        lines[index] = line;
    }
    request(&lines)
}

/// `101 json`, `101 json offered`, or a status. However the request is cut, the answer is the same.
#[track_caller]
fn check(bytes: &[u8], policy: &UpgradePolicy, expected: &str) {
    let seen = match parse_upgrade(bytes, policy) {
        Ok(Some((upgrade, consumed))) => {
            assert_eq!(consumed, bytes.len());
            let offered = if upgrade.form_offered { " offered" } else { "" };
            format!("101 {}{offered}", upgrade.form.subprotocol())
        }
        Ok(None) => "more".to_owned(),
        Err(refusal) => refusal.status.to_string(),
    };
    assert_eq!(seen, expected, "{}", String::from_utf8_lossy(bytes));

    let mut session = Session::server(&SessionLimits::CONNECT);
    let mut seen = "more".to_owned();
    for byte in bytes {
        match session.handle_bytes(policy, &mut [*byte]) {
            Ok(handled) => match handled.input {
                Some(Input::Upgraded(upgrade)) => seen = format!("101 {}", upgrade.form.subprotocol()),
                other => assert_eq!(other, None),
            },
            Err(End::Refused(refusal)) => {
                seen = refusal.status.to_string();
                break;
            }
            Err(end) => panic!("{end}"),
        }
        assert!(session.held_bytes() <= 2 * limits::HTTP_HEAD_BYTES_MAX + 300);
    }
    assert_eq!(seen, expected.trim_end_matches(" offered"));
    let mut out = Vec::new();
    session.poll_control(&mut out);
    let response = String::from_utf8(out).expect("responses are text");
    assert_eq!(response.starts_with(&format!("HTTP/1.1 {}", &expected[..3])), seen != "more", "{response}");
    if seen.starts_with("101") {
        assert_eq!(response.contains("Sec-WebSocket-Protocol"), expected.ends_with("offered"));
        assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    } else if seen != "more" {
        assert!(response.contains("Connection: close\r\n") && session.wants_shutdown());
        let (head, body) = response.split_once("\r\n\r\n").expect("a whole response");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}

#[test]
fn taken() {
    check(&request(&LINES), &POLICY, "101 chat.v1.json");
    check(&with("Sec-WebSocket-Protocol: chat.v1.bin"), &POLICY, "101 chat.v1.bin offered");
    check(&with("Sec-WebSocket-Protocol: x, chat.v1.json ,chat.v1.bin"), &POLICY, "101 chat.v1.json offered");
    let twice = "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: chat.v1.bin";
    check(&with(twice), &POLICY, "101 chat.v1.bin offered");
    check(&replaced(0, "GET /v1/connect?v=2 HTTP/1.1"), &POLICY, "101 chat.v1.json");
    check(&replaced(3, "UPGRADE: WebSocket"), &POLICY, "101 chat.v1.json");
    check(&with("Content-Length: 0"), &POLICY, "101 chat.v1.json");
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99; x=\"a;\\\"b\"";
    check(&with(deflate), &POLICY, "101 chat.v1.json");
    check(&replaced(0, "GET /anything HTTP/1.1"), &UpgradePolicy::ANY, "101 chat.v1.json");
    let other = with("Sec-WebSocket-Protocol: echo");
    check(&other, &UpgradePolicy::ANY, "101 chat.v1.json");
}

#[test]
fn refused_by_what_they_ask() {
    for target in [
        "/",
        "/v1/connect/",
        "//v1/connect",
        "/v1/../v1/connect",
        "/v1/%63onnect",
        "/%2e%2e/x",
        "/V1/connect",
    ] {
        check(&replaced(0, &format!("GET {target} HTTP/1.1")), &POLICY, "404");
    }
    check(&replaced(0, "GET http://chat.example.org/v1/connect HTTP/1.1"), &POLICY, "400");
    check(&replaced(0, "GET * HTTP/1.1"), &POLICY, "400");
    check(&replaced(0, "GET /v1/connect?token=abc HTTP/1.1"), &POLICY, "400");
    check(&replaced(0, "GET /v1/connect?x=1&access_TOKEN=abc HTTP/1.1"), &POLICY, "400");
    check(&replaced(0, "POST /v1/connect HTTP/1.1"), &POLICY, "405");
    check(&replaced(0, "get /v1/connect HTTP/1.1"), &POLICY, "405");
    check(&replaced(0, "GET /v1/connect HTTP/1.0"), &POLICY, "505");
    check(&replaced(0, "GET /v1/connect HTTP/2.0"), &POLICY, "505");
    check(&replaced(0, "GET /v1/connect"), &POLICY, "400");
    check(&replaced(2, ""), &POLICY, "400");
    check(&replaced(3, ""), &POLICY, "426");
    check(&replaced(3, "Upgrade: h2c"), &POLICY, "426");
    check(&replaced(4, ""), &POLICY, "426");
    check(&replaced(4, "Sec-WebSocket-Version: 8"), &POLICY, "426");
    check(&replaced(5, ""), &POLICY, "400");
    check(&replaced(5, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), &POLICY, "400");
    check(&replaced(5, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEy"), &POLICY, "400");
    check(&replaced(5, "Sec-WebSocket-Key: !GhlIHNhbXBsZSBub25jZQ=="), &POLICY, "400");
    check(&with(LINES[5]), &POLICY, "400");
    check(&with("Sec-WebSocket-Protocol: chat.v2.json"), &POLICY, "400");
    check(&with(&format!("Sec-WebSocket-Protocol: b{}x", " ".repeat(6000))), &POLICY, "400");
    check(&with("Sec-WebSocket-Protocol: a,,b"), &POLICY, "400");
    check(&with("Sec-WebSocket-Extensions: x; y=\"unclosed"), &POLICY, "400");
}

#[test]
fn refused_by_how_they_ask() {
    check(&replaced(1, ""), &POLICY, "400");
    check(&with(LINES[1]), &POLICY, "400");
    check(&with("Content-Length: 5"), &POLICY, "400");
    check(&with("Content-Length: 0\r\nContent-Length: 0"), &POLICY, "400");
    check(&with("Transfer-Encoding: chunked"), &POLICY, "400");
    check(&with("X: a\r\n folded"), &POLICY, "400");
    check(&with("X : a"), &POLICY, "400");
    check(&with("X: a\nY: b"), &POLICY, "400");
    check(&with("X: a\rY: b"), &POLICY, "400");
    check(&with("X: a\0b"), &POLICY, "400");
    check(&with("no colon"), &POLICY, "400");
    check(b"\r\n", &POLICY, "400");
    check(b"\x16\x03\x01\x02\x00", &POLICY, "400");
    let many = vec!["X: y"; limits::HTTP_HEADERS_MAX].join("\r\n");
    check(&with(&many), &POLICY, "431");
    check(&with(&format!("X: {}", "y".repeat(limits::HTTP_HEAD_BYTES_MAX))), &POLICY, "431");
    check(&replaced(0, &format!("GET /{} HTTP/1.1", "y".repeat(64 << 10))), &POLICY, "414");
    check(&replaced(0, &format!("GET /{} HTTP/1.1", "y".repeat(1024))), &POLICY, "414");
    check(&replaced(0, &format!("GET /{} HTTP/1.1", "y".repeat(1000))), &POLICY, "404");
    check(&request(&LINES)[..100], &POLICY, "more");
}

#[test]
fn origins() {
    let list = Origins::List(vec!["https://good.example".to_owned()]);
    let listed = UpgradePolicy { path: Some(UpgradePolicy::PATH), origins: list };
    for (origin, unset, list) in [
        ("https://good.example", false, true),
        ("https://good.example.evil.com", false, false),
        ("https://good.example:8443", false, false),
        ("https://Good.example", false, false),
        ("http://good.example", false, false),
        ("null", false, false),
        ("", false, false),
        ("http://localhost:3000", true, false),
        ("http://127.0.0.1", true, false),
        ("https://[::1]:1", true, false),
        ("http://localhost.evil.com", false, false),
        ("http://localhost:3000/path", false, false),
        ("http://127.0.0.1:99999", false, false),
    ] {
        let status = |passes| if passes { "101 chat.v1.json" } else { "403" };
        check(&with(&format!("Origin: {origin}")), &POLICY, status(unset));
        check(&with(&format!("Origin: {origin}")), &listed, status(list));
    }
    check(&request(&LINES), &listed, "101 chat.v1.json");
    check(&with("Origin: https://good.example\r\nOrigin: https://good.example"), &listed, "400");
}

#[test]
fn bearers() {
    let bearer = |line: &str| {
        let request = if line.is_empty() { request(&LINES) } else { with(line) };
        let (upgrade, _) =
            parse_upgrade(&request, &POLICY).map_err(|refusal| refusal.status)?.expect("whole");
        Ok(upgrade.bearer.map(|token| token.as_str().to_owned()))
    };
    assert_eq!(bearer(""), Ok(None));
    assert_eq!(bearer("Authorization: Bearer a.b.c"), Ok(Some("a.b.c".to_owned())));
    assert_eq!(bearer("authorization: bearer  a.b.c"), Ok(Some("a.b.c".to_owned())));
    assert_eq!(bearer("Authorization: Basic a"), Ok(None));
    assert_eq!(bearer("Authorization: Bearer a b"), Err(400));
    assert_eq!(bearer("Authorization: Bearer a\r\nAuthorization: Bearer b"), Err(400));
}

/// Refusals are constant text: nothing of a request comes back.
#[test]
fn refusals_repeat_nothing() {
    for bytes in [replaced(0, "GET /s3cr3t?token=s3cr3t HTTP/1.1"), with("Origin: http://s3cr3t")] {
        let refusal = parse_upgrade(&bytes, &POLICY).expect_err("neither is taken");
        assert!(!String::from_utf8_lossy(&refusal.response()).contains("s3cr3t"));
    }
    for (status, _) in HttpRefusal::STATUSES {
        let response = HttpRefusal { status, reason: "because" }.response();
        assert!(response.ends_with(b"\r\n\r\nbecause\n"));
    }
}

/// tungstenite's client takes our response, and its request is taken by us.
#[test]
fn tungstenite_is_a_client() {
    use tungstenite::{client::IntoClientRequest, handshake::client::generate_request};

    let mut request = "ws://chat.example.org/v1/connect".into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "chat.v1.bin".parse().expect("a value"));
    let (bytes, key) = generate_request(request).expect("a request");
    let (upgrade, consumed) = parse_upgrade(&bytes, &POLICY).expect("good").expect("whole");
    assert_eq!((upgrade.form, consumed), (Form::Binary, bytes.len()));
    assert_eq!(upgrade.key, key.as_bytes());
}
