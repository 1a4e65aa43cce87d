//! A shard without I/O.

#![forbid(unsafe_code)]

mod crowd;
mod deadlines;
mod travel;

use std::sync::Arc;
use std::time::Duration;

use gateway::auth::{DenyList, Keys};
use gateway::mailbox::{Back, MOVE_CREDITS, Mailboxes, Mesh};
use gateway::metrics::{PauseReason, RefusedReason, ShardMetrics};
use gateway::peers::{PeerLimits, Peers};
use gateway::shard::{
    Action, ConnectionId, Event, Listener, ReceiveEnd, Shard, ShardConfig, ShardParts, WORK_PER_TURN,
};
use gateway::state::NodeState;
use protocol::ids::{UnixMillis, UserId};
use protocol::upgrade::{Origins, UpgradePolicy};
use ring::{RecvBuffer, Socket};
use router::mail::Clock;
use router::user::UserLimits;
use router::{Places, ShardId, Starts};
use storage_log::CompactionPolicy;

const REQUEST: &[u8] =
    b"GET /v1/connect HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// `hi`, masked with zeros.
const FRAME: &[u8] = &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];

struct Bench {
    shard: Shard,
    places: Arc<Places>,
    mesh: Arc<Mesh>,
    keys: Keys,
    metrics: Arc<ShardMetrics>,
    state: Arc<NodeState>,
    sockets: u32,
    micros: u64,
}

impl Bench {
    fn new(connections_max: u32, handshakes_max: u32, connects_per_second_max: u32) -> Self {
        Self::of_shards(1, connections_max, handshakes_max, connects_per_second_max)
    }

    /// The first of so many shards.
    fn of_shards(
        shards: u16,
        connections_max: u32,
        handshakes_max: u32,
        connects_per_second_max: u32,
    ) -> Self {
        let places = Arc::new(Places::new([1; 16], [2; 32], 1, shards));
        let (mesh, keys) = (Mesh::new(shards, 1), Keys::from_secret(&[9; 32]).expect("a long secret"));
        let (metrics, state) = (Arc::<ShardMetrics>::default(), Arc::new(NodeState::new(1)));
        let config = ShardConfig {
            connections_max,
            handshakes_max,
            connects_per_second_max,
            policy: UpgradePolicy { path: Some(UpgradePolicy::PATH), origins: Origins::Unset },
            proxies: Vec::new(),
            work_per_turn: WORK_PER_TURN,
            drain_seconds: 0,
            users: UserLimits::default(),
            compaction: CompactionPolicy::default(),
            pushes: false,
        };
        let shard = Shard::new(ShardParts {
            id: ShardId(0),
            places: places.clone(),
            starts: Arc::new(Starts::new(vec![Vec::new()])),
            config,
            mail: Mailboxes::new(mesh.clone(), ShardId(0)),
            logs: Vec::new(),
            peers: Peers::new(PeerLimits::NONE, connections_max, [4; 32]),
            verifier: keys.verifier.clone(),
            cache_key: [3; 32],
            denied: DenyList::default(),
            metrics: metrics.clone(),
            state: state.clone(),
            random: 7,
        });
        Self { shard, places, mesh, keys, metrics, state, sockets: 0, micros: 1_000_000 }
    }

    fn turn(&mut self, mut events: Vec<Event>) -> Vec<Action> {
        let mut actions = Vec::new();
        let clock = Clock { unix: UnixMillis(self.micros / 1_000), micros: self.micros };
        self.shard.turn(clock, &mut events, &mut actions);
        actions
    }

    /// So many connections come, and are asked for bytes or told something.
    fn accept(&mut self, listener: Listener, count: u32) -> Vec<Action> {
        let peer = "127.0.0.1:9".parse().expect("an address");
        let from = self.sockets;
        self.sockets += count;
        let accepted = |index| Event::Accepted { listener, socket: Socket::from_index(index), peer };
        self.turn((from..self.sockets).map(accepted).collect())
    }

    /// The upgrade and the `connect` of a user.
    fn handshake(&self, user: &UserId) -> Vec<u8> {
        let now = UnixMillis(self.micros / 1_000);
        let token = self.keys.issuer.as_ref().expect("it signs").issue(user, Duration::from_secs(600), now);
        [REQUEST, &frame(&format!(r#"{{"op":"connect","id":1,"device":"d","token":"{token}"}}"#))].concat()
    }

    fn end(&mut self, connection: ConnectionId) -> Vec<Action> {
        self.turn(vec![Event::ReceiveEnded { connection, end: ReceiveEnd::Gone }]);
        self.turn(vec![Event::ShutDown(connection)]);
        self.turn(vec![Event::Closed(connection)])
    }
}

fn asked(actions: &[Action]) -> Vec<ConnectionId> {
    let receives = actions.iter().filter_map(|action| match action {
        Action::Receive { connection, .. } => Some(*connection),
        _ => None,
    });
    receives.collect()
}

fn sent(actions: &[Action]) -> Vec<(ConnectionId, String)> {
    let sends = actions.iter().filter_map(|action| match action {
        Action::Send(connection, _, bytes) => {
            Some((*connection, String::from_utf8_lossy(bytes).into_owned()))
        }
        _ => None,
    });
    sends.collect()
}

fn room(actions: &[Action]) -> Option<u32> {
    actions.iter().find_map(|action| match action {
        Action::Admit { room } => Some(*room),
        _ => None,
    })
}

/// A text, masked with zeros.
fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short");
    let head = match length {
        ..126 => vec![0x81, 0x80 | length as u8],
        _ => [&[0x81, 0x80 | 126], &length.to_be_bytes()[..]].concat(),
    };
    [&head[..], &[0; 4], text.as_bytes()].concat()
}

/// What was sent has gone out.
fn went_out(sends: Vec<(ConnectionId, String)>) -> Vec<Event> {
    let went_out = |(connection, text): (ConnectionId, String)| Event::Sent {
        connection,
        sent: Some(text.len()),
        bytes: text.into(),
    };
    sends.into_iter().map(went_out).collect()
}

fn came(connection: ConnectionId, bytes: &[u8]) -> Event {
    Event::Received { connection, buffer: RecvBuffer::from_vec(bytes.to_vec()), armed: false }
}
