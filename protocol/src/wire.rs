//! The two forms behind one door: what most callers use instead of `json` and `binary`.

use crate::{
    binary,
    command::Request,
    event::{FrameFault, ListEnd, Refusal, ServerFrame},
    ids::RequestId,
    json,
    record::{Stored, StoredItem, StoredListed},
    session::Input,
    upgrade::Form,
};

impl Request {
    /// Reads a command from a message. `None` for an input that is no message.
    pub fn from_input(input: &Input<'_>) -> Option<Result<Self, Refusal>> {
        match input {
            Input::Binary(bytes) => Some(binary::decode_request(bytes)),
            Input::Text(text) => Some(json::decode_request(text)),
            _ => None,
        }
    }

    /// Appends the payload of the WebSocket message that carries this command.
    pub fn encode(&self, form: Form, out: &mut Vec<u8>) {
        match form {
            Form::Binary => binary::encode_request(self, out),
            Form::Json => json::encode_request(self, out),
        }
    }
}

impl ServerFrame {
    /// Reads what a server sent and appends it to `frames`; operations this client does not know add
    /// nothing, and so do inputs that are no messages.
    pub fn from_input(input: &Input<'_>, frames: &mut Vec<Self>) -> Result<(), FrameFault> {
        match input {
            Input::Binary(bytes) => binary::decode_frames(bytes, frames),
            Input::Text(text) => {
                frames.extend(json::decode_frame(text)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Appends the payload of the WebSocket message that carries this frame.
    pub fn encode(&self, form: Form, out: &mut Vec<u8>) {
        match form {
            Form::Binary => binary::encode_frame(self, out),
            Form::Json => json::encode_frame(self, out),
        }
    }

    /// Appends a `page` made from records as they are stored.
    pub fn encode_page(form: Form, id: RequestId, items: &[StoredItem<'_>], more: bool, out: &mut Vec<u8>) {
        match form {
            Form::Binary => binary::encode_page(id, items, more, out),
            Form::Json => json::encode_page(id, items, more, out),
        }
    }

    /// Appends a `page` of conversations made from records as they are stored.
    pub fn encode_list(
        form: Form,
        id: RequestId,
        conversations: &[StoredListed<'_>],
        end: &ListEnd,
        out: &mut Vec<u8>,
    ) {
        match form {
            Form::Binary => binary::encode_list(id, conversations, end, out),
            Form::Json => json::encode_list(id, conversations, end, out),
        }
    }
}

impl Stored<'_> {
    /// Appends the payload of the WebSocket message that delivers this record.
    pub fn encode(&self, form: Form, out: &mut Vec<u8>) {
        match form {
            Form::Binary => self.write_padded(out),
            Form::Json => json::write_json(self, out),
        }
    }
}
