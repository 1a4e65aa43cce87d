//! Where clients and operators come.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ring::ListenOptions;

use crate::config::Config;
use crate::layout::Layout;
use crate::shard::Listener;
use crate::upgrade::leaving::LeavingParts;

/// A slow reader pins at most this much in the kernel, in bytes.
const SEND_BUFFER_BYTES: u32 = 64 << 10;

/// A process that was just killed has its listeners for some milliseconds more.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);
const CLAIM_AGAIN: Duration = Duration::from_millis(20);

pub(super) type Listeners = Vec<(TcpListener, Listener)>;

/// One chat listener per shard on the same address, and the echo listener on every shard. The first of each is alone there when it is bound, and
/// the others join it: two nodes that begin in the same moment do not share one.
pub(super) fn bind_all(config: &Config, shards: u16) -> anyhow::Result<Vec<Listeners>> {
    let send_buffer_bytes = Some(SEND_BUFFER_BYTES);
    let alone = ListenOptions { send_buffer_bytes, ..ListenOptions::default() };
    let (mut chat, mut echo, mut bound) = (config.listen, config.echo, Vec::new());
    claim(config)?;
    for shard in 0..shards {
        let options = ListenOptions { reuse_port: shard > 0, ..alone };
        let mut listeners = vec![(bind(&mut chat, &options)?, Listener::Chat)];
        if let Some(address) = &mut echo {
            listeners.push((bind(address, &options)?, Listener::Echo));
        }
        if shard == 0 {
            let shared = listeners.iter().try_for_each(|(listener, _)| ring::share_port(listener));
            shared.context("cannot let the shards share their address")?;
        }
        bound.push(listeners);
    }
    Ok(bound)
}

/// The shards' listeners share their address, and would share it with another node too: then each would be brought a part of the other's clients.
/// Asked before the logs are opened, because each start is written into them, and again before anybody listens.
pub(super) fn claim(config: &Config) -> anyhow::Result<()> {
    for address in [Some(config.listen), config.echo].into_iter().flatten() {
        let begun = Instant::now();
        while !ring::is_free(address).with_context(|| format!("cannot listen on {address}"))? {
            if begun.elapsed() > CLAIM_PATIENCE {
                bail!("cannot listen on {address}: another program listens there; is it another node?");
            }
            thread::sleep(CLAIM_AGAIN);
        }
    }
    Ok(())
}

pub(super) fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address} for the admin: is another node running there?")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Port 0 becomes the port that the first listener was given.
fn bind(address: &mut SocketAddr, options: &ListenOptions) -> anyhow::Result<TcpListener> {
    let listener = ring::bind(*address, options)
        .with_context(|| format!("cannot listen on {address}: is another node running there?"))?;
    *address = listener.local_addr().context("the system does not say where this listener is")?;
    Ok(listener)
}

/// Where clients come.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    pub(super) chat: SocketAddr,
    echo: Option<SocketAddr>,
}

impl Addresses {
    pub(super) fn of(listeners: &Listeners) -> anyhow::Result<Self> {
        let of_kind = |wanted| {
            let found = listeners.iter().find(|(_, kind)| *kind == wanted);
            found
                .map(|(listener, _)| listener.local_addr())
                .transpose()
                .context("the system does not say where this listener is")
        };
        Ok(Self {
            chat: of_kind(Listener::Chat)?.context("there is no listener")?,
            echo: of_kind(Listener::Echo)?,
        })
    }

    pub(super) fn say_serving(&self, leaving: &LeavingParts, layout: &Layout) -> anyhow::Result<()> {
        let admin = TcpListener::from(leaving.admin.try_clone()?).local_addr()?;
        let echo = self.echo.map_or_else(|| "off".to_owned(), |address| address.to_string());
        let Layout { shards, connections_max, .. } = *layout;
        tracing::info!(listen = %self.chat, %admin, echo, shards, connections_max, "serving");
        Ok(())
    }
}
