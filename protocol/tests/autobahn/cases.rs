//! Groups 1 to 7 of the Autobahn testsuite as data: what a fuzzing client sends to an echo server and
//! what has to come back. Runs nothing: whoever includes it decides how the frames are cut and carried.

use crate::wire::{masked, shorten};

pub(crate) const FIN: u8 = 0x80;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// One conversation with an echo server.
pub(crate) struct Case {
    /// The number of the suite, or several.
    pub(crate) name: &'static str,
    /// What the client sends, frame by frame; some are no frames at all.
    pub(crate) frames: Vec<Vec<u8>>,
    /// What the server sends until it ends the connection, one line a frame.
    pub(crate) expected: Vec<String>,
}

/// The cases of one group, by its number: 1 to 7. Group 6 holds each text whole and split at every byte.
pub(crate) fn group(number: u8) -> Vec<Case> {
    let mut cases = Vec::new();
    match number {
        1 => framing(&mut cases),
        2 => pings_and_pongs(&mut cases),
        3 => reserved_bits(&mut cases),
        4 => reserved_opcodes(&mut cases),
        5 => fragmentation(&mut cases),
        6 => texts(&mut cases),
        7 => closes(&mut cases),
        _ => unreachable!("seven groups stand here"),
    }
    cases
}

fn add(cases: &mut Vec<Case>, name: &'static str, frames: &[Vec<u8>], expected: &[&str]) {
    let expected = expected.iter().map(|line| (*line).to_owned()).collect();
    cases.push(Case { name, frames: frames.to_vec(), expected });
}

pub(crate) fn close(code: u16) -> Vec<u8> {
    masked(FIN | CLOSE, &code.to_be_bytes())
}

fn framing(cases: &mut Vec<Case>) {
    for (opcode, name) in [(TEXT, "text"), (BINARY, "binary")] {
        for length in [0, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
            let payload = vec![b'*'; length];
            let echoed = format!("{name} {}", shorten(&payload));
            add(cases, "1.x", &[masked(FIN | opcode, &payload), close(1000)], &[&echoed, "close 1000"]);
        }
    }
}

fn pings_and_pongs(cases: &mut Vec<Case>) {
    add(cases, "2.1", &[masked(FIN | PING, b""), close(1000)], &["pong ", "close 1000"]);
    add(
        cases,
        "2.2",
        &[masked(FIN | PING, b"Hello, world!"), close(1000)],
        &["pong Hello, world!", "close 1000"],
    );
    let noise = [0x00, 0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0x00, 0xFF];
    add(cases, "2.3", &[masked(FIN | PING, &noise), close(1000)], &["pong 8 bytes", "close 1000"]);
    add(cases, "2.4", &[masked(FIN | PING, &[0xFE; 125]), close(1000)], &["pong 125 bytes", "close 1000"]);
    add(cases, "2.5", &[masked(FIN | PING, &[0xFE; 126]), close(1000)], &["close 1002"]);
    add(cases, "2.7", &[masked(FIN | PONG, b""), close(1000)], &["close 1000"]);
    add(cases, "2.8", &[masked(FIN | PONG, b"unsolicited"), close(1000)], &["close 1000"]);
    let frames = [masked(FIN | PONG, b"unsolicited"), masked(FIN | PING, b"ping"), close(1000)];
    add(cases, "2.9", &frames, &["pong ping", "close 1000"]);
    let mut frames: Vec<_> =
        (0..10).map(|index| masked(FIN | PING, format!("ping {index}").as_bytes())).collect();
    frames.push(close(1000));
    let mut pongs: Vec<_> = (0..10).map(|index| format!("pong ping {index}")).collect();
    pongs.push("close 1000".to_owned());
    add(cases, "2.10", &frames, &pongs.iter().map(String::as_str).collect::<Vec<_>>());
}

fn reserved_bits(cases: &mut Vec<Case>) {
    for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        add(cases, "3.1", &[masked(FIN | bits | TEXT, b"x"), close(1000)], &["close 1002"]);
        let small = masked(FIN | TEXT, b"small");
        let frames = [small, masked(FIN | bits | TEXT, b"x"), masked(FIN | PING, b"")];
        add(cases, "3.2-3.4", &frames, &["text small", "close 1002"]);
        add(cases, "3.5", &[masked(FIN | bits | BINARY, b"x"), close(1000)], &["close 1002"]);
        add(cases, "3.6", &[masked(FIN | bits | PING, b"x"), close(1000)], &["close 1002"]);
        add(cases, "3.7", &[masked(FIN | bits | CLOSE, b""), close(1000)], &["close 1002"]);
    }
}

fn reserved_opcodes(cases: &mut Vec<Case>) {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        add(cases, "4.1.1", &[masked(FIN | opcode, b""), close(1000)], &["close 1002"]);
        add(cases, "4.1.2", &[masked(FIN | opcode, b"reserved"), close(1000)], &["close 1002"]);
        let frames = [masked(FIN | TEXT, b"hi"), masked(FIN | opcode, b""), masked(FIN | PING, b"")];
        add(cases, "4.1.3", &frames, &["text hi", "close 1002"]);
    }
}

fn fragmentation(cases: &mut Vec<Case>) {
    let (first, last) = (masked(TEXT, b"fragment1"), masked(FIN | CONTINUATION, b"fragment2"));
    let middle = masked(CONTINUATION, b"fragment2");
    let ping = masked(FIN | PING, b"ping");
    let both = "text fragment1fragment2";
    add(cases, "5.1", &[masked(PING, b"a"), masked(FIN | CONTINUATION, b"b")], &["close 1002"]);
    add(cases, "5.2", &[masked(PONG, b"a"), masked(FIN | CONTINUATION, b"b")], &["close 1002"]);
    add(cases, "5.3", &[first.clone(), last.clone(), close(1000)], &[both, "close 1000"]);
    add(
        cases,
        "5.6",
        &[first.clone(), ping.clone(), last.clone(), close(1000)],
        &["pong ping", both, "close 1000"],
    );
    add(cases, "5.9", &[masked(FIN | CONTINUATION, b"x"), masked(FIN | TEXT, b"hi")], &["close 1002"]);
    add(cases, "5.12", &[masked(CONTINUATION, b"x"), masked(FIN | TEXT, b"hi")], &["close 1002"]);
    let orphan = [first.clone(), last.clone(), masked(CONTINUATION, b"x"), masked(FIN | TEXT, b"hi")];
    add(cases, "5.15", &orphan, &[both, "close 1002"]);
    add(cases, "5.18", &[first.clone(), masked(FIN | TEXT, b"fragment2")], &["close 1002"]);
    let five = [
        first.clone(),
        middle.clone(),
        ping.clone(),
        middle.clone(),
        masked(CONTINUATION, b""),
        ping.clone(),
        last,
        close(1000),
    ];
    let echoed = "text fragment1fragment2fragment2fragment2";
    add(cases, "5.19", &five, &["pong ping", "pong ping", echoed, "close 1000"]);
    let empty = [masked(TEXT, b""), masked(CONTINUATION, b""), masked(FIN | CONTINUATION, b""), close(1000)];
    add(cases, "6.1.2", &empty, &["text ", "close 1000"]);
    add(cases, "split, then closed", &[first, ping, close(1000)], &["pong ping", "close 1000"]);
}

/// One text, whole, split in two at every byte, and in frames of single bytes.
fn add_text(cases: &mut Vec<Case>, name: &'static str, text: &[u8], is_valid: bool) {
    let echoed = format!("text {}", shorten(text));
    let expected: &[&str] = if is_valid { &[&echoed, "close 1000"] } else { &["close 1007"] };
    add(cases, name, &[masked(FIN | TEXT, text), close(1000)], expected);
    for cut in 0..=text.len() {
        let (head, tail) = text.split_at(cut);
        let frames = [masked(TEXT, head), masked(FIN | CONTINUATION, tail), close(1000)];
        add(cases, name, &frames, expected);
    }
    let mut frames: Vec<_> = text.iter().map(|byte| masked(CONTINUATION, &[*byte])).collect();
    frames.insert(0, masked(TEXT, b""));
    frames.push(masked(FIN | CONTINUATION, b""));
    frames.push(close(1000));
    add(cases, name, &frames, expected);
}

fn texts(cases: &mut Vec<Case>) {
    for text in VALID_TEXTS {
        add_text(cases, "6.2, 6.5-6.23", text.as_bytes(), true);
    }
    for text in INVALID_TEXTS {
        add_text(cases, "6.3, 6.8-6.21", text, false);
    }
}

/// Cases 6.2 and 6.5-6.23.
const VALID_TEXTS: &[&str] = &[
    "",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}",
    "\u{0}",
    "\u{80}",
    "\u{800}",
    "\u{10000}",
    "\u{7f}",
    "\u{7ff}",
    "\u{ffff}",
    "\u{10ffff}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{fffd}",
    // Noncharacters are characters to a transport.
    "\u{fffe}",
    "\u{1fffe}\u{1ffff}\u{2fffe}\u{2ffff}\u{3fffe}\u{3ffff}",
    "\u{4fffe}\u{4ffff}\u{5fffe}\u{5ffff}\u{6fffe}\u{6ffff}",
    "\u{7fffe}\u{7ffff}\u{8fffe}\u{8ffff}\u{9fffe}\u{9ffff}",
    "\u{afffe}\u{affff}\u{bfffe}\u{bffff}\u{cfffe}\u{cffff}",
    "\u{dfffe}\u{dffff}\u{efffe}\u{effff}\u{ffffe}\u{fffff}\u{10fffe}",
];

/// Cases 6.3 and 6.8-6.21.
const INVALID_TEXTS: &[&[u8]] = &[
    // 6.3: a surrogate inside a text.
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64",
    // 6.8: lone first bytes; 6.10: cut characters.
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce",
    b"\xce\xba\xe1",
    b"\xce\xba\xe1\xbd",
    b"\xce",
    // 6.11: five and six bytes, beyond the last code point.
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf\xbf",
    b"\xf4\x90\x80\x80",
    // 6.12: lone continuation bytes.
    b"\x80",
    b"\xbf",
    b"\x80\xbf",
    b"\x80\xbf\x80",
    b"\x80\xbf\x80\xbf\x80\xbf",
    // 6.13: lone first bytes before a space.
    b"\xc0 \xc1 \xc2 \xdf ",
    b"\xe0 \xe1 \xef ",
    b"\xf0 \xf1 \xf7 ",
    b"\xf8 \xfb ",
    b"\xfc ",
    // 6.14: the last continuation byte missing.
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf",
    // 6.16: impossible bytes.
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    // 6.17-6.19: overlong forms.
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xf8\x80\x80\x80\xaf",
    b"\xfc\x80\x80\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x87\xbf\xbf\xbf",
    b"\xfc\x83\xbf\xbf\xbf\xbf",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xf0\x80\x80\x80",
    b"\xf8\x80\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80\x80",
    // 6.20: single surrogates; 6.21: pairs.
    b"\xed\xa0\x80",
    b"\xed\xad\xbf",
    b"\xed\xae\x80",
    b"\xed\xaf\xbf",
    b"\xed\xb0\x80",
    b"\xed\xbe\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xed\xa0\x80\xed\xbf\xbf",
    b"\xed\xad\xbf\xed\xb0\x80",
    b"\xed\xaf\xbf\xed\xbf\xbf",
];

fn closes(cases: &mut Vec<Case>) {
    let text = masked(FIN | TEXT, b"Hello World!");
    add(cases, "7.1.1", &[text.clone(), close(1000)], &["text Hello World!", "close 1000"]);
    add(cases, "7.1.2", &[close(1000), close(1000)], &["close 1000"]);
    add(cases, "7.1.3", &[close(1000), masked(FIN | PING, b"x")], &["close 1000"]);
    add(cases, "7.1.4", &[close(1000), text.clone()], &["close 1000"]);
    let split = [masked(TEXT, b"fragment1"), close(1000), masked(FIN | CONTINUATION, b"fragment2")];
    add(cases, "7.1.5", &split, &["close 1000"]);
    add(cases, "7.3.1", &[masked(FIN | CLOSE, b"")], &["close"]);
    add(cases, "7.3.2", &[masked(FIN | CLOSE, b"\x03")], &["close 1002"]);
    add(cases, "7.3.3", &[close(1000)], &["close 1000"]);
    add(cases, "7.3.4", &[masked(FIN | CLOSE, b"\x03\xe8Hello World!")], &["close 1000"]);
    add(
        cases,
        "7.3.5",
        &[masked(FIN | CLOSE, &[b"\x03\xe8".as_slice(), &[b'*'; 123]].concat())],
        &["close 1000"],
    );
    add(
        cases,
        "7.3.6",
        &[masked(FIN | CLOSE, &[b"\x03\xe8".as_slice(), &[b'*'; 124]].concat())],
        &["close 1002"],
    );
    add(cases, "7.5.1", &[masked(FIN | CLOSE, b"\x03\xe8\xce\xba\xed\xa0\x80")], &["close 1007"]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        add(cases, "7.7", &[close(code)], &[&format!("close {code}")]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        add(cases, "7.9, 7.13", &[close(code)], &["close 1002"]);
    }
}
