//! The control plane from outside: configuration, tokens, metrics, the admin server, the command line.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "TLS is looked at from outside")]
#[path = "../keys/server.rs"]
mod key_server;

mod admin;
mod auth;
mod cli;
mod config;
mod doctor;
mod erase;
mod jwks;
mod jwks_url;
mod metrics;
mod revoke;
mod state;
mod store;
mod supervisor;
mod tuning;
