//! The lists of one segment, found by their stream.
//!
//! Lists stand in chunks that never move and never grow by doubling; a hash table of 4-byte places finds them, as it does for the
//! resident entries. A place never changes, so that many lists can be looked for before the first of them is changed: most are in no
//! cache, and are fetched side by side then.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;

use crate::record::StreamId;

use super::postings::{Entries, List, StreamPostings};

/// Lists of one chunk: what the last one wastes is some tens of KiB.
const CHUNK_LISTS: usize = 512;

#[derive(Debug)]
pub(crate) struct Streams {
    chunks: Vec<Vec<StreamPostings>>,
    /// By the first byte of the id, so that no append pays for the growth of the whole.
    places: Vec<HashTable<u32>>,
    hasher: foldhash::fast::RandomState,
}

impl Streams {
    pub(crate) fn new() -> Self {
        let hasher = foldhash::fast::RandomState::default();
        Self { chunks: Vec::new(), places: vec![HashTable::new(); 256], hasher }
    }

    pub(crate) fn find(&self, stream: StreamId) -> Option<u32> {
        let same = |place: &u32| self.at(*place).stream == stream;
        self.places[usize::from(stream.id[0])].find(self.hasher.hash_one(stream), same).copied()
    }

    /// The place of the list of `stream`, which begins as `begin` says if there is none: the place of its resident entry, and what
    /// came before.
    pub(crate) fn place_of(&mut self, stream: StreamId, begin: impl FnOnce() -> (u32, List)) -> u32 {
        self.find(stream).unwrap_or_else(|| {
            let (resident, list) = begin();
            self.add(StreamPostings { stream, resident, entries: Entries::new(), newest_seq: 0, list })
        })
    }

    pub(crate) fn at(&self, place: u32) -> &StreamPostings {
        &self.chunks[place as usize / CHUNK_LISTS][place as usize % CHUNK_LISTS]
    }

    pub(crate) fn at_mut(&mut self, place: u32) -> &mut StreamPostings {
        &mut self.chunks[place as usize / CHUNK_LISTS][place as usize % CHUNK_LISTS]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &StreamPostings> {
        self.chunks.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut StreamPostings> {
        self.chunks.iter_mut().flatten()
    }

    /// All lists in the order of their streams.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = &StreamPostings> {
        self.places.iter().flat_map(|places| {
            let mut lists: Vec<&StreamPostings> = places.iter().map(|place| self.at(*place)).collect();
            lists.sort_unstable_by_key(|list| (list.stream.id, list.stream.kind));
            lists
        })
    }

    fn add(&mut self, list: StreamPostings) -> u32 {
        let (stream, chunks) = (list.stream, &mut self.chunks);
        match chunks.last_mut().filter(|chunk| chunk.len() < CHUNK_LISTS) {
            Some(chunk) => chunk.push(list),
            None => {
                chunks.push(Vec::with_capacity(CHUNK_LISTS));
                chunks.last_mut().expect("just added").push(list);
            }
        }
        let in_last = self.chunks.last().map_or(0, Vec::len);
        let place = ((self.chunks.len() - 1) * CHUNK_LISTS + in_last - 1) as u32;
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let stream_at =
            |place: u32| chunks[place as usize / CHUNK_LISTS][place as usize % CHUNK_LISTS].stream;
        let hash = |place: &u32| hasher.hash_one(stream_at(*place));
        self.places[usize::from(stream.id[0])].insert_unique(hasher.hash_one(stream), place, hash);
        place
    }
}
