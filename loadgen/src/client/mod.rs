//! One connection as a client sees it: the codec without I/O, and the way to an open WebSocket.

mod codec;
mod dial;
mod token;

pub(crate) use codec::{Codec, Incoming};
pub(crate) use dial::{Connection, Endpoint, dial};
pub(crate) use token::Signer;
