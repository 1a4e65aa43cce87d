//! A list in the data directory: what was revoked, what was erased, which a node cannot do without; and marks of push calls.
//!
//! ```text
//! {"version":1,"revocations":[
//! {"user":"alice","issued_before":1800000000},
//! {"issued_before":1790000000}
//! ],"sum":"0f5a…"}
//! ```
//!
//! Written whole under another name, synced, renamed, and the directory synced: what stands there is the list before or the list
//! after. The sum is BLAKE3 of what stands between the brackets, 128 bits: a list of which a disk has changed one letter would revoke
//! or erase something else. Whoever mends one by hand leaves the sum out.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::disk::{replace, sync_directory};

const VERSION: u64 = 1;

/// Hex digits of a sum.
const SUM_DIGITS: usize = 32;

/// What is known of a file before its version is.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<T> {
    #[serde(rename = "version")]
    _version: u64,
    #[serde(alias = "erasures", alias = "marks", alias = "revocations")]
    list: Option<Vec<T>>,
    sum: Option<String>,
}

/// What a list is.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Name of its file in the data directory.
    pub(crate) file: &'static str,
    /// Name of the list in it.
    pub(crate) list: &'static str,
    /// A larger file is not read.
    pub(crate) file_bytes_max: u64,
    /// Nor a longer list.
    pub(crate) entries_max: usize,
    /// What happens to who does without it, and when that is all right, for an operator.
    pub(crate) without: &'static str,
}

/// A list of a data directory that exists.
#[derive(Clone, Debug)]
pub(crate) struct KeptList {
    kind: &'static Kind,
    directory: PathBuf,
}

impl KeptList {
    pub(crate) fn of(kind: &'static Kind, directory: &Path) -> Self {
        Self { kind, directory: directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(self.kind.file)
    }

    /// All entries, none without a file, each given to `check` with what came before it.
    ///
    /// # Errors
    /// In words for an operator: the file and what to do about it.
    pub(crate) fn read<T: DeserializeOwned, C>(
        &self,
        check: impl Fn(T, &[C]) -> Result<C, String>,
    ) -> anyhow::Result<Vec<C>> {
        let path = self.path();
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            file => file,
        };
        let text = file.and_then(|file| {
            let mut text = String::new();
            file.take(self.kind.file_bytes_max + 1).read_to_string(&mut text)?;
            Ok(text)
        });
        let list = text.map_err(anyhow::Error::from).and_then(|text| self.kind.parse(&text, check));
        list.with_context(|| format!("{} cannot be used, and {}", path.display(), self.kind.without))
    }

    /// Brings what stands there to the disk: a process that was killed may have left it in the page cache only.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match File::open(self.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            file => file?.sync_all().and_then(|()| sync_directory(&self.directory)),
        }
    }

    /// Writes all entries, each a line; they are durable when it returns.
    ///
    /// # Errors
    /// Those of the disk. What stood there before still does, or all of these stand there.
    pub(crate) fn write(&self, lines: &[String]) -> io::Result<()> {
        let list = format!("\n{}\n", lines.join(",\n"));
        let Kind { list: name, .. } = self.kind;
        let text = format!("{{\"version\":{VERSION},\"{name}\":[{list}],\"sum\":\"{}\"}}\n", sum_of(&list));
        replace(&self.path(), |file| file.write_all(text.as_bytes())).map(drop)
    }
}

impl Kind {
    fn parse<T: DeserializeOwned, C>(
        &self,
        text: &str,
        check: impl Fn(T, &[C]) -> Result<C, String>,
    ) -> anyhow::Result<Vec<C>> {
        ensure!(text.len() as u64 <= self.file_bytes_max, "it is larger than {} bytes", self.file_bytes_max);
        let Versioned { version } = serde_json::from_str(text)?;
        if version != VERSION {
            bail!(
                "it has version {version} and this program knows {VERSION}: start the program that made it"
            );
        }
        let Document { list, sum, .. } = serde_json::from_str::<Document<T>>(text)?;
        let list = list.with_context(|| format!("missing field `{}`", self.list))?;
        if let Some(sum) = sum {
            let between = text.split_once('[').and_then(|(_, rest)| rest.rsplit_once(']'));
            ensure!(
                between.is_some_and(|(list, _)| sum_of(list) == sum),
                "what it says is not what was written, by its `sum`: leave that out once you have looked at every entry"
            );
        }
        ensure!(
            list.len() <= self.entries_max,
            "it holds {} entries, more than {}",
            list.len(),
            self.entries_max
        );
        let mut checked = Vec::with_capacity(list.len());
        for (place, entry) in list.into_iter().enumerate() {
            let entry = check(entry, &checked)
                .map_err(|reason| anyhow::anyhow!("entry {} of it: {reason}", place + 1));
            checked.push(entry?);
        }
        Ok(checked)
    }
}

fn sum_of(list: &str) -> String {
    blake3::hash(list.as_bytes()).to_hex()[..SUM_DIGITS].to_owned()
}

/// One line of a list.
///
/// # Errors
/// None that a list of names and numbers can have.
pub(crate) fn line(entry: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(entry)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    static KIND: Kind = Kind {
        file: "list.json",
        list: "revocations",
        file_bytes_max: 1_000,
        entries_max: 3,
        without: "nothing goes on",
    };

    fn read(list: &KeptList) -> anyhow::Result<Vec<String>> {
        list.read(
            |entry: String, before| {
                if before.contains(&entry) { Err("it stands there twice".to_owned()) } else { Ok(entry) }
            },
        )
    }

    #[test]
    fn no_changed_byte_makes_another_list() {
        let directory = tempfile::tempdir().expect("a directory");
        let list = KeptList::of(&KIND, directory.path());
        assert_eq!(read(&list).expect("no file is no entry"), Vec::<String>::new());
        let entries = ["alice", "bob"].map(str::to_owned);
        list.write(&entries.clone().map(|entry| line(&entry).expect("a line"))).expect("written");
        assert_eq!(read(&list).expect("sound"), entries);
        let path = directory.path().join(KIND.file);
        let sound = fs::read(&path).expect("written");
        for at in 0..sound.len() {
            for bit in 0..8 {
                let mut bytes = sound.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, &bytes).expect("written");
                if let Ok(read) = read(&list) {
                    assert_eq!(read, entries, "byte {at} bit {bit}");
                }
            }
        }
        for end in 0..sound.len() - 1 {
            fs::write(&path, &sound[..end]).expect("written");
            assert!(read(&list).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_list_that_was_mended_by_hand_needs_no_sum_and_what_is_not_known_is_refused() {
        let parse = |text: &str| {
            KIND.parse(text, |entry: String, before: &[String]| {
                if before.contains(&entry) { Err("it stands there twice".to_owned()) } else { Ok(entry) }
            })
        };
        let text = r#"{"version":1, "revocations": ["alice","bob"]}"#;
        assert_eq!(parse(text).expect("sound"), ["alice", "bob"]);
        for (from, to, words) in [
            (r#""version":1"#, r#""version":2"#, "start the program that made it"),
            (r#""bob"]"#, r#""alice"]"#, "entry 2 of it: it stands there twice"),
            (r#""bob"]"#, r#""b","c","d"]"#, "4 entries"),
            (r#""bob"]"#, r#""bob"],"sum":"""#, "not what was written"),
            (r#""bob"]"#, r#""bob"],"of":1"#, "unknown field"),
            (r#""bob"]}"#, r#""bob"]"#, "EOF"),
        ] {
            let error = parse(&text.replacen(from, to, 1)).expect_err("it is not sound");
            assert!(format!("{error:#}").contains(words), "{error:#}");
        }
    }
}
