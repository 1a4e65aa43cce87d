//! Records that the disk no longer has as they were: each is told as a gap, by conversation and sequence.
//!
//! A damaged record may not say what it was. In its own stream the place that it stands in does; for a link the index of its
//! segment has to be looked through, so what was found is remembered: a damaged place costs that search once.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};
use protocol::record::StreamKind as Kind;
use storage_log::{Entry, Location, StreamId, StreamKind};

/// Damaged records remembered; at the limit all are forgotten and found again. 4,096 are a megabyte of damage at 256
/// bytes a record.
const REMEMBERED_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Damages {
    known: HashMap<Location, (StreamId, u64), foldhash::fast::RandomState>,
    /// Those of which only the place is known.
    unnamed: HashSet<Location, foldhash::fast::RandomState>,
    news: VecDeque<Location>,
}

impl Damages {
    /// The stream and sequence of a damaged record that was found as `entry` of `stream`, if that is known.
    pub(super) fn home_of(&mut self, stream: StreamId, entry: Entry) -> Option<(StreamId, u64)> {
        let known = self.known.get(&entry.location).copied();
        let links = [Kind::Inbox, Kind::Memberships].map(|kind| StreamKind(kind as u8));
        if known.is_none() && !links.contains(&stream.kind) {
            self.remember(entry.location, (stream, entry.key));
            return Some((stream, entry.key));
        }
        known
    }

    /// Notes what was found; it is news.
    pub(super) fn remember(&mut self, location: Location, home: (StreamId, u64)) {
        if self.known.len() == REMEMBERED_MAX {
            self.known.clear();
        }
        if self.known.insert(location, home).is_none() && !self.unnamed.remove(&location) {
            self.news.push_back(location);
        }
    }

    /// Notes that a record is damaged of which nobody has to be told as such.
    pub(super) fn tell(&mut self, location: Location) {
        if self.unnamed.len() == REMEMBERED_MAX {
            self.unnamed.clear();
        }
        if !self.known.contains_key(&location) && self.unnamed.insert(location) {
            self.news.push_back(location);
        }
    }

    /// The next one that was not known before.
    pub(super) fn poll_news(&mut self) -> Option<Location> {
        self.news.pop_front()
    }
}
