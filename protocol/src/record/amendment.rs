//! Amendments: what a message becomes by edits, deletions and reactions, and the records that say so.
//!
//! An amendment is a record of the conversation that takes a sequence of its own, names its target and holds the
//! target's full form after it, so the newest amendment of a message is all there is to know of it. Who may amend
//! what, and which amendment is the newest, is not decided here.
//!
//! Invariant: nothing that is made from a deleted form holds anything of the content.

use std::{collections::HashMap, fmt};

use rkyv::rancor;

use super::{
    AmendmentV1, ArchivedAmendmentV1, ArchivedFormV1, ArchivedMessageV1, Body, FormV1, NameV1,
    PORTABLE_BYTES, Portable, ReactionV1, Stored, StoredBody,
};
use crate::{
    command::MessageKind,
    ids::{Seq, UnixMillis, UserId},
    limits,
};

/// What an amendment did. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AmendmentKind {
    /// Gave the message another text.
    Edit = 1,
    /// Took the message back.
    Delete = 2,
    /// Added a reaction or took one back.
    React = 3,
    /// Never in a log: what it did is not for whoever is served this.
    Hidden = 4,
}

impl AmendmentKind {
    /// The kind of a number in a record.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Edit),
            2 => Some(Self::Delete),
            3 => Some(Self::React),
            4 => Some(Self::Hidden),
            _ => None,
        }
    }
}

/// A message has [`limits::REACTIONS_MAX`] reactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReactionsFull;

impl fmt::Display for ReactionsFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message has as many reactions as it may have")
    }
}

impl std::error::Error for ReactionsFull {}

impl FormV1 {
    /// A message that was never amended, stored at `at`.
    pub fn of_message(message: &ArchivedMessageV1, at: UnixMillis) -> Self {
        let mentions = message.mentions.iter();
        Self {
            message_id: message.message_id,
            kind: message.kind,
            sender: message.sender.to_vec(),
            text: message.text.to_vec(),
            media: message.media.to_vec(),
            reply_to: message.reply_to.to_native(),
            mentions: mentions.map(|name| NameV1 { name: name.name.to_vec() }).collect(),
            at: at.0,
            ext: message.ext.to_vec(),
            ..Self::default()
        }
    }

    /// A form as a record holds it: the same, to own and to change.
    pub fn from_archived(form: &ArchivedFormV1) -> Self {
        rkyv::deserialize::<Self, rancor::Error>(form).expect("flat types always deserialise")
    }

    /// Whether the message may be edited to `text`: what `send` would take for its kind. Says nothing of a deleted
    /// one, nor of length, which was checked with the command.
    pub fn takes_text(&self, text: &str) -> bool {
        self.kind != MessageKind::Text as u8 || !text.is_empty()
    }

    /// Whether `user` has reacted with `emoji`.
    pub fn has_reaction(&self, user: &UserId, emoji: &str) -> bool {
        self.position_of(user, emoji).is_some()
    }

    /// With another text, since `at`. All else stays. What is deleted stays deleted.
    #[must_use]
    pub fn edited(self, text: &str, at: UnixMillis) -> Self {
        if self.deleted != 0 {
            return self;
        }
        Self { text: text.as_bytes().to_vec(), edited_at: at.0, ..self }
    }

    /// Taken back: message id, kind, sender and time stay, nothing else does.
    #[must_use]
    pub fn deleted(self) -> Self {
        let Self { message_id, kind, sender, at, .. } = self;
        Self { message_id, kind, sender, at, deleted: 1, ..Self::default() }
    }

    /// With the reaction of `user` with `emoji` (`on`) or without it. Twice on, off without one and either on what is
    /// deleted change nothing. The order of the others stays; on after off is the newest.
    ///
    /// # Errors
    /// [`ReactionsFull`] when it would be one more than there may be.
    pub fn with_reaction(mut self, user: &UserId, emoji: &str, on: bool) -> Result<Self, ReactionsFull> {
        match (on, self.position_of(user, emoji)) {
            _ if self.deleted != 0 => {}
            (true, Some(_)) | (false, None) => {}
            (true, None) if self.reactions.len() >= limits::REACTIONS_MAX => return Err(ReactionsFull),
            (true, None) => self.reactions.push(ReactionV1::new(user, emoji)),
            (false, Some(position)) => drop(self.reactions.remove(position)),
        }
        Ok(self)
    }

    fn position_of(&self, user: &UserId, emoji: &str) -> Option<usize> {
        let (user, emoji) = (user.as_bytes(), emoji.as_bytes());
        self.reactions.iter().position(|reaction| reaction.user == user && reaction.emoji == emoji)
    }
}

/// An amendment as it is stored, from which come the records that are served in its place and in its target's.
#[derive(Clone, Copy)]
pub struct Amendment<'a> {
    stored: Stored<'a>,
    body: &'a ArchivedAmendmentV1,
}

impl<'a> Amendment<'a> {
    /// `None` for any other record; a substitute is one of those.
    pub fn of(stored: Stored<'a>) -> Option<Self> {
        match stored.body {
            StoredBody::Amendment(body) => Some(Self { stored, body }),
            _ => None,
        }
    }

    /// Its payload, as it is stored.
    pub const fn body(&self) -> &'a ArchivedAmendmentV1 {
        self.body
    }

    /// The message that is amended.
    pub fn target(&self) -> Seq {
        Seq(self.body.target.to_native())
    }

    /// What that message is after this.
    pub fn form(&self) -> FormV1 {
        FormV1::from_archived(&self.body.form)
    }

    /// `[portable | payload]` that stands for the target where messages are served: at the place, time and count of
    /// `target`, in the form after this amendment.
    ///
    /// The payload is this record's own; what tells the two apart is the sequence.
    pub fn substitute(&self, target: &Portable) -> Vec<u8> {
        assert!(
            target.seq == self.target() && target.conversation == self.stored.portable.conversation,
            "an amendment stands for its own target"
        );
        let Portable { seq, at, message_count, .. } = *target;
        let portable = Portable { seq, at, message_count, ..self.stored.portable };
        sealed(portable, &self.stored.bytes()[PORTABLE_BYTES..])
    }

    /// `[portable | payload]` of this amendment with a newer form of its target: its own place, time, count, message
    /// id, author and kind, and of the text that it once made nothing, not even the hash.
    pub fn with_form(&self, form: FormV1) -> Vec<u8> {
        self.rewritten(self.body.change, form)
    }

    /// `[portable | payload]` of this amendment for somebody who may not see its target: its own place, time, count,
    /// message id and author, and nothing of what was amended or how.
    pub fn hidden(&self) -> Vec<u8> {
        self.rewritten(AmendmentKind::Hidden as u8, FormV1::default())
    }

    fn rewritten(&self, change: u8, form: FormV1) -> Vec<u8> {
        let body = AmendmentV1 {
            message_id: self.body.message_id,
            by: self.body.by.to_vec(),
            change,
            target: self.body.target.to_native(),
            content_hash: 0,
            form,
            ext: Vec::new(),
        };
        sealed(self.stored.portable, &Body::Amendment(body).payload())
    }
}

fn sealed(mut portable: Portable, payload: &[u8]) -> Vec<u8> {
    portable.seal(payload);
    [portable.encode().as_slice(), payload].concat()
}

/// All users of one emoji.
pub(crate) struct ReactionGroup<'a> {
    pub(crate) emoji: &'a [u8],
    /// In the order in which they reacted.
    pub(crate) users: Vec<&'a [u8]>,
}

/// The reactions of a form by emoji, in the order of first use.
pub(crate) fn reaction_groups(form: &ArchivedFormV1) -> Vec<ReactionGroup<'_>> {
    let mut groups: Vec<ReactionGroup<'_>> = Vec::new();
    // 500 reactions may be 500 emojis: not looked through one by one.
    let mut places = HashMap::new();
    for reaction in form.reactions.iter() {
        let emoji = reaction.emoji.as_slice();
        let place = *places.entry(emoji).or_insert_with(|| {
            groups.push(ReactionGroup { emoji, users: Vec::new() });
            groups.len() - 1
        });
        groups[place].users.push(reaction.user.as_slice());
    }
    groups
}
