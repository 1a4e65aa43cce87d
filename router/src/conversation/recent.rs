//! The ids stored in the last twelve minutes: a command that comes again is answered, not stored again.
//!
//! Keys are 128-bit hashes under a random seed, so no client can aim for a collision. Rebuilt from the log before
//! serving. Ids older than this window are looked up in the log itself.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use protocol::ids::{ConversationId, MessageId, UserId};
use protocol::record::{Portable, Stored, StoredBody, StreamKind as Kind};
use storage_log::Record;

/// How long ids are remembered here. Longer than [`LOOK_UP_AGE`] by what clocks and a slow disk may differ.
const REMEMBERED: Duration = Duration::from_secs(12 * 60);

/// An id that claims to be older than this is looked up in the log.
pub(crate) const LOOK_UP_AGE: Duration = Duration::from_secs(10 * 60);

/// Ids older than this are not looked for: a repetition after a day is a new message.
pub(crate) const FORGOTTEN_AGE: Duration = Duration::from_secs(24 * 3600);

/// An id may be this far ahead of the log's clock.
pub(crate) const AHEAD_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key(u128);

/// A command that was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) seq: u64,
    pub(crate) at: u64,
    /// The last position of its group: durable when this is.
    pub(crate) position: u64,
    pub(crate) content_hash: u64,
}

/// The ids of one log.
pub struct Recent {
    seed: u64,
    known: HashMap<Key, Known, foldhash::fast::RandomState>,
    by_age: VecDeque<(u64, Key)>,
}

impl Recent {
    /// `seed` is random and secret.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, known: HashMap::default(), by_age: VecDeque::new() }
    }

    pub(crate) fn key(&self, conversation: ConversationId, user: &UserId, message_id: MessageId) -> Key {
        self.key_of(conversation.0, user.as_bytes(), message_id.0)
    }

    fn key_of(&self, conversation: [u8; 16], user: &[u8], message_id: [u8; 16]) -> Key {
        let mut bytes = [0; 16 + 16 + protocol::limits::ID_BYTES_MAX];
        let user = &user[..user.len().min(protocol::limits::ID_BYTES_MAX)];
        bytes[..16].copy_from_slice(&conversation);
        bytes[16..32].copy_from_slice(&message_id);
        bytes[32..32 + user.len()].copy_from_slice(user);
        Key(xxhash_rust::xxh3::xxh3_128_with_seed(&bytes[..32 + user.len()], self.seed))
    }

    pub(crate) fn find(&self, key: Key) -> Option<Known> {
        self.known.get(&key).copied()
    }

    pub(crate) fn insert(&mut self, key: Key, known: Known) {
        while let Some((at, oldest)) = self.by_age.front().copied() {
            if at + REMEMBERED.as_millis() as u64 >= known.at {
                break;
            }
            self.by_age.pop_front();
            self.known.remove(&oldest);
        }
        self.known.insert(key, known);
        self.by_age.push_back((known.at, key));
    }

    /// Enters a record that recovery read.
    pub fn observe(&mut self, record: &Record<'_>) {
        if record.stream().kind.0 != Kind::Messages as u8 {
            return;
        }
        if let Some((user, message_id, content_hash)) = command_of(record.portable()) {
            let known =
                Known { seq: record.seq(), at: record.at(), position: record.position(), content_hash };
            let key = self.key_of(record.stream().id, &user, message_id);
            self.insert(key, known);
        }
    }
}

/// Who stored a record under which id, and the hash of what they sent.
pub(crate) fn command_of(bytes: &[u8]) -> Option<(Vec<u8>, [u8; 16], u64)> {
    let portable = Portable::parse(bytes).ok()?;
    match Stored::with_checked_sum(portable, bytes).ok()?.body {
        StoredBody::Message(body) => {
            Some((body.sender.to_vec(), body.message_id, body.content_hash.to_native()))
        }
        StoredBody::Membership(body) => {
            Some((body.by.to_vec(), body.message_id, body.content_hash.to_native()))
        }
        StoredBody::State(_) | StoredBody::Unknown => None,
    }
}
