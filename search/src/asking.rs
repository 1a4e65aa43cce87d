//! The asking side: which messages of some conversations have all of some words, newest first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::query::{BooleanQuery, Query, TermQuery, TermSetQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, IndexReader, Score, SegmentOrdinal, SegmentReader, Term};

use crate::Place;
use crate::index::IndexError;
use crate::schema::{AT, CONVERSATION_NUMBER, Fields, SEQ, conversation_number};

/// Up to so many conversations are looked for by their ids; of a user with more every message that has the words is looked at.
const NAMED_CONVERSATIONS_MAX: usize = 1_024;

/// What may be found: conversations, each from a sequence on.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    from: HashMap<u64, ([u8; 16], u64)>,
}

impl Scope {
    /// Of these conversations everything from a sequence on.
    pub fn new(conversations: impl IntoIterator<Item = ([u8; 16], u64)>) -> Self {
        let from = conversations.into_iter().map(|(id, from)| (conversation_number(id), (id, from)));
        Self { from: from.collect() }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// All of them; none finds nothing.
    pub words: Vec<String>,
    /// Where.
    pub scope: Arc<Scope>,
    /// Only what stands below this.
    pub before: Option<Place>,
    /// At most so many, the newest.
    pub candidates_max: usize,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Candidates {
    /// Messages that have the words, as far as the index knows, newest first.
    pub newest: Vec<Place>,
    /// There are older ones.
    pub more: bool,
}

/// Asks an index. It sees what was committed last.
#[derive(Clone)]
pub struct Reader {
    reader: IndexReader,
    fields: Fields,
}

impl Reader {
    pub(crate) fn new(reader: IndexReader, fields: Fields) -> Self {
        Self { reader, fields }
    }

    /// Messages in the index.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// Looks for words.
    ///
    /// # Errors
    /// [`IndexError`] where the index cannot be read.
    pub fn find(&self, asked: &Asked) -> Result<Candidates, IndexError> {
        if asked.words.is_empty() || asked.scope.from.is_empty() || asked.candidates_max == 0 {
            return Ok(Candidates::default());
        }
        let word = |word: &String| -> Box<dyn Query> {
            Box::new(TermQuery::new(Term::from_field_text(self.fields.words, word), IndexRecordOption::Basic))
        };
        let mut all: Vec<Box<dyn Query>> = asked.words.iter().map(word).collect();
        if asked.scope.from.len() <= NAMED_CONVERSATIONS_MAX {
            let ids = asked.scope.from.values();
            let terms = ids.map(|(id, _)| Term::from_field_bytes(self.fields.conversation, id));
            all.push(Box::new(TermSetQuery::new(terms)));
        }
        let newest = Newest { scope: asked.scope.clone(), before: asked.before, max: asked.candidates_max };
        Ok(self.reader.searcher().search(&BooleanQuery::intersection(all), &newest)?)
    }
}

/// Collects the newest of what may be found.
struct Newest {
    scope: Arc<Scope>,
    before: Option<Place>,
    max: usize,
}

impl Collector for Newest {
    type Fruit = Candidates;
    type Child = NewestOfSegment;

    fn for_segment(&self, _: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<NewestOfSegment> {
        let column = |name| segment.fast_fields().u64(name);
        Ok(NewestOfSegment {
            scope: self.scope.clone(),
            before: self.before,
            max: self.max,
            conversation: column(CONVERSATION_NUMBER)?,
            seq: column(SEQ)?,
            at: column(AT)?,
            found: BinaryHeap::new(),
            more: false,
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, segments: Vec<(Vec<Place>, bool)>) -> tantivy::Result<Candidates> {
        let mut more = segments.iter().any(|(_, more)| *more);
        let mut newest: Vec<Place> = segments.into_iter().flat_map(|(found, _)| found).collect();
        newest.sort_unstable_by_key(|place| Reverse(*place));
        more |= newest.len() > self.max;
        newest.truncate(self.max);
        Ok(Candidates { newest, more })
    }
}

struct NewestOfSegment {
    scope: Arc<Scope>,
    before: Option<Place>,
    max: usize,
    conversation: Column<u64>,
    seq: Column<u64>,
    at: Column<u64>,
    /// The oldest of them first.
    found: BinaryHeap<Reverse<Place>>,
    more: bool,
}

impl SegmentCollector for NewestOfSegment {
    type Fruit = (Vec<Place>, bool);

    fn collect(&mut self, doc: DocId, _: Score) {
        let of = |column: &Column<u64>| column.first(doc).unwrap_or(0);
        let at = of(&self.at);
        // Most of what is too old, or too new, is seen by one number.
        let oldest = self.found.peek().filter(|_| self.found.len() == self.max);
        if self.before.is_some_and(|before| at > before.at) {
            return;
        }
        let seq = of(&self.seq);
        let Some((conversation, _)) =
            self.scope.from.get(&of(&self.conversation)).filter(|(_, from)| seq >= *from)
        else {
            return;
        };
        let place = Place { at, conversation: *conversation, seq };
        if self.before.is_some_and(|before| place >= before) {
            return;
        }
        if let Some(Reverse(oldest)) = oldest {
            self.more = true;
            if place < *oldest {
                return;
            }
            self.found.pop();
        }
        self.found.push(Reverse(place));
    }

    fn harvest(self) -> Self::Fruit {
        (self.found.into_iter().map(|Reverse(place)| place).collect(), self.more)
    }
}
