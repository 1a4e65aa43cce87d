//! Both sides with nothing between them, and what their clients are sent.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use protocol::command::{Command, Connect, MessageKind, Request, Send, Target};
use protocol::event::{ErrorCode, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, MessageId, RequestId, UnixMillis, UserId};
use protocol::upgrade::Form;
use protocol::ws::{Decoder, DecoderLimits, Role};
use router::conversation::{Pace, PushDue, Read, ReadPlace, Recent};
use router::cursor::Starts;
use router::mail::{Clock, SessionId};
use router::places::{KINDS, direct_conversation};
use router::user::{PRESENCE_GRACE_MILLIS, UserLimits};
use router::{ConversationSide, Places, ShardId, UserSide};
use storage_log::format::BLOCK_BYTES_MIN;
use storage_log::{
    Answer, BlockPlace, Geometry, INDEX_BLOCK_BYTES, IndexJob, Log, LogConfig, NotMade, Record, Scan,
    SegmentHeader, SpareWork, WriteBatch,
};

/// A time far from 0, so that ids can be older than memory reaches.
pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A frame that says nothing.
const PING: [u8; 2] = [0x89, 0];

pub(crate) struct Chat {
    pub(crate) users: UserSide,
    pub(crate) side: ConversationSide,
    pub(crate) log: Log,
    pub(crate) clock: Clock,
    pub(crate) next_id: u32,
    /// Names the newest process.
    run: u8,
    /// Everything written, by its place; what the disk answers if it reads at all.
    pub(crate) written: Vec<u8>,
    pub(crate) disk_reads: bool,
    /// There is no room for another segment.
    pub(crate) disk_is_full: bool,
    /// A batch is written when it is [let go](Chat::let_go), and not at once.
    pub(crate) disk_is_slow: bool,
    held: Option<WriteBatch>,
    /// How soon positions are written.
    pub(crate) pace: Pace,
    /// A byte that the disk cannot read, nor anything together with it.
    pub(crate) bad_byte: Option<usize>,
    /// Reads of more bytes than these come from another place.
    pub(crate) misread_above: usize,
    /// What was asked of the disk in segments: how many bytes each time.
    pub(crate) reads: Vec<usize>,
    /// What was asked of it in index files.
    pub(crate) blocks_read: Vec<BlockPlace>,
    /// Index files of sealed segments, by base, and what they were made by.
    indexes: BTreeMap<u64, (IndexJob, Vec<u8>)>,
}

impl Chat {
    pub(crate) fn new() -> Self {
        Self::with_tail(64 << 20)
    }

    /// With so many bytes of the newest batches in memory, on a disk that reads nothing.
    pub(crate) fn with_tail(tail_bytes_max: usize) -> Self {
        Self::with_geometry(tail_bytes_max, Geometry::of_blocks(BLOCK_BYTES_MIN))
    }

    /// The same, in segments that are cut so.
    pub(crate) fn with_geometry(tail_bytes_max: usize, geometry: Geometry) -> Self {
        let places = Arc::new(Places::new([1; 16], [2; 32], 1, 1));
        let Geometry { block_bytes, segment_bytes, .. } = geometry;
        let config = LogConfig {
            store: [1; 16],
            number: 0,
            geometry,
            tail_bytes_max,
            kinds: KINDS,
            segment_ms_max: None,
        };
        let mut scan = Scan::new(config, 1);
        scan.open_segment(
            0,
            &SegmentHeader { store: [1; 16], log: 0, base: 0, block_bytes, segment_bytes }.encode(),
        )
        .expect("a header");
        scan.feed(&[0; 4096], true, &mut |_| {}).expect("an empty log");
        let mut log = scan.finish().expect("an empty log").log;
        log.begin_run([3; 16], NOW.0);
        let starts = Arc::new(Starts::new(vec![log.runs().to_vec()]));
        let users = UserSide::new(places.clone(), starts, ShardId(0), UserLimits::default(), 1);
        let side = ConversationSide::new(places, 0, Recent::new(1));
        let clock = Clock { unix: NOW, micros: 1 };
        Self {
            users,
            side,
            log,
            clock,
            next_id: 1,
            run: 3,
            written: Vec::new(),
            disk_reads: false,
            disk_is_full: false,
            disk_is_slow: false,
            held: None,
            pace: Pace::Usual,
            bad_byte: None,
            misread_above: usize::MAX,
            reads: Vec::new(),
            blocks_read: Vec::new(),
            indexes: BTreeMap::new(),
        }
    }

    /// As after a start: nobody is here, and nothing is in memory.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&mut |_| {});
    }

    fn restart_with(&mut self, begin: &mut dyn FnMut(&mut Self)) {
        let places = Arc::new(Places::new([1; 16], [2; 32], 1, 1));
        let starts = Arc::new(Starts::new(vec![self.log.runs().to_vec()]));
        self.users = UserSide::new(places, starts, ShardId(0), UserLimits::default(), 1);
        self.forget();
        begin(self);
        self.wait(0);
    }

    /// As another process that goes on with these sessions, each of which has something unsent.
    pub(crate) fn upgrade<const N: usize>(&mut self, sessions: [SessionId; N]) -> [SessionId; N] {
        self.users.pause();
        while self.carry_mail() | self.write() | self.carry_reads() | self.carry_replies() {}
        assert_eq!(self.users.requests_under_way(), 0, "it is at rest");
        let travellers = sessions.map(|id| self.users.describe(id, &PING).expect("a session"));
        let absent_known = self.users.knows_absent();
        self.run += 1;
        let begun = self.log.begin_run([self.run; 16], self.clock.unix.0);
        assert!(matches!(begun, Answer::Stored(_)), "{begun:?}");
        self.restart_with(&mut |chat| chat.users.go_on(chat.clock, absent_known));
        travellers.map(|traveller| {
            let id = self.users.resume(0, &traveller, self.clock);
            for request in traveller.asked {
                self.users.handle_command(id, request, self.clock).expect("no more than before");
            }
            id
        })
    }

    /// A conversation side that has nothing in memory.
    pub(crate) fn forget(&mut self) {
        let places = Arc::new(Places::new([1; 16], [2; 32], 1, 1));
        self.side = ConversationSide::new(places, 0, Recent::new(1));
    }

    /// A conversation side that was shown what stands in the log, as a start shows the newest of it.
    pub(crate) fn remember(&mut self) {
        let mut recent = Recent::new(1);
        self.read_back(&mut |record| recent.observe(record));
        let places = Arc::new(Places::new([1; 16], [2; 32], 1, 1));
        self.side = ConversationSide::new(places, 0, recent);
    }

    /// Shows every record of the first segment, as a start does.
    pub(crate) fn read_back(&self, observe: &mut dyn FnMut(&Record<'_>)) {
        let config = self.log.config().clone();
        let Geometry { block_bytes, segment_bytes, .. } = config.geometry;
        let mut scan = Scan::new(config, 1);
        let header = SegmentHeader { store: [1; 16], log: 0, base: 0, block_bytes, segment_bytes };
        scan.open_segment(0, &header.encode()).expect("a header");
        let mut bytes = self.written[scan.offset() as usize..].to_vec();
        bytes.resize(bytes.len().next_multiple_of(4_096) + 4_096, 0);
        scan.feed(&bytes, true, observe).expect("a sound log");
    }

    pub(crate) fn connect(&mut self, name: &str, cursor: Option<String>) -> (SessionId, Vec<ServerFrame>) {
        let session = self.begin(name, cursor);
        (session, self.exchange(session))
    }

    /// A session of which nothing is sent yet.
    pub(crate) fn begin(&mut self, name: &str, cursor: Option<String>) -> SessionId {
        let device = DeviceId::new("phone").expect("a name");
        self.begin_with(name, Connect { token: None, device, cursor, positions: None })
    }

    /// The same, of a device that knows its conversations only so far.
    pub(crate) fn begin_with(&mut self, name: &str, connect: Connect) -> SessionId {
        let session = self.users.connect(0, user(name), Form::Json, RequestId(1), connect, self.clock.unix);
        session.expect("a first session")
    }

    /// Everything that `session` is sent, until nothing is left to do.
    pub(crate) fn exchange(&mut self, session: SessionId) -> Vec<ServerFrame> {
        let mut wire = Vec::new();
        loop {
            let mut quiet = true;
            quiet &= !self.carry_mail();
            quiet &= !self.write();
            quiet &= !self.carry_reads();
            quiet &= !self.carry_replies();
            while let Some((id, _)) = self.users.poll_sendable() {
                self.send_all(id, if id == session { Some(&mut wire) } else { None });
                quiet = false;
            }
            if quiet {
                return frames(&mut wire);
            }
        }
    }

    /// What waits in the outbox of a session.
    pub(crate) fn take(&mut self, session: SessionId) -> Vec<ServerFrame> {
        let mut wire = Vec::new();
        self.send_all(session, Some(&mut wire));
        frames(&mut wire)
    }

    fn send_all(&mut self, id: SessionId, mut wire: Option<&mut Vec<u8>>) {
        while let Some(bytes) = self.users.take_send(id, &mut Vec::new()) {
            if let Some(wire) = &mut wire {
                wire.extend_from_slice(&bytes);
            }
            let sent = bytes.len();
            self.users.handle_sent(id, bytes, sent);
        }
    }

    /// Gives the conversation side what it is asked; whether that was anything.
    pub(crate) fn carry_mail(&mut self) -> bool {
        let requests: Vec<_> = std::iter::from_fn(|| self.users.poll_mail()).collect();
        let any = !requests.is_empty();
        for (_, request) in requests {
            self.side.handle_request(request, self.clock.unix, &mut self.log);
        }
        any
    }

    /// Reads for the conversation side what it wants; whether that was anything.
    fn carry_reads(&mut self) -> bool {
        let mut any = false;
        while let Some(read) = self.side.poll_read() {
            self.answer_read(read);
            any = true;
        }
        any
    }

    /// Gives the user side what it is answered and told; whether that was anything.
    pub(crate) fn carry_replies(&mut self) -> bool {
        let mut any = false;
        while let Some((shard, reply)) = self.side.poll_output().or_else(|| self.side.poll_news(|_| true)) {
            self.users.handle_reply(shard, reply, self.clock);
            any = true;
        }
        any
    }

    /// Everybody who is to be called by now, and is then.
    pub(crate) fn take_calls(&mut self) -> Vec<PushDue> {
        let calls = std::iter::from_fn(|| {
            let due = self.side.poll_push()?;
            self.side.settle_push(&due);
            Some(due)
        });
        calls.collect()
    }

    /// Lets time go by.
    pub(crate) fn wait(&mut self, millis: u64) {
        self.clock.unix.0 += millis;
        self.clock.micros += millis * 1_000;
        self.users.begin_turn(self.clock);
    }

    /// A batch is on the disk.
    pub(crate) fn handle_written(&mut self, batch: WriteBatch) {
        self.written.resize((batch.segment + batch.offset) as usize, 0);
        self.written.extend_from_slice(batch.buffer.bytes());
        let durable = self.log.handle_written(batch.buffer, true).expect("written");
        self.side.handle_durable(&durable, self.clock.unix, &mut self.log);
    }

    /// Writes what is due; whether that was anything.
    pub(crate) fn write(&mut self) -> bool {
        let mut any = false;
        self.side.write_positions(self.clock.micros, self.clock.unix, self.pace, &mut self.log);
        while let Some(work) = self.log.poll_spare() {
            match work {
                SpareWork::Make(_) if self.disk_is_full => {
                    self.log.handle_spare(Err(NotMade::NoRoom));
                    break;
                }
                SpareWork::Make(_) => self.log.handle_spare(Ok(())),
                SpareWork::Zero(_) => self.log.handle_spare_zeroed(),
                SpareWork::Hurry => {}
            }
        }
        while let Some(batch) = self.log.poll_write(0) {
            if self.disk_is_slow {
                self.held = Some(batch);
                break;
            }
            self.handle_written(batch);
            any = true;
        }
        while let Some(job) = self.log.poll_index() {
            let mut file = Vec::new();
            let Ok(sealed) = job.write(|bytes| {
                file.extend_from_slice(bytes);
                Ok::<(), Infallible>(())
            });
            self.log.handle_indexed(Some(sealed));
            self.indexes.insert(job.base(), (job, file));
        }
        any
    }

    /// What a slow disk had to write is on it.
    pub(crate) fn let_go(&mut self) {
        if let Some(batch) = self.held.take() {
            self.handle_written(batch);
        }
    }

    /// Makes the index file of the first segment again, as it was.
    pub(crate) fn rebuild_index(&mut self) {
        let (base, (job, _)) = self.indexes.first_key_value().expect("a segment is sealed");
        let Ok(sealed) = job.write(|_| Ok::<(), Infallible>(()));
        self.log.handle_rebuilt(sealed);
        self.side.handle_index(*base, self.clock.unix, &mut self.log);
    }

    /// Reads from the disk what was asked for, if that reads at all.
    pub(crate) fn answer_read(&mut self, read: Read) {
        let location = match read.what {
            ReadPlace::Records(location) => location,
            ReadPlace::Index(block) => return self.answer_block(read, block),
        };
        let (place, bytes) = (location.lsn() as usize, location.bytes());
        self.reads.push(bytes);
        let place = if bytes > self.misread_above { place - 512 } else { place };
        let range = place..place + bytes;
        let reads = self.disk_reads && self.bad_byte.is_none_or(|bad| !range.contains(&bad));
        let bytes = reads.then(|| self.written[range].to_vec());
        self.side.handle_read(read.job, read.place, bytes, self.clock.unix, &mut self.log);
    }

    fn answer_block(&mut self, read: Read, block: BlockPlace) {
        self.blocks_read.push(block);
        let (_, file) = &self.indexes[&block.base];
        let range = block.offset() as usize..block.offset() as usize + INDEX_BLOCK_BYTES;
        let bytes = self.disk_reads.then(|| file[range].to_vec());
        self.side.handle_read(read.job, read.place, bytes, self.clock.unix, &mut self.log);
    }

    pub(crate) fn command(&mut self, session: SessionId, command: Command) -> Vec<ServerFrame> {
        self.request(session, command);
        self.exchange(session)
    }

    pub(crate) fn request(&mut self, session: SessionId, command: Command) {
        self.next_id += 1;
        let request = Request { id: Some(RequestId(self.next_id)), command };
        self.users.handle_command(session, request, self.clock).expect("few commands");
    }
}

fn frames(wire: &mut [u8]) -> Vec<ServerFrame> {
    let limits = DecoderLimits { message_bytes_max: 1 << 20, fragments_max: 16 };
    let mut decoder = Decoder::new(Role::Client, limits);
    let (mut at, mut frames) = (0, Vec::new());
    while at < wire.len() {
        let decoded = decoder.decode(&mut wire[at..]).expect("frames");
        at += decoded.consumed;
        if let Some(protocol::ws::Message::Text(text)) = decoded.message {
            frames.extend(protocol::json::decode_frame(text).expect("a frame of this protocol"));
        }
    }
    frames
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("a name")
}

/// Alice and bob have talked, and the node has run for a while.
pub(crate) fn talked() -> (Chat, SessionId, ConversationId) {
    let mut chat = Chat::new();
    chat.wait(0);
    let (alice, _) = chat.connect("alice", None);
    answer(&chat.command(alice, send("bob", "hello", id_of(NOW.0, 1)))).expect("stored");
    chat.wait(PRESENCE_GRACE_MILLIS);
    (chat, alice, direct_conversation(&user("alice"), &user("bob")))
}

pub(crate) fn id_of(at: u64, random: u8) -> Option<MessageId> {
    Some(MessageId::v7(UnixMillis(at), [random; 10]))
}

pub(crate) fn send(to: &str, text: &str, message_id: Option<MessageId>) -> Command {
    let (kind, media, reply_to, mentions) = (MessageKind::Text, None, None, Vec::new());
    let (target, text) = (Target::User(user(to)), text.to_owned());
    Command::Send(Send { target, kind, text, media, reply_to, mentions, message_id })
}

/// The `ok` or the error in `frames`.
pub(crate) fn answer(frames: &[ServerFrame]) -> Result<u64, ErrorCode> {
    let answers = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Ok(ok) => Some(Ok(ok.seq.expect("a storing command").0)),
        ServerFrame::Error(error) => Some(Err(error.code)),
        _ => None,
    });
    let answers: Vec<_> = answers.collect();
    assert_eq!(answers.len(), 1, "every command has one reply: {frames:?}");
    answers[0]
}
