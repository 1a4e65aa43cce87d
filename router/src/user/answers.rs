//! What comes back from the owners of the logs, other than records to follow: replies to commands.

use protocol::command::{Retention, Role};
use protocol::event::{CloseCode, ErrorCode, ErrorReply, MemberEntry, OkReply, ServerFrame};
use protocol::ids::{Seq, UserId};

use super::follow::Page;
use super::{UserSide, frames};
use crate::mail::{Asker, Clock, Linked, Reply, SessionId, Setting, UNASKED};
use crate::places::ShardId;

impl UserSide {
    /// Takes what the shard `from` sent, in the order it sent it.
    pub fn handle_reply(&mut self, from: ShardId, reply: Reply, clock: Clock) {
        let now = clock.unix;
        self.return_credit(from, &reply, clock.micros);
        self.approaches.note_reply(&reply, clock.micros);
        match reply {
            Reply::Deliver(deliver) => self.deliver(&deliver, clock),
            Reply::CaughtUp { session, log, records, heads, reads, end, at_head, partial } => {
                self.note_partial(session, partial);
                let page = Page { records: &records, heads: &heads, reads: &reads, end, at_head };
                self.handle_page(session, log, &page, now);
            }
            Reply::Forgotten { session } => {
                self.end(session, CloseCode::STALLED, "what it has not read is not kept any more");
            }
            Reply::Overrun { log, users } => self.handle_overrun(log, users.as_deref()),
            Reply::Stored { asker, conversation, seq, message_id, at, .. } => {
                let (id, conversation, seq) = (asker.id, Some(conversation), Some(seq));
                let ok = OkReply { id, conversation, seq, message_id: Some(message_id), at: Some(at) };
                self.push_stored(&asker, ok, clock);
            }
            Reply::Refused { asker, is_page, code, message, retry_after_ms } => {
                let message = message.to_owned();
                let retry_after_ms = retry_after_ms.or_else(|| self.may_approach_in(&asker, code, clock));
                let error = ErrorReply { id: Some(asker.id), code, message, retry_after_ms };
                self.handle_refused(&asker, is_page, error);
            }
            Reply::History { asker, gone, records, newest_first, more } => {
                let page = frames::Page { id: asker.id, newest_first, gone };
                self.handle_history(asker.session, &page, &records, more);
            }
            Reply::Candidates { session, records, partial, .. } => {
                self.handle_candidates(session, records, partial);
            }
            Reply::MaySearch { asker, visible_from } => self.handle_may_search(asker.session, visible_from),
            Reply::Listed { session, items, partial, .. } => self.handle_listed(session, items, partial),
            Reply::Memberships { session, log, found, more_after, partial } => {
                self.handle_memberships(session, log, found, more_after, partial);
            }
            Reply::Members { asker, members, retention } => self.handle_members(&asker, members, retention),
            Reply::Reads { session, log, states } => self.handle_reads(session, log, &states),
            Reply::SeenTaken { log, are_lost } => self.handle_seen_taken(log, are_lost),
            Reply::SignalsTaken { log } => self.handle_signals_taken(log),
            Reply::Tell { sessions, event } => self.handle_telling(&sessions, &event),
            Reply::TellUser { user, event } => self.handle_telling(&self.welcomed_sessions_of(&user), &event),
            Reply::Done { asker } => self.push_done(asker.session, asker.id),
            Reply::Hidden { asker, user, since } => self.handle_hidden(&asker, user, since),
            Reply::Sighting { user, found } => self.handle_sighting(from, user, found),
            Reply::MayMute { asker, user, conversation, until } => {
                self.set(asker, user, Setting::Mute { conversation, until });
            }
            Reply::PushTokens { .. } => unreachable!("the shard asked, and takes it"),
            Reply::Settings { session, mutes } => self.handle_settings(session, mutes, now),
            Reply::Viewed { asker, conversation, presence, receipts } => {
                self.handle_viewed(asker.session, asker.id, conversation, &presence, &receipts);
            }
            Reply::Watch { log, watched, unwatched } => self.handle_watch(log, watched, &unwatched),
            Reply::Surveyed { session, log, conversations, more_after, position, partial } => {
                self.note_partial(session, partial);
                self.handle_surveyed(session, log, conversations, more_after, position);
            }
            Reply::Fed { session, log, conversation, gone, records, more_after } => {
                if let Some(gone) = gone {
                    self.push_event(session, &ServerFrame::Gap(frames::gone_gap(gone)));
                }
                self.handle_fed(session, log, conversation, &records, more_after);
            }
        }
    }

    fn note_partial(&mut self, id: SessionId, partial: bool) {
        if let Some(session) = self.session(id) {
            session.partial |= partial;
        }
    }

    fn handle_members(&mut self, asker: &Asker, members: Vec<(UserId, Role, Seq)>, retention: Retention) {
        self.page_arrived(asker.session);
        let entry = |(user, role, visible_from)| MemberEntry { user, role, visible_from };
        let members = members.into_iter().map(entry).collect();
        self.push_reply(asker.session, &ServerFrame::MembersPage { id: asker.id, members, retention });
    }

    /// In how many milliseconds a user may approach others who was refused it.
    fn may_approach_in(&self, asker: &Asker, code: ErrorCode, clock: Clock) -> Option<u64> {
        let user = self.user_of(asker.session).filter(|_| code == ErrorCode::RateLimited)?;
        // It may have been earned in the meantime.
        Some(self.approaches.wait_micros(user, clock.micros).max(1).div_ceil(1_000))
    }

    fn handle_refused(&mut self, asker: &Asker, is_page: bool, error: ErrorReply) {
        if asker.id == UNASKED {
            return self.handle_unresumed_view(asker.session, error.code);
        }
        if is_page {
            self.page_arrived(asker.session);
            self.forget_search(asker.session, asker.id);
            self.forget_view(asker.session, asker.id);
        }
        self.push_reply(asker.session, &ServerFrame::Error(error));
    }

    fn push_stored(&mut self, asker: &Asker, ok: OkReply, clock: Clock) {
        self.latencies.acks.push(clock.micros.saturating_sub(asker.asked_micros));
        self.push_reply(asker.session, &ServerFrame::Ok(ok));
    }

    fn handle_history(&mut self, id: SessionId, page: &frames::Page, records: &[Linked], more: bool) {
        self.page_arrived(id);
        if let Some(session) = self.session(id) {
            let frame = frames::page_frame(session.form, page, records, more);
            session.outbox.push(frame, true);
            self.list(id);
        }
    }

    /// Every request had taken a credit; its reply gives it back.
    fn return_credit(&mut self, from: ShardId, reply: &Reply, now_micros: u64) {
        let credits = &mut self.credits[from.index()];
        match reply {
            Reply::Deliver(_)
            | Reply::Overrun { .. }
            | Reply::PushTokens { .. }
            | Reply::SeenTaken { .. }
            | Reply::Sighting { .. }
            | Reply::SignalsTaken { .. }
            | Reply::Tell { .. }
            | Reply::TellUser { .. }
            | Reply::Watch { .. } => {}
            Reply::Done { asker }
            | Reply::Hidden { asker, .. }
            | Reply::MayMute { asker, .. }
            | Reply::Stored { asker, .. }
            | Reply::Refused { asker, is_page: false, .. } => {
                credits.return_command(asker.asked_micros, now_micros);
            }
            Reply::Candidates { .. }
            | Reply::CaughtUp { .. }
            | Reply::Fed { .. }
            | Reply::Forgotten { .. }
            | Reply::History { .. }
            | Reply::Listed { .. }
            | Reply::MaySearch { .. }
            | Reply::Members { .. }
            | Reply::Memberships { .. }
            | Reply::Reads { .. }
            | Reply::Refused { is_page: true, .. }
            | Reply::Settings { .. }
            | Reply::Surveyed { .. }
            | Reply::Viewed { .. } => {
                credits.pages += 1;
                self.feed_starved(from);
            }
        }
    }

    /// A session's one large answer has come: the next may be asked for.
    pub(super) fn page_arrived(&mut self, id: SessionId) {
        if let Some(session) = self.session(id) {
            session.page_in_flight = false;
        }
    }
}
