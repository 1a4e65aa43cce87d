//! `loadgen compare`: a real node beside its own echo service, and beside something that speaks as NATS does.

#![forbid(unsafe_code)]

mod support;

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use support::{Node, free_address, multiples};

/// What all connections of the NATS that we play share.
#[derive(Default)]
struct Nats {
    /// Who is subscribed to a subject, and under which number.
    subscribed: HashMap<String, (TcpStream, String)>,
    /// Of the stream: where what is published under a subject is delivered.
    consumers: HashMap<String, String>,
    streams: Vec<String>,
    stored: u64,
    /// Asked by those who say that they are there.
    pings: u64,
    /// Every one so far is given to its consumer, and then this one's text is not what was sent.
    garbled_at: Option<u64>,
}

impl Nats {
    fn serve(garbled_at: Option<u64>) -> (String, Arc<Mutex<Self>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let nats = Arc::new(Mutex::new(Self { garbled_at, ..Self::default() }));
        let shared = nats.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let nats = shared.clone();
                thread::spawn(move || Self::attend(&nats, stream));
            }
        });
        (address, nats)
    }

    fn attend(nats: &Mutex<Self>, stream: TcpStream) {
        let mut writer = stream.try_clone().expect("a descriptor");
        writer.write_all(b"INFO {\"server_name\":\"played\"}\r\n").expect("a client");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["PING"] => {
                    nats.lock().expect("no panic").pings += 1;
                    writer.write_all(b"PONG\r\nPING\r\n").expect("a client");
                }
                ["SUB", subject, number] => {
                    let (subject, number) = (subject.to_owned(), number.to_owned());
                    let to = writer.try_clone().expect("a descriptor");
                    nats.lock().expect("no panic").subscribed.insert(subject, (to, number));
                }
                ["PUB", subject, ref rest @ ..] => {
                    let bytes = rest.last().and_then(|bytes| bytes.parse().ok()).expect("a length");
                    let mut payload = vec![0; bytes];
                    reader.read_exact(&mut payload).expect("a payload");
                    reader.read_exact(&mut [0; 2]).expect("its end");
                    let reply = (rest.len() > 1).then(|| rest[0]);
                    nats.lock().expect("no panic").publish(subject, reply, &payload);
                }
                _ => {}
            }
            line.clear();
        }
    }

    fn publish(&mut self, subject: &str, reply: Option<&str>, payload: &[u8]) {
        let Some(reply) = reply else { return self.send(subject, payload) };
        let question = || serde_json::from_slice::<Value>(payload).expect("JSON");
        let answer = match subject.split('.').collect::<Vec<_>>()[..] {
            ["$JS", "API", "STREAM", "CREATE", name] => {
                self.streams.push(name.to_owned());
                json!({ "config": {} })
            }
            ["$JS", "API", "STREAM", "DELETE", name] => {
                self.streams.retain(|stream| stream != name);
                json!({ "success": true })
            }
            ["$JS", "API", "CONSUMER", "CREATE", _] => {
                let config = &question()["config"];
                let text = |key: &str| config[key].as_str().expect("a subject").to_owned();
                self.consumers.insert(text("filter_subject"), text("deliver_subject"));
                json!({ "name": "a" })
            }
            _ => {
                self.stored += 1;
                let to = self.consumers.get(subject).expect("a consumer").clone();
                let is_garbled = self.garbled_at == Some(self.stored);
                self.send(&to, if is_garbled { b"something else" } else { payload });
                json!({ "stream": "s", "seq": self.stored })
            }
        };
        self.send(reply, answer.to_string().as_bytes());
    }

    fn send(&mut self, subject: &str, payload: &[u8]) {
        let Some((to, number)) = self.subscribed.get_mut(subject) else { return };
        let head = format!("MSG {subject} {number} {}\r\n", payload.len());
        // In one piece; who has hung up is not asked any more.
        let _ = to.write_all(&[head.as_bytes(), payload, b"\r\n"].concat());
    }
}

fn compare(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    let output = command.args(["compare", "--pairs", "3", "--seconds", "1"]).args(arguments).output();
    let output = output.expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_node_is_measured_beside_others_in_turn() {
    let echo = free_address();
    let off = [("GATEHOUSE_USER_MESSAGES_PER_SECOND", "0"), ("GATEHOUSE_SESSION_COMMANDS_PER_SECOND", "0")];
    let node = Node::start("compare", &[off[0], off[1], ("GATEHOUSE_ECHO", &echo)]);
    let (nats, shared) = Nats::serve(None);
    let (data, json) = (node.directory.to_str().expect("plain"), node.directory.join("compare.json"));
    let contenders = [
        format!("gatehouse://{}", node.url.trim_start_matches("ws://")),
        format!("jetstream://{nats}"),
        format!("nats://{nats}"),
        format!("ws://{echo}/"),
    ];
    let files = ["--data", data, "--rounds", "2", "--json", json.to_str().expect("plain")];
    let floor = node.floor();
    let floor = floor.each_ref().map(String::as_str);
    let (is_good, text) = compare(&[&files[..], &floor, &contenders.each_ref().map(String::as_str)].concat());
    assert!(is_good, "{text}");
    assert!(text.contains("gatehouse / jetstream") && text.contains("only one of them stores"), "{text}");
    let table: Value = serde_json::from_slice(&fs::read(&json).expect("a report")).expect("JSON");
    // Who keeps nothing waits for no disk; the two that are played are a part of this process, as nobody else's.
    let multiples = multiples(&table);
    let waiting: Vec<_> = multiples.iter().filter(|name| !name.ends_with("CPU")).collect();
    assert_eq!(waiting, ["gatehouse p50", "gatehouse p99", "jetstream p50", "jetstream p99"]);
    assert!(
        multiples.contains(&"gatehouse CPU".to_owned()) && text.contains("\ngatehouse CPU"),
        "{multiples:?}"
    );
    let lines = table["lines"].as_array().expect("lines");
    assert_eq!(lines.len(), 4);
    for line in lines {
        let rounds = line["rounds"].as_array().expect("rounds");
        assert_eq!(rounds.len(), 2);
        assert!(rounds.iter().all(|round| round["per_second"].as_f64() > Some(1.0)), "{line}");
    }
    assert!(lines[0]["rounds"][0]["cpu_micros"].as_f64() > Some(0.0), "the node is on this machine");
    let begins: Vec<usize> = [
        "round 1 of 2: gatehouse",
        "round 1 of 2: jetstream",
        "round 2 of 2: jetstream",
        "round 2 of 2: gatehouse",
    ]
    .map(|words| text.find(words).expect("it is told"))
    .to_vec();
    assert!(begins.is_sorted(), "the second one begins the second round: {text}");
    let shared = shared.lock().expect("no panic");
    // Of three pairs in two rounds of each kind, and of making and taking away two streams, 40 are of connecting.
    assert!(shared.pings > 40, "both sides say that they are there: {}", shared.pings);
    assert!(shared.stored > 6 && shared.streams.is_empty(), "streams are taken away: {:?}", shared.streams);
}

#[test]
fn what_arrives_garbled_and_what_limits_rates_is_no_result() {
    let (nats, _shared) = Nats::serve(Some(5));
    let (first, second) = (format!("jetstream://{nats}"), format!("nats://{nats}"));
    let (is_good, text) = compare(&[&first, &second]);
    assert!(!is_good && text.contains("what was delivered is not what was sent"), "{text}");
    let node = Node::start("compare-rates", &[("GATEHOUSE_USER_MESSAGES_PER_SECOND", "1")]);
    let first = format!("gatehouse://{}", node.url.trim_start_matches("ws://"));
    let data = node.directory.to_str().expect("plain");
    let (is_good, text) = compare(&["--data", data, &first, &second]);
    assert!(!is_good && text.contains("set user_messages_per_second"), "{text}");
    let (is_good, text) = compare(&[&first, &second]);
    assert!(!is_good && text.contains("give --data DIR"), "{text}");
}
