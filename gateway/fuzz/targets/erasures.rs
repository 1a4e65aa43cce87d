//! Fuzzes the list of what was erased: it may say anything, and is understood or refused.

#![forbid(unsafe_code)]
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::erasures(bytes);
});
