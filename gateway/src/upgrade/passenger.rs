//! A connection as it travels: everything but its descriptor, as bytes.
//!
//! What was received and not handled travels as bytes that the other side handles, what was not sent as bytes that it sends. So the
//! inside of no codec is part of the format, and [`SNAPSHOT_VERSION`] changes only with what is written here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use protocol::command::Token;
use protocol::ids::{ConversationId, DeviceId, RequestId, Seq, UnixMillis, UserId};
use protocol::upgrade::Form;
use router::mail::{Knows, Surveyed};
use router::user::{Standing, Traveller, TravellingLog, TravellingSurvey, TravellingView};

use crate::auth::{Issued, TokenId};

/// Of the format of this file. Two processes with different ones do not take over from each other.
pub const SNAPSHOT_VERSION: u16 = 5;

/// A connection without its descriptor.
#[derive(Debug, PartialEq)]
pub struct Passenger {
    /// What its upgrade agreed on.
    pub form: Form,
    /// Its upgrade is done.
    pub is_open: bool,
    /// A PROXY header is waited for.
    pub is_proxied: bool,
    /// Whose it is, where that is kept: the address that a proxy has named, or its own.
    pub peer: Option<IpAddr>,
    /// What was received and is to be handled.
    pub received: Vec<u8>,
    /// How far it is.
    pub stage: PassengerStage,
}

/// How far a connection is.
#[derive(Debug, PartialEq)]
pub enum PassengerStage {
    /// No `connect` was accepted.
    Arriving {
        /// From the `Authorization` header.
        bearer: Option<Token>,
        /// What is to be sent.
        unsent: Bytes,
    },
    /// A session.
    Live {
        /// When its token ends, in milliseconds since 1970.
        expires_at: u64,
        /// What its token can be revoked by.
        issued: Issued,
        /// The session; what it asked stands in `received`.
        session: Box<Traveller>,
    },
}

/// Appends `passenger`.
pub fn write(passenger: &Passenger, out: &mut Vec<u8>) {
    let Passenger { form, is_open, is_proxied, peer, .. } = passenger;
    let flags = [*form == Form::Binary, *is_open, *is_proxied, peer.is_some()];
    put(out, &flags.map(u8::from));
    put(out, &in_ipv6(peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))).octets());
    put_bytes(out, &passenger.received);
    match &passenger.stage {
        PassengerStage::Arriving { bearer, unsent } => {
            put(out, &[0, u8::from(bearer.is_some())]);
            put_bytes(out, bearer.as_ref().map_or(&[][..], |bearer| bearer.as_str().as_bytes()));
            put_bytes(out, unsent);
        }
        PassengerStage::Live { expires_at, issued, session } => {
            put(out, &[1]);
            put(out, &expires_at.to_le_bytes());
            put(out, &issued.at.to_le_bytes());
            put(out, &issued.id.to_bytes());
            write_session(session, out);
        }
    }
}

fn write_session(session: &Traveller, out: &mut Vec<u8>) {
    put_bytes(out, session.user.as_str().as_bytes());
    put_bytes(out, session.device.as_str().as_bytes());
    put_count(out, session.logs.len());
    for log in &session.logs {
        put(out, &log.position.to_le_bytes());
        put(out, &[u8::from(log.acked.is_some())]);
        put(out, &log.acked.unwrap_or_default().to_le_bytes());
        put(out, &[log.standing as u8]);
    }
    put_bytes(out, &session.unsent);
    put(out, &session.slow_since.map_or(0, |since| since.0).to_le_bytes());
    put_count(out, session.views.len());
    for view in &session.views {
        put(out, &view.conversation.0);
        put(out, &[u8::from(view.knows == Knows::WhatWasBefore)]);
    }
    let (greeting, reset) = session.greeting.map_or((0, false), |(id, reset)| (id.0, reset));
    put(out, &greeting.to_le_bytes());
    let flags = [reset, session.is_shown, session.catching_up, session.partial, session.survey.is_some()];
    put(out, &flags.map(u8::from));
    if let Some(survey) = &session.survey {
        write_survey(survey, out);
    }
}

fn write_survey(survey: &TravellingSurvey, out: &mut Vec<u8>) {
    put(out, &[u8::from(survey.is_asking)]);
    put_count(out, survey.known.len());
    for (conversation, seq) in &survey.known {
        put(out, &conversation.0);
        put(out, &seq.0.to_le_bytes());
    }
    put_count(out, survey.unnamed.len());
    for (log, found) in &survey.unnamed {
        put(out, &log.to_le_bytes());
        put(out, &found.conversation.0);
        let visible_from = found.visible_from.map_or(0, |seq| seq.0);
        for number in [found.position, found.head.0, found.message_count, visible_from] {
            put(out, &number.to_le_bytes());
        }
    }
    put_count(out, survey.missing.len());
    for (log, conversation, after, visible_from) in &survey.missing {
        put(out, &log.to_le_bytes());
        put(out, &conversation.0);
        put(out, &after.0.to_le_bytes());
        put(out, &visible_from.0.to_le_bytes());
    }
}

/// Reads all passengers of `bytes`; `None` when they are not such.
#[must_use]
pub fn read_all(bytes: &[u8]) -> Option<Vec<Passenger>> {
    let (mut rest, mut passengers) = (Reader(bytes), Vec::new());
    while !rest.0.is_empty() {
        passengers.push(read(&mut rest)?);
    }
    Some(passengers)
}

fn read(rest: &mut Reader<'_>) -> Option<Passenger> {
    let form = if rest.flag()? { Form::Binary } else { Form::Json };
    let (is_open, is_proxied, has_peer) = (rest.flag()?, rest.flag()?, rest.flag()?);
    let peer = IpAddr::V6(Ipv6Addr::from(rest.array::<16>()?)).to_canonical();
    let peer = has_peer.then_some(peer);
    let received = rest.bytes()?.to_vec();
    let stage = if rest.flag()? {
        let expires_at = rest.u64()?;
        let issued = Issued { at: u32::from_le_bytes(rest.array()?), id: TokenId::from_bytes(rest.array()?) };
        PassengerStage::Live { expires_at, issued, session: Box::new(read_session(rest, form)?) }
    } else {
        let has_bearer = rest.flag()?;
        let bearer = Token::new(rest.text()?);
        let unsent = Bytes::copy_from_slice(rest.bytes()?);
        PassengerStage::Arriving { bearer: bearer.filter(|_| has_bearer), unsent }
    };
    Some(Passenger { form, is_open, is_proxied, peer, received, stage })
}

fn read_session(rest: &mut Reader<'_>, form: Form) -> Option<Traveller> {
    let user = UserId::new(rest.text()?).ok()?;
    let device = DeviceId::new(rest.text()?).ok()?;
    let logs = rest.list(read_log)?;
    let unsent = Bytes::copy_from_slice(rest.bytes()?);
    let slow_since = rest.u64().map(|at| (at > 0).then_some(UnixMillis(at)))?;
    let views = rest.list(|rest| {
        let conversation = ConversationId(rest.array()?);
        let knows = if rest.flag()? { Knows::WhatWasBefore } else { Knows::Nothing };
        Some(TravellingView { conversation, knows })
    })?;
    let greeting = RequestId(u32::from_le_bytes(rest.array()?));
    let (reset, is_shown) = (rest.flag()?, rest.flag()?);
    let (catching_up, partial) = (rest.flag()?, rest.flag()?);
    let survey = if rest.flag()? { Some(read_survey(rest)?) } else { None };
    let greeting = (greeting.0 > 0).then_some((greeting, reset));
    let asked = Vec::new();
    Some(Traveller {
        user,
        device,
        form,
        logs,
        unsent,
        asked,
        slow_since,
        views,
        greeting,
        is_shown,
        catching_up,
        partial,
        survey,
    })
}

fn read_log(rest: &mut Reader<'_>) -> Option<TravellingLog> {
    let (position, has_acked, acked) = (rest.u64()?, rest.flag()?, rest.u64()?);
    let acked = has_acked.then_some(acked);
    Some(TravellingLog { position, acked, standing: read_standing(rest)? })
}

fn read_standing(rest: &mut Reader<'_>) -> Option<Standing> {
    let [number] = rest.array()?;
    let all = [Standing::Live, Standing::Behind, Standing::Unplaced, Standing::Surveyed];
    all.into_iter().find(|standing| *standing as u8 == number)
}

fn read_survey(rest: &mut Reader<'_>) -> Option<TravellingSurvey> {
    let is_asking = rest.flag()?;
    let known = rest.list(|rest| Some((ConversationId(rest.array()?), Seq(rest.u64()?))))?;
    let unnamed = rest.list(|rest| {
        let (log, conversation) = (u16::from_le_bytes(rest.array()?), ConversationId(rest.array()?));
        let (position, head, message_count) = (rest.u64()?, Seq(rest.u64()?), rest.u64()?);
        let visible_from = rest.u64().map(|seq| (seq > 0).then_some(Seq(seq)))?;
        Some((log, Surveyed { position, conversation, head, message_count, visible_from }))
    })?;
    let missing = rest.list(|rest| {
        let (log, conversation) = (u16::from_le_bytes(rest.array()?), ConversationId(rest.array()?));
        Some((log, conversation, Seq(rest.u64()?), Seq(rest.u64()?)))
    })?;
    Some(TravellingSurvey { known, is_asking, unnamed, missing })
}

/// One form for both kinds.
fn in_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    put(out, &(count as u32).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    put(out, bytes);
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'b str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = u32::from_le_bytes(self.array()?);
        (0..count).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passengers() -> Vec<Passenger> {
        let conversation = ConversationId([7; 16]);
        let found = Surveyed {
            position: 5,
            conversation,
            head: Seq(9),
            message_count: 8,
            visible_from: Some(Seq(2)),
        };
        let log = |position, acked, standing| TravellingLog { position, acked, standing };
        let session = Traveller {
            user: UserId::new("alice").expect("a user"),
            device: DeviceId::new("phone").expect("a device"),
            form: Form::Binary,
            logs: vec![
                log(1, Some(1), Standing::Live),
                log(2, Some(0), Standing::Behind),
                log(0, None, Standing::Unplaced),
            ],
            unsent: Bytes::from_static(b"half a frame"),
            asked: Vec::new(),
            slow_since: Some(UnixMillis(1_800_000_000_000)),
            views: vec![
                TravellingView { conversation, knows: Knows::WhatWasBefore },
                TravellingView { conversation: ConversationId([8; 16]), knows: Knows::Nothing },
            ],
            greeting: Some((RequestId(3), true)),
            is_shown: false,
            catching_up: true,
            partial: true,
            survey: Some(TravellingSurvey {
                known: vec![(conversation, Seq(4))],
                is_asking: true,
                unnamed: vec![(1, found)],
                missing: vec![(0, conversation, Seq(1), Seq(2))],
            }),
        };
        let issued = Issued { at: 17, id: TokenId::of("token") };
        let live = PassengerStage::Live { expires_at: 99, issued, session: Box::new(session) };
        let unsent = Bytes::from_static(b"HTTP/1.1 101");
        let arriving = PassengerStage::Arriving { bearer: Token::new("secret"), unsent };
        vec![
            Passenger {
                form: Form::Binary,
                is_open: true,
                is_proxied: false,
                peer: "2001:db8::1".parse().ok(),
                received: b"\x81".to_vec(),
                stage: live,
            },
            Passenger {
                form: Form::Json,
                is_open: false,
                is_proxied: true,
                peer: "10.0.0.1".parse().ok(),
                received: b"PROXY".to_vec(),
                stage: arriving,
            },
        ]
    }

    #[test]
    fn what_is_written_is_read_and_nothing_shorter() {
        let (passengers, mut bytes) = (passengers(), Vec::new());
        passengers.iter().for_each(|passenger| write(passenger, &mut bytes));
        assert_eq!(read_all(&bytes).as_ref(), Some(&passengers));
        let mut first = Vec::new();
        write(&passengers[0], &mut first);
        for end in (1..bytes.len()).filter(|end| *end != first.len()) {
            assert_eq!(read_all(&bytes[..end]), None, "{end}");
        }
    }
}
