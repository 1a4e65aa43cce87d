//! What the JSON reader takes and what it says about the rest: one table a reviewer can read.

#![forbid(unsafe_code)]

use protocol::{binary, json::decode_request, limits};

const C: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
const V7: &str = "01a0c4a0-5c7b-7102-8304-05060708090a";

/// `$C` stands for a conversation, `$V7` for a message id.
#[track_caller]
fn check(input: &str, expected: &str) {
    let input = input.replace("$C", C).replace("$V7", V7);
    let result = match decode_request(&input) {
        Ok(request) => format!("ok {}", request.command.op()),
        Err(refusal) => {
            let id = refusal.id.map_or("-".to_owned(), |id| id.to_string());
            format!("{id} {} {}", refusal.code.name(), refusal.message)
        }
    };
    assert_eq!(result, expected, "{input}");
}

#[test]
fn taken() {
    for (input, op) in [
        (r#"{"op":"ping","id":1}"#, "ping"),
        (r#" { "id" : 2147483647 , "op" : "ping" } "#, "ping"),
        (r#"{"op":"\u0070ing","id":1}"#, "ping"),
        (r#"{"op":"ack","cursor":"x"}"#, "ack"),
        (r#"{"op":"typing","conversation":"$C","on":true}"#, "typing"),
        (r#"{"op":"view","id":1,"conversation":"$C"}"#, "view"),
        (r#"{"op":"send","id":1,"to":"bob","kind":"text","text":"hi"}"#, "send"),
        (r#"{"text":"hi","kind":"text","to":"bob","id":1,"op":"send"}"#, "send"),
        (r#"{"op":"send","id":1,"to":"bob","kind":"image","text":"","media":"m"}"#, "send"),
        (r#"{"op":"send","id":1,"to":"bob","kind":"text","text":"hi","message_id":"$V7"}"#, "send"),
        (r#"{"op":"history","id":1,"conversation":"$C","limit":200,"after":0}"#, "history"),
        (r#"{"op":"conversations","id":1,"limit":50}"#, "conversations"),
        (r#"{"op":"conversations","id":1,"limit":1,"after":"v1.x"}"#, "conversations"),
        (r#"{"op":"search","id":1,"query":"\"a AND (b","limit":50}"#, "search"),
        (r#"{"op":"search","id":1,"query":"x","conversation":"$C","before":"v1.x","limit":1}"#, "search"),
        (r#"{"op":"members","id":1,"conversation":"$C","list":true}"#, "members"),
        (r#"{"op":"members","id":1,"conversation":"$C","roles":{"bob":"admin"}}"#, "members"),
        (r#"{"op":"connect","id":1,"device":"d","positions":[]}"#, "connect"),
        (r#"{"op":"edit","id":1,"conversation":"$C","seq":1,"text":"x"}"#, "edit"),
        // A caption may go, a text may not: whoever knows the message knows which it is.
        (r#"{"op":"edit","id":1,"conversation":"$C","seq":1,"text":""}"#, "edit"),
        (r#"{"op":"delete","id":1,"conversation":"$C","seq":1,"message_id":"$V7"}"#, "delete"),
        (r#"{"op":"react","id":1,"conversation":"$C","seq":1,"emoji":"x","on":true}"#, "react"),
        (r#"{"on":false,"emoji":"\u2764\ufe0f","seq":1,"conversation":"$C","id":1,"op":"react"}"#, "react"),
    ] {
        check(input, &format!("ok {op}"));
    }
}

#[test]
fn not_a_command() {
    check("", "- bad_frame the frame is not valid JSON");
    check("nul", "- bad_frame the frame is not valid JSON");
    check("null", "- bad_frame the frame is not a JSON object");
    check("[]", "- bad_frame the frame is not a JSON object");
    check("{}", "- bad_field `op` is missing");
    check(r#"{"id":5}"#, "5 bad_field `op` is missing");
    check(r#"{"op":"ping","id":5} x"#, "5 bad_frame the frame is not valid JSON");
    check(r#"{"op":"ping","id":5"#, "5 bad_frame the frame is not valid JSON");
    check(r#"{"op":"ping","id":5,"cursor":NaN}"#, "5 bad_frame the frame is not valid JSON");
    check("{\"op\":\"ping\",\"id\":5,\"cursor\":\"a\u{0}b\"}", "5 bad_frame the frame is not valid JSON");
    check(r#"{"op":"send","id":5,"text":"\ud800"}"#, "5 bad_frame the frame is not valid JSON");
}

#[test]
fn operations_of_other_versions() {
    let unknown = "5 unknown_op `op` is not one this server knows";
    check(r#"{"op":"unread","id":5,"conversation":"$C"}"#, unknown);
    check(r#"{"op":"find","id":5,"query":"x","limit":1}"#, unknown);
    check(r#"{"op":"wave","conversation":"$C","on":true}"#, &unknown.replace('5', "-"));
}

#[test]
fn whom_a_block_is_of() {
    check(r#"{"op":"block","id":5,"on":true}"#, "5 bad_field `user` is missing");
    let no_id = "5 bad_field `user` is no id: a text of 1 to 64 bytes of UTF-8, without control characters";
    check(r#"{"op":"block","id":5,"user":"","on":true}"#, no_id);
    check(r#"{"op":"block","id":5,"user":"bob"}"#, "5 bad_field `on` is missing");
}

/// As in a field of its own.
#[test]
fn a_list_with_somebody_who_is_no_user_says_what_a_user_is() {
    let long = format!(r#""{}""#, "u".repeat(65));
    for nobody in
        ["\"\"", r#""a\u0000""#, r#""a\n""#, &long, "7", "-7", "1.5", "null", "true", "{}", r#"["a"]"#]
    {
        for (field, op) in [
            ("members", r#""op":"create","title":"t","history":"all""#),
            ("mentions", r#""op":"send","to":"bob","kind":"text","text":"x""#),
            ("add", r#""op":"members","conversation":"$C""#),
            ("remove", r#""op":"members","conversation":"$C""#),
        ] {
            for list in [format!("[{nobody}]"), format!(r#"["bob",{nobody},"carol"]"#)] {
                let no_id = format!(
                    "5 bad_field `{field}` is no id: a text of 1 to 64 bytes of UTF-8, without control characters"
                );
                check(&format!(r#"{{{op},"id":5,"{field}":{list}}}"#), &no_id);
                // Wherever it stands.
                check(&format!(r#"{{"{field}":{list},"id":5,{op}}}"#), &no_id);
            }
        }
    }
    let no_id = "5 bad_field `roles` is no id: a text of 1 to 64 bytes of UTF-8, without control characters";
    check(r#"{"op":"members","id":5,"conversation":"$C","roles":{"b":"admin","":"admin"}}"#, no_id);
    // What is no list at all says nothing of users.
    for wrong in [r#""bob""#, "7", "{}", "null"] {
        let create = format!(r#"{{"op":"create","id":5,"title":"t","history":"all","members":{wrong}}}"#);
        check(&create, "5 bad_field `members` has the wrong type or form");
    }
    check(r#"{"op":"dance","id":5,"members":[""]}"#, "5 unknown_op `op` is not one this server knows");
}

#[test]
fn a_list_with_somebody_who_is_no_user_is_refused_alike_in_both_forms() {
    for command in [
        r#"{"op":"create","id":5,"title":"t","history":"all","members":["a","b~"]}"#,
        r#"{"op":"send","id":5,"to":"a","kind":"text","text":"x","mentions":["a","b~"]}"#,
        r#"{"op":"members","id":5,"conversation":"$C","add":["a","b~"]}"#,
        r#"{"op":"members","id":5,"conversation":"$C","remove":["a","b~"]}"#,
        r#"{"op":"members","id":5,"conversation":"$C","roles":{"a":"admin","b~":"admin"}}"#,
    ] {
        let text = command.replace("$C", C);
        let mut frame = Vec::new();
        binary::encode_request(&decode_request(&text).expect("a name may have it"), &mut frame);
        frame.iter_mut().filter(|byte| **byte == b'~').for_each(|byte| *byte = 0);
        let refusal = decode_request(&text.replace('~', "\\u0000")).expect_err("a control character");
        assert_eq!(binary::decode_request(&frame).expect_err("the same"), refusal, "{text}");
    }
}

#[test]
fn the_time_of_a_mute() {
    check(r#"{"op":"mute","id":5,"conversation":"$C"}"#, "5 bad_field `until` is missing");
    check(r#"{"op":"mute","id":5,"conversation":"$C","until":-1}"#, WRONG_UNTIL);
    let beyond = r#"{"op":"mute","id":5,"conversation":"$C","until":9007199254740992}"#;
    check(beyond, "5 bad_field `until` is out of range");
    check(r#"{"op":"mute","id":5,"until":1}"#, "5 bad_field `conversation` is missing");
}

#[test]
fn how_much_is_kept() {
    for fields in ["", r#","days":null,"last":null"#, r#","days":3650,"last":1000000"#, r#","last":1"#] {
        check(&format!(r#"{{"op":"retention","id":5,"conversation":"$C"{fields}}}"#), "ok retention");
    }
    for (field, value) in
        [("days", "0"), ("days", "3651"), ("days", "4294967303"), ("last", "0"), ("last", "1000001")]
    {
        let retention = format!(r#"{{"op":"retention","id":5,"conversation":"$C","{field}":{value}}}"#);
        check(&retention, &format!("5 bad_field `{field}` is out of range"));
    }
    let text = r#"{"op":"retention","id":5,"conversation":"$C","days":"7"}"#;
    check(text, "5 bad_field `days` has the wrong type or form");
    check(r#"{"op":"retention","id":5,"days":7}"#, "5 bad_field `conversation` is missing");
}

#[test]
fn what_a_push_reaches_a_device_by() {
    check(r#"{"op":"push_token","id":5}"#, "5 bad_field `token` is missing");
    check(r#"{"op":"push_token","id":5,"token":7}"#, "5 bad_field `token` has the wrong type or form");
    check(r#"{"op":"push_token","id":5,"token":""}"#, "5 bad_field `token` is empty");
    check(r#"{"op":"push_token","id":5,"token":"a\nb"}"#, "5 bad_field `token` contains a control character");
    let token = |bytes| format!(r#"{{"op":"push_token","id":5,"token":"{}"}}"#, "t".repeat(bytes));
    check(&token(limits::PUSH_TOKEN_BYTES_MAX + 1), "5 too_large `token` is too long");
    assert!(decode_request(&token(limits::PUSH_TOKEN_BYTES_MAX)).is_ok());
    // A session has no token that is nothing.
    check(r#"{"op":"refresh","id":5,"token":null}"#, "5 bad_field `token` has the wrong type or form");
}

#[test]
fn who_wants_to_be_invisible_says_so() {
    check(r#"{"op":"invisible","id":5}"#, "5 bad_field `on` is missing");
    check(r#"{"op":"invisible","id":5,"on":1}"#, "5 bad_field `on` has the wrong type or form");
    check(r#"{"op":"invisible","on":true}"#, "- bad_field `id` is missing");
}

const WRONG_UNTIL: &str = "5 bad_field `until` has the wrong type or form";

#[test]
fn what_is_looked_for() {
    check(r#"{"op":"search","id":5,"limit":1}"#, "5 bad_field `query` is missing");
    check(r#"{"op":"search","id":5,"query":"","limit":1}"#, "5 bad_field `query` is empty");
    let line = r#"{"op":"search","id":5,"query":"a\nb","limit":1}"#;
    check(line, "5 bad_field `query` contains a control character");
    let query = |bytes| format!(r#"{{"op":"search","id":5,"query":"{}","limit":1}}"#, "x".repeat(bytes));
    check(&query(limits::QUERY_BYTES_MAX), "ok search");
    check(&query(limits::QUERY_BYTES_MAX + 1), "5 too_large `query` is too long");
    for limit in ["0", "51", "4294967297"] {
        let search = format!(r#"{{"op":"search","id":5,"query":"x","limit":{limit}}}"#);
        check(&search, "5 bad_field `limit` is out of range");
    }
    let before = r#"{"op":"search","id":5,"query":"x","limit":1,"before":7}"#;
    check(before, "5 bad_field `before` has the wrong type or form");
    let before = r#"{"op":"history","id":5,"conversation":"$C","limit":1,"before":"v1.x"}"#;
    check(before, "5 bad_field `before` has the wrong type or form");
}

#[test]
fn ids_of_commands() {
    check(r#"{"op":"ping"}"#, "- bad_field `id` is missing");
    check(r#"{"op":"ping","id":0}"#, "- bad_field `id` is out of range");
    check(r#"{"op":"ping","id":2147483648}"#, "- bad_field `id` is out of range");
    check(r#"{"op":"ping","id":-1}"#, "- bad_field `id` has the wrong type or form");
    check(r#"{"op":"ping","id":1.0}"#, "- bad_field `id` has the wrong type or form");
    check(r#"{"op":"ping","id":1e400}"#, "- bad_frame the frame is not valid JSON");
    check(r#"{"op":"ping","id":"1"}"#, "- bad_field `id` has the wrong type or form");
    check(r#"{"op":"ping","id":null}"#, "- bad_field `id` has the wrong type or form");
    check(r#"{"op":"ping","id":{"a":[1]}}"#, "- bad_field `id` has the wrong type or form");
    check(r#"{"op":"ping","id":1,"id":2}"#, "- bad_field `id` stands there twice");
    check(r#"{"op":"ack","id":3,"cursor":"x"}"#, "3 bad_field `id` does not belong to this op");
    let typing = r#"{"op":"typing","id":3,"conversation":"$C","on":true}"#;
    check(typing, "3 bad_field `id` does not belong to this op");
    check(r#"{"op":"typing","conversation":"$C"}"#, "- bad_field `on` is missing");
    check(r#"{"op":"view","id":3}"#, "3 bad_field `conversation` is missing");
}

#[test]
fn fields_that_do_not_belong() {
    check(r#"{"op":"ping","id":1,"Hello, World":"x"}"#, "1 bad_field a field is unknown");
    check(r#"{"op":"ping","id":1,"curser":"x"}"#, "1 bad_field `curser` is not a field of this protocol");
    check(r#"{"op":"ping","id":1,"text":"x"}"#, "1 bad_field `text` does not belong to this op");
    check(r#"{"op":"ping","id":1,"cursor":"x","cursor":"x"}"#, "1 bad_field `cursor` stands there twice");
    check(r#"{"op":"ping","id":1,"cursor":null}"#, "1 bad_field `cursor` has the wrong type or form");
    check(
        r#"{"op":"connect","id":1,"device":"d","cursor":"c","positions":[]}"#,
        "1 bad_field `positions` cannot stand beside `cursor`",
    );
    check(
        r#"{"op":"connect","id":1,"device":"d","positions":[{"conversation":"$C","seq":1,"x":1}]}"#,
        "1 bad_field `positions` has the wrong type or form",
    );
    check(
        r#"{"op":"connect","id":1,"device":"d","positions":[{"conversation":"$C","seq":1},{"conversation":"$C","seq":2}]}"#,
        "1 bad_field `positions` names a conversation twice",
    );
    check(
        r#"{"op":"history","id":1,"conversation":"$C","limit":1,"before":2,"after":1}"#,
        "1 bad_field `before` cannot stand beside `after`",
    );
    check(
        r#"{"op":"members","id":1,"conversation":"$C","list":true,"add":["a"]}"#,
        "1 bad_field `add` cannot stand beside `list`",
    );
    check(
        r#"{"op":"members","id":1,"conversation":"$C","list":false}"#,
        "1 bad_field `list` can only be true",
    );
    check(
        r#"{"op":"send","id":1,"to":"bob","conversation":"$C","kind":"text","text":"x"}"#,
        "1 bad_field `to` cannot stand beside `conversation`",
    );
    check(
        r#"{"op":"send","id":1,"to":"bob","kind":"text","text":"x","media":"m"}"#,
        "1 bad_field `media` does not belong to this kind",
    );
}

#[test]
fn values_out_of_range() {
    let send = |rest: &str| format!(r#"{{"op":"send","id":1,"to":"bob","kind":"text",{rest}}}"#);
    check(&send(r#""text":"""#), "1 bad_field `text` is empty");
    let long = "x".repeat(limits::TEXT_BYTES_MAX + 1);
    check(&send(&format!(r#""text":"{long}""#)), "1 too_large `text` is too long");
    check(&send(&format!(r#""text":"{}""#, &long[1..])), "ok send");
    check(&send(r#""text":"x","reply_to":0"#), "1 bad_field `reply_to` is out of range");
    check(&send(r#""text":"x","reply_to":9007199254740992"#), "1 bad_field `reply_to` is out of range");
    check(&send(r#""text":"x","message_id":"$C""#), "1 bad_field `message_id` is not a UUID of version 7");
    check(&send(r#""text":"x","message_id":"x""#), "1 bad_field `message_id` has the wrong type or form");
    let many = vec![r#""u""#; limits::MENTIONS_MAX + 1].join(",");
    check(&send(&format!(r#""text":"x","mentions":[{many}]"#)), "1 too_large `mentions` is too long");
    check(r#"{"op":"history","id":1,"conversation":"$C","limit":0}"#, "1 bad_field `limit` is out of range");
    check(r#"{"op":"conversations","id":1,"limit":51}"#, "1 bad_field `limit` is out of range");
    check(r#"{"op":"conversations","id":1,"limit":1,"after":""}"#, "1 bad_field `after` is empty");
    check(r#"{"op":"conversations","id":1,"limit":1,"after":"ß"}"#, "1 bad_field `after` is malformed");
    check(
        r#"{"op":"conversations","id":1,"limit":1,"after":7}"#,
        "1 bad_field `after` has the wrong type or form",
    );
    check(
        r#"{"op":"history","id":1,"conversation":"$C","limit":1,"after":"7"}"#,
        "1 bad_field `after` has the wrong type or form",
    );
    check(
        r#"{"op":"history","id":1,"conversation":"$C","limit":201}"#,
        "1 bad_field `limit` is out of range",
    );
    check(
        r#"{"op":"history","id":1,"conversation":"$C","limit":4294967297}"#,
        "1 bad_field `limit` is out of range",
    );
    check(
        r#"{"op":"members","id":1,"conversation":"$C","add":["a","a"]}"#,
        "1 bad_field `add` names a user twice",
    );
    check(
        r#"{"op":"members","id":1,"conversation":"$C","roles":{"a":"owner","a":"admin"}}"#,
        "1 bad_field `roles` names a user twice",
    );
    check(
        r#"{"op":"members","id":1,"conversation":"$C","roles":{"a":"king"}}"#,
        "1 bad_field `roles` is not a known role",
    );
    check(
        r#"{"op":"members","id":1,"conversation":"$C"}"#,
        "1 bad_field `add` is missing, and so are `remove`, `roles` and `list`",
    );
    let many: Vec<_> = (0..=limits::MEMBERS_MAX).map(|number| format!(r#""{number}""#)).collect();
    check(
        &format!(r#"{{"op":"create","id":1,"title":"t","history":"all","members":[{}]}}"#, many.join(",")),
        "1 too_large `members` is too long",
    );
}

#[test]
fn amendments_out_of_range() {
    let edit = |rest: &str| format!(r#"{{"op":"edit","id":1,"conversation":"$C",{rest}}}"#);
    check(&edit(r#""seq":1"#), "1 bad_field `text` is missing");
    check(&edit(r#""text":"x""#), "1 bad_field `seq` is missing");
    check(&edit(r#""seq":0,"text":"x""#), "1 bad_field `seq` is out of range");
    check(&edit(r#""seq":9007199254740992,"text":"x""#), "1 bad_field `seq` is out of range");
    check(&edit(r#""seq":"1","text":"x""#), "1 bad_field `seq` has the wrong type or form");
    check(&edit(r#""seq":1,"text":"x","kind":"text""#), "1 bad_field `kind` does not belong to this op");
    check(
        &edit(r#""seq":1,"text":"x","message_id":"$C""#),
        "1 bad_field `message_id` is not a UUID of version 7",
    );
    let long = "x".repeat(limits::TEXT_BYTES_MAX + 1);
    check(&edit(&format!(r#""seq":1,"text":"{long}""#)), "1 too_large `text` is too long");
    check(&edit(&format!(r#""seq":1,"text":"{}""#, &long[1..])), "ok edit");

    let delete = |rest: &str| format!(r#"{{"op":"delete","id":1,"conversation":"$C"{rest}}}"#);
    check(&delete(""), "1 bad_field `seq` is missing");
    check(&delete(r#","seq":0"#), "1 bad_field `seq` is out of range");
    check(&delete(r#","seq":1,"text":"x""#), "1 bad_field `text` does not belong to this op");
    check(r#"{"op":"delete","id":1,"seq":1}"#, "1 bad_field `conversation` is missing");

    let react = |rest: &str| format!(r#"{{"op":"react","id":1,"conversation":"$C","seq":1,{rest}}}"#);
    check(&react(r#""on":true"#), "1 bad_field `emoji` is missing");
    check(&react(r#""emoji":"x""#), "1 bad_field `on` is missing");
    check(&react(r#""emoji":"x","on":1"#), "1 bad_field `on` has the wrong type or form");
    check(&react(r#""emoji":"","on":true"#), "1 bad_field `emoji` is empty");
    check(&react(r#""emoji":"\n","on":true"#), "1 bad_field `emoji` contains a control character");
    let long = "x".repeat(limits::EMOJI_BYTES_MAX + 1);
    check(&react(&format!(r#""emoji":"{long}","on":true"#)), "1 too_large `emoji` is too long");
    check(&react(&format!(r#""emoji":"{}","on":false"#, &long[1..])), "ok react");
}

#[test]
fn malformed_names() {
    let to = |name: &str| format!(r#"{{"op":"send","id":1,"to":"{name}","kind":"text","text":"x"}}"#);
    let bad = "1 bad_field `to` is no id: a text of 1 to 64 bytes of UTF-8, without control characters";
    check(&to(""), bad);
    check(&to(r"a\u0000b"), bad);
    check(&to(r"a\u0085b"), bad);
    check(&to(&"x".repeat(65)), bad);
    check(&to(&"x".repeat(60_000)), bad);
    // Ids are the operator's: what looks odd to us is compared as bytes and allowed.
    check(&to("../etc/passwd"), "ok send");
    check(&to("\u{202e}bob"), "ok send");
    check(&to(&"x".repeat(64)), "ok send");
    for conversation in ["{$C}", "6BA7B8109DAD11D180B400C04FD430C8", "urn:uuid:$C", " $C", "$C0", "0"] {
        check(
            &format!(r#"{{"op":"leave","id":1,"conversation":"{conversation}"}}"#),
            "1 bad_field `conversation` has the wrong type or form",
        );
    }
}

/// Depth is no danger: a nested value where none belongs is refused at its first bracket, and where
/// anything may be skipped, skipping does not recurse.
#[test]
fn depth_is_no_danger() {
    let deep = "[".repeat(30_000);
    check(
        &format!(r#"{{"op":"ping","id":1,"cursor":{deep}"#),
        "1 bad_field `cursor` has the wrong type or form",
    );
    check(&format!(r#"{{"op":"ping","id":1,"x":{deep}"#), "1 bad_frame the frame is not valid JSON");
    check(&deep, "- bad_frame the frame is not a JSON object");
    let closed = format!(r#"{{"id":1,"x":{deep}{},"op":"ping"}}"#, "]".repeat(30_000));
    check(&closed, "1 bad_field `x` is not a field of this protocol");
    check(&"x".repeat(limits::FRAME_BYTES_MAX + 1), "- too_large the frame is too long");
}

/// What a client sent never comes back in an error, wherever it stood.
#[test]
fn errors_repeat_nothing() {
    const SECRET: &str = "s3cr3t";
    for input in [
        r#"{"op":"s3cr3t","id":1}"#,
        r#"{"op":"connect","id":1,"device":"d","token":["s3cr3t"]}"#,
        r#"{"op":"connect","id":1,"device":"d","token":"s3cr3t s3cr3t"}"#,
        r#"{"op":"connect","id":1,"device":"d","token":"s3cr3t"#,
        r#"{"op":"connect","id":1,"device":"s3cr3t","s3cr3t":1}"#,
        r#"{"op":"push_token","id":1,"token":["s3cr3t"]}"#,
        r#"{"op":"push_token","id":1,"token":"s3cr3t\n"}"#,
        r#"{"op":"send","id":1,"to":"bob","kind":"s3cr3t","text":"s3cr3t"}"#,
        r#"{"op":"send","id":1,"to":"bob","kind":"text","text":{"s3cr3t":"s3cr3t"}}"#,
        r#"{"op":"members","id":1,"conversation":"s3cr3t","roles":{"s3cr3t":"s3cr3t"}}"#,
        r#""s3cr3t""#,
    ] {
        let refusal = decode_request(input).expect_err("none of these is a command");
        assert!(!format!("{refusal:?}").contains(SECRET), "{input}");
    }
    for op in ["refresh", "push_token"] {
        let input = format!(r#"{{"op":"{op}","id":1,"token":"s3cr3t"}}"#);
        let request = decode_request(&input).expect("this is a command");
        assert!(!format!("{request:?}").contains(SECRET), "{op}");
    }
}
