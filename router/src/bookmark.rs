//! Bookmarks: where a page of a user's conversations ended in every log, as an opaque string that only this store understands.
//!
//! `base64url([version u8][logs u8][position u64, conversation 16 each][tag 16])`, tagged as a cursor is. It says nothing that must be true: from a
//! restored copy of the store it only begins in another place.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::ids::{ConversationId, Seq, UnixMillis, UserId};
use smallvec::SmallVec;

use crate::cursor::{TAG_BYTES, tag};
use crate::index::HitPlace;
use crate::places::Places;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 2;
const PLACE_BYTES: usize = 8 + 16;

/// Sets its tags apart from those of cursors.
const DOMAIN: &[u8] = b"bookmark";

/// Where a conversation stands in its log: the position of its newest record, and which it is. Where it is not known where records of a segment
/// stand, several have one position.
pub(crate) type Place = (u64, ConversationId);

/// Above all.
pub(crate) const TOP: Place = (u64::MAX, ConversationId([u8::MAX; 16]));

/// A place of each log, in the order of the logs.
pub(crate) type PlaceOfEach = SmallVec<[Place; 4]>;

/// Writes the bookmark of a user: only what stands below these places comes after it.
pub(crate) fn encode(places: &Places, user: &UserId, below: &[Place]) -> String {
    let mut bytes = vec![VERSION, below.len() as u8];
    for (position, conversation) in below {
        bytes.extend_from_slice(&position.to_le_bytes());
        bytes.extend_from_slice(&conversation.0);
    }
    let tag = tag(places, user, DOMAIN, &bytes);
    bytes.extend_from_slice(&tag);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads one; `None` when it is not of this store and this user.
pub(crate) fn decode(places: &Places, user: &UserId, text: &str) -> Option<PlaceOfEach> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let logs = usize::from(places.logs);
    if bytes.len() != HEAD_BYTES + logs * PLACE_BYTES + TAG_BYTES
        || bytes[..HEAD_BYTES] != [VERSION, logs as u8]
    {
        return None;
    }
    let (signed, given) = bytes.split_at(bytes.len() - TAG_BYTES);
    let below = signed[HEAD_BYTES..].chunks_exact(PLACE_BYTES).map(|chunk| {
        let (position, conversation) = chunk.split_at(8);
        let position = u64::from_le_bytes(position.try_into().expect("8 bytes"));
        (position, ConversationId(conversation.try_into().expect("16 bytes")))
    });
    (tag(places, user, DOMAIN, signed) == given).then(|| below.collect())
}

/// Sets the tags of hits apart from the others.
const HIT_DOMAIN: &[u8] = b"hit";

/// Sets bookmarks of searches apart from those of before, which had another place in them.
const HIT_VERSION: u8 = 2;

/// Writes the bookmark of a search: `base64url([version u8][at u64][conversation 16][seq u64][tag 16])`. Only what stands below this place comes
/// after it.
pub(crate) fn encode_hit(places: &Places, user: &UserId, below: &HitPlace) -> String {
    let mut bytes = vec![HIT_VERSION];
    bytes.extend_from_slice(&below.at.0.to_le_bytes());
    bytes.extend_from_slice(&below.conversation.0);
    bytes.extend_from_slice(&below.seq.0.to_le_bytes());
    let tag = tag(places, user, HIT_DOMAIN, &bytes);
    bytes.extend_from_slice(&tag);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads one; `None` when it is not of this store and this user.
pub(crate) fn decode_hit(places: &Places, user: &UserId, text: &str) -> Option<HitPlace> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (signed, given) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
    let (version, rest) = signed.split_first_chunk::<1>()?;
    let (at, rest) = rest.split_first_chunk()?;
    let (conversation, seq) = rest.split_first_chunk()?;
    let place = HitPlace {
        at: UnixMillis(u64::from_le_bytes(*at)),
        conversation: ConversationId(*conversation),
        seq: Seq(u64::from_le_bytes(seq.try_into().ok()?)),
    };
    (*version == [HIT_VERSION] && tag(places, user, HIT_DOMAIN, signed) == given).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::limits::AFTER_BYTES_MAX;

    use crate::cursor::{self, Cursor, Starts};

    #[test]
    fn a_bookmark_of_as_many_logs_as_a_store_may_have_is_taken_back() {
        let places = Places::new([1; 16], [2; 32], 64, 2);
        let text = encode(&places, &UserId::new("alice").expect("a user"), &[TOP; 64]);
        assert!(text.len() <= AFTER_BYTES_MAX, "{}", text.len());
    }

    #[test]
    fn a_bookmark_of_a_search_is_of_one_store_and_one_user() {
        let places = Places::new([1; 16], [2; 32], 2, 2);
        let (user, other) = (UserId::new("alice").expect("a user"), UserId::new("bob").expect("a user"));
        let place = HitPlace {
            at: UnixMillis(u64::MAX),
            conversation: ConversationId([u8::MAX; 16]),
            seq: Seq(u64::MAX),
        };
        let text = encode_hit(&places, &user, &place);
        assert!(text.len() <= protocol::limits::BEFORE_BYTES_MAX, "{}", text.len());
        assert_eq!(decode_hit(&places, &user, &text), Some(place));
        assert_eq!(decode_hit(&places, &other, &text), None);
        assert_eq!(decode_hit(&Places { store: [9; 16], ..places.clone() }, &user, &text), None);
        // As they were: the position of a record, and its log.
        let mut before = vec![1; 1 + 8 + 8 + 2];
        let tag = tag(&places, &user, HIT_DOMAIN, &before);
        before.extend_from_slice(&tag);
        let before = URL_SAFE_NO_PAD.encode(before);
        for bad in ["", "AAAA", "not base64!", &text[1..], &encode(&places, &user, &[TOP, TOP]), &before] {
            assert_eq!(decode_hit(&places, &user, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bookmark_is_of_one_store_and_one_user_and_is_no_cursor() {
        let places = Places::new([1; 16], [2; 32], 2, 2);
        let user = UserId::new("alice").expect("a user");
        let below = [(7, ConversationId([9; 16])), TOP];
        let text = encode(&places, &user, &below);
        assert_eq!(decode(&places, &user, &text).as_deref(), Some(&below[..]));
        let other = UserId::new("bob").expect("a user");
        assert_eq!(decode(&places, &other, &text), None);
        assert_eq!(decode(&Places { store: [9; 16], ..places.clone() }, &user, &text), None);
        let starts = Starts::new(vec![Vec::new(), Vec::new()]);
        let cursor = Cursor::at([1, 2].into_iter().collect());
        assert_eq!(decode(&places, &user, &cursor::encode(&places, &starts, &user, &cursor)), None);
        for bad in ["", "AAAA", "not base64!", &text[1..], &text.to_lowercase()] {
            assert_eq!(decode(&places, &user, bad), None, "{bad}");
        }
    }
}
