//! The binary, as a shell sees it.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use clap::CommandFactory;
use gateway::{auth::Keys, cli::Cli, clock::unix_now, config::Config, store::Store};

/// Runs the binary with nothing of our own environment in its way.
fn gatehouse(arguments: &[&str], environment: &[(&str, &OsStr)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("messages are text")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// Checks the exit code and that standard error says each of `words`.
fn check_refused(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    for word in words {
        assert!(text(&output.stderr).contains(word), "no {word:?} in {}", text(&output.stderr));
    }
}

#[test]
fn a_token_is_alone_on_the_last_line_and_the_node_takes_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let ask = ["token", "--data", path(&data), "--user", "alice", "--ttl", "60"];
    // A key that this made would be that of no node.
    check_refused(&gatehouse(&ask, &[]), &["dev.key: there is no development key", "say `--config FILE`"]);
    assert!(!data.exists(), "nothing was made");
    let config = Config { data: data.clone(), ..Config::default() };
    let keys = Keys::load(&config).expect("a node makes it");
    let output = gatehouse(&ask, &[]);
    assert!(output.status.success(), "{output:?}");
    let token = text(&output.stdout).lines().last().expect("a token");
    let verified = keys.verifier.verify(token, unix_now()).expect("a good token");
    assert_eq!(verified.user.as_str(), "alice");
    let left = verified.expires_at.0.saturating_sub(unix_now().0);
    assert!((1..=60_000).contains(&left), "{left} ms are left of a minute");
}

#[test]
fn a_token_follows_the_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let config = at.join("g.toml");
    fs::write(&config, format!("eddsa_public_key_file = {:?}\n", at.join("public.pem"))).expect("a file");
    let output = gatehouse(&["token", "--config", path(&config), "--user", "a"], &[]);
    check_refused(&output, &["public.pem: this key file could not be read: No such file"]);
    let key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA1IbL5AJRMqCMTt89oTsWq073TOQqts4VmptT0tW22SQ=\n\
               -----END PUBLIC KEY-----\n";
    fs::write(at.join("public.pem"), key).expect("a file");
    let output = gatehouse(&["token", "--user", "a"], &[("GATEHOUSE_CONFIG", config.as_os_str())]);
    check_refused(&output, &["cannot sign: set `eddsa_private_key_file`"]);
}

/// Not that a key file in it is wrong.
#[test]
fn a_data_directory_that_is_a_file_is_told_as_that() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "of mine").expect("a file");
    let words = ["--data: `data` is ", "/file, which is no directory"];
    for command in [&["serve"][..], &["token", "--user", "a"], &["upgrade"]] {
        check_refused(&gatehouse(&[command, &["--data", path(&file)]].concat(), &[]), &words);
    }
}

#[test]
fn an_upgrade_with_another_directory_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = gatehouse(&["upgrade", "--data", path(directory.path())], &[]);
    check_refused(&output, &["there is no admin.token", "is --data the directory of the node that runs?"]);
}

#[test]
fn bad_users_and_times_are_refused() {
    let user = ["token", "--data", "/nowhere", "--user"];
    for arguments in
        [&[""][..], &["a\nb"], &["a", "--ttl", "0"], &["a", "--ttl", "1000000000"], &["a", "--tt", "1"]]
    {
        let output = gatehouse(&[&user, arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

#[test]
fn check_config_says_every_mistake_and_makes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("g.toml");
    let data = directory.path().join("data");
    fs::write(&file, format!("data = {data:?}\n")).expect("a file");
    let output = gatehouse(&["check-config", path(&file)], &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(!data.exists(), "a check leaves the disk alone");

    fs::write(&file, "shard = 1\nlisten = 7100\n").expect("a file");
    let output = gatehouse(&["check-config", path(&file)], &[]);
    check_refused(
        &output,
        &["g.toml:1: `shard` is not a setting; did you mean `shards`?", "g.toml:2: `listen`"],
    );

    fs::write(&file, "listen = \"0.0.0.0:7100\"\nhs256_key_file = \"/nowhere/key\"\n").expect("a file");
    check_refused(
        &gatehouse(&["check-config", path(&file)], &[]),
        &["g.toml:2: /nowhere/key: this key file could not be read"],
    );
    check_refused(
        &gatehouse(&["check-config", "/nowhere/g.toml"], &[]),
        &["/nowhere/g.toml: the configuration file"],
    );
}

/// A start was refused, or nobody ever called, by what had been said to be right.
#[test]
fn check_config_says_what_a_start_is_refused_for_and_what_could_never_work() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, data) = (directory.path().join("g.toml"), directory.path().join("data"));
    let check = |settings: &str| {
        fs::write(&file, format!("data = {data:?}\n{settings}")).expect("a file");
        gatehouse(&["check-config", path(&file)], &[])
    };
    let [nowhere, inside] =
        [directory.path().join("nowhere"), data.clone()].map(|parent| parent.join("push"));
    check_refused(&check(&format!("push_file = {nowhere:?}\n")), &["g.toml:2: `push_file`", "no directory"]);
    check_refused(
        &check(&format!("push_file = {:?}\n", directory.path())),
        &["g.toml:2: `push_file`", "name a file"],
    );
    assert!(check(&format!("push_file = {inside:?}\n")).status.success(), "the first start makes it");
    fs::write(&file, "data = \"./not-made-yet\"\npush_file = \"not-made-yet/push\"\n").expect("a file");
    assert!(gatehouse(&["check-config", path(&file)], &[]).status.success(), "the same, in other words");

    let words = ["g.toml:2: `keep_mib` is 31, and 2 logs in segments of 4 MiB need at least 32"];
    check_refused(&check("keep_mib = 31\nlogs = 2\nsegment_mib = 4\n"), &words);
    assert!(check("keep_mib = 32\nlogs = 2\nsegment_mib = 4\n").status.success());
    // What a data directory was made with stays, whatever is set.
    drop(Store::open(&data, 2, 4 << 20).expect("a new store"));
    check_refused(&check("keep_mib = 31\n"), &words);
}

/// Of an upgrade some of another version may be left: it goes on.
#[test]
fn a_misspelt_variable_is_told_by_its_name_when_a_configuration_is_checked_and_by_the_doctor() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, data) = (directory.path().join("g.toml"), directory.path().join("data"));
    fs::write(&file, format!("data = {data:?}\n")).expect("a file");
    let (secret, known) = (OsStr::new("s3cr3t"), ("GATEHOUSE_SHARDS", OsStr::new("2")));
    let misspelt = [known, ("GATEHOUSE_ADMIN_TOKEN", secret), ("GATEHOUSE_", secret)];
    for variables in [&misspelt[..1], &misspelt] {
        let output = gatehouse(&["check-config", path(&file)], variables);
        assert!(output.status.success(), "{output:?}");
        let lines: Vec<&str> = text(&output.stderr).lines().collect();
        assert_eq!(lines.len(), variables.len() - 1, "{lines:?}");
        for (name, _) in &variables[1..] {
            let line =
                format!("gatehouse: {name}: this variable is none of ours and does nothing; is it misspelt?");
            assert!(lines.contains(&line.as_str()), "{lines:?}");
        }
        let report = gatehouse(&["doctor", "--config", path(&file), "--json"], variables);
        let checks: serde_json::Value = serde_json::from_slice(&report.stdout).expect("JSON");
        let check = checks.as_array().expect("checks").iter().find(|check| check["name"] == "variables");
        let check = check.expect("there are some");
        let verdict = if variables.len() == 1 { "good" } else { "warning" };
        assert_eq!(check["verdict"], verdict, "{check}");
        let found = check["found"].as_str().expect("text");
        assert!(variables[1..].iter().all(|(name, _)| found.contains(name)), "{check}");
        assert!(!text(&report.stdout).contains("s3cr3t") && !text(&output.stderr).contains("s3cr3t"));
    }
}

/// What is wrong with a key file is told where the setting that names it stands, beside all other mistakes.
#[test]
fn mistakes_in_key_files_have_a_line_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let (file, short, open) = (at("g.toml"), at("short.key"), at("open.token"));
    for (path, content, mode) in
        [(&short, "short", 0o600), (&open, "0123456789abcdef0123456789abcdef", 0o644)]
    {
        fs::write(path, content).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our file");
    }
    let settings = format!("shard = 1\nhs256_key_file = {short:?}\nadmin_token_file = {open:?}\n");
    fs::write(&file, settings).expect("a file");
    let words = [
        "g.toml:1: `shard` is not a setting",
        &format!("g.toml:2: {}: ", short.display()),
        &format!("g.toml:3: {}: ", open.display()),
        "chmod 600",
    ];
    check_refused(&gatehouse(&["check-config", path(&file)], &[]), &words);
    check_refused(&gatehouse(&["--config", path(&file)], &[]), &words);

    let settings = "eddsa_public_key_file = \"/nowhere/a\"\neddsa_private_key_file = \"/nowhere/b\"\n";
    fs::write(&file, settings).expect("a file");
    let words = ["g.toml:1: /nowhere/a: ", "g.toml:2: /nowhere/b: "];
    check_refused(&gatehouse(&["check-config", path(&file)], &[]), &words);
    let variable = ("GATEHOUSE_ADMIN_TOKEN_FILE", OsStr::new("/nowhere/c"));
    check_refused(
        &gatehouse(&["check-config", path(&file)], &[variable]),
        &["GATEHOUSE_ADMIN_TOKEN_FILE: /nowhere/c: "],
    );
}

#[test]
fn a_start_is_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    for (arguments, words) in [
        (
            &["--listen", "0.0.0.0:7100"][..],
            "--listen: `listen` is 0.0.0.0:7100, which other machines can reach",
        ),
        (&["serve", "--echo", "[::]:7102"], "--echo: `echo` is [::]:7102"),
        (&["--shards", "many"], "--shards: `shards` must be a whole number from 1 to 128"),
        (&["--port", "1"], "unexpected argument '--port'"),
        (&["start"], "unrecognized subcommand 'start'"),
    ] {
        let data = ("GATEHOUSE_DATA", data.as_os_str());
        check_refused(&gatehouse(arguments, &[data]), &[words]);
    }
    let output = gatehouse(&[], &[("GATEHOUSE_LOG_FORMAT", OsStr::new("xml"))]);
    check_refused(&output, &["GATEHOUSE_LOG_FORMAT: must be text or json, not \"xml\""]);
    let output = gatehouse(&[], &[("GATEHOUSE_LOG", OsStr::new("gateway=loud"))]);
    check_refused(&output, &["GATEHOUSE_LOG: "]);
    assert!(!data.exists());
}

#[test]
fn help_fits_a_screen_and_shows_an_example_and_the_exit_codes() {
    Cli::command().debug_assert();
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["token", "--help"],
        &["check-config", "--help"],
        &["doctor", "--help"],
        &["log", "--help"],
        &["log", "backup", "--help"],
        &["log", "dump", "--help"],
        &["log", "repair", "--help"],
        &["log", "restore", "--help"],
        &["log", "stat", "--help"],
        &["log", "verify", "--help"],
        &["upgrade", "--help"],
    ] {
        let output = gatehouse(command, &[("COLUMNS", OsStr::new("80"))]);
        let help = text(&output.stdout);
        assert!(output.status.success());
        assert!(help.lines().count() <= 24, "{command:?} has {} lines", help.lines().count());
        // Only how it is called may be longer.
        let mut lines = help.lines().filter(|line| !line.starts_with("Usage:"));
        assert!(lines.all(|line| line.chars().count() <= 80), "{help}");
        let (_, notes) = help.split_once("Example: ").expect("an example");
        let lines: Vec<&str> = notes.lines().collect();
        let example = lines.iter().take_while(|line| line.ends_with('\\')).count() + 1;
        assert!(
            lines[example].starts_with("Exit codes: ") || lines[example].starts_with("Settings: "),
            "{help}"
        );
    }
}
