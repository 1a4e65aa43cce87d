//! `conversations`: a user's list, made at its home from what the owners of the logs say.
//!
//! First every log is asked which conversations the user is in and where the newest record of each stands: a page of memberships at a
//! time, as when a session connects with positions. Of each log those that come first are asked for, no more than the page may show;
//! and what comes back is merged by time. Nothing of it is kept: the next page does the same and begins where this one says.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashMap;
use protocol::command::Command;
use protocol::event::{ErrorCode, ListEnd, ServerFrame};
use protocol::ids::{ConversationId, RequestId, UnixMillis, UserId};
use protocol::limits::{CONVERSATIONS_MAX, PAGE_BYTES_MAX};
use protocol::record::{StoredListed, StreamKind as Kind};
use protocol::upgrade::Form;
use smallvec::SmallVec;

use super::session::{Held, Session};
use super::{UserSide, frames};
use crate::bookmark::{self, Place, PlaceOfEach};
use crate::mail::{ListedItem, Membership, Request, SessionId};
use crate::places::Places;

/// Conversations of one user that a list can name: about half a megabyte while it is made. Of one who is in more, those that were joined
/// first in each log are named, and the list says that it is not all.
const LISTED_MAX: usize = 16_384;

/// Joins and leaves of one user that are looked through for one page of the list: 256 pages of them, one under way at a time.
const MEMBERSHIPS_MAX: usize = 65_536;

const FOREIGN: &str = "`after` is not what a page of this user's conversations ended with";

/// A list that is being made.
#[derive(Debug)]
pub(super) struct Listing {
    id: RequestId,
    limit: usize,
    /// Per log: only what stands below comes next.
    below: PlaceOfEach,
    /// Per log: where its memberships go on, until all are known.
    next: SmallVec<[Option<u64>; 4]>,
    /// What the user is in, by log, and where the newest record stands.
    found: HashMap<ConversationId, (u16, u64), foldhash::fast::RandomState>,
    looked_through: usize,
    /// To be asked for, newest first, of one log at a time.
    unasked: VecDeque<(u16, Vec<Place>)>,
    /// What came of each log, in that order, with where it stands.
    listed: Vec<VecDeque<(Place, Option<ListedItem>)>>,
    /// Whether it is known what is muted.
    has_mutes: bool,
    /// There are more than were asked for.
    left: bool,
    partial: bool,
}

impl Listing {
    pub(super) fn new(id: RequestId, limit: u32, below: Option<PlaceOfEach>, logs: usize) -> Self {
        Self {
            id,
            limit: limit.min(CONVERSATIONS_MAX) as usize,
            below: below.unwrap_or_else(|| SmallVec::from_elem(bookmark::TOP, logs)),
            next: SmallVec::from_elem(Some(0), logs),
            found: HashMap::default(),
            looked_through: 0,
            unasked: VecDeque::new(),
            listed: vec![VecDeque::new(); logs],
            has_mutes: false,
            left: false,
            partial: false,
        }
    }

    /// What was asked for it.
    pub(super) fn asked(&self, places: &Places, user: &UserId) -> (RequestId, Command) {
        let is_first = self.below.iter().all(|place| *place == bookmark::TOP);
        let after = (!is_first).then(|| bookmark::encode(places, user, &self.below));
        (self.id, Command::Conversations { after, limit: self.limit as u32 })
    }

    /// A page of memberships of one log.
    fn note_memberships(&mut self, log: u16, found: Vec<Membership>, more_after: Option<u64>) {
        self.looked_through += found.len();
        for membership in found {
            let is_member = membership.visible_from.is_some();
            if is_member && self.found.len() < LISTED_MAX {
                self.found.insert(membership.conversation, (log, membership.head_position));
            } else if is_member {
                self.partial = true;
            } else {
                self.found.remove(&membership.conversation);
            }
        }
        let is_too_long = self.looked_through >= MEMBERSHIPS_MAX && more_after.is_some();
        self.partial |= is_too_long;
        self.next[usize::from(log)] = more_after.filter(|_| !is_too_long);
        if self.next.iter().all(Option::is_none) {
            self.choose();
        }
    }

    /// All are known: those of each log that may be on this page are asked for.
    fn choose(&mut self) {
        let mut by_log: Vec<Vec<Place>> = vec![Vec::new(); self.below.len()];
        for (conversation, (log, position)) in std::mem::take(&mut self.found) {
            if (position, conversation) < self.below[usize::from(log)] {
                by_log[usize::from(log)].push((position, conversation));
            }
        }
        for (log, mut of_log) in (0..).zip(by_log) {
            of_log.sort_unstable_by(|one, other| other.cmp(one));
            self.left |= of_log.len() > self.limit;
            of_log.truncate(self.limit);
            if !of_log.is_empty() {
                self.unasked.push_back((log, of_log));
            }
        }
    }

    fn note_listed(&mut self, items: Vec<Option<ListedItem>>) {
        let Some((log, asked)) = self.unasked.pop_front() else {
            return;
        };
        self.left |= items.len() < asked.len();
        self.listed[usize::from(log)].extend(asked.into_iter().zip(items));
    }

    /// What the user has muted, until when.
    fn note_mutes(&mut self, mutes: Option<Vec<(ConversationId, UnixMillis)>>, now: UnixMillis) {
        self.has_mutes = true;
        self.partial |= mutes.is_none();
        let mutes = mutes.into_iter().flatten().filter(|(_, until)| *until > now);
        let mutes: HashMap<ConversationId, UnixMillis, foldhash::fast::RandomState> = mutes.collect();
        for (_, item) in self.listed.iter_mut().flatten() {
            if let Some(item) = item {
                item.listed.muted_until = mutes.get(&item.listed.conversation).copied();
            }
        }
    }

    fn is_done(&self) -> bool {
        let is_known = self.next.iter().all(Option::is_none) && self.unasked.is_empty();
        is_known && (self.has_mutes || self.listed.iter().all(VecDeque::is_empty))
    }

    /// Merges what came, newest first, as far as the page holds it. What is taken of a log moves `below`.
    fn merge(&mut self, form: Form) -> Vec<ListedItem> {
        let mut items: Vec<(UnixMillis, ListedItem)> = Vec::new();
        let (mut bytes, mut before) = (0, UnixMillis(u64::MAX));
        while let Some(log) = self.newest() {
            let of_log = &mut self.listed[log];
            let (_, item) = of_log.front().expect("it is the newest");
            let size = encoded_bytes(form, item.as_ref().expect("likewise"));
            if items.len() == self.limit || (bytes + size > PAGE_BYTES_MAX && !items.is_empty()) {
                self.left = true;
                break;
            }
            bytes += size;
            let (place, item) = of_log.pop_front().expect("looked at");
            self.below[log] = place;
            let item = item.expect("likewise");
            // One whose time cannot be read stays where it stands.
            before = item.at.unwrap_or(before);
            items.push((before, item));
        }
        // One that has moved since its log was asked where it stands is newer than that.
        items.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        items.into_iter().map(|(_, item)| item).collect()
    }

    /// The log whose next item is the newest; what cannot be shown is passed over.
    fn newest(&mut self) -> Option<usize> {
        for (of_log, below) in self.listed.iter_mut().zip(&mut self.below) {
            while let Some((place, None)) = of_log.front() {
                *below = *place;
                of_log.pop_front();
            }
        }
        let at = |log: &usize| self.listed[*log].front().and_then(|(_, item)| item.as_ref()?.at);
        let logs = (0..self.listed.len()).filter(|log| !self.listed[*log].is_empty());
        // Of what cannot be read nobody knows the time: it must not hold up what is behind it.
        logs.max_by_key(|log| at(log).map_or(u64::MAX, |at| at.0))
    }
}

impl UserSide {
    /// Begins a page of a session's list.
    pub(super) fn list_conversations(
        &mut self,
        id: SessionId,
        number: RequestId,
        after: Option<&str>,
        limit: u32,
    ) {
        let places = self.places.clone();
        let Some(session) = self.session(id) else {
            return;
        };
        let below = match after.map(|after| bookmark::decode(&places, &session.user, after)) {
            Some(None) => return self.refuse(id, number, ErrorCode::BadField, FOREIGN),
            Some(below) => below,
            None => None,
        };
        let listing = Listing::new(number, limit, below, usize::from(places.logs));
        self.hold(id, Held::Listing(Box::new(listing)));
    }

    /// What a list that is being made asks for next.
    pub(super) fn next_of_list(&self, id: SessionId, session: &Session, listing: &Listing) -> (u16, Request) {
        let (shard, user) = (self.shard, session.user.clone());
        let unknown = listing.next.iter().enumerate();
        let unknown = unknown.filter_map(|(log, after)| after.map(|after| (log as u16, after))).next();
        if let Some((log, after)) = unknown {
            let memberships = self.places.user_stream(&user, Kind::Memberships);
            return (log, Request::Memberships { session: id, shard, log, user, memberships, after });
        }
        let Some((log, asked)) = listing.unasked.front() else {
            let log = self.places.settings_log_of(&user);
            return (log, Request::Settings { session: id, shard, user });
        };
        let conversations = asked.iter().map(|(_, conversation)| *conversation).collect();
        let (log, has_waited) = (*log, false);
        (log, Request::List { session: id, shard, log, user, conversations, has_waited })
    }

    fn listing(&mut self, id: SessionId) -> Option<&mut Listing> {
        match self.session(id)?.held.front_mut() {
            Some(Held::Listing(listing)) => Some(listing),
            Some(Held::Ended { .. } | Held::Page(_) | Held::Search(_)) | None => None,
        }
    }

    pub(super) fn handle_memberships(
        &mut self,
        id: SessionId,
        log: u16,
        found: Vec<Membership>,
        more_after: Option<u64>,
        partial: bool,
    ) {
        self.page_arrived(id);
        if let Some(searching) = self.searching(id) {
            searching.note_memberships(log, found, more_after, partial);
            return self.go_on_searching(id);
        }
        if let Some(listing) = self.listing(id) {
            listing.partial |= partial;
            listing.note_memberships(log, found, more_after);
        }
        self.go_on_listing(id);
    }

    pub(super) fn handle_listed(&mut self, id: SessionId, items: Vec<Option<ListedItem>>, partial: bool) {
        self.page_arrived(id);
        if let Some(listing) = self.listing(id) {
            listing.partial |= partial;
            listing.note_listed(items);
        }
        self.go_on_listing(id);
    }

    pub(super) fn handle_settings(
        &mut self,
        id: SessionId,
        mutes: Option<Vec<(ConversationId, UnixMillis)>>,
        now: UnixMillis,
    ) {
        self.page_arrived(id);
        if let Some(listing) = self.listing(id) {
            listing.note_mutes(mutes, now);
        }
        self.go_on_listing(id);
    }

    fn go_on_listing(&mut self, id: SessionId) {
        if self.listing(id).is_some_and(|listing| listing.is_done()) {
            self.answer_list(id);
        }
        self.ask_pages(id);
    }

    fn answer_list(&mut self, id: SessionId) {
        let places = self.places.clone();
        let Some(session) = self.session(id) else {
            return;
        };
        let Some(Held::Listing(mut listing)) = session.held.pop_front() else {
            return;
        };
        let items = listing.merge(session.form);
        let more = listing.left;
        let after = more.then(|| bookmark::encode(&places, &session.user, &listing.below));
        let end = ListEnd { more, after, partial: listing.partial };
        let frame = list_frame(session.form, listing.id, &items, &end);
        session.outbox.push(frame, true);
        self.list(id);
    }
}

fn list_frame(form: Form, id: RequestId, items: &[ListedItem], end: &ListEnd) -> Bytes {
    frames::frame(form, &list_payload(form, id, items, end))
}

fn list_payload(form: Form, id: RequestId, items: &[ListedItem], end: &ListEnd) -> Vec<u8> {
    let items = items.iter().map(|item| {
        let last = item.last.as_deref().map(frames::stored);
        StoredListed { listed: &item.listed, last }
    });
    let items: Vec<StoredListed<'_>> = items.collect();
    let mut payload = Vec::with_capacity(1024);
    ServerFrame::encode_list(form, id, &items, end, &mut payload);
    payload
}

/// Bytes of a page that one takes: text that is all escapes grows sixfold in JSON.
fn encoded_bytes(form: Form, item: &ListedItem) -> usize {
    list_payload(form, RequestId(1), std::slice::from_ref(item), &ListEnd::default()).len()
}

#[cfg(test)]
mod tests {
    use protocol::command::Retention;
    use protocol::event::{ListedConversation, ListedKind};
    use protocol::ids::Seq;

    use super::*;

    fn item(conversation: ConversationId) -> Option<ListedItem> {
        let kind = ListedKind::Group { title: "a group".to_owned() };
        let (members_count, head, read, unread, last) = (2, Seq(1), Seq(1), 0, None);
        let listed = ListedConversation {
            conversation,
            kind,
            members_count,
            head,
            read,
            unread,
            muted_until: None,
            blocked: false,
            retention: Retention::default(),
            last,
        };
        Some(ListedItem { listed, at: Some(UnixMillis(5)), last: None })
    }

    /// After a start from a snapshot of before, or on an index that was made again beside damage, all conversations of a segment
    /// stand at its first position.
    #[test]
    fn conversations_that_stand_at_one_position_are_listed_over_pages() {
        let all: Vec<ConversationId> = (0..5).map(|number| ConversationId([number; 16])).collect();
        let (mut seen, mut below) = (Vec::new(), None);
        for _ in &all {
            let mut listing = Listing::new(RequestId(1), 2, below, 1);
            let found = all.iter().map(|id| Membership {
                conversation: *id,
                visible_from: Some(Seq(1)),
                head_position: 7,
            });
            listing.note_memberships(0, found.collect(), None);
            let asked: Vec<Place> =
                listing.unasked.front().map(|(_, asked)| asked.clone()).unwrap_or_default();
            listing.note_listed(asked.iter().map(|(_, conversation)| item(*conversation)).collect());
            listing.note_mutes(Some(Vec::new()), UnixMillis(5));
            assert!(listing.is_done());
            seen.extend(listing.merge(Form::Json).into_iter().map(|item| item.listed.conversation));
            if !listing.left {
                break;
            }
            below = Some(listing.below);
        }
        seen.sort_unstable();
        assert_eq!(seen, all);
    }
}
