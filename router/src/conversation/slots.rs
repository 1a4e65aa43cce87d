//! What is in memory of one conversation, and what waits for its turn there.
//!
//! What comes for a conversation is handled strictly one after the other: while its state or its positions are being read, it waits in
//! a bounded queue.

use std::collections::VecDeque;

use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use storage_log::Log;

use super::blocking::Block;
use super::positions::Positions;
use super::state::{Conversation, Refusal};
use super::{ConversationSide, LOADED_MAX, LOADED_MEMBERS_MAX, conversation_of};
use crate::mail::{Request, Store};

/// Conversations that are looked at, for each that comes, to find one that nobody has asked for in a while: a turn is not stopped by a look
/// at all of them.
const LOOKED_AT_MAX: usize = 16;

/// Requests that one conversation holds back while its state loads. A room of 99 that all speak at once after a
/// restart, and again; the next are told `busy`.
const PENDING_MAX: usize = 256;

pub(super) enum Loaded {
    No,
    Absent,
    Yes(Conversation),
}

impl Loaded {
    pub(super) fn members_count(&self) -> usize {
        match self {
            Self::Yes(conversation) => conversation.members().len(),
            Self::Absent | Self::No => 0,
        }
    }
}

pub(super) struct Slot {
    pub(super) state: Loaded,
    /// How far its members have read, once somebody wants to know; while it is busy perhaps not all of that.
    pub(super) positions: Option<Box<Positions>>,
    /// A job for this conversation runs: everything waits in `pending`.
    pub(super) busy: bool,
    pub(super) pending: VecDeque<Entrant>,
    /// The newest position that its state depends on: not forgotten before it is durable.
    pub(super) position: u64,
    touched: u64,
}

/// What has its turn at a conversation.
pub(super) enum Entrant {
    Request(Box<Request>),
    /// A command that was looked up, and is new.
    LookedUp(Box<Store>),
    /// A device of a user has what there is up to a sequence.
    Delivered(UserId, Seq),
    /// It is time to look whom its messages have not reached.
    Push,
    /// A page of several conversations, by its number, that waits for state and positions of this one.
    Page(u32),
}

impl Entrant {
    pub(super) fn needs_positions(&self) -> bool {
        match self {
            Self::Request(request) => matches!(**request, Request::Read { .. } | Request::View { .. }),
            Self::Delivered(..) | Self::Page(..) | Self::Push => true,
            Self::LookedUp(_) => false,
        }
    }

    /// Who is answered, if it is what one user asks of one conversation.
    pub(super) fn asked_by(&self) -> Option<&UserId> {
        match self {
            Self::Request(request) => conversation_of(request).map(|(_, user)| user),
            Self::Delivered(..) | Self::LookedUp(_) | Self::Page(..) | Self::Push => None,
        }
    }

    /// Whether it has to be known where what is kept begins.
    pub(super) fn needs_begin(&self) -> bool {
        match self {
            Self::Request(request) => matches!(**request, Request::History { .. }),
            Self::Page(..) | Self::Push => true,
            Self::Delivered(..) | Self::LookedUp(_) => false,
        }
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            state: Loaded::No,
            positions: None,
            busy: false,
            pending: VecDeque::new(),
            position: 0,
            touched: 0,
        }
    }

    /// Whether the log has all of it.
    fn is_settled(&self, log: &Log) -> bool {
        let positions = self.positions.as_ref().is_none_or(|positions| positions.is_settled());
        positions && !self.busy && self.pending.is_empty() && log.durable().covers(self.position)
    }
}

impl ConversationSide {
    /// Handles what comes for a conversation, or queues it there.
    pub(super) fn enter(
        &mut self,
        conversation: ConversationId,
        entrant: Entrant,
        now: UnixMillis,
        log: &mut Log,
    ) {
        let Some(entrant) = self.wait_behind_look_up(conversation, entrant) else { return };
        self.forget_idle(log);
        self.clock += 1;
        let slot = self.slots.entry(conversation).or_insert_with(|| {
            self.loaded.push_back((conversation, self.clock));
            Slot::new()
        });
        slot.touched = self.clock;
        if slot.busy || !slot.pending.is_empty() {
            if slot.pending.len() == PENDING_MAX {
                return self.refuse_entrant(
                    conversation,
                    &entrant,
                    (ErrorCode::Busy, "this conversation is loading"),
                );
            }
            slot.pending.push_back(entrant);
            return;
        }
        self.execute(conversation, entrant, now, log);
    }

    /// Goes on with conversations whose job has ended, and with pages that waited for some.
    pub(super) fn resume(&mut self, now: UnixMillis, log: &mut Log) {
        loop {
            if let Some(conversation) = self.unfolded.pop_front() {
                self.go_on_folding(conversation, log);
            } else if let Some(conversation) = self.resumed.pop_front() {
                self.go_on_with(conversation, now, log);
            } else if let Some((conversation, entrant)) = self.poll_delivered() {
                self.enter(conversation, entrant, now, log);
            } else if let Some(request) = self.held.pop_front() {
                self.admit(request, now, log);
            } else if !self.go_on_behind_look_up(now, log)
                && !self.go_on_with_settings(now, log)
                && !self.begin_next_page(now, log)
            {
                return;
            }
        }
    }

    fn go_on_with(&mut self, conversation: ConversationId, now: UnixMillis, log: &mut Log) {
        while let Some(slot) = self.slots.get_mut(&conversation) {
            if slot.busy {
                return;
            }
            let Some(entrant) = slot.pending.pop_front() else {
                return;
            };
            self.execute(conversation, entrant, now, log);
        }
    }

    /// What a conversation was busy with is over: what waits for it goes on.
    pub(super) fn release(&mut self, conversation: ConversationId) {
        self.slots.get_mut(&conversation).expect("a busy conversation is kept").busy = false;
        self.resumed.push_back(conversation);
    }

    /// The same where it could not be found out: those who wait for that are told, and who asks next has it read again.
    pub(super) fn release_without(
        &mut self,
        conversation: ConversationId,
        is_for_that: fn(&Entrant) -> bool,
        refusal: Refusal,
    ) {
        let slot = self.slots.get_mut(&conversation).expect("a busy conversation is kept");
        let pending = std::mem::take(&mut slot.pending).into_iter();
        let (refused, kept): (VecDeque<Entrant>, _) = pending.partition(is_for_that);
        slot.pending = kept;
        self.release(conversation);
        refused.iter().for_each(|entrant| self.refuse_entrant(conversation, entrant, refusal));
    }

    /// Handles one whose turn it is; loads the conversation first if need be.
    fn execute(&mut self, conversation: ConversationId, entrant: Entrant, now: UnixMillis, log: &mut Log) {
        let slot = self.slots.get_mut(&conversation).expect("entered");
        if matches!(slot.state, Loaded::No) {
            slot.pending.push_front(entrant);
            return self.start_load(conversation, log);
        }
        let is_untold =
            matches!(&entrant, Entrant::Delivered(user, _) if !self.tells_delivered(conversation, user));
        if is_untold {
            return;
        }
        let slot = self.slots.get_mut(&conversation).expect("entered");
        if entrant.needs_positions() && slot.positions.is_none() {
            slot.pending.push_front(entrant);
            return self.start_positions(conversation, log);
        }
        if entrant.needs_begin() && self.begin_of(conversation, log).is_none() {
            let slot = self.slots.get_mut(&conversation).expect("entered");
            slot.pending.push_front(entrant);
            return self.start_counting(conversation, log);
        }
        match entrant {
            Entrant::Delivered(user, seq) => self.note_delivered(conversation, &user, seq),
            Entrant::LookedUp(store) => self.store(store, now, log, true),
            Entrant::Page(page) => self.note_read_for(page),
            Entrant::Push => self.judge_push(conversation, log),
            Entrant::Request(request) => match *request {
                Request::Store(store) => self.store(store, now, log, false),
                Request::Block { asker, user, peer, conversation, on } => {
                    self.block(asker, &Block { user, peer, conversation, on }, now, log);
                }
                Request::Mute { asker, user, conversation, until } => {
                    self.judge_mute(asker, user, conversation, until);
                }
                Request::Read { asker, user, conversation, seq } => {
                    self.read_up_to(asker, user, conversation, seq, log);
                }
                other => self.start_page(other, log),
            },
        }
    }

    pub(super) fn loaded(&self, conversation: ConversationId) -> Option<&Conversation> {
        match &self.slots[&conversation].state {
            Loaded::Yes(conversation) => Some(conversation),
            Loaded::Absent | Loaded::No => None,
        }
    }

    pub(super) fn refuse_entrant(&mut self, of: ConversationId, entrant: &Entrant, refusal: Refusal) {
        match entrant {
            Entrant::Request(request) => self.refuse_request(request, refusal),
            Entrant::LookedUp(store) => self.refuse(store.asker, refusal),
            Entrant::Delivered(..) => {}
            Entrant::Page(page) => self.note_unreadable_for(*page, of),
            Entrant::Push => self.pushes.retry(of),
        }
    }

    /// A conversation is as its state says, from now on.
    pub(super) fn know(&mut self, conversation: ConversationId, state: Conversation) {
        let slot = self.slots.get_mut(&conversation).expect("entered");
        self.loaded_members += state.members().len();
        let before = std::mem::replace(&mut slot.state, Loaded::Yes(state));
        self.loaded_members -= before.members_count();
    }

    /// Keeps what is loaded bounded: a conversation that nobody has asked for since it was looked at last goes; what is busy or not yet durable
    /// stays.
    fn forget_idle(&mut self, log: &Log) {
        for _ in 0..LOOKED_AT_MAX {
            if self.slots.len() < LOADED_MAX && self.loaded_members < LOADED_MEMBERS_MAX {
                return;
            }
            let Some((conversation, looked_at)) = self.loaded.pop_front() else {
                return;
            };
            let slot = &self.slots[&conversation];
            if slot.touched == looked_at && slot.is_settled(log) {
                self.loaded_members -= slot.state.members_count();
                self.slots.remove(&conversation);
            } else {
                let touched = slot.touched;
                self.loaded.push_back((conversation, touched));
            }
        }
    }
}
