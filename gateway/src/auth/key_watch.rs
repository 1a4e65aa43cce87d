//! What who judges tokens and who fetches keys tell each other.

use std::sync::atomic::{AtomicBool, Ordering};

/// What shards say of tokens to whoever fetches keys, and hear. One word each way.
#[derive(Debug)]
pub(super) struct KeyWatch {
    pub(super) asked: AtomicBool,
    /// What is in force may be older than a token.
    pub(super) may_be_old: AtomicBool,
}

impl KeyWatch {
    /// A token names a key that is not known. Whether it may be known soon.
    pub(super) fn ask(&self) -> bool {
        let may_be_old = self.may_be_old.load(Ordering::Relaxed);
        if may_be_old && !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
        may_be_old
    }
}
