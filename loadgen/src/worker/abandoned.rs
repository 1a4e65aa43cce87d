//! What a worker does when the node goes away and does not come back: it asks nothing more, and hands over what it knows.
//!
//! Whether the node has gone is for the controller to say, which hears from all workers.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use monoio::time::sleep;

use super::{LOOK_EVERY, State, Worker, desk::Desk, hand_over_books, say, user::User};
use crate::{
    link::{FromWorker, Pace, Reach, Totals},
    plan::RoomIndex,
    report::GONE_AFTER,
};

/// How long the end of a connection may take to be noticed by all whose it was.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);
/// From when a node has gone away until the controller has said so: a tick, and some.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

/// Does `work`, and instead of the rest of it hands over what is known once the node is said to have gone away. Work that fails while
/// nobody can connect waits until that is said.
pub(super) async fn unless_abandoned(
    worker: &Rc<Worker>,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let (mut work, mut told) = (pin!(work), pin!(abandoned(worker)));
    let first = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => told.as_mut().poll(context).map(|()| None),
    });
    match first.await {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) if !will_be_abandoned(worker).await => Err(error),
        Some(Err(_)) | None => hand_over_what_is_known(worker),
    }
}

async fn abandoned(worker: &Rc<Worker>) {
    while !worker.with(|state| state.desk.is_abandoned) {
        sleep(LOOK_EVERY).await;
    }
}

/// Whether the node is said to have gone away before somebody reaches it again.
async fn will_be_abandoned(worker: &Rc<Worker>) -> bool {
    sleep(NOTICED_WITHIN).await;
    let is_decided = |state: &mut State| state.desk.is_abandoned || state.is_connected();
    worker.wait_until(GONE_AFTER + TOLD_WITHIN, is_decided).await;
    worker.with(|state| state.desk.is_abandoned)
}

fn hand_over_what_is_known(worker: &Rc<Worker>) -> anyhow::Result<()> {
    let seen = worker.with(|state| {
        state.note_unanswered();
        state.seen_by_all()
    });
    say(&FromWorker::Seen(seen))?;
    hand_over_books(worker)
}

impl State {
    fn is_connected(&self) -> bool {
        self.users.iter().any(|user| user.link.is_some())
    }

    /// Whether the node is reached. Asked once a second: who could not connect while others were connected, or before nobody wanted to be,
    /// says nothing.
    pub(super) fn reach(&mut self) -> Reach {
        if self.desk.pace != Pace::Full {
            // Who does not read does not see either that a connection has ended.
            self.desk.dials_fail_since = None;
            return Reach::Undecided;
        }
        let (is_connected, is_wanted) = (self.is_connected(), self.users.iter().any(|user| self.wants(user)));
        if is_connected || !is_wanted {
            self.desk.dials_fail_since = None;
        }
        match self.desk.dials_fail_since {
            Some(since) => Reach::UnreachedSince(since),
            None if is_connected && self.desk.hears_the_node() => Reach::Reached,
            None => Reach::Undecided,
        }
    }

    /// Whether a user is to be connected.
    fn wants(&self, user: &User) -> bool {
        let muster = &self.desk.muster;
        muster.tasks > 0 && !muster.is_over && !user.is_stopped() && !user.has_gone()
    }

    /// Asked once a second, before what was counted in it is told: what had been counted a second ago was so while the node was there, if it
    /// has said something since, and nobody is without a connection that wants one.
    pub(super) fn confirm(&mut self) {
        let is_heard = std::mem::take(&mut self.desk.is_heard) && self.desk.hears_the_node();
        if is_heard && self.users.iter().all(|user| user.link.is_some() || !self.wants(user)) {
            self.desk.tally.confirm();
        }
    }

    /// What was counted, and when the node has gone away what of it was before.
    pub(super) fn totals(&self) -> Totals {
        let Desk { tally, is_abandoned, .. } = &self.desk;
        Totals { confirmed: is_abandoned.then_some(tally.confirmed()), ..tally.totals() }
    }

    /// How far all members of each conversation have seen it, of those who are of this worker.
    fn seen_by_all(&self) -> Vec<(RoomIndex, u64)> {
        let mut all = BTreeMap::new();
        for user in &self.users {
            for stand in user.reader.stands().iter().filter(|stand| user.reader.is_in(stand.room)) {
                // Who has joined since has not to see what was before.
                let seen = stand.seen.max(stand.at);
                all.entry(stand.room).and_modify(|all: &mut u64| *all = seen.min(*all)).or_insert(seen);
            }
        }
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        command::{Target, Token},
        event::CloseCode,
        ids::RequestId,
        ws::encode_frame,
    };

    use super::*;
    use crate::{
        client::Codec,
        clock::Moment,
        link::{Counts, Forms},
        plan::{USERS_MIN, UserIndex},
        worker::{
            tests::{config, welcome},
            user::Link,
        },
    };

    /// The only user connects, and is let in or not.
    fn connect(state: &mut State, is_let_in: bool) {
        let State { users, desk, .. } = state;
        let (user, token) = (&mut users[0], Token::new("token").expect("a short word is a token"));
        user.handle_open(desk, Link { codec: Codec::new(&[]), writer: None }, token);
        if is_let_in {
            be_let_in(state);
        }
    }

    fn be_let_in(state: &mut State) {
        let State { users, desk, .. } = state;
        let (user, mut payload, mut bytes) = (&mut users[0], Vec::new(), Vec::new());
        welcome(RequestId(1), desk.plan.name(user.index), Some("c")).encode(user.form, &mut payload);
        encode_frame(user.form.opcode(), &payload, None, &mut bytes);
        assert_eq!(user.handle_bytes(desk, &bytes, Moment::now()), None);
    }

    #[test]
    fn who_reads_again_reaches_the_node_when_it_answers_what_is_asked_since() {
        let mut state = State::new(config(Forms::Binary, USERS_MIN, 10)).expect("it opens no file");
        state.users.truncate(1);
        state.desk.muster.tasks = 1;
        connect(&mut state, false);
        assert_eq!(state.reach(), Reach::Reached);
        for pace in [Pace::Stalled, Pace::Slow { bytes_per_second: 1 }, Pace::Full] {
            state.desk.set_pace(pace, Moment::now());
            assert_eq!(state.reach(), Reach::Undecided, "{pace:?}");
        }
        // This lay in the socket, and the node may have gone.
        be_let_in(&mut state);
        assert_eq!(state.reach(), Reach::Undecided);
        let State { users, desk, .. } = &mut state;
        users[0].handle_lost(desk, CloseCode::ABNORMAL);
        let failed = Moment::now();
        desk.dials_fail_since = Some(failed);
        assert_eq!(state.reach(), Reach::UnreachedSince(failed));
        connect(&mut state, true);
        assert_eq!(state.reach(), Reach::Reached);
    }

    #[test]
    fn what_is_asked_anew_behind_the_end_was_not_unanswered_at_it() {
        let waiting_at = |has_ended: bool| {
            let mut state = State::new(config(Forms::Binary, USERS_MIN, 10)).expect("it opens no file");
            state.desk.tally.counts.ended = has_ended.into();
            let State { users, desk, .. } = &mut state;
            let peer = Target::User(desk.plan.name(UserIndex(1)));
            users[0].offer_message(desk, RoomIndex(0), None, peer);
            users[1].attending.want(RoomIndex(0), 7, Moment::now(), Duration::ZERO);
            assert_eq!(state.unanswered(), 2);
            state.note_unanswered();
            let Counts { unanswered, reads_unanswered, .. } = state.desk.tally.counts;
            (unanswered, reads_unanswered)
        };
        assert_eq!((waiting_at(false), waiting_at(true)), ((1, 1), (0, 0)), "a read is no send");
    }
}
