//! Following the logs: live deliveries, pages of catching up, and the exact switch between them.

use protocol::event::{ServerFrame, Welcome, WireLimits};
use protocol::ids::UnixMillis;
use protocol::limits::HEARTBEAT_MILLIS;

use super::frames::{GoneRuns, Rendered, gap, gone_frame, record_frame, server_frame};
use super::session::{Greeting, Held, Phase};
use super::{UserSide, heads};
use crate::mail::{Clock, Deliver, Linked, MovedHead, ReadState, Request, SessionId};
use crate::places::ShardId;
use crate::turns::When;
use protocol::record::StreamKind as Kind;

/// A cursor rides with a delivery when the last one is this many deliveries old,
const CURSOR_DELIVERIES: u32 = 64;

/// or this old.
const CURSOR_AGE_MS: u64 = 1_000;

/// What more users of a shard are given is for many: most conversations are of fewer people.
const FEW_USERS: usize = 16;

/// What a node does beside what every one does; where there is no word, the command of that name.
const FEATURES: [&str; 10] = [
    // `edit`, `delete` and `react`.
    "amend",
    // `view`, `unview` and `typing`.
    "presence",
    // `read`, and `receipt`.
    "receipts",
    "conversations",
    "mute",
    "block",
    // Of a `receipt`.
    "delivered",
    "push_token",
    "retention",
    "invisible",
];

/// What a node with an index does.
const SEARCH: &str = "search";

/// A page of catching up.
pub(super) struct Page<'a> {
    pub(super) records: &'a [Linked],
    pub(super) heads: &'a [MovedHead],
    pub(super) reads: &'a [ReadState],
    /// Everything up to here is in it or before it.
    pub(super) end: u64,
    /// That is all there is.
    pub(super) at_head: bool,
}

impl UserSide {
    /// Gives a record to the live sessions of its members here.
    pub(super) fn deliver(&mut self, deliver: &Deliver, clock: Clock) {
        let mut rendered = Rendered::default();
        for user in deliver.users.iter() {
            let Some(present) = self.users.get(user) else {
                continue;
            };
            for slot in present.slots.clone() {
                self.deliver_to(slot, deliver, &mut rendered, clock);
            }
        }
    }

    fn deliver_to(&mut self, slot: u32, deliver: &Deliver, rendered: &mut Rendered, clock: Clock) {
        let session = &mut self.sessions[slot as usize];
        let state = &mut session.logs[usize::from(deliver.log)];
        if state.phase != Phase::Live || deliver.position <= state.position {
            return;
        }
        if session.greeting.is_some() {
            // It begins at the head, and waits for another log to say where that is: what comes before its welcome stands before its beginning.
            return state.move_to(deliver.position);
        }
        let id = SessionId { slot, generation: session.generation };
        let frame = rendered.record(session.form, &deliver.record);
        if !session.outbox.has_room(frame.len(), self.limits.outbox_bytes_max) {
            // The log has it: this session is fed from there once it has read what it was given.
            state.phase = Phase::Behind;
            self.counters.outbox_full += 1;
            return self.note_slow(id, clock.unix);
        }
        state.move_to(deliver.position);
        session.outbox.push(frame, false);
        session.since_cursor += 1;
        self.counters.deliveries += 1;
        self.latencies.deliveries.push(clock.micros.saturating_sub(deliver.asked_micros));
        self.push_cursor_if_due(id, clock.unix);
        self.list_among(id, deliver.users.len());
    }

    /// A session has something to send that so many are given.
    pub(super) fn list_among(&mut self, id: SessionId, count: usize) {
        if count > FEW_USERS { self.list_later(id) } else { self.list(id) }
    }

    fn push_cursor_if_due(&mut self, id: SessionId, now: UnixMillis) {
        let Some(session) = self.session(id) else {
            return;
        };
        let old = now.0.saturating_sub(session.cursor_at) >= CURSOR_AGE_MS;
        let due = session.since_cursor >= CURSOR_DELIVERIES || (session.since_cursor > 0 && old);
        if due
            && let Some(cursor) = self.cursor_of(id, now)
            && let Some(session) = self.session(id)
        {
            session.outbox.push(server_frame(session.form, &ServerFrame::Cursor { cursor }), false);
            // It rides with what it is behind, and makes that no more urgent.
            self.list_later(id);
        }
    }

    /// Asks for the next page of a session: one at a time, and only while its outbox is empty. Without a credit it waits for one: what its user
    /// asks for does not wait behind a crowd that catches up.
    pub(super) fn ask_pages(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else {
            return;
        };
        let when = if session.held.is_empty() { When::Later } else { When::Soon };
        let is_starved = session.starved.is_some_and(|starved| starved == When::Soon || when == When::Later);
        let waits = session.page_in_flight || is_starved || !session.outbox.is_empty();
        // What goes on elsewhere is begun there: a list or a search may take many pages.
        if waits || self.asks_of_sightings.is_paused() {
            return;
        }
        if self.push_ended(id) {
            return;
        }
        if self.ask_index(id) {
            return;
        }
        let Some((log, request)) = self.next_page(id) else {
            return;
        };
        let owner = self.places.owner_of(log);
        let credits = &mut self.credits[owner.index()];
        if credits.pages == 0 {
            self.sessions[id.slot as usize].starved = Some(when);
            self.starved[owner.index()].push(id, when);
            return;
        }
        credits.pages -= 1;
        let session = &mut self.sessions[id.slot as usize];
        session.page_in_flight = true;
        match &request {
            Request::History { .. } | Request::ListMembers { .. } | Request::View { .. } => {
                session.held.pop_front();
            }
            Request::CatchUp { .. } => {
                session.logs[usize::from(log)].phase = Phase::Asked;
                session.turn = log + 1;
            }
            _ => {}
        }
        self.mail.push_back((owner, request));
    }

    /// What a session asks for next, and of which log.
    fn next_page(&self, id: SessionId) -> Option<(u16, Request)> {
        let session = &self.sessions[id.slot as usize];
        match session.held.front() {
            Some(Held::Listing(listing)) => return Some(self.next_of_list(id, session, listing)),
            Some(Held::Search(searching)) => return self.next_of_search(id, session, searching),
            Some(Held::Page(request)) => {
                let (Request::History { conversation, .. }
                | Request::ListMembers { conversation, .. }
                | Request::View { conversation, .. }) = request
                else {
                    unreachable!("only pages of one conversation are held");
                };
                return Some((self.places.log_of(*conversation), request.clone()));
            }
            Some(Held::Ended { .. }) => unreachable!("said already"),
            None => {}
        }
        if let Some(survey) = &session.survey
            && let Some(next) = self.next_survey(id, session, survey)
        {
            return Some(next);
        }
        let logs = session.logs.len();
        let wants = |log: &usize| matches!(session.logs[*log].phase, Phase::Behind | Phase::Unplaced);
        let log = (0..logs).map(|step| (usize::from(session.turn) + step) % logs).find(wants)?;
        let state = session.logs[log];
        let request = Request::CatchUp {
            session: id,
            shard: self.shard,
            log: log as u16,
            user: session.user.clone(),
            inbox: self.places.user_stream(&session.user, Kind::Inbox),
            after: (state.phase == Phase::Behind).then_some(state.position),
        };
        Some((log as u16, request))
    }

    /// Page credits of `owner` came back: the sessions that have waited longest ask. One that has something to send, or
    /// turns to another owner, leaves its credit to the next.
    pub(super) fn feed_starved(&mut self, owner: ShardId) {
        while self.credits[owner.index()].pages > 0
            && let Some((id, when)) = self.starved[owner.index()].pop()
        {
            // It may stand somewhere else by now, with something that is more urgent.
            if let Some(session) = self.session(id)
                && session.starved == Some(when)
            {
                session.starved = None;
                self.ask_pages(id);
            }
        }
    }

    /// Takes a page of catching up. An answer that ends at the durable head makes the session live: it stands in the
    /// queue behind every Deliver at or below that head, so none is missed and none comes twice.
    pub(super) fn handle_page(&mut self, id: SessionId, log: u16, page: &Page<'_>, now: UnixMillis) {
        self.page_arrived(id);
        let Some(session) = self.session(id) else {
            return;
        };
        let state = &mut session.logs[usize::from(log)];
        state.move_to(page.end);
        state.phase = if page.at_head { Phase::Live } else { Phase::Behind };
        // Likewise: it fell behind in one log before it had its place in all.
        if session.greeting.is_none() {
            self.push_links(id, page.records, page.reads);
            self.push_heads(id, heads::of_moved(page.heads, page.records, page.reads));
        }
        self.greet_if_placed(id, now);
        self.push_caught_up_if_live(id, now);
        self.push_cursor_if_due(id, now);
        self.ask_pages(id);
    }

    /// Records of several conversations, each of which may stand behind some that are not linked.
    fn push_links(&mut self, id: SessionId, records: &[Linked], reads: &[ReadState]) {
        let Some(user) = self.session(id).map(|session| session.user.clone()) else {
            return;
        };
        let mut from = 0;
        for (place, linked) in records.iter().enumerate() {
            if let Some(head) = heads::before(linked, &user, reads) {
                self.push_records(id, &records[from..place]);
                self.push_heads(id, vec![head]);
                from = place;
            }
        }
        self.push_records(id, &records[from..]);
    }

    pub(super) fn push_records(&mut self, id: SessionId, records: &[Linked]) {
        let Some(session) = self.session(id) else {
            return;
        };
        let form = session.form;
        let mut gone = GoneRuns::default();
        for linked in records {
            if gone.add(linked) {
                continue;
            }
            let frame = match &linked.record {
                Some(record) => record_frame(form, record),
                None => server_frame(form, &ServerFrame::Gap(gap(linked))),
            };
            let before = gone.end(linked.conversation);
            before.into_iter().for_each(|gone| session.outbox.push(gone_frame(form, gone), false));
            session.outbox.push(frame, false);
        }
        gone.end_all().for_each(|gone| session.outbox.push(gone_frame(form, gone), false));
        session.since_cursor += records.len() as u32;
        self.counters.replays += records.len() as u64;
        if !records.is_empty() {
            self.list_later(id);
        }
    }

    fn greet_if_placed(&mut self, id: SessionId, now: UnixMillis) {
        let Some(session) = self.session(id) else {
            return;
        };
        let placed = session.logs.iter().all(|log| matches!(log.phase, Phase::Live | Phase::Behind));
        if placed && let Some(greeting) = session.greeting {
            self.welcome(id, greeting, now);
        }
    }

    pub(super) fn welcome(&mut self, id: SessionId, greeting: Greeting, now: UnixMillis) {
        let store = protocol::ids::ConversationId(self.places.store).to_string();
        let (shard, searches) = (self.shard, self.limits.searches);
        let Some(session) = self.session(id) else {
            return;
        };
        session.greeting = None;
        session.begin_acked();
        let user = session.user.clone();
        let cursor = self.cursor_of(id, now);
        let welcome = Welcome {
            id: greeting.id,
            user,
            session: format!("{}-{}-{}", shard.0, id.slot, id.generation),
            store,
            cursor,
            now,
            heartbeat_ms: HEARTBEAT_MILLIS,
            limits: WireLimits::default(),
            features: FEATURES.into_iter().chain(searches.then_some(SEARCH)).map(str::to_owned).collect(),
            reset: greeting.reset,
        };
        self.push_reply(id, &ServerFrame::Welcome(Box::new(welcome)));
        self.tell_if_invisible(id);
    }

    fn push_caught_up_if_live(&mut self, id: SessionId, now: UnixMillis) {
        let Some(session) = self.session(id) else {
            return;
        };
        if !session.catching_up || !session.is_live() {
            return;
        }
        session.catching_up = false;
        session.survey = None;
        session.begin_acked();
        let partial = session.partial;
        if let Some(cursor) = self.cursor_of(id, now) {
            self.push_event(id, &ServerFrame::CaughtUp { cursor, partial });
        }
    }

    /// Delivers were dropped on the way here: the sessions concerned are fed from the log.
    pub(super) fn handle_overrun(&mut self, log: u16, users: Option<&[protocol::ids::UserId]>) {
        let concerned: Vec<u32> = match users {
            None => self.sessions.iter().map(|(slot, _)| slot as u32).collect(),
            Some(users) => users
                .iter()
                .filter_map(|user| self.users.get(user))
                .flat_map(|present| present.slots.iter().copied())
                .collect(),
        };
        self.counters.overruns += 1;
        for slot in concerned {
            let session = &mut self.sessions[slot as usize];
            let id = SessionId { slot, generation: session.generation };
            let state = &mut session.logs[usize::from(log)];
            if state.phase == Phase::Live {
                state.phase = Phase::Behind;
                self.ask_pages(id);
            }
        }
    }
}
