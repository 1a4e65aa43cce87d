//! Walking through a cold segment: record by record, as nothing else stands there.

use crate::cold::ColdWalk;
use crate::index::IndexFooter;
use crate::log::LogConfig;
use crate::readback::header_of;
use crate::record::Record;
use crate::recovery::Fed;
use crate::segment::as_appended;

use super::{DamagedRange, Met, RangeKind, Walk};

/// A cold segment that is walked through.
pub(super) struct ColdSegment {
    walk: ColdWalk,
    footer: IndexFooter,
}

impl ColdSegment {
    /// Offset in its file that the next feed begins at.
    pub(super) fn offset(&self) -> u64 {
        self.walk.offset().unwrap_or_else(|| self.footer.records_end())
    }
}

/// What a cold segment says of itself in its header; `None` for any other, and for one whose header is damaged.
pub(super) fn footer_of(base: u64, header: &[u8], config: &LogConfig) -> Option<IndexFooter> {
    let (in_log, copy) = header_of(header, config);
    copy.filter(|_| in_log.is_some_and(|in_log| as_appended(in_log) == base))
}

impl Walk {
    pub(super) fn open_cold(&mut self, footer: &IndexFooter, met: &mut dyn FnMut(Met<'_>)) {
        let lost = footer.first_position.checked_sub(self.next_position);
        if lost != Some(0) || self.suspect.is_some() {
            if self.pending.is_empty() {
                self.doubt(self.lsn, 0, Some(RangeKind::Contradiction));
            }
            self.report_damage(Some(footer.first_position.max(self.next_position)), met);
        }
        self.report_remains(met);
        if footer.kept_from() > 0 {
            // Streams may begin anywhere in it, and behind it.
            self.heads.jump();
        }
        let walk = ColdWalk::new(self.config.geometry, footer.base, footer.records_end());
        self.cold = Some(ColdSegment { walk, footer: *footer });
    }

    /// Takes bytes of a cold segment, at the end of its file (`to_end`) all that are left.
    pub(super) fn feed_cold(&mut self, bytes: &[u8], to_end: bool, met: &mut dyn FnMut(Met<'_>)) -> Fed {
        let mut cold = self.cold.take().expect("a cold segment is open");
        let (heads, segment) = (&mut self.heads, cold.footer.base);
        let begun = cold.offset();
        let mut damaged = Vec::new();
        let mut note = |record: &Record<'_>| {
            let geometry = self.config.geometry;
            if !record.is_for_links() && !heads.enter(record) {
                let (offset, bytes) = (geometry.offset_of(record.lsn()), record.bytes_in_log() as u64);
                let kind = RangeKind::Contradiction;
                met(Met::Damaged(DamagedRange { segment, offset, bytes, kind, records: Some(1) }));
            }
            met(Met::Record(record));
        };
        cold.walk.feed(bytes, &mut note, &mut |range| damaged.push(range));
        if to_end && cold.walk.offset().is_some() {
            // The file ends before its records do.
            cold.walk.feed(&[], &mut |_| {}, &mut |range| damaged.push(range));
        }
        for range in damaged {
            let (offset, bytes) = (range.start, range.end - range.start);
            let kind = RangeKind::Records;
            met(Met::Damaged(DamagedRange { segment, offset, bytes, kind, records: None }));
            self.heads.jump();
        }
        let (consumed, ended) = ((cold.offset() - begun) as usize, cold.walk.offset().is_none());
        if !ended {
            self.cold = Some(cold);
            return Fed { consumed, ended };
        }
        self.go_behind(&cold.footer);
        Fed { consumed, ended }
    }

    fn go_behind(&mut self, footer: &IndexFooter) {
        self.next_position = footer.next_position;
        self.durable_lsn = self.durable_lsn.max(footer.end.end_lsn);
        self.previous = Some(footer.end.previous);
        self.lsn = footer.end.end_lsn;
        self.next = footer.end.end_lsn;
        if footer.kept_from() > 0 {
            self.heads.jump();
        }
    }
}
