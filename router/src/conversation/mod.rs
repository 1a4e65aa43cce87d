//! The conversation side: order, membership and storage of the conversations of one log.
//!
//! Commands of one conversation are handled strictly one after the other: while its state is being loaded or an old id
//! is being looked up, what arrives waits in its bounded queue. Nothing leaves here before the log has said that it is
//! durable.
//!
//! Where to look:
//!
//! * whose turn it is, and what is in memory of a conversation: `slots`, `loading`, `state`, `membership`, `kept`, `large`, `enlisting`;
//! * a command's way: `storing`, `amend`, `blocking`, `recent` and `looking_up` (was it stored before?), `delivering`, `refusing`;
//! * what is read from the disk: `jobs`, and below them `fetch`, `runs`, `blocks`, `damage`;
//! * pages: `pages`, and of each kind `history`, `catching_up`, `surveying`, `listing`, `candidates`; what they show of a record is for
//!   `folding`, `erasure`, `fronts`, `retention` and `counting` to say;
//! * how far somebody has come: `positions`, `reading`, `gathering`, `acked`, `taken`, `keeping`; who looks at it, and is told: `viewers`, `newest`, `telling`; who is called: `push`,
//!   `unjudged`; what users have set: `settings`, `sightings`.

mod acked;
mod amend;
mod blocking;
mod blocks;
mod candidates;
mod catching_up;
mod counting;
mod damage;
mod delivering;
mod enlisting;
mod erasure;
mod fetch;
mod folding;
mod fronts;
mod gathering;
mod history;
mod jobs;
mod keeping;
mod kept;
mod large;
mod listing;
mod loading;
mod looking_up;
mod membership;
mod newest;
mod pages;
mod positions;
mod push;
mod reading;
mod recent;
mod refusing;
mod retention;
mod runs;
mod settings;
mod sightings;
mod slots;
mod state;
mod storing;
mod surveying;
mod taken;
mod telling;
mod unjudged;
mod viewers;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use protocol::record::FormV1;
use slab::Slab;
use storage_log::{Location, Log};

use crate::mail::{Reply, Request};
use crate::places::{Places, ShardId};
use crate::turns::Turns;
use acked::Acked;
use blocks::Blocks;
use damage::Damages;
use delivering::Waiting;
use fronts::{Fronts, shows_messages};
use gathering::Gathering;
use jobs::Job;
use large::LargeGroups;
use looking_up::LookUps;
use pages::WaitingPages;
use push::Pushes;
use settings::SettingsTable;
use sightings::Unwritten;
use slots::{Entrant, Loaded, Slot};
use taken::Taken;
use viewers::Viewers;

pub use erasure::{Erased, Subject};
pub use fetch::{Read, ReadPlace};
pub use gathering::Pace;
pub use push::PushDue;
pub use recent::Recent;
pub use unjudged::Unjudged;

/// Conversations whose state is kept in memory per log: about 1 KB for two members with what they have read. Others load again from the
/// log, which is a read or two for each.
const LOADED_MAX: usize = 200_000;

/// Members of all of these: about 200 bytes each beyond the first two. Large groups count as what they are.
const LOADED_MEMBERS_MAX: usize = 1_000_000;

/// All conversations of one log.
pub struct ConversationSide {
    places: Arc<Places>,
    log: u16,
    slots: HashMap<ConversationId, Slot, foldhash::fast::RandomState>,
    /// Members of all of `slots`.
    loaded_members: usize,
    /// All of `slots`, and when each was asked for when it was looked at last.
    loaded: VecDeque<(ConversationId, u64)>,
    recent: Recent,
    /// Commands that are stored and not durable: nobody can read them yet. Bounded by what the log lets wait.
    undurable: HashMap<recent::Key, recent::Known, foldhash::fast::RandomState>,
    /// What is being amended, as it will be, and the position with which that is durable. Bounded as the above.
    amended: HashMap<(ConversationId, Seq), (u64, FormV1), foldhash::fast::RandomState>,
    waiting: VecDeque<Waiting>,
    /// Messages that were appended and will not become durable, as the log has stopped.
    lost: Vec<(ConversationId, u64)>,
    large: LargeGroups,
    fronts: Fronts,
    /// The newest time that it was told: what is not kept any more stays so if a clock goes back. See `latest`.
    now: UnixMillis,
    viewers: Viewers,
    gathering: Gathering,
    pushes: Pushes,
    settings: SettingsTable,
    sightings: Unwritten,
    acked: Acked,
    taken: Taken,
    /// Pages that have waited for what a start reads. Bounded by the page credits.
    held: VecDeque<Request>,
    /// Pages by a membership that is not durable yet, and the position that makes it so. Bounded by the page credits.
    early: VecDeque<(u64, Request)>,
    jobs: Slab<Job>,
    /// Segments that have moved.
    moved: u64,
    look_ups: LookUps,
    /// Conversations whose job has ended and that have something pending.
    resumed: VecDeque<ConversationId>,
    /// Conversations whose positions were read, and into which what follows is to be folded.
    unfolded: VecDeque<ConversationId>,
    pages: WaitingPages,
    outputs: VecDeque<(ShardId, Reply)>,
    /// For the disk: what commands wait for before what pages wait for, and nobody.
    reads: Turns<Read>,
    blocks: Blocks,
    damages: Damages,
    /// Shared with whoever writes segments anew.
    erased: Arc<Erased>,
    /// Jobs that wait for an index file to be made again, by the base of its segment. Bounded as jobs are: by credits, and one a
    /// conversation.
    stalled: VecDeque<(u64, Job)>,
    clock: u64,
    /// Messages stored since the start; for the metrics.
    pub messages_stored: u64,
    /// Links and members stored since the start, and users told: what storing takes time for. For whoever makes turns short.
    pub work_stored: u64,
}

impl ConversationSide {
    /// The conversations of log number `log`; `recent` holds the ids that recovery read.
    #[must_use]
    pub fn new(places: Arc<Places>, log: u16, recent: Recent) -> Self {
        Self {
            viewers: Viewers::new(places.clone(), log),
            gathering: Gathering::default(),
            pushes: Pushes::default(),
            settings: SettingsTable::default(),
            sightings: Unwritten::default(),
            acked: Acked::default(),
            taken: Taken::new(),
            places,
            log,
            slots: HashMap::default(),
            loaded_members: 0,
            loaded: VecDeque::new(),
            recent,
            undurable: HashMap::default(),
            amended: HashMap::default(),
            waiting: VecDeque::new(),
            lost: Vec::new(),
            large: LargeGroups::new(),
            fronts: Fronts::default(),
            now: UnixMillis(0),
            held: VecDeque::new(),
            early: VecDeque::new(),
            jobs: Slab::new(),
            moved: 0,
            look_ups: LookUps::default(),
            resumed: VecDeque::new(),
            unfolded: VecDeque::new(),
            pages: WaitingPages::default(),
            outputs: VecDeque::new(),
            reads: Turns::default(),
            blocks: Blocks::default(),
            damages: Damages::default(),
            erased: Arc::default(),
            stalled: VecDeque::new(),
            clock: 0,
            messages_stored: 0,
            work_stored: 0,
        }
    }

    /// Takes a request from a user's home.
    pub fn handle_request(&mut self, request: Request, now: UnixMillis, log: &mut Log) {
        let now = self.latest(now);
        self.begin_enlisting(log);
        if self.large.loading.is_some() && shows_messages(&request) {
            self.large.wait(request);
        } else {
            self.admit(request, now, log);
        }
        self.resume(now, log);
    }

    /// Begins with a request, whatever it waited for.
    fn admit(&mut self, request: Request, now: UnixMillis, log: &mut Log) {
        if let Request::Signals { log: number, shard, signals } = request {
            self.handle_signals(shard, signals, log);
            return self.outputs.push_back((shard, Reply::SignalsTaken { log: number }));
        }
        if let Request::Seen { shard, seen, .. } = request {
            return self.handle_seen(shard, seen, now, log);
        }
        if settings::is_of_a_user(&request) {
            return self.handle_settings(request, now, log);
        }
        match conversation_of(&request) {
            None => self.start_page(request, log),
            Some((conversation, _)) => {
                self.enter(conversation, Entrant::Request(Box::new(request)), now, log);
            }
        }
    }

    /// The time by which all is done here: it does not go back with the clock. What was stored by an earlier one than that by which it is
    /// judged what is in front could stand there at once.
    pub(super) fn latest(&mut self, now: UnixMillis) -> UnixMillis {
        self.now = self.now.max(now);
        self.now
    }

    /// Erases what is stored of a subject up to a position: from now on no reader is given it, live or from the log.
    pub fn erase(&mut self, subject: &Subject, to: u64) {
        Arc::make_mut(&mut self.erased).insert(subject, to);
        // What is being amended in this moment would be amended further from here.
        self.amended.retain(|(conversation, target), (_, form)| {
            !subject.concerns(*conversation, *target, &form.sender)
        });
    }

    /// The next answer or delivery, in the order that the mailbox must keep.
    pub fn poll_output(&mut self) -> Option<(ShardId, Reply)> {
        self.outputs.pop_front()
    }

    /// Views that can be answered are, before what comes later leaves.
    fn answer_views(&mut self) {
        self.outputs.extend(self.viewers.take_answers());
    }

    /// The next news of presence for a shard that has room for them: they are the newest, whenever they leave.
    pub fn poll_news(&mut self, has_room: impl Fn(ShardId) -> bool) -> Option<(ShardId, Reply)> {
        self.viewers.poll_news(has_room)
    }

    /// Whether news wait for room at some shard: then look again soon.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.viewers.has_any_news()
    }

    /// The next record that was found damaged, each once: for the operator.
    pub fn poll_damage(&mut self) -> Option<Location> {
        self.damages.poll_news()
    }
}

/// What one user asks of one conversation: of which, and who.
fn conversation_of(request: &Request) -> Option<(ConversationId, &UserId)> {
    match request {
        Request::Store(store) => Some((store.conversation, &store.user)),
        Request::Block { conversation, user, .. }
        | Request::History { conversation, user, .. }
        | Request::ListMembers { conversation, user, .. }
        | Request::MaySearch { conversation, user, .. }
        | Request::Mute { conversation, user, .. }
        | Request::Read { conversation, user, .. }
        | Request::View { conversation, user, .. } => Some((*conversation, user)),
        Request::Candidates { .. }
        | Request::CatchUp { .. }
        | Request::Feed { .. }
        | Request::List { .. }
        | Request::Memberships { .. }
        | Request::PushTokens { .. }
        | Request::Reads { .. }
        | Request::Seen { .. }
        | Request::Set { .. }
        | Request::Settings { .. }
        | Request::Sighting { .. }
        | Request::Signals { .. }
        | Request::Survey { .. } => None,
    }
}
