//! Bookmarks: where a page of a user's conversations ended in every log, as an opaque string that only this store understands.
//!
//! `base64url([version u8][logs u8][position u64 each][tag 16])`, tagged as a cursor is. It says nothing that must be true: from a
//! restored copy of the store it only begins in another place.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::ids::UserId;

use crate::cursor::{Positions, TAG_BYTES, tag};
use crate::places::Places;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 2;

/// Sets its tags apart from those of cursors.
const DOMAIN: &[u8] = b"bookmark";

/// Writes the bookmark of a user: only what stands below these positions comes after it.
pub(crate) fn encode(places: &Places, user: &UserId, positions: &[u64]) -> String {
    let mut bytes = vec![VERSION, positions.len() as u8];
    bytes.extend(positions.iter().flat_map(|position| position.to_le_bytes()));
    let tag = tag(places, user, DOMAIN, &bytes);
    bytes.extend_from_slice(&tag);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads one; `None` when it is not of this store and this user.
pub(crate) fn decode(places: &Places, user: &UserId, text: &str) -> Option<Positions> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let logs = usize::from(places.logs);
    if bytes.len() != HEAD_BYTES + logs * 8 + TAG_BYTES || bytes[..HEAD_BYTES] != [VERSION, logs as u8] {
        return None;
    }
    let (signed, given) = bytes.split_at(bytes.len() - TAG_BYTES);
    let positions = signed[HEAD_BYTES..].chunks_exact(8);
    let positions = positions.map(|chunk| u64::from_le_bytes(chunk.try_into().expect("8 bytes")));
    (tag(places, user, DOMAIN, signed) == given).then(|| positions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{self, Starts};

    #[test]
    fn a_bookmark_is_of_one_store_and_one_user_and_is_no_cursor() {
        let places = Places::new([1; 16], [2; 32], 2, 2);
        let user = UserId::new("alice").expect("a user");
        let text = encode(&places, &user, &[7, u64::MAX]);
        assert_eq!(decode(&places, &user, &text).as_deref(), Some(&[7, u64::MAX][..]));
        let other = UserId::new("bob").expect("a user");
        assert_eq!(decode(&places, &other, &text), None);
        assert_eq!(decode(&Places { store: [9; 16], ..places.clone() }, &user, &text), None);
        let starts = Starts::new(vec![Vec::new(), Vec::new()]);
        assert_eq!(decode(&places, &user, &cursor::encode(&places, &starts, &user, &[1, 2])), None);
        for bad in ["", "AAAA", "not base64!", &text[1..], &text.to_lowercase()] {
            assert_eq!(decode(&places, &user, bad), None, "{bad}");
        }
    }
}
