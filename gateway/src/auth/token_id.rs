//! Which token it is, in eight bytes.

/// Which token it is: 64 bits of a hash of `jti`, because every session keeps one. Tokens that share them are
/// revoked together: with ten thousand revoked and a million in use, once in a billion nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenId([u8; 8]);

impl TokenId {
    /// Of a token without `jti`; no `jti` has it.
    pub const NONE: Self = Self([0; 8]);

    /// As it travels to another process.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// The opposite of [`TokenId::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Of the token with this `jti`.
    #[must_use]
    pub fn of(jti: &str) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&blake3::hash(jti.as_bytes()).as_bytes()[..8]);
        let id = Self(id);
        if id == Self::NONE { Self([1; 8]) } else { id }
    }
}
