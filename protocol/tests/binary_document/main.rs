//! `docs/BINARY.md` against the code: its tables are read and used as a codec, which has to read and write every sample.
//!
//! What it reads is compared with the JSON of the same sample, so that an offset, a type or a name that is wrong, and a row that is
//! missing, all show.

#![forbid(unsafe_code)]

#[path = "../samples/mod.rs"]
mod samples;

mod codec;
mod document;
mod in_json;

use std::{collections::BTreeSet, fs};

use codec::Codec;
use document::{Document, HEADER, RECORDS, TAGS, TYPES, kind, number, root};
use in_json::agrees;
use protocol::{
    binary,
    command::{Command, Edit, HistoryPolicy, MessageKind, Request, Role},
    event::{ErrorCode, ServerFrame},
    ids::{RequestId, Seq},
    json,
    record::{AmendmentKind, Ext, Portable, SCHEMA_ERASED, SCHEMA_GONE, Stored, StreamKind},
    upgrade::Form,
};
use serde_json::Value;

/// Every sample in both forms; and a `welcome` whose limits are all different, which those of the samples are not.
fn messages() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let in_both = |encode: &dyn Fn(Form, &mut Vec<u8>)| {
        let (mut binary, mut json) = (Vec::new(), Vec::new());
        encode(Form::Binary, &mut binary);
        encode(Form::Json, &mut json);
        (binary, json)
    };
    let mut messages = Vec::new();
    for (name, request) in samples::commands() {
        let (binary, json) = in_both(&|form, out| request.encode(form, out));
        messages.push((format!("command {name}"), binary, json));
    }
    for (name, mut frame) in samples::frames() {
        if let ServerFrame::Welcome(welcome) = &mut frame {
            let limits = &mut welcome.limits;
            (limits.frame_bytes, limits.text_bytes, limits.page_bytes) = (11, 12, 13);
            (limits.history_items, limits.members, limits.title_bytes) = (14, 15, 16);
            (limits.commands_in_flight, limits.positions, limits.mentions) = (17, 18, 19);
            limits.conversations = 20;
        }
        let (binary, json) = in_both(&|form, out| frame.encode(form, out));
        messages.push((format!("frame {name}"), binary, json));
    }
    for (name, body) in samples::bodies() {
        let record = body.record(samples::CONVERSATION, Seq(43), samples::NOW, 17);
        let stored = Stored::parse(&record).expect("what was written can be read");
        if stored.portable.kind == StreamKind::Messages {
            let json = json::render_json(&stored);
            messages.push((format!("record {name}"), record, json));
        }
    }
    messages
}

#[test]
fn every_sample_reads_as_the_document_says() {
    let document = Document::read();
    let mut codec = Codec { document: &document, met: BTreeSet::new() };
    for (name, binary, json) in messages() {
        let said = codec.message(&binary);
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        assert!(agrees(&json, &said), "{name}\n in JSON {json}\n read as {said}");
    }
    let operations = document.operations.keys().map(u8::to_string);
    let documented: BTreeSet<String> = document.objects.keys().cloned().chain(operations).collect();
    assert_eq!(codec.met, documented, "all that is documented is met, and nothing else");
}

#[test]
fn operations_are_those_of_the_code() {
    let frame = |op: u8| [b"GF\x01", &[op][..], &[5, 0, 0, 0], &[0; 8]].concat();
    let is_command = |op: &u8| {
        let refusal = binary::decode_request(&frame(*op)).expect_err("no payload is empty");
        refusal.code != ErrorCode::UnknownOp
    };
    // What a client does not know adds nothing; what it knows has a payload.
    let is_sent = |op: &u8| binary::decode_frames(&frame(*op), &mut Vec::new()).is_err();
    let document = Document::read();
    let documented = |is_command: bool| -> Vec<u8> {
        let rows = document.operations.iter();
        rows.filter(|(_, row)| (row.direction == "command") == is_command).map(|(op, _)| *op).collect()
    };
    assert_eq!(documented(true), (0..=255).filter(is_command).collect::<Vec<_>>());
    assert_eq!(documented(false), (0..=255).filter(is_sent).collect::<Vec<_>>());
    for (op, row) in &document.operations {
        assert_eq!(row.bytes, document.object(&row.payload).bytes, "{op}");
        assert_eq!(row.direction == "event", *op >= 128 && row.id == "0", "{op}");
    }
}

#[test]
fn tables_add_up() {
    let document = Document::read();
    for (name, object) in &document.objects {
        let mut at = 0;
        for field in &object.fields {
            assert_eq!(field.at, at, "{name}.{}", field.name);
            at += document.size(&field.kind);
        }
        assert_eq!(object.bytes, at, "{name}");
    }
    for (heading, bytes) in [(HEADER, 16), (RECORDS, 64)] {
        let rows = document.rows(heading);
        let fields = rows.iter().filter(|row| row.len() == 4 && row[2] != "payload");
        let end = fields.fold(0, |at, row| {
            let range = document.range(heading, &row[2]);
            assert_eq!(range.start, at, "{heading}: {}", row[2]);
            assert_eq!(range.len(), document.size(&kind(&row[1].replace('`', ""))), "{heading}: {}", row[2]);
            range.end
        });
        assert_eq!(end, bytes, "{heading}");
    }
    for row in document.rows(TYPES).iter().filter(|row| row[1].parse::<usize>().is_ok()) {
        assert_eq!(number(&row[1]), document.size(&kind(&row[0])), "{}", row[0]);
    }
}

#[test]
fn words_are_those_of_the_code() {
    let document = Document::read();
    for number in 0..=u8::MAX {
        let word = |what| document.word(what, u64::from(number)).map(str::to_owned);
        let known = |name: Option<&str>| name.map(str::to_owned);
        assert_eq!(word("message kind"), known(MessageKind::from_number(number).map(MessageKind::name)));
        assert_eq!(word("role"), known(Role::from_number(number).map(Role::name)));
        assert_eq!(
            word("history policy"),
            known(HistoryPolicy::from_number(number).map(HistoryPolicy::name))
        );
        let change = AmendmentKind::from_number(number).map(|kind| format!("{kind:?}").to_lowercase());
        assert_eq!(word("change of an amendment"), change);
    }
    let whole = Ext::default().with_unlinked_from(Some(Seq(5)));
    assert_eq!(document.rows(TAGS)[0][0], whole[0].to_string());
}

/// What has no content any more, and what a client does not know.
#[test]
fn other_schemas_are_gaps() {
    let document = Document::read();
    for (schema, row) in [(SCHEMA_GONE, "0"), (SCHEMA_ERASED, "65535"), (99, "any other")] {
        let rows = document.rows(RECORDS);
        let row =
            rows.iter().find(|cells| cells.len() == 3 && cells[0] == row).expect("the schema has a row");
        let mut portable = Portable {
            kind: StreamKind::Messages,
            payload_bytes: 0,
            schema,
            flags: 0,
            conversation: samples::CONVERSATION,
            seq: Seq(43),
            at: samples::NOW,
            message_count: 0,
            payload_sum: 0,
        };
        portable.seal(&[]);
        let mut frames = Vec::new();
        binary::decode_frames(&portable.encode(), &mut frames).expect("a record");
        let [ServerFrame::Gap(gap)] = &frames[..] else { panic!("{schema} is a gap") };
        assert_eq!((gap.from, gap.to), (Seq(43), Seq(43)));
        assert!(schema == 99 || row[2].ends_with(&format!("`{}`", gap.reason)), "{row:?}");
    }
}

/// One frame for each row of what may be wrong, in the order of the rows.
#[test]
fn what_is_wrong_is_answered_as_the_document_says() {
    let edit = |text: usize| {
        let (conversation, text) = (samples::CONVERSATION, "x".repeat(text));
        let command = Command::Edit(Edit { conversation, seq: Seq(1), text, message_id: None });
        let mut frame = Vec::new();
        binary::encode_request(&Request { id: RequestId::new(5), command }, &mut frame);
        frame
    };
    let with = |at: usize, byte: u8| {
        let mut frame = edit(1);
        frame[at] = byte;
        frame
    };
    let cases: [&[Vec<u8>]; 8] = [
        &[vec![0; 15], with(0, b'X'), with(2, 2)],
        &[vec![0; 65_537]],
        &[with(8, 1), with(12, 1)],
        &[with(3, 99), with(3, 128)],
        &[with(3, 1), with(3, 3)],
        // The text that is no UTF-8; behind it and the conversation, the last byte of a seq that is out of range.
        &[with(16, 0xFF), with(17 + 16 + 7, 0xFF)],
        &[edit(16_385)],
        &[with(4, 0), with(7, 0x80)],
    ];
    let document = Document::read();
    let rows = document.rows(HEADER).into_iter().filter(|row| row.len() == 2).collect::<Vec<_>>();
    assert_eq!(rows.len(), cases.len());
    for (row, frames) in rows.iter().zip(cases) {
        for (index, frame) in frames.iter().enumerate() {
            let refusal = binary::decode_request(frame).expect_err("none of these is a command");
            let answer = match refusal.id {
                Some(RequestId(5)) => format!("error {}", refusal.code.code()),
                _ => format!("the connection is closed with {}", refusal.close_code().0),
            };
            assert_eq!(row[1], answer, "{}, case {index}", row[0]);
        }
    }
}

#[test]
fn worked_examples_are_golden() {
    let document = Document::read();
    let blocks: Vec<&str> = document.text.split("```").collect();
    let examples = blocks.chunks_exact(2).map(|pair| {
        let path = pair[0].split('`').rev().nth(1).expect("the file is named before it");
        (path, pair[1].lines().skip(1))
    });
    let mut count = 0;
    for (path, lines) in examples {
        let mut seen = Vec::new();
        for line in lines {
            let (at, behind) = line.trim_start().split_once("  ").expect("a position, then bytes");
            assert_eq!(number(at), seen.len(), "{path}: {line}");
            let hex = behind.split("  ").next().expect("the first").split(' ');
            seen.extend(hex.map(|byte| u8::from_str_radix(byte, 16).expect("a byte")));
        }
        assert_eq!(seen, fs::read(root().join(path)).expect("the file is there"), "{path}");
        count += 1;
    }
    assert_eq!(count, 2, "a frame and a record");
}

/// A `search` made by hand: where what its lists point to may stand.
#[test]
fn lists_stand_in_the_order_of_the_fields() {
    let document = Document::read();
    let at = |field: &str| {
        let object = document.object("SearchV1");
        object.fields.iter().find(|known| known.name == field).expect("the field has a row").at
    };
    let check = |contents: &str, query: (usize, u32), before: (usize, u32), is_taken: bool| {
        let mut payload = contents.as_bytes().to_vec();
        let root = payload.len();
        payload.resize(root + document.object("SearchV1").bytes, 0);
        payload[root + at("limit")] = 50;
        for (field, (start, count)) in [("query", query), ("before", before)] {
            let pointer = root + at(field);
            payload[pointer..][..4].copy_from_slice(&(start as i32 - pointer as i32).to_le_bytes());
            payload[pointer + 4..][..4].copy_from_slice(&count.to_le_bytes());
        }
        let length = (payload.len() as u32).to_le_bytes();
        let frame = [b"GF\x01\x16", &[5, 0, 0, 0][..], &length, &[0; 4], &payload].concat();
        let code = binary::decode_request(&frame).map_err(|refusal| refusal.code);
        assert_eq!(code.err(), (!is_taken).then_some(ErrorCode::BadFrame), "{contents}");
    };
    check("fishv1.A", (0, 4), (4, 4), true);
    check("v1.Afish", (4, 4), (0, 4), false);
    check("fish, then v1.A", (0, 4), (11, 4), true);
    check("fish", (0, 4), (0, 4), false);
    check("fish", (0, 4), (4, 0), true);
    check("fish", (0, 4), (4 + at("before"), 0), false);
}
