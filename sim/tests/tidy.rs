//! House law: what a reviewer would say again and again, said once.

use std::fs;
use std::path::{Path, PathBuf};

/// A function fits a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// A file is read in one go. Tests stand at its end and do not count.
const FILE_LINES_MAX: usize = 800;

/// Crates, and what of ours each may depend on. One direction only.
const ARROWS: [(&str, &[&str]); 8] = [
    ("protocol", &[]),
    ("ring", &[]),
    ("storage-log", &[]),
    ("router", &["protocol", "storage-log"]),
    ("gateway", &["router", "storage-log", "protocol", "ring"]),
    ("loadgen", &["protocol"]),
    ("sim", &["gateway", "router", "storage-log", "protocol", "ring"]),
    ("benches", &["gateway", "router", "storage-log", "protocol", "ring"]),
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

#[test]
fn unsafe_code_stays_behind_the_fence() {
    for (name, _) in ARROWS.iter().filter(|(name, _)| *name != "ring") {
        let source = root().join(name).join("src");
        for file in ["lib.rs", "main.rs"] {
            let Ok(text) = fs::read_to_string(source.join(file)) else {
                continue;
            };
            let is_binary_of_a_library = file == "main.rs" && source.join("lib.rs").exists();
            let forbids = text.contains("#![forbid(unsafe_code)]");
            assert!(forbids || is_binary_of_a_library, "{name}/src/{file} does not forbid unsafe code");
        }
    }
}

#[test]
fn arrows_point_one_way() {
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).expect("dependencies");
        let dependencies = dependencies.split("[dev-dependencies]").next().expect("a part");
        for (other, _) in ARROWS {
            let depends = dependencies.lines().any(|line| line.starts_with(&format!("{other}.")));
            assert!(!depends || allowed.contains(&other), "{name} must not depend on {other}");
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
        let may = path.ends_with("driver.rs") || path.ends_with("node.rs");
        assert!(!in_gateway || !uses_the_ring || may, "{} drives a ring", path.display());
    }
}
