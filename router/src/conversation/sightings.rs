//! When users were last seen, those of whose settings stand in this log: the newest record of a stream of each holds it.
//!
//! It is written as the homes say it, without reading what is there: a number that grows is the time. So it costs an append, and nobody is
//! promised that it is on disk. It is read when somebody looks at a user who is not here.

use std::collections::VecDeque;

use protocol::ids::{UnixMillis, UserId};
use protocol::record::{Body, Portable, SightingV1, Stored, StoredBody, StreamKind as Kind};
use storage_log::{Answer, Draft, Log};

use super::ConversationSide;
use super::fetch::Fetch;
use super::jobs::Purpose;
use crate::mail::{Linked, Reply, Sighting};
use crate::places::{Places, ShardId};

/// What the homes have said and is not appended: one mail of each.
#[derive(Default)]
pub(super) struct Unwritten {
    mails: VecDeque<Mail>,
}

/// What one home has said.
struct Mail {
    shard: ShardId,
    seen: VecDeque<(UserId, UnixMillis)>,
    /// The log did not take some of it.
    are_lost: bool,
}

impl Unwritten {
    pub(super) fn is_empty(&self) -> bool {
        self.mails.is_empty()
    }
}

pub(super) fn sighting_payload(at: UnixMillis) -> Vec<u8> {
    Body::Sighting(SightingV1 { at: at.0, ext: Vec::new() }).payload()
}

pub(super) fn sighting_draft<'p>(places: &Places, user: &UserId, payload: &'p [u8], now: u64) -> Draft<'p> {
    Draft {
        stream: places.user_stream(user, Kind::Sightings),
        expected_head: now,
        messages: 0,
        schema: protocol::record::Schema::Sighting as u16,
        payload,
        links: &[],
    }
}

impl ConversationSide {
    /// Takes what a home has to say of when users were last seen.
    pub(super) fn handle_seen(
        &mut self,
        shard: ShardId,
        seen: Vec<(UserId, UnixMillis)>,
        now: UnixMillis,
        log: &mut Log,
    ) {
        self.sightings.mails.push_back(Mail { shard, seen: seen.into(), are_lost: false });
        self.write_sightings(now, log);
    }

    /// Appends what was said, as far as the log takes it. On a full disk, or where the log has stopped, it is given up: what stands there is
    /// older then, of which the home is told, as it has to know what a process that goes on with its sessions will not find.
    pub(super) fn write_sightings(&mut self, now: UnixMillis, log: &mut Log) {
        while let Some(Mail { shard, seen, are_lost }) = self.sightings.mails.front_mut() {
            while let Some((user, at)) = seen.front() {
                let payload = sighting_payload(*at);
                let draft = sighting_draft(&self.places, user, &payload, log.clock(now.0));
                match log.append(&[draft], now.0) {
                    Answer::Busy => return,
                    Answer::Stored(_) => {}
                    Answer::Conflict { .. } | Answer::Full | Answer::Unavailable => *are_lost = true,
                }
                seen.pop_front();
            }
            let (shard, are_lost) = (*shard, *are_lost);
            self.sightings.mails.pop_front();
            self.outputs.push_back((shard, Reply::SeenTaken { log: self.log, are_lost }));
        }
    }

    /// Reads when a user was last seen, for its home.
    pub(super) fn start_sighting(&mut self, user: UserId, shard: ShardId, log: &mut Log) {
        let stream = self.places.user_stream(&user, Kind::Sightings);
        match log.last(stream) {
            None => self.answer_sighting(user, shard, Some(None)),
            Some(location) => {
                let fetch = Fetch::of_last(log, stream, location);
                self.run_for(Purpose::Sighting { user, shard }, fetch, log);
            }
        }
    }

    /// What is damaged is not known, and will not be.
    pub(super) fn finish_sighting(&mut self, user: UserId, shard: ShardId, records: &[Linked]) {
        let at = records.first().and_then(|linked| {
            let bytes = linked.record.as_ref()?;
            let portable = Portable::parse(bytes).ok()?;
            match Stored::with_checked_sum(portable, bytes).ok()?.body {
                StoredBody::Sighting(sighting) => Some(UnixMillis(sighting.at.to_native())),
                _ => None,
            }
        });
        self.answer_sighting(user, shard, Some(at));
    }

    /// `None`: it cannot be read now.
    pub(super) fn answer_sighting(
        &mut self,
        user: UserId,
        shard: ShardId,
        last_seen: Option<Option<UnixMillis>>,
    ) {
        let found = last_seen.map(|last_seen| Sighting { invisible_since: None, last_seen, is_whole: true });
        self.outputs.push_back((shard, Reply::Sighting { user, found }));
    }
}
