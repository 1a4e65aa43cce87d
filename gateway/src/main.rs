//! The binary `gatehouse`: reads the command line, starts logging, and hands over.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use gateway::{
    auth::{self, Keys},
    cli::{self, Cli, Command, ServeFlags},
    config::{Config, Layers},
    exit::{EXIT_OK, EXIT_REFUSED},
    logging, logtool, node,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Cli { command, serve } = Cli::parse();
    match command {
        None => serve_node(&serve),
        Some(Command::Serve(flags)) => serve_node(&flags),
        Some(Command::CheckConfig { file }) => {
            let path = file.display().to_string();
            match cli::check_config(file, Layers::of_process()) {
                Ok(unknown) => {
                    for variable in unknown {
                        eprintln!("gatehouse: {variable}: {}", gateway::config::UNKNOWN_VARIABLE);
                    }
                    say(format_args!("{path}: nothing to object to"))
                }
                Err(mistakes) => refuse(&mistakes),
            }
        }
        Some(Command::Doctor(flags)) => match flags.examine(Layers::of_process()) {
            Ok((report, code)) => {
                say(format_args!("{report}"));
                ExitCode::from(code)
            }
            Err(mistakes) => refuse(&mistakes),
        },
        Some(Command::Log(command)) => match logtool::run(&command) {
            Ok(code) => ExitCode::from(code),
            Err(error) => refuse(&format!("{error:#}")),
        },
        Some(Command::Token(flags)) => match flags.issue(Layers::of_process()) {
            Ok(token) => say(format_args!("{token}")),
            Err(reason) => refuse(&reason),
        },
        Some(Command::Upgrade(flags)) => match flags.ask(Layers::of_process()) {
            Ok(upgraded) => say(format_args!("{upgraded}")),
            Err((reason, code)) => {
                refuse(&reason);
                ExitCode::from(code)
            }
        },
    }
}

fn serve_node(flags: &ServeFlags) -> ExitCode {
    let layers = flags.layers(Layers::of_process());
    let logging = match logging::start() {
        Ok(logging) => logging,
        Err(reason) => return refuse(&reason),
    };
    let config = match Config::load_and_check(&layers, auth::check) {
        Ok(config) => config,
        Err(errors) => return refuse(&errors.to_string()),
    };
    for variable in layers.unknown_variables() {
        tracing::warn!(variable, "{}", gateway::config::UNKNOWN_VARIABLE);
    }
    for caution in config.cautions() {
        tracing::warn!("{caution}");
    }
    let keys = match Keys::load(&config) {
        Ok(keys) => keys,
        Err(error) => return refuse(&error.to_string()),
    };
    let ended = node::run(config, keys);
    // First what is still to be logged, so that the reason is the last line.
    drop(logging);
    ended.unwrap_or_else(|error| refuse(&format!("the start is refused: {error:#}")))
}

/// One line on standard output. A reader that has gone away is no failure of ours.
fn say(line: std::fmt::Arguments<'_>) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
    ExitCode::from(EXIT_OK)
}

/// Every line of `reasons` on standard error, each saying who speaks.
fn refuse(reasons: &str) -> ExitCode {
    for line in reasons.lines() {
        eprintln!("gatehouse: {line}");
    }
    ExitCode::from(EXIT_REFUSED)
}
