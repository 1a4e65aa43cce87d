//! Writes JSON objects into a buffer: no tree, no intermediate strings.
//!
//! Invariant: names are constants of the protocol and need no escaping, except those given to
//! [`Object::text_under`]; every text does and gets it.

use uuid::{Uuid, fmt::Hyphenated};

/// An object being written. [`Object::end`] closes it.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// An object of a named operation.
    pub(super) fn op(out: &'o mut Vec<u8>, op: &'static str) -> Self {
        let mut object = Self::new(out);
        object.text("op", op);
        object
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    pub(super) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.name(name);
        write_text(self.out, text);
        self
    }

    pub(super) fn text_if(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.text(name, text);
        }
        self
    }

    /// An id in its canonical form.
    pub(super) fn uuid(&mut self, name: &str, bytes: &[u8; 16]) -> &mut Self {
        self.name(name);
        let mut text = [0; Hyphenated::LENGTH];
        self.out.push(b'"');
        self.out.extend_from_slice(
            Uuid::from_bytes_ref(bytes).as_hyphenated().encode_lower(&mut text).as_bytes(),
        );
        self.out.push(b'"');
        self
    }

    pub(super) fn uuid_if(&mut self, name: &str, bytes: Option<&[u8; 16]>) -> &mut Self {
        if let Some(bytes) = bytes {
            self.uuid(name, bytes);
        }
        self
    }

    /// A text under a name that is not a constant.
    pub(super) fn text_under(&mut self, name: &str, text: &str) -> &mut Self {
        self.separate();
        write_text(self.out, name);
        self.out.push(b':');
        write_text(self.out, text);
        self
    }

    pub(super) fn number(&mut self, name: &str, number: u64) -> &mut Self {
        const DIGITS_MAX: usize = 20;
        self.name(name);
        let mut digits = [0; DIGITS_MAX];
        let mut start = DIGITS_MAX;
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[start..]);
        self
    }

    pub(super) fn number_if(&mut self, name: &str, number: Option<u64>) -> &mut Self {
        if let Some(number) = number {
            self.number(name, number);
        }
        self
    }

    pub(super) fn null(&mut self, name: &str) -> &mut Self {
        self.name(name);
        self.out.extend_from_slice(b"null");
        self
    }

    pub(super) fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    pub(super) fn texts<'t>(&mut self, name: &str, texts: impl IntoIterator<Item = &'t str>) -> &mut Self {
        self.list(name, texts, |text, out| write_text(out, text))
    }

    /// Left out when empty.
    pub(super) fn texts_if<'t>(
        &mut self,
        name: &str,
        texts: impl IntoIterator<Item = &'t str, IntoIter: ExactSizeIterator>,
    ) -> &mut Self {
        let texts = texts.into_iter();
        if texts.len() > 0 {
            self.texts(name, texts);
        }
        self
    }

    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write_item: impl FnMut(T, &mut Vec<u8>),
    ) -> &mut Self {
        self.name(name);
        self.out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            write_item(item, self.out);
        }
        self.out.push(b']');
        self
    }

    /// A field whose value is what `write` appends.
    pub(super) fn value(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.name(name);
        write(self.out);
        self
    }

    pub(super) fn object(&mut self, name: &str) -> Object<'_> {
        self.name(name);
        Object::new(self.out)
    }

    fn name(&mut self, name: &str) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn separate(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }
}

/// Quotes and escapes `text` (RFC 8259, section 7): `"`, `\` and what is below U+0020.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..index]);
        start = index + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}
