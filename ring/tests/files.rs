//! Files of a ring against the standard library.

mod common;

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use common::{Driver, Random, SMALL, ring, token};
use ring::{Completion, Errno, FileBuffer, FileId, Token};

const BAD_FD: Errno = Errno::new(9);
const NO_SPACE: Errno = Errno::new(28);

fn written(driver: &mut Driver, wanted: Token) -> (Result<(), Errno>, FileBuffer) {
    driver.until(
        |completion| matches!(completion, Completion::Written { token, .. } if *token == wanted),
        |completion| match completion {
            Completion::Written { result, buffer, .. } => (result, buffer),
            _ => unreachable!(),
        },
    )
}

fn read(driver: &mut Driver, file: FileId, offset: u64, len: usize) -> (Result<(), Errno>, FileBuffer) {
    driver.ring.read(file, offset, len, token(99));
    match driver.next() {
        Completion::Read { token, buffer, result } if token.value() == 99 => (result, buffer),
        other => panic!("a read expected, got {other:?}"),
    }
}

fn whole(bytes: &[u8]) -> FileBuffer {
    FileBuffer::new(bytes.to_vec(), 0..bytes.len())
}

#[test]
fn only_the_range_is_written_and_the_buffer_comes_back() {
    let mut driver = ring(SMALL);
    let plain = tempfile::tempfile().expect("a file");
    let file = driver.ring.add_file(plain.try_clone().expect("cloned"));
    driver.ring.write(file, 3, FileBuffer::new(b"..middle..".to_vec(), 2..8), token(1));
    let (result, buffer) = written(&mut driver, token(1));
    assert_eq!(result, Ok(()));
    assert_eq!(buffer.into_parts(), (b"..middle..".to_vec(), 2..8));
    let mut bytes = [1; 9];
    plain.read_exact_at(&mut bytes, 0).expect("nine bytes");
    assert_eq!(&bytes, b"\0\0\0middle");
    driver.ring.sync(file, token(2));
    assert!(matches!(driver.next(), Completion::Synced { result: Ok(()), .. }));
}

#[test]
fn a_read_beyond_the_end_is_short() {
    let mut driver = ring(SMALL);
    let plain = tempfile::tempfile().expect("a file");
    plain.write_all_at(b"0123456789", 0).expect("written");
    let file = driver.ring.add_file(plain);
    let (result, buffer) = read(&mut driver, file, 7, 512);
    assert_eq!((result, buffer.bytes()), (Ok(()), &b"789"[..]));
    let (result, buffer) = read(&mut driver, file, 10, 5);
    assert_eq!((result, buffer.bytes()), (Ok(()), &b""[..]));
}

#[test]
fn random_operations_leave_what_plain_calls_leave() {
    let mut random = Random::new(0x5eed_f11e);
    let mut driver = ring(SMALL);
    let ours = tempfile::tempfile().expect("a file");
    let plain = tempfile::tempfile().expect("a file");
    let file = driver.ring.add_file(ours.try_clone().expect("cloned"));
    for turn in 0..300 {
        let offset = random.below(100_000) as u64;
        let length = random.below(9000);
        match random.below(5) {
            0 => {
                let bytes = random.bytes(length);
                plain.write_all_at(&bytes, offset).expect("written");
                driver.ring.write(file, offset, whole(&bytes), token(turn));
                assert_eq!(written(&mut driver, token(turn)).0, Ok(()));
            }
            1 => {
                let bytes = random.bytes(length);
                plain.write_all_at(&bytes, offset).expect("written");
                driver.ring.write_and_sync(file, offset, whole(&bytes), token(turn));
                assert_eq!(written(&mut driver, token(turn)).0, Ok(()));
            }
            2 => {
                let bytes = random.bytes(length);
                plain.write_all_at(&bytes, offset).expect("written");
                driver.ring.write_through(file, offset, whole(&bytes), token(turn));
                assert_eq!(written(&mut driver, token(turn)).0, Ok(()));
            }
            3 => {
                let (result, buffer) = read(&mut driver, file, offset, length);
                let mut expected = vec![0; length];
                let count = plain.read_at(&mut expected, offset).expect("read");
                assert_eq!((result, buffer.bytes()), (Ok(()), &expected[..count]));
            }
            _ => {
                driver.ring.sync(file, token(turn));
                assert!(matches!(driver.next(), Completion::Synced { result: Ok(()), .. }));
            }
        }
    }
    assert_eq!(contents(&ours), contents(&plain));
    assert_eq!(driver.ring.counters().in_flight, 1, "only the waker's read");
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().expect("metadata").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("as long as it says");
    bytes
}

#[test]
fn many_writes_in_flight_all_arrive_with_a_full_submission_queue() {
    let mut driver = ring(SMALL);
    let plain = tempfile::tempfile().expect("a file");
    let file = driver.ring.add_file(plain.try_clone().expect("cloned"));
    for index in 0..500 {
        driver.ring.write_and_sync(file, index * 4, whole(&(index as u32).to_le_bytes()), token(index));
    }
    let counters = driver.ring.counters();
    assert!(counters.enters_extra > 0, "{counters:?}");
    assert_eq!(
        counters.enters, counters.enters_extra,
        "no turn yet, and each call is counted once in `enters`"
    );
    for index in 0..500 {
        assert_eq!(written(&mut driver, token(index)).0, Ok(()));
    }
    let expected: Vec<u8> = (0..500u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(contents(&plain), expected);
}

#[test]
fn a_failed_write_is_not_synced_and_says_why() {
    let mut driver = ring(SMALL);
    let read_only = tempfile::NamedTempFile::new().expect("a file");
    let read_only = driver.ring.add_file(File::open(read_only.path()).expect("opened"));
    let full = driver.ring.add_file(OpenOptions::new().write(true).open("/dev/full").expect("opened"));
    for (file, expected) in [(read_only, BAD_FD), (full, NO_SPACE)] {
        driver.ring.write(file, 0, whole(b"x"), token(1));
        assert_eq!(written(&mut driver, token(1)).0, Err(expected));
        driver.ring.write_and_sync(file, 0, whole(b"x"), token(2));
        let (result, buffer) = written(&mut driver, token(2));
        assert_eq!((result, buffer.bytes()), (Err(expected), &b"x"[..]));
        driver.ring.write_through(file, 0, whole(b"x"), token(3));
        let (result, buffer) = written(&mut driver, token(3));
        assert_eq!((result, buffer.bytes()), (Err(expected), &b"x"[..]));
    }
    assert!(driver.waiting.is_empty());
}

#[test]
fn a_write_whose_sync_fails_is_an_error() {
    let mut driver = ring(SMALL);
    // A pipe takes the bytes and cannot be synced.
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let file = driver.ring.add_file(File::from(std::os::fd::OwnedFd::from(writer)));
    driver.ring.write_and_sync(file, 0, whole(b"seen"), token(1));
    assert_eq!(written(&mut driver, token(1)).0, Err(Errno::new(22)));
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).expect("four bytes");
    assert_eq!(&bytes, b"seen");
}

#[test]
fn a_short_write_is_an_error_and_not_synced() {
    let mut driver = ring(SMALL);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let file = driver.ring.add_file(File::from(std::os::fd::OwnedFd::from(writer)));
    // More than a pipe holds: the write waits for the reader, who goes away in the middle.
    driver.ring.write_and_sync(file, 0, FileBuffer::new(vec![7; 1 << 20], 0..1 << 20), token(1));
    driver.ring.turn(Some(std::time::Duration::ZERO), &mut driver.waiting).expect("a turn");
    let mut first = vec![0; 1000];
    reader.read_exact(&mut first).expect("the beginning is there");
    drop(reader);
    let (result, buffer) = written(&mut driver, token(1));
    assert!(result.is_err());
    assert_eq!(buffer.bytes().len(), 1 << 20);

    // The same as one operation.
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let file = driver.ring.add_file(File::from(std::os::fd::OwnedFd::from(writer)));
    driver.ring.write_through(file, 0, FileBuffer::new(vec![7; 1 << 20], 0..1 << 20), token(2));
    driver.ring.turn(Some(std::time::Duration::ZERO), &mut driver.waiting).expect("a turn");
    reader.read_exact(&mut first).expect("the beginning is there");
    drop(reader);
    assert!(written(&mut driver, token(2)).0.is_err());
}

#[test]
fn direct_files_are_written_and_read_with_aligned_buffers() {
    let directory = tempfile::tempdir_in(".").expect("a directory");
    let path = directory.path().join("direct");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(libc::O_DIRECT);
    // Not every file system has O_DIRECT.
    let Ok(plain) = options.open(&path) else {
        return;
    };
    plain.set_len(1 << 16).expect("as long as a segment");
    let mut driver = ring(SMALL);
    let file = driver.ring.add_file(plain);
    let mut buffer = FileBuffer::aligned(8192, 4096);
    buffer.bytes_mut().fill(0xa5);
    driver.ring.write_and_sync(file, 4096, buffer, token(2));
    assert_eq!(written(&mut driver, token(2)).0, Ok(()));
    let mut buffer = FileBuffer::aligned(4096, 4096);
    buffer.bytes_mut().fill(0x5a);
    driver.ring.write_through(file, 8192, buffer, token(3));
    assert_eq!(written(&mut driver, token(3)).0, Ok(()));
    let (result, buffer) = read(&mut driver, file, 4096, 8192);
    assert_eq!(result, Ok(()));
    assert_eq!(buffer.bytes(), [[0xa5; 4096], [0x5a; 4096]].concat());
}

#[test]
fn a_removed_file_closes_after_its_last_operation() {
    let mut driver = ring(SMALL);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let file = driver.ring.add_file(File::from(std::os::fd::OwnedFd::from(writer)));
    driver.ring.write(file, 0, whole(b"last words"), token(1));
    driver.ring.remove_file(file);
    assert_eq!(written(&mut driver, token(1)).0, Ok(()));
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("the end: the writer is closed");
    assert_eq!(bytes, b"last words");
    let other = tempfile::tempfile().expect("a file");
    assert_eq!(driver.ring.add_file(other), file, "the name is free again");
}
