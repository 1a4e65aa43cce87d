//! Calls at a start: from where on users are called.

use std::path::Path;

use super::marks::{Mark, MarksFile, of_log};
use crate::store::OpenLog;

/// Fits the marks to the logs as they were read back: one that has none, or that is shorter than its mark, begins at its end. Written
/// before anybody is served, so that from now on nobody is forgotten; where that cannot be, chat goes on without.
#[must_use]
pub fn settle(directory: &Path, opened: &mut [OpenLog]) -> Vec<Mark> {
    let file = MarksFile::of(directory);
    let mut marks = file.read();
    let before = marks.clone();
    for open in opened {
        let (log, end) = (open.log.number(), open.log.durable().position());
        let mark = of_log(&marks, log).filter(|mark| *mark <= end);
        open.unjudged.pass(mark);
        if mark.is_none() {
            tracing::info!(log, "no mark of push calls: users are called of what comes from now on");
            marks.retain(|mark| mark.log != log);
            marks.push(Mark { log, mark: end });
        }
        let conversations = open.unjudged.conversations();
        if conversations > 0 {
            tracing::info!(log, conversations, "conversations in which nobody may have been called yet");
        }
    }
    if marks != before
        && let Err(error) = file.write(&marks)
    {
        tracing::error!(
            %error,
            "the marks of push calls could not be written: until they can, a crash forgets who was to be called; make room in the data \
             directory"
        );
    }
    marks
}
