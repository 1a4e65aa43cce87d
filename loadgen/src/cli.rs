//! The command line: what can be said. What is done about it is the controller's business.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::{
    compare::Contender,
    letter::{LETTER_BYTES_MAX, LETTER_BYTES_MIN},
    link::Forms,
    plan::{Mix, Think, USERS_MAX, USERS_MIN},
    report::{Bound, Limit},
};

/// Exit code of a run whose verdict is good.
pub(crate) const EXIT_PASSED: u8 = 0;
/// Exit code of a run whose verdict is bad.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit code of a run that proves nothing: the generator was late, or could not run.
pub(crate) const EXIT_INVALID: u8 = 2;

/// Most messages a second: more than a machine sends.
pub(crate) const RATE_MAX: u32 = 1_000_000;
/// Most changes of members a second: more than groups have members to change.
pub(crate) const CHURN_MAX: u32 = 10_000;
/// The longest run: a day.
pub(crate) const SECONDS_MAX: u32 = 86_400;
/// Most worker processes: more than a machine has cores for.
pub(crate) const WORKERS_MAX: u32 = 64;
/// Bytes of a text.
pub(crate) const USUAL_PAYLOAD: usize = 128;

/// With the commit: of two builds of one version, figures differ.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("LOADGEN_COMMIT"), ")");

const CHECK_NOTES: &str = "\
Half-way it is killed with SIGKILL. Good: nothing acknowledged is lost, nothing
is doubled, readers see dense order, p99 below 200 ms outside the outage.
Example:     loadgen check --users 1000 --rate 2000 --html check.html
Exit codes:  0 good   1 bad   2 invalid (generator late) or could not run";

/// A help of many flags, still on one screen.
const DENSE: &str = "{about}\n{usage-heading} {usage}\n{options}{after-help}";

const RUN_NOTES: &str = "\
Example:     loadgen run --url ws://127.0.0.1:7100 --data d --scenario day.toml
Exit codes:  0 good   1 bad   2 invalid (late, node gone for 20 s) or not run";

const IDLE_NOTES: &str = "\
Each sends a ping every 30 s. Good: all connect, stay, and get every pong.
Limits:      rss_kib (a connection), growth_percent (of the node, from before the
             first round to behind the last), pong.p50 .p90 .p99 .p99.9 .max
Example:     loadgen idle --url ws://127.0.0.1:7100 --data ./data \\
                 --connections 100000 --seconds 120
Exit codes:  0 good   1 bad   2 invalid (generator late) or could not run";

const STORM_NOTES: &str = "\
The crowd connects, is dropped, misses messages, comes back, leaves at once.
Good: all in the times asked for, nothing lost or doubled, p99 below 200 ms.
Limits:      connects_per_second (at least), return_seconds (until caught up),
             rss_times (of what holds all), delivery.p50 .p90 .p99 .p99.9 .max
Example:     loadgen storm --url ws://127.0.0.1:7100 --data ./data --users 20000
Exit codes:  0 good   1 bad   2 invalid (late, node gone for 20 s) or not run";

const SLOW_NOTES: &str = "\
It reads all, nothing, slowly, and all again, while others chat. Good: none is
closed, nothing lost, 64 KiB for each at most, p99 of the others below 200 ms.
Limits:      reader_kib, delivery_times (p99 of that alone),
             delivery.p50 .p90 .p99 .p99.9 .max
Example:     loadgen slow --url ws://127.0.0.1:7100 --data ./data --users 1000
Exit codes:  0 good   1 bad   2 invalid (late, node gone for 20 s) or not run";

const SOAK_NOTES: &str = "\
Each round is a run with users of its own and a verdict of its own. Good: all
rounds are, the node has not grown between the second quarter and the last,
and its p99 has not doubled.
Example:     loadgen soak --url ws://127.0.0.1:7100 --data ./data \\
                 --users 1000 --rate 2000 --seconds 60 --minutes 480
Exit codes:  0 good   1 bad   2 invalid (generator late) or could not run";

const COMPARE_NOTES: &str = "\
The first as a multiple of each other, measured in turn, each at times first.
What each does for a message stands beside it: JetStream syncs where its server
is told to, by `jetstream { sync_interval: always }`. Give two echo services to
compare those.
Example:     loadgen compare --data ./data gatehouse://127.0.0.1:7100 \\
                 jetstream://127.0.0.1:4222
Exit codes:  0 shown   2 could not be";

const FLOOR_COMPARE_NOTES: &str = "\
Example:     floor --save floor.json && loadgen floor-compare run.json floor.json
Exit codes:  0 shown   2 could not be";

/// Load for a chat gateway, and a verdict.
#[derive(Debug, Parser)]
#[command(
    name = "loadgen",
    version = VERSION,
    disable_help_subcommand = true,
    after_help = "\
Example:     loadgen check
Exit codes:  0 good   1 bad   2 invalid or could not run"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a node, load it, kill it half-way, and judge
    #[command(after_help = CHECK_NOTES, help_template = DENSE)]
    Check(CheckFlags),
    /// Load a node that runs already, and judge
    #[command(after_help = RUN_NOTES, help_template = DENSE)]
    Run(RunFlags),
    /// Hold idle users, and say what each costs
    #[command(after_help = IDLE_NOTES)]
    Idle(IdleFlags),
    /// Have a crowd come, fall behind, come back and leave
    #[command(after_help = STORM_NOTES)]
    Storm(StormFlags),
    /// Have a crowd read slowly, or not at all
    #[command(after_help = SLOW_NOTES)]
    Slow(SlowFlags),
    /// Load a node for hours, round by round, and see that it stays as it is
    #[command(after_help = SOAK_NOTES, help_template = DENSE)]
    Soak(SoakFlags),
    /// Measure a node beside other servers, in turn
    #[command(after_help = COMPARE_NOTES)]
    Compare(CompareFlags),
    /// Show a run as multiples of what the bare machine can do
    #[command(after_help = FLOOR_COMPARE_NOTES)]
    FloorCompare {
        /// What `run --json` wrote
        run: PathBuf,
        /// What `floor --save` wrote, on the same machine
        floor: PathBuf,
    },
    /// A node that ends when we do: the program and its arguments
    #[command(hide = true)]
    Node {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// One worker of a run, told what to do on standard input
    #[command(hide = true)]
    Worker,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CheckFlags {
    /// Users, all online
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = users())]
    pub(crate) users: u32,
    /// Messages a second
    #[arg(long, value_name = "R", default_value_t = 2000, value_parser = rate())]
    pub(crate) rate: u32,
    /// How long messages are sent
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = seconds(4))]
    pub(crate) seconds: u32,
    /// Judge correctness alone; times are only reported
    #[arg(long)]
    pub(crate) no_timing: bool,
    /// The node's program [default: beside this, or a build]
    #[arg(long, value_name = "PATH")]
    pub(crate) gatehouse: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) shape: ShapeFlags,
    #[command(flatten)]
    pub(crate) outputs: OutputFlags,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RunFlags {
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Users, all online
    #[arg(long, value_name = "N", value_parser = users(), required_unless_present = "scenario")]
    pub(crate) users: Option<u32>,
    /// Messages a second; latency counts from when one is due
    #[arg(long, value_name = "R", value_parser = rate(), required_unless_present = "scenario")]
    pub(crate) rate: Option<u32>,
    /// How long messages are sent
    #[arg(long, value_name = "S", value_parser = seconds(1), required_unless_present = "scenario")]
    pub(crate) seconds: Option<u32>,
    /// All of that in a file, and what the messages are like
    #[arg(long, value_name = "FILE", conflicts_with_all = ["users", "rate", "seconds", "payload", "mix", "read_percent", "think_ms", "viewers", "churn", "absent_percent", "search_percent", "form", "workers"])]
    pub(crate) scenario: Option<PathBuf>,
    /// Judge correctness alone
    #[arg(long)]
    pub(crate) no_timing: bool,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) shape: ShapeFlags,
    #[command(flatten)]
    pub(crate) outputs: OutputFlags,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SoakFlags {
    #[command(flatten)]
    pub(crate) run: RunFlags,
    /// No round begins after that
    #[arg(long, value_name = "M", required_unless_present = "rounds", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) minutes: Option<u32>,
    /// So many rounds, instead; four judge growth
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rounds: Option<u32>,
    /// Bad if the node grows by more, in percent
    #[arg(long, value_name = "P", default_value_t = 10.0)]
    pub(crate) growth: f64,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct IdleFlags {
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Users, each with one connection
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(USERS_MAX)))]
    pub(crate) connections: u32,
    /// How long all of them are held
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// Connections made, and in the end closed, a second
    #[arg(long, value_name = "R", default_value_t = 2000, value_parser = rate())]
    pub(crate) rate: u32,
    /// How often all of them come, stay and leave
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// The node's process here, to measure it
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// Bad unless below, as rss_kib=2
    #[arg(long, value_name = "NAME=N", value_parser = Bound::of_idle)]
    pub(crate) limit: Vec<Bound>,
    /// Everything measured, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A report for people, in one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) floor: FloorFlag,
}

/// A crowd beside users who chat.
#[derive(Args, Clone, Debug)]
pub(crate) struct CrowdFlags {
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Users of the crowd
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(USERS_MAX)))]
    pub(crate) users: u32,
    /// Users who chat meanwhile
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = users())]
    pub(crate) established: u32,
    /// Messages of theirs a second
    #[arg(long, value_name = "R", default_value_t = 1000, value_parser = rate())]
    pub(crate) rate: u32,
    /// Judge correctness alone
    #[arg(long)]
    pub(crate) no_timing: bool,
    /// The node's process here, to measure it
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// Everything measured, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A report for people, in one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) floor: FloorFlag,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct StormFlags {
    #[command(flatten)]
    pub(crate) crowd: CrowdFlags,
    /// Of the crowd, on their way at the same time
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = rate())]
    pub(crate) at_once: u32,
    /// Messages missed in each of five conversations
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) backlog: u32,
    /// Drop the system's page cache before the return (as root)
    #[arg(long)]
    pub(crate) drop_cache: bool,
    /// Bad unless kept, as connects_per_second=8000
    #[arg(long, value_name = "NAME=N", value_parser = Bound::of_storm)]
    pub(crate) limit: Vec<Bound>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SlowFlags {
    #[command(flatten)]
    pub(crate) crowd: CrowdFlags,
    /// Of each part, 2 to 25: no reader is closed for it
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=25))]
    pub(crate) seconds: u32,
    /// Messages a second for the crowd
    #[arg(long, value_name = "R", default_value_t = 300, value_parser = rate())]
    pub(crate) crowd_rate: u32,
    /// What a slow reader reads, in kbit/s
    #[arg(long, value_name = "K", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) kbit: u32,
    /// Bad unless below, as reader_kib=64
    #[arg(long, value_name = "NAME=N", value_parser = Bound::of_slow)]
    pub(crate) limit: Vec<Bound>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CompareFlags {
    /// gatehouse://, jetstream://, nats:// or ws:// (an echo service), and HOST:PORT
    #[arg(required = true, num_args = 2..=6, value_name = "SERVER")]
    pub(crate) contenders: Vec<Contender>,
    /// The node's data directory, whose key signs the tokens
    #[arg(long, value_name = "DIR", conflicts_with = "key")]
    pub(crate) data: Option<PathBuf>,
    /// A file with the node's HS256 secret, instead
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Senders, each with a receiver and one message under way
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub(crate) pairs: u32,
    /// Size of a text
    #[arg(long, value_name = "BYTES", default_value_t = USUAL_PAYLOAD, value_parser = payload)]
    pub(crate) payload: usize,
    /// Of one server's round
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = seconds(1))]
    pub(crate) seconds: u32,
    /// How often each has its turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Everything measured, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) floor: FloorFlag,
}

impl CompareFlags {
    /// The file that tokens are signed with.
    ///
    /// # Errors
    /// When none is named.
    pub(crate) fn secret(&self) -> anyhow::Result<PathBuf> {
        let secret = self.key.clone().or_else(|| Some(self.data.as_ref()?.join("dev.key")));
        secret.context("a node asks for tokens: give --data DIR, or --key FILE")
    }
}

/// Which node, and whose users.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeFlags {
    /// Where the node listens, as in ws://127.0.0.1:7100
    #[arg(long)]
    pub(crate) url: String,
    /// The node's data directory; its key signs tokens
    #[arg(long, value_name = "DIR", required_unless_present = "key", conflicts_with = "key")]
    pub(crate) data: Option<PathBuf>,
    /// A file with the node's HS256 secret, instead
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

impl NodeFlags {
    /// The file that tokens are signed with.
    pub(crate) fn secret(&self) -> PathBuf {
        match (&self.key, &self.data) {
            (Some(key), _) => key.clone(),
            (None, data) => data.as_deref().map(|data| data.join("dev.key")).unwrap_or_default(),
        }
    }
}

/// What decides, beside correctness.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LimitFlags {
    /// Bad unless below, as delivery.p99=50
    #[arg(long, value_name = "NAME=MS")]
    pub(crate) limit: Vec<Limit>,
}

/// What the messages are like.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShapeFlags {
    /// Size of a text
    #[arg(long, value_name = "BYTES", default_value_t = USUAL_PAYLOAD, value_parser = payload)]
    pub(crate) payload: usize,
    /// What is sent
    #[arg(long, value_name = "MIX", default_value_t = Mix::default())]
    pub(crate) mix: Mix,
    /// Deliveries answered with `read`, of 100 [default: 0]
    #[arg(long, value_name = "P", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) read_percent: u32,
    /// A look before each, as 200..3000 [default: 0]
    #[arg(long, value_name = "MS", default_value_t = Think::default(), hide_default_value = true)]
    pub(crate) think_ms: Think,
    /// Users that view conversations [default: 0]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=i64::from(USERS_MAX)))]
    pub(crate) viewers: u32,
    /// Changes of group members a second [default: 0]
    #[arg(long, value_name = "R", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=i64::from(CHURN_MAX)))]
    pub(crate) churn: u32,
    /// Users away for a part, of 100 [default: 0]
    #[arg(long, value_name = "P", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) absent_percent: u32,
    /// Messages searched for, of 100 [default: 0]
    #[arg(long, value_name = "P", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) search_percent: u32,
    /// Protocol: binary, json or mixed
    #[arg(long, value_enum, default_value = "mixed", hide_possible_values = true)]
    pub(crate) form: Forms,
    /// Worker processes [default: what files allow]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(1..=i64::from(WORKERS_MAX)))]
    pub(crate) workers: Option<u32>,
}

/// What figures are shown as multiples of.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FloorFlag {
    /// What `floor --save` wrote [default: floor.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) floor: Option<PathBuf>,
}

/// Where results go, besides standard output.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct OutputFlags {
    /// Everything measured, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A report for people, in one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Every event, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) floor: FloorFlag,
}

impl OutputFlags {
    /// Whether the files can be written: to find out after the run would cost the run.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        [&self.json, &self.html, &self.history]
            .into_iter()
            .flatten()
            .try_for_each(|path| check_writable(path))
    }
}

/// Whether a report can be written there, of which nothing stays: to find out after the run would cost the run.
pub(crate) fn check_writable(path: &Path) -> anyhow::Result<()> {
    let was_there = path.symlink_metadata().is_ok();
    let opened = File::options().create(true).append(true).open(path);
    let looked = opened.and_then(|_| if was_there { Ok(()) } else { fs::remove_file(path) });
    looked.with_context(|| format!("{}: could not be written", path.display()))
}

fn users() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(USERS_MIN)..=i64::from(USERS_MAX))
}

fn rate() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(RATE_MAX))
}

fn seconds(least: u32) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(least)..=i64::from(SECONDS_MAX))
}

fn payload(text: &str) -> Result<usize, String> {
    let bounds = LETTER_BYTES_MIN..=LETTER_BYTES_MAX;
    let bytes = text.parse().map_err(|_| "not a number")?;
    if bounds.contains(&bytes) { Ok(bytes) } else { Err(format!("{LETTER_BYTES_MIN} to {LETTER_BYTES_MAX}")) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_help_says_when_a_node_has_gone() {
        let seconds = crate::report::GONE_AFTER.as_secs();
        for notes in [RUN_NOTES, SLOW_NOTES, STORM_NOTES] {
            assert!(notes.contains(&format!("node gone for {seconds} s")));
        }
    }

    #[test]
    fn the_definition_is_sound_and_every_help_fits_a_screen() {
        // Of a window in which somebody works; the 24 of old terminals are too few for all that a run can be.
        const LINES: usize = 32;
        const COLUMNS: usize = 80;
        Cli::command().debug_assert();
        for name in ["check", "compare", "run", "idle", "storm", "slow", "floor-compare"] {
            let cli = Cli::command().term_width(COLUMNS);
            let asked = cli.try_get_matches_from(["loadgen", name, "--help"]);
            let help = asked.expect_err("help is told as an error").to_string();
            assert!(help.lines().count() <= LINES, "{} lines:\n{help}", help.lines().count());
            assert!(help.lines().all(|line| line.len() <= COLUMNS), "{help}");
            assert!(help.contains("Example:") && help.contains("Exit codes:"), "{help}");
        }
    }
}
