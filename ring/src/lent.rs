//! A heap value whose address the kernel knows.

use std::ptr::NonNull;

/// Owns one heap value that the kernel may write to meanwhile.
///
/// Unlike a `Box`, moving it claims nothing about who else may access the value, so its address may be with
/// the kernel while this handle moves from place to place. Reading takes the handle apart, which the ring
/// does only after the operation completed.
pub(crate) struct Lent<T>(NonNull<T>);

impl<T> Lent<T> {
    pub(crate) fn new(value: T) -> Lent<T> {
        Lent(NonNull::from(Box::leak(Box::new(value))))
    }

    /// The address, valid until `take` or drop.
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// The value. The caller has seen the completion of the operation that knew the address.
    pub(crate) fn take(self) -> T {
        let pointer = self.0;
        std::mem::forget(self);
        // SAFETY: `from_raw` demands a pointer from `Box::into_raw` or `leak` that nobody else frees: it was
        // made in `new`, and `self` was forgotten above, so `drop` does not run.
        let value = unsafe { Box::from_raw(pointer.as_ptr()) };
        *value
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        // SAFETY: as in `take`; and `drop` runs at most once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
