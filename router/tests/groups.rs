//! Groups of up to 500: written to every inbox while they are small, read from where they stand once they are large.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, HistoryPolicy, Members, MessageKind, Role, Send, Target};
use protocol::event::{ErrorCode, Head, ServerFrame};
use protocol::ids::{ConversationId, MessageId, Seq, UserId};
use protocol::limits::{MEMBERS_MAX, SMALL_GROUP_MEMBERS_MAX};
use protocol::record::StreamKind;
use router::Places;
use router::mail::SessionId;
use router::places::created_conversation;

use support::{Chat, NOW, answer, id_of, user};

/// A chat with a group of `members`, of which `alice` is the owner and `member-1` the first other.
struct Group {
    chat: Chat,
    alice: SessionId,
    conversation: ConversationId,
    next: u8,
}

impl Group {
    fn of(members: usize) -> Self {
        Self::in_chat(Chat::new(), members)
    }

    fn in_chat(mut chat: Chat, members: usize) -> Self {
        let (alice, _) = chat.connect("alice", None);
        let id = message_id(0);
        let create = Create {
            title: "a group".to_owned(),
            members: (1..members).map(member).collect(),
            history: HistoryPolicy::All,
            message_id: Some(id),
        };
        assert_eq!(answer(&chat.command(alice, Command::Create(create))), Ok(1));
        Self { chat, alice, conversation: created_conversation(&user("alice"), id), next: 1 }
    }

    fn send(&mut self, text: &str) -> Result<u64, ErrorCode> {
        let (target, kind, text) =
            (Target::Conversation(self.conversation), MessageKind::Text, text.to_owned());
        let (media, reply_to, mentions, message_id) = (None, None, Vec::new(), self.id());
        let send = Send { target, kind, text, media, reply_to, mentions, message_id };
        answer(&self.chat.command(self.alice, Command::Send(send)))
    }

    fn change(&mut self, add: Vec<UserId>, remove: Vec<UserId>) -> Result<u64, ErrorCode> {
        let (conversation, message_id) = (self.conversation, self.id());
        let change = Members { conversation, add, remove, roles: Vec::new(), message_id };
        answer(&self.chat.command(self.alice, Command::Members(change)))
    }

    fn id(&mut self) -> Option<MessageId> {
        self.next += 1;
        id_of(NOW.0, self.next)
    }

    /// The cursor of a user who is away from then on.
    fn cursor_of(&mut self, name: &str) -> Option<String> {
        let (session, frames) = self.chat.connect(name, None);
        self.chat.users.disconnect(session);
        let Some(ServerFrame::Welcome(welcome)) = frames.into_iter().next() else {
            panic!("a welcome");
        };
        welcome.cursor
    }

    /// What a user is told who was away: sequences that came, and heads as `(head, "head")`.
    fn told(&mut self, name: &str, cursor: Option<String>) -> Vec<(u64, &'static str)> {
        let (session, frames) = self.chat.connect(name, cursor);
        self.chat.users.disconnect(session);
        assert!(matches!(frames.last(), Some(ServerFrame::CaughtUp { partial: false, .. })), "{frames:?}");
        frames.iter().flat_map(told).collect()
    }

    /// Whether the record after position `after` is in a member's inbox.
    fn is_linked_after(&self, name: &str, after: u64) -> bool {
        let places = Places::new([1; 16], [2; 32], 1, 1);
        self.chat.log.has_after(places.user_stream(&user(name), StreamKind::Inbox), after)
    }
}

fn told(frame: &ServerFrame) -> Vec<(u64, &'static str)> {
    match frame {
        ServerFrame::Message(message) => vec![(message.seq.0, "message")],
        ServerFrame::Member(member) => vec![(member.seq.0, "member")],
        ServerFrame::Heads { conversations, .. } => {
            conversations.iter().map(|head| (head.head.0, "head")).collect()
        }
        _ => Vec::new(),
    }
}

fn message_id(random: u8) -> MessageId {
    id_of(NOW.0, random).expect("an id")
}

fn member(number: usize) -> UserId {
    user(&format!("member-{number}"))
}

#[test]
fn a_message_to_a_large_group_is_in_no_inbox_and_told_to_who_is_online() {
    let mut group = Group::of(MEMBERS_MAX);
    let (online, _) = group.chat.connect("member-499", None);
    let before = group.chat.log.durable().position();
    group.send("to all of you").expect("stored");
    let frames = group.chat.exchange(online);
    assert!(frames.is_empty(), "it was told while the sender was answered: {frames:?}");
    assert_eq!(group.chat.users.counters.deliveries, 3, "the sender of both, and one member of the second");
    assert!(!group.is_linked_after("member-1", before) && !group.is_linked_after("alice", before));
    assert_eq!(group.chat.log.durable().position(), before + 1, "one record");
}

#[test]
fn who_comes_back_to_a_large_group_learns_its_head_once() {
    let mut group = Group::of(200);
    let cursor = group.cursor_of("member-7");
    assert_eq!(group.told("member-7", cursor.clone()), [], "nothing has happened");
    for text in ["one", "two", "three"] {
        group.send(text).expect("stored");
    }
    let (session, frames) = group.chat.connect("member-7", cursor);
    let heads = ServerFrame::Heads {
        conversations: vec![Head { conversation: group.conversation, head: Seq(4), read: Seq(1), unread: 3 }],
        more: false,
    };
    assert!(frames.contains(&heads), "{frames:?}");
    let Some(ServerFrame::CaughtUp { cursor, .. }) = frames.last() else {
        panic!("caught up: {frames:?}");
    };
    group.chat.users.disconnect(session);
    assert_eq!(group.told("member-7", Some(cursor.clone())), []);
}

#[test]
fn the_switch_between_small_and_large_is_at_one_sequence_both_ways() {
    let mut group = Group::of(SMALL_GROUP_MEMBERS_MAX);
    let cursor = group.cursor_of("member-5");
    group.send("2, to few").expect("stored");
    group.change(vec![user("the hundredth")], vec![]).expect("stored");
    group.send("4, to many").expect("stored");
    group.send("5, to many").expect("stored");
    group.change(vec![], vec![user("the hundredth")]).expect("stored");
    group.send("7, to few").expect("stored");
    let all = [(2, "message"), (3, "member"), (5, "head"), (6, "member"), (7, "message")];
    assert_eq!(group.told("member-5", cursor.clone()), all);
    // And it is what the log says, not what memory says.
    group.chat.forget();
    assert_eq!(group.told("member-5", cursor), all);
}

#[test]
fn after_a_restart_the_log_says_which_groups_are_large_and_who_is_in_them() {
    let mut group = Group::of(150);
    let (cursor, of_leaver) = (group.cursor_of("member-3"), group.cursor_of("member-4"));
    group.send("2").expect("stored");
    group.change(vec![user("newcomer")], vec![member(4)]).expect("stored");
    group.send("4").expect("stored");
    group.chat.forget();
    assert_eq!(group.told("member-3", cursor), [(4, "head")]);
    assert_eq!(group.told("member-4", of_leaver.clone()), [(2, "head"), (3, "member")]);
    group.send("5").expect("stored");
    assert_eq!(group.told("member-4", of_leaver), [(2, "head"), (3, "member")], "nothing after it left");
}

/// A new title is no change of members, and the state that it makes was not durable yet when the list of groups came to it.
#[test]
fn a_group_that_is_given_a_title_while_groups_are_read_at_start_is_known_afterwards() {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let mut group = Group::in_chat(chat, 150);
    let cursor = group.cursor_of("member-3");
    group.send("2").expect("stored");
    group.chat.forget();
    let (conversation, message_id) = (group.conversation, group.id());
    group.chat.request(group.alice, Command::Title { conversation, title: "another".to_owned(), message_id });
    group.chat.carry_mail();
    // The disk is slow with the list, and the title is stored before it has come.
    let list = group.chat.side.poll_read().expect("the list is read first");
    while let Some(read) = group.chat.side.poll_read() {
        group.chat.answer_read(read);
    }
    group.chat.answer_read(list);
    assert_eq!(answer(&group.chat.exchange(group.alice)), Ok(3));
    assert_eq!(group.told("member-3", cursor), [(3, "head")]);
}

#[test]
fn what_is_so_already_is_answered_and_stores_nothing() {
    let mut group = Group::of(4);
    let (conversation, is) = (group.conversation, Role::Member);
    let members = |group: &mut Group, add: Vec<UserId>, roles: Vec<(UserId, Role)>| {
        let message_id = group.id();
        Command::Members(Members { conversation, add, remove: Vec::new(), roles, message_id })
    };
    let title = |group: &mut Group, title: &str| {
        let (title, message_id) = (title.to_owned(), group.id());
        Command::Title { conversation, title, message_id }
    };
    let in_already = [
        members(&mut group, vec![member(1), member(2)], Vec::new()),
        members(&mut group, vec![member(1)], vec![(member(2), is)]),
        title(&mut group, "a group"),
    ];
    for command in in_already.clone() {
        assert_eq!(stored(&group.chat.command(group.alice, command)), [None]);
    }
    // Who may not change it is not told what it is.
    let (session, _) = group.chat.connect("member-3", None);
    for command in in_already {
        assert_eq!(answer(&group.chat.command(session, command)), Err(ErrorCode::NotAllowed));
    }
    // Something of it is new, and it is said again while that is on its way to the disk.
    let change = members(&mut group, vec![member(1), member(9)], Vec::new());
    assert_eq!(stored(&group.chat.command(group.alice, change)), [Some(2)]);
    let (first, again) = (title(&mut group, "ours"), title(&mut group, "ours"));
    group.chat.request(group.alice, first);
    group.chat.request(group.alice, again);
    assert_eq!(stored(&group.chat.exchange(group.alice)), [Some(3), None]);
    assert_eq!(group.send("4"), Ok(4), "no other has taken a sequence");
}

/// The creator stands first of all members, and got back what it gave up; the answer was an `ok` all the same.
#[test]
fn a_last_owner_who_gives_that_up_hands_over_to_somebody_else() {
    for (as_what, admin, heir) in [
        (Role::Member, None, "member-1"),
        (Role::Member, Some(2), "member-2"),
        (Role::Admin, Some(3), "member-3"),
    ] {
        let mut group = Group::of(4);
        let conversation = group.conversation;
        let roles = |group: &mut Group, user: UserId, role: Role| {
            let (add, remove, message_id) = (Vec::new(), Vec::new(), group.id());
            Command::Members(Members { conversation, add, remove, roles: vec![(user, role)], message_id })
        };
        if let Some(number) = admin {
            let gives = roles(&mut group, member(number), Role::Admin);
            assert_eq!(stored(&group.chat.command(group.alice, gives)), [Some(2)]);
        }
        let gives_up = roles(&mut group, user("alice"), as_what);
        assert_eq!(
            stored(&group.chat.command(group.alice, gives_up)),
            [Some(2 + u64::from(admin.is_some()))]
        );
        let again = roles(&mut group, user("alice"), Role::Owner);
        assert_eq!(answer(&group.chat.command(group.alice, again)), Err(ErrorCode::NotAllowed));
        let (session, _) = group.chat.connect(heir, None);
        let back = roles(&mut group, user("alice"), Role::Owner);
        assert!(answer(&group.chat.command(session, back)).is_ok(), "{heir} is the owner");
    }
    // Who is alone keeps it, and nothing has changed.
    let mut group = Group::of(2);
    assert_eq!(group.change(Vec::new(), vec![member(1)]), Ok(2));
    let (conversation, message_id) = (group.conversation, group.id());
    let roles = vec![(user("alice"), Role::Member)];
    let alone = Members { conversation, add: Vec::new(), remove: Vec::new(), roles, message_id };
    assert_eq!(stored(&group.chat.command(group.alice, Command::Members(alone))), [None]);
}

/// Who is given a role by the change with which the owner goes, and becomes the owner by it, is told of as the owner alone: in JSON roles are
/// under the names of their users.
#[test]
fn an_heir_who_was_given_another_role_by_the_same_change_is_named_once() {
    let mut group = Group::of(3);
    let (conversation, message_id) = (group.conversation, group.id());
    let roles = vec![(member(1), Role::Admin), (user("alice"), Role::Member)];
    let change = Members { conversation, add: Vec::new(), remove: Vec::new(), roles, message_id };
    let frames = group.chat.command(group.alice, Command::Members(change));
    let told = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Member(member) => Some(member.roles.clone()),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [vec![(user("alice"), Role::Member), (member(1), Role::Owner)]]);
}

/// The sequence that each `ok` names.
fn stored(frames: &[ServerFrame]) -> Vec<Option<u64>> {
    let answers = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Ok(ok) => Some(ok.seq.map(|seq| seq.0)),
        _ => None,
    });
    answers.collect()
}

#[test]
fn a_leave_that_comes_again_is_answered_and_takes_nobody_out_who_is_back() {
    let mut group = Group::of(4);
    let (session, _) = group.chat.connect("member-1", None);
    let (conversation, message_id) = (group.conversation, group.id());
    let leave = || Command::Leave { conversation, message_id };
    assert_eq!(answer(&group.chat.command(session, leave())), Ok(2));
    // The answer is lost, and who asks for it again is out, and then in again.
    assert_eq!(answer(&group.chat.command(session, leave())), Ok(2));
    assert_eq!(group.change(vec![member(1)], vec![]), Ok(3));
    assert_eq!(answer(&group.chat.command(session, leave())), Ok(2));
    assert_eq!(group.change(vec![], vec![member(1)]), Ok(4), "it was a member");
    // Whom somebody else has taken out first is told so.
    let other = Command::Leave { conversation, message_id: group.id() };
    assert_eq!(answer(&group.chat.command(session, other)), Err(ErrorCode::NotAMember));
}

#[test]
fn who_joins_a_large_group_while_away_begins_with_that() {
    let mut group = Group::of(150);
    let cursor = group.cursor_of("newcomer");
    group.send("2").expect("stored");
    group.change(vec![user("newcomer")], vec![]).expect("stored");
    assert_eq!(group.told("newcomer", cursor.clone()), [(3, "member")]);
    group.send("4").expect("stored");
    assert_eq!(group.told("newcomer", cursor), [(3, "member"), (4, "head")]);
}

/// The head of the time before was told with a position behind it: joining again had read on.
#[test]
fn nobody_has_read_more_than_the_head_that_is_told() {
    let mut group = Group::of(200);
    let cursor = group.cursor_of("member-7");
    group.send("before").expect("stored");
    assert_eq!(group.change(Vec::new(), vec![member(7)]), Ok(3));
    group.send("without member 7").expect("stored");
    assert_eq!(group.change(vec![member(7)], Vec::new()), Ok(5));
    group.send("after").expect("stored");
    let (_, frames) = group.chat.connect("member-7", cursor);
    let heads = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Heads { conversations, .. } => Some(conversations),
        _ => None,
    });
    let heads: Vec<_> = heads.flatten().map(|head| (head.head.0, head.read.0, head.unread)).collect();
    assert_eq!(heads, [(2, 2, 0), (6, 5, 1)]);
}

#[test]
fn a_reader_whose_outbox_is_full_is_told_the_head_of_a_large_group() {
    let mut group = Group::of(150);
    let (slow, _) = group.chat.connect("member-9", None);
    let text = "x".repeat(16_000);
    // Nobody takes what is sent to `slow` until its outbox is full.
    for _ in 0..8 {
        let (conversation, id) = (group.conversation, group.id());
        let send = Send {
            target: Target::Conversation(conversation),
            kind: MessageKind::Text,
            text: text.clone(),
            media: None,
            reply_to: None,
            mentions: Vec::new(),
            message_id: id,
        };
        group.chat.request(group.alice, Command::Send(send));
        while group.chat.carry_mail() | group.chat.write() {}
        while let Some((shard, reply)) = group.chat.side.poll_output() {
            group.chat.users.handle_reply(shard, reply, group.chat.clock);
        }
    }
    let frames = group.chat.exchange(slow);
    let told: Vec<_> = frames.iter().flat_map(told).collect();
    let (head, messages) = told.split_last().expect("something");
    assert_eq!(*head, (9, "head"));
    let came = messages.len() as u64;
    assert!((1..8).contains(&came), "{told:?}");
    assert!(messages.iter().zip(2..).all(|(told, seq)| *told == (seq, "message")), "{told:?}");
}

#[test]
fn groups_and_changes_that_are_too_large_are_refused_in_words() {
    let mut group = Group::of(MEMBERS_MAX);
    assert_eq!(group.change(vec![user("one too many")], vec![]), Err(ErrorCode::Limit));
    assert_eq!(
        group.change((500..800).map(member).collect(), (1..301).map(member).collect()),
        Err(ErrorCode::Limit),
        "more links than a record has room for"
    );
    assert_eq!(group.change((500..600).map(member).collect(), (1..101).map(member).collect()), Ok(2));
}

#[test]
fn nobody_is_in_more_large_groups_than_can_be_named_at_once() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let mut create = |place: u64, others: std::ops::Range<usize>| {
        chat.clock.unix.0 += 1;
        let message_id = id_of(chat.clock.unix.0, place as u8);
        let members = others.map(member).collect();
        let (title, history) = ("a group".to_owned(), HistoryPolicy::All);
        answer(&chat.command(alice, Command::Create(Create { title, members, history, message_id })))
    };
    for place in 0..256 {
        assert_eq!(create(place, 1..100), Ok(1), "group {place}");
    }
    assert_eq!(create(256, 1..100), Err(ErrorCode::Limit));
    assert_eq!(create(257, 1..50), Ok(1), "a small one is not one of them");
}
