//! The same records in an embedded store that one could take instead of a log of one's own: fjall, an LSM tree with a journal.
//!
//! What a node has to know is kept in three keyspaces: records by conversation and sequence, links by user and position, and the position of
//! each conversation's head. All that is under way is one batch, synced by `fdatasync` before it is acknowledged. The number that follows in a
//! conversation is kept in memory: the store is not asked for it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::append::{PAYLOAD, STREAMS};
use crate::disk::Figures;

/// A store, and those who wait for an acknowledgement.
pub struct Embedded {
    database: Database,
    records: Keyspace,
    links: Keyspace,
    heads: Keyspace,
    path: PathBuf,
    depth: usize,
    links_each: u64,
    next: u64,
    seqs: Vec<u64>,
    /// One latency for each batch.
    pub acks: Figures,
    /// Acknowledged so far.
    pub acked: u64,
}

impl Embedded {
    /// A new store under `directory`, `depth` records under way at a time, each linked to `links_each` users.
    ///
    /// # Errors
    /// Those of the store.
    pub fn new(directory: &Path, depth: usize, links_each: u64) -> io::Result<Self> {
        let path = directory.join("embedded.measured");
        // Left over from a run that was broken off.
        let _ = std::fs::remove_dir_all(&path);
        let database = Database::builder(&path).open().map_err(io::Error::other)?;
        let keyspace =
            |name| database.keyspace(name, KeyspaceCreateOptions::default).map_err(io::Error::other);
        let (records, links, heads) = (keyspace("records")?, keyspace("links")?, keyspace("heads")?);
        let (seqs, acks) = (vec![0; STREAMS as usize], Figures::default());
        Ok(Self { database, records, links, heads, path, depth, links_each, next: 0, seqs, acks, acked: 0 })
    }

    /// Stores and acknowledges for `time`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn run(&mut self, time: Duration) -> io::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            let since = Instant::now();
            let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
            for _ in 0..self.depth {
                self.next += 1;
                let conversation = self.next % STREAMS;
                let seq = &mut self.seqs[conversation as usize];
                *seq += 1;
                let key = pair(conversation, *seq);
                batch.insert(&self.records, key, PAYLOAD);
                batch.insert(&self.heads, conversation.to_be_bytes(), seq.to_be_bytes());
                for user in 0..self.links_each {
                    batch.insert(&self.links, pair((self.next + user) % STREAMS, self.next), key);
                }
            }
            batch.commit().map_err(io::Error::other)?;
            self.acks.enter(since.elapsed(), self.depth * PAYLOAD.len());
            self.acked += self.depth as u64;
        }
        self.acks.ran(begun.elapsed());
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Best effort: the name says whose it was.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Ids have 16 bytes in a log; the second half of one is zeros here.
fn pair(id: u64, number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&id.to_be_bytes());
    key[16..].copy_from_slice(&number.to_be_bytes());
    key
}
