//! How a node is laid out over a machine: how many shards, and how much each holds.
//!
//! One shard per core is best. But the kernel bounds a shard's table of sockets by the file limit of the process, each table
//! for itself; so where the limit is low and many connections are wanted, there are more shards than cores.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, SHARDS_MAX};

/// Descriptors of a shard kept free of connections: to refuse in words, and for moves that arrive.
pub(crate) const SPARE_SOCKETS: u32 = 256;

/// The largest table of sockets that a ring may register.
const TABLE_SOCKETS_MAX: u64 = 1 << 20;

/// Connections of a shard where nobody has said how many the node is to hold, or as many as the file limit allows.
const CONNECTIONS_UNASKED: u32 = 16_000;

/// Most shards that are started without being asked for: beyond it, mailboxes between all pairs cost more than cores bring.
const SHARDS_UNASKED_MAX: usize = 64;

/// What a node is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Data-plane threads.
    pub shards: u16,
    /// Connections of all of them.
    pub connections_max: u32,
    /// Connections of one of them: its share of all, and some more, because users fall on shards by their names.
    pub connections_each: u32,
    /// Sockets of its table: the file limit has to allow as many.
    pub sockets_each: u32,
    /// There are more shards than one per core, because of the file limit alone.
    pub is_stretched: bool,
}

impl Layout {
    /// The layout of `config` on a machine of so many cores, for a process that may open `files_max` files. Where even
    /// [`SHARDS_MAX`] shards, or those that are configured, do not suffice, `sockets_each` is above the limit.
    #[must_use]
    pub fn of(config: &Config, cores: usize, files_max: Option<u64>) -> Self {
        let limit = files_max.map_or(TABLE_SOCKETS_MAX, |files| files.min(TABLE_SOCKETS_MAX)) as u32;
        let usual = config.shards.unwrap_or(cores.clamp(1, SHARDS_UNASKED_MAX) as u16);
        let Some(connections_max) = config.connections_max else {
            return Self::unasked(usual, limit);
        };
        let most = if config.shards.is_some() { usual } else { SHARDS_MAX };
        let mut layouts = (usual..=most).map(|shards| Self::with(shards, connections_max, shards > usual));
        let fits = layouts.find(|layout| layout.sockets_each <= limit);
        fits.unwrap_or_else(|| Self::with(usual, connections_max, false))
    }

    fn unasked(shards: u16, limit: u32) -> Self {
        let connections_each = limit.saturating_sub(SPARE_SOCKETS).clamp(1, CONNECTIONS_UNASKED);
        let connections_max = connections_each * u32::from(shards);
        let sockets_each = connections_each + SPARE_SOCKETS;
        Self { shards, connections_max, connections_each, sockets_each, is_stretched: false }
    }

    fn with(shards: u16, connections_max: u32, is_stretched: bool) -> Self {
        let share = connections_max.div_ceil(u32::from(shards));
        // Six times the spread of users that fall by chance, or more, from 2,000 a shard on.
        let more = if shards > 1 { share / 16 + 64 } else { 0 };
        let connections_each = (share + more).min(connections_max);
        let sockets_each = connections_each + SPARE_SOCKETS;
        Self { shards, connections_max, connections_each, sockets_each, is_stretched }
    }

    /// The core that a shard is kept on. Neighbours share one where there are more shards than cores, so that owners of
    /// different logs do not.
    #[must_use]
    pub fn core_of(&self, shard: usize, cores: usize) -> usize {
        let shards = usize::from(self.shards);
        if shards <= cores { shard } else { shard * cores / shards }
    }
}

/// Takes as many files as the system lets this process have; says how many that is.
///
/// # Errors
/// Why the system did not raise the limit.
pub fn raise_file_limit() -> std::io::Result<Option<u64>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        connections_max: impl Into<Option<u32>>,
        shards: Option<u16>,
        cores: usize,
        files_max: u64,
    ) -> (u16, u32, bool) {
        let config = Config { connections_max: connections_max.into(), shards, ..Config::default() };
        let layout = Layout::of(&config, cores, Some(files_max));
        (layout.shards, layout.sockets_each, layout.is_stretched)
    }

    #[test]
    fn there_is_a_shard_for_each_core_and_more_only_where_the_file_limit_asks_for_them() {
        assert_eq!(check(32_000, None, 2, 20_000), (2, 17_320, false));
        assert_eq!(check(100_000, None, 2, 20_000), (6, 18_028, true));
        assert_eq!(check(100_000, None, 2, 1 << 20), (2, 53_445, false));
        assert_eq!(check(1 << 20, None, 2, 20_000), (57, 19_866, true));
        assert_eq!(check(1, None, 1, 1024), (1, 257, false));
        assert_eq!(check(32_000, None, 200, 1 << 20), (64, 851, false));
    }

    #[test]
    fn where_nobody_asks_a_shard_holds_what_the_file_limit_allows() {
        assert_eq!(check(None, None, 2, 20_000), (2, 16_256, false));
        assert_eq!(check(None, Some(1), 2, 20_000), (1, 16_256, false));
        assert_eq!(check(None, None, 2, 1024), (2, 1024, false));
    }

    #[test]
    fn what_cannot_be_shows_in_the_sockets_and_is_left_to_the_caller() {
        assert_eq!(check(100_000, Some(2), 2, 20_000), (2, 53_445, false));
        assert_eq!(check(1 << 20, None, 2, 1024), (2, 557_376, false));
    }

    #[test]
    fn shards_that_share_cores_are_neighbours() {
        let cores = |shards, cores| -> Vec<usize> {
            let layout = Layout::with(shards, 1, false);
            (0..usize::from(shards)).map(|shard| layout.core_of(shard, cores)).collect()
        };
        assert_eq!(cores(6, 2), [0, 0, 0, 1, 1, 1]);
        assert_eq!(cores(2, 4), [0, 1]);
        assert_eq!(cores(3, 2), [0, 0, 1]);
    }
}
