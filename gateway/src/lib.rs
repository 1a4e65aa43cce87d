//! A node: shards that hold connections, conversations and logs, the driver that gives them a ring, and the control
//! plane around them.
//!
//! Everything that decides is in [`shard`], without I/O. [`driver`] is the only place where its actions become
//! operations of a ring. The binary `gatehouse` is a few lines over [`cli`].

#![forbid(unsafe_code)]

pub mod admin;
pub mod ask;
pub mod auth;
pub mod caretaker;
pub mod cli;
pub mod clock;
pub mod compaction;
pub mod config;
pub mod control;
pub mod doctor;
pub mod driver;
pub mod erasures;
pub mod exit;
pub mod files;
pub mod gatekeeper;
mod groups;
pub mod layout;
pub mod logging;
pub mod logtool;
pub mod mailbox;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod pushes;
pub mod retention;
pub mod revocations;
pub mod search;
pub mod shard;
pub mod state;
pub mod store;
pub mod supervisor;
pub mod upgrade;
pub mod wheel;
