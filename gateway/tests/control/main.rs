//! The control plane from outside: configuration, tokens, metrics, the admin server, the command line.

#![forbid(unsafe_code)]

mod admin;
mod auth;
mod cli;
mod config;
mod doctor;
mod erase;
mod jwks;
mod metrics;
mod revoke;
mod state;
mod store;
mod supervisor;
mod tuning;
