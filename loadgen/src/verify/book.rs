//! What stood where: the messages that were acknowledged or seen, by conversation and sequence.
//!
//! Invariant: every contradiction between two observations is told when the second one is entered.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use protocol::ids::MessageId;
use serde::{Deserialize, Serialize};

use super::{Kind, Violations};
use crate::plan::RoomIndex;

/// Longest conversation: a sequence beyond it is a mistake of the node, not a reason to take memory.
const SEQ_MAX: u64 = 10_000_000;
/// Nothing was seen at this place.
const NOTHING: MessageId = MessageId([0; 16]);
const ID_BYTES: usize = 16;

/// All conversations of one process.
#[derive(Default)]
pub(crate) struct Book {
    rooms: HashMap<RoomIndex, Pages>,
    places: HashMap<MessageId, (RoomIndex, u64)>,
    is_closed: bool,
    pub(crate) violations: Violations,
}

#[derive(Default)]
struct Pages {
    ids: Vec<MessageId>,
    acked: Vec<u64>,
    /// Where it ended when the logs began to be read.
    end: Option<usize>,
}

impl Book {
    /// A message was seen at a place, by whomever.
    pub(crate) fn note(&mut self, room: RoomIndex, seq: u64, message_id: MessageId) {
        if seq == 0 || seq > SEQ_MAX {
            self.violations.add(Kind::Order, || format!("sequence {seq} in room {}", room.0));
            return;
        }
        let place = seq as usize - 1;
        let ids = &mut self.rooms.entry(room).or_default().ids;
        if ids.len() <= place {
            ids.resize(place + 1, NOTHING);
        }
        let other = ids[place];
        if other == message_id {
            return;
        }
        if other != NOTHING {
            self.violations.add(Kind::Doubled, || {
                format!("room {} sequence {seq} is both {other} and {message_id}", room.0)
            });
            return;
        }
        ids[place] = message_id;
        if let Some((first_room, first_seq)) = self.places.insert(message_id, (room, seq)) {
            self.violations.add(Kind::Doubled, || {
                let (first, second) = (first_room.0, room.0);
                format!("{message_id} is at {first_seq} of room {first} and at {seq} of room {second}")
            });
        }
    }

    /// The node promised that a message stands at a place.
    pub(crate) fn acknowledge(&mut self, room: RoomIndex, seq: u64, message_id: MessageId) {
        self.note(room, seq, message_id);
        self.rooms.entry(room).or_default().acked.push(seq);
    }

    /// The logs are read from now on: what is promised or seen behind this may be behind what is read of them as well.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.rooms.values_mut().for_each(|pages| pages.end = Some(pages.ids.len()));
    }

    /// The highest sequence known of each conversation.
    pub(crate) fn heads(&self) -> Vec<(RoomIndex, u64)> {
        self.rooms.iter().map(|(room, pages)| (*room, pages.ids.len() as u64)).collect()
    }

    /// Everything, conversation by conversation.
    pub(crate) fn into_rooms(self) -> impl Iterator<Item = RoomBook> {
        let is_closed = self.is_closed;
        self.rooms.into_iter().map(move |(room, Pages { mut ids, mut acked, end })| {
            // What began since has no end.
            let end = end.unwrap_or(if is_closed { 0 } else { ids.len() });
            ids.truncate(end);
            acked.retain(|seq| *seq <= end as u64);
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
            RoomBook { room, ids: STANDARD.encode(bytes), acked }
        })
    }
}

/// One conversation of a book, as it crosses a pipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RoomBook {
    pub(crate) room: RoomIndex,
    /// Base64 of the ids from sequence 1, 16 bytes each; zeros where nothing was seen.
    ids: String,
    /// The sequences that were acknowledged.
    pub(crate) acked: Vec<u64>,
}

impl RoomBook {
    /// What was seen at each sequence.
    pub(crate) fn items(&self) -> anyhow::Result<Vec<(u64, MessageId)>> {
        let bytes = STANDARD.decode(&self.ids)?;
        let (ids, rest) = bytes.as_chunks::<ID_BYTES>();
        anyhow::ensure!(rest.is_empty(), "the ids of room {} are cut", self.room.0);
        let numbered = ids.iter().zip(1..).map(|(id, seq)| (seq, MessageId(*id)));
        Ok(numbered.filter(|(_, id)| *id != NOTHING).collect())
    }
}
