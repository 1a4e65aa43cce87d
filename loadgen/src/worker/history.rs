//! The record of every event for an independent judge: one JSON object a line, written as it happens.
//!
//! Times are nanoseconds of CLOCK_MONOTONIC. Every line begins with `e` and, where it has one, `t`, so
//! that files of several workers can be merged without reading further.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::Context;
use protocol::ids::{ConversationId, MessageId, UserId};

use crate::clock::Moment;

/// Whether something was sent while it happened or fed from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Live,
    Replay,
}

/// Which user, on which connection.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) user: &'a UserId,
    pub(super) connection: u64,
}

/// What happened, a line each. The first line that could not be written is what the end says.
pub(super) struct History {
    lines: BufWriter<File>,
    failed: Option<std::io::Error>,
}

impl History {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)
            .with_context(|| format!("{}: the history could not be created", path.display()))?;
        Ok(Self { lines: BufWriter::with_capacity(256 * 1024, file), failed: None })
    }

    pub(super) fn send(&mut self, at: Moment, due: Moment, who: Who<'_>, c: ConversationId, m: MessageId) {
        let Who { user, connection } = who;
        self.line(format_args!(
            r#"{{"e":"send","t":{},"due":{},"u":"{user}","k":{connection},"c":"{c}","m":"{m}"}}"#,
            at.0, due.0
        ));
    }

    pub(super) fn ack(&mut self, at: Moment, m: MessageId, seq: u64) {
        self.line(format_args!(r#"{{"e":"ack","t":{},"m":"{m}","s":{seq}}}"#, at.0));
    }

    pub(super) fn nak(&mut self, at: Moment, m: MessageId) {
        self.line(format_args!(r#"{{"e":"nak","t":{},"m":"{m}"}}"#, at.0));
    }

    pub(super) fn receive(
        &mut self,
        at: Moment,
        who: Who<'_>,
        c: ConversationId,
        (seq, m): (u64, MessageId),
        source: Source,
    ) {
        let Who { user, connection } = who;
        let source = match source {
            Source::Live => "live",
            Source::Replay => "replay",
        };
        self.line(format_args!(
            r#"{{"e":"recv","t":{},"u":"{user}","k":{connection},"c":"{c}","s":{seq},"m":"{m}","src":"{source}"}}"#,
            at.0
        ));
    }

    pub(super) fn open(&mut self, at: Moment, who: Who<'_>, c: ConversationId, from: u64) {
        let Who { user, connection } = who;
        self.line(format_args!(
            r#"{{"e":"open","t":{},"u":"{user}","k":{connection},"c":"{c}","from":{from}}}"#,
            at.0
        ));
    }

    /// The rest goes to disk. An error when any line of it is missing.
    pub(super) fn close(mut self) -> std::io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.lines.flush(),
        }
    }

    /// The run goes on over a full disk, so that what else it measured is not lost.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        if self.failed.is_none() {
            self.failed = writeln!(self.lines, "{line}").err();
        }
    }
}
