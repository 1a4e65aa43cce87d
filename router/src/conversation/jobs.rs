//! What takes records from the log to be answered: what for, how far it is, and who goes on with what was found.
//!
//! A job that finds everything in memory ends at once, in the same turn; else it ends when its last read has come. One that needs an
//! index file that is damaged waits until that was made again, or is given up where whoever waits for it can be told so. What each
//! begins with and what it makes of its records stands where it belongs: `loading`, `looking_up`, `history` and so on.

use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use protocol::limits::PAGE_BYTES_MAX;
use storage_log::{Log, Lookup, Page};

use super::ConversationSide;
use super::candidates::CandidatesPage;
use super::catching_up::CatchUp;
use super::counting::Search;
use super::fetch::{Fetch, Read, Step};
use super::history::HistoryPage;
use super::listing::{ListPage, Memberships};
use super::slots::Entrant;
use super::surveying::{Feed, SurveyPage};
use crate::mail::{Asker, Store};
use crate::places::ShardId;
use crate::turns::When;

/// One page of catching up or of a survey.
pub(super) const PAGE: Page = Page { items_max: 256, bytes_max: PAGE_BYTES_MAX };

pub(super) struct Job {
    purpose: Purpose,
    pub(super) fetch: Fetch,
    /// Segments that had moved when it began: it may hold places of all that moved later.
    pub(super) begun: u64,
}

pub(super) enum Purpose {
    /// A message that is to be amended.
    Amend {
        store: Box<Store>,
        now: UnixMillis,
    },
    Candidates(Box<CandidatesPage>),
    /// Where what is kept of a conversation begins.
    Counting(Box<Search>),
    CatchUp(Box<CatchUp>),
    /// How many messages a conversation has up to a sequence that was read.
    Count {
        asker: Asker,
        user: UserId,
        conversation: ConversationId,
        seq: Seq,
    },
    /// Who is in a group, and what is kept of a conversation, after a start.
    Enlist {
        conversation: ConversationId,
    },
    Feed {
        feed: Feed,
        /// It was looked behind this sequence.
        from: u64,
    },
    /// What follows the positions that were read.
    Fold {
        conversation: ConversationId,
        until: Seq,
    },
    History(HistoryPage),
    List(Box<ListPage>),
    /// Which groups may be large, and of which conversations something may be set, after a start.
    Enlisted,
    Memberships(Box<Memberships>),
    Load {
        conversation: ConversationId,
    },
    LookUp {
        store: Box<Store>,
        clock: u64,
    },
    /// Where the newest records of a conversation stand.
    Newest {
        conversation: ConversationId,
    },
    /// How far the members of a conversation have read it.
    Positions {
        conversation: ConversationId,
    },
    /// What a user has set.
    Settings {
        user: UserId,
    },
    /// When a user was last seen.
    Sighting {
        user: UserId,
        shard: ShardId,
    },
    /// What users of one part have acknowledged.
    Taken {
        part: usize,
    },
    Verify {
        store: Box<Store>,
        now: UnixMillis,
    },
    Survey(SurveyPage),
}

impl Job {
    /// Whether who waits for it can be told that there is no answer.
    pub(super) fn is_refusable(&self) -> bool {
        match self.purpose {
            Purpose::Amend { .. }
            | Purpose::Candidates(_)
            | Purpose::Count { .. }
            | Purpose::Counting(_)
            | Purpose::Fold { .. }
            | Purpose::History(_)
            | Purpose::List(_)
            | Purpose::Load { .. }
            | Purpose::Memberships(_)
            | Purpose::LookUp { .. }
            | Purpose::Newest { .. }
            | Purpose::Positions { .. }
            | Purpose::Settings { .. }
            | Purpose::Sighting { .. }
            | Purpose::Taken { .. }
            | Purpose::Verify { .. } => true,
            Purpose::CatchUp { .. }
            | Purpose::Enlist { .. }
            | Purpose::Enlisted
            | Purpose::Feed { .. }
            | Purpose::Survey(_) => false,
        }
    }
}

impl Job {
    /// Whether it reads what devices have acknowledged.
    pub(super) fn is_of_taken(&self) -> bool {
        matches!(self.purpose, Purpose::Taken { .. })
    }
}

impl Purpose {
    /// Whether somebody is shown what is found, or amends it: then it has to be in its present form.
    fn is_shown(&self) -> bool {
        match self {
            Self::Amend { .. }
            | Self::Candidates(_)
            | Self::CatchUp(_)
            | Self::Feed { .. }
            | Self::History(_)
            | Self::List(_) => true,
            Self::Count { .. }
            | Self::Counting(_)
            | Self::Enlist { .. }
            | Self::Enlisted
            | Self::Fold { .. }
            | Self::Load { .. }
            | Self::Memberships(_)
            | Self::LookUp { .. }
            | Self::Newest { .. }
            | Self::Positions { .. }
            | Self::Settings { .. }
            | Self::Sighting { .. }
            | Self::Survey(_)
            | Self::Taken { .. }
            | Self::Verify { .. } => false,
        }
    }
}

impl ConversationSide {
    pub(super) fn start(&mut self, purpose: Purpose, lookups: Vec<Lookup>, log: &mut Log) {
        self.run_for(purpose, Fetch::of_lookups(lookups), log);
    }

    pub(super) fn run_for(&mut self, purpose: Purpose, fetch: Fetch, log: &mut Log) {
        let fetch = if purpose.is_shown() { fetch.folded() } else { fetch };
        self.run(Job { purpose, fetch, begun: self.moved }, log);
    }

    /// Goes on with a job as far as memory and what was read lead.
    pub(super) fn run(&mut self, mut job: Job, log: &mut Log) {
        match job.fetch.poll(log, &mut self.damages) {
            Step::Done if job.fetch.is_folded() && job.begun < self.moved => {
                // What was written anew may have lost messages that are kept no longer, with their amendments: one that was read before, and whose
                // deletion was looked for since, would be shown as it was. It is looked for once more, and is not there either. That is
                // as often as segments are written anew meanwhile, of which a log has one in some seconds.
                job.fetch.begin_anew();
                job.begun = self.moved;
                self.run(job, log);
            }
            Step::Done => self.finish(job, log),
            Step::Read(asked) => {
                let when = self.when_to_read(&job.purpose);
                let id = self.jobs.insert(job) as u32;
                for (place, what) in asked {
                    let read = Read { job: id, place, what };
                    if self.blocks.is_to_be_read(read) {
                        self.reads.push(read, when);
                    } else if when == When::Soon {
                        self.reads.hurry(|read| read.what == what);
                    }
                }
            }
            Step::IndexDamaged(place) => self.stalled.push_back((place.base, job)),
        }
    }

    /// What a command waits for is read soon, and what is found out of a conversation, as that holds back everything that comes for it; unless
    /// only pages wait there when it is asked for.
    fn when_to_read(&self, purpose: &Purpose) -> When {
        let conversation = match purpose {
            Purpose::Amend { .. }
            | Purpose::Count { .. }
            | Purpose::Enlist { .. }
            | Purpose::Enlisted
            | Purpose::LookUp { .. }
            | Purpose::Settings { .. }
            | Purpose::Verify { .. } => return When::Soon,
            Purpose::Counting(search) => search.conversation,
            Purpose::Fold { conversation, .. }
            | Purpose::Load { conversation }
            | Purpose::Positions { conversation } => *conversation,
            _ => return When::Later,
        };
        let pending = &self.slots[&conversation].pending;
        let is_of_pages = |entrant: &Entrant| matches!(entrant, Entrant::Page(..));
        let is_for_pages = !pending.is_empty() && pending.iter().all(is_of_pages);
        if is_for_pages { When::Later } else { When::Soon }
    }

    /// What to read next from the disk.
    pub fn poll_read(&mut self) -> Option<Read> {
        self.reads.pop().map(|(read, _)| read)
    }

    /// Takes the disk's answer to a [`Read`]: `None` when it failed. A block answers all who have asked for it meanwhile.
    pub fn handle_read(
        &mut self,
        job: u32,
        place: u32,
        bytes: Option<Vec<u8>>,
        now: UnixMillis,
        log: &mut Log,
    ) {
        let now = self.latest(now);
        let others =
            self.jobs[job as usize].fetch.block().map_or_else(Vec::new, |block| self.blocks.end(block));
        // Each goes on as far as the block leads before the next is given it: there are never many copies.
        for (job, place) in others {
            self.feed(job, place, bytes.clone(), now, log);
        }
        self.feed(job, place, bytes, now, log);
    }

    fn feed(&mut self, job: u32, place: u32, bytes: Option<Vec<u8>>, now: UnixMillis, log: &mut Log) {
        let fetch = &mut self.jobs[job as usize].fetch;
        fetch.feed(place, bytes, log, &mut self.damages);
        if fetch.is_fed() {
            let job = self.jobs.remove(job as usize);
            self.run(job, log);
            self.resume(now, log);
        }
    }

    pub(super) fn finish(&mut self, job: Job, log: &mut Log) {
        let (mut records, more) = job.fetch.finish();
        match job.purpose {
            Purpose::CatchUp(page) => self.finish_catching_up(*page, records, log),
            Purpose::Count { asker, user, conversation, seq } => {
                self.finish_count(asker, &user, conversation, seq, &records);
            }
            Purpose::Fold { conversation, until } => self.finish_fold(conversation, until, &records),
            Purpose::Amend { store, now } => {
                self.conceal(&mut records, log);
                self.finish_amend(store, records.first(), now, log);
            }
            Purpose::Feed { feed, from } => self.finish_feed(feed, from, records, more, log),
            Purpose::History(page) => self.finish_history(&page, records, more, log),
            Purpose::Counting(search) => self.finish_counting(search, &records, log),
            Purpose::Enlist { conversation } => self.finish_enlist(conversation, &records, log),
            Purpose::Candidates(page) => self.finish_candidates(&page, records, more, log),
            Purpose::List(page) => self.finish_list_page(&page, records, more, log),
            Purpose::Enlisted => self.finish_list(&records, more, log),
            Purpose::Memberships(page) => self.finish_memberships(&page, &records, log),
            Purpose::Load { conversation } => self.finish_load(conversation, &records, log),
            Purpose::Positions { conversation } => self.finish_positions(conversation, &records),
            Purpose::Settings { user } => self.finish_settings(&user, &records),
            Purpose::Sighting { user, shard } => self.finish_sighting(user, shard, &records),
            Purpose::Newest { conversation } => self.finish_newest(conversation, &records, log),
            Purpose::LookUp { store, clock } => self.finish_look_up(store, clock, &records, log),
            Purpose::Taken { part } => self.finish_taken(part, &records, log),
            Purpose::Verify { store, now } => self.finish_verify(store, &records, now, log),
            Purpose::Survey(page) => self.finish_survey(&page, &records, log),
        }
    }

    /// Ends a job whose answer is not known now.
    pub(super) fn give_up(&mut self, job: Job, log: &mut Log) {
        let refusal = (ErrorCode::Unavailable, "the disk does not say now: ask again in a minute");
        match job.purpose {
            Purpose::Count { asker, conversation, .. } => self.give_up_count(asker, conversation, refusal),
            Purpose::Counting(search) => self.give_up_counting(&search, refusal),
            Purpose::History(page) => self.push_refusal(page.asker, true, refusal),
            Purpose::Candidates(page) => self.give_up_candidates(&page),
            Purpose::List(page) => self.give_up_list_page(&page),
            Purpose::Memberships(page) => self.give_up_memberships(&page),
            Purpose::Load { conversation } => self.finish_load(conversation, &[], log),
            Purpose::Fold { conversation, .. } | Purpose::Positions { conversation } => {
                self.give_up_positions(conversation, refusal);
            }
            Purpose::Newest { conversation } => self.give_up_newest(conversation),
            Purpose::Settings { user } => self.finish_settings(&user, &[]),
            Purpose::Sighting { user, shard } => self.answer_sighting(user, shard, None),
            Purpose::Taken { part } => self.finish_taken(part, &[], log),
            Purpose::LookUp { store, .. } => self.give_up_look_up(&store, refusal),
            Purpose::Amend { store, .. } | Purpose::Verify { store, .. } => {
                self.release(store.conversation);
                self.refuse(store.asker, refusal);
            }
            Purpose::CatchUp { .. }
            | Purpose::Enlist { .. }
            | Purpose::Enlisted
            | Purpose::Feed { .. }
            | Purpose::Survey(_) => unreachable!("these are not refused"),
        }
    }

    /// Bases of the segments whose index files are not what was written, and which something waits for: they have to be made again,
    /// and [`ConversationSide::handle_index`] is told so.
    pub fn index_damage(&self) -> impl Iterator<Item = u64> + '_ {
        self.stalled.iter().map(|(base, _)| *base)
    }

    /// The index file of the segment at `base` was made again: what waited for it goes on.
    pub fn handle_index(&mut self, base: u64, now: UnixMillis, log: &mut Log) {
        let now = self.latest(now);
        for mut job in self.unstall(base, |_| true) {
            job.fetch.forget_failure();
            self.run(job, log);
        }
        self.resume(now, log);
    }

    /// It cannot be made again now: who asked once is told so, and may ask again. A session that catches up waits on, since it
    /// cannot be told to pass over what it has not read.
    pub fn refuse_stalled(&mut self, base: u64, now: UnixMillis, log: &mut Log) {
        let now = self.latest(now);
        for job in self.unstall(base, Job::is_refusable) {
            self.give_up(job, log);
        }
        self.refuse_held();
        self.resume(now, log);
    }

    fn unstall(&mut self, base: u64, wanted: fn(&Job) -> bool) -> Vec<Job> {
        // Asked in every turn while something waits: what stays is not moved.
        let mut taken = Vec::new();
        while let Some(place) = self.stalled.iter().position(|(of, job)| *of == base && wanted(job)) {
            taken.extend(self.stalled.remove(place).map(|(_, job)| job));
        }
        taken
    }

    /// A segment of the log was written anew, and what is begun from now on finds it where it stands now.
    pub fn note_moved(&mut self) {
        self.moved += 1;
        // Who waits for an index file may do so for as long as the disk is full, and the room for that is what this segment gives back: none of
        // these keeps its file, and each begins anew.
        for (_, job) in self.stalled.iter_mut().filter(|(_, job)| job.fetch.is_folded()) {
            job.fetch.begin_anew();
            job.begun = self.moved;
        }
    }

    /// Whether something goes on that was begun before the newest move.
    #[must_use]
    pub fn reads_as_before_move(&self) -> bool {
        let stalled = self.stalled.iter().map(|(_, job)| job);
        self.jobs.iter().map(|(_, job)| job).chain(stalled).any(|job| job.begun < self.moved)
    }
}
