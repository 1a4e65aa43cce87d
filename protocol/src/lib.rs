//! The client protocol of Gatehouse, version 1: ids, limits, wire types, the WebSocket codec and the
//! session, for servers and clients alike.
//!
//! Nothing here reads a clock, a socket or a file: bytes and values go in, bytes and values come out.
//! [`session::Session`] turns the bytes of a connection into messages; [`command::Request`] and
//! [`event::ServerFrame`] are what the messages mean; [`record`] is the form in which chat messages are
//! stored and, in `chat.v1.bin`, sent.
//!
//! **Architecture Invariant:** this crate depends on no other of ours and holds no unsafe code; no input
//! makes it panic, recurse by input, or hold more than a small multiple of what has arrived.
#![forbid(unsafe_code)]

pub mod binary;
mod check;
pub mod command;
pub mod event;
pub mod ids;
pub mod json;
pub mod limits;
pub mod proxy;
pub mod record;
pub mod session;
pub mod upgrade;
mod wire;
pub mod ws;
