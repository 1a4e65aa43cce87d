//! The looking and reading half of a user: which of its conversations it views, what it is told there, and what it says that it has read.
//!
//! Reads are answers to deliveries and no part of the schedule: counted and timed apart, from when what was delivered has been looked at. A `read` is on disk about a second after its
//! `ok`, so who comes back says again how far it has read, as a client has to.
//!
//! Invariant: a connection never has more than [`READS_IN_FLIGHT_MAX`] reads and [`VIEWS_MAX`] views under way, so that beside what
//! the schedule sends there is always room for them.

use std::{collections::HashMap, mem::size_of, time::Duration};

use protocol::{
    command::Command,
    event::{ErrorCode, ErrorReply, Presence as PresenceEvent, Reached},
    ids::{ConversationId, Seq, UserId},
    limits::{COMMANDS_IN_FLIGHT_MAX, VIEWS_MAX},
};

use super::{
    desk::Desk,
    in_flight::Asked,
    user::{IN_FLIGHT_MAX, Presence, RETRY_AFTER, User},
};
use crate::{
    clock::Moment,
    plan::{RoomIndex, UserIndex},
    verify::{
        AWAY_TOLD, EarlyRead, Kind, Outsider, ReadUpTo, Repeated, SILENCE, Source, TOLD_MAX, Told,
        ToldMember, ToldRoom, Watched, Wrong,
    },
};

/// Reads of one user under way.
const READS_IN_FLIGHT_MAX: usize = 4;
/// Told departures, and each other thing of presence, that are kept of one worker: of a hundred viewers whom a thousand others leave. They are
/// 2 MB, and one that is wrong is enough for a bad verdict.
const GONE_MAX: usize = 100_000;

const _: () = {
    // With a heartbeat, a page of a large group and a look at what is visible a connection stays below what the node takes.
    assert!(IN_FLIGHT_MAX + READS_IN_FLIGHT_MAX + VIEWS_MAX + 3 < COMMANDS_IN_FLIGHT_MAX);
    // What a viewer costs beside a user that does not view, at most.
    let each = size_of::<ToldMember>() + size_of::<ToldStanding>();
    assert!(TOLD_MAX * each + VIEWS_MAX * size_of::<View>() <= 4096 + 512);
};

/// How far one user reads one of its conversations.
struct Reading {
    room: RoomIndex,
    /// What is looked at, and until when.
    looked_at: Option<(u64, Moment)>,
    /// The newest that was delivered meanwhile, or 0: it is looked at next.
    next: u64,
    /// Has been looked at and is to be read.
    wanted: u64,
    /// Was taken on this connection.
    taken: u64,
    /// Was taken at all.
    promised: u64,
    is_asked: bool,
    /// When what is wanted had been looked at; `None` where it is only said again.
    due: Option<Moment>,
}

impl Reading {
    fn want(&mut self, seq: u64, now: Moment) {
        self.wanted = self.wanted.max(seq);
        self.due.get_or_insert(now);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ViewState {
    Asked,
    /// Not on this connection.
    Away,
    Viewed,
}

struct View {
    room: RoomIndex,
    state: ViewState,
    is_recounted: bool,
    told: Told,
    /// It is viewed on this connection since then.
    since: Option<Moment>,
}

/// What a viewer was told of somebody last, and how often, on this connection.
struct ToldStanding {
    user: UserIndex,
    /// The low bits of it: enough to tell one end of a session from the next.
    last_seen: u32,
    online: bool,
    times: u8,
}

/// What one user looks at and has read. Who does neither has two empty lists.
#[derive(Default)]
pub(super) struct Attending {
    readings: Vec<Reading>,
    views: Box<[View]>,
    /// Of members of what is viewed, so [`TOLD_MAX`] at most.
    standings: Vec<ToldStanding>,
    /// The node asked for patience.
    resume_at: Moment,
}

impl Attending {
    pub(super) fn new(user: UserIndex, desk: &Desk) -> Self {
        let (plan, config) = (&desk.plan, &desk.config);
        if !config.attention.is_viewer(user, config.users) {
            return Self::default();
        }
        let views = plan.views_of(user, TOLD_MAX).into_iter().map(|room| View {
            room,
            state: ViewState::Away,
            is_recounted: false,
            told: Told::new(plan.room(room).members()),
            since: None,
        });
        Self { views: views.collect(), ..Self::default() }
    }

    /// The connection ended: everything is to be said and asked again.
    pub(super) fn handle_lost(&mut self, viewer: UserIndex, desk: &mut Desk, now: Moment) {
        self.note_watched(viewer, desk, now);
        self.standings.clear();
        for reading in &mut self.readings {
            (reading.taken, reading.is_asked, reading.due) = (0, false, None);
            // Who is away looks at nothing.
            (reading.looked_at, reading.next) = (None, 0);
        }
        for view in &mut self.views {
            view.state = ViewState::Away;
        }
    }

    /// What has been viewed until now, if that was long enough to say something. It ends with the connection, or the run.
    pub(super) fn note_watched(&mut self, viewer: UserIndex, desk: &mut Desk, until: Moment) {
        let watched = &mut desk.watching.attendance.watched;
        for view in &mut self.views {
            let long = view.since.take().filter(|since| until.since(*since) >= AWAY_TOLD);
            if let Some(since) = long.filter(|_| watched.len() < GONE_MAX) {
                watched.push(Watched { viewer, room: view.room, since, until });
            }
        }
    }

    /// Somebody is said to have come or gone: how often that has been said.
    fn note_standing(&mut self, user: UserIndex, online: bool, last_seen: u64) -> u8 {
        let last_seen = last_seen as u32;
        let Some(told) = self.standings.iter_mut().find(|told| told.user == user) else {
            self.standings.push(ToldStanding { user, last_seen, online, times: 1 });
            return 1;
        };
        let is_same = (told.online, told.last_seen) == (online, last_seen);
        let times = if is_same { told.times.saturating_add(1) } else { 1 };
        *told = ToldStanding { user, last_seen, online, times };
        times
    }

    /// Reads without an answer on this connection.
    pub(super) fn unanswered(&self) -> u64 {
        self.readings.iter().filter(|reading| reading.wanted > reading.taken).count() as u64
    }

    /// Something is looked at that was not read yet.
    pub(super) fn is_looking(&self) -> bool {
        self.readings.iter().any(|reading| reading.looked_at.is_some())
    }

    pub(super) fn is_viewing_all(&self) -> bool {
        self.views.iter().all(|view| view.state == ViewState::Viewed)
    }

    pub(super) fn is_recounted(&self) -> bool {
        self.views.iter().all(|view| view.is_recounted)
    }

    /// How far this user is promised to have read.
    pub(super) fn reads(&self, user: UserIndex) -> impl Iterator<Item = ReadUpTo> {
        let promised = self.readings.iter().filter(|reading| reading.promised > 0);
        promised.map(move |reading| (user, reading.room, reading.promised))
    }

    /// It knows of every member that it has read this much.
    pub(super) fn has_been_told(&self, reads: &HashMap<(UserIndex, RoomIndex), u64>) -> bool {
        self.views.iter().all(|view| {
            let mut members = view.told.members.iter().map(|told| told.member);
            members.all(|member| {
                reads.get(&(member, view.room)).is_none_or(|read| view.told.read(member) >= *read)
            })
        })
    }

    /// What it knows by what it was told.
    pub(super) fn told(&self, viewer: UserIndex) -> impl Iterator<Item = ToldRoom> {
        self.views.iter().map(move |view| {
            let members = view.told.members.to_vec();
            ToldRoom { viewer, room: view.room, source: Source::Events, members }
        })
    }

    fn viewed(&mut self, room: RoomIndex) -> Option<&mut View> {
        self.views.iter_mut().find(|view| view.room == room && view.state != ViewState::Away)
    }

    /// What was looked at long enough is to be read. Of a conversation one message is looked at at a time; what comes meanwhile is looked at
    /// next, as one. Behind the schedule nothing is begun.
    fn end_looks(&mut self, desk: &mut Desk, now: Moment) {
        for reading in &mut self.readings {
            let Some((seq, _)) = reading.looked_at.take_if(|(_, until)| *until <= now) else { continue };
            let next = std::mem::take(&mut reading.next);
            if next > 0 && desk.watching.is_reading {
                let think = desk.config.attention.think.time(&mut desk.random);
                reading.looked_at = Some((next, now.after(think)));
            }
            reading.want(seq, now);
        }
    }

    /// A delivery is to be answered when it has been looked at for so long.
    pub(super) fn want(&mut self, room: RoomIndex, seq: u64, now: Moment, think: Duration) {
        let found = self.readings.iter().position(|reading| reading.room == room);
        let place = found.unwrap_or_else(|| {
            let (looked_at, next, wanted, taken, promised) = Default::default();
            let (is_asked, due) = (false, None);
            self.readings.push(Reading { room, looked_at, next, wanted, taken, promised, is_asked, due });
            self.readings.len() - 1
        });
        let reading = &mut self.readings[place];
        match reading.looked_at {
            Some(_) => reading.next = reading.next.max(seq),
            None if think.is_zero() => reading.want(seq, now),
            None => reading.looked_at = Some((seq, now.after(think))),
        }
    }
}

impl User {
    /// A message was delivered: its sender has read up to it, and its reader may say that it has.
    pub(super) fn attend(&mut self, desk: &mut Desk, room: RoomIndex, seq: u64, sender: &UserId) {
        if let Some(view) = self.attending.views.iter_mut().find(|view| view.room == room)
            && let Some(sender) = desk.plan.user_of_name(sender)
        {
            view.told.handle_message(sender, seq);
        }
    }

    /// A delivery of the schedule: some are answered.
    pub(super) fn read_some(&mut self, desk: &mut Desk, room: RoomIndex, seq: u64, now: Moment) {
        let percent = u64::from(desk.config.attention.read_percent);
        if percent > 0 && desk.watching.is_reading && desk.random.below(100) < percent {
            let think = desk.config.attention.think.time(&mut desk.random);
            self.attending.want(room, seq, now, think);
        }
    }

    /// Asks for what is to be viewed and says what is to be read, as far as there is room. True when something is to be written.
    pub(super) fn pump_attention(&mut self, desk: &mut Desk, now: Moment) -> bool {
        if self.presence != Presence::Live || now < self.attending.resume_at {
            return false;
        }
        self.attending.end_looks(desk, now);
        let mut asked = Vec::new();
        for view in &mut self.attending.views {
            let is_due = desk.watching.is_viewing && view.state == ViewState::Away
                || desk.watching.is_recounting && view.state == ViewState::Viewed && !view.is_recounted;
            if let (true, Some(conversation)) = (is_due, desk.rooms.id(view.room)) {
                view.state = ViewState::Asked;
                desk.tally.counts.views += 1;
                asked.push((Command::View { conversation }, Asked::View(view.room)));
            }
        }
        let mut free =
            READS_IN_FLIGHT_MAX - self.attending.readings.iter().filter(|reading| reading.is_asked).count();
        for reading in &mut self.attending.readings {
            let is_due = reading.wanted > reading.taken && !reading.is_asked && free > 0;
            if let (true, Some(conversation)) = (is_due, desk.rooms.id(reading.room)) {
                free -= 1;
                reading.is_asked = true;
                desk.tally.counts.reads += 1;
                let (room, seq, due) = (reading.room, reading.wanted, reading.due.take());
                asked.push((Command::Read { conversation, seq: Seq(seq) }, Asked::Read { room, seq, due }));
            }
        }
        let is_any = !asked.is_empty();
        asked.into_iter().for_each(|(command, asked)| self.ask(command, asked));
        is_any
    }

    /// The `ok` to a `read`.
    pub(super) fn handle_read(
        &mut self,
        desk: &mut Desk,
        room: RoomIndex,
        seq: u64,
        due: Option<Moment>,
        now: Moment,
    ) {
        let Some(reading) = self.attending.readings.iter_mut().find(|reading| reading.room == room) else {
            return;
        };
        reading.is_asked = false;
        reading.taken = reading.taken.max(seq);
        reading.promised = reading.promised.max(seq);
        desk.tally.counts.reads_taken += 1;
        if let Some(due) = due {
            desk.tally.read.record(now.since(due), desk.outage.touches(due, now));
        }
    }

    /// A `view` or a `read` was refused. What the node wants later is asked again then.
    pub(super) fn handle_attention_refused(
        &mut self,
        desk: &mut Desk,
        asked: &Asked,
        error: &ErrorReply,
        (asked_at, now): (Moment, Moment),
    ) {
        let is_later = error.code.retryable();
        let wait = error.retry_after_ms.map_or(RETRY_AFTER, Duration::from_millis);
        self.attending.resume_at = now.after(wait);
        match *asked {
            Asked::Read { room, seq, .. } => {
                let readings = &mut self.attending.readings;
                let Some(reading) = readings.iter_mut().find(|reading| reading.room == room) else { return };
                reading.is_asked = false;
                if is_later {
                    return;
                }
                reading.taken = seq;
                // Who has left reads nothing, and who has joined again nothing from before: both are held against the log.
                let is_too_early = error.code == ErrorCode::BadField && desk.plan.is_changing(room);
                let outsider = Outsider { user: self.index, room, asked_at, at: now };
                if desk.is_outside(outsider, error.code) {
                    return;
                } else if is_too_early {
                    desk.tally.counts.outside += 1;
                    let early = EarlyRead { user: self.index, room, seq, at: now };
                    desk.churning.book.early_reads.push(early);
                    return;
                }
                desk.tally.counts.reads_refused += 1;
            }
            Asked::View(room) => {
                let Some(view) = self.attending.viewed(room) else { return };
                view.state = ViewState::Away;
                desk.tally.counts.views_refused += u64::from(!is_later);
            }
            _ => {}
        }
        if !is_later {
            desk.last_fault = Some(format!("{}: {}", error.code.name(), error.message));
        }
    }

    /// The answer to a `view`; after the run it is the recount.
    pub(super) fn handle_viewed(
        &mut self,
        desk: &mut Desk,
        room: RoomIndex,
        presence: &[PresenceEvent],
        receipts: &[(UserId, Reached)],
        now: Moment,
    ) {
        let Some(view) = self.attending.viewed(room) else { return };
        view.state = ViewState::Viewed;
        view.since.get_or_insert(now);
        if desk.watching.is_recounting {
            view.is_recounted = true;
            self.recount(desk, room, presence, receipts);
        }
        for (user, reached) in receipts {
            self.note_receipt(desk, room, user, *reached);
        }
        for one in presence {
            self.note_presence(desk, one, Some(room), now);
        }
    }

    fn recount(
        &self,
        desk: &mut Desk,
        room: RoomIndex,
        presence: &[PresenceEvent],
        receipts: &[(UserId, Reached)],
    ) {
        let plan = desk.plan.clone();
        let mut told = Told::new(plan.room(room).members());
        for (user, Reached { read, delivered }) in receipts {
            if let Some(user) = plan.user_of_name(user) {
                // What is wrong with it is told where it is noted.
                let _ = told.handle_receipt(user, read.0, delivered.0);
            }
        }
        let (viewer, source) = (self.index, Source::Recount);
        desk.watching.recounts.push(ToldRoom { viewer, room, source, members: told.members.to_vec() });
        for member in plan.room(room).others_than(viewer) {
            let is_shown =
                presence.iter().any(|one| one.online && plan.user_of_name(&one.user) == Some(member));
            if !is_shown {
                desk.watching.attendance.unseen.push((viewer, room, member));
            }
        }
    }

    /// Somebody has read, or was given something. One's own reading is told of all conversations.
    pub(super) fn handle_receipt(
        &mut self,
        desk: &mut Desk,
        conversation: ConversationId,
        user: &UserId,
        reached: Reached,
    ) {
        if desk.finishing {
            return;
        }
        let Some(room) = desk.rooms.room(conversation) else {
            return self.handle_stranger(desk, conversation);
        };
        if self.attending.viewed(room).is_some() {
            desk.tally.counts.receipts += 1;
            self.note_receipt(desk, room, user, reached);
        } else if desk.plan.user_of_name(user) != Some(self.index) {
            let name = desk.plan.name(self.index);
            desk.tally.violations.add(Kind::Receipt, || {
                format!("{name} does not view room {} and was told how far {user} is there", room.0)
            });
        }
    }

    fn note_receipt(&mut self, desk: &mut Desk, room: RoomIndex, user: &UserId, reached: Reached) {
        let Some(view) = self.attending.viewed(room) else { return };
        let Reached { read, delivered } = reached;
        let member = desk.plan.user_of_name(user);
        let noted = member
            .map_or(Err(Wrong::NoMember), |member| view.told.handle_receipt(member, read.0, delivered.0));
        let Err(wrong) = noted else { return };
        let name = desk.plan.name(self.index);
        desk.tally.violations.add(Kind::Receipt, || {
            let told = format!(
                "{name} was told that {user} read {read} and was given {delivered} of room {}",
                room.0
            );
            match wrong {
                Wrong::Back { read, delivered } => {
                    format!("{told}, and was told {read} and {delivered} before")
                }
                Wrong::BelowRead => format!("{told}, which is less"),
                Wrong::NoMember => format!("{told}, who is no member"),
            }
        });
    }

    /// Somebody came or went.
    pub(super) fn handle_presence(&mut self, desk: &mut Desk, event: &PresenceEvent, now: Moment) {
        if !desk.finishing {
            desk.tally.counts.presences += 1;
            self.note_presence(desk, event, None, now);
        }
    }

    /// `of` is the room whose members were asked for; by itself it comes of any that is viewed.
    fn note_presence(&mut self, desk: &mut Desk, event: &PresenceEvent, of: Option<RoomIndex>, now: Moment) {
        let user = desk.plan.user_of_name(&event.user);
        let views = self.attending.views.iter().filter(|view| view.state != ViewState::Away);
        let rooms = views.map(|view| view.room).filter(|room| of.is_none_or(|of| of == *room));
        let shared = user.map_or(0, |user| rooms.filter(|room| desk.plan.room(*room).contains(user)).count());
        let Some(user) = user.filter(|_| shared > 0) else {
            let (name, stranger) = (desk.plan.name(self.index), &event.user);
            desk.tally.violations.add(Kind::Presence, || {
                format!("{name} was told whether {stranger} is there, who is in nothing that it views")
            });
            return;
        };
        let (viewer, online, attendance) = (self.index, event.online, &mut desk.watching.attendance);
        if !online {
            attendance.is_cut |= attendance.gone.len() == GONE_MAX;
            attendance.gone.extend((!attendance.is_cut).then_some((viewer, user, now)));
        }
        // An answer says how everybody stands, whatever is known.
        if of.is_none() {
            let last_seen = event.last_seen.map_or(0, |seen| seen.0);
            let (times, rooms) = (self.attending.note_standing(user, online, last_seen), shared as u8);
            // Each log that has one of these conversations says it once.
            if times > rooms && attendance.repeated.len() < GONE_MAX {
                attendance.repeated.push(Repeated { viewer, user, online, times, rooms });
            }
        }
    }

    /// How long it has been away by now, if it is.
    pub(super) fn note_away(&self, desk: &mut Desk, now: Moment) {
        if let Some(lost_at) = self.lost_at {
            let away = desk.watching.away_ms.entry(self.index).or_default();
            *away = (now.since(lost_at).as_millis() as u64).max(*away);
        }
        let absences = &mut desk.watching.attendance.absences;
        let long = self.without_session_since.filter(|since| now.since(*since) >= AWAY_TOLD);
        if let Some(since) = long.filter(|_| absences.len() < GONE_MAX) {
            absences.push((self.index, since, now));
        }
    }
}

impl Watching {
    /// Something has come from the node, or nothing will any more.
    pub(super) fn note_heard(&mut self, now: Moment) {
        let before = self.heard_at.replace(now);
        let silences = &mut self.attendance.silences;
        let long = before.filter(|before| now.since(*before) >= SILENCE && silences.len() < GONE_MAX);
        silences.extend(long.map(|before| (before, now)));
    }
}

/// What all users of a worker share of it.
#[derive(Default)]
pub(super) struct Watching {
    /// Deliveries are answered.
    pub(super) is_reading: bool,
    /// What is to be viewed is asked for.
    pub(super) is_viewing: bool,
    /// All of it is asked for once more.
    pub(super) is_recounting: bool,
    /// The schedule has ended.
    pub(super) is_over: bool,
    pub(super) recounts: Vec<ToldRoom>,
    pub(super) attendance: crate::verify::Attendance,
    /// When something came from the node last.
    heard_at: Option<Moment>,
    pub(super) away_ms: HashMap<UserIndex, u64>,
    /// How far all users have read, once told.
    pub(super) reads: HashMap<(UserIndex, RoomIndex), u64>,
}
