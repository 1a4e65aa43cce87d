//! Records that the disk no longer has as they were: each is told as a gap, by conversation and sequence.
//!
//! A damaged record may not say what it was. The index does, but only if every stream is looked through, so what was
//! found is remembered: a page over a damaged place costs that search once.

use std::collections::VecDeque;

use hashbrown::HashMap;
use protocol::ids::{ConversationId, Seq};
use storage_log::{Entry, Location, Log};

use crate::mail::Linked;

/// Damaged records remembered; at the limit all are forgotten and found again. 4,096 are a megabyte of damage at 256
/// bytes a record.
const REMEMBERED_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Damages {
    known: HashMap<u64, (ConversationId, Seq), foldhash::fast::RandomState>,
    news: VecDeque<Location>,
}

impl Damages {
    /// The gap in place of a record of which `bytes` are left.
    pub(super) fn gap(&mut self, entry: Entry, bytes: &[u8], log: &Log) -> Linked {
        if self.known.len() == REMEMBERED_MAX {
            self.known.clear();
        }
        let (conversation, seq) = *self.known.entry(entry.location.lsn()).or_insert_with(|| {
            self.news.push_back(entry.location);
            let (stream, seq) =
                log.home_of(entry.location, bytes).expect("the entry came from the same index");
            (ConversationId(stream.id), Seq(seq))
        });
        Linked { position: entry.key, conversation, seq, record: None }
    }

    /// The next one that was not known before.
    pub(super) fn poll_news(&mut self) -> Option<Location> {
        self.news.pop_front()
    }
}
