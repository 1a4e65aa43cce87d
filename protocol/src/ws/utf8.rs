//! UTF-8 checked as it arrives, in pieces cut anywhere.
//!
//! Invariant: `carry` holds 0..=3 bytes that begin a character which the bytes to come may still
//! complete; anything that cannot become one was refused when its first impossible byte came.

/// A check that is under way. 4 bytes; the default is the beginning of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8 {
    carry: [u8; 3],
    carried: u8,
}

/// The bytes so far cannot begin any UTF-8 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

impl Utf8 {
    /// Takes the next piece.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), InvalidUtf8> {
        while self.carried > 0 {
            let [first, rest @ ..] = bytes else { return Ok(()) };
            bytes = rest;
            self.complete(*first)?;
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
            Err(error) => {
                let cut = &bytes[error.valid_up_to()..];
                self.carry[..cut.len()].copy_from_slice(cut);
                self.carried = cut.len() as u8;
                Ok(())
            }
        }
    }

    /// Whether the text may end here.
    pub fn finish(self) -> Result<(), InvalidUtf8> {
        if self.carried == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// Adds one byte to the cut character.
    fn complete(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        let carried = usize::from(self.carried);
        let mut character = [0; 4];
        character[..carried].copy_from_slice(&self.carry[..carried]);
        character[carried] = byte;
        match std::str::from_utf8(&character[..=carried]) {
            Ok(_) => self.carried = 0,
            Err(error) if error.error_len().is_some() => return Err(InvalidUtf8),
            Err(_) => {
                self.carry[carried] = byte;
                self.carried += 1;
            }
        }
        Ok(())
    }
}
