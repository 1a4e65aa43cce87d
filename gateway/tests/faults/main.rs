//! What goes wrong, from outside: a real node, real sockets, a real disk, and peers that misbehave.
//!
//! Where a peer misbehaves a witness stands by: a client that did nothing wrong and must notice nothing.

#![forbid(unsafe_code)]

#[path = "../../../protocol/tests/autobahn/cases.rs"]
mod cases;
#[path = "../keys/server.rs"]
mod key_server;
#[path = "../../../protocol/tests/wire/mod.rs"]
mod wire;

mod chat;
mod disk;
mod node;
mod peer;
mod rates;
mod raw;
mod trace;

mod admission;
mod amendments;
mod application;
mod autobahn;
mod backup;
mod buffered;
mod compaction;
mod deadlines;
mod erasure;
mod frames;
mod groups;
mod handshake;
mod ips;
mod jwks_url;
mod keeping;
mod keys;
mod logtool;
mod order;
mod power;
mod presence;
mod process;
mod proxies;
mod push;
mod receipts;
mod repair;
mod resume;
mod retention;
mod revoke;
mod room;
mod scarce;
mod scrub;
mod searching;
mod settings;
mod slow;
mod snapshot;
mod stall;
mod storage;
mod tokens;
mod upgrade;
