//! Pages: which kind begins how, who may read those of one conversation, and those that wait.
//!
//! A page that says how far its reader has read waits until the positions of the conversations concerned are in memory. It is begun anew
//! once they are: what it was made from may be amended meanwhile, and what a page shows must be what it is when the page leaves.

use std::collections::VecDeque;

use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use slab::Slab;
use storage_log::Log;

use super::ConversationSide;
use super::slots::{Entrant, Loaded};
use super::viewers::Present;
use crate::mail::{Knows, ReadState, Reply, Request};

/// Times that a page is begun anew. What is not in memory then was pushed out by what others wanted meanwhile; it is held to be unknown.
const ROUNDS_MAX: u8 = 4;

/// What is known of a page that was begun before.
#[derive(Clone, Default)]
pub(super) struct Tried {
    rounds: u8,
    /// Of these it cannot be known how far they were read.
    unknown: Vec<ConversationId>,
}

struct WaitingPage {
    request: Request,
    tried: Tried,
    /// Conversations that are still being read.
    missing: usize,
}

/// All pages of one log that wait so. Bounded by the page credits.
#[derive(Default)]
pub(super) struct WaitingPages {
    waiting: Slab<WaitingPage>,
    /// Of those, the ones that wait for nothing any more.
    ready: VecDeque<u32>,
    /// To be asked for.
    asked: VecDeque<(ConversationId, u32)>,
}

impl ConversationSide {
    /// Starts a page, whichever it is; a conversation that it needs is loaded.
    pub(super) fn start_page(&mut self, request: Request, log: &mut Log) {
        self.begin_page(request, Tried::default(), log);
    }

    /// The same, of one that may have been begun before.
    fn begin_page(&mut self, request: Request, tried: Tried, log: &mut Log) {
        match request {
            Request::CatchUp { .. } => self.begin_catching_up(request, tried, log),
            Request::Candidates { .. } => self.begin_candidates(request, tried, log),
            Request::List { .. } => self.begin_list(request, tried, log),
            Request::Memberships { .. } => self.begin_memberships(request, log),
            Request::Reads { .. } => self.answer_reads(request, &tried, log),
            Request::Feed { .. } => self.begin_feed(request, log),
            Request::Survey { .. } => self.begin_survey(request, log),
            Request::History { .. }
            | Request::ListMembers { .. }
            | Request::MaySearch { .. }
            | Request::View { .. } => {
                self.start_members_page(request, log);
            }
            Request::Block { .. }
            | Request::Mute { .. }
            | Request::Read { .. }
            | Request::PushTokens { .. }
            | Request::Seen { .. }
            | Request::Set { .. }
            | Request::Settings { .. }
            | Request::Sighting { .. }
            | Request::Signals { .. }
            | Request::Store(_) => {
                unreachable!("nothing is read for these")
            }
        }
    }

    /// A page that only members may read.
    fn start_members_page(&mut self, request: Request, log: &mut Log) {
        let (conversation, user) = match &request {
            Request::History { conversation, user, .. }
            | Request::ListMembers { conversation, user, .. }
            | Request::MaySearch { conversation, user, .. }
            | Request::View { conversation, user, .. } => (*conversation, user),
            _ => unreachable!("the caller matched"),
        };
        let slot = &self.slots[&conversation];
        if !log.durable().covers(slot.position) {
            if !log.is_healthy() {
                let words = "the log stopped: what this would be read by may not be stored";
                return self.refuse_request(&request, (ErrorCode::Unavailable, words));
            }
            // Who reads by a membership that a crash may undo reads what is not theirs.
            return self.wait_until_durable(slot.position, request);
        }
        let Loaded::Yes(state) = &slot.state else {
            return self.refuse_request(&request, (ErrorCode::NotFound, "there is no such conversation"));
        };
        let Some(member) = state.member(user) else {
            return self
                .refuse_request(&request, (ErrorCode::NotAMember, "you are not in this conversation"));
        };
        let visible_from = member.visible_from;
        match request {
            Request::ListMembers { asker, .. } => {
                let members = state.members().iter();
                let members =
                    members.map(|member| (member.user.clone(), member.role, member.visible_from)).collect();
                let retention = state.kept().retention;
                self.outputs.push_back((asker.shard, Reply::Members { asker, members, retention }));
            }
            Request::MaySearch { asker, .. } => {
                self.outputs.push_back((asker.shard, Reply::MaySearch { asker, visible_from }));
            }
            Request::View { asker, user, knows, .. } => {
                let begun = log.runs().last().map_or(0, |run| run.first_position);
                // Its members, or whether one blocks the other, may have changed since: its viewer was told of those of before.
                let knows = if slot.position > begun { Knows::Nothing } else { knows };
                let positions = slot.positions.as_ref();
                let reached = positions.map(|positions| positions.durable_receipts()).unwrap_or_default();
                let head = Seq(self.durable_head(conversation, log).seq);
                match self.viewers.view(asker, user, conversation, knows, Present { state, head, reached }) {
                    Ok(()) => {
                        self.answer_views();
                        self.find_delivered_to_all(conversation, log);
                    }
                    Err(refusal) => self.push_refusal(asker, true, refusal),
                }
            }
            Request::History { asker, range, limit, .. } => {
                self.start_history(asker, conversation, range, limit, visible_from, log);
            }
            _ => unreachable!("the caller matched"),
        }
    }

    /// How far a user has read these conversations. `None`: that has to be read first, and then the page is begun anew.
    pub(super) fn read_states(
        &mut self,
        user: &UserId,
        conversations: &[ConversationId],
        request: impl FnOnce() -> Request,
        tried: &Tried,
        log: &Log,
    ) -> Option<Vec<ReadState>> {
        let mut states = Vec::with_capacity(conversations.len());
        let mut missing = Vec::new();
        for conversation in conversations {
            match self.read_state(user, *conversation, log) {
                Some(state) => states.push(state),
                None if tried.rounds == ROUNDS_MAX || tried.unknown.contains(conversation) => {}
                None => missing.push(*conversation),
            }
        }
        if missing.is_empty() {
            return Some(states);
        }
        let tried = Tried { rounds: tried.rounds + 1, unknown: tried.unknown.clone() };
        let page = WaitingPage { request: request(), tried, missing: missing.len() };
        let page = self.pages.waiting.insert(page) as u32;
        self.pages.asked.extend(missing.into_iter().map(|conversation| (conversation, page)));
        None
    }

    /// The next thing to do for pages that wait; `false` when there is none.
    pub(super) fn begin_next_page(&mut self, now: UnixMillis, log: &mut Log) -> bool {
        if let Some((conversation, page)) = self.pages.asked.pop_front() {
            self.enter(conversation, Entrant::Page(page), now, log);
            return true;
        }
        let Some(page) = self.pages.ready.pop_front() else {
            return false;
        };
        let WaitingPage { request, tried, .. } = self.pages.waiting.remove(page as usize);
        self.begin_page(request, tried, log);
        true
    }

    /// A conversation that a page waits for is in memory now.
    pub(super) fn note_read_for(&mut self, page: u32) {
        let waiting = &mut self.pages.waiting[page as usize];
        waiting.missing -= 1;
        if waiting.missing == 0 {
            self.pages.ready.push_back(page);
        }
    }

    /// It cannot be.
    pub(super) fn note_unreadable_for(&mut self, page: u32, conversation: ConversationId) {
        self.pages.waiting[page as usize].tried.unknown.push(conversation);
        self.note_read_for(page);
    }

    /// How far a session's user has read some conversations, for its home to tell.
    pub(super) fn answer_reads(&mut self, request: Request, tried: &Tried, log: &Log) {
        let Request::Reads { session, shard, log: number, user, conversations } = &request else {
            unreachable!("the caller matched");
        };
        if let Some(states) = self.read_states(user, conversations, || request.clone(), tried, log) {
            let (session, log) = (*session, *number);
            self.outputs.push_back((*shard, Reply::Reads { session, log, states }));
        }
    }
}
