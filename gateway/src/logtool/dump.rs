//! `gatehouse log dump`: the records of one stream, as they are stored.
//!
//! Prints what people wrote to each other, because that is what was asked for, and nothing of what was erased. Does not use index files: it reads the log from its
//! front, shows what is sound, and says when records may be missing.

use std::io::{self, Write};

use clap::{ArgGroup, Args};
use protocol::command::{HistoryPolicy, Role};
use protocol::ids::{ConversationId, UserId};
use protocol::record::{
    ArchivedConversationStateV1, ArchivedPositionsV1, Ext, SCHEMA_ERASED, SCHEMA_GONE, Stored, StoredBody,
    StreamKind, render_json,
};
use router::conversation::Erased;
use router::places::{Places, conversation_stream};
use serde_json::{Map, Value, json};
use storage_log::{Met, Record, StreamId};

use super::{Data, EXIT_DAMAGED, EXIT_SOUND, ReadFlags, time};
use crate::erasures::start::erased_in;
use crate::erasures::{Erasure, ErasuresFile};

/// Which stream, and how much of it.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("stream").required(true))]
pub struct DumpFlags {
    /// Which directory, and how it is said.
    #[command(flatten)]
    pub read: ReadFlags,
    /// The messages and membership events of this conversation
    #[arg(long, value_name = "ID", group = "stream")]
    pub conversation: Option<ConversationId>,
    /// What is linked into the inbox of this user, log by log
    #[arg(long, value_name = "NAME", group = "stream")]
    pub user: Option<UserId>,
    /// Of the conversation, its states instead: title, members, roles
    #[arg(long, conflicts_with = "user")]
    pub state: bool,
    /// Only from this sequence on
    #[arg(long, value_name = "SEQ", conflicts_with = "user")]
    pub from: Option<u64>,
    /// At most so many records
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// The stream that is meant, and the logs that it may stand in.
struct Asked {
    stream: StreamId,
    logs: std::ops::Range<u16>,
    from: u64,
    /// Records that are still wanted.
    left: u64,
    json: bool,
    places: Places,
    erasures: Vec<Erasure>,
}

pub(super) fn run(flags: &DumpFlags, out: &mut dyn Write) -> anyhow::Result<u8> {
    let data = Data::open(&flags.read.data)?;
    let mut asked = asked(flags, &data)?;
    let (wanted, mut damaged) = (asked.left, Vec::new());
    for log in asked.logs.clone() {
        if dump(&data, log, &mut asked, out)? {
            damaged.push(log);
        }
    }
    out.flush()?;
    anyhow::ensure!(
        !data.was_taken()?,
        "a node was started on {} while it was read, so the end may be missing: ask again",
        flags.read.data.display()
    );
    if asked.left == wanted {
        eprintln!("gatehouse: no such record stands in {}", flags.read.data.display());
    }
    for log in &damaged {
        eprintln!(
            "gatehouse: log {log} is damaged where it was read, so records may be missing here: `gatehouse log verify` names \
             the places"
        );
    }
    Ok(if damaged.is_empty() { EXIT_SOUND } else { EXIT_DAMAGED })
}

fn asked(flags: &DumpFlags, data: &Data) -> anyhow::Result<Asked> {
    let facts = &data.facts;
    let places = Places::new(facts.id, facts.key, facts.logs, 1);
    let kind = if flags.state { StreamKind::State } else { StreamKind::Messages };
    let (stream, logs) = match (flags.conversation, &flags.user) {
        (Some(conversation), _) => {
            let log = places.log_of(conversation);
            (conversation_stream(conversation, kind), log..log + 1)
        }
        (None, Some(user)) => (places.user_stream(user, StreamKind::Inbox), 0..facts.logs),
        (None, None) => unreachable!("one of them is required"),
    };
    let (from, left) = (flags.from.unwrap_or(0), flags.limit.unwrap_or(u64::MAX));
    let erasures = ErasuresFile::of(&data.directory).read()?;
    Ok(Asked { stream, logs, from, left, json: flags.read.json, places, erasures })
}

/// The records of one log on their way out.
struct Dump<'a> {
    log: u16,
    erased: Erased,
    asked: &'a mut Asked,
    out: &'a mut dyn Write,
    /// Where it was read.
    is_damaged: bool,
    written: io::Result<()>,
}

impl Dump<'_> {
    fn note(&mut self, met: Met<'_>) {
        match met {
            Met::Damaged(_) => self.is_damaged = true,
            Met::Record(record) if !self.is_over() && is_asked(self.asked, record) => {
                self.asked.left -= 1;
                let shown = self.erased.delivered(record.position(), record.portable());
                self.written = write_record(self.log, record, &shown, self.asked.json, self.out);
            }
            Met::Batch(_) | Met::Record(_) | Met::Remains(_) => {}
        }
    }

    fn is_over(&self) -> bool {
        self.asked.left == 0 || self.written.is_err()
    }
}

/// Writes the records of one log. Whether that is damaged where it was read.
fn dump(data: &Data, log: u16, asked: &mut Asked, out: &mut dyn Write) -> anyhow::Result<bool> {
    let mut reader = data.reader(log)?;
    let erased = erased_in(&asked.erasures, log, &asked.places);
    let mut dump = Dump { log, erased, asked, out, is_damaged: false, written: Ok(()) };
    while !dump.is_over() {
        if reader.step(&mut |met| dump.note(met))?.is_none() {
            reader.finish(&mut |met| dump.note(met));
            break;
        }
    }
    dump.written?;
    Ok(dump.is_damaged)
}

fn is_asked(asked: &Asked, record: &Record<'_>) -> bool {
    let stands_there = record.stream() == asked.stream && record.seq() >= asked.from;
    stands_there || record.links().any(|link| link.stream == asked.stream)
}

fn write_record(
    log: u16,
    record: &Record<'_>,
    shown: &[u8],
    json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let fields = fields(log, record, shown);
    if json {
        return writeln!(out, "{}", Value::Object(fields));
    }
    // What people wrote stands in quotes, so that it can neither end the line nor steer a terminal.
    let hidden = ["at", "conversation", "log", "op", "position", "schema", "seq", "stream"];
    write!(
        out,
        "{} log {log} position {} {} seq {} {}",
        time(record.at()),
        record.position(),
        ConversationId(record.stream().id),
        record.seq(),
        fields["op"].as_str().unwrap_or_default()
    )?;
    for (name, value) in fields.iter().filter(|(name, _)| !hidden.contains(&name.as_str())) {
        write!(out, " {name}={}", escaped(value))?;
    }
    writeln!(out)
}

/// JSON, with nothing left in it that a terminal acts on.
fn escaped(value: &Value) -> String {
    let text = value.to_string();
    let escape = |character: char| match character {
        control if control.is_control() => format!("\\u{:04x}", u32::from(control)),
        other => other.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Everything that is known of a record: its place in the log, and of its payload, by its schema, what is shown.
fn fields(log: u16, record: &Record<'_>, shown: &[u8]) -> Map<String, Value> {
    let mut fields = match Stored::parse(shown) {
        Ok(stored) => body(&stored),
        Err(_) => Map::new(),
    };
    if fields.is_empty() {
        let hex: String = record.payload().iter().map(|byte| format!("{byte:02x}")).collect();
        fields.insert("op".to_owned(), "unknown".into());
        fields.insert("payload_hex".to_owned(), hex.into());
    }
    for (name, value) in [
        ("log", json!(log)),
        ("position", json!(record.position())),
        ("stream", json!(record.stream().kind.0)),
        ("schema", json!(record.schema())),
        ("conversation", json!(ConversationId(record.stream().id).to_string())),
        ("seq", json!(record.seq())),
        ("at", json!(record.at())),
    ] {
        fields.insert(name.to_owned(), value);
    }
    fields
}

/// A payload as clients know it; nothing for one of an unknown schema.
fn body(stored: &Stored<'_>) -> Map<String, Value> {
    let value = match stored.body {
        StoredBody::Amendment(_)
        | StoredBody::Folded(_)
        | StoredBody::Membership(_)
        | StoredBody::Message(_) => serde_json::from_slice(&render_json(stored)).unwrap_or(Value::Null),
        StoredBody::Positions(positions) => positions_body(positions),
        // Tokens are counted: who has one can call the device.
        StoredBody::Settings(settings) => {
            let tokens = Ext::new(&settings.ext).push_tokens().len();
            let invisible_since = Ext::new(&settings.ext).invisible_since().map(|since| since.0);
            json!({ "op": "settings", "mutes": settings.mutes.len(), "push_tokens": tokens, "invisible_since": invisible_since })
        }
        StoredBody::Sighting(sighting) => json!({ "op": "sighting", "last_seen": sighting.at.to_native() }),
        StoredBody::State(state) => state_body(state),
        StoredBody::Taken(taken) => json!({ "op": "taken", "users": taken.users.len() }),
        StoredBody::Unknown if [SCHEMA_ERASED, SCHEMA_GONE].contains(&stored.portable.schema) => {
            serde_json::from_slice(&render_json(stored)).unwrap_or(Value::Null)
        }
        StoredBody::Unknown => Value::Null,
    };
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn positions_body(positions: &ArchivedPositionsV1) -> Value {
    let read = positions.positions.iter().map(|position| {
        let user = String::from_utf8_lossy(&position.user).into_owned();
        (user, json!(position.read.to_native()))
    });
    json!({ "op": "positions", "read": read.collect::<Map<_, _>>() })
}

fn state_body(state: &ArchivedConversationStateV1) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let members = state.members.iter().map(|member| {
        json!({
            "user": text(&member.user),
            "role": Role::from_number(member.role).map_or("unknown", Role::name),
            "visible_from": member.visible_from.to_native(),
        })
    });
    json!({
        "op": "state",
        "kind": if state.kind == 1 { "direct" } else { "group" },
        "history": HistoryPolicy::from_number(state.history).map_or("unknown", HistoryPolicy::name),
        "title": text(&state.title),
        "creator": text(&state.creator),
        "members": members.collect::<Vec<_>>(),
        "blocks": Ext::new(&state.ext).blocks(),
    })
}
