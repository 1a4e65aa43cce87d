//! Who gets what: the user side and the conversation side of chat, as state machines without I/O.
//!
//! A *user* has a home shard ([`UserSide`]: sessions and their outboxes, nothing durable). A *conversation* has a home
//! log and the shard that owns it ([`ConversationSide`]: order, membership, storage). A command goes from the sender's
//! user side to one conversation side, and what it stored goes from there to the members' user sides, never further.
//! Between them is [`mail`]: plain values, first in, first out.
//!
//! Deliberately absent: sockets, files, clocks, threads, queues with a capacity (the gateway's mailboxes have it).
//! **Invariants**: no acknowledgement and no delivery is made without the log's `Durable` token; a session that is live
//! in a log has been given everything of its user up to the position it stands at; every map and queue has a bound.

#![forbid(unsafe_code)]

mod bookmark;
pub mod conversation;
pub mod cursor;
pub mod index;
pub mod mail;
pub mod places;
mod turns;
pub mod user;
pub mod words;

pub use conversation::ConversationSide;
pub use cursor::{Cursor, CursorError, Starts};
pub use places::{Places, ShardId};
pub use user::UserSide;
