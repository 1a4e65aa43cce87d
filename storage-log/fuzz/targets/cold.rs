//! Fuzzes a segment that was compacted: it may say anything under checksums that hold, and gets an answer.

#![forbid(unsafe_code)]
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|edits: &[u8]| checks::cold(edits));
