//! What the connections of one address may do together: how many may be open, how many may come in a second, and how much they may
//! ask for.
//!
//! Connections of an address come to any shard and move to another, so this is one table for the node, made at its start: atomics, no
//! lock, nothing that grows. An address has two places in it, chosen by a hash with a secret key, and what it does is counted in both.
//! Another address may share one of them. What is refused is refused by both: so somebody is refused for what others did only where both places
//! are shared with some who use up what they may, and nobody can choose addresses that share a place with a victim's.
//! Where both places are shared, an address may do up to twice as much as it should; and of those who come to several shards in the same
//! moment as many may slip in as there are shards.
//!
//! An IPv6 address counts as its first 64 bits, of which whoever has a network has all others (RFC 4291, section 2.5.4).
//!
//! Invariant: what is counted as open is taken back by the drop of what was given for it, and by nothing else. It goes where its
//! connection goes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use router::user::Rate;

/// Places for each connection that the node may have: with as many addresses as connections, each of the two places of one is shared with
/// another in two of three cases at most, and with more than a few hardly ever.
const PLACES_EACH: usize = 2;

/// Places, at least: few connections may come and go from many addresses.
const PLACES_MIN: usize = 4_096;

/// What one address may do. 0, and [`Rate::UNLIMITED`], are no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerLimits {
    /// Open connections.
    pub connections_max: u32,
    /// New connections.
    pub connects: Rate,
    /// Commands.
    pub commands: Rate,
    /// Commands that store something.
    pub messages: Rate,
}

impl PeerLimits {
    /// Everybody may do everything.
    pub const NONE: Self = Self {
        connections_max: 0,
        connects: Rate::UNLIMITED,
        commands: Rate::UNLIMITED,
        messages: Rate::UNLIMITED,
    };
}

/// Why a connection is one too many for its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TooMuch {
    /// As many as may be are open.
    Connections,
    /// They come too fast.
    Connects,
}

/// What is counted at one place. The times are those at which all that was used will have been earned again, as [`Rate::take`] has them.
#[derive(Default)]
struct Place {
    open: AtomicU32,
    connects: AtomicU64,
    commands: AtomicU64,
    messages: AtomicU64,
}

/// The table of a node.
pub struct Peers {
    limits: PeerLimits,
    key: [u8; 32],
    /// A power of two; none where nothing is limited.
    places: Box<[Place]>,
}

/// A connection that is counted for its address, for as long as this lives.
pub struct Counted {
    peers: Arc<Peers>,
    places: [u32; 2],
}

impl Peers {
    /// A table for a node with so many connections. `key` is secret.
    #[must_use]
    pub fn new(limits: PeerLimits, connections_max: u32, key: [u8; 32]) -> Arc<Self> {
        let places = match limits {
            PeerLimits::NONE => 0,
            _ => (PLACES_EACH * connections_max as usize).max(PLACES_MIN).next_power_of_two(),
        };
        Arc::new(Self { limits, key, places: (0..places).map(|_| Place::default()).collect() })
    }

    /// Whether there is anything to count.
    #[must_use]
    pub fn limits_something(&self) -> bool {
        !self.places.is_empty()
    }

    /// Counts a new connection, where anything is limited.
    ///
    /// # Errors
    /// [`TooMuch`], when it may not be.
    pub fn count(self: &Arc<Self>, address: IpAddr, micros: u64) -> Result<Option<Counted>, TooMuch> {
        if !self.limits_something() {
            return Ok(None);
        }
        let places = self.places_of(address);
        // First: what is refused for the other reason came as well.
        let came = self.take(places, self.limits.connects, micros, |place| &place.connects);
        came.map_err(|_| TooMuch::Connects)?;
        let (counted, others) = self.open(places);
        let max = self.limits.connections_max;
        if max > 0 && others >= max { Err(TooMuch::Connections) } else { Ok(Some(counted)) }
    }

    /// Counts a connection that was let in by another process, whatever the limit is.
    #[must_use]
    pub fn count_anyway(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        self.limits_something().then(|| self.open(self.places_of(address)).0)
    }

    /// Counts one more, and says how many there were, as far as that can be told.
    fn open(self: &Arc<Self>, places: [u32; 2]) -> (Counted, u32) {
        let [one, other] = places.map(|place| self.place(place).open.fetch_add(1, Ordering::Relaxed));
        (Counted { peers: self.clone(), places }, one.min(other))
    }

    fn place(&self, place: u32) -> &Place {
        &self.places[place as usize]
    }

    /// Two places that differ.
    fn places_of(&self, address: IpAddr) -> [u32; 2] {
        let hash = match address.to_canonical() {
            IpAddr::V4(address) => blake3::keyed_hash(&self.key, &address.octets()),
            IpAddr::V6(address) => blake3::keyed_hash(&self.key, &address.octets()[..8]),
        };
        let mask = self.places.len() as u32 - 1;
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        let one = u32::from_le_bytes([a, b, c, d]) & mask;
        // An odd number is never a multiple of a power of two.
        let apart = u32::from_le_bytes([e, f, g, h]) | 1;
        [one, one.wrapping_add(apart) & mask]
    }

    /// Uses one at both places, or says in how many microseconds there will be one at either.
    fn take(
        &self,
        places: [u32; 2],
        rate: Rate,
        micros: u64,
        meter: fn(&Place) -> &AtomicU64,
    ) -> Result<(), u64> {
        if rate == Rate::UNLIMITED {
            return Ok(());
        }
        let taken = places.map(|place| {
            let mut early = 0;
            let earn = |earned_at| rate.take(earned_at, micros).map_err(|by| early = by).ok();
            let meter = meter(self.place(place));
            meter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn).map_err(|_| early)
        });
        match taken {
            [Err(one), Err(other)] => Err(one.min(other)),
            _ => Ok(()),
        }
    }
}

impl Counted {
    /// A command comes.
    ///
    /// # Errors
    /// In how many microseconds it may.
    pub fn ask(&self, micros: u64) -> Result<(), u64> {
        self.peers.take(self.places, self.peers.limits.commands, micros, |place| &place.commands)
    }

    /// A command comes that stores something.
    ///
    /// # Errors
    /// In how many microseconds it may.
    pub fn store(&self, micros: u64) -> Result<(), u64> {
        self.peers.take(self.places, self.peers.limits.messages, micros, |place| &place.messages)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for place in self.places {
            self.peers.place(place).open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 | number).to_be_bytes())
    }

    fn is_empty(peers: &Peers) -> bool {
        peers.places.iter().all(|place| place.open.load(Ordering::Relaxed) == 0)
    }

    #[test]
    fn an_address_has_as_many_open_as_it_may_and_a_drop_takes_one_back() {
        let limits = PeerLimits { connections_max: 3, ..PeerLimits::NONE };
        let peers = Peers::new(limits, 100, [1; 32]);
        let mut open: Vec<_> = (0..3).map(|_| peers.count(address(1), 0).expect("room")).collect();
        for _ in 0..10 {
            assert_eq!(peers.count(address(1), 0).err(), Some(TooMuch::Connections));
        }
        assert!(peers.count(address(2), 0).is_ok(), "another");
        open.pop();
        open.push(peers.count(address(1), 0).expect("room again"));
        // Whoever another process let in is counted beyond the limit too.
        let more = peers.count_anyway(address(1));
        open.pop();
        assert_eq!(peers.count(address(1), 0).err(), Some(TooMuch::Connections));
        drop((open, more));
        assert!(is_empty(&peers));
    }

    #[test]
    fn an_ipv6_address_counts_as_its_network_and_an_ipv4_address_as_itself() {
        let limits = PeerLimits { connections_max: 1, ..PeerLimits::NONE };
        let peers = Peers::new(limits, 100, [1; 32]);
        let count = |text: &str| peers.count(text.parse().expect("an address"), 0);
        let _one = count("2001:db8:1:2::1").expect("room");
        assert!(count("2001:db8:1:2:ffff:ffff:ffff:ffff").is_err());
        assert!(count("2001:db8:1:3::1").is_ok());
        let _four = count("10.0.0.1").expect("room");
        assert!(count("::ffff:10.0.0.1").is_err());
        assert!(count("10.0.0.2").is_ok());
    }

    #[test]
    fn a_rate_is_used_by_all_of_an_address_and_by_no_other() {
        let limits =
            PeerLimits { connects: Rate::per_second(2), commands: Rate::per_second(1), ..PeerLimits::NONE };
        let peers = Peers::new(limits, 100, [1; 32]);
        let came = (0..100).filter_map(|_| peers.count(address(1), 0).ok().flatten()).collect::<Vec<_>>();
        assert_eq!(came.len(), 8, "four seconds' at once");
        assert_eq!(peers.count(address(1), 499_999).err(), Some(TooMuch::Connects));
        assert!(peers.count(address(1), 500_000).is_ok());
        let asked = came.iter().cycle().take(100).filter(|counted| counted.ask(0).is_ok()).count();
        assert_eq!((asked, came[0].ask(1)), (4, Err(999_999)));
        assert!((0..100).all(|_| came[0].store(0).is_ok()), "no limit");
        assert_eq!(peers.count(address(2), 0).expect("room").expect("counted").ask(0), Ok(()));
    }

    #[test]
    fn where_nothing_is_limited_nothing_is_kept() {
        let peers = Peers::new(PeerLimits::NONE, 1 << 20, [1; 32]);
        assert!(peers.places.is_empty() && matches!(peers.count(address(1), 0), Ok(None)));
        assert!(peers.count_anyway(address(1)).is_none());
    }

    /// A thousand addresses that have all they may, and a hundred thousand that come once: hardly one of them is refused.
    #[test]
    fn hardly_anybody_is_refused_for_what_others_do() {
        let limits = PeerLimits { connections_max: 8, ..PeerLimits::NONE };
        let peers = Peers::new(limits, 16_000, [1; 32]);
        let full: Vec<_> =
            (0..8_000).filter_map(|number| peers.count(address(number % 1_000), 0).ok()).collect();
        // Some of those share both places with others of them.
        assert!(full.len() >= 7_900, "{}", full.len());
        let refused = (1_000..101_000).filter(|number| peers.count(address(*number), 0).is_err()).count();
        // Two thousand of 32,768 places are full: (2000/32768)^2 of 100,000 are 373.
        assert!(refused < 500, "{refused}");
        drop(full);
        assert!(is_empty(&peers));
    }

    #[test]
    fn threads_that_come_and_go_at_the_limit_leave_nothing_behind() {
        let limits = PeerLimits { connections_max: 2, ..PeerLimits::NONE };
        let peers = Peers::new(limits, 100, [1; 32]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20_000).for_each(|_| drop(peers.count(address(1), 0))));
            }
        });
        assert!(is_empty(&peers));
        assert!(peers.count(address(1), 0).is_ok());
    }
}
