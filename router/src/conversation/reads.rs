//! Reads that wait for the disk, and which goes next.
//!
//! A crowd that comes back asks for thousands of pages at once, and a command whose conversation is not in memory needs a read or
//! two: behind all of the pages it would wait for seconds. So what a command waits for goes ahead, within a bound, so that the pages get
//! their turn as well.

use std::collections::VecDeque;

use super::fetch::{Read, ReadPlace};

/// Reads for commands that go ahead of one for a page.
const AHEAD_MAX: u32 = 4;

/// Who waits for what a read brings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A command, or everything that comes for a conversation.
    Command,
    /// A page, or nobody.
    Page,
}

/// Bounded as jobs are, of which each waits for a page of records at most.
#[derive(Default)]
pub(super) struct Reads {
    commands: VecDeque<Read>,
    pages: VecDeque<Read>,
    /// Of `commands`, since the last one of `pages` or since those came.
    went_ahead: u32,
}

impl Reads {
    pub(super) fn push(&mut self, read: Read, urgency: Urgency) {
        match urgency {
            Urgency::Command => self.commands.push_back(read),
            Urgency::Page => self.pages.push_back(read),
        }
    }

    /// Something that was asked for before is wanted by a command now: if the disk was not asked yet, it goes ahead too.
    pub(super) fn hurry(&mut self, what: ReadPlace) {
        if let Some(place) = self.pages.iter().position(|read| read.what == what) {
            self.commands.extend(self.pages.remove(place));
        }
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<Read> {
        let is_their_turn = self.went_ahead >= AHEAD_MAX || self.commands.is_empty();
        if is_their_turn && let Some(read) = self.pages.pop_front() {
            self.went_ahead = 0;
            return Some(read);
        }
        self.went_ahead = if self.pages.is_empty() { 0 } else { self.went_ahead + 1 };
        self.commands.pop_front()
    }
}
