//! Reads the configuration file: TOML, flat, every key known.
//!
//! A misspelt key is refused with the name it resembles, because a setting that is silently ignored is
//! found out on the day it was needed.

use std::{ops::Range, path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    ConfigError, Place,
    settings::{self, Draft, SETTINGS, Value},
};

/// A configuration is a page of text; a larger file is the wrong file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the file and applies it.
pub(super) fn apply(path: &Path, draft: &mut Draft, errors: &mut Vec<ConfigError>) {
    let text = std::fs::metadata(path).and_then(|metadata| {
        if metadata.len() > FILE_BYTES_MAX {
            return Err(std::io::Error::other("it is larger than 1 MiB, which no configuration is"));
        }
        std::fs::read_to_string(path)
    });
    match text {
        Ok(text) => apply_text(path, &text, draft, errors),
        Err(error) => errors.push(ConfigError {
            place: Place::File(path.into()),
            message: format!(
                "the configuration file cannot be read: {error}; check the path given by --config or \
                 GATEHOUSE_CONFIG"
            ),
        }),
    }
}

/// Applies the text of a file.
pub(super) fn apply_text(path: &Path, text: &str, draft: &mut Draft, errors: &mut Vec<ConfigError>) {
    let path: Arc<Path> = path.into();
    let place = |span: Range<usize>| Place::Line(path.clone(), line_of(text, span.start));
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        let place = error.span().map_or_else(|| Place::File(path.clone()), place);
        errors.push(ConfigError { place, message: error.message().replace('\n', ", ") });
    }
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let place = place(key.span());
        // What a broken line was taken for is guesswork: its syntax error says enough.
        if errors.iter().any(|error| error.place == place) {
            continue;
        }
        match settings::of_key(key.get_ref()) {
            Some(setting) => draft.apply(setting, &read_value(value), place, errors),
            None => errors.push(ConfigError { place, message: unknown(key.get_ref()) }),
        }
    }
}

fn read_value<'a>(value: &'a Spanned<DeValue<'_>>) -> Value<'a> {
    let other = |value: &DeValue<'_>| Value::Other(format!("a value of type {}", value.type_str()));
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text),
        DeValue::Boolean(is_so) => Value::Boolean(*is_so),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("an integer of more than 64 bits".to_owned()),
        },
        DeValue::Array(array) => match array.iter().map(|item| item.get_ref().as_str()).collect() {
            Some(list) => Value::List(list),
            None => Value::Other("a list of other things".to_owned()),
        },
        rest => other(rest),
    }
}

/// Lines count from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.bytes().filter(|byte| *byte == b'\n').count() + 1
}

fn unknown(key: &str) -> String {
    // A quoted key may hold anything, and a mistake is one line.
    let shown = key.escape_debug();
    let near = SETTINGS.iter().map(|setting| setting.key).min_by_key(|known| distance(known, key));
    match near {
        // Two slips of the finger; beyond that a guess misleads.
        Some(near) if distance(near, key) <= 2 => {
            format!("`{shown}` is not a setting; did you mean `{near}`?")
        }
        _ => {
            let known: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
            format!("`{shown}` is not a setting; there are: {}", known.join(", "))
        }
    }
}

/// Levenshtein's: the fewest insertions, deletions and replacements of bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, byte) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
