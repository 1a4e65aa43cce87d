//! A server that is wrong in one way: everything goes to a real node and back, but for one thing.
//!
//! It understands as much of WebSocket as that takes: where frames begin and end, and what the JSON in them says.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// What is wrong with the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutant {
    /// Another text in a message.
    Alter,
    /// Each frame comes after so much.
    Delay(Duration),
    /// A message comes twice.
    Double,
    /// Who has just joined is shown nothing.
    EmptyPage,
    /// A message is acknowledged and stored nowhere.
    Forge,
    /// A search finds a message of another conversation, too.
    Hit,
    /// A message also comes to somebody who is not in its conversation.
    Leak,
    /// A message does not come.
    Lose,
    /// Somebody is told of nobody who goes.
    LoseDepartures,
    /// A search is not answered.
    LoseAnswer,
    /// Who comes back is not told that a large group has moved.
    LoseHead,
    /// A page of a history is without one of its items.
    LoseItem,
    /// A message is found by no search.
    LoseHit,
    /// From some time on somebody is told of no receipt.
    LoseReceipts,
    /// Nothing.
    None,
    /// Every search finds nothing, and may miss some.
    Partial,
    /// Who views nothing is told that somebody came.
    Presence,
    /// Somebody is told twice that a member of what it views came.
    PresenceTwice,
    /// A receipt is followed by one from before it.
    ReceiptBack,
    /// Somebody who has left and is back is refused as no member.
    Refuse,
    /// A message also comes to somebody who was a member of its conversation and has left it.
    Stale,
    /// A message comes behind the next one of its conversation.
    Swap,
}

/// So long after a join was told its answer has come, too.
const KNOWN_AFTER: Duration = Duration::from_millis(500);
/// Deliveries of a conversation before the one that it is done to: so many are only those of a group, in which more will come.
const BEFORE: usize = 40;

/// What the connections share.
struct Shared {
    mutant: Mutant,
    /// The newest sequence of each conversation,
    heads: BTreeMap<String, u64>,
    /// and its deliveries.
    messages: BTreeMap<String, usize>,
    /// Of all conversations,
    delivered: usize,
    /// and so many pass before it is done.
    before: usize,
    /// How often it was done.
    done: usize,
    /// What each connection was sent messages of.
    seen: BTreeMap<usize, BTreeSet<String>>,
    clients: BTreeMap<usize, Arc<Mutex<TcpStream>>>,
    /// What connections have viewed; no others are here.
    viewers: BTreeMap<usize, BTreeSet<String>>,
    /// What no search finds.
    unfound: Option<(Value, Value)>,
    /// Whose receipts are lost.
    untold: Option<usize>,
    /// Who is behind each connection.
    users: BTreeMap<usize, String>,
    /// Conversations that somebody was taken out of, and whose connection that is.
    left: BTreeMap<String, usize>,
    /// Conversations that the user behind a connection has left and joined again, and when.
    back: BTreeMap<(String, usize), Instant>,
}

impl Shared {
    /// Whether it is to be done now, once.
    fn is_time(&self) -> bool {
        self.delivered >= self.before && self.done == 0
    }

    /// Whether it is to be done to a message of this conversation, once.
    fn is_time_in(&self, conversation: &str) -> bool {
        self.messages.get(conversation).is_some_and(|count| *count > BEFORE) && self.is_time()
    }
}

/// A mutant before a node. Its threads end with their connections.
pub(crate) struct Proxy {
    pub(crate) url: String,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// One that is wrong behind so many deliveries.
    pub(crate) fn start(mutant: Mutant, before: usize, node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("bound"));
        let (heads, messages, seen, clients, viewers) = Default::default();
        let (users, left, back) = Default::default();
        let shared = Shared {
            mutant,
            heads,
            messages,
            delivered: 0,
            before,
            done: 0,
            seen,
            clients,
            viewers,
            unfound: None,
            untold: None,
            users,
            left,
            back,
        };
        let shared = Arc::new(Mutex::new(shared));
        let (node, ours) = (node.trim_start_matches("ws://").to_owned(), shared.clone());
        thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                let (node, shared) = (node.clone(), ours.clone());
                thread::spawn(move || serve(number, client, &node, &shared));
            }
        });
        Self { url, shared }
    }

    /// How often it was wrong.
    pub(crate) fn done(&self) -> usize {
        lock(&self.shared).done
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with it")
}

/// One connection: its other direction has a thread of its own.
fn serve(number: usize, client: TcpStream, node: &str, shared: &Arc<Mutex<Shared>>) {
    let node = TcpStream::connect(node).expect("the node listens");
    node.set_nodelay(true).expect("a socket");
    client.set_nodelay(true).expect("a socket");
    let to_client = Arc::new(Mutex::new(client.try_clone().expect("a socket")));
    lock(shared).clients.insert(number, to_client.clone());
    let back = {
        let (shared, to_client) = (shared.clone(), to_client.clone());
        let node = node.try_clone().expect("a socket");
        thread::spawn(move || {
            let mut way = Back { number, shared: &shared, to_client: &to_client, held: None };
            // It ends with the connection, whichever side that ended from.
            let _ = way.run(BufReader::new(node));
            let _ = lock(&to_client).shutdown(Shutdown::Both);
        })
    };
    let _ = forth(number, BufReader::new(client), &node, shared, &to_client);
    let _ = node.shutdown(Shutdown::Both);
    let _ = back.join();
    lock(shared).clients.remove(&number);
}

/// From the client to the node.
fn forth(
    number: usize,
    mut client: impl Read,
    mut node: &TcpStream,
    shared: &Mutex<Shared>,
    to_client: &Mutex<TcpStream>,
) -> io::Result<()> {
    node.write_all(&read_head(&mut client)?)?;
    loop {
        let frame = Frame::read(&mut client)?;
        if let Some(said) = frame.json().filter(|said| said["op"] == "view") {
            let conversation = said["conversation"].as_str().unwrap_or_default().to_owned();
            lock(shared).viewers.entry(number).or_default().insert(conversation);
        }
        if let Some(answer) = forged(&frame, shared).or_else(|| refused(number, &frame, shared)) {
            lock(to_client).write_all(&answer)?;
            continue;
        }
        node.write_all(&frame.bytes)?;
    }
}

/// The acknowledgement of a message that goes nowhere.
fn forged(frame: &Frame, shared: &Mutex<Shared>) -> Option<Vec<u8>> {
    let mut shared = lock(shared);
    let said = frame.json().filter(|said| shared.mutant == Mutant::Forge && said["op"] == "send")?;
    let conversation =
        said["conversation"].as_str().filter(|conversation| shared.is_time_in(conversation))?;
    let seq = shared.heads.get(conversation)? + 1;
    shared.done += 1;
    let ok = json!({
        "op": "ok", "id": said["id"], "conversation": said["conversation"], "seq": seq,
        "message_id": said["message_id"], "at": 1,
    });
    Some(text_frame(&ok.to_string()))
}

/// The refusal of a message of somebody who was out and is in again, as everybody knows by then.
fn refused(number: usize, frame: &Frame, shared: &Mutex<Shared>) -> Option<Vec<u8>> {
    let mut shared = lock(shared);
    let is_time = shared.mutant == Mutant::Refuse && shared.is_time();
    let said = frame.json().filter(|said| is_time && said["op"] == "send")?;
    let place = (said["conversation"].as_str()?.to_owned(), number);
    shared.back.get(&place).filter(|since| since.elapsed() >= KNOWN_AFTER)?;
    shared.done += 1;
    let (code, name, message) = (2004, "not_a_member", "you are not a member of this conversation");
    let error = json!({"op": "error", "id": said["id"], "code": code, "name": name, "message": message});
    Some(text_frame(&error.to_string()))
}

/// From the node to the client.
struct Back<'a> {
    number: usize,
    shared: &'a Mutex<Shared>,
    to_client: &'a Mutex<TcpStream>,
    /// What is to come behind the next of its conversation.
    held: Option<(String, Vec<u8>)>,
}

impl Back<'_> {
    fn run(&mut self, mut node: impl Read) -> io::Result<()> {
        lock(self.to_client).write_all(&read_head(&mut node)?)?;
        loop {
            let frame = Frame::read(&mut node)?;
            let mutant = lock(self.shared).mutant;
            if let Mutant::Delay(delay) = mutant {
                thread::sleep(delay);
            }
            for bytes in self.pass(frame) {
                lock(self.to_client).write_all(&bytes)?;
            }
        }
    }

    /// What the client gets in the place of `frame`.
    fn pass(&mut self, frame: Frame) -> Vec<Vec<u8>> {
        let Some(said) = frame.json() else { return vec![frame.bytes] };
        let conversation = said["conversation"].as_str().unwrap_or_default().to_owned();
        self.note_member(&said, &conversation);
        match said["op"].as_str() {
            Some("message") => self.pass_message(frame, said, conversation),
            Some("receipt") => self.pass_receipt(frame, said, &conversation),
            Some("presence") => self.pass_presence(frame, &said),
            _ if said["hits"].is_array() => self.pass_hits(frame, said),
            Some("heads" | "page") => self.pass_reading(frame, said),
            _ => vec![frame.bytes],
        }
    }

    fn pass_message(&mut self, frame: Frame, said: Value, conversation: String) -> Vec<Vec<u8>> {
        if let Some((_, held)) = self.held.take_if(|(of, _)| *of == conversation) {
            return vec![frame.bytes, held];
        }
        let mut shared = lock(self.shared);
        let head = shared.heads.entry(conversation.clone()).or_default();
        *head = said["seq"].as_u64().unwrap_or_default().max(*head);
        *shared.messages.entry(conversation.clone()).or_default() += 1;
        shared.delivered += 1;
        shared.seen.entry(self.number).or_default().insert(conversation.clone());
        // Where there are no groups none has many.
        let is_viewed =
            || shared.viewers.get(&self.number).is_some_and(|viewed| viewed.contains(&conversation));
        // Of oneself nobody is told, and one is in all that one views.
        let is_of_another = || shared.users.get(&self.number).is_some_and(|own| said["sender"] != **own);
        if shared.mutant == Mutant::PresenceTwice && shared.is_time() && is_viewed() && is_of_another() {
            shared.done += 1;
            let told = json!({"op": "presence", "user": said["sender"], "online": true}).to_string();
            return vec![text_frame(&told), text_frame(&told), frame.bytes];
        }
        if !shared.is_time_in(&conversation) {
            return vec![frame.bytes];
        }
        shared.done += 1;
        match shared.mutant {
            Mutant::Alter => {
                let mut said = said;
                said["text"] = format!("{}?", said["text"].as_str().unwrap_or_default()).into();
                vec![text_frame(&said.to_string())]
            }
            Mutant::Double => vec![frame.bytes.clone(), frame.bytes],
            Mutant::Leak => {
                let is_stranger = |number: &&usize| {
                    shared.seen.get(number).is_some_and(|seen| !seen.contains(&conversation))
                };
                let stranger =
                    shared.clients.keys().find(is_stranger).expect("nobody is in every conversation");
                lock(&shared.clients[stranger]).write_all(&frame.bytes).expect("it is there");
                vec![frame.bytes]
            }
            Mutant::Lose => Vec::new(),
            Mutant::Presence => {
                let views_nothing = |number: &&usize| !shared.viewers.contains_key(number);
                let stranger = shared.clients.keys().find(views_nothing).expect("not everybody views");
                let told = json!({"op": "presence", "user": said["sender"], "online": true});
                let told = text_frame(&told.to_string());
                lock(&shared.clients[stranger]).write_all(&told).expect("it is there");
                vec![frame.bytes]
            }
            Mutant::Stale => {
                let Some(number) = shared.left.get(&conversation) else {
                    shared.done -= 1;
                    return vec![frame.bytes];
                };
                lock(&shared.clients[number]).write_all(&frame.bytes).expect("it is there");
                vec![frame.bytes]
            }
            Mutant::Swap => {
                self.held = Some((conversation, frame.bytes));
                Vec::new()
            }
            // It is wrong elsewhere, or nowhere.
            _ => {
                shared.done -= 1;
                vec![frame.bytes]
            }
        }
    }
}

impl Back<'_> {
    /// Who is behind this connection, and whether it is told that it joined or left.
    fn note_member(&self, said: &Value, conversation: &str) {
        let mut shared = lock(self.shared);
        if said["op"] == "welcome" {
            let user = said["user"].as_str().unwrap_or_default().to_owned();
            shared.users.insert(self.number, user);
        }
        let Some(user) = shared.users.get(&self.number) else { return };
        let names = |list: &Value| list.as_array().is_some_and(|names| names.iter().any(|name| name == user));
        if names(&said["removed"]) {
            shared.left.insert(conversation.to_owned(), self.number);
            shared.back.remove(&(conversation.to_owned(), self.number));
        } else if names(&said["added"]) {
            shared.left.remove(conversation);
            // Whoever is told so by what is no creation was out before.
            if said["seq"].as_u64() > Some(1) {
                shared.back.insert((conversation.to_owned(), self.number), Instant::now());
            }
        }
    }

    /// What the client gets in the place of what tells who was away how far a group has moved, and of what it reads of it.
    fn pass_reading(&self, frame: Frame, mut said: Value) -> Vec<Vec<u8>> {
        let mut shared = lock(self.shared);
        let (list, least) = match shared.mutant {
            Mutant::LoseHead => (&mut said["conversations"], 1),
            // One in between, so that it is missed at once.
            Mutant::LoseItem => (&mut said["messages"], 3),
            // Nobody asks for a page but who has joined or left, and who has left is refused.
            Mutant::EmptyPage => (&mut said["messages"], 1),
            _ => return vec![frame.bytes],
        };
        let Some(list) = list.as_array_mut().filter(|list| list.len() >= least) else {
            return vec![frame.bytes];
        };
        if !shared.is_time() {
            return vec![frame.bytes];
        }
        shared.done += 1;
        match shared.mutant {
            Mutant::EmptyPage => list.clear(),
            _ => _ = list.remove(least / 2),
        }
        vec![text_frame(&said.to_string())]
    }

    /// What the client gets in the place of a receipt: one that is about reading, of a conversation in which enough was said.
    fn pass_receipt(&self, frame: Frame, mut said: Value, conversation: &str) -> Vec<Vec<u8>> {
        let mut shared = lock(self.shared);
        let read = said["read"].as_u64().unwrap_or_default();
        let is_time =
            shared.is_time_in(conversation) && read > 1 && shared.viewers.contains_key(&self.number);
        match shared.mutant {
            Mutant::LoseReceipts if is_time => {
                shared.done += 1;
                shared.untold = Some(self.number);
                Vec::new()
            }
            Mutant::LoseReceipts if shared.untold == Some(self.number) => Vec::new(),
            Mutant::ReceiptBack if is_time => {
                shared.done += 1;
                said["read"] = (read - 1).into();
                vec![frame.bytes, text_frame(&said.to_string())]
            }
            _ => vec![frame.bytes],
        }
    }
}

impl Back<'_> {
    /// What the client gets in the place of what tells it that somebody came or went.
    fn pass_presence(&self, frame: Frame, said: &Value) -> Vec<Vec<u8>> {
        let mut shared = lock(self.shared);
        if shared.mutant != Mutant::LoseDepartures || said["online"] != false {
            return vec![frame.bytes];
        }
        if shared.is_time() {
            shared.done += 1;
            shared.untold = Some(self.number);
        }
        if shared.untold == Some(self.number) { Vec::new() } else { vec![frame.bytes] }
    }

    /// What the client gets in the place of what a search has found.
    fn pass_hits(&self, frame: Frame, mut said: Value) -> Vec<Vec<u8>> {
        let mut shared = lock(self.shared);
        if shared.mutant == Mutant::LoseAnswer && shared.is_time() {
            shared.done += 1;
            return Vec::new();
        }
        if shared.mutant == Mutant::Partial {
            shared.done = 1;
            (said["hits"], said["partial"]) = (json!([]), true.into());
            return vec![text_frame(&said.to_string())];
        }
        let Some(hits) = said["hits"].as_array_mut().filter(|hits| !hits.is_empty()) else {
            return vec![frame.bytes];
        };
        let place = |hit: &Value| (hit["conversation"].clone(), hit["seq"].clone());
        match shared.mutant {
            Mutant::Hit if shared.is_time() => {
                let is_known = shared.seen.get(&self.number).cloned().unwrap_or_default();
                let mut strange =
                    shared.heads.keys().filter(|conversation| !is_known.contains(*conversation));
                let Some(conversation) = strange.next().cloned() else { return vec![frame.bytes] };
                let mut hit = hits[0].clone();
                hit["conversation"] = conversation.into();
                hits.push(hit);
                shared.done += 1;
            }
            Mutant::LoseHit => {
                if shared.is_time() {
                    shared.done += 1;
                    shared.unfound = Some(place(&hits[0]));
                }
                hits.retain(|hit| Some(place(hit)) != shared.unfound);
            }
            _ => return vec![frame.bytes],
        }
        vec![text_frame(&said.to_string())]
    }
}

/// A frame as it came.
struct Frame {
    bytes: Vec<u8>,
    payload_at: usize,
    mask: Option<[u8; 4]>,
}

impl Frame {
    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut bytes = vec![0; 2];
        from.read_exact(&mut bytes)?;
        let mut more = |bytes: &mut Vec<u8>, count: usize| {
            let at = bytes.len();
            bytes.resize(at + count, 0);
            from.read_exact(&mut bytes[at..]).map(|()| at)
        };
        let length = match bytes[1] & 0x7f {
            126 => {
                let at = more(&mut bytes, 2)?;
                usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
            }
            127 => {
                let at = more(&mut bytes, 8)?;
                u64::from_be_bytes(bytes[at..].try_into().expect("eight")) as usize
            }
            short => usize::from(short),
        };
        let mask = match bytes[1] & 0x80 {
            0 => None,
            _ => {
                let at = more(&mut bytes, 4)?;
                Some(bytes[at..].try_into().expect("four"))
            }
        };
        let payload_at = more(&mut bytes, length)?;
        Ok(Self { bytes, payload_at, mask })
    }

    /// What a text says.
    fn json(&self) -> Option<Value> {
        let mask = self.mask.unwrap_or_default();
        let payload =
            self.bytes[self.payload_at..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        (self.bytes[0] & 0x0f == 1).then(|| serde_json::from_slice(&payload.collect::<Vec<_>>()).ok())?
    }
}

fn text_frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    let mut bytes = vec![0x81];
    match length {
        ..126 => bytes.push(length as u8),
        _ => {
            bytes.push(126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// A request or a response, up to the empty line.
fn read_head(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}
