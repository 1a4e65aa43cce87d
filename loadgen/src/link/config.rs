//! What a worker has to know before it begins: the first line that it is told.

use std::{net::IpAddr, path::PathBuf};

use protocol::upgrade::Form;
use serde::{Deserialize, Serialize};

use crate::{
    client::Endpoint,
    clock::Moment,
    load::Load,
    plan::{Attention, Comings, Mix, UserIndex},
};

/// Connections of one address: less than half of its 28,000 ports, because the kernel tries every second port first and
/// then, once these are taken, all of them in vain at every connection.
pub(crate) const ADDRESS_CONNECTIONS: u32 = 10_000;

/// All that a worker with idle users needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IdleConfig {
    pub(crate) worker: u32,
    pub(crate) workers: u32,
    pub(crate) endpoint: Endpoint,
    /// The addresses that connections come from, in turn; none leaves it to the system.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) secret: String,
    pub(crate) tag: String,
    /// Of all workers together.
    pub(crate) users: u32,
    /// Of all workers together; users leave as fast as they come.
    pub(crate) connects_per_second: u32,
    /// When the first user comes.
    pub(crate) start: Moment,
}

/// All that a worker needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerConfig {
    pub(crate) worker: u32,
    pub(crate) workers: u32,
    pub(crate) endpoint: Endpoint,
    pub(crate) secret: String,
    pub(crate) tag: String,
    pub(crate) users: u32,
    /// The last so many of the users only read, and belong to all workers but the first, which has the others.
    pub(crate) crowd: u32,
    /// The first three bytes of the addresses that those come from who come in crowds; `None` leaves it to the system.
    pub(crate) network: Option<[u8; 3]>,
    pub(crate) mix: Mix,
    pub(crate) attention: Attention,
    pub(crate) load: Load,
    pub(crate) forms: Forms,
    pub(crate) comings: Comings,
    /// Where this worker writes its events.
    pub(crate) history: Option<PathBuf>,
}

impl WorkerConfig {
    /// Users are dealt out like cards, so that contacts sit in different processes.
    pub(crate) const fn owns(&self, user: UserIndex) -> bool {
        self.deal(user).0 == self.worker
    }

    /// The place of a user among those of its worker.
    pub(crate) const fn place_of(&self, user: UserIndex) -> usize {
        self.deal(user).1 as usize
    }

    /// The address that a user comes from; another one each time, because the ports of the last one may not be free yet.
    pub(crate) fn source_of(&self, place: usize, comings: u64) -> Option<IpAddr> {
        let [network, middle, subnet] = self.network?;
        let (users, workers) =
            if self.crowd > 0 { (self.crowd, self.workers - 1) } else { (self.users, self.workers) };
        let hosts = users.div_ceil(workers).div_ceil(ADDRESS_CONNECTIONS) as usize;
        let host = comings as usize * hosts + place % hosts;
        Some(IpAddr::from([network, middle, subnet, 1 + (host % 250) as u8]))
    }

    /// Workers that share the schedule.
    pub(crate) const fn senders(&self) -> u32 {
        if self.crowd > 0 { 1 } else { self.workers }
    }

    /// The worker of a user, and its place there.
    const fn deal(&self, user: UserIndex) -> (u32, u32) {
        let established = self.users - self.crowd;
        match user.0.checked_sub(established) {
            Some(place) => (1 + place % (self.workers - 1), place / (self.workers - 1)),
            None if self.crowd > 0 => (0, user.0),
            None => (user.0 % self.workers, user.0 / self.workers),
        }
    }
}

/// Which form of the protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Forms {
    // No documentation here: `--help` would show it, and would not fit a screen any more.
    Binary,
    Json,
    Mixed,
}

impl Forms {
    pub(crate) const fn of(self, user: UserIndex) -> Form {
        match self {
            Self::Binary => Form::Binary,
            Self::Json => Form::Json,
            Self::Mixed if (user.0 / 2).is_multiple_of(2) => Form::Binary,
            Self::Mixed => Form::Json,
        }
    }
}
