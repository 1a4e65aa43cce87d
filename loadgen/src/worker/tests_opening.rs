//! Heads: of a large group they are followed by reading it, of a small one they are a mistake of the node.

use protocol::{
    command::{Command, HistoryRange},
    event::{Head, PageItem, ServerFrame},
    ids::{RequestId, Seq},
};

use super::{CONVERSATION, Pair, ROOM};
use crate::{link::Forms, plan::RoomIndex, verify::Kind};

const GROUP_MEMBERS: u32 = 100;
/// Behind the direct conversations.
const GROUP: RoomIndex = RoomIndex(4 * GROUP_MEMBERS);

impl Pair {
    fn told_head(&mut self, head: u64) {
        let (head, read, unread) = (Seq(head), Seq(0), head);
        let conversations = vec![Head { conversation: CONVERSATION, head, read, unread }];
        self.feed(ServerFrame::Heads { conversations, more: false });
    }

    /// In a group of a hundred, in which one message has come.
    fn in_large_group() -> Self {
        let mut pair = Self::among(Forms::Binary, GROUP_MEMBERS, GROUP_MEMBERS);
        let first = pair.message(1, 1, GROUP);
        pair.feed(ServerFrame::Message(first));
        assert_eq!(pair.violations(), []);
        pair
    }

    /// The page that was asked for, behind `after`.
    fn asked_page(&mut self, after: u64) -> RequestId {
        let asked = self.asked();
        let [request] = &asked[..] else { panic!("{asked:?} is not one request") };
        let Command::History { conversation: CONVERSATION, range: HistoryRange::After(from), .. } =
            request.command
        else {
            panic!("{request:?} asks for no page");
        };
        assert_eq!(from, Seq(after));
        request.id.expect("a page has a number")
    }

    fn feed_page(&mut self, id: RequestId, seqs: std::ops::RangeInclusive<u64>) {
        let messages = seqs.map(|seq| PageItem::Message(self.message(seq, seq as u8, GROUP))).collect();
        self.feed(ServerFrame::Page { id, messages, more: false });
    }
}

#[test]
fn a_large_group_is_read_up_to_its_head_and_goes_on_behind_it() {
    let mut pair = Pair::in_large_group();
    pair.told_head(5);
    let id = pair.asked_page(1);
    let live = pair.message(6, 6, GROUP);
    pair.feed(ServerFrame::Message(live));
    pair.feed_page(id, 2..=3);
    let id = pair.asked_page(3);
    pair.feed_page(id, 4..=6);
    assert!(pair.asked().is_empty());
    assert_eq!(pair.violations(), []);
    let counts = &pair.desk.tally.counts;
    assert_eq!((counts.heads, counts.opened, counts.received), (1, 5, 2));
}

#[test]
fn a_head_that_is_known_is_no_news() {
    let mut pair = Pair::in_large_group();
    pair.told_head(1);
    assert!(pair.asked().is_empty());
    let next = pair.message(2, 2, GROUP);
    pair.feed(ServerFrame::Message(next));
    assert_eq!(pair.violations(), []);
}

#[test]
fn what_is_missing_behind_a_head_is_a_hole() {
    let mut pair = Pair::in_large_group();
    pair.told_head(5);
    let id = pair.asked_page(1);
    pair.feed_page(id, 3..=5);
    assert_eq!(pair.violations(), [Kind::Hole]);

    let mut pair = Pair::in_large_group();
    pair.told_head(5);
    let id = pair.asked_page(1);
    pair.feed(ServerFrame::Page { id, messages: Vec::new(), more: false });
    assert_eq!(pair.violations(), [Kind::Hole]);
    assert!(pair.asked().is_empty(), "it asks once");
}

#[test]
fn a_head_of_a_small_conversation_is_a_hole() {
    let mut pair = Pair::online(Forms::Binary);
    let first = pair.message(1, 1, ROOM);
    pair.feed(ServerFrame::Message(first));
    pair.told_head(5);
    assert_eq!(pair.violations(), [Kind::Hole]);
}
