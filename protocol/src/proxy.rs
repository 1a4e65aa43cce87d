//! The PROXY protocol, versions 1 and 2: what a proxy says first of whom a connection is for
//! (haproxy's `doc/proxy-protocol.txt`, sections 2.1 and 2.2).
//!
//! Only whoever is trusted may be read by this: anybody can name any address. Additions to version 2 (TLV) are passed over,
//! and so is the address of the server that the client meant.
//!
//! Invariant: nothing behind a header is looked at, and what is no header is refused as soon as that can be seen.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use crate::{
    limits::{PROXY_HEADER_BYTES_MAX, PROXY_LINE_BYTES_MAX},
    upgrade::HttpRefusal,
};

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Whose connection it is. `None`: the proxy's own, or of somebody who has no IP address that the proxy could name.
    pub source: Option<IpAddr>,
    /// Its length: what the client itself says comes behind it.
    pub bytes: usize,
}

/// Section 2.1.
const LINE_BEGIN: &[u8] = b"PROXY ";
const LINE_END: &[u8] = b"\r\n";

/// Section 2.2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_COMMAND: usize = 12;
const FAMILY: usize = 13;
const LENGTH: Range<usize> = 14..16;
const FIXED_BYTES: usize = LENGTH.end;
const SOURCE_V4: Range<usize> = FIXED_BYTES..FIXED_BYTES + 4;
const SOURCE_V6: Range<usize> = FIXED_BYTES..FIXED_BYTES + 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

const NO_HEADER: HttpRefusal = HttpRefusal::bad("connections from this address begin with a PROXY header");
const BAD_LINE: HttpRefusal = HttpRefusal::bad("the PROXY line is malformed");
const LONG_LINE: HttpRefusal = HttpRefusal::bad("the PROXY line has no end");
const BAD_HEADER: HttpRefusal = HttpRefusal::bad("the PROXY header is malformed");
const LONG_HEADER: HttpRefusal = HttpRefusal::bad("the PROXY header is too long");

/// Reads a header from the front of `bytes`. `Ok(None)`: it is not all here yet.
///
/// # Errors
/// A refusal with 400, when these bytes do not begin a connection of a proxy.
pub fn read_proxy_header(bytes: &[u8]) -> Result<Option<ProxyHeader>, HttpRefusal> {
    if begins(bytes, LINE_BEGIN) {
        read_line(bytes)
    } else if begins(bytes, SIGNATURE) {
        read_binary(bytes)
    } else {
        Err(NO_HEADER)
    }
}

/// Whether `bytes` are a beginning of `of`, or begin with all of it.
fn begins(bytes: &[u8], of: &[u8]) -> bool {
    let known = bytes.len().min(of.len());
    bytes[..known] == of[..known]
}

fn read_line(bytes: &[u8]) -> Result<Option<ProxyHeader>, HttpRefusal> {
    let within = &bytes[..bytes.len().min(PROXY_LINE_BYTES_MAX)];
    let Some(end) = within.windows(LINE_END.len()).position(|two| two == LINE_END) else {
        return if bytes.len() < PROXY_LINE_BYTES_MAX { Ok(None) } else { Err(LONG_LINE) };
    };
    let line = str::from_utf8(&bytes[LINE_BEGIN.len()..end]).map_err(|_| BAD_LINE)?;
    let header = |source| Some(ProxyHeader { source, bytes: end + LINE_END.len() });
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        // What else such a line says is ignored.
        return Ok(header(None));
    }
    let (Some(source), Some(target), Some(source_port), Some(target_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD_LINE);
    };
    let source = match family {
        Some("TCP4") => both::<Ipv4Addr>(source, target).map(IpAddr::V4),
        Some("TCP6") => both::<Ipv6Addr>(source, target).map(IpAddr::V6),
        _ => None,
    };
    if !is_port(source_port) || !is_port(target_port) {
        return Err(BAD_LINE);
    }
    source.map(|source| header(Some(source.to_canonical()))).ok_or(BAD_LINE)
}

/// The first of two addresses that are both good.
fn both<A: std::str::FromStr>(source: &str, target: &str) -> Option<A> {
    target.parse::<A>().ok().and_then(|_| source.parse().ok())
}

/// 0 to 65535, as it is written: no sign, no zero in front.
fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port.to_string() == text)
}

fn read_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, HttpRefusal> {
    if bytes.get(VERSION_COMMAND).is_some_and(|byte| ![LOCAL, PROXY].contains(byte)) {
        return Err(BAD_HEADER);
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([fixed[LENGTH.start], fixed[LENGTH.start + 1]]));
    let end = FIXED_BYTES + length;
    if end > PROXY_HEADER_BYTES_MAX {
        return Err(LONG_HEADER);
    }
    // Two addresses, and two ports where there are any. A health check's family means nothing.
    let addresses = match (fixed[VERSION_COMMAND], fixed[FAMILY]) {
        (LOCAL, _) | (_, 0x00) => 0,
        (_, 0x11 | 0x12) => 2 * 4 + 4,
        (_, 0x21 | 0x22) => 2 * 16 + 4,
        (_, 0x31 | 0x32) => 2 * 108,
        _ => return Err(BAD_HEADER),
    };
    if length < addresses {
        return Err(BAD_HEADER);
    }
    if bytes.len() < end {
        return Ok(None);
    }
    // Of what is not TCP over IP there is no address that could be meant here.
    let source = match (fixed[VERSION_COMMAND], fixed[FAMILY]) {
        (PROXY, 0x11) => array(bytes, SOURCE_V4).map(|source: [u8; 4]| IpAddr::from(source)),
        (PROXY, 0x21) => array(bytes, SOURCE_V6).map(|source: [u8; 16]| IpAddr::from(source)),
        _ => None,
    };
    Ok(Some(ProxyHeader { source: source.map(|source| source.to_canonical()), bytes: end }))
}

fn array<const N: usize>(bytes: &[u8], range: Range<usize>) -> Option<[u8; N]> {
    bytes.get(range)?.try_into().ok()
}

const _: () = {
    // All addresses fit, and any line fits where a header is kept.
    assert!(
        FIXED_BYTES + 2 * 108 <= PROXY_HEADER_BYTES_MAX && PROXY_LINE_BYTES_MAX <= PROXY_HEADER_BYTES_MAX
    );
    assert!(SOURCE_V4.end - SOURCE_V4.start == 4 && SOURCE_V6.end - SOURCE_V6.start == 16);
};
