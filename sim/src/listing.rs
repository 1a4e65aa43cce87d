//! Clients that ask what they are in: now and then while the world is busy, and all of them once at rest.
//!
//! `unread_is_exact`, whatever crashed: every conversation of a user is listed exactly once, newest first, with what a recount says, and to
//! all devices alike.

use std::collections::BTreeMap;

use protocol::command::Command;
use protocol::event::{ListEnd, ListedConversation, PageItem};
use protocol::ids::{ConversationId, RequestId, UnixMillis, UserId};

use crate::Rng;
use crate::keeping::Since;
use crate::oracle::{Oracle, Truth, members_of};
use crate::unread::Told;
use crate::world::World;

/// The list of one client.
#[derive(Default)]
pub(crate) struct Listing {
    /// Where anybody asks before the end.
    pub(crate) dice: Option<Rng>,
    /// Pages asked for now and then, and when.
    asked: BTreeMap<RequestId, Since>,
    /// Where the page before ended.
    after: Option<String>,
    last: Last,
}

/// The list at rest.
#[derive(Default)]
enum Last {
    #[default]
    Unwanted,
    /// To be asked for from the beginning.
    Wanted,
    /// The next page is to be asked for, or is.
    Under {
        asked: Option<(RequestId, Since)>,
        after: Option<String>,
        told: Vec<ListedConversation>,
    },
    Told(Vec<ListedConversation>),
}

impl Listing {
    /// The world is at rest otherwise: whether the list has been told, which is asked for if it was not yet.
    pub(crate) fn is_told(&self) -> bool {
        matches!(self.last, Last::Told(_))
    }

    pub(crate) fn want(&mut self) {
        if matches!(self.last, Last::Unwanted) {
            self.last = Last::Wanted;
        }
    }

    /// A page of the list at rest, if that is wanted: short ones, so that there are several.
    pub(crate) fn next_page(&mut self, id: RequestId, now: Since) -> Option<Command> {
        if matches!(self.last, Last::Wanted) {
            self.last = Last::Under { asked: None, after: None, told: Vec::new() };
        }
        let Last::Under { asked: asked @ None, after, .. } = &mut self.last else {
            return None;
        };
        *asked = Some((id, now));
        Some(Command::Conversations { after: after.clone(), limit: 3 })
    }

    /// Some page, as the dice have it.
    pub(crate) fn act(&mut self, id: RequestId, now: Since) -> Option<Command> {
        let rng = self.dice.as_mut()?;
        if !rng.one_in(12) {
            return None;
        }
        self.asked.insert(id, now);
        let after = self.after.take().filter(|_| rng.one_in(2));
        Some(Command::Conversations { after, limit: rng.between(1, 51) as u32 })
    }

    /// A connection begins: what was asked for on the one before is not answered, and is asked for again.
    pub(crate) fn begin(&mut self) {
        self.asked.clear();
        self.ask_again();
    }

    fn ask_again(&mut self) {
        if let Last::Under { asked, .. } = &mut self.last {
            *asked = None;
        }
    }

    /// Something was refused: if it is this, it is asked for again.
    pub(crate) fn refused(&mut self, refused: Option<RequestId>) {
        if matches!(&self.last, Last::Under { asked, .. } if asked.map(|(id, _)| id) == refused) {
            self.ask_again();
        }
    }

    /// When a page was asked for.
    pub(crate) fn asked_at(&self, id: RequestId) -> Option<Since> {
        let at_rest = if let Last::Under { asked, .. } = &self.last { *asked } else { None };
        at_rest.filter(|(asked, _)| *asked == id).map(|(_, at)| at).or_else(|| self.asked.get(&id).copied())
    }

    /// A page has come. When it was asked for, if that was before the end.
    pub(crate) fn told(
        &mut self,
        id: RequestId,
        page: Vec<ListedConversation>,
        end: ListEnd,
    ) -> Option<Since> {
        if let Last::Under { asked, after, told } = &mut self.last
            && asked.is_some_and(|(asked, _)| asked == id)
        {
            if end.partial {
                self.last = Last::Wanted;
                return None;
            }
            told.extend(page);
            (*asked, *after) = (None, end.after);
            if after.is_none() {
                self.last = Last::Told(std::mem::take(told));
            }
            return None;
        }
        self.after = end.after;
        self.asked.remove(&id)
    }

    /// What was told at rest is what a recount says.
    pub(crate) fn check(
        &self,
        user: &UserId,
        members: &BTreeMap<ConversationId, std::collections::BTreeSet<UserId>>,
        oracle: &Oracle,
    ) {
        let Last::Told(told) = &self.last else {
            panic!("the world is at rest: {user} was told its list");
        };
        let mut listed: Vec<ConversationId> = told.iter().map(|told| told.conversation).collect();
        let places = told.iter().map(|told| (told.conversation, told.head.0));
        let times: Vec<u64> = places.map(|place| oracle.durable[&place].at).collect();
        assert!(times.is_sorted_by(|one, next| one >= next), "list: {user} was told {times:?}");
        for pair in told.windows(2) {
            let place = |told: &ListedConversation| oracle.positions.get(&(told.conversation, told.head.0));
            let (Some(one), Some(next)) = (place(&pair[0]), place(&pair[1])) else { continue };
            assert!(one.0 != next.0 || one.1 > next.1, "list: {user} was told {pair:?}: {one:?} {next:?}");
        }
        listed.sort_unstable();
        let mine = members.iter().filter(|(_, members)| members.contains(user)).map(|(of, _)| *of);
        assert_eq!(listed, mine.collect::<Vec<_>>(), "list: {user} is in these, each once");
    }

    /// What was told at rest.
    pub(crate) fn at_rest(&self) -> impl Iterator<Item = &ListedConversation> {
        let told = if let Last::Told(told) = &self.last { told.as_slice() } else { &[] };
        told.iter()
    }
}

impl World {
    /// At rest everybody asks what it is in, and has been told.
    pub(crate) fn has_told_lists(&mut self) -> bool {
        let deaf: Vec<bool> = (0..self.clients.len()).map(|client| self.is_deaf(client)).collect();
        let listening = self.clients.iter_mut().zip(deaf).filter(|(_, is_deaf)| !is_deaf);
        listening.fold(true, |all, (client, _)| {
            client.listing.want();
            all && client.listing.is_told()
        })
    }
}

/// Holds a page against what is true.
pub(crate) fn check_page(
    user: &UserId,
    page: &[ListedConversation],
    since: Option<Since>,
    oracle: &mut Oracle,
) {
    for listed in page {
        let ListedConversation { conversation, head, read, unread, .. } = *listed;
        let place = (conversation, head.0);
        assert!(oracle.durable.contains_key(&place), "acked_is_durable: {place:?} is listed and not on disk");
        oracle.told_unread(user, Told { conversation, head, read, unread }, since);
        let seq = match &listed.last {
            Some(PageItem::Amended(event)) => event.seq,
            Some(PageItem::Member(event)) => event.seq,
            Some(PageItem::Message(event)) => event.seq,
            Some(PageItem::Gap(gap)) => panic!("list: {user} was told {gap:?}"),
            None => continue,
        };
        assert_eq!(seq, head, "list: {user} was told {listed:?}");
    }
}

/// Every client that reads was told all that its user is in, and all devices of a user the same.
pub(crate) fn check_lists<'c>(
    clients: impl Iterator<Item = (&'c UserId, &'c Listing)>,
    log: &BTreeMap<(ConversationId, u64), Truth>,
    direct: &BTreeMap<ConversationId, [UserId; 2]>,
    oracle: &mut Oracle,
    now: UnixMillis,
) {
    // A direct conversation is there from its first message on.
    let there = |of: &ConversationId| log.range((*of, 0)..=(*of, u64::MAX)).next().is_some();
    let direct = direct.iter().filter(|(of, _)| there(of)).map(|(of, users)| (*of, users.clone())).collect();
    let members = members_of(log, &direct);
    let mut known = BTreeMap::new();
    for (user, listing) in clients {
        listing.check(user, &members, oracle);
        for told in listing.at_rest() {
            let place = (user, told.conversation);
            // By how long something is kept there may be less of it a moment later; each was held against what there was when it was told.
            let unread = if oracle.keeping.day_ms > 0 { 0 } else { told.unread };
            let all = (told.head.0, told.read.0, unread, told.muted_until);
            let other = *known.entry(place).or_insert(all);
            assert_eq!(all, other, "unread_is_exact: the devices of {place:?} differ");
            oracle.check_not_forgotten(user, told.conversation, told.read);
            let blocks = oracle.blocks.who(told.conversation).contains(user);
            assert_eq!(told.blocked, blocks, "blocked_is_silent: {place:?}");
            oracle.mutes.check(user, told.conversation, told.muted_until, now);
        }
    }
}
