//! Readers too slow for their traffic, by name: the few that have been so for longest.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use router::user::SLOW_NAMED_MAX;

use super::{Gauge, ShardMetrics, render::render_line};

/// Of one shard.
#[derive(Debug, Default)]
pub struct SlowReaders {
    count: Gauge,
    /// Whose, and since when, in milliseconds since 1970.
    named: Mutex<Vec<(String, u64)>>,
}

impl SlowReaders {
    /// These are slow now. While somebody reads the names they stay as they were: a shard waits for nobody, and says it again in a second.
    pub fn set(&self, count: usize, named: impl Iterator<Item = (String, u64)>) {
        self.count.set(count as u64);
        if let Ok(mut names) = self.named.try_lock() {
            names.clear();
            names.extend(named);
        }
    }
}

/// Appends those of all shards.
pub(super) fn render(shards: &[Arc<ShardMetrics>], out: &mut String) {
    let count = shards.iter().map(|shard| shard.slow_readers.count.value()).sum();
    let help = "Sessions fed from the log because they take less than they are sent, at most 4,096 a shard.";
    render_line("slow_readers", help, "gauge", count, out);
    let mut named: Vec<(String, u64)> = Vec::new();
    for shard in shards {
        // A shard that panics takes the process along: nobody leaves it half written.
        named.extend(shard.slow_readers.named.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    }
    named.sort_by_key(|(_, since)| *since);
    let name = "gatehouse_slow_reader_since_timestamp_seconds";
    let help = "Since when a user has had a slow session: the ten that have for longest.";
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
    // Each user has one home, which names it once.
    for (user, since) in named.iter().take(SLOW_NAMED_MAX) {
        let user = user.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(out, "{name}{{user=\"{user}\"}} {}.{:03}", since / 1_000, since % 1_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_that_have_been_slow_for_longest_are_named_whatever_they_are_called() {
        let shards: Vec<Arc<ShardMetrics>> = (0..2).map(|_| Arc::default()).collect();
        let name = |number: u64| if number == 0 { "a\"b\\".to_owned() } else { format!("user{number}") };
        for (number, shard) in (0..).zip(&shards) {
            let numbers = (0..8).map(|place| 2 * place + number);
            shard.slow_readers.set(8, numbers.map(|number| (name(number), 1_000_000 + 1_001 * number)));
        }
        let mut out = String::new();
        render(&shards, &mut out);
        assert!(out.contains("\ngatehouse_slow_readers 16\n"), "{out}");
        let lines: Vec<&str> = out.lines().filter(|line| line.contains("{user=")).collect();
        assert_eq!(lines.len(), 10);
        let head = "gatehouse_slow_reader_since_timestamp_seconds";
        assert_eq!(lines[0], format!("{head}{{user=\"a\\\"b\\\\\"}} 1000.000"));
        assert_eq!(lines[9], format!("{head}{{user=\"user9\"}} 1009.009"));
        shards.iter().for_each(|shard| shard.slow_readers.set(0, std::iter::empty()));
        out.clear();
        render(&shards, &mut out);
        assert!(out.contains("\ngatehouse_slow_readers 0\n") && !out.contains("{user="), "{out}");
    }
}
