//! What is true: every record that the disk holds durably, and what clients were told, held against each other.

use std::collections::{BTreeMap, BTreeSet};

use protocol::command::{Command, Retention, Role};
use protocol::event::{AmendedEvent, Gap, MessageEvent};
use protocol::ids::{ConversationId, MessageId, UserId};
use protocol::record::{Ext, Portable, Stored, StoredBody, StreamKind as Kind};
use storage_log::Record;

use crate::calling::Tokens;
use crate::erasing::Erasures;
use crate::forms::{Form, Forms};
use crate::group::Groups;
use crate::hiding::Invisibles;
use crate::keeping::{Keeping, Since};
use crate::said::{Given, Said};
use crate::searching::Searches;
use crate::seen::Seen;
use crate::settings::{Blocks, Mutes};
use crate::unread::ReadBounds;

/// One record of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Truth {
    pub(crate) message_id: MessageId,
    pub(crate) sender: UserId,
    pub(crate) text: Option<String>,
    /// And what a message says beside it.
    pub(crate) said: Option<Said>,
    /// What it amends, and what that is then.
    pub(crate) amends: Option<(u64, Form)>,
    pub(crate) at: u64,
    pub(crate) added: Vec<UserId>,
    /// Of those, and of whoever it gave another.
    pub(crate) roles: Vec<(UserId, Role)>,
    pub(crate) removed: Vec<UserId>,
    /// From where on who was added reads.
    pub(crate) joined_from: u64,
    /// How much is kept from there on, where that was set.
    pub(crate) retention: Option<Retention>,
    /// The title that it gave.
    pub(crate) title: Option<String>,
}

/// Everything that was durable at some time, and everything that was promised.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) durable: BTreeMap<(ConversationId, u64), Truth>,
    acked: BTreeMap<(UserId, MessageId), (ConversationId, u64)>,
    /// And when.
    refused: BTreeMap<(UserId, MessageId), u64>,
    pub(crate) received: u64,
    /// Times that somebody was told of a head instead of what is before it.
    pub(crate) heads: u64,
    /// For how long messages are kept at least; and told apart from what went before by their ids.
    pub(crate) keep_ms: Option<u64>,
    pub(crate) gone: u64,
    pub(crate) forms: Forms,
    pub(crate) groups: Groups,
    /// Log and position of what was seen to become durable.
    pub(crate) positions: BTreeMap<(ConversationId, u64), (u16, u64)>,
    pub(crate) erasures: Erasures,
    /// An index file rotted while a node served: what could not be read for it is not known.
    pub(crate) has_rotted: bool,
    /// How far each has read.
    pub(crate) reads: ReadBounds,
    pub(crate) mutes: Mutes,
    pub(crate) tokens: Tokens,
    pub(crate) blocks: Blocks,
    pub(crate) keeping: Keeping,
    pub(crate) invisibles: Invisibles,
    pub(crate) seen: Seen,
    pub(crate) searches: Searches,
    /// Times that somebody was given a message that says more than a text.
    pub(crate) given: Given,
    /// Times that somebody was told that something was erased.
    pub(crate) erased: u64,
    /// And that what was asked for is so already.
    pub(crate) unchanged: u64,
}

impl Oracle {
    pub(crate) fn new(keep_ms: Option<u64>) -> Self {
        Self { keep_ms, ..Self::default() }
    }

    /// Whether what was stored `at` need not be there any more at `now`.
    pub(crate) fn may_be_gone(&self, at: u64, now: u64) -> bool {
        self.keep_ms.is_some_and(|keep| at.saturating_add(keep) < now)
    }

    /// When the record before this one was stored.
    fn at_before(&self, conversation: ConversationId, seq: u64) -> u64 {
        self.durable.get(&(conversation, seq - 1)).map_or(u64::MAX, |before| before.at)
    }

    /// Somebody was told that these are not kept any more: then they are old enough.
    pub(crate) fn told_gone(&mut self, gap: &Gap, now: u64) {
        self.gone += 1;
        for seq in gap.from.0..=gap.to.0 {
            let truth =
                self.durable.get(&(gap.conversation, seq)).expect("a gap where something was").clone();
            let is_set = self.is_in_front((gap.conversation, seq), now);
            self.keeping.told += u64::from(is_set);
            let may_be = is_set || self.may_be_gone(truth.at, now);
            assert!(may_be, "{gap:?} at {now}: {seq} is of {}", truth.at);
        }
    }

    /// `acked_is_durable`: nobody learns of a head that a crash could undo.
    pub(crate) fn told_head(&mut self, conversation: ConversationId, head: u64) {
        let place = (conversation, head);
        assert!(self.durable.contains_key(&place), "acked_is_durable: {place:?} is a head and not on disk");
        self.heads += 1;
    }

    /// A record of a batch that has just been synced.
    pub(crate) fn enter(&mut self, log: u16, record: &Record<'_>) {
        let key = (ConversationId(record.stream().id), record.seq());
        if record.stream().kind.0 == Kind::State as u8 {
            self.enter_state(key.0, record.portable());
        }
        if record.stream().kind.0 != Kind::Messages as u8 {
            return;
        }
        self.positions.insert(key, (log, record.position()));
        let truth = truth_of(record.portable());
        if truth.text.is_some() {
            self.blocks.check_message(key.0);
        }
        self.check_as_said(key.0, &truth);
        self.enter_group(key, &truth);
        self.enter_form(key, &truth);
        self.reads.enter(key, &truth);
        self.keeping.enter(key, &truth, self.reads.now);
        self.searches.enter(key, (log, record.position()), &truth, self.reads.now);
        let earlier = self.durable.insert(key, truth);
        assert!(earlier.is_none(), "one_seq_one_message: {key:?} was written twice");
    }

    /// A state that is durable, or that a start has found.
    pub(crate) fn enter_state(&mut self, conversation: ConversationId, record: &[u8]) {
        let portable = Portable::parse(record).expect("a record");
        if let StoredBody::State(state) = Stored::with_checked_sum(portable, record).expect("a record").body {
            self.blocks.enter(conversation, state);
        }
    }

    /// A record that a start has found, and where, if it is whole.
    pub(crate) fn survived(&mut self, place: (ConversationId, u64), at: Option<(u16, u64)>, truth: Truth) {
        self.check_as_said(place.0, &truth);
        self.enter_group(place, &truth);
        self.enter_form(place, &truth);
        self.reads.enter(place, &truth);
        self.keeping.enter(place, &truth, self.reads.now);
        if let Some(at) = at {
            self.searches.enter(place, at, &truth, self.reads.now);
        }
        self.durable.entry(place).or_insert(truth);
    }

    fn enter_form(&mut self, (conversation, seq): (ConversationId, u64), truth: &Truth) {
        if let Some((text, said)) = truth.text.as_ref().zip(truth.said.as_ref()) {
            self.forms.enter((conversation, seq), seq, Form::of_message(text, said));
        }
        if let Some((target, form)) = &truth.amends {
            self.forms.enter((conversation, *target), seq, form.clone());
        }
    }

    /// `acked_is_durable`, `one_seq_one_message`: an acknowledgement names a record that is on the disk now.
    pub(crate) fn acked(&mut self, user: &UserId, message_id: MessageId, place: (ConversationId, u64)) {
        let truth = self.durable.get(&place);
        let truth = truth
            .unwrap_or_else(|| panic!("acked_is_durable: {place:?} was acknowledged and is not on disk"));
        assert_eq!(
            (truth.message_id, &truth.sender),
            (message_id, user),
            "the acknowledgement names another record"
        );
        if let Some((target, _)) = truth.amends {
            self.forms.acked((place.0, target), place.1);
        }
        let earlier = self.acked.insert((user.clone(), message_id), place);
        let at = |place| self.durable[&place].at;
        let now = self.reads.now;
        let is_forgotten = |earlier| {
            let is_in_front = self.is_forgotten(earlier, now);
            self.may_be_gone(at(earlier), at(place)) || self.may_be_erased(earlier) || is_in_front
        };
        assert!(
            earlier.is_none_or(|earlier| earlier == place || is_forgotten(earlier)),
            "one_seq_one_message: {message_id} got two places"
        );
    }

    /// `acked_is_durable`, `one_seq_one_message`: who is told that something is so already is told what is on the disk, and has not stored it. It
    /// was decided after it was sent, when the disk held `head` at least, and before now.
    pub(crate) fn unchanged(&mut self, user: &UserId, message_id: MessageId, command: &Command, head: u64) {
        let conversation =
            Self::changed_by(command).unwrap_or_else(|| panic!("{command:?} takes a sequence"));
        let was_so = self.was_so(conversation, head, user, command);
        assert!(was_so, "acked_is_durable: {user} was told that this is so from {head} on: {command:?}");
        let now = self.reads.now;
        let mut of = self.durable.range((conversation, 0)..=(conversation, u64::MAX));
        let stored = of.find(|(place, truth)| {
            let is_gone = self.may_be_gone(truth.at, now) || self.may_be_erased(**place);
            truth.sender == *user
                && truth.message_id == message_id
                && !is_gone
                && !self.is_forgotten(**place, now)
        });
        assert_eq!(stored, None, "one_seq_one_message: {message_id} is answered as if it were not stored");
        self.unchanged += 1;
    }

    /// The server has said for good that it does not store this.
    pub(crate) fn refused(&mut self, user: &UserId, message_id: MessageId, now: u64) {
        self.refused.insert((user.clone(), message_id), now);
    }

    /// `acked_is_durable`: what is delivered is on the disk, and is what the disk has.
    pub(crate) fn delivered(
        &mut self,
        place: (ConversationId, u64),
        message_id: MessageId,
        text: Option<&str>,
    ) {
        let truth = self.durable.get(&place);
        let truth =
            truth.unwrap_or_else(|| panic!("acked_is_durable: {place:?} was delivered and is not on disk"));
        assert_eq!(
            (truth.message_id, truth.text.as_deref()),
            (message_id, text),
            "delivered otherwise than stored"
        );
        self.received += 1;
    }

    /// A message is what the disk has at its place, and in the form that it had when it was asked for, or later.
    pub(crate) fn told_message(&mut self, event: &MessageEvent, since: Option<Since>) {
        let place = (event.conversation, event.seq.0);
        self.check_kept(place, since);
        let is_as_sent = !event.deleted && event.edited_at.is_none();
        let text = if is_as_sent { Some(event.text.clone()) } else { self.text_of(place) };
        self.delivered(place, event.message_id, text.as_deref());
        self.told_said(event);
        self.forms.message(event, since.map(|since| since.forms));
    }

    fn text_of(&self, place: (ConversationId, u64)) -> Option<String> {
        let text = self.durable.get(&place).and_then(|truth| truth.text.clone());
        Some(text.expect("only messages have a folded form"))
    }

    pub(crate) fn told_amended(&mut self, event: &AmendedEvent, since: Option<Since>) {
        self.check_kept((event.conversation, event.seq.0), since);
        self.check_amended_kept(event, since);
        self.delivered((event.conversation, event.seq.0), event.message_id, None);
        self.forms.amended(event, since.map(|since| since.forms));
    }

    /// Holds the log, as a node reads it at the end, against all of this.
    pub(crate) fn check_log(&self, log: &BTreeMap<(ConversationId, u64), Truth>, now: u64) {
        for (place, truth) in &self.durable {
            let found = log.get(place);
            let may_be = self.may_be_gone(truth.at, now) || self.is_in_front(*place, now);
            let is_gone = found.is_none() && may_be;
            assert!(is_gone || found == Some(truth), "acked_survives: {place:?} is not as it was");
        }
        let mut names = BTreeMap::new();
        let mut head: Option<(ConversationId, u64)> = None;
        for ((conversation, seq), truth) in log {
            let follows = match head {
                Some((before, last)) if before == *conversation => *seq == last + 1,
                _ => *seq == 1,
            };
            // Of what is gone, some stays for its links.
            let begins = self.keep_ms.is_some() && self.may_be_gone(self.at_before(*conversation, *seq), now);
            let begins = begins || self.is_in_front((*conversation, *seq - 1), now);
            assert!(follows || begins, "dense_order: {conversation} has a hole before {seq}");
            head = Some((*conversation, *seq));
            let name = (*conversation, truth.sender.clone(), truth.message_id);
            let earlier = names.insert(name, (truth.at, *seq));
            let is_forgotten = |(at, seq)| {
                let place = (*conversation, seq);
                let is_in_front = self.is_forgotten(place, now);
                self.may_be_gone(at, truth.at) || self.may_be_erased(place) || is_in_front
            };
            assert!(
                earlier.is_none_or(is_forgotten),
                "one_seq_one_message: {} is stored twice",
                truth.message_id
            );
        }
        self.forms.check_log(&self.durable, &self.groups.commands);
        for ((user, message_id), refused_at) in &self.refused {
            let stored = log.iter().any(|(place, truth)| {
                let is_in_front = self.is_forgotten(*place, now);
                let is_forgotten =
                    self.may_be_gone(truth.at, *refused_at) || self.may_be_erased(*place) || is_in_front;
                truth.sender == *user && truth.message_id == *message_id && !is_forgotten
            });
            assert!(!stored, "{message_id} of {user} was refused for good and is stored");
        }
    }
}

pub(crate) fn truth_of(bytes: &[u8]) -> Truth {
    let portable = Portable::parse(bytes).expect("a record");
    let user = |bytes: &[u8]| UserId::new(std::str::from_utf8(bytes).expect("UTF-8")).expect("a user");
    let at = portable.at.0;
    match Stored::with_checked_sum(portable, bytes).expect("a record").body {
        StoredBody::Amendment(body) => Truth {
            message_id: MessageId(body.message_id),
            sender: user(&body.by),
            text: None,
            said: None,
            amends: Some((body.target.to_native(), Form::of_stored(&body.form))),
            at,
            added: Vec::new(),
            roles: Vec::new(),
            removed: Vec::new(),
            joined_from: 0,
            retention: None,
            title: None,
        },
        StoredBody::Message(body) => Truth {
            message_id: MessageId(body.message_id),
            sender: user(&body.sender),
            text: Some(String::from_utf8(body.text.to_vec()).expect("UTF-8")),
            said: Some(Said::of_record(body)),
            amends: None,
            at,
            added: Vec::new(),
            roles: Vec::new(),
            removed: Vec::new(),
            joined_from: 0,
            retention: None,
            title: None,
        },
        StoredBody::Membership(body) => Truth {
            message_id: MessageId(body.message_id),
            sender: user(&body.by),
            text: None,
            said: None,
            amends: None,
            at,
            joined_from: body.added.first().map_or(0, |member| member.visible_from.to_native()),
            added: body.added.iter().map(|member| user(&member.user)).collect(),
            roles: body
                .added
                .iter()
                .chain(body.roles.iter())
                .map(|member| (user(&member.user), Role::from_number(member.role).expect("a role")))
                .collect(),
            removed: body.removed.iter().map(|name| user(&name.name)).collect(),
            retention: Ext::new(&body.ext).retention(),
            title: (body.title_set != 0).then(|| String::from_utf8(body.title.to_vec()).expect("UTF-8")),
        },
        StoredBody::Folded(_)
        | StoredBody::Positions(_)
        | StoredBody::Settings(_)
        | StoredBody::Sighting(_)
        | StoredBody::State(_)
        | StoredBody::Taken(_)
        | StoredBody::Unknown => {
            panic!("a stream of messages holds messages, amendments and memberships")
        }
    }
}

/// `members_only` and completeness: who has to be told of each record of a conversation, by its own records.
/// `direct` are the two users of a direct conversation.
pub(crate) fn audiences(
    log: &BTreeMap<(ConversationId, u64), Truth>,
    direct: &BTreeMap<ConversationId, [UserId; 2]>,
) -> BTreeMap<(ConversationId, u64), BTreeSet<UserId>> {
    let mut members: BTreeMap<ConversationId, BTreeSet<UserId>> = BTreeMap::new();
    let mut audiences = BTreeMap::new();
    for ((conversation, seq), truth) in log {
        let now = members
            .entry(*conversation)
            .or_insert_with(|| direct.get(conversation).into_iter().flatten().cloned().collect());
        let mut audience: BTreeSet<UserId> = now.clone();
        now.extend(truth.added.iter().cloned());
        now.retain(|user| !truth.removed.contains(user));
        if truth.text.is_none() {
            audience.extend(now.iter().cloned());
            audience.extend(truth.removed.iter().cloned());
        }
        audiences.insert((*conversation, *seq), audience);
    }
    audiences
}

/// Who is in each conversation at the end, by its own records.
pub(crate) fn members_of(
    log: &BTreeMap<(ConversationId, u64), Truth>,
    direct: &BTreeMap<ConversationId, [UserId; 2]>,
) -> BTreeMap<ConversationId, BTreeSet<UserId>> {
    let mut members: BTreeMap<ConversationId, BTreeSet<UserId>> = BTreeMap::new();
    for ((conversation, _), truth) in log {
        let now = members
            .entry(*conversation)
            .or_insert_with(|| direct.get(conversation).into_iter().flatten().cloned().collect());
        now.extend(truth.added.iter().cloned());
        now.retain(|user| !truth.removed.contains(user));
    }
    members
}
