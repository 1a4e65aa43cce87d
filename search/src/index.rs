//! The writing side: messages in, removed, committed with a mark.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tantivy::directory::error::{LockError, OpenDirectoryError, OpenReadError, OpenWriteError};
use tantivy::index::SegmentId;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::query::{BooleanQuery, Query, RangeQuery, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::tokenizer::{PreTokenizedString, Token};
use tantivy::{IndexReader, IndexSettings, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

use crate::asking::Reader;
use crate::schema::{Fields, conversation_number, key, schema};

/// Memory for words that are not in a file yet. More makes fewer and larger files; this is some hundred thousand messages.
const WRITER_BYTES: usize = 48 << 20;

/// Messages of one file of the index beyond which it is not merged with others any more.
const MERGED_DOCUMENTS_MAX: usize = 10_000_000;

/// Of one file, the part of its messages that is replaced or removed before it is written anew without them.
const REMOVED_RATIO_MAX: f32 = 0.2;

/// Why the index cannot go on. One is waited for, with the other it is made anew.
#[derive(Debug)]
pub enum IndexError {
    /// Another process has it, or this one has it open: it ends, as a rule.
    Busy,
    /// It is not what was written, or of another version. In words.
    Damaged(String),
    /// The disk has no room, or fails: the index is as it was committed last. In words.
    Later(String),
}

/// What is looked at before an index is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// All of its files are read, and their checksums compared.
    Sums,
    /// Nothing: that was done since this program runs.
    Nothing,
}

/// How an index was found.
#[derive(Debug)]
pub enum Opened {
    /// There is one, with the mark of its last commit.
    Found {
        /// The index.
        index: Index,
        /// As [`Index::commit`] was given it.
        mark: String,
    },
    /// There was none: it is empty, and without a mark.
    Made(Index),
}

/// A message that is to be found.
#[derive(Clone, Debug)]
pub struct Document<'d> {
    /// Where.
    pub conversation: [u8; 16],
    /// Its place there.
    pub seq: u64,
    /// Who sent it.
    pub sender: &'d [u8],
    /// When, milliseconds since 1970.
    pub at: u64,
    /// The log,
    pub log: u16,
    /// and there the position of the record that made the message what it is.
    pub position: u64,
    /// Its words, each once.
    pub words: Vec<String>,
}

/// An index that is written. There is one for a directory at a time.
pub struct Index {
    writer: IndexWriter,
    reader: IndexReader,
    fields: Fields,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index of a directory, or begins one; nobody but its owner may look into that.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] where there is something else: [`Index::remove`] makes room for a new one.
    pub fn open(directory: &Path, check: Check) -> Result<Opened, IndexError> {
        fs::create_dir_all(directory).map_err(IndexError::of_disk)?;
        // The engine makes its files for everybody to read.
        fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(IndexError::of_disk)?;
        let (schema, fields) = schema();
        let is_there = directory.join("meta.json").exists();
        let opened = if is_there {
            tantivy::Index::open_in_dir(directory)?
        } else {
            tantivy::Index::builder()
                .schema(schema.clone())
                .settings(IndexSettings::default())
                .create_in_dir(directory)?
        };
        if opened.schema() != schema {
            return Err(IndexError::Damaged("it was made by another version".to_owned()));
        }
        // What rots in it is not for the engine to come across: it takes its files for what it wrote.
        if check == Check::Sums
            && let Some(file) = opened.validate_checksum()?.into_iter().next()
        {
            return Err(IndexError::Damaged(format!("{} does not hold its checksum", file.display())));
        }
        let mark = opened.load_metas()?.payload;
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(WRITER_BYTES)
            .build();
        let writer = opened.writer_with_options(options)?;
        let mut policy = LogMergePolicy::default();
        policy.set_max_docs_before_merge(MERGED_DOCUMENTS_MAX);
        policy.set_del_docs_ratio_before_merge(REMOVED_RATIO_MAX);
        writer.set_merge_policy(Box::new(policy));
        let reader = opened.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let index = Self { writer, reader, fields };
        Ok(match mark {
            Some(mark) => Opened::Found { index, mark },
            None => Opened::Made(index),
        })
    }

    /// Removes an index with its directory. Nobody may have it open.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn remove(directory: &Path) -> io::Result<()> {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The asking side, for any thread. It sees what was committed.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.reader.clone(), self.fields)
    }

    /// Adds a message that is not there. One without words is not added.
    ///
    /// # Errors
    /// [`IndexError`]; then nothing since the last commit is in the index.
    pub fn add(&mut self, document: Document<'_>) -> Result<(), IndexError> {
        if document.words.is_empty() {
            return Ok(());
        }
        let Fields { key: key_field, conversation, sender, words, conversation_number: number, .. } =
            self.fields;
        let mut added = TantivyDocument::new();
        added.add_bytes(key_field, &key(document.conversation, document.seq));
        added.add_bytes(conversation, &document.conversation);
        added.add_bytes(sender, document.sender);
        let token = |(position, text)| Token { position, text, ..Token::default() };
        let tokens = document.words.into_iter().enumerate().map(token).collect();
        added.add_pre_tokenized_text(words, PreTokenizedString { text: String::new(), tokens });
        added.add_u64(number, conversation_number(document.conversation));
        added.add_u64(self.fields.seq, document.seq);
        added.add_u64(self.fields.at, document.at);
        added.add_u64(self.fields.position, document.position);
        added.add_u64(self.fields.log, u64::from(document.log));
        self.writer.add_document(added)?;
        Ok(())
    }

    /// Removes a message, if it is there. What is added later stays.
    pub fn remove_message(&mut self, conversation: [u8; 16], seq: u64) {
        self.writer.delete_term(Term::from_field_bytes(self.fields.key, &key(conversation, seq)));
    }

    /// Removes what was said in a conversation below a sequence, by records of its log up to a position.
    ///
    /// # Errors
    /// [`IndexError`]; then nothing since the last commit is in the index.
    pub fn remove_conversation(
        &mut self,
        conversation: [u8; 16],
        below: u64,
        log: u16,
        to: u64,
    ) -> Result<(), IndexError> {
        let conversation = Term::from_field_bytes(self.fields.conversation, &conversation);
        let front = numbers(self.fields.seq, 0, below);
        self.remove_up_to(vec![exactly(conversation), front], log, to)
    }

    /// Removes what a user has said, by records of a log up to a position.
    ///
    /// # Errors
    /// [`IndexError`]; then nothing since the last commit is in the index.
    pub fn remove_sender(&mut self, sender: &[u8], log: u16, to: u64) -> Result<(), IndexError> {
        self.remove_up_to(vec![exactly(Term::from_field_bytes(self.fields.sender, sender))], log, to)
    }

    /// Removes what was said before a time, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`IndexError`]; then nothing since the last commit is in the index.
    pub fn remove_before(&mut self, at: u64) -> Result<(), IndexError> {
        self.writer.delete_query(numbers(self.fields.at, 0, at))?;
        Ok(())
    }

    fn remove_up_to(&mut self, mut of: Vec<Box<dyn Query>>, log: u16, to: u64) -> Result<(), IndexError> {
        of.push(exactly(Term::from_field_u64(self.fields.log, u64::from(log))));
        of.push(numbers(self.fields.position, 0, to.saturating_add(1)));
        self.writer.delete_query(Box::new(BooleanQuery::intersection(of)))?;
        Ok(())
    }

    /// Writes and syncs everything since the last commit, with its owner's mark. Readers see it from then on.
    ///
    /// # Errors
    /// [`IndexError`]; then nothing since the last commit is in the index, and it has to be opened anew.
    pub fn commit(&mut self, mark: &str) -> Result<(), IndexError> {
        let mut prepared = self.writer.prepare_commit()?;
        prepared.set_payload(mark);
        prepared.commit()?;
        self.reader.reload()?;
        Ok(())
    }

    /// Writes every file anew that holds words of messages that were removed, and removes the old ones. To be asked behind a commit. `false`:
    /// some are being merged already, and may have been before the removal; ask again later.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn purge(&mut self) -> Result<bool, IndexError> {
        let mut is_done = true;
        for id in self.with_removed()? {
            match self.writer.merge(&[id]).wait() {
                Ok(_) => {}
                // Another merge has taken it, or takes it now.
                Err(TantivyError::InvalidArgument(_)) => is_done = false,
                Err(error) => return Err(error.into()),
            }
        }
        self.reader.reload()?;
        self.writer.garbage_collect_files().wait()?;
        Ok(is_done)
    }

    fn with_removed(&self) -> Result<Vec<SegmentId>, IndexError> {
        let metas = self.writer.index().searchable_segment_metas()?;
        let with_removed = metas.iter().filter(|meta| meta.has_deletes());
        Ok(with_removed.map(|meta| meta.id()).collect())
    }
}

fn exactly(term: Term) -> Box<dyn Query> {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

/// Numbers of a field from `from` on, and below `below`.
fn numbers(field: Field, from: u64, below: u64) -> Box<dyn Query> {
    let number = |number| Term::from_field_u64(field, number);
    Box::new(RangeQuery::new(Bound::Included(number(from)), Bound::Excluded(number(below))))
}

impl IndexError {
    fn of_disk(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::UnexpectedEof => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Later(error.to_string()),
        }
    }
}

impl From<TantivyError> for IndexError {
    fn from(error: TantivyError) -> Self {
        let words = error.to_string();
        match error {
            TantivyError::IoError(error) => Self::of_disk(io::Error::new(error.kind(), words)),
            TantivyError::OpenDirectoryError(OpenDirectoryError::IoError { io_error, .. })
            | TantivyError::OpenReadError(OpenReadError::IoError { io_error, .. })
            | TantivyError::OpenWriteError(OpenWriteError::IoError { io_error, .. }) => {
                Self::of_disk(io::Error::new(io_error.kind(), words))
            }
            TantivyError::LockFailure(LockError::LockBusy, _) => Self::Busy,
            TantivyError::LockFailure(LockError::IoError(_), _)
            // What it was writing failed, which is the disk as a rule. What is committed is as it was.
            | TantivyError::ErrorInThread(_)
            | TantivyError::OpenWriteError(_)
            | TantivyError::Poisoned
            | TantivyError::SystemError(_) => Self::Later(words),
            _ => Self::Damaged(words),
        }
    }
}
