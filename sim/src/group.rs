//! What a group is at each of its sequences, folded from its own records in their order.
//!
//! By it is judged what a node answers without storing anything: that is right only if all that was asked for was so in a state in which
//! the node can have decided. And the other way round: what took a sequence has changed something.

use std::collections::BTreeMap;

use protocol::command::{Command, Members, Role};
use protocol::ids::{ConversationId, UserId};

use crate::oracle::{Oracle, Truth};

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    members: BTreeMap<UserId, Role>,
    title: Option<String>,
}

impl Group {
    /// Goes on by one record.
    pub(crate) fn follow(&mut self, truth: &Truth) {
        self.members.retain(|user, _| !truth.removed.contains(user));
        self.members.extend(truth.roles.iter().cloned());
        if let Some(title) = &truth.title {
            self.title = Some(title.clone());
        }
    }

    /// Whether `user` may ask for this here, and all of it is so.
    fn holds(&self, user: &UserId, command: &Command) -> bool {
        let may_ask = self.members.get(user).is_some_and(|role| *role != Role::Member);
        let is_so = match command {
            Command::Members(Members { add, remove, roles, .. }) => {
                remove.is_empty()
                    && add.iter().all(|user| self.members.contains_key(user))
                    && roles.iter().all(|(user, role)| self.members.get(user) == Some(role))
            }
            Command::Title { title, .. } => self.title.as_ref() == Some(title),
            _ => panic!("{command:?} takes a sequence"),
        };
        may_ask && is_so
    }
}

/// The group that a command changes, if there is anything in it that is not so already.
pub(crate) fn changed_by(command: &Command) -> Option<ConversationId> {
    match command {
        Command::Members(Members { conversation, .. }) | Command::Title { conversation, .. } => {
            Some(*conversation)
        }
        _ => None,
    }
}

impl Oracle {
    /// The newest sequence on the disk of the group that a command changes, 0 without one: whatever the node decides from now on it decides by a
    /// state that is no older.
    pub(crate) fn head_of(&self, command: &Command) -> u64 {
        let Some(conversation) = changed_by(command) else {
            return 0;
        };
        let of = self.durable.range((conversation, 0)..=(conversation, u64::MAX));
        of.map(|((_, seq), _)| *seq).next_back().unwrap_or(0)
    }

    /// Whether all that `user` asks for was so at one of the sequences from `head` on.
    pub(crate) fn was_so(
        &self,
        conversation: ConversationId,
        head: u64,
        user: &UserId,
        command: &Command,
    ) -> bool {
        let mut group = Group::default();
        let of = self.durable.range((conversation, 0)..=(conversation, u64::MAX));
        of.fold(false, |was_so, ((_, seq), truth)| {
            group.follow(truth);
            was_so || *seq >= head && group.holds(user, command)
        })
    }
}

/// What `members` and `title` have stored has changed something, for all records of conversations in the order of their sequences.
pub(crate) fn check_changes(log: &BTreeMap<(ConversationId, u64), Truth>) {
    let mut at = None;
    let mut group = Group::default();
    for ((conversation, seq), truth) in log {
        if at != Some(*conversation) {
            (at, group) = (Some(*conversation), Group::default());
        }
        let before = group.clone();
        group.follow(truth);
        let is_change = truth.text.is_none() && truth.amends.is_none() && truth.retention.is_none();
        assert!(!is_change || group != before, "{conversation}, {seq} changes nothing: {truth:?}");
    }
}
