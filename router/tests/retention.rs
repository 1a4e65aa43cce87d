//! How much of a conversation is kept: who may set it, who is told, and what is shown from then on.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Create, HistoryPolicy, Members, Retention, Role};
use protocol::event::{ErrorCode, ListedConversation, MemberEvent, ServerFrame};
use protocol::ids::{ConversationId, MessageId};
use router::mail::SessionId;
use router::places::{created_conversation, direct_conversation};

use support::{Chat, NOW, answer, id_of, send, user};

const WEEK: Retention = Retention { days: Some(7), last: None };

fn talk() -> ConversationId {
    direct_conversation(&user("alice"), &user("bob"))
}

fn newest(last: u32) -> Retention {
    Retention { days: None, last: Some(last) }
}

fn set(conversation: ConversationId, retention: Retention, message_id: Option<MessageId>) -> Command {
    Command::Retention { conversation, retention, message_id }
}

/// A group of alice, who owns it, bob, an admin, and carol.
fn group(chat: &mut Chat, alice: SessionId) -> ConversationId {
    let message_id = id_of(NOW.0, 200);
    let members = vec![user("bob"), user("carol")];
    let create = Create { title: "ours".to_owned(), members, history: HistoryPolicy::All, message_id };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    let conversation = created_conversation(&user("alice"), message_id.expect("an id"));
    let roles = vec![(user("bob"), Role::Admin)];
    let (add, remove, message_id) = (Vec::new(), Vec::new(), None);
    let members = Members { conversation, add, remove, roles, message_id };
    answer(&chat.command(alice, Command::Members(members))).expect("stored");
    conversation
}

fn listed(chat: &mut Chat, session: SessionId, conversation: ConversationId) -> ListedConversation {
    let frames = chat.command(session, Command::Conversations { after: None, limit: 50 });
    let Some(ServerFrame::Conversations { conversations, .. }) = frames.into_iter().next() else {
        panic!("a list");
    };
    conversations.into_iter().find(|listed| listed.conversation == conversation).expect("it is listed")
}

/// What a list and the members of a conversation say is kept of it.
fn kept(chat: &mut Chat, session: SessionId, conversation: ConversationId) -> Retention {
    let frames = chat.command(session, Command::ListMembers { conversation });
    let Some(ServerFrame::MembersPage { retention, .. }) = frames.into_iter().next() else {
        panic!("a page");
    };
    assert_eq!(listed(chat, session, conversation).retention, retention);
    retention
}

fn told(frames: &[ServerFrame]) -> Option<&MemberEvent> {
    frames.iter().find_map(|frame| if let ServerFrame::Member(event) = frame { Some(event) } else { None })
}

#[test]
fn owners_and_admins_set_what_is_kept_of_a_group_and_all_are_told() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let (carol, _) = chat.connect("carol", None);
    let (mallory, _) = chat.connect("mallory", None);
    let group = group(&mut chat, alice);
    assert_eq!(answer(&chat.command(carol, set(group, WEEK, None))), Err(ErrorCode::NotAllowed));
    assert_eq!(answer(&chat.command(mallory, set(group, WEEK, None))), Err(ErrorCode::NotAMember));
    let nowhere = set(ConversationId([9; 16]), WEEK, None);
    assert_eq!(answer(&chat.command(alice, nowhere)), Err(ErrorCode::NotFound));
    assert_eq!(kept(&mut chat, carol, group), Retention::default());
    chat.exchange(carol);
    for (number, (session, retention)) in
        (3..).zip([(alice, WEEK), (bob, newest(9)), (bob, Retention::default())])
    {
        chat.request(session, set(group, retention, None));
        let frames = chat.exchange(carol);
        let event = told(&frames).expect("a change");
        assert_eq!((event.seq.0, event.retention, &event.title), (number, Some(retention), &None));
        assert_eq!(kept(&mut chat, carol, group), retention);
        chat.forget();
        assert_eq!(kept(&mut chat, carol, group), retention, "it is in the log");
    }
}

#[test]
fn either_of_the_two_sets_what_is_kept_of_a_direct_conversation_once_there_is_something() {
    let mut chat = Chat::new();
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let block = |on| Command::Block { user: user("alice"), on, message_id: None };
    chat.command(bob, block(true));
    chat.command(bob, block(false));
    // The conversation has a state by now, and nothing in it.
    assert_eq!(answer(&chat.command(alice, set(talk(), WEEK, None))), Err(ErrorCode::NotFound));
    assert_eq!(answer(&chat.command(alice, send("bob", "hello", None))), Ok(1));
    let id = id_of(NOW.0, 7);
    assert_eq!(answer(&chat.command(bob, set(talk(), WEEK, id))), Ok(2));
    assert_eq!(answer(&chat.command(bob, set(talk(), WEEK, id))), Ok(2), "said again it is stored once");
    let other = set(talk(), newest(7), id);
    assert_eq!(answer(&chat.command(bob, other)), Err(ErrorCode::Conflict));
    assert_eq!(answer(&chat.command(alice, set(talk(), newest(5), None))), Ok(3));
    assert_eq!(kept(&mut chat, bob, talk()), newest(5));
    chat.command(bob, block(true));
    for session in [alice, bob] {
        assert_eq!(answer(&chat.command(session, set(talk(), WEEK, None))), Err(ErrorCode::NotAllowed));
    }
    assert_eq!(kept(&mut chat, bob, talk()), newest(5));
}
