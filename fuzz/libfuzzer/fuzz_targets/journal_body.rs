//! libFuzzer's entry to `fuzz::journal_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::journal_body(data));
