//! What is unread: what others wrote after one's own read position, which reading, sending and joining move.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Connect, Create, HistoryPolicy, Members, MessageKind, Send, Target};
use protocol::event::{Head, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, Seq};
use router::places::{created_conversation, direct_conversation};
use storage_log::Geometry;
use storage_log::format::BLOCK_BYTES_MIN;

use support::{Chat, NOW, answer, id_of, send, user};

/// How long positions are gathered, in milliseconds.
const GATHERED: u64 = 1_000;

/// What a device is told that knows nothing: `(read, unread)` of a conversation.
fn unread(chat: &mut Chat, name: &str, conversation: ConversationId) -> (u64, u64) {
    let device = DeviceId::new("new").expect("a name");
    let connect = Connect { token: None, device, cursor: None, positions: Some(Vec::new()) };
    let session = chat.begin_with(name, connect);
    let frames = chat.exchange(session);
    chat.users.disconnect(session);
    let heads = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Heads { conversations, .. } => Some(conversations),
        _ => None,
    });
    let mut heads = heads.flatten().filter(|head| head.conversation == conversation);
    let Head { read, unread, .. } = heads.next().expect("it is named");
    assert!(heads.next().is_none(), "once");
    (read.0, *unread)
}

fn change(conversation: ConversationId, add: &[&str], remove: &[&str]) -> Command {
    let users = |names: &[&str]| names.iter().map(|name| user(name)).collect();
    let (add, remove, roles) = (users(add), users(remove), Vec::new());
    Command::Members(Members { conversation, add, remove, roles, message_id: None })
}

fn say(conversation: ConversationId) -> Command {
    let (target, kind, text) = (Target::Conversation(conversation), MessageKind::Text, "word".to_owned());
    let (media, reply_to, mentions, message_id) = (None, None, Vec::new(), None);
    Command::Send(Send { target, kind, text, media, reply_to, mentions, message_id })
}

#[test]
fn own_messages_joins_and_what_was_read_are_not_unread_also_after_a_restart() {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let direct = direct_conversation(&user("alice"), &user("bob"));
    for number in 1..=3 {
        answer(&chat.command(alice, send("bob", "hello", id_of(NOW.0, number)))).expect("stored");
    }
    let id = id_of(NOW.0, 50);
    let create = Create {
        title: "a group".to_owned(),
        members: vec![user("bob")],
        history: HistoryPolicy::All,
        message_id: id,
    };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    let group = created_conversation(&user("alice"), id.expect("an id"));
    answer(&chat.command(alice, say(group))).expect("stored");
    answer(&chat.command(alice, change(group, &["carol"], &[]))).expect("stored");
    answer(&chat.command(bob, say(group))).expect("stored");
    chat.command(bob, Command::Read { conversation: direct, seq: Seq(2) });
    for restarted in [false, true] {
        if restarted {
            chat.wait(GATHERED);
            chat.exchange(alice);
            chat.forget();
        }
        assert_eq!(unread(&mut chat, "alice", direct), (3, 0), "all of it is hers");
        assert_eq!(unread(&mut chat, "bob", direct), (2, 1));
        assert_eq!(unread(&mut chat, "alice", group), (2, 1), "bob spoke behind her");
        assert_eq!(unread(&mut chat, "bob", group), (4, 0));
        assert_eq!(unread(&mut chat, "carol", group), (3, 1), "what was before she came is read");
    }
    // An edit of one's own moves nothing, and who comes back begins anew.
    let edit = protocol::command::Edit {
        conversation: group,
        seq: Seq(2),
        text: "again".to_owned(),
        message_id: None,
    };
    answer(&chat.command(alice, Command::Edit(edit))).expect("stored");
    answer(&chat.command(alice, say(group))).expect("stored");
    answer(&chat.command(alice, change(group, &[], &["carol"]))).expect("stored");
    answer(&chat.command(alice, change(group, &["carol"], &[]))).expect("stored");
    answer(&chat.command(bob, say(group))).expect("stored");
    for _ in 0..2 {
        assert_eq!(unread(&mut chat, "alice", group), (6, 1));
        assert_eq!(unread(&mut chat, "carol", group), (8, 1));
        chat.forget();
    }
}

/// No `read` came, and nobody asked: what a start has to read is bounded all the same.
#[test]
fn a_conversation_in_which_nobody_says_that_he_reads_is_folded_in_by_the_page() {
    let (segment_bytes, batch_bytes_max) = (256 << 10, 64 << 10);
    let geometry = Geometry { segment_bytes, batch_bytes_max, block_bytes: BLOCK_BYTES_MIN };
    let mut chat = Chat::with_geometry(4 << 10, geometry);
    chat.disk_reads = true;
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let direct = direct_conversation(&user("alice"), &user("bob"));
    for number in 1..=3_000_u32 {
        answer(&chat.command(alice, send("bob", "hello", None))).expect("stored");
        chat.wait(if number % 64 == 0 { GATHERED } else { 1 });
    }
    chat.exchange(alice);
    chat.forget();
    chat.reads.clear();
    assert_eq!(unread(&mut chat, "alice", direct), (3_000, 0));
    assert_eq!(unread(&mut chat, "bob", direct), (0, 3_000));
    let read: usize = chat.reads.iter().sum();
    assert!(read < 64 << 10, "{read} bytes were read");
}

/// A position somewhere in the middle is counted by the records there; where those are damaged too much is unread, never too little.
#[test]
fn a_damaged_record_makes_more_unread_and_never_less() {
    let mut chat = Chat::with_tail(4 << 10);
    chat.disk_reads = true;
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let direct = direct_conversation(&user("alice"), &user("bob"));
    let mut ends = Vec::new();
    for number in 0..200_u8 {
        answer(&chat.command(alice, send("bob", "hello", id_of(NOW.0, number)))).expect("stored");
        ends.push(chat.written.len());
    }
    let read = |chat: &mut Chat, seq| {
        chat.command(bob, Command::Read { conversation: direct, seq: Seq(seq) });
        unread(chat, "bob", direct)
    };
    assert_eq!(read(&mut chat, 10), (10, 190));
    // In the batch of the twentieth message.
    chat.bad_byte = Some(ends[18] + 200);
    assert_eq!(read(&mut chat, 20), (20, 180), "the next one says it");
    let react = |seq| {
        let (seq, emoji) = (Seq(seq), "+".to_owned());
        Command::React(protocol::command::React {
            conversation: direct,
            seq,
            emoji,
            on: true,
            message_id: None,
        })
    };
    let before = chat.written.len();
    for seq in 100..140 {
        answer(&chat.command(bob, react(seq))).expect("stored");
    }
    // 201 is a reaction, and so is what follows: had it been a message, one less would be read.
    chat.bad_byte = Some(before + 200);
    assert_eq!(read(&mut chat, 201), (201, 0));
}
