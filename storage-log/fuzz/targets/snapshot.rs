//! Fuzzes the snapshot of a log: they may say anything under checksums that hold, and get an answer.

#![forbid(unsafe_code)]
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|edits: &[u8]| checks::snapshot(edits));
