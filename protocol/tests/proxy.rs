//! The PROXY header: which are read, what they name, and that what is none is refused as soon as that shows.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use protocol::{
    limits::{PROXY_HEADER_BYTES_MAX, PROXY_LINE_BYTES_MAX},
    proxy::{ProxyHeader, read_proxy_header},
    session::{End, Input, Session, SessionLimits},
    upgrade::UpgradePolicy,
};

const REQUEST: &[u8] =
    b"GET /v1/connect HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A header of version 2.
fn binary(version_command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = (addresses.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", [version_command, family].as_slice(), &length, addresses].concat()
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// `source`, `its own`, `more` or the refusal's words; the same however the bytes are cut, and whatever stands behind them.
#[track_caller]
fn check(bytes: &[u8], expected: &str) {
    let shown = String::from_utf8_lossy(bytes);
    let seen = match read_proxy_header(bytes) {
        Ok(None) => "more".to_owned(),
        Ok(Some(ProxyHeader { source, bytes: read })) => {
            assert_eq!(read, bytes.len(), "{shown}");
            source.map_or("its own".to_owned(), |source| source.to_string())
        }
        Err(refusal) => {
            assert_eq!(refusal.status, 400);
            refusal.reason.to_owned()
        }
    };
    assert_eq!(seen, expected, "{shown}");
    if !["more"].contains(&expected) {
        let whole = [bytes, REQUEST].concat();
        for step in [1, 7, whole.len()] {
            assert_eq!(through_a_session(&whole, step), expected, "{shown} every {step} bytes");
        }
    }
}

/// What a session makes of a header and the request behind it.
fn through_a_session(bytes: &[u8], step: usize) -> String {
    let mut session = Session::proxied(&SessionLimits::CONNECT);
    assert!(session.is_proxied() && session.is_upgrading());
    let mut heard = None;
    let mut bytes = bytes.to_vec();
    for piece in bytes.chunks_mut(step) {
        let mut at = 0;
        loop {
            match session.handle_bytes(&UpgradePolicy::ANY, &mut piece[at..]) {
                Err(End::NotProxied(refusal)) => {
                    let mut response = Vec::new();
                    session.poll_control(&mut response);
                    assert!(response.starts_with(b"HTTP/1.1 400 ") && session.wants_shutdown());
                    return refusal.reason.to_owned();
                }
                Err(end) => panic!("{end}"),
                Ok(handled) => {
                    at += handled.consumed;
                    match handled.input {
                        None => break,
                        Some(Input::Proxied(source)) => {
                            let source = source.map_or("its own".to_owned(), |source| source.to_string());
                            assert_eq!(heard.replace(source), None, "once");
                        }
                        Some(Input::Upgraded(_)) => {
                            assert_eq!((at, session.is_open()), (piece.len(), true));
                            return heard.expect("the header came first");
                        }
                        Some(other) => panic!("{other:?}"),
                    }
                }
            }
        }
        assert_eq!(at, piece.len());
        assert!(session.held_bytes() < 2 * PROXY_HEADER_BYTES_MAX + 512);
    }
    format!("nothing, and holds {} bytes", session.held_bytes())
}

const MALFORMED: &str = "the PROXY line is malformed";
const NONE: &str = "connections from this address begin with a PROXY header";

#[test]
fn lines_of_version_1_name_the_client() {
    check(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1");
    check(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255");
    check(b"PROXY TCP6 2001:db8::1 ::1 0 443\r\n", "2001:db8::1");
    check(b"PROXY TCP6 ::ffff:10.0.0.7 ::1 1 443\r\n", "10.0.0.7");
    check(b"PROXY UNKNOWN\r\n", "its own");
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {full} {full} 65535 65535\r\n");
    assert_eq!(longest.len(), PROXY_LINE_BYTES_MAX);
    check(longest.as_bytes(), "its own");
}

#[test]
fn lines_that_are_none_are_refused() {
    for line in [
        "TCP4 192.168.0.1 192.168.0.11 56324",
        "TCP4 192.168.0.1 192.168.0.11 56324 443 ",
        "TCP4  192.168.0.1 192.168.0.11 56324 443",
        "TCP4 192.168.0.1 192.168.0.11 56324 443 7",
        "TCP4 192.168.0.01 192.168.0.11 56324 443",
        "TCP4 192.168.0.1 192.168.0.256 56324 443",
        "TCP4 2001:db8::1 ::1 56324 443",
        "TCP6 192.168.0.1 192.168.0.11 56324 443",
        "TCP6 fe80::1%eth0 ::1 56324 443",
        "TCP4 192.168.0.1 192.168.0.11 65536 443",
        "TCP4 192.168.0.1 192.168.0.11 056324 443",
        "TCP4 192.168.0.1 192.168.0.11 +1 443",
        "TCP4 192.168.0.1 192.168.0.11 -1 443",
        "UDP4 192.168.0.1 192.168.0.11 56324 443",
        "tcp4 192.168.0.1 192.168.0.11 56324 443",
        "UNKNOWN\n",
        "TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        "",
    ] {
        check(format!("PROXY {line}\r\n").as_bytes(), MALFORMED);
    }
    check(b"PROXY TCP4 \xff.168.0.1 192.168.0.11 56324 443\r\n", MALFORMED);
    for begin in ["GET /", "proxy TCP4", "PROXY\tTCP4", "PROXYTCP4", "\r\n\r\nQUIT", "\n", "\0"] {
        check(begin.as_bytes(), NONE);
    }
    // A line may wait for its end for so long, and no byte longer.
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; PROXY_LINE_BYTES_MAX]].concat();
    check(&endless[..PROXY_LINE_BYTES_MAX - 1], "more");
    check(&endless[..PROXY_LINE_BYTES_MAX], "the PROXY line has no end");
    let late = [&endless[..PROXY_LINE_BYTES_MAX - 1], b"\r\n"].concat();
    assert!(read_proxy_header(&late).is_err());
}

#[test]
fn headers_of_version_2_name_the_client() {
    let v4 = [10, 1, 2, 3, 10, 9, 9, 9, 0xdc, 4, 1, 0xbb];
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    v6[15] = 9;
    check(&binary(0x21, 0x11, &v4), "10.1.2.3");
    check(&binary(0x21, 0x21, &v6), "2001:db8::9");
    // Additions are passed over, up to the limit.
    check(&binary(0x21, 0x11, &[v4.as_slice(), &[4; 500]].concat()), "10.1.2.3");
    let longest =
        binary(0x21, 0x21, &[v6.as_slice(), &vec![0xff; PROXY_HEADER_BYTES_MAX - 16 - 36]].concat());
    assert_eq!(longest.len(), PROXY_HEADER_BYTES_MAX);
    check(&longest, "2001:db8::9");
    // A health check of the proxy; its family and its length mean nothing.
    check(&binary(0x20, 0x00, &[]), "its own");
    check(&binary(0x20, 0x11, &v4), "its own");
    check(&binary(0x20, 0xff, &[1, 2, 3]), "its own");
    // No TCP over IP: nobody who could be named.
    check(&binary(0x21, 0x00, &[7; 9]), "its own");
    check(&binary(0x21, 0x12, &v4), "its own");
    check(&binary(0x21, 0x31, &[b'/'; 216]), "its own");
    let mut mapped = [0; 36];
    mapped[10..16].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 7]);
    check(&binary(0x21, 0x21, &mapped), "10.0.0.7");
    assert_eq!(address("10.0.0.7"), address("::ffff:10.0.0.7").to_canonical());
}

#[test]
fn headers_of_version_2_that_are_none_are_refused() {
    const BAD: &str = "the PROXY header is malformed";
    let v4 = [10, 1, 2, 3, 10, 9, 9, 9, 0xdc, 4, 1, 0xbb];
    for (version_command, family) in [
        (0x11, 0x11),
        (0x31, 0x11),
        (0x22, 0x11),
        (0x2f, 0x11),
        (0x01, 0x11),
        (0x21, 0x13),
        (0x21, 0x41),
        (0x21, 0x01),
    ] {
        check(&binary(version_command, family, &v4), BAD);
    }
    for (family, short) in [(0x11, 11), (0x12, 0), (0x21, 35), (0x21, 12), (0x31, 215)] {
        check(&binary(0x21, family, &vec![1; short]), BAD);
    }
    // The version shows before the rest has come; and so does a length that is never waited for.
    check(&binary(0x11, 0x11, &v4)[..13], BAD);
    let too_long = binary(0x21, 0x11, &vec![0; PROXY_HEADER_BYTES_MAX - 15]);
    check(&too_long[..16], "the PROXY header is too long");
    check(b"\r\n\r\n\0\r\nQUIt\n", NONE);
}

#[test]
fn every_beginning_of_a_header_waits_for_the_rest() {
    let v4 = [10, 1, 2, 3, 10, 9, 9, 9, 0xdc, 4, 1, 0xbb];
    let all = [
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n".to_vec(),
        binary(0x21, 0x11, &[v4.as_slice(), &[4, 0, 0]].concat()),
    ];
    for header in all {
        (0..header.len()).for_each(|end| check(&header[..end], "more"));
    }
}

/// What another process is given of a connection whose header has half come.
#[test]
fn a_header_that_has_half_come_goes_on_in_another_session() {
    let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
    for cut in 0..line.len() {
        let mut first = Session::proxied(&SessionLimits::CONNECT);
        assert!(
            first
                .handle_bytes(&UpgradePolicy::ANY, &mut line[..cut].to_vec())
                .is_ok_and(|handled| handled.input.is_none())
        );
        let mut second = Session::proxied(&SessionLimits::CONNECT);
        let mut bytes = [first.replay().as_slice(), &line[cut..]].concat();
        let handled = second.handle_bytes(&UpgradePolicy::ANY, &mut bytes).expect("a header");
        assert_eq!(handled.input, Some(Input::Proxied(Some(address("192.168.0.1")))));
    }
}
