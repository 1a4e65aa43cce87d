//! Whose connection it is: the address that it comes from, or the one that a trusted proxy names; and what all connections of one address may
//! do.
//!
//! Where neither proxies nor limits of addresses are configured nothing of this is kept. The address goes with its connection, to another shard and
//! to another process; with it goes what it is counted by.

use std::net::IpAddr;

use protocol::command::Request;
use protocol::event::{CloseCode, Refusal};
use protocol::upgrade::HttpRefusal;
use router::mail::SessionId;
use router::user::is_stored;

use super::{ConnectionId, Shard};
use crate::metrics::RefusedReason;
use crate::peers::{Counted, TooMuch};

/// What is known of whoever is at the other end.
pub struct Peer {
    /// Canonical.
    pub(super) address: IpAddr,
    /// Absent until a PROXY header has come, and where nothing is limited.
    pub(super) counted: Option<Counted>,
}

/// Why a connection is not served, and what its peer is told.
pub(super) type Refused = (RefusedReason, HttpRefusal);

impl Shard {
    /// Whether connections from here begin with a PROXY header.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        self.config.proxies.iter().any(|network| network.contains(address))
    }

    /// Counts a new connection for its address.
    pub(super) fn count_peer(&self, address: IpAddr) -> Result<Option<Counted>, Refused> {
        self.peers.count(address, self.clock.micros).map_err(|too_much| {
            let (counted, reason) = match too_much {
                TooMuch::Connections => {
                    (RefusedReason::IpConnections, "your address has too many connections")
                }
                TooMuch::Connects => (RefusedReason::IpConnects, "your address connects too often"),
            };
            tracing::debug!(shard = self.id.0, %address, "connection refused with 429: {reason}");
            (counted, HttpRefusal { status: 429, reason })
        })
    }

    /// A proxy has said whose connection this is. `None`: its own.
    pub(super) fn handle_proxied(&mut self, id: ConnectionId, source: Option<IpAddr>) {
        self.metrics.proxied_total.add(u64::from(source.is_some()));
        let Some(address) = source.or(self.connections.peer(id).map(|peer| peer.address)) else { return };
        let counted = self.count_peer(address);
        let (counted, refused) =
            counted.map_or_else(|refused| (None, Some(refused)), |counted| (counted, None));
        self.connections.set_peer(id, Some(Peer { address, counted }));
        if let Some((reason, refusal)) = refused {
            self.metrics.refused_total(reason).increment();
            let connection = self.connections.find(id).expect("the caller found it");
            connection.codec.refuse(refusal);
            self.end_session(id, CloseCode::ABNORMAL);
        }
    }

    /// Whether the address of a session may ask for this now. Where it may not, the session is told when.
    pub(super) fn peer_may_ask(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        request: &Result<Request, Refusal>,
    ) -> Result<bool, CloseCode> {
        let Some(counted) = self.connections.peer(id).and_then(|peer| peer.counted.as_ref()) else {
            return Ok(true);
        };
        let (number, stores) = match request {
            Ok(request) => (request.id, request.id.is_some() && is_stored(&request.command)),
            // What has no number ends the session.
            Err(Refusal { id: None, .. }) => return Ok(true),
            Err(refusal) => (refusal.id, false),
        };
        let micros = self.clock.micros;
        let asked = counted.ask(micros).and_then(|()| if stores { counted.store(micros) } else { Ok(()) });
        let Err(early) = asked else { return Ok(true) };
        self.metrics.ip_rate_limited_total.increment();
        let words = "more than this node takes of one address in so short a time";
        self.users.refuse_for_now(session, number, early, words).map(|()| false)
    }
}
