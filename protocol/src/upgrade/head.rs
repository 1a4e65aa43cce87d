//! Where an HTTP head ends.
//!
//! Invariant: no byte is looked at twice, however the head is cut into reads; `scanned` bytes of it hold
//! neither a NUL nor a bare line feed nor its end.

use super::HttpRefusal;
use crate::limits;

/// A request line may be this much longer than its target: method, version and two spaces.
const LINE_OVERHEAD_BYTES: usize = 32;

/// The search for the empty line, kept between reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    scanned: usize,
    /// Line ends seen one after the other: 2 is the end of the head.
    ends: u8,
    has_line: bool,
}

impl HeadScan {
    /// Looks on in `head`, which begins with all that was given before. `Some` is the length of the
    /// head, its final empty line included.
    pub fn find_end(&mut self, head: &[u8]) -> Result<Option<usize>, HttpRefusal> {
        for (index, &byte) in head.iter().enumerate().skip(self.scanned) {
            if index >= limits::HTTP_HEAD_BYTES_MAX {
                return Err(HttpRefusal::HEAD_TOO_LARGE);
            }
            if !self.has_line && index >= limits::HTTP_TARGET_BYTES_MAX + LINE_OVERHEAD_BYTES {
                return Err(HttpRefusal::TARGET_TOO_LONG);
            }
            match byte {
                0 => return Err(HttpRefusal::bad("the head holds a NUL")),
                b'\n' if index == 0 || head[index - 1] != b'\r' => {
                    return Err(HttpRefusal::bad("a line ends in a bare line feed"));
                }
                b'\n' if self.ends == 1 || index == 1 => {
                    self.scanned = index + 1;
                    return Ok(Some(index + 1));
                }
                b'\n' => {
                    self.ends = 1;
                    self.has_line = true;
                }
                b'\r' => {}
                _ => self.ends = 0,
            }
            self.scanned = index + 1;
        }
        Ok(None)
    }
}
