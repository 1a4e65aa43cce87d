//! Connecting with a sequence per conversation instead of a cursor.
//!
//! First every log is asked for the user's conversations there; its first answer fixes the position from which the
//! session will follow it. Then each conversation that the client knows is fed up to that position, the others are named
//! in `heads`, and the session goes on like one that came with a cursor.

use protocol::event::Head;
use protocol::ids::{ConversationId, Seq};
use protocol::record::StreamKind as Kind;

use super::UserSide;
use super::session::{Missing, Phase, Session, Survey};
use crate::mail::{Linked, Request, SessionId, Surveyed};

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
            session.logs[place].position = position;
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
        let heads = newest
            .values()
            .filter(|found| found.visible_from.is_some() && found.head > Seq(0))
            .map(|found| Head {
                conversation: found.conversation,
                from: None,
                head: found.head,
                read: Seq(0),
                unread: found.message_count,
            })
            .collect();
        self.push_heads(id, heads);
        self.follow_if_fed(id);
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
        self.push_records(id, records);
        self.follow_if_fed(id);
        self.ask_pages(id);
    }

    /// Nothing is missing any more: from here on the session follows the logs.
    fn follow_if_fed(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else {
            return;
        };
        if session.survey.as_ref().is_some_and(|survey| survey.missing.is_empty()) {
            for log in &mut session.logs {
                log.phase = Phase::Behind;
            }
        }
    }
}
