//! The command line: what can be said, and what is done about it.
//!
//! Flags are read raw and checked together with the file and the variables, by `config`, so that one
//! mistake is told the same way wherever it stands. Serving itself is `node`'s.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use protocol::ids::UserId;

use crate::{
    ask::{self, Refused},
    auth::{self, DEVELOPMENT_KEY_FILE, Keys},
    clock::unix_now,
    config::{Config, KeyConfig, Layers},
    doctor::{self, Host, Plan, Report, Verdict},
    exit::{EXIT_FAILED, EXIT_OK, EXIT_REFUSED},
    logtool::{self, LogCommand},
    pushes, retention,
};

const SERVE_NOTES: &str = "\
Example:     gatehouse --data /var/lib/gatehouse --config /etc/gatehouse.toml
Settings:    flags, else variables (GATEHOUSE_LOG=debug), else the file
Exit codes:  0 drained   1 failed while serving   2 mistakes, start refused";

const TOKEN_NOTES: &str = "\
Example:     T=$(gatehouse token --data ./data --user alice --ttl 600 | tail -1)
Exit codes:  0 done   2 bad configuration, or no key that signs";

const CHECK_NOTES: &str = "\
Variables GATEHOUSE_* apply, as they do when serving.
Example:     gatehouse check-config /etc/gatehouse.toml
Exit codes:  0 nothing found   2 mistakes, each with its line";

const UPGRADE_NOTES: &str = "\
The node starts the file it was started from, with its own flags, and hands it
every connection. Asks at the admin address, with the admin token.
Example:     gatehouse upgrade --data /var/lib/gatehouse
Exit codes:  0 upgraded   1 not: the node serves on   2 could not be asked";

const DOCTOR_NOTES: &str = "\
Changes nothing; with --disk it writes 100 KB into the data directory and
removes them.
Example:     gatehouse doctor --config /etc/gatehouse.toml --disk
Exit codes:  0 all good   1 warnings   2 faults, or bad configuration";

/// A chat gateway for one machine: without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "gatehouse", version, args_conflicts_with_subcommands = true, after_help = SERVE_NOTES)]
#[command(disable_help_subcommand = true, override_usage = "gatehouse [OPTIONS] | gatehouse <COMMAND>")]
// With no empty line behind the first, so that it fits a screen.
#[command(help_template = "{about}\n{usage-heading} {usage}\n\n{all-args}{after-help}")]
pub struct Cli {
    /// What to do; without a word, serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve when no command is named.
    #[command(flatten)]
    pub serve: ServeFlags,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration file and everything it names, then exit
    #[command(after_help = CHECK_NOTES)]
    CheckConfig {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Look at this machine and say what stands in a node's way
    #[command(after_help = DOCTOR_NOTES)]
    Doctor(DoctorFlags),
    /// Look into the logs of a data directory, back them up, mend them
    #[command(subcommand, after_help = logtool::NOTES, disable_help_subcommand = true)]
    Log(LogCommand),
    /// Run the node; the default
    #[command(hide = true, after_help = SERVE_NOTES)]
    Serve(ServeFlags),
    /// Print a token, alone on the last line
    #[command(after_help = TOKEN_NOTES)]
    Token(TokenFlags),
    /// Have a running node go on in a new binary, disconnecting nobody
    #[command(after_help = UPGRADE_NOTES)]
    Upgrade(UpgradeFlags),
}

/// Which node is meant, unread.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeFlags {
    /// Configuration file (TOML) [env: GATEHOUSE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of logs and keys [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<OsString>,
}

/// Flags of `serve`, unread.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeFlags {
    /// Which node.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Where clients connect [default: 127.0.0.1:7100]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Health and metrics [default: 127.0.0.1:7101]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Sends messages back, for tests; loopback only
    #[arg(long, value_name = "ADDR")]
    pub echo: Option<String>,
    /// Data-plane threads [default: one per core at least]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// Connections at most [default: 16000 a shard]
    #[arg(long, value_name = "N")]
    pub connections_max: Option<String>,
    /// Addresses whose connections begin with a PROXY header
    // The help is full: a screen.
    #[arg(long, value_name = "LIST", hide = true)]
    pub proxies: Option<String>,
}

/// Flags of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorFlags {
    /// Which node.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Data-plane threads [default: one per core at least]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// Connections of the node [default: 16000 a shard]
    #[arg(long, value_name = "N")]
    pub connections_max: Option<String>,
    /// Measure what a sync takes in the data directory
    #[arg(long)]
    pub disk: bool,
    /// One JSON array, for scripts
    #[arg(long)]
    pub json: bool,
}

/// Flags of `token`.
#[derive(Args, Clone, Debug)]
pub struct TokenFlags {
    /// Which node.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Whose token
    #[arg(long, value_name = "NAME")]
    pub user: UserId,
    /// How long it is good, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=TTL_SECONDS_MAX))]
    pub ttl: u64,
}

/// Flags of `upgrade`.
#[derive(Args, Clone, Debug)]
pub struct UpgradeFlags {
    /// Which node.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Its admin address [default: 127.0.0.1:7101]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
}

/// Ten years. A token without an end has to be revoked one day, so a longer one is hardly meant.
const TTL_SECONDS_MAX: u64 = 10 * 366 * 24 * 60 * 60;

impl ServeFlags {
    /// The layers of a configuration, these flags on top of `process`.
    pub fn layers(&self, process: Layers) -> Layers {
        let data = self.node.data.as_ref().map(|path| path.to_string_lossy().into_owned());
        let given = [
            ("data", data),
            ("listen", self.listen.clone()),
            ("admin", self.admin.clone()),
            ("echo", self.echo.clone()),
            ("shards", self.shards.clone()),
            ("connections_max", self.connections_max.clone()),
            ("proxies", self.proxies.clone()),
        ];
        let flags = given.into_iter().filter_map(|(key, text)| Some((key, text?))).collect();
        Layers { file: self.node.config.clone().or(process.file), flags, ..process }
    }
}

impl DoctorFlags {
    /// What to print, and the exit code.
    pub fn examine(&self, process: Layers) -> Result<(String, u8), String> {
        let flags = ServeFlags {
            node: self.node.clone(),
            shards: self.shards.clone(),
            connections_max: self.connections_max.clone(),
            ..ServeFlags::default()
        };
        let layers = flags.layers(process);
        let config = Config::load(&layers).map_err(|errors| errors.to_string())?;
        let host = Host::this();
        let mut checks = doctor::examine(&host, Plan::of(&config, &host));
        checks.extend(doctor::variables(&layers));
        if self.disk {
            checks.push(doctor::probe(&config.data));
        }
        let report = Report(&checks);
        let code = exit_code(report.verdict());
        let text = if self.json { serde_json::to_string_pretty(&checks) } else { Ok(report.to_string()) };
        Ok((text.map_err(|error| error.to_string())?, code))
    }
}

/// How `doctor` says it to a script.
const fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Good => EXIT_OK,
        Verdict::Warning => EXIT_FAILED,
        Verdict::Fault => EXIT_REFUSED,
    }
}

impl TokenFlags {
    /// The token, made with the node's own key; with a development key that is made here where there is
    /// none yet, so that a token can come before the first start.
    pub fn issue(&self, process: Layers) -> Result<String, String> {
        let flags = ServeFlags { node: self.node.clone(), ..ServeFlags::default() };
        let config = Config::load(&flags.layers(process)).map_err(|errors| errors.to_string())?;
        let development = config.data.join(DEVELOPMENT_KEY_FILE);
        if matches!(config.keys, KeyConfig::Development) && !development.exists() {
            // One that is made here is the key of no node, and its tokens are refused by all.
            return Err(format!(
                "{}: there is no development key: a node without a key of its own makes it at its first start; for one that has its \
                 own, say `--config FILE`",
                development.display()
            ));
        }
        let keys = Keys::load(&config).map_err(|error| error.to_string())?;
        let Some(issuer) = keys.issuer else {
            return Err(
                "only a public key is configured, which cannot sign: set `eddsa_private_key_file`, or let \
                        your own user system make the token"
                    .to_owned(),
            );
        };
        Ok(issuer.issue(&self.user, Duration::from_secs(self.ttl), unix_now()))
    }
}

impl UpgradeFlags {
    /// What came of it; or why nothing did, and the exit code.
    pub fn ask(&self, process: Layers) -> Result<String, (String, u8)> {
        let flags =
            ServeFlags { node: self.node.clone(), admin: self.admin.clone(), ..ServeFlags::default() };
        let config = Config::load(&flags.layers(process));
        let config = config.map_err(|errors| (errors.to_string(), EXIT_REFUSED))?;
        let upgraded = ask::upgrade(&config).map(|upgraded| upgraded.to_string());
        upgraded.map_err(|(refused, reason)| match refused {
            Refused::ByTheNode => (reason, EXIT_FAILED),
            Refused::ByUs => (reason, EXIT_REFUSED),
        })
    }
}

/// Checks a file, the key files it names, and what a start would be refused for or could never do. Gives the variables that look like ours and are none; `Err` holds every mistake, one a line.
pub fn check_config(file: PathBuf, process: Layers) -> Result<Vec<String>, String> {
    let layers = Layers { file: Some(file), ..process };
    Config::load_and_check(&layers, faults_of).map_err(|errors| errors.to_string())?;
    Ok(layers.unknown_variables().map(str::to_owned).collect())
}

/// What is wrong beside the settings themselves, each with the setting that it is about.
fn faults_of(config: &Config) -> Vec<(&'static str, String)> {
    let keys = auth::check(config).into_iter().map(|(setting, fault)| (setting, fault.to_string()));
    let keep = retention::check(config).map(|fault| ("keep_mib", fault));
    let push = config.push_file.as_ref().and_then(|file| pushes::check(file, &config.data));
    keys.chain(keep).chain(push.map(|fault| ("push_file", fault))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_says_by_its_exit_code_how_bad_it_is() {
        let codes = [Verdict::Good, Verdict::Warning, Verdict::Fault].map(exit_code);
        assert_eq!(codes, [0, 1, 2]);
    }
}
