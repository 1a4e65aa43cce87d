//! A page of `history`: which sequences of a conversation it may show, and what it makes of them.
//!
//! How far a page reaches is settled when it begins: from what its reader may see and what is kept, to the newest that is durable then.
//! What it shows of that is judged when it leaves, as whatever else leaves for a reader is.

use protocol::command::HistoryRange;
use protocol::ids::{ConversationId, Seq};
use protocol::limits::PAGE_BYTES_MAX;
use protocol::record::StreamKind as Kind;
use storage_log::{Log, Lookup, Page};

use super::ConversationSide;
use super::folding::hide_amendments;
use super::jobs::Purpose;
use super::retention::{is_stub, take_gone};
use crate::mail::{Asker, Linked, Reply};
use crate::places::conversation_stream;

/// Sequences from `lowest` to below `below`, as far as a page holds them.
pub(super) struct HistoryPage {
    pub(super) asker: Asker,
    conversation: ConversationId,
    newest_first: bool,
    lowest: u64,
    below: u64,
    visible_from: Seq,
}

impl ConversationSide {
    pub(super) fn start_history(
        &mut self,
        asker: Asker,
        conversation: ConversationId,
        range: HistoryRange,
        limit: u32,
        visible_from: Seq,
        log: &mut Log,
    ) {
        let stream = conversation_stream(conversation, Kind::Messages);
        let page = Page { items_max: limit as usize, bytes_max: PAGE_BYTES_MAX };
        let below = log.durable_head(stream).seq + 1;
        let begin = self.begins_from(conversation, log).0;
        let (newest_first, lowest, below) = match range {
            HistoryRange::After(after) => {
                let lowest = visible_from.0.max(after.0.saturating_add(1));
                (false, lowest, lowest.max(begin))
            }
            HistoryRange::Before(before) => (true, visible_from.0, below.min(before.0)),
            HistoryRange::Latest => (true, visible_from.0, below),
        };
        let lookup = if newest_first {
            Lookup::before(log, stream, below, lowest.max(begin), page)
        } else {
            Lookup::after(log, stream, below - 1, page)
        };
        let page = HistoryPage { asker, conversation, newest_first, lowest, below, visible_from };
        self.start(Purpose::History(page), vec![lookup], log);
    }

    pub(super) fn finish_history(
        &mut self,
        page: &HistoryPage,
        mut records: Vec<Linked>,
        more: bool,
        log: &mut Log,
    ) {
        let HistoryPage { asker, conversation, newest_first, lowest, below, visible_from } = *page;
        let (mut more, mut lowest) = (more, lowest);
        self.conceal(&mut records, log);
        if newest_first {
            records.reverse();
            // Nothing is below a stub; what is below the page is for the next one.
            more &= !records.iter().any(is_stub);
            lowest = records.first().filter(|_| more).map_or(lowest, |first| first.seq.0);
        }
        hide_amendments(&mut records, visible_from);
        let gone = take_gone(conversation, &mut records, lowest, below);
        let history = Reply::History { asker, gone, records, newest_first, more };
        self.outputs.push_back((asker.shard, history));
    }
}
