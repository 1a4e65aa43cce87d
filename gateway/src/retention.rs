//! What the settings of retention come to for each log.

use std::time::Duration;

use anyhow::bail;
use storage_log::{CompactionPolicy, SEGMENTS_MIN};

use crate::caretaker::space::Space;
use crate::config::Config;
use crate::store::{Store, StoreFacts};

/// So many segments share what is kept by age: what is too old by more than that part of it is gone.
const PARTS_OF_AGE: u32 = 8;

/// Never more segments a day than this, however short a time is kept: each takes its length of the disk until it is compacted.
const SEGMENT_AGE_MIN: Duration = Duration::from_secs(3600);

/// The policy of each log of `store`.
///
/// # Errors
/// In words for an operator: what is kept would not be a log.
pub fn policy(config: &Config, store: &Store) -> anyhow::Result<CompactionPolicy> {
    if let Some(words) = too_little(config, store.logs, store.geometry.segment_bytes) {
        bail!(words);
    }
    Ok(CompactionPolicy {
        after_ms: config.compact_after.map(millis),
        keep_ms: config.keep.map(millis),
        keep_links_ms: config.keep_inbox.map(millis),
        keep_bytes: config.keep_bytes.map(|keep| keep / u64::from(store.logs)),
    })
}

/// Why a start would be refused, in words for an operator, as far as that can be told without one: of a store that is not made yet the logs may
/// follow from the cores, and then it is asked for one log.
#[must_use]
pub fn check(config: &Config) -> Option<String> {
    let (logs, segment_bytes) = match StoreFacts::read(&config.data) {
        Ok(facts) => (facts.logs, facts.geometry.segment_bytes),
        Err(_) => (config.logs.unwrap_or(1), u64::from(config.segment_mib) << 20),
    };
    too_little(config, logs, segment_bytes)
}

fn too_little(config: &Config, logs: u16, segment_bytes: u64) -> Option<String> {
    let least = SEGMENTS_MIN * u64::from(logs) * segment_bytes;
    let keep = config.keep_bytes.filter(|keep| *keep < least)?;
    Some(format!(
        "`keep_mib` is {}, and {logs} logs in segments of {} MiB need at least {}: set that, or 0 to keep everything",
        keep >> 20,
        segment_bytes >> 20,
        least >> 20,
    ))
}

/// Says so if the disk of `store` is smaller than what is to be kept: then as much is kept as it gives.
pub fn warn_if_too_much(config: &Config, store: &Store) {
    let Ok(space) = Space::of(store.directory()) else {
        return;
    };
    if let Some(keep) = config.keep_bytes.filter(|keep| *keep > space.total) {
        tracing::warn!(
            keep_mib = keep >> 20,
            disk_mib = space.total >> 20,
            "`keep_mib` is more than the disk of the data directory holds: when it is full, the oldest messages go, as many as there is \
             no room for; set what you choose to keep"
        );
    }
}

/// After how many milliseconds a segment is left for the next, full or not.
#[must_use]
pub fn segment_ms_max(config: &Config) -> Option<u64> {
    let shortest = config.keep.into_iter().chain(config.keep_inbox).min()?;
    Some(millis((shortest / PARTS_OF_AGE).max(SEGMENT_AGE_MIN)))
}

/// How long after it was said a message is surely kept no more, where that depends on its age.
#[must_use]
pub fn gone_after(config: &Config) -> Option<Duration> {
    Some(config.keep? + Duration::from_millis(segment_ms_max(config)?))
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
