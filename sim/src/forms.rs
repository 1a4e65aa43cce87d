//! What messages are after their amendments: folded here once more from the commands, and held against what the log has and what clients
//! are shown.

use std::collections::BTreeMap;

use protocol::command::Command;
use protocol::event::{AmendedEvent, AmendedForm, MessageEvent, Reaction};
use protocol::ids::{ConversationId, MessageId, UserId};
use protocol::record::ArchivedFormV1;

use crate::oracle::Truth;
use crate::said::Said;

type Place = (ConversationId, u64);

/// What is left of a message, but for what never changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    text: String,
    said: Said,
    deleted: bool,
    /// Emoji and user of each, in the order in which they were made.
    reactions: Vec<(String, String)>,
}

/// The same as clients are shown it: the users of each emoji, in the order of first use.
#[derive(Debug)]
struct Shown {
    text: String,
    /// Where that is told.
    said: Option<Said>,
    deleted: bool,
    reactions: Vec<Reaction>,
}

impl Form {
    pub(crate) fn of_message(text: &str, said: &Said) -> Self {
        Self { text: text.to_owned(), said: said.clone(), deleted: false, reactions: Vec::new() }
    }

    fn taken_back(&self) -> Self {
        Self { deleted: true, ..Self::of_message("", &self.said.taken_back()) }
    }

    pub(crate) fn of_stored(form: &ArchivedFormV1) -> Self {
        let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let reactions = form.reactions.iter().map(|one| (string(&one.emoji), string(&one.user)));
        let (text, said, deleted) = (string(&form.text), Said::of_form(form), form.deleted != 0);
        Self { text, said, deleted, reactions: reactions.collect() }
    }

    fn reactions_shown(&self) -> Vec<Reaction> {
        let mut reactions: Vec<Reaction> = Vec::new();
        for (emoji, user) in &self.reactions {
            let user = UserId::new(user).expect("a user");
            match reactions.iter_mut().find(|known| known.emoji == *emoji) {
                Some(known) => known.users.push(user),
                None => reactions.push(Reaction { emoji: emoji.clone(), users: vec![user] }),
            }
        }
        reactions
    }

    /// What it says; `None` once it was taken back.
    pub(crate) fn text(&self) -> Option<&str> {
        (!self.deleted).then_some(self.text.as_str())
    }

    /// What a command makes of it.
    fn apply(&mut self, command: &Command, by: &UserId) {
        match command {
            Command::Edit(edit) => self.text.clone_from(&edit.text),
            Command::Delete { .. } => *self = self.taken_back(),
            Command::React(react) => {
                let reaction = (react.emoji.clone(), by.as_str().to_owned());
                if !react.on {
                    self.reactions.retain(|known| *known != reaction);
                } else if !self.reactions.contains(&reaction) {
                    self.reactions.push(reaction);
                }
            }
            other => unreachable!("{other:?} amends nothing"),
        }
    }
}

impl Shown {
    fn of_event(event: &MessageEvent) -> Self {
        let (text, reactions) = (event.text.clone(), event.reactions.clone());
        Self { text, said: Some(Said::of_event(event)), deleted: event.deleted, reactions }
    }

    /// `None` where it is not for who is told.
    fn of_amended(event: &AmendedEvent) -> Option<Self> {
        match &event.form {
            AmendedForm::Deleted => {
                Some(Self { text: String::new(), said: None, deleted: true, reactions: Vec::new() })
            }
            AmendedForm::Hidden => None,
            AmendedForm::Shown { text, reactions, .. } => {
                let (text, reactions) = (text.clone(), reactions.clone());
                Some(Self { text, said: None, deleted: false, reactions })
            }
        }
    }
}

impl Shown {
    /// Whether it is this form.
    fn is(&self, form: &Form) -> bool {
        let Self { text, said, deleted, reactions } = self;
        (text, *deleted) == (&form.text, form.deleted)
            && said.as_ref().is_none_or(|said| *said == form.said)
            && *reactions == form.reactions_shown()
    }
}

/// The forms of all messages.
#[derive(Default)]
pub(crate) struct Forms {
    /// By message: the sequences at which it became something else, its own first, and what.
    of: BTreeMap<Place, Vec<(u64, Form)>>,
    /// By message: when it was acknowledged that it had become something else, and the sequence of that.
    settled: BTreeMap<Place, Vec<(u64, u64)>>,
    /// Counts what was acknowledged, and so is a clock.
    now: u64,
    /// Times that a client was shown something amended.
    pub(crate) shown: u64,
}

impl Forms {
    /// What is asked for at this time has to show all that was acknowledged by then.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// The record `seq` is durable, and makes this of a message.
    pub(crate) fn enter(&mut self, target: Place, seq: u64, form: Form) {
        let forms = self.of.entry(target).or_default();
        if forms.last().is_none_or(|(last, _)| *last < seq) {
            forms.push((seq, form));
        }
    }

    /// Somebody was told that the amendment `seq` is stored.
    pub(crate) fn acked(&mut self, target: Place, seq: u64) {
        self.now += 1;
        self.settled.entry(target).or_default().push((self.now, seq));
    }

    /// A client was shown a message that it asked for `since`; one that is told live may be older than any of its amendments.
    pub(crate) fn message(&mut self, event: &MessageEvent, since: Option<u64>) {
        let target = (event.conversation, event.seq.0);
        self.shown += u64::from(event.deleted || event.edited_at.is_some() || !event.reactions.is_empty());
        self.check(target, event.seq.0, &Shown::of_event(event), since);
    }

    /// The same of an amendment.
    pub(crate) fn amended(&mut self, event: &AmendedEvent, since: Option<u64>) {
        if let Some(form) = Shown::of_amended(event) {
            self.shown += 1;
            self.check((event.conversation, event.target.0), event.seq.0, &form, since);
        }
    }

    /// The sequence that made of a message what was known of it at this time.
    fn oldest(&self, target: Place, since: u64) -> u64 {
        let settled = self.settled.get(&target).into_iter().flatten();
        settled.filter(|(at, _)| *at <= since).map(|(_, seq)| *seq).max().unwrap_or(0)
    }

    /// What a message may say to whoever asked for it `since`.
    pub(crate) fn texts(&self, target: Place, since: u64) -> Vec<&str> {
        let (oldest, forms) = (self.oldest(target, since), self.of.get(&target).into_iter().flatten());
        forms.filter(|(seq, _)| *seq >= oldest).filter_map(|(_, form)| form.text()).collect()
    }

    /// What it says now.
    pub(crate) fn newest_text(&self, target: Place) -> Option<&str> {
        self.of.get(&target)?.last()?.1.text()
    }

    /// How many forms it has had.
    pub(crate) fn count(&self, target: Place) -> usize {
        self.of.get(&target).map_or(0, Vec::len)
    }

    /// A form is one that the message had at `seq` or later, and not one that was known to be past when it was asked for.
    fn check(&self, target: Place, seq: u64, form: &Shown, since: Option<u64>) {
        let oldest = since.map_or(0, |since| self.oldest(target, since)).max(seq);
        let forms = self.of.get(&target).unwrap_or_else(|| panic!("{target:?} is no message"));
        let is_one = forms.iter().any(|(seq, known)| *seq >= oldest && form.is(known));
        assert!(is_one, "folded: {target:?} was shown as {form:?}, which it was before {oldest}: {forms:?}");
    }

    /// Holds what the log says against what the commands come to, each after the other.
    pub(crate) fn check_log(
        &self,
        log: &BTreeMap<Place, Truth>,
        commands: &BTreeMap<(UserId, MessageId), Command>,
    ) {
        let mut now: BTreeMap<Place, Form> = BTreeMap::new();
        for ((conversation, seq), truth) in log {
            let place = (*conversation, *seq);
            if let Some((text, said)) = truth.text.as_ref().zip(truth.said.as_ref()) {
                now.insert(place, Form::of_message(text, said));
            }
            let Some((target, form)) = &truth.amends else {
                continue;
            };
            let by = (truth.sender.clone(), truth.message_id);
            let expected =
                now.get_mut(&(*conversation, *target)).expect("a message stands before its amendments");
            expected.apply(commands.get(&by).expect("somebody asked for it"), &truth.sender);
            assert_eq!(form, expected, "folded: {target} of {conversation} at {seq}");
        }
    }
}
