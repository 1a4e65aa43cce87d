//! The pool of receive buffers that all sockets of a ring share.
//!
//! ```text
//!  entries   [addr len id|tail][addr len id]...    shared with the kernel, which takes from its head
//!  buffers   [Some | None]...                      by id: with the kernel, or out with a caller
//! ```
//!
//! Each buffer is a heap block of its own, so that one which is out can be owned, kept and changed by safe
//! code. Invariant: the kernel knows the address of exactly those buffers that are `Some`; `available + out
//! == entries`.

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Bytes that were received, owned. Goes back to the ring with [`Ring::recycle`](crate::Ring::recycle); one
/// that is dropped instead is missing from the ring's pool for ever.
pub struct RecvBuffer {
    /// All of it, `len` bytes of which were received.
    vec: Vec<u8>,
    len: usize,
    pooled: bool,
}

impl RecvBuffer {
    /// A buffer for simulators and tests. It belongs to no pool: recycling drops it.
    pub fn from_vec(vec: Vec<u8>) -> RecvBuffer {
        RecvBuffer { len: vec.len(), vec, pooled: false }
    }

    /// What was received.
    pub fn bytes(&self) -> &[u8] {
        &self.vec[..self.len]
    }

    /// What was received, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.vec[..self.len]
    }
}

impl fmt::Debug for RecvBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecvBuffer({} bytes)", self.len)
    }
}

/// The buffers of one ring, and the memory through which the kernel learns of them.
pub(crate) struct BufferPool {
    entries: NonNull<BufRingEntry>,
    entries_count: u16,
    buffer_bytes: u32,
    /// By buffer id. `Vec` and not `Box<[u8]>`: moving a box claims that nobody else writes to it.
    buffers: Vec<Option<Vec<u8>>>,
    /// Ids whose buffer is out.
    vacant: Vec<u16>,
    /// Where the next entry goes; what the kernel knows is `published`.
    tail: u16,
    published: u16,
}

impl BufferPool {
    /// All memory is taken here, and all buffers stand ready for `publish`.
    pub(crate) fn new(entries_count: u16, buffer_bytes: u32) -> io::Result<BufferPool> {
        assert!(entries_count.is_power_of_two(), "the kernel masks with the count");
        let length = usize::from(entries_count) * size_of::<BufRingEntry>();
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let entries = NonNull::new(address.cast()).expect("mmap returns an address or MAP_FAILED");
        let mut pool = BufferPool {
            entries,
            entries_count,
            buffer_bytes,
            buffers: (0..entries_count).map(|_| None).collect(),
            vacant: (0..entries_count).rev().collect(),
            tail: 0,
            published: 0,
        };
        for _ in 0..entries_count {
            pool.add(vec![0; buffer_bytes as usize]);
        }
        Ok(pool)
    }

    /// The address to register: page aligned, `entries_count` entries, valid until the pool is dropped.
    pub(crate) fn entries_address(&self) -> u64 {
        self.entries.as_ptr().expose_provenance() as u64
    }

    /// Buffers the kernel has, as far as completions have told; at least those it really has.
    pub(crate) fn available(&self) -> usize {
        self.buffers.len() - self.vacant.len()
    }

    /// Buffers that are out.
    pub(crate) fn out(&self) -> u32 {
        self.vacant.len() as u32
    }

    /// Takes out the buffer the kernel chose, `len` bytes of it received.
    pub(crate) fn take(&mut self, id: u16, len: usize) -> RecvBuffer {
        let vec = self.buffers[usize::from(id)].take().expect("the kernel names a buffer it has, once");
        assert!(len <= vec.len(), "the kernel stays within a buffer");
        self.vacant.push(id);
        RecvBuffer { vec, len, pooled: true }
    }

    /// Takes a buffer back. One that is not of this pool's kind is dropped: there is no id for it.
    pub(crate) fn recycle(&mut self, buffer: RecvBuffer) {
        // A buffer from another ring of the same size is as good; more than are missing cannot be kept.
        if buffer.pooled && buffer.vec.len() == self.buffer_bytes as usize && !self.vacant.is_empty() {
            self.add(buffer.vec);
        }
    }

    /// Shows the kernel what was added since the last call.
    pub(crate) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        // SAFETY: demands the address of the first entry of a buffer ring: it is the start of our mapping.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: demands an aligned `u16` that is valid for writes, and only atomic accesses by others
        // meanwhile. It lies in the mapping, at offset 14 of a page; the kernel reads it with acquire, and
        // nobody else writes it: `add` writes the other three fields of an entry, one by one.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        self.published = self.tail;
    }

    /// Forgets all memory instead of freeing it, for a ring that could not end its operations.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.buffers));
        self.entries_count = 0;
    }

    fn add(&mut self, mut vec: Vec<u8>) {
        let id = self.vacant.pop().expect("there are as many ids as buffers");
        let index = usize::from(self.tail & (self.entries_count - 1));
        // SAFETY: `add` demands that the result stays in the allocation: `index < entries_count`, and the
        // mapping holds `entries_count` entries.
        let entry = unsafe { self.entries.add(index) };
        // SAFETY: demands that nobody else accesses the entry during the borrow. At most `entries_count`
        // entries lie between the kernel's head and our tail (one for each id), and this one only after
        // `publish`. Of the first entry the kernel also reads the tail, which the three setters below do not
        // touch. Any bit pattern is a valid entry, and the mapping is zeroed.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(vec.as_mut_ptr().expose_provenance() as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id);
        self.buffers[usize::from(id)] = Some(vec);
        self.tail = self.tail.wrapping_add(1);
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        let length = usize::from(self.entries_count) * size_of::<BufRingEntry>();
        if length > 0 {
            // SAFETY: demands a mapping of this length that is not used any more: it was made in `new` with
            // it, the ring is closed before its pool is dropped (field order in `Ring`), and no borrow
            // outlives `add`.
            unsafe { libc::munmap(self.entries.as_ptr().cast(), length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_out_and_back_and_strangers_are_dropped() {
        let mut pool = BufferPool::new(4, 16).expect("a page of memory");
        assert_eq!((pool.available(), pool.out()), (4, 0));
        let mut buffer = pool.take(2, 5);
        buffer.bytes_mut().copy_from_slice(b"hello");
        assert_eq!(buffer.bytes(), b"hello");
        assert_eq!((pool.available(), pool.out()), (3, 1));

        pool.recycle(RecvBuffer::from_vec(vec![0; 16]));
        let mut other = BufferPool::new(1, 32).expect("a page of memory");
        pool.recycle(other.take(0, 1));
        assert_eq!((pool.available(), pool.out()), (3, 1));

        pool.recycle(buffer);
        assert_eq!((pool.available(), pool.out()), (4, 0));
    }
}
