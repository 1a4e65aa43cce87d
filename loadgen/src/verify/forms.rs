//! What messages have become: the form that follows from the acknowledged amendments, held against the one that is shown.
//!
//! A text is known by the command that its letter names, so a form is a few numbers: the sum in the letter answers for the rest.
//!
//! Invariant: a message that nobody amended has the form that it was sent with.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::ids::MessageId;
use serde::{Deserialize, Serialize};

use super::{Evidence, Kind, Members, Violations};
use crate::plan::{RoomIndex, UserIndex};

/// A command's name, as a number.
pub(crate) type CommandId = u128;

/// The text of nobody's letter.
pub(crate) const NO_LETTER: CommandId = 0;

/// Of which users react with one.
pub(crate) const EMOJIS: [&str; 4] = ["\u{1f44d}", "\u{2764}\u{fe0f}", "\u{1f469}\u{200d}\u{1f680}", "+1"];

/// The place of an emoji among [`EMOJIS`]; of any other one behind all of them.
pub(crate) fn emoji_number(emoji: &str) -> u8 {
    EMOJIS.iter().position(|known| *known == emoji).unwrap_or(EMOJIS.len()) as u8
}

/// The name of a command, as a number.
pub(crate) const fn command_id(message_id: MessageId) -> CommandId {
    u128::from_be_bytes(message_id.0)
}

/// What an amendment did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Delete,
    /// The new text is the letter of this very command.
    Edit,
    React {
        emoji: u8,
        on: bool,
    },
}

/// An amendment that the node has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Amendment {
    pub(crate) room: RoomIndex,
    pub(crate) seq: u64,
    pub(crate) target: u64,
    pub(crate) by: UserIndex,
    pub(crate) command: CommandId,
    pub(crate) change: Change,
}

/// An amendment that was refused because there is no such message any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overtaken {
    pub(crate) room: RoomIndex,
    pub(crate) target: u64,
    pub(crate) by: UserIndex,
    pub(crate) command: CommandId,
}

/// What a message is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoldedForm {
    /// Whose letter the text is; `None` without any text.
    pub(crate) text: Option<CommandId>,
    pub(crate) edited: bool,
    pub(crate) deleted: bool,
    /// By emoji, in the order of their first use.
    pub(crate) reactions: Vec<(u8, Vec<UserIndex>)>,
}

impl FoldedForm {
    /// As it was sent.
    pub(crate) fn plain(command: CommandId) -> Self {
        Self { text: Some(command), ..Self::default() }
    }

    fn amend(self, amendment: &Amendment) -> Self {
        match amendment.change {
            _ if self.deleted => self,
            Change::Delete => Self { deleted: true, ..Self::default() },
            Change::Edit => Self { text: Some(amendment.command), edited: true, ..self },
            // These go by the order in which they were made: see `follow`.
            Change::React { .. } => self,
        }
    }

    /// What a message becomes by amendments in their order.
    fn follow(command: CommandId, amendments: &[Amendment]) -> Self {
        let form = amendments.iter().fold(Self::plain(command), Self::amend);
        let mut made: Vec<(u8, UserIndex)> = Vec::new();
        for amendment in amendments.iter().filter(|_| !form.deleted) {
            let Change::React { emoji, on } = amendment.change else { continue };
            let reaction = (emoji, amendment.by);
            if !on {
                made.retain(|other| *other != reaction);
            } else if !made.contains(&reaction) {
                made.push(reaction);
            }
        }
        let mut reactions: Vec<(u8, Vec<UserIndex>)> = Vec::new();
        for (emoji, user) in made {
            match reactions.iter_mut().find(|(other, _)| *other == emoji) {
                Some((_, users)) => users.push(user),
                None => reactions.push((emoji, vec![user])),
            }
        }
        Self { reactions, ..form }
    }

    /// What is wrong with it where `expected` is due.
    fn fault(&self, expected: &Self) -> Option<Kind> {
        match (expected.deleted, self.deleted) {
            _ if self == expected => None,
            (true, _) => Some(Kind::DeletedShown),
            (false, true) => Some(Kind::DeletedUnasked),
            (false, false) if (self.text, self.edited) != (expected.text, expected.edited) => {
                Some(Kind::Edit)
            }
            (false, false) => Some(Kind::Reactions),
        }
    }
}

/// An amendment as a history shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownAmendment {
    pub(crate) seq: u64,
    pub(crate) target: u64,
    pub(crate) by: UserIndex,
    /// What it says that its target is.
    pub(crate) form: FoldedForm,
}

/// What a history shows of amendments, beside the ids of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// The messages that are not as they were sent.
    pub(crate) messages: BTreeMap<u64, FoldedForm>,
    pub(crate) amendments: Vec<ShownAmendment>,
}

/// Holds what histories show against what was promised.
pub(super) fn judge(evidence: &Evidence, members: &Members<'_>, violations: &mut Violations) {
    let mut promised: HashMap<RoomIndex, Vec<Amendment>> = HashMap::new();
    for amendment in &evidence.amendments {
        promised.entry(amendment.room).or_default().push(*amendment);
    }
    for (room, log) in &evidence.logs {
        let mut amendments = promised.remove(room).unwrap_or_default();
        amendments.sort_unstable_by_key(|amendment| (amendment.target, amendment.seq));
        let nothing = Shown::default();
        let shown = evidence.shown.get(room).unwrap_or(&nothing);
        let ids: HashMap<u64, CommandId> = log.iter().map(|(seq, id)| (*seq, command_id(*id))).collect();
        judge_amendments(*room, &amendments, shown, violations);
        let forms = judge_messages(*room, &amendments, shown, &ids, violations);
        judge_folding(*room, &forms, shown, violations);
    }
    judge_overtaken(evidence, members, violations);
}

/// Every promised amendment is in the log as one, of its target and by its author.
fn judge_amendments(room: RoomIndex, amendments: &[Amendment], shown: &Shown, violations: &mut Violations) {
    let by_seq: HashMap<u64, &ShownAmendment> =
        shown.amendments.iter().map(|amendment| (amendment.seq, amendment)).collect();
    for Amendment { seq, target, by, .. } in amendments {
        let stored = by_seq.get(seq).map(|stored| (stored.target, stored.by));
        if stored != Some((*target, *by)) {
            violations.add(Kind::Amendment, || {
                let (room, by) = (room.0, by.0);
                format!("room {room}: user {by} amended {target} at {seq}, and the log has {stored:?} there")
            });
        }
    }
}

/// Every message has the form that follows from what was promised. Gives these forms.
fn judge_messages(
    room: RoomIndex,
    amendments: &[Amendment],
    shown: &Shown,
    ids: &HashMap<u64, CommandId>,
    violations: &mut Violations,
) -> HashMap<u64, FoldedForm> {
    let mut forms = HashMap::new();
    for amendments in amendments.chunk_by(|one, next| one.target == next.target) {
        let target = amendments[0].target;
        // That it is gone was told with the ids.
        let Some(command) = ids.get(&target) else { continue };
        forms.insert(target, FoldedForm::follow(*command, amendments));
    }
    let targets: BTreeSet<u64> = forms.keys().chain(shown.messages.keys()).copied().collect();
    for target in targets {
        let Some(command) = ids.get(&target) else { continue };
        let plain = FoldedForm::plain(*command);
        let (expected, is) = (forms.get(&target), shown.messages.get(&target));
        let (expected, is) = (expected.unwrap_or(&plain), is.unwrap_or(&plain));
        if let Some(kind) = is.fault(expected) {
            violations.add(kind, || format!("{target} of room {} is {is:?} and not {expected:?}", room.0));
        }
    }
    forms
}

/// Every amendment that is shown says what its target is by now.
fn judge_folding(
    room: RoomIndex,
    forms: &HashMap<u64, FoldedForm>,
    shown: &Shown,
    violations: &mut Violations,
) {
    for ShownAmendment { seq, target, form, .. } in &shown.amendments {
        let Some(expected) = forms.get(target) else { continue };
        if form != expected {
            let kind = if expected.deleted { Kind::DeletedShown } else { Kind::Unfolded };
            violations.add(kind, || {
                let room = room.0;
                format!("{seq} of room {room} says that {target} is {form:?} and not {expected:?}")
            });
        }
    }
}

/// Only of a deleted message there is nothing to amend, and for who may not see it.
fn judge_overtaken(evidence: &Evidence, members: &Members<'_>, violations: &mut Violations) {
    let deletions = evidence.amendments.iter().filter(|amendment| amendment.change == Change::Delete);
    let deleted: BTreeSet<(RoomIndex, u64)> =
        deletions.map(|deletion| (deletion.room, deletion.target)).collect();
    for Overtaken { room, target, by, command } in &evidence.overtaken {
        if !deleted.contains(&(*room, *target)) && !members.was_hidden(*room, *by, *target) {
            violations.add(Kind::NotFound, || {
                let id = MessageId(command.to_be_bytes());
                format!("{id} amends {target} of room {}, which was not found and is not deleted", room.0)
            });
        }
    }
}
