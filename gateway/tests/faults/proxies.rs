//! Connections of a proxy: what it says of whom they are for is believed from where it is trusted, and is no HTTP from anywhere else.

use std::{net::Ipv4Addr, time::Instant};

use crate::{
    chat::{Chat, undisturbed},
    node::{Node, directory},
    raw::{REQUEST, Raw, head},
};

/// Where the proxy is.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

const LINE: &[u8] = b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 443\r\n";

/// A header of version 2.
fn binary(version_command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = (addresses.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", [version_command, family].as_slice(), &length, addresses].concat()
}

fn of_v4(source: [u8; 4]) -> Vec<u8> {
    [source.as_slice(), &[192, 0, 2, 1, 0xdc, 4, 1, 0xbb]].concat()
}

fn proxied(node: &Node) -> Raw {
    Raw::connect_from(PROXY, node.listen)
}

fn refused(node: &Node, reason: &str) -> u64 {
    node.metric(&format!("refused_total{{reason=\"{reason}\"}}"))
}

fn start(data: &std::path::Path) -> Node {
    let settings =
        [("GATEHOUSE_PROXIES", "127.0.0.3, 192.0.2.0/24"), ("GATEHOUSE_LOG", "gateway=debug,info")];
    Node::start(data, &settings)
}

/// The header, then the request, in pieces of so many bytes: a session, and whose the log says it is.
#[track_caller]
fn check_session(node: &Node, header: &[u8], step: usize, user: &str, peer: &str) {
    let mut raw = proxied(node);
    [header, &head(&REQUEST)].concat().chunks(step).for_each(|piece| raw.write(piece));
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    raw.connect_as(&node.token(user), "d");
    node.log_line(&["session begins", &format!("user=\"{user}\" "), &format!("peer={peer}")]);
}

#[test]
fn a_proxy_says_whose_a_connection_is() {
    let data = directory();
    let node = start(data.path());
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    v6[15] = 9;
    let additions = [of_v4([198, 51, 100, 9]).as_slice(), &[4; 1_000]].concat();
    for (number, (header, peer)) in [
        (LINE.to_vec(), "198.51.100.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.3"),
        (binary(0x21, 0x11, &of_v4([198, 51, 100, 8])), "198.51.100.8"),
        (binary(0x21, 0x21, &v6), "2001:db8::9"),
        (binary(0x21, 0x11, &additions), "198.51.100.9"),
        (binary(0x20, 0x00, &[]), "127.0.0.3"),
        (binary(0x21, 0x00, &[]), "127.0.0.3"),
    ]
    .into_iter()
    .enumerate()
    {
        // Whole with the request in one segment, byte by byte, and cut somewhere.
        for (way, step) in [usize::MAX, 1, 11].into_iter().enumerate() {
            check_session(&node, &header, step, &format!("user-{number}-{way}"), peer);
        }
    }
    assert_eq!(node.metric("proxied_total"), 15);
    // Who is in no list needs no header.
    Chat::connect(&node, "alice", "d").is_fine();
    node.log_line(&["session begins", "user=\"alice\" ", "peer=127.0.0.1"]);
    assert_eq!(refused(&node, "no_proxy_header"), 0);
}

#[test]
fn what_does_not_begin_with_a_header_is_refused_from_a_proxy() {
    let data = directory();
    let node = start(data.path());
    let garbage: Vec<u8> = (0..3_000_u32).map(|number| (number * 7 + 200) as u8).collect();
    let bad: [&[u8]; 9] = [
        &head(&REQUEST),
        &garbage,
        b"PROXY TCP4 198.51.100.7\r\n",
        b"PROXY TCP9 198.51.100.7 192.0.2.1 56324 443\r\n",
        &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(),
        &binary(0x11, 0x11, &of_v4([1; 4])),
        &binary(0x22, 0x11, &of_v4([1; 4])),
        &binary(0x21, 0x41, &of_v4([1; 4])),
        &binary(0x21, 0x11, &[1; 5_000]),
    ];
    undisturbed(&node, || {
        for bytes in bad {
            let mut raw = proxied(&node);
            raw.write_anyway(bytes);
            assert_eq!(raw.status(), 400, "{}", String::from_utf8_lossy(bytes));
        }
    });
    assert_eq!(refused(&node, "no_proxy_header"), bad.len() as u64);
    node.log_line(&["they did not begin with a PROXY header; have the proxy send it"]);
    // Behind a good header a bad head is one.
    let mut raw = proxied(&node);
    raw.write(&[LINE, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert_eq!(raw.status(), 404);
    // And there is one header, not two.
    let mut raw = proxied(&node);
    raw.write(&[LINE, LINE, &head(&REQUEST)].concat());
    assert_eq!(raw.status(), 505, "a line of another protocol");
    assert_eq!(refused(&node, "bad_request"), 2);
    node.wait_for_metric("handshakes", 0);
}

#[test]
fn a_header_from_anywhere_else_is_no_http() {
    let data = directory();
    let node = start(data.path());
    // The first is taken for a request of another protocol.
    for (header, status) in [(LINE.to_vec(), 505), (binary(0x21, 0x11, &of_v4([198, 51, 100, 7])), 400)] {
        let mut raw = Raw::connect(node.listen);
        raw.write_anyway(&[header.as_slice(), &head(&REQUEST)].concat());
        assert_eq!(raw.status(), status);
    }
    assert_eq!((refused(&node, "bad_request"), refused(&node, "no_proxy_header")), (2, 0));
    assert_eq!(node.metric("proxied_total"), 0);
}

/// The deadline of a handshake counts from the connection, however much of a header comes meanwhile.
#[test]
fn a_header_that_never_ends_has_the_time_of_a_handshake() {
    let data = directory();
    let node = start(data.path());
    let begun = Instant::now();
    let mut silent = proxied(&node);
    let mut half = proxied(&node);
    half.write(&LINE[..20]);
    let mut waits_for_additions = proxied(&node);
    waits_for_additions.write(&binary(0x21, 0x11, &[1; 4_000])[..3_000]);
    for raw in [&mut silent, &mut half, &mut waits_for_additions] {
        assert_eq!(raw.status(), 408);
    }
    assert!((9..20).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(refused(&node, "timeout"), 3);
}

/// Half a header, and a session whose address a proxy has named: both go on in the new process.
#[test]
fn what_a_proxy_has_said_goes_on_in_a_new_process() {
    let data = directory();
    let node = Node::start(
        data.path(),
        &[
            ("GATEHOUSE_PROXIES", "127.0.0.3"),
            ("GATEHOUSE_LOG", "gateway=debug,info"),
            ("GATEHOUSE_IP_CONNECTIONS_MAX", "1"),
        ],
    );
    let mut half = proxied(&node);
    half.write(&LINE[..20]);
    let mut waits = proxied(&node);
    let mut named = proxied(&node);
    named.write(b"PROXY TCP4 198.51.100.1 192.0.2.1 1 443\r\n");
    named.enter(&node.token("named"), "d");
    let answer = node.upgrade();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    half.write(&LINE[20..]);
    half.enter(&node.token("half"), "d");
    node.log_line(&["session begins", "user=\"half\" ", "peer=198.51.100.7"]);
    waits.write(b"PROXY TCP4 198.51.100.1 192.0.2.1 1 443\r\n");
    assert_eq!(waits.status(), 429, "that address has its one connection already");
    drop(named);
    node.wait_for_metric("connections", 1);
    let mut next = proxied(&node);
    next.write(b"PROXY TCP4 198.51.100.1 192.0.2.1 1 443\r\n");
    next.enter(&node.token("next"), "d");
}
