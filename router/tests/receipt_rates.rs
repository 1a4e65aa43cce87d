//! How often receipts come: of one user in one conversation at most two a second, whatever is read, acknowledged and looked at, and however
//! long the disk takes; and the last of them says all.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;

use protocol::command::{Command, Create, HistoryPolicy};
use protocol::event::{Reached, ServerFrame};
use protocol::ids::{ConversationId, Seq, UserId};
use protocol::record::StreamKind;
use router::conversation::Pace;
use router::mail::SessionId;
use router::places::{conversation_stream, created_conversation, direct_conversation};

use support::{Chat, NOW, answer, id_of, send, user};

/// How long positions are gathered, in milliseconds, and for how long where nobody looks.
const GATHERED: u64 = 1_000;
const GATHERED_UNSEEN: u64 = 30_000;

const SECOND_MICROS: u64 = 1_000_000;

/// What the sessions of a chat are told, and when.
struct Told {
    sessions: Vec<SessionId>,
    /// The newest cursor of each.
    cursors: Vec<Option<String>>,
    /// The newest message.
    head: u64,
    /// By session and of whom.
    receipts: BTreeMap<(usize, ConversationId, UserId), Vec<(u64, Reached)>>,
}

impl Told {
    fn new(sessions: &[SessionId]) -> Self {
        let cursors = vec![None; sessions.len()];
        Self { sessions: sessions.to_vec(), cursors, head: 1, receipts: BTreeMap::new() }
    }

    /// Gives every session what there is for it, until nothing is left to do.
    fn exchange(&mut self, chat: &mut Chat) {
        loop {
            let mut quiet = !(chat.carry_mail() | chat.write() | chat.carry_replies());
            for place in 0..self.sessions.len() {
                let frames = chat.take(self.sessions[place]);
                quiet &= frames.is_empty();
                frames.into_iter().for_each(|frame| self.note(place, frame, chat.clock.micros));
            }
            if quiet {
                return;
            }
        }
    }

    fn note(&mut self, place: usize, frame: ServerFrame, micros: u64) {
        match frame {
            ServerFrame::Cursor { cursor } | ServerFrame::Pong { cursor: Some(cursor), .. } => {
                self.cursors[place] = Some(cursor);
            }
            ServerFrame::Receipt { conversation, user, reached } => {
                self.receipts.entry((place, conversation, user)).or_default().push((micros, reached));
            }
            ServerFrame::Message(message) => self.head = self.head.max(message.seq.0),
            ServerFrame::Error(error) => panic!("{error:?}"),
            _ => {}
        }
    }

    /// That there are no more than so many in any second.
    #[track_caller]
    fn assert_rate(&self, a_second: usize) {
        for ((place, _, user), receipts) in &self.receipts {
            for some in receipts.windows(a_second + 1) {
                let within = some[a_second].0 - some[0].0;
                assert!(within >= SECOND_MICROS, "{place} is told of {user:?} in {within} us: {some:?}");
            }
        }
    }

    fn last(&self, place: usize, conversation: ConversationId, name: &str) -> Option<Reached> {
        Some(self.receipts.get(&(place, conversation, user(name)))?.last()?.1)
    }
}

/// Alice and bob, who is here twice. What alice looks at beside has her told how both stand: a `view` is answered at once.
fn looking(chat: &mut Chat) -> (Told, ConversationId) {
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    let (bob, _) = chat.connect("bob", None);
    let (carol, _) = chat.connect("carol", None);
    say(chat, alice);
    let id = id_of(NOW.0, 50);
    let (title, history) = ("a group".to_owned(), HistoryPolicy::All);
    let create = Create { title, members: vec![user("bob")], history, message_id: id };
    answer(&chat.command(alice, Command::Create(create))).expect("stored");
    let group = created_conversation(&user("alice"), id.expect("an id"));
    chat.command(alice, Command::View { conversation: group });
    (Told::new(&[alice, bob, carol]), direct_conversation(&user("alice"), &user("bob")))
}

fn say(chat: &mut Chat, session: SessionId) {
    answer(&chat.command(session, send("bob", "hello", None))).expect("stored");
}

/// Places of sessions.
const ALICE: usize = 0;
const BOB: usize = 1;

/// Something is said and bob acknowledges it.
fn say_and_ack(chat: &mut Chat, told: &mut Told) {
    chat.request(told.sessions[ALICE], send("bob", "hello", None));
    told.exchange(chat);
    acknowledge(chat, told);
    acknowledge(chat, told);
}

/// What bob has been given by now, as the answer to the `ping` before says it.
fn acknowledge(chat: &mut Chat, told: &mut Told) {
    let cursor = told.cursors[BOB].clone();
    chat.request(told.sessions[BOB], Command::Ping { cursor });
    told.exchange(chat);
}

/// Where nobody looks it waits half a minute to be written that something was delivered. Somebody looked meanwhile, and it was written: by the end
/// of that half minute what is new has waited for a moment.
#[test]
fn what_could_wait_and_was_told_since_is_told_no_second_time_by_it() {
    let mut chat = Chat::new();
    let (mut told, conversation) = looking(&mut chat);
    say_and_ack(&mut chat, &mut told);
    chat.wait(GATHERED_UNSEEN - GATHERED - 50);
    chat.request(told.sessions[ALICE], Command::View { conversation });
    told.exchange(&mut chat);
    say_and_ack(&mut chat, &mut told);
    chat.wait(GATHERED);
    told.exchange(&mut chat);
    let reached = |delivered| Reached { read: Seq(0), delivered: Seq(delivered) };
    assert_eq!(told.last(ALICE, conversation, "bob"), Some(reached(3)));

    chat.request(told.sessions[ALICE], Command::Unview { conversation });
    say_and_ack(&mut chat, &mut told);
    let written = |chat: &Chat| chat.log.head(conversation_stream(conversation, StreamKind::Positions)).seq;
    let before = written(&chat);
    chat.wait(50);
    chat.disk_is_slow = true;
    told.exchange(&mut chat);
    let after = written(&chat);
    chat.request(told.sessions[ALICE], Command::View { conversation });
    told.exchange(&mut chat);
    chat.disk_is_slow = false;
    chat.let_go();
    told.exchange(&mut chat);
    told.assert_rate(1);
    assert_eq!(before, after, "it was written a moment ago");
    chat.wait(GATHERED);
    told.exchange(&mut chat);
    assert_eq!(told.last(ALICE, conversation, "bob"), Some(reached(4)), "and nothing is lost");
}

/// Numbers that look thrown.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn one_in(&mut self, so_many: u64) -> bool {
        self.below(so_many) == 0
    }
}

/// How a disk is, for a while.
#[derive(Clone, Copy)]
enum Disk {
    /// What is written is on it at once.
    Quick,
    /// It takes a moment, and now and then some seconds.
    Stalls,
}

/// A minute and a half in which bob reads, acknowledges and is sent things many times a second, and alice looks and looks away.
fn drive(seed: u64, disk: Disk, pace: Pace) -> Told {
    const STEP: u64 = 20;
    let mut chat = Chat::new();
    let (mut told, conversation) = looking(&mut chat);
    let mut dice = Dice(seed);
    let (mut read, mut looks, mut written_at) = (0, false, 0);
    (chat.pace, chat.disk_is_slow) = (pace, matches!(disk, Disk::Stalls));
    for step in 0..4_500 {
        chat.wait(STEP);
        if dice.one_in(14) {
            chat.request(told.sessions[ALICE], send("bob", "hello", None));
        }
        // One after the other, and a little slower than they come: there is something to read while the disk stalls.
        if dice.one_in(16) && read < told.head {
            read += 1;
            chat.request(told.sessions[BOB], Command::Read { conversation, seq: Seq(read) });
        }
        if dice.one_in(3) {
            let cursor = told.cursors[BOB].clone();
            chat.request(told.sessions[BOB], Command::Ping { cursor });
        }
        // In the second half she looks all the time.
        if dice.one_in(if looks { 40 } else { 10 }) && step < 2_250 || step == 2_250 {
            looks = !looks || step == 2_250;
            let view = if looks { Command::View { conversation } } else { Command::Unview { conversation } };
            chat.request(told.sessions[ALICE], view);
        }
        told.exchange(&mut chat);
        if step >= written_at {
            chat.let_go();
            told.exchange(&mut chat);
            written_at = step + if dice.one_in(40) { dice.below(150) } else { dice.below(4) };
        }
    }
    chat.disk_is_slow = false;
    chat.let_go();
    told.exchange(&mut chat);
    let (read, delivered) = (Seq(read.max(told.head - 1)), Seq(told.head));
    chat.request(told.sessions[BOB], Command::Read { conversation, seq: read });
    told.exchange(&mut chat);
    (0..2).for_each(|_| acknowledge(&mut chat, &mut told));
    for _ in 0..4 {
        chat.wait(GATHERED);
        told.exchange(&mut chat);
    }
    assert_eq!(told.last(ALICE, conversation, "bob"), Some(Reached { read, delivered }), "{seed}");
    let own = told.last(BOB, conversation, "bob").map(|reached| reached.read);
    assert_eq!(own, Some(read), "{seed}");
    let many = told.receipts[&(ALICE, conversation, user("bob"))].len();
    assert!(many >= 25, "{seed}: she was told only {many} times");
    told
}

#[test]
fn receipts_come_at_most_once_a_second_on_a_disk_that_keeps_up() {
    (1..=16).for_each(|seed| drive(seed, Disk::Quick, Pace::Usual).assert_rate(1));
}

#[test]
fn receipts_come_at_most_twice_a_second_on_a_disk_that_stalls() {
    (1..=16).for_each(|seed| drive(seed, Disk::Stalls, Pace::Usual).assert_rate(2));
}

/// A drain lasts, and everybody goes on reading until the goodbye.
#[test]
fn receipts_come_at_most_once_a_second_while_the_node_goes_away() {
    (1..=4).for_each(|seed| drive(seed, Disk::Quick, Pace::Leaving).assert_rate(1));
}
