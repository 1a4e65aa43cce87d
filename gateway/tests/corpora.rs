//! The fuzz targets on stable: over their seeds, and over what random damage makes of them.

#![forbid(unsafe_code)]

#[path = "../fuzz/checks.rs"]
mod checks;

use std::fs;
use std::path::Path;

/// Damaged copies of each seed. A long run is `cargo +nightly fuzz`'s.
const TRIES: u64 = 1_500;

/// Whether bytes were understood.
type Target = (&'static str, fn(&[u8]) -> bool);

const TARGETS: [Target; 3] = [
    ("backup_manifest", checks::backup_manifest),
    ("erasures", checks::erasures),
    ("revocations", checks::revocations),
];

/// What makes a text another one that may still be understood.
const PIECES: [&str; 12] =
    ["", "0", "9", "ff", "\"", ",", "/", "..", "null", "18446744073709551615", "store.toml", "\u{0}"];

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("the file can be read")).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    /// One to three pieces put in the place of some bytes.
    fn damage(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len() + 1);
            let end = bytes.len().min(at + self.below(4));
            let piece = PIECES[self.below(PIECES.len())];
            bytes.splice(at..end, piece.bytes());
        }
        bytes
    }
}

#[test]
fn files_that_say_anything_are_understood_or_refused_and_name_nothing_outside() {
    let mut random = Random(11);
    for (name, check) in TARGETS {
        let seeds = seeds(name);
        assert_eq!(seeds.iter().filter(|seed| check(seed)).count(), 1, "{name}: one of them is sound");
        for seed in seeds {
            for _ in 0..TRIES {
                let damaged = random.damage(&seed);
                let result = std::panic::catch_unwind(|| check(&damaged));
                assert!(result.is_ok(), "{name}: {}", String::from_utf8_lossy(&damaged));
            }
        }
    }
}
