//! The codec that the document describes: payloads as values and back, by its tables alone.

use std::collections::BTreeSet;

use protocol::ids::ConversationId;
use serde_json::{Map, Value};

use crate::document::{Document, Field, Kind, integer};

/// The codec that the document describes, and which of its objects it has met.
pub(crate) struct Codec<'a> {
    pub(crate) document: &'a Document,
    pub(crate) met: BTreeSet<String>,
}

impl Codec<'_> {
    /// A payload as its root, which stands at the end. What is written from that is the payload again.
    pub(crate) fn payload(&mut self, name: &str, bytes: &[u8]) -> Value {
        let root = bytes.len().checked_sub(self.document.object(name).bytes).expect("the root fits");
        let value = self.read(name, bytes, root);
        let mut written = Vec::new();
        let lists = self.write_lists(name, &value, &mut written);
        self.write(name, &value, &mut lists.into_iter(), &mut written);
        assert_eq!(written, bytes, "{name} is written as {value}");
        value
    }

    fn read(&mut self, name: &str, bytes: &[u8], at: usize) -> Value {
        self.met.insert(name.to_owned());
        let document = self.document;
        let mut object = Map::new();
        for field in &document.object(name).fields {
            let at = at + field.at;
            let value = match &field.kind {
                Kind::Bytes => Value::from(list(bytes, at, 1)),
                Kind::Id => ConversationId(bytes[at..at + 16].try_into().expect("16")).to_string().into(),
                Kind::Integer(size) => self.read_integer(field, integer(&bytes[at..at + size])),
                Kind::List(of) => {
                    let (size, mut items) = (document.object(of).bytes, Vec::new());
                    let length = list(bytes, at, size).len();
                    for start in (start(bytes, at)..).step_by(size.max(1)).take(length / size) {
                        items.push(self.read(of, bytes, start));
                    }
                    items.into()
                }
                Kind::Object(of) => self.read(of, bytes, at),
                Kind::Text => str::from_utf8(list(bytes, at, 1)).expect("a text is UTF-8").into(),
            };
            assert!(object.insert(field.name.clone(), value).is_none(), "{name} has two {}", field.name);
        }
        object.into()
    }

    fn read_integer(&self, field: &Field, number: u64) -> Value {
        if field.meaning.starts_with("0 or 1") {
            assert!(number < 2, "{} is a flag", field.name);
            return (number == 1).into();
        }
        self.document.word(&field.meaning, number).map_or(number.into(), Value::from)
    }

    /// Writes what the lists of an object point to, in the order of its fields, and says where that begins and how many it is.
    fn write_lists(&self, name: &str, value: &Value, out: &mut Vec<u8>) -> Vec<(usize, usize)> {
        let mut lists = Vec::new();
        for field in &self.document.object(name).fields {
            let value = &value[&field.name];
            match &field.kind {
                Kind::Bytes | Kind::List(_) | Kind::Text => lists.push(self.write_list(field, value, out)),
                Kind::Id | Kind::Integer(_) => {}
                Kind::Object(of) => lists.extend(self.write_lists(of, value, out)),
            }
        }
        lists
    }

    fn write_list(&self, field: &Field, value: &Value, out: &mut Vec<u8>) -> (usize, usize) {
        if let Kind::Text = field.kind {
            let text = value.as_str().expect("a text");
            out.extend_from_slice(text.as_bytes());
            return (out.len() - text.len(), text.len());
        }
        let items = value.as_array().expect("a list");
        let Kind::List(of) = &field.kind else {
            out.extend(bytes(value));
            return (out.len() - items.len(), items.len());
        };
        let lists: Vec<_> = items.iter().map(|item| self.write_lists(of, item, out)).collect();
        let start = out.len();
        for (item, lists) in items.iter().zip(lists) {
            self.write(of, item, &mut lists.into_iter(), out);
        }
        (start, items.len())
    }

    fn write(
        &self,
        name: &str,
        value: &Value,
        lists: &mut dyn Iterator<Item = (usize, usize)>,
        out: &mut Vec<u8>,
    ) {
        for field in &self.document.object(name).fields {
            let value = &value[&field.name];
            match &field.kind {
                Kind::Bytes | Kind::List(_) | Kind::Text => {
                    let (start, count) = lists.next().expect("each list was written");
                    let pointer = i32::try_from(start as i64 - out.len() as i64).expect("it is short");
                    out.extend_from_slice(&pointer.to_le_bytes());
                    out.extend_from_slice(&(count as u32).to_le_bytes());
                }
                Kind::Id => {
                    let id: ConversationId = value.as_str().and_then(|id| id.parse().ok()).expect("an id");
                    out.extend_from_slice(&id.0);
                }
                Kind::Integer(size) => {
                    out.extend_from_slice(&self.write_integer(field, value).to_le_bytes()[..*size]);
                }
                Kind::Object(of) => self.write(of, value, lists, out),
            }
        }
    }

    fn write_integer(&self, field: &Field, value: &Value) -> u64 {
        let of = |(what, _, word): &&(String, u64, String)| *what == field.meaning && value == &**word;
        match value {
            Value::Bool(flag) => u64::from(*flag),
            Value::String(_) => self.document.words.iter().find(of).expect("the word was read").1,
            number => number.as_u64().expect("a number"),
        }
    }
}

/// Where a list's items begin: as far from the pointer as it says.
fn start(bytes: &[u8], at: usize) -> usize {
    let pointer = i32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    at.checked_add_signed(pointer as isize).expect("inside the payload")
}

fn list(bytes: &[u8], at: usize, item_bytes: usize) -> &[u8] {
    let count = integer(&bytes[at + 4..at + 8]) as usize;
    &bytes[start(bytes, at)..][..count * item_bytes]
}

/// A list of bytes, as it was read.
pub(crate) fn bytes(list: &Value) -> Vec<u8> {
    list.as_array().expect("a list").iter().map(|byte| byte.as_u64().expect("a byte") as u8).collect()
}
