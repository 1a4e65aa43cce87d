//! Idle users: each comes online, sends a heartbeat every 30 s, and leaves when all do.
//!
//! There are many, so each is little: a codec, the two halves of a socket, and one task that reads. When a user comes and
//! when it pings follows from its number alone, as in a run. A user whose connection ends stays away and is counted:
//! what is asked is whether connections hold, not whether they can be made again.

use std::{
    cell::{RefCell, RefMut},
    rc::Rc,
    time::Duration,
};

use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf},
    time::sleep,
};
use protocol::{
    command::{Command, Connect, Request},
    event::{CloseCode, ServerFrame},
    ids::{DeviceId, RequestId, UserId},
    session::Input,
    upgrade::Form,
};

use super::{
    inbox::Inbox,
    say,
    schedule::sleep_until,
    user::{Link, read_frames},
};
use crate::{
    client::{Connection, Incoming, Signer, dial},
    clock::Moment,
    host,
    latency::Latencies,
    link::{Forms, FromWorker, IdleConfig, IdleTick, ToWorker},
    plan::UserIndex,
    random::Random,
};

/// As clients are told to.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(30);
/// The answer to a ping fits.
const READ_BYTES: usize = 256;
/// How long the last ones may take to leave.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Half of the users speak each form.
const FORMS: Forms = Forms::Mixed;

/// One user.
#[derive(Default)]
struct Guest {
    link: Option<Link>,
    /// What it gives back with every ping.
    cursor: Option<String>,
    /// A ping waits for its answer since then.
    asked: Option<Moment>,
    requests: u32,
    is_welcome: bool,
    /// It said goodbye: what ends then ends well.
    has_left: bool,
}

impl Guest {
    fn say_goodbye(&mut self) {
        if let Some(link) = &mut self.link {
            link.codec.close();
            self.has_left = true;
        }
    }
}

/// All users of a worker.
struct Crowd {
    config: IdleConfig,
    signer: Signer,
    state: RefCell<State>,
}

struct State {
    guests: Vec<Guest>,
    tick: IdleTick,
    pongs: Latencies,
    lag: Latencies,
    random: Random,
    frames: Vec<ServerFrame>,
}

/// The whole life of a worker with idle users.
pub(super) async fn conduct(config: IdleConfig, mut inbox: Inbox) -> anyhow::Result<()> {
    let count = (0..config.users).filter(|user| user % config.workers == config.worker).count();
    let state = State {
        guests: (0..count).map(|_| Guest::default()).collect(),
        tick: IdleTick::default(),
        pongs: Latencies::default(),
        lag: Latencies::default(),
        random: Random::from_system()?,
        frames: Vec::new(),
    };
    let crowd = Rc::new(Crowd { signer: Signer::new(&config.secret), config, state: RefCell::new(state) });
    monoio::spawn(admit(crowd.clone()));
    monoio::spawn(beat(crowd.clone()));
    monoio::spawn(tick_every_second(crowd.clone()));
    while !matches!(inbox.next().await?, ToWorker::Finish) {}
    leave(&crowd).await;
    say(&FromWorker::Idle(Box::new(crowd.tick())))?;
    Ok(say(&FromWorker::Left)?)
}

/// Lets users in, each at its time.
async fn admit(crowd: Rc<Crowd>) {
    let start = crowd.config.start;
    for place in 0..crowd.count() {
        sleep_until(start.after(crowd.pause(place))).await;
        monoio::spawn(stay(crowd.clone(), place));
    }
}

/// Sends every heartbeat when it is due: the users in turn, all of them within [`PING_EVERY`], and until each has left: the last may
/// wait for their turn longer than a node waits for a heartbeat.
async fn beat(crowd: Rc<Crowd>) {
    let count = crowd.count() as u64;
    let due = |number: u64| {
        let nanos = PING_EVERY.as_nanos() * u128::from(number) / u128::from(count);
        crowd.config.start.after(Duration::from_nanos(nanos as u64))
    };
    if count == 0 {
        return;
    }
    let mut number = 0;
    loop {
        sleep_until(due(number)).await;
        let now = Moment::now();
        while due(number) <= now {
            crowd.ping((number % count) as usize, due(number), now);
            number += 1;
        }
    }
}

async fn tick_every_second(crowd: Rc<Crowd>) {
    loop {
        sleep(TICK).await;
        if say(&FromWorker::Idle(Box::new(crowd.tick()))).is_err() {
            return;
        }
    }
}

/// Everybody says goodbye, as fast as they came, and waits for the node's.
async fn leave(crowd: &Rc<Crowd>) {
    let start = Moment::now();
    for place in 0..crowd.count() {
        sleep_until(start.after(crowd.pause(place))).await;
        crowd.state().guests[place].say_goodbye();
        crowd.flush(place);
    }
    let deadline = Moment::now().after(LEAVE_WAIT_MAX);
    while Moment::now() < deadline && crowd.state().guests.iter().any(|guest| guest.link.is_some()) {
        sleep(LOOK_EVERY).await;
    }
}

/// A user's life.
async fn stay(crowd: Rc<Crowd>, place: usize) {
    // In a box: what it needs to come online is freed when it is.
    match Box::pin(open(&crowd, place)).await {
        Ok(reader) => {
            let code = read(&crowd, place, reader).await;
            crowd.handle_end(place, code);
        }
        Err(fault) => {
            let mut state = crowd.state();
            state.tick.counts.refused += 1;
            state.tick.fault = Some(format!("{fault:#}"));
        }
    }
}

/// Opens the WebSocket and asks for a session.
async fn open(crowd: &Rc<Crowd>, place: usize) -> anyhow::Result<TcpOwnedReadHalf> {
    let IdleConfig { tag, endpoint, sources, .. } = &crowd.config;
    let name = UserId::new(&format!("{tag}-{}", crowd.index(place).0))?;
    let token = crowd.signer.sign(&name)?;
    let source = sources.get(place % sources.len().max(1)).copied();
    let nonce = {
        let random = &mut crowd.state().random;
        u128::from(random.next()) << 64 | u128::from(random.next())
    };
    let Connection { reader, writer, codec } =
        dial(endpoint, source, crowd.form(place), nonce.to_be_bytes()).await?;
    crowd.state().guests[place].link = Some(Link { codec, writer: Some(writer) });
    let device = DeviceId::new("loadgen").expect("a short word is an id");
    let connect = Connect { token: Some(token), device, cursor: None, positions: None };
    crowd.ask(place, Command::Connect(connect));
    Ok(reader)
}

/// Reads until the connection ends, and says how it did.
async fn read(crowd: &Rc<Crowd>, place: usize, mut reader: TcpOwnedReadHalf) -> CloseCode {
    // What came behind the response to the upgrade.
    let mut ended = crowd.handle_bytes(place, &[]);
    let mut buffer = Vec::with_capacity(READ_BYTES);
    while ended.is_none() {
        let result;
        (result, buffer) = reader.read(buffer).await;
        if !matches!(result, Ok(1..)) {
            return CloseCode::ABNORMAL;
        }
        ended = crowd.handle_bytes(place, &buffer);
        buffer.clear();
    }
    ended.unwrap_or(CloseCode::ABNORMAL)
}

/// Writes until there is nothing to write. A failure shows at the reading side as well.
async fn write(crowd: Rc<Crowd>, place: usize, mut writer: TcpOwnedWriteHalf, mut bytes: Vec<u8>) {
    while writer.write_all(bytes).await.0.is_ok() {
        let mut state = crowd.state();
        let Some(link) = &mut state.guests[place].link else { return };
        if !link.codec.has_output() {
            link.writer = Some(writer);
            return;
        }
        bytes = link.codec.take_output();
    }
}

impl Crowd {
    /// No borrow lives across an await.
    fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    fn count(&self) -> usize {
        self.state().guests.len()
    }

    fn index(&self, place: usize) -> UserIndex {
        UserIndex(place as u32 * self.config.workers + self.config.worker)
    }

    fn form(&self, place: usize) -> Form {
        FORMS.of(self.index(place))
    }

    /// From the first user of all workers until this one.
    fn pause(&self, place: usize) -> Duration {
        let nanos = u64::from(self.index(place).0) * 1_000_000_000;
        Duration::from_nanos(nanos / u64::from(self.config.connects_per_second))
    }

    fn tick(&self) -> IdleTick {
        let mut state = self.state();
        let (pongs, lag) = (state.pongs.take_buckets(), state.lag.take_buckets());
        let resident_bytes = host::resident_bytes("self").unwrap_or_default();
        IdleTick { pongs, lag, resident_bytes, ..state.tick.clone() }
    }

    fn ask(self: &Rc<Self>, place: usize, command: Command) {
        let form = self.form(place);
        let mut state = self.state();
        let Guest { link: Some(link), requests, .. } = &mut state.guests[place] else { return };
        *requests += 1;
        let mut payload = Vec::new();
        Request { id: Some(RequestId(*requests)), command }.encode(form, &mut payload);
        link.codec.send(form, payload);
        drop(state);
        self.flush(place);
    }

    /// Starts to write what a user has, unless a write is under way.
    fn flush(self: &Rc<Self>, place: usize) {
        let mut state = self.state();
        let Some(link) = &mut state.guests[place].link else { return };
        if link.codec.has_output()
            && let Some(writer) = link.writer.take()
        {
            monoio::spawn(write(self.clone(), place, writer, link.codec.take_output()));
        }
    }

    fn ping(self: &Rc<Self>, place: usize, due: Moment, now: Moment) {
        let mut state = self.state();
        let State { guests, tick, lag, .. } = &mut *state;
        let guest = &mut guests[place];
        if !guest.is_welcome || guest.has_left || guest.link.is_none() {
            return;
        }
        lag.record(now.since(due));
        tick.counts.pings += 1;
        tick.counts.unanswered += u64::from(guest.asked.replace(now).is_some());
        let cursor = guest.cursor.clone();
        drop(state);
        self.ask(place, Command::Ping { cursor });
    }

    /// Bytes arrived. `Some` ends the connection.
    fn handle_bytes(self: &Rc<Self>, place: usize, bytes: &[u8]) -> Option<CloseCode> {
        let now = Moment::now();
        let mut state = self.state();
        let mut frames = std::mem::take(&mut state.frames);
        state.guests[place].link.as_mut()?.codec.handle_bytes(bytes);
        let ended = loop {
            let incoming = state.guests[place].link.as_mut()?.codec.poll_incoming();
            let read = match incoming {
                Ok(None) => break None,
                Ok(Some(Incoming::Closed(code))) => break Some(code),
                Ok(Some(Incoming::Binary(bytes))) => read_frames(Input::Binary(bytes), &mut frames),
                Ok(Some(Incoming::Text(text))) => read_frames(Input::Text(text), &mut frames),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = read {
                state.tick.fault = Some(fault);
                break Some(CloseCode::ABNORMAL);
            }
            for frame in frames.drain(..) {
                state.handle_frame(place, frame, now);
            }
        };
        state.frames = frames;
        drop(state);
        self.flush(place);
        ended
    }

    fn handle_end(&self, place: usize, code: CloseCode) {
        let mut state = self.state();
        let guest = std::mem::take(&mut state.guests[place]);
        let IdleTick { counts, closes, .. } = &mut state.tick;
        match (guest.is_welcome, guest.has_left) {
            (true, true) => counts.left += 1,
            (true, false) => counts.lost += 1,
            (false, false) => counts.refused += 1,
            // Told to leave before it was let in: it had no welcome in time.
            (false, true) => {}
        }
        if !guest.has_left {
            *closes.entry(code.0).or_default() += 1;
        }
    }
}

impl State {
    fn handle_frame(&mut self, place: usize, frame: ServerFrame, now: Moment) {
        let guest = &mut self.guests[place];
        match frame {
            ServerFrame::CaughtUp { cursor, .. } | ServerFrame::Cursor { cursor } => {
                guest.cursor = Some(cursor);
            }
            ServerFrame::Error(error) => {
                *self.tick.errors.entry(error.code.name().to_owned()).or_default() += 1;
                self.tick.fault = Some(format!("{}: {}", error.code.name(), error.message));
            }
            ServerFrame::Pong { cursor, .. } => {
                self.tick.counts.pongs += 1;
                guest.cursor = cursor.or(guest.cursor.take());
                if let Some(asked) = guest.asked.take() {
                    self.pongs.record(now.since(asked));
                }
            }
            ServerFrame::Welcome(welcome) => {
                guest.cursor = welcome.cursor;
                guest.is_welcome = true;
                self.tick.counts.welcomed += 1;
                self.tick.last_welcome = now;
            }
            _ => {}
        }
    }
}
