//! From bytes to commands and from records to frames.

#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use protocol::command::{Command, MessageKind, Request, Send, Target};
use protocol::ids::{ConversationId, MessageId, RequestId, Seq, UnixMillis, UserId};
use protocol::record::{Body, MessageV1, Stored};
use protocol::upgrade::Form;
use protocol::ws::{Decoder, DecoderLimits, Opcode, Role, encode_frame, frame_header};

/// A payload that fits one receive buffer, one that fills a quarter, and the largest text.
const SIZES: [usize; 3] = [64, 512, 16 << 10];

fn send_of(bytes: usize) -> Send {
    let target = Target::Conversation(ConversationId([1; 16]));
    let message_id = Some(MessageId::v7(UnixMillis(1), [0; 10]));
    let (media, reply_to, mentions) = (None, None, Vec::new());
    Send { target, kind: MessageKind::Text, text: "x".repeat(bytes), media, reply_to, mentions, message_id }
}

fn decode_and_unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_and_unmask");
    for bytes in SIZES {
        let mut frame = Vec::new();
        encode_frame(Opcode::Binary, &vec![7; bytes], Some([1, 2, 3, 4]), &mut frame);
        let limits = DecoderLimits { message_bytes_max: 64 << 10, fragments_max: 16 };
        let mut decoder = Decoder::new(Role::Server, limits);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(bytes.to_string(), |b| {
            b.iter_batched_ref(
                || frame.clone(),
                |frame| assert!(decoder.decode(frame).expect("a frame").message.is_some()),
                BatchSize::SmallInput,
            );
        });
    }
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for bytes in SIZES {
        let payload = vec![7; bytes];
        let mut out = Vec::with_capacity(bytes + 16);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(bytes.to_string(), |b| {
            b.iter(|| {
                out.clear();
                let (header, header_bytes) = frame_header(Opcode::Binary, payload.len());
                out.extend_from_slice(&header[..header_bytes]);
                out.extend_from_slice(black_box(&payload));
            });
        });
    }
}

fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_send");
    let request = Request { id: Some(RequestId(7)), command: Command::Send(send_of(128)) };
    for form in [Form::Json, Form::Binary] {
        let mut payload = Vec::new();
        request.encode(form, &mut payload);
        group.bench_function(form.subprotocol(), |b| {
            b.iter(|| match form {
                Form::Json => {
                    protocol::json::decode_request(std::str::from_utf8(black_box(&payload)).expect("UTF-8"))
                        .is_ok()
                }
                Form::Binary => protocol::binary::decode_request(black_box(&payload)).is_ok(),
            });
        });
    }
}

fn render(c: &mut Criterion) {
    let mut group = c.benchmark_group("render_record");
    let sender = UserId::new("alice").expect("a name");
    let message = MessageV1::from_send(&send_of(128), &sender, MessageId([3; 16]));
    let record = Body::Message(message).record(ConversationId([1; 16]), Seq(9), UnixMillis(1), 9);
    let mut out = Vec::with_capacity(1024);
    for form in [Form::Json, Form::Binary] {
        group.bench_function(form.subprotocol(), |b| {
            b.iter(|| {
                out.clear();
                Stored::parse(black_box(&record)).expect("a record").encode(form, &mut out);
            });
        });
    }
}

criterion_group!(benches, decode_and_unmask, encode, commands, render);
criterion_main!(benches);
