//! Frames for sessions: `[WebSocket header | payload]` in one counted block.

use bytes::{Bytes, BytesMut};
use protocol::event::{Gap, ServerFrame};
use protocol::ids::{ConversationId, RequestId};
use protocol::limits::FRAME_BYTES_MAX;
use protocol::record::{Portable, SCHEMA_GONE, Stored, StoredItem};
use protocol::upgrade::Form;
use protocol::ws::{Opcode, frame_header};

use crate::mail::{Gone, Linked};

/// A record, or an event, for everybody of one form at this shard: rendered once, then counted.
#[derive(Default)]
pub(super) struct Rendered {
    json: Option<Bytes>,
    binary: Option<Bytes>,
}

impl Rendered {
    pub(super) fn record(&mut self, form: Form, record: &[u8]) -> Bytes {
        self.of(form).get_or_insert_with(|| record_frame(form, record)).clone()
    }

    pub(super) fn event(&mut self, form: Form, event: &ServerFrame) -> Bytes {
        self.of(form).get_or_insert_with(|| server_frame(form, event)).clone()
    }

    fn of(&mut self, form: Form) -> &mut Option<Bytes> {
        match form {
            Form::Json => &mut self.json,
            Form::Binary => &mut self.binary,
        }
    }
}

/// The event that a stored record is.
pub(super) fn record_frame(form: Form, record: &[u8]) -> Bytes {
    let stored = stored(record);
    // Names and envelope of the JSON form take about 256 bytes; the text is most of the record.
    let mut payload = Vec::with_capacity(record.len() + 256);
    stored.encode(form, &mut payload);
    frame(form, &payload)
}

/// Any other frame.
pub(super) fn server_frame(form: Form, server_frame: &ServerFrame) -> Bytes {
    let mut payload = Vec::with_capacity(128);
    server_frame.encode(form, &mut payload);
    frame(form, &payload)
}

/// What is told in place of a record that the disk no longer has.
pub(super) fn gap(linked: &Linked) -> Gap {
    let (conversation, seq) = (linked.conversation, linked.seq);
    Gap { conversation, from: seq, to: seq, reason: "damaged on disk".to_owned() }
}

/// What is told in place of records that are not kept any more.
pub(super) fn gone_gap(gone: Gone) -> Gap {
    let Gone { conversation, from, to } = gone;
    Gap { conversation, from, to, reason: "not kept any more".to_owned() }
}

/// The same, as it is pushed.
pub(super) fn gone_frame(form: Form, gone: Gone) -> Bytes {
    server_frame(form, &ServerFrame::Gap(gone_gap(gone)))
}

/// What is not kept of the records of a page, of each conversation what follows each other as one: ahead of its next record, or at the end.
#[derive(Default)]
pub(super) struct GoneRuns(Vec<Gone>);

impl GoneRuns {
    /// Takes a record of which only the number is kept, if it is one.
    pub(super) fn add(&mut self, linked: &Linked) -> bool {
        let portable = linked.record.as_ref().and_then(|record| Portable::parse(record).ok());
        if portable.is_none_or(|portable| portable.schema != SCHEMA_GONE) {
            return false;
        }
        let (conversation, seq) = (linked.conversation, linked.seq);
        let follows = |gone: &&mut Gone| gone.conversation == conversation && gone.to.0 + 1 == seq.0;
        match self.0.iter_mut().find(follows) {
            Some(gone) => gone.to = seq,
            None => self.0.push(Gone { conversation, from: seq, to: seq }),
        }
        true
    }

    /// Those of a conversation, whose next record comes.
    pub(super) fn end(&mut self, conversation: ConversationId) -> Vec<Gone> {
        self.0.extract_if(.., |gone| gone.conversation == conversation).collect()
    }

    /// All that are left.
    pub(super) fn end_all(self) -> impl Iterator<Item = Gone> {
        self.0.into_iter()
    }
}

/// A reply to `history` before it has records.
pub(super) struct Page {
    pub(super) id: RequestId,
    /// Which end is kept if it has to be cut.
    pub(super) newest_first: bool,
    /// What is missing before the records.
    pub(super) gone: Option<Gone>,
}

/// The reply to `history`, made from records as they are stored.
///
/// The log has cut the page by the records' bytes. Text that is all escapes grows sixfold in JSON: then the page is cut
/// again, by half, until it fits.
pub(super) fn page_frame(form: Form, page: &Page, records: &[Linked], more: bool) -> Bytes {
    let gaps: Vec<Gap> = records.iter().map(gap).collect();
    let gone = page.gone.map(gone_gap);
    let records = records.iter().zip(&gaps).map(|(linked, gap)| match &linked.record {
        Some(record) => StoredItem::Record(stored(record)),
        None => StoredItem::Gap(gap),
    });
    let items: Vec<StoredItem<'_>> = gone.iter().map(StoredItem::Gap).chain(records).collect();
    let (mut kept, mut more) = (items.as_slice(), more);
    loop {
        let mut payload = Vec::with_capacity(1024);
        ServerFrame::encode_page(form, page.id, kept, more, &mut payload);
        if payload.len() <= FRAME_BYTES_MAX || kept.len() <= 1 {
            return frame(form, &payload);
        }
        let half = kept.len() / 2;
        kept = if page.newest_first { &kept[half..] } else { &kept[..half] };
        more = true;
    }
}

/// A record that this node has sent itself.
pub(super) fn stored(record: &[u8]) -> Stored<'_> {
    // The log has checked every sum when it read these bytes.
    let portable = Portable::parse(record).expect("a record that the log vouches for");
    Stored::with_checked_sum(portable, record).expect("a payload that this store wrote")
}

/// A payload behind its header.
pub(super) fn frame(form: Form, payload: &[u8]) -> Bytes {
    let opcode = match form {
        Form::Json => Opcode::Text,
        Form::Binary => Opcode::Binary,
    };
    let (header, header_bytes) = frame_header(opcode, payload.len());
    let mut frame = BytesMut::with_capacity(header_bytes + payload.len());
    frame.extend_from_slice(&header[..header_bytes]);
    frame.extend_from_slice(payload);
    frame.freeze()
}
