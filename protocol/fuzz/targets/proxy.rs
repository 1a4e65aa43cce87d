//! Fuzzes the PROXY header: any bytes give a value or a refusal, never a panic.

#![forbid(unsafe_code)]
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::proxy(bytes));
