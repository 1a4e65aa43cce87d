//! The log without a disk: what appending and reading back cost in CPU. Then with one, beside the disk alone and an embedded store.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::path::Path;

use benches::{append, empty_log, sync};
use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use mimalloc::MiMalloc;
use router::places::KINDS;
use storage_log::format::{BLOCK_BYTES_MIN, SEGMENT_BYTES};
use storage_log::{Answer, Draft, Geometry, Link, LogConfig, Scan, SegmentHeader, StreamId, StreamKind};

/// That of the node.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Appends of one batch.
const APPENDS: usize = 100;

fn inbox(user: usize) -> StreamId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(user as u64).to_le_bytes());
    StreamId { kind: StreamKind(4), id }
}

fn conversation(number: u64) -> StreamId {
    let mut id = [0; 16];
    // Spread, as ids are.
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    StreamId { kind: StreamKind(1), id }
}

/// 100 records of 256 bytes into one batch, sealed: with no links, as a direct message, as a group of 99; and into so many
/// conversations that none is in a cache.
fn append_in_memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(APPENDS as u64));
    for (links_count, conversations) in [(0, 1), (2, 1), (99, 1), (0, 10_000), (2, 10_000)] {
        // Each conversation has members of its own beside those of its neighbours.
        let all = conversations as usize + links_count;
        let users: Vec<Link> = (0..all).map(|user| inbox(user).into()).collect();
        let (mut log, mut number) = (empty_log(1 << 20), 0_u64);
        let name = match conversations {
            1 => format!("{links_count}_links"),
            _ => format!("{links_count}_links/{conversations}_conversations"),
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                for _ in 0..APPENDS {
                    number = (number + 7_919) % conversations;
                    let stream = conversation(number);
                    let expected_head = log.head(stream).seq;
                    let (payload, links) = (&[9; 256], &users[number as usize..][..links_count]);
                    let draft = Draft { stream, expected_head, messages: 1, schema: 1, payload, links };
                    let answer = log.append(&[draft], 1);
                    assert!(matches!(answer, Answer::Stored(_)));
                }
                while sync(&mut log) {}
            });
        });
    }
}

/// 16 MiB of a segment, read back.
fn recovery_scan(c: &mut Criterion) {
    let config = LogConfig {
        store: [1; 16],
        number: 0,
        geometry: Geometry::of_blocks(BLOCK_BYTES_MIN),
        tail_bytes_max: 0,
        kinds: KINDS,
        segment_ms_max: None,
    };
    let mut log = empty_log(0);
    let mut bytes = Vec::new();
    let mut number = 0_u64;
    while bytes.len() < 16 << 20 {
        for _ in 0..APPENDS {
            number = (number + 7) % 10_000;
            let stream = conversation(number);
            let expected_head = log.head(stream).seq;
            let links = [number, number + 1].map(|user| inbox(user as usize).into());
            let draft =
                Draft { stream, expected_head, messages: 1, schema: 1, payload: &[9; 256], links: &links };
            log.append(&[draft], 1);
        }
        let batch = log.poll_write(1).expect("a batch is due");
        bytes.extend_from_slice(batch.buffer.bytes());
        log.handle_written(batch.buffer, true).expect("written");
    }
    let header = SegmentHeader {
        store: [1; 16],
        log: 0,
        base: 0,
        block_bytes: BLOCK_BYTES_MIN,
        segment_bytes: SEGMENT_BYTES,
    }
    .encode();
    let mut group = c.benchmark_group("recovery_scan");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.sample_size(20);
    group.bench_function("16_MiB", |b| {
        b.iter_batched(
            || Scan::new(config.clone(), 2),
            |mut scan| {
                scan.open_segment(0, &header).expect("a header");
                scan.feed(black_box(&bytes), true, &mut |_| {}).expect("a sound log");
                scan.finish().expect("a sound log").records
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, append_in_memory, recovery_scan);

/// The groups; then, unless one of them was asked for by name or this is a test, the table of a log on a disk.
fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().eq(["--bench"]) {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        append::measure(directory).expect("a disk with room for 4 GiB");
    }
}
