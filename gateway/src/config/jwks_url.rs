//! Where a set of public keys is fetched: https, or http on this machine.

use std::{fmt, net::IpAddr, str::FromStr};

use hyper::Uri;

/// Longest address, in bytes: no identity provider's is near it.
const BYTES_MAX: usize = 1_024;

/// An address that keys may be fetched from. Whoever can change what is answered there can let anybody in, so it is https, or a loopback
/// address. A provider may want a key of its own in the query: what is shown ends before that.
#[derive(Clone, PartialEq, Eq)]
pub struct JwksUrl {
    text: String,
    /// Whether it is https.
    pub is_tls: bool,
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// The scheme's own unless it is said.
    pub port: u16,
    /// The `Host` header.
    pub authority: String,
    /// Path and query.
    pub target: String,
}

impl FromStr for JwksUrl {
    type Err = String;

    /// The error is what is wrong with it, in words that go on behind the setting's name.
    fn from_str(text: &str) -> Result<Self, String> {
        let uri = text.parse::<Uri>().ok().filter(|_| text.len() <= BYTES_MAX);
        let parts =
            uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?, uri.path_and_query()?)));
        let Some((scheme, authority, target)) = parts else {
            return Err("must look like \"https://login.example.org/jwks.json\"".to_owned());
        };
        if authority.as_str().contains('@') || text.contains('#') {
            return Err("must hold neither a user nor a fragment".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_tls = match scheme {
            "https" => true,
            "http" if is_loopback(&host) => false,
            "http" => {
                return Err("must be https: whoever is on the way could put keys of their own into the answer. Plain \
                            http is for a loopback address, such as http://127.0.0.1:8080/jwks.json"
                    .to_owned());
            }
            _ => return Err("must begin with https://".to_owned()),
        };
        if host.is_empty() {
            return Err("must name a host".to_owned());
        }
        Ok(Self {
            text: text.to_owned(),
            is_tls,
            host,
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            target: target.as_str().to_owned(),
        })
    }
}

/// An address, not a name: a name is what a resolver says.
fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

impl JwksUrl {
    /// All of it, for files that nobody else reads.
    #[must_use]
    pub fn whole(&self) -> &str {
        &self.text
    }
}

/// For people and logs: without what the query says.
impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.split_once('?') {
            Some((address, _)) => write!(f, "{address}?…"),
            None => f.write_str(&self.text),
        }
    }
}

impl fmt::Debug for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_ends_before_the_query() {
        for (text, shown) in [
            ("https://login.example.org/jwks.json", "https://login.example.org/jwks.json"),
            ("https://login.example.org/jwks?key=topsecret", "https://login.example.org/jwks?…"),
            ("https://login.example.org?key=topsecret", "https://login.example.org?…"),
        ] {
            let url: JwksUrl = text.parse().expect("an address");
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
            assert_eq!(url.whole(), text);
        }
    }
}
