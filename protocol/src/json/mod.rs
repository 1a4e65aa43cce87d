//! The JSON form (`chat.v1.json`): one object per text frame.
//!
//! Commands are read strictly (unknown fields, fields of other operations and repeated keys are
//! refused), events leniently (a client of today survives a server of tomorrow). Neither direction
//! recurses on input.
//!
//! Invariant: no error carries anything that stood in the input.

mod conversations;
mod fields;
mod found;
mod frame;
mod frame_read;
mod object;
mod request;
mod request_read;
mod value;

pub use conversations::encode_list;
pub(crate) use frame::unknown_gap;
pub use frame::{encode_frame, encode_page, render_json, write_json};
pub use frame_read::decode_frame;
pub use request::encode_request;
pub use request_read::decode_request;
