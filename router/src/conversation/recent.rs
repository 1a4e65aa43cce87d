//! The ids stored in the last twelve minutes: a command that comes again is answered, not stored again.
//!
//! Memory holds a fingerprint of each id and the sequence it was stored under, 8 bytes in a table that is at most four
//! fifths full; the record says whether it is the one. Fingerprints are hashes under a random seed, so no client can aim
//! for a collision, and a chance one costs a read. Rebuilt from the log before serving. What is older than memory
//! reaches is looked up in the log itself.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::ids::{ConversationId, MessageId, UserId};
use protocol::record::{Portable, Stored, StoredBody, StreamKind as Kind};
use storage_log::Record;

/// How long ids are remembered here. Longer than [`LOOK_UP_AGE`] by what clocks and a slow disk may differ.
const REMEMBERED: Duration = Duration::from_secs(12 * 60);

/// Ids are forgotten by the generation, each of this time or full.
const GENERATION: Duration = Duration::from_secs(60);

/// Ids of one generation: 70,000 a second for a minute. About 42 MB.
const GENERATION_IDS_MAX: usize = 1 << 22;

/// Generations kept. At the limit the oldest is forgotten early, and more ids are looked up in the log: slower, as exact.
const GENERATIONS_MAX: usize = 16;

/// An id that claims to be older than this is looked up in the log.
pub(crate) const LOOK_UP_AGE: Duration = Duration::from_secs(10 * 60);

/// Ids older than this are not looked for: a repetition after a day is a new message.
pub(crate) const FORGOTTEN_AGE: Duration = Duration::from_secs(24 * 3600);

/// An id may be this far ahead of the log's clock.
pub(crate) const AHEAD_MAX: Duration = Duration::from_secs(60);

/// How long a start may take until commands come.
const START_SLACK: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key(u128);

impl Key {
    fn fingerprint(self) -> u32 {
        (self.0 >> 96) as u32
    }
}

/// A command that was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) seq: u64,
    pub(crate) at: u64,
    /// The last position of its group: durable when this is.
    pub(crate) position: u64,
    pub(crate) content_hash: u64,
}

/// The ids that one log has stored lately.
pub struct Recent {
    seed: u64,
    /// Oldest first; the last one takes what is stored.
    generations: VecDeque<Generation>,
    /// Every id that was stored after this is here, in milliseconds since 1970.
    forgotten_until: u64,
}

struct Generation {
    first_at: u64,
    last_at: u64,
    ids: Table,
}

impl Recent {
    /// `seed` is random and secret.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, generations: VecDeque::new(), forgotten_until: 0 }
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

    /// Sequences of the conversation under which `key` may be stored; `head` is its newest.
    pub(crate) fn candidates(&self, key: Key, head: u64) -> Vec<u64> {
        let low = self.generations.iter().rev().flat_map(|generation| generation.ids.find(key.fingerprint()));
        low.filter_map(|low| widen(low, head)).collect()
    }

    /// Whether an id that claims to be of this time may have been stored and forgotten here.
    pub(crate) fn may_have_forgotten(&self, claimed: u64, clock: u64) -> bool {
        // It may have been stored while it was still ahead of the clock.
        let stored_after = claimed.saturating_sub(AHEAD_MAX.as_millis() as u64);
        claimed + (LOOK_UP_AGE.as_millis() as u64) < clock || stored_after < self.forgotten_until
    }

    pub(crate) fn insert(&mut self, key: Key, seq: u64, at: u64) {
        let newest = self.generations.back_mut().filter(|newest| {
            at < newest.first_at + GENERATION.as_millis() as u64 && newest.ids.len < GENERATION_IDS_MAX
        });
        match newest {
            Some(newest) => {
                newest.last_at = at;
                newest.ids.insert(key.fingerprint(), seq as u32);
            }
            None => {
                self.begin_generation(at);
                self.insert(key, seq, at);
            }
        }
    }

    fn begin_generation(&mut self, at: u64) {
        if let Some(newest) = self.generations.back_mut() {
            newest.ids.shrink();
        }
        let remembered_from = at.saturating_sub(REMEMBERED.as_millis() as u64);
        while self.generations.front().is_some_and(|oldest| {
            oldest.last_at < remembered_from || self.generations.len() == GENERATIONS_MAX
        }) {
            let oldest = self.generations.pop_front().expect("looked at");
            self.forgotten_until = oldest.last_at + 1;
        }
        self.generations.push_back(Generation { first_at: at, last_at: at, ids: Table::default() });
    }

    /// Whether ids that were stored up to `at` may be those of commands that are made from `now` on. Without them each new
    /// command would have to be looked up in the log, until a minute has passed.
    #[must_use]
    pub fn wants(&self, at: u64, now: u64) -> bool {
        at + (AHEAD_MAX + START_SLACK).as_millis() as u64 >= now
    }

    /// Says that ids stored at or before `at`, in milliseconds since 1970, were not shown to it.
    pub fn forget_until(&mut self, at: u64) {
        self.forgotten_until = self.forgotten_until.max(at + 1);
    }

    /// Enters a record that recovery read.
    pub fn observe(&mut self, record: &Record<'_>) {
        if record.stream().kind.0 != Kind::Messages as u8 {
            return;
        }
        if let Some((user, message_id, _)) = command_of(record.portable()) {
            let key = self.key_of(record.stream().id, &user, message_id);
            self.insert(key, record.seq(), record.at());
        }
    }
}

/// The sequence at or below `head` that ends in these 32 bits.
fn widen(low: u32, head: u64) -> Option<u64> {
    let seq = head & !u64::from(u32::MAX) | u64::from(low);
    if seq <= head { Some(seq) } else { seq.checked_sub(1 << 32) }
}

/// Fingerprints and sequences: open addressing in the order of the fingerprints, so that it grows without knowing the
/// keys. A slot is `fingerprint << 32 | sequence`; 0 is free, as no sequence is 0.
#[derive(Default)]
struct Table {
    slots: Vec<u64>,
    len: usize,
}

impl Table {
    fn insert(&mut self, fingerprint: u32, seq: u32) {
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            // By half: just after it has grown it takes 15 bytes an id.
            self.resize((self.slots.len() * 3 / 2).max(64));
        }
        self.put(u64::from(fingerprint) << 32 | u64::from(seq));
        self.len += 1;
    }

    fn find(&self, fingerprint: u32) -> impl Iterator<Item = u32> {
        let first = place(fingerprint, self.slots.len());
        let from_there = self.slots[first..].iter().chain(&self.slots[..first]);
        let used = from_there.take_while(|slot| **slot != 0);
        used.filter(move |slot| (**slot >> 32) as u32 == fingerprint).map(|slot| *slot as u32)
    }

    /// Makes it as small as it may be: nothing is added any more.
    fn shrink(&mut self) {
        self.resize(self.len * 5 / 4 + 1);
    }

    fn resize(&mut self, slots: usize) {
        let before = std::mem::replace(&mut self.slots, vec![0; slots]);
        before.into_iter().filter(|slot| *slot != 0).for_each(|slot| self.put(slot));
    }

    fn put(&mut self, slot: u64) {
        let mut at = place((slot >> 32) as u32, self.slots.len());
        while self.slots[at] != 0 {
            at = (at + 1) % self.slots.len();
        }
        self.slots[at] = slot;
    }
}

fn place(fingerprint: u32, slots: usize) -> usize {
    ((u64::from(fingerprint) * slots as u64) >> 32) as usize
}

/// Who stored a record under which id, and the hash of what they sent.
pub(crate) fn command_of(bytes: &[u8]) -> Option<(Vec<u8>, [u8; 16], u64)> {
    let portable = Portable::parse(bytes).ok()?;
    match Stored::with_checked_sum(portable, bytes).ok()?.body {
        StoredBody::Amendment(body) => {
            Some((body.by.to_vec(), body.message_id, body.content_hash.to_native()))
        }
        StoredBody::Message(body) => {
            Some((body.sender.to_vec(), body.message_id, body.content_hash.to_native()))
        }
        StoredBody::Membership(body) => {
            Some((body.by.to_vec(), body.message_id, body.content_hash.to_native()))
        }
        // A folded message is made to be served: no command stored it.
        StoredBody::Folded(_)
        | StoredBody::Positions(_)
        | StoredBody::Settings(_)
        | StoredBody::Sighting(_)
        | StoredBody::State(_)
        | StoredBody::Taken(_)
        | StoredBody::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key(u128::from(number.wrapping_mul(0x9e37_79b9)) << 96)
    }

    fn held(recent: &Recent) -> usize {
        recent.generations.iter().map(|generation| generation.ids.slots.capacity() * 8).sum()
    }

    #[test]
    fn every_id_of_twelve_minutes_is_found_in_at_most_16_bytes() {
        let mut recent = Recent::new(1);
        let ids = 600_000;
        for number in 0..ids {
            // Twelve minutes.
            recent.insert(key(number), u64::from(number) + 1, u64::from(number) * 720_000 / u64::from(ids));
            if number > 100 {
                assert!(
                    held(&recent) <= 16 * (number as usize + 1),
                    "{} bytes for {number} ids",
                    held(&recent)
                );
            }
        }
        for number in 0..ids {
            let seq = u64::from(number) + 1;
            assert!(recent.candidates(key(number), u64::from(ids)).contains(&seq), "{number}");
        }
        assert!(!recent.may_have_forgotten(700_000, 720_000));
    }

    #[test]
    fn what_is_forgotten_is_known_to_be_forgotten() {
        let (mut recent, hour) = (Recent::new(1), 3_600_000);
        recent.insert(key(1), 1, hour);
        assert!(!recent.may_have_forgotten(hour, hour));
        recent.insert(key(2), 2, 2 * hour);
        assert!(recent.candidates(key(1), 2).is_empty());
        assert!(recent.may_have_forgotten(hour, hour) && !recent.may_have_forgotten(2 * hour, 2 * hour));
        // Far more than fits: the limit forgets early, and says so.
        for generation in 0..=GENERATIONS_MAX as u64 {
            recent.begin_generation(2 * hour + generation);
        }
        assert!(recent.candidates(key(2), 2).is_empty());
        assert!(recent.may_have_forgotten(2 * hour, 2 * hour + 1));
        assert!(recent.generations.len() <= GENERATIONS_MAX);
    }

    #[test]
    fn a_sequence_beyond_32_bits_is_found() {
        assert_eq!(widen(5, 4), None);
        assert_eq!(widen(5, 5), Some(5));
        assert_eq!(widen(5, (1 << 32) + 4), Some(5));
        assert_eq!(widen(5, (1 << 32) + 5), Some((1 << 32) + 5));
    }
}
