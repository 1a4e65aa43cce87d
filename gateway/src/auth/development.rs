//! What a node with a development key says when it is ready: everything needed for a first message.
//!
//! The only place that prints tokens, and only tokens of a key that works on this machine alone.

use std::{net::SocketAddr, time::Duration};

use protocol::ids::{UnixMillis, UserId};

use super::Keys;

/// How long the printed tokens are good.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Two tokens and a way to try them, for standard output; `None` unless the keys are development keys.
/// `listen` is the address that was bound.
pub fn banner(keys: &Keys, listen: SocketAddr, now: UnixMillis) -> Option<String> {
    let issuer = keys.issuer.as_ref().filter(|_| keys.is_development)?;
    let token = |name: &str| issuer.issue(&UserId::new(name).expect("a short word is an id"), TTL, now);
    let (alice, bob) = (token("alice"), token("bob"));
    Some(format!(
        "No key is configured: this node takes tokens of its development key, from this machine only.\n\
         Two tokens, good for 24 hours:\n\
         alice {alice}\n\
         bob {bob}\n\
         To try it, run this and paste the next two lines, the first within 10 seconds:\n\
         websocat ws://{listen}/v1/connect\n\
         {{\"op\":\"connect\",\"id\":1,\"token\":\"{alice}\",\"device\":\"cli\"}}\n\
         {{\"op\":\"send\",\"id\":2,\"to\":\"bob\",\"kind\":\"text\",\"text\":\"hello\"}}\n"
    ))
}
