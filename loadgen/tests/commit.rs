//! What `loadgen` says it is built from: in `--version`, and in a report.

#![forbid(unsafe_code)]

#[path = "../build.rs"]
#[allow(dead_code, reason = "what cargo calls")]
mod build;
mod support;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use support::Node;

/// A directory that is removed in the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_report_and_the_version_say_what_the_program_is_built_from() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).arg("--version").output().expect("it runs");
    let version = String::from_utf8(output.stdout).expect("text");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let commit = build::commit(workspace).unwrap_or_else(|| "unknown".to_owned());
    assert_eq!(version, format!("loadgen {} ({commit})\n", env!("CARGO_PKG_VERSION")));
    let node = Node::start("commit", &[]);
    let [json, html] = ["run.json", "run.html"].map(|file| node.directory.join(file));
    let [json_path, html_path] = [&json, &html].map(|path| path.to_str().expect("a plain path"));
    let load = ["--users", "12", "--rate", "20", "--seconds", "1", "--no-timing"];
    let files = ["--json", json_path, "--html", html_path];
    let (status, text) = node.load_at(&node.url, "run", &[&load[..], &files].concat());
    assert_eq!(status.code(), Some(0), "{text}");
    let report: Value = serde_json::from_slice(&fs::read(json).expect("written")).expect("JSON");
    assert_eq!(report["commit"], commit);
    assert!(report["machine"]["kernel"].is_string() && report["command"].is_string(), "{report}");
    let page = fs::read_to_string(html).expect("written");
    assert!(page.contains(&format!("loadgen is built from {commit}.")), "{page}");
}

/// Changes something that is there, and says what the commit is then called.
#[track_caller]
fn check(workspace: &Path, expected: &str) {
    assert_eq!(build::commit(workspace).as_deref(), Some(expected), "{}", workspace.display());
}

#[test]
fn a_commit_is_told_in_any_worktree_and_only_of_our_repository() {
    let directory = Directory(env::temp_dir().join(format!("loadgen-test-commits-{}", std::process::id())));
    let [outside, main, worktree, unpacked] =
        ["outside", "main", "worktree", "main/unpacked"].map(|name| directory.0.join(name));
    for workspace in [&outside, &main, &unpacked] {
        fs::create_dir_all(workspace.join("loadgen/src")).expect("a directory");
        fs::write(workspace.join("loadgen/build.rs"), "").expect("written");
        fs::write(workspace.join("loadgen/src/main.rs"), "").expect("written");
    }
    let git = |arguments: &[&str]| {
        let name = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
        let output = Command::new("git").arg("-C").arg(&main).args(name).args(arguments).output();
        // Where there is no git no commit is known.
        let output = output.ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).expect("text").trim().to_owned())
    };
    assert_eq!(build::commit(&outside), None);
    if git(&["init", "--quiet"]).is_none() {
        return;
    }
    git(&["add", "loadgen"]);
    assert_eq!(build::commit(&main), None, "nothing was committed");
    git(&["commit", "--quiet", "--message", "a"]);
    let first = git(&["rev-parse", "--short", "HEAD"]).expect("a hash");
    check(&main, &first);
    assert_eq!(build::commit(&unpacked), None, "it is not of this repository");
    git(&["worktree", "add", "--quiet", worktree.to_str().expect("a plain path")]);
    check(&worktree, &first);
    // Some other file, one that is new, and one that has changed.
    fs::write(worktree.join("README.md"), "").expect("written");
    check(&worktree, &first);
    fs::write(worktree.join("loadgen/src/more.rs"), "").expect("written");
    check(&worktree, &format!("{first}-dirty"));
    check(&main, &first);
    fs::write(main.join("loadgen/src/main.rs"), "//").expect("written");
    check(&main, &format!("{first}-dirty"));

    let before = read(&build::places_of_head(&main));
    assert!(before.len() > 1, "{before:?}");
    git(&["commit", "--quiet", "--all", "--message", "b"]);
    assert_ne!(read(&build::places_of_head(&main)), before, "a commit is seen");
    let before = read(&build::places_of_head(&worktree));
    assert!(before.keys().all(|place| place.is_file()) && before.len() > 1, "{before:?}");
    check(&worktree, &format!("{first}-dirty"));
}

/// What is in these files.
fn read(places: &[PathBuf]) -> std::collections::BTreeMap<PathBuf, String> {
    places.iter().map(|place| (place.clone(), fs::read_to_string(place).expect("text"))).collect()
}
