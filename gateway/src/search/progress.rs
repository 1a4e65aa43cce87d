//! How far an index is: what its commits carry, so that it and they are of one moment.

use serde::{Deserialize, Serialize};

/// Of what is in an index, and how. Another one is made anew.
const VERSION: u32 = 2;

/// How far the index is in one log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct LogProgress {
    /// Base of the segment to go on in,
    pub(super) base: u64,
    /// and the position that its first record takes.
    pub(super) first_position: u64,
    /// Everything up to this position is in the index.
    pub(super) position: u64,
    /// When the record there was stored, milliseconds since 1970; 0 where that is not known. A log that was restored from an older copy and has
    /// grown since has another record there.
    pub(super) at: u64,
}

/// How far the index is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    version: u32,
    store: [u8; 16],
    pub(super) logs: Vec<LogProgress>,
    /// Erasures up to this mark have left what is asked,
    pub(super) erased: u64,
    /// and up to this one all files.
    pub(super) purged: u64,
}

impl Progress {
    /// Nothing of a store.
    pub(super) fn none(store: [u8; 16], logs: u16) -> Self {
        let log = LogProgress { base: 0, first_position: 1, position: 0, at: 0 };
        Self { version: VERSION, store, logs: vec![log; usize::from(logs)], erased: 0, purged: 0 }
    }

    /// Reads what [`Progress::encode`] wrote; `None` where it is of another store or version.
    pub(super) fn decode(text: &str, store: [u8; 16], logs: u16) -> Option<Self> {
        let progress: Self = serde_json::from_str(text).ok()?;
        let is_ours = progress.version == VERSION && progress.store == store;
        (is_ours && progress.logs.len() == usize::from(logs)).then_some(progress)
    }

    pub(super) fn encode(&self) -> String {
        serde_json::to_string(self).expect("numbers have a form in JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_another_store_or_version_is_made_anew() {
        let mut progress = Progress::none([7; 16], 2);
        progress.logs[1] = LogProgress { base: 4096, first_position: 9, position: u64::MAX, at: 7 };
        (progress.erased, progress.purged) = (3, 2);
        let text = progress.encode();
        assert_eq!(Progress::decode(&text, [7; 16], 2), Some(progress.clone()));
        assert_eq!(Progress::decode(&text, [8; 16], 2), None);
        assert_eq!(Progress::decode(&text, [7; 16], 3), None);
        assert_eq!(Progress::decode("{}", [7; 16], 2), None);
        let newer = Progress { version: VERSION + 1, ..progress };
        assert_eq!(Progress::decode(&newer.encode(), [7; 16], 2), None);
    }
}
