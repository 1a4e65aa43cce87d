//! How many reads a page is, and what damage costs it: records that stand side by side are read as one, and judged one by one.

#![forbid(unsafe_code)]

mod support;

use protocol::command::{Command, Edit, HistoryRange};
use protocol::event::{PageItem, ServerFrame};
use protocol::ids::{ConversationId, Seq};
use router::mail::SessionId;
use router::places::direct_conversation;

use support::{Chat, NOW, id_of, send, user};

/// Messages of a page.
const COUNT: u64 = 50;

fn talk() -> ConversationId {
    direct_conversation(&user("alice"), &user("bob"))
}

fn text_of(seq: u64) -> String {
    format!("this is number {seq}")
}

/// Who wrote the messages with even numbers, and those with odd ones.
const WRITERS: [&str; 2] = ["alice", "bob"];

/// Messages 2 to 51 stand in one batch, which is in memory no more.
fn begun() -> (Chat, [SessionId; 2]) {
    let mut chat = Chat::with_tail(1);
    chat.disk_reads = true;
    let sessions = WRITERS.map(|name| chat.connect(name, None).0);
    chat.command(sessions[1], send("alice", "first", id_of(NOW.0, 1)));
    in_one_batch(&mut chat, sessions, |seq| {
        send(WRITERS[(seq as usize + 1) % 2], &text_of(seq), id_of(NOW.0, seq as u8))
    });
    another_batch(&mut chat, sessions[0]);
    (chat, sessions)
}

/// One command for each of the messages, from who wrote it, all durable at once.
fn in_one_batch(chat: &mut Chat, sessions: [SessionId; 2], command: impl Fn(u64) -> Command) {
    for seq in 2..=COUNT + 1 {
        chat.request(sessions[seq as usize % 2], command(seq));
        chat.carry_mail();
        while let Some(read) = chat.side.poll_read() {
            chat.answer_read(read);
        }
    }
    chat.exchange(sessions[0]);
}

fn another_batch(chat: &mut Chat, session: SessionId) {
    chat.command(session, send("carol", "another batch", None));
    chat.reads.clear();
}

/// Where the disk has what message `seq` says.
fn place_of(chat: &Chat, seq: u64) -> usize {
    let text = text_of(seq);
    let found = chat.written.windows(text.len()).position(|bytes| bytes == text.as_bytes());
    found.expect("it was written")
}

/// Asks for messages 2 to 51, in both directions: each is shown as `line` says, after as many reads as `reads`.
#[track_caller]
fn check(chat: &mut Chat, session: SessionId, reads: usize, line: impl Fn(u64) -> Option<String>) {
    for range in [HistoryRange::After(Seq(1)), HistoryRange::Before(Seq(COUNT + 2))] {
        chat.reads.clear();
        let history = Command::History { conversation: talk(), range, limit: COUNT as u32 };
        let Some(ServerFrame::Page { messages, .. }) = chat.command(session, history).pop() else {
            panic!("a page");
        };
        let shown = messages.into_iter().map(|item| match item {
            PageItem::Message(message) => (message.seq.0, Some(message.text)),
            PageItem::Gap(gap) => (gap.from.0, None),
            other => panic!("{other:?}"),
        });
        let expected = (2..=COUNT + 1).map(|seq| (seq, line(seq)));
        assert_eq!(shown.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{range:?}");
        assert_eq!(chat.reads.len(), reads, "{range:?}: {:?} bytes", chat.reads);
    }
}

#[test]
fn a_page_of_neighbours_is_one_read_in_either_direction() {
    let (mut chat, sessions) = begun();
    check(&mut chat, sessions[0], 1, |seq| Some(text_of(seq)));
}

#[test]
fn a_flip_in_one_of_a_run_costs_that_one() {
    let (mut chat, sessions) = begun();
    for seq in [2, 30, COUNT + 1] {
        let place = place_of(&chat, seq);
        chat.written[place] ^= 1;
        check(&mut chat, sessions[0], 2, |shown| (shown != seq).then(|| text_of(shown)));
        assert!(chat.side.poll_damage().is_some() && chat.side.poll_damage().is_none(), "told once");
        chat.written[place] ^= 1;
    }
}

/// A run from a wrong place says nothing of its records: all of them were gaps once, and one damaged record among them is one gap.
#[test]
fn a_run_that_comes_from_a_wrong_place_is_read_record_by_record() {
    let (mut chat, sessions) = begun();
    chat.misread_above = 1024;
    check(&mut chat, sessions[0], 1 + COUNT as usize, |seq| Some(text_of(seq)));
    assert_eq!(chat.side.poll_damage(), None, "nothing is damaged");
    let place = place_of(&chat, 30);
    chat.written[place] ^= 1;
    check(&mut chat, sessions[0], 1 + COUNT as usize, |seq| (seq != 30).then(|| text_of(seq)));
    assert!(chat.side.poll_damage().is_some() && chat.side.poll_damage().is_none(), "told once");
}

#[test]
fn a_run_that_cannot_be_read_is_read_record_by_record() {
    let (mut chat, sessions) = begun();
    for seq in [2, 30, COUNT + 1] {
        chat.bad_byte = Some(place_of(&chat, seq));
        check(&mut chat, sessions[0], 1 + COUNT as usize, |shown| (shown != seq).then(|| text_of(shown)));
        assert!(chat.side.poll_damage().is_some() && chat.side.poll_damage().is_none(), "told once");
    }
    // All of it is well again.
    chat.bad_byte = None;
    check(&mut chat, sessions[0], 1, |seq| Some(text_of(seq)));
    chat.disk_reads = false;
    check(&mut chat, sessions[0], 1 + COUNT as usize, |_| None);
}

/// What its messages have become is another run.
#[test]
fn a_page_of_edited_messages_is_two_reads() {
    let (mut chat, sessions) = begun();
    in_one_batch(&mut chat, sessions, |seq| {
        let text = format!("edited {seq}");
        Command::Edit(Edit { conversation: talk(), seq: Seq(seq), text, message_id: None })
    });
    another_batch(&mut chat, sessions[0]);
    let edited = |seq| Some(format!("edited {seq}"));
    check(&mut chat, sessions[0], 2, edited);
    let text = b"edited 30";
    chat.bad_byte = chat.written.windows(text.len()).position(|bytes| bytes == text);
    check(&mut chat, sessions[0], 2 + COUNT as usize, |seq| edited(seq).filter(|_| seq != 30));
    chat.bad_byte = None;
    chat.misread_above = 1024;
    check(&mut chat, sessions[0], 2 + 2 * COUNT as usize, edited);
}
