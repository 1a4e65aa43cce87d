//! What a run came to, and what has to be true when everything is at rest.
//!
//! The counts are there for whoever runs many seeds: what never happens in any of them was not checked.

use std::collections::BTreeMap;

use super::{UpgradeCounts, World, direct_of};
use crate::group::RoleCounts;
use crate::listing::check_lists;
use crate::oracle::audiences;
use crate::viewing::Viewing;

/// What a run came to. Two runs of one seed give equal ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Records of conversations.
    pub stored: usize,
    /// Records that clients were given, repeats included.
    pub received: u64,
    /// Times that clients were told of a head instead of records.
    pub heads: u64,
    /// Times that clients were told what is unread, and of those, that something was.
    pub counted: (u64, u64),
    /// Times that clients were told who came or went, and of those, who went.
    pub presence: (u64, u64),
    /// Times that clients were told how far somebody has come, and of those, that something was delivered and not read.
    pub receipts: (u64, u64),
    /// Times that clients had to know at rest that something was delivered to another, and did.
    pub delivered_owed: u64,
    /// Times that clients were told at rest that something is muted.
    pub muted: u64,
    /// How often it was about roles.
    pub roles: RoleCounts,
    /// Times that clients were given a message with mentions, one that answers another, and one with media.
    pub said: (u64, u64, u64),
    /// Times that somebody began to block somebody.
    pub blocked: u64,
    /// Times that somebody was told when one was last seen who left before a restart, and of those not exactly.
    pub last_seen: (u64, u64),
    /// Times that somebody asked who is there while somebody was invisible who was asked for.
    pub hidden: u64,
    /// Times that somebody was called of what had not reached them.
    pub called: u64,
    /// Orderly stops.
    pub drains: u32,
    /// Crashes.
    pub crashes: u32,
    /// Writes that failed and stopped a log.
    pub failures: u32,
    /// Times that a lane was full and sessions went back to the log.
    pub overruns: u64,
    /// Times that an outbox was full and its session did.
    pub outbox_full: u64,
    /// Commands that found no credit.
    pub busy: u64,
    /// Bytes that were kept for somebody who stopped reading for good.
    pub unread: usize,
    /// How often a new binary took over, or was to.
    pub upgrades: UpgradeCounts,
    /// Connections that moved to another shard.
    pub moved: u64,
    /// Connections left open that were closed because their device came back.
    pub replaced: u32,
    /// Blocks of index files that were read: pages over sealed segments.
    pub index_reads: u32,
    /// Segments that were written anew.
    pub compactions: u32,
    /// Times that somebody was told of a gap, or to start anew.
    pub gone: u64,
    /// Times that somebody was shown what was amended.
    pub folded: u64,
    /// Times that somebody was told that something was erased.
    pub erased: u64,
    /// Times that somebody was told that what was asked for is so already.
    pub unchanged: u64,
    /// Sequences that somebody was told are not kept, by what was set.
    pub kept: u64,
    /// Index files that rotted while the node served, and were made again.
    pub rebuilds: u32,
    /// Sessions whose token ended.
    pub expired: u64,
    /// Sessions and `connect`s whose token was taken back.
    pub revoked: u64,
    /// Times that the disk had no room for a segment.
    pub full: u32,
    /// Pages of searches that clients were given, the hits on them, and how many of those had to be among them.
    pub searched: (u64, u64, u64),
    /// Messages that the index named and that were not to be found.
    pub made_up: u64,
    /// Virtual microseconds.
    pub micros: u64,
    /// Everything that was sent to clients, byte for byte.
    pub digest: u64,
}

impl World {
    /// What all clients have seen of something, as two numbers.
    fn sum(&self, of: impl Fn(&Viewing) -> (u64, u64)) -> (u64, u64) {
        let each = self.clients.iter().map(|client| of(&client.viewing));
        each.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
    }

    pub(super) fn finish(mut self) -> Outcome {
        self.count_node();
        let left = self.read_logs(&mut BTreeMap::new(), &mut BTreeMap::new());
        self.oracle.check_log(&left, self.unix().0);
        let mut log = self.oracle.durable.clone();
        log.extend(left);
        let direct = direct_of(&self.users);
        let audiences = audiences(&log, &direct);
        let (now, mut oracle) = (self.unix(), std::mem::take(&mut self.oracle));
        let clients = self.listening().map(|(_, client)| (&client.user, &client.listing));
        check_lists(clients, &log, &direct, &mut oracle, now);
        self.oracle = oracle;
        self.oracle.check_found();
        self.oracle.check_refused(true);
        self.calls.check_all(&self.oracle, &self.users, &audiences);
        let unread = self.check_slow_is_alone();
        for (_, client) in self.listening() {
            if let Some(link) = &client.link {
                self.check_token(&client.user, link.times);
            }
            self.check_client(client, &log, &audiences);
            self.check_presence(client, &log, &direct);
        }
        Outcome {
            stored: log.len(),
            received: self.oracle.received,
            heads: self.oracle.heads,
            counted: self.oracle.reads.told,
            receipts: self.sum(Viewing::receipts),
            delivered_owed: self.delivered_owed,
            muted: self.oracle.mutes.told,
            roles: self.oracle.groups.counts,
            said: self.oracle.given,
            blocked: self.oracle.blocks.begun,
            hidden: self.oracle.invisibles.seen.get(),
            last_seen: self.oracle.seen.told.get(),
            called: self.calls.count(),
            searched: self.oracle.searches.counts(),
            made_up: self.oracle.searches.index.made_up,
            presence: self.sum(Viewing::counts),
            drains: self.drains,
            crashes: self.crashes,
            failures: self.failures,
            overruns: self.overruns,
            outbox_full: self.outbox_full,
            busy: self.busy,
            unread,
            moved: self.moved,
            upgrades: self.upgrades,
            replaced: self.replaced,
            index_reads: self.index_reads,
            compactions: self.compactions,
            gone: self.oracle.gone,
            folded: self.oracle.forms.shown,
            erased: self.oracle.erased,
            unchanged: self.oracle.unchanged,
            kept: self.oracle.keeping.told,
            rebuilds: self.rebuilds,
            expired: self.expired,
            revoked: self.revoked,
            full: self.full,
            micros: self.now,
            digest: self.digest,
        }
    }
}
