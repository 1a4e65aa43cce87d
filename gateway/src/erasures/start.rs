//! What a start makes of the erasures that it finds.

use std::ops::Range;

use router::Places;
use router::conversation::Erased;

use super::{Erasure, ErasureAsk, LogLeft};
use crate::shard::OwnedLog;
use crate::store::OpenLog;

/// Fits erasures to the logs as they were read back. Whether anything of them had to change: then they are written before anybody is
/// served.
///
/// What stood in a log when it was opened is all that an erasure of before can concern. It reaches no further, where a crash, a cut or a
/// restored copy has made the log shorter: the positions that follow are given to what comes. And it reaches so far in a log that
/// was refused when it was asked for, as that has taken nothing since.
pub fn settle(erasures: &mut [Erasure], opened: &[OpenLog], places: &Places) -> bool {
    let mut is_changed = false;
    for erasure in erasures {
        let before = erasure.clone();
        for log in erasure.concerned(places).collect::<Vec<_>>() {
            let Some(open) = opened.iter().find(|open| open.log.number() == log) else {
                continue;
            };
            let begun = open.log.runs().last().map_or(0, |run| run.first_position - 1);
            let to = erasure.logs.entry(log).or_insert(begun);
            *to = (*to).min(begun);
            // Of a copy that was restored it may be on the disk again.
            if open.log.erasure_left(erasure.asked_at, *to).segments > 0 {
                erasure.done_at = None;
            }
        }
        is_changed |= *erasure != before;
    }
    is_changed
}

/// Puts erasures in force in a log, before it is read by anybody.
pub fn put_in_force(erasures: &[Erasure], owned: &mut OwnedLog) {
    for erasure in erasures {
        if let Some(to) = erasure.logs.get(&owned.number()) {
            owned.erase(erasure.asked_at, &erasure.subject, *to);
        }
    }
}

/// What is erased in one log, for whoever reads it without a node.
#[must_use]
pub fn erased_in(erasures: &[Erasure], log: u16, places: &Places) -> Erased {
    let mut erased = Erased::default();
    for erasure in erasures {
        if erasure.concerned(places).any(|concerned| concerned == log) {
            // How far it reaches in a log that was refused is said by the next start that serves it.
            erased.insert(&erasure.subject, erasure.logs.get(&log).copied().unwrap_or(u64::MAX));
        }
    }
    erased
}

/// What is asked of the shards about these of the erasures that are not done.
pub(super) fn ask_about(erasures: &[Erasure], which: Range<usize>) -> ErasureAsk {
    let pending = erasures.iter().filter(|erasure| erasure.done_at.is_none());
    let pending = pending.skip(which.start).take(which.len());
    let asked = pending.flat_map(|erasure| {
        erasure.logs.iter().map(|(log, to)| LogLeft {
            log: *log,
            mark: erasure.asked_at,
            to: *to,
            ..LogLeft::default()
        })
    });
    ErasureAsk { new: None, pending: asked.collect() }
}
