//! A node that goes away in a run and does not come back: how that is known, and what is known then.

use std::{collections::HashMap, time::Duration};

use anyhow::ensure;

use super::{Board, crew::Crew};
use crate::{
    clock::Moment,
    link::{Reach, ToWorker},
    plan::RoomIndex,
    report::{GONE_AFTER, GoneReport},
};

/// How long workers may take to hand over what they know, which asks nobody anything.
const ABANDON_WAIT_MAX: Duration = Duration::from_secs(60);

/// Whether any worker still reaches the node.
pub(super) struct Watch {
    workers: Vec<Reach>,
    /// When one of them did last.
    reached_at: Moment,
}

impl Watch {
    /// Of workers that have users; those behind them are none of its business.
    pub(super) fn new(workers: u32) -> Self {
        Self { workers: vec![Reach::Undecided; workers as usize], reached_at: Moment::default() }
    }

    pub(super) fn note(&mut self, worker: usize, reach: Reach, now: Moment) {
        if let Some(known) = self.workers.get_mut(worker) {
            *known = reach;
        }
        if reach == Reach::Reached {
            self.reached_at = now;
        }
    }

    /// It has done its work, and asks for nothing more.
    pub(super) fn note_done(&mut self, worker: usize) {
        if let Some(known) = self.workers.get_mut(worker) {
            *known = Reach::Undecided;
        }
    }

    /// Since when nobody reached it and somebody wants to, if that is so long that it has gone away. Of workers all of whose users are away
    /// nothing follows; that these cannot come back either makes it no shorter.
    pub(super) fn gone_since(&self, now: Moment) -> Option<Moment> {
        let mut first: Option<Moment> = None;
        for reach in &self.workers {
            match reach {
                Reach::Reached => return None,
                Reach::UnreachedSince(since) => first = Some(first.unwrap_or(*since).min(*since)),
                Reach::Undecided => {}
            }
        }
        first.map(|since| since.max(self.reached_at)).filter(|since| now.since(*since) >= GONE_AFTER)
    }
}

/// Has all workers hand over what they know, and adds it up. Of what the logs hold that were not read nothing is known.
pub(super) fn abandon(
    crew: &mut Crew,
    board: &mut Board,
    start: Moment,
    since: Moment,
) -> anyhow::Result<()> {
    let seconds = GONE_AFTER.as_secs();
    board.progress.say(&format!("the node has gone away: nobody could connect for {seconds} s"));
    board.watch = None;
    crew.tell_unfinished(&ToWorker::Abandon)?;
    let (workers, deadline) = (crew.count(), Moment::now().after(ABANDON_WAIT_MAX));
    ensure!(
        crew.wait(deadline, board, |said| said.done == workers)?,
        "the node has gone away, and workers did not say in time what they know"
    );
    sum_up(board, start, since);
    Ok(())
}

/// What is known when all workers have said what they know.
fn sum_up(board: &mut Board, start: Moment, since: Moment) {
    let Board { evidence, seen, plan, counts, .. } = board;
    let unread = evidence.books.iter().filter(|book| !evidence.logs.contains_key(&book.room));
    let acked_unseen = unseen(unread.map(|book| (book.room, book.acked.as_slice())), seen);
    let (rooms, logs_read) = (plan.rooms_count() as usize, evidence.logs.len());
    // Who was not there at the end may have lost what it knew with its connection.
    let is_answered = counts.unanswered == 0 && counts.reads_unanswered == 0;
    let is_settled = is_answered && counts.online_at_end == u64::from(plan.users_count());
    evidence.keep_what_was_read(rooms, is_settled);
    board.gone = Some(GoneReport {
        from_seconds: since.since(start).as_secs_f64(),
        after_seconds: GONE_AFTER.as_secs(),
        acked_unseen,
        logs_read,
        logs_unread: rooms.saturating_sub(logs_read),
    });
}

/// Of what was acknowledged, how much not all members had seen. Workers that had ended before had seen everything.
fn unseen<'a>(
    acked: impl Iterator<Item = (RoomIndex, &'a [u64])>,
    seen_by_all: &HashMap<RoomIndex, u64>,
) -> u64 {
    let unseen = acked.map(|(room, acked)| {
        let seen = seen_by_all.get(&room).copied().unwrap_or(u64::MAX);
        acked.iter().filter(|seq| **seq > seen).count() as u64
    });
    unseen.sum()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use protocol::ids::MessageId;

    use super::{
        super::{Costs, progress::Progress},
        *,
    };
    use crate::{
        plan::{Mix, Plan},
        verify::{self, Book, Kind},
    };

    #[test]
    fn a_node_has_gone_when_no_worker_has_reached_it_for_a_while() {
        let mut watch = Watch::new(2);
        let at = |seconds: u64| Moment(seconds * 1_000_000_000);
        let unreached = |seconds| Reach::UnreachedSince(at(seconds));
        let while_gone = GONE_AFTER.as_secs();
        watch.note(1, Reach::Reached, at(4));
        watch.note(0, unreached(5), at(5));
        watch.note(1, Reach::Reached, at(7));
        assert_eq!(watch.gone_since(at(1000)), None, "the other one reaches it");
        watch.note(1, unreached(7), at(8));
        assert_eq!(watch.gone_since(at(6 + while_gone)), None);
        assert_eq!(watch.gone_since(at(7 + while_gone)), Some(at(7)));
        watch.note(0, Reach::Reached, at(8));
        assert_eq!(watch.gone_since(at(1000)), None, "it came back");
        watch.note_done(0);
        assert_eq!(watch.gone_since(at(8 + while_gone)), Some(at(8)), "who has done its work does not count");
        watch.note_done(1);
        assert_eq!(watch.gone_since(at(1000)), None, "nobody wants anything of it");
        // A worker without users dials nobody.
        watch.note(2, Reach::Undecided, at(9));
    }

    #[test]
    fn who_is_away_and_cannot_come_back_begins_nothing_anew() {
        let mut watch = Watch::new(2);
        let at = |seconds: u64| Moment(seconds * 1_000_000_000);
        watch.note(0, Reach::UnreachedSince(at(5)), at(6));
        watch.note(1, Reach::UnreachedSince(at(24)), at(24));
        assert_eq!(watch.gone_since(at(24)), None);
        assert_eq!(watch.gone_since(at(25)), Some(at(5)));
    }

    /// Two of three conversations had been read, one of them has lost what was acknowledged.
    fn board_of_a_loss() -> Board {
        let plan = Plan::new("t", 12, Mix::default());
        let mut board = Board::new(Rc::new(plan), Progress::new(1), Costs::new(None));
        let (mut book, id) = (Book::default(), |number: u8| MessageId([number; 16]));
        for room in 0..3 {
            (1..=3).for_each(|seq| book.acknowledge(RoomIndex(room), seq, id(10 * room as u8 + seq as u8)));
        }
        book.close();
        // What comes while the logs are read may be behind what is read of them.
        book.acknowledge(RoomIndex(0), 4, id(4));
        board.evidence.books = book.into_rooms().collect();
        for (room, log) in [(0, &[1, 2][..]), (1, &[11, 12, 13])] {
            let log = (1..).zip(log).map(|(seq, number)| (seq, id(*number).to_string())).collect::<Vec<_>>();
            board.handle_log(RoomIndex(room), format!("conversation {room}"), &log).expect("ids");
        }
        board.evidence.ends = (0..3).map(|room| ("somebody".to_owned(), RoomIndex(room), 3)).collect();
        board.seen = (0..3).map(|room| (RoomIndex(room), 1)).collect();
        board.counts.online_at_end = 12;
        board
    }

    #[test]
    fn a_loss_that_a_log_proves_is_found_although_another_log_was_not_read() {
        let judged = |mut board: Board| {
            sum_up(&mut board, Moment(0), Moment(5_000_000_000));
            let gone = board.gone.expect("it has gone");
            assert_eq!((gone.logs_read, gone.logs_unread), (2, board.plan.rooms_count() as usize - 2));
            assert_eq!(gone.acked_unseen, 2, "of the one that was not read");
            assert_eq!(board.conversations.len(), 2, "the history has what was read");
            verify::judge(&board.evidence).expect("the book was not cut").counts
        };
        assert_eq!(judged(board_of_a_loss()), [(Kind::AckedLost, 1), (Kind::Hole, 1)].into());
        // What had no answer may be what a reader has not seen, or has; what was promised was promised.
        let mut unsettled = [board_of_a_loss(), board_of_a_loss(), board_of_a_loss()];
        unsettled[0].counts.unanswered = 1;
        unsettled[1].counts.reads_unanswered = 1;
        unsettled[2].counts.online_at_end = 11;
        for board in unsettled {
            assert_eq!(judged(board), [(Kind::AckedLost, 1)].into());
        }
    }

    #[test]
    fn what_was_acknowledged_behind_the_slowest_member_is_undecided() {
        let seen = HashMap::from([(RoomIndex(0), 3), (RoomIndex(1), 9)]);
        let acked: [(RoomIndex, &[u64]); 3] =
            [(RoomIndex(0), &[2, 3, 4, 5]), (RoomIndex(1), &[9]), (RoomIndex(2), &[1, 2])];
        assert_eq!(unseen(acked.into_iter(), &seen), 2);
    }
}
