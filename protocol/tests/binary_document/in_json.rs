//! What a message in the binary form says, as JSON says it. What differs between the two is said here, by name; no layout is.

use protocol::{binary, event::ErrorCode, ids::ConversationId, record::Portable};
use serde_json::{Map, Value, json};

use crate::{
    codec::{Codec, bytes},
    document::{HEADER, Kind, RECORDS, TAGS, integer},
};

impl Codec<'_> {
    /// A message of a server or of a client as JSON says it.
    pub(crate) fn message(&mut self, bytes: &[u8]) -> Value {
        let length = integer(&bytes[self.document.range(HEADER, "length")]) as usize;
        let is_record = length + 16 != bytes.len();
        assert_eq!(is_record, Portable::parse(bytes).is_ok(), "the length tells a record from a frame");
        if is_record {
            let mut records = self.records(bytes);
            return records.pop().expect("one at least");
        }
        let of = |field| integer(&bytes[self.document.range(HEADER, field)]);
        assert_eq!((of("magic"), of("version"), of("flags")), (u64::from(binary::MAGIC), 1, 0));
        let (op, id) = (of("op") as u8, of("id"));
        let operation = self.document.operations.get(&op).unwrap_or_else(|| panic!("{op} has no row"));
        let may_be_none = operation.id.ends_with("0 where it had none");
        assert!(may_be_none || (operation.id == "0") == (id == 0), "{op} has id {id}");
        self.met.insert(op.to_string());
        let value = self.payload(&operation.payload, &bytes[16..]);
        let mut value = self.as_json(&operation.payload, &value);
        value["op"] = operation.name.clone().into();
        if id != 0 {
            value["id"] = id.into();
        }
        value
    }

    fn records(&mut self, mut bytes: &[u8]) -> Vec<Value> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let document = self.document;
            let field = |name| &bytes[document.range(RECORDS, name)];
            assert_eq!((field("magic"), field("version"), field("kind")), (&b"GH"[..], &[1][..], &[1][..]));
            let (schema, length) = (integer(field("schema")), integer(field("length")) as usize);
            let (name, event) = document.schema(schema).expect("a schema that clients are sent");
            let portable = json!({
                "conversation": ConversationId(field("conversation").try_into().expect("16")).to_string(),
                "seq": integer(field("seq")),
                "at": integer(field("at")),
            });
            let value = self.payload(&name, &bytes[64..64 + length]);
            let mut value = self.as_json(&name, &value);
            value["op"] = event.into();
            records.push(record_as_json(value, portable));
            bytes = &bytes[(64 + length).next_multiple_of(16).min(bytes.len())..];
        }
        records
    }

    /// What JSON says in another way.
    fn as_json(&mut self, name: &str, value: &Value) -> Value {
        let mut value = value.clone();
        for field in &self.document.object(name).fields {
            match (&field.kind, &mut value[&field.name]) {
                (Kind::List(of), Value::Array(items)) => {
                    items.iter_mut().for_each(|item| *item = self.as_json(of, item));
                }
                (Kind::Object(of), object) => *object = self.as_json(of, object),
                _ => {}
            }
        }
        match name {
            "ConnectV1" => {
                let is_given = take(&mut value, "positions_given") == true;
                assert_eq!(is_given, !is_absent(&value["positions"]), "positions that are given say so");
            }
            "ErrorV1" => {
                let code = ErrorCode::from_code(value["code"].as_u64().expect("a code") as u16);
                value["name"] = code.expect("a known code").name().into();
            }
            "GapV1" => value["op"] = "gap".into(),
            "HistoryV1" => {
                let (direction, seq) = (take(&mut value, "direction"), take(&mut value, "seq"));
                value[direction.as_str().expect("a word")] = seq;
            }
            "ListMembersV1" => value["list"] = true.into(),
            "ListPageV1" => self.join_last(&mut value),
            "MembersV1" => value["roles"] = by_user(&value["roles"]),
            "MembershipV1" => {
                value["roles"] = by_user(&value["roles"]);
                value["added"] =
                    value["added"].as_array().expect("a list").iter().map(|at| at["user"].clone()).collect();
                let (is_set, ext) = (take(&mut value, "title_set"), bytes(&take(&mut value, "ext")));
                assert_eq!(is_set, value["title"] != "", "a title that is set says so");
                self.tagged_retention(&ext, &mut value);
            }
            "NameV1" => value = take(&mut value, "name"),
            "PageV1" => {
                let records = bytes(&take(&mut value, "records"));
                let mut items = self.records(&records);
                items.extend(take(&mut value, "gaps").as_array().expect("a list").clone());
                items.sort_by_key(|item| item.get("seq").or(item.get("from")).and_then(Value::as_u64));
                value["messages"] = items.into();
            }
            "ReadByV1" => value["read"] = take(&mut value, "seq"),
            "SetRetentionV1" => {
                let retention = take(&mut value, "retention");
                (value["days"], value["last"]) = (retention["days"].clone(), retention["last"].clone());
            }
            "ViewedV1" => value["receipts"] = take(&mut value, "read"),
            _ => {}
        }
        value
    }

    /// The records of a list, each with its conversation; and the name that is a peer's or a title.
    fn join_last(&mut self, page: &mut Value) {
        let mut records = self.records(&bytes(&take(page, "records"))).into_iter();
        for listed in page["conversations"].as_array_mut().expect("a list") {
            let name = if listed["kind"] == "direct" { "peer" } else { "title" };
            listed[name] = take(listed, "name");
            if take(listed, "has_last") == true {
                listed["last"] = records.next().expect("a record for each that has one");
            }
        }
        assert!(records.next().is_none(), "no record that is nobody's");
    }

    fn tagged_retention(&self, mut ext: &[u8], value: &mut Value) {
        let rows = self.document.rows(TAGS);
        let row = rows.iter().find(|row| row[3].starts_with("`retention`")).expect("the tag has a row");
        while let [tag, low, high, rest @ ..] = ext {
            let (bytes, behind) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])));
            if row[0] == tag.to_string() {
                value["retention"] = json!({ "days": integer(&bytes[..4]), "last": integer(&bytes[4..]) });
            }
            ext = behind;
        }
    }
}

fn record_as_json(mut value: Value, portable: Value) -> Value {
    let Value::Object(mut said) = portable else { unreachable!("it was made as one") };
    if let Some(form) = value.get_mut("form") {
        let mut form = form.take();
        form["reactions"] = grouped(&form["reactions"]);
        let is_folded = value["target"] == said["seq"];
        let is_hidden = value["change"] == "hidden";
        let kept: &[&str] = match form["deleted"] == true {
            _ if is_folded => {
                (value, form) = (form, Value::Null);
                value["op"] = "message".into();
                &[]
            }
            true => &["deleted"],
            false if is_hidden => &[],
            false => &["text", "edited_at", "reactions"],
        };
        kept.iter().for_each(|name| value[*name] = form[*name].clone());
    }
    let Value::Object(fields) = value else { unreachable!("a payload is an object") };
    // What is for the server, or said by the event's other fields.
    let extra = ["change", "content_hash", "created", "ext", "form"];
    for (name, field) in fields.into_iter().filter(|(name, _)| !extra.contains(&&**name)) {
        said.entry(name).or_insert(field);
    }
    said.into()
}

fn grouped(reactions: &Value) -> Value {
    let mut groups: Vec<Value> = Vec::new();
    for reaction in reactions.as_array().expect("a list") {
        let (emoji, user) = (&reaction["emoji"], reaction["user"].clone());
        match groups.iter_mut().find(|group| group["emoji"] == *emoji) {
            Some(group) => group["users"].as_array_mut().expect("a list").push(user),
            None => groups.push(json!({ "emoji": emoji, "users": [user] })),
        }
    }
    groups.into()
}

fn by_user(roles: &Value) -> Value {
    let roles = roles.as_array().expect("a list").iter();
    let pair = |at: &Value| (at["user"].as_str().expect("a text").to_owned(), at["role"].clone());
    roles.map(pair).collect::<Map<_, _>>().into()
}

fn take(value: &mut Value, name: &str) -> Value {
    let object = value.as_object_mut().expect("an object");
    object.remove(name).unwrap_or_else(|| panic!("there is no {name}"))
}

/// Whether two say the same: what is absent in JSON is empty, 0 or false in the binary form.
pub(crate) fn agrees(json: &Value, said: &Value) -> bool {
    match (json, said) {
        (Value::Null, said) => is_absent(said),
        (Value::Array(json), Value::Array(said)) => {
            json.len() == said.len() && json.iter().zip(said).all(|(json, said)| agrees(json, said))
        }
        (Value::Object(json), Value::Object(said)) => {
            json.iter().all(|(name, json)| said.get(name).is_some_and(|said| agrees(json, said)))
                && said.iter().all(|(name, said)| json.contains_key(name) || is_absent(said))
        }
        (json, said) => json == said,
    }
}

pub(crate) fn is_absent(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Null => true,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Object(fields) => fields.values().all(is_absent),
        Value::String(text) => text.is_empty() || *text == ConversationId([0; 16]).to_string(),
    }
}
