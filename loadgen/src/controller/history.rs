//! One history out of the parts that workers wrote: merged by time, with what only the end knows.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Lines, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;

use super::Board;
use crate::verify::{Members, Stay};

/// Merges `parts` into `path`, then removes them.
pub(super) fn merge(path: &Path, parts: &[PathBuf], board: &Board) -> anyhow::Result<()> {
    let shown = path.display();
    let file = File::create(path).with_context(|| format!("{shown}: the history could not be created"))?;
    let mut output = BufWriter::new(file);
    write_memberships(&mut output, board)?;
    let mut readers = parts.iter().map(|part| Part::open(part)).collect::<Result<Vec<_>, _>>()?;
    loop {
        let pending = readers.iter_mut().filter(|part| part.next.is_some());
        let Some(first) = pending.min_by_key(|part| part.time) else { break };
        if let Some(line) = first.next.take() {
            writeln!(output, "{line}")?;
        }
        first.advance()?;
    }
    write_logs(&mut output, board)?;
    output.flush().with_context(|| format!("{shown}: the history could not be written"))?;
    for part in parts {
        fs::remove_file(part)?;
    }
    Ok(())
}

/// Everybody is a member of its rooms from the first sequence on, and stays; where members change, as the log says.
fn write_memberships(output: &mut impl Write, board: &Board) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Membership<'a> {
        e: &'static str,
        u: &'a str,
        c: &'a str,
        lo: u64,
        hi: Option<u64>,
    }
    let members = Members::of(&board.evidence.changes);
    for (room, user, stays) in members.all() {
        let Some(conversation) = board.conversations.get(&room) else { continue };
        let name = board.plan.name(user);
        for Stay { from, until } in stays {
            line(output, &Membership { e: "mem", u: name.as_str(), c: conversation, lo: *from, hi: *until })?;
        }
    }
    for (room, conversation) in &board.conversations {
        if members.is_changing(*room) {
            continue;
        }
        for member in board.plan.room(*room).members() {
            let name = board.plan.name(member);
            line(output, &Membership { e: "mem", u: name.as_str(), c: conversation, lo: 1, hi: None })?;
        }
    }
    Ok(())
}

fn write_logs(output: &mut impl Write, board: &Board) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Log<'a> {
        e: &'static str,
        c: &'a str,
        items: Vec<(u64, String)>,
    }
    #[derive(Serialize)]
    struct End<'a> {
        e: &'static str,
        u: &'a str,
        c: &'a str,
    }
    for (room, conversation) in &board.conversations {
        let log = board.evidence.logs.get(room).map(Vec::as_slice).unwrap_or_default();
        let items = log.iter().map(|(seq, id)| (*seq, id.to_string())).collect();
        line(output, &Log { e: "log", c: conversation, items })?;
    }
    for told in &board.evidence.stays {
        if let (false, Some(conversation)) = (told.stays.is_empty(), board.conversations.get(&told.room)) {
            line(output, &End { e: "end", u: board.plan.name(told.user).as_str(), c: conversation })?;
        }
    }
    for (user, room, _) in &board.evidence.ends {
        if let Some(conversation) = board.conversations.get(room) {
            line(output, &End { e: "end", u: user, c: conversation })?;
        }
    }
    Ok(())
}

fn line(output: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *output, value)?;
    Ok(output.write_all(b"\n")?)
}

/// A part, with its next line read ahead.
struct Part {
    lines: Lines<BufReader<File>>,
    next: Option<String>,
    time: u64,
}

impl Part {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("{}: a part is missing", path.display()))?;
        let mut part = Self { lines: BufReader::new(file).lines(), next: None, time: 0 };
        part.advance()?;
        Ok(part)
    }

    fn advance(&mut self) -> anyhow::Result<()> {
        self.next = self.lines.next().transpose()?;
        if let Some(time) = self.next.as_deref().and_then(time_of) {
            self.time = time;
        }
        Ok(())
    }
}

/// The number behind `"t":`.
fn time_of(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("\"t\":")?;
    let digits = rest.find(|character: char| !character.is_ascii_digit())?;
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_line_is_found() {
        assert_eq!(time_of(r#"{"e":"ack","t":12,"m":"x"}"#), Some(12));
        assert_eq!(time_of(r#"{"e":"log"}"#), None);
    }
}
