//! Fuzzes the files that say how far scrubbing and erasing have got: they may say anything under a checksum that holds.

#![forbid(unsafe_code)]
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|edits: &[u8]| checks::states(edits));
