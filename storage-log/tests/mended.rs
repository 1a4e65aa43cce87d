//! The fuzz targets on stable, over noise: files that say anything under checksums that hold.

#![forbid(unsafe_code)]

#[path = "../fuzz/checks.rs"]
mod checks;

/// Tries of each target. A long run is `cargo +nightly fuzz`'s.
const TRIES: u64 = 600;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 6] = [
    ("cold", checks::cold),
    ("segments", checks::segments),
    ("indexes", checks::indexes),
    ("rebuilt", checks::rebuilt),
    ("snapshot", checks::snapshot),
    ("states", checks::states),
];

/// An index file whose last position came before its first was subtracted from.
const POSITIONS_BACKWARDS: [u8; 12] = [66, 251, 205, 63, 196, 212, 198, 192, 184, 128, 124, 50];

/// Highest bytes of the sequence, the count and the position of the first record of each segment: behind its header and that of
/// its batch.
const RECORD: u16 = 4096 + 64;
const HIGHEST_BYTES: [u16; 3] = [RECORD + 71, RECORD + 87, RECORD + 15];

/// The lowest byte of the sequence, which may be 1.
const LOWEST_BYTE: u16 = RECORD + 64;

#[test]
fn a_record_whose_numbers_pass_six_bytes_or_are_none_is_in_no_index_that_is_made_again() {
    for file in 0..5 {
        for at in HIGHEST_BYTES {
            let [low, high] = at.to_le_bytes();
            checks::rebuilt(&[low, high, 1, file]);
        }
        let [low, high] = LOWEST_BYTE.to_le_bytes();
        checks::rebuilt(&[low, high, 1, file]);
    }
}

#[test]
fn what_files_say_is_an_answer_and_never_a_panic() {
    checks::indexes(&POSITIONS_BACKWARDS);
    let mut random = 7_u64;
    for (name, check) in TARGETS {
        check(&[]);
        for attempt in 0..TRIES {
            let bytes = 4 * (1 + attempt as usize % 6);
            let edits: Vec<u8> = (0..bytes)
                .map(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (random >> 40) as u8
                })
                .collect();
            let result = std::panic::catch_unwind(|| check(&edits));
            assert!(result.is_ok(), "{name}: {edits:?}");
        }
    }
}
