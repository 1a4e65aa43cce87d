//! What a session views, and what it is told of that.

use protocol::event::{ErrorCode, Presence, Reached, ServerFrame};
use protocol::ids::{ConversationId, RequestId, UserId};
use protocol::limits::VIEWS_MAX;

use super::UserSide;
use super::frames::Rendered;
use super::outbox::NEWS_BYTES_MAX;
use super::session::{Held, View, Viewing};
use super::signals::TYPING_MAX;
use crate::mail::{Clock, Knows, Request, SessionId, UNASKED};

/// Receipts that are kept for a session that does not read: of a group of 99 all, and some more. About 10 KB; what is beyond that it learns when it looks
/// again, or with the next one.
const LATE_RECEIPTS_MAX: usize = 128;

impl Viewing {
    /// What was kept of how far others have come, of what is still viewed; and of how far its own user has.
    pub(super) fn late_receipts(&self, own: &UserId) -> impl Iterator<Item = ServerFrame> {
        let is_viewed = |of| self.views.iter().any(|view| view.conversation == of);
        let late = self.late_receipts.iter().filter(move |(of, user, _)| user == own || is_viewed(*of));
        late.map(|(conversation, user, reached)| {
            let (conversation, user, reached) = (*conversation, user.clone(), *reached);
            ServerFrame::Receipt { conversation, user, reached }
        })
    }
}

impl UserSide {
    pub(super) fn view(
        &mut self,
        id: SessionId,
        number: RequestId,
        conversation: ConversationId,
        clock: Clock,
    ) {
        let Some((asker, user)) = self.asker(id, number, clock) else { return };
        let Some(session) = self.session(id) else { return };
        let views = &mut session.viewing.get_or_insert_default().views;
        let place = views.iter().position(|view| view.conversation == conversation);
        match place {
            Some(place) => views[place].asked = Some(number),
            None if views.len() >= VIEWS_MAX => {
                let words = "a session views at most 8 conversations: end one first";
                return self.refuse(id, number, ErrorCode::Limit, words);
            }
            None => views.push(View { conversation, asked: Some(number) }),
        }
        // The end of an earlier view that has not left yet would end this one.
        let log = usize::from(self.places.log_of(conversation));
        self.presence.untold[log].unviewed.retain(|unviewed| *unviewed != (conversation, id));
        let knows = Knows::Nothing;
        self.hold(id, Held::Page(Request::View { asker, user, conversation, knows }));
    }

    pub(super) fn unview(&mut self, id: SessionId, number: RequestId, conversation: ConversationId) {
        if let Some(viewing) = self.session(id).and_then(|session| session.viewing.as_mut())
            && viewing.views.extract_if(.., |view| view.conversation == conversation).count() > 0
        {
            self.end_view(id, conversation);
        }
        // One that waits for its turn would stand again in the process that is asked for it next.
        let waits = |held: &Held| matches!(held, Held::Page(Request::View { conversation: of, .. }) if *of == conversation);
        if self.session(id).is_some_and(|session| session.held.iter().any(waits)) {
            return self.hold(id, Held::Ended { number, conversation });
        }
        self.push_done(id, number);
    }

    /// Says of views that were ended before their turn that they were, once that has come. Whether there were any.
    pub(super) fn push_ended(&mut self, id: SessionId) -> bool {
        let mut any = false;
        while let Some(session) = self.session(id)
            && let Some(Held::Ended { number, .. }) = session.held.front()
        {
            let number = *number;
            session.held.pop_front();
            self.push_done(id, number);
            any = true;
        }
        any
    }

    pub(super) fn end_view(&mut self, id: SessionId, conversation: ConversationId) {
        let log = usize::from(self.places.log_of(conversation));
        self.presence.untold[log].unviewed.push_back((conversation, id));
    }

    pub(super) fn type_in(&mut self, id: SessionId, conversation: ConversationId, on: bool) {
        let Some(user) = self.session(id).map(|session| session.user.clone()) else { return };
        let typing = &mut self.presence.untold[usize::from(self.places.log_of(conversation))].typing;
        if typing.len() < TYPING_MAX || typing.contains_key(&(conversation, user.clone())) {
            typing.insert((conversation, user), on);
        }
    }

    /// The answer to a `view`, unless it was ended meanwhile: then the log has not heard of that.
    pub(super) fn handle_viewed(
        &mut self,
        id: SessionId,
        number: RequestId,
        conversation: ConversationId,
        presence: &[Presence],
        receipts: &[(UserId, Reached)],
    ) {
        self.page_arrived(id);
        let viewing = self.session(id).and_then(|session| session.viewing.as_mut());
        let mut views = viewing.into_iter().flat_map(|viewing| &mut viewing.views);
        match views.find(|view| view.conversation == conversation) {
            Some(view) => view.asked = view.asked.filter(|asked| *asked != number),
            None => self.end_view(id, conversation),
        }
        if let Some(session) = self.session(id)
            && let Some(viewing) = session.viewing.as_mut()
        {
            // What was kept is older than this, and would come behind it; but of its own user an answer that nobody asked for says nothing.
            let own = &session.user;
            let is_told = |user: &UserId| number != UNASKED || user != own;
            viewing.late.retain(|late| presence.iter().all(|one| one.user != late.user));
            viewing.late_receipts.retain(|(of, user, _)| *of != conversation || !is_told(user));
        }
        if number == UNASKED {
            // What it does not know, or knows older.
            let Some(own) = self.user_of(id).cloned() else { return };
            for presence in presence.iter().filter(|one| one.user != own) {
                self.handle_telling(&[id], &ServerFrame::Presence(presence.clone()));
            }
            // One answer, as bounded as that to a `view` of its own: of a receipt that finds no room nobody would be told again.
            for (user, reached) in receipts.iter().filter(|(user, _)| *user != own) {
                let (user, reached) = (user.clone(), *reached);
                self.push_event(id, &ServerFrame::Receipt { conversation, user, reached });
            }
            // Where there was nothing to tell, nothing is sent behind which what waits would be asked for.
            return self.ask_pages(id);
        }
        self.push_reply(
            id,
            &ServerFrame::Viewed { id: number, presence: presence.to_vec(), receipts: receipts.to_vec() },
        );
    }

    /// Something was refused that may have been a `view`. An earlier one of the same may have been granted: the log is told that it has
    /// ended, or nobody would.
    pub(super) fn forget_view(&mut self, id: SessionId, number: RequestId) {
        let Some(viewing) = self.session(id).and_then(|session| session.viewing.as_mut()) else { return };
        let refused: Vec<View> = viewing.views.extract_if(.., |view| view.asked == Some(number)).collect();
        for view in refused {
            self.end_view(id, view.conversation);
        }
    }

    /// News of somebody. A session that does not read is told the newest of them once it does; who types is not news any more then.
    pub(super) fn handle_telling(&mut self, sessions: &[SessionId], event: &ServerFrame) {
        let mut rendered = Rendered::default();
        for id in sessions {
            let outbox_bytes_max = self.limits.outbox_bytes_max;
            let Some(session) = self.session(*id) else { continue };
            let has_late = session.viewing.as_ref().is_some_and(|viewing| viewing.has_late());
            match event {
                _ if !has_late && session.outbox.has_room(NEWS_BYTES_MAX, outbox_bytes_max) => {
                    session.outbox.push(rendered.event(session.form, event), false);
                    self.counters.presence += 1;
                    self.list_among(*id, sessions.len());
                }
                ServerFrame::Presence(presence) => {
                    let viewing = session.viewing.get_or_insert_default();
                    viewing.late.retain(|late| late.user != presence.user);
                    viewing.late.push(presence.clone());
                }
                ServerFrame::Receipt { conversation, user, reached } => {
                    let late = &mut session.viewing.get_or_insert_default().late_receipts;
                    late.retain(|(of, who, _)| (of, who) != (conversation, user));
                    if late.len() < LATE_RECEIPTS_MAX {
                        late.push((*conversation, user.clone(), *reached));
                    }
                }
                _ => {}
            }
        }
    }

    /// An outbox is empty: what was kept for it goes first.
    pub(super) fn push_late(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        let Some(viewing) = session.viewing.as_mut() else { return };
        let is_late = std::mem::take(&mut viewing.late_invisible);
        let receipts: Vec<ServerFrame> = viewing.late_receipts(&session.user).collect();
        viewing.late_receipts.clear();
        for presence in std::mem::take(&mut viewing.late) {
            self.counters.presence += 1;
            self.push_event(id, &ServerFrame::Presence(presence));
        }
        for receipt in receipts {
            self.counters.presence += 1;
            self.push_event(id, &receipt);
        }
        if is_late && let Some(user) = self.user_of(id).cloned() {
            let on = self.presence.is_invisible(&user);
            self.push_event(id, &ServerFrame::Invisible { on });
        }
    }
}
