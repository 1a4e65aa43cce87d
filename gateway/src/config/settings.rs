//! The table of settings: one name for the file, the variable and the flag, and how its value is read.
//!
//! A file has types and they count (`shards = "2"` is a mistake); variables and flags are text and are
//! read as whatever the setting needs.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use protocol::upgrade::Origins;
use router::places::LOGS_MAX;

use super::{
    APPROACHES_PER_HOUR_MAX, COMMANDS_PER_SECOND_MAX, COMPACT_AFTER_SECONDS_MAX, CONNECTIONS_MAX,
    CONNECTS_PER_SECOND_MAX, Config, ConfigError, DRAIN_MAX, HANDSHAKES_MAX, JwksUrl, KEEP_DAYS_MAX,
    KEEP_MIB_MAX, MEMORY_RESERVE_MIB_MAX, Network, PROXIES_MAX, Place, SCRUB_BYTES_PER_SECOND_MAX,
    SEGMENT_MIB_MAX, SEGMENT_MIB_MIN, SHARDS_MAX,
};

/// What the name of every variable of ours begins with.
pub(super) const VARIABLE_PREFIX: &str = "GATEHOUSE_";

/// One setting.
pub(super) struct Setting {
    /// Its name in the file; `GATEHOUSE_` and the same in capitals is the variable.
    pub(super) key: &'static str,
    read: fn(&mut Draft, &Value<'_>) -> Result<(), String>,
}

/// All of them.
pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "data", read: |draft, value| set(&mut draft.config.data, path(value)) },
    Setting { key: "listen", read: |draft, value| set(&mut draft.config.listen, address(value)) },
    Setting { key: "admin", read: |draft, value| set(&mut draft.config.admin, address(value)) },
    Setting { key: "echo", read: |draft, value| set(&mut draft.config.echo, address(value).map(Some)) },
    Setting {
        key: "shards",
        read: |draft, value| set(&mut draft.config.shards, integer(value, 1, SHARDS_MAX).map(Some)),
    },
    Setting {
        key: "logs",
        read: |draft, value| set(&mut draft.config.logs, integer(value, 1, LOGS_MAX).map(Some)),
    },
    Setting {
        key: "segment_mib",
        read: |draft, value| {
            set(&mut draft.config.segment_mib, integer(value, SEGMENT_MIB_MIN, SEGMENT_MIB_MAX))
        },
    },
    Setting {
        key: "compact_after_seconds",
        read: |draft, value| {
            let seconds = integer(value, 0, COMPACT_AFTER_SECONDS_MAX);
            let after = |seconds| (seconds > 0).then(|| Duration::from_secs(seconds));
            set(&mut draft.config.compact_after, seconds.map(after))
        },
    },
    Setting { key: "keep_days", read: |draft, value| set(&mut draft.config.keep, days(value)) },
    Setting { key: "keep_inbox_days", read: |draft, value| set(&mut draft.config.keep_inbox, days(value)) },
    Setting {
        key: "keep_mib",
        read: |draft, value| {
            let mib = integer(value, 0, KEEP_MIB_MAX);
            set(&mut draft.config.keep_bytes, mib.map(|mib| (mib > 0).then_some(mib << 20)))
        },
    },
    Setting {
        key: "scrub_bytes_per_second",
        read: |draft, value| {
            set(&mut draft.config.scrub_bytes_per_second, integer(value, 0, SCRUB_BYTES_PER_SECOND_MAX))
        },
    },
    Setting { key: "search", read: |draft, value| set(&mut draft.config.search, boolean(value)) },
    Setting {
        key: "connections_max",
        read: |draft, value| {
            set(&mut draft.config.connections_max, integer(value, 1, CONNECTIONS_MAX).map(Some))
        },
    },
    Setting {
        key: "handshakes_max",
        read: |draft, value| {
            set(&mut draft.config.handshakes_max, integer(value, 1, HANDSHAKES_MAX).map(Some))
        },
    },
    Setting {
        key: "connects_per_second_max",
        read: |draft, value| {
            let connects = integer(value, 1, CONNECTS_PER_SECOND_MAX);
            set(&mut draft.config.connects_per_second_max, connects.map(Some))
        },
    },
    Setting {
        key: "session_commands_per_second",
        read: |draft, value| {
            set(&mut draft.config.session_commands_per_second, integer(value, 0, COMMANDS_PER_SECOND_MAX))
        },
    },
    Setting {
        key: "user_messages_per_second",
        read: |draft, value| {
            set(&mut draft.config.user_messages_per_second, integer(value, 0, COMMANDS_PER_SECOND_MAX))
        },
    },
    Setting {
        key: "user_new_conversations_per_hour",
        read: |draft, value| {
            let hourly = integer(value, 0, APPROACHES_PER_HOUR_MAX);
            set(&mut draft.config.user_new_conversations_per_hour, hourly)
        },
    },
    Setting {
        key: "user_added_people_per_hour",
        read: |draft, value| {
            set(&mut draft.config.user_added_people_per_hour, integer(value, 0, APPROACHES_PER_HOUR_MAX))
        },
    },
    Setting { key: "proxies", read: |draft, value| set(&mut draft.config.proxies, proxies(value)) },
    Setting {
        key: "ip_connections_max",
        read: |draft, value| set(&mut draft.config.ip_connections_max, integer(value, 0, CONNECTIONS_MAX)),
    },
    Setting {
        key: "ip_connects_per_second",
        read: |draft, value| {
            set(&mut draft.config.ip_connects_per_second, integer(value, 0, CONNECTS_PER_SECOND_MAX))
        },
    },
    Setting {
        key: "ip_commands_per_second",
        read: |draft, value| {
            set(&mut draft.config.ip_commands_per_second, integer(value, 0, COMMANDS_PER_SECOND_MAX))
        },
    },
    Setting {
        key: "ip_messages_per_second",
        read: |draft, value| {
            set(&mut draft.config.ip_messages_per_second, integer(value, 0, COMMANDS_PER_SECOND_MAX))
        },
    },
    Setting {
        key: "memory_reserve_mib",
        read: |draft, value| {
            let mib = integer(value, 0, MEMORY_RESERVE_MIB_MAX);
            set(&mut draft.config.memory_reserve_bytes, mib.map(|mib| Some(mib << 20)))
        },
    },
    Setting {
        key: "drain_seconds",
        read: |draft, value| {
            let seconds = integer(value, 0, DRAIN_MAX.as_secs());
            set(&mut draft.config.drain, seconds.map(Duration::from_secs))
        },
    },
    Setting {
        key: "push_file",
        read: |draft, value| set(&mut draft.config.push_file, path(value).map(Some)),
    },
    Setting { key: "origins", read: |draft, value| set(&mut draft.config.origins, origins(value)) },
    Setting {
        key: "hs256_key_file",
        read: |draft, value| set(&mut draft.hs256_key_file, path(value).map(Some)),
    },
    Setting {
        key: "eddsa_public_key_file",
        read: |draft, value| set(&mut draft.eddsa_public_key_file, path(value).map(Some)),
    },
    Setting {
        key: "eddsa_private_key_file",
        read: |draft, value| set(&mut draft.eddsa_private_key_file, path(value).map(Some)),
    },
    Setting { key: "jwks_file", read: |draft, value| set(&mut draft.jwks_file, path(value).map(Some)) },
    Setting { key: "jwks_url", read: |draft, value| set(&mut draft.jwks_url, jwks_url(value).map(Some)) },
    Setting { key: "issuer", read: |draft, value| set(&mut draft.config.issuer, text(value).map(Some)) },
    Setting { key: "audience", read: |draft, value| set(&mut draft.config.audience, text(value).map(Some)) },
    Setting {
        key: "admin_token_file",
        read: |draft, value| set(&mut draft.config.admin_token_file, path(value).map(Some)),
    },
];

/// The setting of this name.
pub(super) fn of_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting of this variable; names are compared exactly.
pub(super) fn of_variable(name: &str) -> Option<&'static Setting> {
    let key = name.strip_prefix(VARIABLE_PREFIX)?;
    SETTINGS.iter().find(|setting| setting.key.to_ascii_uppercase() == key)
}

/// A value as its layer gave it.
pub(super) enum Value<'a> {
    Boolean(bool),
    Integer(i64),
    List(Vec<&'a str>),
    /// Of a type that no setting has; the words name it.
    Other(String),
    /// From a variable or flag: text that may stand for any type.
    Raw(&'a str),
    Text(&'a str),
}

/// A configuration in the making, and where each part of it came from.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) hs256_key_file: Option<PathBuf>,
    pub(super) eddsa_public_key_file: Option<PathBuf>,
    pub(super) eddsa_private_key_file: Option<PathBuf>,
    pub(super) jwks_file: Option<PathBuf>,
    pub(super) jwks_url: Option<JwksUrl>,
    places: BTreeMap<&'static str, Place>,
}

impl Draft {
    /// Sets one setting, or tells why not.
    pub(super) fn apply(
        &mut self,
        setting: &'static Setting,
        value: &Value<'_>,
        place: Place,
        errors: &mut Vec<ConfigError>,
    ) {
        match (setting.read)(self, value) {
            Ok(()) => {
                self.places.insert(setting.key, place);
                self.follow_keys();
            }
            Err(message) => {
                errors.push(ConfigError { place, message: format!("`{}` {message}", setting.key) })
            }
        }
    }

    /// Where the setting was last set.
    pub(super) fn place(&self, key: &str) -> Place {
        self.places.get(key).cloned().unwrap_or(Place::Default)
    }

    /// Four files and an address make one key configuration; contradictions among them are found by `check`.
    fn follow_keys(&mut self) {
        use super::KeyConfig::{Development, Eddsa, Hs256, Jwks, JwksUrl};
        self.config.keys = if let Some(key_file) = self.hs256_key_file.clone() {
            Hs256 { key_file }
        } else if let Some(public_key_file) = self.eddsa_public_key_file.clone() {
            Eddsa { public_key_file, private_key_file: self.eddsa_private_key_file.clone() }
        } else if let Some(file) = self.jwks_file.clone() {
            Jwks { file }
        } else if let Some(url) = self.jwks_url.clone() {
            JwksUrl { url }
        } else {
            Development
        };
    }
}

fn set<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

fn text(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::Raw("") | Value::Text("") => Err("must not be empty".to_owned()),
        Value::Raw(text) | Value::Text(text) if text.chars().any(char::is_control) => {
            Err("must not hold control characters".to_owned())
        }
        Value::Raw(text) | Value::Text(text) => Ok((*text).to_owned()),
        other => Err(format!("must be text in quotes, not {}", other.kind())),
    }
}

fn path(value: &Value<'_>) -> Result<PathBuf, String> {
    text(value).map(PathBuf::from)
}

fn jwks_url(value: &Value<'_>) -> Result<JwksUrl, String> {
    text(value)?.parse()
}

fn address(value: &Value<'_>) -> Result<SocketAddr, String> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        format!(
            "must be an IP address and a port, such as \"127.0.0.1:7100\" or \"[::1]:7100\", not {text:?}"
        )
    })
}

fn integer<T: TryFrom<u64> + Into<u64> + Copy>(value: &Value<'_>, min: T, max: T) -> Result<T, String> {
    let number = match value {
        Value::Integer(number) => Some(*number),
        Value::Raw(text) => text.parse().ok(),
        Value::Boolean(_) | Value::List(_) | Value::Other(_) | Value::Text(_) => None,
    };
    let (min, max) = (min.into(), max.into());
    number
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| (min..=max).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("must be a whole number from {min} to {max}, not {}", value.kind()))
}

fn boolean(value: &Value<'_>) -> Result<bool, String> {
    match value {
        Value::Boolean(is_so) => Ok(*is_so),
        Value::Raw("true") => Ok(true),
        Value::Raw("false") => Ok(false),
        other => Err(format!("must be true or false, not {}", other.kind())),
    }
}

/// 0 is for ever. A day is the least: for so long a repeated command is recognised by what it stored.
fn days(value: &Value<'_>) -> Result<Option<Duration>, String> {
    let days = integer(value, 0, KEEP_DAYS_MAX)?;
    Ok((days > 0).then(|| Duration::from_secs(days * 86_400)))
}

fn list<'a>(value: &Value<'a>) -> Result<Vec<&'a str>, String> {
    match value {
        Value::List(list) => Ok(list.clone()),
        Value::Raw(text) => Ok(text.split(',').map(str::trim).collect()),
        other => Err(format!("must be a list of texts, not {}", other.kind())),
    }
}

fn origins(value: &Value<'_>) -> Result<Origins, String> {
    list(value)?.into_iter().map(origin).collect::<Result<_, _>>().map(Origins::List)
}

fn proxies(value: &Value<'_>) -> Result<Vec<Network>, String> {
    let list = list(value)?;
    if list.len() > PROXIES_MAX {
        return Err(format!("holds {} addresses and blocks, more than {PROXIES_MAX}", list.len()));
    }
    let network = |text: &str| {
        text.parse().map_err(|fault| {
            format!(
                "holds {text:?}, which {fault}; a proxy looks like \"192.0.2.7\", many like \"10.0.0.0/8\""
            )
        })
    };
    list.into_iter().map(network).collect()
}

/// Origins are compared byte by byte, so only the spelling that browsers use can ever match.
fn origin(text: &str) -> Result<String, String> {
    let (scheme, authority) = text.split_once("://").unwrap_or(("", ""));
    let default_port = match scheme {
        "http" => ":80",
        _ => ":443",
    };
    let fault = if scheme.is_empty() || authority.is_empty() {
        "needs a scheme and a host"
    } else if authority.contains(['/', '?', '#']) {
        "must end after the host or port, without a slash"
    } else if authority.contains(['*', '@', ' ']) {
        "must name one host: wildcards and users are not possible"
    } else if text.bytes().any(|byte| byte.is_ascii_uppercase()) || !text.is_ascii() {
        "must be in lower case and ASCII, as browsers send it"
    } else if authority.ends_with(default_port) && !authority.ends_with(&format!(":{default_port}")) {
        "must not give the default port, because browsers leave it out"
    } else {
        return Ok(text.to_owned());
    };
    Err(format!("holds {text:?}, which {fault}; an origin looks like \"https://chat.example.org\""))
}

impl Value<'_> {
    /// What the value is, in words for people.
    fn kind(&self) -> String {
        match self {
            Self::Boolean(is_so) => is_so.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Other(kind) => kind.clone(),
            Self::Raw(text) => format!("{text:?}"),
            Self::Text(text) => format!("the text {text:?}"),
        }
    }
}
