//! How often the blocks of an index file are read when many ask for a page of one conversation at once: each once.

#![forbid(unsafe_code)]

mod support;

use std::collections::HashSet;

use protocol::command::HistoryRange;
use protocol::event::ErrorCode;
use protocol::ids::{RequestId, Seq};
use router::ShardId;
use router::mail::{Asker, Reply, Request, SessionId};
use router::places::direct_conversation;
use storage_log::Geometry;
use storage_log::format::BLOCK_BYTES_MIN;

use support::{Chat, send, user};

/// Who ask at once.
const ASKERS: u32 = 20;

/// Messages of a page.
const COUNT: u64 = 20;

/// A conversation whose first messages stand in a sealed segment, so that a page of them begins with blocks of its index.
fn begun() -> Chat {
    let geometry =
        Geometry { segment_bytes: 32 << 10, batch_bytes_max: 16 << 10, block_bytes: BLOCK_BYTES_MIN };
    let mut chat = Chat::with_geometry(1, geometry);
    chat.disk_reads = true;
    let (alice, _) = chat.connect("alice", None);
    while chat.log.sealed_blocks().next().is_none() {
        chat.command(alice, send("bob", "one of many", None));
    }
    chat
}

fn ask(chat: &mut Chat, number: u32) {
    let session = SessionId { slot: number, generation: 0 };
    let asker = Asker { shard: ShardId(0), session, id: RequestId(number), asked_micros: 0 };
    let (user, conversation) = (user("alice"), direct_conversation(&user("alice"), &user("bob")));
    let range = HistoryRange::After(Seq(0));
    let request = Request::History { asker, user, conversation, range, limit: COUNT as u32 };
    chat.side.handle_request(request, chat.clock.unix, &mut chat.log);
}

/// Reads all that is to be read. Who was answered, in the order of their numbers: with a page, or refused.
fn answers(chat: &mut Chat) -> Vec<(u32, Result<u64, ErrorCode>)> {
    while let Some(read) = chat.side.poll_read() {
        chat.answer_read(read);
    }
    let replies = std::iter::from_fn(|| chat.side.poll_output());
    let mut answers: Vec<_> = replies
        .map(|(_, reply)| match reply {
            Reply::History { asker, records, .. } => {
                let seqs: Vec<u64> = records.iter().map(|linked| linked.seq.0).collect();
                assert!(records.iter().all(|linked| linked.record.is_some()), "no gaps");
                assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
                (asker.id.0, Ok(seqs.len() as u64))
            }
            Reply::Refused { asker, code, .. } => (asker.id.0, Err(code)),
            other => panic!("{other:?}"),
        })
        .collect();
    answers.sort_unstable_by_key(|(number, _)| *number);
    answers
}

fn all(answer: Result<u64, ErrorCode>) -> Vec<(u32, Result<u64, ErrorCode>)> {
    (1..=ASKERS).map(|number| (number, answer)).collect()
}

#[test]
fn many_who_ask_for_one_page_at_once_read_each_block_once() {
    let mut chat = begun();
    (1..=ASKERS).for_each(|number| ask(&mut chat, number));
    assert_eq!(answers(&mut chat), all(Ok(COUNT)));
    let different: HashSet<_> = chat.blocks_read.iter().collect();
    assert_eq!(chat.blocks_read.len(), different.len(), "each once");
    assert!(!chat.blocks_read.is_empty(), "it began in a sealed segment");
}

#[test]
fn a_block_that_cannot_be_read_is_told_to_all_who_wait_for_it() {
    let mut chat = begun();
    chat.disk_reads = false;
    (1..=ASKERS).for_each(|number| ask(&mut chat, number));
    assert_eq!(answers(&mut chat), []);
    assert_eq!(chat.blocks_read.len(), 1);
    let damaged: Vec<u64> = chat.side.index_damage().collect();
    assert_eq!(damaged.len(), ASKERS as usize, "all wait for the index to be made again");
    chat.side.refuse_stalled(damaged[0], chat.clock.unix, &mut chat.log);
    assert_eq!(answers(&mut chat), all(Err(ErrorCode::Unavailable)));
}

#[test]
fn what_is_read_of_an_index_of_before_answers_nobody_who_asks_after_it_was_made_again() {
    let mut chat = begun();
    ask(&mut chat, 1);
    let before = chat.side.poll_read().expect("a block");
    chat.rebuild_index();
    (2..=ASKERS).for_each(|number| ask(&mut chat, number));
    let after = chat.side.poll_read().expect("of the file as it is now");
    assert_eq!(chat.side.poll_read(), None, "the others wait for that one");
    assert_ne!(before.what, after.what);
    chat.answer_read(after);
    chat.answer_read(before);
    assert_eq!(answers(&mut chat), all(Ok(COUNT)));
}
