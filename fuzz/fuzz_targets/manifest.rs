//! See `codit_fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codit_fuzz::run("manifest", data));
