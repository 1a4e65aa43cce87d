//! The workers of a run: processes of this same program, and what they have said so far.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::board::Board;
use crate::{
    clock::Moment,
    link::{FromWorker, Order, ToWorker},
};

/// How many workers have said each thing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    pub(super) connected: u32,
    pub(super) opened: u32,
    pub(super) settled: u32,
    pub(super) sent: u32,
    pub(super) drained: u32,
    pub(super) done: u32,
}

/// All workers. Dropping it kills them.
pub(super) struct Crew {
    hands: Vec<Hand>,
    /// `None` is the end of a worker.
    inbox: Receiver<(usize, Option<FromWorker>)>,
    said: Said,
}

struct Hand {
    child: Child,
    input: ChildStdin,
    /// It has said everything.
    is_done: bool,
}

impl Crew {
    /// One process per order.
    pub(super) fn start(orders: &[Order]) -> anyhow::Result<Self> {
        let (sender, inbox) = channel();
        let hands = orders.iter().enumerate().map(|(place, order)| Hand::start(place, order, sender.clone()));
        Ok(Self { hands: hands.collect::<Result<_, _>>()?, inbox, said: Said::default() })
    }

    pub(super) fn count(&self) -> u32 {
        self.hands.len() as u32
    }

    /// The numbers of their processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.hands.iter().map(|hand| hand.child.id()).collect()
    }

    pub(super) fn tell_all(&mut self, message: &ToWorker) -> anyhow::Result<()> {
        self.hands.iter_mut().try_for_each(|hand| hand.tell(message))
    }

    /// Tells all that have not said their last word.
    pub(super) fn tell_unfinished(&mut self, message: &ToWorker) -> anyhow::Result<()> {
        self.hands.iter_mut().filter(|hand| !hand.is_done).try_for_each(|hand| hand.tell(message))
    }

    /// Tells one of them, by its number.
    pub(super) fn tell(&mut self, worker: u32, message: &ToWorker) -> anyhow::Result<()> {
        self.hands[worker as usize].tell(message)
    }

    /// Takes what workers say until `moment`.
    pub(super) fn listen_until(&mut self, moment: Moment, board: &mut Board) -> anyhow::Result<()> {
        self.wait(moment, board, |_| false).map(|_| ())
    }

    /// Takes what workers say until all have said what `is_enough` counts; false when it was `deadline` first.
    ///
    /// # Errors
    /// When a worker fails; or the node has gone away, where that is watched.
    pub(super) fn wait(
        &mut self,
        deadline: Moment,
        board: &mut Board,
        is_enough: impl Fn(&Said) -> bool,
    ) -> anyhow::Result<bool> {
        while !is_enough(&self.said) {
            let Some((place, message)) = self.next(deadline)? else { return Ok(false) };
            self.handle(place, message, board)?;
            ensure!(board.gone_since().is_none(), "the node has gone away");
        }
        Ok(true)
    }

    /// The next thing that a worker says, and which; `None` when it was `deadline` first.
    pub(super) fn next(&mut self, deadline: Moment) -> anyhow::Result<Option<(usize, FromWorker)>> {
        loop {
            let rest = deadline.since(Moment::now());
            if rest == Duration::ZERO {
                return Ok(None);
            }
            match self.inbox.recv_timeout(rest) {
                Ok((_, Some(FromWorker::Failed { reason }))) => bail!("{reason}"),
                Ok((place, Some(message))) => {
                    self.hands[place].is_done = matches!(message, FromWorker::Done(_) | FromWorker::Left);
                    return Ok(Some((place, message)));
                }
                Ok((place, None)) if !self.hands[place].is_done => bail!("a worker ended before its work"),
                Ok((_, None)) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => bail!("all workers are gone"),
            }
        }
    }

    /// Takes one thing that a worker said.
    pub(super) fn handle(
        &mut self,
        place: usize,
        message: FromWorker,
        board: &mut Board,
    ) -> anyhow::Result<()> {
        match message {
            FromWorker::Connected { resident_bytes } => {
                self.said.connected += 1;
                board.generator_bytes += resident_bytes;
            }
            FromWorker::Opened { groups } => {
                self.said.opened += 1;
                board.groups.extend(groups);
            }
            FromWorker::Settled => self.said.settled += 1,
            FromWorker::Sent { heads, reads, changes } => {
                self.said.sent += 1;
                board.changes.extend(changes);
                board.reads.extend(reads);
                board.handle_heads(heads);
            }
            FromWorker::Drained => self.said.drained += 1,
            FromWorker::Tick(tick) => board.handle_tick(place, &tick),
            FromWorker::Book(book) => board.evidence.books.push(book),
            FromWorker::Amended(amendments) => board.evidence.amendments.extend(amendments),
            FromWorker::Told(told) => board.evidence.told.extend(told),
            FromWorker::Attended(attendance) => board.evidence.attendance.merge(*attendance),
            FromWorker::Listed(list) => board.evidence.lists.push(list),
            FromWorker::Membership(book) => board.evidence.membership.merge(*book),
            FromWorker::Log { room, conversation, items, senders, shown, changes } => {
                board.evidence.changes.extend(changes.map(|changes| (room, changes)));
                board.evidence.shown.insert(room, shown);
                board.evidence.senders.insert(room, senders);
                board.handle_log(room, conversation, &items)?;
            }
            FromWorker::Seen(seen) => board.handle_seen(seen),
            FromWorker::End { user, stands, stays } => board.handle_end(user, &stands, stays),
            FromWorker::Done(totals) => {
                self.said.done += 1;
                board.watch.iter_mut().for_each(|watch| watch.note_done(place));
                board.handle_done(*totals)?;
            }
            // A step that ended in the moment in which the node was said to have gone away.
            FromWorker::Stepped { .. } if board.watch.is_none() => {}
            FromWorker::Failed { .. } => unreachable!("`next` ends with it"),
            FromWorker::Idle(_) | FromWorker::Left | FromWorker::Stepped { .. } => {
                bail!("worker {place} says what nobody asked it: {message:?}")
            }
        }
        Ok(())
    }
}

impl Hand {
    fn start(
        place: usize,
        order: &Order,
        sender: Sender<(usize, Option<FromWorker>)>,
    ) -> anyhow::Result<Self> {
        let own = env::current_exe().context("the path of this program is not known")?;
        let mut child = Command::new(own)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a worker could not be started")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a worker has no pipes");
        };
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).unwrap_or_else(|error| FromWorker::Failed {
                    reason: format!("a worker said what does not read: {error}"),
                });
                if sender.send((place, Some(message))).is_err() {
                    return;
                }
            }
            // Its end. Nobody listens any more when the run is over.
            let _ = sender.send((place, None));
        });
        let mut hand = Self { child, input, is_done: false };
        hand.tell(order)?;
        Ok(hand)
    }

    fn tell(&mut self, message: &impl serde::Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.input.write_all(&line).context("a worker is gone")?;
        Ok(self.input.flush()?)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for hand in &mut self.hands {
            let _ = hand.child.kill();
            let _ = hand.child.wait();
        }
    }
}
