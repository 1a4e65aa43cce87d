//! What a message becomes, and what is served of it and of its amendments.

#![forbid(unsafe_code)]

mod samples;

use protocol::{
    command::{MessageKind, Send},
    event::ServerFrame,
    ids::{Seq, UnixMillis},
    json::render_json,
    limits,
    record::{
        Amendment, AmendmentKind, Body, FormV1, MessageV1, PORTABLE_BYTES, Portable, ReactionsFull, Stored,
        StoredBody,
    },
    session::Input,
    upgrade::Form,
};
use samples::{CONVERSATION, NOW, user};

const LATER: UnixMillis = UnixMillis(NOW.0 + 1_000);

/// The message of seq 41 as it was sent: an image with all there is.
fn message() -> Vec<u8> {
    let send = Send { text: "before".to_owned(), ..samples::send_full() };
    let message = MessageV1::from_send(&send, &user("alice"), samples::message_id());
    Body::Message(message).record(CONVERSATION, Seq(41), NOW, 17)
}

fn first_form() -> FormV1 {
    let record = message();
    match Stored::parse(&record).expect("what was written can be read").body {
        StoredBody::Message(message) => FormV1::of_message(message, NOW),
        _ => panic!("this is a message"),
    }
}

/// Amends seq 41 at seq 43.
fn amendment(change: AmendmentKind, form: FormV1) -> Vec<u8> {
    Body::Amendment(samples::amendment(change, 41, form)).record(CONVERSATION, Seq(43), LATER, 18)
}

fn parse(record: &[u8]) -> Stored<'_> {
    Stored::parse(record).expect("what was written can be read")
}

fn of(record: &[u8]) -> Amendment<'_> {
    Amendment::of(parse(record)).expect("this is an amendment")
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

/// What a client of each form reads, which must be the same.
fn seen(stored: &Stored<'_>) -> ServerFrame {
    let (mut json, mut binary) = (Vec::new(), Vec::new());
    let text = String::from_utf8(render_json(stored)).expect("JSON is UTF-8");
    ServerFrame::from_input(&Input::Text(&text), &mut json).expect("a record can be read");
    let mut bytes = Vec::new();
    stored.encode(Form::Binary, &mut bytes);
    ServerFrame::from_input(&Input::Binary(&bytes), &mut binary).expect("a record can be read");
    assert_eq!(json, binary, "both forms say the same");
    json.remove(0)
}

/// Steps like `bob + x` and `bob - x`, one after the other, and what is there at the end, in order.
#[track_caller]
fn check(steps: &str, expected: &str) {
    let form = steps.split("; ").fold(first_form(), |form, step| {
        let [name, sign, emoji] = step.split(' ').collect::<Vec<_>>()[..] else {
            panic!("`{step}` is no step");
        };
        let (user, on) = (user(name), sign == "+");
        let form = form.with_reaction(&user, emoji, on).expect("far from the limit");
        assert_eq!(form.has_reaction(&user, emoji), on);
        form
    });
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let left =
        form.reactions.iter().map(|reaction| format!("{} {}", text(&reaction.user), text(&reaction.emoji)));
    assert_eq!(left.collect::<Vec<_>>().join("; "), expected, "{steps}");
}

#[test]
fn reactions_are_a_set_in_the_order_in_which_they_were_made() {
    check("bob + x", "bob x");
    check("bob + x; bob + x", "bob x");
    check("bob + x; bob + y; carol + x", "bob x; bob y; carol x");
    check("bob + x; carol + x; bob - x", "carol x");
    check("bob + x; carol + x; bob - x; bob + x", "carol x; bob x");
    check("bob - x", "");
    check("bob + x; carol - x; bob - y", "bob x");
    // Compared as they are: the selector makes another emoji of it.
    check("bob + \u{2764}; bob + \u{2764}\u{fe0f}", "bob \u{2764}; bob \u{2764}\u{fe0f}");
}

#[test]
fn reactions_have_a_limit() {
    let full = (0..limits::REACTIONS_MAX).fold(first_form(), |form, number| {
        form.with_reaction(&user(&number.to_string()), "x", true).expect("no more than there may be")
    });
    let react = |name: &str, on| full.clone().with_reaction(&user(name), "x", on);
    assert_eq!(react("bob", true), Err(ReactionsFull));
    assert_eq!(react("bob", false).as_ref(), Ok(&full));
    assert_eq!(react("0", true).as_ref(), Ok(&full));
    let room = react("0", false).expect("taking back is no more");
    assert_eq!(room.reactions.len(), limits::REACTIONS_MAX - 1);
    assert!(room.with_reaction(&user("bob"), "x", true).is_ok());
}

#[test]
fn the_first_form_is_the_message() {
    let (record, form) = (message(), first_form());
    let StoredBody::Message(message) = parse(&record).body else { panic!("this is a message") };
    assert_eq!((form.message_id, form.kind), (message.message_id, message.kind));
    assert_eq!((&*form.sender, &*form.text), (&*message.sender, &*message.text));
    assert_eq!((&*form.media, form.reply_to), (&*message.media, message.reply_to.to_native()));
    assert_eq!(form.mentions.len(), message.mentions.len());
    assert_eq!((form.at, form.edited_at, form.deleted), (NOW.0, 0, 0));
    assert!(form.reactions.is_empty());

    let record = amendment(AmendmentKind::React, samples::form());
    assert_eq!(of(&record).form(), samples::form());
}

#[test]
fn an_edit_changes_the_text_alone() {
    let form = samples::form();
    let edited = form.clone().edited("after", LATER);
    assert_eq!(edited, FormV1 { text: b"after".to_vec(), edited_at: LATER.0, ..form });
}

#[test]
fn a_text_stays_one_and_a_caption_may_go() {
    for (kind, empty) in [(MessageKind::Text, false), (MessageKind::Image, true), (MessageKind::File, true)] {
        let form = FormV1 { kind: kind as u8, ..samples::form() };
        assert!(form.takes_text("x"));
        assert_eq!(form.takes_text(""), empty, "{kind:?}");
    }
}

#[test]
fn what_is_deleted_stays_deleted_and_holds_nothing() {
    let form = samples::form();
    let deleted = form.clone().deleted();
    let FormV1 { message_id, kind, sender, at, .. } = form;
    assert_eq!(deleted, FormV1 { message_id, kind, sender, at, deleted: 1, ..FormV1::default() });
    assert_eq!(deleted.clone().edited("again", LATER), deleted);
    assert_eq!(deleted.clone().with_reaction(&user("bob"), "x", true), Ok(deleted.clone()));
    assert_eq!(deleted.clone().deleted(), deleted);
}

#[test]
fn a_substitute_stands_at_the_place_of_its_target() {
    let (target, newest) = (message(), amendment(AmendmentKind::Edit, first_form().edited("after", LATER)));
    let target = parse(&target).portable;
    let substitute = of(&newest).substitute(&target);
    let stored = parse(&substitute);
    assert_eq!(stored.bytes(), substitute, "without padding");
    let Portable { conversation, seq, at, message_count, .. } = stored.portable;
    assert_eq!((conversation, seq), (target.conversation, target.seq));
    assert_eq!((at, message_count), (target.at, target.message_count));
    assert!(matches!(stored.body, StoredBody::Folded(_)));
    assert!(Amendment::of(stored).is_none(), "it amends nothing");
    let ServerFrame::Message(event) = seen(&stored) else { panic!("it is served as a message") };
    assert_eq!((event.seq, event.at, &*event.text), (Seq(41), NOW, "after"));
    assert_eq!((event.edited_at, event.deleted), (Some(LATER), false));
}

#[test]
fn an_amendment_with_a_newer_form_keeps_its_own_name_and_place() {
    let older = amendment(AmendmentKind::Edit, first_form().edited("secret", LATER));
    let newer = amendment(AmendmentKind::Delete, first_form().deleted());
    let record = of(&older).with_form(of(&newer).form());
    let (before, after) = (parse(&older).portable, parse(&record).portable);
    let unsealed = |portable| Portable { payload_bytes: 0, payload_sum: 0, ..portable };
    assert_eq!(unsealed(before), unsealed(after));
    assert_eq!(record.len(), PORTABLE_BYTES + after.payload_bytes as usize, "without padding");
    let (before, after) = (of(&older).body(), of(&record).body());
    assert_eq!((before.message_id, &*before.by), (after.message_id, &*after.by));
    assert_eq!((before.change, before.target), (after.change, after.target));
    // A hash of a short text is as good as the text.
    assert_eq!(after.content_hash, 0);
    assert!(holds(&older, "secret") && !holds(&record, "secret"));
    let text = String::from_utf8(render_json(&parse(&record))).expect("JSON is UTF-8");
    assert!(text.ends_with(r#""by":"bob","target":41,"deleted":true}"#), "{text}");
}

/// Of a deleted message neither its substitute nor any of its amendments says anything, in either form.
#[test]
fn of_a_deleted_message_nothing_is_served() {
    let (target, deleted) = (message(), samples::form().deleted());
    let newest = amendment(AmendmentKind::Delete, deleted.clone());
    let older = amendment(AmendmentKind::React, samples::form());
    let target = parse(&target).portable;
    for record in [of(&newest).substitute(&target), of(&older).with_form(deleted), of(&older).hidden()] {
        let json = render_json(&parse(&record));
        for part in ["hello", "media/", "žofie", samples::HEART, "\\\\"] {
            assert!(
                !holds(&record, part) && !holds(&json, part),
                "{part} in {}",
                String::from_utf8_lossy(&json)
            );
        }
        seen(&parse(&record));
    }
}

#[test]
fn a_hidden_amendment_says_that_something_was_amended() {
    let record = amendment(AmendmentKind::Delete, samples::form().deleted());
    let hidden = of(&record).hidden();
    let stored = parse(&hidden);
    assert_eq!((stored.portable.seq, stored.portable.at), (Seq(43), LATER));
    assert_eq!(of(&hidden).form(), FormV1::default());
    assert_eq!(of(&hidden).body().change, AmendmentKind::Hidden as u8);
    let text = String::from_utf8(render_json(&stored)).expect("JSON is UTF-8");
    assert!(text.ends_with(r#""by":"bob","target":41}"#), "{text}");
}
