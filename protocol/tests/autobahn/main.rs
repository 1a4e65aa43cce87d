//! The Autobahn testsuite against a session without I/O. Every case of groups 1 to 7 runs in one piece, frame by frame, cut at each
//! byte, and cut in two at each byte; groups 9 and 10 as the suite cuts them.

#![forbid(unsafe_code)]

#[path = "../wire/mod.rs"]
mod wire;

mod cases;

use std::collections::BTreeSet;

use cases::{CONTINUATION, COUNTS, Case, FIN, TEXT, close};
use wire::{ECHO, echo, masked, open_server, shorten};

#[track_caller]
fn check(Case { name, frames, chop, expected }: &Case) {
    let stream: Vec<u8> = frames.concat();
    assert_eq!(
        echo(&mut open_server(&ECHO), std::slice::from_ref(&stream)),
        *expected,
        "{name} in one piece"
    );
    assert_eq!(echo(&mut open_server(&ECHO), frames), *expected, "{name} frame by frame");
    let chops = stream.chunks(chop.unwrap_or(1021)).map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert_eq!(echo(&mut open_server(&ECHO), &chops), *expected, "{name} chopped");
    if stream.len() > 2000 {
        return;
    }
    let bytes: Vec<_> = stream.iter().map(|byte| vec![*byte]).collect();
    assert_eq!(echo(&mut open_server(&ECHO), &bytes), *expected, "{name} byte by byte");
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        let halves = [head.to_vec(), tail.to_vec()];
        assert_eq!(echo(&mut open_server(&ECHO), &halves), *expected, "{name} cut at {cut}");
    }
}

#[test]
fn every_case_of_the_suite_stands_here() {
    let mut names = BTreeSet::new();
    for (number, count) in COUNTS {
        let found: Vec<String> = match number {
            9 => cases::group_9().into_iter().map(|case| case.name).collect(),
            10 => cases::group_10().into_iter().map(|case| case.name).collect(),
            _ => cases::group(number).into_iter().map(|case| case.name).collect(),
        };
        assert_eq!(found.len(), count, "group {number}: {found:?}");
        assert!(found.iter().all(|name| name.starts_with(&format!("{number}."))), "{found:?}");
        names.extend(found);
    }
    assert_eq!(names.len(), 301, "and no number twice");
}

#[test]
fn groups_1_to_7() {
    (1..=7).flat_map(cases::group).for_each(|case| check(&case));
}

#[test]
fn more_than_the_suite_has() {
    cases::beyond_the_suite().iter().for_each(check);
}

#[test]
fn groups_9_and_10() {
    for case in cases::group_9().into_iter().chain(cases::group_10()) {
        let mut pieces = Vec::new();
        let stream = case.stream();
        for _ in 0..case.messages {
            pieces.extend(stream.chunks(case.write_bytes).map(<[u8]>::to_vec));
        }
        pieces.push(close(1000));
        let kind = if case.opcode == TEXT { "text" } else { "binary" };
        let mut expected = vec![format!("{kind} {}", shorten(&case.payload())); case.messages];
        expected.push("close 1000".to_owned());
        assert!(echo(&mut open_server(&ECHO), &pieces) == expected, "{}", case.name);
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
