//! The way in: requests that are no upgrade, that attack parsers, or that come from the wrong page.

use serde_json::json;

use crate::{
    chat::{Chat, undisturbed},
    node::{Node, directory},
    raw::{REQUEST, Raw, connect, head},
    wire::masked,
};

/// The good request with one more line.
fn with(line: &str) -> Vec<u8> {
    head(&[REQUEST.as_slice(), &[line]].concat())
}

/// The good request with one line in place of another; empty: without it.
fn replaced(index: usize, line: &str) -> Vec<u8> {
    let mut lines = REQUEST.to_vec();
    if line.is_empty() {
        lines.remove(index);
    } else {
        lines[index] = line;
    }
    head(&lines)
}

/// `101`, or the status of a refusal, after which nothing more may come.
#[track_caller]
fn check(node: &Node, request: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&request[..request.len().min(200)]);
    let mut raw = Raw::connect(node.listen);
    for piece in request.chunks(4096) {
        if !raw.write_anyway(piece) {
            break;
        }
    }
    if status != 101 {
        return assert_eq!(raw.status(), status, "{shown}");
    }
    let response = raw.head();
    assert!(response.starts_with("HTTP/1.1 101 "), "{shown}: {response}");
    assert!(!response.contains("Sec-WebSocket-Extensions"), "nothing is compressed: {response}");
}

/// A3, A4, A5: large, many, and made for slow parsers.
#[test]
fn heads_beyond_every_size() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut witness = Chat::connect(&node, "witness", "w");
        let before = node.resident_bytes();
        check(&node, &with(&format!("X-Large: {}", "y".repeat(20 << 20))), 431);
        let many: Vec<_> = (0..2000).map(|number| format!("X-{number}: y")).collect();
        check(&node, &with(&many.join("\r\n")), 431);
        check(&node, &with(&["X: y"; 64].join("\r\n")), 431);
        check(&node, &with(&format!("Sec-WebSocket-Protocol: b{}x", " ".repeat(32_000))), 431);
        check(&node, &with(&format!("Sec-WebSocket-Protocol: b{}x", " ".repeat(7_000))), 400);
        check(&node, &with(&format!("Sec-WebSocket-Extensions: {}", "\"a".repeat(3_333))), 400);
        check(&node, &replaced(0, &format!("GET /{} HTTP/1.1", "y".repeat(64 << 10))), 414);
        check(&node, &replaced(0, &format!("GET {} HTTP/1.1", "y".repeat(20 << 20))), 414);
        assert!(node.resident_bytes() < before + (16 << 20), "nothing of 40 MiB was kept");
        witness.is_fine();
    });
}

/// A6: extensions are declined, never an error in their parameters.
#[test]
fn extensions_are_declined() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; server_max_window_bits=99",
            "permessage-deflate; server_max_window_bits=8; server_max_window_bits=9",
            "permessage-deflate; no_such_parameter; client_max_window_bits=\"15\"",
            "x-unknown; a=\"quoted \\\" and closed\", permessage-deflate",
        ] {
            check(&node, &with(&format!("Sec-WebSocket-Extensions: {offer}")), 101);
        }
        check(&node, &with("Sec-WebSocket-Extensions: permessage-deflate; x=\"unclosed"), 400);
    });
}

/// A7: not this protocol, not this version, or read differently by some proxy.
#[test]
fn requests_that_are_no_upgrade() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        let mut witness = Chat::connect(&node, "witness", "w");
        check(&node, &replaced(5, ""), 400);
        check(&node, &replaced(5, "Sec-WebSocket-Key: c2hvcnQ="), 400);
        check(&node, &with(REQUEST[5]), 400);
        check(&node, &replaced(4, ""), 426);
        check(&node, &replaced(4, "Sec-WebSocket-Version: 8"), 426);
        check(&node, &replaced(3, ""), 426);
        check(&node, &replaced(2, ""), 400);
        check(&node, &replaced(1, ""), 400);
        check(&node, &with(REQUEST[1]), 400);
        check(&node, &replaced(0, "GET /v1/connect HTTP/1.0"), 505);
        check(&node, &replaced(0, "POST /v1/connect HTTP/1.1"), 405);
        check(&node, &replaced(0, "get /v1/connect HTTP/1.1"), 405);
        check(&node, &[with("Content-Length: 5"), b"hello".to_vec()].concat(), 400);
        check(&node, &with("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400);
        check(&node, &with("Content-Length: 0\r\nContent-Length: 5"), 400);
        check(&node, &with("Transfer-Encoding: chunked"), 400);
        check(&node, &with("X: a\r\n folded"), 400);
        check(&node, &with("X: a\nY: b"), 400);
        check(&node, &with("X: a\0b"), 400);
        check(&node, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400);
        let mut raw = Raw::connect(node.listen);
        raw.write(&replaced(4, "Sec-WebSocket-Version: 8"));
        assert!(raw.head().contains("\r\nSec-WebSocket-Version: 13\r\n"), "it says which version it speaks");
        assert_eq!(node.metric("refused_total{reason=\"bad_request\"}"), 21);
        witness.is_fine();
    });
}

/// A8: compared byte by byte, with and without a list.
#[test]
fn origins() {
    let data = directory();
    let origin = |origin: &str| with(&format!("Origin: {origin}"));
    let node =
        Node::start(data.path(), &[("GATEHOUSE_ORIGINS", "https://good.example,https://b.example:8443")]);
    undisturbed(&node, || {
        check(&node, &head(&REQUEST), 101);
        check(&node, &origin("https://good.example"), 101);
        check(&node, &origin("https://b.example:8443"), 101);
        let others = [
            "null",
            "",
            "https://good.example.evil.com",
            "https://Good.example",
            "https://good.example:443",
            "https://good.example:8443",
            "https://b.example",
            "http://good.example",
            "https://good.example/",
            "http://localhost",
            "https://evil.com/https://good.example",
        ];
        others.iter().for_each(|other| check(&node, &origin(other), 403));
        check(&node, &with("Origin: https://good.example\r\nOrigin: https://evil.com"), 400);
        assert_eq!(node.metric("refused_total{reason=\"origin\"}"), others.len() as u64);
    });
    drop(node);
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        check(&node, &head(&REQUEST), 101);
        for (page, status) in [
            ("http://localhost:3000", 101),
            ("http://127.0.0.1", 101),
            ("https://[::1]:1", 101),
            ("null", 403),
            ("https://good.example", 403),
            ("http://localhost.evil.com", 403),
            ("http://127.0.0.1.evil.com:80", 403),
            ("http://127.0.0.1@evil.com", 403),
        ] {
            check(&node, &origin(page), status);
        }
    });
}

/// A9: what is glued to the request is frames, however the whole is cut.
#[test]
fn frames_behind_the_request() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        // Users of both shards: some of these sessions move with what came behind their `connect`.
        for user in ["anna", "ben", "carl", "dora", "emil", "fred", "gina", "hugo"] {
            let ping = json!({ "op": "ping", "id": 2 }).to_string();
            let stream = [
                head(&REQUEST),
                masked(0x81, connect(&node.token(user)).as_bytes()),
                masked(0x81, ping.as_bytes()),
                masked(0x88, b"\x03\xe8"),
            ]
            .concat();
            for cut in [stream.len(), head(&REQUEST).len() + 3, head(&REQUEST).len() - 2, stream.len() - 20] {
                let mut raw = Raw::connect(node.listen);
                raw.write(&stream[..cut]);
                raw.write(&stream[cut..]);
                assert!(raw.head().starts_with("HTTP/1.1 101 "));
                let lines = raw.transcript();
                assert_eq!(lines.last().map(String::as_str), Some("close 1000"), "{user}, {cut}: {lines:?}");
            }
        }
        assert!(node.metric("moved_total") > 0, "some users live on the other shard");
        node.wait_for_metric("connections", 1);
    });
}

/// A11: one path, byte by byte; nothing to traverse.
#[test]
fn paths() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    undisturbed(&node, || {
        for (target, status) in [
            ("/v1/connect", 101),
            ("/v1/connect?v=2", 101),
            ("/", 404),
            ("//v1/connect", 404),
            ("/v1//connect", 404),
            ("/v1/connect/", 404),
            ("/V1/connect", 404),
            ("/v1/../../etc/passwd", 404),
            ("/v1/x/../connect", 404),
            ("/%2e%2e/%2e%2e/etc/passwd", 404),
            ("/%252e%252e/etc/passwd", 404),
            ("/v1/%63onnect", 404),
            ("/v1/connect%00", 404),
            ("http://chat.example.org/v1/connect", 400),
            ("*", 400),
            ("chat.example.org:443", 400),
        ] {
            check(&node, &replaced(0, &format!("GET {target} HTTP/1.1")), status);
        }
    });
}
