//! A log as the node drives it, one operation after the other, on a disk that may fail at each call.

use storage_log::format::MARK_AFTER_MS;
use storage_log::{
    Answer, Compacted, CompactionPolicy, Damage, Draft, Geometry, Link, Log, NotMade, Recovered, Refusal,
    SpareWork, StreamId, WriteBatch, segment_file_name,
};

use super::disk::{Disk, Failed};
use super::files::{Files, make_cold, make_index, make_segment, make_snapshot, recover, zero_segment};
use super::model::MEMBERSHIPS;
use super::model::{Found, Model};
use super::support::{INBOX, MESSAGES, STATE, stream};

/// What can be done with a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    /// A message of one sector.
    Small,
    /// One of three, for five users.
    Large,
    /// An event and a state, in one group.
    Group,
    /// A message that needs a segment of its own.
    Roll,
    /// A message whose batch is written and not yet synced: that comes with what is written next.
    UnderWay,
    /// The mark of an idle log.
    Mark,
    /// What is due for the next segment: it is made, or filled with zeros.
    Spare,
    /// The index file of a sealed segment.
    Index,
    /// A sealed segment is written anew.
    Compact,
    /// An erasure reaches all that was appended so far: the segment that takes appends is left for the next when that is there, by
    /// whatever is appended or by a mark, and what is sealed is written anew, cold or not.
    Erase,
    /// The snapshot.
    Snapshot,
    /// The process is killed and starts again.
    Restart,
}

pub(crate) const OPS: [Op; 12] = [
    Op::Small,
    Op::Large,
    Op::Group,
    Op::Roll,
    Op::UnderWay,
    Op::Mark,
    Op::Spare,
    Op::Index,
    Op::Compact,
    Op::Erase,
    Op::Snapshot,
    Op::Restart,
];

/// What became of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Done,
    /// The disk gave an error.
    Failed,
    /// There was no room for the next segment: nothing was stored.
    Full,
    /// There was nothing to do.
    Idle,
}

/// Compacts whatever is sealed.
const AT_ONCE: CompactionPolicy =
    CompactionPolicy { after_ms: Some(0), keep_ms: None, keep_links_ms: None, keep_bytes: None };

pub(crate) struct Node {
    pub(crate) disk: Disk,
    pub(crate) log: Log,
    pub(crate) model: Model,
    geometry: Geometry,
    under_way: Option<WriteBatch>,
    now: u64,
    /// Starts so far, each with another id.
    starts: u8,
    /// Appends so far: no two have the same payload.
    appends: u32,
}

impl Node {
    /// A log that was just made, and serves.
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self::of_log(0, geometry)
    }

    /// The same, of a log with another number: other conversations, and the same users, but from log 2 on.
    pub(crate) fn of_log(log: u16, geometry: Geometry) -> Self {
        let mut disk = Disk::default();
        disk.log = log;
        make_segment(&mut disk, geometry, 0).expect("no call fails");
        Self::start(disk, Model::default(), geometry, 1).expect("an empty log")
    }

    /// Reads a log back, for the how many-th time, judges what it has, and serves.
    pub(crate) fn start(
        mut disk: Disk,
        model: Model,
        geometry: Geometry,
        starts: u8,
    ) -> Result<Self, String> {
        let recovered = recover(&mut disk, geometry, starts.into());
        let Recovered { log, rewrite, .. } = recovered.map_err(|refusal| format!("{refusal:?}"))?;
        let appends = u32::from(starts) << 16;
        let mut node = Self { disk, log, model, geometry, under_way: None, now: 1_000, starts, appends };
        node.judge()?;
        node.serve(rewrite).map_err(|Failed| "no call fails".to_owned())?;
        Ok(node)
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How often the log was started.
    pub(crate) fn starts(&self) -> u8 {
        self.starts
    }

    pub(crate) fn perform(&mut self, op: Op) -> Result<Outcome, String> {
        self.now += 1;
        let done = match op {
            Op::Small | Op::UnderWay => self.put(1, 100, 1),
            Op::Large => self.put(1, 900, 5),
            Op::Roll => self.put(2, 3_700, 1),
            Op::Group => self.put_group(),
            Op::Mark => self.mark(),
            Op::Spare => Ok(self.spare()),
            Op::Index => self.index(),
            Op::Compact => self.compact()?,
            Op::Erase => {
                self.log.erase(self.now, self.log.newest_position());
                Ok(Outcome::Done)
            }
            Op::Snapshot => make_snapshot(&mut self.disk, self.geometry).map(done_or_idle),
            Op::Restart => self.restart()?,
        };
        let is_put = matches!(op, Op::Small | Op::Large | Op::Roll | Op::Group);
        let flushed = done.and_then(|outcome| match outcome {
            Outcome::Done if op == Op::UnderWay => self.begin().map(|_| outcome),
            Outcome::Done if is_put => self.flush().map(|()| outcome),
            _ => Ok(outcome),
        });
        Ok(flushed.unwrap_or(Outcome::Failed))
    }

    /// After a write or sync that failed: nothing more is taken, nothing more is asked of the disk.
    pub(crate) fn assert_stopped(&mut self) {
        let draft = Draft {
            stream: stream(MESSAGES, 1),
            expected_head: self.log.head(stream(MESSAGES, 1)).seq,
            messages: 1,
            schema: 1,
            payload: b"refused",
            links: &[],
        };
        assert_eq!(self.log.append(&[draft], self.now), Answer::Unavailable);
        for now in [self.now, self.now + MARK_AFTER_MS, u64::MAX] {
            assert_eq!((self.log.poll_write(now), self.log.mark_in(now)), (None, None));
        }
        assert_eq!(self.log.poll_spare(), None);
        assert!(self.log.poll_compaction(u64::MAX, &AT_ONCE).is_none());
    }

    /// What the log has, and what its model says of that.
    fn judge(&mut self) -> Result<(), String> {
        let mut files = Files { disk: &mut self.disk, geometry: self.geometry };
        let found = self.model.read(&mut self.log, &mut files)?;
        let tip = self.model.judge(&found)?;
        if found.gaps() + found.rebuilt > 0 {
            return Err(format!("{} records are damaged, and {} indexes", found.gaps(), found.rebuilt));
        }
        self.model.go_on_from(tip);
        if self.disk.is_synced() {
            // No later start may find less.
            self.tell();
        }
        Ok(())
    }

    fn tell(&mut self) {
        self.model.tell(self.log.durable().position());
        self.disk.told = self.model.told_position();
    }

    /// What a start does before anybody is served.
    fn serve(&mut self, rewrite: Option<WriteBatch>) -> Result<(), Failed> {
        if let Some(batch) = rewrite {
            let file = self.disk.file(&segment_file_name(batch.segment)).expect("it was read");
            self.disk.write(file, batch.offset, batch.buffer.bytes())?;
            self.disk.sync(file)?;
        }
        let run = [self.starts; 16];
        let mut begun = self.log.begin_run(run, self.now);
        if begun == Answer::Busy {
            make_segment(&mut self.disk, self.geometry, self.log.spare_base())?;
            self.log.handle_spare(Ok(()));
            begun = self.log.begin_run(run, self.now);
        }
        let Answer::Stored(stored) = begun else {
            panic!("a start fits an empty segment");
        };
        let expected_head = self.log.head(StreamId::RUNS).seq - 1;
        let draft = Draft {
            stream: StreamId::RUNS,
            expected_head,
            messages: 0,
            schema: 1,
            payload: &run,
            links: &[],
        };
        self.model.append(&[draft], stored.first_position, stored.at);
        self.flush()
    }

    fn payload(&mut self, bytes: usize) -> Vec<u8> {
        self.appends += 1;
        self.appends.to_le_bytes().into_iter().cycle().take(bytes).collect()
    }

    fn conversation(&self, talk: u8) -> [StreamId; 2] {
        let id = talk + 60 * self.disk.log as u8;
        [MESSAGES, STATE].map(|kind| stream(kind, id))
    }

    fn inbox(&self, user: u8) -> StreamId {
        let others = if self.disk.log < 2 { 0 } else { 50 };
        stream(INBOX, user + others)
    }

    fn put(&mut self, talk: u8, bytes: usize, users: u8) -> Result<Outcome, Failed> {
        let payload = self.payload(bytes);
        let links: Vec<Link> = (1..=users).map(|user| self.inbox(user).into()).collect();
        let [stream, _] = self.conversation(talk);
        let expected_head = self.log.head(stream).seq;
        self.append(&[Draft {
            stream,
            expected_head,
            messages: 1,
            schema: 1,
            payload: &payload,
            links: &links,
        }])
    }

    /// A message for so many users that the index of its segment has more than one block.
    pub(crate) fn put_for_many(&mut self) {
        let (payload, [stream_of_talk, _]) = (self.payload(10), self.conversation(3));
        let streams = (1..=250).flat_map(|user| [stream(INBOX, user), stream(MEMBERSHIPS, user)]);
        let links: Vec<Link> = streams.map(Link::from).collect();
        let expected_head = self.log.head(stream_of_talk).seq;
        let draft = Draft {
            stream: stream_of_talk,
            expected_head,
            messages: 1,
            schema: 1,
            payload: &payload,
            links: &links,
        };
        assert_eq!(self.append(&[draft]), Ok(Outcome::Done));
        self.flush().expect("no call fails");
    }

    fn put_group(&mut self) -> Result<Outcome, Failed> {
        let (event, state) = (self.payload(300), self.payload(250));
        let links = [2, 6].map(|user| self.inbox(user).into());
        let [talk, state_of_talk] = self.conversation(2);
        let expected_head = self.log.head(talk).seq;
        let draft =
            Draft { stream: talk, expected_head, messages: 1, schema: 1, payload: &event, links: &links };
        let of_state = Draft { stream: state_of_talk, messages: 0, payload: &state, links: &[], ..draft };
        self.append(&[draft, of_state])
    }

    fn append(&mut self, group: &[Draft<'_>]) -> Result<Outcome, Failed> {
        let mut answer = self.log.append(group, self.now);
        if matches!(answer, Answer::Busy | Answer::Full) {
            self.complete()?;
            while self.spare() == Outcome::Done {}
            answer = self.log.append(group, self.now);
        }
        match answer {
            Answer::Stored(stored) => {
                self.model.append(group, stored.first_position, stored.at);
                Ok(Outcome::Done)
            }
            Answer::Full => Ok(Outcome::Full),
            other => panic!("{other:?}"),
        }
    }

    /// Everything that was appended becomes durable.
    fn flush(&mut self) -> Result<(), Failed> {
        while self.begin()? == Outcome::Done {}
        Ok(())
    }

    /// Writes the next batch, once that before it is synced.
    fn begin(&mut self) -> Result<Outcome, Failed> {
        self.complete()?;
        let Some(batch) = self.log.poll_write(self.now) else {
            return Ok(Outcome::Idle);
        };
        let file = self.disk.file(&segment_file_name(batch.segment)).expect("it was made");
        if self.disk.write(file, batch.offset, batch.buffer.bytes()).is_err() {
            self.log.handle_written(batch.buffer, false).expect_err("it was not written");
            return Err(Failed);
        }
        self.under_way = Some(batch);
        Ok(Outcome::Done)
    }

    /// Syncs what is under way: somebody is told of it.
    fn complete(&mut self) -> Result<(), Failed> {
        if let Some(batch) = self.under_way.take() {
            let file = self.disk.file(&segment_file_name(batch.segment)).expect("it was made");
            let synced = self.disk.sync(file);
            self.log.handle_written(batch.buffer, synced.is_ok()).map_err(|_| Failed)?;
            self.tell();
        }
        Ok(())
    }

    fn mark(&mut self) -> Result<Outcome, Failed> {
        self.complete()?;
        assert_eq!(self.log.poll_write(self.now), None, "nothing waits");
        self.now += MARK_AFTER_MS;
        let begun = self.begin()?;
        self.complete().map(|()| begun)
    }

    fn spare(&mut self) -> Outcome {
        match self.log.poll_spare() {
            None => Outcome::Idle,
            Some(SpareWork::Hurry) => unreachable!("zeros take no time here"),
            Some(SpareWork::Make(base)) => {
                let made = make_segment(&mut self.disk, self.geometry, base);
                self.log.handle_spare(made.map_err(|_| NotMade::NoRoom));
                made.map_or(Outcome::Full, |()| Outcome::Done)
            }
            Some(SpareWork::Zero(base)) => {
                // Whether that went well or not.
                let _ = zero_segment(&mut self.disk, self.geometry, base);
                self.log.handle_spare_zeroed();
                Outcome::Done
            }
        }
    }

    fn index(&mut self) -> Result<Outcome, Failed> {
        let Some(job) = self.log.poll_index() else {
            return Ok(Outcome::Idle);
        };
        let made = make_index(&mut self.disk, &job);
        drop(job);
        let is_made = made.as_ref().map_or(Err(Failed), |_| Ok(Outcome::Done));
        drop(self.log.handle_indexed(made.ok()));
        is_made
    }

    fn compact(&mut self) -> Result<Result<Outcome, Failed>, String> {
        let Some(job) = self.log.poll_compaction(self.now, &AT_ONCE) else {
            return Ok(Ok(Outcome::Idle));
        };
        match make_cold(&mut self.disk, &job) {
            Ok(Some(sealed)) => {
                self.log.handle_compacted(Compacted::Made(sealed));
                self.log.end_compaction();
                Ok(Ok(Outcome::Done))
            }
            Ok(None) => Err(format!("the segment at {:x} is not sound", job.base)),
            Err(Failed) => {
                self.log.handle_compacted(Compacted::Failed);
                Ok(Err(Failed))
            }
        }
    }

    fn restart(&mut self) -> Result<Result<Outcome, Failed>, String> {
        self.under_way = None;
        self.starts += 1;
        let recovered = match recover(&mut self.disk, self.geometry, self.starts.into()) {
            Ok(recovered) => recovered,
            Err(Refusal::Disk(Failed)) => return Ok(Err(Failed)),
            Err(Refusal::Damaged(damage)) => return Err(format!("{damage:?}")),
        };
        self.log = recovered.log;
        self.judge()?;
        Ok(self.serve(recovered.rewrite).map(|()| Outcome::Done))
    }
}

/// What a start finds on a disk.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Nothing is served, and the place is named.
    Refused(Damage),
    /// What its readers are given, of the log up to this append.
    Read(Found, usize),
}

/// Looks at a disk as a start does, and serves nobody.
///
/// # Errors
/// A record is lost and nobody is told, or is another than was appended.
pub(crate) fn look(disk: &mut Disk, model: &Model, geometry: Geometry) -> Result<Seen, String> {
    match recover(disk, geometry, u32::MAX) {
        Ok(mut recovered) => {
            let found = model.read(&mut recovered.log, &mut Files { disk, geometry })?;
            let tip = model.judge(&found)?;
            Ok(Seen::Read(found, tip))
        }
        Err(Refusal::Damaged(damage)) => Ok(Seen::Refused(damage)),
        Err(Refusal::Disk(Failed)) => Err("no call fails".to_owned()),
    }
}

fn done_or_idle(done: bool) -> Outcome {
    if done { Outcome::Done } else { Outcome::Idle }
}
