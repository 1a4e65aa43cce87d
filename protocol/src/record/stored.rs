//! A record as it lies in memory, read in place.
//!
//! Nothing is copied and nothing is trusted: header checksum, payload sum and the shape of the payload
//! are checked once, when a [`Stored`] is made.
//!
//! Invariant: the archived types of a [`Stored`] are inside its bytes and safe to walk. Whether their
//! names are valid ids is for the reader of foreign bytes to check.

use rkyv::rancor::Failure;

use super::{
    ArchivedAmendmentV1, ArchivedConversationStateV1, ArchivedFormV1, ArchivedMembershipV1,
    ArchivedMessageV1, ArchivedPositionsV1, ArchivedSettingsV1, ArchivedSightingV1, ArchivedTakenV1,
    PORTABLE_BYTES, Portable, RecordError, Schema, StreamKind,
};
use crate::event::{Gap, ListedConversation};

/// A checked view of `[portable | payload]`.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// The header.
    pub portable: Portable,
    /// The payload by its schema.
    pub body: StoredBody<'a>,
    bytes: &'a [u8],
}

/// A payload, read in place.
#[derive(Clone, Copy)]
pub enum StoredBody<'a> {
    /// Schema 4 in a stream of messages, at a sequence of its own: an edit, a deletion or a reaction.
    Amendment(&'a ArchivedAmendmentV1),
    /// Schema 4 in a stream of messages, at the sequence of its target: that message as it is now. Served, never
    /// in a log.
    Folded(&'a ArchivedFormV1),
    /// Schema 2 in a stream of messages.
    Membership(&'a ArchivedMembershipV1),
    /// Schema 1 in a stream of messages.
    Message(&'a ArchivedMessageV1),
    /// Schema 5 in a stream of positions.
    Positions(&'a ArchivedPositionsV1),
    /// Schema 6 in a stream of settings.
    Settings(&'a ArchivedSettingsV1),
    /// Schema 7 in a stream of sightings.
    Sighting(&'a ArchivedSightingV1),
    /// Schema 3 in a stream of state.
    State(&'a ArchivedConversationStateV1),
    /// Schema 8 in a stream of sightings.
    Taken(&'a ArchivedTakenV1),
    /// A schema this program does not know: delivered as a gap, kept as it is.
    Unknown,
}

/// One item of a page a server makes.
#[derive(Clone, Copy)]
pub enum StoredItem<'a> {
    /// Sequences that cannot be served.
    Gap(&'a Gap),
    /// A record as it is stored.
    Record(Stored<'a>),
}

/// One conversation of a list that a server makes.
#[derive(Clone, Copy)]
pub struct StoredListed<'a> {
    /// What is known of it; its `last` does not count.
    pub listed: &'a ListedConversation,
    /// What stands at its head.
    pub last: Option<Stored<'a>>,
}

impl<'a> Stored<'a> {
    /// Reads the record at the front of `bytes`; what follows it (padding, another record) is ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let portable = Portable::parse(bytes)?;
        let end = PORTABLE_BYTES + portable.payload_bytes as usize;
        let Some(bytes) = bytes.get(..end) else {
            return Err(RecordError::Short);
        };
        portable.check_payload(&bytes[PORTABLE_BYTES..])?;
        Self::with_checked_sum(portable, bytes)
    }

    /// For a reader that has already checked the sum, as the log does: only the shape is checked.
    /// `bytes` is exactly `[portable | payload]`.
    pub fn with_checked_sum(portable: Portable, bytes: &'a [u8]) -> Result<Self, RecordError> {
        if bytes.len() != PORTABLE_BYTES + portable.payload_bytes as usize {
            return Err(RecordError::Damaged);
        }
        let payload = &bytes[PORTABLE_BYTES..];
        let known = |schema: Schema| portable.schema == schema as u16;
        let body = match portable.kind {
            StreamKind::Messages if known(Schema::Message) => StoredBody::Message(access_message(payload)?),
            StreamKind::Messages if known(Schema::Amendment) => {
                let body = rkyv::access::<ArchivedAmendmentV1, Failure>(payload);
                let body = body.map_err(|_| RecordError::Damaged)?;
                if body.target == portable.seq.0 {
                    StoredBody::Folded(&body.form)
                } else {
                    StoredBody::Amendment(body)
                }
            }
            StreamKind::Messages if known(Schema::Membership) => {
                let body = rkyv::access::<ArchivedMembershipV1, Failure>(payload);
                StoredBody::Membership(body.map_err(|_| RecordError::Damaged)?)
            }
            StreamKind::Positions if known(Schema::Positions) => {
                let body = rkyv::access::<ArchivedPositionsV1, Failure>(payload);
                StoredBody::Positions(body.map_err(|_| RecordError::Damaged)?)
            }
            StreamKind::Settings if known(Schema::Settings) => {
                let body = rkyv::access::<ArchivedSettingsV1, Failure>(payload);
                StoredBody::Settings(body.map_err(|_| RecordError::Damaged)?)
            }
            StreamKind::Sightings if known(Schema::Sighting) => {
                let body = rkyv::access::<ArchivedSightingV1, Failure>(payload);
                StoredBody::Sighting(body.map_err(|_| RecordError::Damaged)?)
            }
            StreamKind::Sightings if known(Schema::Taken) => {
                let body = rkyv::access::<ArchivedTakenV1, Failure>(payload);
                StoredBody::Taken(body.map_err(|_| RecordError::Damaged)?)
            }
            StreamKind::State if known(Schema::State) => {
                let body = rkyv::access::<ArchivedConversationStateV1, Failure>(payload);
                StoredBody::State(body.map_err(|_| RecordError::Damaged)?)
            }
            _ => StoredBody::Unknown,
        };
        Ok(Self { portable, body, bytes })
    }

    /// `[portable | payload]`, without padding. On the wire it is padded with zeros to
    /// [`Portable::padded_bytes`].
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Appends the record as it stands in a binary WebSocket message.
    pub fn write_padded(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.portable.padded_bytes();
        out.extend_from_slice(self.bytes);
        out.resize(end, 0);
    }
}

fn access_message(payload: &[u8]) -> Result<&ArchivedMessageV1, RecordError> {
    rkyv::access::<ArchivedMessageV1, Failure>(payload).map_err(|_| RecordError::Damaged)
}
