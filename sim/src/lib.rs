//! The whole node on one thread, in virtual time, from one seed.
//!
//! The same shards, conversations, logs and codecs as in the binary, with a dice where the ring, the disk, the network
//! and the clock would be: reads cut anywhere, sends that stop short, mail and descriptors in any order, readers that do
//! not read, crashes between and inside batches. After every run the log is read back and everything that any client was
//! told is held against it.
//!
//! Deliberately absent: sockets, files, threads, and anything that two runs of one seed could differ in.

#![forbid(unsafe_code)]

mod calling;
mod client;
mod delivering;
mod dice;
mod disk;
mod erasing;
mod forms;
mod governing;
mod group;
mod hiding;
mod index;
mod keeping;
mod listing;
mod net;
mod node;
mod oracle;
mod owed;
mod revoking;
mod rng;
mod said;
mod searching;
mod seen;
mod settings;
mod staying;
mod unread;
mod viewing;
mod wires;
mod world;

pub use group::RoleCounts;
pub use rng::Rng;
pub use world::{Outcome, UpgradeCounts, run};
