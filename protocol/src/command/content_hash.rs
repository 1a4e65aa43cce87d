//! What a client asked, as one number: a repetition has that of the command before it, another command under the same id has not.
//!
//! It is stored with the record, so what goes in, and how, never changes.

use xxhash_rust::xxh3::Xxh3Default;

use crate::ids::UserId;

/// Length-prefixed fields into XXH3, so that no two different commands give the same input.
pub(super) struct ContentHash(Xxh3Default);

impl ContentHash {
    pub(super) fn new(op: &str) -> Self {
        let mut hash = Self(Xxh3Default::new());
        hash.bytes(op.as_bytes());
        hash
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    pub(super) fn users(&mut self, users: &[UserId]) -> &mut Self {
        self.number(users.len() as u64);
        for user in users {
            self.bytes(user.as_bytes());
        }
        self
    }

    pub(super) fn finish(&self) -> u64 {
        self.0.digest()
    }
}
