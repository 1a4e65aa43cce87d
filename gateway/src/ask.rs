//! What a command asks of a node that runs on this machine: at its admin address, with its admin token.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    auth::{ADMIN_TOKEN_FILE, AdminToken, KeyError},
    config::Config,
    upgrade::{
        BACKGROUND_MAX, PREPARE_MAX, READ_AHEAD_MAX, READY_MAX, REST_MAX, START_MAX, leaving::Upgraded,
    },
};

/// All that an upgrade may take at the very most: the start and the threads of the new process, segments under way, what it reads ahead, the pause,
/// what is read back in it; and some time beside.
const ANSWER_WITHIN: Duration = Duration::from_secs(
    2 * START_MAX.as_secs()
        + BACKGROUND_MAX.as_secs()
        + READ_AHEAD_MAX.as_secs()
        + 3 * REST_MAX.as_secs()
        + PREPARE_MAX.as_secs()
        + READY_MAX.as_secs()
        + 10,
);

/// Of an answer to who shows another token.
const UNAUTHORIZED: u16 = 401;

/// No answer of the admin address to a command is longer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Asks the node of `config` to hand itself over to the file it was started from, and waits until it has.
///
/// # Errors
/// Who refuses, and why.
pub fn upgrade(config: &Config) -> Result<Upgraded, (Refused, String)> {
    let could_not = |reason: String| (Refused::ByUs, reason);
    let path = config.admin_token_file.clone().unwrap_or_else(|| config.data.join(ADMIN_TOKEN_FILE));
    let token = AdminToken::read(&path).map_err(|error| could_not(without_token(config, &error)))?;
    let (status, body) = post(config.admin, "/v1/upgrade", &token).map_err(|error| {
        could_not(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!(
                    "the node at {} has not answered within {} s: look at its log",
                    config.admin,
                    ANSWER_WITHIN.as_secs()
                )
            }
            _ => format!("no node answers at {}: {error}; is it the address of `admin`?", config.admin),
        })
    })?;
    if status == UNAUTHORIZED {
        let which = match config.admin_token_file {
            Some(_) => "`admin_token_file` and `admin`",
            None => "--data and --admin",
        };
        let (admin, path) = (config.admin, path.display());
        let reason = format!(
            "the node at {admin} does not take the admin token in {path}: are {which} those of one node?"
        );
        return Err((Refused::ByTheNode, reason));
    }
    if status != 200 {
        return Err((Refused::ByTheNode, body.trim_end().to_owned()));
    }
    serde_json::from_str(&body).map_err(|error| could_not(format!("{}: {error}", config.admin)))
}

/// Whoever names another directory than the node's finds no token there.
fn without_token(config: &Config, error: &KeyError) -> String {
    match error {
        KeyError::Io { error: io, .. }
            if io.kind() == ErrorKind::NotFound && config.admin_token_file.is_none() =>
        {
            format!(
                "{}: there is no {ADMIN_TOKEN_FILE}, which a node makes when it starts; is --data the directory of the node that runs?",
                config.data.display()
            )
        }
        _ => error.to_string(),
    }
}

/// Who said no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The node, which serves on.
    ByTheNode,
    /// It was not asked, or its answer makes no sense.
    ByUs,
}

/// The status and the body of an answer.
fn post(admin: SocketAddr, path: &str, token: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(reachable(admin))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parsed.ok_or_else(|| std::io::Error::other("it does not answer as an admin address does"))
}

/// Who listens on all addresses is reached by this machine's own.
fn reachable(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}
