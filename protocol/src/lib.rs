//! The client protocol of Gatehouse: ids, limits, wire types, the WebSocket codec and the session.
#![forbid(unsafe_code)]

mod check;
pub mod command;
pub mod event;
pub mod ids;
pub mod json;
pub mod limits;
pub mod record;
pub mod session;
pub mod upgrade;
pub mod ws;
