//! The cases of the Autobahn testsuite as data, under the suite's own numbers: what a fuzzing client sends to an echo server and
//! what has to come back. Runs nothing: whoever includes it decides how the frames are cut and carried.
//!
//! Left out are groups 12 and 13, which are about compression, which is not offered; 8 and 11 are empty. 301 cases remain.

use crate::wire::{masked, shorten};

pub(crate) const FIN: u8 = 0x80;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// How many cases the suite has in groups 1 to 7, 9 and 10.
pub(crate) const COUNTS: [(u8, usize); 9] =
    [(1, 16), (2, 11), (3, 7), (4, 10), (5, 20), (6, 145), (7, 37), (9, 54), (10, 1)];

/// One conversation with an echo server.
pub(crate) struct Case {
    /// The number of the suite.
    pub(crate) name: String,
    /// What the client sends, frame by frame; some are no frames at all.
    pub(crate) frames: Vec<Vec<u8>>,
    /// The bytes of a write, where the suite chops its frames.
    pub(crate) chop: Option<usize>,
    /// What the server sends until it ends the connection, one line a frame.
    pub(crate) expected: Vec<String>,
}

/// A case of groups 9 and 10: so many times a message, sent when the one before it has come back.
pub(crate) struct Volume {
    /// The number of the suite.
    pub(crate) name: String,
    pub(crate) opcode: u8,
    pub(crate) bytes: usize,
    pub(crate) fragment_bytes: usize,
    pub(crate) write_bytes: usize,
    pub(crate) messages: usize,
}

impl Volume {
    /// What is sent, and has to come back: nothing in it repeats where a mask, a write or a buffer does.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let pattern =
            if self.opcode == TEXT { b"BAsd7&jh23i".as_slice() } else { b"\x00\xfe\x23\xfa\xf0\x01\x80" };
        pattern.iter().copied().cycle().take(self.bytes).collect()
    }

    /// One message on the wire.
    pub(crate) fn stream(&self) -> Vec<u8> {
        in_fragments(self.opcode, &self.payload(), self.fragment_bytes).concat()
    }
}

/// The cases of one group, by its number: 1 to 7.
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

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The cases of group 9: limits and round trips.
pub(crate) fn group_9() -> Vec<Volume> {
    let mut cases = Vec::new();
    let mut add =
        |name, opcode, bytes: usize, fragment_bytes: Option<usize>, write_bytes: Option<usize>, messages| {
            let (fragment_bytes, write_bytes) =
                (fragment_bytes.unwrap_or(bytes.max(1)), write_bytes.unwrap_or(MIB));
            cases.push(Volume { name, opcode, bytes, fragment_bytes, write_bytes, messages });
        };
    // The suite numbers texts and binary messages in turn: 9.1 and 9.2, 9.3 and 9.4, and so on.
    for (opcode, part) in [(TEXT, 0), (BINARY, 1)] {
        for (bytes, number) in [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB].into_iter().zip(1..) {
            add(format!("9.{}.{number}", 1 + part), opcode, bytes, None, None, 1);
        }
        for (fragment, number) in (0..9).map(|power| 64_usize << (2 * power)).zip(1..) {
            add(format!("9.{}.{number}", 3 + part), opcode, 4 * MIB, Some(fragment), None, 1);
        }
        for (write, number) in [64, 128, 256, 512, 1024, 2048].into_iter().zip(1..) {
            add(format!("9.{}.{number}", 5 + part), opcode, MIB, None, Some(write), 1);
        }
        for (bytes, number) in [0, 16, 64, 256, 1024, 4096].into_iter().zip(1..) {
            add(format!("9.{}.{number}", 7 + part), opcode, bytes, None, None, 1000);
        }
    }
    cases
}

/// The one case of group 10: the client's library splits at a size that fits no power of two.
pub(crate) fn group_10() -> Vec<Volume> {
    let (name, bytes, fragment_bytes) = ("10.1.1".to_owned(), 64 * KIB, 1300);
    vec![Volume { name, opcode: TEXT, bytes, fragment_bytes, write_bytes: MIB, messages: 1 }]
}

/// More of the same kind than the suite has: every reserved bit with every kind of frame, every reserved opcode, and every text of
/// group 6 split in two at every byte and into single bytes.
pub(crate) fn beyond_the_suite() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
            let name = format!("reserved bits {bits:#x} of opcode {opcode}");
            add(&mut cases, name, &[masked(FIN | bits | opcode, b"x"), close(1000)], &["close 1002"]);
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [b"".as_slice(), b"reserved"] {
            let frames = [masked(FIN | TEXT, b"hi"), masked(FIN | opcode, payload), masked(FIN | PING, b"")];
            add(&mut cases, format!("reserved opcode {opcode}"), &frames, &["text hi", "close 1002"]);
        }
    }
    let split = [masked(TEXT, b"fragment1"), masked(FIN | PING, b"ping"), close(1000)];
    add(&mut cases, "split, then closed", &split, &["pong ping", "close 1000"]);
    for (number, is_valid, text) in numbered_texts() {
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            let frames = vec![masked(TEXT, head), masked(FIN | CONTINUATION, tail)];
            add_text(&mut cases, format!("{number} split at {cut}"), frames, &text, is_valid);
        }
        let mut frames = vec![masked(TEXT, b"")];
        frames.extend(text.iter().map(|byte| masked(CONTINUATION, &[*byte])));
        frames.push(masked(FIN | CONTINUATION, b""));
        add_text(&mut cases, format!("{number} in single bytes"), frames, &text, is_valid);
    }
    cases
}

fn add(cases: &mut Vec<Case>, name: impl Into<String>, frames: &[Vec<u8>], expected: &[&str]) {
    let expected = expected.iter().map(|line| (*line).to_owned()).collect();
    cases.push(Case { name: name.into(), frames: frames.to_vec(), chop: None, expected });
}

/// The case before, with its frames chopped.
fn again_chopped(cases: &mut Vec<Case>, name: &str, chop: usize) {
    let Case { frames, expected, .. } = cases.last().expect("there is one before");
    let (frames, expected) = (frames.clone(), expected.clone());
    cases.push(Case { name: name.to_owned(), frames, chop: Some(chop), expected });
}

pub(crate) fn close(code: u16) -> Vec<u8> {
    masked(FIN | CLOSE, &code.to_be_bytes())
}

/// A message in frames of so many bytes.
fn in_fragments(opcode: u8, payload: &[u8], fragment_bytes: usize) -> Vec<Vec<u8>> {
    if payload.len() <= fragment_bytes {
        return vec![masked(FIN | opcode, payload)];
    }
    let last = payload.len().div_ceil(fragment_bytes) - 1;
    let first_byte =
        |place| if place == 0 { opcode } else { CONTINUATION } | if place == last { FIN } else { 0 };
    payload.chunks(fragment_bytes).enumerate().map(|(place, part)| masked(first_byte(place), part)).collect()
}

fn framing(cases: &mut Vec<Case>) {
    for (opcode, kind, part, byte) in [(TEXT, "text", 1, b'*'), (BINARY, "binary", 2, 0xFE)] {
        for (length, number) in [0, 125, 126, 127, 128, 65_535, 65_536].into_iter().zip(1..) {
            let payload = vec![byte; length];
            let echoed = format!("{kind} {}", shorten(&payload));
            let frames = [masked(FIN | opcode, &payload), close(1000)];
            add(cases, format!("1.{part}.{number}"), &frames, &[&echoed, "close 1000"]);
        }
        again_chopped(cases, &format!("1.{part}.8"), 997);
    }
}

fn pings_and_pongs(cases: &mut Vec<Case>) {
    let mut ping = |name, payload: &[u8]| {
        let pong = format!("pong {}", shorten(payload));
        add(cases, name, &[masked(FIN | PING, payload), close(1000)], &[&pong, "close 1000"]);
    };
    ping("2.1", b"");
    ping("2.2", b"Hello, world!");
    ping("2.3", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff");
    ping("2.4", &[0xFE; 125]);
    add(cases, "2.5", &[masked(FIN | PING, &[0xFE; 126]), close(1000)], &["close 1002"]);
    add(cases, "2.6", &[masked(FIN | PING, &[0xFE; 125]), close(1000)], &["pong 125 bytes", "close 1000"]);
    cases.last_mut().expect("2.6").chop = Some(1);
    add(cases, "2.7", &[masked(FIN | PONG, b""), close(1000)], &["close 1000"]);
    let unsolicited = masked(FIN | PONG, b"unsolicited pong payload");
    add(cases, "2.8", &[unsolicited.clone(), close(1000)], &["close 1000"]);
    let frames = [unsolicited, masked(FIN | PING, b"ping payload"), close(1000)];
    add(cases, "2.9", &frames, &["pong ping payload", "close 1000"]);
    let payloads: Vec<_> = (0..10).map(|index| format!("payload-{index}")).collect();
    let mut frames: Vec<_> = payloads.iter().map(|payload| masked(FIN | PING, payload.as_bytes())).collect();
    frames.push(close(1000));
    let mut pongs: Vec<_> = payloads.iter().map(|payload| format!("pong {payload}")).collect();
    pongs.push("close 1000".to_owned());
    add(cases, "2.10", &frames, &pongs.iter().map(String::as_str).collect::<Vec<_>>());
    again_chopped(cases, "2.11", 1);
}

const HELLO: &[u8] = b"Hello, world!";

/// A text, something that is not allowed, and a ping that nobody answers any more.
fn refused_after_a_text(cases: &mut Vec<Case>, name: &str, refused: Vec<u8>, chop: Option<usize>) {
    let frames = [masked(FIN | TEXT, HELLO), refused, masked(FIN | PING, b"")];
    add(cases, name, &frames, &["text Hello, world!", "close 1002"]);
    cases.last_mut().expect("just added").chop = chop;
}

fn reserved_bits(cases: &mut Vec<Case>) {
    add(cases, "3.1", &[masked(FIN | 0x10 | TEXT, HELLO)], &["close 1002"]);
    refused_after_a_text(cases, "3.2", masked(FIN | 0x20 | TEXT, HELLO), None);
    refused_after_a_text(cases, "3.3", masked(FIN | 0x30 | TEXT, HELLO), None);
    refused_after_a_text(cases, "3.4", masked(FIN | 0x40 | TEXT, HELLO), Some(1));
    let noise = masked(FIN | 0x50 | BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff");
    add(cases, "3.5", &[noise], &["close 1002"]);
    add(cases, "3.6", &[masked(FIN | 0x60 | BINARY, HELLO)], &["close 1002"]);
    add(cases, "3.7", &[masked(FIN | 0x70 | CLOSE, b"")], &["close 1002"]);
}

fn reserved_opcodes(cases: &mut Vec<Case>) {
    for (part, opcodes) in [(1, [3, 4, 5, 6, 7]), (2, [11, 12, 13, 14, 15])] {
        let [first, second, third, fourth, fifth] = opcodes.map(|opcode| FIN | opcode);
        add(cases, format!("4.{part}.1"), &[masked(first, b"")], &["close 1002"]);
        add(cases, format!("4.{part}.2"), &[masked(second, b"reserved opcode payload")], &["close 1002"]);
        refused_after_a_text(cases, &format!("4.{part}.3"), masked(third, b""), None);
        refused_after_a_text(cases, &format!("4.{part}.4"), masked(fourth, HELLO), None);
        refused_after_a_text(cases, &format!("4.{part}.5"), masked(fifth, HELLO), Some(1));
    }
}

/// A case that the suite has three times: in one write, in a write a frame, and in single bytes.
fn add_thrice(cases: &mut Vec<Case>, first: u8, frames: &[Vec<u8>], expected: &[&str]) {
    for (number, chop) in (first..).zip([None, None, Some(1)]) {
        add(cases, format!("5.{number}"), frames, expected);
        cases.last_mut().expect("just added").chop = chop;
    }
}

fn fragmentation(cases: &mut Vec<Case>) {
    let part = |number| format!("fragment{number}").into_bytes();
    let (first, last) = (masked(TEXT, &part(1)), masked(FIN | CONTINUATION, &part(2)));
    let both = "text fragment1fragment2";
    add(cases, "5.1", &[masked(PING, &part(1)), last.clone()], &["close 1002"]);
    add(cases, "5.2", &[masked(PONG, &part(1)), last.clone()], &["close 1002"]);
    add_thrice(cases, 3, &[first.clone(), last.clone(), close(1000)], &[both, "close 1000"]);
    let ping = masked(FIN | PING, b"ping payload");
    let frames = [first.clone(), ping, last.clone(), close(1000)];
    add_thrice(cases, 6, &frames, &["pong ping payload", both, "close 1000"]);
    let orphan = b"non-continuation payload";
    let hello = masked(FIN | TEXT, HELLO);
    add_thrice(cases, 9, &[masked(FIN | CONTINUATION, orphan), hello.clone()], &["close 1002"]);
    add_thrice(cases, 12, &[masked(CONTINUATION, orphan), hello], &["close 1002"]);
    let frames = [first.clone(), last, masked(CONTINUATION, &part(3)), masked(FIN | TEXT, &part(4))];
    add(cases, "5.15", &frames, &[both, "close 1002"]);
    for (name, begins) in [("5.16", CONTINUATION), ("5.17", FIN | CONTINUATION)] {
        let once = [masked(begins, &part(1)), masked(TEXT, &part(2)), masked(FIN | CONTINUATION, &part(3))];
        add(cases, name, &[once.clone(), once].concat(), &["close 1002"]);
    }
    add(cases, "5.18", &[first.clone(), masked(FIN | TEXT, &part(2))], &["close 1002"]);
    let middle = |number| masked(CONTINUATION, &part(number));
    let pings = [masked(FIN | PING, b"pongme 1!"), masked(FIN | PING, b"pongme 2!")];
    let [ping1, ping2] = pings;
    let end = masked(FIN | CONTINUATION, &part(5));
    let frames = [first, middle(2), ping1, middle(3), middle(4), ping2, end, close(1000)];
    let echoed = "text fragment1fragment2fragment3fragment4fragment5";
    let expected = ["pong pongme 1!", "pong pongme 2!", echoed, "close 1000"];
    // The second time in a write a frame, which every case is carried in anyway.
    add(cases, "5.19", &frames, &expected);
    add(cases, "5.20", &frames, &expected);
}

/// A text in these frames, and a close.
fn add_text(
    cases: &mut Vec<Case>,
    name: impl Into<String>,
    mut frames: Vec<Vec<u8>>,
    text: &[u8],
    is_valid: bool,
) {
    let echoed = format!("text {}", shorten(text));
    let expected: &[&str] = if is_valid { &[&echoed, "close 1000"] } else { &["close 1007"] };
    frames.push(close(1000));
    add(cases, name, &frames, expected);
}

/// Kosme: Greek, with characters of two and three bytes.
const KOSME: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";
const EDITED: &[u8] = b"edited";

fn texts(cases: &mut Vec<Case>) {
    add_text(cases, "6.1.1", vec![masked(FIN | TEXT, b"")], b"", true);
    let around = |middle: &[u8]| {
        vec![masked(TEXT, b""), masked(CONTINUATION, middle), masked(FIN | CONTINUATION, b"")]
    };
    add_text(cases, "6.1.2", around(b""), b"", true);
    add_text(cases, "6.1.3", around(b"middle frame payload"), b"middle frame payload", true);
    let (first, second) = ("Hello-\u{b5}@\u{df}\u{f6}\u{e4}", "\u{fc}\u{e0}\u{e1}-UTF-8!!");
    let hello = [first, second].concat().into_bytes();
    add_text(cases, "6.2.1", in_fragments(TEXT, &hello, usize::MAX), &hello, true);
    let two = vec![masked(TEXT, first.as_bytes()), masked(FIN | CONTINUATION, second.as_bytes())];
    add_text(cases, "6.2.2", two, &hello, true);
    add_text(cases, "6.2.3", in_fragments(TEXT, &hello, 1), &hello, true);
    add_text(cases, "6.2.4", in_fragments(TEXT, KOSME, 1), KOSME, true);
    let surrogate = [KOSME, b"\xed\xa0\x80", EDITED].concat();
    add_text(cases, "6.3.1", in_fragments(TEXT, &surrogate, usize::MAX), &surrogate, false);
    add_text(cases, "6.3.2", in_fragments(TEXT, &surrogate, 1), &surrogate, false);
    fails_fast(cases);
    for (name, is_valid, text) in numbered_texts() {
        add_text(cases, name, vec![masked(FIN | TEXT, &text)], &text, is_valid);
    }
}

/// 6.4: the close has to come before the rest, which is therefore never sent: the suite waits a second for it.
fn fails_fast(cases: &mut Vec<Case>) {
    let beyond = b"\xf4\x90\x80\x80";
    let text = [KOSME, beyond, EDITED].concat();
    add(cases, "6.4.1", &[masked(TEXT, KOSME), masked(CONTINUATION, beyond)], &["close 1007"]);
    add(cases, "6.4.2", &[masked(TEXT, &text[..12]), masked(CONTINUATION, &text[12..13])], &["close 1007"]);
    let whole = masked(FIN | TEXT, &text);
    let cut = |at: usize| 6 + at;
    for (name, first, second) in [("6.4.3", 11, 15), ("6.4.4", 12, 13)] {
        let frames = [whole[..cut(first)].to_vec(), whole[cut(first)..cut(second)].to_vec()];
        add(cases, name, &frames, &["close 1007"]);
    }
}

/// The texts of 6.5 to 6.23, by their number: whether each is UTF-8.
fn numbered_texts() -> Vec<(String, bool, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |part: u8, texts: Vec<(bool, Vec<u8>)>| {
        let texts = texts.into_iter().zip(1..);
        all.extend(texts.map(|((is_valid, text), number)| (format!("6.{part}.{number}"), is_valid, text)));
    };
    for (part, is_valid, texts) in TEXTS {
        add(*part, texts.iter().map(|text| (*is_valid, text.to_vec())).collect());
    }
    let whole_characters = [2, 5, 7, 9, 11];
    let prefix = |length| (whole_characters.contains(&length), KOSME[..length].to_vec());
    add(6, (1..=KOSME.len()).map(prefix).collect());
    let mut edges = [0xD7FF, 0xE000, 0xFFFD, 0x10_FFFF].map(character).to_vec();
    edges.push((false, b"\xf4\x90\x80\x80".to_vec()));
    add(11, edges);
    let alternating = |length: usize| [0x80, 0xBF].into_iter().cycle().take(length).collect();
    let mut lone: Vec<Vec<u8>> = vec![vec![0x80], vec![0xBF]];
    lone.extend((2..=6).map(alternating));
    lone.push((0x80..0xBF).collect());
    add(12, lone.into_iter().map(|text| (false, text)).collect());
    let starts = [0xC0..=0xDE_u8, 0xE0..=0xEE, 0xF0..=0xF6, 0xF8..=0xFA, 0xFC..=0xFC];
    add(13, starts.map(|range| (false, range.flat_map(|first| [first, b' ']).collect())).to_vec());
    add(14, CUT.iter().map(|text| (false, text.to_vec())).collect());
    add(15, vec![(false, CUT.concat())]);
    let highs = [0xD800, 0xDB7F, 0xDB80, 0xDBFF];
    let pairs = highs.into_iter().flat_map(|high| [[high, 0xDC00], [high, 0xDFFF]]);
    add(21, pairs.map(|pair| (false, pair.map(surrogate).concat())).collect());
    let planes = (0..=0x10).flat_map(|plane| [plane << 16 | 0xFFFE, plane << 16 | 0xFFFF]);
    add(22, planes.map(character).collect());
    add(23, (0xFFF9..=0xFFFF).map(character).collect());
    all
}

fn character(code: u32) -> (bool, Vec<u8>) {
    (true, char::from_u32(code).expect("a character").to_string().into_bytes())
}

/// As three bytes, which UTF-8 does not allow.
fn surrogate(code: u16) -> Vec<u8> {
    vec![0xE0 | (code >> 12) as u8, 0x80 | (code >> 6 & 0x3F) as u8, 0x80 | (code & 0x3F) as u8]
}

/// Characters of two to six bytes, the least and the greatest of each, without their last byte.
const CUT: [&[u8]; 10] = [
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
];

/// The parts of group 6 that are lists of texts.
const TEXTS: &[(u8, bool, &[&[u8]])] = &[
    (
        5,
        true,
        &[
            b"hello\x24world",
            b"hello\xc2\xa2world",
            b"hello\xe2\x82\xacworld",
            b"hello\xf0\xa4\xad\xa2world",
            KOSME,
        ],
    ),
    // The first and the last of each length; those of five and six bytes, and beyond the last code point.
    (7, true, &[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
    (8, false, &[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
    (9, true, &[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
    (10, false, &[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
    // Bytes that stand in no text.
    (16, false, &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    // Overlong: a slash, the greatest of each length, and NUL.
    (
        17,
        false,
        &[
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xf8\x80\x80\x80\xaf",
            b"\xfc\x80\x80\x80\x80\xaf",
        ],
    ),
    (
        18,
        false,
        &[
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xf0\x8f\xbf\xbf",
            b"\xf8\x87\xbf\xbf\xbf",
            b"\xfc\x83\xbf\xbf\xbf\xbf",
        ],
    ),
    (
        19,
        false,
        &[
            b"\xc0\x80",
            b"\xe0\x80\x80",
            b"\xf0\x80\x80\x80",
            b"\xf8\x80\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80\x80",
        ],
    ),
    // Single surrogates.
    (
        20,
        false,
        &[
            b"\xed\xa0\x80",
            b"\xed\xad\xbf",
            b"\xed\xae\x80",
            b"\xed\xaf\xbf",
            b"\xed\xb0\x80",
            b"\xed\xbe\x80",
            b"\xed\xbf\xbf",
        ],
    ),
];

fn closes(cases: &mut Vec<Case>) {
    let text = masked(FIN | TEXT, b"Hello World!");
    add(cases, "7.1.1", &[text.clone(), close(1000)], &["text Hello World!", "close 1000"]);
    add(cases, "7.1.2", &[close(1000), masked(FIN | CLOSE, b"")], &["close 1000"]);
    add(cases, "7.1.3", &[close(1000), masked(FIN | PING, b"")], &["close 1000"]);
    add(cases, "7.1.4", &[close(1000), text.clone()], &["close 1000"]);
    let split = [masked(TEXT, b"fragment1"), close(1000), masked(FIN | CONTINUATION, b"fragment2")];
    add(cases, "7.1.5", &split, &["close 1000"]);
    let long: Vec<u8> = b"BAsd7&jh23".iter().copied().cycle().take(256 * KIB).collect();
    let echoed = format!("text {}", shorten(&long));
    let frames = [masked(FIN | TEXT, &long), text, close(1000), masked(FIN | PING, b"")];
    add(cases, "7.1.6", &frames, &[&echoed, "text Hello World!", "close 1000"]);
    let with_reason = |reason: &[u8]| masked(FIN | CLOSE, &[b"\x03\xe8".as_slice(), reason].concat());
    add(cases, "7.3.1", &[masked(FIN | CLOSE, b"")], &["close"]);
    add(cases, "7.3.2", &[masked(FIN | CLOSE, b"a")], &["close 1002"]);
    add(cases, "7.3.3", &[close(1000)], &["close 1000"]);
    add(cases, "7.3.4", &[with_reason(b"Hello World!")], &["close 1000"]);
    add(cases, "7.3.5", &[with_reason(&[b'*'; 123])], &["close 1000"]);
    add(cases, "7.3.6", &[with_reason(&[b'*'; 124])], &["close 1002"]);
    add(cases, "7.5.1", &[with_reason(&[KOSME, b"\xed\xa0\x80", EDITED].concat())], &["close 1007"]);
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    for (code, number) in good.into_iter().zip(1..) {
        add(cases, format!("7.7.{number}"), &[close(code)], &[&format!("close {code}")]);
    }
    for (code, number) in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999].into_iter().zip(1..) {
        add(cases, format!("7.9.{number}"), &[close(code)], &["close 1002"]);
    }
    // The suite leaves open what comes of these, and the RFC does not.
    for (code, number) in [5000, 65_535].into_iter().zip(1..) {
        add(cases, format!("7.13.{number}"), &[close(code)], &["close 1002"]);
    }
}
