//! Connecting with a sequence per conversation instead of a cursor.
//!
//! First every log is asked for the user's conversations there; its first answer fixes the position from which the
//! session will follow it. Then each conversation that the client knows is fed up to that position, the others are named
//! in `heads`, and the session goes on like one that came with a cursor. Where none had to be named so, its device has all that stands before
//! that position, and what it was fed counts as delivered once it acknowledges that.

use protocol::ids::{ConversationId, Seq};
use protocol::record::StreamKind as Kind;

use super::heads::{Followed, HEADS_PER_FRAME};
use super::session::{Missing, Phase, Session, Survey};
use super::{UserSide, heads};
use crate::mail::{Linked, ReadState, Request, SessionId, Surveyed};

impl Survey {
    /// Those that are to be named next: of one log, as many as one frame names.
    fn next_unnamed(&self) -> Option<(u16, Vec<ConversationId>)> {
        let (log, _) = self.unnamed.front()?;
        let of_log = self.unnamed.iter().take_while(|(of, _)| of == log).take(HEADS_PER_FRAME);
        Some((*log, of_log.map(|(_, found)| found.conversation).collect()))
    }

    fn note_fed(&mut self, log: u16, records: &[Linked]) {
        let whole = records.iter().filter(|linked| linked.record.is_some());
        let Some(first) = whole.map(|linked| linked.position).min() else { return };
        let place = usize::from(log);
        self.fed_from.resize(self.next.len().max(place + 1), None);
        let before = &mut self.fed_from[place];
        *before = Some(before.map_or(first, |before| before.min(first)));
    }
}

impl UserSide {
    /// The next step of a survey; `None` when it has none left.
    pub(super) fn next_survey(
        &self,
        id: SessionId,
        session: &Session,
        survey: &Survey,
    ) -> Option<(u16, Request)> {
        let unasked =
            survey.next.iter().enumerate().find_map(|(log, after)| after.map(|after| (log as u16, after)));
        if let Some((log, after)) = unasked {
            let user = session.user.clone();
            let memberships = self.places.user_stream(&user, Kind::Memberships);
            return Some((
                log,
                Request::Survey { session: id, shard: self.shard, log, user, memberships, after },
            ));
        }
        if let Some((log, conversations)) = survey.next_unnamed() {
            let user = session.user.clone();
            return Some((log, Request::Reads { session: id, shard: self.shard, log, user, conversations }));
        }
        let Missing { log, conversation, after, visible_from } = *survey.missing.front()?;
        let request = Request::Feed {
            session: id,
            shard: self.shard,
            log,
            conversation,
            after,
            until: session.logs[usize::from(log)].position,
            visible_from,
        };
        Some((log, request))
    }

    pub(super) fn handle_surveyed(
        &mut self,
        id: SessionId,
        log: u16,
        conversations: Vec<Surveyed>,
        more_after: Option<u64>,
        position: u64,
    ) {
        self.page_arrived(id);
        let Some(session) = self.session(id) else {
            return;
        };
        let Some(survey) = &mut session.survey else {
            return;
        };
        let place = usize::from(log);
        if survey.next[place] == Some(0) {
            // The first answer fixes the place: later ones may name newer heads, and then a client is told of some
            // records twice, never of none.
            session.logs[place].move_to(position);
        }
        let fixed = session.logs[place].position;
        // What changed beyond the fixed position comes when the log is followed.
        let before = conversations.into_iter().filter(|found| found.position <= fixed);
        survey.found.extend(before.map(|found| (found.conversation, found)));
        survey.next[place] = more_after;
        if survey.next.iter().all(Option::is_none) {
            self.end_survey(id);
        }
        self.ask_pages(id);
    }

    /// Every log has answered: what is known is fed, what is not is named.
    fn end_survey(&mut self, id: SessionId) {
        let places = self.places.clone();
        let Some(session) = self.session(id) else {
            return;
        };
        let Some(survey) = &mut session.survey else {
            return;
        };
        let mut newest = std::mem::take(&mut survey.found);
        for (conversation, seq) in std::mem::take(&mut survey.known) {
            if newest.get(&conversation).is_some_and(|found| found.head < seq) {
                // Known beyond its head: from a history that a restored copy has lost. Its head is named, so that what
                // comes next is not taken for something known.
                continue;
            }
            if let Some(found) = newest.remove(&conversation)
                && let Some(visible_from) = found.visible_from
                && found.head > seq
            {
                let log = places.log_of(conversation);
                let after = seq.max(Seq(visible_from.0 - 1));
                survey.missing.push_back(Missing { log, conversation, after, visible_from });
            }
        }
        let unnamed = newest.values().filter(|found| found.visible_from.is_some() && found.head > Seq(0));
        let mut unnamed: Vec<(u16, Surveyed)> =
            unnamed.map(|found| (places.log_of(found.conversation), *found)).collect();
        unnamed.sort_unstable_by_key(|(log, found)| (*log, found.conversation));
        survey.leaves_some = !unnamed.is_empty();
        survey.unnamed = unnamed.into();
        self.follow_if_fed(id);
    }

    /// How far those were read that are to be named next.
    pub(super) fn handle_reads(&mut self, id: SessionId, log: u16, states: &[ReadState]) {
        self.page_arrived(id);
        let Some(survey) = self.session(id).and_then(|session| session.survey.as_mut()) else {
            return;
        };
        let count = survey.next_unnamed().map_or(0, |(of, conversations)| {
            assert_eq!(of, log, "one page at a time, in order");
            conversations.len()
        });
        let named = survey.unnamed.drain(..count);
        let heads =
            named.map(|(_, found)| heads::head(found.conversation, found.head, found.message_count, states));
        let heads = heads.collect();
        let followed = if survey.unnamed.is_empty() { Followed::ByNone } else { Followed::ByMore };
        self.push_heads_before(id, heads, followed);
        self.follow_if_fed(id);
        self.ask_pages(id);
    }

    pub(super) fn handle_fed(
        &mut self,
        id: SessionId,
        log: u16,
        conversation: ConversationId,
        records: &[Linked],
        more_after: Option<Seq>,
    ) {
        self.page_arrived(id);
        let Some(survey) = self.session(id).and_then(|session| session.survey.as_mut()) else {
            return;
        };
        let Some(missing) = survey.missing.front_mut() else {
            return;
        };
        assert!(missing.log == log && missing.conversation == conversation, "one page at a time, in order");
        match more_after {
            Some(after) => missing.after = after,
            None => drop(survey.missing.pop_front()),
        }
        survey.note_fed(log, records);
        self.push_records(id, records);
        self.follow_if_fed(id);
        self.ask_pages(id);
    }

    /// Nothing is missing any more: from here on the session follows the logs.
    fn follow_if_fed(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else {
            return;
        };
        let is_fed = |survey: &Survey| survey.unnamed.is_empty() && survey.missing.is_empty();
        let Some(survey) = session.survey.as_deref().filter(|survey| is_fed(survey)) else {
            return;
        };
        let has_all = !survey.leaves_some && !session.partial;
        for (place, log) in session.logs.iter_mut().enumerate() {
            log.phase = Phase::Behind;
            if let Some(position) = survey.fed_from.get(place).copied().flatten().filter(|_| has_all) {
                log.was_fed_from(position);
            }
        }
    }
}
