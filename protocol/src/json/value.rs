//! Values as commands carry them: borrowed text, ids, lists with an end.
//!
//! The errors made here have no text: the caller knows which field it was reading, and whatever serde
//! would quote might be a message or a token.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{
    command::Role,
    ids::{ConversationId, Seq, UserId},
    limits,
};

/// A string, borrowed where it holds no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A string that is an id.
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T: FromStr> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Id<T>(PhantomData<T>);
        impl<T: FromStr> Visitor<'_> for Id<T> {
            type Value = Parsed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map(Parsed).map_err(|_| E::custom(""))
            }
        }
        deserializer.deserialize_str(Id(PhantomData))
    }
}

/// A list that stops reading one item after [`limits::MEMBERS_MAX`]; the checks refuse it then. `None` where one of the items is no user: a
/// list it is all the same, and what is wrong with it is told as with a single user.
pub(super) struct Users(pub(super) Option<Vec<UserId>>);

impl<'de> Deserialize<'de> for Users {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let users = deserializer.deserialize_seq(List::<User>(limits::MEMBERS_MAX, PhantomData))?;
        Ok(Self(users.into_iter().map(|user| user.0).collect()))
    }
}

/// A user, or any other value.
struct User(Option<UserId>);

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Lenient::deserialize(deserializer)? {
            Lenient::Text(text) => UserId::new(&text).ok(),
            Lenient::Number(_) | Lenient::Other => None,
        }))
    }
}

/// Positions of `connect`, bounded as [`Users`] is.
pub(super) struct Positions(pub(super) Vec<(ConversationId, Seq)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    conversation: Parsed<ConversationId>,
    seq: u64,
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let positions = deserializer.deserialize_seq(List::<Position>(limits::POSITIONS_MAX, PhantomData))?;
        Ok(Self(positions.into_iter().map(|at| (at.conversation.0, Seq(at.seq))).collect()))
    }
}

struct List<T>(usize, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while list.len() <= self.0 {
            match items.next_element()? {
                Some(item) => list.push(item),
                None => return Ok(list),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(list)
    }
}

/// The object `{user: role}` of `members`, or what is wrong with a pair of it.
pub(super) struct Roles(pub(super) Result<Vec<(UserId, Role)>, WrongPair>);

pub(super) enum WrongPair {
    Role,
    User,
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Roles;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of roles")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut roles = Ok(Vec::new());
                while let Some((user, role)) = map.next_entry::<User, Text<'de>>()? {
                    let Ok(pairs) = &mut roles else { continue };
                    match (user.0, Role::from_name(&role.0)) {
                        (Some(user), Some(role)) => pairs.push((user, role)),
                        (None, _) => roles = Err(WrongPair::User),
                        (Some(_), None) => roles = Err(WrongPair::Role),
                    }
                    if roles.as_ref().is_ok_and(|pairs| pairs.len() > limits::MEMBERS_MAX) {
                        return Err(A::Error::custom(""));
                    }
                }
                Ok(Roles(roles))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Any value at all, of which only text and whole numbers are looked at.
pub(super) enum Lenient<'a> {
    Number(u64),
    Other,
    Text(Cow<'a, str>),
}

impl<'de> Deserialize<'de> for Lenient<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor)
    }
}

struct LenientVisitor;

impl<'de> Visitor<'de> for LenientVisitor {
    type Value = Lenient<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Lenient::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Lenient::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Lenient::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Lenient::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Lenient::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Lenient::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Lenient::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lenient::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Lenient::Other)
    }
}
