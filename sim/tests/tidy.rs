//! House law: what a reviewer would say again and again, said once.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// A function fits a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// A file is read in one go. Tests stand at its end and do not count.
const FILE_LINES_MAX: usize = 800;

/// Crates, and what of ours each may depend on. One direction only.
const ARROWS: [(&str, &[&str]); 9] = [
    ("protocol", &[]),
    ("ring", &[]),
    ("storage-log", &[]),
    ("router", &["protocol", "storage-log"]),
    ("search", &[]),
    ("gateway", &["router", "search", "storage-log", "protocol", "ring"]),
    ("loadgen", &["protocol"]),
    ("sim", &["gateway", "router", "storage-log", "protocol", "ring"]),
    ("benches", &["gateway", "router", "search", "storage-log", "protocol", "ring"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("sim stands in the workspace").to_owned()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for (name, _) in ARROWS {
        sources(&root().join(name), &mut found);
    }
    assert!(found.len() > 50, "the sources were found");
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("UTF-8"))).collect()
}

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    for (path, text) in all_sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let indent = line.len() - code.len();
            let words = code
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ");
            let words =
                words.trim_start_matches("const ").trim_start_matches("async ").trim_start_matches("unsafe ");
            if !words.starts_with("fn ") || code.ends_with(';') {
                continue;
            }
            let end = lines[start..].iter().position(|line| line.len() > indent && &line[indent..] == "}");
            let end = end.filter(|end| lines[start + end][..indent].trim().is_empty()).unwrap_or(0);
            if end + 1 > FUNCTION_LINES_MAX {
                long.push(format!("{}:{} {} lines", path.display(), start + 1, end + 1));
            }
        }
    }
    assert!(long.is_empty(), "functions over {FUNCTION_LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn files_are_read_in_one_go() {
    for (path, text) in all_sources() {
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
    }
}

/// What the compiler begins with, of all sources of a crate: what it forbids there holds in all that belongs to it.
fn is_crate_root(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let folder = |up: usize| {
        path.ancestors().nth(up).and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
    };
    match folder(1) {
        "src" => ["lib.rs", "main.rs"].contains(&name),
        "bin" | "tests" | "benches" | "examples" | "fuzz" | "targets" => true,
        _ => name == "main.rs" && ["tests", "benches", "examples", "bin"].contains(&folder(2)),
    }
}

#[test]
fn unsafe_code_stays_behind_the_fence() {
    let mut roots = 0;
    for (path, text) in all_sources() {
        if path.starts_with(root().join("ring")) || !is_crate_root(&path) {
            continue;
        }
        roots += 1;
        let forbids = text.lines().any(|line| line == "#![forbid(unsafe_code)]");
        assert!(forbids, "{} does not forbid unsafe code", path.display());
    }
    assert!(roots > 30, "the roots were found: {roots}");
}

/// What a manifest names under `[dependencies]`, `[dev-dependencies]`, `[build-dependencies]` and those of a target, as
/// `name.workspace = true`, `name = { … }` or `[dependencies.name]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut within = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            within = section.ends_with("dependencies");
            if let Some((_, name)) =
                section.rsplit_once('.').filter(|(table, _)| table.ends_with("dependencies"))
            {
                names.push(name.trim_matches('"').to_owned());
            }
        } else if within {
            let name: String = line.chars().take_while(|c| !['.', '=', ' '].contains(c)).collect();
            names.push(name.trim_matches('"').to_owned());
            // Under another name it is the same crate.
            let renamed = line.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
            names.extend(renamed.map(str::to_owned));
        }
    }
    names
}

#[test]
fn dependencies_are_found_however_they_are_written() {
    let manifest = r#"
        [package]
        name = "a"
        [dependencies]
        b.workspace = true
        c = { path = "../c" }
        d={ workspace = true }
        "e" = "1"
        f = { package = "g", path = "../g" }
        [dev-dependencies]
        h = { path = "../h" }
        [target.'cfg(unix)'.dependencies]
        i.path = "../i"
        [dependencies.j]
        path = "../j"
        [lints]
        workspace = true
    "#;
    let found = dependencies(manifest);
    let found: Vec<&str> = found.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    assert_eq!(found, ["b", "c", "d", "e", "f", "g", "h", "i", "j"]);
}

#[test]
fn arrows_point_one_way() {
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest");
        let found = dependencies(&manifest);
        for arrow in allowed {
            assert!(found.iter().any(|found| found == arrow), "{name} does not depend on {arrow} any more");
        }
        for (other, _) in ARROWS.iter().filter(|(other, _)| *other != name) {
            let depends = found.iter().any(|found| found == other);
            assert!(!depends || allowed.contains(other), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn nothing_is_left_undone() {
    // Spelt in two parts so that this file does not find itself.
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
        concat!("dbg", "!("),
        // A panic is no answer: a test says what comes out.
        concat!("should", "_panic"),
    ];
    for (path, text) in all_sources() {
        for word in words {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn a_file_opens_by_saying_what_it_is() {
    for (path, text) in all_sources() {
        let first = text.lines().find(|line| !line.starts_with("#!") && !line.is_empty()).unwrap_or_default();
        assert!(first.starts_with("//!"), "{} does not open with //!", path.display());
    }
}

#[test]
fn only_the_driver_turns_actions_into_operations() {
    for (path, text) in all_sources() {
        let in_gateway = path.starts_with(root().join("gateway/src"));
        let uses_the_ring = text.contains("Ring::new(") || text.contains("use ring::{Completion");
        let may = path.ends_with("driver.rs") || path.ends_with("node/shards.rs");
        assert!(!in_gateway || !uses_the_ring || may, "{} drives a ring", path.display());
    }
}
