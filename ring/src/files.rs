//! File operations, and the files they are done on.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags};

use crate::operation::{Kind, Operation};
use crate::{FileBuffer, FileId, Ring, Token};

/// Reads of whole blocks get memory aligned to this, so that they work on files opened with `O_DIRECT`.
const READ_ALIGNMENT: usize = 4096;
/// The smallest unit that `O_DIRECT` takes on any device.
const BLOCK_BYTES: usize = 512;
/// The kernel writes and reads at most this much in one operation (`MAX_RW_COUNT`).
const FILE_BYTES_MAX: usize = i32::MAX as usize & !(READ_ALIGNMENT - 1);

impl Ring {
    /// Takes over an open file. Whether it is buffered or `O_DIRECT` is the opener's choice.
    pub fn add_file(&mut self, file: File) -> FileId {
        self.files.insert(file)
    }

    /// Closes a file as soon as nothing is in flight on it; closing happens on this thread. The name must not
    /// be used again.
    pub fn remove_file(&mut self, file: FileId) {
        self.files.remove(file);
    }

    /// Writes the buffer at `offset`. Completes with `Written`, which is an error unless all of it was
    /// written.
    pub fn write(&mut self, file: FileId, offset: u64, buffer: FileBuffer, token: Token) {
        self.push_write(file, offset, buffer, token, 0);
    }

    fn push_write(&mut self, file: FileId, offset: u64, buffer: FileBuffer, token: Token, rw_flags: i32) {
        let address = buffer.bytes().as_ptr();
        let length = file_bytes(&buffer);
        let fd = self.files.begin(file);
        let slot = self.in_flight.insert(Operation::Write { token, file, buffer });
        let entry = write_entry(fd, offset, address, length, rw_flags);
        // SAFETY: the address is that of `length` bytes of a vector owned by `in_flight` until the
        // completion; nobody touches them meanwhile, and moving the vector does not move them.
        unsafe { self.push(entry.user_data(Kind::File.with(u64::from(slot)))) };
    }

    /// Brings a file's data to the device (`fdatasync`). Covers what was written by operations that have
    /// completed, and no others: the kernel does not order it after operations in flight.
    pub fn sync(&mut self, file: FileId, token: Token) {
        let fd = self.files.begin(file);
        let slot = self.in_flight.insert(Operation::Sync { token, file });
        let entry = sync_entry(fd).user_data(Kind::File.with(u64::from(slot)));
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry) };
    }

    /// Writes the buffer at `offset` and then syncs, as two linked operations with one completion: `Written`,
    /// which is `Ok` only if all of it was written and the sync after it succeeded. After a short write
    /// nothing is synced.
    pub fn write_and_sync(&mut self, file: FileId, offset: u64, buffer: FileBuffer, token: Token) {
        let address = buffer.bytes().as_ptr();
        let length = file_bytes(&buffer);
        let fd = self.files.begin(file);
        let slot = self.in_flight.insert(Operation::WriteAndSync { token, file, buffer, first: None });
        let write = write_entry(fd, offset, address, length, 0)
            .flags(Flags::IO_LINK)
            .user_data(Kind::LinkedWrite.with(u64::from(slot)));
        let sync = sync_entry(fd).user_data(Kind::LinkedSync.with(u64::from(slot)));
        // SAFETY: as in `push_write`; the operation leaves `in_flight` only after both halves completed.
        unsafe { self.push_linked([write, sync]) };
    }

    /// Writes the buffer at `offset` and brings it to the device, in one operation (`RWF_DSYNC`). Completes with
    /// `Written`, which is `Ok` only if all of it was written and is there.
    pub fn write_through(&mut self, file: FileId, offset: u64, buffer: FileBuffer, token: Token) {
        self.push_write(file, offset, buffer, token, libc::RWF_DSYNC);
    }

    /// Reads `len` bytes at `offset`, or fewer at the end of the file. Memory for whole blocks is aligned for
    /// `O_DIRECT`.
    pub fn read(&mut self, file: FileId, offset: u64, len: usize, token: Token) {
        let alignment = if len.is_multiple_of(BLOCK_BYTES) { READ_ALIGNMENT } else { 1 };
        let mut buffer = FileBuffer::aligned(len, alignment);
        let address = buffer.bytes_mut().as_mut_ptr();
        let length = file_bytes(&buffer);
        let fd = self.files.begin(file);
        let slot = self.in_flight.insert(Operation::Read { token, file, buffer });
        let entry = opcode::Read::new(Fd(fd), address, length)
            .offset(offset)
            .build()
            .user_data(Kind::File.with(u64::from(slot)));
        // SAFETY: as in `push_write`, with `length` initialised bytes for the kernel to overwrite.
        unsafe { self.push(entry) };
    }
}

/// The files a ring owns. Invariant: a file is open while an operation on it is in flight.
#[derive(Default)]
pub(crate) struct Files {
    files: Vec<Option<Owned>>,
}

struct Owned {
    file: File,
    in_flight: u32,
    removed: bool,
}

impl Files {
    fn insert(&mut self, file: File) -> FileId {
        let owned = Some(Owned { file, in_flight: 0, removed: false });
        let vacant = self.files.iter().position(Option::is_none);
        let index = vacant.unwrap_or(self.files.len());
        match vacant {
            Some(index) => self.files[index] = owned,
            None => self.files.push(owned),
        }
        FileId(index as u32)
    }

    /// An operation on the file is about to be queued.
    fn begin(&mut self, id: FileId) -> RawFd {
        let owned = self.get_mut(id);
        assert!(!owned.removed, "a removed file is not used");
        owned.in_flight += 1;
        owned.file.as_raw_fd()
    }

    /// An operation on the file completed.
    pub(crate) fn end(&mut self, id: FileId) {
        self.get_mut(id).in_flight -= 1;
        self.close_if_over(id);
    }

    fn remove(&mut self, id: FileId) {
        let owned = self.get_mut(id);
        assert!(!owned.removed, "a file is removed once");
        owned.removed = true;
        self.close_if_over(id);
    }

    fn close_if_over(&mut self, id: FileId) {
        let owned = self.get_mut(id);
        if owned.removed && owned.in_flight == 0 {
            self.files[id.0 as usize] = None;
        }
    }

    fn get_mut(&mut self, id: FileId) -> &mut Owned {
        let owned = self.files.get_mut(id.0 as usize).and_then(Option::as_mut);
        owned.expect("a file is named only until it is removed")
    }
}

fn file_bytes(buffer: &FileBuffer) -> u32 {
    let length = buffer.bytes().len();
    assert!(length <= FILE_BYTES_MAX, "one operation moves less than 2 GiB");
    length as u32
}

fn write_entry(fd: RawFd, offset: u64, address: *const u8, length: u32, rw_flags: i32) -> Entry {
    opcode::Write::new(Fd(fd), address, length).offset(offset).rw_flags(rw_flags).build()
}

fn sync_entry(fd: RawFd) -> Entry {
    opcode::Fsync::new(Fd(fd)).flags(FsyncFlags::DATASYNC).build()
}
