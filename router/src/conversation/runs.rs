//! Records that stand side by side on the disk are asked for in one read, and told apart when it has come.
//!
//! In a segment that was written anew a conversation's records follow each other, so a page of it is one read, in whichever direction it
//! goes; of one as it was appended, what was stored in a row is.
//!
//! **Invariant**: what one record costs is its own. Bytes that are read are judged record by record, elsewhere; a run that cannot be read
//! as a whole is asked for once more, each record alone.

use std::ops::Range;

use protocol::limits::PAGE_BYTES_MAX;
use storage_log::Location;

use super::fetch::ReadPlace;

/// The longest run. The records of a page are no longer, unless it is a single one, which is read whatever its length: so a read brings
/// as much as one page or one record, and what the reads under way hold in memory is bounded as if each were of a record.
const RUN_BYTES_MAX: usize = PAGE_BYTES_MAX;

/// What one read brings.
struct Run {
    location: Location,
    /// Which of the records.
    records: Range<usize>,
}

/// The reads of one step of a fetch, numbered from 0.
#[derive(Default)]
pub(super) struct Runs {
    /// All that was asked for: who wants it, and where it stands. What is of one run is neighbours here.
    records: Vec<(u32, Location)>,
    runs: Vec<Run>,
    /// Records of runs that could not be read.
    apart: Vec<(u32, Location)>,
}

impl Runs {
    /// The reads that bring `records`. Nothing of the step before may be under way any more.
    pub(super) fn ask(&mut self, records: Vec<(u32, Location)>) -> Vec<(u32, ReadPlace)> {
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

    /// The reads that bring what could not be read as part of a run, each record alone; none where all runs could be read.
    pub(super) fn ask_apart(&mut self) -> Vec<(u32, ReadPlace)> {
        self.records = std::mem::take(&mut self.apart);
        let alone = |(place, (_, location)): (usize, &(u32, Location))| Run {
            location: *location,
            records: place..place + 1,
        };
        self.runs = self.records.iter().enumerate().map(alone).collect();
        self.reads()
    }

    fn reads(&self) -> Vec<(u32, ReadPlace)> {
        (0..).zip(self.runs.iter().map(|run| ReadPlace::Records(run.location))).collect()
    }

    /// Takes the answer to one read: what it brought to each who wants a part of it, `None` when it failed. A failed run of several
    /// records says nothing of any of them: one bad sector must not cost all.
    pub(super) fn feed<'b>(&mut self, read: u32, bytes: Option<&'b [u8]>) -> Vec<(u32, Option<&'b [u8]>)> {
        let run = &self.runs[read as usize];
        let records = &self.records[run.records.clone()];
        if bytes.is_none() && records.len() > 1 {
            self.apart.extend_from_slice(records);
            return Vec::new();
        }
        let part = |location: Location| {
            let start = (location.lsn() - run.location.lsn()) as usize;
            bytes?.get(start..start + location.bytes())
        };
        records.iter().map(|(wanted_by, location)| (*wanted_by, part(*location))).collect()
    }
}
