//! Every fault of a disk that the log is to bear: crashes in every moment, calls that fail, bytes that rot, reads that bring other
//! bytes. Exhaustive for short workloads, from seeds for long ones, always beside a model that is a map.

#![forbid(unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod crashes;
mod disk;
mod files;
mod misreads;
mod model;
mod node;
mod random;
mod rot;
