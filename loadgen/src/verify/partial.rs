//! What can be judged of a run when only some of the logs were read, because the node went away meanwhile.

use super::Evidence;

impl Evidence {
    /// Keeps what can be held against the logs that were read, of `rooms` altogether: what is in the others is not known, and not wrong.
    ///
    /// Where something had no answer, or somebody was not there at the end (`is_settled` is false), what is in a log and was not promised may be one of these: of amendments,
    /// members and readers nothing follows then, and only that is judged which was promised.
    pub(crate) fn keep_what_was_read(&mut self, rooms: usize, is_settled: bool) {
        let mut whole = std::mem::take(self);
        let logs_unread = rooms.saturating_sub(whole.logs.len());
        let logs = &whole.logs;
        whole.books.retain(|book| logs.contains_key(&book.room));
        if !is_settled || logs.is_empty() {
            let Self { logs, books, refused, .. } = whole;
            *self = Self { logs, logs_unread, books, refused, ..Self::default() };
            return;
        }
        whole.ends.retain(|(_, room, _)| logs.contains_key(room));
        whole.stays.retain(|told| logs.contains_key(&told.room));
        whole.amendments.retain(|amendment| logs.contains_key(&amendment.room));
        whole.overtaken.retain(|overtaken| logs.contains_key(&overtaken.room));
        whole.told.retain(|told| logs.contains_key(&told.room));
        whole.membership.promised.retain(|change| logs.contains_key(&change.room));
        whole.membership.outsiders.retain(|outsider| logs.contains_key(&outsider.room));
        whole.membership.limited.retain(|limited| logs.contains_key(&limited.asker.room));
        whole.membership.unchanged.retain(|unchanged| logs.contains_key(&unchanged.asker.room));
        whole.membership.early_reads.retain(|early| logs.contains_key(&early.room));
        whole.membership.pages.retain(|page| logs.contains_key(&page.room));
        for list in &mut whole.lists {
            list.rooms.retain(|room| logs.contains_key(room));
            list.listed.retain(|listed| logs.contains_key(&listed.room));
        }
        *self = Self { logs_unread, ..whole };
    }
}
