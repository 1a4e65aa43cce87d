//! What the controller says, read by a thread of its own because a pipe blocks.

use std::{
    collections::HashMap,
    io::BufRead,
    rc::Rc,
    sync::mpsc::{Receiver, TryRecvError, channel},
    time::Duration,
};

use anyhow::bail;
use monoio::time::sleep;

use super::Worker;
use crate::{link::ToWorker, plan::RoomIndex};

/// How often the thread is asked. Well below the notice that an outage is given with.
const LOOK_EVERY: Duration = Duration::from_millis(2);

pub(super) struct Inbox(Receiver<ToWorker>);

impl Inbox {
    /// Starts to read standard input. Its end is the end of the process: nobody is left to report to.
    pub(super) fn start() -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let Ok(message) = serde_json::from_str(&line) else { break };
                if sender.send(message).is_err() {
                    break;
                }
            }
            std::process::exit(0);
        });
        Self(receiver)
    }

    /// The next thing to do.
    pub(super) async fn next(&mut self) -> anyhow::Result<ToWorker> {
        loop {
            match self.0.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Empty) => sleep(LOOK_EVERY).await,
                Err(TryRecvError::Disconnected) => bail!("the controller is gone"),
            }
        }
    }

    /// Takes what comes while the schedule runs into the state.
    pub(super) async fn listen(mut self, worker: Rc<Worker>) {
        while let Ok(message) = self.next().await {
            worker.with(|state| match message {
                ToWorker::Outage { from } => state.desk.outage.begin(from),
                ToWorker::Settled { until } => state.desk.outage.end(until),
                ToWorker::Until { heads, reads, changes } => {
                    state.desk.changes = changes;
                    state.desk.watching.reads =
                        reads.into_iter().map(|(user, room, seq)| ((user, room), seq)).collect();
                    state.desk.heads = Some(heads);
                }
                ToWorker::Finish => state.desk.finishing = true,
                ToWorker::Abandon => state.desk.is_abandoned = true,
                ToWorker::Open | ToWorker::Start { .. } | ToWorker::Step(_) => {}
            });
        }
    }

    /// Takes what comes step by step into the state, where it waits for its turn; that the node has gone away does not.
    pub(super) async fn queue(mut self, worker: Rc<Worker>) {
        while let Ok(message) = self.next().await {
            worker.with(|state| match message {
                ToWorker::Abandon => state.desk.is_abandoned = true,
                message => state.desk.orders.push_back(message),
            });
        }
    }

    /// The next thing of those that wait.
    pub(super) async fn order(worker: &Rc<Worker>) -> ToWorker {
        loop {
            if let Some(order) = worker.with(|state| state.desk.orders.pop_front()) {
                return order;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// How far everybody has to read.
    pub(super) async fn heads(worker: &Rc<Worker>) -> HashMap<RoomIndex, u64> {
        loop {
            if let Some(heads) = worker.with(|state| state.desk.heads.take()) {
                return heads.into_iter().collect();
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Until everybody is done.
    pub(super) async fn finish(worker: &Rc<Worker>) {
        while !worker.with(|state| state.desk.finishing) {
            sleep(LOOK_EVERY).await;
        }
    }
}
