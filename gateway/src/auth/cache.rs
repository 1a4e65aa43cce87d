//! Tokens that were good a moment ago, so that a storm of reconnects costs hashes and not signatures.
//!
//! Each shard has its own; nothing is shared. The token itself is not kept, only a keyed hash of it, so a
//! memory image gives no tokens and no client can aim at one slot.
//!
//! Invariant: `0 <= entries <= CAPACITY`, and an entry is only ever answered while `now < expires_at`.

use std::{collections::VecDeque, fmt};

use hashbrown::HashMap;
use protocol::{ids::UnixMillis, limits::TOKEN_BYTES_MAX};

use super::{TokenError, Verified, Verifier};

/// Tokens remembered by one shard: about 500 KiB when full, and full only after that many users came.
const CAPACITY: usize = 4096;

type Digest = [u8; blake3::OUT_LEN];

/// What one shard remembers. First in, first out: the reconnects of one storm come close together.
pub struct TokenCache {
    hash_key: [u8; blake3::KEY_LEN],
    /// Digests are uniform already; the map's own hasher only has to be cheap.
    verified: HashMap<Digest, Verified, foldhash::fast::FixedState>,
    order: VecDeque<Digest>,
}

impl TokenCache {
    /// An empty cache. `hash_key` is random and secret, so that nobody can compute a digest.
    pub fn new(hash_key: [u8; blake3::KEY_LEN]) -> Self {
        Self { hash_key, verified: HashMap::default(), order: VecDeque::new() }
    }

    /// The same verdict as [`Verifier::verify`], from memory where possible.
    pub fn check(
        &mut self,
        verifier: &Verifier,
        token: &str,
        now: UnixMillis,
    ) -> Result<Verified, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Bad);
        }
        let digest = *blake3::keyed_hash(&self.hash_key, token.as_bytes()).as_bytes();
        if let Some(verified) = self.verified.get(&digest) {
            let good = now < verified.expires_at;
            return if good { Ok(verified.clone()) } else { Err(TokenError::Expired) };
        }
        let verified = verifier.verify(token, now)?;
        self.remember(digest, verified.clone());
        Ok(verified)
    }

    /// Forgets all of them: the keys are other ones.
    pub fn forget(&mut self) {
        self.verified.clear();
        self.order.clear();
    }

    /// How many tokens are remembered.
    pub fn entries(&self) -> usize {
        self.verified.len()
    }

    fn remember(&mut self, digest: Digest, verified: Verified) {
        if self.order.len() == CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.verified.remove(&oldest);
        }
        self.order.push_back(digest);
        self.verified.insert(digest, verified);
        debug_assert_eq!(self.order.len(), self.verified.len(), "each entry has one place in the order");
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenCache({} entries)", self.entries())
    }
}
