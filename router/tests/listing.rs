//! `conversations`: everything that a user is in, newest activity first, with what is unread of it.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;

use protocol::command::{Command, Create, Edit, HistoryPolicy, Members, MessageKind, React, Send, Target};
use protocol::event::{ErrorCode, ListEnd, ListedConversation, ListedKind, PageItem, ServerFrame};
use protocol::ids::{ConversationId, MessageId, Seq, UserId};
use protocol::limits::PAGE_BYTES_MAX;
use router::mail::SessionId;
use router::places::{created_conversation, direct_conversation};
use storage_log::Geometry;
use storage_log::format::BLOCK_BYTES_MIN;

use support::{Chat, NOW, answer, id_of, send, user};

/// How long positions are gathered, in milliseconds.
const GATHERED: u64 = 1_000;

/// One page.
fn page(
    chat: &mut Chat,
    session: SessionId,
    after: Option<String>,
    limit: u32,
) -> (Vec<ListedConversation>, ListEnd) {
    let frames = chat.command(session, Command::Conversations { after, limit });
    let pages = frames.into_iter().filter_map(|frame| match frame {
        ServerFrame::Conversations { conversations, end, .. } => Some((conversations, end)),
        ServerFrame::Error(error) => panic!("{error:?}"),
        _ => None,
    });
    let mut pages: Vec<_> = pages.collect();
    assert_eq!(pages.len(), 1, "one answer");
    pages.pop().expect("looked at")
}

/// All pages, in pages of `limit`.
fn list(chat: &mut Chat, session: SessionId, limit: u32) -> Vec<ListedConversation> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (listed, end) = page(chat, session, after, limit);
        assert!(!end.partial && listed.len() <= limit as usize);
        assert_eq!(end.more, end.after.is_some());
        all.extend(listed);
        match end.after {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

fn create(chat: &mut Chat, session: SessionId, name: &str, number: u8, members: &[&str]) -> ConversationId {
    let id = id_of(NOW.0, number);
    let members = members.iter().map(|name| user(name)).collect();
    let (title, history) = (format!("group {number}"), HistoryPolicy::All);
    let create = Create { title, members, history, message_id: id };
    answer(&chat.command(session, Command::Create(create))).expect("stored");
    created_conversation(&user(name), id.expect("an id"))
}

fn say(conversation: ConversationId, text: &str) -> Command {
    let (target, kind, text) = (Target::Conversation(conversation), MessageKind::Text, text.to_owned());
    let (media, reply_to, mentions, message_id) = (None, None, Vec::new(), None);
    Command::Send(Send { target, kind, text, media, reply_to, mentions, message_id })
}

fn change(conversation: ConversationId, add: Vec<UserId>, remove: Vec<UserId>) -> Command {
    Command::Members(Members { conversation, add, remove, roles: Vec::new(), message_id: None })
}

fn ids(listed: &[ListedConversation]) -> Vec<ConversationId> {
    listed.iter().map(|listed| listed.conversation).collect()
}

#[test]
fn a_list_says_of_each_what_it_is_and_what_is_new() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    assert_eq!(list(&mut chat, alice, 50), []);
    answer(&chat.command(bob, send("alice", "hello", id_of(NOW.0, 1)))).expect("stored");
    chat.wait(1);
    let group = create(&mut chat, alice, "alice", 2, &["bob", "carol"]);
    chat.wait(1);
    answer(&chat.command(bob, say(group, "one"))).expect("stored");
    let direct = direct_conversation(&user("alice"), &user("bob"));

    let listed = list(&mut chat, alice, 50);
    assert_eq!(ids(&listed), [group, direct]);
    assert_eq!(listed[0].kind, ListedKind::Group { title: "group 2".to_owned() });
    assert_eq!(listed[1].kind, ListedKind::Direct { peer: user("bob") });
    let of = |listed: &ListedConversation| (listed.head.0, listed.read.0, listed.unread);
    assert_eq!((of(&listed[0]), listed[0].members_count), ((2, 1, 1), 3));
    assert_eq!((of(&listed[1]), listed[1].members_count), ((1, 0, 1), 2));
    let text = |listed: &ListedConversation| match &listed.last {
        Some(PageItem::Message(message)) => message.text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((text(&listed[0]), text(&listed[1])), ("one".to_owned(), "hello".to_owned()));
    let listed = list(&mut chat, bob, 50);
    assert_eq!(listed[1].kind, ListedKind::Direct { peer: user("alice") });
    assert_eq!((of(&listed[0]), of(&listed[1])), ((2, 2, 0), (1, 1, 0)), "he wrote both");

    // What moves goes to the front, also by what is no message; and it is told in its present form.
    chat.wait(1);
    chat.command(alice, Command::Read { conversation: direct, seq: Seq(1) });
    let (seq, message_id) = (Seq(1), None);
    answer(
        &chat.command(
            bob,
            Command::Edit(Edit { conversation: direct, seq, text: "hi".to_owned(), message_id }),
        ),
    )
    .expect("stored");
    let listed = list(&mut chat, alice, 50);
    assert_eq!(ids(&listed), [direct, group]);
    assert_eq!(of(&listed[0]), (2, 1, 0), "an edit is not unread");
    assert!(matches!(&listed[0].last, Some(PageItem::Amended(edit)) if edit.target == Seq(1)));

    // Who is taken out is not told of it any more; nor who never was in it.
    answer(&chat.command(alice, change(group, vec![], vec![user("bob")]))).expect("stored");
    assert_eq!(ids(&list(&mut chat, bob, 50)), [direct]);
    let (carol, _) = chat.connect("carol", None);
    assert_eq!(ids(&list(&mut chat, carol, 50)), [group]);
}

#[test]
fn pages_hold_every_conversation_once_whatever_their_length() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let groups: Vec<ConversationId> =
        (0..120).map(|number| create(&mut chat, alice, "alice", number, &["bob"])).collect();
    let mut expected = groups.clone();
    for step in 0..40 {
        let moved = groups[step * 37 % 120];
        chat.wait(step as u64 % 2);
        answer(&chat.command(alice, say(moved, "moved"))).expect("stored");
        expected.retain(|of| *of != moved);
        expected.push(moved);
    }
    expected.reverse();
    for limit in [50, 7, 1] {
        assert_eq!(ids(&list(&mut chat, bob, limit)), expected, "pages of {limit}");
    }
    // One that moves while somebody turns the page is not told twice: the device was told as it moved.
    let (first, end) = page(&mut chat, bob, None, 50);
    answer(&chat.command(alice, say(expected[100], "now"))).expect("stored");
    let (second, _) = page(&mut chat, bob, end.after, 50);
    assert_eq!((ids(&first), ids(&second)), (expected[..50].to_vec(), expected[50..100].to_vec()));
}

#[test]
fn a_page_ends_where_it_is_full() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let made = (0..9).map(|number| {
        let group = create(&mut chat, alice, "alice", number, &["bob"]);
        // Each of these bytes takes six in JSON.
        let text = if number % 2 == 0 { "\0".repeat(6_000) } else { "x".repeat(16_000) };
        answer(&chat.command(alice, say(group, &text))).expect("stored");
        group
    });
    let mut groups: Vec<ConversationId> = made.collect();
    groups.reverse();
    let (mut all, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (listed, end) = page(&mut chat, bob, after, 50);
        let mut bytes = Vec::new();
        let frame = ServerFrame::Conversations {
            id: protocol::ids::RequestId(1),
            conversations: listed.clone(),
            end: end.clone(),
        };
        frame.encode(protocol::upgrade::Form::Json, &mut bytes);
        assert!(bytes.len() <= PAGE_BYTES_MAX + 1_024, "{} bytes", bytes.len());
        all.extend(ids(&listed));
        pages += 1;
        match end.after {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((all, pages > 3), (groups, true));
}

#[test]
fn where_to_go_on_is_for_one_user_only() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    create(&mut chat, alice, "alice", 1, &["bob"]);
    create(&mut chat, alice, "alice", 2, &["bob"]);
    let (_, end) = page(&mut chat, alice, None, 1);
    let after = end.after.expect("there is another");
    let refused = |chat: &mut Chat, after: String| {
        answer(&chat.command(bob, Command::Conversations { after: Some(after), limit: 1 }))
    };
    assert_eq!(refused(&mut chat, after.clone()), Err(ErrorCode::BadField));
    assert_eq!(refused(&mut chat, "nonsense".to_owned()), Err(ErrorCode::BadField));
    assert_eq!(page(&mut chat, alice, Some(after), 1).0.len(), 1);
}

/// The node serves what it has, and says that it is not all.
#[test]
fn a_log_that_is_not_served_makes_a_list_partial() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    create(&mut chat, alice, "alice", 1, &["bob"]);
    chat.request(alice, Command::Conversations { after: None, limit: 50 });
    while let Some((_, request)) = chat.users.poll_mail() {
        let (shard, reply) = request.into_unavailable();
        chat.users.handle_reply(shard, reply, chat.clock);
    }
    let frames = chat.take(alice);
    let [ServerFrame::Conversations { conversations, end, .. }] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((conversations.len(), end), (0, &ListEnd { partial: true, ..ListEnd::default() }));
    assert_eq!(chat.users.requests_under_way(), 0, "its credit is back");
    assert_eq!(list(&mut chat, alice, 50).len(), 1);
}

/// What is left of a newest record that was erased, or is damaged, is not shown, and holds up nothing.
#[test]
fn what_cannot_be_shown_is_left_out_and_the_conversation_is_not() {
    let mut chat = Chat::with_tail(4 << 10);
    chat.disk_reads = true;
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let group = create(&mut chat, alice, "alice", 1, &["bob"]);
    answer(&chat.command(bob, say(group, "words"))).expect("stored");
    answer(&chat.command(alice, send("bob", "hello", id_of(NOW.0, 2)))).expect("stored");
    let before = chat.written.len();
    answer(&chat.command(alice, send("bob", "again", id_of(NOW.0, 3)))).expect("stored");
    for number in 0..20 {
        create(&mut chat, alice, "alice", 100 + number, &["carol"]);
    }
    chat.side.erase(&router::conversation::Subject::User(user("bob")), u64::MAX);
    chat.bad_byte = Some(before + 200);
    let listed = list(&mut chat, bob, 50);
    let direct = direct_conversation(&user("alice"), &user("bob"));
    assert_eq!(ids(&listed), [direct, group]);
    assert!(listed.iter().all(|listed| listed.last.is_none()), "{listed:?}");
    assert_eq!((listed[0].head, listed[0].unread), (Seq(2), 2));
}

/// A recount of everything that was ever done.
#[derive(Default)]
struct Model {
    /// Per conversation: of each sequence, whether it is a message.
    records: BTreeMap<ConversationId, Vec<bool>>,
    /// In the order in which something last happened.
    order: Vec<ConversationId>,
    members: BTreeMap<ConversationId, Vec<usize>>,
    read: BTreeMap<(ConversationId, usize), u64>,
}

impl Model {
    fn stored(&mut self, conversation: ConversationId, is_message: bool) -> u64 {
        let records = self.records.entry(conversation).or_default();
        records.push(is_message);
        self.order.retain(|of| *of != conversation);
        self.order.push(conversation);
        self.records[&conversation].len() as u64
    }

    fn read(&mut self, conversation: ConversationId, who: usize, seq: u64) {
        let read = self.read.entry((conversation, who)).or_default();
        *read = seq.max(*read);
    }

    /// What a user is to be told: conversation, head, read, unread.
    fn list(&self, who: usize) -> Vec<(ConversationId, u64, u64, u64)> {
        let mine = self.order.iter().rev().filter(|of| self.members[*of].contains(&who));
        let listed = mine.map(|conversation| {
            let (records, read) =
                (&self.records[conversation], self.read.get(&(*conversation, who)).copied().unwrap_or(0));
            let unread = records[read as usize..].iter().filter(|is_message| **is_message).count();
            (*conversation, records.len() as u64, read, unread as u64)
        });
        listed.collect()
    }
}

/// Enough for several pages; a recount of more of them is what such a run would spend its time with.
const CONVERSATIONS_MAX: usize = 150;

const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "eve"];

struct Long {
    chat: Chat,
    model: Model,
    sessions: Vec<SessionId>,
    random: u64,
    ids: u64,
}

impl Long {
    fn new(random: u64) -> Self {
        let geometry =
            Geometry { segment_bytes: 1 << 20, batch_bytes_max: 64 << 10, block_bytes: BLOCK_BYTES_MIN };
        let mut chat = Chat::with_geometry(16 << 10, geometry);
        chat.disk_reads = true;
        chat.wait(0);
        let sessions = USERS.map(|name| chat.connect(name, None).0).to_vec();
        Self { chat, model: Model::default(), sessions, random, ids: 0 }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn step(&mut self) {
        let who = self.below(USERS.len() as u64) as usize;
        let mine: Vec<ConversationId> = self.model.order.clone();
        let mine: Vec<ConversationId> =
            mine.into_iter().filter(|of| self.model.members[of].contains(&who)).collect();
        let known = (!mine.is_empty()).then(|| mine[self.below(mine.len() as u64) as usize]);
        match (self.below(1_000), known) {
            (0..2, _) if self.model.order.len() < CONVERSATIONS_MAX => self.create(who),
            (2..12, Some(conversation)) => self.change(who, conversation),
            (12..40, Some(conversation)) => self.react(who, conversation),
            (40..240, Some(conversation)) => self.read(who, conversation),
            (240..248, _) => self.check(who),
            (270..272, _) => self.restart(),
            (272..300, _) => self.chat.wait(300),
            (choice, known) => self.say(who, known.filter(|_| choice % 4 > 0)),
        }
    }

    fn say(&mut self, who: usize, known: Option<ConversationId>) {
        let (conversation, command) = match known {
            Some(conversation) => (conversation, say(conversation, "word")),
            None => {
                let peer = (who + 1 + self.below(USERS.len() as u64 - 1) as usize) % USERS.len();
                let direct = direct_conversation(&user(USERS[who]), &user(USERS[peer]));
                self.model.members.entry(direct).or_insert_with(|| vec![who, peer]);
                (direct, send(USERS[peer], "word", None))
            }
        };
        let seq = answer(&self.chat.command(self.sessions[who], command)).expect("stored");
        assert_eq!(self.model.stored(conversation, true), seq);
        self.model.read(conversation, who, seq);
    }

    fn create(&mut self, who: usize) {
        self.ids += 1;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.ids.to_le_bytes());
        let id = MessageId::v7(self.chat.clock.unix, random);
        let members: Vec<usize> =
            (0..USERS.len()).filter(|other| *other != who && self.below(2) == 0).collect();
        let members = if members.is_empty() { vec![(who + 1) % USERS.len()] } else { members };
        let create = Create {
            title: "a group".to_owned(),
            members: members.iter().map(|member| user(USERS[*member])).collect(),
            history: if self.below(2) == 0 { HistoryPolicy::All } else { HistoryPolicy::Joined },
            message_id: Some(id),
        };
        answer(&self.chat.command(self.sessions[who], Command::Create(create))).expect("stored");
        let conversation = created_conversation(&user(USERS[who]), id);
        let seq = self.model.stored(conversation, false);
        let all: Vec<usize> = members.into_iter().chain([who]).collect();
        all.iter().for_each(|member| self.model.read(conversation, *member, seq));
        self.model.members.insert(conversation, all);
    }

    /// Takes somebody in, or out; where that may not be, nothing changes.
    fn change(&mut self, who: usize, conversation: ConversationId) {
        let other = self.below(USERS.len() as u64) as usize;
        let is_in = self.model.members[&conversation].contains(&other);
        if other == who {
            return;
        }
        let name = vec![user(USERS[other])];
        let command =
            if is_in { change(conversation, vec![], name) } else { change(conversation, name, vec![]) };
        let Ok(seq) = answer(&self.chat.command(self.sessions[who], command)) else {
            return;
        };
        assert_eq!(self.model.stored(conversation, false), seq);
        let members = self.model.members.get_mut(&conversation).expect("a group");
        if is_in {
            members.retain(|member| *member != other);
        } else {
            members.push(other);
            self.model.read(conversation, other, seq);
        }
    }

    fn react(&mut self, who: usize, conversation: ConversationId) {
        let seq = Seq(1 + self.below(self.model.records[&conversation].len() as u64));
        let (emoji, on, message_id) = ("+".to_owned(), self.below(2) == 0, None);
        let react = Command::React(React { conversation, seq, emoji, on, message_id });
        if let Ok(seq) = answer(&self.chat.command(self.sessions[who], react)) {
            assert_eq!(self.model.stored(conversation, false), seq);
        }
    }

    fn read(&mut self, who: usize, conversation: ConversationId) {
        let head = self.model.records[&conversation].len() as u64;
        let back = if self.below(2) == 0 { 0 } else { self.below(head) };
        let seq = head - back;
        let frames = self.chat.command(self.sessions[who], Command::Read { conversation, seq: Seq(seq) });
        let is_done = |frame: &ServerFrame| matches!(frame, ServerFrame::Ok(ok) if ok.seq.is_none());
        // Before where one may read, it is refused.
        if frames.iter().any(is_done) {
            self.model.read(conversation, who, seq);
        }
    }

    /// Nothing is in memory any more; what was read is on disk.
    fn restart(&mut self) {
        self.chat.wait(GATHERED);
        self.chat.exchange(self.sessions[0]);
        assert!(!self.chat.side.is_waiting());
        self.chat.forget();
    }

    fn check(&mut self, who: usize) {
        let limit = 1 + self.below(50) as u32;
        let listed = list(&mut self.chat, self.sessions[who], limit);
        let told = |of: &ListedConversation| (of.conversation, of.head.0, of.read.0, of.unread);
        let told: Vec<_> = listed.iter().map(told).collect();
        let mut expected = self.model.list(who);
        // Those of one millisecond are in the order in which they were stored all the same.
        assert_eq!(told.len(), expected.len(), "{}", USERS[who]);
        for (told, expected) in told.iter().zip(expected.drain(..)) {
            assert_eq!(*told, expected, "{}: conversation, head, read, unread", USERS[who]);
        }
    }
}

/// However it was read, sent, joined and forgotten: what is unread is what a recount says. `GATEHOUSE_TEST_READS` says how often something
/// is done.
#[test]
fn what_is_unread_is_what_a_recount_says() {
    let operations = std::env::var("GATEHOUSE_TEST_READS").ok().and_then(|count| count.parse().ok());
    let mut long = Long::new(0x5eed);
    for _ in 0..operations.unwrap_or(100_000_u64) {
        long.step();
    }
    for who in 0..USERS.len() {
        long.check(who);
    }
    assert!(long.model.order.len() > 50, "{} conversations", long.model.order.len());
}

#[test]
fn a_list_does_not_wait_for_a_conversation_that_changes_with_every_batch() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let restless = create(&mut chat, alice, "alice", 1, &["bob"]);
    let quiet = create(&mut chat, alice, "alice", 2, &["bob"]);
    let title = |number: u8| Command::Title {
        conversation: restless,
        title: format!("title {number}"),
        message_id: id_of(NOW.0, 10 + number),
    };
    chat.request(alice, title(0));
    chat.carry_mail();
    chat.request(bob, Command::Conversations { after: None, limit: 50 });
    let mut told = Vec::new();
    for number in 1..6 {
        // Each batch ends with another change on its way.
        let batch = chat.log.poll_write(0).expect("a change waits for the disk");
        chat.request(alice, title(number));
        chat.carry_mail();
        chat.handle_written(batch);
        while chat.carry_mail() | chat.carry_replies() {}
        told.extend(chat.take(bob));
    }
    let answer = told.into_iter().find_map(|frame| match frame {
        ServerFrame::Conversations { conversations, end, .. } => Some((ids(&conversations), end.partial)),
        _ => None,
    });
    assert_eq!(answer, Some((vec![quiet], true)), "what can be told is, and that it is not all");
}
