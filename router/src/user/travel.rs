//! Sessions that go on in another process: what the new binary is told of each, at an upgrade.
//!
//! It happens while nothing is under way: no request is unanswered, no send is in flight, and every delivery has been taken. So a session
//! that is live stays live, and any other goes on from its position as a slow reader does. What waits to be sent is bytes by now, of which
//! some may be sent already; what was asked and waits for its turn is asked again, as the client asked it.

use bytes::{Bytes, BytesMut};
use protocol::command::{Command, Request as Asked};
use protocol::event::{CloseCode, ErrorCode, ServerFrame};
use protocol::ids::{ConversationId, DeviceId, RequestId, Seq, UnixMillis, UserId};
use protocol::upgrade::Form;
use smallvec::SmallVec;

use super::UserSide;
use super::frames::server_frame;
use super::outbox::Outbox;
use super::session::{Greeting, Held, LogState, Missing, Phase, Session, Survey, ToldBefore, View};
use crate::mail::{Asker, Clock, Knows, Request, SessionId, Surveyed, UNASKED};

/// How a session stands in one log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It has everything up to its position, and whatever is delivered next follows.
    Live,
    /// It is fed from the log.
    Behind,
    /// It starts at the head, which is not known yet.
    Unplaced,
    /// Its conversations are surveyed first.
    Surveyed,
}

/// A session in one log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TravellingLog {
    /// Up to here it was given everything.
    pub position: u64,
    /// Up to here its device has acknowledged; `None` before it could.
    pub acked: Option<u64>,
    /// How it goes on.
    pub standing: Standing,
}

/// What a session views.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TravellingView {
    /// Which conversation.
    pub conversation: ConversationId,
    /// What it was told of that, by which the new process tells it the rest.
    pub knows: Knows,
}

/// What a session that connected with positions has before it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TravellingSurvey {
    /// What the client knows, while the logs are being asked: that begins anew.
    pub known: Vec<(ConversationId, Seq)>,
    /// Whether they are.
    pub is_asking: bool,
    /// Conversations to name, by log.
    pub unnamed: Vec<(u16, Surveyed)>,
    /// Conversations to feed: log, which, after, visible from.
    pub missing: Vec<(u16, ConversationId, Seq, Seq)>,
}

/// A session without its connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Traveller {
    /// Whose.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// In which form.
    pub form: Form,
    /// In each log.
    pub logs: Vec<TravellingLog>,
    /// What waits to be sent: first the rest of a frame, if one is half sent.
    pub unsent: Bytes,
    /// What was asked and waits for its turn.
    pub asked: Vec<Asked>,
    /// Since when it is behind because it was too slow.
    pub slow_since: Option<UnixMillis>,
    /// What it views.
    pub views: Vec<TravellingView>,
    /// Number of a `connect` that has no `welcome` yet, and whether that says `reset`.
    pub greeting: Option<(RequestId, bool)>,
    /// Whether it and others know how its user stands: not while that is asked for.
    pub is_shown: bool,
    /// `caught_up` is owed.
    pub catching_up: bool,
    /// And will say `partial`.
    pub partial: bool,
    /// What comes before it follows the logs.
    pub survey: Option<TravellingSurvey>,
}

impl UserSide {
    /// What is to be known of a session elsewhere. It stays here as it is. `control` goes out ahead of what is queued.
    #[must_use]
    pub fn describe(&self, id: SessionId, control: &[u8]) -> Option<Traveller> {
        let session = self.sessions.get(id.slot as usize)?;
        if session.generation != id.generation {
            return None;
        }
        let standing = |log: &LogState| match log.phase {
            Phase::Live => Standing::Live,
            Phase::Unplaced => Standing::Unplaced,
            Phase::Surveyed => Standing::Surveyed,
            // Without a place it asks for one.
            Phase::Asked if session.greeting.is_some() && session.survey.is_none() => Standing::Unplaced,
            Phase::Asked | Phase::Behind => Standing::Behind,
        };
        let in_log = |log: &LogState| TravellingLog {
            position: log.position,
            acked: log.acked(),
            standing: standing(log),
        };
        let views = session.viewing.iter().flat_map(|viewing| &viewing.views).filter_map(View::describe);
        Some(Traveller {
            user: session.user.clone(),
            device: session.device.clone(),
            form: session.form,
            logs: session.logs.iter().map(in_log).collect(),
            unsent: self.unsent(session, control),
            asked: session.held.iter().filter_map(|held| self.asked_again(session, held)).collect(),
            slow_since: self.slow_since(id),
            views: views.collect(),
            greeting: session.greeting.map(|greeting| (greeting.id, greeting.reset)),
            is_shown: session.greeting.is_none() && self.presence.is_settled(&session.user),
            catching_up: session.catching_up,
            partial: session.partial,
            survey: session.survey.as_deref().map(Survey::describe),
        })
    }

    /// What waits to be sent, and what is kept until that has left.
    fn unsent(&self, session: &Session, control: &[u8]) -> Bytes {
        let unsent = session.outbox.unsent(control);
        let Some(viewing) = &session.viewing else { return unsent };
        let late = viewing.late.iter().map(|presence| ServerFrame::Presence(presence.clone()));
        let on = self.presence.is_invisible(&session.user);
        let late = late.chain(viewing.late_receipts(&session.user));
        let late = late.chain(viewing.late_invisible.then_some(ServerFrame::Invisible { on }));
        let mut all = BytesMut::from(unsent);
        late.for_each(|event| all.extend_from_slice(&server_frame(session.form, &event)));
        all.freeze()
    }

    /// What is held as it was asked; `None` of what nobody asked.
    fn asked_again(&self, session: &Session, held: &Held) -> Option<Asked> {
        let (id, command) = match held {
            Held::Ended { number, conversation } => {
                (*number, Command::Unview { conversation: *conversation })
            }
            Held::Listing(listing) => listing.asked(&self.places, &session.user),
            Held::Search(searching) => searching.asked(),
            Held::Page(Request::History { asker, conversation, range, limit, .. }) => {
                (asker.id, Command::History { conversation: *conversation, range: *range, limit: *limit })
            }
            Held::Page(Request::ListMembers { asker, conversation, .. }) => {
                (asker.id, Command::ListMembers { conversation: *conversation })
            }
            Held::Page(Request::View { asker, conversation, .. }) => {
                (asker.id, Command::View { conversation: *conversation })
            }
            Held::Page(_) => unreachable!("only pages of one conversation are held"),
        };
        (id != UNASKED).then_some(Asked { id: Some(id), command })
    }

    /// Goes on with a session of another process, whose connection is `connection` here. What it has asked is for the caller to ask again.
    pub fn resume(&mut self, connection: u64, traveller: &Traveller, clock: Clock) -> SessionId {
        let mut session = resumed(connection, traveller);
        self.generation = self.generation.wrapping_add(1);
        session.generation = self.generation;
        let slot = self.sessions.insert(session) as u32;
        let id = SessionId { slot, generation: self.generation };
        if let Some(since) = traveller.slow_since {
            self.note_slow(id, since);
        }
        let present = self.users.entry(traveller.user.clone()).or_default();
        present.slots.push(slot);
        if present.slots.len() == 1 {
            self.note_come(&traveller.user);
        }
        for TravellingView { conversation, knows } in &traveller.views {
            let asker = Asker { shard: self.shard, session: id, id: UNASKED, asked_micros: clock.micros };
            let (user, conversation, knows) = (traveller.user.clone(), *conversation, *knows);
            let view = View { conversation, asked: Some(UNASKED) };
            self.sessions[slot as usize].viewing.get_or_insert_default().views.push(view);
            self.hold(id, Held::Page(Request::View { asker, user, conversation, knows }));
        }
        if self.sessions[slot as usize].outbox.is_sendable() {
            self.list(id);
        }
        self.ask_pages(id);
        id
    }
}

impl UserSide {
    /// A view that came along was refused. Where that is for now only, its client is to come back and ask itself: it believes that it looks, and
    /// would be told nothing for ever.
    pub(super) fn handle_unresumed_view(&mut self, id: SessionId, code: ErrorCode) {
        // The one that was asked: all others still wait for their turn.
        let Some(session) = self.session(id) else { return };
        let held = session.held.iter().filter_map(|held| match held {
            Held::Page(Request::View { conversation, .. }) => Some(*conversation),
            _ => None,
        });
        let waiting: Vec<ConversationId> = held.collect();
        let views = session.viewing.iter_mut().flat_map(|viewing| &mut viewing.views);
        let asked = views.filter(|view| view.asked == Some(UNASKED)).map(|view| view.conversation);
        let refused: Vec<ConversationId> = asked.filter(|asked| !waiting.contains(asked)).collect();
        if let Some(viewing) = session.viewing.as_mut() {
            viewing.views.retain(|view| !refused.contains(&view.conversation));
        }
        self.page_arrived(id);
        refused.into_iter().for_each(|conversation| self.end_view(id, conversation));
        if matches!(code, ErrorCode::Busy | ErrorCode::Unavailable) {
            self.end(id, CloseCode::OVERLOAD, "what it views could not be taken up again");
        }
        // Its client is told nothing, and what waits behind it goes on.
        self.ask_pages(id);
    }
}

fn resumed(connection: u64, traveller: &Traveller) -> Session {
    let state = |log: &TravellingLog| {
        let phase = match log.standing {
            Standing::Live => Phase::Live,
            Standing::Behind => Phase::Behind,
            Standing::Unplaced => Phase::Unplaced,
            Standing::Surveyed => Phase::Surveyed,
        };
        LogState::at(log.position, phase).acked_up_to(log.acked)
    };
    let logs: SmallVec<[LogState; 4]> = traveller.logs.iter().map(state).collect();
    let survey = traveller.survey.as_ref().map(|survey| Box::new(Survey::resumed(survey, logs.len())));
    let (user, device) = (traveller.user.clone(), traveller.device.clone());
    Session {
        outbox: Outbox::resumed(traveller.unsent.clone()),
        greeting: traveller.greeting.map(|(id, reset)| Greeting { id, reset }),
        // The one that is answered by the welcome, and under way until that has left.
        commands: u32::from(traveller.greeting.is_some()),
        catching_up: traveller.catching_up,
        partial: traveller.partial,
        survey,
        told: if traveller.is_shown { ToldBefore::AllThatIsSo } else { ToldBefore::Nothing },
        ..Session::at_rest(connection, user, device, traveller.form, logs)
    }
}

impl View {
    /// `None` of one that its client is to be answered: that is asked again as the client asked it.
    fn describe(&self) -> Option<TravellingView> {
        let knows = match self.asked {
            None => Knows::WhatWasBefore,
            // Nothing of what was so in this process: it has only come here, and was not taken up.
            Some(UNASKED) => Knows::Nothing,
            Some(_) => return None,
        };
        Some(TravellingView { conversation: self.conversation, knows })
    }
}

impl Survey {
    fn describe(&self) -> TravellingSurvey {
        let missing = self.missing.iter().map(|missing| {
            let Missing { log, conversation, after, visible_from } = *missing;
            (log, conversation, after, visible_from)
        });
        TravellingSurvey {
            known: self.known.clone(),
            is_asking: self.next.iter().any(Option::is_some),
            unnamed: self.unnamed.iter().copied().collect(),
            missing: missing.collect(),
        }
    }

    fn resumed(survey: &TravellingSurvey, logs: usize) -> Self {
        let missing = survey.missing.iter().map(|(log, conversation, after, visible_from)| Missing {
            log: *log,
            conversation: *conversation,
            after: *after,
            visible_from: *visible_from,
        });
        Self {
            known: survey.known.clone(),
            next: SmallVec::from_elem(survey.is_asking.then_some(0), logs),
            unnamed: survey.unnamed.iter().copied().collect(),
            missing: missing.collect(),
            // What was named before it came here is not known.
            leaves_some: true,
            ..Self::default()
        }
    }
}
