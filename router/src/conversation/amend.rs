//! What an edit, a deletion or a reaction makes of a message, and who may: pure functions, and before them
//! the reading of that message.
//!
//! A conversation's side knows the newest form of what is being amended also while that is not durable, so that two amendments in one
//! batch follow from each other.

use protocol::command::Role;
use protocol::event::ErrorCode;
use protocol::ids::{Seq, UnixMillis};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::{AmendmentKind, AmendmentV1, Body, FormV1, StoredBody, StreamKind as Kind};
use storage_log::{Link, Log, Lookup, Page, StreamId};

use super::ConversationSide;
use super::delivering::Delivery;
use super::folding::{HIDDEN, stored};
use super::jobs::Purpose;
use super::state::{Audience, Conversation, NOT_A_MEMBER, NOT_FOUND, Plan, Refusal};
use crate::mail::{Change, Linked, Reply, Store};
use crate::places::{KINDS, Places, conversation_stream};

const NO_MESSAGE: Refusal = (ErrorCode::NotFound, "there is no such message");
const DELETED: Refusal = (ErrorCode::NotFound, "the message was deleted");
const AUTHORS_ONLY: Refusal = (ErrorCode::NotAllowed, "only its author may do this");
const NO_TEXT: Refusal = (ErrorCode::BadField, "a message of kind text has a text");
const TOO_MANY_REACTIONS: Refusal = (ErrorCode::Limit, "the message has as many reactions as it may have");
const UNREADABLE: Refusal = (ErrorCode::Unavailable, "the message cannot be read from the disk");

/// The message that is amended, alone.
const ONE: Page = Page { items_max: 1, bytes_max: PAGE_BYTES_MAX };

impl Change {
    /// The message that is amended.
    pub(super) fn target(&self) -> Option<Seq> {
        match self {
            Self::Delete { target } => Some(*target),
            Self::Edit(edit) => Some(edit.seq),
            Self::React(react) => Some(react.seq),
            Self::Create(_)
            | Self::Leave
            | Self::Members(_)
            | Self::Retention(_)
            | Self::Send { .. }
            | Self::Title(_) => None,
        }
    }
}

/// The form of a message from its record, as folding has left it.
///
/// # Errors
/// What its sender is told when there is no message, or none that can be read.
fn form_of(record: Option<&Linked>) -> Result<FormV1, Refusal> {
    let bytes = record.ok_or(NO_MESSAGE)?.record.as_ref().ok_or(UNREADABLE)?;
    let stored = stored(bytes).ok_or(UNREADABLE)?;
    match stored.body {
        StoredBody::Message(message) => Ok(FormV1::of_message(message, stored.portable.at)),
        StoredBody::Folded(form) => Ok(FormV1::from_archived(form)),
        StoredBody::Amendment(_)
        | StoredBody::Membership(_)
        | StoredBody::Positions(_)
        | StoredBody::Settings(_)
        | StoredBody::Sighting(_)
        | StoredBody::State(_)
        | StoredBody::Taken(_)
        | StoredBody::Unknown => Err(NO_MESSAGE),
    }
}

impl Conversation {
    /// Whether `store` may look at the message that it amends: asked before that is read.
    pub(super) fn may_amend(&self, store: &Store, target: Seq) -> Result<(), Refusal> {
        let member = self.member(&store.user).ok_or(NOT_A_MEMBER)?;
        if target < member.visible_from {
            return Err(NO_MESSAGE);
        }
        match store.change {
            // What was said can be taken back.
            Change::Delete { .. } => Ok(()),
            _ => self.judge_blocks(&store.user),
        }
    }

    /// Decides what `store` makes of a message of this `form`, at the time `at`: what is stored, and the form that it has then.
    pub(super) fn plan_amendment(
        &self,
        places: &Places,
        store: &Store,
        form: FormV1,
        at: UnixMillis,
    ) -> Result<(Plan, FormV1), Refusal> {
        let target = store.change.target().expect("the caller has its form");
        self.may_amend(store, target)?;
        let is_author = form.sender == store.user.as_bytes();
        let is_admin =
            self.is_group() && self.member(&store.user).is_some_and(|member| member.role != Role::Member);
        if form.deleted != 0 {
            return Err(DELETED);
        }
        let (kind, form) = match &store.change {
            Change::Edit(_) if !is_author => return Err(AUTHORS_ONLY),
            Change::Edit(edit) if !form.takes_text(&edit.text) => return Err(NO_TEXT),
            Change::Edit(edit) => (AmendmentKind::Edit, form.edited(&edit.text, at)),
            Change::Delete { .. } if !is_author && !is_admin => return Err(AUTHORS_ONLY),
            Change::Delete { .. } => (AmendmentKind::Delete, form.deleted()),
            Change::React(react) => {
                let form = form.with_reaction(&store.user, &react.emoji, react.on);
                (AmendmentKind::React, form.map_err(|_| TOO_MANY_REACTIONS)?)
            }
            _ => unreachable!("it has a target"),
        };
        let event = AmendmentV1 {
            message_id: store.message_id.0,
            by: store.user.as_bytes().to_vec(),
            change: kind as u8,
            target: target.0,
            content_hash: store.content_hash,
            form: form.clone(),
            ext: Vec::new(),
        };
        let (audience, hidden_from) = self.audiences_of(places, target);
        let plan = Plan {
            event: Body::Amendment(event),
            messages: 0,
            after: None,
            audience,
            hidden_from,
            memberships: Vec::new(),
            roster: None,
        };
        Ok((plan, form))
    }
}

impl ConversationSide {
    /// What is amended has to be known first: it is, while another amendment of it is being written; else it is read.
    pub(super) fn find_amended(&mut self, store: Box<Store>, target: Seq, now: UnixMillis, log: &mut Log) {
        let conversation = self.loaded(store.conversation).ok_or(NOT_FOUND);
        if let Err(refusal) = conversation.and_then(|conversation| conversation.may_amend(&store, target)) {
            return self.refuse(store.asker, refusal);
        }
        match self.amended.get(&(store.conversation, target)) {
            Some((_, form)) => self.amend(&store, form.clone(), now, log),
            None => self.start_amend(store, target, now, log),
        }
    }

    /// Reads the message that a command amends, in its present form.
    fn start_amend(&mut self, store: Box<Store>, target: Seq, now: UnixMillis, log: &mut Log) {
        let stream = conversation_stream(store.conversation, Kind::Messages);
        self.slots.get_mut(&store.conversation).expect("entered").busy = true;
        let lookup = Lookup::before(log, stream, target.0 + 1, target.0, ONE);
        self.start(Purpose::Amend { store, now }, vec![lookup], log);
    }

    pub(super) fn finish_amend(
        &mut self,
        store: Box<Store>,
        message: Option<&Linked>,
        now: UnixMillis,
        log: &mut Log,
    ) {
        self.release(store.conversation);
        match form_of(message) {
            Ok(form) => self.amend(&store, form, now, log),
            Err(refusal) => self.refuse(store.asker, refusal),
        }
    }

    /// Stores an amendment of a message that has this form.
    fn amend(&mut self, store: &Store, form: FormV1, now: UnixMillis, log: &mut Log) {
        let conversation = self.loaded(store.conversation).expect("it was asked whether this may be amended");
        let at = UnixMillis(log.clock(now.0));
        let head = Seq(log.head(conversation_stream(store.conversation, Kind::Messages)).seq);
        let front = conversation.kept().front(&self.places, head, at);
        let target = store.change.target().expect("it was looked up");
        if front.has(target, UnixMillis(form.at)) {
            // What puts it in front may be under way: nobody is told that something is gone by what a crash may undo.
            let (asker, (code, message)) = (store.asker, NO_MESSAGE);
            let refused = Reply::Refused { asker, is_page: false, code, message, retry_after_ms: None };
            return self.answer_when_durable(asker, refused, log.newest_position(), log);
        }
        match conversation.plan_amendment(&self.places, store, form, at) {
            Err(refusal) => self.refuse(store.asker, refusal),
            Ok((plan, form)) => {
                if let Some(position) = self.append(store, plan, now, log) {
                    self.amended.insert((store.conversation, target), (position, form));
                }
            }
        }
    }

    /// What was amended is found in the log from now on, unless it was amended again.
    pub(super) fn forget_amended(&mut self, delivery: &Delivery, position: u64) {
        if let Some(amended) = delivery.amended
            && self.amended.get(&amended).is_some_and(|(newest, _)| *newest == position)
        {
            self.amended.remove(&amended);
        }
    }
}

impl Plan {
    /// How many links and members are stored with it, and users told of it.
    pub(super) fn work(&self) -> u64 {
        let told = |audience: &Audience| audience.shards.iter().map(|(_, users)| users.len()).sum::<usize>();
        let hidden = self.hidden_from.as_deref().map_or(0, told);
        let members = self.after.as_ref().map_or(0, |after| after.members().len());
        (told(&self.audience) + self.memberships.len() + hidden + members) as u64
    }

    /// The streams that the event is linked into, of a conversation in which it takes `seq`.
    pub(super) fn links(&self, home: StreamId, seq: u64) -> Vec<Link> {
        let seen = self.audience.inboxes.iter().chain(&self.memberships).copied().map(Link::from);
        let hidden = self.hidden_from.iter().flat_map(|audience| &audience.inboxes);
        let hidden = hidden.map(|inbox| Link { stream: *inbox, note: HIDDEN });
        let amends = match &self.event {
            Body::Amendment(event) => {
                let note =
                    u32::try_from(seq - event.target).expect("its target was looked up, and is not so far");
                Some(Link { stream: StreamId { kind: KINDS.amended, ..home }, note })
            }
            Body::Membership(_)
            | Body::Message(_)
            | Body::Positions(_)
            | Body::Settings(_)
            | Body::Sighting(_)
            | Body::State(_)
            | Body::Taken(_) => None,
        };
        seen.chain(hidden).chain(amends).collect()
    }
}
