//! What memory holds of every stream, however old: one packed entry per id.
//!
//! A conversation's entry has the head of its home stream, the places of its newest state and positions, and the newest
//! segment that holds the stream. A user's entry has the newest key of each stream of links, and its newest segment.
//! Everything older is found from there, segment by segment (`lookup.rs`).
//!
//! Entries stand in chunks that never move and never grow by doubling; a hash table of 4-byte places finds them. It is cut
//! in 256 by the first bits of the id, so that no append pays for the growth of the whole.

use std::hash::BuildHasher as _;
use std::ops::Range;

use hashbrown::HashTable;

use crate::location::{Head, Location};

use super::lowest::Lowest;
use super::postings::Posting;

/// The epoch of a segment, both counted from their first.
pub(crate) fn epoch(segment: u32) -> u32 {
    (segment - 1) / EPOCH_SEGMENTS
}

/// Entries of one chunk: what the last one wastes is some tens of KiB.
const CHUNK_ENTRIES: usize = 1024;

const ID_BYTES: usize = 16;

/// Where in a packed [`Home`] its `offset` stands.
pub(crate) const OFFSET: Range<usize> = 18..21;

/// Segments of one epoch. A jump leads over the rest of an epoch, so the way to the oldest of `n` segments has at most
/// `n / 64 + 64` steps.
const EPOCH_SEGMENTS: u32 = 64;

/// A jump that leads nowhere: no segment has this number.
const GUESS: u32 = (1 << 24) - 1;

/// The segments that hold a stream, from the newest back. Numbers of segments, from 1; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chain {
    pub(crate) newest: u32,
    /// The newest one in an epoch before that of `newest`.
    pub(crate) jump: u32,
}

impl Chain {
    /// The chain once `segment` holds the stream too.
    pub(crate) fn with(self, segment: u32) -> Self {
        if self.newest == 0 || self.is_in_epoch_of(segment) {
            return Self { newest: segment, ..self };
        }
        Self { newest: segment, jump: self.newest }
    }

    /// Whether its newest segment is of the epoch of `segment`.
    pub(crate) fn is_in_epoch_of(self, segment: u32) -> bool {
        self.newest > 0 && epoch(self.newest) == epoch(segment)
    }

    /// That a segment may hold the stream, and if not, one before it: what an index says that was made again beside damage.
    pub(crate) fn guess(segment: u32) -> Self {
        Self { newest: segment, jump: GUESS }
    }

    pub(crate) fn is_guess(self) -> bool {
        self.jump == GUESS
    }

    fn read(bytes: &[u8], at: usize) -> Self {
        Self { newest: read_uint::<3>(bytes, at) as u32, jump: read_uint::<3>(bytes, at + 3) as u32 }
    }

    fn put(self, bytes: &mut [u8], at: usize) {
        put_uint::<3>(bytes, at, u64::from(self.newest));
        put_uint::<3>(bytes, at + 3, u64::from(self.jump));
    }
}

/// Of a conversation: 55 bytes with its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Home {
    pub(crate) head: Head,
    pub(crate) chain: Chain,
    /// Position of the head, counted from the first of its newest segment; [`Posting::POSITION_UNKNOWN`] where nothing says it.
    pub(crate) offset: u32,
    pub(crate) last: [Option<Location>; 2],
    /// What its amendments reach back to: those in the epoch of its newest segment,
    pub(crate) amended: Lowest,
    /// and those in epochs before.
    pub(crate) amended_before: Lowest,
}

impl Home {
    /// It stands in `segment` too from now on.
    pub(crate) fn enter(&mut self, segment: u32) {
        if !self.chain.is_in_epoch_of(segment) {
            self.amended_before = self.amended_before.min(self.amended);
            self.amended = Lowest::NONE;
        }
        self.chain = self.chain.with(segment);
    }

    /// Packed, of one that has no amendments.
    pub(crate) const UNAMENDED_BYTES: usize = Self::BYTES - 2;

    /// Reads [`Home::UNAMENDED_BYTES`], or all of it.
    pub(crate) fn read_front(bytes: &[u8]) -> Self {
        let mut whole = [0; Self::BYTES];
        whole[..bytes.len()].copy_from_slice(bytes);
        Self::read(&whole)
    }

    /// Reads what was packed before there was an `offset`: so much less.
    pub(crate) fn read_unplaced(bytes: &[u8]) -> Self {
        let (front, back) = bytes.split_at(OFFSET.start);
        let unknown = &(Posting::POSITION_UNKNOWN as u32).to_le_bytes()[..OFFSET.len()];
        Self::read_front(&[front, unknown, back].concat())
    }

    pub(crate) fn is_amended(&self) -> bool {
        self.amended != Lowest::NONE || self.amended_before != Lowest::NONE
    }

    /// What the amendments in a list that begins in `segment` reach back to, before there is one in it.
    pub(crate) fn amended_at(&self, segment: u32) -> Lowest {
        if self.chain.is_in_epoch_of(segment) { self.amended } else { Lowest::NONE }
    }
}

/// Of a user, for each of two streams of links.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Links {
    pub(crate) streams: [Linked; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Linked {
    /// Position of the newest link; 0 is none.
    pub(crate) newest: u64,
    pub(crate) chain: Chain,
}

impl Linked {
    const BYTES: usize = 12;

    /// It stands in `segment` too from now on.
    pub(crate) fn enter(&mut self, segment: u32) {
        self.chain = self.chain.with(segment);
    }
}

/// An entry that packs into bytes of its own behind the id.
pub(crate) trait Packed: Copy + Default {
    /// Without the id.
    const BYTES: usize;
    fn read(bytes: &[u8]) -> Self;
    fn put(&self, bytes: &mut [u8]);
}

impl Head {
    /// At the front of an entry.
    fn put(self, bytes: &mut [u8]) {
        put_uint::<6>(bytes, 0, self.seq);
        put_uint::<6>(bytes, 6, self.message_count);
    }
}

impl Packed for Home {
    const BYTES: usize = OFFSET.end + 18;

    fn read(bytes: &[u8]) -> Self {
        let last = |at| Location::unpack(read_uint::<8>(bytes, at));
        Self {
            head: Head { seq: read_uint::<6>(bytes, 0), message_count: read_uint::<6>(bytes, 6) },
            chain: Chain::read(bytes, 12),
            offset: read_uint::<3>(bytes, OFFSET.start) as u32,
            last: [last(21), last(29)],
            amended: Lowest::read(bytes[37]),
            amended_before: Lowest::read(bytes[38]),
        }
    }

    fn put(&self, bytes: &mut [u8]) {
        self.head.put(bytes);
        self.chain.put(bytes, 12);
        put_uint::<3>(bytes, OFFSET.start, u64::from(self.offset));
        put_uint::<8>(bytes, 21, Location::pack(self.last[0]));
        put_uint::<8>(bytes, 29, Location::pack(self.last[1]));
        (bytes[37], bytes[38]) = (self.amended.byte(), self.amended_before.byte());
    }
}

impl Packed for Links {
    const BYTES: usize = 2 * Linked::BYTES;

    fn read(bytes: &[u8]) -> Self {
        let stream = |at| Linked { newest: read_uint::<6>(bytes, at), chain: Chain::read(bytes, at + 6) };
        Self { streams: [stream(0), stream(Linked::BYTES)] }
    }

    fn put(&self, bytes: &mut [u8]) {
        for (stream, at) in self.streams.iter().zip([0, Linked::BYTES]) {
            put_uint::<6>(bytes, at, stream.newest);
            stream.chain.put(bytes, at + 6);
        }
    }
}

/// Hash tables of the places of entries. Each is for a share of all ids, by their first bits, and no two shares are of one size: the
/// largest is twice the smallest, and they lie between in equal steps of a ratio. A table doubles when it is full, so at each size of the
/// whole as many are nearly full as were just doubled: what they take for an entry is always the mean of that, and no append meets the
/// growth of more than one.
const TABLES: usize = 256;

/// First bits of an id that decide.
const SHARE_BITS: u32 = 12;

/// 2^(1/256), as a fraction of 2^32.
const STEP: u64 = 4306612134;

/// The table for each value of these bits.
static TABLE_OF: [u8; 1 << SHARE_BITS] = tables_of_shares();

const fn tables_of_shares() -> [u8; 1 << SHARE_BITS] {
    let mut tables = [0; 1 << SHARE_BITS];
    // Where the next table begins: 2^(table/256) - 1 of all.
    let (mut power, mut table, mut bits) = (STEP, 0, 0);
    while bits < tables.len() {
        while table + 1 < TABLES && (power - (1 << 32)) >> (32 - SHARE_BITS) <= bits as u64 {
            table += 1;
            power = ((power as u128 * STEP as u128) >> 32) as u64;
        }
        tables[bits] = table as u8;
        bits += 1;
    }
    tables
}

fn table_of(id: &[u8; ID_BYTES]) -> usize {
    let bits = u16::from_be_bytes([id[0], id[1]]) >> (16 - SHARE_BITS);
    usize::from(TABLE_OF[usize::from(bits)])
}

/// Packed entries by id.
pub(crate) struct Table<E> {
    chunks: Vec<Box<[u8]>>,
    len: u32,
    places: Vec<HashTable<u32>>,
    hasher: foldhash::fast::RandomState,
    entry: std::marker::PhantomData<E>,
}

impl<E: Packed> Table<E> {
    pub(crate) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
            places: vec![HashTable::new(); TABLES],
            hasher: foldhash::fast::RandomState::default(),
            entry: std::marker::PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = E> + '_ {
        (0..self.len).map(|place| self.at(place))
    }

    pub(crate) fn get(&self, id: &[u8; ID_BYTES]) -> Option<E> {
        self.place(id).map(|place| self.at(place))
    }

    /// Changes the entry of `id`, which is made if there is none.
    pub(crate) fn update<T>(&mut self, id: &[u8; ID_BYTES], change: impl FnOnce(&mut E) -> T) -> T {
        let place = self.place_of(id);
        self.update_at(place, change)
    }

    /// Place of the entry of `id`, which is made if there is none. It never changes.
    pub(crate) fn place_of(&mut self, id: &[u8; ID_BYTES]) -> u32 {
        self.place(id).unwrap_or_else(|| self.add(id))
    }

    pub(crate) fn at(&self, place: u32) -> E {
        E::read(&entry_at::<E>(&self.chunks, place)[ID_BYTES..])
    }

    pub(crate) fn update_at<T>(&mut self, place: u32, change: impl FnOnce(&mut E) -> T) -> T {
        let bytes = self.bytes_at(place);
        let mut entry = E::read(bytes);
        let answer = change(&mut entry);
        entry.put(bytes);
        answer
    }

    fn bytes_at(&mut self, place: u32) -> &mut [u8] {
        let at = place as usize % CHUNK_ENTRIES * entry_bytes::<E>();
        &mut self.chunks[place as usize / CHUNK_ENTRIES][at + ID_BYTES..][..E::BYTES]
    }

    fn place(&self, id: &[u8; ID_BYTES]) -> Option<u32> {
        let same = |place: &u32| entry_at::<E>(&self.chunks, *place)[..ID_BYTES] == *id;
        self.places[table_of(id)].find(self.hasher.hash_one(u128::from_ne_bytes(*id)), same).copied()
    }

    fn add(&mut self, id: &[u8; ID_BYTES]) -> u32 {
        let place = self.len;
        if (place as usize).is_multiple_of(CHUNK_ENTRIES) {
            self.chunks.push(vec![0; CHUNK_ENTRIES * entry_bytes::<E>()].into_boxed_slice());
        }
        let at = place as usize % CHUNK_ENTRIES * entry_bytes::<E>();
        self.chunks[place as usize / CHUNK_ENTRIES][at..at + ID_BYTES].copy_from_slice(id);
        self.len += 1;
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let hash_of = |id: &[u8; ID_BYTES]| hasher.hash_one(u128::from_ne_bytes(*id));
        let hash = |place: &u32| hash_of(id_of(entry_at::<E>(chunks, *place)));
        self.places[table_of(id)].insert_unique(hash_of(id), place, hash);
        place
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let chunks = self.chunks.len() * CHUNK_ENTRIES * entry_bytes::<E>();
        let slots: usize = self.places.iter().map(HashTable::allocation_size).sum();
        chunks + slots + self.places.len() * size_of::<HashTable<u32>>()
    }
}

// What changes with every record is only written: an append does not wait for an entry that is in no cache.

impl Table<Home> {
    /// The newest record is that of `head` now, and stands so far from the first of its segment.
    pub(crate) fn set_head(&mut self, place: u32, head: Head, offset: u64) {
        let bytes = self.bytes_at(place);
        head.put(bytes);
        put_uint::<3>(bytes, OFFSET.start, offset);
    }
}

impl Table<Links> {
    /// Sets the position of the newest link into stream `which` of the user.
    pub(crate) fn set_newest(&mut self, place: u32, which: usize, position: u64) {
        put_uint::<6>(self.bytes_at(place), which * Linked::BYTES, position);
    }
}

fn entry_at<E: Packed>(chunks: &[Box<[u8]>], place: u32) -> &[u8] {
    let at = place as usize % CHUNK_ENTRIES * entry_bytes::<E>();
    &chunks[place as usize / CHUNK_ENTRIES][at..][..entry_bytes::<E>()]
}

const fn entry_bytes<E: Packed>() -> usize {
    ID_BYTES + E::BYTES
}

fn id_of(entry: &[u8]) -> &[u8; ID_BYTES] {
    entry[..ID_BYTES].try_into().expect("an id of 16 bytes")
}

/// A little-endian number of `N` bytes.
pub(crate) fn read_uint<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide)
}

/// # Panics
/// When the number does not fit: a limit of the format is passed.
pub(crate) fn put_uint<const N: usize>(bytes: &mut [u8], at: usize, value: u64) {
    assert!(N == 8 || value >> (8 * N) == 0, "{value} does not fit {N} bytes");
    bytes[at..at + N].copy_from_slice(&value.to_le_bytes()[..N]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> [u8; ID_BYTES] {
        let hash = xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes());
        hash.to_le_bytes()
    }

    /// The budget of the index: conversations and users, at the worst moment of the tables' growth.
    #[test]
    fn an_entry_takes_at_most_64_bytes() {
        let (mut homes, mut links) = (Table::<Home>::new(), Table::<Links>::new());
        for number in 0..1_000_000 {
            homes.update(&id(number), |home| home.head.seq = number);
            links.update(&id(number), |links| links.streams[1].newest = number);
            if number > 250_000 && number % 1_000 == 0 {
                assert!(homes.bytes() <= 64 * homes.len(), "{} for {}", homes.bytes(), homes.len());
                assert!(links.bytes() <= 49 * links.len(), "{} for {}", links.bytes(), links.len());
            }
        }
        for number in 0..1_000_000 {
            assert_eq!(homes.get(&id(number)).map(|home| home.head.seq), Some(number));
            assert_eq!(links.get(&id(number)).map(|links| links.streams[1].newest), Some(number));
        }
        assert_eq!(homes.get(&id(1_000_000)), None);
    }

    #[test]
    fn entries_read_back_as_they_were_put() {
        let location = Location::new(1 << 51, 1 << 19);
        let home = Home {
            head: Head { seq: (1 << 48) - 1, message_count: (1 << 48) - 2 },
            chain: Chain { newest: (1 << 24) - 1, jump: 77 },
            offset: (1 << 24) - 2,
            last: [None, Some(location)],
            amended: Lowest::of(1 << 40),
            amended_before: Lowest::of(3),
        };
        let mut bytes = [0; Home::BYTES];
        home.put(&mut bytes);
        assert_eq!(Home::read(&bytes), home);
        let unplaced = [&bytes[..OFFSET.start], &bytes[OFFSET.end..]].concat();
        let unknown = Home { offset: Posting::POSITION_UNKNOWN as u32, ..home };
        assert_eq!(Home::read_unplaced(&unplaced), unknown, "as it was packed before");
        let linked = Linked { newest: 1 << 47, chain: Chain { newest: 9, jump: 8 } };
        let links = Links { streams: [Linked::default(), linked] };
        let mut bytes = [0; Links::BYTES];
        links.put(&mut bytes);
        assert_eq!(Links::read(&bytes), links);
    }

    #[test]
    fn a_jump_leads_to_the_epoch_before() {
        let mut chain = Chain::default();
        for segment in [1, 2, 64, 65, 66, 130, 131] {
            chain = chain.with(segment);
        }
        assert_eq!(chain, Chain { newest: 131, jump: 66 });
        assert_eq!(Chain::default().with(5).with(5).with(6), Chain { newest: 6, jump: 0 });
    }
}
