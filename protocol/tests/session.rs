//! Two ends of one connection, without a network in between.

#![forbid(unsafe_code)]

mod samples;
mod wire;

use protocol::{
    command::{Request, Token},
    event::{CloseCode, ServerFrame},
    session::{End, Input, Session, SessionLimits},
    upgrade::{Form, HttpRefusal, Origins, UpgradePolicy},
    ws::{Opcode, Violation},
};
use wire::{masked, open_server, transcript};

const POLICY: UpgradePolicy = UpgradePolicy { path: Some(UpgradePolicy::PATH), origins: Origins::Unset };

/// Both ends, and what each was told.
struct Pair {
    client: Session,
    server: Session,
    step: usize,
    heard: Vec<String>,
    requests: Vec<Request>,
    frames: Vec<ServerFrame>,
}

impl Pair {
    /// `step` is how many bytes arrive at a time.
    fn new(form: Form, bearer: Option<&Token>, step: usize) -> Self {
        let client =
            Session::client(&SessionLimits::CLIENT, form, "localhost", UpgradePolicy::PATH, bearer, 7);
        let server = Session::server(&SessionLimits::CONNECT);
        Self { client, server, step, heard: Vec::new(), requests: Vec::new(), frames: Vec::new() }
    }

    /// Carries control bytes both ways until nobody has any.
    fn settle(&mut self) {
        while self.client.has_control() || self.server.has_control() {
            let mut bytes = Vec::new();
            self.client.poll_control(&mut bytes);
            self.carry_to_server(&mut bytes);
            let mut bytes = Vec::new();
            self.server.poll_control(&mut bytes);
            self.carry_to_client(&mut bytes);
        }
    }

    fn carry_to_server(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(self.step) {
            let mut at = 0;
            loop {
                match self.server.handle_bytes(&POLICY, &mut piece[at..]) {
                    Err(end) => {
                        self.heard.push(format!("server: {end}"));
                        break;
                    }
                    Ok(handled) => {
                        at += handled.consumed;
                        let Some(input) = handled.input else { break };
                        match Request::from_input(&input) {
                            Some(request) => self.requests.push(request.expect("clients send commands")),
                            None => self.heard.push(format!("server: {}", name(&input))),
                        }
                    }
                }
            }
        }
    }

    fn carry_to_client(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(self.step) {
            let mut at = 0;
            loop {
                match self.client.handle_bytes(&UpgradePolicy::ANY, &mut piece[at..]) {
                    Err(end) => {
                        self.heard.push(format!("client: {end}"));
                        break;
                    }
                    Ok(handled) => {
                        at += handled.consumed;
                        let Some(input) = handled.input else { break };
                        ServerFrame::from_input(&input, &mut self.frames).expect("servers send frames");
                        if !matches!(input, Input::Text(_) | Input::Binary(_)) {
                            self.heard.push(format!("client: {}", name(&input)));
                        }
                    }
                }
            }
        }
    }
}

fn name(input: &Input<'_>) -> String {
    match input {
        Input::Binary(_) | Input::Text(_) => "data".to_owned(),
        Input::Connected => "connected".to_owned(),
        Input::PeerClosed { code } => format!("closed {code}"),
        Input::Ping => "ping".to_owned(),
        Input::Pong => "pong".to_owned(),
        Input::Proxied(source) => format!("proxied {source:?}"),
        Input::Upgraded(upgrade) => {
            format!("upgraded {:?} bearer {}", upgrade.form, upgrade.bearer.is_some())
        }
    }
}

#[test]
fn everything_passes_both_ways_however_it_is_cut() {
    for form in [Form::Json, Form::Binary] {
        for step in [1, 2, 7, 1000, 1 << 20] {
            let token = Token::new("a.b.c");
            let mut pair = Pair::new(form, token.as_ref(), step);
            pair.settle();
            assert!(pair.client.is_open() && pair.server.is_open());
            assert_eq!((pair.server.form(), pair.client.form()), (form, form));

            let (mut commands, mut frames) = (Vec::new(), Vec::new());
            for (_, request) in samples::commands() {
                let mut payload = Vec::new();
                request.encode(form, &mut payload);
                pair.client.encode_message(form.opcode(), &payload, &mut commands);
            }
            for (_, frame) in samples::frames() {
                let mut payload = Vec::new();
                frame.encode(form, &mut payload);
                pair.server.encode_message(form.opcode(), &payload, &mut frames);
            }
            pair.carry_to_server(&mut commands);
            pair.carry_to_client(&mut frames);
            pair.client.close(CloseCode::NORMAL, "done");
            pair.settle();
            assert!(pair.requests.iter().eq(samples::commands().iter().map(|(_, request)| request)));
            assert!(pair.frames.iter().eq(samples::frames().iter().map(|(_, frame)| frame)));
            let upgraded = format!("server: upgraded {form:?} bearer true");
            let expected = [&upgraded, "client: connected", "server: closed 1000", "client: closed 1000"];
            assert_eq!(pair.heard, expected);
            for session in [&pair.client, &pair.server] {
                assert!(session.wants_shutdown() && session.held_bytes() == 0, "{session:?}");
            }
        }
    }
}

/// Frames glued to the request are frames.
#[test]
fn what_follows_the_request_is_data() {
    let mut client = Session::client(&SessionLimits::CLIENT, Form::Json, "h", UpgradePolicy::PATH, None, 1);
    let mut bytes = Vec::new();
    client.poll_control(&mut bytes);
    bytes.extend_from_slice(&masked(0x81, b"first"));
    let mut server = Session::server(&SessionLimits::CONNECT);
    let handled = server.handle_bytes(&POLICY, &mut bytes).expect("good");
    assert!(matches!(handled.input, Some(Input::Upgraded(_))));
    let at = handled.consumed;
    let handled = server.handle_bytes(&POLICY, &mut bytes[at..]).expect("good");
    assert_eq!(handled.input, Some(Input::Text("first")));
}

/// Of many pings that came before anything could be sent, the newest is answered.
#[test]
fn pongs_are_coalesced() {
    let mut server = open_server(&SessionLimits::OPEN);
    let mut flood: Vec<u8> = (0..1000).flat_map(|index: u32| masked(0x89, &index.to_be_bytes())).collect();
    flood.extend_from_slice(&masked(0x89, b"last"));
    let (mut at, mut pings) = (0, 0);
    while let handled = server.handle_bytes(&POLICY, &mut flood[at..]).expect("legal")
        && handled.input == Some(Input::Ping)
    {
        at += handled.consumed;
        pings += 1;
    }
    assert_eq!(pings, 1001);
    assert!(server.held_bytes() < 200);
    let mut out = Vec::new();
    server.poll_control(&mut out);
    server.poll_control(&mut out);
    assert_eq!(transcript(&out), ["pong last"]);
}

#[test]
fn the_close_is_said_once_and_ends_all() {
    let mut server = open_server(&SessionLimits::OPEN);
    server.close(CloseCode::DRAIN, "going away");
    server.close(CloseCode::INTERNAL, "again");
    assert!(!server.is_open() && !server.is_closed() && !server.wants_shutdown());
    let mut out = Vec::new();
    server.poll_control(&mut out);
    assert_eq!(transcript(&out), ["close 4000"]);

    // Data and pings on the way are ignored, and so is what a broken peer says now.
    let mut late = [masked(0x81, b"late"), masked(0x89, b"ping")].concat();
    let late_bytes = late.len();
    let handled = server.handle_bytes(&POLICY, &mut late).expect("ignored");
    assert_eq!((handled.consumed, handled.input), (late_bytes, None));
    let mut answer = masked(0x88, &4000_u16.to_be_bytes());
    let handled = server.handle_bytes(&POLICY, &mut answer).expect("awaited");
    assert_eq!(handled.input, Some(Input::PeerClosed { code: CloseCode::DRAIN }));
    assert!(server.wants_shutdown());
    server.poll_control(&mut out);
    assert_eq!(transcript(&out), ["close 4000"]);

    let mut server = open_server(&SessionLimits::OPEN);
    server.close(CloseCode::IDLE, "");
    server.poll_control(&mut Vec::new());
    let mut noise = [0xFF; 100];
    let handled = server.handle_bytes(&POLICY, &mut noise).expect("ignored");
    assert_eq!((handled.consumed, handled.input), (100, None));
    assert!(server.wants_shutdown());
}

#[test]
fn data_of_the_other_form_is_a_violation() {
    let mut server = open_server(&SessionLimits::OPEN);
    let end = server.handle_bytes(&POLICY, &mut masked(0x82, b"binary")).expect_err("JSON was agreed on");
    assert_eq!((end, end.close_code()), (End::Violation(Violation::Unsupported), CloseCode::UNSUPPORTED));
    let mut out = Vec::new();
    server.poll_control(&mut out);
    assert_eq!(transcript(&out), ["close 1003"]);
    assert!(server.wants_shutdown());
}

/// A stranger may send less than one who has shown a token.
#[test]
fn limits_grow_with_trust() {
    let big = masked(0x81, &[b'x'; 64 << 10]);
    let mut stranger = open_server(&SessionLimits::CONNECT);
    let end = stranger.handle_bytes(&POLICY, &mut big.clone()).expect_err("too much for a stranger");
    assert_eq!(end.close_code(), CloseCode::TOO_BIG);
    let mut guest = open_server(&SessionLimits::CONNECT);
    guest.admit(&SessionLimits::OPEN);
    let mut input = big.clone();
    assert!(guest.handle_bytes(&POLICY, &mut input).is_ok());
    let mut bigger = masked(0x81, &[b'x'; (64 << 10) + 1]);
    let end = guest.handle_bytes(&POLICY, &mut bigger);
    assert_eq!(end.expect_err("too much for anyone").close_code(), CloseCode::TOO_BIG);
}

#[test]
fn a_deadline_refuses_the_upgrade() {
    let mut server = Session::server(&SessionLimits::CONNECT);
    assert!(!server.is_mid_message());
    server.handle_bytes(&POLICY, &mut b"GET /".to_owned()).expect("so far");
    assert!(server.is_mid_message() && server.is_upgrading());
    server.refuse(HttpRefusal::TIMEOUT);
    let mut out = Vec::new();
    server.poll_control(&mut out);
    assert!(out.starts_with(b"HTTP/1.1 408 "));
    assert!(server.wants_shutdown() && server.held_bytes() == 0);
}

#[test]
fn a_client_believes_only_its_own_answer() {
    let good = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: chat.v1.json\r\n";
    for (response, expected) in [
        (format!("{good}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), 400),
        (format!("{good}\r\n"), 400),
        ("HTTP/1.1 503 x\r\n\r\n".to_owned(), 503),
        ("HTTP/1.1 200 x\r\n\r\n".to_owned(), 200),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ] {
        let mut client = Session::client(&SessionLimits::CLIENT, Form::Json, "h", "/", None, 1);
        client.poll_control(&mut Vec::new());
        let mut response = response.into_bytes();
        let end = client.handle_bytes(&UpgradePolicy::ANY, &mut response);
        assert!(matches!(end, Err(End::Refused(HttpRefusal { status, .. })) if status == expected));
        assert!(client.wants_shutdown());
    }
}

#[test]
fn clients_mask_and_vary_their_masks() {
    let mut pair = Pair::new(Form::Json, None, 1000);
    pair.settle();
    let mut out = Vec::new();
    pair.client.encode_message(Opcode::Text, b"{}", &mut out);
    pair.client.encode_ping(b"", &mut out);
    assert_eq!((out[1], out[9]), (0x82, 0x80));
    assert_ne!(out[2..6], out[10..14]);
}
