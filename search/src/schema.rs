//! What is kept of a message: its words, and numbers to find, order and erase it by.

use tantivy::schema::{
    BytesOptions, FAST, Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions,
};

/// Names of the numbers that a search reads of every message that has its words.
pub(crate) const CONVERSATION_NUMBER: &str = "conversation_number";
pub(crate) const SEQ: &str = "seq";
pub(crate) const AT: &str = "at";

/// The fields by their numbers.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    /// Conversation and sequence: what a message is replaced and removed by.
    pub(crate) key: Field,
    pub(crate) conversation: Field,
    pub(crate) sender: Field,
    pub(crate) words: Field,
    pub(crate) conversation_number: Field,
    pub(crate) seq: Field,
    pub(crate) at: Field,
    pub(crate) position: Field,
    pub(crate) log: Field,
}

/// The schema, which is the same at every start: an index of another one is made anew.
pub(crate) fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    // Whether a word is there, and nothing of how often or where: half of the size, and the text itself says the rest.
    let words = TextFieldIndexing::default()
        .set_tokenizer("raw")
        .set_index_option(IndexRecordOption::Basic)
        .set_fieldnorms(false);
    let bytes = BytesOptions::default().set_indexed();
    let fields = Fields {
        key: builder.add_bytes_field("key", bytes.clone()),
        conversation: builder.add_bytes_field("conversation", bytes.clone()),
        sender: builder.add_bytes_field("sender", bytes),
        words: builder.add_text_field("words", TextOptions::default().set_indexing_options(words)),
        conversation_number: builder.add_u64_field(CONVERSATION_NUMBER, FAST),
        seq: builder.add_u64_field(SEQ, FAST),
        at: builder.add_u64_field(AT, FAST),
        position: builder.add_u64_field("position", FAST),
        log: builder.add_u64_field("log", FAST | INDEXED),
    };
    (builder.build(), fields)
}

/// What a message is known by.
pub(crate) fn key(conversation: [u8; 16], seq: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&conversation);
    key[16..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// Half of a conversation's id: enough to tell it from the others of one user. What it is mistaken for costs a look into the log.
pub(crate) fn conversation_number(conversation: [u8; 16]) -> u64 {
    let (_, tail) = conversation.split_at(8);
    u64::from_le_bytes(tail.try_into().expect("8 of 16 bytes"))
}
