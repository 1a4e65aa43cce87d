//! All fields any command may have, read in one pass over the object.
//!
//! An enum tagged by `op` would look nicer, but a tag may stand behind the fields it explains, so serde
//! buffers such input, copies every text and forgets about unknown fields.
//!
//! Invariant: `given` holds exactly the fields that were read, each of them once.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};

use super::value::{Lenient, Parsed, Positions, Roles, Text, Users, WrongPair};
use crate::{
    check::Fault,
    command::Role,
    ids::{ConversationId, DeviceId, MessageId, Seq, UserId},
};

/// A field by name. The discriminant is its bit in [`Fields::given`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    Add,
    After,
    Before,
    Conversation,
    Cursor,
    Days,
    Device,
    Emoji,
    History,
    Id,
    Kind,
    Last,
    Limit,
    List,
    Media,
    Members,
    Mentions,
    MessageId,
    On,
    Op,
    Positions,
    Query,
    Remove,
    ReplyTo,
    Roles,
    Seq,
    Text,
    Title,
    To,
    Token,
    Until,
    User,
}

impl Field {
    const ALL: [(Self, &'static str); 32] = [
        (Self::Add, "add"),
        (Self::After, "after"),
        (Self::Before, "before"),
        (Self::Conversation, "conversation"),
        (Self::Cursor, "cursor"),
        (Self::Days, "days"),
        (Self::Device, "device"),
        (Self::Emoji, "emoji"),
        (Self::History, "history"),
        (Self::Id, "id"),
        (Self::Kind, "kind"),
        (Self::Last, "last"),
        (Self::Limit, "limit"),
        (Self::List, "list"),
        (Self::Media, "media"),
        (Self::Members, "members"),
        (Self::Mentions, "mentions"),
        (Self::MessageId, "message_id"),
        (Self::On, "on"),
        (Self::Op, "op"),
        (Self::Positions, "positions"),
        (Self::Query, "query"),
        (Self::Remove, "remove"),
        (Self::ReplyTo, "reply_to"),
        (Self::Roles, "roles"),
        (Self::Seq, "seq"),
        (Self::Text, "text"),
        (Self::Title, "title"),
        (Self::To, "to"),
        (Self::Token, "token"),
        (Self::Until, "until"),
        (Self::User, "user"),
    ];

    pub(super) const fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(field, _)| field)
    }

    pub(super) const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// The field of a bit number below the number of fields.
    pub(super) const fn from_index(index: u32) -> Self {
        Self::ALL[index as usize].0
    }
}

const _: () = {
    // The table is in the order of the discriminants, so `name` may index it.
    let mut index = 0;
    while index < Field::ALL.len() {
        assert!(Field::ALL[index].0 as usize == index);
        index += 1;
    }
};

/// What one pass over a command found.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) given: u32,
    /// The field being read: where an error of the parser happened.
    pub(super) current: Option<Field>,
    /// The first field that is unknown or repeated, or in which somebody is no user. Reading goes on, because an unknown `op` explains it
    /// better.
    pub(super) fault: Option<Fault>,
    pub(super) add: Vec<UserId>,
    /// A number or an opaque text: the operation says which.
    pub(super) after: Option<Lenient<'a>>,
    /// Likewise.
    pub(super) before: Option<Lenient<'a>>,
    pub(super) conversation: Option<ConversationId>,
    pub(super) cursor: Option<Cow<'a, str>>,
    /// Absent or null: none.
    pub(super) days: Option<u64>,
    pub(super) device: Option<DeviceId>,
    pub(super) emoji: Option<Cow<'a, str>>,
    pub(super) history: Option<Cow<'a, str>>,
    pub(super) id: Option<u64>,
    pub(super) kind: Option<Cow<'a, str>>,
    /// Absent or null: none.
    pub(super) last: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) list: Option<bool>,
    pub(super) media: Option<Cow<'a, str>>,
    pub(super) members: Option<Vec<UserId>>,
    pub(super) mentions: Vec<UserId>,
    pub(super) message_id: Option<MessageId>,
    pub(super) on: Option<bool>,
    pub(super) op: Option<Cow<'a, str>>,
    pub(super) positions: Option<Vec<(ConversationId, Seq)>>,
    pub(super) query: Option<Cow<'a, str>>,
    pub(super) remove: Vec<UserId>,
    pub(super) reply_to: Option<u64>,
    pub(super) roles: Vec<(UserId, Role)>,
    pub(super) seq: Option<u64>,
    pub(super) text: Option<Cow<'a, str>>,
    pub(super) title: Option<Cow<'a, str>>,
    pub(super) to: Option<UserId>,
    /// `Some(None)`: given as null.
    pub(super) token: Option<Option<Cow<'a, str>>>,
    pub(super) until: Option<u64>,
    pub(super) user: Option<UserId>,
}

impl<'de> Fields<'de> {
    fn read<A: MapAccess<'de>>(&mut self, field: Field, map: &mut A) -> Result<(), A::Error> {
        match field {
            Field::Add => self.add = self.users(field, map)?,
            Field::After => self.after = Some(map.next_value()?),
            Field::Before => self.before = Some(map.next_value()?),
            Field::Conversation => self.conversation = Some(map.next_value::<Parsed<_>>()?.0),
            Field::Cursor => self.cursor = Some(map.next_value::<Text<'_>>()?.0),
            Field::Days => self.days = map.next_value()?,
            Field::Device => self.device = Some(map.next_value::<Parsed<_>>()?.0),
            Field::Emoji => self.emoji = Some(map.next_value::<Text<'_>>()?.0),
            Field::History => self.history = Some(map.next_value::<Text<'_>>()?.0),
            Field::Id => self.id = Some(map.next_value()?),
            Field::Kind => self.kind = Some(map.next_value::<Text<'_>>()?.0),
            Field::Last => self.last = map.next_value()?,
            Field::Limit => self.limit = Some(map.next_value()?),
            Field::List => self.list = Some(map.next_value()?),
            Field::Media => self.media = Some(map.next_value::<Text<'_>>()?.0),
            Field::Members => self.members = Some(self.users(field, map)?),
            Field::Mentions => self.mentions = self.users(field, map)?,
            Field::MessageId => self.message_id = Some(map.next_value::<Parsed<_>>()?.0),
            Field::On => self.on = Some(map.next_value()?),
            Field::Op => self.op = Some(map.next_value::<Text<'_>>()?.0),
            Field::Positions => self.positions = Some(map.next_value::<Positions>()?.0),
            Field::Query => self.query = Some(map.next_value::<Text<'_>>()?.0),
            Field::Remove => self.remove = self.users(field, map)?,
            Field::ReplyTo => self.reply_to = Some(map.next_value()?),
            Field::Roles => self.roles = self.roles(map)?,
            Field::Seq => self.seq = Some(map.next_value()?),
            Field::Text => self.text = Some(map.next_value::<Text<'_>>()?.0),
            Field::Title => self.title = Some(map.next_value::<Text<'_>>()?.0),
            Field::To => self.to = Some(map.next_value::<Parsed<_>>()?.0),
            Field::Token => self.token = Some(map.next_value::<Option<Text<'_>>>()?.map(|text| text.0)),
            Field::Until => self.until = Some(map.next_value()?),
            Field::User => self.user = Some(map.next_value::<Parsed<_>>()?.0),
        }
        Ok(())
    }

    fn users<A: MapAccess<'de>>(&mut self, field: Field, map: &mut A) -> Result<Vec<UserId>, A::Error> {
        let users = map.next_value::<Users>()?.0;
        if users.is_none() {
            self.fault.get_or_insert_with(|| Fault::name(field.name()));
        }
        Ok(users.unwrap_or_default())
    }

    fn roles<A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<Vec<(UserId, Role)>, A::Error> {
        let name = Field::Roles.name();
        Ok(map.next_value::<Roles>()?.0.unwrap_or_else(|wrong| {
            self.fault.get_or_insert_with(|| match wrong {
                WrongPair::Role => Fault::field(name, "is not a known role"),
                WrongPair::User => Fault::name(name),
            });
            Vec::new()
        }))
    }
}

/// Fills a [`Fields`] from an object. What was read before an error stays in it.
pub(super) struct FieldsSeed<'f, 'de>(pub(super) &'f mut Fields<'de>);

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let fields = self.0;
        while let Some(Text(key)) = map.next_key()? {
            let Some(field) = Field::from_name(&key) else {
                fields.fault.get_or_insert_with(|| Fault::unknown_field(&key));
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if fields.given & field.bit() != 0 {
                fields.fault.get_or_insert_with(|| Fault::field(field.name(), "stands there twice"));
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            fields.current = Some(field);
            fields.read(field, &mut map)?;
            fields.current = None;
            fields.given |= field.bit();
        }
        Ok(())
    }
}

/// What can be said about a frame that is not a proper command.
#[derive(Default)]
pub(super) struct Glimpse<'a> {
    /// `Some(None)`: given, but not a number, or given twice.
    pub(super) id: Option<Option<u64>>,
    pub(super) op: Option<Cow<'a, str>>,
}

/// Fills a [`Glimpse`] as far as the input can be read.
pub(super) struct GlimpseSeed<'f, 'de>(pub(super) &'f mut Glimpse<'de>);

impl<'de> DeserializeSeed<'de> for GlimpseSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for GlimpseSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            match (&*key, map.next_value()?) {
                ("id", _) if self.0.id.is_some() => {
                    self.0.id = Some(None);
                    return Err(A::Error::custom(""));
                }
                ("id", Lenient::Number(id)) => self.0.id = Some(Some(id)),
                ("id", _) => self.0.id = Some(None),
                ("op", Lenient::Text(op)) => self.0.op = Some(op),
                _ => {}
            }
        }
        Ok(())
    }
}
