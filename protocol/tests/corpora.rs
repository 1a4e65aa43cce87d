//! The fuzz targets on stable: over their seeds, over every golden vector, and over what random damage
//! makes of both.

#![forbid(unsafe_code)]

#[path = "../fuzz/checks.rs"]
mod checks;

use std::{fs, path::Path};

use proptest::{prelude::*, test_runner::TestRunner};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 5] = [
    ("header", checks::header),
    ("proxy", checks::proxy),
    ("upgrade", checks::upgrade),
    ("json_command", checks::json_command),
    ("binary_command", checks::binary_command),
];

fn files(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("the file can be read")).collect()
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut seeds = files(&format!("fuzz/corpus/{name}"));
    assert!(!seeds.is_empty(), "{name} has seeds");
    for folder in ["commands", "frames", "records"] {
        seeds.extend(files(&format!("tests/golden/{folder}")));
    }
    seeds
}

#[test]
fn seeds_hold() {
    for (name, check) in TARGETS {
        seeds(name).iter().for_each(|seed| check(seed));
    }
}

/// Bytes changed, put in and cut off, anywhere in a seed.
#[test]
fn damaged_seeds_hold() {
    for (name, check) in TARGETS {
        let damage = (
            prop::sample::select(seeds(name)),
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..6),
        );
        let mut runner =
            TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) });
        let result = runner.run(&damage, |(mut bytes, changes)| {
            for (at, byte, kind) in changes {
                let at = at.index(bytes.len() + 1);
                match kind {
                    0 => bytes.insert(at, byte),
                    1 => bytes.truncate(at),
                    _ if at < bytes.len() => bytes[at] ^= byte,
                    _ => bytes.push(byte),
                }
            }
            check(&bytes);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{name}: {error}");
        }
    }
}
