//! The client's half: the request and the judgement of the response (RFC 6455, section 4.1).

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Form, HttpRefusal, list_holds};
use crate::{command::Token, limits};

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// The `Host` header: host, and port unless it is the scheme's own.
    pub host: &'a str,
    /// The path, usually [`super::UpgradePolicy::PATH`].
    pub path: &'a str,
    /// The form to speak.
    pub form: Form,
    /// Sent as `Authorization: Bearer`.
    pub bearer: Option<&'a Token>,
    /// 16 bytes that differ for every connection.
    pub nonce: [u8; 16],
}

impl ClientRequest<'_> {
    /// `Sec-WebSocket-Key`.
    pub fn key(&self) -> String {
        STANDARD.encode(self.nonce)
    }

    /// The whole request. Host and path are the caller's own and must be free of spaces and line ends.
    pub fn request(&self) -> Vec<u8> {
        let Self { host, path, form, .. } = self;
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: {}\r\n",
            self.key(),
            form.subprotocol()
        );
        if let Some(token) = self.bearer {
            request.push_str("Authorization: Bearer ");
            request.push_str(token.as_str());
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request.into_bytes()
    }
}

/// Judges a whole response head. An error carries the server's status, or 400 when what came is no
/// response to this request.
pub fn check_response(head: &[u8], key: &str, form: Form) -> Result<(), HttpRefusal> {
    let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    if !matches!(response.parse(head), Ok(httparse::Status::Complete(_))) {
        return Err(HttpRefusal::bad("the response is malformed"));
    }
    match response.code {
        Some(101) => {}
        Some(status) => return Err(HttpRefusal { status, reason: "the server refused" }),
        None => return Err(HttpRefusal::bad("the response is malformed")),
    }
    let only = |name: &str| {
        let mut values = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = values.next()?.value.trim_ascii();
        values.next().is_none().then_some(value)
    };
    if !only("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        || !only("connection").is_some_and(|value| list_holds(value, "upgrade"))
    {
        return Err(HttpRefusal::bad("the response does not upgrade"));
    }
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    if only("sec-websocket-accept") != Some(accept.as_bytes()) {
        return Err(HttpRefusal::bad("the response answers another request"));
    }
    if only("sec-websocket-protocol") != Some(form.subprotocol().as_bytes()) {
        return Err(HttpRefusal::bad("the response chose another subprotocol"));
    }
    if response.headers.iter().any(|header| header.name.eq_ignore_ascii_case("sec-websocket-extensions")) {
        return Err(HttpRefusal::bad("the response chose an extension nobody offered"));
    }
    Ok(())
}
