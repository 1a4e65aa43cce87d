//! `docs/BINARY.md` as it is read: its tables, and nothing that they do not say.

use std::{collections::BTreeMap, fs, ops::Range, path::PathBuf};

pub(crate) const HEADER: &str = "## 2. The header of a frame";
pub(crate) const TYPES: &str = "## 3. Payloads";
pub(crate) const OPERATIONS: &str = "## 4. Operations";
pub(crate) const WORDS: &str = "## 7. Numbers that stand for words";
pub(crate) const RECORDS: &str = "## 8. Stored records";
pub(crate) const TAGS: &str = "### Tagged additions";

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What stands in the document.
pub(crate) struct Document {
    pub(crate) text: String,
    pub(crate) objects: BTreeMap<String, Object>,
    pub(crate) operations: BTreeMap<u8, Operation>,
    pub(crate) words: Vec<(String, u64, String)>,
}

pub(crate) struct Object {
    pub(crate) bytes: usize,
    pub(crate) fields: Vec<Field>,
}

pub(crate) struct Field {
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) meaning: String,
}

pub(crate) enum Kind {
    Bytes,
    Id,
    Integer(usize),
    List(String),
    Object(String),
    Text,
}

pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) direction: String,
    pub(crate) id: String,
    pub(crate) payload: String,
    pub(crate) bytes: usize,
}

impl Document {
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(root().join("docs/BINARY.md")).expect("the document is there");
        let mut document =
            Self { objects: objects(&text), text, operations: BTreeMap::new(), words: Vec::new() };
        for row in document.rows(OPERATIONS) {
            let [op, name, direction, id, payload, bytes] =
                row.try_into().expect("a row of operations has six");
            let operation = Operation {
                name: quoted(&name),
                direction,
                id,
                payload: quoted(&payload),
                bytes: number(&bytes),
            };
            let before = document.operations.insert(op.parse().expect("an op is a byte"), operation);
            assert!(before.is_none(), "{op} stands twice");
        }
        for row in document.rows(WORDS) {
            document.words.push((row[0].clone(), number(&row[1]) as u64, quoted(&row[2])));
        }
        document
    }

    /// The rows of the tables behind a heading, up to the next heading.
    pub(crate) fn rows(&self, heading: &str) -> Vec<Vec<String>> {
        let (_, behind) = self.text.split_once(&format!("\n{heading}\n")).expect("the heading is there");
        let lines = behind.lines().take_while(|line| !line.starts_with('#')).collect::<Vec<_>>();
        let tables = lines.split(|line| !line.starts_with('|')).filter(|table| !table.is_empty());
        tables.flat_map(|table| table[2..].iter().map(|row| cells(row))).collect()
    }

    /// The bytes of a field of the header or of the portable part.
    pub(crate) fn range(&self, heading: &str, field: &str) -> Range<usize> {
        let rows = self.rows(heading);
        let row = rows.iter().find(|row| row.get(2).is_some_and(|name| name == field));
        let bytes = &row.unwrap_or_else(|| panic!("{field} is no row of {heading}"))[0];
        match bytes.split_once("..") {
            Some((start, end)) => number(start)..number(end),
            None => number(bytes)..number(bytes) + 1,
        }
    }

    /// Payload and event of a schema that clients are sent.
    pub(crate) fn schema(&self, schema: u64) -> Option<(String, String)> {
        let rows = self.rows(RECORDS);
        let row = rows.iter().find(|row| row.len() == 3 && row[0] == schema.to_string())?;
        Some((quoted(&row[1]), quoted(&row[2])))
    }

    pub(crate) fn object(&self, name: &str) -> &Object {
        self.objects.get(name).unwrap_or_else(|| panic!("{name} has no table"))
    }

    pub(crate) fn word(&self, what: &str, number: u64) -> Option<&str> {
        let word = self.words.iter().find(|(of, its, _)| of == what && *its == number);
        word.map(|(_, _, word)| &**word)
    }

    pub(crate) fn size(&self, kind: &Kind) -> usize {
        match kind {
            Kind::Bytes | Kind::List(_) | Kind::Text => 8,
            Kind::Id => 16,
            Kind::Integer(bytes) => *bytes,
            Kind::Object(name) => self.object(name).bytes,
        }
    }
}

fn objects(text: &str) -> BTreeMap<String, Object> {
    let mut objects = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("### `") {
            let (heading, bytes) = heading.split_once("`, ").expect("a heading says the size");
            heading.clone_into(&mut name);
            let bytes = number(bytes.trim_end_matches(" bytes").trim_end_matches(" byte"));
            assert!(
                objects.insert(name.clone(), Object { bytes, fields: Vec::new() }).is_none(),
                "{name} twice"
            );
        } else if line.starts_with('#') {
            name.clear();
        } else if line.starts_with('|')
            && !name.is_empty()
            && !line.starts_with("| at")
            && !line.starts_with("|-")
        {
            let [at, kind, field, meaning] = cells(line).try_into().expect("a row of an object has four");
            let field = Field { at: number(&at), kind: self::kind(&kind), name: quoted(&field), meaning };
            objects.get_mut(&name).expect("it was put there").fields.push(field);
        }
    }
    objects
}

pub(crate) fn kind(text: &str) -> Kind {
    match text {
        "bytes" => Kind::Bytes,
        "id" => Kind::Id,
        "text" => Kind::Text,
        "u8" => Kind::Integer(1),
        "u16" => Kind::Integer(2),
        "u32" => Kind::Integer(4),
        "u64" => Kind::Integer(8),
        list if list.starts_with("list of ") => Kind::List(quoted(list)),
        object => Kind::Object(quoted(object)),
    }
}

fn cells(row: &str) -> Vec<String> {
    let row = row.strip_prefix('|').and_then(|row| row.strip_suffix('|')).expect("a row ends as it begins");
    row.split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The first word in backticks; all of it where there are none.
fn quoted(cell: &str) -> String {
    cell.split('`').nth(1).unwrap_or(cell).to_owned()
}

pub(crate) fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

pub(crate) fn integer(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
