//! Records that stand side by side on the disk are asked for in one read, and told apart when it has come.
//!
//! In a segment that was written anew a conversation's records follow each other, so a page of it is one read, in whichever direction it
//! goes; of one as it was appended, what was stored in a row is.
//!
//! **Invariant**: what one record costs is its own. Bytes that are read are judged record by record, elsewhere. What of a run of several
//! could not be read, or is not sound, is asked for once more, each record alone: one bad sector must not cost all of them, nor one read
//! that came from a wrong place.

use std::ops::Range;

use protocol::limits::PAGE_BYTES_MAX;
use storage_log::Location;

/// The longest run. The records of a page are no longer, unless it is a single one, which is read whatever its length: so a read brings
/// as much as one page or one record, and what the reads under way hold in memory is bounded as if each were of a record.
const RUN_BYTES_MAX: usize = PAGE_BYTES_MAX;

/// What one read brings.
struct Run {
    location: Location,
    /// Which of the records.
    records: Range<usize>,
}

/// What a read brought of one record.
pub(super) struct Part<'b> {
    pub(super) wanted_by: u32,
    location: Location,
    /// `None` when the read failed.
    pub(super) bytes: Option<&'b [u8]>,
    /// It was read alone: what is wrong with it is its own.
    pub(super) is_alone: bool,
}

/// The reads of one step of a fetch, numbered from 0.
#[derive(Default)]
pub(super) struct Runs {
    /// All that was asked for: who wants it, and where it stands. What is of one run is neighbours here.
    records: Vec<(u32, Location)>,
    runs: Vec<Run>,
    /// Records that a run did not bring.
    apart: Vec<(u32, Location)>,
}

impl Runs {
    /// The reads that bring `records`. Nothing of the step before may be under way any more.
    pub(super) fn ask(&mut self, records: Vec<(u32, Location)>) -> Vec<(u32, Location)> {
        self.runs.clear();
        for (place, (_, location)) in records.iter().enumerate() {
            let joined = self.runs.last().and_then(|run| run.location.joined(*location));
            let joined = joined.filter(|joined| joined.bytes() <= RUN_BYTES_MAX);
            match (joined, self.runs.last_mut()) {
                (Some(joined), Some(run)) => (run.location, run.records.end) = (joined, place + 1),
                _ => self.runs.push(Run { location: *location, records: place..place + 1 }),
            }
        }
        self.records = records;
        self.reads()
    }

    /// The reads that bring what was [set apart](Runs::set_apart), each record alone; none where nothing was.
    pub(super) fn ask_apart(&mut self) -> Vec<(u32, Location)> {
        self.records = std::mem::take(&mut self.apart);
        let alone = |(place, (_, location)): (usize, &(u32, Location))| Run {
            location: *location,
            records: place..place + 1,
        };
        self.runs = self.records.iter().enumerate().map(alone).collect();
        self.reads()
    }

    fn reads(&self) -> Vec<(u32, Location)> {
        (0..).zip(self.runs.iter().map(|run| run.location)).collect()
    }

    /// Takes the answer to one read, `None` when it failed: what it brought of each record.
    pub(super) fn feed<'b>(&self, read: u32, bytes: Option<&'b [u8]>) -> Vec<Part<'b>> {
        let run = &self.runs[read as usize];
        let is_alone = run.records.len() == 1;
        let part = |(wanted_by, location): &(u32, Location)| {
            let start = (location.lsn() - run.location.lsn()) as usize;
            let bytes = bytes.and_then(|bytes| bytes.get(start..start + location.bytes()));
            Part { wanted_by: *wanted_by, location: *location, bytes, is_alone }
        };
        self.records[run.records.clone()].iter().map(part).collect()
    }

    /// Notes a record that came with others and is not sound so.
    pub(super) fn set_apart(&mut self, part: &Part<'_>) {
        self.apart.push((part.wanted_by, part.location));
    }
}
