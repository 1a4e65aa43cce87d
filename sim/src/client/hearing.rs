//! What a client is told, and what it knows from then on.

use protocol::event::{
    CloseCode, ErrorReply, Gap, Head, ListEnd, ListedConversation, MemberEvent, MessageEvent, OkReply,
    PageItem, ServerFrame, Welcome,
};
use protocol::ids::{ConversationId, RequestId, UnixMillis};
use protocol::session::Input;
use protocol::upgrade::UpgradePolicy;

use super::{Client, Pending};
use crate::keeping::Since;
use crate::listing;
use crate::oracle::Oracle;
use crate::unread::Told;

impl Client {
    /// Takes bytes from the server. Says whether the connection goes on.
    pub(crate) fn handle_bytes(
        &mut self,
        bytes: &mut [u8],
        oracle: &mut Oracle,
        now: UnixMillis,
        micros: u64,
    ) -> bool {
        let mut at = 0;
        loop {
            let Some(link) = &mut self.link else {
                return false;
            };
            let handled = link.session.handle_bytes(&UpgradePolicy::ANY, &mut bytes[at..]);
            let handled = handled.expect("the server keeps to the protocol");
            at += handled.consumed;
            let mut frames = Vec::new();
            match handled.input {
                None => return true,
                Some(Input::PeerClosed { .. }) => {
                    link.session.poll_control(&mut self.output);
                    return false;
                }
                Some(input) => ServerFrame::from_input(&input, &mut frames).expect("frames of this protocol"),
            }
            for frame in frames {
                self.handle_frame(frame, oracle, now, micros);
            }
        }
    }

    /// Takes bytes of a connection that was left open. What ended it, and the answer to that, once it has.
    pub(crate) fn handle_older(&mut self, place: usize, bytes: &mut [u8]) -> Option<(CloseCode, Vec<u8>)> {
        let session = &mut self.older[place].session;
        let mut at = 0;
        loop {
            let handled = session.handle_bytes(&UpgradePolicy::ANY, &mut bytes[at..]);
            let handled = handled.expect("the server keeps to the protocol");
            at += handled.consumed;
            match handled.input {
                None => return None,
                Some(Input::PeerClosed { code }) => {
                    let mut answer = Vec::new();
                    session.poll_control(&mut answer);
                    return Some((code, answer));
                }
                Some(_) => {}
            }
        }
    }

    fn handle_frame(&mut self, frame: ServerFrame, oracle: &mut Oracle, now: UnixMillis, micros: u64) {
        let is_welcomed = self.link.as_ref().expect("a frame comes by a link").welcomed;
        let is_first =
            matches!(frame, ServerFrame::Welcome(_) | ServerFrame::Error(_) | ServerFrame::Drain { .. });
        assert!(is_welcomed || is_first, "welcome_is_first: {} was told {frame:?}", self.user);
        self.link.as_mut().expect("looked at").owed.note_told(&frame);
        match frame {
            ServerFrame::Welcome(welcome) => self.handle_welcome(*welcome, oracle, now),
            ServerFrame::Cursor { cursor } => self.take_cursor(Some(cursor)),
            ServerFrame::CaughtUp { cursor, partial } => {
                assert!(!partial, "every log is served");
                self.take_cursor(Some(cursor));
                let link = self.link.as_mut().expect("a frame comes by a link");
                link.owed.note_caught_up();
                if std::mem::take(&mut link.surveyed) {
                    self.surveyed_at = self.surveyed_at.max(Some(now.0));
                }
            }
            ServerFrame::Pong { id, cursor, .. } => {
                self.acknowledging.answered(id);
                self.take_cursor(cursor);
            }
            ServerFrame::Ok(ok) => self.handle_ok(&ok, oracle),
            ServerFrame::Error(error) => self.handle_error(&error, oracle, now, micros),
            ServerFrame::Amended(event) => {
                oracle.check_amended(&event, now);
                oracle.told_amended(&event, self.since());
                self.receive((event.conversation, event.seq.0), false);
            }
            ServerFrame::Message(message) => self.handle_message(&message, oracle, now),
            ServerFrame::Member(event) => self.handle_member(&event, oracle),
            ServerFrame::Heads { conversations, .. } => {
                conversations.iter().for_each(|head| self.handle_head(head, oracle));
            }
            ServerFrame::Conversations { id, conversations, end } => {
                self.handle_list(id, conversations, end, oracle, now);
            }
            ServerFrame::Page { id, messages, .. } => self.handle_page(id, &messages, oracle, now),
            ServerFrame::Found { id, hits, end } => {
                self.searching.told(id, &self.user, &hits, end, oracle);
            }
            ServerFrame::MembersPage { id, members, .. } => {
                let link = self.link.as_mut().expect("a frame comes by a link");
                let (of, head) = link.lists.remove(&id).expect("it was asked for");
                oracle.told_members(of, head, &members);
            }
            ServerFrame::Drain { .. } => {}
            ServerFrame::Invisible { on } => self.hiding.told(&self.user, on, &oracle.invisibles),
            ServerFrame::Presence(presence) => self.viewing.told(&self.user, presence, oracle),
            ServerFrame::Typing { conversation, user, .. } => {
                self.viewing.told_typing(&self.user, conversation, &user);
            }
            ServerFrame::Receipt { conversation, user, reached } => {
                self.viewing.told_reached(conversation, user, reached, oracle);
            }
            ServerFrame::Viewed { id, presence, receipts } => {
                self.viewing.viewed(id, presence, receipts, oracle);
            }
            ServerFrame::Gap(gap) => self.handle_gap(&gap, oracle, now),
        }
    }

    fn handle_welcome(&mut self, welcome: Welcome, oracle: &mut Oracle, now: UnixMillis) {
        assert!(!welcome.reset || oracle.keep_ms.is_some(), "a cursor of this store was not honoured");
        let link = self.link.as_mut().expect("a frame comes by a link");
        link.welcomed = true;
        if welcome.reset {
            oracle.gone += 1;
            link.fresh = true;
            link.owed.note_reset();
        }
        if link.fresh {
            self.owed_since = Some(now.0);
            self.seen.clear();
        }
        link.surveyed = welcome.cursor.is_none();
        self.acknowledging.welcomed(link.fresh, link.surveyed);
        if link.surveyed {
            self.surveyed_at = Some(now.0 + 1_000);
        }
        self.take_cursor(welcome.cursor);
    }

    fn handle_member(&mut self, event: &MemberEvent, oracle: &mut Oracle) {
        let place = (event.conversation, event.seq.0);
        oracle.told_member(event);
        self.receive(place, event.added.contains(&self.user));
        if event.removed.contains(&self.user) {
            self.seen.remove(&event.conversation);
            self.viewing.left(event.conversation);
        }
    }

    fn handle_message(&mut self, message: &MessageEvent, oracle: &mut Oracle, now: UnixMillis) {
        let place = (message.conversation, message.seq.0);
        oracle.check_not_erased(place, now);
        oracle.told_message(message, self.since());
        self.receive(place, false);
    }

    fn handle_list(
        &mut self,
        id: RequestId,
        conversations: Vec<ListedConversation>,
        end: ListEnd,
        oracle: &mut Oracle,
        now: UnixMillis,
    ) {
        listing::check_page(&self.user, &conversations, self.listing.asked_at(id), oracle);
        let last: Vec<PageItem> = conversations.iter().filter_map(|listed| listed.last.clone()).collect();
        let since = self.listing.told(id, conversations, end);
        last.iter().for_each(|last| check_page(std::slice::from_ref(last), since, oracle, now));
    }

    fn handle_page(&mut self, id: RequestId, items: &[PageItem], oracle: &mut Oracle, now: UnixMillis) {
        let link = self.link.as_mut().expect("a frame comes by a link");
        check_page(items, link.pages.remove(&id), oracle, now);
    }

    fn handle_head(&mut self, head: &Head, oracle: &mut Oracle) {
        oracle.told_head(head.conversation, head.head.0);
        let Head { conversation, head: newest, read, unread, .. } = *head;
        let since = self.since();
        oracle.told_unread(&self.user, Told { conversation, head: newest, read, unread }, since);
        // From an older cursor on, what ends a time of which nothing is sent may be known already.
        for known in [&mut self.seen, &mut self.headed] {
            let known = known.entry(head.conversation).or_default();
            *known = head.head.0.max(*known);
        }
    }

    /// Since when what it is told now was read: what is told live may have waited.
    fn since(&self) -> Option<Since> {
        self.link.as_ref().filter(|link| link.owed.is_catching_up()).map(|link| link.begun)
    }

    fn handle_ok(&mut self, ok: &OkReply, oracle: &mut Oracle) {
        let link = self.link.as_mut().expect("a frame comes by a link");
        if let Some((_, times)) = link.refreshing.take_if(|(id, _)| *id == ok.id) {
            link.times = times;
        } else if self.setting.done(ok.id, &self.user, &mut oracle.mutes)
            || self.setting.blocked(ok.id, &self.user, &oracle.blocks)
            || self.registering.done(ok.id, &self.user, &mut oracle.tokens)
            || self.hiding.done(ok.id, &self.user, &mut oracle.invisibles)
            || self.viewing.ended(ok.id, oracle)
        {
        } else if let Some(place) = self.pending.iter().position(|pending| pending.id == ok.id) {
            let pending = self.pending.remove(place);
            match ok.conversation.zip(ok.seq) {
                Some((of, seq)) => oracle.acked(&self.user, pending.message_id, (of, seq.0)),
                None => {
                    oracle.unchanged(&self.user, pending.message_id, &pending.command, pending.head);
                }
            }
        }
    }

    fn handle_gap(&mut self, gap: &Gap, oracle: &mut Oracle, now: UnixMillis) {
        if gap.reason == "erased" {
            let place = oracle.told_erased(gap, now.0);
            return self.receive(place, false);
        }
        oracle.told_gone(gap, now.0);
        self.seen.insert(gap.conversation, gap.to.0);
        let headed = self.headed.entry(gap.conversation).or_default();
        *headed = gap.to.0.max(*headed);
    }

    fn handle_error(&mut self, error: &ErrorReply, oracle: &mut Oracle, now: UnixMillis, micros: u64) {
        self.viewing.refused(error.id);
        self.listing.refused(error.id);
        self.searching.refused(error.id, error.code);
        self.registering.refused(error.id);
        self.hiding.refused(error.id, error.code, &self.user, &mut oracle.invisibles);
        self.setting.refused(error.id, error.code, &self.user, &mut oracle.mutes);
        let Some(place) = self.pending.iter().position(|pending| Some(pending.id) == error.id) else {
            return;
        };
        if error.code.retryable() {
            self.retry_at = micros + error.retry_after_ms.unwrap_or(10) * 1_000;
            self.link.as_mut().expect("a frame comes by a link").sent.clear();
            if self.is_patient {
                self.pending[place].id = RequestId(0);
            }
        } else {
            let Pending { command, message_id, head, .. } = self.pending.remove(place);
            let run = self.link.as_ref().expect("a frame comes by a link").run;
            oracle.refused(&self.user, message_id, now.0);
            oracle.refused_by_role(&self.user, (message_id, &command), error.code, (head, run));
        }
    }

    /// `dense_order`: the next, or one known already while catching up, or the first since a join.
    fn receive(&mut self, (conversation, seq): (ConversationId, u64), joined: bool) {
        let replaying = self.link.as_ref().expect("a frame comes by a link").owed.is_catching_up();
        match self.seen.get(&conversation) {
            Some(last) if seq <= *last => {
                assert!(replaying, "dense_order: {} was told {conversation} {seq} twice", self.user);
            }
            Some(last) => {
                assert!(
                    joined || seq == last + 1,
                    "dense_order: {} lost {conversation} {last}..{seq}",
                    self.user
                );
                self.seen.insert(conversation, seq);
            }
            None => drop(self.seen.insert(conversation, seq)),
        }
        self.received.insert((conversation, seq));
        self.acknowledging.received((conversation, seq));
    }
}

fn check_page(items: &[PageItem], since: Option<Since>, oracle: &mut Oracle, now: UnixMillis) {
    let mut last = None;
    for item in items {
        let (conversation, seq) = match item {
            PageItem::Amended(event) => {
                oracle.check_amended(event, now);
                oracle.told_amended(event, since);
                (event.conversation, event.seq.0)
            }
            PageItem::Message(message) => {
                oracle.check_not_erased((message.conversation, message.seq.0), now);
                oracle.told_message(message, since);
                (message.conversation, message.seq.0)
            }
            PageItem::Member(event) => {
                oracle.told_member(event);
                oracle.check_kept((event.conversation, event.seq.0), since);
                (event.conversation, event.seq.0)
            }
            PageItem::Gap(gap) if gap.reason == "erased" => oracle.told_erased(gap, now.0),
            PageItem::Gap(gap) => {
                assert!(last.is_none(), "only the front of a conversation goes");
                oracle.told_gone(gap, now.0);
                last = Some(gap.to.0);
                continue;
            }
        };
        assert!(
            last.is_none_or(|last| seq == last + 1),
            "dense_order: a page of {conversation} skips to {seq}"
        );
        last = Some(seq);
    }
}
