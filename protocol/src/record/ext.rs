//! What `ext` of a payload holds: tagged additions, for what a released struct has no field for.
//!
//! One after the other: `tag u8 | length u16, little-endian | that many bytes`. A tag stands once. What a reader does not
//! know it passes over, and a writer that changes the payload keeps it.

use crate::command::{PushToken, Retention};
use crate::ids::{DeviceId, Seq, UnixMillis};

/// Tag in the state of a conversation that fans out on read: the first sequence that no inbox has a link to. In a
/// membership record: no sequence from that one up to the record itself has one.
const UNLINKED_FROM: u8 = 1;

/// Tag in the state of a direct conversation: which of its members block the other, a bit each, in the order of the members. Absent
/// where nobody does.
const BLOCKS: u8 = 2;

/// Tag in what a user has set: the push tokens of its devices, the one that was set last behind the others. Of each: the length of the
/// device's id (1), that, the length of the token (2, little-endian), that.
const PUSH_TOKENS: u8 = 3;

/// Tag in the state of a conversation: how much of it is kept; absent where that is all. In a membership record: it was set to this. Days
/// (4, little-endian) and newest sequences (4), 0 for none.
const RETENTION: u8 = 4;

/// Tag in the state of a conversation: what is not kept, whatever is set now, because something was set before. The first sequence (8,
/// little-endian) and the first time (8, milliseconds since 1970) that are.
const FRONT: u8 = 5;

/// Tag in what a user has set: since when the user is invisible, in milliseconds since 1970. Absent where that is not so.
const INVISIBLE: u8 = 6;

const HEAD_BYTES: usize = 3;

/// Tagged additions, read in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ext<'a>(&'a [u8]);

impl<'a> Ext<'a> {
    /// Those in `bytes`. Whatever they are: what cannot be read any further is not there.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The first sequence of the conversation that is not linked into its members' inboxes.
    pub fn unlinked_from(self) -> Option<Seq> {
        let bytes = self.entries().find(|(tag, _)| *tag == UNLINKED_FROM)?.1;
        Some(Seq(u64::from_le_bytes(bytes.try_into().ok()?)))
    }

    /// The same additions with this one in place of what stood there.
    pub fn with_unlinked_from(self, from: Option<Seq>) -> Vec<u8> {
        self.with(UNLINKED_FROM, from.map(|from| from.0.to_le_bytes()).as_ref().map(<[u8; 8]>::as_slice))
    }

    /// Which members of a direct conversation block the other: bit 0 is the first of them.
    pub fn blocks(self) -> u8 {
        let bytes = self.entries().find(|(tag, _)| *tag == BLOCKS).map_or(&[][..], |(_, bytes)| bytes);
        if let [blocks] = bytes { *blocks } else { 0 }
    }

    /// The same additions with this one in place of what stood there.
    pub fn with_blocks(self, blocks: u8) -> Vec<u8> {
        self.with(BLOCKS, (blocks != 0).then_some(&[blocks][..]))
    }

    /// The push tokens of a user's devices, the one that was set longest ago first.
    pub fn push_tokens(self) -> Vec<(DeviceId, PushToken)> {
        let mut rest =
            self.entries().find(|(tag, _)| *tag == PUSH_TOKENS).map_or(&[][..], |(_, bytes)| bytes);
        let tokens = std::iter::from_fn(|| take_push_token(&mut rest));
        tokens.collect()
    }

    /// The same additions with these in place of what stood there: at most [`crate::limits::PUSH_DEVICES_MAX`].
    pub fn with_push_tokens(self, tokens: &[(DeviceId, PushToken)]) -> Vec<u8> {
        let mut value = Vec::new();
        for (device, token) in tokens {
            let (device, token) = (device.as_bytes(), token.as_str().as_bytes());
            value.push(u8::try_from(device.len()).expect("an id is short"));
            value.extend_from_slice(device);
            value.extend_from_slice(&u16::try_from(token.len()).expect("a token is short").to_le_bytes());
            value.extend_from_slice(token);
        }
        self.with(PUSH_TOKENS, (!tokens.is_empty()).then_some(&value[..]))
    }

    /// How much of the conversation is kept, where that is said.
    pub fn retention(self) -> Option<Retention> {
        let bytes = self.entries().find(|(tag, _)| *tag == RETENTION)?.1;
        let ([days, last], []) = bytes.as_chunks::<4>() else { return None };
        let number = |bytes: &[u8; 4]| Some(u32::from_le_bytes(*bytes)).filter(|number| *number > 0);
        Some(Retention { days: number(days), last: number(last) })
    }

    /// The same additions with this one in place of what stood there.
    pub fn with_retention(self, retention: Option<Retention>) -> Vec<u8> {
        let value = retention.map(|Retention { days, last }| {
            [days, last].map(|number| number.unwrap_or(0).to_le_bytes()).concat()
        });
        self.with(RETENTION, value.as_deref())
    }

    /// What was set before has left nothing of the conversation before this sequence, and before this time.
    pub fn front(self) -> (Seq, UnixMillis) {
        let bytes = self.entries().find(|(tag, _)| *tag == FRONT).map_or(&[][..], |(_, bytes)| bytes);
        let ([seq, at], []) = bytes.as_chunks::<8>() else { return Default::default() };
        (Seq(u64::from_le_bytes(*seq)), UnixMillis(u64::from_le_bytes(*at)))
    }

    /// The same additions with this one in place of what stood there.
    pub fn with_front(self, (seq, at): (Seq, UnixMillis)) -> Vec<u8> {
        let value = [seq.0, at.0].map(u64::to_le_bytes).concat();
        self.with(FRONT, (seq.0 > 0 || at.0 > 0).then_some(&value[..]))
    }

    /// Since when the user is invisible.
    pub fn invisible_since(self) -> Option<UnixMillis> {
        let bytes = self.entries().find(|(tag, _)| *tag == INVISIBLE)?.1;
        Some(UnixMillis(u64::from_le_bytes(bytes.try_into().ok()?)))
    }

    /// The same additions with this one in place of what stood there.
    pub fn with_invisible_since(self, since: Option<UnixMillis>) -> Vec<u8> {
        self.with(INVISIBLE, since.map(|since| since.0.to_le_bytes()).as_ref().map(<[u8; 8]>::as_slice))
    }

    fn with(self, tag: u8, value: Option<&[u8]>) -> Vec<u8> {
        let others = self.entries().filter(|(other, _)| *other != tag);
        let mut out = Vec::with_capacity(self.0.len() + HEAD_BYTES + value.map_or(0, <[u8]>::len));
        for (tag, bytes) in others.chain(value.map(|value| (tag, value))) {
            let length = u16::try_from(bytes.len()).expect("a value is short");
            out.push(tag);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    fn entries(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let ([tag, low, high], behind) = rest.split_first_chunk::<HEAD_BYTES>()?;
            let (value, behind) = behind.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
            rest = behind;
            Some((*tag, value))
        })
    }
}

/// The first of these, which are behind it then.
fn take_push_token(rest: &mut &[u8]) -> Option<(DeviceId, PushToken)> {
    let (length, behind) = rest.split_first()?;
    let (device, behind) = behind.split_at_checked(usize::from(*length))?;
    let (length, behind) = behind.split_first_chunk::<2>()?;
    let (token, behind) = behind.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *rest = behind;
    let device = DeviceId::new(str::from_utf8(device).ok()?).ok()?;
    Some((device, PushToken::new(str::from_utf8(token).ok()?.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_of_other_tags_are_kept_and_ours_stands_once() {
        let unknown = [9, 2, 0, 7, 8];
        let with = Ext::new(&unknown).with_unlinked_from(Some(Seq(5)));
        let again = Ext::new(&with).with_unlinked_from(Some(Seq(6)));
        assert_eq!(Ext::new(&again).unlinked_from(), Some(Seq(6)));
        assert_eq!(again.len(), unknown.len() + HEAD_BYTES + 8);
        assert_eq!(Ext::new(&again).with_unlinked_from(None), unknown);
    }

    #[test]
    fn blocks_stand_beside_the_others_and_none_take_no_room() {
        let whole = Ext::default().with_unlinked_from(Some(Seq(5)));
        let with = Ext::new(&whole).with_blocks(2);
        assert_eq!((Ext::new(&with).blocks(), Ext::new(&with).unlinked_from()), (2, Some(Seq(5))));
        assert_eq!(Ext::new(&with).with_blocks(0), whole);
        assert_eq!((Ext::new(&whole).blocks(), Ext::new(&[BLOCKS, 2, 0, 1, 1]).blocks()), (0, 0));
    }

    #[test]
    fn retention_stands_beside_the_others_and_what_is_all_can_be_said() {
        let whole = Ext::default().with_unlinked_from(Some(Seq(5)));
        let week = Retention { days: Some(7), last: None };
        let with = Ext::new(&whole).with_retention(Some(week));
        let with = Ext::new(&with).with_front((Seq(9), UnixMillis(11)));
        let ext = Ext::new(&with);
        assert_eq!((ext.retention(), ext.front()), (Some(week), (Seq(9), UnixMillis(11))));
        assert_eq!(ext.unlinked_from(), Some(Seq(5)));
        let all = ext.with_retention(Some(Retention::default()));
        assert_eq!(Ext::new(&all).retention(), Some(Retention::default()));
        let neither = Ext::new(&all).with_front(Default::default());
        assert_eq!(Ext::new(&neither).with_retention(None), whole);
        assert_eq!((Ext::new(&whole).retention(), Ext::new(&whole).front()), Default::default());
        assert_eq!(Ext::new(&[RETENTION, 4, 0, 7, 0, 0, 0]).retention(), None);
        assert_eq!(Ext::new(&[FRONT, 8, 0, 7, 0, 0, 0, 0, 0, 0, 0]).front(), Default::default());
    }

    #[test]
    fn invisible_stands_beside_the_others_and_takes_no_room_where_it_is_not_so() {
        let tokens = [(DeviceId::new("a").expect("a device"), PushToken::new("token".to_owned()))];
        let whole = Ext::default().with_push_tokens(&tokens);
        let with = Ext::new(&whole).with_invisible_since(Some(UnixMillis(77)));
        assert_eq!(Ext::new(&with).invisible_since(), Some(UnixMillis(77)));
        assert_eq!(Ext::new(&with).push_tokens(), tokens);
        assert_eq!(Ext::new(&with).with_invisible_since(None), whole);
        assert_eq!(Ext::new(&whole).invisible_since(), None);
    }

    #[test]
    fn what_is_cut_short_or_of_another_length_is_not_there() {
        let whole = Ext::default().with_unlinked_from(Some(Seq(5)));
        for end in 0..whole.len() {
            assert_eq!(Ext::new(&whole[..end]).unlinked_from(), None, "{end} bytes");
        }
        assert_eq!(Ext::new(&[UNLINKED_FROM, 1, 0, 5]).unlinked_from(), None);
    }

    #[test]
    fn push_tokens_stand_in_their_order_and_one_that_is_cut_short_is_not_there() {
        let device = |name| DeviceId::new(name).expect("a device");
        let tokens = ["a", "bcd"].map(|name| (device(name), PushToken::new(format!("token of {name}"))));
        let unknown = [9, 2, 0, 7, 8];
        let with = Ext::new(&unknown).with_push_tokens(&tokens);
        assert_eq!(Ext::new(&with).push_tokens(), tokens);
        assert_eq!(Ext::new(&with).with_push_tokens(&[]), unknown);
        let value = &with[unknown.len() + HEAD_BYTES..];
        for end in 0..value.len() {
            let mut cut = vec![PUSH_TOKENS, end as u8, 0];
            cut.extend_from_slice(&value[..end]);
            let whole = usize::from(end >= 1 + 1 + 2 + "token of a".len());
            assert_eq!(Ext::new(&cut).push_tokens(), tokens[..whole], "{end} bytes");
        }
    }
}
