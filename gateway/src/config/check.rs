//! How settings relate. Each rule says what to change, and stands where the change would be made.

use std::net::SocketAddr;

use super::{Config, ConfigError, KeyConfig, Place, settings::Draft};

/// Adds an error for each relation that does not hold.
pub(super) fn apply(draft: &Draft, errors: &mut Vec<ConfigError>) {
    let mut refuse = |place: Place, message: String| errors.push(ConfigError { place, message });
    let config = &draft.config;

    let key_files = [
        ("hs256_key_file", draft.hs256_key_file.is_some()),
        ("eddsa_public_key_file", draft.eddsa_public_key_file.is_some()),
        ("jwks_file", draft.jwks_file.is_some()),
        ("jwks_url", draft.jwks_url.is_some()),
    ];
    let mut set = key_files.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| *key);
    if let (Some(first), Some(second)) = (set.next(), set.next()) {
        let other = draft.place(second);
        let message = format!("`{first}` and `{second}` ({other}) are both set; keep one of them");
        refuse(draft.place(first), message);
    }
    if draft.eddsa_private_key_file.is_some() && draft.eddsa_public_key_file.is_none() {
        refuse(
            draft.place("eddsa_private_key_file"),
            "`eddsa_private_key_file` is of no use without `eddsa_public_key_file`; set both".to_owned(),
        );
    }
    for (key, address) in [("listen", config.listen), ("admin", config.admin)] {
        if config.keys == KeyConfig::Development && !is_loopback(address) {
            refuse(
                draft.place(key),
                format!(
                    "`{key}` is {address}, which other machines can reach, and no key is configured: with \
                     the development key only loopback addresses are allowed; set `hs256_key_file`, \
                     `eddsa_public_key_file`, `jwks_file` or `jwks_url`, or use 127.0.0.1:{}",
                    address.port()
                ),
            );
        }
    }
    if let Some(echo) = config.echo.filter(|echo| !is_loopback(*echo)) {
        refuse(
            draft.place("echo"),
            format!(
                "`echo` is {echo}, but the echo server asks for no token and so serves this machine only; use \
                 127.0.0.1:{}",
                echo.port()
            ),
        );
    }
    if let (Some(keep), Some(inbox)) = (config.keep, config.keep_inbox)
        && inbox > keep
    {
        refuse(
            draft.place("keep_inbox_days"),
            "`keep_inbox_days` is more than `keep_days`, but what an inbox leads to is gone by then; leave it out, or lower it".to_owned(),
        );
    }
    let addresses = [("listen", Some(config.listen)), ("admin", Some(config.admin)), ("echo", config.echo)];
    for (index, (key, address)) in addresses.iter().enumerate() {
        let taken = |(_, other): &&(&str, Option<SocketAddr>)| other.is_some() && other == address;
        let Some((other, _)) = addresses[..index].iter().find(taken) else {
            continue;
        };
        // Port 0 asks the kernel for a free one each time.
        if let Some(address) = address.filter(|address| address.port() != 0) {
            refuse(
                draft.place(key),
                format!("`{key}` and `{other}` are both {address}; give one of them another port"),
            );
        }
    }
}

/// What is allowed and yet worth a line at every start.
pub(super) fn cautions(config: &Config) -> Vec<String> {
    let mut cautions = Vec::new();
    if !is_loopback(config.listen) {
        cautions.push(format!(
            "`listen` is {}, which other machines can reach, and the node speaks no TLS: tokens and messages \
             travel in the clear unless a TLS proxy or a private network stands in between",
            config.listen
        ));
    }
    if !is_loopback(config.admin) {
        cautions.push(format!(
            "`admin` is {}, which other machines can reach: whoever does can read health and metrics",
            config.admin
        ));
    }
    if let Some(network) = config.proxies.iter().find(|network| network.is_everybody()) {
        cautions.push(format!(
            "`proxies` has {network}, which is every address: whoever connects says whose connection it is, and is believed"
        ));
    }
    cautions
}

/// Whether only this machine can reach it; an IPv4 address inside IPv6 counts as what it is.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
