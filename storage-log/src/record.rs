//! One record: `[local part 32][portable part 64][payload][links 24 each][zeros to 16]`.
//!
//! Writing goes straight into the batch; reading is a view over verified bytes. What the payload means is not known
//! here.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::format::{
    LINK_BYTES, LINKS_MAX, LOCAL_BYTES, PAYLOAD_BYTES_MAX, PORTABLE_BYTES, PORTABLE_VERSION, RECORD_ALIGN,
    RECORD_MAGIC, local_at, portable_at, put, read_u16, read_u32, read_u64, round_up,
};

/// What a stream holds. The numbers are on disk; the log gives meaning to none of them but [`StreamKind::RUNS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamKind(pub u8);

impl StreamKind {
    /// The log's own stream: one record for each start of the node.
    pub const RUNS: Self = Self(7);
}

/// Names one stream of a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// What it holds.
    pub kind: StreamKind,
    /// 128 bits that the owner of the kind chose.
    pub id: [u8; 16],
}

impl StreamId {
    /// The stream of starts.
    pub const RUNS: Self = Self { kind: StreamKind::RUNS, id: [0; 16] };
}

impl Hash for StreamId {
    // As two numbers: a list of bytes would be hashed with its length, and every append looks up a stream or more.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.id));
        state.write_u8(self.kind.0);
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:032x}", self.kind.0, u128::from_be_bytes(self.id))
    }
}

/// Names a record in a stream that is not its home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Where it is linked into.
    pub stream: StreamId,
    /// What it is there. In a stream of amendments: how many sequences before it that stands which it amends. In a linked stream the
    /// log keeps it, and gives it no meaning.
    pub note: u32,
}

impl From<StreamId> for Link {
    fn from(stream: StreamId) -> Self {
        Self { stream, note: 0 }
    }
}

/// Schema of a record whose payload is gone: only that there was one is known.
pub const SCHEMA_GONE: u16 = 0;

/// Schema of a record whose content was erased: what stands before and behind it in its stream is kept, and so are its links.
pub const SCHEMA_ERASED: u16 = u16::MAX;

/// Why bytes are not the record that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// Fewer bytes than the record says it has.
    Short,
    /// A checksum, magic or length does not hold: damaged.
    Damaged,
    /// A sound record of another place: a misdirected write or a stale block.
    Misplaced,
}

/// Everything that a record's bytes are made from.
pub(crate) struct Parts<'a> {
    pub(crate) stream: StreamId,
    pub(crate) epoch: u32,
    pub(crate) position: u64,
    pub(crate) lsn: u64,
    pub(crate) chain: u32,
    pub(crate) group_goes_on: bool,
    pub(crate) schema: u16,
    pub(crate) seq: u64,
    pub(crate) at: u64,
    pub(crate) message_count: u64,
    pub(crate) payload: &'a [u8],
    pub(crate) links: &'a [Link],
}

/// Bytes that a record takes in a batch, padding included.
pub(crate) fn record_bytes(payload_bytes: usize, links: usize) -> usize {
    round_up(LOCAL_BYTES + PORTABLE_BYTES + payload_bytes + links * LINK_BYTES, RECORD_ALIGN)
}

/// XXH3-64 of a payload, seeded so that a payload under another record's header never passes.
pub(crate) fn payload_sum(stream: [u8; 16], seq: u64, payload: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = stream;
    let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ seq;
    xxhash_rust::xxh3::xxh3_64_with_seed(payload, seed)
}

impl Parts<'_> {
    /// Appends the record to `out`. `out.len()` is a multiple of [`RECORD_ALIGN`] before and after.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        assert!(self.payload.len() <= PAYLOAD_BYTES_MAX && self.links.len() <= LINKS_MAX);
        let start = out.len();
        let links_start = start + LOCAL_BYTES + PORTABLE_BYTES + self.payload.len();
        out.resize(start + LOCAL_BYTES + PORTABLE_BYTES, 0);
        out.extend_from_slice(self.payload);
        for link in self.links {
            out.extend_from_slice(&link.stream.id);
            out.extend_from_slice(&link.note.to_le_bytes());
            out.extend_from_slice(&[link.stream.kind.0, 0, 0, 0]);
        }
        let links_end = out.len();
        out.resize(start + record_bytes(self.payload.len(), self.links.len()), 0);
        self.write_portable(&mut out[start + LOCAL_BYTES..]);
        let (head, rest) = out[start..].split_at_mut(LOCAL_BYTES);
        self.write_local(head, &rest[links_start - start - LOCAL_BYTES..links_end - start - LOCAL_BYTES]);
    }

    fn write_portable(&self, bytes: &mut [u8]) {
        put(bytes, portable_at::MAGIC, &RECORD_MAGIC.to_le_bytes());
        put(bytes, portable_at::VERSION, &[PORTABLE_VERSION]);
        put(bytes, portable_at::KIND, &[self.stream.kind.0]);
        put(bytes, portable_at::PAYLOAD_BYTES, &(self.payload.len() as u32).to_le_bytes());
        put(bytes, portable_at::SCHEMA, &self.schema.to_le_bytes());
        put(bytes, portable_at::STREAM, &self.stream.id);
        put(bytes, portable_at::SEQ, &self.seq.to_le_bytes());
        put(bytes, portable_at::AT, &self.at.to_le_bytes());
        put(bytes, portable_at::MESSAGE_COUNT, &self.message_count.to_le_bytes());
        let sum = payload_sum(self.stream.id, self.seq, self.payload);
        put(bytes, portable_at::PAYLOAD_SUM, &sum.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[portable_at::CHECKSUM.end..PORTABLE_BYTES]);
        put(bytes, portable_at::CHECKSUM, &checksum.to_le_bytes());
    }

    fn write_local(&self, bytes: &mut [u8], links: &[u8]) {
        let flags = if self.group_goes_on { local_at::FLAG_GROUP_GOES_ON } else { 0 };
        put(bytes, local_at::EPOCH, &self.epoch.to_le_bytes());
        put(bytes, local_at::POSITION, &self.position.to_le_bytes());
        put(bytes, local_at::LSN, &self.lsn.to_le_bytes());
        put(bytes, local_at::CHAIN, &self.chain.to_le_bytes());
        put(bytes, local_at::LINKS, &(self.links.len() as u16).to_le_bytes());
        put(bytes, local_at::FLAGS, &flags.to_le_bytes());
        let checksum = local_checksum(bytes, links);
        put(bytes, local_at::CHECKSUM, &checksum.to_le_bytes());
    }
}

fn local_checksum(local: &[u8], links: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&local[local_at::CHECKSUM.end..LOCAL_BYTES]), links)
}

/// The kind of the home stream of the record at the front of `bytes`, if its portable part is sound.
pub(crate) fn kind_of_damaged(bytes: &[u8]) -> Option<StreamKind> {
    let portable = bytes.get(LOCAL_BYTES..LOCAL_BYTES + PORTABLE_BYTES)?;
    is_portable_sound(portable).then(|| stream_of(portable).kind)
}

fn is_portable_sound(portable: &[u8]) -> bool {
    read_u32(portable, portable_at::CHECKSUM) == crc32c::crc32c(&portable[portable_at::CHECKSUM.end..])
        && read_u16(portable, portable_at::MAGIC) == RECORD_MAGIC
        && portable[portable_at::VERSION.start] == PORTABLE_VERSION
}

fn stream_of(portable: &[u8]) -> StreamId {
    StreamId {
        kind: StreamKind(portable[portable_at::KIND.start]),
        id: portable[portable_at::STREAM].try_into().expect("an id of 16 bytes"),
    }
}

/// The bytes of a record at another place. What leaves the node of it stays the same, byte for byte.
pub(crate) fn moved(record: &Record<'_>, lsn: u64, is_at_home: bool) -> Vec<u8> {
    let mut bytes = record.bytes.to_vec();
    put(&mut bytes, local_at::LSN, &lsn.to_le_bytes());
    put(&mut bytes, local_at::CHAIN, &[0; 4]);
    set_flags(&mut bytes, record.payload_bytes, if is_at_home { 0 } else { local_at::FLAG_FOR_LINKS });
    bytes
}

/// Sets the flags of a record, and the checksum over all that is local of it.
fn set_flags(bytes: &mut [u8], payload_bytes: usize, flags: u16) {
    let links_start = LOCAL_BYTES + PORTABLE_BYTES + payload_bytes;
    let links_end = links_start + usize::from(read_u16(bytes, local_at::LINKS)) * LINK_BYTES;
    put(bytes, local_at::FLAGS, &flags.to_le_bytes());
    let checksum = local_checksum(bytes, &bytes[links_start..links_end]);
    put(bytes, local_at::CHECKSUM, &checksum.to_le_bytes());
}

/// What stays of a record whose content goes: its number, time and count, so that none is given again, and the links that are kept.
pub(crate) mod stub {
    use super::{Link, Parts, RECORD_ALIGN, Record, local_at, record_bytes, set_flags};

    /// Length with so many links, in [`RECORD_ALIGN`].
    pub(crate) fn units(links: usize) -> u16 {
        (record_bytes(0, links) / RECORD_ALIGN) as u16
    }

    /// The stub of a record, to stand at `lsn`, with the links that are `kept`.
    pub(crate) fn of(
        record: &Record<'_>,
        lsn: u64,
        is_at_home: bool,
        schema: u16,
        kept: impl Fn(&Link) -> bool,
    ) -> Vec<u8> {
        let links: Vec<Link> = record.links().filter(kept).collect();
        let parts = Parts {
            stream: record.stream(),
            epoch: record.epoch(),
            position: record.position(),
            lsn,
            chain: 0,
            group_goes_on: false,
            schema,
            seq: record.seq(),
            at: record.at(),
            message_count: record.message_count(),
            payload: &[],
            links: &links,
        };
        let mut bytes = Vec::with_capacity(usize::from(units(links.len())) * RECORD_ALIGN);
        parts.write(&mut bytes);
        if !is_at_home {
            set_flags(&mut bytes, 0, local_at::FLAG_FOR_LINKS);
        }
        bytes
    }
}

/// The sequence that the record `seq` of `home` amends, by its `link` into the stream of amendments of that.
pub(crate) fn amended_by(home: StreamId, seq: u64, link: Link) -> Option<u64> {
    let amended = seq.checked_sub(link.note.into())?;
    (link.stream.id == home.id && link.note > 0 && amended > 0).then_some(amended)
}

/// A verified record: every checksum held when the view was made.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    bytes: &'a [u8],
    payload_bytes: usize,
}

impl<'a> Record<'a> {
    /// Views the record that stands at `lsn`, at the front of `bytes`.
    ///
    /// # Errors
    /// [`RecordError`] when it is not all there, not sound, or not the one that belongs there.
    pub fn parse(bytes: &'a [u8], lsn: u64) -> Result<Self, RecordError> {
        let portable = bytes.get(LOCAL_BYTES..LOCAL_BYTES + PORTABLE_BYTES).ok_or(RecordError::Short)?;
        let payload_bytes = read_u32(portable, portable_at::PAYLOAD_BYTES) as usize;
        let links = usize::from(read_u16(bytes, local_at::LINKS));
        if !is_portable_sound(portable) || payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(RecordError::Damaged);
        }
        let payload_end = LOCAL_BYTES + PORTABLE_BYTES + payload_bytes;
        let links_end = payload_end + links * LINK_BYTES;
        let record = bytes.get(..round_up(links_end, RECORD_ALIGN)).ok_or(RecordError::Short)?;
        let record = Self { bytes: record, payload_bytes };
        if read_u32(bytes, local_at::CHECKSUM) != local_checksum(bytes, &bytes[payload_end..links_end])
            || read_u64(portable, portable_at::PAYLOAD_SUM)
                != payload_sum(record.stream().id, record.seq(), record.payload())
        {
            return Err(RecordError::Damaged);
        }
        if read_u64(bytes, local_at::LSN) != lsn {
            return Err(RecordError::Misplaced);
        }
        Ok(record)
    }

    fn portable_part(&self) -> &'a [u8] {
        &self.bytes[LOCAL_BYTES..LOCAL_BYTES + PORTABLE_BYTES]
    }

    /// Bytes that it takes in the log.
    #[must_use]
    pub fn bytes_in_log(&self) -> usize {
        self.bytes.len()
    }

    /// Home stream.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        stream_of(self.portable_part())
    }

    /// Sequence in the home stream, from 1.
    #[must_use]
    pub fn seq(&self) -> u64 {
        read_u64(self.portable_part(), portable_at::SEQ)
    }

    /// When it was stored, milliseconds since 1970.
    #[must_use]
    pub fn at(&self) -> u64 {
        read_u64(self.portable_part(), portable_at::AT)
    }

    /// Messages in the home stream up to and including this record.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        read_u64(self.portable_part(), portable_at::MESSAGE_COUNT)
    }

    /// Type and version of the payload.
    #[must_use]
    pub fn schema(&self) -> u16 {
        read_u16(self.portable_part(), portable_at::SCHEMA)
    }

    /// Append number in its log, from 1.
    #[must_use]
    pub fn position(&self) -> u64 {
        read_u64(self.bytes, local_at::POSITION)
    }

    /// Where it stands in the log: its segment's generation and base, and the place in it.
    #[must_use]
    pub fn lsn(&self) -> u64 {
        read_u64(self.bytes, local_at::LSN)
    }

    pub(crate) fn epoch(&self) -> u32 {
        read_u32(self.bytes, local_at::EPOCH)
    }

    pub(crate) fn group_goes_on(&self) -> bool {
        read_u16(self.bytes, local_at::FLAGS) & local_at::FLAG_GROUP_GOES_ON != 0
    }

    /// It has left its home stream, and stays for its links.
    pub(crate) fn is_for_links(&self) -> bool {
        read_u16(self.bytes, local_at::FLAGS) & local_at::FLAG_FOR_LINKS != 0
    }

    /// Checksum of stream, sequence, time, count and payload, wherever it stands.
    pub(crate) fn portable_sum(&self) -> u32 {
        read_u32(self.portable_part(), portable_at::CHECKSUM)
    }

    /// The payload, without padding.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[LOCAL_BYTES + PORTABLE_BYTES..][..self.payload_bytes]
    }

    /// Portable part and payload: what leaves the node, the same bytes everywhere.
    #[must_use]
    pub fn portable(&self) -> &'a [u8] {
        &self.bytes[LOCAL_BYTES..LOCAL_BYTES + PORTABLE_BYTES + self.payload_bytes]
    }

    /// The sequence that it amends, as `link` into a stream of amendments says; `None` when that makes no sense.
    pub(crate) fn amends(&self, link: Link) -> Option<u64> {
        amended_by(self.stream(), self.seq(), link)
    }

    /// Streams that it is linked into.
    pub fn links(&self) -> impl Iterator<Item = Link> + use<'a> {
        let start = LOCAL_BYTES + PORTABLE_BYTES + self.payload_bytes;
        let end = start + usize::from(read_u16(self.bytes, local_at::LINKS)) * LINK_BYTES;
        self.bytes[start..end].chunks_exact(LINK_BYTES).map(|link| Link {
            stream: StreamId {
                kind: StreamKind(link[20]),
                id: link[..16].try_into().expect("an id of 16 bytes"),
            },
            note: read_u32(link, 16..20),
        })
    }
}
