//! The nouns of the protocol: users, devices, conversations, messages, sequences, times, requests.
//!
//! User and device ids are made by the operator's own user system and only checked here; they compare
//! as raw bytes, without case folding or normalisation. Everything else is made by the server or, for
//! message ids, by the client under RFC 9562.
//!
//! Invariant: a value of one of the checked types was checked; there is no other way to make one.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::{fmt, str::FromStr, sync::Arc};

use crate::limits;

/// Why a string is not an id. The three cases are one mistake in three places; all are answered with
/// `bad_field`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// Contains a control character (Unicode category Cc), or is no canonical UUID.
    Malformed,
    /// No bytes at all.
    Missing,
    /// More than [`limits::ID_BYTES_MAX`] bytes.
    TooLong,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is malformed",
            Self::Missing => "is empty",
            Self::TooLong => "is too long",
        })
    }
}

impl std::error::Error for IdError {}

/// A user: 1..=64 bytes of UTF-8 without control characters. Cloning counts a reference.
///
/// That two are not the same is told without reading either, as a rule: who looks for one among the members of a group would
/// wait for memory at each of them otherwise.
#[derive(Clone)]
pub struct UserId {
    fingerprint: u64,
    text: Arc<str>,
}

impl UserId {
    /// Checks `text` and copies it once.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check_name(text)?;
        // SipHash, so that nobody finds names by the thousand that share one; with keys that are the same in each process, because a
        // simulated world has to go the same way again.
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Ok(Self { fingerprint: hasher.finish(), text: text.into() })
    }

    /// The id as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The bytes by which ids are compared, hashed and stored.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Orders ids for a search among them, by something that reads neither unless they are the same. Nobody should be shown this order, nor
    /// rely on it in what was stored: another build may have another.
    pub fn cmp_for_search(&self, other: &Self) -> Ordering {
        self.fingerprint.cmp(&other.fingerprint).then_with(|| match Arc::ptr_eq(&self.text, &other.text) {
            true => Ordering::Equal,
            false => self.text.cmp(&other.text),
        })
    }
}

impl PartialEq for UserId {
    fn eq(&self, other: &Self) -> bool {
        self.cmp_for_search(other) == Ordering::Equal
    }
}

impl Eq for UserId {}

impl PartialOrd for UserId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// In the order of their bytes.
impl Ord for UserId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for UserId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint);
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for UserId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

/// A device, tab or app instance of one user: 1..=64 bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Checks `text` and copies it once.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check_name(text)?;
        Ok(Self(text.into()))
    }

    /// The id as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes by which ids are compared, hashed and stored.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

/// A conversation: any 16 bytes; as text a canonical UUID (8-4-4-4-12 hexadecimal digits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId(pub [u8; 16]);

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(uuid::Uuid::from_bytes_ref(&self.0).as_hyphenated(), f)
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ConversationId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_uuid(text).map(Self)
    }
}

/// A message or other storing command, named by its sender so that it is stored once: a UUIDv7
/// (RFC 9562, section 5.7) where a client makes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// A version 7 id. Of `unix_millis` the low 48 bits count; of `random` the 74 bits that RFC 9562
    /// leaves free.
    pub fn v7(unix_millis: UnixMillis, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_millis.0, &random).into_uuid().into_bytes())
    }

    /// Whether version and variant are those of a UUIDv7.
    pub fn is_v7(&self) -> bool {
        self.0[6] >> 4 == 7 && self.0[8] >> 6 == 0b10
    }

    /// The time a version 7 id claims; of other versions the same 48 bits, without meaning.
    pub fn unix_ms(&self) -> UnixMillis {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0[..6]);
        UnixMillis(u64::from_be_bytes(bytes))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(uuid::Uuid::from_bytes_ref(&self.0).as_hyphenated(), f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_uuid(text).map(Self)
    }
}

/// A place in one conversation: dense from 1. 0 stands for "before the first" where a place is optional.
/// On the wire at most [`limits::INTEGER_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Milliseconds since 1970-01-01 UTC, by the server's clock. On the wire at most [`limits::INTEGER_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The client's number for a command, repeated in its reply: 1..2^31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

impl RequestId {
    /// `None` outside [`limits::REQUEST_ID_MIN`]..=[`limits::REQUEST_ID_MAX`].
    pub fn new(number: u64) -> Option<Self> {
        let number = u32::try_from(number).ok()?;
        (limits::REQUEST_ID_MIN..=limits::REQUEST_ID_MAX).contains(&number).then_some(Self(number))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

fn check_name(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Missing);
    }
    if text.len() > limits::ID_BYTES_MAX {
        return Err(IdError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(IdError::Malformed);
    }
    Ok(())
}

/// The hyphenated form only: of the forms the parser knows it alone is 36 bytes long.
fn parse_uuid(text: &str) -> Result<[u8; 16], IdError> {
    const CANONICAL_BYTES: usize = 36;
    if text.len() != CANONICAL_BYTES {
        return Err(IdError::Malformed);
    }
    uuid::Uuid::try_parse(text).map(uuid::Uuid::into_bytes).map_err(|_| IdError::Malformed)
}
