//! Fuzzes the manifest of a backup: it may say anything, and names nothing outside of a backup and a data directory.

#![forbid(unsafe_code)]
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::backup_manifest(bytes);
});
