//! One erasure, as it is asked for, kept and told: ids, times and positions, never content.

use std::collections::BTreeMap;
use std::fmt;

use protocol::ids::{ConversationId, Seq, UserId};
use router::Places;
use router::conversation::Subject;
use serde::{Deserialize, Deserializer, Serialize};

/// What was erased, how far that reaches, and whether it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// When it was asked for, in milliseconds since 1970: no two of a node are of one, so it is also its mark.
    pub asked_at: u64,
    /// Of what.
    pub subject: Subject,
    /// By log: the position up to which it reaches. A log that was refused when it was asked is not there yet.
    pub logs: BTreeMap<u16, u64>,
    /// When it was found to be on the disk of this node no more.
    pub done_at: Option<u64>,
}

impl Erasure {
    /// The logs that may hold what is erased.
    pub fn concerned<'p>(&self, places: &'p Places) -> impl Iterator<Item = u16> + use<'p> {
        concerned(&self.subject, places)
    }

    /// The same as it is written.
    pub(super) fn entry(&self) -> Entry {
        let Erasure { asked_at, logs, done_at, .. } = self;
        let logs = logs.iter().map(|(log, to)| Reach { log: *log, to: *to }).collect();
        let Asked { user, conversation, below } = Asked::of(&self.subject);
        Entry { asked_at: *asked_at, user, conversation, below, logs, done_at: *done_at }
    }
}

/// The logs that may hold something of a subject.
pub fn concerned<'p>(subject: &Subject, places: &'p Places) -> impl Iterator<Item = u16> + use<'p> {
    let only = match subject {
        Subject::Conversation(conversation) | Subject::Front(conversation, _) => {
            Some(places.log_of(*conversation))
        }
        Subject::User(_) => None,
    };
    (0..places.logs).filter(move |log| only.is_none_or(|only| only == *log))
}

impl fmt::Display for Erasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Conversation(conversation) => write!(f, "what was sent into {conversation}"),
            Subject::Front(conversation, below) => write!(f, "{conversation} before {}", below.0),
            Subject::User(user) => write!(f, "what {user} has sent"),
        }
    }
}

/// A subject as it is written. What is not given is not there: a `null` is refused, because `{"conversation": …, "below": null}` of a
/// script that lost the number would erase all of it.
#[derive(Clone, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    conversation: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    below: Option<u64>,
}

fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Asked {
    /// A subject as it is written.
    #[must_use]
    pub fn of(subject: &Subject) -> Self {
        match subject {
            Subject::Conversation(conversation) => {
                Self { conversation: Some(conversation.to_string()), ..Self::default() }
            }
            Subject::Front(conversation, below) => {
                Self { conversation: Some(conversation.to_string()), below: Some(below.0), user: None }
            }
            Subject::User(user) => Self { user: Some(user.to_string()), ..Self::default() },
        }
    }

    /// Reads what is asked for.
    ///
    /// # Errors
    /// What is wrong with it, in words for whoever asked.
    pub fn read(body: &[u8]) -> Result<Subject, String> {
        // A list of the fields' values would pass for an object of them.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err("this is not an erasure: it must be a JSON object".to_owned());
        }
        let asked: Self =
            serde_json::from_slice(body).map_err(|error| format!("this is not an erasure: {error}"))?;
        asked.check()
    }

    fn check(self) -> Result<Subject, String> {
        let conversation = |id: &str| {
            id.parse::<ConversationId>().map_err(|_| "`conversation` is no UUID in canonical text".to_owned())
        };
        match (self.user, self.conversation, self.below) {
            (Some(user), None, None) => {
                Ok(Subject::User(UserId::new(&user).map_err(|error| format!("`user` is none: {error}"))?))
            }
            (None, Some(id), None) => Ok(Subject::Conversation(conversation(&id)?)),
            (None, Some(id), Some(below)) if below > 1 => Ok(Subject::Front(conversation(&id)?, Seq(below))),
            (None, Some(_), Some(_)) => {
                Err("nothing stands before `below`: sequences begin with 1".to_owned())
            }
            _ => Err("give one of: `user`, `conversation`, `conversation` and `below`".to_owned()),
        }
    }
}

/// An erasure as it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    asked_at: u64,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    conversation: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    below: Option<u64>,
    logs: Vec<Reach>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    done_at: Option<u64>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reach {
    log: u16,
    to: u64,
}

impl Entry {
    /// The erasure that this says.
    pub(super) fn check(self) -> Result<Erasure, String> {
        let Self { asked_at, user, conversation, below, logs, done_at } = self;
        let subject = Asked { user, conversation, below }.check()?;
        let logs = logs.into_iter().map(|Reach { log, to }| (log, to)).collect();
        Ok(Erasure { asked_at, subject, logs, done_at })
    }
}
