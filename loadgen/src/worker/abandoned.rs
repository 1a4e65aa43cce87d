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

use super::{LOOK_EVERY, State, Worker, hand_over_books, say};
use crate::{clock::Moment, link::FromWorker, plan::RoomIndex, report::GONE_AFTER};

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
        state.desk.tally.counts.unanswered = state.unanswered();
        state.seen_by_all()
    });
    say(&FromWorker::Seen(seen))?;
    hand_over_books(worker)
}

impl State {
    fn is_connected(&self) -> bool {
        self.users.iter().any(|user| user.link.is_some())
    }

    /// Since when nobody is connected and nobody can connect. Asked once a second: who could not connect while others were connected says
    /// nothing.
    pub(super) fn unreached_since(&mut self) -> Option<Moment> {
        if self.is_connected() {
            self.desk.dials_fail_since = None;
        }
        self.desk.dials_fail_since
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
