//! What a client says: messages, groups and who is in them, and what it makes of messages that were said.

use protocol::command::{
    Command, Create, Edit, HistoryPolicy, Members, MessageKind, React, Request, Send, Target,
};
use protocol::ids::{ConversationId, MessageId, Seq, UnixMillis, UserId};
use router::places::direct_conversation;

use super::Client;
use crate::Rng;
use crate::oracle::Oracle;
use crate::{said, searching};

impl Client {
    /// Says that it is there, and what it has.
    pub(super) fn ping(&mut self, oracle: &mut Oracle) {
        let (id, cursor) = (self.id(), self.cursor.clone());
        self.acknowledge(oracle);
        if cursor.is_some() {
            self.acknowledging.asked(id);
        }
        self.write(&Request { id: Some(id), command: Command::Ping { cursor } });
    }

    /// Whether it looks at something at rest, and says what it has: where anybody looks at anything. Where users are called nobody would be of what all have.
    pub(crate) fn looks_at_rest(&self) -> bool {
        self.viewing.dice.is_some() && self.registering.dice.is_none()
    }

    pub(super) fn look_at_rest(&mut self, oracle: &mut Oracle) {
        if !self.looks_at_rest() {
            return;
        }
        if let Some(conversation) = self.viewing.next_at_rest(&self.seen) {
            let id = self.id();
            self.viewing.asked(id, conversation, oracle);
            self.write(&Request { id: Some(id), command: Command::View { conversation } });
        }
        if self.cursor.is_some() && self.acknowledging.pings() {
            self.ping(oracle);
        }
    }

    /// Amends something that it was told of, or may have been, as its dice have it.
    pub(super) fn amend(&mut self, oracle: &mut Oracle, now: UnixMillis) -> bool {
        let Some(rng) = &mut self.amending else {
            return false;
        };
        if !rng.one_in(3) {
            return false;
        }
        let newest = self.received.len().saturating_sub(40);
        let places: Vec<(ConversationId, u64)> = self.received.iter().skip(newest / 2).copied().collect();
        if places.is_empty() {
            return false;
        }
        let (conversation, seq) = *rng.pick(&places);
        let (seq, message_id) =
            (Seq(seq), new_message_id(rng, UnixMillis(now.0.saturating_add_signed(self.skew_ms))));
        let id = Some(message_id);
        let command = match rng.below(10) {
            0..4 => {
                let (emoji, on) = ((*rng.pick(&["+", "-", "?"])).to_owned(), !rng.one_in(3));
                Command::React(React { conversation, seq, emoji, on, message_id: id })
            }
            4..9 => {
                let length = if rng.one_in(20) { rng.between(1, 9_000) } else { rng.between(1, 100) };
                // A caption may be taken away, a text may not.
                let length =
                    length * u64::from(!self.elaborating.as_mut().is_some_and(|dice| dice.one_in(6)));
                let text = match self.searching.dice {
                    Some(_) => searching::text(rng, length).to_uppercase(),
                    None => (0..length).map(|_| char::from(b'A' + rng.below(26) as u8)).collect(),
                };
                Command::Edit(Edit { conversation, seq, text, message_id: id })
            }
            _ => Command::Delete { conversation, seq, message_id: id },
        };
        self.store(command, message_id, oracle);
        true
    }

    pub(super) fn storing(
        &mut self,
        rng: &mut Rng,
        users: &[UserId],
        choice: u64,
        known: Option<ConversationId>,
        message_id: MessageId,
    ) -> Command {
        let others: Vec<UserId> = users.iter().filter(|user| **user != self.user).cloned().collect();
        let message_id = Some(message_id);
        match (choice, known) {
            (4, _) => Command::Create(Create {
                title: format!("group {}", rng.below(100)),
                members: others.iter().filter(|_| rng.one_in(2)).cloned().chain([others[0].clone()]).fold(
                    Vec::new(),
                    |mut members, user| {
                        if !members.contains(&user) {
                            members.push(user);
                        }
                        members
                    },
                ),
                history: if rng.one_in(2) { HistoryPolicy::All } else { HistoryPolicy::Joined },
                message_id,
            }),
            (5 | 6, Some(conversation)) => {
                let user = rng.pick(users).clone();
                let (add, remove) = if rng.one_in(2) { (vec![user], vec![]) } else { (vec![], vec![user]) };
                Command::Members(Members { conversation, add, remove, roles: Vec::new(), message_id })
            }
            (7, Some(conversation)) if rng.one_in(3) => Command::Leave { conversation, message_id },
            (8, Some(conversation)) => {
                Command::Title { conversation, title: format!("title {}", rng.below(100)), message_id }
            }
            (_, known) => {
                let target = match known {
                    Some(conversation) if rng.one_in(2) => Target::Conversation(conversation),
                    _ => Target::User(rng.pick(&others).clone()),
                };
                let length = if rng.one_in(30) { rng.between(1, 12_000) } else { rng.between(1, 200) };
                let text = match self.searching.dice {
                    Some(_) => searching::text(rng, length),
                    None => (0..length).map(|_| char::from(b'a' + rng.below(26) as u8)).collect(),
                };
                let (kind, media, reply_to, mentions) = (MessageKind::Text, None, None, Vec::new());
                let mut send = Send { target, kind, text, media, reply_to, mentions, message_id };
                self.elaborate(&mut send, users);
                Command::Send(send)
            }
        }
    }
}

impl Client {
    /// Says more than a text, as its dice have it.
    fn elaborate(&mut self, send: &mut Send, users: &[UserId]) {
        let Some(dice) = &mut self.elaborating else { return };
        let conversation = match &send.target {
            Target::Conversation(conversation) => *conversation,
            Target::User(peer) => direct_conversation(&self.user, peer),
        };
        let newest = self.seen.get(&conversation).copied().unwrap_or_default();
        said::elaborate(dice, send, users, newest);
    }
}

pub(super) fn new_message_id(rng: &mut Rng, now: UnixMillis) -> MessageId {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&rng.roll().to_le_bytes());
    random[8..].copy_from_slice(&rng.roll().to_le_bytes()[..2]);
    MessageId::v7(now, random)
}
