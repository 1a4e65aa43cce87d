//! `gatehouse log`: what stands in the logs of a data directory, said without a node.
//!
//! `backup` copies, and `restore` makes a directory from that. `repair` alone changes a log, and keeps what was there. `stat`, `verify` and `dump` only read. Where a node has the directory open they read up to the newest durable mark that they
//! find at their start, which never changes again, and take nothing from the node but a part of the disk: no lock is held, no file
//! is made, no batch is written again. Where no node runs they read to the end and say what a torn batch left there.
//!
//! **Invariant:** what is read from a segment is read past the page cache where the file system has that, as the node does it: what
//! counts is what the disk has.

mod backup;
pub(crate) mod data;
mod dump;
pub mod manifest;
mod progress;
mod repair;
mod restore;
mod shadow;
mod stat;
mod verify;

use std::io::{self, BufWriter, ErrorKind};
use std::path::PathBuf;

use clap::{Args, Subcommand};

pub use backup::BackupFlags;
pub use data::{Data, LogReader, Piece, Segment, Settled};
pub use dump::DumpFlags;
pub use repair::RepairFlags;
pub use restore::RestoreFlags;

/// Exit code of logs that are sound.
pub const EXIT_SOUND: u8 = 0;
/// Exit code of logs that are damaged.
pub const EXIT_DAMAGED: u8 = 1;

/// Stands under the help of `gatehouse log`.
pub const NOTES: &str = "\
Example:     gatehouse log stat --data /var/lib/gatehouse
Exit codes:  0 done   1 damaged   2 could not be read or written";

const STAT_NOTES: &str = "\
Changes nothing. Where a node runs: up to the newest durable mark.
Example:     gatehouse log stat --data /var/lib/gatehouse
Exit codes:  0 done   1 a log is damaged   2 could not be read";

const VERIFY_NOTES: &str = "\
Reads every batch, record and index file, also behind damage; changes nothing.
Example:     gatehouse log verify --data /var/lib/gatehouse --json > found.json
Exit codes:  0 sound   1 damaged   2 could not be read";

const DUMP_NOTES: &str = "\
Prints what people wrote. Reads the log from its front; changes nothing.
Example:     gatehouse log dump --data ./data --user alice --limit 20
Exit codes:  0 done   1 the log is damaged where it was read   2 unreadable";

const BACKUP_NOTES: &str = "\
Beside a node that runs: up to what was acknowledged when it began. Into the
same directory again it copies only what is new. It holds store.toml, which is
secret, revocations.json and erasures.json; no keys.
Example:     gatehouse log backup --data ./data --to /mnt/backup/gatehouse
Exit codes:  0 done   2 could not; the backup before is as it was";

const REPAIR_NOTES: &str = "\
Without --cut-at it mends only what costs nothing. A backup loses less than a
cut. Files before are kept as *.damaged-<seconds since 1970>.
Example:     gatehouse log repair --data ./data --log 0 \\
                 --cut-at seg-0000000000400000.log:4096
Exit codes:  0 the log is sound   1 it is damaged still   2 could not, in use";

const RESTORE_NOTES: &str = "\
Checks every hash first, and never writes over what is there. Cursors of after
the backup are reset. What was erased since is there again: put the erasures.json
of today beside it before a node is started.
Example:     gatehouse log restore --from /mnt/backup/gatehouse --data ./data
Exit codes:  0 done   1 the backup is damaged   2 could not be read or written";

/// What can be done with logs.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Copy the logs of a node, also while it runs
    #[command(after_help = BACKUP_NOTES)]
    Backup(BackupFlags),
    /// Print the records of a conversation, or of a user's inbox
    #[command(after_help = DUMP_NOTES)]
    Dump(DumpFlags),
    /// Mend a damaged log, or cut it at a damage; no node may run
    #[command(after_help = REPAIR_NOTES)]
    Repair(RepairFlags),
    /// Make a data directory from a backup
    #[command(after_help = RESTORE_NOTES)]
    Restore(RestoreFlags),
    /// Say how much stands in each log, and where it ends
    #[command(after_help = STAT_NOTES)]
    Stat(ReadFlags),
    /// Check every byte of the logs, and name what is damaged
    #[command(after_help = VERIFY_NOTES)]
    Verify(ReadFlags),
}

/// Which directory, and how it is said.
#[derive(Args, Clone, Debug)]
pub struct ReadFlags {
    /// Data directory of the node
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Does it, with its report on standard output. The exit code.
///
/// # Errors
/// In words for an operator: what could not be read or written, and what to do.
pub fn run(command: &LogCommand) -> anyhow::Result<u8> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match command {
        LogCommand::Backup(flags) => backup::run(flags, &mut out),
        LogCommand::Dump(flags) => dump::run(flags, &mut out),
        LogCommand::Repair(flags) => repair::run(flags, &mut out),
        LogCommand::Restore(flags) => restore::run(flags, &mut out),
        LogCommand::Stat(flags) => stat::run(flags, &mut out),
        LogCommand::Verify(flags) => verify::run(flags, &mut out),
    };
    match done {
        // Whoever read it has seen enough: `gatehouse log dump | head`.
        Err(error) if is_broken_pipe(&error) => Ok(EXIT_SOUND),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// `2026-11-24T14:12:00.000Z`, of milliseconds since 1970.
fn time(millis: u64) -> String {
    let (days, second) = ((millis / 86_400_000) as i64, millis / 1000 % 86_400);
    // Days to a date of the proleptic Gregorian calendar, whose years begin in March here.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + carry;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_dates() {
        for (millis, date) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(time(millis), date);
        }
    }
}
