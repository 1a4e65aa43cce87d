//! Names the commit that the program is built from: a figure that changed is looked for among commits.
//!
//! `abc1234`, `abc1234-dirty` where what the program is made of differs from that, `unknown` where there is no git or no repository of ours,
//! as in a tarball. It runs again when the commit or that source changes, and for nothing else: each time the program is compiled anew.
#![forbid(unsafe_code)]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// What the program is made of, of the workspace; what it depends on besides stands in the lock file.
const PARTS: [&str; 7] = [
    "Cargo.lock",
    "Cargo.toml",
    "loadgen/Cargo.toml",
    "loadgen/build.rs",
    "loadgen/src",
    "protocol/Cargo.toml",
    "protocol/src",
];
/// A git hook says by these which repository it is about, and that may be another one.
const GIT_VARIABLES: [&str; 3] = ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where it is"));
    let workspace = manifest.parent().expect("it stands in the workspace");
    for path in PARTS.iter().map(|part| workspace.join(part)).chain(places_of_head(workspace)) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let commit = commit(workspace).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=LOADGEN_COMMIT={commit}");
}

/// What the sources in `workspace` are.
pub(crate) fn commit(workspace: &Path) -> Option<String> {
    // What was unpacked somewhere in another repository is not of that one.
    git(workspace, &["ls-files", "--error-unmatch", "loadgen/build.rs"])?;
    let hash = git(workspace, &["rev-parse", "--short", "HEAD"])?;
    // `status` would write the index, for which somebody else may be waiting.
    let state = ["--no-optional-locks", "status", "--porcelain", "--"];
    let changes = git(workspace, &[&state[..], &PARTS].concat())?;
    Some(if changes.is_empty() { hash } else { format!("{hash}-dirty") })
}

/// The files that change when HEAD is another commit. One that is not there is left out: cargo would take it for changed each time.
pub(crate) fn places_of_head(workspace: &Path) -> Vec<PathBuf> {
    let directory = |which| Some(workspace.join(git(workspace, &["rev-parse", which])?));
    // In a further worktree, `.git` is a file, HEAD is in one directory and its branch in another.
    let (Some(own), Some(common)) = (directory("--git-dir"), directory("--git-common-dir")) else {
        return Vec::new();
    };
    let branch = git(workspace, &["symbolic-ref", "--quiet", "HEAD"]).map(|branch| common.join(branch));
    // A branch that is packed has no file before its next commit, which is in the log of HEAD, too.
    let places = [own.join("HEAD"), own.join("logs/HEAD"), common.join("packed-refs")];
    places.into_iter().chain(branch).filter(|path| path.is_file()).collect()
}

/// What git says; `None` where there is none, or it refuses.
fn git(workspace: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(workspace).args(arguments);
    GIT_VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
