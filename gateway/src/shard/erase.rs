//! Erasing: in force here from the turn in which it is heard of, and carried out by the logs that this shard owns.

use router::conversation::Subject;

use super::logs::OwnedLog;
use super::{Action, Shard};
use crate::erasures::ask::{ErasureAsk, LogLeft};
use crate::erasures::entry::concerned;

impl Shard {
    /// Puts an erasure in force, and says what is left to do of it and of others.
    pub(super) fn handle_erase(&mut self, ask: ErasureAsk) {
        let mut answer = Vec::new();
        if let Some((mark, subject)) = &ask.new {
            let logs: Vec<u16> = concerned(subject, &self.places).collect();
            for owned in self.logs.iter_mut().filter(|owned| logs.contains(&owned.number())) {
                answer.push(owned.erase_now(*mark, subject));
            }
        }
        let left = |asked: &LogLeft| {
            let owned = self.logs.iter().find(|owned| owned.number() == asked.log)?;
            Some(owned.erasure_left(asked.mark, asked.to))
        };
        answer.extend(ask.pending.iter().filter_map(left));
        self.actions.push(Action::Erased(answer));
    }
}

impl OwnedLog {
    /// All that was appended so far; what is still on its way here comes later and stays.
    fn erase_now(&mut self, mark: u64, subject: &Subject) -> LogLeft {
        let to = self.newest_position();
        self.erase(mark, subject, to);
        self.erasure_left(mark, to)
    }
}
