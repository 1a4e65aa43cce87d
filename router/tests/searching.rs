//! Searches, with an index that is wrong in every way it can be: it names everything, and what comes out is what its user may see and has
//! the words.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{
    Command, Create, Edit, HistoryPolicy, Members, MessageKind, Request, Retention, Search, Send, Target,
};
use protocol::event::{ErrorCode, FoundEnd, ServerFrame};
use protocol::ids::{ConversationId, Seq, UnixMillis};
use protocol::limits::{HITS_MAX, SNIPPET_BYTES_MAX};
use router::UserSide;
use router::conversation::Subject;
use router::index::{HitPlace, IndexAnswer, IndexAsk};
use router::mail::SessionId;
use router::places::direct_conversation;
use router::user::UserLimits;

use support::{Chat, answer, send, user};

/// An index that names every sequence, up to one that there is not, of every conversation that it is asked for, and of others from the first on,
/// which it is not asked for.
fn everything(ask: &IndexAsk, others: &[ConversationId]) -> IndexAnswer {
    let of_one = |(conversation, from): &(ConversationId, Seq)| {
        let conversation = *conversation;
        (from.0..=60).map(move |seq| HitPlace { at: UnixMillis(seq), conversation, seq: Seq(seq) })
    };
    let others: Vec<_> = others.iter().map(|other| (*other, Seq(1))).collect();
    let asked = ask.scope.iter().filter(|(asked, _)| others.iter().all(|(other, _)| other != asked));
    let mut all: Vec<HitPlace> = asked.chain(&others).flat_map(of_one).collect();
    all.sort_unstable_by_key(|place| std::cmp::Reverse(*place));
    all.retain(|place| ask.before.is_none_or(|before| *place < before));
    let more = all.len() > ask.candidates_max;
    all.truncate(ask.candidates_max);
    IndexAnswer { session: ask.session, candidates: all, more, partial: false }
}

struct World {
    chat: Chat,
    alice: SessionId,
    bob: SessionId,
    /// What the index names whether it is asked for it or not.
    others: Vec<ConversationId>,
}

impl World {
    fn new() -> Self {
        let mut chat = Chat::new();
        let places = std::sync::Arc::new(router::Places::new([1; 16], [2; 32], 1, 1));
        let starts = std::sync::Arc::new(router::Starts::new(vec![chat.log.runs().to_vec()]));
        let limits = UserLimits { searches: true, ..UserLimits::default() };
        chat.users = UserSide::new(places, starts, router::ShardId(0), limits, 1);
        chat.wait(0);
        let (alice, welcome) = chat.connect("alice", None);
        let says_so = welcome.iter().any(|frame| {
            matches!(frame, ServerFrame::Welcome(welcome) if welcome.features.iter().any(|feature| feature == "search"))
        });
        assert!(says_so, "{welcome:?}");
        let (bob, _) = chat.connect("bob", None);
        Self { chat, alice, bob, others: Vec::new() }
    }

    /// What a session finds, over as many pages as there are: sequences, newest first, with what is said of them.
    fn find(
        &mut self,
        who: SessionId,
        query: &str,
        conversation: Option<ConversationId>,
    ) -> Vec<(u64, String)> {
        let (mut before, mut seen) = (None, Vec::new());
        loop {
            let search = Search { query: query.to_owned(), conversation, before, limit: 7 };
            let (hits, end) = self.page(who, search).expect("a page");
            assert!(!end.partial && end.more == end.before.is_some());
            seen.extend(hits);
            if !end.more {
                return seen;
            }
            before = end.before;
        }
    }

    fn page(&mut self, who: SessionId, search: Search) -> Result<(Vec<(u64, String)>, FoundEnd), ErrorCode> {
        self.chat.request(who, Command::Search(search));
        let mut frames = self.chat.exchange(who);
        while let Some(ask) = self.chat.users.poll_ask() {
            self.chat.users.handle_index(everything(&ask, &self.others));
            frames.extend(self.chat.exchange(who));
        }
        let replies = frames.into_iter().filter_map(|frame| match frame {
            ServerFrame::Found { hits, end, .. } => {
                Some(Ok((hits.into_iter().map(|hit| (hit.seq.0, hit.snippet)).collect(), end)))
            }
            ServerFrame::Error(error) => Some(Err(error.code)),
            _ => None,
        });
        let mut replies: Vec<_> = replies.collect();
        assert_eq!(replies.len(), 1, "every command has one reply");
        replies.pop().expect("looked at")
    }

    fn seqs(&mut self, who: SessionId, query: &str) -> Vec<u64> {
        self.find(who, query, None).into_iter().map(|(seq, _)| seq).collect()
    }
}

fn with_bob() -> ConversationId {
    direct_conversation(&user("alice"), &user("bob"))
}

#[test]
fn what_is_found_is_what_its_user_may_see_and_still_has_the_words() {
    let mut world = World::new();
    for (number, text) in (0..).zip(["Red fish", "blue fish", "red", "fish, RED and old"]) {
        answer(&world.chat.command(world.alice, send("bob", text, support::id_of(support::NOW.0, number))))
            .expect("stored");
    }
    let (alice, bob) = (world.alice, world.bob);
    assert_eq!(world.seqs(bob, "fish red"), [4, 1]);
    assert_eq!(world.find(alice, "\"OLD\"", None), [(4, "fish, RED and old".to_owned())]);
    assert_eq!(world.seqs(alice, "fis"), [] as [u64; 0]);
    assert_eq!(world.seqs(alice, "?!"), [] as [u64; 0], "no words, no hits, no error");
    // An edit is found by what it says, and at its message's place; a deletion by nothing.
    let conversation = with_bob();
    let edit = Edit { conversation, seq: Seq(1), text: "green bird".to_owned(), message_id: None };
    answer(&world.chat.command(alice, Command::Edit(edit))).expect("stored");
    answer(&world.chat.command(alice, Command::Delete { conversation, seq: Seq(4), message_id: None }))
        .expect("stored");
    assert_eq!(world.seqs(bob, "red"), [3]);
    assert_eq!(world.find(bob, "bird", Some(conversation)), [(1, "green bird".to_owned())]);
    // Who is not in it learns nothing, also where the index is asked about one thing and speaks of another.
    world.others.push(conversation);
    let (mallory, _) = world.chat.connect("mallory", None);
    assert_eq!(world.seqs(mallory, "blue"), [] as [u64; 0]);
    let search = |conversation| Search { query: "blue".to_owned(), conversation, before: None, limit: 1 };
    assert_eq!(world.page(mallory, search(Some(conversation))).err(), Some(ErrorCode::NotAMember));
    let nowhere = Some(ConversationId([3; 16]));
    assert_eq!(world.page(mallory, search(nowhere)).err(), Some(ErrorCode::NotFound));
    // After that it goes on as ever.
    assert_eq!(world.seqs(mallory, "blue"), [] as [u64; 0]);
    world.others.clear();
    assert_eq!(world.seqs(mallory, "blue"), [] as [u64; 0]);
    // What an operator has erased.
    world.chat.side.erase(&Subject::User(user("alice")), world.chat.log.newest_position());
    assert_eq!(world.seqs(bob, "blue"), [] as [u64; 0]);
}

/// However far behind the index is, which goes on naming it.
#[test]
fn nobody_finds_what_is_not_kept_any_more() {
    let mut world = World::new();
    let (alice, bob, conversation) = (world.alice, world.bob, with_bob());
    for text in ["fish one", "fish two", "fish three"] {
        answer(&world.chat.command(alice, send("bob", text, None))).expect("stored");
    }
    let retention = Retention { days: Some(1), last: Some(3) };
    let set = Command::Retention { conversation, retention, message_id: None };
    answer(&world.chat.command(alice, set)).expect("stored");
    assert_eq!(world.seqs(bob, "fish"), [3, 2]);
    world.chat.wait(24 * 60 * 60 * 1_000 + 1);
    assert_eq!(world.seqs(bob, "fish"), [] as [u64; 0]);
}

#[test]
fn a_member_finds_what_came_since_the_join_and_nothing_after_leaving() {
    let mut world = World::new();
    let (alice, bob) = (world.alice, world.bob);
    let create = Create {
        title: "talk".to_owned(),
        members: vec![user("carol")],
        history: HistoryPolicy::Joined,
        message_id: support::id_of(support::NOW.0, 1),
    };
    let frames = world.chat.command(alice, Command::Create(create));
    let conversation = frames.iter().find_map(|frame| match frame {
        ServerFrame::Ok(ok) => ok.conversation,
        _ => None,
    });
    let conversation = conversation.expect("made");
    let say = |world: &mut World, text: &str| {
        let (target, kind) = (Target::Conversation(conversation), MessageKind::Text);
        let (media, reply_to, mentions, message_id) = (None, None, Vec::new(), None);
        let send = Send { target, kind, text: text.to_owned(), media, reply_to, mentions, message_id };
        answer(&world.chat.command(alice, Command::Send(send))).expect("stored")
    };
    let change = |world: &mut World, add: &[&str], remove: &[&str]| {
        let users = |names: &[&str]| names.iter().map(|name| user(name)).collect();
        let (add, remove, roles, message_id) = (users(add), users(remove), Vec::new(), None);
        let members = Members { conversation, add, remove, roles, message_id };
        answer(&world.chat.command(alice, Command::Members(members))).expect("stored");
    };
    say(&mut world, "the word before");
    change(&mut world, &["bob"], &[]);
    let after = say(&mut world, "the word after");
    world.others.push(conversation);
    assert_eq!(world.seqs(bob, "word"), [after]);
    assert_eq!(world.find(bob, "word", Some(conversation)), [(after, "the word after".to_owned())]);
    assert_eq!(world.seqs(alice, "word").len(), 2);
    // A conversation side that has forgotten all of it reads it again.
    world.chat.forget();
    assert_eq!(world.seqs(bob, "word"), [after]);
    change(&mut world, &[], &["bob"]);
    assert_eq!(world.seqs(bob, "word"), [] as [u64; 0]);
    let search =
        Search { query: "word".to_owned(), conversation: Some(conversation), before: None, limit: 1 };
    assert_eq!(world.page(bob, search).err(), Some(ErrorCode::NotAMember));
}

/// Pages of long messages, with more than one request names, and a bookmark of somebody else.
#[test]
fn pages_go_on_where_they_ended() {
    let mut world = World::new();
    let (alice, bob) = (world.alice, world.bob);
    for number in 0..50 {
        let text = if number % 3 == 0 { format!("needle {}", "x".repeat(12_000)) } else { "hay".to_owned() };
        answer(&world.chat.command(alice, send("bob", &text, support::id_of(support::NOW.0, number))))
            .expect("stored");
    }
    let needles: Vec<u64> = (0..50).rev().filter(|number| number % 3 == 0).map(|number| number + 1).collect();
    let found = world.find(bob, "needle", None);
    assert!(found.iter().all(|(_, snippet)| snippet.len() <= SNIPPET_BYTES_MAX));
    assert_eq!(found.into_iter().map(|(seq, _)| seq).collect::<Vec<_>>(), needles);
    // Hardly anything has the words: each page looks at some and says that there may be more.
    assert_eq!(world.seqs(bob, "nothing"), [] as [u64; 0]);
    let search = |before| Search { query: "needle".to_owned(), conversation: None, before, limit: HITS_MAX };
    let (_, end) = world.page(bob, Search { limit: 1, ..search(None) }).expect("a page");
    assert!(end.more);
    assert_eq!(world.page(alice, search(end.before.clone())).err(), Some(ErrorCode::BadField));
    let (hits, _) = world.page(bob, search(end.before)).expect("a page");
    assert_eq!(hits.len(), needles.len() - 1);
}

#[test]
fn a_node_without_an_index_says_so_and_one_that_is_busy_says_when() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let search = |conversation| Search { query: "word".to_owned(), conversation, before: None, limit: 1 };
    assert_eq!(answer(&chat.command(alice, Command::Search(search(None)))), Err(ErrorCode::NotAllowed));
    let mut world = World::new();
    answer(&world.chat.command(world.alice, send("bob", "word", None))).expect("stored");
    // As many as the index works on at a time, of sessions that go away, whose places are kept until they are answered.
    let mut asks = Vec::new();
    for number in 0..router::user::ASKS_MAX {
        let (session, _) = world.chat.connect(&format!("user {number}"), None);
        world.chat.request(session, Command::Search(search(None)));
        world.chat.exchange(session);
        asks.push(world.chat.users.poll_ask().expect("it is asked"));
        world.chat.users.disconnect(session);
    }
    let bob = world.bob;
    assert_eq!(world.page(bob, search(None)).err(), Some(ErrorCode::Busy));
    world.chat.users.handle_index(everything(&asks[0], &[]));
    let all = Search { limit: HITS_MAX, ..search(None) };
    assert_eq!(world.page(bob, all).expect("a page").0, [(1, "word".to_owned())]);
}

/// The index may take seconds, and an upgrade waits for nothing that long.
#[test]
fn a_search_is_waited_for_by_nobody_who_stands_still_and_is_asked_again_or_goes_on() {
    let mut world = World::new();
    let (alice, bob) = (world.alice, world.bob);
    answer(&world.chat.command(alice, send("bob", "an apple", None))).expect("stored");
    let search = || Search { query: "apple".to_owned(), conversation: None, before: None, limit: HITS_MAX };
    world.chat.request(alice, Command::Search(search()));
    world.chat.exchange(alice);
    let ask = world.chat.users.poll_ask().expect("it is asked");
    world.chat.users.pause();
    // One that comes while it stands still is not begun.
    world.chat.request(bob, Command::Search(search()));
    world.chat.exchange(bob);
    assert!(world.chat.users.poll_ask().is_none());
    assert_eq!(world.chat.users.requests_under_way(), 0);
    let is_search = |session: SessionId, chat: &Chat| {
        let asked = chat.users.describe(session, &[]).expect("a session").asked;
        matches!(asked[..], [Request { command: Command::Search(_), .. }])
    };
    assert!(is_search(alice, &world.chat) && is_search(bob, &world.chat));
    // The index answers now, and nothing comes of it.
    world.chat.users.handle_index(everything(&ask, &[]));
    assert_eq!(world.chat.exchange(alice), []);
    assert!(is_search(alice, &world.chat));
    world.chat.users.unpause();
    world.chat.wait(0);
    let found = |frames: Vec<ServerFrame>| match frames.into_iter().next() {
        Some(ServerFrame::Found { hits, .. }) => hits.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(found(world.chat.exchange(alice)), 1);
    let ask = world.chat.users.poll_ask().expect("it is asked");
    world.chat.users.handle_index(everything(&ask, &[]));
    assert_eq!(found(world.chat.exchange(bob)), 1);
    assert_eq!(world.chat.users.requests_under_way(), 0);
}

#[test]
fn an_index_that_hangs_keeps_nobody_from_messages() {
    let mut world = World::new();
    let (alice, bob) = (world.alice, world.bob);
    answer(&world.chat.command(alice, send("bob", "an apple", None))).expect("stored");
    let search = || Search { query: "apple".to_owned(), conversation: None, before: None, limit: HITS_MAX };
    world.chat.request(bob, Command::Search(search()));
    world.chat.exchange(bob);
    let ask = world.chat.users.poll_ask().expect("it is asked");
    world.chat.request(bob, Command::Conversations { after: None, limit: 1 });
    world.chat.wait(9_999);
    assert_eq!(world.chat.exchange(bob), [], "it waits for the search");
    world.chat.wait(1);
    let frames = world.chat.exchange(bob);
    let [ServerFrame::Found { hits, end, .. }, ServerFrame::Conversations { .. }] = &frames[..] else {
        panic!("{frames:?}")
    };
    assert!(hits.is_empty() && end.partial && !end.more);
    assert_eq!(world.chat.users.requests_under_way(), 0);
    // It has room for no more of this session until it answers, and that answer is nobody's.
    world.chat.request(bob, Command::Search(search()));
    let frames = world.chat.exchange(bob);
    assert!(
        matches!(&frames[..], [ServerFrame::Error(error)] if error.code == ErrorCode::Busy),
        "{frames:?}"
    );
    world.chat.users.handle_index(everything(&ask, &[]));
    assert_eq!(world.chat.exchange(bob), []);
    world.chat.request(bob, Command::Search(search()));
    world.chat.exchange(bob);
    let ask = world.chat.users.poll_ask().expect("it is asked again");
    world.chat.users.handle_index(everything(&ask, &[]));
    let frames = world.chat.exchange(bob);
    assert!(matches!(&frames[..], [ServerFrame::Found { end, .. }] if !end.partial), "{frames:?}");
}

#[test]
fn a_search_that_is_given_up_after_it_has_found_something_can_be_gone_on_with() {
    let mut world = World::new();
    let (alice, bob) = (world.alice, world.bob);
    answer(&world.chat.command(alice, send("bob", "an apple", None))).expect("stored");
    let search = Search { query: "apple".to_owned(), conversation: None, before: None, limit: HITS_MAX };
    world.chat.request(bob, Command::Search(search.clone()));
    world.chat.exchange(bob);
    let ask = world.chat.users.poll_ask().expect("it is asked");
    world.chat.users.handle_index(IndexAnswer { more: true, ..everything(&ask, &[]) });
    assert_eq!(world.chat.exchange(bob), [], "one of so many: the index is asked again");
    let again = world.chat.users.poll_ask().expect("it is asked again");
    world.chat.wait(10_000);
    let frames = world.chat.exchange(bob);
    let [ServerFrame::Found { hits, end, .. }] = &frames[..] else { panic!("{frames:?}") };
    assert!(hits.len() == 1 && end.partial && end.more, "{frames:?}");
    let before = end.before.clone();
    assert!(before.is_some(), "{frames:?}");
    world.chat.users.handle_index(everything(&again, &[]));
    let (hits, end) = world.page(bob, Search { before, ..search }).expect("a page");
    assert!(hits.is_empty() && !end.partial && !end.more, "{hits:?} {end:?}");
}
