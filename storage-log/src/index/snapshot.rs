//! A snapshot of the resident entries at the end of a sealed segment, so that a start need not read every index file.
//!
//! It is never taken from memory, which is always ahead of what is durable: the snapshot before and the index files of the
//! segments since are merged, all sorted by id, into the next one. Whoever does that needs nothing of the running log, and a
//! snapshot that is lost is merged again from all index files.

use crate::format::{
    FORMAT_VERSION, INDEX_FOOTER_BYTES, SNAPSHOT_MAGIC, put, read_u16, read_u32, read_u64, snapshot_at,
};
use crate::location::Entry;
use crate::log::LogConfig;

use super::block::{INDEX_BLOCK_BYTES, Piece};
use super::file::SealedSegment;
use super::lowest::Lowest;
use super::postings::{Keys, List, entry_of};
use super::resident::{Chain, Home, Links, OFFSET, Packed};
use super::{Kinds, Role};

const HEAD_BYTES: usize = 16;

/// A conversation of which nothing was ever amended, without the position of its head: written no more.
const TAG_UNPLACED: u8 = 1;
const TAG_USER: u8 = 2;
/// The same, and what its amendments reach back to: written no more.
const TAG_UNPLACED_AMENDED: u8 = 3;
/// A conversation of which nothing was ever amended.
const TAG_CONVERSATION: u8 = 4;
/// A conversation, and what its amendments reach back to.
const TAG_AMENDED: u8 = 5;

/// What a segment says of one stream: its newest record there.
pub(super) struct Update {
    id: [u8; 16],
    role: Role,
    newest: Entry,
    /// Its position, counted from the first of the segment.
    offset: u32,
    message_count: u64,
    amended: Lowest,
}

impl Update {
    /// All that a block says. `None` if it is not sound.
    pub(super) fn of_block(
        block: &[u8],
        number: u32,
        sealed: &SealedSegment,
        kinds: &Kinds,
    ) -> Option<Vec<Self>> {
        let pieces = sealed.pieces(block, number)?;
        let is_amended = |piece: &Piece<'_>| kinds.role(piece.stream.kind) == Some(Role::Amended);
        let updates = pieces.filter(|piece| !piece.goes_on && !is_amended(piece)).map(|piece| {
            let role = kinds.role(piece.stream.kind).filter(|role| *role != Role::Runs)?;
            let keys = if matches!(role, Role::Linked(_)) { Keys::Positions } else { Keys::Sequences };
            let (first_key, newest) = (piece.list.first_key, piece.len() - 1);
            let (place, posting) = (piece.place as usize + newest, piece.posting(newest));
            let offset = posting.position() as u32;
            let newest = entry_of(keys, first_key, place, posting, sealed.base, sealed.first_position);
            let List { message_count, amended, .. } = piece.list;
            Some(Self { id: piece.stream.id, role, newest, offset, message_count, amended })
        });
        updates.collect()
    }

    fn side(&self) -> Side {
        if matches!(self.role, Role::Linked(_)) { Side::User } else { Side::Conversation }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Conversation = 1,
    User = 2,
}

/// A resident entry of either side.
#[derive(Clone, Copy)]
pub(crate) enum Resident {
    Conversation(Home),
    User(Links),
}

impl Resident {
    fn new(side: Side) -> Self {
        match side {
            Side::Conversation => Self::Conversation(Home::default()),
            Side::User => Self::User(Links::default()),
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::Conversation(_) => Side::Conversation,
            Self::User(_) => Side::User,
        }
    }

    fn apply(&mut self, update: &Update, segment: u32) {
        match self {
            Self::Conversation(home) => update.apply_to_home(home, segment),
            Self::User(links) => update.apply_to_links(links, segment),
        }
    }
}

impl Update {
    /// Enters it into the entry of its side, made if there is none.
    pub(super) fn enter(
        &self,
        segment: u32,
        homes: &mut super::Table<Home>,
        users: &mut super::Table<Links>,
    ) {
        match self.side() {
            Side::Conversation => homes.update(&self.id, |home| self.apply_to_home(home, segment)),
            Side::User => users.update(&self.id, |links| self.apply_to_links(links, segment)),
        }
    }

    fn apply_to_home(&self, home: &mut Home, segment: u32) {
        match self.role {
            Role::Last(number) => home.last[number] = Some(self.newest.location),
            _ => {
                home.enter(segment);
                home.amended = home.amended.min(self.amended);
                (home.head.seq, home.head.message_count) = (self.newest.key, self.message_count);
                home.offset = self.offset;
            }
        }
    }

    fn apply_to_links(&self, links: &mut Links, segment: u32) {
        if let Role::Linked(number) = self.role {
            let stream = &mut links.streams[number];
            let chain: Chain = stream.chain.with(segment);
            (stream.chain, stream.newest) = (chain, self.newest.key);
        }
    }
}

/// The last bytes of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotFooter {
    /// Segments that it covers, from the first on.
    pub segments: u32,
    /// Blocks in front of it, [`INDEX_BLOCK_BYTES`] each.
    pub blocks: u32,
    blocks_sum: u32,
}

/// The sum of blocks, of those before and of one more: of their checksums, as each holds for its bytes.
pub(crate) fn with_block(sum: u32, block: &[u8]) -> u32 {
    crc32c::crc32c_append(sum, block.get(snapshot_at::BLOCK_CHECKSUM).unwrap_or_default())
}

impl SnapshotFooter {
    /// The footer in the last bytes of a file, if it is whole and of this log.
    #[must_use]
    pub fn parse(bytes: &[u8], config: &LogConfig) -> Option<Self> {
        let bytes: &[u8; INDEX_FOOTER_BYTES] = bytes.try_into().ok()?;
        let sound = crc32c::crc32c(&bytes[snapshot_at::CHECKSUM.end..]);
        let belongs = read_u32(bytes, snapshot_at::CHECKSUM) == sound
            && read_u32(bytes, snapshot_at::MAGIC) == SNAPSHOT_MAGIC
            && read_u16(bytes, snapshot_at::VERSION) == FORMAT_VERSION
            && read_u16(bytes, snapshot_at::LOG) == config.number
            && bytes[snapshot_at::STORE] == config.store
            && read_u64(bytes, snapshot_at::SEGMENT_BYTES) == config.geometry.segment_bytes;
        belongs.then(|| Self {
            segments: read_u32(bytes, snapshot_at::SEGMENTS),
            blocks: read_u32(bytes, snapshot_at::BLOCKS),
            blocks_sum: read_u32(bytes, snapshot_at::BLOCKS_SUM),
        })
    }

    /// Whether blocks of this sum are those that it was written behind. A block that is sound may be one of an older snapshot: what it
    /// says would be true of before, and a sequence be given again.
    pub(crate) fn is_of(&self, blocks_sum: u32) -> bool {
        self.blocks_sum == 0 || self.blocks_sum == blocks_sum
    }

    fn encode(self, config: &LogConfig) -> [u8; INDEX_FOOTER_BYTES] {
        let mut bytes = [0; INDEX_FOOTER_BYTES];
        put(&mut bytes, snapshot_at::MAGIC, &SNAPSHOT_MAGIC.to_le_bytes());
        put(&mut bytes, snapshot_at::VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, snapshot_at::LOG, &config.number.to_le_bytes());
        put(&mut bytes, snapshot_at::STORE, &config.store);
        put(&mut bytes, snapshot_at::SEGMENT_BYTES, &config.geometry.segment_bytes.to_le_bytes());
        put(&mut bytes, snapshot_at::SEGMENTS, &self.segments.to_le_bytes());
        put(&mut bytes, snapshot_at::BLOCKS, &self.blocks.to_le_bytes());
        put(&mut bytes, snapshot_at::BLOCKS_SUM, &self.blocks_sum.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[snapshot_at::CHECKSUM.end..]);
        put(&mut bytes, snapshot_at::CHECKSUM, &checksum.to_le_bytes());
        bytes
    }
}

/// The entries of a block of a snapshot; `None` if it is not sound, or not block `number`.
pub(super) fn entries_of_block(block: &[u8], number: u32) -> Option<Vec<([u8; 16], Resident)>> {
    let block = block.get(..INDEX_BLOCK_BYTES)?;
    if read_u32(block, snapshot_at::BLOCK_CHECKSUM) != checksum(block, number) {
        return None;
    }
    let (count, mut at) = (read_u16(block, snapshot_at::BLOCK_ENTRIES), HEAD_BYTES);
    let entries = (0..count).map(|_| {
        let (tag, rest) = block.get(at..)?.split_first()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (resident, bytes) = match *tag {
            TAG_CONVERSATION | TAG_AMENDED => {
                let bytes = if *tag == TAG_AMENDED { Home::BYTES } else { Home::UNAMENDED_BYTES };
                (Resident::Conversation(Home::read_front(rest.get(..bytes)?)), bytes)
            }
            TAG_UNPLACED | TAG_UNPLACED_AMENDED => {
                let bytes = if *tag == TAG_UNPLACED { Home::UNAMENDED_BYTES } else { Home::BYTES };
                let bytes = bytes - OFFSET.len();
                (Resident::Conversation(Home::read_unplaced(rest.get(..bytes)?)), bytes)
            }
            TAG_USER => (Resident::User(Links::read(rest.get(..Links::BYTES)?)), Links::BYTES),
            _ => return None,
        };
        at += 1 + id.len() + bytes;
        Some((*id, resident))
    });
    entries.collect()
}

fn checksum(block: &[u8], number: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &block[snapshot_at::BLOCK_CHECKSUM.end..])
}

/// Gives the blocks of a file one after the other, then `None`.
pub type Blocks<'f, E> = Box<dyn FnMut() -> Result<Option<Vec<u8>>, E> + 'f>;

/// Makes a snapshot from the one `before` and the index files that follow, in order: of the segments from
/// `before.segments` on. Gives its bytes to `out`. `None` if one of them is not sound: then nothing may be kept.
///
/// # Errors
/// The first of a source or of `out`.
pub fn merge<E>(
    config: &LogConfig,
    before: Option<(SnapshotFooter, Blocks<'_, E>)>,
    indexes: Vec<(SealedSegment, Blocks<'_, E>)>,
    mut out: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Option<SnapshotFooter>, E> {
    let covered = before.as_ref().map_or(0, |(footer, _)| footer.segments);
    let segments = covered + indexes.len() as u32;
    let old_footer = before.as_ref().map(|(footer, _)| *footer);
    let mut old = before.map(|(_, blocks)| Source::new(blocks, entries_of_block));
    let mut new: Vec<_> = indexes
        .into_iter()
        .map(|(sealed, blocks)| {
            Source::new(blocks, move |block: &[u8], number| {
                Update::of_block(block, number, &sealed, &config.kinds)
            })
        })
        .collect();
    let mut writer = Writer { block: Vec::new(), entries: 0, blocks: 0, blocks_sum: 0 };
    loop {
        let mut next = None;
        if let Some(old) = &mut old {
            next = old.head(|(id, entry)| (*id, entry.side()))?;
        }
        for source in &mut new {
            let head = source.head(|update| (update.id, update.side()))?;
            next = next.into_iter().chain(head).min();
        }
        let Some((id, side)) = next else {
            break;
        };
        let mut entry = Resident::new(side);
        if let Some(old) = &mut old
            && old.head(|(id, entry)| (*id, entry.side()))? == next
        {
            entry = old.take().1;
        }
        for (number, source) in (covered + 1..).zip(&mut new) {
            while source.head(|update| (update.id, update.side()))? == next {
                entry.apply(&source.take(), number);
            }
        }
        writer.push(&id, &entry, &mut out)?;
    }
    let is_of_old = old_footer.zip(old.as_ref()).is_none_or(|(footer, old)| footer.is_of(old.blocks_sum));
    if !is_of_old || old.is_some_and(|old| old.damaged) || new.iter().any(|source| source.damaged) {
        return Ok(None);
    }
    writer.flush(&mut out)?;
    let footer = SnapshotFooter { segments, blocks: writer.blocks, blocks_sum: writer.blocks_sum };
    out(&footer.encode(config))?;
    Ok(Some(footer))
}

/// The conversations of a snapshot, asked for in the order of their ids.
pub(crate) struct Residents<'f, E> {
    source: Option<(SnapshotFooter, Entries<'f, E>)>,
}

type Entries<'f, E> = Source<'f, ([u8; 16], Resident), E, ParseEntries>;

type ParseEntries = fn(&[u8], u32) -> Option<Vec<([u8; 16], Resident)>>;

impl<'f, E> Residents<'f, E> {
    pub(crate) fn new(snapshot: Option<(SnapshotFooter, Blocks<'f, E>)>) -> Self {
        let source = |blocks| Source::new(blocks, entries_of_block as ParseEntries);
        Self { source: snapshot.map(|(footer, blocks)| (footer, source(blocks))) }
    }

    /// The entry of `id`, which is not below the one asked for before.
    pub(crate) fn find(&mut self, id: &[u8; 16]) -> Result<Option<Home>, E> {
        let Some((_, source)) = &mut self.source else {
            return Ok(None);
        };
        loop {
            match source.head(|(found, entry)| (*found, *entry))? {
                Some((found, Resident::Conversation(home))) if found == *id => return Ok(Some(home)),
                Some((found, _)) if found <= *id => drop(source.take()),
                _ => return Ok(None),
            }
        }
    }

    /// Reads what is left. Whether all of it was what was written: else nothing that was found counts.
    pub(crate) fn end(self) -> Result<bool, E> {
        let Some((footer, mut source)) = self.source else {
            return Ok(true);
        };
        while source.head(|_| ())?.is_some() {
            source.items.clear();
        }
        Ok(!source.damaged && footer.is_of(source.blocks_sum))
    }
}

/// A sorted file, item by item.
struct Source<'f, T, E, P> {
    blocks: Blocks<'f, E>,
    parse: P,
    number: u32,
    /// Of the present block, the next one last.
    items: Vec<T>,
    damaged: bool,
    /// Of the blocks so far.
    blocks_sum: u32,
}

impl<'f, T, E, P: FnMut(&[u8], u32) -> Option<Vec<T>>> Source<'f, T, E, P> {
    fn new(blocks: Blocks<'f, E>, parse: P) -> Self {
        Self { blocks, parse, number: 0, items: Vec::new(), damaged: false, blocks_sum: 0 }
    }

    /// The key of the next item; `None` at the end, and where it is damaged.
    fn head<K>(&mut self, key: impl Fn(&T) -> K) -> Result<Option<K>, E> {
        while self.items.is_empty() && !self.damaged {
            let Some(block) = (self.blocks)()? else {
                return Ok(None);
            };
            self.blocks_sum = with_block(self.blocks_sum, &block);
            match (self.parse)(&block, self.number) {
                Some(mut items) => {
                    items.reverse();
                    self.items = items;
                    self.number += 1;
                }
                None => self.damaged = true,
            }
        }
        Ok(self.items.last().map(key))
    }

    fn take(&mut self) -> T {
        self.items.pop().expect("there is a head")
    }
}

struct Writer {
    block: Vec<u8>,
    entries: u16,
    blocks: u32,
    blocks_sum: u32,
}

impl Writer {
    fn push<E>(
        &mut self,
        id: &[u8; 16],
        entry: &Resident,
        out: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = [0; 17 + Home::BYTES];
        let (tag, length) = match entry {
            Resident::Conversation(home) => {
                home.put(&mut bytes[17..]);
                if home.is_amended() {
                    (TAG_AMENDED, Home::BYTES)
                } else {
                    (TAG_CONVERSATION, Home::UNAMENDED_BYTES)
                }
            }
            Resident::User(links) => {
                links.put(&mut bytes[17..17 + Links::BYTES]);
                (TAG_USER, Links::BYTES)
            }
        };
        bytes[0] = tag;
        bytes[1..17].copy_from_slice(id);
        let length = 17 + length;
        if self.block.len() + length > INDEX_BLOCK_BYTES {
            self.flush(out)?;
        }
        if self.block.is_empty() {
            self.block.resize(HEAD_BYTES, 0);
        }
        self.block.extend_from_slice(&bytes[..length]);
        self.entries += 1;
        Ok(())
    }

    fn flush<E>(&mut self, out: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.block.resize(INDEX_BLOCK_BYTES, 0);
        put(&mut self.block, snapshot_at::BLOCK_ENTRIES, &self.entries.to_le_bytes());
        let checksum = checksum(&self.block, self.blocks);
        put(&mut self.block, snapshot_at::BLOCK_CHECKSUM, &checksum.to_le_bytes());
        self.blocks_sum = with_block(self.blocks_sum, &self.block);
        out(&self.block)?;
        self.block.clear();
        (self.entries, self.blocks) = (0, self.blocks + 1);
        Ok(())
    }
}
