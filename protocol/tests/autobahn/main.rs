//! Groups 1 to 7 of the Autobahn testsuite against a session without I/O. Every case runs in one piece,
//! frame by frame, cut at each byte, and cut in two at each byte.

#[path = "../wire/mod.rs"]
mod wire;

mod cases;

use cases::{CONTINUATION, Case, FIN, TEXT};
use wire::{ECHO, echo, masked, open_server};

#[track_caller]
fn check(Case { name, frames, expected }: &Case) {
    let stream: Vec<u8> = frames.concat();
    assert_eq!(
        echo(&mut open_server(&ECHO), std::slice::from_ref(&stream)),
        *expected,
        "{name} in one piece"
    );
    assert_eq!(echo(&mut open_server(&ECHO), frames), *expected, "{name} frame by frame");
    let bytes: Vec<_> = stream.iter().map(|byte| vec![*byte]).collect();
    assert_eq!(echo(&mut open_server(&ECHO), &bytes), *expected, "{name} byte by byte");
    if stream.len() > 2000 {
        return;
    }
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        let halves = [head.to_vec(), tail.to_vec()];
        assert_eq!(echo(&mut open_server(&ECHO), &halves), *expected, "{name} cut at {cut}");
    }
}

#[test]
fn groups_1_to_7() {
    for number in 1..=7 {
        cases::group(number).iter().for_each(check);
    }
}

/// 6.4: refused at the first impossible byte, with the rest of the frame, or of the message, still to come.
#[test]
fn group_6_4_fails_fast() {
    let valid = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5".as_slice();
    for bad in [b"\xf4\x90".as_slice(), b"\xf4\x90\x80\x80", b"\xed\xa0"] {
        let text = [valid, bad].concat();
        let frames = [masked(TEXT, valid), masked(CONTINUATION, bad)];
        assert_eq!(echo(&mut open_server(&ECHO), &frames), ["close 1007"]);

        let whole = masked(FIN | TEXT, &[text.as_slice(), b"edited, and never sent"].concat());
        let first_bad = 6 + valid.len() + 2;
        assert_eq!(echo(&mut open_server(&ECHO), &[whole[..first_bad].to_vec()]), ["close 1007"]);
        assert!(echo(&mut open_server(&ECHO), &[whole[..first_bad - 1].to_vec()]).is_empty());
        let bytes: Vec<_> = whole[..first_bad].iter().map(|byte| vec![*byte]).collect();
        assert_eq!(echo(&mut open_server(&ECHO), &bytes), ["close 1007"]);
    }
}
