//! One value of every command, frame and stored payload, with all optional fields given and with none.
#![allow(dead_code, reason = "each test takes what it needs")]

use protocol::{
    command::{
        Command, Connect, Create, Edit, HistoryPolicy, HistoryRange, Members, MessageKind, PushToken, React,
        Request, Retention, Role, Search, Send, Target, Token,
    },
    event::{
        AmendedEvent, AmendedForm, ErrorCode, ErrorReply, FoundEnd, Gap, Head, Hit, ListEnd,
        ListedConversation, ListedKind, MemberEntry, MemberEvent, MessageEvent, OkReply, PageItem, Presence,
        Reached, Reaction, ServerFrame, Welcome, WireLimits,
    },
    ids::{ConversationId, DeviceId, MessageId, RequestId, Seq, UnixMillis, UserId},
    limits,
    record::{
        AmendmentKind, AmendmentV1, Body, ConversationStateV1, Ext, FormV1, MemberV1, MembershipV1,
        MessageV1, MuteV1, NameV1, PositionV1, PositionsV1, ReactionV1, SettingsV1, SightingV1, TakenUserV1,
        TakenV1,
    },
};

pub(crate) const NOW: UnixMillis = UnixMillis(1_790_000_000_123);
pub(crate) const CONVERSATION: ConversationId = ConversationId([
    0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x81, 0xd1, 0x80, 0xb4, 0, 0xc0, 0x4f, 0xd4, 0x30, 0xc8,
]);

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("the sample is an id")
}

pub(crate) fn message_id() -> MessageId {
    MessageId::v7(NOW, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
}

fn device() -> DeviceId {
    DeviceId::new("phone-1").expect("the sample is an id")
}

fn token() -> Token {
    Token::new("eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl").expect("the sample is a token")
}

fn cursor() -> String {
    "v1.AAECAwQFBgc".to_owned()
}

pub(crate) fn send() -> Send {
    Send {
        target: Target::User(user("bob")),
        kind: MessageKind::Text,
        text: "hello \"world\"\n\u{1f980}\u{0}\\".to_owned(),
        media: None,
        reply_to: None,
        mentions: Vec::new(),
        message_id: None,
    }
}

pub(crate) fn send_full() -> Send {
    Send {
        target: Target::Conversation(CONVERSATION),
        kind: MessageKind::Image,
        text: String::new(),
        media: Some("media/0190f5c2".to_owned()),
        reply_to: Some(Seq(41)),
        mentions: vec![user("bob"), user("žofie")],
        message_id: Some(message_id()),
    }
}

pub(crate) fn commands() -> Vec<(&'static str, Request)> {
    let (conversation, message_id) = (CONVERSATION, Some(message_id()));
    let connect = Connect { token: None, device: device(), cursor: None, positions: None };
    let positions = Some(vec![(conversation, Seq(7)), (ConversationId([9; 16]), Seq(0))]);
    let members =
        Members { conversation, add: vec![], remove: vec![user("bob")], roles: vec![], message_id: None };
    let history = |range| Command::History { conversation, range, limit: 200 };
    let edit = Edit { conversation, seq: Seq(42), text: "Matt in \"3\"\n".to_owned(), message_id };
    let react = React { conversation, seq: Seq(42), emoji: HEART.to_owned(), on: true, message_id };
    let create = Create {
        title: "Fish & \"Chips\"".to_owned(),
        members: vec![user("bob"), user("carol")],
        history: HistoryPolicy::Joined,
        message_id,
    };
    let commands = vec![
        ("ack", Command::Ack { cursor: cursor() }),
        ("connect", Command::Connect(connect.clone())),
        (
            "connect_cursor",
            Command::Connect(Connect { token: Some(token()), cursor: Some(cursor()), ..connect.clone() }),
        ),
        ("connect_positions", Command::Connect(Connect { positions, ..connect })),
        ("create", Command::Create(create)),
        ("history_after", history(HistoryRange::After(Seq(0)))),
        ("history_before", history(HistoryRange::Before(Seq(9_007_199_254_740_991)))),
        ("history_latest", history(HistoryRange::Latest)),
        ("leave", Command::Leave { conversation, message_id }),
        ("members", Command::Members(members.clone())),
        (
            "members_full",
            Command::Members(Members {
                add: vec![user("dave")],
                roles: vec![(user("carol"), Role::Admin), (user("dave"), Role::Member)],
                message_id,
                ..members
            }),
        ),
        ("members_list", Command::ListMembers { conversation }),
        ("ping", Command::Ping { cursor: None }),
        ("ping_cursor", Command::Ping { cursor: Some(cursor()) }),
        ("refresh", Command::Refresh { token: token() }),
        ("send", Command::Send(send())),
        ("send_full", Command::Send(send_full())),
        ("title", Command::Title { conversation, title: "Schach".to_owned(), message_id }),
        ("delete", Command::Delete { conversation, seq: Seq(42), message_id }),
        ("edit", Command::Edit(edit.clone())),
        ("edit_bare", Command::Edit(Edit { text: String::new(), message_id: None, ..edit })),
        ("react", Command::React(react.clone())),
        ("react_off", Command::React(React { on: false, message_id: None, ..react })),
        ("typing", Command::Typing { conversation, on: true }),
        ("unview", Command::Unview { conversation }),
        ("view", Command::View { conversation }),
        ("read", Command::Read { conversation, seq: Seq(42) }),
        ("conversations", Command::Conversations { after: None, limit: 50 }),
        ("conversations_after", Command::Conversations { after: Some(cursor()), limit: 1 }),
        ("mute", Command::Mute { conversation, until: NOW }),
        ("mute_off", Command::Mute { conversation, until: UnixMillis(0) }),
        ("block", Command::Block { user: user("bob"), on: true, message_id }),
        ("block_off", Command::Block { user: user("bob"), on: false, message_id: None }),
    ];
    let all = commands.into_iter().chain(searches()).chain(user_settings()).chain(retentions());
    let numbered = all.zip(1..).map(|((name, command), number)| {
        let id = RequestId::new(number).filter(|_| command.has_reply());
        (name, Request { id, command })
    });
    numbered.collect()
}

fn user_settings() -> [(&'static str, Command); 4] {
    let token = Some(PushToken::new("fcm:ž\"9".to_owned()));
    [
        ("push_token", Command::PushToken { token }),
        ("push_token_none", Command::PushToken { token: None }),
        ("invisible", Command::Invisible { on: true }),
        ("invisible_off", Command::Invisible { on: false }),
    ]
}

fn retentions() -> [(&'static str, Command); 3] {
    let (conversation, all) = (CONVERSATION, Retention::default());
    let retention = |retention, message_id| Command::Retention { conversation, retention, message_id };
    [
        ("retention", retention(kept(), Some(message_id()))),
        ("retention_days", retention(Retention { days: Some(7), ..all }, None)),
        ("retention_none", retention(all, None)),
    ]
}

fn kept() -> Retention {
    Retention { days: Some(limits::RETENTION_DAYS_MAX), last: Some(limits::RETENTION_LAST_MAX) }
}

fn searches() -> [(&'static str, Command); 2] {
    let query = "fish \"chips\" žofie".to_owned();
    let search = Search { query, conversation: None, before: None, limit: 50 };
    let (conversation, before) = (Some(CONVERSATION), Some(cursor()));
    let full = Search { conversation, before, limit: 1, ..search.clone() };
    [("search", Command::Search(search)), ("search_full", Command::Search(full))]
}

pub(crate) fn message_event() -> MessageEvent {
    MessageEvent {
        conversation: CONVERSATION,
        seq: Seq(42),
        message_id: message_id(),
        sender: user("alice"),
        kind: MessageKind::File,
        text: "the plan\u{7}".to_owned(),
        at: NOW,
        media: Some("media/plan.pdf".to_owned()),
        reply_to: Some(Seq(40)),
        mentions: vec![user("bob")],
        edited_at: None,
        deleted: false,
        reactions: Vec::new(),
    }
}

/// A heart and the selector that makes it red: two characters, six bytes.
pub(crate) const HEART: &str = "\u{2764}\u{fe0f}";

/// Two of one emoji around one of another.
fn reactions() -> Vec<Reaction> {
    vec![
        Reaction { emoji: HEART.to_owned(), users: vec![user("bob"), user("žofie")] },
        Reaction { emoji: "\"\\".to_owned(), users: vec![user("bob")] },
    ]
}

fn folded_event() -> MessageEvent {
    MessageEvent { edited_at: Some(UnixMillis(NOW.0 + 60_000)), reactions: reactions(), ..message_event() }
}

fn deleted_event() -> MessageEvent {
    MessageEvent {
        text: String::new(),
        media: None,
        reply_to: None,
        mentions: Vec::new(),
        deleted: true,
        ..message_event()
    }
}

fn amended_event(form: AmendedForm) -> AmendedEvent {
    AmendedEvent {
        conversation: CONVERSATION,
        seq: Seq(44),
        message_id: message_id(),
        at: NOW,
        by: user("bob"),
        target: Seq(42),
        form,
    }
}

fn shown() -> AmendedForm {
    let edited_at = Some(UnixMillis(NOW.0 + 60_000));
    AmendedForm::Shown { text: "the \"plan\"".to_owned(), edited_at, reactions: reactions() }
}

pub(crate) fn member_event() -> MemberEvent {
    MemberEvent {
        conversation: CONVERSATION,
        seq: Seq(43),
        message_id: message_id(),
        at: NOW,
        by: user("alice"),
        added: vec![user("dave")],
        removed: vec![user("bob")],
        roles: vec![(user("carol"), Role::Admin)],
        title: Some("Schach".to_owned()),
        retention: None,
    }
}

fn titled() -> MemberEvent {
    MemberEvent { added: vec![], removed: vec![], roles: vec![], ..member_event() }
}

fn retained(retention: Retention) -> ServerFrame {
    ServerFrame::Member(MemberEvent { title: None, retention: Some(retention), ..titled() })
}

pub(crate) fn gap() -> Gap {
    Gap { conversation: CONVERSATION, from: Seq(1), to: Seq(41), reason: "not kept any more".to_owned() }
}

fn heads() -> ServerFrame {
    let head = Head { conversation: CONVERSATION, head: Seq(9), read: Seq(4), unread: 5 };
    ServerFrame::Heads { conversations: vec![head, Head { head: Seq(4), unread: 0, ..head }], more: true }
}

pub(crate) fn frames() -> Vec<(&'static str, ServerFrame)> {
    let id = RequestId(7);
    let welcome = Welcome {
        id,
        user: user("alice"),
        session: "s-1".to_owned(),
        store: "st-1".to_owned(),
        cursor: Some(cursor()),
        now: NOW,
        heartbeat_ms: 30_000,
        limits: WireLimits::default(),
        features: vec!["history".to_owned(), "groups".to_owned()],
        reset: false,
    };
    let ok = OkReply { id, conversation: None, seq: None, message_id: None, at: None };
    let (conversation, seq) = (Some(CONVERSATION), Some(Seq(42)));
    let plain = MessageEvent { media: None, reply_to: None, mentions: Vec::new(), ..message_event() };
    let bare = AmendedForm::Shown { text: String::new(), edited_at: None, reactions: Vec::new() };
    let amended = |form| ServerFrame::Amended(amended_event(form));
    let mut frames = vec![
        ("amended", amended(shown())),
        ("amended_bare", amended(bare)),
        ("amended_deleted", amended(AmendedForm::Deleted)),
        ("amended_hidden", amended(AmendedForm::Hidden)),
        ("caught_up", ServerFrame::CaughtUp { cursor: cursor(), partial: false }),
        ("caught_up_partial", ServerFrame::CaughtUp { cursor: cursor(), partial: true }),
        ("cursor", ServerFrame::Cursor { cursor: cursor() }),
        ("drain", ServerFrame::Drain { reconnect_in_ms: 1500, reason: "upgrade".to_owned() }),
        ("error", error(Some(id), ErrorCode::Busy, "try again", Some(250))),
        ("error_no_id", error(None, ErrorCode::BadFrame, "the frame is not valid JSON", None)),
        ("gap", ServerFrame::Gap(gap())),
        ("heads", heads()),
        ("member", ServerFrame::Member(member_event())),
        ("member_title", ServerFrame::Member(titled())),
        ("message", ServerFrame::Message(plain)),
        ("message_deleted", ServerFrame::Message(deleted_event())),
        ("message_folded", ServerFrame::Message(folded_event())),
        ("message_full", ServerFrame::Message(message_event())),
        (
            "ok",
            ServerFrame::Ok(OkReply {
                conversation,
                seq,
                message_id: Some(message_id()),
                at: Some(NOW),
                ..ok
            }),
        ),
        ("ok_bare", ServerFrame::Ok(ok)),
        ("page", ServerFrame::Page { id, messages: items(), more: true }),
        ("page_amended", ServerFrame::Page { id, messages: amended_items(), more: true }),
        ("page_empty", ServerFrame::Page { id, messages: Vec::new(), more: false }),
        ("pong", ServerFrame::Pong { id, now: NOW, cursor: Some(cursor()) }),
        ("pong_bare", ServerFrame::Pong { id, now: NOW, cursor: None }),
        ("welcome", ServerFrame::Welcome(Box::new(welcome.clone()))),
        (
            "welcome_reset",
            ServerFrame::Welcome(Box::new(Welcome {
                cursor: None,
                features: vec![],
                reset: true,
                ..welcome
            })),
        ),
    ];
    frames.extend(presence_frames(id).into_iter().chain(list_frames(id)).chain(found_frames(id)));
    frames.extend(retention_frames(id));
    frames
}

fn retention_frames(id: RequestId) -> [(&'static str, ServerFrame); 4] {
    let page = |retention| ServerFrame::MembersPage { id, members: entries(), retention };
    [
        ("member_retention", retained(kept())),
        ("member_retention_none", retained(Retention::default())),
        ("members_page", page(kept())),
        ("members_page_bare", page(Retention::default())),
    ]
}

fn presence_frames(id: RequestId) -> Vec<(&'static str, ServerFrame)> {
    let receipt = |read, delivered| {
        let reached = Reached { read: Seq(read), delivered: Seq(delivered) };
        ServerFrame::Receipt { conversation: CONVERSATION, user: user("bob"), reached }
    };
    let reached = |read, delivered| (user("bob"), Reached { read: Seq(read), delivered: Seq(delivered) });
    vec![
        ("presence", ServerFrame::Presence(online())),
        ("presence_gone", ServerFrame::Presence(gone())),
        ("invisible", ServerFrame::Invisible { on: true }),
        ("invisible_off", ServerFrame::Invisible { on: false }),
        ("typing_event", ServerFrame::Typing { conversation: CONVERSATION, user: user("bob"), on: true }),
        ("receipt", receipt(42, 0)),
        ("receipt_delivered", receipt(0, 42)),
        (
            "viewed",
            ServerFrame::Viewed { id, presence: vec![online(), gone()], receipts: vec![reached(41, 43)] },
        ),
    ]
}

fn found_frames(id: RequestId) -> Vec<(&'static str, ServerFrame)> {
    let hit =
        |seq, snippet: &str| Hit { conversation: CONVERSATION, seq: Seq(seq), snippet: snippet.to_owned() };
    let hits = vec![hit(42, "the \"plan\"\n"), hit(7, "plan")];
    let end = FoundEnd { more: true, before: Some(cursor()), partial: false };
    let partial = FoundEnd { partial: true, ..FoundEnd::default() };
    vec![
        ("found_page", ServerFrame::Found { id, hits, end }),
        ("found_page_empty", ServerFrame::Found { id, hits: Vec::new(), end: partial }),
    ]
}

fn list_frames(id: RequestId) -> Vec<(&'static str, ServerFrame)> {
    let group = ListedConversation {
        conversation: CONVERSATION,
        kind: ListedKind::Group { title: "Fish & \"Chips\"".to_owned() },
        members_count: 500,
        head: Seq(42),
        read: Seq(40),
        unread: 1,
        muted_until: None,
        blocked: false,
        retention: Retention { days: None, last: Some(100) },
        last: Some(PageItem::Message(folded_event())),
    };
    let kind = ListedKind::Direct { peer: user("žofie") };
    let muted_until = Some(UnixMillis(limits::MUTED_FOR_EVER));
    let direct = ListedConversation {
        kind,
        members_count: 2,
        muted_until,
        blocked: true,
        retention: Retention::default(),
        last: None,
        ..group.clone()
    };
    let changed = ListedConversation { last: Some(PageItem::Member(member_event())), ..group.clone() };
    let end = ListEnd { more: true, after: Some(cursor()), partial: false };
    let partial = ListEnd { more: false, after: None, partial: true };
    vec![
        (
            "conversations_page",
            ServerFrame::Conversations { id, conversations: vec![group, direct, changed], end },
        ),
        (
            "conversations_page_partial",
            ServerFrame::Conversations { id, conversations: Vec::new(), end: partial },
        ),
    ]
}

fn error(id: Option<RequestId>, code: ErrorCode, message: &str, retry_after_ms: Option<u64>) -> ServerFrame {
    ServerFrame::Error(ErrorReply { id, code, message: message.to_owned(), retry_after_ms })
}

fn online() -> Presence {
    Presence { user: user("alice"), online: true, last_seen: None }
}

fn gone() -> Presence {
    Presence { user: user("bob"), online: false, last_seen: Some(NOW) }
}

fn entries() -> Vec<MemberEntry> {
    vec![
        MemberEntry { user: user("alice"), role: Role::Owner, visible_from: Seq(1) },
        MemberEntry { user: user("bob"), role: Role::Member, visible_from: Seq(40) },
    ]
}

fn items() -> Vec<PageItem> {
    vec![PageItem::Gap(gap()), PageItem::Message(message_event()), PageItem::Member(member_event())]
}

fn amended_items() -> Vec<PageItem> {
    vec![
        PageItem::Message(MessageEvent { seq: Seq(41), ..deleted_event() }),
        PageItem::Message(folded_event()),
        PageItem::Member(member_event()),
        PageItem::Amended(amended_event(AmendedForm::Deleted)),
        PageItem::Amended(AmendedEvent { seq: Seq(45), ..amended_event(shown()) }),
    ]
}

/// An image of alice with everything a message may have, edited and reacted to.
pub(crate) fn form() -> FormV1 {
    let send = send_full();
    let heart = |name: &str| ReactionV1::new(&user(name), HEART);
    FormV1 {
        message_id: message_id().0,
        kind: send.kind as u8,
        sender: b"alice".to_vec(),
        text: b"hello \"world\"\n".to_vec(),
        media: b"media/0190f5c2".to_vec(),
        reply_to: 40,
        mentions: send.mentions.iter().map(NameV1::new).collect(),
        at: NOW.0,
        edited_at: NOW.0 + 60_000,
        deleted: 0,
        reactions: vec![heart("bob"), ReactionV1::new(&user("bob"), "\"\\"), heart("žofie")],
        ext: vec![1, 0, 2, 3],
    }
}

pub(crate) fn amendment(change: AmendmentKind, target: u64, form: FormV1) -> AmendmentV1 {
    AmendmentV1 {
        message_id: message_id().0,
        by: b"bob".to_vec(),
        change: change as u8,
        target,
        content_hash: 0x0123_4567_89AB_CDEF,
        form,
        ext: Vec::new(),
    }
}

pub(crate) fn bodies() -> Vec<(&'static str, Body)> {
    let message = MessageV1::from_send(&send_full(), &user("alice"), message_id());
    let membership = MembershipV1 {
        message_id: message_id().0,
        by: b"alice".to_vec(),
        added: vec![MemberV1::new(&user("dave"), Role::Member, Seq(43))],
        removed: vec![NameV1::new(&user("bob"))],
        roles: vec![MemberV1::new(&user("carol"), Role::Admin, Seq(0))],
        title_set: 1,
        title: b"Schach".to_vec(),
        created: 1,
        content_hash: 0x0123_4567_89AB_CDEF,
        ext: Vec::new(),
    };
    let retained = MembershipV1 { ext: Ext::default().with_retention(Some(kept())), ..membership.clone() };
    let state = ConversationStateV1 {
        kind: 2,
        history: HistoryPolicy::All as u8,
        title: b"Schach".to_vec(),
        creator: b"alice".to_vec(),
        members: vec![MemberV1::new(&user("alice"), Role::Owner, Seq(1))],
        ext: vec![1, 0, 2, 3],
    };
    vec![
        ("message", Body::Message(message)),
        ("membership", Body::Membership(membership)),
        ("membership_retention", Body::Membership(retained)),
        ("state_retention", Body::State(state_retention(&state))),
        ("state", Body::State(state)),
        ("positions", Body::Positions(positions())),
        ("settings", Body::Settings(settings())),
        ("sighting", Body::Sighting(SightingV1 { at: NOW.0, ext: Vec::new() })),
        ("taken", Body::Taken(taken())),
        ("settings_push", Body::Settings(settings_push())),
        ("settings_invisible", Body::Settings(settings_invisible())),
        // These are written at sequence 43: what amends that is what is served in its place.
        ("amendment", Body::Amendment(amendment(AmendmentKind::React, 41, form()))),
        ("amendment_deleted", Body::Amendment(amendment(AmendmentKind::Delete, 41, form().deleted()))),
        ("amendment_hidden", Body::Amendment(amendment(AmendmentKind::Hidden, 41, FormV1::default()))),
        ("folded", Body::Amendment(amendment(AmendmentKind::Edit, 43, form()))),
        ("folded_deleted", Body::Amendment(amendment(AmendmentKind::Delete, 43, form().deleted()))),
    ]
}

fn state_retention(state: &ConversationStateV1) -> ConversationStateV1 {
    let ext = Ext::default().with_retention(Some(kept()));
    ConversationStateV1 { ext: Ext::new(&ext).with_front((Seq(41), NOW)), ..state.clone() }
}

fn settings() -> SettingsV1 {
    let mute = |conversation: ConversationId, until| MuteV1 { conversation: conversation.0, until };
    let mutes = vec![mute(CONVERSATION, NOW.0), mute(ConversationId([9; 16]), limits::MUTED_FOR_EVER)];
    SettingsV1 { mutes, ext: vec![1, 0, 2, 3] }
}

pub(crate) fn push_tokens() -> [(DeviceId, PushToken); 2] {
    [("phone", "fcm:9"), ("ž", "apns:8")]
        .map(|(device, token)| (DeviceId::new(device).expect("a device"), PushToken::new(token.to_owned())))
}

fn settings_invisible() -> SettingsV1 {
    SettingsV1 { ext: Ext::default().with_invisible_since(Some(NOW)), ..settings() }
}

fn settings_push() -> SettingsV1 {
    let ext = Ext::new(&[9, 2, 0, 7, 8]).with_push_tokens(&push_tokens());
    SettingsV1 { ext, ..settings() }
}

fn taken() -> TakenV1 {
    let user = |first, after, whole_after| TakenUserV1 { inbox: [first; 16], after, to: 4_000, whole_after };
    TakenV1 { users: vec![user(3, 7, 4_000), user(200, 3_000, 3_000)], ext: Vec::new() }
}

fn positions() -> PositionsV1 {
    let position = |user: &[u8], read, receipt| {
        let (user, message_count) = (user.to_vec(), read - 30);
        PositionV1 { user, read, message_count, receipt, delivered: 0 }
    };
    PositionsV1 {
        folded_to: 42,
        message_count: 12,
        positions: vec![position(b"bob", 41, 0), position("žofie".as_bytes(), 42, 40)],
        ext: vec![1, 0, 2, 3],
    }
}
