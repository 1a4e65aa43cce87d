//! A log before a shard with a clock that is wrong for a while: what is too old goes from the disk, and nothing else.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::sync::Arc;

use gateway::auth::{DenyList, Keys};
use gateway::mailbox::{Mailboxes, Mesh};
use gateway::peers::{PeerLimits, Peers};
use gateway::shard::{Action, Event, OwnedLog, Shard, ShardConfig, ShardParts, WORK_PER_TURN};
use gateway::state::NodeState;
use protocol::ids::{ConversationId, UnixMillis};
use protocol::record::StreamKind;
use protocol::upgrade::{Origins, UpgradePolicy};
use router::conversation::Recent;
use router::mail::Clock;
use router::places::{KINDS, conversation_stream};
use router::user::UserLimits;
use router::{ConversationSide, Places, ShardId, Starts};
use storage_log::{
    Answer, Cause, CompactionPolicy, Draft, Geometry, Log, LogConfig, Scan, SegmentHeader, SpareWork,
};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// When the first message was stored.
const BEGIN: u64 = 20_000 * DAY;
/// For how long there is one each hour,
const SAID_DAYS: u64 = 20;
/// and for how long they are kept.
const KEEP_DAYS: u64 = 30;
/// How far ahead a clock is that is wrong.
const AHEAD: u64 = 25 * DAY;

/// A log of many small segments, whose records nobody reads.
fn filled() -> Log {
    let geometry = Geometry { segment_bytes: 16 << 10, batch_bytes_max: 8 << 10, block_bytes: 512 };
    let (store, number, kinds) = ([1; 16], 0, KINDS);
    let config = LogConfig { store, number, geometry, tail_bytes_max: 1 << 20, kinds, segment_ms_max: None };
    let Geometry { block_bytes, segment_bytes, .. } = geometry;
    let header = SegmentHeader { store, log: number, base: 0, block_bytes, segment_bytes };
    let mut scan = Scan::new(config, 1);
    scan.open_segment(0, &header.encode()).expect("a header");
    scan.feed(&[0; 512], true, &mut |_| {}).expect("an empty log");
    let mut log = scan.finish().expect("an empty log").log;
    let stream = conversation_stream(ConversationId([7; 16]), StreamKind::Messages);
    for hour in 0..SAID_DAYS * 24 {
        let draft =
            Draft { stream, expected_head: hour, messages: 1, schema: 1, payload: &[1; 400], links: &[] };
        assert!(matches!(log.append(&[draft], BEGIN + hour * HOUR), Answer::Stored(_)));
        settle(&mut log);
    }
    log
}

/// Does at once all that a log wants of a disk.
fn settle(log: &mut Log) {
    while let Some(work) = log.poll_spare() {
        match work {
            SpareWork::Make(_) => log.handle_spare(Ok(())),
            SpareWork::Zero(_) => log.handle_spare_zeroed(),
            SpareWork::Hurry => {}
        }
    }
    while let Some(batch) = log.poll_write(0) {
        log.handle_written(batch.buffer, true).expect("written");
    }
    while let Some(job) = log.poll_index() {
        let Ok(sealed) = job.write(|_| Ok::<(), Infallible>(()));
        log.handle_indexed(Some(sealed));
    }
}

/// A shard that owns the log, and both clocks.
struct Node {
    shard: Shard,
    state: Arc<NodeState>,
    hours: u64,
}

impl Node {
    /// Starts with a system's clock that is so far ahead.
    fn start(ahead: u64) -> Self {
        let mut log = filled();
        log.begin_run([3; 16], BEGIN + SAID_DAYS * DAY + ahead);
        settle(&mut log);
        let places = Arc::new(Places::new([1; 16], [2; 32], 1, 1));
        let keys = Keys::from_secret(&[9; 32]).expect("a long secret");
        let state = Arc::new(NodeState::new(1));
        let config = ShardConfig {
            connections_max: 1,
            handshakes_max: 1,
            connects_per_second_max: 1,
            policy: UpgradePolicy { path: Some(UpgradePolicy::PATH), origins: Origins::Unset },
            proxies: Vec::new(),
            work_per_turn: WORK_PER_TURN,
            drain_seconds: 0,
            users: UserLimits::default(),
            compaction: CompactionPolicy { keep_ms: Some(KEEP_DAYS * DAY), ..CompactionPolicy::default() },
            pushes: false,
        };
        let starts = Arc::new(Starts::new(vec![log.runs().to_vec()]));
        let side = ConversationSide::new(places.clone(), 0, Recent::new(1));
        let shard = Shard::new(ShardParts {
            id: ShardId(0),
            places,
            starts,
            config,
            mail: Mailboxes::new(Mesh::new(1, 1), ShardId(0)),
            logs: vec![OwnedLog::new(log, side)],
            peers: Peers::new(PeerLimits::NONE, 1, [4; 32]),
            verifier: keys.verifier.clone(),
            cache_key: [3; 32],
            denied: DenyList::default(),
            metrics: Arc::default(),
            state: state.clone(),
            random: 7,
        });
        Self { shard, state, hours: 0 }
    }

    /// Lets so many hours go by while the system's clock is so far ahead. Whether a segment is to go for its age.
    fn pass(&mut self, hours: u64, ahead: u64) -> bool {
        let mut events = Vec::new();
        for _ in 0..hours {
            self.hours += 1;
            let since = self.hours * HOUR;
            let unix = UnixMillis(BEGIN + SAID_DAYS * DAY + since + ahead);
            let mut actions = Vec::new();
            self.shard.turn(Clock { unix, micros: since * 1_000 }, &mut events, &mut actions);
            for action in actions {
                match action {
                    Action::Compact { job, .. } => {
                        assert_eq!(job.cause, Cause::Expired);
                        return true;
                    }
                    Action::Write { log, batch } => {
                        events.push(Event::Written { log, buffer: batch.buffer, synced: true });
                    }
                    _ => {}
                }
            }
            assert!(self.state.aging().is_some_and(|aging| aging <= unix.0), "never ahead");
        }
        false
    }
}

#[test]
fn a_clock_that_jumps_ahead_for_hours_takes_nothing_from_the_disk() {
    let mut node = Node::start(0);
    assert!(!node.pass(5, 0), "nothing is too old");
    assert!(!node.pass(23, AHEAD));
    assert!(!node.pass(2, 0), "it was mended");
    assert!(!node.pass(23, AHEAD), "and has jumped once more");
    assert!(node.pass(2, AHEAD), "one that stands ahead for a day is right");
}

#[test]
fn a_start_by_a_clock_that_is_ahead_takes_nothing_from_the_disk() {
    let mut node = Node::start(AHEAD);
    assert!(!node.pass(23, AHEAD));
    assert!(!node.pass(2, 0), "it was mended");
    let mut node = Node::start(AHEAD);
    assert!(node.pass(26, AHEAD), "one that stands ahead for a day is right");
}

#[test]
fn what_is_too_old_goes_when_it_is() {
    let mut node = Node::start(0);
    assert!(!node.pass((KEEP_DAYS - SAID_DAYS) * 24 - 1, 0));
    assert!(node.pass(2 * 24, 0), "a segment is some 30 hours long");
}
