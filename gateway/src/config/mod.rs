//! What an operator can set: defaults, then the file, then `GATEHOUSE_*` variables, then flags.
//!
//! Every layer is read raw and checked once; afterwards only [`Config`] exists, and whoever holds one
//! need not ask again. All mistakes are collected and told together, each with the place it stands in.
//! Nothing here opens a key or makes a file: that is the business of `auth`.
//!
//! Invariant: a [`Config`] that [`Config::load`] returned keeps the relations of `check`; above all, the
//! development key is never paired with an address that other machines can reach.

mod check;
mod file;
mod jwks_url;
mod network;
mod settings;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use jwks_url::JwksUrl;
pub use network::Network;
use protocol::upgrade::Origins;
use settings::{Draft, SETTINGS, Value};

/// The longest drain. Together with the last acknowledgements and syncs it stays below the 30 s in which
/// a node must be gone after SIGTERM.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Most data-plane threads: every pair has mailboxes, so memory grows with the square.
pub const SHARDS_MAX: u16 = 128;
/// Shortest segment of a log, in MiB: room for some batches of 1 MiB.
pub const SEGMENT_MIB_MIN: u16 = 4;
/// Longest segment of a log, in MiB.
pub const SEGMENT_MIB_MAX: u16 = (storage_log::format::SEGMENT_BYTES >> 20) as u16;

/// A segment is compacted so long after its newest message, if nothing else is said: what people still write in is found in few places.
const COMPACT_AFTER: Duration = Duration::from_secs(3600);

/// Largest `compact_after_seconds`: a year.
const COMPACT_AFTER_SECONDS_MAX: u64 = 365 * 86_400;
/// Longest that can be asked for beside for ever, in days: a century.
const KEEP_DAYS_MAX: u64 = 36_500;
/// Largest `keep_mib`: a pebibyte.
const KEEP_MIB_MAX: u64 = 1 << 30;
/// Fastest that the scrubber may read: beyond this it is no background any more.
pub const SCRUB_BYTES_PER_SECOND_MAX: u64 = 1 << 30;
/// Most connections of a node.
pub const CONNECTIONS_MAX: u32 = 1 << 20;

/// Most handshakes that may be in progress, of a node: each takes 10 KB here and in the kernel.
pub const HANDSHAKES_MAX: u32 = 1 << 17;
/// Handshakes in progress of a shard, where nobody says how many of the node: at 8,000 a second each has an eighth of a
/// second, and their first bytes fit the receive buffers.
pub const HANDSHAKES_EACH: u32 = 1_024;
/// Most new connections a second that can be asked for, of a node.
pub const CONNECTS_PER_SECOND_MAX: u32 = 1_000_000;
/// New connections a second of a shard, where nobody says how many of the node: as many as it can bring to a session if it
/// does little else.
pub const CONNECTS_PER_SECOND_EACH: u32 = 8_000;
/// Most commands a second that a session or a user can be allowed: more is no limit.
pub const COMMANDS_PER_SECOND_MAX: u32 = 1_000_000;
/// Most blocks of addresses of proxies: each new connection is compared with all of them.
pub const PROXIES_MAX: usize = 64;
/// Most that a user can be allowed in an hour: more is no limit.
pub const APPROACHES_PER_HOUR_MAX: u32 = 1_000_000;
/// Largest `memory_reserve_mib`: a pebibyte.
const MEMORY_RESERVE_MIB_MAX: u64 = 1 << 30;

/// Everything a node is told at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory of logs and generated keys.
    pub data: PathBuf,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where health, metrics and commands are served, over HTTP.
    pub admin: SocketAddr,
    /// Where every message is sent back, for conformance tests. A loopback address.
    pub echo: Option<SocketAddr>,
    /// Data-plane threads; `None` means one per core, or as many as the file limit asks for.
    pub shards: Option<u16>,
    /// Logs the data is spread over; `None` leaves it to the node.
    pub logs: Option<u16>,
    /// Length of a segment of a log, in MiB; counts when the directory is made.
    pub segment_mib: u16,
    /// How long after its newest message a full segment is compacted; `None`: never.
    pub compact_after: Option<Duration>,
    /// How long messages are kept; `None`: for ever.
    pub keep: Option<Duration>,
    /// How long inboxes are, if that is less.
    pub keep_inbox: Option<Duration>,
    /// Bytes of the disk that all logs together are to take; `None`: as it comes.
    pub keep_bytes: Option<u64>,
    /// How fast sealed segments are looked through for what has rotted, in bytes a second; 0 does not look.
    pub scrub_bytes_per_second: u64,
    /// Whether there is an index of words, and users may search.
    pub search: bool,
    /// A file that is told who is to be called of what has not reached them, on the disk for certain; `None`: nobody is.
    pub push_file: Option<PathBuf>,
    /// Which web pages may connect.
    pub origins: Origins,
    /// Whose tokens are believed.
    pub keys: KeyConfig,
    /// How long clients are asked to spread their leaving over, at most [`DRAIN_MAX`].
    pub drain: Duration,
    /// Connections of the node; further ones are refused with 503. Each shard takes its share, and up to a sixteenth
    /// and 64 more, because users fall on shards by their names. `None` means 16,000 a shard, or what the file limit allows.
    pub connections_max: Option<u32>,
    /// Connections without a session that the node has taken, at most; further ones wait in the system's queue. Each shard
    /// takes its share. `None` means [`HANDSHAKES_EACH`] a shard.
    pub handshakes_max: Option<u32>,
    /// New connections that the node takes in a second, at most; further ones wait there too. Each shard takes its share.
    /// `None` means [`CONNECTS_PER_SECOND_EACH`] a shard.
    pub connects_per_second_max: Option<u32>,
    /// New connections are refused with 503 while the system, or the node's control group, has fewer bytes of memory left
    /// than that; 0 does not look. `None` leaves it to the node: see `memory`.
    pub memory_reserve_bytes: Option<u64>,
    /// Commands a second of one session, in bursts of four times that; 0 is no limit.
    pub session_commands_per_second: u32,
    /// Commands a second that store something, of all sessions of a user together, in bursts of four times that; 0 is no limit.
    pub user_messages_per_second: u32,
    /// Conversations that a user may begin in an hour, and as many at once; 0 is no limit.
    pub user_new_conversations_per_hour: u32,
    /// People whom a user may put into groups in an hour, likewise.
    pub user_added_people_per_hour: u32,
    /// Connections from here are a proxy's, and begin with a PROXY header that says whose they are. At most [`PROXIES_MAX`].
    pub proxies: Vec<Network>,
    /// Open connections of one address, or of one IPv6 network of 64 bits; further ones are refused with 429. 0 is no limit, here and below.
    pub ip_connections_max: u32,
    /// New connections a second of one address, in bursts of four times that; further ones are refused with 429.
    pub ip_connects_per_second: u32,
    /// Commands a second of all sessions of one address, in bursts of four times that.
    pub ip_commands_per_second: u32,
    /// Commands a second that store something, of all sessions of one address, in bursts of four times that.
    pub ip_messages_per_second: u32,
    /// Holds the bearer token of admin commands; `None` means `admin.token` in `data`, made once.
    pub admin_token_file: Option<PathBuf>,
    /// What `iss` of a token must be; `None` does not look.
    pub issuer: Option<String>,
    /// What `aud` of a token must be or contain; `None` does not look.
    pub audience: Option<String>,
}

/// Whose tokens are believed. The algorithm follows from here and never from a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyConfig {
    /// Nothing was configured: `dev.key` in `data`, made once. Loopback addresses only.
    Development,
    /// Ed25519, in PEM.
    Eddsa {
        /// Verifies.
        public_key_file: PathBuf,
        /// Signs, for `gatehouse token`; a node does not need it.
        private_key_file: Option<PathBuf>,
    },
    /// A set of public keys (JWKS), which may change while a node runs.
    Jwks {
        /// Verifies.
        file: PathBuf,
    },
    /// A set of public keys (JWKS) that is fetched, now and then.
    JwksUrl {
        /// Verifies.
        url: JwksUrl,
    },
    /// HMAC with SHA-256: the file's content, without the line end, is the secret.
    Hs256 {
        /// Verifies and signs.
        key_file: PathBuf,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./data"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7100)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 7101)),
            echo: None,
            shards: None,
            logs: None,
            segment_mib: SEGMENT_MIB_MAX,
            compact_after: Some(COMPACT_AFTER),
            keep: None,
            keep_inbox: None,
            keep_bytes: None,
            // A hundredth of a slow disk's rate; 350 GB a day.
            scrub_bytes_per_second: 4 << 20,
            search: false,
            push_file: None,
            origins: Origins::Unset,
            keys: KeyConfig::Development,
            drain: Duration::from_secs(5),
            connections_max: None,
            handshakes_max: None,
            connects_per_second_max: None,
            memory_reserve_bytes: None,
            // A client that opens a hundred conversations at once, and somebody who types: both many times over.
            session_commands_per_second: 200,
            user_messages_per_second: 50,
            user_new_conversations_per_hour: 0,
            user_added_people_per_hour: 0,
            proxies: Vec::new(),
            // No number is right for all: behind one address there may be one person, a company, or all customers of a telephone network;
            // and everybody, where a proxy stands in front that is not in `proxies`.
            ip_connections_max: 0,
            ip_connects_per_second: 0,
            ip_commands_per_second: 0,
            ip_messages_per_second: 0,
            admin_token_file: None,
            issuer: None,
            audience: None,
        }
    }
}

impl Config {
    /// Reads all layers. Either everything is right, or every mistake that could be found is told.
    pub fn load(layers: &Layers) -> Result<Self, ConfigErrors> {
        Self::load_and_check(layers, |_| Vec::<(&str, String)>::new())
    }

    /// The same, with what is wrong with the files that settings name: `files` says which setting, and what.
    pub fn load_and_check<E: fmt::Display>(
        layers: &Layers,
        files: impl FnOnce(&Self) -> Vec<(&'static str, E)>,
    ) -> Result<Self, ConfigErrors> {
        let mut draft = Draft::default();
        let mut errors = Vec::new();
        if let Some(path) = &layers.file {
            file::apply(path, &mut draft, &mut errors);
        }
        for (name, text) in &layers.environment {
            // An empty variable is how unit files and shells write "not set".
            if let Some(setting) = settings::of_variable(name).filter(|_| !text.is_empty()) {
                draft.apply(setting, &Value::Raw(text), Place::Variable(name.clone()), &mut errors);
            }
        }
        for (key, text) in &layers.flags {
            let setting = settings::of_key(key).expect("flags are named like settings");
            draft.apply(setting, &Value::Raw(text), Place::Flag(setting.key), &mut errors);
        }
        // Relations between settings mean little while one of them is unreadable.
        if errors.is_empty() {
            check::apply(&draft, &mut errors);
        }
        // Before what stands in it: else it would be a key file that is said to be wrong.
        let data = &draft.config.data;
        if data.exists() && !data.is_dir() {
            let message = format!(
                "`data` is {}, which is no directory; name the directory of logs and keys",
                data.display()
            );
            errors.push(ConfigError { place: draft.place("data"), message });
            return Err(ConfigErrors(errors));
        }
        let of_files = files(&draft.config).into_iter();
        errors.extend(
            of_files.map(|(key, error)| ConfigError { place: draft.place(key), message: error.to_string() }),
        );
        if errors.is_empty() { Ok(draft.config) } else { Err(ConfigErrors(errors)) }
    }

    /// What is allowed and yet worth a line at every start.
    pub fn cautions(&self) -> Vec<String> {
        check::cautions(self)
    }

    /// What a file of this text would give on its own.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        let mut draft = Draft::default();
        let mut errors = Vec::new();
        file::apply_text(path, text, &mut draft, &mut errors);
        if errors.is_empty() {
            check::apply(&draft, &mut errors);
        }
        if errors.is_empty() { Ok(draft.config) } else { Err(ConfigErrors(errors)) }
    }
}

/// The layers as they were given, unread.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// From `--config` or `GATEHOUSE_CONFIG`.
    pub file: Option<PathBuf>,
    /// Name and value of variables. Those that name no setting do nothing.
    pub environment: Vec<(String, String)>,
    /// Setting and value.
    pub flags: Vec<(&'static str, String)>,
}

impl Layers {
    /// The `GATEHOUSE_*` variables of this process, and its configuration file where they name one.
    pub fn of_process() -> Self {
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name =
                    name.into_string().ok().filter(|name| name.starts_with(settings::VARIABLE_PREFIX))?;
                Some((name, value.to_string_lossy().into_owned()))
            })
            .collect();
        let file = environment.iter().find(|(name, text)| name == CONFIG_VARIABLE && !text.is_empty());
        Self { file: file.map(|(_, path)| PathBuf::from(path)), environment, flags: Vec::new() }
    }

    /// Variables that look like ours and are none: probably misspelt, perhaps another program's.
    pub fn unknown_variables(&self) -> impl Iterator<Item = &str> {
        let known = |name: &str| OTHER_VARIABLES.contains(&name) || settings::of_variable(name).is_some();
        self.environment.iter().map(|(name, _)| name.as_str()).filter(move |name| !known(name))
    }
}

/// What is said of a variable that looks like ours and is none. Its value is not told: it may be a secret under another name.
pub const UNKNOWN_VARIABLE: &str = "this variable is none of ours and does nothing; is it misspelt?";

/// Names the configuration file.
pub const CONFIG_VARIABLE: &str = "GATEHOUSE_CONFIG";
/// Which events are logged, as `tracing` filters are written.
pub const LOG_VARIABLE: &str = "GATEHOUSE_LOG";
/// `text` or `json`.
pub const LOG_FORMAT_VARIABLE: &str = "GATEHOUSE_LOG_FORMAT";

const OTHER_VARIABLES: [&str; 4] =
    [CONFIG_VARIABLE, LOG_VARIABLE, LOG_FORMAT_VARIABLE, crate::upgrade::UPGRADE_VARIABLE];

/// Names of all settings, in the order of the documentation.
pub fn setting_names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nobody set it.
    Default,
    /// The whole file.
    File(Arc<Path>),
    /// A line of the file, from 1.
    Line(Arc<Path>, usize),
    /// A flag of the command line.
    Flag(&'static str),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where to correct it.
    pub place: Place,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Every mistake that was found, one a line; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
