//! Where everything lives: pure functions from names to shards, logs and streams.
//!
//! What is stored under a name for ever (logs, streams, derived ids) depends on the store alone; where a user's
//! sessions live depends on the number of shards and may change at any start.

use std::time::Duration;

use blake3::Hasher;
use protocol::ids::{ConversationId, MessageId, UserId};
use protocol::limits::SMALL_GROUP_MEMBERS_MAX;
use protocol::record::{Schema, StreamKind as Kind};
use sha2::{Digest, Sha256};
use storage_log::{Kinds, StreamId, StreamKind};

/// What the streams of a chat are to its logs.
pub const KINDS: Kinds = Kinds {
    home: StreamKind(Kind::Messages as u8),
    last: [StreamKind(Kind::State as u8), StreamKind(Kind::Positions as u8)],
    alone: [StreamKind(Kind::Settings as u8), StreamKind(Kind::Sightings as u8)],
    linked: [StreamKind(Kind::Inbox as u8), StreamKind(Kind::Memberships as u8)],
    amended: StreamKind(Kind::Amendments as u8),
    content: Schema::Message as u16,
};

/// Most logs of a store: a cursor holds a position in each and must fit its 512 bytes.
pub const LOGS_MAX: u16 = 32;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whatever a command may come to, a log takes.
const _: () = assert!(protocol::limits::RECORD_PAYLOAD_BYTES_MAX <= storage_log::format::PAYLOAD_BYTES_MAX);

/// One data-plane thread of this node, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

impl ShardId {
    /// Index into a list of all shards.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The fixed facts that places are computed from.
#[derive(Clone)]
pub struct Places {
    /// The installation.
    pub store: [u8; 16],
    /// Secret of the installation: names of users' streams and tags of cursors cannot be guessed.
    pub key: [u8; 32],
    /// Logs of the store, fixed when it was made.
    pub logs: u16,
    /// Shards of this process.
    pub shards: u16,
    /// Members up to which a group fans out on write: its records are linked into every member's inbox. It counts when the
    /// members change; how a group fans out until then stands in its state.
    pub small_group_members_max: usize,
    /// How long a day is by which it is set how much of a conversation is kept.
    pub retention_day: Duration,
}

impl Places {
    /// Those of a store with so many logs, in a process with so many shards.
    #[must_use]
    pub const fn new(store: [u8; 16], key: [u8; 32], logs: u16, shards: u16) -> Self {
        Self {
            store,
            key,
            logs,
            shards,
            small_group_members_max: SMALL_GROUP_MEMBERS_MAX,
            retention_day: DAY,
        }
    }

    /// The shard where all sessions of a user live.
    #[must_use]
    pub fn home_of(&self, user: &UserId) -> ShardId {
        let hash = xxhash_rust::xxh3::xxh3_64(user.as_bytes());
        ShardId((hash % u64::from(self.shards)) as u16)
    }

    /// The log that a conversation's records stand in. Part of the format: never changes for a store.
    #[must_use]
    pub fn log_of(&self, conversation: ConversationId) -> u16 {
        let hash = xxhash_rust::xxh3::xxh3_64(&conversation.0);
        (hash % u64::from(self.logs)) as u16
    }

    /// The log that a user's settings stand in. Part of the format. Where there are as many shards as logs, its owner is the user's home.
    #[must_use]
    pub fn settings_log_of(&self, user: &UserId) -> u16 {
        let hash = xxhash_rust::xxh3::xxh3_64(user.as_bytes());
        (hash % u64::from(self.logs)) as u16
    }

    /// The shard that owns the log that a user's settings stand in.
    #[must_use]
    pub fn settings_owner_of(&self, user: &UserId) -> ShardId {
        self.owner_of(self.settings_log_of(user))
    }

    /// The shard that owns a log. Owners are spread as evenly as they can be.
    #[must_use]
    pub fn owner_of(&self, log: u16) -> ShardId {
        ShardId((u32::from(log) * u32::from(self.shards) / u32::from(self.logs)) as u16 % self.shards)
    }

    /// The stream of one kind that belongs to a user in every log: keyed BLAKE3 of the id, 128 bits.
    #[must_use]
    pub fn user_stream(&self, user: &UserId, kind: Kind) -> StreamId {
        self.named_stream(user.as_bytes(), kind)
    }

    /// The stream of every log that the records are linked into with which a group grew large or stopped being so. No user has
    /// an id of no bytes.
    #[must_use]
    pub(crate) fn large_groups_stream(&self) -> StreamId {
        self.named_stream(&[], Kind::Memberships)
    }

    /// The stream of every log that the records are linked into with which it was set how much of a conversation is kept. No user has an
    /// id with a control character.
    #[must_use]
    pub(crate) fn retention_stream(&self) -> StreamId {
        self.named_stream(&[0], Kind::Memberships)
    }

    /// The stream of every log in which it is kept what users of one part have acknowledged. No user has an id with a control character.
    #[must_use]
    pub(crate) fn taken_stream(&self, part: usize) -> StreamId {
        let [low, high] = (part as u16).to_le_bytes();
        self.named_stream(&[1, low, high], Kind::Sightings)
    }

    fn named_stream(&self, name: &[u8], kind: Kind) -> StreamId {
        let mut hasher = Hasher::new_keyed(&self.key);
        hasher.update(name);
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        StreamId { kind: StreamKind(kind as u8), id }
    }
}

/// The stream of one kind that belongs to a conversation.
#[must_use]
pub fn conversation_stream(conversation: ConversationId, kind: Kind) -> StreamId {
    StreamId { kind: StreamKind(kind as u8), id: conversation.0 }
}

/// The direct conversation of two users: a pure function of the pair.
#[must_use]
pub fn direct_conversation(one: &UserId, other: &UserId) -> ConversationId {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    derived_id(b"direct", &[first.as_bytes(), second.as_bytes()])
}

/// The group that a `create` makes: a pure function of who asked and under which message id.
#[must_use]
pub fn created_conversation(creator: &UserId, message_id: MessageId) -> ConversationId {
    derived_id(b"create", &[creator.as_bytes(), &message_id.0])
}

/// SHA-256 over length-prefixed parts, as a UUIDv8 (RFC 9562, section 5.8).
fn derived_id(domain: &[u8], parts: &[&[u8]]) -> ConversationId {
    let mut hash = Sha256::new();
    for part in std::iter::once(&domain).chain(parts) {
        hash.update((part.len() as u32).to_le_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    id[6] = 0x80 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    ConversationId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("a user")
    }

    #[test]
    fn a_direct_conversation_is_the_same_from_both_ends_and_no_other() {
        let id = direct_conversation(&user("alice"), &user("bob"));
        assert_eq!(id, direct_conversation(&user("bob"), &user("alice")));
        assert_ne!(id, direct_conversation(&user("aliceb"), &user("ob")));
        // Golden: stored for ever.
        assert_eq!(id.to_string(), "43d9a8ed-1145-8f40-bbab-cd5f630625db");
    }

    #[test]
    fn owners_are_distinct_while_shards_last() {
        for (logs, shards) in [(1, 1), (2, 2), (4, 2), (2, 4), (4, 8), (3, 2)] {
            let places = Places::new([0; 16], [0; 32], logs, shards);
            let mut owned = vec![0; usize::from(shards)];
            (0..logs).for_each(|log| owned[places.owner_of(log).index()] += 1);
            assert!(owned.iter().all(|count| *count <= logs.div_ceil(shards)), "{logs} {shards} {owned:?}");
        }
    }
}
