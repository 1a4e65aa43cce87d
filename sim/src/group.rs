//! What a group is at each of its sequences, folded from its own records in their order, and what a command comes to there by
//! `docs/PROTOCOL.md`.
//!
//! `roles_decide`: what took a sequence was for its sender to do, and made of the group what it said and nothing else; what was refused had to
//! be, in a state in which the node can have decided; and what was answered without storing anything was so in one. A group with
//! members has an owner, and one without is closed: it has nobody who may do anything.

use std::collections::{BTreeMap, BTreeSet};

use protocol::command::{Command, Create, HistoryPolicy, Members, Role};
use protocol::event::{ErrorCode, MemberEntry, MemberEvent};
use protocol::ids::{ConversationId, MessageId, Seq, UserId};

use crate::oracle::{Oracle, Truth};

type Place = (ConversationId, u64);

/// An id that claims to be of later than this, in milliseconds from now, may be refused for that.
const AHEAD_MS: u64 = 59_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    /// In the order in which they last joined.
    members: Vec<MemberEntry>,
    title: String,
    history: HistoryPolicy,
}

impl Group {
    /// As it is made.
    fn made(by: &UserId, create: &Create) -> Self {
        let entry = |user: &UserId, role| MemberEntry { user: user.clone(), role, visible_from: Seq(1) };
        let others = create.members.iter().filter(|user| *user != by).map(|user| entry(user, Role::Member));
        let members = [entry(by, Role::Owner)].into_iter().chain(others).collect();
        Self { members, title: create.title.clone(), history: create.history }
    }

    fn role(&self, user: &UserId) -> Option<Role> {
        self.members.iter().find(|member| member.user == *user).map(|member| member.role)
    }

    /// What comes of a command at `seq`, or everything that speaks against it.
    fn judge(&self, user: &UserId, command: &Command, seq: u64) -> Result<Self, Vec<ErrorCode>> {
        let Some(role) = self.role(user) else {
            return Err(vec![ErrorCode::NotAMember]);
        };
        let (mut after, mut faults) = (self.clone(), Vec::new());
        match command {
            Command::Leave { .. } => after.members.retain(|member| member.user != *user),
            Command::Members(_) | Command::Retention { .. } | Command::Title { .. }
                if role == Role::Member =>
            {
                faults.push(ErrorCode::NotAllowed);
            }
            Command::Members(change) => after.change(role, change, seq, &mut faults),
            Command::Title { title, .. } => after.title.clone_from(title),
            _ => {}
        }
        after.hand_over(self);
        if faults.is_empty() { Ok(after) } else { Err(faults) }
    }

    /// Takes out, takes in, gives roles; by somebody of this role.
    fn change(&mut self, by: Role, change: &Members, seq: u64, faults: &mut Vec<ErrorCode>) {
        let is_owner = by == Role::Owner;
        for user in &change.remove {
            match self.role(user) {
                None => faults.push(ErrorCode::NotFound),
                Some(Role::Owner | Role::Admin) if !is_owner => faults.push(ErrorCode::NotAllowed),
                Some(_) => self.members.retain(|member| member.user != *user),
            }
        }
        let visible_from = Seq(if self.history == HistoryPolicy::All { 1 } else { seq });
        for user in &change.add {
            if self.role(user).is_none() {
                self.members.push(MemberEntry { user: user.clone(), role: Role::Member, visible_from });
            }
        }
        if !change.roles.is_empty() && !is_owner {
            faults.push(ErrorCode::NotAllowed);
        }
        for (user, role) in &change.roles {
            match self.members.iter_mut().find(|member| member.user == *user) {
                Some(member) => member.role = *role,
                None => faults.push(ErrorCode::NotFound),
            }
        }
    }

    /// Without an owner the one who has been there longest becomes it, of the admins, else of the others; who was one before only where
    /// nobody else is there.
    fn hand_over(&mut self, before: &Self) {
        if self.members.iter().any(|member| member.role == Role::Owner) {
            return;
        }
        let was_owner = |user: &UserId| before.role(user) == Some(Role::Owner);
        let all = || self.members.iter().enumerate();
        let admin = all().find(|(_, member)| member.role == Role::Admin && !was_owner(&member.user));
        let other = || all().find(|(_, member)| !was_owner(&member.user));
        let again = || all().find(|(_, member)| member.role == Role::Admin).or_else(|| all().next());
        if let Some((heir, _)) = admin.or_else(other).or_else(again) {
            self.members[heir].role = Role::Owner;
        }
    }

    /// Goes on by one record.
    fn follow(&mut self, truth: &Truth) {
        self.members.retain(|member| !truth.removed.contains(&member.user));
        for (user, role) in &truth.roles {
            match self.members.iter_mut().find(|member| member.user == *user) {
                Some(member) => member.role = *role,
                None => {
                    let (user, visible_from) = (user.clone(), Seq(truth.joined_from));
                    self.members.push(MemberEntry { user, role: *role, visible_from });
                }
            }
        }
        if let Some(title) = &truth.title {
            self.title.clone_from(title);
        }
    }
}

/// The conversation by whose members a command is judged; `None` where nothing is known of that.
fn judged_in(command: &Command) -> Option<ConversationId> {
    match command {
        Command::Delete { conversation, .. }
        | Command::Leave { conversation, .. }
        | Command::Members(Members { conversation, .. })
        | Command::Retention { conversation, .. }
        | Command::Title { conversation, .. } => Some(*conversation),
        Command::Edit(edit) => Some(edit.conversation),
        Command::React(react) => Some(react.conversation),
        _ => None,
    }
}

/// From a sequence on, stored then, a group is this.
struct State {
    seq: u64,
    at: u64,
    group: Group,
}

/// A command that was refused for good, in words that no durable state explains yet: the one that does may still be written.
struct Refused {
    user: UserId,
    command: Command,
    code: ErrorCode,
    /// It was judged by a state that is no older than this sequence,
    head: u64,
    /// nor newer than this time, in milliseconds since 1970,
    at: u64,
    /// and by the process of this run.
    run: u32,
}

/// All groups, and all that was asked for.
#[derive(Default)]
pub(crate) struct Groups {
    of: BTreeMap<ConversationId, Vec<State>>,
    pub(crate) commands: BTreeMap<(UserId, MessageId), Command>,
    refused: Vec<Refused>,
    /// Runs of which something was lost that had not become durable: what they refused by that cannot be explained.
    broken: BTreeSet<u32>,
    pub(crate) counts: RoleCounts,
}

/// How often it was about roles.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RoleCounts {
    /// Changes that gave roles.
    pub given: u64,
    /// Owners who went or gave that up, and others who became it by that.
    pub handed_over: u64,
    /// Groups that the last member has left.
    pub closed: u64,
    /// Refusals that were held against what there was.
    pub refused: u64,
    /// Lists of members, likewise.
    pub listed: u64,
}

impl Groups {
    /// A client asks for this, and may ask again.
    pub(crate) fn issued(&mut self, user: &UserId, message_id: MessageId, command: &Command) {
        self.commands.insert((user.clone(), message_id), command.clone());
    }

    /// A record is durable that was not before: then it was for its sender to make. Of an amendment it is known who wrote what it amends.
    fn enter(&mut self, (conversation, seq): Place, truth: &Truth, author: Option<&UserId>) {
        let by = &truth.sender;
        let command = self.commands.get(&(by.clone(), truth.message_id)).expect("somebody asked for it");
        if let Command::Create(create) = command {
            let mut group = Group { members: Vec::new(), ..Group::made(by, create) };
            group.follow(truth);
            assert_eq!(group, Group::made(by, create), "roles_decide: {by} makes {truth:?}");
            let earlier = self.of.insert(conversation, vec![State { seq, at: truth.at, group }]);
            assert!(earlier.is_none() && seq == 1, "roles_decide: {conversation} is made at {seq}");
            return;
        }
        // A direct conversation has no roles.
        let Some(states) = self.of.get_mut(&conversation) else { return };
        let before = &states.last().expect("a group begins with a state").group;
        let judged = before.judge(by, command, seq).unwrap_or_else(|faults| {
            panic!(
                "roles_decide: {conversation}, {seq} is not for {by}: {faults:?}: {command:?} in {before:?}"
            )
        });
        if matches!(command, Command::Delete { .. }) {
            let may_delete = author == Some(by) || before.role(by) != Some(Role::Member);
            assert!(may_delete, "roles_decide: {by} deletes what {author:?} wrote: {before:?}");
        }
        let mut group = before.clone();
        group.follow(truth);
        assert_eq!(group, judged, "roles_decide: {conversation}, {seq}: {command:?} makes {truth:?}");
        let is_change =
            matches!(command, Command::Leave { .. } | Command::Members(_) | Command::Title { .. });
        assert!(!is_change || group != *before, "{conversation}, {seq} changes nothing: {truth:?}");
        let given = &truth.roles[truth.added.len()..];
        let names: BTreeSet<&UserId> = given.iter().map(|(user, _)| user).collect();
        assert_eq!(names.len(), given.len(), "roles_decide: one of them is given two roles: {truth:?}");
        if group == *before {
            return;
        }
        let has_owner = group.members.iter().any(|member| member.role == Role::Owner);
        assert!(has_owner || group.members.is_empty(), "roles_decide: nobody owns {group:?}");
        self.counts.note(before, &group, truth);
        states.push(State { seq, at: truth.at, group });
    }

    /// That of a user in a group now.
    pub(crate) fn role(&self, conversation: ConversationId, user: &UserId) -> Option<Role> {
        self.of.get(&conversation)?.last()?.group.role(user)
    }

    /// What a group was from the sequence `head` on, up to some time.
    fn states(&self, conversation: ConversationId, head: u64, until: u64) -> impl Iterator<Item = &State> {
        let states = self.of.get(&conversation).map_or(&[][..], Vec::as_slice);
        let first = states.iter().rposition(|state| state.seq <= head).unwrap_or(0);
        states[first..].iter().filter(move |state| state.seq <= head || state.at <= until)
    }

    /// Whether a group was this in one of the states in which the node can have decided.
    fn was(&self, conversation: ConversationId, head: u64, is_it: impl Fn(&State) -> bool) -> bool {
        self.states(conversation, head, u64::MAX).any(is_it)
    }

    fn explains(&self, refused: &Refused, author: Option<&UserId>) -> bool {
        let Refused { user, command, code, .. } = refused;
        let conversation = judged_in(command).expect("the caller looked");
        if !self.of.contains_key(&conversation) {
            // A direct conversation.
            let is_of_groups =
                matches!(command, Command::Leave { .. } | Command::Members(_) | Command::Title { .. });
            return !is_of_groups || *code == ErrorCode::NotAllowed;
        }
        self.states(conversation, refused.head, refused.at).any(|State { seq, group, .. }| {
            let is_for_authors = matches!(command, Command::Delete { .. } | Command::Edit(_));
            match (group.judge(user, command, seq + 1), code) {
                (Err(faults), _) => faults.contains(code),
                (Ok(_), ErrorCode::NotAllowed) if is_for_authors => {
                    let is_edit = matches!(command, Command::Edit(_));
                    author != Some(user) && (is_edit || group.role(user) == Some(Role::Member))
                }
                // Whether there is such a message is for others to say.
                (Ok(_), code) => {
                    *code != ErrorCode::NotAMember
                        && matches!(command, Command::Delete { .. } | Command::Edit(_) | Command::React(_))
                }
            }
        })
    }
}

impl std::ops::AddAssign for RoleCounts {
    fn add_assign(&mut self, other: Self) {
        let Self { given, handed_over, closed, refused, listed } = other;
        self.given += given;
        self.handed_over += handed_over;
        self.closed += closed;
        self.refused += refused;
        self.listed += listed;
    }
}

impl RoleCounts {
    fn note(&mut self, before: &Group, after: &Group, truth: &Truth) {
        self.given += u64::from(truth.roles.len() > truth.added.len());
        self.closed += u64::from(after.members.is_empty());
        let owners = |group: &Group| -> BTreeSet<UserId> {
            let owners = group.members.iter().filter(|member| member.role == Role::Owner);
            owners.map(|member| member.user.clone()).collect()
        };
        self.handed_over +=
            u64::from(owners(before).is_disjoint(&owners(after)) && !after.members.is_empty());
    }
}

impl Oracle {
    /// The newest sequence on the disk of the conversation by which a command is judged, 0 without one: whatever the node decides from now on
    /// it decides by a state that is no older.
    pub(crate) fn head_of(&self, command: &Command) -> u64 {
        judged_in(command).map_or(0, |conversation| self.head_in(conversation))
    }

    /// The same of a conversation.
    pub(crate) fn head_in(&self, conversation: ConversationId) -> u64 {
        let of = self.durable.range((conversation, 0)..=(conversation, u64::MAX));
        of.map(|((_, seq), _)| *seq).next_back().unwrap_or(0)
    }

    /// A record is durable.
    pub(crate) fn enter_group(&mut self, place: Place, truth: &Truth) {
        if !self.durable.contains_key(&place) {
            let target = truth.amends.as_ref().map(|(target, _)| (place.0, *target));
            let author = target.and_then(|target| self.durable.get(&target)).map(|target| &target.sender);
            self.groups.enter(place, truth, author);
        }
    }

    /// Whether all that `user` asks for was so at one of the sequences from `head` on.
    pub(crate) fn was_so(
        &self,
        conversation: ConversationId,
        head: u64,
        user: &UserId,
        command: &Command,
    ) -> bool {
        let is_so = |state: &State| {
            state.group.judge(user, command, state.seq + 1).is_ok_and(|after| after == state.group)
        };
        self.groups.was(conversation, head, is_so)
    }

    /// The group that a command changes, if there is anything in it that is not so already.
    pub(crate) fn changed_by(command: &Command) -> Option<ConversationId> {
        let is_one = matches!(command, Command::Members(_) | Command::Title { .. });
        judged_in(command).filter(|_| is_one)
    }

    /// Somebody was refused something for good, which was judged by a process of this `run` from `head` on.
    pub(crate) fn refused_by_role(
        &mut self,
        user: &UserId,
        (message_id, command): (MessageId, &Command),
        code: ErrorCode,
        (head, run): (u64, u32),
    ) {
        let at = self.reads.now;
        let is_ahead = code == ErrorCode::BadField && message_id.unix_ms().0 > at + AHEAD_MS;
        if judged_in(command).is_none() || is_ahead {
            return;
        }
        let (user, command) = (user.clone(), command.clone());
        let refused = Refused { user, command, code, head, at, run };
        self.groups.counts.refused += 1;
        if !self.explains(&refused) {
            assert!(!self.has_ended(run), "{}", refused.words());
            self.groups.refused.push(refused);
        }
    }

    fn explains(&self, refused: &Refused) -> bool {
        let target = match &refused.command {
            Command::Delete { conversation, seq, .. } => Some((*conversation, seq.0)),
            Command::Edit(edit) => Some((edit.conversation, edit.seq.0)),
            _ => None,
        };
        let author = target.and_then(|target| self.durable.get(&target)).map(|target| &target.sender);
        self.groups.broken.contains(&refused.run) || self.groups.explains(refused, author)
    }

    fn has_ended(&self, run: u32) -> bool {
        run < self.seen.run
    }

    /// A process has ended, in order or not, or all is at rest: all that it appended is durable, or lost.
    pub(crate) fn check_refused(&mut self, is_whole: bool) {
        if !is_whole {
            self.groups.broken.insert(self.seen.run);
        }
        for refused in std::mem::take(&mut self.groups.refused) {
            assert!(self.explains(&refused), "{}", refused.words());
        }
    }

    /// A list of members was asked for when the newest sequence was `head`: it is as it was then or later.
    pub(crate) fn told_members(&mut self, conversation: ConversationId, head: u64, members: &[MemberEntry]) {
        if self.groups.of.contains_key(&conversation) {
            let was = self.groups.was(conversation, head, |state| state.group.members == members);
            assert!(
                was,
                "roles_decide: {conversation} is listed as {members:?}, which it was not from {head} on"
            );
            self.groups.counts.listed += 1;
        }
    }

    /// Somebody is told of a change of members, title or retention: it is what the disk has.
    pub(crate) fn told_member(&mut self, event: &MemberEvent) {
        let place = (event.conversation, event.seq.0);
        self.delivered(place, event.message_id, None);
        let truth = &self.durable[&place];
        let of_joining = truth.added.len();
        let told = (&event.by, &event.added, &event.removed, &event.roles[..], &event.title);
        let stored = (&truth.sender, &truth.added, &truth.removed, &truth.roles[of_joining..], &truth.title);
        assert_eq!(told, stored, "delivered otherwise than stored: {place:?}");
        assert_eq!((event.at.0, event.retention), (truth.at, truth.retention), "{place:?}");
    }
}

impl Refused {
    fn words(&self) -> String {
        let Self { user, command, code, head, at, .. } = self;
        format!(
            "roles_decide: {user} was refused with {code:?} at {at}, and not so from {head} on: {command:?}"
        )
    }
}
