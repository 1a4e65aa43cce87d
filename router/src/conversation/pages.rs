//! Pages that say how far their reader has read: they wait until the positions of the conversations concerned are in memory.
//!
//! Such a page is begun anew once they are: what it was made from may be amended meanwhile, and what a page shows must be what it is when
//! the page leaves.

use std::collections::VecDeque;

use protocol::ids::{ConversationId, UnixMillis, UserId};
use slab::Slab;
use storage_log::Log;

use super::ConversationSide;
use super::slots::Entrant;
use crate::mail::{ReadState, Reply, Request};

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
    /// Conversations that are being read, and one while they are being asked for.
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
            self.enter(conversation, Entrant::Page(page, conversation), now, log);
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
