//! After a run: what some users are in, as a device that was never there before is told it.

use std::rc::Rc;

use anyhow::{bail, ensure};
use protocol::{command::Command, event::ServerFrame, limits::CONVERSATIONS_MAX};

use super::{Worker, log_reader::Session, say};
use crate::{
    link::FromWorker,
    plan::UserIndex,
    verify::{Kind, ListedRoom, UserList},
};

/// Users of one worker that ask: one in so many, so that it takes no longer than the logs.
const ASKED_MAX: usize = 100;
/// Pages of one list, each of at least one conversation.
const PAGES_MAX: usize = 10_000;

/// Asks for some users of this worker and tells the controller.
pub(super) async fn read_lists(worker: &Rc<Worker>) -> anyhow::Result<()> {
    let users = worker.with(|state| {
        let step = state.users.len().div_ceil(ASKED_MAX).max(1);
        state.users.iter().step_by(step).map(|user| user.index).collect::<Vec<_>>()
    });
    for user in users {
        let list = read_list(worker, user).await?;
        worker.with(|state| state.desk.tally.counts.listed += list.listed.len() as u64);
        say(&FromWorker::Listed(list))?;
    }
    Ok(())
}

async fn read_list(worker: &Rc<Worker>, user: UserIndex) -> anyhow::Result<UserList> {
    let mut session = Session::open(worker, user).await?;
    let rooms = worker.with(|state| state.desk.plan.rooms_of(user));
    let (mut listed, mut after) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let command = Command::Conversations { after, limit: CONVERSATIONS_MAX };
        let ServerFrame::Conversations { conversations, end, .. } = session.ask(command).await? else {
            bail!("`conversations` was answered with something else than a page of them");
        };
        ensure!(!end.partial, "the node could not read all conversations of a user");
        worker.with(|state| {
            for one in &conversations {
                match state.desk.rooms.room(one.conversation) {
                    Some(room) => listed.push(ListedRoom {
                        room,
                        head: one.head.0,
                        read: one.read.0,
                        unread: one.unread,
                    }),
                    None => {
                        state.desk.tally.violations.add(Kind::Recipient, || {
                            format!("user {} was listed {}", user.0, one.conversation)
                        })
                    }
                }
            }
        });
        after = end.after;
        if after.is_none() {
            session.close().await?;
            return Ok(UserList { user, rooms, listed });
        }
    }
    bail!("the list of user {} does not end", user.0)
}
