//! What who judges tokens and who fetches keys tell each other.
//!
//! A token may be of a key that was published a moment ago. So nothing is said to be bad by a set that is older than the question: a name is
//! asked for, and only a set whose fetch began afterwards says that there is no such key. Names are kept as hashes under a key of this process, in a
//! table of a fixed size: what has no place any more is asked for again, and who showed it comes back once more. Tokens that name no key have one name.
//!
//! ```text
//!   fetch 7 begins   ...   a name is asked for (7)   ...   fetch 8 begins   ...   its set is in force (8): 7 < 8, it is no key
//! ```
//! Invariant: shards wait for nothing here, and ask for nothing more often than who fetches allows.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Names that are known to have been asked for: more than come in the half minute between two fetches unless somebody makes them up.
const NAMES: usize = 256;

/// What shards say of tokens to whoever fetches keys, and hear.
#[derive(Debug)]
pub(super) struct KeyWatch {
    pub(super) asked: AtomicBool,
    /// A set that no fetch from this one on has brought may be older than a token, whoever was told what of it. It is by the number of the fetch, and not
    /// one word for all, because a set is in force on one shard before it is on another.
    fresh_from: AtomicU32,
    /// Fetches that have begun.
    fetches: AtomicU32,
    /// A part of the hash of a name, and the number of fetches that had begun when it was asked for. Nothing is 0: a start begins with 1.
    names: [AtomicU64; NAMES],
    hashes: RandomState,
}

/// The fetches that brought a set: the first, and the newest of those that brought the same again.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    first: u32,
    newest: AtomicU32,
}

impl Fetch {
    pub(super) fn new(number: u32) -> Self {
        Self { first: number, newest: AtomicU32::new(number) }
    }

    /// The same set was fetched again.
    pub(super) fn renew(&self, number: u32) {
        self.newest.store(number, Ordering::Relaxed);
    }

    /// Whether a fetch that begins after a question has yet to bring a set.
    fn is_awaited(&self, asked_in: u32) -> bool {
        asked_in >= self.newest.load(Ordering::Relaxed)
    }

    /// Whether a token may be newer than this set.
    fn may_be_old(&self, fresh_from: u32) -> bool {
        self.newest.load(Ordering::Relaxed) < fresh_from
    }

    /// Whether this set says that what was asked for is no key. What another set said before says nothing of a key that came with this one, or since.
    fn answers(&self, asked_in: u32) -> bool {
        !self.is_awaited(asked_in) && asked_in.saturating_add(1) >= self.first
    }
}

impl KeyWatch {
    pub(super) fn new() -> Self {
        Self {
            asked: AtomicBool::new(false),
            fresh_from: AtomicU32::new(2),
            fetches: AtomicU32::new(1),
            names: [const { AtomicU64::new(0) }; NAMES],
            hashes: RandomState::new(),
        }
    }

    /// A fetch begins. Its number.
    pub(super) fn begin(&self) -> u32 {
        // Whoever asks from here on may have been shown a token that is newer than what the provider is about to answer.
        self.asked.store(false, Ordering::Relaxed);
        // Who sees the new number has to see that nobody has asked since.
        self.fetches.fetch_add(1, Ordering::Release) + 1
    }

    /// So long after the last fetch a token may be newer than what it brought: only the next one can say what is no key.
    pub(super) fn grow_old(&self) {
        self.fresh_from.store(self.fetches.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// A token is of a key that is not in the set of this fetch: `name` says of which. Whether it may be known soon.
    pub(super) fn ask(&self, name: &[u8], fetch: &Fetch) -> bool {
        let hash = self.hashes.hash_one(name);
        let place = &self.names[hash as usize % NAMES];
        let (key, known) = (hash >> 32, place.load(Ordering::Relaxed));
        let asked_in = (known >> 32 == key && known != 0).then_some(known as u32);
        if asked_in.is_some_and(|asked_in| fetch.answers(asked_in))
            && !fetch.may_be_old(self.fresh_from.load(Ordering::Relaxed))
        {
            return false;
        }
        if !asked_in.is_some_and(|asked_in| fetch.is_awaited(asked_in)) {
            place.store(key << 32 | u64::from(self.fetches.load(Ordering::Acquire)), Ordering::Relaxed);
            self.asked.store(true, Ordering::Relaxed);
        }
        true
    }

    /// Names that have a place each.
    #[cfg(test)]
    pub(super) fn names_apart<const COUNT: usize>(&self) -> [[u8; 4]; COUNT] {
        let mut taken = std::collections::BTreeSet::new();
        let mut names = (0_u32..).map(u32::to_le_bytes);
        let mut next = || names.find(|name| taken.insert(self.hashes.hash_one(&name[..]) as usize % NAMES));
        std::array::from_fn(|_| next().expect("there are enough"))
    }
}
