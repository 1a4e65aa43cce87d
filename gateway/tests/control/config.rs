//! Every layer, every mistake, and the example that operators start from.

use std::{path::Path, time::Duration};

use gateway::config::{Config, KeyConfig, Layers, setting_names};
use protocol::upgrade::Origins;

const EXAMPLE: &str = include_str!("../../gatehouse.example.toml");

/// What the text gives, as a configuration or as lines of mistakes.
fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("g.toml"), text).map_err(|errors| errors.to_string())
}

/// Checks that each line of `expected` begins one mistake, in order, and that there are no others.
fn check_mistakes(text: &str, expected: &[&str]) {
    let mistakes = parse(text).expect_err("there are mistakes");
    let lines: Vec<_> = mistakes.lines().collect();
    assert_eq!(lines.len(), expected.len(), "for {text:?}:\n{mistakes}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "for {text:?}: {line:?} is not {expected:?}");
    }
}

fn layers(environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Layers {
    Layers {
        file: None,
        environment: environment.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect(),
        flags: flags.iter().map(|(key, text)| (*key, (*text).into())).collect(),
    }
}

#[test]
fn the_example_says_the_defaults() {
    assert_eq!(parse(EXAMPLE), Ok(Config::default()));
    assert_eq!(parse(""), Ok(Config::default()));
}

#[test]
fn the_example_shows_every_setting_and_each_line_of_it_works() {
    let mut shown = Vec::new();
    for line in EXAMPLE.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, _)) = line.split_once(" = ") else {
            continue;
        };
        shown.push(key);
        // Alone it would be refused for a relation, not for itself.
        let context = if key == "eddsa_private_key_file" { "eddsa_public_key_file = \"p\"" } else { "" };
        parse(&format!("{context}\n{line}")).unwrap_or_else(|mistakes| panic!("{line}: {mistakes}"));
    }
    shown.sort_unstable();
    let mut names: Vec<_> = setting_names().collect();
    names.sort_unstable();
    assert_eq!(shown, names);
}

const EVERY_SETTING: &str = r#"
        data = "/d"
        listen = "0.0.0.0:1"
        admin = "[::1]:2"
        echo = "127.0.0.1:3"
        shards = 4
        logs = 5
        segment_mib = 64
        compact_after_seconds = 9
        keep_days = 30
        keep_inbox_days = 20
        keep_mib = 4096
        scrub_bytes_per_second = 65
        search = true
        connections_max = 6
        handshakes_max = 8
        connects_per_second_max = 9
        memory_reserve_mib = 10
        drain_seconds = 7
        push_file = "p"
        origins = ["https://a.example", "http://localhost:8080"]
        eddsa_public_key_file = "pub"
        eddsa_private_key_file = "priv"
        issuer = "i"
        audience = "a"
        admin_token_file = "t"
        session_commands_per_second = 11
        user_messages_per_second = 0
        user_new_conversations_per_hour = 16
        user_added_people_per_hour = 17
        proxies = ["10.0.0.0/8", "2001:db8::7"]
        ip_connections_max = 12
        ip_connects_per_second = 13
        ip_commands_per_second = 14
        ip_messages_per_second = 15
        "#;

#[test]
fn every_setting_arrives() {
    let config = parse(EVERY_SETTING);
    let keys = KeyConfig::Eddsa { public_key_file: "pub".into(), private_key_file: Some("priv".into()) };
    let expected = Config {
        data: "/d".into(),
        listen: "0.0.0.0:1".parse().expect("an address"),
        admin: "[::1]:2".parse().expect("an address"),
        echo: "127.0.0.1:3".parse().ok(),
        shards: Some(4),
        logs: Some(5),
        segment_mib: 64,
        compact_after: Some(Duration::from_secs(9)),
        keep: Some(Duration::from_secs(30 * 86_400)),
        keep_inbox: Some(Duration::from_secs(20 * 86_400)),
        keep_bytes: Some(4 << 30),
        scrub_bytes_per_second: 65,
        search: true,
        push_file: Some("p".into()),
        connections_max: Some(6),
        handshakes_max: Some(8),
        connects_per_second_max: Some(9),
        memory_reserve_bytes: Some(10 << 20),
        session_commands_per_second: 11,
        user_messages_per_second: 0,
        user_new_conversations_per_hour: 16,
        user_added_people_per_hour: 17,
        proxies: vec!["10.0.0.0/8".parse().expect("a block"), "2001:db8::7".parse().expect("an address")],
        ip_connections_max: 12,
        ip_connects_per_second: 13,
        ip_commands_per_second: 14,
        ip_messages_per_second: 15,
        drain: Duration::from_secs(7),
        origins: Origins::List(vec!["https://a.example".into(), "http://localhost:8080".into()]),
        keys,
        issuer: Some("i".into()),
        audience: Some("a".into()),
        admin_token_file: Some("t".into()),
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn all_mistakes_are_told_each_with_its_line() {
    check_mistakes(
        "listen = \"localhost:7100\"\n\
         shards = \"2\"\n\
         # a comment\n\
         dran_seconds = 4\n\
         logs = 0\n\
         data = \"\"\n\
         origins = \"https://a.example\"\n\
         connections_max = 0x1_0000_0000_0000_0000\n\
         issuer = 2026-01-01\n\
         [server]\n\
         port = 1\n",
        &[
            "g.toml:1: `listen` must be an IP address and a port, such as \"127.0.0.1:7100\"",
            "g.toml:2: `shards` must be a whole number from 1 to 128, not the text \"2\"",
            "g.toml:4: `dran_seconds` is not a setting; did you mean `drain_seconds`?",
            "g.toml:5: `logs` must be a whole number from 1 to 32, not 0",
            "g.toml:6: `data` must not be empty",
            "g.toml:7: `origins` must be a list of texts, not the text",
            "g.toml:8: `connections_max` must be a whole number from 1 to 1048576, not an integer of more",
            "g.toml:9: `issuer` must be text in quotes, not a value of type datetime",
            "g.toml:10: `server` is not a setting; there are: data, listen,",
        ],
    );
}

#[test]
fn syntax_errors_have_a_line_and_do_not_hide_the_rest() {
    check_mistakes("\"a\\nb\" = 1\n", &["g.toml:1: `a\\nb` is not a setting; "]);
    check_mistakes("shards = 2\nshards = 3\n", &["g.toml:2: duplicate key"]);
    check_mistakes(
        "listen = 127.0.0.1:7100\nlogs = 99\n",
        &["g.toml:1: ", "g.toml:2: `logs` must be a whole number from 1 to 32, not 99"],
    );
    let mistakes = parse("data = \"a\nlisten = [[[\n\u{0}").expect_err("no TOML at all");
    assert!(mistakes.lines().all(|line| line.starts_with("g.toml:")), "{mistakes}");
}

#[test]
fn origins_are_as_browsers_write_them() {
    for (origin, fault) in [
        ("a.example", "needs a scheme"),
        ("https://", "needs a scheme"),
        ("https://a.example/", "without a slash"),
        ("https://*.example", "wildcards"),
        ("https://A.example", "lower case"),
        ("https://bücher.example", "ASCII"),
        ("https://a.example:443", "default port"),
        ("http://a.example:80", "default port"),
    ] {
        let mistakes = parse(&format!("origins = [{origin:?}]")).expect_err("can never match");
        assert!(mistakes.contains(fault), "{origin}: {mistakes}");
    }
    for origin in ["https://a.example:80", "http://[::1]:3000", "app://chat"] {
        parse(&format!("origins = [{origin:?}]")).expect("as browsers write it");
    }
    let none = parse("origins = []").expect("no pages at all");
    assert_eq!(none.origins, Origins::List(Vec::new()));
}

#[test]
fn proxies_are_addresses_and_blocks_of_them() {
    for (proxy, fault) in [
        ("proxy.example.org", "neither an address nor a block"),
        ("10.0.0.1:443", "neither an address nor a block"),
        ("", "neither an address nor a block"),
        ("10.0.0.1/8", "write 10.0.0.0/8, or 10.0.0.1 for it alone"),
        ("2001:db8::1/64", "write 2001:db8::/64"),
        ("10.0.0.0/33", "a number from 0 to 32"),
        ("10.0.0.0/08", "a number from 0 to 32"),
        ("10.0.0.0/", "a number from 0 to 32"),
        ("::/129", "a number from 0 to 128"),
        ("::ffff:10.0.0.1", "write 10.0.0.1"),
    ] {
        let mistakes = parse(&format!("proxies = [{proxy:?}]")).expect_err("no block");
        assert!(mistakes.starts_with("g.toml:1: `proxies` holds") && mistakes.contains(fault), "{mistakes}");
    }
    check_mistakes("proxies = \"10.0.0.1\"", &["g.toml:1: `proxies` must be a list of texts"]);
    let many = vec!["\"10.0.0.1\""; 65].join(",");
    check_mistakes(
        &format!("proxies = [{many}]"),
        &["g.toml:1: `proxies` holds 65 addresses and blocks, more than 64"],
    );
    let variable = [("GATEHOUSE_PROXIES", "10.0.0.0/8, ::1")];
    let config = Config::load(&layers(&variable, &[("proxies", "192.0.2.7")])).expect("a flag");
    assert_eq!(config.proxies, ["192.0.2.7".parse().expect("an address")]);
    assert_eq!(Config::load(&layers(&variable, &[])).expect("a variable").proxies.len(), 2);
    let everybody = parse("proxies = [\"0.0.0.0/0\"]").expect("if need be");
    assert!(everybody.cautions()[0].contains("every address"), "{:?}", everybody.cautions());
}

#[test]
fn the_development_key_never_meets_the_network() {
    for address in ["0.0.0.0:7100", "[::]:7100", "192.0.2.1:7100", "[::ffff:192.0.2.1]:7100"] {
        for key in ["listen", "admin"] {
            let text = format!("{key} = {address:?}");
            let port = if key == "admin" { "listen = \"127.0.0.1:1\"\n" } else { "" };
            let mistakes = parse(&format!("{port}{text}")).expect_err("reachable without a key");
            assert!(
                mistakes.contains("set `hs256_key_file`, `eddsa_public_key_file`, `jwks_file` or `jwks_url`"),
                "{mistakes}"
            );
            parse(&format!("{port}{text}\nhs256_key_file = \"k\"")).expect("a key is configured");
        }
    }
    for address in ["127.0.0.2:7100", "[::1]:7100", "[::ffff:127.0.0.1]:7100"] {
        parse(&format!("listen = {address:?}")).expect("this machine only");
    }
}

#[test]
fn relations_are_told_where_they_can_be_changed() {
    check_mistakes(
        "hs256_key_file = \"k\"\neddsa_public_key_file = \"p\"\n",
        &["g.toml:1: `hs256_key_file` and `eddsa_public_key_file` (g.toml:2) are both set"],
    );
    check_mistakes(
        "jwks_url = \"https://a/\"\njwks_file = \"p\"\n",
        &["g.toml:2: `jwks_file` and `jwks_url` (g.toml:1) are both set"],
    );
    check_mistakes(
        "jwks_url = \"http://login.example.org/\"\n",
        &["g.toml:1: `jwks_url` must be https: whoever is on the way"],
    );
    check_mistakes(
        "eddsa_private_key_file = \"p\"\n",
        &["g.toml:1: `eddsa_private_key_file` is of no use without `eddsa_public_key_file`"],
    );
    check_mistakes(
        "hs256_key_file = \"k\"\necho = \"0.0.0.0:7102\"\n",
        &["g.toml:2: `echo` is 0.0.0.0:7102, but the echo server asks for no token"],
    );
    check_mistakes(
        "echo = \"127.0.0.1:7101\"\nlisten = \"127.0.0.1:7101\"\n",
        &[
            "default: `admin` and `listen` are both 127.0.0.1:7101",
            "g.toml:1: `echo` and `listen` are both 127.0.0.1:7101",
        ],
    );
    check_mistakes(
        "keep_days = 2\nkeep_inbox_days = 3\n",
        &["g.toml:2: `keep_inbox_days` is more than `keep_days`"],
    );
    parse("listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"").expect("the kernel gives two ports");
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("g.toml");
    std::fs::write(&path, "shards = 1\nlogs = 1\nconnections_max = 1\n").expect("a file");
    let environment = [("GATEHOUSE_SHARDS", "2"), ("GATEHOUSE_LOGS", "2"), ("GATEHOUSE_DATA", "")];
    let layers = Layers { file: Some(path), ..layers(&environment, &[("shards", "3")]) };
    let config = Config::load(&layers).expect("all is well");
    assert_eq!((config.shards, config.logs, config.connections_max), (Some(3), Some(2), Some(1)));
    assert_eq!(config.data, Config::default().data, "an empty variable is not set");
}

#[test]
fn mistakes_of_all_layers_are_told_together() {
    let environment =
        [("GATEHOUSE_LOGS", "two"), ("GATEHOUSE_ORIGINS", "https://a.example, https://b.example/")];
    let mut layers = layers(&environment, &[("listen", "here")]);
    layers.file = Some("/nowhere/g.toml".into());
    let mistakes = Config::load(&layers).expect_err("four mistakes").to_string();
    let starts =
        ["/nowhere/g.toml: the configuration file cannot be read", "GATEHOUSE_LOGS: ", "GATEHOUSE_ORIGINS: "];
    for (line, start) in mistakes.lines().zip(starts.into_iter().chain(["--listen: "])) {
        assert!(line.starts_with(start), "{line:?} is not {start:?}");
    }
    assert_eq!(mistakes.lines().count(), 4, "{mistakes}");
}

#[test]
fn misspelt_variables_are_noticed() {
    let environment =
        ["GATEHOUSE_LISTEN", "GATEHOUSE_LISTN", "GATEHOUSE_LOG", "GATEHOUSE_LOG_FORMAT", "GATEHOUSE_CONFIG"];
    let layers = layers(&environment.map(|name| (name, "")), &[]);
    assert_eq!(layers.unknown_variables().collect::<Vec<_>>(), ["GATEHOUSE_LISTN"]);
}

#[test]
fn what_others_can_reach_is_said_at_every_start() {
    assert_eq!(Config::default().cautions(), [""; 0]);
    let config = parse("listen = \"0.0.0.0:1\"\nadmin = \"[::]:2\"\nhs256_key_file = \"k\"").expect("a key");
    let cautions = config.cautions();
    assert!(
        cautions.len() == 2 && cautions[0].contains("no TLS") && cautions[1].contains("metrics"),
        "{cautions:?}"
    );
}

#[test]
fn no_text_makes_it_panic() {
    for length in (0..EXAMPLE.len()).filter(|length| EXAMPLE.is_char_boundary(*length)) {
        let _ = parse(&EXAMPLE[..length]);
    }
    for position in 0..EXAMPLE.len() {
        for byte in *b"\"'[]{}=#.\n\\\0" {
            let mut text = EXAMPLE.as_bytes()[position.saturating_sub(40)..].to_vec();
            text.truncate(80);
            let middle = text.len() / 2;
            text[middle] = byte;
            let _ = parse(&String::from_utf8_lossy(&text));
        }
    }
    for deep in ["a = ".to_owned() + &"[".repeat(100_000), "{a=".repeat(100_000), "a.".repeat(100_000)] {
        let mistakes = parse(&deep).expect_err("no configuration");
        assert!(mistakes.lines().all(|line| line.chars().count() < 1000), "a mistake is a line of words");
    }
}
