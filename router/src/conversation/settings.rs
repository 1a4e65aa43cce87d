//! What users have set, those of whom it stands in this log: one stream a user, of which the newest record holds all.
//!
//! As with a conversation's state, what comes for one user is handled strictly one after the other, and waits while the record is
//! being read. A command is answered when its record is durable, and nobody is told of what is not.

use std::collections::VecDeque;

use hashbrown::HashMap;
use protocol::command::PushToken;
use protocol::event::ErrorCode;
use protocol::ids::{ConversationId, DeviceId, UnixMillis, UserId};
use protocol::limits::{MUTES_MAX, PUSH_DEVICES_MAX};
use protocol::record::{
    ArchivedMuteV1, ArchivedSettingsV1, Body, Ext, MuteV1, Portable, SettingsV1, Stored, StoredBody,
    StreamKind as Kind,
};
use storage_log::{Answer, Draft, Log};

use super::ConversationSide;
use super::fetch::Fetch;
use super::jobs::Purpose;
use super::refusing::STOPPED;
use super::sightings::{sighting_draft, sighting_payload};
use super::state::{NOT_A_MEMBER, NOT_FOUND, Refusal};
use crate::mail::{Asker, Linked, Reply, Request, Setting, Sighting};

/// Users whose settings are kept in memory per log: at most 46 KiB each (512 mutes, 16 tokens of 2 KiB), as a rule
/// some bytes or a token or two. Others are read again from the log.
const LOADED_MAX: usize = 4_096;

/// Requests that wait while the settings of one user are being read: all that its sessions may have under way are 256.
const PENDING_MAX: usize = 256;

const LOADING: Refusal = (ErrorCode::Busy, "these settings are loading");
const UNREADABLE: Refusal = (ErrorCode::Unavailable, "these settings cannot be read from the disk");
const TOO_MANY: Refusal = (ErrorCode::Limit, "you have muted 512 conversations: take some back");

#[derive(Clone, PartialEq, Eq, Default)]
struct Settings {
    mutes: Vec<(ConversationId, UnixMillis)>,
    /// Tagged additions, those included that this program does not know.
    ext: Vec<u8>,
}

/// What is in memory of one user.
#[derive(Default)]
struct Slot {
    /// `None` until it was read.
    settings: Option<Settings>,
    /// Number of the newest record,
    number: u64,
    /// and its position, if it was written since the start.
    position: u64,
    /// The record is being read.
    busy: bool,
    pending: VecDeque<Request>,
}

/// The settings of the users of one log.
#[derive(Default)]
pub(super) struct SettingsTable {
    slots: HashMap<UserId, Slot, foldhash::fast::RandomState>,
    /// Those that were read, and for which something waits.
    read: VecDeque<UserId>,
}

impl Settings {
    fn read(stored: &ArchivedSettingsV1) -> Self {
        let mute =
            |mute: &ArchivedMuteV1| (ConversationId(mute.conversation), UnixMillis(mute.until.to_native()));
        Self { mutes: stored.mutes.iter().map(mute).collect(), ext: stored.ext.to_vec() }
    }

    fn body(&self) -> Body {
        let mute = |(conversation, until): &(ConversationId, UnixMillis)| MuteV1 {
            conversation: conversation.0,
            until: until.0,
        };
        Body::Settings(SettingsV1 { mutes: self.mutes.iter().map(mute).collect(), ext: self.ext.clone() })
    }

    /// The settings with this one, without what has passed.
    fn with(&self, setting: &Setting, now: UnixMillis) -> Result<Self, Refusal> {
        let mut after = self.clone();
        match setting {
            // Who is invisible already is so since then.
            &Setting::Invisible { on } => {
                after.ext = Ext::new(&after.ext).with_invisible_since(on.then_some(now));
            }
            &Setting::Mute { conversation, until } => {
                after.mutes.retain(|(muted, until)| *muted != conversation && *until > now);
                if until > now && after.mutes.len() >= MUTES_MAX {
                    return Err(TOO_MANY);
                }
                after.mutes.extend((until > now).then_some((conversation, until)));
            }
            Setting::PushToken { device, token } => {
                let tokens = Ext::new(&after.ext).push_tokens();
                after.ext =
                    Ext::new(&after.ext).with_push_tokens(&with_token(tokens, device, token.as_ref()));
            }
        }
        Ok(after)
    }

    fn invisible_since(&self) -> Option<UnixMillis> {
        Ext::new(&self.ext).invisible_since()
    }

    /// What is answered once these are durable. A user's home has to know who is invisible, whoever asked.
    fn done(&self, asker: Asker, user: &UserId, setting: &Setting) -> Reply {
        match setting {
            Setting::Invisible { .. } => {
                Reply::Hidden { asker, user: user.clone(), since: self.invisible_since() }
            }
            Setting::Mute { .. } | Setting::PushToken { .. } => Reply::Done { asker },
        }
    }

    /// Whether a setting is so already.
    fn has(&self, setting: &Setting, now: UnixMillis) -> bool {
        match setting {
            &Setting::Invisible { on } => Ext::new(&self.ext).invisible_since().is_some() == on,
            &Setting::Mute { conversation, until } => {
                let muted =
                    self.mutes.iter().find(|(muted, _)| *muted == conversation).map(|(_, until)| *until);
                muted.unwrap_or_default() == if until > now { until } else { UnixMillis(0) }
            }
            Setting::PushToken { device, token } => {
                let tokens = Ext::new(&self.ext).push_tokens();
                let place = tokens.iter().position(|(known, _)| known == device);
                // While there is room the order is nobody's matter, and an app that says its token at each start writes nothing. Else
                // one that is said again is no longer the one that makes room.
                let is_in_order = tokens.len() < PUSH_DEVICES_MAX || place == Some(PUSH_DEVICES_MAX - 1);
                match (place, token) {
                    (None, None) => true,
                    (Some(place), Some(token)) => tokens[place].1 == *token && is_in_order,
                    (None, Some(_)) | (Some(_), None) => false,
                }
            }
        }
    }
}

/// A token has one device: one that was set up anew under another name is not called twice. Where there are too many, the one that was
/// set longest ago goes, since nobody takes back that of a device which is not there any more.
fn with_token(
    mut tokens: Vec<(DeviceId, PushToken)>,
    device: &DeviceId,
    token: Option<&PushToken>,
) -> Vec<(DeviceId, PushToken)> {
    tokens.retain(|(known, other)| known != device && Some(other) != token);
    tokens.extend(token.map(|token| (device.clone(), token.clone())));
    tokens.drain(..tokens.len().saturating_sub(PUSH_DEVICES_MAX));
    tokens
}

impl SettingsTable {
    /// Keeps their number bounded: what can be read again goes.
    fn forget_idle(&mut self, log: &Log) {
        if self.slots.len() >= LOADED_MAX {
            let durable = log.durable();
            self.slots
                .retain(|_, slot| slot.busy || !slot.pending.is_empty() || !durable.covers(slot.position));
        }
    }
}

/// Whether a request is for the owner of what a user has set.
pub(super) const fn is_of_a_user(request: &Request) -> bool {
    matches!(
        request,
        Request::PushTokens { .. }
            | Request::Set { .. }
            | Request::Settings { .. }
            | Request::Sighting { .. }
    )
}

impl ConversationSide {
    /// Sets something of a user, or says what is set; once the record of it was read.
    pub(super) fn handle_settings(&mut self, request: Request, now: UnixMillis, log: &mut Log) {
        let (Request::PushTokens { user, .. }
        | Request::Set { user, .. }
        | Request::Settings { user, .. }
        | Request::Sighting { user, .. }) = &request
        else {
            unreachable!("the caller matched");
        };
        let user = user.clone();
        self.settings.forget_idle(log);
        let slot = self.settings.slots.entry(user.clone()).or_default();
        if slot.settings.is_some() && slot.pending.is_empty() {
            return self.execute_setting(&user, request, now, log);
        }
        if slot.pending.len() == PENDING_MAX {
            return self.refuse_request(&request, LOADING);
        }
        slot.pending.push_back(request);
        if !slot.busy && slot.settings.is_none() {
            self.start_settings(user, log);
        }
    }

    fn start_settings(&mut self, user: UserId, log: &mut Log) {
        let stream = self.places.user_stream(&user, Kind::Settings);
        let slot = self.settings.slots.get_mut(&user).expect("entered");
        match log.last(stream) {
            None => {
                slot.settings = Some(Settings::default());
                self.settings.read.push_back(user);
            }
            Some(location) => {
                slot.busy = true;
                let fetch = Fetch::of_last(log, stream, location);
                self.run_for(Purpose::Settings { user }, fetch, log);
            }
        }
    }

    /// One failed read is no verdict: who waits is told, and who asks next has it read again.
    pub(super) fn finish_settings(&mut self, user: &UserId, records: &[Linked]) {
        let read = records.first().and_then(|linked| {
            let bytes = linked.record.as_ref()?;
            let portable = Portable::parse(bytes).ok()?;
            match Stored::with_checked_sum(portable, bytes).ok()?.body {
                StoredBody::Settings(settings) => Some((portable.seq.0, Settings::read(settings))),
                _ => None,
            }
        });
        let slot = self.settings.slots.get_mut(user).expect("what is busy is kept");
        slot.busy = false;
        if let Some((number, settings)) = read {
            (slot.number, slot.settings) = (number, Some(settings));
            return self.settings.read.push_back(user.clone());
        }
        for request in std::mem::take(&mut slot.pending) {
            self.refuse_request(&request, UNREADABLE);
        }
    }

    /// Handles what waited for settings that have been read. Whether there were any.
    pub(super) fn go_on_with_settings(&mut self, now: UnixMillis, log: &mut Log) -> bool {
        let Some(user) = self.settings.read.pop_front() else { return false };
        while let Some(request) = self.settings.slots.get_mut(&user).and_then(|slot| slot.pending.pop_front())
        {
            self.execute_setting(&user, request, now, log);
        }
        true
    }

    fn execute_setting(&mut self, user: &UserId, request: Request, now: UnixMillis, log: &mut Log) {
        let slot = &self.settings.slots[user];
        let settings = slot.settings.as_ref().expect("it was read");
        match request {
            Request::Set { asker, ref setting, .. } if settings.has(setting, now) => {
                let (position, reply) = (slot.position, settings.done(asker, user, setting));
                self.answer_when_durable(asker, reply, position, log);
            }
            Request::Set { asker, setting, .. } => match settings.with(&setting, now) {
                Ok(after) => self.append_settings(asker, user, &setting, after, now, log),
                Err(refusal) => self.refuse(asker, refusal),
            },
            Request::Settings { session, shard, .. } if log.durable().covers(slot.position) => {
                let mutes = Some(settings.mutes.clone());
                self.outputs.push_back((shard, Reply::Settings { session, mutes }));
            }
            Request::Sighting { shard, user, is_whole } if log.durable().covers(slot.position) => {
                let invisible_since = settings.invisible_since();
                if is_whole && invisible_since.is_none() {
                    return self.start_sighting(user, shard, log);
                }
                let is_whole = invisible_since.is_some();
                let found = Some(Sighting { invisible_since, last_seen: None, is_whole });
                self.outputs.push_back((shard, Reply::Sighting { user, found }));
            }
            Request::PushTokens { shard, call, conversation, .. } if log.durable().covers(slot.position) => {
                let mut mutes = settings.mutes.iter();
                let is_muted = mutes.any(|(muted, until)| *muted == conversation && *until > now);
                let tokens = if is_muted { Vec::new() } else { Ext::new(&settings.ext).push_tokens() };
                self.outputs.push_back((shard, Reply::PushTokens { call, tokens: Some(tokens) }));
            }
            request if log.is_healthy() => {
                let position = slot.position;
                self.wait_until_durable(position, request);
            }
            request => self.refuse_request(&request, STOPPED),
        }
    }

    fn append_settings(
        &mut self,
        asker: Asker,
        user: &UserId,
        setting: &Setting,
        after: Settings,
        now: UnixMillis,
        log: &mut Log,
    ) {
        let stream = self.places.user_stream(user, Kind::Settings);
        let slot = self.settings.slots.get_mut(user).expect("entered");
        let body = after.body();
        let draft = Draft {
            stream,
            expected_head: slot.number,
            messages: 0,
            schema: body.schema() as u16,
            payload: &body.payload(),
            links: &[],
        };
        // Whoever becomes invisible was seen until then: that is what is known once it is visible again.
        let payload = sighting_payload(now);
        let sighting = sighting_draft(&self.places, user, &payload, log.clock(now.0));
        let is_seen_last = *setting == Setting::Invisible { on: true };
        let group = [draft, sighting];
        match log.append(&group[..1 + usize::from(is_seen_last)], now.0) {
            Answer::Stored(stored) => {
                (slot.number, slot.position) = (slot.number + 1, stored.last_position);
                let reply = after.done(asker, user, setting);
                slot.settings = Some(after);
                self.answer_when_durable(asker, reply, stored.last_position, log);
            }
            Answer::Busy => self.refuse(asker, (ErrorCode::Busy, "the disk is behind")),
            Answer::Full => self.refuse(asker, (ErrorCode::StorageFull, "the disk is full")),
            Answer::Conflict { .. } => unreachable!("of what keeps the last no head is checked"),
            Answer::Unavailable => self.refuse(asker, STOPPED),
        }
    }

    /// Who is in a conversation may mute it: the home goes on from there.
    pub(super) fn judge_mute(
        &mut self,
        asker: Asker,
        user: UserId,
        conversation: ConversationId,
        until: UnixMillis,
    ) {
        let state = self.loaded(conversation).ok_or(NOT_FOUND);
        match state.and_then(|state| state.member(&user).ok_or(NOT_A_MEMBER)) {
            Ok(_) => {
                self.outputs.push_back((asker.shard, Reply::MayMute { asker, user, conversation, until }))
            }
            Err(refusal) => self.refuse(asker, refusal),
        }
    }
}
