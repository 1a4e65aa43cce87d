//! What the benches share: a log in memory, and the two sides of the router with nothing between them.
//!
//! The benches themselves stand in `benches/`; `README.md` says how to read them.

#![forbid(unsafe_code)]

pub mod append;
pub mod disk;
pub mod embedded;
pub mod net;
pub mod replay;
pub mod summary;

use std::sync::Arc;

use protocol::command::{Command, Connect, Create, Edit, HistoryPolicy, MessageKind, Request, Send, Target};
use protocol::ids::{ConversationId, DeviceId, RequestId, Seq, UnixMillis, UserId};
use protocol::limits::MEMBERS_MIN;
use protocol::upgrade::Form;
use router::conversation::Recent;
use router::cursor::{self, Cursor, Starts};
use router::mail::{Clock, SessionId};
use router::places::{KINDS, created_conversation};
use router::user::UserLimits;
use router::{ConversationSide, Places, ShardId, UserSide};
use storage_log::format::{BLOCK_BYTES_MIN, SEGMENT_BYTES};
use storage_log::{Geometry, Log, LogConfig, Scan, SegmentHeader, SpareWork};

const STORE: [u8; 16] = [1; 16];

/// An empty log that keeps `tail_bytes_max` in memory.
///
/// # Panics
/// Never: an empty log is sound.
#[must_use]
pub fn empty_log(tail_bytes_max: usize) -> Log {
    let mut scan = Scan::new(
        LogConfig {
            store: STORE,
            number: 0,
            geometry: Geometry::of_blocks(BLOCK_BYTES_MIN),
            tail_bytes_max,
            kinds: KINDS,
            segment_ms_max: None,
        },
        1,
    );
    let header = SegmentHeader {
        store: STORE,
        log: 0,
        base: 0,
        block_bytes: BLOCK_BYTES_MIN,
        segment_bytes: SEGMENT_BYTES,
    }
    .encode();
    scan.open_segment(0, &header).expect("the header was just made");
    scan.feed(&[0; 4096], true, &mut |_| {}).expect("zeros are an empty log");
    scan.finish().expect("an empty log is sound").log
}

/// Writes what is due to nowhere, and says that it is synced.
///
/// # Panics
/// Never: every write succeeds.
pub fn sync(log: &mut Log) -> bool {
    keep_spare(log);
    let Some(batch) = log.poll_write(0) else {
        return false;
    };
    log.handle_written(batch.buffer, true).expect("written");
    true
}

/// Says of the next segment, whenever the log asks, that it is there.
pub fn keep_spare(log: &mut Log) {
    while let Some(work) = log.poll_spare() {
        match work {
            SpareWork::Make(_) => log.handle_spare(Ok(())),
            SpareWork::Zero(_) => log.handle_spare_zeroed(),
            SpareWork::Hurry => unreachable!("zeros take no time here"),
        }
    }
}

/// One shard with everything on it: users with a session each, and the group that they are in.
pub struct Room {
    /// The users' sessions.
    pub users: UserSide,
    /// The group.
    pub side: ConversationSide,
    /// Where it is stored.
    pub log: Log,
    /// The group's id.
    pub group: ConversationId,
    places: Arc<Places>,
    starts: Arc<Starts>,
    sessions: Vec<SessionId>,
    next_id: u32,
    clock: Clock,
}

impl Room {
    /// A group with `sessions` of its members connected and live in `form`, the sender first: it is given its own
    /// messages like everybody. With one session the group's other member is away, because no group has one member.
    ///
    /// # Panics
    /// Never: the members are within the limits.
    #[must_use]
    pub fn new(sessions: usize, form: Form) -> Self {
        let places = Arc::new(Places::new(STORE, [2; 32], 1, 1));
        let mut log = empty_log(16 << 20);
        log.begin_run([3; 16], 0);
        sync(&mut log);
        let starts = Arc::new(Starts::new(vec![log.runs().to_vec()]));
        let users = UserSide::new(places.clone(), starts.clone(), ShardId(0), UserLimits::default(), 1);
        let side = ConversationSide::new(places.clone(), 0, Recent::new(1));
        let clock = Clock { unix: UnixMillis(1), micros: 1 };
        let mut room = Self {
            users,
            side,
            log,
            group: ConversationId([0; 16]),
            places,
            starts,
            sessions: Vec::new(),
            next_id: 2,
            clock,
        };
        let names: Vec<UserId> = (0..sessions.max(MEMBERS_MIN))
            .map(|member| UserId::new(&format!("user-{member}")).expect("a name"))
            .collect();
        for (connection, name) in names.iter().take(sessions).enumerate() {
            let device = DeviceId::new("bench").expect("a name");
            let connect = Connect { token: None, device, cursor: None, positions: None };
            let session =
                room.users.connect(connection as u64, name.clone(), form, RequestId(1), connect, clock.unix);
            room.sessions.push(session.expect("one session each"));
        }
        room.exchange();
        let message_id = protocol::ids::MessageId::v7(UnixMillis(1), [0; 10]);
        room.group = created_conversation(&names[0], message_id);
        let create = Create {
            title: "bench".to_owned(),
            members: names[1..].to_vec(),
            history: HistoryPolicy::All,
            message_id: Some(message_id),
        };
        room.command(Command::Create(create));
        room
    }

    /// One message of `bytes` from the first member to the group, until all of it is sent.
    pub fn send(&mut self, bytes: usize) {
        let target = Target::Conversation(self.group);
        let (media, reply_to, mentions, message_id) = (None, None, Vec::new(), None);
        let text = "x".repeat(bytes);
        let send = Send { target, kind: MessageKind::Text, text, media, reply_to, mentions, message_id };
        self.command(Command::Send(send));
    }

    /// The message `seq` of the first member gets another text of `bytes`, until everybody was told.
    pub fn edit(&mut self, seq: Seq, bytes: usize) {
        let (conversation, text, message_id) = (self.group, "y".repeat(bytes), None);
        self.command(Command::Edit(Edit { conversation, seq, text, message_id }));
    }

    fn command(&mut self, command: Command) {
        let id = Some(RequestId(self.next_id));
        self.next_id += 1;
        self.clock.micros += 1;
        let taken = self.users.handle_command(self.sessions[0], Request { id, command }, self.clock);
        taken.expect("one command at a time");
        let before = self.users.counters;
        self.exchange();
        let after = self.users.counters;
        let sessions = self.sessions.len() as u64;
        assert_eq!(after.deliveries - before.deliveries, sessions, "all of them are live and are given it");
    }

    /// The cursor of a device of `user` that has everything up to now.
    #[must_use]
    pub fn cursor_of(&self, user: &UserId) -> String {
        let cursor = Cursor::at([self.log.durable().position()].into_iter().collect());
        cursor::encode(&self.places, &self.starts, user, &cursor)
    }

    /// A device of `user` comes with this cursor, is given what it missed, until all of it is sent, and goes: how many records.
    ///
    /// # Panics
    /// Never: there is room for one session more.
    pub fn come_back(&mut self, user: &UserId, cursor: Option<String>) -> u64 {
        let device = DeviceId::new("other").expect("a name");
        let connect = Connect { token: None, device, cursor, positions: None };
        let before = self.users.counters.replays;
        let (form, now) = (Form::Json, self.clock.unix);
        let session = self.users.connect(u64::MAX, user.clone(), form, RequestId(1), connect, now);
        self.exchange();
        self.users.disconnect(session.expect("one session"));
        self.users.counters.replays - before
    }

    /// Carries mail, batches and sends until nothing is left to do.
    pub fn exchange(&mut self) {
        let mut control = Vec::new();
        loop {
            let mut quiet = true;
            while let Some((_, request)) = self.users.poll_mail() {
                self.side.handle_request(request, self.clock.unix, &mut self.log);
                quiet = false;
            }
            if sync(&mut self.log) {
                let durable = self.log.durable();
                self.side.handle_durable(&durable, self.clock.unix, &mut self.log);
                quiet = false;
            }
            while let Some((shard, reply)) = self.side.poll_output() {
                self.users.handle_reply(shard, reply, self.clock);
                quiet = false;
            }
            while let Some((session, _)) = self.users.poll_sendable() {
                while let Some(bytes) = self.users.take_send(session, &mut control) {
                    let sent = bytes.len();
                    self.users.handle_sent(session, bytes, sent);
                }
                quiet = false;
            }
            self.users.latencies.acks.clear();
            self.users.latencies.deliveries.clear();
            if quiet {
                return;
            }
        }
    }
}
