//! What a message says beside its text: its kind, where its media are, what it answers and whom it mentions; in some worlds more than a text.
//!
//! `as_said`: a message is stored where and as its sender said it, and given so to everybody, live, in pages and while catching up, whatever it
//! names: a message that its sender may not see, one that is not there yet, somebody who is no member or nobody at all. Edits leave it as it
//! is, and of what was taken back only the kind is left.

use protocol::command::{Command, MessageKind, Send, Target};
use protocol::event::MessageEvent;
use protocol::ids::{ConversationId, Seq, UserId};
use protocol::limits::{INTEGER_MAX, MEDIA_BYTES_MAX, MENTIONS_MAX};
use protocol::record::{ArchivedFormV1, ArchivedMessageV1, ArchivedNameV1};
use router::places::direct_conversation;

use crate::Rng;
use crate::oracle::{Oracle, Truth};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Said {
    kind: MessageKind,
    media: Option<String>,
    reply_to: Option<Seq>,
    mentions: Vec<UserId>,
}

/// How often somebody was given a message with one of these: mentions, an answer to another, media.
pub(crate) type Given = (u64, u64, u64);

impl Said {
    /// Nothing but a kind.
    pub(crate) fn nothing(kind: MessageKind) -> Self {
        Self { kind, media: None, reply_to: None, mentions: Vec::new() }
    }

    fn of_command(send: &Send) -> Self {
        let Send { kind, media, reply_to, mentions, .. } = send.clone();
        Self { kind, media, reply_to, mentions }
    }

    pub(crate) fn of_event(event: &MessageEvent) -> Self {
        let MessageEvent { kind, media, reply_to, mentions, .. } = event.clone();
        Self { kind, media, reply_to, mentions }
    }

    pub(crate) fn of_record(body: &ArchivedMessageV1) -> Self {
        Self::of_parts(body.kind, &body.media, body.reply_to.to_native(), &body.mentions)
    }

    pub(crate) fn of_form(form: &ArchivedFormV1) -> Self {
        Self::of_parts(form.kind, &form.media, form.reply_to.to_native(), &form.mentions)
    }

    fn of_parts(kind: u8, media: &[u8], reply_to: u64, mentions: &[ArchivedNameV1]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let user = |name: &ArchivedNameV1| UserId::new(&text(&name.name)).expect("a user");
        Self {
            kind: MessageKind::from_number(kind).expect("a kind"),
            media: (!media.is_empty()).then(|| text(media)),
            reply_to: (reply_to > 0).then_some(Seq(reply_to)),
            mentions: mentions.iter().map(user).collect(),
        }
    }

    /// What is left when it is taken back.
    pub(crate) fn taken_back(&self) -> Self {
        Self::nothing(self.kind)
    }

    pub(crate) fn count(&self, given: &mut Given) {
        given.0 += u64::from(!self.mentions.is_empty());
        given.1 += u64::from(self.reply_to.is_some());
        given.2 += u64::from(self.media.is_some());
    }
}

/// More than a text, as the dice have it. `newest` is how far the sender knows the conversation.
pub(crate) fn elaborate(dice: &mut Rng, send: &mut Send, users: &[UserId], newest: u64) {
    if dice.one_in(3) {
        let kind = *dice.pick(&[MessageKind::Image, MessageKind::File]);
        let letters = if dice.one_in(8) { MEDIA_BYTES_MAX as u64 } else { dice.between(1, 40) };
        let media = (0..letters).map(|_| char::from(b'0' + dice.below(10) as u8)).collect();
        (send.kind, send.media) = (kind, Some(media));
        if dice.one_in(3) {
            send.text.clear();
        }
    }
    if dice.one_in(2) {
        let seq = match dice.below(8) {
            0 => dice.between(1, INTEGER_MAX + 1),
            // What comes next, perhaps itself.
            1 | 2 => newest + dice.between(1, 4),
            _ => dice.between(1, newest.max(1) + 1),
        };
        send.reply_to = Some(Seq(seq));
    }
    if dice.one_in(2) {
        let count = if dice.one_in(10) { MENTIONS_MAX as u64 } else { dice.between(1, 4) };
        let nobody = |number| UserId::new(&format!("nobody-{number} \u{1f465}")).expect("a user");
        let mention = |dice: &mut Rng| match dice.below(5) {
            0 => nobody(dice.below(1_000)),
            _ => dice.pick(users).clone(),
        };
        send.mentions = (0..count).map(|_| mention(dice)).collect();
    }
}

impl Oracle {
    /// A message is durable: it stands where its sender wanted it, and says what it was to say.
    pub(crate) fn check_as_said(&self, conversation: ConversationId, truth: &Truth) {
        let Some(said) = &truth.said else { return };
        let by = (truth.sender.clone(), truth.message_id);
        let Some(Command::Send(send)) = self.groups.commands.get(&by) else {
            panic!("as_said: nobody has sent {truth:?}");
        };
        let target = match &send.target {
            Target::Conversation(conversation) => *conversation,
            Target::User(peer) => direct_conversation(&truth.sender, peer),
        };
        assert_eq!(conversation, target, "as_said: {send:?} is stored elsewhere");
        assert_eq!(
            (said, truth.text.as_ref()),
            (&Said::of_command(send), Some(&send.text)),
            "as_said: {conversation}"
        );
    }

    /// Somebody was given a message.
    pub(crate) fn told_said(&mut self, event: &MessageEvent) {
        let said = Said::of_event(event);
        said.count(&mut self.given);
        let place = (event.conversation, event.seq.0);
        let truth = &self.durable[&place];
        let stored = truth.said.as_ref().expect("only messages are given as such");
        let expected = if event.deleted { stored.taken_back() } else { stored.clone() };
        assert_eq!(said, expected, "as_said: {place:?}");
        assert_eq!((&event.sender, event.at.0), (&truth.sender, truth.at), "as_said: {place:?}");
    }
}
