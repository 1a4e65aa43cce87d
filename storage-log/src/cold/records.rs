//! The records of a cold segment whose index is damaged, brought back into the order of their positions.

use crate::index::Inserted;
use crate::location::{Head, Location};
use crate::log::Run;
use crate::record::{Link, Record, StreamId};

/// What the index and the log want to know of the records: some hundred bytes each, while the segment is entered.
#[derive(Default)]
pub(crate) struct ColdRecords {
    found: Vec<(Inserted<Vec<Link>>, Option<Run>)>,
}

impl ColdRecords {
    pub(crate) fn note(&mut self, record: &Record<'_>) {
        let inserted = Inserted {
            stream: record.stream(),
            head: Head { seq: record.seq(), message_count: record.message_count() },
            location: Location::new(record.lsn(), record.bytes_in_log()),
            position: record.position(),
            links: record.links().collect(),
            is_at_home: !record.is_for_links(),
        };
        let id = record.payload().try_into().ok().filter(|_| record.stream() == StreamId::RUNS);
        self.found.push((inserted, id.map(|id| Run { id, first_position: record.position() })));
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// In the order in which they were appended.
    pub(crate) fn in_order(mut self) -> impl Iterator<Item = (Inserted<Vec<Link>>, Option<Run>)> {
        self.found.sort_unstable_by_key(|(inserted, _)| inserted.position);
        self.found.into_iter()
    }
}
