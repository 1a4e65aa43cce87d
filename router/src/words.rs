//! What a word is, for whoever indexes messages, looks for them, and shows what was found: one place, so that the three agree.
//!
//! A word is a run of letters, digits and the marks that belong to them, in lower case. What is written without spaces between words (Chinese,
//! Japanese, Thai and its neighbours) has no such runs: there every two characters that stand side by side are a word, and each alone is one
//! of a message, so that whoever looks for one finds it.

use std::collections::HashSet;
use std::ops::Range;

use protocol::limits::{QUERY_BYTES_MAX, SNIPPET_BYTES_MAX};

/// Longest word, in bytes: of what is longer the beginning counts. No language needs more; addresses and keys are longer.
const WORD_BYTES_MAX: usize = 64;

/// Bytes of a snippet before the word that was found: it is to be seen in what led to it.
const LEAD_BYTES: usize = 60;

const _: () = {
    assert!(LEAD_BYTES + WORD_BYTES_MAX < SNIPPET_BYTES_MAX);
    assert!(WORD_BYTES_MAX <= QUERY_BYTES_MAX);
};

/// The words of a message, each once.
#[must_use]
pub fn of_message(text: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    go_through(text, Singles::Counted, |word, _| {
        if !seen.contains(word) {
            seen.insert(word.to_owned());
        }
        true
    });
    let mut words: Vec<String> = seen.into_iter().collect();
    // One message gives one list, whatever the set made of it.
    words.sort_unstable();
    words
}

/// What is looked for: a message has to have all of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// Longest first: they are in the fewest messages, as a rule.
    words: Vec<String>,
}

impl Query {
    /// The words of a query. Whatever else stands in it separates them.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut words: Vec<String> = Vec::new();
        go_through(text, Singles::Alone, |word, _| {
            if !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
            true
        });
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        Self { words }
    }

    /// The words, the rarest first as far as that can be told.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Some of a text with the first of the words in it; `None` if it does not have all of them.
    #[must_use]
    pub fn snippet(&self, text: &str) -> Option<String> {
        let mut missing: HashSet<&str> = self.words.iter().map(String::as_str).collect();
        if missing.is_empty() {
            return None;
        }
        let mut first: Option<Range<usize>> = None;
        go_through(text, Singles::Counted, |word, place| {
            if missing.remove(word) {
                first.get_or_insert(place);
            }
            !missing.is_empty()
        });
        missing.is_empty().then(|| cut(text, first.map_or(0, |place| place.start)))
    }
}

/// At most so much of a text as a snippet holds, around a place in it.
fn cut(text: &str, at: usize) -> String {
    let mut start = if text.len() <= SNIPPET_BYTES_MAX { 0 } else { at.saturating_sub(LEAD_BYTES) };
    while !text.is_char_boundary(start) {
        start += 1;
    }
    if start > 0 {
        // It begins with a word, if one begins before what was found.
        let lead = &text[start..at];
        start +=
            lead.find(char::is_whitespace).map_or(0, |space| lead.len() - lead[space..].trim_start().len());
    }
    let mut end = text.len().min(start + SNIPPET_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[start..end].to_owned()
}

/// Whether a character that stands beside others of its kind is a word by itself too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Singles {
    /// Only where it stands alone.
    Alone,
    Counted,
}

/// Shows every word of a text with its place, in order, until `wants_more` says no.
fn go_through(text: &str, singles: Singles, mut wants_more: impl FnMut(&str, Range<usize>) -> bool) {
    let mut word = String::new();
    let mut rest = text.char_indices().peekable();
    while let Some((start, first)) = rest.next() {
        if !is_of_word(first) {
            continue;
        }
        let is_dense = is_dense(first);
        let mut end = start + first.len_utf8();
        // Places of the characters of a run that is written without spaces.
        let mut before = start..end;
        let mut is_alone = true;
        if is_dense && singles == Singles::Counted && !wants_more(&text[before.clone()], before.clone()) {
            return;
        }
        while let Some((at, next)) =
            rest.next_if(|(_, next)| is_of_word(*next) && self::is_dense(*next) == is_dense)
        {
            end = at + next.len_utf8();
            if is_dense {
                is_alone = false;
                let pair = before.start..end;
                before = at..end;
                if !wants_more(&text[pair.clone()], pair) {
                    return;
                }
                if singles == Singles::Counted && !wants_more(&text[before.clone()], before.clone()) {
                    return;
                }
            }
        }
        if !is_dense {
            lower_into(&text[start..end], &mut word);
            if !wants_more(&word, start..end) {
                return;
            }
        } else if is_alone && singles == Singles::Alone && !wants_more(&text[start..end], start..end) {
            return;
        }
    }
}

/// The beginning of a run in lower case.
fn lower_into(run: &str, word: &mut String) {
    word.clear();
    for character in run.chars().flat_map(char::to_lowercase) {
        if word.len() + character.len_utf8() > WORD_BYTES_MAX {
            return;
        }
        word.push(character);
    }
}

fn is_of_word(character: char) -> bool {
    // Accents that stand behind their letters are no letters, and belong to the word.
    character.is_alphanumeric() || matches!(character, '\u{300}'..='\u{36f}')
}

/// Whether it is of a script that is written without spaces between words.
fn is_dense(character: char) -> bool {
    matches!(character,
        // Thai, Lao, Myanmar, Khmer.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        // Kana, and Han with all of its additions.
        | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9d}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, query: &str) -> Option<String> {
        Query::new(query).snippet(text)
    }

    #[test]
    fn words_are_found_whatever_stands_between_them() {
        let text = "Fish & Chips at 12:30, Straße 7";
        for query in [
            "fish",
            "CHIPS fish",
            "\"fish chips\"",
            "12 30",
            "straße",
            "STRASSE straße OR",
            "fish AND (",
            "7 fish fish",
        ] {
            let has_all = !query.contains("OR") && !query.contains("AND");
            assert_eq!(found(text, query).is_some(), has_all, "{query}");
        }
        for query in ["fis", "fishes", "", "!?", "strasse", "fish beer"] {
            assert_eq!(found(text, query), None, "{query}");
        }
        // An accent of its own belongs to its letter.
        assert_eq!(Query::new("e\u{301}te\u{301}").words(), ["e\u{301}te\u{301}"]);
        assert_eq!(Query::new(&"x".repeat(200)).words(), ["x".repeat(WORD_BYTES_MAX)]);
    }

    #[test]
    fn what_is_written_without_spaces_is_found_by_its_parts() {
        let text = "明日東京へ行く。OKです";
        for query in ["東京", "東", "東京へ", "ok", "行く", "明日 東京", "です"] {
            assert!(found(text, query).is_some(), "{query}");
        }
        for query in ["京東", "日本", "く。O", "大阪"] {
            assert_eq!(found(text, query), None, "{query}");
        }
        assert!(found("สวัสดีครับ", "สวัสดี").is_some());
    }

    /// What the index is told has everything that a query can ask of the message.
    #[test]
    fn a_message_that_has_the_words_is_in_the_index_under_each_of_them() {
        for (text, query) in [
            ("Ein Ärger, 3x", "ärger 3X"),
            ("東京タワー", "京タ ー"),
            ("a東b", "東 a b"),
            ("한국어 글", "한국어"),
        ] {
            let (words, query) = (of_message(text), Query::new(query));
            assert!(query.snippet(text).is_some(), "{text}");
            assert!(query.words().iter().all(|word| words.contains(word)), "{words:?} {query:?}");
        }
        assert!(of_message("… — !").is_empty());
    }

    #[test]
    fn a_snippet_is_some_of_the_text_with_a_word_in_it() {
        let long = format!("{} needle {}", "wörd ".repeat(500), "hay ".repeat(500));
        let snippet = found(&long, "needle").expect("it is there");
        assert!(
            snippet.len() <= SNIPPET_BYTES_MAX
                && snippet.starts_with("wörd ")
                && snippet.contains(" needle hay"),
            "{snippet}"
        );
        assert_eq!(found("short needle", "needle").as_deref(), Some("short needle"));
        // One long run, cut between characters.
        let dense = "東".repeat(400) + "京" + &"都".repeat(400);
        let snippet = found(&dense, "京都").expect("it is there");
        assert!(snippet.len() <= SNIPPET_BYTES_MAX && snippet.contains("東京都"), "{snippet}");
        let last = format!("{}needle", "é".repeat(3000));
        assert_eq!(found(&last, "needle"), None, "it is the end of a word");
    }
}
