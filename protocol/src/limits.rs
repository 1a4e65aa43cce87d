//! Every number of the wire, in one place, each with its reason.
//!
//! These are the defaults and hard bounds of protocol version 1: a server may announce smaller ones in
//! `welcome.limits`, never larger ones, so a client that keeps to these always fits. What a node holds
//! per user, rate or file is configuration and does not stand here.
//!
//! No number stands here for how often a peer may send what needs no reply of its own: pings, pongs, acks, fragments. Of
//! pings that came before a pong could be sent only the newest is answered and nothing is kept of the others, so a peer
//! that sends them as fast as its line takes them holds two at most. What it costs is reading, in proportion to its bytes like
//! any other frame, on the core that it shares with the other users of its home; a limit on pings alone would spare that
//! core nothing, because fragments and acks cost as much.
//!
//! Invariant: how the numbers relate is asserted at compile time at the end of this file.

const KIB: usize = 1024;

/// Largest WebSocket message from a client, in bytes, control frames aside. 64 KiB: one receive
/// buffer, so that a whole frame is decoded where it arrived.
pub const FRAME_BYTES_MAX: usize = 64 * KIB;

/// Largest WebSocket message from a server, in bytes: what a client must be able to take. More than
/// [`FRAME_BYTES_MAX`], because a text of nothing but control characters grows sixfold in JSON, and because
/// a message comes with all of its reactions.
pub const EVENT_BYTES_MAX: usize = 256 * KIB;

/// Largest first frame (`connect`), in bytes. Smaller than [`FRAME_BYTES_MAX`] because it is held for
/// peers that have not shown a token yet, and large enough for [`POSITIONS_MAX`] positions.
pub const CONNECT_BYTES_MAX: usize = 48 * KIB;

/// Frames one message may be split into. A message of one-byte fragments ends here long before its
/// cost in headers and turns does.
pub const FRAGMENTS_MAX: u32 = 4096;

/// Largest `text` of a message, in bytes of UTF-8. 16 KiB: the largest paste worth keeping in a history.
pub const TEXT_BYTES_MAX: usize = 16 * KIB;

/// Largest `media` reference, in bytes: a generated id or a short URL, not the media.
pub const MEDIA_BYTES_MAX: usize = 256;

/// Users one message may mention. More is an announcement to everybody.
pub const MENTIONS_MAX: usize = 50;

/// Longest emoji of a reaction, in bytes of UTF-8. The longest sequences that Unicode recommends have 35: two people of
/// two skin colours, a heart, and what joins them.
pub const EMOJI_BYTES_MAX: usize = 64;

/// Reactions to one message, each of one user with one emoji: every member of the largest group once. All of them
/// are in each amendment of the message, so this bounds what one costs.
pub const REACTIONS_MAX: usize = MEMBERS_MAX;

/// Largest payload of a stored record of a conversation, in bytes: an amendment of the largest message with all of its
/// reactions.
pub const RECORD_PAYLOAD_BYTES_MAX: usize = 96 * KIB;

/// Bytes after which a page (`history`, catch-up) ends. Leaves room in one frame for its envelope.
pub const PAGE_BYTES_MAX: usize = 48 * KIB;

/// Largest `limit` of `history`, in items.
pub const HISTORY_ITEMS_MAX: u32 = 200;

/// Largest `limit` of `conversations`, in items: what a screen shows, and some more to scroll. A page ends at [`PAGE_BYTES_MAX`] too.
pub const CONVERSATIONS_MAX: u32 = 50;

/// Longest `query` of `search`, in bytes of UTF-8: a sentence, of which a search takes the words.
pub const QUERY_BYTES_MAX: usize = 256;

/// Largest `limit` of `search`, in hits: each is looked up where it stands before it is shown.
pub const HITS_MAX: u32 = 50;

/// Longest `snippet` of a hit, in bytes of UTF-8: two lines of a telephone.
pub const SNIPPET_BYTES_MAX: usize = 200;

/// Longest `before` of `search`, in bytes of visible ASCII.
pub const BEFORE_BYTES_MAX: usize = 128;

/// Fewest members of a group that is being created, its creator included.
pub const MEMBERS_MIN: usize = 2;

/// Most members of any group in protocol version 1, the creator included. The number of users one
/// `create` or `members` may name.
pub const MEMBERS_MAX: usize = 500;

/// Most members of a group that is written to every inbox (fan-out on write). The records of a larger one are stored
/// once: members that are online are given them, the others learn its head (fan-out on read).
pub const SMALL_GROUP_MEMBERS_MAX: usize = 99;

/// Commands of one session that wait for their reply. The next one closes the session.
pub const COMMANDS_IN_FLIGHT_MAX: usize = 32;

/// Conversations that one session may view at a time: what a screen shows, and some beside it.
pub const VIEWS_MAX: usize = 8;

/// How long a `typing` lasts, unless it is said again or taken back, in milliseconds. For clients: nothing counts it for them.
pub const TYPING_MILLIS: u64 = 6_000;

/// Conversations that one user may have muted at a time. All of them are in each record of the user's settings, which is then no longer
/// than that of the longest message.
pub const MUTES_MAX: usize = 512;

/// Largest `days` of `retention`: ten years. What is to be kept for longer is kept for ever.
pub const RETENTION_DAYS_MAX: u32 = 3_650;

/// Largest `last` of `retention`: more than anybody scrolls through, and few enough to be counted in a telephone.
pub const RETENTION_LAST_MAX: u32 = 1_000_000;

/// The `until` of a `mute` that does not end: the year 287,396.
pub const MUTED_FOR_EVER: u64 = INTEGER_MAX;

/// Devices of one user that a push token is kept of. Of a device that is thrown away nobody takes it back, so it is the one that was set
/// longest ago which makes room.
pub const PUSH_DEVICES_MAX: usize = 16;

/// Longest push token, in bytes of UTF-8. One of APNs has 64 to 200 letters, one of FCM about 160. A Web Push subscription as JSON has an
/// address, of up to 1,024 letters with Windows, two keys of 110 together, and its names.
pub const PUSH_TOKEN_BYTES_MAX: usize = 2 * KIB;

/// Conversations one `connect` may give positions for. A client with more uses a cursor.
pub const POSITIONS_MAX: usize = 500;

/// Time from accept to a valid `connect`, absolute and not per byte, in milliseconds.
pub const HANDSHAKE_MILLIS_MAX: u64 = 10_000;

/// Time from the first byte of a message to its last, in milliseconds.
pub const MESSAGE_MILLIS_MAX: u64 = 10_000;

/// Time between our close frame and the peer's, in milliseconds; then the socket is shut down.
pub const CLOSE_MILLIS_MAX: u64 = 5_000;

/// How often a quiet client sends a `ping`, in milliseconds.
pub const HEARTBEAT_MILLIS: u64 = 30_000;

/// Silence after which a session is closed as idle, in milliseconds.
pub const IDLE_MILLIS_MAX: u64 = 60_000;

/// Largest head of the upgrade request or response, in bytes, the final empty line included.
/// Room for an 8 KiB line would invite tokens into URLs; a bearer header of 6 KiB still fits.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 * KIB;

/// Longest line of a PROXY header of version 1, its end included (haproxy's `doc/proxy-protocol.txt`, section 2.1).
pub const PROXY_LINE_BYTES_MAX: usize = 107;

/// Largest PROXY header of version 2, in bytes: addresses take 232, and what a proxy says of a client's TLS some hundreds. A
/// length may say 64 KiB, which no proxy fills.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * KIB;

/// Largest request target (path and query), in bytes. Ours is 11.
pub const HTTP_TARGET_BYTES_MAX: usize = KIB;

/// Most header fields of an upgrade request. Browsers send about twenty.
pub const HTTP_HEADERS_MAX: usize = 64;

/// Longest user or device id, in bytes of UTF-8.
pub const ID_BYTES_MAX: usize = 64;

/// Longest group title, in bytes of UTF-8.
pub const TITLE_BYTES_MAX: usize = 256;

/// Longest cursor, in bytes of visible ASCII.
pub const CURSOR_BYTES_MAX: usize = 512;

/// Longest `after` of `conversations`, in bytes of visible ASCII: a place in each of 64 logs.
pub const AFTER_BYTES_MAX: usize = 2_560;

/// Longest token, in bytes of visible ASCII. Longer ones are refused before any cryptography.
pub const TOKEN_BYTES_MAX: usize = 8 * KIB;

/// Smallest command id; 0 in the binary header means "none".
pub const REQUEST_ID_MIN: u32 = 1;

/// Largest command id, so that it is a positive 32-bit integer in every language.
pub const REQUEST_ID_MAX: u32 = i32::MAX as u32;

/// Largest integer on the wire: what a JSON number carries exactly in every language (2^53 - 1).
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Largest WebSocket header a server reads or a client writes: 2 + 8 length bytes + 4 mask bytes.
pub const WEBSOCKET_HEADER_BYTES_MAX: usize = 14;

/// Largest payload of a WebSocket control frame (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Largest reason of a close frame: the code takes two bytes.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Longest message of an `error` reply, in bytes.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 256;

/// Stored records start at multiples of this many bytes inside one binary WebSocket message.
pub const RECORD_ALIGN: usize = 16;

/// JSON spends at most this many bytes on one byte of text (`\u0000`).
const JSON_ESCAPE_BYTES: usize = 6;

/// What a record of settings has of one device with a push token, in bytes.
const PUSH_DEVICE_BYTES_MAX: usize = ID_BYTES_MAX + PUSH_TOKEN_BYTES_MAX + 3;

const _: () = {
    // A page and its envelope fit any frame.
    assert!(PAGE_BYTES_MAX + KIB <= FRAME_BYTES_MAX);
    // The message that grows most in JSON, with all of its reactions (two bytes for a quote in an id or emoji, 27 for
    // {"emoji":"","users":[""]}, and its comma), and the list of the largest group (64 for the rest of an entry), fit
    // what a client takes.
    let reactions = REACTIONS_MAX * (EMOJI_BYTES_MAX * 2 + ID_BYTES_MAX * 2 + 27);
    assert!(TEXT_BYTES_MAX * JSON_ESCAPE_BYTES + reactions + 16 * KIB <= EVENT_BYTES_MAX);
    assert!(MENTIONS_MAX * (ID_BYTES_MAX * 2 + 3) + MEDIA_BYTES_MAX * 2 + KIB <= 16 * KIB);
    // The largest amendment (8 bytes for an offset and a length, 16 for the two of a reaction) fits a record.
    let reactions = REACTIONS_MAX * (EMOJI_BYTES_MAX + ID_BYTES_MAX + 16);
    let mentions = MENTIONS_MAX * (ID_BYTES_MAX + 8);
    assert!(TEXT_BYTES_MAX + MEDIA_BYTES_MAX + mentions + reactions + KIB <= RECORD_PAYLOAD_BYTES_MAX);
    assert!(MEMBERS_MAX * (ID_BYTES_MAX * 2 + 64) + KIB <= EVENT_BYTES_MAX);
    // The largest text plus all mentions and ids fits a binary frame, so `too_large` is about the text.
    assert!(TEXT_BYTES_MAX + MENTIONS_MAX * (ID_BYTES_MAX + 8) + 4 * KIB <= FRAME_BYTES_MAX);
    // All mutes (16 bytes for the conversation, 8 for the time) fit what a longest text takes.
    assert!(MUTES_MAX * 24 <= TEXT_BYTES_MAX);
    // All that a user may have set fits a record: the mutes, and of each device its name, its token and three bytes.
    assert!(MUTES_MAX * 24 + PUSH_DEVICES_MAX * PUSH_DEVICE_BYTES_MAX + KIB <= RECORD_PAYLOAD_BYTES_MAX);
    // The tokens are one tagged addition, whose length is a u16.
    assert!(PUSH_DEVICES_MAX * PUSH_DEVICE_BYTES_MAX <= u16::MAX as usize);
    // All ids of the largest group fit one command.
    assert!(MEMBERS_MAX * (ID_BYTES_MAX + 8) + 4 * KIB <= FRAME_BYTES_MAX);
    // All positions in JSON ({"conversation":"<36>","seq":<16>},) and a token and a cursor fit `connect`.
    assert!(POSITIONS_MAX * (36 + 16 + 26) + TOKEN_BYTES_MAX + CURSOR_BYTES_MAX <= CONNECT_BYTES_MAX);
    assert!(CONNECT_BYTES_MAX <= FRAME_BYTES_MAX);
    // What a list of conversations says of them, without the newest message of each, fits a page: a title that grows sixfold is one of a
    // few. Ids, numbers and names of fields take about 300 bytes.
    assert!(CONVERSATIONS_MAX as usize * (TITLE_BYTES_MAX * 2 + 300) <= PAGE_BYTES_MAX);
    // All hits of a search ({"conversation":"<36>","seq":<16>,"snippet":""},) fit what a client takes.
    assert!(HITS_MAX as usize * (SNIPPET_BYTES_MAX * JSON_ESCAPE_BYTES + 128) + KIB <= EVENT_BYTES_MAX);
    // A title of nothing but escapes still fits a control-plane line and a page.
    assert!(TITLE_BYTES_MAX * JSON_ESCAPE_BYTES <= PAGE_BYTES_MAX);
    assert!(SMALL_GROUP_MEMBERS_MAX <= MEMBERS_MAX && MEMBERS_MIN <= SMALL_GROUP_MEMBERS_MAX);
    assert!(HTTP_TARGET_BYTES_MAX < HTTP_HEAD_BYTES_MAX);
    // One buffer takes either.
    assert!(PROXY_HEADER_BYTES_MAX <= HTTP_HEAD_BYTES_MAX);
    assert!(REQUEST_ID_MIN <= REQUEST_ID_MAX);
    assert!(CLOSE_REASON_BYTES_MAX + 2 == CONTROL_BYTES_MAX);
    assert!(HEARTBEAT_MILLIS * 2 <= IDLE_MILLIS_MAX);
    // The presence of the largest group ({"user":"","online":false,"last_seen":<16>},) fits what a client takes.
    assert!(MEMBERS_MAX * (ID_BYTES_MAX * 2 + 64) + KIB <= EVENT_BYTES_MAX);
    assert!(RECORD_ALIGN.is_power_of_two());
};
