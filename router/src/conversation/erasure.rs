//! What is erased, and what readers get in its place: nothing of it from the moment in which it is asked for, whether it still stands
//! on the disk or not.
//!
//! What members do not keep of a conversation goes the same way: see `fronts.rs`.
//!
//! A page is read as ever, and what is erased is taken out of it at its end: what a reader is given for a record that is concealed is
//! byte for byte what is left of it once its segment was written anew. So one thing is seen before and after, and it is decided in one
//! place, [`Erased::verdict`].
//!
//! **Invariant:** an erasure concerns what was appended up to its position, and nothing later: a user may come back.

use bytes::Bytes;
use hashbrown::HashMap;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use protocol::record::{
    AmendmentKind, ArchivedAmendmentV1, Portable, SCHEMA_ERASED, SCHEMA_GONE, Schema, Stored, StoredBody,
    StreamKind as Kind,
};
use storage_log::{Fronts, Verdict};

use super::kept::Front;
use crate::mail::Linked;

const _: () = {
    assert!(SCHEMA_ERASED == storage_log::SCHEMA_ERASED && SCHEMA_GONE == storage_log::SCHEMA_GONE);
};

/// What is not kept of a conversation; `None`: all is.
type FrontOf<'f> = dyn Fn(ConversationId) -> Option<Front> + 'f;

/// Of what the content is erased.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// What was sent into a conversation.
    Conversation(ConversationId),
    /// Everything of a conversation before this sequence: it begins there.
    Front(ConversationId, Seq),
    /// What a user has sent, wherever.
    User(UserId),
}

/// What is erased in one log.
#[derive(Clone, Default, Debug)]
pub struct Erased {
    /// Nothing beyond this position is erased: what is delivered live hardly ever costs more than to see that.
    furthest: u64,
    /// Up to which position.
    users: HashMap<UserId, u64, foldhash::fast::RandomState>,
    conversations: HashMap<ConversationId, Reach, foldhash::fast::RandomState>,
    /// What is in front of what is kept, for whoever writes a segment anew: as it was at a time.
    fronts: Fronts,
}

#[derive(Clone, Default, Debug)]
struct Reach {
    /// What was sent up to this position.
    to: u64,
    /// What stands before a sequence, up to a position.
    fronts: Vec<(Seq, u64)>,
}

impl Subject {
    /// Whether a message of `sender` at this place is of it.
    pub(super) fn concerns(&self, conversation: ConversationId, seq: Seq, sender: &[u8]) -> bool {
        match self {
            Self::Conversation(erased) => *erased == conversation,
            Self::Front(erased, below) => *erased == conversation && seq < *below,
            Self::User(user) => user.as_bytes() == sender,
        }
    }
}

impl Reach {
    /// Whether a record at this place stands in a front that is erased.
    fn has_front(&self, seq: Seq, position: u64) -> bool {
        self.fronts.iter().any(|(below, to)| seq < *below && position <= *to)
    }
}

impl Erased {
    /// Adds what is erased up to the position `to`.
    pub fn insert(&mut self, subject: &Subject, to: u64) {
        self.furthest = self.furthest.max(to);
        match subject {
            Subject::User(user) => {
                let known = self.users.entry(user.clone()).or_default();
                *known = (*known).max(to);
            }
            Subject::Conversation(conversation) => {
                let known = self.conversations.entry(*conversation).or_default();
                known.to = known.to.max(to);
            }
            Subject::Front(conversation, below) => {
                let fronts = &mut self.conversations.entry(*conversation).or_default().fronts;
                fronts.retain(|(other, reach)| other > below || *reach > to);
                fronts.push((*below, to));
            }
        }
    }

    /// What becomes of the record `[portable part | payload]` at a position: the one place where that is decided.
    #[must_use]
    pub fn verdict(&self, position: u64, record: &[u8]) -> Verdict {
        let front = |front: &storage_log::Front| Front { seq: Seq(front.seq), at: UnixMillis(front.at) };
        self.judge(position, record, &|conversation| self.fronts.get(&conversation.0).map(front))
    }

    /// The same, of conversations of which a front is not kept.
    fn judge(&self, position: u64, record: &[u8], front: &FrontOf<'_>) -> Verdict {
        let Ok(portable) = Portable::parse(record) else {
            return Verdict::Keep;
        };
        let is_number = [SCHEMA_ERASED, SCHEMA_GONE].contains(&portable.schema);
        if portable.kind != Kind::Messages || portable.schema == SCHEMA_GONE {
            return Verdict::Keep;
        }
        let front = front(portable.conversation);
        if position > self.furthest && front.is_none() {
            return Verdict::Keep;
        }
        // Who belongs to a conversation, and what it is called, is no content.
        let is_content = !is_number && portable.schema != Schema::Membership as u16;
        let reach = self.conversations.get(&portable.conversation);
        let leaves = reach.is_some_and(|reach| reach.has_front(portable.seq, position))
            || front.is_some_and(|front| front.has(portable.seq, portable.at));
        let is_erased = is_content
            && (leaves
                || reach.is_some_and(|reach| position <= reach.to)
                || self.holds_erased((reach, front), position, portable, record));
        match (is_erased, leaves) {
            (false, false) => Verdict::Keep,
            (false, true) => Verdict::Leave,
            (true, false) => Verdict::Erase,
            (true, true) => Verdict::EraseAndLeave,
        }
    }

    /// Whether a record holds a message of a user whose content is erased, or all of a message that stood in a front: what amends a
    /// message holds all of it, and goes with it, whoever made it.
    fn holds_erased(
        &self,
        (reach, front): (Option<&Reach>, Option<Front>),
        position: u64,
        portable: Portable,
        record: &[u8],
    ) -> bool {
        if self.users.is_empty() && reach.is_none() && front.is_none() {
            return false;
        }
        let is_of_user = |sender: &[u8]| {
            let sender = std::str::from_utf8(sender).ok().and_then(|sender| UserId::new(sender).ok());
            sender.and_then(|sender| self.users.get(&sender)).is_some_and(|to| position <= *to)
        };
        match Stored::with_checked_sum(portable, record).map(|stored| stored.body) {
            Ok(StoredBody::Message(message)) => is_of_user(&message.sender),
            Ok(StoredBody::Folded(form)) => is_of_user(&form.sender),
            Ok(StoredBody::Amendment(amendment)) => {
                let target = Seq(amendment.target.to_native());
                is_of_user(&amendment.form.sender)
                    || reach.is_some_and(|reach| reach.has_front(target, position))
                    || front.is_some_and(|front| shows_front(front, target, amendment))
            }
            Ok(
                StoredBody::Membership(_)
                | StoredBody::Positions(_)
                | StoredBody::Settings(_)
                | StoredBody::Sighting(_)
                | StoredBody::State(_)
                | StoredBody::Taken(_)
                | StoredBody::Unknown,
            )
            | Err(_) => false,
        }
    }

    /// The same, and what is in front of what is kept of these conversations.
    pub(super) fn with_fronts(&self, fronts: Fronts) -> Self {
        Self { fronts, ..self.clone() }
    }

    /// What is in front of what is kept, for whoever asks whether a segment is worth writing anew.
    #[must_use]
    pub fn fronts(&self) -> &Fronts {
        &self.fronts
    }

    /// Takes what is erased out of a page of a conversation, where its front is not there any more.
    pub(super) fn conceal(&self, records: &mut [Linked], front: &FrontOf<'_>) {
        self.replace(records, front, |verdict| match verdict {
            Verdict::Keep => None,
            Verdict::Erase => Some(SCHEMA_ERASED),
            Verdict::Leave | Verdict::EraseAndLeave => Some(SCHEMA_GONE),
        });
    }

    /// The same of a page of links, where what has left its conversation still stands.
    pub(super) fn conceal_links(&self, records: &mut [Linked], front: &FrontOf<'_>) {
        self.replace(records, front, in_links);
    }

    /// What whoever it is linked for is given of a record.
    #[must_use]
    pub fn delivered(&self, position: u64, record: &[u8]) -> Bytes {
        self.delivered_behind(position, record, None)
    }

    /// The same, of a conversation of which a front is not kept.
    pub(super) fn delivered_behind(&self, position: u64, record: &[u8], front: Option<Front>) -> Bytes {
        if position > self.furthest && front.is_none() {
            return Bytes::copy_from_slice(record);
        }
        let schema = in_links(self.judge(position, record, &|_| front));
        let number = schema.and_then(|schema| number_of(record, schema));
        number.unwrap_or_else(|| Bytes::copy_from_slice(record))
    }

    fn replace(&self, records: &mut [Linked], front: &FrontOf<'_>, schema: impl Fn(Verdict) -> Option<u16>) {
        for linked in records {
            let Some(record) = &linked.record else {
                // When it was stored is not known.
                if front(linked.conversation).is_some_and(|front| linked.seq < front.seq) {
                    linked.record = Some(number_alone(linked));
                }
                continue;
            };
            if let Some(schema) = schema(self.judge(linked.position, record, front)) {
                linked.record = number_of(record, schema);
            }
        }
    }
}

/// What stands in linked streams in place of a record.
fn in_links(verdict: Verdict) -> Option<u16> {
    match verdict {
        Verdict::Keep | Verdict::Leave => None,
        Verdict::Erase => Some(SCHEMA_ERASED),
        Verdict::EraseAndLeave => Some(SCHEMA_GONE),
    }
}

/// Whether an amendment says something of a message in front; one that is hidden says nothing.
fn shows_front(front: Front, target: Seq, amendment: &ArchivedAmendmentV1) -> bool {
    let is_hidden = amendment.change == AmendmentKind::Hidden as u8;
    !is_hidden && front.has(target, UnixMillis(amendment.form.at.to_native()))
}

/// What is left of a record that cannot be read, and is not kept anyway.
fn number_alone(linked: &Linked) -> Bytes {
    let mut number = Portable {
        kind: Kind::Messages,
        payload_bytes: 0,
        schema: SCHEMA_GONE,
        flags: 0,
        conversation: linked.conversation,
        seq: linked.seq,
        at: UnixMillis(0),
        message_count: 0,
        payload_sum: 0,
    };
    number.seal(&[]);
    Bytes::copy_from_slice(&number.encode())
}

/// What is left of a record without its content; none of one that is not sound, which is a gap then.
fn number_of(record: &[u8], schema: u16) -> Option<Bytes> {
    let portable = Portable::parse(record).ok()?;
    let mut number = Portable { schema, ..portable };
    number.seal(&[]);
    Some(Bytes::copy_from_slice(&number.encode()))
}

#[cfg(test)]
mod tests {
    use protocol::ids::UnixMillis;
    use protocol::record::{AmendmentV1, Body, FormV1, MembershipV1, MessageV1};

    use super::*;

    const TALK: ConversationId = ConversationId([7; 16]);

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("a name")
    }

    fn message(seq: u64, sender: &str) -> Vec<u8> {
        let body = MessageV1 { sender: sender.into(), text: b"words".into(), ..MessageV1::default() };
        unpadded(Body::Message(body), seq)
    }

    fn unpadded(body: Body, seq: u64) -> Vec<u8> {
        let mut record = body.record(TALK, Seq(seq), UnixMillis(1), seq);
        let portable = Portable::parse(&record).expect("it was made");
        record.truncate(protocol::record::PORTABLE_BYTES + portable.payload_bytes as usize);
        record
    }

    /// Positions are ten times the sequence here.
    fn verdicts(erased: &Erased, records: &[Vec<u8>]) -> Vec<Verdict> {
        (1..).zip(records).map(|(seq, record)| erased.verdict(seq * 10, record)).collect()
    }

    #[test]
    fn what_is_erased_is_what_was_said_up_to_then() {
        use Verdict::{Erase, EraseAndLeave, Keep, Leave};
        let membership = Body::Membership(MembershipV1 { by: b"alice".into(), ..MembershipV1::default() });
        let records = [
            unpadded(membership, 1),
            message(2, "alice"),
            message(3, "bob"),
            message(4, "alice"),
            message(5, "alice"),
        ];
        let of = |subjects: &[(Subject, u64)]| {
            let mut erased = Erased::default();
            subjects.iter().for_each(|(subject, to)| erased.insert(subject, *to));
            verdicts(&erased, &records)
        };
        let alice = Subject::User(user("alice"));
        assert_eq!(of(&[]), [Keep; 5]);
        assert_eq!(of(&[(alice.clone(), 40)]), [Keep, Erase, Keep, Erase, Keep]);
        assert_eq!(of(&[(alice.clone(), 40), (alice.clone(), 20)]), [Keep, Erase, Keep, Erase, Keep]);
        assert_eq!(of(&[(Subject::User(user("alic")), 99)]), [Keep; 5]);
        assert_eq!(of(&[(Subject::Conversation(TALK), 30)]), [Keep, Erase, Erase, Keep, Keep]);
        assert_eq!(of(&[(Subject::Conversation(ConversationId([8; 16])), 30)]), [Keep; 5]);
        let front = |below| Subject::Front(TALK, Seq(below));
        assert_eq!(of(&[(front(3), 50)]), [Leave, EraseAndLeave, Keep, Keep, Keep]);
        // Sequences that nobody had taken when it was asked are not concerned.
        assert_eq!(of(&[(front(9), 30)]), [Leave, EraseAndLeave, EraseAndLeave, Keep, Keep]);
        assert_eq!(of(&[(front(9), 20), (front(3), 50)]), [Leave, EraseAndLeave, Keep, Keep, Keep]);
        assert_eq!(of(&[(front(3), 50), (alice, 50)]), [Leave, EraseAndLeave, Keep, Erase, Erase]);
    }

    /// An amendment says all of what it amends: it goes with that, and what somebody does to the message of another stays with that.
    #[test]
    fn an_amendment_goes_with_the_message_that_it_amends() {
        let form = FormV1 { sender: b"alice".into(), text: b"words".into(), ..FormV1::default() };
        let amendment = AmendmentV1 { by: b"bob".into(), target: 1, form, ..AmendmentV1::default() };
        // As it stands in the log, and where the message is served.
        let records = [2, 1].map(|seq| unpadded(Body::Amendment(amendment.clone()), seq));
        for (name, verdict) in [("alice", Verdict::Erase), ("bob", Verdict::Keep)] {
            let mut erased = Erased::default();
            erased.insert(&Subject::User(user(name)), 50);
            assert_eq!(records.each_ref().map(|record| erased.verdict(20, record)), [verdict; 2], "{name}");
        }
        let mut erased = Erased::default();
        erased.insert(&Subject::Front(TALK, Seq(2)), 50);
        assert_eq!(
            records.map(|record| erased.verdict(20, &record)),
            [Verdict::Erase, Verdict::EraseAndLeave],
            "what stands behind the front says nothing of it either"
        );
    }

    /// So a segment that was gone through need not be written again.
    #[test]
    fn what_was_erased_once_is_kept_as_it_is() {
        let mut erased = Erased::default();
        erased.insert(&Subject::User(user("alice")), 100);
        let number = number_of(&message(2, "alice"), SCHEMA_ERASED).expect("a sound record");
        assert_eq!(erased.verdict(20, &number), Verdict::Keep);
        erased.insert(&Subject::Front(TALK, Seq(5)), 100);
        assert_eq!(erased.verdict(20, &number), Verdict::Leave);
        let gone = number_of(&number, SCHEMA_GONE).expect("a sound record");
        assert_eq!(erased.verdict(20, &gone), Verdict::Keep);
        assert!(Stored::parse(&gone).is_ok(), "whoever is given it can read it");
    }
}
