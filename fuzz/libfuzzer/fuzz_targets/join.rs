//! libFuzzer's entry to `fuzz::join`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::join(data));
