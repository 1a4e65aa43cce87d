//! The server's half: from a request to an [`Upgrade`] or a refusal.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Form, HeadScan, HttpRefusal, Upgrade, UpgradePolicy, is_token, list_holds};
use crate::{command::Token, limits};

/// Reads a request from the front of `bytes`: what was asked for and the length of the head. What
/// follows the head are frames already. `Ok(None)`: the head is not all here yet.
pub fn parse_upgrade(bytes: &[u8], policy: &UpgradePolicy) -> Result<Option<(Upgrade, usize)>, HttpRefusal> {
    match HeadScan::default().find_end(bytes)? {
        Some(end) => Ok(Some((parse_head(&bytes[..end], policy)?, end))),
        None => Ok(None),
    }
}

/// Reads a whole head, as [`HeadScan`] found it.
pub(crate) fn parse_head(head: &[u8], policy: &UpgradePolicy) -> Result<Upgrade, HttpRefusal> {
    let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(end)) if end == head.len() => {}
        Ok(_) => return Err(HttpRefusal::bad("the head is malformed")),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpRefusal::HEAD_TOO_LARGE),
        Err(httparse::Error::Version) => return Err(VERSION),
        Err(_) => return Err(HttpRefusal::bad("the head is malformed")),
    }
    if request.method != Some("GET") {
        return Err(HttpRefusal { status: 405, reason: "only GET opens a WebSocket" });
    }
    if request.version != Some(1) {
        return Err(VERSION);
    }
    let path = check_target(request.path.unwrap_or_default(), policy)?;
    let fields = Fields(request.headers);
    check_framing(&fields)?;
    let key = check_websocket(&fields)?;
    let origin = fields.at_most_one("origin")?.map(read_text).transpose()?;
    if !policy.origins.allows(origin) {
        return Err(HttpRefusal { status: 403, reason: "this origin may not connect" });
    }
    let offered = read_form(&fields, policy)?;
    Ok(Upgrade {
        path: path.to_owned(),
        form: offered.unwrap_or(Form::Json),
        form_offered: offered.is_some(),
        origin: origin.map(str::to_owned),
        bearer: read_bearer(&fields)?,
        key,
    })
}

const VERSION: HttpRefusal = HttpRefusal { status: 505, reason: "this server speaks HTTP/1.1" };

/// Exact paths only: no normalisation means nothing to traverse. A token in a URL ends in logs, so a
/// client that tries is told at once, before anything else of it is judged.
fn check_target<'a>(target: &'a str, policy: &UpgradePolicy) -> Result<&'a str, HttpRefusal> {
    if target.len() > limits::HTTP_TARGET_BYTES_MAX {
        return Err(HttpRefusal::TARGET_TOO_LONG);
    }
    if !target.starts_with('/') {
        return Err(HttpRefusal::bad("the target is not a path"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if query.to_ascii_lowercase().contains("token=") {
        return Err(HttpRefusal::bad(
            "a token never stands in a URL: send it in `connect` or `Authorization`",
        ));
    }
    match policy.path {
        Some(known) if known != path => Err(HttpRefusal { status: 404, reason: "there is nothing here" }),
        _ => Ok(path),
    }
}

/// One host and no body, so that no proxy before us can see other requests here than we do.
fn check_framing(fields: &Fields<'_, '_>) -> Result<(), HttpRefusal> {
    if fields.only("host").is_none() {
        return Err(HttpRefusal::bad("there is not exactly one Host"));
    }
    if fields.all("transfer-encoding").next().is_some() {
        return Err(HttpRefusal::bad("the request has a body"));
    }
    match fields.at_most_one("content-length")? {
        None | Some(b"0") => Ok(()),
        Some(_) => Err(HttpRefusal::bad("the request has a body")),
    }
}

/// RFC 6455, section 4.2.1. Returns the key.
fn check_websocket(fields: &Fields<'_, '_>) -> Result<[u8; 24], HttpRefusal> {
    if !fields.all("upgrade").any(|value| list_holds(value, "websocket")) {
        return Err(HttpRefusal { status: 426, reason: "this is a WebSocket" });
    }
    if !fields.all("connection").any(|value| list_holds(value, "upgrade")) {
        return Err(HttpRefusal::bad("Connection does not say Upgrade"));
    }
    if fields.only("sec-websocket-version") != Some(b"13") {
        return Err(HttpRefusal { status: 426, reason: "this server speaks WebSocket version 13" });
    }
    if !fields.all("sec-websocket-extensions").all(quotes_are_closed) {
        return Err(HttpRefusal::bad("Sec-WebSocket-Extensions is malformed"));
    }
    const KEY: HttpRefusal = HttpRefusal::bad("Sec-WebSocket-Key is not 16 bytes of base64, once");
    let key: [u8; 24] = fields.only("sec-websocket-key").and_then(|key| key.try_into().ok()).ok_or(KEY)?;
    // 24 characters of base64 may be 18 bytes.
    let mut nonce = [0; 18];
    match STANDARD.decode_slice(key, &mut nonce) {
        Ok(16) => Ok(key),
        _ => Err(KEY),
    }
}

/// The client's first subprotocol that is ours. `None` when it names none; one that names only others
/// would not understand us, except where any path and so any purpose is served.
fn read_form(fields: &Fields<'_, '_>, policy: &UpgradePolicy) -> Result<Option<Form>, HttpRefusal> {
    let mut form = None;
    let mut is_offered = false;
    for value in fields.all("sec-websocket-protocol") {
        for name in value.split(|byte| *byte == b',') {
            let name = name.trim_ascii();
            if !is_token(name) {
                return Err(HttpRefusal::bad("Sec-WebSocket-Protocol is malformed"));
            }
            is_offered = true;
            form = form.or_else(|| str::from_utf8(name).ok().and_then(Form::from_subprotocol));
        }
    }
    if is_offered && form.is_none() && policy.path.is_some() {
        return Err(HttpRefusal::bad("no subprotocol is known: chat.v1.json, chat.v1.bin"));
    }
    Ok(form)
}

/// Another scheme than Bearer is somebody else's and left alone.
fn read_bearer(fields: &Fields<'_, '_>) -> Result<Option<Token>, HttpRefusal> {
    let Some(value) = fields.at_most_one("authorization")? else {
        return Ok(None);
    };
    let Some((scheme, token)) = read_text(value)?.split_once(' ') else {
        return Ok(None);
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    match Token::new(token.trim_ascii()) {
        Some(token) => Ok(Some(token)),
        None => Err(HttpRefusal::bad("the bearer token is malformed")),
    }
}

fn read_text(value: &[u8]) -> Result<&str, HttpRefusal> {
    str::from_utf8(value).map_err(|_| HttpRefusal::bad("a header is not text"))
}

/// No extension is ever taken, so all that matters is that what we skip is a list with an end.
fn quotes_are_closed(value: &[u8]) -> bool {
    let mut is_quoted = false;
    let mut is_escaped = false;
    for byte in value {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
    }
    !is_quoted
}

/// Header fields by lower-case name.
struct Fields<'h, 'b>(&'h [httparse::Header<'b>]);

impl<'b> Fields<'_, 'b> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'b [u8]> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    fn only(&self, name: &'static str) -> Option<&'b [u8]> {
        let mut values = self.all(name);
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }

    fn at_most_one(&self, name: &'static str) -> Result<Option<&'b [u8]>, HttpRefusal> {
        let mut values = self.all(name);
        let value = values.next();
        match values.next() {
            None => Ok(value),
            Some(_) => Err(HttpRefusal::bad("a header that may stand once stands twice")),
        }
    }
}
