//! The payload types of the binary form. The rules of stored payloads hold here too: flat, versioned,
//! never edited once released.

use rkyv::{Archive, Deserialize, Serialize};

use crate::command::Retention;
use crate::record::{MemberV1, NameV1};

/// `connect`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ConnectV1 {
    pub(super) token: Vec<u8>,
    pub(super) device: Vec<u8>,
    pub(super) cursor: Vec<u8>,
    /// 1 when `positions` is given, even if it is empty.
    pub(super) positions_given: u8,
    pub(super) positions: Vec<PositionV1>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PositionV1 {
    pub(super) conversation: [u8; 16],
    pub(super) seq: u64,
}

/// `refresh`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct RefreshV1 {
    pub(super) token: Vec<u8>,
}

/// `send`: to `to` when that is not empty, else to `conversation`.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SendV1 {
    pub(super) conversation: [u8; 16],
    pub(super) to: Vec<u8>,
    pub(super) kind: u8,
    pub(super) text: Vec<u8>,
    pub(super) media: Vec<u8>,
    pub(super) reply_to: u64,
    pub(super) mentions: Vec<NameV1>,
    pub(super) message_id: [u8; 16],
}

/// `ack`, `ping`, and the event `cursor`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct CursorV1 {
    pub(super) cursor: Vec<u8>,
}

/// `history`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct HistoryV1 {
    pub(super) conversation: [u8; 16],
    /// 0 latest, 1 before `seq`, 2 after `seq`.
    pub(super) direction: u8,
    pub(super) seq: u64,
    pub(super) limit: u32,
}

/// `conversations`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ListV1 {
    pub(super) after: Vec<u8>,
    pub(super) limit: u32,
}

/// `search`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SearchV1 {
    pub(super) query: Vec<u8>,
    pub(super) conversation: [u8; 16],
    pub(super) before: Vec<u8>,
    pub(super) limit: u32,
}

/// `create`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct CreateV1 {
    pub(super) title: Vec<u8>,
    pub(super) members: Vec<NameV1>,
    pub(super) history: u8,
    pub(super) message_id: [u8; 16],
}

/// `members`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct MembersV1 {
    pub(super) conversation: [u8; 16],
    pub(super) add: Vec<NameV1>,
    pub(super) remove: Vec<NameV1>,
    pub(super) roles: Vec<RoleV1>,
    pub(super) message_id: [u8; 16],
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct RoleV1 {
    pub(super) user: Vec<u8>,
    pub(super) role: u8,
}

/// `members` with `list`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ListMembersV1 {
    pub(super) conversation: [u8; 16],
}

/// `title`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct TitleV1 {
    pub(super) conversation: [u8; 16],
    pub(super) title: Vec<u8>,
    pub(super) message_id: [u8; 16],
}

/// `retention`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct SetRetentionV1 {
    pub(super) conversation: [u8; 16],
    pub(super) retention: RetentionV1,
    pub(super) message_id: [u8; 16],
}

/// 0 for none.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct RetentionV1 {
    pub(super) days: u32,
    pub(super) last: u32,
}

/// `leave`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct LeaveV1 {
    pub(super) conversation: [u8; 16],
    pub(super) message_id: [u8; 16],
}

/// `edit`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct EditV1 {
    pub(super) conversation: [u8; 16],
    pub(super) seq: u64,
    pub(super) text: Vec<u8>,
    pub(super) message_id: [u8; 16],
}

/// `delete`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct DeleteV1 {
    pub(super) conversation: [u8; 16],
    pub(super) seq: u64,
    pub(super) message_id: [u8; 16],
}

/// `react`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ReactV1 {
    pub(super) conversation: [u8; 16],
    pub(super) seq: u64,
    pub(super) emoji: Vec<u8>,
    /// 0 or 1.
    pub(super) on: u8,
    pub(super) message_id: [u8; 16],
}

/// `welcome`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct WelcomeV1 {
    pub(super) user: Vec<u8>,
    pub(super) session: Vec<u8>,
    pub(super) store: Vec<u8>,
    pub(super) cursor: Vec<u8>,
    pub(super) now: u64,
    pub(super) heartbeat_ms: u64,
    pub(super) limits: LimitsV1,
    pub(super) features: Vec<NameV1>,
    pub(super) reset: u8,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct LimitsV1 {
    pub(super) frame_bytes: u32,
    pub(super) text_bytes: u32,
    pub(super) page_bytes: u32,
    pub(super) history_items: u32,
    pub(super) members: u32,
    pub(super) title_bytes: u32,
    pub(super) commands_in_flight: u32,
    pub(super) positions: u32,
    pub(super) mentions: u32,
    pub(super) conversations: u32,
}

/// `ok`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct OkV1 {
    pub(super) conversation: [u8; 16],
    pub(super) seq: u64,
    pub(super) message_id: [u8; 16],
    pub(super) at: u64,
}

/// `error`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ErrorV1 {
    pub(super) code: u16,
    pub(super) message: Vec<u8>,
    pub(super) retry_after_ms: u64,
}

/// `pong`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PongV1 {
    pub(super) now: u64,
    pub(super) cursor: Vec<u8>,
}

/// `page` of `history`: records as they are stored, each padded to 16, and the gaps between them.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PageV1 {
    pub(super) records: Vec<u8>,
    pub(super) gaps: Vec<GapV1>,
    pub(super) more: u8,
}

/// `page` of `members`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct MembersPageV1 {
    pub(super) members: Vec<MemberV1>,
    pub(super) retention: RetentionV1,
}

/// `page` of `conversations`: the newest records of those that have one, each padded to 16, in the order of the conversations.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ListPageV1 {
    pub(super) conversations: Vec<ListedV1>,
    pub(super) records: Vec<u8>,
    pub(super) more: u8,
    pub(super) after: Vec<u8>,
    pub(super) partial: u8,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ListedV1 {
    pub(super) conversation: [u8; 16],
    /// 1 direct, 2 group.
    pub(super) kind: u8,
    /// The other user, or the title.
    pub(super) name: Vec<u8>,
    pub(super) members_count: u32,
    pub(super) head: u64,
    pub(super) read: u64,
    pub(super) unread: u64,
    /// 1 when one of the records is its newest.
    pub(super) has_last: u8,
    pub(super) muted_until: u64,
    /// 0 or 1.
    pub(super) blocked: u8,
    pub(super) retention: RetentionV1,
}

/// `page` of `search`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct FoundV1 {
    pub(super) hits: Vec<HitV1>,
    pub(super) more: u8,
    pub(super) before: Vec<u8>,
    pub(super) partial: u8,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct HitV1 {
    pub(super) conversation: [u8; 16],
    pub(super) seq: u64,
    pub(super) snippet: Vec<u8>,
}

/// `ok` to `view`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ViewedV1 {
    pub(super) presence: Vec<PresenceV1>,
    pub(super) read: Vec<ReadByV1>,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ReadByV1 {
    pub(super) user: Vec<u8>,
    pub(super) seq: u64,
    pub(super) delivered: u64,
}

/// `receipt`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ReceiptV1 {
    pub(super) conversation: [u8; 16],
    pub(super) user: Vec<u8>,
    pub(super) read: u64,
    pub(super) delivered: u64,
}

/// `presence`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PresenceV1 {
    pub(super) user: Vec<u8>,
    pub(super) online: u8,
    pub(super) last_seen: u64,
}

/// `typing`, of whom.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct IsTypingV1 {
    pub(super) conversation: [u8; 16],
    pub(super) user: Vec<u8>,
    pub(super) on: u8,
}

/// `heads`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct HeadsV1 {
    pub(super) conversations: Vec<HeadV1>,
    pub(super) more: u8,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct HeadV1 {
    pub(super) conversation: [u8; 16],
    pub(super) head: u64,
    pub(super) read: u64,
    pub(super) unread: u64,
}

/// `caught_up`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct CaughtUpV1 {
    pub(super) cursor: Vec<u8>,
    pub(super) partial: u8,
}

/// `gap`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct GapV1 {
    pub(super) conversation: [u8; 16],
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) reason: Vec<u8>,
}

/// `drain`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct DrainV1 {
    pub(super) reconnect_in_ms: u64,
    pub(super) reason: Vec<u8>,
}

/// `view`, `unview`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ViewV1 {
    pub(super) conversation: [u8; 16],
}

/// `block`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct BlockV1 {
    pub(super) user: Vec<u8>,
    /// 0 or 1.
    pub(super) on: u8,
    pub(super) message_id: [u8; 16],
}

/// `mute`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct MuteV1 {
    pub(super) conversation: [u8; 16],
    pub(super) until: u64,
}

/// `push_token`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct PushTokenV1 {
    /// Empty: none.
    pub(super) token: Vec<u8>,
}

/// `invisible`, both ways
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct InvisibleV1 {
    /// 0 or 1.
    pub(super) on: u8,
}

/// `read`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct ReadV1 {
    pub(super) conversation: [u8; 16],
    pub(super) seq: u64,
}

/// `typing`
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct TypingV1 {
    pub(super) conversation: [u8; 16],
    pub(super) on: u8,
}

impl RetentionV1 {
    pub(super) fn of(Retention { days, last }: Retention) -> Self {
        Self { days: days.unwrap_or(0), last: last.unwrap_or(0) }
    }

    pub(super) fn read(&self) -> Retention {
        let some = |number: u32| (number > 0).then_some(number);
        Retention { days: some(self.days), last: some(self.last) }
    }
}

// Golden: 8 bytes a list, nothing padded. A change here is a change of the wire.
const _: () = {
    assert!(size_of::<ArchivedConnectV1>() == 33 && align_of::<ArchivedConnectV1>() == 1);
    assert!(size_of::<ArchivedPositionV1>() == 24);
    assert!(size_of::<ArchivedRefreshV1>() == 8 && size_of::<ArchivedCursorV1>() == 8);
    assert!(size_of::<ArchivedSendV1>() == 73 && align_of::<ArchivedSendV1>() == 1);
    assert!(size_of::<ArchivedHistoryV1>() == 29);
    assert!(size_of::<ArchivedCreateV1>() == 33);
    assert!(size_of::<ArchivedMembersV1>() == 56 && size_of::<ArchivedRoleV1>() == 9);
    assert!(size_of::<ArchivedListMembersV1>() == 16 && size_of::<ArchivedLeaveV1>() == 32);
    assert!(size_of::<ArchivedTitleV1>() == 40);
    assert!(size_of::<ArchivedEditV1>() == 48 && size_of::<ArchivedDeleteV1>() == 40);
    assert!(size_of::<ArchivedReactV1>() == 49);
    assert!(size_of::<ArchivedWelcomeV1>() == 97 && size_of::<ArchivedLimitsV1>() == 40);
    assert!(size_of::<ArchivedListV1>() == 12 && size_of::<ArchivedListPageV1>() == 26);
    assert!(size_of::<ArchivedListedV1>() == 71);
    assert!(size_of::<ArchivedSearchV1>() == 36 && align_of::<ArchivedSearchV1>() == 1);
    assert!(size_of::<ArchivedFoundV1>() == 18 && size_of::<ArchivedHitV1>() == 32);
    assert!(size_of::<ArchivedOkV1>() == 48 && size_of::<ArchivedErrorV1>() == 18);
    assert!(size_of::<ArchivedPongV1>() == 16 && size_of::<ArchivedPageV1>() == 17);
    assert!(size_of::<ArchivedMembersPageV1>() == 16 && size_of::<ArchivedRetentionV1>() == 8);
    assert!(size_of::<ArchivedSetRetentionV1>() == 40 && align_of::<ArchivedSetRetentionV1>() == 1);
    assert!(size_of::<ArchivedHeadsV1>() == 9 && size_of::<ArchivedHeadV1>() == 40);
    assert!(size_of::<ArchivedCaughtUpV1>() == 9 && size_of::<ArchivedGapV1>() == 40);
    assert!(size_of::<ArchivedDrainV1>() == 16);
    assert!(size_of::<ArchivedViewV1>() == 16 && size_of::<ArchivedTypingV1>() == 17);
    assert!(size_of::<ArchivedPushTokenV1>() == 8);
    assert!(size_of::<ArchivedInvisibleV1>() == 1);
    assert!(size_of::<ArchivedMuteV1>() == 24 && size_of::<ArchivedBlockV1>() == 25);
    assert!(size_of::<ArchivedReadV1>() == 24 && size_of::<ArchivedReadByV1>() == 24);
    assert!(size_of::<ArchivedReceiptV1>() == 40);
    assert!(size_of::<ArchivedViewedV1>() == 16 && size_of::<ArchivedPresenceV1>() == 17);
    assert!(size_of::<ArchivedIsTypingV1>() == 25);
};
