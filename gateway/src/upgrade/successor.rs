//! The new process's part: says who it is, takes everything, and serves.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use ring::{Ring, Socket};
use rustix::net::getpeername;

use super::passenger::{self, Passenger};
use super::wire::{self, FromNew, FromOld, Hello};
use super::{READY_MAX, UNEXPECTED, UPGRADE_VARIABLE};
use crate::peers::{Counted, Peers};
use crate::shard::Listener;

const MISSING: &str = "a listener or the lock did not come along: restart the node instead";

/// The process before.
pub struct Predecessor {
    stream: UnixStream,
}

/// What it gives before anything else.
pub struct Granted {
    /// The lock of the data directory.
    pub lock: OwnedFd,
    /// The admin's listener.
    pub admin: TcpListener,
    /// Of each shard: the way its connections come, and its listeners.
    pub seats: Vec<(UnixStream, Vec<(TcpListener, Listener)>)>,
}

impl Predecessor {
    /// The process before, if this one was started by it.
    ///
    /// # Errors
    /// When there is no way to it.
    pub fn of_environment() -> anyhow::Result<Option<Self>> {
        if std::env::var_os(UPGRADE_VARIABLE).is_none() {
            return Ok(None);
        }
        let words = "GATEHOUSE_UPGRADE is for a process that is started by an upgrade: unset it";
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().context(words)?);
        // Longer than the old one waits for anything: then it is the one that speaks.
        stream.set_read_timeout(Some(2 * READY_MAX)).context(words)?;
        stream.set_write_timeout(Some(READY_MAX)).context(words)?;
        Ok(Some(Self { stream }))
    }

    /// Says something.
    ///
    /// # Errors
    /// When the process before is gone.
    pub fn say(&self, message: &FromNew) -> anyhow::Result<()> {
        wire::say(&self.stream, message, &[]).context("the process before is gone")
    }

    /// Says who this is, and takes what is given for that.
    ///
    /// # Errors
    /// When the process before does not agree: it says why.
    pub fn introduce(&self, hello: Hello) -> anyhow::Result<Granted> {
        let shards = hello.shards;
        self.say(&FromNew::Hello(hello))?;
        let mut first = self.hear_granted()?.into_iter();
        let (Some(lock), Some(admin)) = (first.next(), first.next()) else { bail!(MISSING) };
        let mut seats = Vec::new();
        for _ in 0..shards {
            let mut descriptors = self.hear_granted()?.into_iter();
            let stream = UnixStream::from(descriptors.next().context(MISSING)?);
            stream.set_read_timeout(Some(2 * READY_MAX))?;
            let kinds = [Listener::Chat, Listener::Echo];
            let listeners = descriptors.map(TcpListener::from).zip(kinds).collect();
            seats.push((stream, listeners));
        }
        Ok(Granted { lock, admin: admin.into(), seats })
    }

    fn hear(&self) -> anyhow::Result<(FromOld, Vec<OwnedFd>)> {
        wire::hear(&self.stream).context("the process before has given up")
    }

    fn hear_granted(&self) -> anyhow::Result<Vec<OwnedFd>> {
        match self.hear()? {
            (FromOld::Granted, descriptors) => Ok(descriptors),
            _ => bail!(UNEXPECTED),
        }
    }

    /// Waits until segments stay as they are: up to where each log is durable.
    ///
    /// # Errors
    /// When the process before has given up.
    pub fn wait_for_quiet(&self) -> anyhow::Result<Vec<u64>> {
        match self.hear()? {
            (FromOld::Quiet(durable), _) => Ok(durable),
            _ => bail!(UNEXPECTED),
        }
    }

    /// Waits until nothing changes any more.
    ///
    /// # Errors
    /// When the process before has given up.
    pub fn wait_for_pause(&self) -> anyhow::Result<()> {
        match self.hear()? {
            (FromOld::Paused, _) => Ok(()),
            _ => bail!(UNEXPECTED),
        }
    }

    /// Says that everything is here, and waits for leave to go on.
    ///
    /// # Errors
    /// When the process before has given up.
    pub fn take(&self) -> anyhow::Result<()> {
        self.say(&FromNew::Prepared)?;
        match self.hear()? {
            (FromOld::Yours, _) => Ok(()),
            _ => bail!(UNEXPECTED),
        }
    }
}

/// Whether it is asked for whose a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepsPeers {
    /// By a limit, or because proxies say it.
    Yes,
    /// Not at all.
    No,
}

/// `None` of one that has ended meanwhile.
fn peer_of(descriptor: &OwnedFd) -> Option<IpAddr> {
    let address = SocketAddr::try_from(getpeername(descriptor).ok()??).ok()?;
    Some(address.ip().to_canonical())
}

/// A connection of the process before, in the ring of its shard here.
pub struct Boarded {
    /// What is known of it.
    pub passenger: Passenger,
    /// Its descriptor.
    pub socket: Socket,
    /// What it is counted by, where that is done.
    pub counted: Option<Counted>,
}

/// What a shard of the process before had.
pub struct BoardedShard {
    /// Its connections.
    pub connections: Vec<Boarded>,
    /// Its viewers knew of everybody who was away.
    pub absent_known: bool,
}

/// Takes the connections of one shard into its ring. Nothing is armed on them. With `keeps_peers` the system is asked where those come from of
/// whom the process before did not keep it. They are counted here, so that all are before anybody new comes to any shard.
///
/// # Errors
/// When the process before has given up, or what it says cannot be understood.
pub fn board(
    stream: &UnixStream,
    ring: &mut Ring,
    peers: &Arc<Peers>,
    keeps_peers: KeepsPeers,
) -> anyhow::Result<BoardedShard> {
    let mut all = Vec::new();
    loop {
        let (bytes, descriptors) = wire::receive(stream).context("the process before has given up")?;
        if descriptors.is_empty() {
            return Ok(BoardedShard { connections: all, absent_known: bytes == [1] });
        }
        let mut passengers = passenger::read_all(&bytes).context("a connection cannot be understood")?;
        if passengers.len() != descriptors.len() {
            bail!("{} connections came with {} descriptors", passengers.len(), descriptors.len());
        }
        if keeps_peers == KeepsPeers::Yes {
            for (passenger, descriptor) in passengers.iter_mut().zip(&descriptors) {
                passenger.peer = passenger.peer.or_else(|| peer_of(descriptor));
            }
        }
        let sockets = ring.adopt(descriptors).context("the connections do not fit")?;
        all.extend(passengers.into_iter().zip(sockets).map(|(passenger, socket)| {
            // Of a proxy's it is not known yet whose it is.
            let address = passenger.peer.filter(|_| !passenger.is_proxied);
            let counted = address.and_then(|address| peers.count_anyway(address));
            Boarded { passenger, socket, counted }
        }));
        wire::send(stream, &[], &[]).context("the process before has given up")?;
    }
}
