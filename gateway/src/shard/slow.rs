//! Who reads slowly, said to the operator: in metrics once a second, and in a line of the log once it has been so for a while.

use protocol::ids::{UnixMillis, UserId};

use super::Shard;

/// How long somebody has been slow of whom the log says so, in milliseconds: who changes the network is slow for some seconds.
const SAID_AFTER_MILLIS: u64 = 10_000;

/// What was said of slow readers.
#[derive(Default)]
pub(super) struct SlowLines {
    /// In which second of the wheel.
    told_at: u64,
    /// Some were slow then.
    had_some: bool,
    /// Those with a line in the log, of the ones that are named now; and since when they are slow.
    said: Vec<(UserId, UnixMillis)>,
}

impl Shard {
    pub(super) fn name_slow_readers(&mut self) {
        let second = self.second();
        if second == self.slow.told_at || !(self.users.has_slow_readers() || self.slow.had_some) {
            return;
        }
        self.slow.told_at = second;
        let (count, named) = self.users.slow_readers();
        self.slow.had_some = count > 0;
        self.slow.say_one(count, &named, self.clock.unix);
        let named = named.into_iter().map(|(user, since)| (user.to_string(), since.0));
        self.metrics.slow_readers.set(count, named);
    }
}

impl SlowLines {
    /// Each has one line while it is among those that are named, and a second has one, however many are slow.
    fn say_one(&mut self, count: usize, named: &[(UserId, UnixMillis)], now: UnixMillis) {
        self.said.retain(|said| named.contains(said));
        let millis = |since: UnixMillis| now.0.saturating_sub(since.0);
        let is_next =
            |slow: &&(UserId, UnixMillis)| millis(slow.1) >= SAID_AFTER_MILLIS && !self.said.contains(slow);
        let Some((user, since)) = named.iter().find(is_next) else { return };
        tracing::info!(
            user = user.as_str(),
            behind_seconds = millis(*since) / 1_000,
            slow_readers = count,
            "a reader is slow: it is fed from the log at its own pace and loses nothing; look at its client, or its network"
        );
        self.said.push((user.clone(), *since));
    }
}
