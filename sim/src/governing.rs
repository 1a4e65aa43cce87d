//! Members who hand out roles and take them, in some worlds: those who may and those who may not, themselves and others, some of whom are in no
//! such group. What is right of it `group` says.

use protocol::command::{Command, Members, Role};
use protocol::ids::{ConversationId, MessageId, UserId};

use crate::Rng;

/// What `me` asks for, as its dice have it, in one of the conversations that it knows: mostly where it has more than the role of a member, as few
/// have.
pub(crate) fn act(
    dice: &mut Rng,
    known: &[(ConversationId, Option<Role>)],
    (me, users): (&UserId, &[UserId]),
    message_id: impl FnOnce(&mut Rng) -> MessageId,
) -> Option<Command> {
    if !dice.one_in(6) || known.is_empty() {
        return None;
    }
    let has_role = |role: &Option<Role>| matches!(role, Some(Role::Admin | Role::Owner));
    let mine: Vec<_> = known.iter().filter(|(_, role)| has_role(role)).copied().collect();
    let of_all = mine.is_empty() || dice.one_in(5);
    let (conversation, _) = *dice.pick(if of_all { known } else { &mine });
    let message_id = Some(message_id(dice));
    let (one, other) = (dice.pick(users).clone(), dice.pick(users).clone());
    let role = |dice: &mut Rng| *dice.pick(&[Role::Owner, Role::Admin, Role::Admin, Role::Member]);
    let lower = *dice.pick(&[Role::Admin, Role::Member]);
    let (add, remove, mut roles) = match dice.below(16) {
        0..4 => (vec![], vec![], vec![(one, role(dice)), (other, role(dice))]),
        4..7 => (vec![], vec![], vec![(one, role(dice))]),
        7 => (vec![], vec![], vec![(me.clone(), lower)]),
        8 => (vec![], vec![], vec![(me.clone(), lower), (one, role(dice))]),
        9 => (vec![], vec![one], vec![(me.clone(), lower), (other, role(dice))]),
        10 | 11 => (vec![one.clone()], vec![], vec![(one, role(dice))]),
        12 => (vec![one], vec![], vec![(me.clone(), lower)]),
        13 => (vec![], vec![me.clone()], vec![(one, role(dice))]),
        _ => (vec![], vec![one], vec![]),
    };
    // Nobody is named twice.
    if roles.len() == 2 && roles[0].0 == roles[1].0 {
        roles.pop();
    }
    Some(Command::Members(Members { conversation, add, remove, roles, message_id }))
}
