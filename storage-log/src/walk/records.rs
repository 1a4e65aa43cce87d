//! The records of one batch, and on behind those that are damaged: each says itself where it stands.

use crate::batch::BatchHeader;
use crate::format::{BATCH_HEADER_BYTES, RECORD_ALIGN};
use crate::record::Record;

use super::{Met, RangeKind, Walk};

impl Walk {
    /// Shows the sound records of a batch, and says which ranges of it are not.
    pub(super) fn go_through(&mut self, header: &BatchHeader, body: &[u8], met: &mut dyn FnMut(Met<'_>)) {
        let first = header.lsn + BATCH_HEADER_BYTES as u64;
        let end = header.first_position + u64::from(header.records);
        let (mut at, mut sound_to, mut expected, mut is_damaged) = (0, 0, header.first_position, false);
        while at < body.len() {
            let record = Record::parse(&body[at..], first + at as u64).ok().filter(|record| {
                record.epoch() == header.epoch && (expected..end).contains(&record.position())
            });
            let Some(record) = record else {
                at += RECORD_ALIGN;
                continue;
            };
            let (missing, length) = (record.position() - expected, record.bytes_in_log());
            if sound_to < at || missing > 0 {
                let lost = self.range(
                    first + sound_to as u64,
                    (at - sound_to) as u64,
                    RangeKind::Records,
                    Some(missing),
                );
                met(Met::Damaged(lost));
                self.heads.jump();
                is_damaged = true;
            }
            if !self.heads.enter(&record) {
                let kind = RangeKind::Contradiction;
                met(Met::Damaged(self.range(first + at as u64, length as u64, kind, Some(1))));
                is_damaged = true;
            }
            met(Met::Record(&record));
            expected = record.position() + 1;
            at += length;
            sound_to = at;
        }
        if sound_to < body.len() || expected < end {
            let bytes = (body.len() - sound_to) as u64;
            met(Met::Damaged(self.range(
                first + sound_to as u64,
                bytes,
                RangeKind::Records,
                Some(end - expected),
            )));
            self.heads.jump();
        } else if !is_damaged && xxhash_rust::xxh3::xxh3_64(body) != header.body_sum {
            met(Met::Damaged(self.range(first, body.len() as u64, RangeKind::BatchSum, Some(0))));
        }
    }
}
