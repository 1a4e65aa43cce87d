//! The binary `loadgen`: virtual users against a node, a verdict on correctness, latency.
//!
//! A controller process starts workers (this same program), each with its own sockets and its own file
//! limit, and merges what they measured. It shares nothing with the node but the protocol's types.
//!
//! **Architecture Invariant:** the load is open-loop. When a message is due follows from its number
//! alone, and its latency counts from then: a node that stalls cannot make the generator look away.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod clock;
mod compare;
mod controller;
mod host;
mod latency;
mod letter;
mod link;
mod load;
mod plan;
mod random;
mod report;
mod runtime;
mod scenario;
mod verify;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, EXIT_INVALID};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Check(flags) => controller::check(&flags),
        Command::Run(flags) => controller::run(&flags),
        Command::Idle(flags) => controller::idle(&flags),
        Command::Storm(flags) => controller::storm(&flags),
        Command::Slow(flags) => controller::slow(&flags),
        Command::Soak(flags) => controller::soak(&flags),
        Command::Compare(flags) => compare::compare(&flags),
        Command::FloorCompare { run, floor } => report::compare(&run, &floor).map(|text| {
            print!("{text}");
            ExitCode::SUCCESS
        }),
        Command::Node { command } => controller::become_node(&command),
        Command::Worker => worker::run().map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("loadgen: {error:#}");
        ExitCode::from(EXIT_INVALID)
    })
}
